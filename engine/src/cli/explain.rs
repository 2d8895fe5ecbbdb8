//! `tidegate explain`: what a rule is made of, what it keeps, and with whom it shares what.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_core::Diagnostic;
use tidegate_rules::{
    Catalog, CompileError, Compiled, Explanation, Mode, Options, Rule, Shared, Source, WhenStateFull, compile,
};

use super::args::{ExplainArgs, Format};
use super::render::printable;
use super::{Failure, load_config, print, rule_file};
use crate::catalog::catalog;
use crate::config::Config;
use crate::rules::book::RuleBook;
use crate::rules::directory::RulesDir;
use crate::rules::tables::TableFiles;
use crate::sequence::change::{Change, Load};
use crate::sequencer::schemas::SchemaStore;
use crate::status::Status;

/// Prints what the rule is made of.
///
/// # Errors
/// [`Failure::Refused`] when configuration or rule are wrong, or there is no such rule.
pub fn explain(args: ExplainArgs) -> Result<(), Failure> {
    let config = load_config(args.config.config)?;
    let explained = Explained::find(&args.rule, &config).map_err(Failure::Refused)?;
    match args.format {
        Format::Text => print(&printable_lines(&explained.text())),
        Format::Json => print(&format!("{:#}\n", explained.json())),
    }
}

/// A rule among the others.
struct Explained {
    name: Arc<str>,
    file: String,
    options: Options,
    explanation: Explanation,
    streams: Vec<Stream>,
    /// rules that live on the same worker, since they share a derived stream or an output with it, or with
    /// one that does
    together: Vec<Arc<str>>,
}

/// A stream that the rule reads.
struct Stream {
    name: Arc<str>,
    /// What rows must look like for the rule to be called; `None`: it is called for every row.
    prefilters: Option<Vec<String>>,
    /// other rules that read it: all of them, and those that are called for the rows only that concern them
    others: usize,
    indexed: usize,
}

impl Explained {
    /// `wanted` is the name of a rule, or a file that need not be in the rules directory.
    fn find(wanted: &str, config: &Config) -> Result<Self, Vec<Diagnostic>> {
        let schemas = SchemaStore::look(config);
        let catalog = catalog(config, &|stream| schemas.get(stream).cloned());
        let book = RuleBook::new(catalog, 1, Arc::new(Status::default())).quiet();
        let (mut book, changes) = RulesDir::load(&config.rules.dir, &mut TableFiles::new(config), book)
            .map_err(|wrong| vec![wrong])?;
        let (name, file, source) = rule_file::find(wanted, &book, &config.rules.dir)?;
        let Compiled { options, mut rule, .. } = compiled(&file, &source, book.catalog())?;
        book.put(&name, &file, &source, &name);
        let wrong: Vec<_> = book.wrong().into_iter().filter(|diagnostic| diagnostic.file == file).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut others: Vec<(Arc<str>, Box<dyn Rule>)> =
            changes.into_iter().filter_map(|(_, change)| running(change, &name)).collect();
        let mut parts = Shared::default();
        let all = others.iter_mut().map(|(other, rule)| (&*other, rule)).chain([(&name, &mut rule)]);
        let shared = all
            .filter_map(|(name, rule)| Some((name, rule.sharing()?)))
            .try_for_each(|(name, sharing)| sharing.share(name, &mut parts));
        shared.map_err(|error| vec![Diagnostic::new(file.clone(), error.to_string())])?;
        let inputs: BTreeSet<Arc<str>> = rule.flows().iter().map(|flow| Arc::clone(&flow.input)).collect();
        let streams = inputs.into_iter().map(|stream| Stream::new(stream, &*rule, &others)).collect();
        let together = book.family(&name).into_iter().filter(|other| *other != name).collect();
        Ok(Self { name, file, options, explanation: rule.explain(), streams, together })
    }

    fn keeps_something(&self) -> bool {
        self.streams.iter().any(|stream| stream.prefilters.is_none())
    }

    fn text(&self) -> String {
        let mut text = format!("rule {} ({}), {}\n", self.name, self.file, mode(self.options.mode));
        // Writing to a String cannot fail.
        if let Some(description) = &self.options.description {
            let _ = writeln!(text, "  {description}");
        }
        for step in &self.explanation.steps {
            let gap = if step.depth == 0 { "\n" } else { "" };
            let _ = writeln!(
                text,
                "{gap}{}{}{}",
                "  ".repeat(step.depth),
                step.what,
                shared_with(&step.shared_with)
            );
        }
        text.push('\n');
        for stream in &self.streams {
            let _ = writeln!(text, "stream {}: {}", stream.name, stream.text());
        }
        if self.keeps_something() {
            if !self.explanation.time.is_empty() {
                let _ = writeln!(text, "time: {}", self.time());
            }
            let _ = writeln!(
                text,
                "state: up to {}, then {}",
                self.options.max_state,
                when_full(self.options.when_state_full).1
            );
        }
        if !self.together.is_empty() {
            let names: Vec<&str> = self.together.iter().map(|name| &**name).collect();
            let _ = writeln!(text, "on one worker with: {}", names.join(", "));
        }
        text
    }

    fn time(&self) -> String {
        let options = self.explanation.time.iter().map(|(option, span)| match span {
            Some(span) => format!("{option} {span}"),
            None => format!("{option} none"),
        });
        options.collect::<Vec<_>>().join(", ")
    }

    fn json(&self) -> Value {
        let mut statements: Vec<(String, Vec<Value>)> = Vec::new();
        for step in &self.explanation.steps {
            match statements.last_mut() {
                Some((_, steps)) if step.depth > 0 => steps
                    .push(json!({ "depth": step.depth, "does": step.what, "shared_with": step.shared_with })),
                _ => statements.push((step.what.clone(), Vec::new())),
            }
        }
        let statements: Vec<Value> = statements
            .into_iter()
            .map(|(statement, operators)| json!({ "statement": statement, "operators": operators }))
            .collect();
        let streams: Vec<Value> = self.streams.iter().map(Stream::json).collect();
        let mut explained = json!({
            "rule": self.name,
            "file": self.file,
            "description": self.options.description,
            "mode": mode(self.options.mode),
            "max_state": self.options.max_state,
            "when_state_full": when_full(self.options.when_state_full).0,
            "statements": statements,
            "streams": streams,
            "on_one_worker_with": self.together,
        });
        let time = self.explanation.time.iter().map(|(option, span)| ((*option).to_owned(), json!(span)));
        if let Some(fields) = explained.as_object_mut() {
            fields.extend(time);
        }
        explained
    }
}

impl Stream {
    fn new(name: Arc<str>, rule: &dyn Rule, others: &[(Arc<str>, Box<dyn Rule>)]) -> Self {
        let prefilters = |rule: &dyn Rule| rule.indexed().and_then(|indexed| indexed.prefilters(&name));
        let readers: Vec<_> = others
            .iter()
            .map(|(_, other)| other)
            .filter(|other| other.flows().iter().any(|flow| flow.input == name))
            .collect();
        let indexed = readers.iter().filter(|reader| prefilters(&****reader).is_some()).count();
        let prefilters =
            prefilters(rule).map(|prefilters| prefilters.iter().map(ToString::to_string).collect());
        Self { prefilters, others: readers.len(), indexed, name }
    }

    fn text(&self) -> String {
        let rows = match &self.prefilters {
            None => "every row".to_owned(),
            Some(prefilters) => format!("rows with {}", prefilters.join(", or ")),
        };
        let others = match self.others {
            0 => "no other rule reads it".to_owned(),
            1 => format!("1 other rule reads it, {} by index", self.indexed),
            others => format!("{others} other rules read it, {} by index", self.indexed),
        };
        format!("{rows}; {others}")
    }

    fn json(&self) -> Value {
        json!({
            "stream": self.name, "indexed_by": self.prefilters, "other_rules": self.others,
            "other_rules_indexed": self.indexed,
        })
    }
}

fn compiled(file: &str, source: &Source, catalog: &Catalog) -> Result<Compiled, Vec<Diagnostic>> {
    compile(file, source, catalog).map_err(|error| match error {
        CompileError::Wrong(wrong) => wrong,
        CompileError::Waiting(streams) => {
            let streams = streams.join(", ");
            let help =
                "run the box until the first data has come, or declare `fields` in [streams.NAME]".to_owned();
            vec![
                Diagnostic::new(
                    file,
                    format!("the columns of {streams} are known only after the first data"),
                )
                .help(Some(help)),
            ]
        }
    })
}

/// A rule other than `name` that `change` starts.
fn running(change: Change, name: &Arc<str>) -> Option<(Arc<str>, Box<dyn Rule>)> {
    match change {
        Change::Load(Load { version, rule, .. }) if version.name != *name => {
            Some((Arc::clone(&version.name), rule))
        }
        _ => None,
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Active => "active",
        Mode::Shadow => "shadow",
        Mode::Off => "off",
    }
}

/// With whom a step is shared, if with anybody.
fn shared_with(rules: &[Arc<str>]) -> String {
    const SOME: usize = 5;
    let names: Vec<&str> = rules.iter().take(SOME).map(|name| &**name).collect();
    match rules.len() {
        0 => String::new(),
        few if few <= SOME => format!(" [once for this rule and {}]", names.join(", ")),
        many => format!(" [once for this rule and {}, and {} more]", names.join(", "), many - SOME),
    }
}

/// In the file, and in words.
fn when_full(when: WhenStateFull) -> (&'static str, &'static str) {
    match when {
        WhenStateFull::Stop => ("stop", "the rule stops"),
        WhenStateFull::Forget => ("forget", "what is oldest is given up"),
    }
}

fn printable_lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}
