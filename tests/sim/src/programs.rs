//! Rules that are programs: scripts in Rhai, and plugins. Each does what another rule does in SQL, or an
//! [`echo`](crate::echo): it counts the rows of each device, or repeats rows by timers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tidegate_rules::wasm::pack;
use tidegate_rules::{CompiledPlugins, Language, Source};

/// Counts, as [`RUNNING`](crate::rules::RUNNING).
pub const SCRIPT_RUNNING: &str = "script_running";
/// Repeats, as [`ECHOES`](crate::rules::ECHOES).
pub const SCRIPT_ECHOES: &str = "script_echoes";
/// Counts, too.
pub const PLUGIN_RUNNING: &str = "plugin_running";
/// Repeats, too.
pub const PLUGIN_ECHOES: &str = "plugin_echoes";

static RUNNING: LazyLock<Vec<u8>> = LazyLock::new(|| component(include_str!("programs/running.wat")));
static ECHOES: LazyLock<Vec<u8>> = LazyLock::new(|| component(include_str!("programs/echoes.wat")));

/// A version of the rule `name`; `None`: it is no program.
#[must_use]
pub fn source(name: &str, version: u64) -> Option<Source> {
    Some(match name {
        SCRIPT_RUNNING => script(include_str!("programs/running.rhai"), version),
        SCRIPT_ECHOES => script(include_str!("programs/echoes.rhai"), version),
        PLUGIN_RUNNING => {
            let columns = "n = \"int64\", device = \"utf8\", seen = \"int64\", before = \"int64\"";
            plugin(&RUNNING, columns, version)
        }
        PLUGIN_ECHOES => plugin(&ECHOES, "n = \"int64\", waited = \"int64\"", version),
        _ => return None,
    })
}

/// What no box takes for the rule `name`.
#[must_use]
pub fn wrong(name: &str, version: u64) -> Option<Source> {
    let text = format!("reads nothing -- {version}");
    let language = source(name, version)?.language();
    Some(Source::new(language, if language == Language::Wasm { pack(b"\0asm", &text) } else { text.into() }))
}

fn script(text: &str, version: u64) -> Source {
    Source::new(Language::Rhai, format!("{text}\n// version {version}\n"))
}

fn plugin(component: &[u8], columns: &str, version: u64) -> Source {
    let manifest =
        format!("# version {version}\nreads = [\"tank\"]\n[writes.uplink]\ncolumns = {{ {columns} }}\n");
    Source::new(Language::Wasm, pack(component, &manifest))
}

/// The component around `code`.
fn component(code: &str) -> Vec<u8> {
    let world = include_str!("../../../rules/tests/wasm/plugin.wat");
    let text = world.replace("{{CODE}}", code).replace("{{VERSION}}", "1.0.0");
    // The box refuses what is no component, and says why.
    wat::parse_str(text).unwrap_or_else(|error| error.to_string().into_bytes())
}

/// What the box keeps on its disk, and behind it what the process has compiled for other boxes: to compile it
/// would take longer than most boxes run.
pub struct Cache {
    /// on the disk
    pub kept: Arc<dyn CompiledPlugins>,
}

static COMPILED: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());

fn compiled() -> MutexGuard<'static, BTreeMap<String, Vec<u8>>> {
    COMPILED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CompiledPlugins for Cache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.kept.get(key).or_else(|| {
            let code = compiled().get(key).cloned()?;
            // The disk is to be the same as that of a box that had to compile it.
            self.kept.put(key, &code);
            Some(code)
        })
    }

    fn put(&self, key: &str, code: &[u8]) {
        compiled().insert(key.to_owned(), code.to_owned());
        self.kept.put(key, code);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}
