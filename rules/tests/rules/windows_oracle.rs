//! What windows hold, and what aggregates over them give, against stock DataFusion over the recorded rows,
//! each placed in its windows by the definition of these.

use crate::bench_rows::{Tank, batch, feed, rule, schema};
use crate::oracle::{config, sorted, tanks};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::ts_type;
use tidegate_rules::When;

/// A row in a window.
struct Placed {
    row: usize,
    start_ms: i64,
    end_ms: i64,
    /// tells windows with the same bounds apart
    number: i64,
}

/// A window function, as it is written and as it is defined.
#[derive(Debug)]
struct Case {
    written: &'static str,
    defined: fn(&[Tank]) -> Vec<Placed>,
}

fn by_time(rows: &[Tank], windows_of: impl Fn(i64) -> Vec<(i64, i64)>) -> Vec<Placed> {
    let of = |(row, tank): (usize, &Tank)| {
        windows_of(tank.ts_ms).into_iter().map(move |(start_ms, end_ms)| Placed {
            row,
            start_ms,
            end_ms,
            number: 0,
        })
    };
    rows.iter().enumerate().flat_map(of).collect()
}

/// Windows `[k * slide + offset, k * slide + offset + size)`, looked for one by one.
fn hop(rows: &[Tank], slide: i64, size: i64, offset: i64) -> Vec<Placed> {
    by_time(rows, |ts| {
        let around = (ts - size - slide) / slide - 2..=(ts + slide) / slide + 2;
        around
            .map(|k| (k * slide + offset, k * slide + offset + size))
            .filter(|(start, end)| (*start..*end).contains(&ts))
            .collect()
    })
}

fn by_device(rows: &[Tank]) -> BTreeMap<Option<&'static str>, Vec<usize>> {
    let mut devices: BTreeMap<Option<&'static str>, Vec<usize>> = BTreeMap::new();
    for (row, tank) in rows.iter().enumerate() {
        devices.entry(tank.device).or_default().push(row);
    }
    devices
}

/// Windows that are given by their rows.
fn placed(rows: &[Tank], windows: Vec<Vec<usize>>, gap: i64) -> Vec<Placed> {
    let mut all = Vec::new();
    for (number, window) in (0..).zip(windows) {
        let times = || window.iter().map(|row| rows[*row].ts_ms);
        let (start_ms, end_ms) = (times().min().unwrap_or(0), times().max().unwrap_or(0) + gap);
        all.extend(window.iter().map(|row| Placed { row: *row, start_ms, end_ms, number }));
    }
    all
}

fn sessions(rows: &[Tank], keys: impl IntoIterator<Item = Vec<usize>>, gap: i64) -> Vec<Placed> {
    let mut windows: Vec<Vec<usize>> = Vec::new();
    for mut of_key in keys {
        of_key.sort_by_key(|row| rows[*row].ts_ms);
        for (at, row) in of_key.iter().enumerate() {
            if at == 0 || rows[*row].ts_ms - rows[of_key[at - 1]].ts_ms >= gap {
                windows.push(Vec::new());
            }
            windows.last_mut().unwrap().push(*row);
        }
    }
    windows.iter_mut().for_each(|window| window.sort_unstable());
    placed(rows, windows, gap)
}

fn counts(rows: &[Tank], size: usize, every: usize) -> Vec<Placed> {
    let mut windows = Vec::new();
    for of_key in by_device(rows).into_values() {
        windows.extend(
            (size..=of_key.len()).filter(|end| end % every == 0).map(|end| of_key[end - size..end].to_vec()),
        );
    }
    placed(rows, windows, 0)
}

fn states(rows: &[Tank]) -> Vec<Placed> {
    let mut windows = Vec::new();
    for of_key in by_device(rows).into_values() {
        let mut open: Option<Vec<usize>> = None;
        for row in of_key {
            if open.is_none() && rows[row].running == Some(true) {
                open = Some(Vec::new());
            }
            if let Some(window) = &mut open {
                window.push(row);
                if rows[row].temperature.is_some_and(|temperature| temperature > 10.0) {
                    windows.extend(open.take());
                }
            }
        }
    }
    placed(rows, windows, 0)
}

const CASES: &[Case] = &[
    Case {
        written: "TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '3' SECOND)",
        defined: |rows| hop(rows, 3_000, 3_000, 0),
    },
    Case {
        written: "TUMBLE(TABLE tank, DESCRIPTOR(ts), INTERVAL '2.5' SECOND, INTERVAL '700' MILLISECOND)",
        defined: |rows| hop(rows, 2_500, 2_500, 700),
    },
    Case {
        written: "HOP(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '5' SECOND)",
        defined: |rows| hop(rows, 1_000, 5_000, 0),
    },
    Case {
        written: "TABLE(HOP(TABLE tank, DESCRIPTOR(ts), INTERVAL '400' MILLISECOND, INTERVAL '3' SECOND, \
            -INTERVAL '100' MILLISECOND))",
        defined: |rows| hop(rows, 400, 3_000, -100),
    },
    Case {
        written: "HOP(tank, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '2' SECOND)",
        defined: |rows| hop(rows, 5_000, 2_000, 0),
    },
    Case {
        written: "CUMULATE(tank, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '4' SECOND)",
        defined: |rows| {
            by_time(rows, |ts| {
                let start = ts.div_euclid(4_000) * 4_000;
                (1..=4).map(|step| (start, start + step * 1_000)).filter(|(_, end)| ts < *end).collect()
            })
        },
    },
    Case {
        written: "SESSION(tank PARTITION BY device, DESCRIPTOR(ts), INTERVAL '1' SECOND)",
        defined: |rows| sessions(rows, by_device(rows).into_values(), 1_000),
    },
    Case {
        written: "TABLE(SESSION(TABLE tank PARTITION BY (device), DESCRIPTOR(ts), INTERVAL '3' SECOND))",
        defined: |rows| sessions(rows, by_device(rows).into_values(), 3_000),
    },
    Case {
        written: "SESSION(tank, DESCRIPTOR(ts), INTERVAL '500' MILLISECOND)",
        defined: |rows| sessions(rows, [(0..rows.len()).collect()], 500),
    },
    Case { written: "COUNT_WINDOW(tank PARTITION BY device, 3)", defined: |rows| counts(rows, 3, 3) },
    Case { written: "COUNT_WINDOW(tank PARTITION BY device, 5, 2)", defined: |rows| counts(rows, 5, 2) },
    Case { written: "STATE_WINDOW(tank PARTITION BY device, running, temperature > 10)", defined: states },
];

/// `{T}` is the window; `{G}` the columns that tell windows apart. Devices have windows of their own in some
/// of [`CASES`], so each query goes by them.
const QUERIES: &[&str] = &[
    "SELECT window_start, window_end, device, count(*) AS n, avg(temperature) AS mean, min(temperature) AS \
    low, max(count) AS most FROM {T} GROUP BY {G}, device",
    "SELECT window_end AS ts, device, sum(count) AS s FROM {T} WHERE temperature > 5 GROUP BY {G}, device \
    HAVING sum(count) > 10",
    "SELECT window_start, device, running, count(DISTINCT count) AS n, sum(temperature) FILTER (WHERE \
    running) AS warm FROM {T} GROUP BY {G}, device, running",
    "SELECT device, array_agg(count) AS all_counts, first_value(count) AS first, last_value(temperature) AS \
    last FROM {T} GROUP BY {G}, device",
    "SELECT device, array_agg(temperature ORDER BY count DESC, temperature, ts) AS sorted, \
    string_agg(device, '-' ORDER BY ts) AS names FROM {T} GROUP BY {G}, device",
    "SELECT device, first_value(temperature ORDER BY count, temperature) AS a, last_value(temperature ORDER \
    BY count, temperature) AS b FROM {T} GROUP BY {G}, device",
    "SELECT device, max(x) AS longest FROM (SELECT device, ts, window_start, window_end, {W} ts - \
    window_start AS x FROM {T} WHERE window_end - ts > INTERVAL '1' MILLISECOND) AS s GROUP BY {G}, device",
    "SELECT device, n, count(*) AS windows FROM (SELECT window_start, window_end, {W} device, count % 3 AS \
    k, count(*) AS n FROM {T} GROUP BY {G}, device, count % 3) AS s GROUP BY {G}, device, n",
];

/// Without an aggregate, or with DISTINCT, which is one.
const ROWS: &[&str] = &[
    "SELECT ts, window_start, window_end, device, temperature FROM {T}",
    "SELECT window_end, count FROM {T} WHERE running AND ts > window_start",
    "SELECT DISTINCT window_start, window_end, {W} device, running FROM {T}",
];

fn stock(query: &str, rows: &[Tank], case: &Case) -> Vec<String> {
    let all = (case.defined)(rows);
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields.extend(["window_start", "window_end"].map(|name| Arc::new(Field::new(name, ts_type(), false))));
    fields.push(Arc::new(Field::new("number", DataType::Int64, false)));
    let index = UInt32Array::from_iter_values(all.iter().map(|placed| placed.row as u32));
    let mut columns = take_record_batch(&batch(rows), &index).unwrap().columns().to_vec();
    let time = |ms: &dyn Fn(&Placed) -> i64| {
        Arc::new(
            TimestampNanosecondArray::from_iter_values(all.iter().map(|p| ms(p) * 1_000_000))
                .with_timezone("UTC"),
        ) as ArrayRef
    };
    columns.extend([time(&|p| p.start_ms), time(&|p| p.end_ms)]);
    columns.push(Arc::new(Int64Array::from_iter_values(all.iter().map(|p| p.number))));
    let windowed_schema = Arc::new(Schema::new(fields));
    let windowed = RecordBatch::try_new(Arc::clone(&windowed_schema), columns).unwrap();
    let query = query
        .replace("{T}", "windowed")
        .replace("{G}", "window_start, window_end, number")
        .replace("{W}", "number,");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let context = SessionContext::new();
        let table = MemTable::try_new(windowed_schema, vec![vec![windowed]]).unwrap();
        context.register_table("windowed", Arc::new(table)).unwrap();
        sorted(&context.sql(&query).await.unwrap().collect().await.unwrap())
    })
}

fn streamed(query: &str, rows: &[Tank], cuts: &[usize], swap: usize, case: &Case) -> Vec<RecordBatch> {
    streamed_with("", query, rows, cuts, swap, case)
}

fn streamed_with(
    options: &str,
    query: &str,
    rows: &[Tank],
    cuts: &[usize],
    swap: usize,
    case: &Case,
) -> Vec<RecordBatch> {
    let query =
        query.replace("{T}", case.written).replace("{G}", "window_start, window_end").replace("{W}", "");
    let text = format!("--! lateness = \"2s\"\n{options}INSERT INTO uplink {query}");
    let mut version = rule(&text);
    let swap = swap.min(rows.len());
    let mut out = feed(&mut *version, &rows[..swap], 0, cuts);
    let mut next = rule(&text);
    assert_eq!(next.restore(version.seal().unwrap()).unwrap(), Vec::<String>::new());
    let rest = feed(&mut *next, &rows[swap..], swap as u64, cuts);
    out.rows.extend(rest.rows);
    out.late += rest.late;
    next.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!((out.late, out.bad_rows), (0, 0), "{:?}", out.bad_row);
    out.rows.into_iter().map(|emission| emission.rows.batch).collect()
}

/// Which windows number their own rows, so that DISTINCT and copies cannot be told apart by their bounds
/// alone.
fn has_equal_bounds(case: &Case) -> bool {
    !case.written.contains("DESCRIPTOR")
}

/// So many cases that each window meets each query a few times.
fn many() -> ProptestConfig {
    ProptestConfig { cases: 250, ..config() }
}

fn case_and_query() -> impl Strategy<Value = (&'static Case, &'static str)> {
    let queries: Vec<&str> = QUERIES.iter().chain(ROWS).copied().collect();
    (prop::sample::select(CASES.iter().collect::<Vec<_>>()), prop::sample::select(queries))
}

#[test]
fn windows_equal_their_definition() {
    let inputs = (tanks(), prop::collection::vec(1_usize..9, 0..12), 0_usize..60, case_and_query());
    proptest!(many(), |((rows, cuts, swap, (case, query)) in inputs)| {
        prop_assume!(!(has_equal_bounds(case) && query.contains("DISTINCT window_start")));
        let found = sorted(&streamed(query, &rows, &cuts, swap, case));
        prop_assert_eq!(
            found,
            without_number(stock(query, &rows, case), query),
            "{} {}",
            case.written,
            query,
        );
    });
}

/// Rows of many keys that come and go, and of sessions of many rows.
fn crowds() -> impl Strategy<Value = Vec<Tank>> {
    let row = (
        0_i64..150,
        0_i64..2000,
        prop::sample::select(vec![Some("a"), Some("b"), None]),
        -40_i32..120,
        0_i64..150,
    );
    prop::collection::vec(row, 0..400).prop_map(|rows| {
        let mut base = 0;
        let row = |(step, back, device, quarters, key): (i64, i64, _, i32, i64)| {
            base += step;
            let ts_ms = base - back;
            Tank {
                ts_ms,
                device,
                temperature: Some(f64::from(quarters) / 4.0),
                count: Some(base / 100 + key),
                running: Some(ts_ms % 3 == 0),
            }
        };
        rows.into_iter().map(row).collect()
    })
}

#[test]
fn keys_that_come_and_go_and_long_sessions_equal_their_definition() {
    const QUERIES: &[&str] = &[
        "SELECT window_start, count, device, count(*) AS n, avg(temperature) AS mean, min(temperature) AS \
        low FROM {T} GROUP BY {G}, count, device",
        "SELECT window_start, window_end, device, count(*) AS n, sum(temperature) AS s, max(count) AS most \
        FROM {T} GROUP BY {G}, device",
        "SELECT window_end, device, count(*) AS n FROM {T} GROUP BY {G}, device",
    ];
    let cases: Vec<&Case> = CASES.iter().collect();
    let inputs = (
        crowds(),
        prop::collection::vec(1_usize..40, 0..40),
        0_usize..400,
        prop::sample::select(cases),
        prop::sample::select(QUERIES),
    );
    proptest!(ProptestConfig { cases: 100, ..config() }, |((rows, cuts, swap, case, query) in inputs)| {
        let found = streamed(query, &rows, &cuts, swap, case);
        prop_assert_eq!(sorted(&found), stock(query, &rows, case), "{} {}", case.written, query);
        let joined = |batches: Vec<RecordBatch>| batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap());
        prop_assert_eq!(
            joined(found),
            joined(streamed(query, &rows, &[], rows.len(), case)),
            "{} {}",
            case.written,
            query,
        );
    });
}

/// Nothing of a row is needed but that it is there.
#[test]
fn a_session_of_which_nothing_is_asked_is_given() {
    let case = CASES.iter().find(|case| case.written.contains("500' MILLISECOND")).unwrap();
    let query = "SELECT window_start, window_end FROM {T} GROUP BY {G}";
    let rows: Vec<Tank> =
        (0..40).map(|at| crate::bench_rows::tank(at * 100 + at / 20 * 1_000, "a", 1.0)).collect();
    assert_eq!(sorted(&streamed(query, &rows, &[7; 4], 25, case)), stock(query, &rows, case));
}

/// DISTINCT selects the number as well, which the stream does not have.
fn without_number(lines: Vec<String>, query: &str) -> Vec<String> {
    if !query.starts_with("SELECT DISTINCT") {
        return lines;
    }
    let mut lines: Vec<String> = lines
        .iter()
        .map(|line| {
            let columns = line.split(" | ").enumerate().filter(|(column, _)| *column != 2);
            columns.map(|(_, text)| text).collect::<Vec<_>>().join(" | ")
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn cuts_and_swaps_change_no_window_not_even_the_order_of_rows() {
    let inputs = (tanks(), prop::collection::vec(1_usize..9, 0..40), 0_usize..60, case_and_query());
    proptest!(many(), |((rows, cuts, swap, (case, query)) in inputs)| {
        let joined = |batches: Vec<RecordBatch>| batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap());
        let whole = joined(streamed(query, &rows, &[], rows.len(), case));
        let cut = joined(streamed(query, &rows, &cuts, swap, case));
        prop_assert_eq!(whole, cut, "{} {}", case.written, query);
    });
}

/// How to call the aggregates that do not take one number.
fn call(function: &str) -> Option<String> {
    let numbers = "temperature, count";
    Some(match function {
        // It tells the columns of GROUPING SETS, which are refused.
        "grouping" => return None,
        "array_agg" => "array_agg(count ORDER BY ts, count, temperature, device, running)".to_owned(),
        "string_agg" => {
            "string_agg(CAST(count AS VARCHAR), ',' ORDER BY ts, count, temperature, device)".to_owned()
        }
        "first_value" | "last_value" => format!("{function}(count ORDER BY ts, count, temperature)"),
        "any_value" => "any_value(device) FILTER (WHERE device = 'a')".to_owned(),
        "nth_value" => "nth_value(count, 2)".to_owned(),
        "bool_and" | "bool_or" => format!("{function}(running)"),
        "bit_and" | "bit_or" | "bit_xor" | "count" | "approx_distinct" => format!("{function}(count)"),
        "percentile_cont" | "approx_percentile_cont" => {
            format!("{function}(0.25) WITHIN GROUP (ORDER BY temperature)")
        }
        // With weights that differ, its guess depends on which rows come together.
        "approx_percentile_cont_with_weight" => {
            format!("{function}(1, 0.5) WITHIN GROUP (ORDER BY temperature)")
        }
        // The last bits depend on the order of adding up. Sums of quarters lie halfway between two decimals,
        // so they are moved away from there first.
        "corr" | "covar_samp" | "covar_pop" => format!("round({function}({numbers}) + 0.00000013, 6) + 0.0"),
        _ if function.starts_with("regr_") => format!("round({function}({numbers}) + 0.00000013, 6) + 0.0"),
        _ if function.starts_with("stddev") || function.starts_with("var") => {
            format!("round({function}(temperature) + 0.00000013, 6) + 0.0")
        }
        _ => format!("{function}(temperature)"),
    })
}

#[test]
fn every_aggregate_function_works_in_windows() {
    let functions = datafusion_functions_aggregate::all_default_aggregate_functions();
    let calls: Vec<String> = functions.iter().filter_map(|function| call(function.name())).collect();
    // Beside an aggregate with ORDER BY, stock DataFusion sorts the rows for all.
    let (by_arrival, calls): (Vec<String>, Vec<String>) =
        calls.into_iter().partition(|call| call.starts_with("nth_value"));
    assert!(calls.len() >= 37 && by_arrival.len() == 1, "{calls:?}");
    let columns: Vec<String> =
        calls.iter().enumerate().map(|(index, call)| format!("{call} AS c{index}")).collect();
    let distinct = "count(DISTINCT device) AS d1, sum(DISTINCT count) AS d2, array_sort(array_agg(DISTINCT \
        count)) AS d3, string_agg(DISTINCT device, ',' ORDER BY device) AS d4, avg(DISTINCT temperature) AS \
        d5, median(DISTINCT count) AS d6";
    let by_arrival: Vec<String> = by_arrival.iter().map(|call| format!("{call} AS by_arrival")).collect();
    let queries = [format!("{}, {distinct}", columns.join(", ")), by_arrival.join(", ")]
        .map(|columns| format!("SELECT device, {columns} FROM {{T}} GROUP BY {{G}}, device"));
    let config = ProptestConfig { cases: 24, ..config() };
    proptest!(config, |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..12), swap in 0_usize..60)| {
        for case in [&CASES[0], &CASES[2], &CASES[6]] {
            for query in &queries {
                prop_assert_eq!(
                    sorted(&streamed(query, &rows, &cuts, swap, case)),
                    stock(query, &rows, case),
                    "{}",
                    case.written,
                );
            }
        }
    });
}

/// Each row with its place, so that a running aggregate has an order.
fn stock_running(query: &str, rows: &[Tank]) -> Vec<String> {
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("place", DataType::Int64, false)));
    let placed_schema = Arc::new(Schema::new(fields));
    let mut columns = batch(rows).columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(0..rows.len() as i64)));
    let placed = RecordBatch::try_new(Arc::clone(&placed_schema), columns).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let context = SessionContext::new();
        context
            .register_table("tank", Arc::new(MemTable::try_new(placed_schema, vec![vec![placed]]).unwrap()))
            .unwrap();
        sorted(&context.sql(query).await.unwrap().collect().await.unwrap())
    })
}

#[test]
fn running_results_equal_those_over_all_rows_so_far() {
    let columns = |over: &str| {
        [
            "count(*)",
            "sum(count)",
            "avg(temperature)",
            "max(device)",
            "min(temperature)",
            "bool_or(running)",
            "array_agg(count)",
            "last_value(count)",
        ]
        .map(|call| format!("{call} {over} AS \"of {call}\""))
        .join(", ")
    };
    let window = "date_bin(INTERVAL '3 seconds', ts, TIMESTAMP '1970-01-01T00:00:00Z')";
    let over =
        |keys: &str| columns(&format!("OVER (PARTITION BY {keys} ORDER BY place ROWS UNBOUNDED PRECEDING)"));
    let (alone, windowed) = (over("device"), over(&format!("device, {window}")));
    let config = ProptestConfig { cases: 24, ..config() };
    proptest!(config, |(rows in tanks(), cuts in prop::collection::vec(1_usize..9, 0..12), swap in 0_usize..60)| {
        // No windows, but groups that live long enough.
        let query = format!("SELECT device, {} FROM {{T}} GROUP BY device", columns(""));
        let case = Case { written: "tank", defined: |_| Vec::new() };
        let found = sorted(&streamed_with("--! state_ttl = \"1d\"\n", &query, &rows, &cuts, swap, &case));
        prop_assert_eq!(found, stock_running(&format!("SELECT device, {alone} FROM tank"), &rows));
        // Windows, with a result for each row and one when they close.
        let query = format!("SELECT window_start, device, {} FROM {{T}} GROUP BY {{G}}, device", columns(""));
        let found = sorted(&streamed_with("--! emit = \"row\"\n", &query, &rows, &cuts, swap, &CASES[0]));
        let mut expected = stock_running(&format!("SELECT {window} AS window_start, device, {windowed} FROM \
            tank"), &rows);
        expected.extend(sorted(&streamed(&query, &rows, &[], 0, &CASES[0])));
        expected.sort();
        prop_assert_eq!(found, expected);
    });
}
