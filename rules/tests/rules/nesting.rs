//! Rules that are nested as deeply as they may be run; those that are nested more deeply are refused, and
//! neither takes the box along.

use tidegate_core::{Rows, Seqs};
use tidegate_rules::{CompileError, Emissions, When};

use crate::bench_rows::{batch, catalog, compile, feed, listing, rule, tank};

/// `what`, `n` times, with `by` between.
fn chain(n: usize, what: &str, by: &str) -> String {
    vec![what; n].join(by)
}

/// Rules in which something is chained or nested `n` times.
fn nested(n: usize) -> Vec<(&'static str, String)> {
    let select = |condition: String| format!("INSERT INTO lamp SELECT device FROM tank WHERE {condition}");
    let steps = |step: &dyn Fn(usize) -> String| (1..n).map(step).collect::<Vec<_>>().join(", ");
    vec![
        ("and", select(chain(n, "temperature > 1", " AND "))),
        ("or", select(chain(n, "device = 'a'", " OR "))),
        ("sum", select(format!("{} > 0", chain(n, "temperature", " + ")))),
        ("text", select(format!("{} <> 'b'", chain(n, "device", " || ")))),
        ("casts", select(format!("temperature{} > 1", "::DOUBLE".repeat(n)))),
        ("distinct", select(chain(n, "running", " IS DISTINCT FROM "))),
        ("arrays", select(format!("{} IS NULL", chain(n, "[1, 2]", " || ")))),
        ("indices", select(format!("[device]{} IS NULL", "[1]".repeat(n)))),
        (
            "group",
            select(format!("{} > 0", chain(n, "percentile_cont(0.5) WITHIN GROUP (ORDER BY count)", " + "))),
        ),
        ("equal", select(chain(n, "running", " = "))),
        ("json", select(format!("device{} IS NULL", "->'a'".repeat(n)))),
        ("union", format!("INSERT INTO lamp {}", chain(n, "SELECT device FROM tank", " UNION ALL "))),
        ("join", {
            let joins: String = (1..n)
                .map(|n| format!(" JOIN tank FOR SYSTEM_TIME AS OF t.ts AS t{n} ON t.device = t{n}.device"))
                .collect();
            format!("INSERT INTO lamp SELECT t.device FROM tank AS t{joins}")
        }),
        (
            "steps",
            format!(
                "INSERT INTO lamp WITH s0 AS (SELECT device FROM tank), {} SELECT device FROM s{}",
                steps(&|n| format!("s{n} AS (SELECT device FROM s{})", n - 1)),
                n - 1
            ),
        ),
        ("views", {
            let views: String =
                (1..n).map(|n| format!("CREATE VIEW s{n} AS SELECT device FROM s{};", n - 1)).collect();
            format!(
                "CREATE VIEW s0 AS SELECT device FROM tank; {views} INSERT INTO lamp SELECT device FROM s{}",
                n - 1
            )
        }),
        (
            "subqueries",
            format!(
                "INSERT INTO lamp SELECT device FROM {}tank{}",
                "(SELECT device FROM ".repeat(n),
                ")".repeat(n)
            ),
        ),
        ("parentheses", select(format!("{}running{}", "(".repeat(n), ")".repeat(n)))),
        ("not", select(format!("{}running", "NOT ".repeat(n)))),
        ("case", select(format!("{}running{}", "CASE WHEN running THEN ".repeat(n), " END".repeat(n)))),
        ("calls", select(format!("{}temperature{} > 0", "abs(".repeat(n), ")".repeat(n)))),
    ]
}

/// Texts that a parser could try to read in 2^n ways: it tries each of these words in several, and what
/// follows it anew.
#[test]
fn words_that_can_be_read_in_many_ways_are_refused_at_once() {
    for word in [
        "INTERVAL ",
        "CAST(",
        "TRY_CAST(",
        "EXTRACT(",
        "CEIL(",
        "FLOOR(",
        "TRIM(",
        "SUBSTRING(",
        "OVERLAY(",
        "POSITION(",
        "CONVERT(",
        "CASE ",
        "abs(",
        "(",
        "[",
        "{fn abs(",
        "NOT ",
        "ARRAY[",
        "STRUCT(",
        "DATE ",
        "BINARY ",
    ] {
        for end in ["", "*", "temperature", "'1'"] {
            let text = format!("INSERT INTO lamp SELECT {}{end}", word.repeat(45));
            assert!(refusal(&text).is_some(), "{text}");
        }
    }
    let text = format!("INSERT INTO lamp SELECT\n{}*", "INTERVAL ".repeat(45));
    let said = refusal(&text).unwrap();
    assert!(said.contains("rule.sql:2:") && said.contains("too many ways"), "{said}");
}

fn refusal(text: &str) -> Option<String> {
    match compile("rule.sql", text, &catalog()) {
        Ok(_) => None,
        Err(CompileError::Wrong(wrong)) => {
            Some(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
        Err(CompileError::Waiting(streams)) => panic!("waits for {streams:?}"),
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused_and_says_so() {
    for n in [300, 5_000] {
        for (name, text) in nested(n) {
            let said = refusal(&text);
            let says = ["nested or chained", "recursion limit", "on top of each other", "nested too deeply"];
            assert!(
                said.as_ref().is_some_and(|said| says.iter().any(|says| said.contains(says))),
                "{name} {n}: {said:?}"
            );
        }
    }
}

/// The least stack that a thread of the box has.
const STACK: usize = 2 << 20;

#[test]
fn what_is_nested_as_deeply_as_it_may_be_runs_on_the_stack_of_a_worker() {
    for (at, (name, _)) in nested(1).into_iter().enumerate() {
        let run = move || {
            // A deeper one takes all of the stack that the others take, and all of their time.
            let deepest = [250, 120, 60, 45, 10].into_iter().find_map(|n| {
                let text = nested(n).swap_remove(at).1;
                compile("rule.sql", &text, &catalog()).ok()
            });
            // These have no meaning beyond the first level.
            if ["indices", "group"].contains(&name) {
                return;
            }
            let mut running = deepest.unwrap_or_else(|| panic!("{name} is refused")).rule;
            let out = feed(&mut *running, &[tank(1, "a", 90.0), tank(2, "b", f64::NAN)], 0, &[1]);
            assert_eq!(out.bad_rows, 0, "{name}");
            running.explain();
            let state = running.seal().unwrap();
            running.restore(state).unwrap();
        };
        std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
    }
}

#[test]
fn steps_that_double_what_they_read_load_or_are_refused_at_once() {
    // Written out, the last would have 2^60 terms.
    let steps: Vec<String> =
        (1..=60).map(|n| format!("s{n} AS (SELECT x + x AS x, device FROM s{})", n - 1)).collect();
    let text = format!(
        "INSERT INTO lamp WITH s0 AS (SELECT temperature AS x, device FROM tank), {} SELECT device FROM s60 \
        WHERE x > 5",
        steps.join(", ")
    );
    let mut out = Emissions::default();
    let mut doubling = rule(&text);
    doubling
        .on_batch(
            "tank",
            &Rows { batch: batch(&[tank(1, "a", 1.0), tank(2, "b", 0.0)]), seqs: Seqs::Run { first: 0 } },
            When::at(0),
            &mut out,
        )
        .unwrap();
    assert_eq!(listing(&out.rows).len(), 1);
    for join in ["UNION ALL SELECT device, ts FROM", "CROSS JOIN"] {
        let twice = |n: usize| match join {
            "CROSS JOIN" => format!(
                "SELECT a.device, a.ts FROM s{n} AS a JOIN s{n} AS b ON a.device = b.device AND b.ts \
                BETWEEN a.ts AND a.ts + INTERVAL '1' SECOND"
            ),
            _ => format!("SELECT device, ts FROM s{n} {join} s{n}"),
        };
        let steps: Vec<String> = (1..=40).map(|n| format!("s{n} AS ({})", twice(n - 1))).collect();
        let text = format!(
            "INSERT INTO lamp WITH s0 AS (SELECT device, ts FROM tank), {} SELECT device FROM s40",
            steps.join(", ")
        );
        let said = refusal(&text);
        assert!(said.as_ref().is_some_and(|said| said.contains("steps")), "{said:?}");
    }
}
