//! What a rule writes that may not keep all that it would, next to what it writes when it may.
//!
//! A row has its key in `count` or `position`, and tanks have a number of their own as temperature.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Emissions, When};

use crate::bench_rows::{Event, Tank, Valve, batches, rule};

const NULL: &str = "null";

/// The cells of each row.
type Table = Vec<Vec<String>>;

/// What must be so of the rows of the rule that forgets, and of those of the one that does not.
type Meaning = fn(&Table, &Table) -> bool;

struct Case {
    /// a word of the operator that keeps most
    keeps: &'static str,
    options: &'static str,
    query: &'static str,
    meaning: Meaning,
}

const fn case(keeps: &'static str, query: &'static str, meaning: Meaning) -> Case {
    Case { keeps, options: "", query, meaning }
}

const CASES: &[Case] = &[
    case(
        "TUMBLE(",
        "SELECT window_start, count, count(*) AS n, sum(temperature) AS s FROM TUMBLE(tank, DESCRIPTOR(ts), \
        INTERVAL '1' SECOND) GROUP BY window_start, window_end, count",
        are_among,
    ),
    case(
        "HOP(",
        "SELECT window_start, count, count(*) AS n, sum(temperature) AS s FROM HOP(tank, DESCRIPTOR(ts), \
        INTERVAL '1' SECOND, INTERVAL '3' SECOND) GROUP BY window_start, window_end, count",
        are_among,
    ),
    Case {
        keeps: "TUMBLE(",
        options: "--! emit_every = \"500ms\"\n",
        query: "SELECT window_start, count, count(*) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '2' \
            SECOND) GROUP BY window_start, window_end, count",
        meaning: are_among,
    },
    case(
        "SESSION(",
        "SELECT window_start, count, count(*) AS n, sum(temperature) AS s FROM SESSION(tank PARTITION BY \
        count, DESCRIPTOR(ts), INTERVAL '700' MILLISECOND) GROUP BY window_start, window_end, count",
        are_among,
    ),
    case(
        "SESSION(",
        "SELECT window_start, window_end, temperature FROM SESSION(tank PARTITION BY count, DESCRIPTOR(ts), \
        INTERVAL '700' MILLISECOND)",
        are_among,
    ),
    case(
        "until their window closes",
        "SELECT window_start, temperature, row_number() OVER (PARTITION BY window_start, window_end, count \
        ORDER BY temperature) AS n FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
        are_among,
    ),
    case(
        "JOIN(",
        "SELECT t.temperature AS n, v.ts AS p FROM tank t JOIN valve v ON t.count = v.position AND v.ts \
        BETWEEN t.ts - INTERVAL '1' SECOND AND t.ts",
        are_among,
    ),
    case(
        "JOIN(",
        "SELECT t.temperature AS n, v.ts AS p FROM tank t LEFT JOIN valve v ON t.count = v.position AND \
        v.ts BETWEEN t.ts - INTERVAL '1' SECOND AND t.ts + INTERVAL '1' SECOND",
        are_among,
    ),
    case(
        "JOIN(",
        "SELECT t.temperature AS n, v.ts AS p FROM tank t FULL JOIN valve v ON t.count = v.position AND \
        v.ts BETWEEN t.ts AND t.ts + INTERVAL '1' SECOND AND v.open",
        are_among,
    ),
    case(
        "LAST(",
        "SELECT t.temperature AS n, v.ts AS p FROM tank t JOIN valve FOR SYSTEM_TIME AS OF \
        CURRENT_TIMESTAMP AS v ON t.count = v.position",
        are_among,
    ),
    case(
        "LATEST(",
        "SELECT t.temperature AS n, v.ts AS p FROM tank t JOIN valve FOR SYSTEM_TIME AS OF t.ts AS v ON \
        t.count = v.position",
        are_among,
    ),
    case(
        "LAST(",
        "SELECT t.temperature AS n, v.ts AS p FROM tank t LEFT JOIN valve FOR SYSTEM_TIME AS OF \
        CURRENT_TIMESTAMP AS v ON t.count = v.position",
        are_the_same_or_unknown,
    ),
    Case {
        keeps: "LATEST(",
        options: "--! state_ttl = \"3s\"\n",
        query: "SELECT t.temperature AS n, v.ts AS p FROM tank t LEFT JOIN valve FOR SYSTEM_TIME AS OF t.ts \
            AS v ON t.count = v.position",
        meaning: are_the_same_or_unknown,
    },
    case(
        "match rows",
        "SELECT first, last FROM tank MATCH_RECOGNIZE (PARTITION BY count ORDER BY ts MEASURES \
        FIRST(a.temperature) AS first, LAST(b.temperature) AS last PATTERN (a b) DEFINE a AS running, b AS \
        NOT running)",
        are_among,
    ),
    case(
        "OVER",
        "SELECT temperature, lag(temperature) OVER (PARTITION BY count) AS before FROM tank",
        are_the_same_or_unknown,
    ),
    case("OVER", "SELECT temperature, row_number() OVER (PARTITION BY count) AS n FROM tank", begin_anew),
    case("OVER", "SELECT temperature, sum(temperature) OVER (PARTITION BY count) AS n FROM tank", begin_anew),
    case(
        "OVER",
        "SELECT temperature, max(temperature) OVER (PARTITION BY count ROWS BETWEEN 3 PRECEDING AND CURRENT \
        ROW) AS n FROM tank",
        begin_anew,
    ),
    case(
        "in the order of ts",
        "SELECT temperature, row_number() OVER (PARTITION BY count ORDER BY ts) AS n FROM tank",
        begin_anew,
    ),
    case(
        "OVER",
        "SELECT temperature, held(running, INTERVAL '1' SECOND) OVER (PARTITION BY count) AS h FROM tank",
        hold_no_sooner,
    ),
    Case {
        keeps: "GROUP",
        options: "--! state_ttl = \"3s\"\n",
        query: "SELECT count, count(*) AS n FROM tank GROUP BY count",
        meaning: count_from_anew,
    },
    case(
        "COUNT_WINDOW(",
        "SELECT count, count(*) AS n FROM COUNT_WINDOW(tank PARTITION BY count, 3) GROUP BY window_start, \
        window_end, count",
        have_three_rows,
    ),
    case(
        "COUNT_WINDOW(",
        "SELECT count, temperature FROM COUNT_WINDOW(tank PARTITION BY count, 3)",
        come_by_three,
    ),
    case(
        "STATE_WINDOW(",
        "SELECT max(temperature) AS last, min(temperature) AS first FROM STATE_WINDOW(tank PARTITION BY \
        count, running, NOT running) GROUP BY window_start, window_end, count",
        end_as_they_would,
    ),
];

/// Each row is one that would have been written anyway.
fn are_among(written: &Table, all: &Table) -> bool {
    let mut left: BTreeMap<&Vec<String>, usize> = BTreeMap::new();
    all.iter().for_each(|row| *left.entry(row).or_default() += 1);
    written.iter().all(|row| left.get_mut(row).and_then(|n| n.checked_sub(1).map(|less| *n = less)).is_some())
}

/// The rows that would have been written, as far as their last column is known.
fn are_the_same_or_unknown(written: &Table, all: &Table) -> bool {
    by_number(written, all, |last, whole| last == whole || last == NULL)
}

/// What adds up over the rows of a key may begin anew.
fn begin_anew(written: &Table, all: &Table) -> bool {
    by_number(written, all, |last, whole| number(last) <= number(whole))
}

/// `fits` holds for the last column of each row and of the row with the same number that would have been
/// written.
fn by_number(written: &Table, all: &Table, fits: fn(&str, &str) -> bool) -> bool {
    let all: BTreeMap<&String, &String> = all.iter().map(|row| (&row[0], &row[1])).collect();
    written.iter().all(|row| all.get(&row[0]).is_some_and(|whole| fits(&row[1], whole)))
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap()
}

/// What holds would hold anyway.
fn hold_no_sooner(written: &Table, all: &Table) -> bool {
    let holding = |table: &Table| -> BTreeSet<String> {
        table.iter().filter(|row| row[1] == "true").map(|row| row[0].clone()).collect()
    };
    holding(written).is_subset(&holding(all))
}

/// Every row of the input gives one, and counts begin anew.
fn count_from_anew(written: &Table, all: &Table) -> bool {
    written.len() == all.len()
        && written
            .iter()
            .zip(all)
            .all(|(row, whole)| row[0] == whole[0] && number(&row[1]) <= number(&whole[1]))
}

fn have_three_rows(written: &Table, _all: &Table) -> bool {
    written.iter().all(|row| row[1] == "3")
}

/// Rows of one key, as they came.
fn come_by_three(written: &Table, _all: &Table) -> bool {
    written.chunks(3).all(|window| {
        window.len() == 3
            && window.is_sorted_by(|row, next| row[0] == next[0] && number(&row[1]) < number(&next[1]))
    })
}

/// A window ends where it would have ended, and begins there or later.
fn end_as_they_would(written: &Table, all: &Table) -> bool {
    by_number(written, all, |first, whole| number(first) >= number(whole))
}

fn table(out: &Emissions) -> Table {
    let rows = |batch: &RecordBatch| -> Table {
        let options = FormatOptions::default().with_null(NULL);
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        (0..batch.num_rows())
            .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect())
            .collect()
    };
    out.rows.iter().flat_map(|emission| rows(&emission.rows.batch)).collect()
}

fn text(case: &Case, options: &str) -> String {
    format!("--! lateness = \"2s\"\n{}{options}INSERT INTO uplink {}", case.options, case.query)
}

/// Feeds `events` in batches of `cuts` rows at most, one after the other; before the batch `swap` the rule is
/// replaced by itself.
fn feed(text: &str, events: &[Event], cuts: &[usize], swap: usize, most: u64) -> Result<Emissions, String> {
    let (mut version, mut out) = (rule(text), Emissions::default());
    let mut at = 0;
    for batch in 0.. {
        let Some(first) = events.get(at) else { break };
        let len = events[at..]
            .iter()
            .take_while(|event| event.stream() == first.stream())
            .take(cuts[batch % cuts.len()])
            .count();
        let [tanks, valves] = batches(&events[at..at + len]);
        if batch == swap {
            let sealed = version.seal().unwrap();
            version = rule(text);
            assert_eq!(version.restore(sealed).unwrap(), Vec::<String>::new(), "{text}");
        }
        let rows = Rows {
            batch: if first.stream() == "tank" { tanks } else { valves },
            seqs: Seqs::Run { first: at as u64 },
        };
        if version.flows().iter().any(|flow| &*flow.input == first.stream()) {
            version
                .on_batch(first.stream(), &rows, When::at(0), &mut out)
                .map_err(|error| error.to_string())?;
            assert!(out.state_bytes <= most, "{} bytes are kept after {at} rows: {text}", out.state_bytes);
        }
        at += len;
    }
    version.on_end(events.len() as u64, When::at(i64::MAX), &mut out).map_err(|error| error.to_string())?;
    assert_eq!(out.bad_rows, 0, "{:?}: {text}", out.bad_row);
    Ok(out)
}

fn event(number: i32, is_tank: bool, ts_ms: i64, key: i64, flag: bool) -> Event {
    if is_tank {
        Event::Tank(Tank {
            ts_ms,
            device: None,
            temperature: Some(f64::from(number)),
            count: Some(key),
            running: Some(flag),
        })
    } else {
        Event::Valve(Valve { ts_ms, device: None, open: Some(flag), position: Some(key), readings: None })
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let row = (any::<bool>(), 0_i64..60, 0_i64..1_500, 0_i64..60, any::<bool>());
    prop::collection::vec(row, 50..300).prop_map(|rows| {
        let mut now = 0;
        (1..)
            .zip(rows)
            .map(|(number, (is_tank, step, back, key, flag))| {
                now += step;
                event(number, is_tank, 2 * (now - back) + i64::from(!is_tank), key, flag)
            })
            .collect()
    })
}

/// More keys than there is room for, again and again; and after a while a few rows of few keys.
fn flood() -> Vec<Event> {
    let row = |n: i32, ts_ms, key| event(n + 1, n / 10 % 2 == 1, ts_ms, i64::from(key), n % 3 > 0);
    let many = (0..1_200).map(|n| row(n, i64::from(n) * 5, (n / 20 * 7 + n % 10) % 150));
    many.chain((1_200..1_260).map(|n| row(n, 20_000 + i64::from(n), n % 5))).collect()
}

#[test]
fn every_rule_that_may_forget_does_so_and_goes_on() {
    for case in CASES {
        let out = feed(
            &text(case, "--! max_state = \"16KiB\"\n--! when_state_full = \"forget\"\n"),
            &flood(),
            &[30],
            7,
            16 << 10,
        );
        let out = out.unwrap_or_else(|error| panic!("{error}: {}", case.query));
        let all = feed(&text(case, ""), &flood(), &[1_000], usize::MAX, u64::MAX).unwrap();
        assert!(out.forgotten > 0, "nothing is forgotten: {}", case.query);
        assert!(!table(&out).is_empty() && !table(&all).is_empty(), "nothing is written: {}", case.query);
        assert!((case.meaning)(&table(&out), &table(&all)), "{}", case.query);
    }
}

#[test]
fn every_rule_that_may_not_forget_stops_and_says_what_takes_the_room() {
    for case in CASES {
        let error = feed(&text(case, "--! max_state = \"8KiB\"\n"), &flood(), &[30], usize::MAX, u64::MAX)
            .unwrap_err();
        for part in ["may keep 8KiB", " entries of `", case.keeps, "`when_state_full = \"forget\"`"] {
            assert!(error.contains(part), "{part}: {error}: {}", case.query);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 72, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_stays_right_whatever_is_forgotten(
        case in 0..CASES.len(),
        events in events(),
        cuts in prop::collection::vec(1_usize..40, 1..6),
        swap in 0_usize..40,
        kib in 8_u64..24,
    ) {
        let case = &CASES[case];
        let options = format!("--! max_state = \"{kib}KiB\"\n--! when_state_full = \"forget\"\n");
        let out = feed(&text(case, &options), &events, &cuts, swap, kib << 10);
        let out = out.map_err(|error| TestCaseError::fail(format!("{error}: {}", case.query)))?;
        let all = feed(&text(case, ""), &events, &[1_000], usize::MAX, u64::MAX).unwrap();
        prop_assert!(
            (case.meaning)(&table(&out), &table(&all)),
            "{}\n{:?}\n{:?}",
            case.query,
            table(&out),
            table(&all),
        );
    }
}
