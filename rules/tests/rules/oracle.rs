//! The rows of a rule equal those of stock DataFusion over the whole recorded input, wherever batches are
//! cut, however far rows are out of order within the lateness, and wherever the rule is swapped for a new
//! version of itself.

use crate::bench_rows::{Tank, batch, feed, rule, schema};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use std::sync::Arc;
use tidegate_rules::{Emissions, When};

/// `{T}` is the stream, or the window over it.
const STATELESS: &[&str] = &[
    "SELECT * FROM tank",
    "SELECT ts, device, temperature FROM tank WHERE temperature > 10",
    "SELECT upper(device) AS d, temperature * 1.8 + 32 AS f FROM tank WHERE running AND count % 2 = 0",
    "SELECT CASE WHEN temperature > 10 THEN 'hot' WHEN temperature IS NULL THEN 'dead' ELSE 'cold' END AS \
    state, count FROM tank",
    "SELECT coalesce(temperature, -1.0) AS t, device IN ('a', 'c') AS ac FROM tank WHERE device IS NOT NULL",
    "SELECT CAST(count AS VARCHAR) || '/' || device AS label, date_trunc('second', ts) AS s FROM tank WHERE \
    device LIKE 'b%' OR count BETWEEN 3 AND 7",
    "SELECT x.d AS d FROM (SELECT device AS d, temperature AS t FROM tank WHERE running) AS x WHERE x.t < \
    12.5",
    "WITH w AS (SELECT device, abs(temperature) AS t FROM tank) SELECT device, round(sqrt(t), 3) AS r FROM \
    w WHERE t > 4",
    "SELECT date_part('second', ts) AS s, nullif(count, 3) AS n, greatest(count, 5) AS g FROM tank WHERE \
    NOT running",
    "SELECT regexp_replace(device, 'a', 'x') AS d, [count, 1] AS list FROM tank WHERE regexp_like(device, \
    '[ab]')",
];
const WINDOWED: &[&str] = &[
    "SELECT window_start, count(*) AS n FROM {T} GROUP BY window_start, window_end",
    "SELECT window_start, window_end, device, avg(temperature) AS mean, min(temperature) AS low, max(count) \
    AS most FROM {T} GROUP BY window_start, window_end, device",
    "SELECT device, sum(count) AS s FROM {T} WHERE temperature > 5 GROUP BY window_start, window_end, \
    device HAVING sum(count) > 10",
    "SELECT window_end AS ts, device, running, count(temperature) AS n FROM {T} GROUP BY window_start, \
    window_end, device, running",
    "SELECT window_start, count(DISTINCT device) AS d, sum(temperature) FILTER (WHERE running) AS warm FROM \
    {T} GROUP BY window_start, window_end",
    "SELECT device, max(temperature) - min(temperature) AS spread FROM {T} GROUP BY device, window_end, \
    window_start",
    "SELECT window_start, bool_or(running) AS any_running, bool_and(running) AS all_running, median(count) \
    AS middle FROM {T} GROUP BY window_start, window_end",
    "SELECT window_start, count % 3 AS k, max(device) AS d FROM {T} GROUP BY window_start, window_end, \
    count % 3",
    "SELECT date_part('hour', window_start) AS h, round(stddev(count), 6) AS sd, approx_distinct(device) AS \
    d FROM {T} GROUP BY window_start, window_end",
    "SELECT window_start, device, bit_xor(count) AS x FROM {T} WHERE device IS NOT NULL AND running GROUP \
    BY window_start, window_end, device HAVING count(*) >= 2",
];

pub fn tanks() -> impl Strategy<Value = Vec<Tank>> {
    let device = prop::option::weighted(0.9, prop::sample::select(vec!["a", "b", "c"]));
    // Quarters add up exactly in any order, so that sums can be compared to the bit.
    let temperature = prop::option::weighted(0.9, (-40_i32..120).prop_map(|q| f64::from(q) / 4.0));
    let row = (
        0_i64..1500,
        0_i64..2000,
        device,
        temperature,
        prop::option::weighted(0.9, 0_i64..12),
        prop::option::of(any::<bool>()),
    );
    (prop::collection::vec(row, 0..60), -5_000_i64..5_000).prop_map(|(rows, mut base)| {
        rows.into_iter()
            .map(|(step, back, device, temperature, count, running)| {
                base += step;
                Tank { ts_ms: base - back, device, temperature, count, running }
            })
            .collect()
    })
}

pub fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        for row in 0..batch.num_rows() {
            let text = pretty_format_batches(&[batch.slice(row, 1)]).unwrap().to_string();
            lines.push(text.lines().nth(3).unwrap().split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    lines
}

fn stock(query: &str, rows: &[Tank]) -> Vec<String> {
    let windows = "(SELECT *, date_bin(INTERVAL '3 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') AS \
        window_start, date_bin(INTERVAL '3 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z') + INTERVAL '3 \
        seconds' AS window_end FROM tank)";
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let context = SessionContext::new();
        let table = MemTable::try_new(schema(), vec![vec![batch(rows)]]).unwrap();
        context.register_table("tank", Arc::new(table)).unwrap();
        let batches = context.sql(&query.replace("{T}", windows)).await.unwrap().collect().await.unwrap();
        sorted(&batches)
    })
}

fn streamed(query: &str, rows: &[Tank], cuts: &[usize], swap: usize) -> (Vec<String>, Vec<RecordBatch>) {
    let text = format!(
        "--! lateness = \"2s\"\nINSERT INTO uplink {}",
        query.replace("{T}", "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '3' SECOND)")
    );
    let mut version = rule(&text);
    let swap = swap.min(rows.len());
    let mut out = feed(&mut *version, &rows[..swap], 0, cuts);
    let mut next = rule(&text);
    assert_eq!(next.restore(version.seal().unwrap()).unwrap(), Vec::<String>::new());
    let rest: Emissions = feed(&mut *next, &rows[swap..], swap as u64, cuts);
    out.rows.extend(rest.rows);
    out.late += rest.late;
    next.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!((out.late, out.bad_rows), (0, 0), "{:?}", out.bad_row);
    let batches: Vec<_> = out.rows.into_iter().map(|emission| emission.rows.batch).collect();
    (sorted(&batches), batches)
}

pub fn config() -> ProptestConfig {
    ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn stateless_queries_equal_stock_datafusion() {
    proptest!(config(), |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..12), swap in 0_usize..60)| {
        for query in STATELESS {
            prop_assert_eq!(streamed(query, &rows, &cuts, swap).0, stock(query, &rows), "{}", query);
        }
    });
}

#[test]
fn windowed_queries_equal_stock_datafusion() {
    proptest!(config(), |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..12), swap in 0_usize..60)| {
        for query in WINDOWED {
            prop_assert_eq!(streamed(query, &rows, &cuts, swap).0, stock(query, &rows), "{}", query);
        }
    });
}

#[test]
fn cuts_change_nothing_not_even_the_order() {
    proptest!(config(), |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..40), swap in 0_usize..60)| {
        for query in STATELESS.iter().chain(WINDOWED) {
            let joined = |batches: Vec<RecordBatch>| batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap());
            let whole = joined(streamed(query, &rows, &[], rows.len()).1);
            let cut = joined(streamed(query, &rows, &cuts, swap).1);
            prop_assert_eq!(whole, cut, "{}", query);
        }
    });
}
