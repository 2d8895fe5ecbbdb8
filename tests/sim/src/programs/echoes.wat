;; Writes `n` of rows whose `v` is at least 50, and how long it has held them, a second and a half after they
;; came. Its input has `ts`, `device`, `n` and `v`; under ten digits of `n`, which is a timer as well, it keeps
;; when a row came.
(func $init (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))
(func $number (param $at i32) (param $field i32) (param $value i32)
  (i32.store (local.get $at) (local.get $field))
  (i32.store offset=4 (local.get $at) (i32.const 0))
  (i32.store8 offset=16 (local.get $at) (i32.const 1))
  (i32.store offset=20 (local.get $at) (local.get $value))
  (i32.store offset=24 (local.get $at) (i32.const 1)))
;; Puts ten digits at 240.
(func $digits (param $n i64)
  (local $at i32)
  (local.set $at (i32.const 250))
  (loop $next
    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
    (i64.store8 (local.get $at) (i64.add (i64.rem_u (local.get $n) (i64.const 10)) (i64.const 48)))
    (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
    (br_if $next (i32.gt_u (local.get $at) (i32.const 240)))))
(func $on_batch (param $input i32) (param $rows i32) (param $columns i32) (param $many i32) (result i32)
  (local $row i32)
  (i64.store (i32.const 200) (call $now))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
      (if (i64.ge_s
          (i64.load
            (i32.add (i32.load offset=112 (local.get $columns)) (i32.shl (local.get $row) (i32.const 3))))
          (i64.const 50))
        (then
          (call $digits
            (i64.load
              (i32.add (i32.load offset=80 (local.get $columns)) (i32.shl (local.get $row) (i32.const 3)))))
          (call $set (i32.const 240) (i32.const 10) (i32.const 200) (i32.const 8))
          (call $after (i64.const 1500000000) (i32.const 240) (i32.const 10))))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (i32.const 16))
(func $on_timer (param $tag i32) (param $length i32) (result i32)
  (local $at i32) (local $n i64)
  (loop $next
    (local.set $n
      (i64.add
        (i64.mul (local.get $n) (i64.const 10))
        (i64.sub (i64.load8_u (i32.add (local.get $tag) (local.get $at))) (i64.const 48))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $length))))
  (call $get (local.get $tag) (local.get $length) (i32.const 48))
  (i64.store (i32.const 200) (local.get $n))
  (i64.store (i32.const 208) (i64.sub (call $now) (i64.load (i32.load (i32.const 52)))))
  (call $remove (local.get $tag) (local.get $length))
  (call $number (i32.const 256) (i32.const 0) (i32.const 200))
  (call $number (i32.const 292) (i32.const 1) (i32.const 208))
  (i32.store (i32.const 120) (i32.const 0))
  (call $write (i32.const 0) (i32.const 120) (i32.const 1) (i32.const 256) (i32.const 2))
  (i32.const 16))
