//! What an output does, and why, in lines for people.

use std::fmt::Write as _;

use super::found::{Found, Withheld};
use crate::cli::moment::Times;
use crate::cli::render::printable;
use crate::cli::table::counted;
use crate::config::{Value, Values};
use crate::decision::{Clause, Decision, Origin, Outcome, Step, Verdict};

/// Digits of a version: as many as tell those of a box apart.
const VERSION: usize = 8;

/// What an output does, and what led to it.
pub(super) fn found(found: &Found, times: &Times) -> String {
    let Found { sent, answers, held, refused, .. } = found;
    let mut out = Lines(String::new());
    out.line(&sentence(found, times));
    if let Some(held) = held {
        out.line(&waits(held, times));
    }
    out.line("");
    let Verdict::Sent { write } = sent.verdict else { return out.0 };
    let exact = times.exact(sent.at_ns, sent.wall_ns);
    out.item("decision", &format!("{} at {exact}, of entry {}", sent.number, sent.seq));
    reasons(&mut out, sent, times);
    if !sent.before.is_empty() {
        out.item("before", &values(&sent.before));
    }
    out.item("sent", &format!("{} as write {write}", values(&sent.values)));
    for answer in answers {
        let exact = times.exact(answer.decision.at_ns, answer.decision.wall_ns);
        out.item("answer", &format!("{} at {exact}", outcome(&answer.decision)));
    }
    if answers.is_empty() {
        out.item("answer", "none yet");
    }
    if let Some(refused) = refused {
        let time = times.time(refused.at_ns, refused.wall_ns);
        out.item("refused", &format!("{} since then, last at {time}", what_not(refused, times)));
    }
    if let Some(doubt) = times.doubt(sent.at_ns) {
        out.item("clock", doubt);
    }
    if !found.is_of_instance && !sent.instance.is_empty() {
        let (output, instance) = (&sent.output, &sent.instance);
        out.line("");
        out.line(&format!(
            "the newest of all instances; of one: tidegate why {output} --instance {instance}"
        ));
    }
    out.0
}

/// What did not happen, newest first.
pub(super) fn withheld(withheld: &Withheld, times: &Times) -> String {
    let mut out = Lines(String::new());
    let output = &withheld.output;
    if withheld.decisions.is_empty() {
        out.line(&format!("nothing was refused or held back of {output}, as far as decisions go back"));
        return out.0;
    }
    out.line(&format!("what did not happen to {output}, newest first"));
    for decision in &withheld.decisions {
        out.line("");
        let time = times.time(decision.at_ns, decision.wall_ns);
        let age = times.age(decision.at_ns, decision.wall_ns);
        let instance = instance(decision);
        out.line(&format!("{time} ({age} ago){instance}: {}", what_not(decision, times)));
        reasons(&mut out, decision, times);
    }
    if withheld.more {
        out.line("");
        out.line("there are older ones: --limit N");
    }
    out.0
}

/// What an output does since when, and why.
pub(super) fn sentence(found: &Found, times: &Times) -> String {
    let Found { sent, since_ns, is_newest, answers, .. } = found;
    let (told, since_ns) = (state(&found.told()), *since_ns);
    let shown_ns = sent.wall_ns - (sent.at_ns - since_ns);
    let (since, age) = (times.time(since_ns, shown_ns), times.age(since_ns, shown_ns));
    let name = format!("{}{}", sent.output, instance(sent));
    let is = if *is_newest { "is" } else { "was" };
    let cause = sent.by.to_string();
    let was_to_be = |what: &str| format!("{name} was to be {told} at {since} ({age} ago), {what}: {cause}");
    let why = |decision: &Decision| match &decision.verdict {
        Verdict::Answered { reason: Some(reason), .. } => format!(" ({reason})"),
        _ => String::new(),
    };
    let Some(last) = answers.last() else { return was_to_be("and has not answered yet") };
    let why = why(&last.decision);
    match last.outcome {
        Outcome::Acknowledged | Outcome::Read => format!("{name} {is} {told} since {since} ({age}): {cause}"),
        Outcome::Refused => was_to_be(&format!("and the device refused{why}")),
        Outcome::Failed => was_to_be(&format!("and it was not sent{why}")),
        Outcome::Unknown => was_to_be(&format!("and nobody knows whether it is{why}")),
        Outcome::Superseded => was_to_be("and a newer write took its place"),
        Outcome::Mismatch => was_to_be(&format!("and the device shows something else{why}")),
        Outcome::External => was_to_be(&format!("and somebody else has written since{why}")),
    }
}

/// What waits, since when, and for what.
fn waits(held: &Decision, times: &Times) -> String {
    let wanted = wanted(held);
    let since = times.time(held.at_ns, held.wall_ns);
    let because: Vec<String> =
        held.steps.iter().map(|step| format!("{} ({})", name(step.clause), step.because)).collect();
    let until = match held.verdict {
        Verdict::Held { until_ns: Some(until_ns) } => {
            format!(", until {}", times.time(until_ns, held.wall_ns + (until_ns - held.at_ns)))
        }
        _ => String::new(),
    };
    format!("{} waits since {since}{until}: {}", values(&wanted), because.join("; "))
}

/// What was refused or held back, and why.
fn what_not(decision: &Decision, times: &Times) -> String {
    let times_made = match decision.times {
        0 | 1 => String::new(),
        many => format!(", {}", counted(many, "time")),
    };
    match &decision.verdict {
        Verdict::Refused { reason } => {
            format!("a row of {} is no claim: {reason}{times_made}", who(&decision.by))
        }
        Verdict::Held { .. } => format!("{}{times_made}", waits(decision, times)),
        Verdict::Sent { .. } | Verdict::Answered { .. } => String::new(),
    }
}

/// Whose will it was, the rows, what was wanted, and what the contract made of it.
fn reasons(out: &mut Lines, decision: &Decision, times: &Times) {
    if let Origin::Rule { rule, version, seq, ordinal } = &decision.by {
        out.item("rule", &format!("{rule}, version {}, row {seq}.{ordinal}", short(version)));
    }
    for input in &decision.inputs {
        out.item("row", &format!("{} {} {}", input.stream, input.seq, input.row));
    }
    let at = |ns: i64| times.time(ns, decision.wall_ns + (ns - decision.at_ns));
    for claim in &decision.claims {
        let until = claim.until_ns.map_or_else(String::new, |until_ns| format!(", until {}", at(until_ns)));
        let (rule, rank, version) = (&claim.rule, claim.rank, short(&claim.version));
        let (claimed, since) = (values(&claim.values), at(claim.since_ns));
        out.item("claim", &format!("{rule} ({version}), rank {rank}: {claimed}, since {since}{until}"));
    }
    if let Some(overridden) = &decision.overridden {
        let (who, reason) = (&overridden.who, &overridden.reason);
        let (since, until) = (at(overridden.since_ns), at(overridden.until_ns));
        let wanted = values(&overridden.values);
        out.item("override", &format!("{who} ({reason}): {wanted}, since {since}, until {until}"));
    }
    for Step { column, clause, before, after, because } in &decision.steps {
        let after = after.as_ref().map_or_else(|| "not sent".to_owned(), ToString::to_string);
        out.item("step", &format!("{}: {column} {before} -> {after} ({because})", name(*clause)));
    }
}

/// What the values that were held back would have been.
fn wanted(held: &Decision) -> Values {
    let mut wanted = held.values.clone();
    for step in &held.steps {
        wanted.entry(step.column.clone()).or_insert_with(|| step.before.clone());
    }
    wanted
}

/// "on", or what else it is.
fn state(told: &Values) -> String {
    let (on_off, others): (Values, Values) =
        told.clone().into_iter().partition(|(_, value)| matches!(value, Value::Bool(_)));
    let mut on_off_values = on_off.values();
    match (on_off_values.next(), on_off_values.next()) {
        (Some(only), None) if others.is_empty() => on(only).to_owned(),
        (Some(only), None) => format!("{} ({})", on(only), values(&others)),
        _ => format!("at {}", values(told)),
    }
}

fn on(value: &Value) -> &'static str {
    if value.is_on() { "on" } else { "off" }
}

fn values(values: &Values) -> String {
    if values.is_empty() {
        return "nothing".to_owned();
    }
    values.iter().map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(", ")
}

fn who(by: &Origin) -> String {
    match by {
        Origin::Rule { rule, .. } => format!("rule {rule}"),
        other => other.to_string(),
    }
}

fn instance(decision: &Decision) -> String {
    if decision.instance.is_empty() { String::new() } else { format!(" ({})", decision.instance) }
}

/// What became of a write.
fn outcome(answer: &Decision) -> String {
    let Verdict::Answered { outcome, reason, .. } = &answer.verdict else { return String::new() };
    let what = match outcome {
        Outcome::Read => format!("read {}", values(&answer.values)),
        Outcome::Mismatch | Outcome::External => {
            format!("{}: the device has {}", outcome.word(), values(&answer.values))
        }
        other => other.word().to_owned(),
    };
    reason.as_ref().map_or_else(|| what.clone(), |reason| format!("{what} ({reason})"))
}

/// As in the contract.
fn name(clause: Clause) -> String {
    serde_json::to_value(clause).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn short(version: &str) -> &str {
    version.get(..VERSION).unwrap_or(version)
}

/// Text that grows line by line. What is in it comes from rules and devices.
struct Lines(String);

impl Lines {
    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{}", printable(text));
    }

    fn item(&mut self, head: &str, text: &str) {
        let _ = writeln!(self.0, "  {head:9} {}", printable(text));
    }
}
