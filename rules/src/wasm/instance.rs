//! A plugin that runs: an instance of a component, and what comes of a call.

use std::sync::{Arc, Mutex};

use wasmtime::component::{Component, Func, InstancePre, TypedFunc};
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::columns::{ColumnIn, Table};
use super::host::{self, Call, Host, INTERFACE, MOST_BYTES, Refused, Room};
use super::kept::Kept;
use super::manifest::Limits;
use super::runtime::Runtime;
use super::targets::Targets;
use crate::fence::Fence;
use crate::rule::LogLevel;

/// Functions of a plugin that are named when it trapped.
const MOST_FRAMES: usize = 5;

/// Everything that a plugin is started from.
pub(super) struct Plugin {
    engine: &'static Engine,
    component: InstancePre<Host>,
    pub inputs: Vec<Table>,
    pub targets: Arc<Targets>,
    /// a JSON object
    pub config: String,
    pub limits: Limits,
    pub max_state: usize,
    pub fence: Arc<Fence>,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It would fail again, wherever it is called so.
    Again(String),
    /// The same, since it needs more than this key of `limits` allows.
    Limit(&'static str, String),
    /// It need not: the fence, a stack that was full, memory that the machine does not have.
    Once(String),
}

impl Failure {
    /// For people.
    pub(super) fn why(self) -> String {
        match self {
            Self::Again(why) | Self::Limit(_, why) | Self::Once(why) => why,
        }
    }
}

type Answer = Result<(), String>;
type Init<'a> = (&'a str, &'a [Table], &'a [Table]);
type OnBatch<'a> = (u32, u32, &'a [ColumnIn<'a>]);

/// Finds out whether `component` is a plugin, and makes it ready to be started.
///
/// # Errors
/// When it was built for another world: what it asks for, or lacks.
pub(super) fn prepare(runtime: &'static Runtime, component: &Component) -> Result<InstancePre<Host>, String> {
    let engine = &runtime.engine;
    let (package, _) = INTERFACE.split_once('/').unwrap_or((INTERFACE, ""));
    let (_, version) = INTERFACE.split_once('@').unwrap_or(("", INTERFACE));
    for (import, _) in component.component_type().imports(engine) {
        let ours = import.strip_prefix(package).and_then(|rest| rest.split_once('@'));
        match ours {
            Some((_, found)) if major(found) == major(version) => {}
            Some((_, found)) => {
                return Err(format!(
                    "it was built for version {found} of {package}, and this tidegate has {version}: build it \
                    with the SDK of this tidegate"
                ));
            }
            None if import.starts_with("wasi:") => {
                return Err(format!(
                    "it asks for `{import}`, and plugins get no clock, files, network or randomness: build it \
                    for wasm32-unknown-unknown, or with the option that leaves WASI out"
                ));
            }
            None => return Err(format!("it asks for `{import}`, and plugins get `{INTERFACE}` only")),
        }
    }
    for export in ["config-schema", "configure", "on-batch", "on-timer"] {
        if component.get_export_index(None, export).is_none() {
            return Err(format!(
                "it has no function `{export}`: it was built for another world than {package}"
            ));
        }
    }
    let linker = host::linker(engine).map_err(|error| format!("{error:#}"))?;
    linker
        .instantiate_pre(component)
        .map_err(|error| format!("it was built for another {package}: {error:#}"))
}

fn major(version: &str) -> &str {
    version.split_once('.').map_or(version, |(major, _)| major)
}

impl Plugin {
    pub(super) fn new(
        runtime: &'static Runtime,
        component: InstancePre<Host>,
        (inputs, targets): (Vec<Table>, Targets),
        (config, limits, max_state): (String, Limits, usize),
    ) -> Self {
        let engine = &runtime.engine;
        let fence = Arc::new(Fence::waking(|| engine.increment_epoch()));
        Self { engine, component, inputs, targets: Arc::new(targets), config, limits, max_state, fence }
    }

    /// A store for one instance.
    fn store(&self, kept: &Arc<Mutex<Kept>>) -> Store<Host> {
        let host = Host {
            kept: Arc::clone(kept),
            targets: Arc::clone(&self.targets),
            max_state: self.max_state,
            call: Call::default(),
            room: Room::new(&self.limits),
        };
        let mut store = Store::new(self.engine, host);
        store.limiter(|host| &mut host.room);
        store.set_hostcall_fuel(MOST_BYTES);
        let fence = Arc::clone(&self.fence);
        store.epoch_deadline_callback(move |_| {
            // Another rule's fence has the same epoch.
            Ok(if fence.is_raised() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        store
    }

    /// Starts an instance, and has it look at its configuration.
    ///
    /// # Errors
    /// When it cannot start, or refuses the configuration.
    pub(super) fn start(&self, kept: &Arc<Mutex<Kept>>) -> Result<Instance, Failure> {
        let mut store = self.store(kept);
        self.allow(&mut store)?;
        let started = self.component.instantiate(&mut store).and_then(|instance| {
            let init = instance.get_typed_func::<Init<'_>, (Answer,)>(&mut store, "configure")?;
            let on_batch = instance
                .get_func(&mut store, "on-batch")
                .ok_or_else(|| wasmtime::Error::msg("it has no function `on-batch`"))?;
            on_batch.typed::<OnBatch<'_>, (Answer,)>(&store)?;
            let on_timer = instance.get_typed_func(&mut store, "on-timer")?;
            instance.get_typed_func::<(), (String,)>(&mut store, "config-schema")?;
            Ok((init, on_batch, on_timer))
        });
        let (init, on_batch, on_timer) = match started {
            Ok(started) => started,
            Err(error) => {
                let refused = store.data().room.refused.clone();
                let said = format!("{error:#}");
                return Err(match refused {
                    Some((limit, why)) => Failure::Limit(limit, why),
                    None if error.is::<Trap>() => self.failure(&store, &error),
                    // wasmtime has no type for it.
                    None if said.contains("count too high") => {
                        let most = self.limits.instances;
                        Failure::Limit(
                            "instances",
                            format!("it has more than {most} modules (`limits.instances`)"),
                        )
                    }
                    None => Failure::Once(format!("it cannot start: {said}")),
                });
            }
        };
        self.allow(&mut store)?;
        let answer = init.call(&mut store, (&self.config, &self.inputs, &self.targets.tables()));
        let mut instance = Instance { store, on_batch, on_timer };
        self.outcome(&mut instance, answer)?;
        Ok(instance)
    }

    /// Gives the next call what a call may take.
    fn allow(&self, store: &mut Store<Host>) -> Result<(), Failure> {
        store.set_epoch_deadline(1);
        store.data_mut().room.refused = None;
        if self.fence.is_raised() {
            return Err(stopped());
        }
        store.set_fuel(self.limits.fuel).map_err(|error| Failure::Once(format!("{error:#}")))
    }

    /// Hands some rows to it.
    ///
    /// # Errors
    /// When it fails: then nothing has changed, and the instance must not be called again.
    pub(super) fn on_batch(
        &self,
        instance: &mut Instance,
        input: u32,
        columns: &[ColumnIn<'_>],
        call: Call,
    ) -> Result<Call, Failure> {
        self.allow(&mut instance.store)?;
        let rows = call.rows;
        instance.store.data_mut().call = call;
        let answer = instance
            .on_batch
            .typed::<OnBatch<'_>, (Answer,)>(&instance.store)
            .and_then(|on_batch| on_batch.call(&mut instance.store, (input, rows, columns)));
        self.outcome(instance, answer)
    }

    /// Tells it that the time of a timer has come.
    ///
    /// # Errors
    /// As [`Plugin::on_batch`].
    pub(super) fn on_timer(&self, instance: &mut Instance, tag: &str, call: Call) -> Result<Call, Failure> {
        self.allow(&mut instance.store)?;
        instance.store.data_mut().call = call;
        let answer = instance.on_timer.call(&mut instance.store, (tag.to_owned(),));
        self.outcome(instance, answer)
    }

    /// What it has done in a call, if that went well.
    fn outcome(&self, instance: &mut Instance, answer: wasmtime::Result<(Answer,)>) -> Result<Call, Failure> {
        match answer {
            Ok((Ok(()),)) => Ok(std::mem::take(&mut instance.store.data_mut().call)),
            Ok((Err(why),)) => Err(Failure::Again(shortened(&why))),
            Err(error) => Err(self.failure(&instance.store, &error)),
        }
    }

    /// Why a call was ended, for people.
    fn failure(&self, store: &Store<Host>, error: &wasmtime::Error) -> Failure {
        let host = store.data();
        let place = place(error);
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => stopped(),
            Some(Trap::StackOverflow) => {
                Failure::Once(format!("its stack was full{place}: does it call itself?"))
            }
            Some(Trap::OutOfFuel) => {
                let fuel = self.limits.fuel;
                Failure::Limit("fuel", format!("it took more than {fuel} steps (`limits.fuel`){place}"))
            }
            Some(Trap::UnreachableCodeReached) => {
                let words = host.call.log.iter().rfind(|line| line.level == LogLevel::Error);
                match (&host.room.refused, words) {
                    (Some((limit, why)), _) => Failure::Limit(limit, format!("{why}{place}")),
                    // Rust's panics have two lines: the place, and the words.
                    (None, Some(words)) => Failure::Again(shortened(&words.text.replace('\n', " "))),
                    (None, None) => Failure::Again(format!("it gave up without a word{place}")),
                }
            }
            Some(trap) => {
                let trap = trap.to_string();
                Failure::Again(format!("{}{place}", trap.strip_prefix("wasm trap: ").unwrap_or(&trap)))
            }
            None => match error.downcast_ref::<Refused>() {
                Some(refused) => Failure::Again(refused.to_string()),
                None => Failure::Again(format!("{}{place}", error.root_cause())),
            },
        }
    }
}

/// An instance of a plugin.
pub(super) struct Instance {
    store: Store<Host>,
    on_batch: Func,
    on_timer: TypedFunc<(String,), (Answer,)>,
}

fn stopped() -> Failure {
    Failure::Once("it was stopped, since a call took too long".to_owned())
}

/// Where in the plugin it was, as far as that is known.
fn place(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let names: Vec<&str> =
        trace.frames().iter().filter_map(|frame| frame.func_name()).take(MOST_FRAMES).collect();
    if names.is_empty() { String::new() } else { format!(" in {}", shortened(&names.join(", called by "))) }
}

/// At most a line of text.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 500;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// The JSON Schema of the configuration of `component`; an empty text: it has none.
///
/// # Errors
/// When it fails.
pub(super) fn config_schema(plugin: &Plugin) -> Result<String, String> {
    let mut store = plugin.store(&Arc::default());
    plugin.allow(&mut store).map_err(Failure::why)?;
    let schema = plugin.component.instantiate(&mut store).and_then(|instance| {
        instance.get_typed_func::<(), (String,)>(&mut store, "config-schema")?.call(&mut store, ())
    });
    schema.map(|(schema,)| schema).map_err(|error| plugin.failure(&store, &error).why())
}
