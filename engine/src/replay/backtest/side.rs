//! One of the versions that are run beside each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::Serialize;
use tidegate_core::Diagnostic;
use tidegate_rules::{Flow, Mode, Target};

use super::Request;
use super::difference::{Item, Place};
use crate::catalog::catalog;
use crate::config::Config;
use crate::decision::Decision;
use crate::outputs::contract::{Contracts, What};
use crate::replay::ReplayError;
use crate::replay::chunk::Chunk;
use crate::replay::plant::Plant;
use crate::replay::results::{Decided, RowsAsJson, sent};
use crate::replay::run::{Came, Run, Said};
use crate::rules::book::RuleBook;
use crate::rules::directory::RulesDir;
use crate::rules::tables::TableFiles;
use crate::sequence::change::{Change, Load};
use crate::sequence::version::RuleVersion;
use crate::status::Status;

/// A version of the rule, with all rules that share derived streams and outputs with it.
pub(super) struct Side {
    run: Run,
    status: Arc<Status>,
    rule: Arc<str>,
    /// the SHA-256 of its source
    pub(super) version: Arc<str>,
    /// the streams of connections, and of the box itself, that it reads, also through derived ones
    pub(super) inputs: BTreeSet<Arc<str>>,
    /// streams that contracts look at
    pub(super) looked_at: BTreeSet<Arc<str>>,
    /// streams that the rules which share something with it read
    reads: BTreeSet<Arc<str>>,
    outputs: BTreeSet<Arc<str>>,
    reads_tables: bool,
    waits_for_silence: bool,
    rows: RowsAsJson,
    decided: BTreeMap<Arc<str>, Contracted>,
}

/// What a version did, in numbers.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// the SHA-256 of its source
    pub version: Arc<str>,
    /// rows that came after their window had closed
    pub late: u64,
    /// rows that could not be evaluated
    pub left_out: u64,
    /// what it gave up since it kept too much
    pub forgotten: u64,
    /// why it was stopped, if it was
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// what contracts did, by output
    pub contracts: BTreeMap<Arc<str>, Contracted>,
}

/// What a contract did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Contracted {
    /// how often something was sent, held back and refused
    #[serde(flatten)]
    pub decided: Decided,
    /// how often each clause changed a value, or held it back
    pub clauses: BTreeMap<String, u64>,
}

impl Side {
    /// The version that is tested.
    pub(super) fn tested(
        request: &Request<'_>,
        config: &Config,
        columns: &BTreeMap<String, SchemaRef>,
    ) -> Result<Self, ReplayError> {
        let Request { rule, file, source, .. } = *request;
        let mut rules = Rules::load(config, columns)?;
        rules
            .changes
            .extend(rules.book.put(rule, file, source, rule).changes.into_iter().map(|(_, one)| one));
        let mut wrong = rules.book.wrong();
        wrong.retain(|wrong| wrong.file == file);
        if !wrong.is_empty() {
            return Err(ReplayError::Refused(wrong));
        }
        if let Some((_, streams)) = rules.book.waiting().find(|(name, _)| *name == &**rule) {
            let streams = streams.join(", ");
            let what = format!("the columns of {streams} are not known: nothing of it was journaled yet");
            let help = "declare `fields` in [streams.NAME], or let the box run until its first rows have \
                come; of a table, its file has to be there";
            return Err(Diagnostic::new(file, what).help(help.to_owned()).into());
        }
        let others = rules.book.wrong();
        others.iter().for_each(|wrong| tracing::warn!("{wrong} (the rule is left out)"));
        rules.into_side(rule, source.sha256()).ok_or_else(|| {
            let what = "the rule says `mode = \"off\"`, so it does nothing";
            Diagnostic::new(file, what).help("remove that line".to_owned()).into()
        })
    }

    /// The version that runs: the one in the rules directory. `None`: there is none, or it is off.
    pub(super) fn running(
        request: &Request<'_>,
        config: &Config,
        columns: &BTreeMap<String, SchemaRef>,
    ) -> Result<Option<Self>, ReplayError> {
        let rules = Rules::load(config, columns)?;
        let known = rules.book.sources().find(|(name, _)| *name == request.rule);
        let Some((_, source)) = known else { return Ok(None) };
        let Some(sha256) = source.map(|source| Arc::clone(source.sha256())) else {
            let file = rules.book.file(request.rule).unwrap_or_default().to_owned();
            let mut wrong = rules.book.wrong();
            wrong.retain(|wrong| wrong.file == file);
            return Err(ReplayError::Refused(wrong));
        };
        Ok(rules.into_side(request.rule, &sha256))
    }

    /// The streams whose rows it has to see.
    pub(super) fn streams(&self) -> impl Iterator<Item = &Arc<str>> {
        self.reads.iter().chain(&self.looked_at)
    }

    pub(super) fn reads_tables(&self) -> bool {
        self.reads_tables
    }

    pub(super) fn waits_for_silence(&self) -> bool {
        self.waits_for_silence
    }

    /// Whether a rule of it writes the output.
    pub(super) fn writes(&self, output: &str) -> bool {
        self.outputs.contains(output)
    }

    /// See [`Run::answered`].
    pub(super) fn answered(&self) -> (u64, u64) {
        self.run.answered()
    }

    pub(super) fn feed(&mut self, chunk: &Chunk) -> Vec<Item> {
        let came = self.run.feed(chunk);
        self.items(&came)
    }

    pub(super) fn end(&mut self) -> Vec<Item> {
        let came = self.run.end();
        self.items(&came)
    }

    fn items(&mut self, came: &Came<'_>) -> Vec<Item> {
        came.made.decisions.iter().for_each(|decision| self.note(decision));
        let mut items = Vec::new();
        for (seq, said) in came.all() {
            let (place, what) = match said {
                Said::Row(routed, row) => {
                    let mut json = Vec::new();
                    self.rows.write(&routed.rows.batch, row, &mut json);
                    let (rule, target) = (Arc::clone(&routed.version.name), routed.target.name().into());
                    let place = Place { rule: Some(rule), target, instance: None };
                    (place, String::from_utf8_lossy(&json).into_owned())
                }
                Said::Sent(order) => {
                    let What::Write { key, values } = &order.what else { continue };
                    let instance = (!order.instance.is_empty()).then(|| Arc::clone(&order.instance));
                    let place = Place { rule: None, target: Arc::clone(&order.output), instance };
                    (place, sent(key, values).unwrap_or_default())
                }
            };
            let (at, cause) = came.causes.of(seq);
            items.push(Item { at, cause, row: came.causes.row(seq), place, what });
        }
        items
    }

    fn note(&mut self, decision: &Decision) {
        let of = self.decided.entry(Arc::clone(&decision.output)).or_default();
        of.decided.note(decision);
        for step in &decision.steps {
            let clause = serde_json::to_value(step.clause).ok();
            let clause = clause.as_ref().and_then(|clause| clause.as_str()).unwrap_or_default();
            *of.clauses.entry(clause.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let counted = self.status.rules.of(&self.rule);
        Figures {
            version: Arc::clone(&self.version),
            late: counted.late.get(),
            left_out: counted.left_out.get(),
            forgotten: counted.forgotten.get(),
            stopped: counted.stopped.get().map(|(_, why)| why),
            contracts: self.decided.clone(),
        }
    }
}

/// The rules of a box, as they are in its directory.
struct Rules {
    book: RuleBook,
    changes: Vec<Change>,
    contracts: Contracts,
    derived: BTreeSet<Arc<str>>,
    status: Arc<Status>,
}

impl Rules {
    fn load(config: &Config, columns: &BTreeMap<String, SchemaRef>) -> Result<Self, ReplayError> {
        let status = Arc::new(Status::default());
        let catalog = catalog(config, &|stream| columns.get(stream).cloned());
        let derived = catalog.derived.keys().map(|name| Arc::from(name.as_str())).collect();
        let contracts = Contracts::from_config(config, &catalog, &status);
        let book = RuleBook::new(catalog, 1, Arc::clone(&status)).quiet().governed_by(&contracts);
        let (book, changes) = RulesDir::load(&config.rules.dir, &mut TableFiles::new(config), book)?;
        let changes = changes.into_iter().map(|(_, change)| change).collect();
        Ok(Self { book, changes, contracts, derived, status })
    }

    /// The newest version of `rule` and those that share something with it, ready to run. `None`: it is off.
    fn into_side(self, rule: &Arc<str>, sha256: &Arc<str>) -> Option<Side> {
        let Self { book, changes, contracts, derived, status } = self;
        let family = book.family(rule);
        let mut newest: BTreeMap<Arc<str>, Load> = BTreeMap::new();
        let mut tables = Vec::new();
        for change in changes {
            match change {
                Change::Load(load) if family.contains(&load.version.name) => {
                    newest.insert(Arc::clone(&load.version.name), load);
                }
                Change::Table(..) => tables.push(change),
                _ => {}
            }
        }
        let own = newest.get_mut(rule).filter(|load| load.version.hash == *sha256)?;
        // In shadow it would write nothing, and that is not what is asked.
        own.version = Arc::new(RuleVersion { mode: Mode::Active, ..(*own.version).clone() });
        let reads_tables = own.rule.lookups().is_some_and(|lookups| !lookups.tables().is_empty());
        let waits_for_silence = own.rule.silences().is_some();
        let flows: Vec<&Flow> = newest.values().flat_map(|load| load.rule.flows()).collect();
        let inputs = newest.get(rule).map(|load| roots(load.rule.flows(), &flows, &derived))?;
        let reads = flows.iter().map(|flow| Arc::clone(&flow.input)).collect();
        let output = |flow: &&Flow| match &flow.target {
            Target::Output(output) => Some(Arc::clone(output)),
            _ => None,
        };
        let outputs: BTreeSet<Arc<str>> = flows.iter().filter_map(output).collect();
        let looked_at = contracts.touches().into_iter().filter(|name| !contracts.governs(name)).collect();
        let mut run = Run::new(&status, contracts, Plant::recorded_beside());
        let loads = newest.into_values().map(Change::Load);
        run.load(tables.into_iter().chain(loads).collect(), &book);
        Some(Side {
            run,
            status,
            rule: Arc::clone(rule),
            version: Arc::clone(sha256),
            inputs,
            looked_at,
            reads,
            outputs,
            reads_tables,
            waits_for_silence,
            rows: RowsAsJson::default(),
            decided: BTreeMap::new(),
        })
    }
}

/// The streams that are fed by no rule and lead to `own`, one of the ways in `all`.
fn roots(own: &[Flow], all: &[&Flow], derived: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
    let (mut roots, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut left: Vec<&Arc<str>> = own.iter().map(|flow| &flow.input).collect();
    while let Some(stream) = left.pop() {
        if !seen.insert(stream) {
            continue;
        }
        if !derived.contains(stream) {
            roots.insert(Arc::clone(stream));
            continue;
        }
        let feeds = |flow: &&&Flow| matches!(&flow.target, Target::Stream(fed) if fed == stream);
        left.extend(all.iter().filter(feeds).map(|flow| &flow.input));
    }
    roots
}
