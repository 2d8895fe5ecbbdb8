;; Counts its rows under `n`, and writes time and count for each to target 0; says so in the log. A negative
;; temperature sets the timer `n` for a second from now, which then writes the count with the time 0.
;; The values of column `$at`, whichever they are.
(func $values (param $columns i32) (param $at i32) (result i32)
  (i32.load offset=16 (i32.add (local.get $columns) (i32.shl (local.get $at) (i32.const 5)))))
;; Column `$field` of what is written: one value at `$value`, of the case `$case`.
(func $column (param $at i32) (param $field i32) (param $case i32) (param $value i32)
  (i32.store (local.get $at) (local.get $field))
  (i32.store offset=4 (local.get $at) (i32.const 0))
  (i32.store8 offset=16 (local.get $at) (local.get $case))
  (i32.store offset=20 (local.get $at) (local.get $value))
  (i32.store offset=24 (local.get $at) (i32.const 1)))
(data (i32.const 1040) "n")
(data (i32.const 1048) "counted")
(func $init (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))
;; Puts the count at 200.
(func $count
  (call $get (i32.const 1040) (i32.const 1) (i32.const 48))
  (i64.store (i32.const 200) (i64.const 0))
  (if (i32.load8_u (i32.const 48)) (then (i64.store (i32.const 200) (i64.load (i32.load (i32.const 52)))))))
(func $say (param $cause i32) (param $time i32)
  (i32.store (i32.const 120) (local.get $cause))
  (call $column (i32.const 128) (i32.const 0) (i32.const 3) (local.get $time))
  (call $column (i32.const 164) (i32.const 1) (i32.const 1) (i32.const 200))
  (call $write (i32.const 0) (i32.const 120) (i32.const 1) (i32.const 128) (i32.const 2)))
(func $on_timer (param i32 i32) (result i32)
  (i64.store (i32.const 208) (i64.const 0))
  (call $count)
  (call $say (i32.const 0) (i32.const 208))
  (i32.const 16))
(func $on_batch (param $input i32) (param $rows i32) (param $columns i32) (param $many i32) (result i32)
  (local $row i32)
  (call $log (i32.const 1) (i32.const 1048) (i32.const 7))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
      (call $count)
      (i64.store (i32.const 200) (i64.add (i64.load (i32.const 200)) (i64.const 1)))
      (call $set (i32.const 1040) (i32.const 1) (i32.const 200) (i32.const 8))
      (call $say (local.get $row)
        (i32.add (call $values (local.get $columns) (i32.const 0)) (i32.shl (local.get $row) (i32.const 3))))
      (if (f64.lt
          (f64.load
            (i32.add (call $values (local.get $columns) (i32.const 1)) (i32.shl (local.get $row) (i32.const 3))))
          (f64.const 0))
        (then (call $after (i64.const 1000000000) (i32.const 1040) (i32.const 1))))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (i32.const 16))
