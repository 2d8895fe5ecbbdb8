//! A rule at work, with what is counted and said of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::{Sampler, Span};
use tidegate_rules::{Emission, Emissions, LogLevel, LogLine, Rule, SealedState};

use crate::sequence::loads::Undecided;
use crate::sequence::version::{RuleFile, RuleVersion};
use crate::status::RuleStatus;
use crate::tap::Passed;

/// A rule with what belongs to it.
pub struct Hosted {
    pub(crate) rule: Box<dyn Rule>,
    pub(crate) version: Arc<RuleVersion>,
    pub(crate) status: Arc<RuleStatus>,
    pub(crate) bad_rows: Sampler,
    pub(crate) late: Sampler,
    pub(crate) forgotten: Sampler,
    pub(crate) ahead: Sampler,
    pub(crate) said: Said,
    /// when the rule wants a tick
    pub(crate) wakes_at: Option<i64>,
    /// see [`tidegate_rules::Silences::awaited`]
    pub(crate) silences: Vec<(Arc<str>, i64)>,
}

/// A version that has taken over what the one before had kept, and has something to do before it runs.
pub(crate) struct Starting {
    pub(crate) hosted: Hosted,
    /// see [`Load`](super::change::Load)
    pub(crate) inherits: Arc<str>,
    pub(crate) is_said: bool,
    pub(crate) undecided: Option<Undecided>,
    /// what became of the state that it has taken over, for the log
    pub(crate) kept: &'static str,
}

/// What is left of a rule that was stopped.
pub(crate) struct Left {
    pub(crate) file: RuleFile,
    pub(crate) state: Vec<SealedState>,
}

/// All that a worker has of a rule, on its way to another one.
pub struct Moved {
    pub(crate) hosted: Option<Hosted>,
    pub(crate) starting: Option<Starting>,
    pub(crate) left: Option<Left>,
}

/// How much a rule may say in a second.
const LINES_A_SECOND: u32 = 20;

/// What a rule has said within the last second.
#[derive(Debug, Default)]
pub(crate) struct Said {
    since: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl Said {
    /// Writes to the log what the rule `name` says, as far as that is not too much.
    fn say(&mut self, name: &Arc<str>, line: &LogLine) {
        if self.since.is_none_or(|since| since.elapsed() >= Duration::from_secs(1)) {
            if self.unsaid > 0 {
                tracing::warn!(rule = %name, lines = self.unsaid, "the rule says more than the log takes");
            }
            *self = Self { since: Some(Instant::now()), ..Self::default() };
        }
        if self.lines >= LINES_A_SECOND {
            self.unsaid += 1;
            return;
        }
        self.lines += 1;
        let said = line.text.escape_debug();
        match line.level {
            LogLevel::Debug => tracing::debug!(rule = %name, "{said}"),
            LogLevel::Info => tracing::info!(rule = %name, "{said}"),
            LogLevel::Warn => tracing::warn!(rule = %name, "{said}"),
            LogLevel::Error => tracing::error!(rule = %name, "{said}"),
        }
    }
}

impl Hosted {
    /// `rule`, of which nothing was counted yet.
    pub(crate) fn new(rule: Box<dyn Rule>, version: Arc<RuleVersion>, status: Arc<RuleStatus>) -> Self {
        let (bad_rows, late, ahead, forgotten, said) = Default::default();
        let (wakes_at, silences) = (None, Vec::new());
        Self { rule, version, status, bad_rows, late, forgotten, ahead, said, wakes_at, silences }
    }

    /// Whether it wants a tick by now.
    pub(crate) fn is_due(&self, now: i64) -> bool {
        self.wakes_at.is_some_and(|at| at <= now)
    }

    /// What the rule says, for the log.
    pub(crate) fn say<'a>(&mut self, lines: impl Iterator<Item = &'a LogLine>) {
        lines.for_each(|line| self.said.say(&self.version.name, line));
    }

    pub(crate) fn note(&mut self, out: &Emissions, wall_ns: i64) {
        let name = &self.version.name;
        let rows: usize = out.rows.iter().map(|emission| emission.rows.len()).sum();
        self.status.rows.add(rows as u64);
        if let Some(emission) = out.rows.last() {
            self.status.last.note(&emission.rows.batch, emission.target.name());
        }
        for Emission { target, rows } in &out.rows {
            let rule = || (Arc::clone(name), Some(self.status.versions.get()));
            self.status.tap.show(|| Passed {
                rows: rows.clone(),
                wall_ns,
                rule: Some(rule()),
                target: Some(Arc::from(target.name())),
                failures: None,
            });
        }
        if out.late > 0 {
            self.status.late.add(out.late);
            if let Some(count) = self.late.count(out.late) {
                let behind = Duration::from_nanos(out.late_by_ns.unsigned_abs());
                tracing::warn!(
                    rule = %name,
                    rows = count,
                    behind = %Span(Duration::from_millis(u64::try_from(behind.as_millis()).unwrap_or(0))),
                    "rows came after their window had closed and are not counted; raise `lateness` if \
                    they matter, or, when they are further behind than rows ever are, set `max_ahead`: \
                    some device's clock was ahead"
                );
            }
        }
        if out.ahead > 0 {
            self.status.ahead.add(out.ahead);
            if let Some(count) = self.ahead.count(out.ahead) {
                tracing::warn!(
                    rule = %name,
                    rows = count,
                    "rows were further ahead of time than `max_ahead` says and did not move it on; look \
                    at the clock of their device"
                );
            }
        }
        out.log.iter().for_each(|line| self.said.say(name, line));
        self.status.state_bytes.set(out.state_bytes);
        if out.forgotten > 0 {
            self.status.forgotten.add(out.forgotten);
            if let Some(count) = self.forgotten.count(out.forgotten) {
                tracing::warn!(
                    rule = %name,
                    entries = count,
                    "the rule kept more than `max_state` allows and has given up what was oldest: \
                    nothing is written for it"
                );
            }
        }
        if let Some(reason) = &out.bad_row {
            self.status.left_out.add(out.bad_rows);
            self.status.last_error.note(reason.to_string());
            if let Some(count) = self.bad_rows.count(out.bad_rows) {
                tracing::warn!(
                    rule = %name,
                    rows = count,
                    reason,
                    "rows could not be evaluated and are left out"
                );
            }
        }
    }
}
