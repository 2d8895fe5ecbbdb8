//! The one engine of a process that runs plugins, and how a component becomes code that it can run.

use std::sync::{Arc, LazyLock};

use tidegate_code_memory::{self as code_memory, CodeMemory};
use wasmtime::component::Component;
use wasmtime::{Config, Engine};

use super::section::is_whole;
use crate::catalog::CompiledPlugins;
use crate::source::sha256;

/// Another number when code that was compiled before must not be used any more, though wasmtime would take it:
/// it does not look, for instance, whether not-a-number is written in one way.
const SETTINGS: u32 = 1;

/// What runs plugins.
pub(super) struct Runtime {
    pub engine: Engine,
    /// for what it compiles
    machine: &'static str,
    /// why it interprets them, where the processor could run them
    pub interprets: Option<String>,
}

static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    let is_native = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    match CodeMemory::new() {
        Ok(memory) if is_native => Runtime::native(memory),
        Ok(_) => Runtime::interpreted(None),
        Err(error) => Runtime::interpreted(Some(error.to_string())),
    }
});

impl Runtime {
    /// That of this process.
    ///
    /// # Errors
    /// When this machine cannot run plugins at all.
    pub(super) fn get() -> Result<&'static Self, String> {
        RUNTIME.as_ref().map_err(|error| format!("this machine cannot run plugins: {error}"))
    }

    fn native(memory: CodeMemory) -> Result<Self, String> {
        let mut config = config();
        config.with_custom_code_memory(Some(Arc::new(memory)));
        let engine = Engine::new(&config).map_err(|error| format!("{error:#}"))?;
        Ok(Self {
            engine,
            machine: if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" },
            interprets: None,
        })
    }

    fn interpreted(why: Option<String>) -> Result<Self, String> {
        let machine = if cfg!(target_pointer_width = "64") { "pulley64" } else { "pulley32" };
        let mut config = config();
        config.target(machine).map_err(|error| format!("{error:#}"))?;
        let engine = Engine::new(&config).map_err(|error| format!("{error:#}"))?;
        Ok(Self { engine, machine, interprets: why })
    }

    /// Makes code of the component `bytes`, or takes it from those who keep it.
    ///
    /// # Errors
    /// When it is no component.
    pub(super) fn load(
        &self,
        bytes: &[u8],
        kept: Option<&Arc<dyn CompiledPlugins>>,
    ) -> Result<Component, String> {
        let key = format!("{}-{}-{SETTINGS}", sha256(bytes), self.machine);
        let sealed = kept.and_then(|kept| kept.get(&key));
        // What another version has compiled is compiled again, and takes the same place.
        if let Some(Ok(Some(component))) = sealed.map(|sealed| code_memory::load(&self.engine, &key, &sealed))
        {
            return Ok(component);
        }
        let sealed = code_memory::seal(&key, &self.compile(bytes, &key)?);
        let component = code_memory::load(&self.engine, &key, &sealed);
        if let Some(kept) = kept {
            kept.put(&key, &sealed);
        }
        component
            .map_err(|error| format!("its code cannot be loaded: {error:#}"))?
            .ok_or_else(|| "its code was damaged on the way".to_owned())
    }

    #[cfg(feature = "wasm-compile")]
    fn compile(&self, bytes: &[u8], _key: &str) -> Result<Vec<u8>, String> {
        self.engine
            .precompile_component(bytes)
            .map_err(|error| format!("it is no valid component: {error:#}"))
    }

    #[cfg(not(feature = "wasm-compile"))]
    #[allow(clippy::unused_self)] // it is used where plugins are compiled
    fn compile(&self, _bytes: &[u8], key: &str) -> Result<Vec<u8>, String> {
        Err(format!(
            "this tidegate cannot compile plugins, and there is no compiled `{key}` of its version: compile it \
            on a machine of the same kind with a tidegate that can, and bring that file along"
        ))
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.consume_fuel(true);
    config.epoch_interruption(true);
    // A rule is a function of its rows, on every machine.
    config.wasm_relaxed_simd(false);
    #[cfg(feature = "wasm-compile")]
    config.cranelift_nan_canonicalization(true);
    config
}

/// Says what people mistake for a component.
///
/// # Errors
/// When `bytes` are none.
pub(super) fn check_header(bytes: &[u8]) -> Result<(), String> {
    const MAGIC: &[u8] = b"\0asm";
    match bytes.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<4>()) {
        Some([0x0d, 0, 1, 0]) if is_whole(bytes) => Ok(()),
        Some([0x0d, 0, 1, 0]) => {
            Err("its end is missing: it was not copied or built to the end; copy it again".to_owned())
        }
        Some([1, 0, 0, 0]) => {
            Err("it is a module and not a component: build it with `tidegate plugin build`, \
            or link it with wasm-component-ld"
                .to_owned())
        }
        Some(_) => Err("it is a component of another version of the component model".to_owned()),
        None if bytes.is_empty() => Err("the file is empty; copy it again".to_owned()),
        None => Err("it is no WebAssembly".to_owned()),
    }
}

#[cfg(all(test, feature = "wasm-compile"))]
pub(super) fn interpreted() -> Runtime {
    #![allow(clippy::unwrap_used)]
    Runtime::interpreted(None).unwrap()
}
