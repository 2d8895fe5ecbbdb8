//! What scripts see of rows, and what becomes of those that they write.

use super::*;

#[test]
fn a_threshold_writes_for_the_rows_that_pass_it() {
    let script = on_tank(
        "fn on_row(row, state) { if row.temperature != () && row.temperature > 80.0 { write(\"pump\", #{ run: true \
         }); } }",
    );
    let readings =
        [("a", Some(81.5), None), ("b", Some(20.0), None), ("c", None, None), ("d", Some(90.0), None)];
    for most in [1, 3, 10] {
        let out = feed(&mut *rule(&script), &tank(0, &readings), most);
        assert_eq!(listing(&out.rows), ["0 pump run=true", "3 pump run=true"]);
        assert_eq!((out.bad_rows, out.log.len()), (0, 0));
    }
}

#[test]
fn every_type_of_column_is_seen_and_written() {
    let out = three(
        "fn on_row(row, state) { write(\"uplink\", #{ t: row.temperature, n: row.count, on: row.running, d: row.device, \
         at: row.ts }); }",
    );
    assert_eq!(
        listing(&out.rows),
        [
            "0 uplink at=0 d=a n=4 on=true t=81.5 ts=00:00:00Z",
            "1 uplink at=1000000000 d=b n=- on=false t=20.0 ts=00:00:01Z",
            "2 uplink at=2000000000 d=a n=5 on=- t=- ts=00:00:02Z",
        ]
    );
}

#[test]
fn a_stream_gets_the_columns_that_it_declares() {
    let out = three("fn on_row(row, state) { write(\"hot\", #{ mean: row.count, device: row.device }); }");
    assert_eq!(
        listing(&out.rows),
        [
            "0 hot ts=00:00:00Z device=a mean=4.0 n=-",
            "1 hot ts=00:00:01Z device=b mean=- n=-",
            "2 hot ts=00:00:02Z device=a mean=5.0 n=-",
        ]
    );
    let given = three("fn on_row(row, state) { write(\"hot\", #{ ts: row.ts + duration(\"1s\") }); }");
    assert_eq!(listing(&given.rows)[0], "0 hot ts=00:00:01Z device=- mean=- n=-");
}

#[test]
fn an_error_costs_its_row_and_nothing_else() {
    for (body, error) in [
        (
            "if row.temperature > 80.0 { write(\"pump\", #{ run: true }); }",
            "rule.rhai:3:44: `>` cannot compare a missing value, `()`, with float64; ask first whether it is there: `x \
             != ()`, or give it a value: `x ?? 0.0`; row: ts: 2000000000, device: \"a\", count: 5, running: (), \
             temperature: ()",
        ),
        (
            "write(\"pump\", #{ run: row.temperature + 1.0 > 80.0 });",
            "rule.rhai:3:63: `+` cannot take a missing value, `()`; ask first whether it is there: `x != ()`, or give \
             it a value: `x ?? 0.0`",
        ),
        (
            "write(\"pump\", #{ run: row.temperature == 81.5 }); if row.running { state.x = 1; }",
            "rule.rhai:3:81: this must be bool, and is ()",
        ),
        (
            "let x = 10 / (row.count ?? 1 - 5); write(\"pump\", #{ run: row.temperature > 80 });",
            "rule.rhai:3:",
        ),
        (
            "write(\"pump\", #{ run: (row.temperature ?? \"none\") == 81.5 });",
            "rule.rhai:3:75: `==` cannot compare utf8 with float64; make the text a number: `x.parse_float()`",
        ),
        (
            "let x = row.temperature; write(\"pump\", #{ run: x == 81.5 }); clamp(x, 0, 1);",
            "rule.rhai:3:86: `clamp` cannot compare missing: `()` with int64",
        ),
        (
            "if row.device == \"a\" && row.temperature == () { throw \"no sensor\"; } write(\"pump\", #{ run: \
          row.temperature == 81.5 });",
            "rule.rhai:3:73: no sensor; row: ",
        ),
    ] {
        let out = three(&format!("fn on_row(row, state) {{ {body} }}"));
        assert_eq!(out.bad_rows, 1, "{body} {:?}", out.bad_row);
        let said = out.bad_row.unwrap();
        assert!(said.starts_with(error), "{body}: {said}");
        let written = listing(&out.rows);
        assert_eq!(written.first().map(String::as_str), Some("0 pump run=true"), "{body}");
    }
}

#[test]
fn a_place_within_a_function_says_who_called_it() {
    let out =
        three("fn on_row(row, state) {\n  check(row);\n}\nfn check(r) {\n  if r.temperature > 5 { }\n}");
    let said = out.bad_row.unwrap();
    assert!(said.starts_with("rule.rhai:7:20: `>` cannot compare"), "{said}");
    assert!(said.contains(", in `check`, called in line 4; row: "), "{said}");
}

#[test]
fn what_does_not_fit_a_target_is_an_error_of_the_row() {
    let out = three("fn on_row(row, state) { let x = row.device; write(\"pump\", #{ speed: x }); }");
    assert_eq!((out.bad_rows, out.rows.len()), (3, 0));
    let said = out.bad_row.unwrap();
    assert!(
        said.starts_with("rule.rhai:3:45: column `speed` is utf8, but output `pump` declares it float64"),
        "{said}"
    );
    let out = three("fn on_row(row, state) { let x = row.device; write(x, #{ speed: 1 }); }");
    assert!(out.bad_row.unwrap().contains("`a` is not among the targets of the option `writes`"));
    let out = three("fn on_row(row, state) { let x = [1]; write(\"uplink\", #{ x: x }); }");
    assert!(out.bad_row.unwrap().contains("column `x` is a list, [1]: write a number"));
}

#[test]
fn a_script_can_read_several_streams() {
    let script = "//! reads = [\"tank\", \"valve\"]\n//! writes = [\"pump\"]\nfn on_row(stream, row, state) { if stream == \
                  \"valve\" { state.open = row.position; } else { write(\"pump\", #{ speed: state.open ?? 0, run: \
                  row.running }); } }";
    let mut rule = rule(script);
    assert_eq!(rule.flows().len(), 2);
    let mut out = Emissions::default();
    rule.on_batch("tank", &tank(0, &[("a", Some(81.5), None)]), When::at(0), &mut out).unwrap();
    rule.on_batch("valve", &valve(1, 40.0), When::at(0), &mut out).unwrap();
    rule.on_batch("tank", &tank(2, &[("a", Some(20.0), None)]), When::at(0), &mut out).unwrap();
    assert_eq!(listing(&out.rows), ["0 pump run=true speed=0.0", "2 pump run=false speed=40.0"]);
    // A column of the other stream.
    let script = script.replace("state.open = row.position", "state.open = row.temperature");
    let mut rule = self::rule(&script);
    rule.on_batch("valve", &valve(1, 40.0), When::at(0), &mut out).unwrap();
    let said = out.bad_row.unwrap();
    assert!(
        said.contains("the row has no column `temperature`; known names: `ts`, `device`, `position`"),
        "{said}"
    );
}

#[test]
fn rows_of_a_batch_are_written_with_their_own_numbers() {
    let body = "fn on_batch(rows, state) { for row in rows { if row.count != () { write(\"pump\", #{ speed: row.count }); } \
                } log(rows.len()); }";
    let out = three(body);
    assert_eq!(listing(&out.rows), ["0 pump speed=4.0", "2 pump speed=5.0"]);
    assert_eq!(out.log[0].text, "3");
    // The whole batch is lost with one of its rows.
    let out = three(
        "fn on_batch(rows, state) { for row in rows { write(\"pump\", #{ run: row.temperature > 80 }); } }",
    );
    assert_eq!((out.bad_rows, out.rows.len()), (3, 0));
}

#[test]
fn constants_are_seen_in_functions() {
    let out = three(
        "const HIGH = 80.0;\nconst NAMES = [\"a\"];\nconst PAUSE = duration(\"2s\") * 2;\nfn on_row(row, state) { if \
         (row.temperature ?? 0.0) > HIGH && row.device in NAMES { write(\"hot\", #{ n: PAUSE }); } }",
    );
    assert_eq!(listing(&out.rows), ["0 hot ts=00:00:00Z device=- mean=- n=4000000000"]);
}

#[test]
fn what_is_said_is_bounded() {
    let out =
        three("fn on_row(row, state) { for i in 0..60 { log(`${i} ${row.device}`); } print(#{ a: 1 }); }");
    assert_eq!(out.log.len(), 101);
    assert_eq!(out.log[0].text, "0 a");
    assert_eq!(out.log[100].text, "83 more lines were left out");
}

/// The order of rows, and so their identities, do not depend on where batches were cut, though a row writes to
/// several targets, and rows of several kinds.
#[test]
fn cuts_make_no_difference() {
    let script = on_tank(
        "fn on_row(row, state) { state.n = (state.n ?? 0) + 1; write(\"uplink\", #{ n: state.n }); if state.n % 3 == 0 { \
         write(\"uplink\", #{ a: 1.5 }); } write(\"pump\", #{ run: true }); write(\"uplink\", #{ n: -state.n }); if \
         state.n % 2 == 0 { write(\"pump\", #{ speed: state.n }); } }",
    );
    let readings: Vec<Reading> = (0..20).map(|n| ("a", Some(f64::from(n)), None)).collect();
    let by_identity = |most| {
        let mut rule = rule(&script);
        let rows = tank(0, &readings);
        let mut all = Vec::new();
        for at in (0..rows.len()).step_by(most) {
            let out = feed(&mut *rule, &rows.slice(at, most.min(rows.len() - at)), most);
            let ordinals = Emissions::ordinals(&out.rows);
            for (emission, ordinals) in out.rows.iter().zip(ordinals) {
                let lines = listing(std::slice::from_ref(emission));
                all.extend(ordinals.into_iter().zip(lines).map(|(ordinal, line)| {
                    let (seq, rest) = line.split_once(' ').unwrap();
                    (seq.parse::<u64>().unwrap(), ordinal, rest.to_owned())
                }));
            }
        }
        all.sort();
        all
    };
    let whole = by_identity(20);
    assert!(whole.len() > 60);
    for most in [1, 2, 3, 7] {
        assert_eq!(by_identity(most), whole);
    }
}
