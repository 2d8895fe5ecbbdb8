//! A row for which a function would make too much, or panics, costs itself and nothing else.

use std::sync::Arc;

use crate::bench_rows::{catalog, compile, listing, rule_of};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidegate_core::schema::ts_field;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{Catalog, CompileError, Emissions, When};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("x", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
    ]))
}

fn names() -> Catalog {
    Catalog { inputs: [("s".to_owned(), Some(schema()))].into(), ..catalog() }
}

/// What the statement makes of rows with these times, texts and numbers, all in one batch.
fn run(text: &str, rows: &[(i64, &str, i64)]) -> Emissions {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2 as f64))),
    ];
    let rows = Rows { batch: RecordBatch::try_new(schema(), columns).unwrap(), seqs: Seqs::Run { first: 0 } };
    let (mut rule, mut out) = (rule_of(text, &names()), Emissions::default());
    rule.on_batch("s", &rows, When::at(0), &mut out).unwrap();
    rule.on_end(99, When::at(i64::MAX), &mut out).unwrap();
    out
}

fn seqs(out: &Emissions) -> Vec<u64> {
    listing(&out.rows).iter().map(|row| row.1).collect()
}

#[test]
fn a_number_from_data_takes_no_memory_that_is_not_there() {
    // Each with a number that is within its limit, and one that is not.
    for (expr, most) in [
        ("repeat(x, v)", 65_536),
        ("repeat(repeat(x, 256), v)", 256),
        ("lpad(x, v)", 65_536),
        ("rpad(x, v)", 65_536),
        ("lpad(x, v, 'ab')", 65_536),
        // an e with its accent takes two bytes
        ("rpad(x, v, 'é')", 32_768),
        ("array_repeat(x, v)", 10_000),
        ("list_repeat(v, v)", 10_000),
        ("array_repeat(array_repeat(v, 100), v)", 100),
        ("array_resize(make_array(v), v)", 10_000),
        ("array_resize(make_array(v), v, 7)", 10_000),
        ("range(v)", 10_000),
        ("range(0, v)", 10_000),
        ("range(0, v * 2, 2)", 10_000),
        ("range(v, 0, -1)", 10_000),
        ("generate_series(1, v)", 10_000),
        ("generate_series(to_timestamp(0), to_timestamp(v), INTERVAL '1' SECOND)", 9_999),
        ("array_to_string(array_repeat('a', 100), repeat('b', v))", 10_485),
        ("array_replace_all(array_repeat('a', 100), 'a', repeat('b', v))", 10_400),
        ("replace(repeat('a', 1000), 'a', repeat('b', v))", 1_048),
        ("regexp_replace(repeat('a', 1000), 'a', repeat('b', v), 'g')", 1_047),
        ("string_to_array(repeat('a,', v), ',')", 9_999),
    ] {
        let text = format!("INSERT INTO uplink SELECT length(CAST({expr} AS VARCHAR)) AS n FROM s");
        let text = if compile("r.sql", &text, &names()).is_ok() {
            text
        } else {
            format!("INSERT INTO uplink SELECT {expr} AS n FROM s")
        };
        let out = run(&text, &[(0, "a", 1), (1, "a", most), (2, "a", most + 300), (3, "a", 1_500_000_000)]);
        assert_eq!(seqs(&out), [0, 1], "{expr}: {:?}", out.bad_row);
        assert_eq!(out.bad_rows, 2, "{expr}");
        let why = out.bad_row.unwrap();
        assert!(why.contains("at most"), "{expr}: {why}");
        let out = run(&text, &[(0, "a", i64::MAX), (1, "a", 2)]);
        assert!(seqs(&out).contains(&1), "{expr}: {:?}", out.bad_row);
    }
}

/// What is as large as its argument is not made large by the function.
#[test]
fn a_long_text_may_pass() {
    let long = "a".repeat(200_000);
    for expr in [
        "repeat(x, 1)",
        "rpad(x, 10)",
        "lpad(x, 200000)",
        "replace(x, 'aa', 'b')",
        "replace(x, 'c', 'long')",
        "regexp_replace(x, 'c+', 'long', 'g')",
        "regexp_replace(x, '^a', 'long')",
        "array_repeat(x, 2)",
    ] {
        let out = run(&format!("INSERT INTO uplink SELECT {expr} AS y FROM s"), &[(0, &long, 1)]);
        assert_eq!((seqs(&out), out.bad_row), (vec![0], None), "{expr}");
    }
}

#[test]
fn values_within_the_limits_are_as_postgresql_gives_them() {
    let text = "INSERT INTO uplink SELECT repeat(x, v) AS r, lpad(x, 5, 'xy') AS l, rpad(x, 4) || '|' AS p,
        replace(x, 'a', 'ccc') AS e, regexp_replace(x, '(a)', '[\\1\\1]', 'g') AS g,
        array_to_string(string_to_array('p,q', ','), '-') AS s FROM s";
    let out = run(text, &[(0, "ab", 3)]);
    let row = &listing(&out.rows)[0].2;
    for value in ["| ababab |", "| xyxab |", "| ab  | |", "| cccb |", "| [aa]b |", "| p-q |"] {
        assert!(row.contains(value.trim_matches('|').trim_end()), "{value}: {row}");
    }
}

/// What a constant makes is known when the rule is loaded.
#[test]
fn a_constant_that_makes_too_much_is_refused_or_costs_each_row() {
    let text = "INSERT INTO uplink SELECT repeat('x', 1500000000) AS y FROM s";
    match compile("r.sql", text, &names()) {
        Err(CompileError::Wrong(wrong)) => assert!(wrong[0].to_string().contains("at most"), "{}", wrong[0]),
        Err(CompileError::Waiting(_)) => panic!("nothing to wait for"),
        Ok(_) => {
            let out = run(text, &[(0, "a", 1)]);
            assert_eq!((seqs(&out), out.bad_rows), (vec![], 1));
        }
    }
}

/// Who loads rules goes on.
#[test]
fn a_constant_that_makes_a_function_panic_is_an_error_of_the_rule() {
    for expr in [
        "date_trunc('second', TIMESTAMP '1677-09-21T00:12:43.145224192Z')",
        "array_position(make_array(1, 2), 2, CAST('-9223372036854775808' AS BIGINT))",
    ] {
        let text = format!("INSERT INTO uplink SELECT {expr} AS y FROM s");
        match compile("r.sql", &text, &names()) {
            Err(CompileError::Wrong(wrong)) => assert_eq!(wrong.len(), 1, "{wrong:?}"),
            Err(CompileError::Waiting(_)) => panic!("nothing to wait for"),
            Ok(_) => drop(run(&text, &[(0, "a", 1)])),
        }
    }
}

#[test]
fn a_row_that_makes_a_function_panic_costs_itself() {
    const FIRST: i64 = i64::MIN;
    for text in [
        "INSERT INTO uplink SELECT date_trunc('second', ts) AS t, v FROM s",
        "INSERT INTO uplink SELECT v FROM s WHERE date_trunc('second', ts) IS NOT NULL",
        "INSERT INTO uplink SELECT v, lag(date_trunc('second', ts)) OVER () AS l FROM s",
        "INSERT INTO uplink SELECT date_trunc('second', l.ts) AS t, l.v FROM s l JOIN s r ON l.v = r.v AND \
            date_trunc('second', l.ts) = r.ts AND r.ts BETWEEN l.ts AND l.ts",
    ] {
        // Whether it panics is for the build to say, which checks for overflow or does not.
        let out = run(text, &[(0, "a", 1), (FIRST, "a", 2), (1_000_000_000, "a", 3)]);
        let found = seqs(&out);
        assert!(found.contains(&0) && found.contains(&2), "{text}: {found:?} {:?}", out.bad_row);
        assert_eq!(out.bad_rows, u64::from(!found.contains(&1)), "{text}");
    }
    let text = "INSERT INTO uplink SELECT array_position(make_array(1, 2), 2, v) AS p FROM s";
    let out = run(text, &[(0, "a", 1), (1, "a", i64::MIN), (2, "a", 1)]);
    assert!(seqs(&out).contains(&0) && seqs(&out).contains(&2), "{:?}", out.bad_row);
    assert_eq!(out.bad_rows, 1);
}
