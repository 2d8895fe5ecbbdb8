//! Matches of generated patterns equal those of a matcher that follows the standard's definition word by
//! word: it looks at the whole partition and tries one way after the other, in the order in which they are
//! preferred.

use crate::bench_rows::{Tank, compile, feed, rule};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use proptest::prelude::*;
use tidegate_rules::{CompileError, Emissions, When};

/// A pattern as the test knows it.
#[derive(Debug, Clone)]
enum Pattern {
    Variable(usize),
    Sequence(Vec<Pattern>),
    Either(Vec<Pattern>),
    Repeat(Box<Pattern>, usize, Option<usize>, bool),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Pattern {
    fn text(&self) -> String {
        let join =
            |parts: &[Self], between: &str| parts.iter().map(Self::text).collect::<Vec<_>>().join(between);
        match self {
            Self::Variable(variable) => NAMES[*variable].to_owned(),
            Self::Sequence(parts) => format!("({})", join(parts, " ")),
            Self::Either(parts) => format!("({})", join(parts, " | ")),
            Self::Repeat(part, least, most, greedy) => {
                let quantifier = match (least, most) {
                    (0, None) => "*".to_owned(),
                    (1, None) => "+".to_owned(),
                    (0, Some(1)) => "?".to_owned(),
                    (least, None) => format!("{{{least},}}"),
                    (least, Some(most)) if least == most => format!("{{{least}}}"),
                    (least, Some(most)) => format!("{{{least},{most}}}"),
                };
                format!("({}){quantifier}{}", part.text(), if *greedy { "" } else { "?" })
            }
        }
    }

    fn can_be_empty(&self) -> bool {
        match self {
            Self::Variable(_) => false,
            Self::Sequence(parts) => parts.iter().all(Self::can_be_empty),
            Self::Either(parts) => parts.iter().any(Self::can_be_empty),
            Self::Repeat(part, least, ..) => *least == 0 || part.can_be_empty(),
        }
    }
}

/// A condition as SQL, and as the test evaluates it: on the rows of the partition, the rows of the match so
/// far with their variables (the last is the row in question), and the variable.
type Condition = (&'static str, fn(&[Tank], &[(usize, usize)]) -> bool);

fn temperature(rows: &[Tank], row: usize) -> Option<f64> {
    rows[row].temperature
}

fn current(rows: &[Tank], taken: &[(usize, usize)]) -> Option<f64> {
    temperature(rows, taken.last().unwrap().0)
}

fn of(taken: &[(usize, usize)], variable: usize) -> Vec<usize> {
    taken.iter().filter(|(_, taken)| *taken == variable).map(|(row, _)| *row).collect()
}

/// `{v}` is the variable itself.
const CONDITIONS: &[Condition] = &[
    ("temperature > 2", |rows, taken| current(rows, taken).is_some_and(|t| t > 2.0)),
    ("{v}.temperature <= 5 OR {v}.temperature IS NULL", |rows, taken| {
        current(rows, taken).is_none_or(|t| t <= 5.0)
    }),
    ("temperature > PREV(temperature)", |rows, taken| {
        let row = taken.last().unwrap().0;
        row > 0
            && temperature(rows, row - 1)
                .zip(temperature(rows, row))
                .is_some_and(|(before, now)| now > before)
    }),
    ("running", |rows, taken| rows[taken.last().unwrap().0].running == Some(true)),
    ("PREV({v}.count, 2) IS NULL OR count % 2 = 0", |rows, taken| {
        let row = taken.last().unwrap().0;
        row < 2 || rows[row - 2].count.is_none() || rows[row].count.is_some_and(|count| count % 2 == 0)
    }),
    ("COUNT(*) < 4", |_, taken| taken.len() < 4),
    ("SUM({v}.count) < 15", |rows, taken| {
        let counts: Vec<i64> =
            of(taken, taken.last().unwrap().1).into_iter().filter_map(|row| rows[row].count).collect();
        !counts.is_empty() && counts.iter().sum::<i64>() < 15
    }),
    ("temperature >= FIRST(temperature)", |rows, taken| {
        temperature(rows, taken[0].0).zip(current(rows, taken)).is_some_and(|(first, now)| now >= first)
    }),
    ("temperature >= LAST({v}.temperature, 1) OR LAST({v}.temperature, 1) IS NULL", |rows, taken| {
        let mine = of(taken, taken.last().unwrap().1);
        match mine.len().checked_sub(2).and_then(|before| temperature(rows, mine[before])) {
            Some(before) => current(rows, taken).is_some_and(|now| now >= before),
            None => true,
        }
    }),
    ("FIRST({v}.count, 1) IS NULL OR FIRST({v}.count, 1) < 8", |rows, taken| {
        of(taken, taken.last().unwrap().1)
            .get(1)
            .and_then(|row| rows[*row].count)
            .is_none_or(|count| count < 8)
    }),
    ("a.temperature IS NULL OR temperature < a.temperature + 3", |rows, taken| {
        let a = of(taken, 0).last().and_then(|row| temperature(rows, *row));
        a.is_none_or(|a| current(rows, taken).is_some_and(|now| now < a + 3.0))
    }),
    ("COUNT(b.*) <= COUNT(a.*)", |_, taken| of(taken, 1).len() <= of(taken, 0).len()),
    ("TRUE", |_, _| true),
];

/// Rows of the partition, with the variables that have taken them.
type Taken = Vec<(usize, usize)>;

/// What must be content with a way.
type Then<'a> = dyn FnMut(&mut Taken) -> bool + 'a;

#[derive(Debug, Clone, Copy)]
enum Skip {
    Past,
    Next,
    First(usize),
    Last(usize),
}

#[derive(Debug, Clone)]
struct Query {
    pattern: Pattern,
    conditions: Vec<usize>,
    skip: Skip,
    within_ms: Option<i64>,
    absent: Option<(usize, i64)>,
}

impl Query {
    fn text(&self) -> String {
        let condition = |condition: usize, name: &str| {
            format!("{name} AS {}", CONDITIONS[condition].0.replace("{v}", name))
        };
        let pattern = self.pattern.text();
        let is_used = |name: &&str| pattern.contains(*name);
        let mut define: Vec<String> = self
            .conditions
            .iter()
            .zip(NAMES)
            .filter(|(_, name)| is_used(name))
            .map(|(at, name)| condition(*at, name))
            .collect();
        define.extend(self.absent.map(|(at, _)| condition(at, "z")));
        let skip = match self.skip {
            Skip::Past => "PAST LAST ROW".to_owned(),
            Skip::Next => "TO NEXT ROW".to_owned(),
            Skip::First(variable) => format!("TO FIRST {}", NAMES[variable]),
            Skip::Last(variable) => format!("TO LAST {}", NAMES[variable]),
        };
        let span = |ms: i64| format!("WITHIN INTERVAL '{ms}' MILLISECOND");
        format!(
            "--! lateness = \"2s\"\nINSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (PARTITION BY \
            device ORDER BY ts
                MEASURES CLASSIFIER() AS label, MATCH_NUMBER() AS number, COUNT(*) AS running_count, FINAL \
            COUNT(*) AS final_count,
                    FIRST(count) AS first, FINAL LAST(temperature) AS last, SUM(temperature) AS sum, \
            PREV(FIRST(count)) AS before
                ALL ROWS PER MATCH AFTER MATCH SKIP {skip} PATTERN ({pattern}) {} {} DEFINE {}) AS m",
            self.within_ms.map(span).unwrap_or_default(),
            self.absent.map(|(_, ms)| format!("NOT FOLLOWED BY z {}", span(ms))).unwrap_or_default(),
            define.join(", ")
        )
    }

    /// Tries `pattern` on the rows behind `taken`, and `then` behind it; in order of preference, until `then`
    /// is content.
    fn prefilters(
        &self,
        pattern: &Pattern,
        rows: &[Tank],
        start: usize,
        taken: &mut Taken,
        then: &mut Then<'_>,
    ) -> bool {
        match pattern {
            Pattern::Variable(variable) => {
                let row = start + taken.len();
                let in_time = |row: usize| {
                    self.within_ms.is_none_or(|within| rows[row].ts_ms - rows[start].ts_ms < within)
                };
                if row >= rows.len() || !in_time(row) {
                    return false;
                }
                taken.push((row, *variable));
                let content = CONDITIONS[self.conditions[*variable]].1(rows, taken) && then(taken);
                if !content {
                    taken.pop();
                }
                content
            }
            Pattern::Sequence(parts) => match parts.split_first() {
                None => then(taken),
                Some((first, rest)) => {
                    let rest = Pattern::Sequence(rest.to_vec());
                    self.prefilters(first, rows, start, taken, &mut |taken| {
                        self.prefilters(&rest, rows, start, taken, then)
                    })
                }
            },
            Pattern::Either(parts) => {
                parts.iter().any(|part| self.prefilters(part, rows, start, taken, then))
            }
            Pattern::Repeat(part, 0, most, greedy) => {
                if *most == Some(0) {
                    return then(taken);
                }
                let again = Pattern::Repeat(part.clone(), 0, most.map(|most| most - 1), *greedy);
                let length = taken.len();
                let once_more = |taken: &mut Taken, then: &mut Then<'_>| {
                    self.prefilters(part, rows, start, taken, &mut |taken| {
                        // An endless repetition of nothing is none.
                        (most.is_some() || taken.len() > length)
                            && self.prefilters(&again, rows, start, taken, then)
                    })
                };
                if !*greedy && then(taken) {
                    return true;
                }
                once_more(taken, then) || (*greedy && then(taken))
            }
            Pattern::Repeat(part, least, most, greedy) => {
                let rest = Pattern::Repeat(part.clone(), least - 1, most.map(|most| most - 1), *greedy);
                self.prefilters(part, rows, start, taken, &mut |taken| {
                    self.prefilters(&rest, rows, start, taken, then)
                })
            }
        }
    }

    fn is_absent(&self, rows: &[Tank], taken: &[(usize, usize)]) -> bool {
        let Some((condition, span)) = self.absent else { return true };
        let last = taken.last().unwrap().0;
        let follow = (last + 1..rows.len()).take_while(|row| rows[*row].ts_ms - rows[last].ts_ms < span);
        !follow.into_iter().any(|row| {
            let mut with = taken.to_vec();
            with.push((row, usize::MAX));
            CONDITIONS[condition].1(rows, &with)
        })
    }

    /// The rows that a partition gives: device, label, number and so on, as text.
    fn expected(&self, rows: &[Tank]) -> Vec<String> {
        let mut lines = Vec::new();
        let (mut start, mut number) = (0, 0);
        while start < rows.len() {
            let mut taken = Vec::new();
            if !self
                .prefilters(&self.pattern, rows, start, &mut taken, &mut |taken| self.is_absent(rows, taken))
            {
                start += 1;
                continue;
            }
            number += 1;
            let text = |value: Option<String>| value.unwrap_or_default();
            let float = |value: Option<f64>| text(value.map(|value| format!("{value:?}")));
            let int = |value: Option<i64>| text(value.map(|value| value.to_string()));
            let mut sum = None;
            for (at, (row, variable)) in taken.iter().enumerate() {
                sum = rows[*row].temperature.map_or(sum, |t| Some(sum.unwrap_or(0.0) + t));
                let before = start.checked_sub(1).and_then(|before| rows[before].count);
                let fields = [
                    rows[*row].device.unwrap_or_default().to_owned(),
                    rows[*row].ts_ms.to_string(),
                    NAMES[*variable].to_owned(),
                    number.to_string(),
                    (at + 1).to_string(),
                    taken.len().to_string(),
                    int(rows[start].count),
                    float(rows[taken.last().unwrap().0].temperature),
                    float(sum),
                    int(before),
                ];
                lines.push(fields.join("|"));
            }
            start += match self.skip {
                Skip::Past => taken.len(),
                Skip::Next => 1,
                Skip::First(wanted) => {
                    taken.iter().position(|(_, variable)| *variable == wanted).unwrap_or(0).max(1)
                }
                Skip::Last(wanted) => {
                    taken.iter().rposition(|(_, variable)| *variable == wanted).unwrap_or(0).max(1)
                }
            };
        }
        lines
    }
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let leaf = (0_usize..4).prop_map(Pattern::Variable);
    leaf.prop_recursive(3, 8, 3, |inner| {
        let quantifier = prop::sample::select(vec![
            (0, None),
            (1, None),
            (0, Some(1)),
            (2, Some(2)),
            (1, Some(2)),
            (2, None),
            (0, Some(2)),
        ]);
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(Pattern::Sequence),
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(Pattern::Either),
            4 => (inner, quantifier, prop::bool::weighted(0.7)).prop_map(|(part, (least, most), greedy)| {
                Pattern::Repeat(Box::new(part), least, most, greedy)
            }),
        ]
    })
    .prop_map(|pattern| {
        if pattern.can_be_empty() { Pattern::Sequence(vec![Pattern::Variable(0), pattern]) } else { pattern }
    })
}

fn queries() -> impl Strategy<Value = Query> {
    let skip = prop_oneof![
        3 => Just(Skip::Past),
        2 => Just(Skip::Next),
        1 => (0_usize..4).prop_map(Skip::First),
        1 => (0_usize..4).prop_map(Skip::Last),
    ];
    let absent =
        prop::option::weighted(0.3, (0..CONDITIONS.len(), prop::sample::select(vec![500, 1_000, 3_000])));
    let within = prop::option::weighted(0.4, prop::sample::select(vec![500, 1_500, 4_000]));
    (patterns(), prop::collection::vec(0..CONDITIONS.len(), 4), skip, within, absent).prop_map(
        |(pattern, conditions, skip, within_ms, absent)| Query {
            pattern,
            conditions,
            skip,
            within_ms,
            absent,
        },
    )
}

fn rows() -> impl Strategy<Value = Vec<Tank>> {
    let device = prop::sample::select(vec![Some("a"), Some("b"), None]);
    let temperature = prop::option::weighted(0.9, (0_i32..32).prop_map(|q| f64::from(q) / 4.0));
    let row = (
        0_i64..5,
        0_i64..8,
        device,
        temperature,
        prop::option::weighted(0.9, 0_i64..12),
        prop::option::of(any::<bool>()),
    );
    prop::collection::vec(row, 0..22).prop_map(|rows| {
        let mut base = -2_000;
        rows.into_iter()
            .map(|(step, back, device, temperature, count, running)| {
                base += step * 250;
                Tank { ts_ms: base - back * 250, device, temperature, count, running }
            })
            .collect()
    })
}

fn streamed(text: &str, rows: &[Tank], cuts: &[usize], swap: usize) -> Vec<RecordBatch> {
    let mut version = rule(text);
    let swap = swap.min(rows.len());
    let mut out = feed(&mut *version, &rows[..swap], 0, cuts);
    let mut next = rule(text);
    assert_eq!(next.restore(version.seal().unwrap()).unwrap(), Vec::<String>::new());
    let rest: Emissions = feed(&mut *next, &rows[swap..], swap as u64, cuts);
    out.rows.extend(rest.rows);
    next.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
    assert_eq!(out.late, 0);
    out.rows.into_iter().map(|emission| emission.rows.batch).collect()
}

const COLUMNS: [&str; 10] =
    ["device", "ts", "label", "number", "running_count", "final_count", "first", "last", "sum", "before"];

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<usize> = COLUMNS.iter().map(|name| batch.schema().index_of(name).unwrap()).collect();
        let ts = arrow::compute::cast(batch.column(columns[1]), &arrow::datatypes::DataType::Int64).unwrap();
        let ms: Vec<i64> = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&ts)
            .values()
            .iter()
            .map(|ns| ns / 1_000_000)
            .collect();
        let table = pretty_format_batches(&[batch.project(&columns).unwrap()]).unwrap().to_string();
        for (line, ms) in table.lines().skip(3).filter(|line| line.starts_with('|')).zip(ms) {
            let mut fields: Vec<String> =
                line.split('|').skip(1).take(COLUMNS.len()).map(|field| field.trim().to_owned()).collect();
            fields[1] = ms.to_string();
            lines.push(fields.join("|"));
        }
    }
    lines
}

/// Whether the skip clause is one that the loader refuses.
fn is_refused(text: &str) -> bool {
    match compile("rule.sql", text, &crate::bench_rows::catalog()) {
        Ok(_) => false,
        Err(CompileError::Wrong(wrong)) => {
            let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            assert!(
                wrong.iter().all(|wrong| wrong.contains("SKIP TO") || wrong.contains("there is no column")),
                "{wrong:?} {text}"
            );
            true
        }
        Err(CompileError::Waiting(_)) => panic!("the stream is known"),
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn matches_equal_those_of_the_definition() {
    proptest!(config(400), |(query in queries(), rows in rows(), cuts in prop::collection::vec(1_usize..6, 0..8), swap in 0_usize..24)| {
        let text = query.text();
        if !is_refused(&text) {
            let mut found = lines(&streamed(&text, &rows, &cuts, swap));
            let mut expected = Vec::new();
            for device in [None, Some("a"), Some("b")] {
                let mut partition: Vec<Tank> = rows.iter().filter(|row| row.device == device).cloned().collect();
                partition.sort_by_key(|row| row.ts_ms);
                expected.extend(query.expected(&partition));
            }
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected, "{}", text);
        }
    });
}

#[test]
fn cuts_change_nothing_not_even_the_order() {
    proptest!(config(100), |(query in queries(), rows in rows(), cuts in prop::collection::vec(1_usize..6, 0..24), swap in 0_usize..24)| {
        let text = query.text();
        if !is_refused(&text) {
            let joined = |batches: Vec<RecordBatch>| batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap());
            let whole = joined(streamed(&text, &rows, &[], rows.len()));
            let cut = joined(streamed(&text, &rows, &cuts, swap));
            prop_assert_eq!(whole, cut, "{}", text);
        }
    });
}

#[test]
fn any_pattern_gives_a_rule_or_an_error() {
    let words = prop::sample::select(vec![
        "A",
        "B",
        "(",
        ")",
        "|",
        "+",
        "*",
        "?",
        "{2}",
        "{2,}",
        "{0}",
        "{9,1}",
        "{4294967295}",
        "^",
        "$",
        "{-",
        "-}",
        "PERMUTE",
        ",",
        "WITHIN",
        "INTERVAL '1' SECOND",
        "NOT FOLLOWED BY",
        "SUBSET",
        "=",
        "DEFINE",
        "AS",
        "TRUE",
        "PREV(",
        "FIRST(",
        "FINAL",
        "LAST(x)",
        "count",
        "COUNT(A.*)",
        "AFTER MATCH SKIP",
        "MEASURES",
        "ORDER BY ts",
        "PATTERN (",
    ]);
    proptest!(config(600), |(pattern in prop::collection::vec(words.clone(), 0..14), rest in prop::collection::vec(words, 0..14))| {
        let text = format!("INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES ts \
            AS ts PATTERN ({}) {} DEFINE A AS TRUE)",
            pattern.join(" "), rest.join(" "));
        let _ = compile("any.sql", &text, &crate::bench_rows::catalog());
    });
}

/// What a search that goes back and forth would not finish in a lifetime.
#[test]
fn patterns_that_could_be_matched_in_very_many_ways_take_no_time() {
    let row =
        |at| Tank { ts_ms: at, device: Some("a"), temperature: Some(1.0), count: Some(at), running: None };
    let rows: Vec<Tank> = (0..5_000).map(row).collect();
    let run = |pattern: &str, define: &str, rows: &[Tank]| {
        let text = format!(
            "INSERT INTO uplink SELECT * FROM tank MATCH_RECOGNIZE (ORDER BY ts MEASURES COUNT(*) AS n \
            PATTERN ({pattern}) DEFINE {define})"
        );
        let mut rule = rule(&text);
        let mut out = feed(&mut *rule, rows, 0, &[]);
        rule.on_end(rows.len() as u64, When::at(i64::MAX), &mut out).unwrap();
        out
    };
    for pattern in
        ["(A* | B*)* C", "((A? B?)+)+ C", "(A | B | A B)+ C", "A{0,10} B{0,10} C", "(A+)+ (B+)+ C", "A+ C"]
    {
        let out = run(pattern, "C AS temperature > 1", &rows);
        assert!(out.rows.is_empty() && out.bad_rows == 0, "{pattern}: {:?}", out.bad_row);
    }
    // Where every way remembers something else, there are limits: some ways are left out, and rows are left
    // behind.
    let out = run("(A | B)+ C", "A AS COUNT(A.*) < 5000, C AS temperature > 1", &rows[..40]);
    assert!(out.rows.is_empty() && out.bad_row.unwrap().contains("more than 256 ways"));
    let out = run("A+ C", "A AS AVG(A.temperature) < 5, C AS temperature > 1", &rows[..1_000]);
    assert!(out.rows.is_empty() && out.bad_row.unwrap().contains("costs too much"));
}
