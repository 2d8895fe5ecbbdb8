//! Recorded rows run through a plugin, and whether it is a function of them: what it writes and keeps must
//! depend neither on where rows were cut into batches, nor on what it has in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidegate_connectors::codec::Encoder;
use tidegate_core::{Diagnostic, Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, CompiledPlugins, Emissions, Language, LogLine, Rule, Source, When, compile,
};

use crate::catalog::catalog;
use crate::config::Config;
use crate::replay::Input;
use crate::replay::recorded::{Part, Recorded, read};

/// Ticks between two rows. A plugin that wants more never lets time pass.
const MOST_TICKS: u32 = 100_000;
/// Rows that are handed over together at most, where they are.
const MOST_TOGETHER: u64 = 64;

/// What came of recorded rows.
#[derive(Debug)]
pub struct Outcome {
    /// how many rows the plugin was handed
    pub rows: usize,
    /// what it wrote: a line of JSON a row
    pub lines: Vec<String>,
    /// what it said
    pub log: Vec<LogLine>,
    /// rows that were left out
    pub left_out: u64,
    /// why the first of them was
    pub left_out_since: Option<String>,
    /// in which ways the same rows gave something else
    pub differences: Vec<Difference>,
}

/// The same rows gave something else.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// what that says of the plugin
    pub what: &'static str,
    /// the first result that is not the same: as it was with rows one by one, and as it was otherwise
    pub first: (String, String),
}

/// How rows are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Each at its own time, as in a replay.
    Recorded,
    /// Cut at random, but handed over one by one, with the time of the last one.
    OneByOne,
    /// The same cuts, each handed over in one call.
    Together,
    /// One by one, and each to a new instance.
    Anew,
}

/// Runs the plugin `source`, which is in `file`, on recorded rows. `seed` says where they are cut.
///
/// # Errors
/// When plugin or recordings are wrong, or the plugin cannot go on.
pub fn run(
    file: &Path,
    source: &[u8],
    config: &Config,
    inputs: &[Input],
    seed: u64,
) -> Result<Outcome, Vec<Diagnostic>> {
    let recorded = read(config, inputs)?;
    let mut catalog = catalog(config, &|stream| recorded.columns.get(stream).cloned());
    catalog.plugins.compiled = Some(Arc::new(Code::default()));
    catalog.plugins.must_be_signed = false; // it is signed when it does what it should
    let shown = file.display().to_string();
    let trial = Trial {
        file: &shown,
        source: Source::new(Language::Wasm, source),
        catalog: &catalog,
        recorded: &recorded,
    };
    let rows = recorded.parts.iter().map(|part| part.rows.num_rows()).sum();
    let done = trial.run(Way::Recorded, seed)?;
    let reference = trial.run(Way::OneByOne, seed)?;
    let differs = |way, what| -> Result<Option<Difference>, Vec<Diagnostic>> {
        Ok(reference.differs(&trial.run(way, seed)?).map(|first| Difference { what, first }))
    };
    let cut =
        "it depends on where rows were cut into batches: handed over together, they give something else";
    let memory = "it keeps something in memory, which may be thrown away: a new instance for each row gives \
        something else";
    let differences = [differs(Way::Together, cut)?, differs(Way::Anew, memory)?];
    Ok(Outcome {
        rows,
        lines: done.written.into_iter().map(|written| written.line).collect(),
        log: done.log,
        left_out: done.left_out,
        left_out_since: done.left_out_since,
        differences: differences.into_iter().flatten().collect(),
    })
}

struct Trial<'a> {
    file: &'a str,
    source: Source,
    catalog: &'a Catalog,
    recorded: &'a Recorded,
}

/// What a plugin did.
#[derive(Default)]
struct Done {
    written: Vec<Written>,
    log: Vec<LogLine>,
    left_out: u64,
    left_out_since: Option<String>,
    /// its state in the end
    kept: String,
}

/// A row that was written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    seq: u64,
    ordinal: u32,
    line: String,
}

impl Done {
    /// The first thing in which they differ.
    fn differs(&self, other: &Self) -> Option<(String, String)> {
        let both = self.written.len().max(other.written.len());
        let line = |done: &Self, at: usize| {
            done.written.get(at).map_or("nothing", |written| &written.line).to_owned()
        };
        let differs = (0..both).find(|at| self.written.get(*at) != other.written.get(*at));
        if let Some(at) = differs {
            return Some((line(self, at), line(other, at)));
        }
        if self.left_out != other.left_out {
            let left_out = |done: &Self| match &done.left_out_since {
                Some(why) => format!("{} rows were left out, the first since {why}", done.left_out),
                None => "no row was left out".to_owned(),
            };
            return Some((left_out(self), left_out(other)));
        }
        let kept = |done: &Self| format!("what it keeps in the end: {}", done.kept);
        (self.kept != other.kept).then(|| (kept(self), kept(other)))
    }
}

/// A plugin that is handed rows, and what it has done so far.
struct Run<'a> {
    trial: &'a Trial<'a>,
    rule: Box<dyn Rule>,
    way: Way,
    now: i64,
    next: u64,
    /// what the numbers of the last call stand for
    causes: HashMap<u64, String>,
    done: Done,
}

impl Trial<'_> {
    fn compile(&self) -> Result<Box<dyn Rule>, Vec<Diagnostic>> {
        match compile(self.file, &self.source, self.catalog) {
            Ok(compiled) => Ok(compiled.rule),
            Err(CompileError::Wrong(wrong)) => Err(wrong),
            Err(CompileError::Waiting(streams)) => {
                let what = format!("the columns of `{}` are not known", streams.join("`, `"));
                let help =
                    "declare its `fields` in the configuration, or give recorded rows of it".to_owned();
                Err(vec![Diagnostic::new(self.file, what).help(help)])
            }
        }
    }

    fn run(&self, way: Way, seed: u64) -> Result<Done, Vec<Diagnostic>> {
        let mut run = Run {
            trial: self,
            rule: self.compile()?,
            way,
            now: i64::MIN,
            next: 1,
            causes: HashMap::new(),
            done: Done::default(),
        };
        let mut random = seed;
        for part in &self.recorded.parts {
            let mut from = 0;
            while from < part.rows.num_rows() {
                let count = match way {
                    Way::Recorded => 1,
                    _ => (1 + below(&mut random, MOST_TOGETHER) as usize).min(part.rows.num_rows() - from),
                };
                run.feed(part, from, count)?;
                from += count;
            }
        }
        run.end()
    }
}

impl Run<'_> {
    /// Hands `count` rows of `part` over, those from `from` on.
    fn feed(&mut self, part: &Part, from: usize, count: usize) -> Result<(), Vec<Diagnostic>> {
        let times = part.times.get(from..from + count).unwrap_or_default();
        let now = times.iter().copied().fold(self.now, i64::max);
        self.tick_until(now)?;
        self.now = now;
        let first = self.next;
        self.next += count as u64;
        let batch = part.rows.slice(from, count);
        let rows = Rows { batch, seqs: Seqs::Run { first } };
        let places = part.places.get(from..from + count).unwrap_or_default();
        self.causes = (first..).zip(places.iter().cloned()).collect();
        let each = if self.way == Way::Together { count } else { 1 };
        for at in (0..count).step_by(each) {
            let mut out = Emissions::default();
            let called = self.rule.on_batch(&part.stream, &rows.slice(at, each), When::at(now), &mut out);
            self.keep(called.map_err(|error| error.0), out)?;
        }
        Ok(())
    }

    /// Ticks that come before `now`.
    fn tick_until(&mut self, now: i64) -> Result<(), Vec<Diagnostic>> {
        for _ in 0..MOST_TICKS {
            let Some(at) = self.rule.wakes_at().filter(|at| *at < now) else { return Ok(()) };
            self.now = self.now.max(at);
            let seq = self.next;
            self.next += 1;
            let time = jiff::Timestamp::from_nanosecond(self.now.into())
                .map_or_else(|_| String::new(), |time| time.to_string());
            self.causes = HashMap::from([(seq, format!("timer at {time}"))]);
            let mut out = Emissions::default();
            let called = self.rule.on_tick(seq, When::at(self.now), &mut out);
            self.keep(called.map_err(|error| error.0), out)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<Done, Vec<Diagnostic>> {
        let mut out = Emissions::default();
        let called = self.rule.on_end(self.next, When::at(self.now), &mut out);
        self.causes = HashMap::from([(self.next, "end".to_owned())]);
        self.keep(called.map_err(|error| error.0), out)?;
        let kept = self.rule.seal().map_err(|error| self.stopped(&error.0))?;
        self.done.kept =
            kept.iter().filter_map(|state| state.batch.as_ref()).map(shown).collect::<Vec<_>>().join("; ");
        self.done.written.sort();
        Ok(self.done)
    }

    /// Notes what a call did.
    fn keep(&mut self, called: Result<(), String>, out: Emissions) -> Result<(), Vec<Diagnostic>> {
        for (emission, ordinals) in out.rows.iter().zip(Emissions::ordinals(&out.rows)) {
            let batch = &emission.rows.batch;
            let encoder = Encoder::new(&batch.schema());
            for (row, ordinal) in ordinals.into_iter().enumerate() {
                let seq = emission.rows.seqs.get(row);
                let cause = self.causes.get(&seq).map_or("", String::as_str);
                let quoted = |text: &str| serde_json::Value::from(text);
                let mut line = format!(
                    "{{\"target\":{},\"cause\":{},\"row\":",
                    quoted(emission.target.name()),
                    quoted(cause)
                )
                .into_bytes();
                encoder.encode_row(batch, row, &mut line);
                line.push(b'}');
                let line = String::from_utf8_lossy(&line).into_owned();
                self.done.written.push(Written { seq, ordinal, line });
            }
        }
        self.done.log.extend(out.log);
        self.done.left_out += out.bad_rows;
        self.done.left_out_since = self.done.left_out_since.take().or(out.bad_row);
        called.map_err(|error| self.stopped(&error))?;
        if self.way == Way::Anew {
            let kept = self.rule.seal().map_err(|error| self.stopped(&error.0))?;
            self.rule = self.trial.compile()?;
            self.rule.restore(kept).map_err(|error| self.stopped(&error.0))?;
        }
        Ok(())
    }

    fn stopped(&self, why: &str) -> Vec<Diagnostic> {
        let mut what = format!("the plugin was stopped: {why}");
        if let Some(why) = &self.done.left_out_since {
            what = format!("{what}; the first row that was left out: {why}");
        }
        vec![Diagnostic::new(self.trial.file, what)]
    }
}

/// State, for people.
fn shown(state: &RecordBatch) -> String {
    let encoder = Encoder::new(&state.schema());
    let mut text = Vec::new();
    for row in 0..state.num_rows() {
        text.extend_from_slice(if row == 0 { b"" } else { b", " });
        encoder.encode_row(state, row, &mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A number below `end` (SplitMix64, S. Vigna).
fn below(random: &mut u64, end: u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % end
}

/// What was compiled once: a new instance is to cost no compilation.
#[derive(Debug, Default)]
struct Code(Mutex<HashMap<String, Vec<u8>>>);

impl CompiledPlugins for Code {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: &str, code: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), code.to_owned());
    }
}
