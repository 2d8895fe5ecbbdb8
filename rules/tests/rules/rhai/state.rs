//! What scripts keep.

use super::*;

/// A script that uses all functions that remember, and writes what they give.
const REMEMBERS: &str = "fn on_row(row, state) {
  let t = row.temperature;
  write(\"uplink\", #{
    hot: hysteresis(state, \"hot\", t, 70, 80),
    band: deadband(state, \"t\", t, 5),
    rises: rising(state, \"on\", row.running),
    falls: falling(state, \"on\", row.running),
    differs: changed(state, \"t\", t),
    new5: changed(state, \"t5\", t, 5),
    held: held(state, \"on\", row.running, \"2s\"),
    calm: debounce(state, \"on\", row.running, \"2s\"),
    since: since(state, \"on\", row.running),
    mean: moving_average(state, \"t\", t, 2),
    slow: ewma(state, \"t\", t, 0.5),
    grown: increase(state, \"n\", row.count),
    rate: rate(state, \"n\", row.count),
    slope: slope(state, \"n\", row.count),
    ramp: ramp(state, \"t\", t, 10),
  });
}";

const READINGS: [Reading; 8] = [
    ("a", Some(60.0), Some(10)),
    ("a", Some(81.0), Some(14)),
    ("a", Some(75.0), Some(2)),
    ("a", None, None),
    ("a", Some(76.0), Some(5)),
    ("a", Some(f64::NAN), Some(6)),
    ("a", Some(40.0), Some(6)),
    ("a", Some(41.0), Some(7)),
];

/// The column `name` of all rows, in order.
fn column(lines: &[String], name: &str) -> Vec<String> {
    let mut of: Vec<(u64, String)> = lines
        .iter()
        .map(|line| {
            let seq = line.split(' ').next().unwrap().parse().unwrap();
            let value = line.split(&format!(" {name}=")).nth(1).unwrap();
            (seq, value.split(' ').next().unwrap().to_owned())
        })
        .collect();
    of.sort();
    of.into_iter().map(|(_, value)| value).collect()
}

/// What the functions give is what SQL's of the same names give (`docs/sql.md`), by hand.
#[test]
fn functions_remember_from_row_to_row() {
    let out = feed(&mut *rule(&on_tank(REMEMBERS)), &tank(0, &READINGS), 10);
    assert_eq!(out.bad_rows, 0, "{:?}", out.bad_row);
    let lines = listing(&out.rows);
    for (name, expected) in [
        ("hot", ["false", "true", "true", "true", "true", "true", "false", "false"]),
        ("band", ["60.0", "81.0", "75.0", "75.0", "75.0", "75.0", "40.0", "40.0"]),
        ("rises", ["true", "false", "false", "false", "false", "false", "false", "false"]),
        ("falls", ["false", "false", "false", "false", "false", "true", "false", "false"]),
        ("differs", ["true", "true", "true", "false", "true", "false", "true", "true"]),
        ("new5", ["true", "true", "true", "false", "false", "false", "true", "false"]),
        ("held", ["false", "false", "true", "true", "true", "false", "false", "false"]),
        ("calm", ["false", "false", "true", "true", "true", "true", "true", "false"]),
        ("since", ["0.0", "0.0", "0.0", "1.0", "0.0", "1.0", "2.0", "3.0"]),
        ("mean", ["60.0", "70.5", "78.0", "78.0", "75.5", "75.5", "58.0", "40.5"]),
        ("slow", ["60.0", "70.5", "72.75", "72.75", "74.375", "74.375", "57.1875", "49.09375"]),
        ("grown", ["-", "4.0", "2.0", "-", "3.0", "1.0", "0.0", "1.0"]),
        ("rate", ["-", "4.0", "2.0", "-", "1.5", "1.0", "0.0", "1.0"]),
        ("slope", ["-", "4.0", "-12.0", "-", "1.5", "1.0", "0.0", "1.0"]),
        ("ramp", ["60.0", "70.0", "75.0", "75.0", "76.0", "76.0", "56.0", "46.0"]),
    ] {
        assert_eq!(column(&lines, name), expected, "{name}");
    }
}

/// A restart, a new version and cuts in the middle make no difference.
#[test]
fn what_is_kept_survives_restarts_and_new_versions() {
    let script = on_tank(REMEMBERS);
    let whole = listing(&feed(&mut *rule(&script), &tank(0, &READINGS), 10).rows);
    for cut in 1..READINGS.len() {
        let mut first = rule(&script);
        let mut lines = listing(&feed(&mut *first, &tank(0, &READINGS[..cut]), 1).rows);
        let mut second = rule(&format!("{script}\n// another version"));
        assert_eq!(second.restore(first.seal().unwrap()), Ok(vec![]));
        lines.extend(listing(&feed(&mut *second, &tank(cut, &READINGS[cut..]), 3).rows));
        for name in ["hot", "held", "calm", "mean", "slow", "rate", "ramp"] {
            assert_eq!(column(&lines, name), column(&whole, name), "{name} cut at {cut}");
        }
    }
}

#[test]
fn every_kind_of_value_is_kept() {
    let script = on_tank(
        "fn on_row(row, state) {\n  if state.n == () {\n    state.n = 7; state.f = 1.0; state.s = \"x\"; state.c = 'c'; \
         state.u = (); state.l = [1, [2.5, ()]]; state.m = #{ a: #{ b: true } }; state.b = blob(2, 7); state.r = 0..3; \
         state.nan = 0.0 / 0.0; state.inf = 1.0 / 0.0;\n  } else {\n    log(`${type_of(state.n)} ${type_of(state.f)} \
         ${type_of(state.c)} ${state.l} ${state.m.a.b} ${state.b.len()} ${state.nan.is_nan()} ${state.inf > 1e308}`); \
         for i in state.r { log(i); }\n  }\n}",
    );
    let mut first = rule(&script);
    feed(&mut *first, &tank(0, &[("a", None, None)]), 1);
    let mut second = rule(&script);
    second.restore(first.seal().unwrap()).unwrap();
    let out = feed(&mut *second, &tank(1, &[("a", None, None)]), 1);
    let said: Vec<&str> = out.log.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(said, ["i64 f64 char [1, [2.5, ()]] true 2 true true", "0", "1", "2"], "{:?}", out.bad_row);
}

#[test]
fn a_row_cannot_be_kept() {
    let script =
        on_tank("fn on_row(row, state) { state.last = #{ of: row }; write(\"pump\", #{ run: true }); }");
    let mut first = rule(&script);
    let out = feed(&mut *first, &tank(0, &[("a", None, None)]), 1);
    assert!(out.rows.is_empty(), "a row that is left out has written nothing");
    // What a call gives back is kept by nobody.
    let gives = on_tank("fn on_row(row, state) { write(\"pump\", #{ run: true }); row }");
    let given = feed(&mut *rule(&gives), &tank(0, &[("a", None, None)]), 1);
    assert_eq!((given.bad_row, given.rows.len()), (None, 1));
    let said = out.bad_row.unwrap();
    assert!(
        said.starts_with(
            "rule.rhai: `state.last.of` is a row, which cannot be kept; keep its values, or `row.to_map()`"
        ),
        "{said}"
    );
    assert!(first.seal().is_ok());
    let script = on_tank("fn on_row(row, state) { state.last = row.to_map(); log(state.last.device); }");
    assert_eq!(feed(&mut *rule(&script), &tank(0, &[("a", None, None)]), 1).log[0].text, "a");
}

#[test]
fn what_an_erring_row_kept_stays() {
    let out = three(
        "fn on_row(row, state) { state.n = (state.n ?? 0) + 1; if row.temperature > 80.0 { } write(\"hot\", #{ n: state.n }); \
         }",
    );
    assert_eq!(out.bad_rows, 1);
    assert_eq!(listing(&out.rows).len(), 2);
}

#[test]
fn there_is_an_end_to_what_is_kept() {
    let script =
        on_tank("fn on_row(row, state) { state[row.device + state.len()] = [1.5, 2.5, row.device]; }")
            .replacen("//!", "//! max_state = \"10KiB\"\n//!", 1);
    let mut rule = rule(&script);
    let mut stopped = None;
    for n in 0..1_000 {
        let rows = tank(n, &[("tank", None, None)]);
        let mut out = Emissions::default();
        if let Err(error) = rule.on_batch("tank", &rows, When::at(0), &mut out) {
            stopped = Some((n, error.to_string()));
            break;
        }
        assert_eq!(out.bad_rows, 0, "{:?}", out.bad_row);
    }
    let (n, error) = stopped.unwrap();
    assert!((50..200).contains(&n), "{n}");
    assert!(error.contains("remove what is not needed any more, as `state.remove(name)`"), "{error}");
}

/// The step responses of a controller, by hand: with `kp` 2, `ki` 1 and `kd` 0.5 on rows a second apart.
#[test]
fn a_pid_controller_does_not_wind_up() {
    let script = on_tank(
        "fn on_row(row, state) { write(\"pump\", #{ speed: pid(state, \"loop\", 50, row.temperature, #{ kp: 2, ki: 1, kd: \
         0.5, min: 0, max: 100 }) }); }",
    );
    let values = [40.0, 40.0, 44.0, 0.0, 0.0, 0.0, 60.0, 50.0];
    let readings: Vec<Reading> = values.iter().map(|value| ("a", Some(*value), None)).collect();
    let out = feed(&mut *rule(&script), &tank(0, &readings), 3);
    let expected = [
        20.0,  // 2 * 10
        30.0,  // 20 + integral 10
        26.0,  // 12 + 16 - 0.5 * 4
        100.0, // 100 + 16 + 22 is over the limit: the integral stays 16
        100.0, 100.0, //
        0.0,   // -20 + 6 - 30 is below: the integral stays 16, as -20 + 16 - 30 is, too
        21.0,  // 0 + 16 + 5
    ];
    let speeds: Vec<f64> =
        listing(&out.rows).iter().map(|line| line.rsplit('=').next().unwrap().parse().unwrap()).collect();
    assert_eq!(speeds, expected);
}

#[test]
fn state_of_another_language_is_named() {
    let mut rule = rule(&on_tank("fn on_row(row, state) { }"));
    let sealed = tidegate_rules::SealedState { fingerprint: "sum(x)".to_owned(), watermark: 0, batch: None };
    assert_eq!(
        rule.restore(vec![sealed]),
        Ok(vec!["the state of `sum(x)` does not fit and is dropped".to_owned()])
    );
}
