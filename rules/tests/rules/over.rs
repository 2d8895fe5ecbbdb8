//! `OVER` and the functions that remember: against stock DataFusion over the whole input, wherever batches
//! are cut, however far rows are out of order within the lateness, and wherever the rule is replaced by
//! itself.

use crate::bench_rows::{Tank, batch, catalog, feed, listing, rule, rule_of, schema, table, tank};
use crate::oracle::{config, sorted, tanks};
use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use std::sync::Arc;
use tidegate_rules::{Catalog, When};

/// `{ts}` is event time, and on the whole input also which row of one time came first. `{arrival}` is the
/// order in which rows came.
const BY_EVENT_TIME: &[&str] = &[
    "SELECT ts, device, lag(temperature) OVER (PARTITION BY device ORDER BY {ts}) AS x FROM tank",
    "SELECT ts, lag(count, 2, -1) OVER (PARTITION BY device ORDER BY {ts}) AS x, lag(device) OVER (ORDER BY \
    {ts}) AS d FROM tank",
    "SELECT ts, lag(temperature) IGNORE NULLS OVER (PARTITION BY device ORDER BY {ts}) AS x FROM tank",
    "SELECT ts, temperature - lag(temperature, 1, 0.0) OVER (PARTITION BY device, running ORDER BY {ts}) AS \
    x FROM tank WHERE count > 3",
    "SELECT first_value(temperature) OVER w AS f, last_value(count) OVER w AS l, nth_value(temperature, 2) \
    OVER w AS n FROM tank WINDOW w AS (PARTITION BY device ORDER BY {ts})",
    "SELECT first_value(count) OVER w AS f, last_value(count) OVER w AS l, nth_value(count, 2) OVER w AS n \
    FROM tank WINDOW w AS (PARTITION BY device ORDER BY {ts} ROWS 3 PRECEDING)",
    "SELECT first_value(count) OVER w AS f, last_value(count) OVER w AS l, nth_value(count, 2) OVER w AS n \
    FROM tank WINDOW w AS (PARTITION BY device ORDER BY {ts} ROWS BETWEEN 4 PRECEDING AND 1 PRECEDING)",
    "SELECT ts, row_number() OVER (PARTITION BY device ORDER BY {ts}) AS n, row_number() OVER (ORDER BY \
    {ts}) AS all_n FROM tank",
    "SELECT sum(count) OVER w AS s, count(*) OVER w AS n, avg(temperature) OVER w AS a, min(temperature) \
    OVER w AS l, max(device) OVER w AS h FROM tank WINDOW w AS (PARTITION BY running ORDER BY {ts})",
    "SELECT sum(count) OVER w AS s, count(temperature) OVER w AS n, avg(temperature) OVER w AS a, \
    min(temperature) OVER w AS l, max(count) OVER w AS h FROM tank WINDOW w AS (PARTITION BY device ORDER \
    BY {ts} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
    "SELECT sum(temperature) OVER w AS s, count(*) OVER w AS n, max(temperature) OVER w AS h FROM tank \
    WINDOW w AS (PARTITION BY device ORDER BY {ts} ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING)",
    "SELECT sum(temperature) OVER w AS s, min(count) OVER w AS h FROM tank WINDOW w AS (PARTITION BY device \
    ORDER BY {ts} ROWS BETWEEN 5 PRECEDING AND 2 PRECEDING)",
    "SELECT count(DISTINCT count) OVER (PARTITION BY device ORDER BY {ts} ROWS 4 PRECEDING) AS n, \
    count(DISTINCT running) OVER (ORDER BY {ts}) AS r FROM tank",
    "SELECT sum(count) FILTER (WHERE running) OVER (PARTITION BY device ORDER BY {ts}) AS s, \
    avg(temperature) FILTER (WHERE count > 4) OVER (ORDER BY {ts} ROWS 3 PRECEDING) AS a FROM tank",
    "SELECT round(stddev(count) OVER (ORDER BY {ts}), 6) AS sd, median(count) OVER (PARTITION BY device \
    ORDER BY {ts}) AS m FROM tank",
    "SELECT round(var_pop(count) OVER w + 0.00000013, 6) + 0.0 AS v, median(count) OVER w AS m, \
    bit_xor(count) OVER w AS b FROM tank WINDOW w AS (ORDER BY {ts} ROWS 4 PRECEDING)",
    "SELECT array_agg(count) OVER (PARTITION BY device ORDER BY {ts} ROWS 2 PRECEDING) AS a, \
    string_agg(device, '/') OVER (PARTITION BY running ORDER BY {ts}) AS s FROM tank",
    "SELECT ts, device, temperature FROM tank QUALIFY temperature > lag(temperature) OVER (PARTITION BY \
    device ORDER BY {ts})",
    "SELECT d, sum(step) OVER (PARTITION BY d ORDER BY {ts}) AS way FROM (SELECT ts, n, device AS d, \
    abs(temperature - lag(temperature) OVER (PARTITION BY device ORDER BY {ts})) AS step FROM tank) AS \
    steps WHERE step > 1",
];

/// Whose times are all different: rows of one time are seen together by RANGE on the whole input, and one
/// after the other on a stream.
const RANGES: &[&str] = &[
    "SELECT sum(count) OVER w AS s, count(*) OVER w AS n, avg(temperature) OVER w AS a, min(temperature) \
    OVER w AS l, max(count) OVER w AS h FROM tank WINDOW w AS (PARTITION BY device ORDER BY ts RANGE \
    BETWEEN INTERVAL '1500 milliseconds' PRECEDING AND CURRENT ROW)",
    "SELECT sum(temperature) OVER w AS s, count(count) OVER w AS n, max(temperature) OVER w AS h FROM tank \
    WINDOW w AS (ORDER BY ts RANGE BETWEEN INTERVAL '3' SECOND PRECEDING AND INTERVAL '1' SECOND PRECEDING)",
    "SELECT first_value(count) OVER w AS f, last_value(count) OVER w AS l, nth_value(temperature, 2) OVER w \
    AS n FROM tank WINDOW w AS (PARTITION BY device ORDER BY ts RANGE INTERVAL '2' SECOND PRECEDING)",
    "SELECT count(*) OVER (ORDER BY ts RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '1' SECOND PRECEDING) \
    AS n, sum(count) OVER (ORDER BY ts) AS s FROM tank",
];

const BY_ARRIVAL: &[&str] = &[
    "SELECT ts, lag(temperature, 3) OVER (PARTITION BY device {arrival}) AS x, row_number() OVER \
    ({arrival}) AS n FROM tank",
    "SELECT sum(count) OVER (PARTITION BY device {arrival}) AS s, max(temperature) OVER (PARTITION BY \
    device, running {arrival}) AS h FROM tank",
    "SELECT avg(temperature) OVER (PARTITION BY device {arrival} ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) \
    AS a, first_value(ts) OVER ({arrival}) AS f FROM tank",
    "SELECT ts, count FROM tank QUALIFY row_number() OVER (PARTITION BY device {arrival}) = 1",
];

/// What a rule says, and what it says in plain SQL.
const MEMORIES: &[(&str, &str)] = &[
    (
        "became(temperature > 10) OVER (PARTITION BY device ORDER BY {ts})",
        "coalesce(temperature > 10, FALSE) AND NOT coalesce(lag(temperature > 10) IGNORE NULLS OVER \
        (PARTITION BY device ORDER BY {ts}), FALSE)",
    ),
    (
        "changed(running) OVER (PARTITION BY device ORDER BY {ts})",
        "running IS NOT NULL AND running IS DISTINCT FROM lag(running) IGNORE NULLS OVER (PARTITION BY \
        device ORDER BY {ts})",
    ),
    (
        "changed(temperature, 2) OVER (ORDER BY {ts})",
        "temperature IS NOT NULL AND coalesce(abs(temperature - lag(temperature) IGNORE NULLS OVER (ORDER \
        BY {ts})) > 2, TRUE)",
    ),
    (
        "hysteresis(temperature, 5, 15) OVER (PARTITION BY device ORDER BY {ts})",
        "coalesce(last_value(CASE WHEN temperature >= 15 THEN TRUE WHEN temperature <= 5 THEN FALSE END) \
        IGNORE NULLS OVER (PARTITION BY device ORDER BY {ts}), FALSE)",
    ),
    (
        "since(temperature > 10) OVER (PARTITION BY device ORDER BY {ts})",
        "CAST(CAST(ts AS BIGINT) - CAST(max(CASE WHEN temperature > 10 THEN ts END) OVER (PARTITION BY \
        device ORDER BY {ts}) AS BIGINT) AS DOUBLE) / 1e9",
    ),
    (
        "count_within(temperature > 10, INTERVAL '2' SECOND) OVER (PARTITION BY device ORDER BY ts)",
        "count(*) FILTER (WHERE temperature > 10) OVER (PARTITION BY device ORDER BY ts RANGE BETWEEN \
        INTERVAL '1999 milliseconds' PRECEDING AND CURRENT ROW)",
    ),
    (
        "bool_or(running) OVER (ORDER BY {ts} ROWS 4 PRECEDING)",
        "max(CAST(running AS INT)) OVER (ORDER BY {ts} ROWS 4 PRECEDING) = 1",
    ),
    (
        "rate(count) OVER (PARTITION BY device ORDER BY ts)",
        "CAST(CASE WHEN count < lag(count) IGNORE NULLS OVER w THEN count ELSE count - lag(count) IGNORE \
        NULLS OVER w END AS DOUBLE) / (CAST(CAST(ts AS BIGINT) - CAST(lag(CASE WHEN count IS NOT NULL THEN \
        ts END) IGNORE NULLS OVER w AS BIGINT) AS DOUBLE) / 1e9)",
    ),
];

/// Within closed windows: `{T}` is the window over the stream.
const IN_CLOSED_WINDOWS: &[&str] = &[
    "SELECT * FROM (SELECT window_start, device, avg(temperature) AS a, row_number() OVER (PARTITION BY \
    window_start, window_end ORDER BY count(*) DESC, device) AS n FROM {T} GROUP BY window_start, \
    window_end, device) AS x WHERE n <= 2",
    "SELECT window_end, device, rank() OVER w AS r, dense_rank() OVER w AS d, ntile(2) OVER (w2) AS t FROM \
    {T} GROUP BY window_start, window_end, device WINDOW w AS (PARTITION BY window_end ORDER BY \
    max(count)), w2 AS (PARTITION BY window_end ORDER BY device)",
    "WITH means AS (SELECT window_end AS moment, device, sum(count) AS s FROM {T} GROUP BY window_start, \
    window_end, device) SELECT moment, device, s - lead(s) OVER (PARTITION BY moment ORDER BY device) AS x, \
    sum(s) OVER (PARTITION BY moment) AS whole FROM means",
    "SELECT window_end, device, lag(sum(count)) OVER (PARTITION BY device ORDER BY window_end) AS before \
    FROM {T} GROUP BY window_start, window_end, device",
];

const WINDOW: &str = "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '3' SECOND)";
const STOCK_WINDOW: &str = "(SELECT *, date_bin(INTERVAL '3 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') \
    AS window_start, date_bin(INTERVAL '3 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') + INTERVAL '3 \
    seconds' AS window_end FROM tank)";

/// The whole input in stock DataFusion.
struct Stock {
    context: SessionContext,
    runtime: tokio::runtime::Runtime,
}

impl Stock {
    fn new(rows: &[Tank]) -> Self {
        let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("n", DataType::Int64, false)));
        let numbered = Arc::new(Schema::new(fields));
        let mut columns = batch(rows).columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values((0..).take(rows.len()))));
        let batch = RecordBatch::try_new(Arc::clone(&numbered), columns).unwrap();
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        context
            .register_table("tank", Arc::new(MemTable::try_new(numbered, vec![vec![batch]]).unwrap()))
            .unwrap();
        Self { context, runtime: tokio::runtime::Builder::new_current_thread().build().unwrap() }
    }

    fn rows(&self, query: &str) -> Vec<String> {
        let query =
            query.replace("{ts}", "ts, n").replace("{arrival}", "ORDER BY n").replace("{T}", STOCK_WINDOW);
        // DataFusion itself takes `OVER (w)` for `OVER ()`.
        let query = query.replace("OVER (w2)", "OVER w2");
        self.runtime
            .block_on(async { sorted(&self.context.sql(&query).await.unwrap().collect().await.unwrap()) })
    }
}

fn streamed(query: &str, rows: &[Tank], cuts: &[usize], swap: usize) -> (Vec<String>, Vec<RecordBatch>) {
    let query = query
        .replace("{ts}", "ts")
        .replace("{arrival}", "")
        .replace("ts, n, device", "ts, device")
        .replace("{T}", WINDOW);
    let text = format!("--! lateness = \"2s\"\nINSERT INTO uplink {query}");
    let mut version = rule(&text);
    let swap = swap.min(rows.len());
    let mut out = feed(&mut *version, &rows[..swap], 0, cuts);
    let mut next = rule(&text);
    assert_eq!(next.restore(version.seal().unwrap()).unwrap(), Vec::<String>::new());
    let rest = feed(&mut *next, &rows[swap..], swap as u64, cuts);
    out.rows.extend(rest.rows);
    next.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!((out.late + rest.late, out.bad_rows), (0, 0), "{query}: {:?}", out.bad_row);
    let batches: Vec<_> = out.rows.into_iter().map(|emission| emission.rows.batch).collect();
    (sorted(&batches), batches)
}

/// Without the rows whose time another row before them has.
fn at_different_times(mut rows: Vec<Tank>) -> Vec<Tank> {
    let mut seen = std::collections::BTreeSet::new();
    rows.retain(|row| seen.insert(row.ts_ms));
    rows
}

/// Each case runs some forty queries.
fn few() -> ProptestConfig {
    ProptestConfig { cases: 32, ..config() }
}

#[test]
fn over_equals_stock_datafusion() {
    proptest!(few(), |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..12), swap in 0_usize..60)| {
        let stock = Stock::new(&rows);
        for query in BY_EVENT_TIME.iter().chain(BY_ARRIVAL).chain(IN_CLOSED_WINDOWS) {
            prop_assert_eq!(streamed(query, &rows, &cuts, swap).0, stock.rows(query), "{}", query);
        }
        let rows = at_different_times(rows);
        let stock = Stock::new(&rows);
        for query in RANGES {
            prop_assert_eq!(streamed(query, &rows, &cuts, swap).0, stock.rows(query), "{}", query);
        }
    });
}

#[test]
fn functions_that_remember_say_what_plain_sql_says_at_length() {
    proptest!(few(), |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..12), swap in 0_usize..60)| {
        let apart = at_different_times(rows.clone());
        let (whole, whole_apart) = (Stock::new(&rows), Stock::new(&apart));
        for (short, long) in MEMORIES {
            let (rows, stock) = if short.contains("{ts}") { (&rows, &whole) } else { (&apart, &whole_apart) };
            let window = if long.contains("OVER w") { " WINDOW w AS (PARTITION BY device ORDER BY ts)" } else { "" };
            let written = streamed(&format!("SELECT ts, {short} AS x FROM tank"), rows, &cuts, swap).0;
            prop_assert_eq!(
                written,
                stock.rows(&format!("SELECT ts, {long} AS x FROM tank{window}")),
                "{}",
                short,
            );
        }
    });
}

#[test]
fn cuts_change_nothing_not_even_the_order() {
    proptest!(few(), |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..40), swap in 0_usize..60)| {
        let memories = MEMORIES.iter().map(|(short, _)| format!("SELECT ts, device, {short} AS x FROM tank"));
        let others = BY_EVENT_TIME.iter().chain(BY_ARRIVAL).chain(RANGES).chain(IN_CLOSED_WINDOWS).map(|query| (*query).to_owned());
        for query in memories.chain(others) {
            let joined = |batches: Vec<RecordBatch>| batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap());
            let whole = joined(streamed(&query, &rows, &[], rows.len()).1);
            prop_assert_eq!(&whole, &joined(streamed(&query, &rows, &cuts, swap).1), "{}", query);
            prop_assert_eq!(
                &whole,
                &joined(streamed(&query, &rows, &vec![1; rows.len()], swap).1),
                "{}",
                query,
            );
        }
    });
}

#[test]
fn what_is_remembered_survives_another_threshold() {
    let text = "INSERT INTO uplink SELECT ts, became(temperature > 80) OVER w AS b, hysteresis(temperature, \
        60, 80) OVER w AS h, held(temperature > 80, INTERVAL '5' SECOND) OVER w AS d, avg(temperature) OVER \
        w AS a FROM tank WINDOW w AS (PARTITION BY device)";
    let mut old = rule(text);
    feed(&mut *old, &[tank(0, "a", 90.0), tank(1_000, "a", 90.0)], 0, &[]);
    let mut new = rule(
        &text
            .replace("> 80", "> 70")
            .replace("60, 80", "50, 95")
            .replace("'5'", "'3'")
            .replace("SELECT ts", "SELECT 'x' AS x, ts"),
    );
    assert_eq!(new.restore(old.seal().unwrap()).unwrap(), Vec::<String>::new());
    let out = feed(&mut *new, &[tank(2_000, "a", 75.0), tank(4_000, "a", 90.0)], 2, &[]);
    let rows = table(&out.rows, "uplink");
    assert!(rows.contains("| x | 1970-01-01T00:00:02Z | false | true | false | 85.0  |"), "{rows}");
    assert!(
        rows.contains("| x | 1970-01-01T00:00:03Z | false | true | true  | 85.0  |"),
        "the moment is another now: {rows}"
    );
    assert!(rows.contains("| x | 1970-01-01T00:00:04Z | false | true | true  | 86.25 |"), "{rows}");
}

#[test]
fn a_function_that_is_new_begins_with_nothing_and_says_so() {
    let mut old = rule(
        "INSERT INTO uplink SELECT row_number() OVER (PARTITION BY device) AS n, changed(count) OVER \
        (PARTITION BY device) AS c FROM tank",
    );
    feed(&mut *old, &[tank(0, "a", 1.0), tank(1, "a", 1.0)], 0, &[]);
    let mut new = rule(
        "INSERT INTO uplink SELECT row_number() OVER (PARTITION BY device) AS n, lag(count) OVER (PARTITION \
        BY device) AS l FROM tank",
    );
    let misfits = new.restore(old.seal().unwrap()).unwrap();
    assert!(
        misfits.len() == 2
            && misfits[0].contains("lag(count, 1)` is new")
            && misfits[1].contains("changed(count)"),
        "{misfits:?}"
    );
    let out = feed(&mut *new, &[tank(2, "a", 1.0)], 2, &[]);
    assert!(table(&out.rows, "uplink").contains("| 3 |   |"), "{}", table(&out.rows, "uplink"));
}

#[test]
fn keys_that_are_forgotten_take_no_memory() {
    let text = "--! state_ttl = \"1s\"\nINSERT INTO uplink SELECT lag(temperature) OVER w AS l, sum(count) \
        OVER w AS s, became(running) OVER w AS b FROM tank WINDOW w AS (PARTITION BY count)";
    let mut forgetful = rule(text);
    let mut faithful = rule(&text.replace("1s", "1d"));
    let rows: Vec<Tank> = (0..20_000).map(|ms| tank(ms, "a", 1.0)).collect();
    let written = [&mut forgetful, &mut faithful].map(|rule| {
        let out = feed(&mut **rule, &rows, 0, &vec![500; 40]);
        out.rows.iter().map(|emission| emission.rows.len()).sum::<usize>()
    });
    assert_eq!(written, [20_000; 2]);
    let kept = |rule: &dyn tidegate_rules::Rule| {
        rule.explain().steps.iter().map(|step| (step.entries, step.bytes)).max().unwrap()
    };
    let (few, all) = (kept(&*forgetful), kept(&*faithful));
    assert!(few.0 <= 2_500 && all.0 == 20_000, "{few:?} {all:?}");
    assert!(few.1 * 4 < all.1, "{few:?} {all:?}");
}

/// Without a battery a clock starts anywhere, and is set when the network comes up.
#[test]
fn a_clock_that_is_set_back_stops_no_function() {
    let catalog = Catalog { by_arrival: ["tank".to_owned()].into(), ..catalog() };
    let text = "INSERT INTO uplink SELECT ts, held(running, INTERVAL '5' SECOND) OVER w AS h, since(NOT \
        running) OVER w AS s FROM tank WINDOW w AS (PARTITION BY device)";
    let year = 365 * 86_400_000;
    let rows: Vec<Tank> =
        [(20 * year, -1.0), (20 * year + 1_000, 1.0), (1_000, 1.0), (4_000, 1.0), (6_500, 1.0)]
            .map(|(ms, t)| tank(ms, "a", t))
            .into();
    for cuts in [vec![], vec![1; 5], vec![2], vec![3]] {
        let mut rule = rule_of(text, &catalog);
        let out = feed(&mut *rule, &rows, 0, &cuts);
        let found: Vec<String> = listing(&out.rows)
            .into_iter()
            .map(|(_, _, text)| text.lines().nth(3).unwrap().to_owned())
            .collect();
        let told = found.iter().map(|row| row.contains("true")).collect::<Vec<_>>();
        // The key's clock stands still from the last row before to the first one after, at 1 s: five seconds
        // later it is 6 s.
        assert_eq!(told, [false, false, false, false, true, true], "{found:?}");
        assert!(
            found[4].contains("00:00:06Z") && found[4].contains("| 4.0 |") && found[5].contains("| 6.5 |"),
            "{found:?}"
        );
    }
}
