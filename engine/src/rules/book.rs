//! The rule book: every rule file with its source, what became of it, and the worker that runs it.
//!
//! It compiles sources against the catalog, refuses circles of derived streams, keeps the last good version
//! of a rule when a new one is wrong, and decides which rules must live together: those that share a derived
//! stream or an output, so that their rows keep their order. It has no threads and no files; what it returns
//! are changes for the workers, in the order in which they must take effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use tidegate_core::Diagnostic;
use tidegate_rules::{Catalog, CompileError, Compiled, Flow, Mode, Rank, Rule, Source, Target, compile};
use tokio::sync::oneshot;

use crate::outputs::contract::Contracts;
use crate::rules::order::topological;
use crate::sequence::change::{Change, Load};
use crate::sequence::edit::{Edit, Edited, Placed};
use crate::sequence::version::{RuleFile, RuleVersion};
use crate::status::Status;
use placement::{Move, Placement};

/// Advice for a rule that fits the configuration file, and not the one that runs.
const RESTART: &str = "restart the box: the rule is right for the configuration file as it is by now, and \
    the box runs with what it was started with";

/// What makes a rule of its file's name and source: [`compile`] in a box.
pub type Compile = fn(&str, &Source, &Catalog) -> Result<Compiled, CompileError>;

/// What rules could name if the box was started again, beside what they may name now; none if that is the
/// same.
pub type AfterRestart = Box<dyn Fn(&Catalog) -> Option<Catalog> + Send>;

/// All rules.
pub struct RuleBook {
    catalog: Catalog,
    compile: Compile,
    rules: BTreeMap<Arc<str>, Entry>,
    /// what the reference tables hold
    tables: BTreeMap<Arc<str>, RecordBatch>,
    placement: Placement,
    status: Arc<Status>,
    /// whether somebody else reports what is wrong
    quiet: bool,
    /// the warnings about several rules that the log has
    told: Vec<Diagnostic>,
    /// whether a version that runs is worth a line
    says_what_runs: bool,
    /// outputs with a contract, and whether it says who wins among rules of one rank
    governed: BTreeMap<Arc<str>, bool>,
    after_restart: Option<AfterRestart>,
}

/// What is known of one rule file.
struct Entry {
    /// the file, as diagnostics name it
    file: String,
    /// newest source that is not known to be wrong
    good: Option<Source>,
    /// streams whose columns the newest good source waits for, and tables that have not been read
    waiting: Vec<String>,
    /// what is wrong with the newest source
    wrong: Vec<Diagnostic>,
    /// that source, unless it cannot be read
    refused: Option<Source>,
    /// what is probably not meant in the newest good source, and whether the log has it
    warnings: Vec<Diagnostic>,
    warned: bool,
    /// reference tables that the version that runs reads
    tables: Vec<Arc<str>>,
    /// the ways through the version that runs
    running: Option<Vec<Flow>>,
    /// whether that writes anything
    writes: bool,
    /// who wins where others write the same output
    rank: Rank,
}

impl RuleBook {
    /// A book without rules, for `workers` workers.
    #[must_use]
    pub fn new(catalog: Catalog, workers: usize, status: Arc<Status>) -> Self {
        let (rules, tables, told) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self {
            catalog,
            compile,
            rules,
            tables,
            placement: Placement::new(workers),
            status,
            quiet: false,
            told,
            says_what_runs: false,
            governed: BTreeMap::new(),
            after_restart: None,
        }
    }

    /// The same, with rules that are made by `compile`.
    #[must_use]
    pub fn compiled_by(mut self, compile: Compile) -> Self {
        self.compile = compile;
        self
    }

    /// The same, where outputs have contracts: rules that touch what these look at live where they are.
    #[must_use]
    pub fn governed_by(mut self, contracts: &Contracts) -> Self {
        self.placement.pin(contracts.touches(), Contracts::WORKER);
        self.governed = contracts.ties();
        self
    }

    /// The same; what a rule names that `after_restart` has is not called wrong without saying so.
    #[must_use]
    pub fn knowing(mut self, after_restart: AfterRestart) -> Self {
        self.after_restart = Some(after_restart);
        self
    }

    /// The same, for a caller that reports what is [`RuleBook::wrong`] itself: nothing is logged.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Where it is told what came of the rules.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether somebody else reports what is wrong from now on.
    pub fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// The rules that there were are loaded: from now on a version that begins to run is a change, and is
    /// logged.
    pub fn say_what_runs(&mut self) {
        self.says_what_runs = true;
    }

    /// Rule `from` is called `to` from now on, and its file `file`: the version that runs goes on there,
    /// whether or not a newer source is wrong. Without an edit there was nothing that could go on.
    pub fn rename(&mut self, from: &str, to: &Arc<str>, file: &str) -> Edited {
        let Some((from, good)) = self
            .rules
            .get_key_value(from)
            .and_then(|(from, entry)| Some((Arc::clone(from), entry.good.clone()?)))
        else {
            return Edited::default();
        };
        self.put(to, file, &good, &from)
    }

    /// Whether `source` is the newest good one of rule `name`, and no wrong one came after it.
    #[must_use]
    pub fn runs(&self, name: &str, source: &Source) -> bool {
        self.rules
            .get(name)
            .is_some_and(|entry| entry.wrong.is_empty() && entry.good.as_ref() == Some(source))
    }

    /// Makes a change of the rules that was made before.
    pub fn edit(&mut self, edit: &Edit) -> Edited {
        match edit {
            Edit::Put { name, file, source, inherits } => {
                let (name, inherits) = (Arc::from(name.as_str()), Arc::from(inherits.as_str()));
                let outcome = self.compile_again(&name, file, source);
                self.take(&name, file, source, &inherits, outcome)
            }
            Edit::Remove { name } => self.remove(name),
            Edit::Refuse { verdict, goes_on } => {
                Edited { edit: Some(edit.clone()), changes: self.cannot_start(verdict, goes_on.as_ref()) }
            }
            // The content of a table is elsewhere (see `set_table`), and a rule that was stopped is no other.
            Edit::Table { .. } | Edit::Stop(_) => Edited::default(),
        }
    }

    /// What reference table `name` holds, if it has been read.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&RecordBatch> {
        self.tables.get(name)
    }

    /// What the reference tables hold that have been read.
    pub fn tables(&self) -> impl Iterator<Item = (&Arc<str>, &RecordBatch)> {
        self.tables.iter()
    }

    /// Reference table `name` holds `rows`. When it has other columns than before, rules that read it are
    /// compiled anew. A table that is not configured any more holds nothing.
    pub fn set_table(&mut self, name: &Arc<str>, rows: RecordBatch) -> Vec<Placed> {
        let Some(known) = self.catalog.tables.get_mut(&**name) else { return Vec::new() };
        let schema = rows.schema();
        let other_columns = known.replace(Arc::clone(&schema)).is_none_or(|known| known != schema);
        let first = self.tables.insert(Arc::clone(name), rows.clone()).is_none();
        let mut changes: Vec<Placed> = (0..self.placement.workers())
            .map(|worker| (worker, Change::Table(Arc::clone(name), rows.clone())))
            .collect();
        if first || other_columns {
            changes.extend(self.compile_readers(name));
        }
        changes
    }

    /// Takes a new source for the rule `name`, whose state it inherits from `inherits`. A source that is
    /// wrong changes nothing but what [`RuleBook::wrong`] says.
    pub fn put(&mut self, name: &Arc<str>, file: &str, source: &Source, inherits: &Arc<str>) -> Edited {
        let has_run = self.rules.get(inherits).is_some_and(|entry| entry.good.as_ref() == Some(source));
        let outcome = if has_run {
            self.compile_again(name, file, source)
        } else {
            self.compile(&self.catalog, name, file, source)
        };
        self.take(name, file, source, inherits, outcome)
    }

    fn take(
        &mut self,
        name: &Arc<str>,
        file: &str,
        source: &Source,
        inherits: &Arc<str>,
        outcome: Result<Compiled, CompileError>,
    ) -> Edited {
        let entry = self.rules.entry(Arc::clone(name)).or_insert_with(|| Entry::new(file));
        if !matches!(outcome, Err(CompileError::Wrong(_))) {
            file.clone_into(&mut entry.file);
        }
        let status = self.status.rules.of(name);
        let edit = || {
            let (name, inherits) = (name.to_string(), inherits.to_string());
            Some(Edit::Put { name, file: file.to_owned(), source: source.clone(), inherits })
        };
        match outcome {
            Ok(mut compiled) => {
                let warnings = std::mem::take(&mut compiled.warnings);
                (entry.good, entry.waiting, entry.wrong) = (Some(source.clone()), Vec::new(), Vec::new());
                entry.warned &= entry.warnings == warnings;
                entry.warnings = warnings;
                status.refused.clear();
                status.waits_for.clear();
                let file = RuleFile { path: file.to_owned(), source: source.clone() };
                let mut changes = self.start(name, inherits, file, compiled);
                changes.extend(self.renamed(name, inherits));
                Edited { edit: edit(), changes }
            }
            Err(CompileError::Waiting(streams)) => {
                if !self.quiet {
                    tracing::info!(rule = %name, streams = streams.join(", "), "the rule waits for the \
                        first data of a stream without declared fields, or for the file of a table");
                }
                status.refused.clear();
                status.waits_for.note(streams.join(", "));
                (entry.good, entry.waiting, entry.wrong) = (Some(source.clone()), streams, Vec::new());
                Edited { edit: edit(), changes: self.renamed(name, inherits) }
            }
            Err(CompileError::Wrong(mut wrong)) => {
                if self.fits_after_restart(file, source) {
                    wrong.iter_mut().for_each(|wrong| wrong.help = Some(RESTART.to_owned()));
                }
                self.refuse(name, file, wrong, Some(source.clone()));
                Edited::default()
            }
        }
    }

    /// Whether a rule that is wrong now would be right if the box was started again.
    fn fits_after_restart(&self, file: &str, source: &Source) -> bool {
        let then = self.after_restart.as_ref().and_then(|after_restart| after_restart(&self.catalog));
        then.is_some_and(|then| !matches!((self.compile)(file, source, &then), Err(CompileError::Wrong(_))))
    }

    /// Rule `name` was called `before`, which is gone with the same edit: a crash between two would leave one
    /// whose state the other has.
    fn renamed(&mut self, name: &Arc<str>, before: &Arc<str>) -> Vec<Placed> {
        if before == name { Vec::new() } else { self.remove(before).changes }
    }

    /// The file of rule `name` is there, but cannot be read.
    pub fn cannot_read(&mut self, name: &Arc<str>, wrong: Diagnostic) {
        let file = wrong.file.clone();
        self.refuse(name, &file, vec![wrong], None);
    }

    fn refuse(&mut self, name: &Arc<str>, file: &str, wrong: Vec<Diagnostic>, source: Option<Source>) {
        let entry = self.rules.entry(Arc::clone(name)).or_insert_with(|| Entry::new(file));
        let keeps = if entry.running.is_some() {
            "the version before keeps running"
        } else {
            "the rule does not run"
        };
        for diagnostic in wrong.iter().filter(|_| !self.quiet) {
            tracing::error!(rule = %name, "{diagnostic} ({keeps})");
        }
        let status = self.status.rules.of(name);
        status.refused.note(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        (entry.wrong, entry.refused) = (wrong, source);
    }

    /// The file of rule `name` is gone.
    pub fn remove(&mut self, name: &str) -> Edited {
        self.status.rules.remove(name);
        let Some((name, _)) = self.rules.remove_entry(name) else { return Edited::default() };
        let edit = Some(Edit::Remove { name: name.to_string() });
        let place = self.placement.leave(&name);
        Edited { edit, changes: place.map(|worker| (worker, Change::Remove(name))).into_iter().collect() }
    }

    /// What rules may name.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The columns of an input stream that rules are compiled for, if they are known.
    #[must_use]
    pub fn columns(&self, stream: &str) -> Option<&SchemaRef> {
        self.catalog.inputs.get(stream)?.as_ref()
    }

    /// The worker that runs rule `name`.
    #[must_use]
    pub fn worker_of(&self, name: &str) -> Option<usize> {
        self.placement.worker_of(name)
    }

    /// The names of all rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(|name| &**name)
    }

    /// The file of rule `name`, as diagnostics name it.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&str> {
        self.rules.get(name).map(|entry| entry.file.as_str())
    }

    /// Rule `name` and all that must live on the same worker.
    #[must_use]
    pub fn family(&self, name: &Arc<str>) -> BTreeSet<Arc<str>> {
        self.placement.family(name)
    }

    /// All rules, each with its newest source if that is known to be good.
    pub fn sources(&self) -> impl Iterator<Item = (&Arc<str>, Option<&Source>)> {
        self.rules.iter().map(|(name, entry)| (name, entry.good.as_ref().filter(|_| entry.wrong.is_empty())))
    }

    /// The columns of an input stream are known, or have widened: rules that read it are compiled anew.
    pub fn columns_changed(&mut self, stream: &str, schema: &SchemaRef) -> Vec<Placed> {
        self.catalog.inputs.insert(stream.to_owned(), Some(Arc::clone(schema)));
        self.compile_readers(stream)
    }

    /// Compiles the rules anew that read `name`, or wait for its columns.
    fn compile_readers(&mut self, name: &str) -> Vec<Placed> {
        let concerned: Vec<(Arc<str>, String, Source)> = self
            .rules
            .iter()
            .filter(|(_, entry)| entry.reads(name))
            .filter_map(|(name, entry)| Some((Arc::clone(name), entry.file.clone(), entry.good.clone()?)))
            .collect();
        let mut changes = Vec::new();
        for (name, file, source) in concerned {
            // The newest source may be a wrong one that was never run; it stays wrong. It may also be this
            // one, which did not fit the columns before.
            let newest = self
                .rules
                .get_mut(&name)
                .map(|entry| (std::mem::take(&mut entry.wrong), entry.refused.take()));
            changes.extend(self.put(&name, &file, &source, &name).changes);
            let still_wrong =
                newest.filter(|(wrong, refused)| !wrong.is_empty() && refused.as_ref() != Some(&source));
            if let Some((newest, entry)) = still_wrong.zip(self.rules.get_mut(&name)) {
                self.status
                    .rules
                    .of(&name)
                    .refused
                    .note(newest.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
                (entry.wrong, entry.refused) = newest;
            }
        }
        changes
    }

    /// What is wrong with the newest sources.
    #[must_use]
    pub fn wrong(&self) -> Vec<Diagnostic> {
        self.rules.values().flat_map(|entry| entry.wrong.iter().cloned()).collect()
    }

    /// What is probably not meant in the newest good sources.
    #[must_use]
    pub fn warnings(&self) -> Vec<Diagnostic> {
        self.rules.values().flat_map(|entry| entry.warnings.iter().cloned()).chain(self.writers()).collect()
    }

    /// What several rules write, and one should.
    fn writers(&self) -> Vec<Diagnostic> {
        let running = self.rules.values().filter(|entry| entry.writes);
        let running = running.filter_map(|entry| Some((entry.file.as_str(), entry.running.as_deref()?)));
        // Where there is a contract, it says who wins.
        writers::warnings(running, &|output| self.governed.contains_key(output))
    }

    /// Logs the warnings that the log does not have yet.
    pub fn log_warnings(&mut self) {
        for (name, entry) in self.rules.iter_mut().filter(|(_, entry)| !entry.warned) {
            entry.warned = true;
            for diagnostic in entry.warnings.iter().filter(|_| !self.quiet) {
                tracing::warn!(rule = %name, "{diagnostic}");
            }
        }
        let writers = self.writers();
        for diagnostic in writers.iter().filter(|diagnostic| !self.quiet && !self.told.contains(diagnostic)) {
            tracing::warn!("{diagnostic}");
        }
        self.told = writers;
    }

    /// Rules that wait for the columns of a stream, or for a table, with their names.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.rules
            .iter()
            .filter(|(_, entry)| !entry.waiting.is_empty())
            .map(|(name, entry)| (&**name, entry.waiting.as_slice()))
    }

    /// Number of rule files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Compiles a source that has been good before: columns that were inferred since do not make it wrong.
    /// Those that are in its way, and what came after them, it does not see.
    fn compile_again(&self, name: &Arc<str>, file: &str, source: &Source) -> Result<Compiled, CompileError> {
        let wrong = match self.compile(&self.catalog, name, file, source) {
            Err(CompileError::Wrong(wrong)) => wrong,
            outcome => return outcome,
        };
        let mut catalog = self.catalog.clone();
        for stream in self.catalog.inferred.iter().filter(|stream| source.contains(stream)) {
            let Some(Some(schema)) = self.catalog.inputs.get(stream) else { continue };
            for columns in (1..schema.fields().len()).rev() {
                let fewer: Vec<_> = schema.fields().iter().take(columns).cloned().collect();
                catalog.inputs.insert(stream.clone(), Some(Arc::new(Schema::new(fewer))));
                if let Ok(mut compiled) = self.compile(&catalog, name, file, source) {
                    compiled.warnings.push(without(stream, schema, columns, &wrong));
                    return Ok(compiled);
                }
            }
            catalog.inputs.insert(stream.clone(), Some(Arc::clone(schema)));
        }
        Err(CompileError::Wrong(wrong))
    }

    fn compile(
        &self,
        catalog: &Catalog,
        name: &Arc<str>,
        file: &str,
        source: &Source,
    ) -> Result<Compiled, CompileError> {
        let Compiled { options, mut rule, warnings } = (self.compile)(file, source, catalog)?;
        // An empty table and one that nobody has read yet are not the same: NOT IN would let everything pass.
        let unread: Vec<String> = tables(&mut *rule)
            .iter()
            .filter(|table| !self.tables.contains_key(*table))
            .map(ToString::to_string)
            .collect();
        if !unread.is_empty() {
            return Err(CompileError::Waiting(unread));
        }
        if let Some(circle) = self.circle(name, rule.flows()) {
            return Err(CompileError::Wrong(vec![
                Diagnostic::new(file, format!("the rule closes a circle of derived streams: {circle}"))
                    .help(Some("data flows one way; write the result to another stream".to_owned())),
            ]));
        }
        let writes_to_uplink = rule.flows().iter().any(|flow| flow.target == Target::Uplink);
        if writes_to_uplink && options.mode != Mode::Off && !self.catalog.takes(name) {
            return Err(CompileError::Wrong(vec![
                Diagnostic::new(file, format!("no uplink takes what the rule `{name}` writes")).help(Some(
                    "name the rule in `rules` of an [uplinks.NAME], or have one without `rules`".to_owned(),
                )),
            ]));
        }
        if options.mode == Mode::Active
            && let Some(rival) = self.rival(name, options.rank, rule.flows())
        {
            return Err(CompileError::Wrong(vec![Diagnostic::new(file, rival).help(Some(
                "give one of them another `rank`, from 1 (strongest) to 16, or say in the output's contract who \
                wins: `tie = \"newest\"`, \"min\", \"max\" or \"off\""
                    .to_owned(),
            ))]));
        }
        Ok(Compiled { options, rule, warnings })
    }

    /// What is wrong if another rule of the same rank writes an output whose contract says nothing of that.
    fn rival(&self, name: &str, rank: Rank, flows: &[Flow]) -> Option<String> {
        let undecided = |flow: &Flow| match &flow.target {
            Target::Output(output) if self.governed.get(output) == Some(&false) => Some(Arc::clone(output)),
            _ => None,
        };
        let outputs: BTreeSet<Arc<str>> = flows.iter().filter_map(undecided).collect();
        // Of many rules few write one output.
        outputs.iter().find_map(|output| {
            let mut others = self.placement.touching(output).filter(|other| &***other != name);
            let entry = others.find_map(|other| {
                let entry = self.rules.get(other).filter(|entry| entry.writes && entry.rank == rank)?;
                let writes = |flow: &Flow| matches!(&flow.target, Target::Output(other) if other == output);
                entry.running.iter().flatten().any(writes).then_some(entry)
            })?;
            let (file, rank) = (&entry.file, rank.get());
            Some(format!(
                "`{file}` writes the output `{output}` with the same rank ({rank}), and nobody says who wins"
            ))
        })
    }

    /// A circle of derived streams that there would be if rule `name` had `flows`.
    fn circle(&self, name: &str, flows: &[Flow]) -> Option<String> {
        if !flows.iter().any(|flow| matches!(flow.target, Target::Stream(_))) {
            return None;
        }
        let others = self
            .rules
            .iter()
            .filter(|(other, _)| &***other != name)
            .filter_map(|(_, entry)| entry.running.as_ref());
        let all = others.flatten().chain(flows);
        let edges: BTreeSet<(Arc<str>, Arc<str>)> = all
            .filter_map(|flow| match &flow.target {
                Target::Stream(stream) => Some((Arc::clone(&flow.input), Arc::clone(stream))),
                _ => None,
            })
            .collect();
        let order = topological(edges.clone());
        let stuck: BTreeSet<&Arc<str>> =
            edges.iter().map(|(_, to)| to).filter(|to| !order.contains(to)).collect();
        if stuck.is_empty() {
            return None;
        }
        let on_circle = edges.iter().filter(|(from, to)| stuck.contains(from) && stuck.contains(to));
        Some(on_circle.map(|(from, to)| format!("`{from}` leads to `{to}`")).collect::<Vec<_>>().join(", "))
    }

    fn start(
        &mut self,
        name: &Arc<str>,
        inherits: &Arc<str>,
        file: RuleFile,
        Compiled { options, mut rule, .. }: Compiled,
    ) -> Vec<Placed> {
        let mut changes = Vec::new();
        if options.mode == Mode::Off {
            if let Some(entry) = self.rules.get_mut(name) {
                entry.running = None;
            }
            if self.says_what_runs {
                tracing::info!("rule {name}: it is off");
            }
            changes
                .extend(self.placement.leave(name).map(|worker| (worker, Change::Remove(Arc::clone(name)))));
            return changes;
        }
        let flows = rule.flows().to_vec();
        let tables = tables(&mut *rule);
        // A renamed rule's state is on the worker of the old name.
        let old = if inherits == name { None } else { self.placement.leave(inherits) };
        if old.is_some()
            && let Some(entry) = self.rules.get_mut(inherits)
        {
            entry.running = None;
        }
        let mut ties = placement::ties(&flows, &self.catalog);
        if let Some(before) = self.rules.get(name).and_then(|entry| entry.running.as_ref())
            && rule.fence().is_some()
        {
            // It may not start: then the version before goes on, with what it is tied to.
            ties.extend(placement::ties(before, &self.catalog));
        }
        let worker = self.placement.settle(name, old, ties);
        if let Some(entry) = self.rules.get_mut(name) {
            entry.running = Some(flows);
            entry.writes = options.mode == Mode::Active;
            entry.rank = options.rank;
            entry.tables = tables;
        }
        let (mode, rank, delivery) = (options.mode, options.rank.get(), options.delivery());
        let hash = Arc::clone(file.source.sha256());
        let load = Load {
            version: Arc::new(RuleVersion { name: Arc::clone(name), hash, file, mode, rank, delivery }),
            rule,
            inherits: Arc::clone(inherits),
            is_said: self.says_what_runs,
            status: self.status.rules.of(name),
            undecided: None,
        };
        changes.push((worker, Change::Load(load)));
        changes.extend(self.bring_together(name));
        changes
    }

    /// Has rule `name` live where those do that it shares something with.
    fn bring_together(&mut self, name: &Arc<str>) -> Vec<Placed> {
        let mut changes = Vec::new();
        for Move { rule, from, to } in self.placement.bring_together(name) {
            let (give, take) = oneshot::channel();
            changes.push((from, Change::Give(Arc::clone(&rule), give)));
            changes.push((to, Change::Take(rule, take)));
        }
        changes
    }
}

/// The reference tables that a rule looks things up in.
fn tables(rule: &mut dyn Rule) -> Vec<Arc<str>> {
    let lookups = rule.lookups().map_or_else(Vec::new, |lookups| lookups.tables().to_vec());
    lookups.into_iter().map(|(table, _)| table).collect()
}

/// What is said of a rule that does not see the columns of `stream` from the one with index `first` on.
fn without(stream: &str, schema: &SchemaRef, first: usize, wrong: &[Diagnostic]) -> Diagnostic {
    let names = schema.fields().iter().skip(first).map(|field| format!("`{}`", field.name()));
    let names = names.collect::<Vec<_>>().join(", ");
    let (file, place, why) = wrong.first().map_or(("", None, String::new()), |wrong| {
        (&*wrong.file, wrong.place, format!(": {}", wrong.message))
    });
    let what =
        format!("the rule does not see the new columns {names} of `{stream}`, which would break it{why}");
    let help = format!("write `{stream}.` in front of its columns, or declare the stream's `fields`");
    Diagnostic::new(file, what).at(place).help(help).warning()
}

impl Entry {
    fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            good: None,
            waiting: Vec::new(),
            wrong: Vec::new(),
            refused: None,
            warnings: Vec::new(),
            warned: false,
            tables: Vec::new(),
            running: None,
            writes: false,
            rank: Rank::default(),
        }
    }

    fn reads(&self, stream: &str) -> bool {
        self.waiting.iter().any(|waiting| waiting == stream)
            || self.tables.iter().any(|table| &**table == stream)
            || self.running.as_ref().is_some_and(|running| running.iter().any(|flow| &*flow.input == stream))
    }
}

mod placement;
mod starts;
#[cfg(test)]
mod tests;
mod writers;
