//! From a rule's source to a plugin that has taken its configuration.

use std::sync::{Arc, Mutex};

use tidegate_core::Diagnostic;
use tidegate_core::diagnostic::did_you_mean;

use super::columns::{Shown, Table};
use super::instance::{self, Failure, Plugin};
use super::kept::Kept;
use super::manifest::{Limits, Manifest, manifest_of};
use super::rule::WasmRule;
use super::runtime::{Runtime, check_header};
use super::targets::Targets;
use super::{section, signature};
use crate::rule::Flow;
use crate::{Catalog, CompileError, Compiled, Source, WhenStateFull};

/// Makes a rule of the plugin `file`.
///
/// # Errors
/// See [`crate::compile`].
pub(crate) fn compile(file: &str, source: &Source, catalog: &Catalog) -> Result<Compiled, CompileError> {
    compile_with(Runtime::get, file, source, catalog)
}

/// The same, for plugins that run in another engine than that of the process.
pub(super) fn compile_with(
    runtime: impl FnOnce() -> Result<&'static Runtime, String>,
    file: &str,
    source: &Source,
    catalog: &Catalog,
) -> Result<Compiled, CompileError> {
    let (component, text) = section::unpack(source.bytes());
    let refused = |what: String| CompileError::Wrong(vec![Diagnostic::new(file, what)]);
    check_header(component).map_err(refused)?;
    let Some(text) = text else {
        let help = format!("write {} beside it, with at least `reads = [\"NAME\"]`", manifest_of(file));
        return wrong(Diagnostic::new(file, "the plugin has no manifest").help(help));
    };
    let mut manifest = Manifest::read(file, text).map_err(CompileError::Wrong)?;
    let mut warnings = std::mem::take(&mut manifest.warnings);
    check_signature(file, component, text, &manifest, catalog)?;
    let Wired { flows, shown, inputs, targets } = Wired::new(file, &manifest, catalog, &mut warnings)?;
    if manifest.options.when_state_full == WhenStateFull::Forget {
        let what = "a plugin forgets nothing by itself: when it keeps too much, it stops all the same";
        let help = "leave `when_state_full` out, and have the plugin remove what it does not need".to_owned();
        warnings.push(Diagnostic::new(manifest_of(file), what).help(help).warning());
    }
    let runtime = runtime().map_err(refused)?;
    if let Some(why) = &runtime.interprets {
        let what =
            format!("plugins run thirty times slower here, since memory cannot be made executable: {why}");
        let help = "allow memfd_create with executable memory (sysctl vm.memfd_noexec)".to_owned();
        warnings.push(Diagnostic::new(file, what).help(help).warning());
    }
    let code = runtime.load(component, catalog.plugins.compiled.as_ref()).map_err(refused)?;
    let prepared = instance::prepare(runtime, &code).map_err(refused)?;
    let max_state = usize::try_from(manifest.options.max_state.0).unwrap_or(usize::MAX);
    let may = (manifest.config, manifest.limits, max_state);
    let plugin = Plugin::new(runtime, prepared, (inputs, targets), may);
    let kept: Arc<Mutex<Kept>> = Arc::default();
    let instance = plugin.start(&kept).map_err(|failure| {
        CompileError::Wrong(vec![match failure {
            Failure::Limit(limit, why) => {
                let at = manifest.limits_at.get(limit).or_else(|| manifest.limits_at.get("limits")).copied();
                let what = format!("the plugin cannot start within its limits: {why}");
                let help = format!("give it more with `{limit}` in [limits], unless it has gone astray");
                Diagnostic::new(manifest_of(file), what).at(at).help(help)
            }
            Failure::Again(why) | Failure::Once(why) => {
                let what = format!("the plugin does not take its configuration: {why}");
                Diagnostic::new(manifest_of(file), what).at(manifest.config_at)
            }
        }])
    })?;
    let rule = WasmRule {
        flows,
        version: Arc::clone(source.sha256()),
        plugin,
        shown,
        kept,
        instance: Some(instance),
        most_rows: usize::MAX,
        is_to_start: false,
    };
    Ok(Compiled { options: manifest.options, rule: Box::new(rule), warnings })
}

fn wrong<T>(diagnostic: Diagnostic) -> Result<T, CompileError> {
    Err(CompileError::Wrong(vec![diagnostic]))
}

/// The JSON Schema of the configuration of the plugin `source`; an empty text: it has none.
///
/// # Errors
/// When it is no plugin, or fails.
pub fn config_schema(source: &[u8]) -> Result<String, String> {
    let (component, _) = section::unpack(source);
    check_header(component)?;
    let runtime = Runtime::get()?;
    let prepared = instance::prepare(runtime, &runtime.load(component, None)?)?;
    let may = ("{}".to_owned(), Limits::default(), 0);
    instance::config_schema(&Plugin::new(runtime, prepared, (Vec::new(), Targets::new()), may))
}

fn check_signature(
    file: &str,
    component: &[u8],
    text: &str,
    manifest: &Manifest,
    catalog: &Catalog,
) -> Result<(), CompileError> {
    let plugins = &catalog.plugins;
    let outcome = match &manifest.signature {
        Some(signature) if !plugins.trusted_keys.is_empty() => {
            signature::check(component, text, signature, &plugins.trusted_keys)
        }
        Some(_) if plugins.must_be_signed => Err((
            "plugins must be signed here, and the configuration trusts nobody".to_owned(),
            "write public keys into `trusted_keys` of [rules]".to_owned(),
        )),
        None if plugins.must_be_signed => Err((
            "the plugin is not signed, and must be on this box".to_owned(),
            "sign it with `tidegate plugin sign`".to_owned(),
        )),
        _ => Ok(()),
    };
    outcome.or_else(|(what, help)| wrong(Diagnostic::new(manifest_of(file), what).help(help)))
}

/// What a plugin reads and writes.
struct Wired {
    flows: Vec<Flow>,
    shown: Vec<Shown>,
    inputs: Vec<Table>,
    targets: Targets,
}

impl Wired {
    fn new(
        file: &str,
        manifest: &Manifest,
        catalog: &Catalog,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<Self, CompileError> {
        let file = manifest_of(file);
        let (mut wrong, mut waiting) = (Vec::new(), Vec::new());
        let (mut shown, mut inputs, mut targets) = (Vec::new(), Vec::<Table>::new(), Targets::new());
        let left_out = |names: Vec<String>, what: &str, at| {
            let warning = |name| {
                let what =
                    format!("{what} `{name}`, since plugins have no values of its type: it is left out");
                Diagnostic::new(&*file, what).at(at).warning()
            };
            names.into_iter().map(warning).collect::<Vec<_>>()
        };
        for (name, at) in &manifest.reads {
            let schema = match catalog.inputs.get(name) {
                Some(schema) => schema.clone(),
                None => catalog.derived.get(name).cloned(),
            };
            if inputs.iter().any(|known| known.name == *name) {
                let what = format!("`{name}` stands in `reads` twice");
                wrong.push(Diagnostic::new(&*file, what).at(*at).help("leave one of them out".to_owned()));
            } else if let Some(schema) = schema {
                let (columns, table, unread) = Shown::new(name, &schema);
                warnings.extend(left_out(unread, &format!("the plugin cannot read column `{name}`."), *at));
                shown.push(columns);
                inputs.push(table);
            } else if catalog.inputs.contains_key(name) {
                waiting.push(name.clone());
            } else {
                wrong.push(no_stream(&file, name, catalog).at(*at));
            }
        }
        for written in &manifest.writes {
            match targets.add(written, catalog) {
                Ok(unwritten) => {
                    let what = format!("the plugin cannot write column `{}`.", written.name);
                    warnings.extend(left_out(unwritten, &what, written.at));
                }
                Err((what, help)) => wrong.push(Diagnostic::new(&*file, what).at(written.at).help(help)),
            }
        }
        if !wrong.is_empty() {
            return Err(CompileError::Wrong(wrong));
        }
        if !waiting.is_empty() {
            return Err(CompileError::Waiting(waiting));
        }
        let flow = |input: &Table, target: &crate::Target| Flow {
            input: Arc::from(input.name.as_str()),
            target: target.clone(),
        };
        let flows =
            inputs.iter().flat_map(|input| targets.iter().map(move |target| flow(input, target))).collect();
        Ok(Self { flows, shown, inputs, targets })
    }
}

fn no_stream(file: &str, name: &str, catalog: &Catalog) -> Diagnostic {
    if catalog.tables.contains_key(name) {
        let what = format!("`{name}` is a reference table, which plugins cannot read");
        return Diagnostic::new(file, what).help("join it to the stream in a rule in SQL".to_owned());
    }
    let known: Vec<&str> = catalog.inputs.keys().chain(catalog.derived.keys()).map(String::as_str).collect();
    Diagnostic::new(file, format!("there is no stream `{name}`")).help(did_you_mean(name, &known))
}
