//! `tidegate plugin`: plugins, as their authors have them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate_core::Diagnostic;
use tidegate_rules::LogLevel;

use super::args::Format;
use super::args::plugin::{BuildArgs, InspectArgs, NewArgs, PluginCommand, TestArgs};
use super::render::printable;
use super::{Failure, print};
use crate::config;
use crate::plugin::file::{PluginFile, replace};
use crate::plugin::{build, facts, project, sign, trial};
use crate::replay::Input;

/// Does what was asked.
///
/// # Errors
/// When the plugin is wrong, or a file or tool is missing.
pub fn plugin(command: PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::New(args) => new(&args),
        PluginCommand::Build(args) => build(&args),
        PluginCommand::Test(args) => test(&args),
        PluginCommand::Inspect(args) => inspect(&args),
        PluginCommand::Sign(args) => {
            let signed = PluginFile::read(&args.plugin)
                .and_then(|plugin| sign::sign(&plugin, &args.key))
                .map_err(|wrong| Failure::Refused(vec![wrong]))?;
            print(&format!("the signature is in {}\n", signed.display()))
        }
    }
}

fn new(args: &NewArgs) -> Result<(), Failure> {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    project::create(&dir, &args.name)?;
    print(&format!(
        "{name} is in {dir}. Next:\n  cd {dir}\n  tidegate plugin test\n  tidegate plugin build --into \
         RULES_DIRECTORY\n",
        name = args.name,
        dir = dir.display()
    ))
}

fn build(args: &BuildArgs) -> Result<(), Failure> {
    let built = build::build(&args.dir)?;
    let mut text = format!("{}: {} kB\n", built.wasm.display(), built.bytes.div_ceil(1000));
    if let Some(into) = &args.into {
        let had_manifest = build::install(&built.wasm, into)?;
        let manifest = if had_manifest { "; the manifest there stays as it is" } else { "" };
        let _ = writeln!(text, "put into {}{manifest}", into.display()); // a String takes everything
    }
    print(&text)
}

fn test(args: &TestArgs) -> Result<(), Failure> {
    let (wasm, dir) = match args.plugin.is_dir() {
        true => (build::build(&args.plugin)?.wasm, args.plugin.as_path()),
        false => (args.plugin.clone(), args.plugin.parent().unwrap_or(Path::new("."))),
    };
    let tests = dir.join("test");
    let plugin = PluginFile::read(&wasm).map_err(|wrong| Failure::Refused(vec![wrong]))?;
    let source = plugin.source().map_err(|wrong| Failure::Refused(vec![wrong]))?;
    let config = args.config.clone().unwrap_or_else(|| tests.join("tidegate.toml"));
    let config = config::load(&config).map_err(Failure::Refused)?;
    let expected = args.expected.clone().unwrap_or_else(|| tests.join("expected.jsonl"));
    let inputs = if args.inputs.is_empty() { recordings(&tests, &expected) } else { args.inputs.clone() };
    if inputs.is_empty() {
        let help = "put recorded rows into STREAM.jsonl there, or say `--input STREAM=FILE`".to_owned();
        let none = Diagnostic::new(tests.display().to_string(), "there are no recorded rows").help(help);
        return Err(Failure::Refused(vec![none]));
    }
    let outcome = trial::run(&wasm, &source, &config, &inputs, args.seed).map_err(Failure::Refused)?;
    let mut text = String::new();
    let told = tell(&mut text, &outcome, &expected, args.accept);
    print(&text)?;
    told
}

/// Says what came of it.
fn tell(text: &mut String, outcome: &trial::Outcome, expected: &Path, accept: bool) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for line in &outcome.log {
        let level = match line.level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warning",
            LogLevel::Error => "error",
        };
        say(text, &format!("the plugin says ({level}): {}", line.text));
    }
    say(text, &format!("{} rows, and {} written", outcome.rows, outcome.lines.len()));
    if let Some(why) = &outcome.left_out_since {
        say(text, &format!("left out: {} rows, the first since {why}", outcome.left_out));
    }
    let all: String = outcome.lines.iter().map(|line| format!("{line}\n")).collect();
    if accept {
        replace(expected, all.as_bytes()).map_err(|wrong| Failure::Refused(vec![wrong]))?;
        say(text, &format!("written to {}", expected.display()));
    } else if let Ok(known) = fs::read_to_string(expected) {
        match first_difference(&known, &outcome.lines) {
            None => say(text, &format!("as in {}", expected.display())),
            Some((line, known, found)) => {
                say(text, &format!("{}:{line}: expected {known}", expected.display()));
                say(text, &format!("  but it wrote {found}"));
                wrong.push("the results are not what was expected; `--accept` takes them".to_owned());
            }
        }
    } else {
        outcome.lines.iter().for_each(|line| say(text, line));
    }
    for difference in &outcome.differences {
        let (one_by_one, otherwise) = &difference.first;
        say(text, &format!("one by one: {one_by_one}"));
        say(text, &format!("otherwise:  {otherwise}"));
        wrong.push(difference.what.to_owned());
    }
    if wrong.is_empty() {
        say(text, "the same with other batches and with new instances");
        return Ok(());
    }
    Err(Failure::Failed(anyhow::anyhow!(wrong.join("; "))))
}

fn say(text: &mut String, line: &str) {
    text.push_str(&printable(line));
    text.push('\n');
}

/// The first line that is not as expected: its number, what it should be, and what it is.
fn first_difference(expected: &str, found: &[String]) -> Option<(usize, String, String)> {
    let expected: Vec<&str> = expected.lines().filter(|line| !line.trim().is_empty()).collect();
    let line = |lines: Option<&str>| lines.unwrap_or("nothing more").to_owned();
    (0..expected.len().max(found.len())).find_map(|at| {
        let (known, new) = (expected.get(at).copied(), found.get(at).map(String::as_str));
        (known != new).then(|| (at + 1, line(known), line(new)))
    })
}

/// The recordings of a project, by their names.
fn recordings(tests: &Path, expected: &Path) -> Vec<Input> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(tests).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_recording =
            path.extension().is_some_and(|extension| extension == "jsonl" || extension == "csv");
        if is_recording && path != expected {
            let stream = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(stream.clone(), Input::Rows { stream, file: path });
        }
    }
    found.into_values().collect()
}

fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let facts = PluginFile::read(&args.plugin)
        .and_then(|plugin| facts::facts(&plugin))
        .map_err(|wrong| Failure::Refused(vec![wrong]))?;
    if args.format == Format::Json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&facts)?));
    }
    let mut text = String::new();
    let contract = facts.contract.as_deref().unwrap_or("unknown: it asks the box for nothing");
    say(&mut text, &format!("size       {} kB", facts.bytes.div_ceil(1000)));
    say(&mut text, &format!("sha256     {}", facts.sha256));
    say(&mut text, &format!("contract   {contract}"));
    say(&mut text, &format!("imports    {}", facts.imports.join(", ")));
    say(&mut text, &format!("exports    {}", facts.exports.join(", ")));
    say(&mut text, &format!("signature  {}", if facts.signed { "yes" } else { "none" }));
    match &facts.config_schema {
        Some(schema) => {
            text.push_str("config\n");
            format!("{schema:#}").lines().for_each(|line| say(&mut text, &format!("  {line}")));
        }
        None => text.push_str("config     it does not say\n"),
    }
    if let Some(manifest) = &facts.manifest {
        text.push_str("manifest\n");
        manifest.lines().for_each(|line| say(&mut text, &format!("  {line}")));
    }
    print(&text)
}
