//! What scripts see of rows, and what becomes of those that they write.

use super::*;

#[test]
fn a_threshold_writes_for_the_rows_that_pass_it() {
    let script = on_tank(
        "fn on_row(row, state) { if row.temperature != () && row.temperature > 80.0 { write(\"pump\", #{ run: true \
         }); } }",
    );
    let rows = tank(
        0,
        &[("a", Some(81.5), None), ("b", Some(20.0), None), ("c", None, None), ("d", Some(90.0), None)],
    );
    for most in [1, 3, 10] {
        let out = feed(&mut *rule(&script), &rows, most);
        assert_eq!(listing(&out.rows), ["0 pump run=true", "3 pump run=true"]);
        assert_eq!((out.bad_rows, out.log.len()), (0, 0));
    }
}
