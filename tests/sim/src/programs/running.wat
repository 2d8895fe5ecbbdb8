;; Writes `n`, `device`, how many rows of the device there were with this one, and the `n` of the one before.
;; Its input has `ts`, `device`, `n` and `v`; under the name of each device it keeps both numbers.
(func $init (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))
(func $on_timer (param i32 i32) (result i32) (i32.const 16))
;; Column `$field` of what is written, a whole number at `$value`.
(func $number (param $at i32) (param $field i32) (param $value i32)
  (i32.store (local.get $at) (local.get $field))
  (i32.store offset=4 (local.get $at) (i32.const 0))
  (i32.store8 offset=16 (local.get $at) (i32.const 1))
  (i32.store offset=20 (local.get $at) (local.get $value))
  (i32.store offset=24 (local.get $at) (i32.const 1)))
(func $on_batch (param $input i32) (param $rows i32) (param $columns i32) (param $many i32) (result i32)
  (local $row i32) (local $offset i32) (local $device i32) (local $length i32) (local $kept i32)
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
      (local.set $offset
        (i32.add (i32.load offset=48 (local.get $columns)) (i32.shl (local.get $row) (i32.const 2))))
      (local.set $device
        (i32.add (i32.load offset=56 (local.get $columns)) (i32.load (local.get $offset))))
      (local.set $length
        (i32.sub (i32.load offset=4 (local.get $offset)) (i32.load (local.get $offset))))
      ;; What is kept: 200 how many rows, 208 `n` of the last one. 216 is that before, and 224 whether there was one.
      (i64.store (i32.const 200) (i64.const 1))
      (i64.store (i32.const 216) (i64.const 0))
      (call $get (local.get $device) (local.get $length) (i32.const 48))
      (i32.store8 (i32.const 224) (i32.load8_u (i32.const 48)))
      (if (i32.load8_u (i32.const 48))
        (then
          (local.set $kept (i32.load (i32.const 52)))
          (i64.store (i32.const 200) (i64.add (i64.load (local.get $kept)) (i64.const 1)))
          (i64.store (i32.const 216) (i64.load offset=8 (local.get $kept)))))
      (i64.store (i32.const 208)
        (i64.load
          (i32.add (i32.load offset=80 (local.get $columns)) (i32.shl (local.get $row) (i32.const 3)))))
      (call $set (local.get $device) (local.get $length) (i32.const 200) (i32.const 16))
      (call $number (i32.const 256) (i32.const 0) (i32.const 208))
      (i32.store (i32.const 232) (i32.const 0))
      (i32.store (i32.const 236) (local.get $length))
      (i32.store (i32.const 292) (i32.const 1))
      (i32.store (i32.const 296) (i32.const 0))
      (i32.store8 (i32.const 308) (i32.const 4))
      (i32.store (i32.const 312) (i32.const 232))
      (i32.store (i32.const 316) (i32.const 2))
      (i32.store (i32.const 320) (local.get $device))
      (i32.store (i32.const 324) (local.get $length))
      (call $number (i32.const 328) (i32.const 2) (i32.const 200))
      (call $number (i32.const 364) (i32.const 3) (i32.const 216))
      (i32.store8 (i32.const 368) (i32.const 1))
      (i32.store (i32.const 372) (i32.const 224))
      (i32.store (i32.const 376) (i32.const 1))
      (i32.store (i32.const 120) (local.get $row))
      (call $write (i32.const 0) (i32.const 120) (i32.const 1) (i32.const 256) (i32.const 4))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (i32.const 16))
