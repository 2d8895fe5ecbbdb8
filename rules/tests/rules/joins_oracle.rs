//! Joins, unions and `unnest` give the rows of stock DataFusion over the whole recorded input of two streams,
//! wherever batches are cut, however far rows are out of order within the lateness, and wherever the rule is
//! swapped for a new version of itself.

use crate::bench_rows::{
    Event, Tank, Valve, batches, feed_events, limits, limits_schema, rule, schema, valve_schema,
};
use crate::oracle::sorted;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use std::sync::Arc;
use tidegate_rules::{Emissions, When};

/// Queries that mean the same to both. `{W tank}` is a window over `tank`.
const SAME: &[&str] = &[
    "SELECT t.count AS n, v.position AS p FROM tank t JOIN valve v ON t.device = v.device AND v.ts BETWEEN \
    t.ts - INTERVAL '1' SECOND AND t.ts + INTERVAL '1' SECOND",
    "SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve v ON t.device = v.device AND v.ts >= \
    t.ts AND v.ts < t.ts + INTERVAL '2' SECOND",
    "SELECT t.count AS n, v.position AS p, v.open AS o FROM tank t RIGHT JOIN valve v ON t.device = \
    v.device AND t.ts <= v.ts AND t.ts + INTERVAL '1500' MILLISECOND > v.ts",
    "SELECT t.count AS n, v.position AS p FROM tank t FULL JOIN valve v ON t.device = v.device AND v.ts - \
    t.ts BETWEEN INTERVAL '-1' SECOND AND INTERVAL '500' MILLISECOND",
    "SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve v ON t.device = v.device AND v.ts \
    BETWEEN t.ts - INTERVAL '2' SECOND AND t.ts AND v.open AND t.temperature > 5",
    "SELECT t.count AS n, v.position AS p FROM tank t FULL JOIN valve v ON t.device = v.device AND v.ts \
    BETWEEN t.ts - INTERVAL '2' SECOND AND t.ts AND v.position % 3 > t.count % 3 AND t.running",
    "SELECT t.count AS n, v.position AS p FROM tank t, valve v WHERE v.ts BETWEEN t.ts - INTERVAL '1' \
    SECOND AND t.ts + INTERVAL '1' SECOND AND t.device = v.device AND t.temperature > 0 AND v.open",
    "SELECT t.count AS n, v.position AS p FROM tank t JOIN valve v ON v.ts BETWEEN t.ts - INTERVAL '1' \
    SECOND AND t.ts + INTERVAL '1' SECOND",
    "SELECT a.count AS n, b.count AS m FROM tank a JOIN tank b ON a.device = b.device AND b.ts BETWEEN a.ts \
    - INTERVAL '1' SECOND AND a.ts",
    "SELECT a.count AS n, b.count AS m FROM tank a LEFT JOIN tank b ON a.device = b.device AND b.ts >= a.ts \
    + INTERVAL '500' MILLISECOND AND b.ts <= a.ts + INTERVAL '1' SECOND",
    "SELECT t.count AS n, v.position AS p, w.position AS q FROM tank t JOIN valve v ON t.device = v.device \
    AND v.ts BETWEEN t.ts - INTERVAL '1' SECOND AND t.ts LEFT JOIN valve w ON w.device = v.device AND w.ts \
    BETWEEN v.ts AND v.ts + INTERVAL '1' SECOND",
    "SELECT a.window_end AS ts, a.device AS d, a.mean AS m, b.n AS n FROM (SELECT window_start, window_end, \
    device, avg(temperature) AS mean FROM {W tank} GROUP BY window_start, window_end, device) AS a JOIN \
    (SELECT window_start, window_end, device, count(*) AS n FROM {W valve} GROUP BY window_start, \
    window_end, device) AS b ON a.device = b.device AND a.window_start = b.window_start AND a.window_end = \
    b.window_end",
    "SELECT a.device AS d, a.n AS m, b.n AS n FROM (SELECT window_end, device, count(*) AS n FROM {W tank} \
    GROUP BY window_end, device) AS a FULL JOIN (SELECT window_end, device, count(*) AS n FROM {W valve} \
    GROUP BY window_end, device) AS b ON a.device = b.device AND a.window_end = b.window_end",
    "SELECT a.count AS n, b.position AS p FROM {W tank} AS a LEFT JOIN {W valve} AS b ON a.window_end = \
    b.window_end AND a.device = b.device",
    "SELECT a.count AS n, b.mean AS m FROM {W tank} AS a JOIN (SELECT window_end, avg(temperature) AS mean \
    FROM {W tank} GROUP BY window_end) AS b ON a.window_end = b.window_end WHERE a.temperature > b.mean",
    "SELECT ts, device, 'tank' AS kind, count AS n FROM tank UNION ALL SELECT ts, device, 'valve', position \
    FROM valve WHERE open",
    "SELECT device, temperature AS t FROM tank UNION ALL SELECT device, position FROM valve UNION ALL \
    SELECT device, count FROM tank",
    "SELECT position AS p, unnest(readings) AS r FROM valve",
    "SELECT unnest(readings) AS r, unnest([position, 1]) AS q FROM valve WHERE open",
    "SELECT t.count AS n, l.area AS a FROM tank t JOIN limits l ON t.device = l.device WHERE t.temperature \
    > l.high",
    "SELECT t.count AS n, l.area AS a, l.high AS h FROM tank t LEFT JOIN limits l ON t.device = l.device \
    AND t.temperature > l.high",
    "SELECT t.count AS n, l.area AS a FROM tank t JOIN limits l ON t.temperature BETWEEN l.high - 5 AND \
    l.high + 5",
    "SELECT t.count AS n, l.area AS a FROM limits l JOIN tank t ON t.device = l.device",
    "SELECT count AS n FROM tank WHERE device IN (SELECT device FROM limits WHERE high > 4)",
    "SELECT count AS n FROM tank WHERE device NOT IN (SELECT device FROM limits WHERE device IS NOT NULL)",
    "SELECT count AS n FROM tank WHERE device NOT IN (SELECT device FROM limits)",
    "SELECT count AS n FROM tank t WHERE EXISTS (SELECT 1 FROM limits l WHERE l.device = t.device AND \
    l.high < t.temperature)",
    "SELECT count AS n FROM tank t WHERE NOT EXISTS (SELECT 1 FROM limits l WHERE l.device = t.device)",
    "SELECT count AS n FROM tank WHERE running OR device IN (SELECT device FROM limits)",
    "SELECT count AS n FROM tank WHERE temperature > (SELECT high FROM limits WHERE area = 'north')",
    "SELECT t.count AS n, x.f AS f FROM tank t JOIN (VALUES ('a', 1), ('b', 2)) AS x(d, f) ON t.device = x.d",
    "WITH hot AS (SELECT ts, device, count FROM tank WHERE temperature > 3), open AS (SELECT ts, device, \
    position FROM valve WHERE open) SELECT h.count AS n, o.position AS p FROM hot h JOIN open o ON h.device \
    = o.device AND o.ts BETWEEN h.ts AND h.ts + INTERVAL '1' SECOND",
];

/// Queries that stock DataFusion does not know, and how it is asked for the same.
const OTHER_WORDS: &[(&str, &str)] = &[
    (
        "SELECT v.position AS p, u.r AS r FROM valve v CROSS JOIN UNNEST(v.readings) AS u(r) WHERE u.r > 2",
        "SELECT p, r FROM (SELECT position AS p, unnest(readings) AS r FROM valve) WHERE r > 2",
    ),
    (
        "SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve FOR SYSTEM_TIME AS OF t.ts AS v \
        ON t.device = v.device",
        "SELECT n, p FROM (SELECT t.count AS n, v.position AS p, row_number() OVER (PARTITION BY t.count \
        ORDER BY v.ts DESC, v.position DESC) AS r FROM tank t LEFT JOIN valve v ON t.device = v.device AND \
        v.ts <= t.ts) WHERE r = 1",
    ),
    (
        "SELECT t.count AS n, v.position AS p FROM tank t JOIN valve FOR SYSTEM_TIME AS OF t.ts AS v ON \
        t.device = v.device AND v.open WHERE t.temperature > 0",
        "SELECT n, p FROM (SELECT t.count AS n, t.temperature, v.open, v.position AS p, row_number() OVER \
        (PARTITION BY t.count ORDER BY v.ts DESC, v.position DESC) AS r FROM tank t JOIN valve v ON \
        t.device = v.device AND v.ts <= t.ts) WHERE r = 1 AND open AND temperature > 0",
    ),
    (
        "SELECT t.count AS n, v.position AS p FROM tank t LEFT JOIN valve FOR SYSTEM_TIME AS OF \
        CURRENT_TIMESTAMP AS v ON t.device = v.device",
        "SELECT n, p FROM (SELECT t.count AS n, v.position AS p, row_number() OVER (PARTITION BY t.count \
        ORDER BY v.position DESC) AS r FROM tank t LEFT JOIN valve v ON t.device = v.device AND v.position \
        < t.count) WHERE r = 1",
    ),
    (
        "SELECT t.count AS n, v.position AS p FROM tank t JOIN valve FOR SYSTEM_TIME AS OF now() AS v ON \
        true",
        "SELECT n, p FROM (SELECT t.count AS n, v.position AS p, row_number() OVER (PARTITION BY t.count \
        ORDER BY v.position DESC) AS r FROM tank t JOIN valve v ON v.position < t.count) WHERE r = 1",
    ),
];

/// Rows of both streams. `count` and `position` number them all; the times of the two are never equal, so
/// that nobody can disagree on what comes first.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let device = prop::option::weighted(0.9, prop::sample::select(vec!["a", "b", "c"]));
    let temperature = prop::option::weighted(0.9, (-40_i32..120).prop_map(|q| f64::from(q) / 4.0));
    let readings = prop::option::weighted(0.8, prop::collection::vec(prop::option::of(0_i64..5), 0..4));
    let row = (
        any::<bool>(),
        0_i64..400,
        0_i64..1000,
        device,
        temperature,
        prop::option::of(any::<bool>()),
        readings,
    );
    (prop::collection::vec(row, 0..60), -2_500_i64..2_500).prop_map(|(rows, base)| {
        let mut base = base;
        (0_i64..)
            .zip(rows)
            .map(|(number, (is_tank, step, back, device, temperature, flag, readings))| {
                base += step;
                let ts_ms = (base - back) * 2;
                if is_tank {
                    Event::Tank(Tank { ts_ms, device, temperature, count: Some(number), running: flag })
                } else {
                    Event::Valve(Valve {
                        ts_ms: ts_ms + 1,
                        device,
                        open: flag,
                        position: Some(number),
                        readings,
                    })
                }
            })
            .collect()
    })
}

fn table() -> RecordBatch {
    limits(&[
        (Some("a"), Some(3.0), "north"),
        (Some("b"), None, "south"),
        (Some("a"), Some(9.5), "south"),
        (None, Some(1.0), "east"),
        (Some("d"), Some(5.0), "west"),
    ])
}

fn window(query: &str, of: impl Fn(&str) -> String) -> String {
    ["tank", "valve"]
        .iter()
        .fold(query.to_owned(), |query, stream| query.replace(&format!("{{W {stream}}}"), &of(stream)))
}

fn stock(query: &str, events: &[Event]) -> Vec<String> {
    let start = "date_bin(INTERVAL '3 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z')";
    let query = window(query, |stream| {
        format!(
            "(SELECT *, {start} AS window_start, {start} + INTERVAL '3 seconds' AS window_end FROM {stream})"
        )
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let context = SessionContext::new();
        let [tanks, valves] = batches(events);
        for (name, schema, batch) in [
            ("tank", schema(), tanks),
            ("valve", valve_schema(), valves),
            ("limits", limits_schema(), table()),
        ] {
            context
                .register_table(name, Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap()))
                .unwrap();
        }
        sorted(&context.sql(&query).await.unwrap().collect().await.unwrap())
    })
}

/// The rows of the rule, and how many were late.
fn streamed(query: &str, events: &[Event], cuts: &[usize], swap: usize) -> (Vec<String>, Vec<RecordBatch>) {
    let query = window(query, |stream| format!("TUMBLE({stream}, DESCRIPTOR(ts), INTERVAL '3' SECOND)"));
    let text = format!("--! lateness = \"2s\"\nINSERT INTO uplink {query}");
    let mut out = Emissions::default();
    let start = |out: &mut Emissions| {
        let mut version = rule(&text);
        if version.lookups().unwrap().tables().iter().any(|(table, _)| &**table == "limits") {
            version.lookups().unwrap().on_table("limits", &table(), out).unwrap();
        }
        version
    };
    let mut version = start(&mut out);
    let swap = swap.min(events.len());
    feed_events(&mut *version, &events[..swap], 0, cuts, &mut out);
    let mut next = start(&mut out);
    assert_eq!(next.restore(version.seal().unwrap()).unwrap(), Vec::<String>::new());
    feed_events(&mut *next, &events[swap..], swap as u64, cuts, &mut out);
    next.on_end(events.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!((out.late, out.bad_rows), (0, 0), "{:?}", out.bad_row);
    let batches: Vec<_> = out.rows.into_iter().map(|emission| emission.rows.batch).collect();
    (sorted(&batches), batches)
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() }
}

/// Some of the queries: all of them in each case would take minutes.
fn some_of(queries: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::sample::subsequence((0..queries).collect::<Vec<_>>(), 6)
}

#[test]
fn queries_over_two_streams_equal_stock_datafusion() {
    let inputs = (events(), prop::collection::vec(1_usize..5, 0..20), 0_usize..60, some_of(SAME.len()));
    proptest!(config(), |((events, cuts, swap, some) in inputs)| {
        for query in some.into_iter().map(|index| SAME[index]) {
            prop_assert_eq!(streamed(query, &events, &cuts, swap).0, stock(query, &events), "{}", query);
        }
    });
}

#[test]
fn what_only_rules_know_equals_stock_datafusion_in_other_words() {
    proptest!(config(), |(events in events(), cuts in prop::collection::vec(1_usize..5, 0..20), swap in 0_usize..60)| {
        for (query, asked) in OTHER_WORDS {
            prop_assert_eq!(streamed(query, &events, &cuts, swap).0, stock(asked, &events), "{}", query);
        }
    });
}

#[test]
fn cuts_do_not_change_joins_nor_the_order_of_their_rows() {
    let all: Vec<&str> = SAME.iter().copied().chain(OTHER_WORDS.iter().map(|(query, _)| *query)).collect();
    let inputs = (events(), prop::collection::vec(1_usize..5, 0..60), 0_usize..60, some_of(all.len()));
    proptest!(config(), |((events, cuts, swap, some) in inputs)| {
        for query in some.into_iter().map(|index| all[index]) {
            let joined = |batches: Vec<RecordBatch>| batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap());
            let whole = joined(streamed(query, &events, &[], events.len()).1);
            let cut = joined(streamed(query, &events, &cuts, swap).1);
            prop_assert_eq!(whole, cut, "{}", query);
        }
    });
}
