//! An inferred column is `int64` until its first fraction comes: what has been kept of it goes on as floats.

use std::sync::Arc;

use crate::bench_rows::{catalog, rule_of};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use proptest::prelude::*;
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, Emissions, Rule, When};

/// Time in seconds, device, and the value in halves.
type Row = (i64, &'static str, Option<i64>);

fn schema(value: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("d", DataType::Utf8, true),
        Field::new("a", value, true),
    ]))
}

fn version(text: &str, value: DataType) -> Box<dyn Rule> {
    let catalog = Catalog { inputs: [("s".to_owned(), Some(schema(value)))].into(), ..catalog() };
    rule_of(text, &catalog)
}

fn feed(rule: &mut dyn Rule, value: &DataType, rows: &[Row], first: usize, out: &mut Emissions) {
    for (seq, (ts, d, halves)) in (first as u64..).zip(rows) {
        let a: ArrayRef = match value {
            DataType::Int64 => Arc::new(Int64Array::from(vec![halves.map(|halves| halves / 2)])),
            _ => Arc::new(Float64Array::from(vec![halves.map(|halves| halves as f64 / 2.0)])),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from(vec![ts * 1_000_000_000]).with_timezone("UTC")),
            Arc::new(StringArray::from(vec![*d])),
            a,
        ];
        let batch = RecordBatch::try_new(schema(value.clone()), columns).unwrap();
        rule.on_batch("s", &Rows { batch, seqs: Seqs::One { seq } }, When::at(ts * 1_000_000_000), out)
            .unwrap();
    }
}

/// What was written, with all numbers as floats.
fn written(out: &Emissions) -> Vec<String> {
    let as_float = |column: &ArrayRef| match column.data_type() {
        DataType::Int64 => cast(column, &DataType::Float64).unwrap(),
        DataType::List(item) if *item.data_type() == DataType::Int64 => {
            let item = item.as_ref().clone().with_data_type(DataType::Float64);
            cast(column, &DataType::List(Arc::new(item))).unwrap()
        }
        _ => Arc::clone(column),
    };
    let mut rows = Vec::new();
    for emission in &out.rows {
        let batch = &emission.rows.batch;
        let schema = batch.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let floats = RecordBatch::try_from_iter(names.zip(batch.columns().iter().map(as_float))).unwrap();
        for row in 0..floats.num_rows() {
            let text = pretty_format_batches(&[floats.slice(row, 1)]).unwrap().to_string();
            let values = text.lines().nth(3).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            rows.push(format!("{} {values}", emission.rows.seqs.get(row)));
        }
    }
    rows
}

/// What `text` writes when the column widens before the row `switch`.
fn widened(text: &str, rows: &[Row], switch: usize) -> Vec<String> {
    let mut out = Emissions::default();
    let mut rule = version(text, DataType::Int64);
    feed(&mut *rule, &DataType::Int64, &rows[..switch], 0, &mut out);
    let mut wide = version(text, DataType::Float64);
    let misfits = wide.restore(rule.seal().unwrap()).unwrap();
    feed(&mut *wide, &DataType::Float64, &rows[switch..], switch, &mut out);
    wide.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    misfits.into_iter().chain(out.bad_row.clone()).chain(written(&out)).collect()
}

fn floats(text: &str, rows: &[Row]) -> Vec<String> {
    let mut out = Emissions::default();
    let mut rule = version(text, DataType::Float64);
    feed(&mut *rule, &DataType::Float64, rows, 0, &mut out);
    rule.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    written(&out)
}

#[test]
fn a_window_adds_up_whole_numbers_and_fractions() {
    let text = "INSERT INTO uplink SELECT count(*) AS n, sum(a) AS sa, avg(a) AS av, max(a) AS hi
        FROM COUNT_WINDOW(s, 4) GROUP BY window_start, window_end";
    let rows = [(0, "x", Some(2)), (1, "x", Some(6)), (2, "x", Some(5)), (3, "x", Some(8))];
    // 1 + 3 + 2.5 + 4 = 10.5, a quarter of which is 2.625
    assert_eq!(widened(text, &rows, 2), ["3 | 4.0 | 10.5 | 2.625 | 4.0 |"]);
}

#[test]
fn a_column_that_becomes_text_starts_empty_and_says_so() {
    let text = "INSERT INTO uplink SELECT d, max(a) AS hi, array_agg(a) AS l
        FROM COUNT_WINDOW(s PARTITION BY d, 4) GROUP BY window_start, window_end, d";
    let mut rule = version(text, DataType::Int64);
    feed(&mut *rule, &DataType::Int64, &[(0, "x", Some(2))], 0, &mut Emissions::default());
    let misfits = version(text, DataType::Utf8).restore(rule.seal().unwrap()).unwrap();
    assert_eq!(misfits.len(), 2, "{misfits:?}");
}

// The last digit of a deviation depends on the order in which parts are added up.
const SUMS: &str = "count(*) AS n, count(a) AS na, sum(a) AS s, avg(a) AS m, min(a) AS lo, max(a) AS hi,
    array_agg(a) AS l, count(DISTINCT a) AS nd, sum(a) FILTER (WHERE a > 3) AS f, round(stddev(a), 9) AS sd,
    sum(CASE WHEN a > 2 THEN a ELSE 1 END) AS c, first_value(a) AS fi, last_value(a) AS la";

fn rules() -> Vec<String> {
    let windows = [
        ("", "COUNT_WINDOW(s, 4)", ""),
        ("", "COUNT_WINDOW(s PARTITION BY d, 4, 2)", ", d"),
        ("", "COUNT_WINDOW(s PARTITION BY a, 2)", ", a"),
        ("", "TUMBLE(s, DESCRIPTOR(ts), INTERVAL '4' SECOND)", ", d"),
        ("", "TUMBLE(s, DESCRIPTOR(ts), INTERVAL '8' SECOND)", ", a"),
        ("", "HOP(s, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)", ", d"),
        ("", "SESSION(s PARTITION BY d, DESCRIPTOR(ts), INTERVAL '2' SECOND)", ", d"),
        ("", "STATE_WINDOW(s PARTITION BY d, a > 3, a < 2)", ", d"),
        ("--! emit = \"row\"\n", "TUMBLE(s, DESCRIPTOR(ts), INTERVAL '6' SECOND)", ", d"),
    ];
    let mut rules: Vec<String> = windows
        .into_iter()
        .map(|(options, window, keys)| {
            let named = keys.trim_start_matches(", ");
            let named = if named.is_empty() { String::new() } else { format!("{named} AS k, ") };
            format!(
                "{options}INSERT INTO uplink SELECT {named}{SUMS} FROM {window} GROUP BY window_start, \
                window_end{keys}"
            )
        })
        .collect();
    let memory = "OVER (PARTITION BY d)";
    rules.extend([
        format!("--! state_ttl = \"1d\"\nINSERT INTO uplink SELECT d, {SUMS} FROM s GROUP BY d"),
        "--! state_ttl = \"1d\"\nINSERT INTO uplink SELECT a, count(*) AS n, sum(a) AS s FROM s GROUP BY a"
            .to_owned(),
        "INSERT INTO uplink SELECT array_agg(a ORDER BY a) AS l FROM COUNT_WINDOW(s, 4) GROUP BY \
            window_start, window_end"
            .to_owned(),
        format!(
            "INSERT INTO uplink SELECT a, lag(a) {memory} AS l, lag(a, 2, 0) {memory} AS l2, max(a) {memory} \
            AS hi, sum(a) {memory} AS s, array_agg(a) {memory} AS aa, first_value(a) {memory} AS f FROM s"
        ),
        "INSERT INTO uplink SELECT avg(a) OVER w AS m, max(a) OVER w AS hi, sum(a) OVER w AS s, sum(a) \
        FILTER (WHERE a > 1) OVER w AS f FROM s WINDOW w AS (PARTITION BY d ROWS BETWEEN 2 PRECEDING AND \
        CURRENT ROW)"
            .to_owned(),
        format!(
            "INSERT INTO uplink SELECT changed(a) {memory} AS c, changed(a, 1) {memory} AS c1, increase(a) \
            {memory} AS i, deadband(a, 1) {memory} AS db, became(a > 2) {memory} AS b, hysteresis(a, 1, 3) \
            {memory} AS h, ewma(a, 0.5) {memory} AS e FROM s"
        ),
        "INSERT INTO uplink SELECT a, count(*) OVER (PARTITION BY a) AS n, lag(d) OVER (PARTITION BY a) AS l \
            FROM s"
            .to_owned(),
        "INSERT INTO uplink SELECT ts, d, a, held(a > 1, INTERVAL '2' SECOND) OVER (PARTITION BY d) AS h \
            FROM s"
            .to_owned(),
        "--! lateness = \"3s\"\nINSERT INTO uplink SELECT a, lag(a) OVER (PARTITION BY d ORDER BY ts) AS l \
            FROM s"
            .to_owned(),
        "INSERT INTO uplink SELECT l.a, r.a AS b FROM s l JOIN s r ON l.d = r.d AND r.a > l.a AND r.ts \
            BETWEEN l.ts - INTERVAL '2' SECOND AND l.ts + INTERVAL '2' SECOND"
            .to_owned(),
        "INSERT INTO uplink SELECT l.a, r.d FROM s l LEFT JOIN s r ON l.a = r.a AND r.ts \
            BETWEEN l.ts - INTERVAL '4' SECOND AND l.ts - INTERVAL '1' SECOND"
            .to_owned(),
        "INSERT INTO uplink SELECT l.a, r.a AS b FROM s l LEFT JOIN s FOR SYSTEM_TIME AS OF l.ts AS r ON \
            l.a = r.a"
            .to_owned(),
        "INSERT INTO uplink SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY d ORDER BY ts MEASURES FIRST(x.a) \
            AS f, LAST(y.a) AS l, SUM(y.a) AS s PATTERN (x y+ z) DEFINE y AS y.a >= PREV(y.a), z AS z.a < \
            PREV(z.a))"
            .to_owned(),
    ]);
    rules
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn where_the_switch_is_makes_no_difference(
        steps in prop::collection::vec(
            (0_i64..3, prop::sample::select(vec!["x", "y"]), prop::option::weighted(0.9, 0_i64..10)),
            1..16,
        ),
        switch in 0_usize..16,
    ) {
        let (switch, mut now) = (switch.min(steps.len()), 0);
        let rows: Vec<Row> = steps
            .into_iter()
            .enumerate()
            .map(|(at, (step, device, halves))| {
                now += step;
                (now, device, halves.map(|halves| if at < switch { halves / 2 * 2 } else { halves }))
            })
            .collect();
        let other = rules().into_iter().filter_map(|text| {
            let (found, expected) = (widened(&text, &rows, switch), floats(&text, &rows));
            (found != expected).then(|| format!("{text}\n{found:#?}\ninstead of\n{expected:#?}"))
        });
        let other: Vec<String> = other.collect();
        prop_assert!(other.is_empty(), "{}", other.join("\n"));
    }
}
