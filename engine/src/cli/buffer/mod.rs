//! `tidegate buffer`: what is in the buffer, without SQL.

mod export;
mod stats;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use super::args::{
    BufferCommand, BufferExportArgs, BufferFileArgs, BufferPeekArgs, BufferPurgeArgs, BufferPurgeWhat,
    BufferRowsArgs, BufferStatsArgs, BufferVerifyArgs, Format,
};
use super::render::printable;
use super::table::{counted, counted_as, size};
use super::{Failure, load_config, print, somebody_waits};
use crate::buffer::inspect::{Inspector, Purge, Reader, Source, purge};
use export::JsonLines;

/// Does what the command line asks of a buffer.
///
/// # Errors
/// When the configuration is wrong, the buffer cannot be read, or it is not as it has to be.
pub fn buffer(command: BufferCommand) -> Result<(), Failure> {
    let done = match command {
        BufferCommand::Stats(args) => stats(args),
        BufferCommand::Peek(args) => peek(args),
        BufferCommand::Export(args) => export(args),
        BufferCommand::Purge(args) => delete(args),
        BufferCommand::Verify(args) => verify(args),
    };
    match done {
        // `| head` has seen enough.
        Err(Failure::Failed(error))
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// The buffer's path, and the box's name if it is known.
fn find(file: BufferFileArgs) -> Result<(PathBuf, Option<String>), Failure> {
    Ok(match file {
        BufferFileArgs { buffer: Some(path), config } if config.config.is_none() => (path, None),
        BufferFileArgs { buffer, config } => {
            let config = load_config(config.config)?;
            (buffer.unwrap_or(config.buffer.path), Some(config.name))
        }
    })
}

fn stats(args: BufferStatsArgs) -> Result<(), Failure> {
    let (path, _) = find(args.file)?;
    let stats = Inspector::open(&path)?.stats()?;
    match args.format {
        Format::Text => print(&stats::text(&stats, jiff::Timestamp::now())),
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&stats)?)),
    }
}

fn peek(args: BufferPeekArgs) -> Result<(), Failure> {
    let (path, name) = find(args.file)?;
    let inspector = Inspector::open(&path)?;
    let source = source(args.rows);
    let mut reader = Reader::new(&inspector, source.clone(), args.limit, args.newest)?;
    let mut lines = JsonLines::new(BufWriter::new(io::stdout().lock()), name.as_deref(), &source);
    while let Some(portion) = reader.read()? {
        lines.write(&portion)?;
    }
    lines.finish()?;
    ended(&inspector, &source, lines.rows(), reader.unreadable())
}

fn export(args: BufferExportArgs) -> Result<(), Failure> {
    let format = export::FileFormat::from_path(&args.output)?;
    let (path, name) = find(args.file)?;
    let inspector = Inspector::open(&path)?;
    let source = source(args.rows);
    let between = export::Between { since: args.since, until: args.until };
    let (rows, unreadable) =
        export::export(&inspector, &source, name.as_deref(), &between, &args.output, format)?;
    if somebody_waits() {
        tracing::info!(rows, "written");
    }
    ended(&inspector, &source, rows, unreadable)
}

fn source(rows: BufferRowsArgs) -> Source {
    match rows {
        BufferRowsArgs { stream: Some(stream), .. } => Source::Stream(stream),
        BufferRowsArgs { refused: true, rule, .. } => Source::Refused(rule),
        BufferRowsArgs { rule, .. } => Source::Waiting(rule),
    }
}

/// Says why there is nothing, and fails when something could not be read.
fn ended(inspector: &Inspector, source: &Source, rows: u64, unreadable: u64) -> Result<(), Failure> {
    if unreadable > 0 {
        let advice = "`tidegate buffer verify` says more";
        return Err(Failure::Failed(anyhow::anyhow!(
            "{unreadable} blocks or entries cannot be read and were left out; {advice}"
        )));
    }
    if rows == 0 {
        let there = inspector.names(source)?.into_iter().collect::<Vec<_>>().join(", ");
        match (source, there.is_empty()) {
            (Source::Waiting(_), true) => tracing::warn!("no rows wait in the buffer"),
            (Source::Refused(_), true) => tracing::warn!("no refused rows are in the buffer"),
            (Source::Stream(_), true) => tracing::warn!("no rows of streams are in the buffer"),
            (_, false) => tracing::warn!(there, "the buffer has rows, but none that were asked for"),
        }
    }
    Ok(())
}

fn delete(args: BufferPurgeArgs) -> Result<(), Failure> {
    let (path, _) = find(args.file)?;
    let what = match args.what {
        BufferPurgeWhat { rule: Some(rule), .. } => Purge::Rule(rule),
        BufferPurgeWhat { refused: true, .. } => Purge::Refused,
        BufferPurgeWhat { gaps: true, .. } => Purge::Gaps,
        BufferPurgeWhat { .. } => Purge::AllWaiting,
    };
    let purged = if args.yes { purge(&path, &what)? } else { Inspector::open(&path)?.would_purge(&what)? };
    let entries = if what == Purge::Gaps { "gap record" } else { "block" };
    let found = format!(
        "{} of {} ({})",
        counted(purged.rows, "row"),
        counted(purged.entries, entries),
        size(purged.bytes)
    );
    match (args.yes, args.format) {
        (false, _) => Err(Failure::Failed(anyhow::anyhow!(
            "nothing was deleted: this would delete {found}; say `--yes` to do it"
        ))),
        (true, Format::Text) => print(&format!("deleted {found}\n")),
        (true, Format::Json) => print(&format!("{}\n", serde_json::to_string_pretty(&purged)?)),
    }
}

fn verify(args: BufferVerifyArgs) -> Result<(), Failure> {
    let (path, _) = find(args.file)?;
    let progress = |step: &'static str, done: u64| {
        if somebody_waits() {
            tracing::info!(step, done, "checking");
        }
    };
    let verdict = Inspector::open(&path)?.verify(progress);
    let found = verdict.problems.len() as u64;
    match args.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&verdict)?))?,
        Format::Text => {
            let mut out = BufWriter::new(io::stdout().lock());
            for problem in &verdict.problems {
                writeln!(out, "{}: {}", printable(&problem.place), printable(&problem.problem))?;
            }
            let checked = verdict.checked;
            if found == 0 {
                let (blocks, gaps) = (counted(checked.blocks, "block"), counted(checked.gaps, "gap record"));
                let (entries, states) = (
                    counted_as(checked.entries, "journal entry", "journal entries"),
                    counted(checked.states, "state"),
                );
                let contents =
                    counted_as(checked.contents, "source of a rule or table", "sources of rules and tables");
                let decisions = counted(checked.decisions, "decision");
                writeln!(out, "ok: {blocks}, {gaps}, {entries}, {states}, {contents}, {decisions}")?;
            }
            out.flush()?;
        }
    }
    if found == 0 {
        return Ok(());
    }
    let found = format!("{}{}", if verdict.more { "more than " } else { "" }, counted(found, "problem"));
    let advice =
        "a box sets damage aside by itself when it meets it, and keeps what can be read; check the disk";
    Err(Failure::Failed(anyhow::anyhow!("the buffer {} has {found}; {advice}", path.display())))
}
