//! Recorded rows handed to a rule, however they are cut, and however often the rule is made anew meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidegate::catalog::catalog;
use tidegate::config;
use tidegate::replay::Input;
use tidegate::replay::recorded::{Part, read};
use tidegate_connectors::codec::Encoder;
use tidegate_core::{Rows, Seqs};
use tidegate_rules::{
    Catalog, CompileError, CompiledPlugins, Emissions, Language, Rule, Source, When, compile,
};

use super::Case;

/// How rows are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    OneByOne,
    AtRandom(u64),
    /// as many as there are
    Nowhere,
}

/// How rows are handed over, and how often, about, the rule is made anew from what it kept: every so many
/// batches; 0: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    cuts: Cuts,
    restarts: u64,
}

impl Way {
    pub const ONE_BY_ONE: Self = Self { cuts: Cuts::OneByOne, restarts: 0 };

    pub fn all() -> impl Iterator<Item = Self> {
        let way = |cuts, restarts| Self { cuts, restarts };
        let random = (1..=6).map(move |seed| way(Cuts::AtRandom(seed), 4 * (seed % 2)));
        [Self::ONE_BY_ONE, way(Cuts::Nowhere, 0), way(Cuts::OneByOne, 3)].into_iter().chain(random)
    }
}

/// What came of it.
pub struct Done {
    /// what was written: a line of JSON a row
    pub rows: String,
    /// the number of each, and its ordinal
    pub numbers: Vec<(u64, u32)>,
    /// what the rule said, and what it left out
    pub said: String,
}

/// A rule that is handed rows.
struct Run {
    catalog: Catalog,
    source: Source,
    rule: Box<dyn Rule>,
    random: u64,
    now: i64,
    /// the number of the next tick; those of rows are multiples of a million
    tick: u64,
    written: Vec<(u64, u32, String)>,
    said: String,
}

/// Numbers for ticks between two rows.
const TICKS: u64 = 1_000_000;

/// Runs `case` in `language`.
pub fn run(case: &Case, language: Language, way: Way) -> Done {
    let config = config::load(&case.config()).unwrap();
    let inputs: Vec<Input> =
        case.inputs().into_iter().map(|(stream, file)| Input::Rows { stream, file }).collect();
    let recorded = read(&config, &inputs).unwrap();
    let mut catalog = catalog(&config, &|stream| recorded.columns.get(stream).cloned());
    catalog.plugins.compiled = Some(Arc::new(Code));
    let mut next = case.next();
    let mut run = Run::new(catalog, case.first().source(language), way);
    let mut taken = 0;
    for part in &recorded.parts {
        let mut from = 0;
        while from < part.times.len() {
            let mut most = part.times.len() - from;
            if let Some((after, version)) = &next {
                match after - taken {
                    0 => {
                        run.source = version.source(language);
                        run.renew();
                        next = None;
                    }
                    left => most = most.min(left),
                }
            }
            if case.is_by_the_clock() {
                most = part.times[from..][..most].iter().take_while(|at| **at == part.times[from]).count();
            }
            let count = match way.cuts {
                Cuts::OneByOne => 1,
                Cuts::AtRandom(_) => (1 + run.below(12) as usize).min(most),
                Cuts::Nowhere => most,
            };
            run.feed(part, from, count, taken);
            if way.restarts > 0 && run.below(way.restarts) == 0 {
                run.renew();
            }
            (from, taken) = (from + count, taken + count);
        }
    }
    run.end()
}

impl Run {
    fn new(catalog: Catalog, source: Source, way: Way) -> Self {
        let random = if let Cuts::AtRandom(seed) = way.cuts { seed } else { 0 };
        let rule = compiled(&source, &catalog);
        let (written, said) = (Vec::new(), String::new());
        Self { catalog, source, rule, random, now: i64::MIN, tick: 0, written, said }
    }

    /// Hands rows over, those of `part` from `from` on: `taken` came before them.
    fn feed(&mut self, part: &Part, from: usize, count: usize, taken: usize) {
        let now = part.times[from..][..count].iter().copied().fold(self.now, i64::max);
        while let Some(at) = self.rule.wakes_at().filter(|at| *at < now) {
            self.now = self.now.max(at);
            self.tick += 1;
            let (seq, when) = (self.tick, When::at(self.now));
            self.call(|rule, out| rule.on_tick(seq, when, out));
        }
        self.now = now;
        let numbers = (taken + 1..).map(|row| row as u64 * TICKS).take(count).collect();
        let rows = Rows { batch: part.rows.slice(from, count), seqs: Seqs::list(numbers) };
        self.call(|rule, out| rule.on_batch(&part.stream, &rows, When::at(now), out));
        self.tick = (taken + count) as u64 * TICKS;
    }

    fn call(
        &mut self,
        call: impl FnOnce(&mut dyn Rule, &mut Emissions) -> Result<(), tidegate_rules::RuleError>,
    ) {
        let mut out = Emissions::default();
        if let Err(error) = call(&mut *self.rule, &mut out) {
            self.said.push_str(&format!("it was stopped: {error}\n"));
        }
        out.log.iter().for_each(|line| self.said.push_str(&format!("{}\n", line.text)));
        out.bad_row.iter().for_each(|why| self.said.push_str(&format!("left out: {why}\n")));
        for (emission, ordinals) in out.rows.iter().zip(Emissions::ordinals(&out.rows)) {
            let encoder = Encoder::new(&emission.rows.batch.schema());
            for (row, ordinal) in ordinals.into_iter().enumerate() {
                let mut line = format!("{{\"target\":\"{}\",\"row\":", emission.target.name()).into_bytes();
                encoder.encode_row(&emission.rows.batch, row, &mut line);
                let line = String::from_utf8(line).unwrap() + "}\n";
                self.written.push((emission.rows.seqs.get(row), ordinal, line));
            }
        }
    }

    /// The rule is made anew from its source, and goes on with what it kept.
    fn renew(&mut self) {
        let kept = self.rule.seal().unwrap();
        self.rule = compiled(&self.source, &self.catalog);
        let misfits = self.rule.restore(kept).unwrap();
        assert_eq!(misfits, Vec::<String>::new(), "what it kept does not fit");
    }

    /// A number below `end` (SplitMix64, S. Vigna).
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn end(self) -> Done {
        let Self { mut written, said, .. } = self;
        written.sort_by_key(|(seq, ordinal, _)| (*seq, *ordinal));
        let numbers = written.iter().map(|(seq, ordinal, _)| (*seq, *ordinal)).collect();
        Done { rows: written.into_iter().map(|(.., line)| line).collect(), numbers, said }
    }
}

fn compiled(source: &Source, catalog: &Catalog) -> Box<dyn Rule> {
    let file = format!("rule.{}", source.language().extension());
    match compile(&file, source, catalog) {
        Ok(compiled) => compiled.rule,
        Err(CompileError::Wrong(wrong)) => {
            let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            panic!("{}", wrong.join("\n"))
        }
        Err(CompileError::Waiting(streams)) => panic!("{file} waits for {streams:?}"),
    }
}

/// What was compiled once is kept for all tests.
#[derive(Debug)]
struct Code;

static CODE: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());

impl CompiledPlugins for Code {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        CODE.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &str, code: &[u8]) {
        CODE.lock().unwrap().insert(key.to_owned(), code.to_owned());
    }
}
