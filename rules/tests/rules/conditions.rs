//! A condition means what SQL means by it: true, false or unknown.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use tidegate_core::schema::ts_field;
use tidegate_rules::{Condition, ConditionColumn, ConditionError};

use crate::bench_rows::{Tank, batch, feed, rule, schema, tank};
use crate::oracle::{config, tanks};

const FALSE: Option<bool> = Some(false);
const TRUE: Option<bool> = Some(true);
const UNKNOWN: Option<bool> = None;

fn press_schema() -> SchemaRef {
    let axes = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    Arc::new(Schema::new(vec![
        ts_field(),
        Field::new("guard_open", DataType::Boolean, true),
        Field::new("temperature", DataType::Float64, true),
        Field::new("Mode", DataType::Utf8, true),
        Field::new("axes", axes, true),
    ]))
}

fn streams() -> BTreeMap<String, Option<SchemaRef>> {
    let streams = [("tank", Some(schema())), ("press", Some(press_schema())), ("mixer", None)];
    streams.map(|(name, schema)| (name.to_owned(), schema)).into()
}

fn condition(text: &str) -> Condition {
    Condition::compile(text, &streams()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Rows of one stream that has nothing but `columns`.
fn verdicts(text: &str, columns: &[(&str, ArrayRef)]) -> Vec<Option<bool>> {
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let condition = Condition::compile(text, &[("s".to_owned(), Some(schema))].into())
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let column = |name: &str| Arc::clone(&columns.iter().find(|(known, _)| *known == name).unwrap().1);
    let taken = condition.columns().iter().map(|looked| column(&looked.column)).collect();
    let rows = RecordBatch::try_new(Arc::clone(condition.schema()), taken).unwrap();
    condition.evaluate(&rows).unwrap().iter().collect()
}

/// SQL:2016, part 2, 6.39: the truth tables of AND, OR, NOT and IS.
#[test]
fn unknown_is_what_sql_makes_of_it() {
    let both = [TRUE, FALSE, UNKNOWN];
    let a: ArrayRef = Arc::new(BooleanArray::from_iter(both.iter().flat_map(|a| [*a; 3])));
    let b: ArrayRef = Arc::new(BooleanArray::from_iter(both.iter().cycle().take(9).copied()));
    #[rustfmt::skip]
    let cases = [
        // a:            T      T      T        F      F      F        U        U        U
        // b:            T      F      U        T      F      U        T        F        U
        ("s.a AND s.b", [TRUE, FALSE, UNKNOWN, FALSE, FALSE, FALSE, UNKNOWN, FALSE, UNKNOWN]),
        ("s.a OR s.b", [TRUE, TRUE, TRUE, TRUE, FALSE, UNKNOWN, TRUE, UNKNOWN, UNKNOWN]),
        ("NOT s.a OR s.b AND NOT s.b", [FALSE, FALSE, UNKNOWN, TRUE, TRUE, TRUE, UNKNOWN, UNKNOWN, UNKNOWN]),
        ("NOT (s.a AND s.b)", [FALSE, TRUE, UNKNOWN, TRUE, TRUE, TRUE, UNKNOWN, TRUE, UNKNOWN]),
        ("s.a = s.b", [TRUE, FALSE, UNKNOWN, FALSE, TRUE, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]),
        ("s.a IS NOT DISTINCT FROM s.b", [TRUE, FALSE, FALSE, FALSE, TRUE, FALSE, FALSE, FALSE, TRUE]),
        ("s.a IS TRUE AND s.b IS NOT TRUE", [FALSE, TRUE, TRUE, FALSE, FALSE, FALSE, FALSE, FALSE, FALSE]),
        ("s.a IS UNKNOWN OR s.b IS FALSE", [FALSE, TRUE, FALSE, FALSE, TRUE, FALSE, TRUE, TRUE, TRUE]),
        ("s.a IS NULL AND s.b IS NOT NULL", [FALSE, FALSE, FALSE, FALSE, FALSE, FALSE, TRUE, TRUE, FALSE]),
        ("CASE WHEN s.a THEN s.b ELSE TRUE END", [TRUE, FALSE, UNKNOWN, TRUE, TRUE, TRUE, TRUE, TRUE, TRUE]),
        ("coalesce(s.a, s.b)", [TRUE, TRUE, TRUE, FALSE, FALSE, FALSE, TRUE, FALSE, UNKNOWN]),
    ];
    for (text, expected) in cases {
        assert_eq!(verdicts(text, &[("a", Arc::clone(&a)), ("b", Arc::clone(&b))]), expected, "{text}");
    }
}

/// The same of comparisons: with null they are unknown, and so is what an IN does not find beside a null.
#[test]
fn comparisons_with_null_are_unknown() {
    let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(5), None]));
    let t: ArrayRef = Arc::new(StringArray::from(vec![Some("on"), Some(""), None]));
    for (text, expected) in [
        ("s.n > 1", [FALSE, TRUE, UNKNOWN]),
        ("s.n <> 5", [TRUE, FALSE, UNKNOWN]),
        ("s.n IN (1, NULL)", [TRUE, UNKNOWN, UNKNOWN]),
        ("s.n NOT IN (1, NULL)", [FALSE, UNKNOWN, UNKNOWN]),
        ("s.n BETWEEN 2 AND NULL", [FALSE, UNKNOWN, UNKNOWN]),
        ("s.n IS DISTINCT FROM 1", [FALSE, TRUE, TRUE]),
        ("s.n + NULL > 0 OR s.n = 5", [UNKNOWN, TRUE, UNKNOWN]),
        ("s.t = 'on' AND s.n = 1", [TRUE, FALSE, UNKNOWN]),
        ("s.t LIKE 'o%'", [TRUE, FALSE, UNKNOWN]),
        ("s.t = s.t", [TRUE, TRUE, UNKNOWN]),
        ("nullif(s.t, '') IS NULL", [FALSE, TRUE, TRUE]),
        ("s.n > 100 AND NULL", [FALSE, FALSE, UNKNOWN]),
        ("s.n < 100 OR NULL", [TRUE, TRUE, UNKNOWN]),
    ] {
        assert_eq!(verdicts(text, &[("n", Arc::clone(&n)), ("t", Arc::clone(&t))]), expected, "{text}");
    }
}

#[test]
fn it_knows_which_columns_of_which_streams_it_looks_at() {
    let condition =
        condition("tank.temperature > 10 AND NOT press.guard_open OR press.temperature < 5 OR TRUE");
    let column =
        |stream: &str, column: &str| ConditionColumn { stream: stream.into(), column: column.into() };
    let of_press = [column("press", "guard_open"), column("press", "temperature")];
    let of_tank = [column("tank", "temperature")];
    let streams: Vec<_> = condition.streams().map(|(stream, columns)| (&**stream, columns)).collect();
    assert_eq!(streams, [("press", &of_press[..]), ("tank", &of_tank[..])]);
    let fields: Vec<_> =
        condition.schema().fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
    assert_eq!(
        fields,
        [
            ("press.guard_open", &DataType::Boolean),
            ("press.temperature", &DataType::Float64),
            ("tank.temperature", &DataType::Float64)
        ]
    );
}

#[test]
fn members_of_lists_times_and_names_in_quotes_can_be_named() {
    for text in [
        "press.axes[1] > 0.5",
        "press.\"Mode\" = 'auto'",
        "PRESS.Guard_Open",
        "press.ts - tank.ts < INTERVAL '10' SECOND",
        "date_part('hour', tank.ts AT TIME ZONE 'Europe/Berlin') BETWEEN 6 AND 22",
        "EXTRACT(hour FROM tank.ts) > 6",
        "abs(tank.temperature\n  - press.temperature) < 2 -- degrees",
    ] {
        condition(text);
    }
}

/// Text, where the fault is, what is said, and what to do.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("", "", "the condition is empty", "write one such as `tank.level > 10`"),
    (
        "TRUE",
        "",
        "the condition looks at no stream, so that it is always the same",
        "name columns as `stream.column`",
    ),
    (
        "temperature > 10",
        "temperature",
        "`temperature` does not say of which stream it is",
        "write `press.temperature` or `tank.temperature`",
    ),
    (
        "tank.count > 1 AND running",
        "running",
        "`running` does not say of which stream it is",
        "write `tank.running`",
    ),
    ("tank > 10", "tank", "`tank` is a stream, and a condition compares its columns", "write `tank.device`"),
    (
        "tank.count > 1 OR devise = 'a'",
        "devise",
        "there is no column `devise`",
        "did you mean `tank.device`?",
    ),
    ("tank.device = \"a b\"", "\"a b\"", "there is no column `a b`", "text stands in single quotes: 'a b'"),
    ("tank.running = yes", "yes", "there is no column `yes`", "name columns as `stream.column`"),
    ("tnak.temperature > 10", "tnak", "`tnak` is not a stream", "did you mean `tank`?"),
    (
        "boiler.temperature > 10",
        "boiler",
        "`boiler` is not a stream",
        "known streams: `mixer`, `press`, `tank`",
    ),
    ("axes.x > 10", "axes", "`axes` is a column, and not a stream", "write `press.axes`"),
    ("NOT tank.runing", "runing", "there is no column `tank.runing`", "did you mean `running`?"),
    (
        "press.Mode = 'auto'",
        "Mode",
        "there is no column `press.mode`",
        "write `\"Mode\"`: names without quotes become lower case",
    ),
    (
        "tank.temperature",
        "temperature",
        "`temperature` is a number, and a condition is true or false",
        "compare it with something, such as `tank.temperature > 0`",
    ),
    (
        "tank.device",
        "device",
        "`device` is text, and a condition is true or false",
        "compare it with something, such as `tank.device = 'on'`",
    ),
    (
        "tank.count + 1",
        "count",
        "`count + 1` is a number, and a condition is true or false",
        "compare it with something, such as `count + 1 > 0`",
    ),
    (
        "tank.count = 1 AND avg(tank.temperature) > 10",
        "avg",
        "`avg` looks at more than the newest row, and a condition knows no other",
        "compute it in a rule that writes a derived stream, and name its column here",
    ),
    (
        "lag(tank.count) OVER () > 1",
        "lag",
        "`lag` looks at more than the newest row, and a condition knows no other",
        "compute it in a rule that writes a derived stream, and name its column here",
    ),
    (
        "held(tank.running, INTERVAL '10' SECOND)",
        "held",
        "`held` looks at more than the newest row, and a condition knows no other",
        "compute it in a rule that writes a derived stream, and name its column here",
    ),
    (
        "tank.count > max(tank.count) OVER (PARTITION BY tank.device)",
        "max",
        "`max` looks at more than the newest row, and a condition knows no other",
        "compute it in a rule that writes a derived stream, and name its column here",
    ),
    (
        "now() - tank.ts < INTERVAL '3' SECOND",
        "now",
        "`now` differs each time one looks, and a condition is looked at when rows come",
        "how old they may be is said by `max_age`",
    ),
    (
        "tank.ts > CURRENT_TIMESTAMP",
        "CURRENT_TIMESTAMP",
        "`CURRENT_TIMESTAMP` differs each time one looks, and a condition is looked at when rows come",
        "how old they may be is said by `max_age`",
    ),
    (
        "tank.temperature > random()",
        "random",
        "`random()` gives another result each time, but the same rows must always give the same result",
        "",
    ),
    (
        "tank.count > (SELECT max(count) FROM tank)",
        "(SELECT",
        "a condition looks at the newest rows of streams, and has no subqueries",
        "look it up in a rule that writes a derived stream, and name that",
    ),
    (
        "tank.count IN (SELECT count FROM tank)",
        "(SELECT",
        "a condition looks at the newest rows of streams, and has no subqueries",
        "look it up in a rule that writes a derived stream, and name that",
    ),
    (
        "tank.running AND EXISTS (SELECT 1 FROM press)",
        "(SELECT",
        "a condition looks at the newest rows of streams, and has no subqueries",
        "look it up in a rule that writes a derived stream, and name that",
    ),
    ("tank.count > $1", "$1", "a condition has no parameters such as `$1`", "write the value"),
    ("tank.count > ?", "?", "a condition has no parameters such as `?`", "write the value"),
    (
        "tank.device > 5",
        "tank.device",
        "`device` is text, and `5` is a number: they cannot be compared",
        "write `TRY_CAST(device AS DOUBLE) > 5`",
    ),
    (
        "tank.count = NULL",
        "NULL",
        "nothing is equal or unequal to NULL, so this never holds",
        "write `IS NULL`",
    ),
    (
        "tank.count > 5 AND tank.count < 3",
        "tank.count < 3",
        "`tank.count` is never > 5 and < 3 at once, so that this never holds",
        "write `(tank.count > 5 OR tank.count < 3)`, or other bounds",
    ),
    ("tank.count > 1 / 0", "", "`1 / 0` has no value for any row: Divide by zero error", ""),
    ("tank.count > 5 tank.count", "tank.count", "", ""),
    ("tank.running; press.guard_open", ";", "", ""),
    ("tank.running AND", "", "", ""),
    ("avrage(tank.count) > 1", "avrage", "there is no function `avrage`", "did you mean `avg`?"),
    ("tank.running && press.guard_open", "tank", "`&&` joins no conditions in SQL", "write AND"),
];

#[test]
fn what_is_no_condition_is_refused_at_its_place() {
    let mut wrong = Vec::new();
    for (text, at, said, advice) in REFUSED {
        match Condition::compile(text, &streams()) {
            Err(ConditionError::Wrong { offset, message, help }) => {
                let right = text[offset..].starts_with(at)
                    && (said.is_empty() || message == *said)
                    && (said.is_empty() || help.as_deref().unwrap_or_default() == *advice);
                if !right {
                    wrong.push(format!("{text}\n  {offset}: {message}; {help:?}"));
                }
            }
            other => wrong.push(format!("{text}\n  {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_stream_without_columns_is_waited_for() {
    let streams_of = |text| match Condition::compile(text, &streams()) {
        Err(ConditionError::Waiting(streams)) => streams,
        other => panic!("{other:?}"),
    };
    assert_eq!(streams_of("mixer.speed > 5 AND tank.count > 1"), ["mixer"]);
    // What is wrong whatever these columns are is said at once.
    let error = Condition::compile("mixer.speed > 5 AND runing", &streams()).unwrap_err();
    assert!(matches!(error, ConditionError::Wrong { offset: 20, .. }), "{error:?}");
}

#[test]
fn what_is_nested_too_deeply_is_refused_and_takes_nothing_along() {
    for text in [
        vec!["tank.running"; 5_000].join(" OR "),
        format!("{}tank.running{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{}tank.running", "NOT ".repeat(5_000)),
    ] {
        let error = Condition::compile(&text, &streams()).unwrap_err().to_string();
        let help = "compute a part of it in a rule that writes a derived stream, and name that here";
        assert!(error.contains("nested") && error.ends_with(help), "{error}");
    }
    let deep = condition(&format!("{} > 100", vec!["tank.temperature"; 200].join(" + ")));
    let temperature: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let rows = RecordBatch::try_new(Arc::clone(deep.schema()), vec![temperature]).unwrap();
    let run = move || deep.evaluate(&rows).unwrap().len();
    assert_eq!(std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap(), 1);
}

/// The columns of `rows` that a condition over `tank` takes.
fn taken(condition: &Condition, rows: &RecordBatch) -> RecordBatch {
    let column = |looked: &ConditionColumn| Arc::clone(rows.column_by_name(&looked.column).unwrap());
    let columns = condition.columns().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(condition.schema()), columns).unwrap()
}

/// Also where a row has no value, and where floats are no numbers.
#[test]
fn it_holds_for_the_rows_that_a_rule_with_the_same_where_writes() {
    let row = |ts_ms, device, temperature, count| Tank { count, temperature, ..tank(ts_ms, device, 1.0) };
    let rows = [
        row(1, "7", Some(f64::NAN), Some(0)),
        row(2, "a", Some(-0.0), Some(4)),
        row(3, "12", None, Some(-3)),
        row(4, "", Some(f64::INFINITY), None),
        row(5, "0", Some(-f64::NAN), Some(i64::MAX)),
        row(6, "b", Some(80.5), Some(2)),
    ];
    for text in [
        "tank.temperature > 80",
        "tank.temperature >= 0 AND tank.temperature <= 0",
        "tank.temperature = tank.temperature",
        "10 / tank.count > 2",
        "10 / tank.count > 2 AND tank.count <> 0",
        "10 / tank.count > 2 OR tank.temperature > 80",
        "NOT (10 / tank.count > 2) AND tank.temperature > 80",
        "CAST(tank.device AS BIGINT) > 5",
        "TRY_CAST(tank.device AS BIGINT) > 5 AND tank.count >= 0",
        "tank.count * 3 > 5",
        "tank.device IN ('7', 'b') OR tank.temperature IS NULL",
    ] {
        let condition = condition(text);
        let mut written = rule(&format!("INSERT INTO uplink SELECT * FROM tank WHERE {text}"));
        let out = feed(&mut *written, &rows, 0, &[]);
        let kept: Vec<u64> = out
            .rows
            .iter()
            .flat_map(|emission| (0..emission.rows.len()).map(|row| emission.rows.seqs.get(row)))
            .collect();
        let all = taken(&condition, &batch(&rows));
        let (mut holds, mut without) = (Vec::new(), 0);
        for row in 0..rows.len() {
            match condition.evaluate(&all.slice(row, 1)) {
                Ok(verdict) if verdict.is_valid(0) && verdict.value(0) => holds.push(row as u64),
                Ok(_) => {}
                Err(_) => without += 1,
            }
        }
        assert_eq!((holds, without), (kept, out.bad_rows), "{text}");
        if without == 0 {
            let alone: Vec<_> =
                (0..rows.len()).map(|row| condition.evaluate(&all.slice(row, 1)).unwrap()).collect();
            let together = condition.evaluate(&all).unwrap();
            assert!(together.iter().eq(alone.iter().flat_map(|verdict| verdict.iter())), "{text}");
        }
    }
}

#[test]
fn a_row_without_a_verdict_says_which_and_why() {
    let condition = condition("10 / tank.count > 2 AND tank.running");
    let rows = [
        tank(1, "a", 1.0),
        Tank { count: Some(0), ..tank(2, "a", -1.0) },
        Tank { count: Some(0), ..tank(3, "a", 1.0) },
    ];
    let rows = taken(&condition, &batch(&rows));
    let error = condition.evaluate(&rows).unwrap_err();
    assert_eq!(
        (error.row, error.to_string()),
        (2, "the condition has no value: a division by zero".to_owned())
    );
    // That the pump is not running is known, whatever the count is.
    assert_eq!(condition.evaluate(&rows.slice(0, 2)).unwrap(), BooleanArray::from(vec![true, false]));
    let other =
        RecordBatch::try_from_iter([("x", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef)]).unwrap();
    let error = condition.evaluate(&other).unwrap_err();
    assert_eq!(error.why, "the rows have other columns than it looks at");
}

fn whole_number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("tank.count".to_owned()),
        Just("pump.count".to_owned()),
        (-3_i64..12).prop_map(|number| number.to_string()),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec!["+", "-", "*"]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.clone().prop_map(|a| format!("abs({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("nullif({a}, {b})")),
        ]
    })
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("tank.temperature".to_owned()),
        Just("pump.temperature".to_owned()),
        whole_number(),
        (0_i32..60).prop_map(|quarters| format!("{:?}", f64::from(quarters) / 4.0)),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("greatest({a}, {b})")),
        ]
    })
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["tank.device", "pump.device", "'a'", "'bc'", "(tank.device || pump.device)"])
        .prop_map(str::to_owned)
}

/// Conditions of all kinds over `tank` and `pump`.
fn conditions() -> impl Strategy<Value = String> {
    let compare = || prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]);
    let leaf = prop_oneof![
        prop::sample::select(vec!["tank.running", "pump.running", "TRUE", "FALSE", "NULL"])
            .prop_map(str::to_owned),
        (number(), compare(), number()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (word(), compare(), word()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (number(), -9_i32..3, 3_i32..30).prop_map(|(x, low, high)| format!("({x} BETWEEN {low} AND {high})")),
        (whole_number(), any::<bool>(), any::<bool>()).prop_map(|(x, not, null)| {
            format!("({x} {}IN (1, 2, {}))", if not { "NOT " } else { "" }, if null { "NULL" } else { "7" })
        }),
        number().prop_map(|x| format!("({x} IS NULL)")),
        word().prop_map(|x| format!("({x} LIKE 'a%')")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.clone().prop_map(|a| format!("(NOT {a})")),
            (inner.clone(), prop::sample::select(vec!["TRUE", "NOT TRUE", "FALSE", "UNKNOWN", "NOT NULL"]))
                .prop_map(|(a, is)| format!("({a} IS {is})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} IS NOT DISTINCT FROM {b})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(when, then, other)| {
                format!("(CASE WHEN {when} THEN {then} ELSE {other} END)")
            }),
        ]
    })
}

/// What stock DataFusion says: the verdicts, and the rows that WHERE keeps.
fn stock(text: &str, tank: &RecordBatch, pump: &RecordBatch) -> (Vec<Option<bool>>, Vec<i64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let context = SessionContext::new();
        for (name, rows) in [("tank", tank), ("pump", pump)] {
            let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap();
            context.register_table(name, Arc::new(table)).unwrap();
        }
        let from = "FROM tank JOIN pump ON tank.nr = pump.nr";
        let one = async |query: String| {
            let batches = context.sql(&query).await.unwrap().collect().await.unwrap();
            let schema = batches.first().map(RecordBatch::schema);
            schema.map(|schema| Arc::clone(concat_batches(&schema, &batches).unwrap().column(0)))
        };
        let verdicts =
            one(format!("SELECT CAST({text} AS BOOLEAN) AS verdict {from} ORDER BY tank.nr")).await;
        let kept = one(format!("SELECT tank.nr {from} WHERE {text} ORDER BY tank.nr")).await;
        (
            verdicts.map(|column| column.as_boolean().iter().collect()).unwrap_or_default(),
            kept.map(|column| column.as_primitive::<Int64Type>().values().to_vec()).unwrap_or_default(),
        )
    })
}

/// `rows`, numbered.
fn numbered(rows: &[Tank]) -> RecordBatch {
    let rows = batch(rows);
    let numbers: ArrayRef =
        Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows.num_rows()).unwrap()));
    let fields = rows
        .schema()
        .fields()
        .iter()
        .cloned()
        .chain([Arc::new(Field::new("nr", DataType::Int64, true))])
        .collect::<Vec<_>>();
    let columns = rows.columns().iter().cloned().chain([numbers]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[test]
fn verdicts_equal_those_of_stock_datafusion() {
    let mut config = config();
    config.cases = 256;
    proptest!(config, |(text in conditions(), tanks in tanks(), pumps in tanks())| {
        let rows = tanks.len().min(pumps.len());
        let (tank, pump) = (numbered(&tanks[..rows]), numbered(&pumps[..rows]));
        let streams = [("tank", &tank), ("pump", &pump)];
        let known = streams.map(|(name, rows)| (name.to_owned(), Some(rows.schema()))).into();
        let condition = match Condition::compile(&text, &known) {
            Ok(condition) => condition,
            // What is written cannot be meant.
            Err(ConditionError::Wrong { message, .. })
                if ["never holds", "always holds", "looks at no stream", "is null, and"]
                    .iter()
                    .any(|meant| message.contains(meant)) =>
            {
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(format!("{text}: {error}"))),
        };
        let column = |looked: &ConditionColumn| {
            let (_, rows) = streams.iter().find(|(name, _)| **name == *looked.stream).unwrap();
            Arc::clone(rows.column_by_name(&looked.column).unwrap())
        };
        let columns = condition.columns().iter().map(column).collect();
        let taken = RecordBatch::try_new(Arc::clone(condition.schema()), columns).unwrap();
        let verdicts: Vec<_> = condition.evaluate(&taken).unwrap().iter().collect();
        let holds = (0_i64..).zip(&verdicts).filter(|(_, verdict)| **verdict == TRUE).map(|(row, _)| row);
        let holds: Vec<i64> = holds.collect();
        prop_assert_eq!((verdicts, holds), stock(&text, &tank, &pump), "{}", text);
    });
}
