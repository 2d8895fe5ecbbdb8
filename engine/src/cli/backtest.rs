//! `tidegate backtest`: what would a version of a rule have done?

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::args::BacktestArgs;
use super::progress::ProgressLine;
use super::render::printable;
use super::table::{counted, grouped, table};
use super::{Failure, load_config, print, rule_file, somebody_waits};
use crate::catalog::catalog;
use crate::replay::backtest::{self, Contracted, Count, Difference, Figures, Gap, Place, Report, Request};
use crate::replay::{Journal, ReplayError};
use crate::rules::book::RuleBook;
use crate::rules::directory::RulesDir;
use crate::rules::tables::TableFiles;
use crate::sequencer::schemas::SchemaStore;
use crate::status::Status;

/// Digits of a version: as many as tell those of a box apart.
const VERSION: usize = 8;
/// Rows of a difference that are shown.
const SHOWN: usize = 5;

/// Tests the rule that the command line names.
///
/// # Errors
/// When configuration or rule are wrong, or the journal cannot be read or has nothing of what the rule reads.
pub fn backtest(args: BacktestArgs) -> Result<(), Failure> {
    let BacktestArgs { rule, config, buffer, since, until, json } = args;
    let config = load_config(config.config)?;
    yield_to_the_box();
    let schemas = SchemaStore::look(&config);
    let catalog = catalog(&config, &|stream| schemas.get(stream).cloned());
    let book = RuleBook::new(catalog, 1, std::sync::Arc::new(Status::default())).quiet();
    let (book, _) = RulesDir::load(&config.rules.dir, &mut TableFiles::new(&config), book)
        .map_err(|wrong| Failure::Refused(vec![wrong]))?;
    let (name, file, source) = rule_file::find(&rule, &book, &config.rules.dir).map_err(Failure::Refused)?;
    let buffer = buffer.unwrap_or_else(|| config.buffer.path.clone());
    let line = somebody_waits().then(|| ProgressLine::new("backtest"));
    let progress = |progress| {
        if let Some(line) = &line {
            line.show(progress);
        }
    };
    let request = Request {
        config: &config,
        rule: &name,
        file: &file,
        source: &source,
        journal: Journal { buffer, since: Some(since), until },
        progress: &progress,
    };
    let report = backtest::backtest(&request).map_err(|error| match error {
        ReplayError::Refused(wrong) => Failure::Refused(wrong),
        other => Failure::from(other),
    })?;
    drop(line);
    print(&if json { format!("{}\n", serde_json::to_string_pretty(&report)?) } else { text(&report) })
}

/// The box comes first: this runs when nothing else wants the processor, and with that the disk. Where the
/// programs for it are not there, it runs as any other.
fn yield_to_the_box() {
    let own = std::process::id().to_string();
    for (program, args) in [("renice", ["-n", "19", "-p"]), ("ionice", ["-c", "3", "-p"])] {
        let mut command = Command::new(program);
        command.args(args).arg(&own).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            tracing::debug!(program, "cannot lower the priority with it");
        }
    }
}

fn text(report: &Report) -> String {
    let Report {
        rule,
        file,
        journal,
        new,
        now,
        is_the_one_that_runs,
        written,
        differing,
        differences,
        assumed,
    } = report;
    let mut out = Lines(String::new());
    let version = short(&new.version);
    out.line(&match now {
        Some(now) => {
            format!(
                "back-test of {rule}: {file} ({version}) beside the version that runs ({})",
                short(&now.version)
            )
        }
        None if *is_the_one_that_runs => format!("back-test of {rule} ({version}), the version that runs"),
        None => format!("back-test of {rule}: {file} ({version}); no version of it runs"),
    });
    out.line("");
    out.item("journal", &format!("{} to {}", journal.from, journal.to));
    for (stream, rows) in &journal.rows {
        out.item("", &format!("{} of {stream}", counted(*rows, "row")));
    }
    lacks(&mut out, report);
    out.line("");
    numbers(&mut out.0, written, now.is_some() || !is_the_one_that_runs);
    if written.is_empty() {
        out.line("nothing was written");
    }
    for (which, figures) in [("new", Some(new)), ("now", now.as_ref())] {
        if let Some(figures) = figures {
            self::figures(&mut out, which, figures);
        }
    }
    if *differing > 0 {
        out.line("");
        let shown = differences.len() as u64;
        let some = if shown < *differing { format!(", the first {shown}") } else { String::new() };
        out.line(&format!("{}{some}", counted(*differing, "difference")));
        differences.iter().for_each(|one| difference(&mut out, one));
    } else if now.is_some() {
        out.line("");
        out.line("no difference");
    }
    out.line("");
    out.line("assumed");
    assumed.iter().for_each(|assumed| out.line(&format!("  * {assumed}")));
    out.0
}

/// What the journal has not.
fn lacks(out: &mut Lines, report: &Report) {
    let journal = &report.journal;
    if journal.is_cut {
        out.item("", "it does not go back further");
    }
    if journal.starts > 0 {
        out.item("", &format!("the box was started {}", counted(journal.starts, "time")));
    }
    for Gap { from, to, entries } in &journal.gaps {
        out.item("gap", &format!("{} missing between {from} and {to}", counted_entries(*entries)));
    }
    let told: u64 = journal.gaps.iter().map(|gap| gap.entries).sum();
    if told < journal.missing {
        out.item("", &format!("{} missing elsewhere", counted_entries(journal.missing - told)));
    }
    if journal.unreadable > 0 {
        let entries = counted_entries(journal.unreadable);
        out.item("", &format!("{entries} cannot be read: `tidegate buffer verify` says more"));
    }
}

fn counted_entries(entries: u64) -> String {
    super::table::counted_as(entries, "entry", "entries")
}

/// How much was written, place by place.
fn numbers(out: &mut String, written: &[Count], compares: bool) {
    let row = |count: &Count| {
        let Count { place, now, new, same } = count;
        [who(place), grouped(*now), grouped(*new), grouped(*same)]
    };
    if compares {
        let rows = written.iter().map(row).collect();
        table(out, ["rows", "now", "new", "the same"], [false, true, true, true], rows);
    } else {
        let rows = written.iter().map(|count| [who(&count.place), grouped(count.new)]).collect();
        table(out, ["rows", ""], [false, true], rows);
    }
}

/// What went wrong, and what contracts did.
fn figures(out: &mut Lines, which: &str, figures: &Figures) {
    let Figures { late, left_out, forgotten, stopped, contracts, .. } = figures;
    for (output, Contracted { decided, clauses }) in contracts {
        let clauses = clauses.iter().map(|(clause, times)| format!("{clause} {times}")).collect::<Vec<_>>();
        let clauses = if clauses.is_empty() { String::new() } else { format!("; {}", clauses.join(", ")) };
        let (sent, held, refused) = (decided.sent, decided.held, decided.refused);
        out.item(which, &format!("{output}: sent {sent}, held back {held}, refused {refused}{clauses}"));
    }
    if late + left_out + forgotten > 0 {
        let what = format!("{late} rows came late, {left_out} were left out, {forgotten} were forgotten");
        out.item(which, &what);
    }
    if let Some(stopped) = stopped {
        out.item(which, &format!("was stopped before the end: {stopped}"));
    }
}

fn difference(out: &mut Lines, difference: &Difference) {
    let Difference { time, cause, row, place, now, new } = difference;
    let row = row.as_ref().map_or_else(String::new, |row| format!(" {row}"));
    out.line("");
    out.line(&format!("{time} {cause}{row}"));
    for (which, rows) in [("now", now), ("new", new)] {
        let mut shown = rows.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>();
        if rows.len() > SHOWN {
            shown.push(format!("and {} more", rows.len() - SHOWN));
        }
        let shown = if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") };
        out.item(which, &format!("{}: {shown}", who(place)));
    }
}

fn who(place: &Place) -> String {
    let Place { rule, target, instance } = place;
    let instance = instance.as_ref().map_or_else(String::new, |instance| format!(" ({instance})"));
    match rule {
        Some(rule) => format!("{rule} -> {target}{instance}"),
        None => format!("sent to {target}{instance}"),
    }
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
