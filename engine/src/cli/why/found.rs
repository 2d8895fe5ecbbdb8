//! What is kept of why an output does what it does.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::text;
use crate::buffer::inspect::{Answer, Inspector};
use crate::buffer::{BufferError, VerdictKind};
use crate::cli::moment::Times;
use crate::config::Values;
use crate::decision::{Decision, Origin};

/// Older writes that are looked at for since when a value holds.
const MOST_SENT: usize = 10_000;

/// What is asked.
pub(super) struct About<'a> {
    pub(super) inspector: &'a Inspector,
    pub(super) output: &'a str,
    pub(super) instance: Option<String>,
    pub(super) rule: Option<String>,
    /// nanoseconds since 1970
    pub(super) until_ns: Option<i64>,
}

impl About<'_> {
    /// The newest decision of this kind, if it is newer than decision `after`.
    fn newest(
        &self,
        kind: VerdictKind,
        instance: Option<&str>,
        after: u64,
    ) -> Result<Option<Decision>, BufferError> {
        let newest = self.inspector.decisions(self.output, &[kind], instance, self.until_ns)?.read()?;
        Ok(newest.filter(|newest| newest.number > after))
    }
}

/// What an output was told last.
pub(super) struct Found {
    pub(super) sent: Decision,
    /// since when it is told that, in the sequence's time
    pub(super) since_ns: i64,
    /// whether nothing was sent to it since
    pub(super) is_newest: bool,
    /// whether an instance was asked for
    pub(super) is_of_instance: bool,
    pub(super) answers: Vec<Answer>,
    /// what waits since then
    pub(super) held: Option<Decision>,
    /// what was refused since then, for the last time
    pub(super) refused: Option<Decision>,
}

impl Found {
    /// What was sent last, and what belongs to it. `None`: nothing was.
    pub(super) fn look(about: &About<'_>) -> Result<Option<Self>, BufferError> {
        let (kinds, until_ns) = ([VerdictKind::Sent], about.until_ns);
        let mut all = about.inspector.decisions(about.output, &kinds, about.instance.as_deref(), until_ns)?;
        let mut is_newest = until_ns.is_none();
        let sent = loop {
            match all.read()? {
                Some(sent) if is_about(&sent, about.rule.as_deref()) => break sent,
                Some(_) => is_newest = false,
                None => return Ok(None),
            }
        };
        let instance = (!sent.instance.is_empty()).then_some(&*sent.instance);
        let mut older = about.inspector.decisions(about.output, &kinds, instance, until_ns)?;
        let (told, mut since_ns) = (told(&sent), sent.at_ns);
        for _ in 0..MOST_SENT {
            match older.read()? {
                Some(before) if before.number >= sent.number => {}
                Some(before) if self::told(&before) == told => since_ns = before.at_ns,
                _ => break,
            }
        }
        let answers = about.inspector.answers(&sent)?;
        let held = about.newest(VerdictKind::Held, instance, sent.number)?;
        let refused = about.newest(VerdictKind::Refused, instance, sent.number)?;
        let is_of_instance = about.instance.is_some();
        Ok(Some(Self { sent, since_ns, is_newest, is_of_instance, answers, held, refused }))
    }

    /// What the output is told in all.
    pub(super) fn told(&self) -> Values {
        told(&self.sent)
    }

    /// For programs.
    pub(super) fn json(&self, times: &Times) -> serde_json::Result<String> {
        let sentence = text::sentence(self, times);
        let answers = self.answers.iter().map(|answer| decision(&answer.decision, times));
        let optional = |one: &Option<Decision>| one.as_ref().map(|one| decision(one, times)).transpose();
        let found = json!({
            "output": self.sent.output,
            "instance": self.sent.instance,
            "sentence": sentence,
            "told": self.told(),
            "since": times.rfc3339(self.since_ns, self.sent.wall_ns - (self.sent.at_ns - self.since_ns)),
            "sent": decision(&self.sent, times)?,
            "answers": answers.collect::<serde_json::Result<Vec<_>>>()?,
            "held": optional(&self.held)?,
            "refused": optional(&self.refused)?,
        });
        Ok(format!("{found:#}\n"))
    }
}

/// What did not happen, newest first.
pub(super) struct Withheld {
    pub(super) output: Arc<str>,
    pub(super) decisions: Vec<Decision>,
    /// whether there are older ones
    pub(super) more: bool,
}

impl Withheld {
    /// The last that was refused or held back.
    pub(super) fn look(about: &About<'_>, limit: usize) -> Result<Self, BufferError> {
        let kinds = [VerdictKind::Held, VerdictKind::Refused];
        let instance = about.instance.as_deref();
        let mut all = about.inspector.decisions(about.output, &kinds, instance, about.until_ns)?;
        let (mut decisions, mut more) = (Vec::new(), false);
        while let Some(decision) = all.read()? {
            if !is_about(&decision, about.rule.as_deref()) {
                continue;
            }
            if decisions.len() == limit {
                more = true;
                break;
            }
            decisions.push(decision);
        }
        Ok(Self { output: about.output.into(), decisions, more })
    }

    /// For programs.
    pub(super) fn json(&self, times: &Times) -> serde_json::Result<String> {
        let decisions = self.decisions.iter().map(|one| decision(one, times));
        let decisions = decisions.collect::<serde_json::Result<Vec<_>>>()?;
        let withheld = json!({ "output": self.output, "withheld": decisions, "more": self.more });
        Ok(format!("{withheld:#}\n"))
    }
}

/// A decision with its wall time.
fn decision(decision: &Decision, times: &Times) -> serde_json::Result<Json> {
    let mut json = serde_json::to_value(decision)?;
    if let Some(fields) = json.as_object_mut() {
        fields.insert("at".to_owned(), times.rfc3339(decision.at_ns, decision.wall_ns).into());
    }
    Ok(json)
}

/// What an output is told with this decision: what was sent, and what it was told before in other columns.
fn told(sent: &Decision) -> Values {
    let mut told = sent.before.clone();
    told.extend(sent.values.iter().map(|(column, value)| (Arc::clone(column), value.clone())));
    told
}

/// Whether `rule` wanted something then, or wanted what was decided.
fn is_about(decision: &Decision, rule: Option<&str>) -> bool {
    rule.is_none_or(|wanted| {
        matches!(&decision.by, Origin::Rule { rule, .. } if **rule == *wanted)
            || decision.claims.iter().any(|claim| *claim.rule == *wanted)
    })
}
