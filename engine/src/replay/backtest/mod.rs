//! `tidegate backtest`: what a version of a rule would have done on what a box has kept, beside the version
//! that runs.
//!
//! Both are run as a replay runs them, on the same rows, each with the contracts of outputs and a state of
//! its own that begins empty. [`side`] is one of them, and [`difference`] is where they differ. Nothing is
//! kept in memory but what rules keep, a few rows, and the first differences.

mod difference;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use tidegate_core::Diagnostic;
use tidegate_rules::Source;

use super::journaled::{Found, JournaledStreams};
use super::recording::Recording;
use super::{Journal, Progress, ReplayError, columns, next, plant, progress, written};
use crate::config::Config;
use crate::sequencer::journal::Kept;
use difference::Differences;
pub use difference::{Count, Difference, Place};
use side::Side;
pub use side::{Contracted, Figures};

/// What is tested.
pub struct Request<'a> {
    /// the box's configuration
    pub config: &'a Config,
    /// the rule's name
    pub rule: &'a Arc<str>,
    /// the file of the version that is tested, as diagnostics name it
    pub file: &'a str,
    /// what is in it
    pub source: &'a Source,
    /// on what
    pub journal: Journal,
    /// told how far it is, for each few rows
    pub progress: &'a dyn Fn(Progress),
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// the rule
    pub rule: Arc<str>,
    /// the file of the version that was tested
    pub file: String,
    /// what the journal has, and what it lacks
    pub journal: Stretch,
    /// the version that was tested
    pub new: Figures,
    /// the version that runs; absent: there is none, or it is the same
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<Figures>,
    /// whether the version that was tested is the one that runs
    pub is_the_one_that_runs: bool,
    /// what both wrote, by who wrote it and where it went
    pub written: Vec<Count>,
    /// how often they did not write the same
    pub differing: u64,
    /// the first of these
    pub differences: Vec<Difference>,
    /// what nobody knows and was assumed, in words for people
    pub assumed: Vec<String>,
}

/// A stretch of the journal. Times are RFC 3339, by the clock that the box had then.
#[derive(Debug, Serialize)]
pub struct Stretch {
    /// when its first entry came
    pub from: String,
    /// when its last entry came
    pub to: String,
    /// whether the journal does not go back as far as was asked
    pub is_cut: bool,
    /// rows of the streams that the rule, or a contract, reads
    pub rows: BTreeMap<String, u64>,
    /// how often the box was started in it
    pub starts: u64,
    /// entries that are not there
    pub missing: u64,
    /// where the first of them would be
    pub gaps: Vec<Gap>,
    /// entries whose rows cannot be read
    pub unreadable: u64,
}

/// Entries of the journal that are not there.
#[derive(Debug, Serialize)]
pub struct Gap {
    /// when the entry before them came
    pub from: String,
    /// when the one behind them did
    pub to: String,
    /// how many
    pub entries: u64,
}

/// Tests a version of a rule.
///
/// # Errors
/// When configuration or rule are wrong, the journal cannot be read, or it has nothing of what the rule
/// reads.
pub fn backtest(request: &Request<'_>) -> Result<Report, ReplayError> {
    let config = plant::unseen(request.config);
    let journal = JournaledStreams::open(&request.journal, &config)?;
    let mut recordings = [Recording::journal(journal)];
    let columns = columns(&mut recordings)?;
    let mut new = Side::tested(request, &config, &columns)?;
    is_journaled(request, &new)?;
    let (mut now, is_the_one_that_runs) = match Side::running(request, &config, &columns)? {
        Some(now) if now.version == new.version => (None, true),
        now => (now, false),
    };
    let streams: BTreeSet<Arc<str>> =
        new.streams().chain(now.iter().flat_map(|now| now.streams())).cloned().collect();
    recordings.iter_mut().for_each(|recording| recording.only(streams.clone()));
    let same = |after: &Vec<_>| if is_the_one_that_runs { after.clone() } else { Vec::new() };
    let (mut differences, mut rows) = (Differences::default(), 0);
    while let Some(chunk) = next(&mut recordings)? {
        rows += chunk.rows.num_rows() as u64;
        let before = now.as_mut().map(|now| now.feed(&chunk));
        let after = new.feed(&chunk);
        differences.note(Some(&chunk), before.unwrap_or_else(|| same(&after)), after);
        (request.progress)(progress(&recordings, rows));
    }
    let before = now.as_mut().map(Side::end);
    let after = new.end();
    differences.note(None, before.unwrap_or_else(|| same(&after)), after);
    let [recording] = &recordings;
    let found = recording.found().cloned().unwrap_or_default();
    let stretch = stretch(request, &new, found)?;
    let assumed = assumed(request, &new, now.as_ref());
    let (written, differing, differences) = differences.finish();
    Ok(Report {
        rule: Arc::clone(request.rule),
        file: request.file.to_owned(),
        journal: stretch,
        new: new.figures(),
        now: now.as_ref().map(Side::figures),
        is_the_one_that_runs,
        written,
        differing,
        differences,
        assumed,
    })
}

/// Whether all is kept that the rule reads: without some of it, it would have done something else.
fn is_journaled(request: &Request<'_>, side: &Side) -> Result<(), ReplayError> {
    let mut kept = Kept::from_config(request.config).streams;
    kept.extend(side.looked_at.iter().map(ToString::to_string));
    let missing: Vec<&Arc<str>> = side.inputs.iter().filter(|input| !kept.contains(&***input)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let names = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let what = format!("the rule `{}` reads {names}, of which the box keeps no journal", request.rule);
    let help = format!(
        "write `journal = true` in [streams.{first}]: the box keeps its rows from its next start on; or \
        replay a recording with `tidegate replay --input {first}=FILE`"
    );
    Err(ReplayError::Refused(vec![Diagnostic::new(request.file, what).help(help)]))
}

fn stretch(request: &Request<'_>, side: &Side, found: Found) -> Result<Stretch, ReplayError> {
    let Found { is_cut, times, rows, gaps, missing, unreadable, starts, .. } = found;
    let concerned: BTreeSet<&str> = side.inputs.iter().chain(&side.looked_at).map(|name| &**name).collect();
    let mut of: BTreeMap<String, u64> = side.inputs.iter().map(|input| (input.to_string(), 0)).collect();
    of.extend(rows.into_iter().filter(|(stream, _)| concerned.contains(stream.as_str())));
    if side.inputs.iter().all(|input| of.get(&**input).is_none_or(|rows| *rows == 0)) {
        let names = side.inputs.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let file = request.journal.buffer.display().to_string();
        let what = format!("the journal has no rows of {names} in that time, which the rule reads");
        let help =
            "`tidegate buffer stats` says what there is, and of when; look further back with `--since`";
        return Err(Diagnostic::new(file, what).help(help.to_owned()).into());
    }
    let (from, to) = times.unwrap_or_default();
    let gap = |(from, to, entries)| Gap { from: written(from), to: written(to), entries };
    Ok(Stretch {
        from: written(from),
        to: written(to),
        is_cut,
        rows: of,
        starts,
        missing,
        gaps: gaps.into_iter().map(gap).collect(),
        unreadable,
    })
}

/// What a person has to know to believe the rest.
fn assumed(request: &Request<'_>, new: &Side, now: Option<&Side>) -> Vec<String> {
    let mut assumed = vec![
        "open loop: the plant did not feel this; the rows are those that came while the box did what it did"
            .to_owned(),
        "warm-up: both begin with nothing at the first row; windows, last values and claims of before are \
            missing"
            .to_owned(),
    ];
    let sides = || std::iter::once(new).chain(now);
    if sides().any(Side::reads_tables) {
        assumed.push("reference tables hold what their files hold now".to_owned());
    }
    if sides().any(Side::waits_for_silence) {
        assumed.push("lines were listened to all the time: every silence counts".to_owned());
    }
    let (as_recorded, taken) = sides().map(Side::answered).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    if as_recorded + taken > 0 {
        assumed.push(format!(
            "outcomes assumed ideal: taken to be acknowledged after a second: {taken}; answered as the device \
            has answered the same write then: {as_recorded}"
        ));
    }
    let reads_back = |output: &crate::config::Output| {
        output.contract.as_ref().is_some_and(|contract| contract.read_back.is_some())
    };
    if request
        .config
        .outputs
        .iter()
        .any(|(name, output)| reads_back(output) && sides().any(|side| side.writes(name)))
    {
        assumed.push("what was acknowledged is there: nothing was read back".to_owned());
    }
    assumed.push("windows that are open at the end close there (the cause is `end`)".to_owned());
    assumed
}
