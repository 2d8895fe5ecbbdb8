//! What the kit promises to plugins.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_plugin::prelude::*;
use tidegate_plugin::testing::{Bench, Line};
use tidegate_plugin::{Cell, Kind};

/// Writes what the column `do` says, and counts.
struct Obedient {
    what: Column<str>,
    number: Column<f64>,
    a: Target,
    b: Target,
    a_text: Field<str>,
    a_number: Field<f64>,
    b_count: Field<i64>,
}

#[derive(Default, Serialize, Deserialize)]
struct Count {
    rows: i64,
    #[serde(default)]
    since: Option<String>,
}

impl Plugin for Obedient {
    type Config = ();
    type State = Count;

    fn new((): (), schema: &Schema) -> Result<Self> {
        let (a, b) = (schema.target("a")?, schema.target("b")?);
        Ok(Self {
            what: schema.column("do")?,
            number: schema.column("number")?,
            a_text: a.field("text")?,
            a_number: a.field("number")?,
            b_count: b.field("count")?,
            a,
            b,
        })
    }

    fn on_row(&self, row: Row<'_>, state: &mut Count, out: &mut Out) -> Result<()> {
        state.rows += 1;
        let number = row.get(&self.number);
        match row.get(&self.what).unwrap_or_default() {
            "text" => out.write(&self.a, &[self.a_text.is("é")]),
            "both" => out.write(&self.a, &[self.a_text.is(None), self.a_number.is(number)]),
            "htob" => out.write(&self.a, &[self.a_number.is(number), self.a_text.is("t")]),
            "twice" => out.write(&self.a, &[self.a_text.is("t"), self.a_text.is("t")]),
            "astray" => out.write(&self.a, &[self.b_count.is(1)]),
            "count" => out.write(&self.b, &[self.b_count.is(state.rows)]),
            "wait" => out.after(Duration::from_secs(2), "tick"),
            "stop" => out.cancel("tick"),
            "forget" => *state = Count::default(),
            "fail" => return Err(format!("{number:?} is no good").into()),
            _ => {}
        }
        Ok(())
    }

    fn on_timer(&self, tag: &str, state: &mut Count, out: &mut Out) -> Result<()> {
        state.since = Some(tag.to_owned());
        out.write(&self.b, &[self.b_count.is(-state.rows)]);
        Ok(())
    }
}

fn bench() -> Bench<Obedient> {
    Bench::new("null")
        .input("in", &[("do", Kind::Utf8), ("number", Kind::Int64)])
        .target("a", &[("number", Kind::Float64), ("text", Kind::Utf8)])
        .target("b", &[("count", Kind::Int64)])
}

fn told(bench: &mut Bench<Obedient>, what: &[&str]) -> Result<Vec<String>, String> {
    let rows: Vec<[(&str, Cell<'_>); 2]> =
        (0..).zip(what).map(|(at, what)| [("do", Cell::from(*what)), ("number", Cell::from(at))]).collect();
    let rows: Vec<&[_]> = rows.iter().map(|row| row.as_slice()).collect();
    let line = |line: &Line| format!("{} {line}", line.cause);
    Ok(bench.batch("in", &rows)?.iter().map(line).collect())
}

#[test]
fn rows_stay_in_the_order_in_which_they_were_written() {
    let what = ["count", "both", "text", "htob", "text"];
    let lines = told(&mut bench(), &what).unwrap();
    assert_eq!(
        lines,
        ["0 b count=1", "1 a text=- number=1", "2 a text=é", "3 a number=3 text=t", "4 a text=é"]
    );
    let lines = told(&mut bench(), &["text", "both"]).unwrap();
    assert_eq!(lines, ["0 a text=é", "1 a text=- number=1"]);
}

#[test]
fn state_is_kept_from_call_to_call_and_gone_when_it_is_as_in_the_beginning() {
    let mut bench = bench();
    assert_eq!(told(&mut bench, &["x", "x"]).unwrap(), [""; 0]);
    assert_eq!(told(&mut bench, &["count"]).unwrap(), ["0 b count=3"]);
    told(&mut bench, &["forget"]).unwrap();
    assert_eq!(told(&mut bench, &["count"]).unwrap(), ["0 b count=1"]);
}

#[test]
fn what_a_call_that_fails_has_done_it_has_not_done() {
    let mut bench = bench();
    told(&mut bench, &["x"]).unwrap();
    assert_eq!(told(&mut bench, &["count", "wait", "fail"]).unwrap_err(), "Some(2.0) is no good");
    assert_eq!(told(&mut bench, &["count"]).unwrap(), ["0 b count=2"]);
    assert_eq!(bench.pass(Duration::from_secs(9)).unwrap().len(), 0);
}

#[test]
fn timers_come_once_unless_they_are_put_off_or_taken_back() {
    let mut bench = bench();
    told(&mut bench, &["wait"]).unwrap();
    assert_eq!(bench.pass(Duration::from_secs(1)).unwrap().len(), 0);
    told(&mut bench, &["wait"]).unwrap();
    assert_eq!(bench.pass(Duration::from_millis(1500)).unwrap().len(), 0);
    let lines = bench.pass(Duration::from_secs(5)).unwrap();
    assert_eq!(lines.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b count=-2"]);
    told(&mut bench, &["wait", "stop"]).unwrap();
    assert_eq!(bench.pass(Duration::from_secs(5)).unwrap().len(), 0);
}

#[test]
#[should_panic(expected = "column `text` of `a` is named twice in a row")]
fn a_column_is_named_once() {
    drop(told(&mut bench(), &["twice"]));
}

#[test]
#[should_panic(expected = "a column of another target than `a`")]
fn a_column_belongs_to_its_target() {
    drop(told(&mut bench(), &["astray"]));
}

/// Plugins that keep something under the same name: one after the other, as versions of one plugin.
macro_rules! version {
    ($name:ident, $state:ty, $version:expr, |$kept:ident| $change:expr) => {
        struct $name(Target, Field<i64>);

        impl Plugin for $name {
            type Config = ();
            type State = Keyed<$state>;
            const STATE_VERSION: u16 = $version;

            fn new((): (), schema: &Schema) -> Result<Self> {
                let target = schema.only_target()?;
                let field = target.field("seen")?;
                Ok(Self(target, field))
            }

            fn on_row(&self, _: Row<'_>, state: &mut Self::State, out: &mut Out) -> Result<()> {
                let $kept = state.entry("7");
                let seen = $change;
                out.write(&self.0, &[self.1.is(seen)]);
                Ok(())
            }
        }
    };
}

#[derive(Default, Serialize, Deserialize)]
struct Before {
    rows: i64,
}

#[derive(Default, Serialize, Deserialize)]
struct More {
    rows: i64,
    #[serde(default)]
    sum: f64,
}

#[derive(Default, Serialize, Deserialize)]
struct Other {
    rows: Vec<String>,
}

version!(First, Before, 0, |kept| {
    kept.rows += 1;
    kept.rows
});
version!(Second, More, 0, |kept| {
    kept.rows += 1;
    kept.sum += 0.5;
    kept.rows
});
version!(Raised, More, 1, |kept| {
    kept.rows += 1;
    kept.rows
});
version!(Unlike, Other, 1, |kept| {
    kept.rows.push("x".to_owned());
    kept.rows.len() as i64
});

#[test]
fn the_next_version_goes_on_with_what_fits() {
    fn seen<P: Plugin>(bench: &mut Bench<P>) -> f64 {
        bench.batch("in", &[&[]]).unwrap()[0].number("seen").unwrap()
    }
    let mut first = Bench::<First>::new("null")
        .input("in", &[("x", Kind::Int64)])
        .target("out", &[("seen", Kind::Int64)]);
    assert_eq!((seen(&mut first), seen(&mut first)), (1.0, 2.0));
    let mut second = first.upgrade::<Second>();
    assert_eq!(seen(&mut second), 3.0);
    assert_eq!(second.log(), []);
    let mut raised = second.upgrade::<Raised>();
    assert_eq!(seen(&mut raised), 1.0);
    let said = "what was kept under `keyed/7` is given up: it is of version 0 of the state, \
        and the plugin keeps version 1";
    assert_eq!(raised.log(), [(Level::Warn, said.to_owned())]);
    assert_eq!(seen(&mut raised), 2.0);
    let mut unlike = raised.upgrade::<Unlike>();
    assert_eq!(seen(&mut unlike), 1.0);
    let log = unlike.log();
    assert!(log.len() == 1 && log[0].1.contains("it does not fit any more"), "{log:?}");
}
