//! An engine of Rhai that has what rules may use, and nothing else.

use std::any::TypeId;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicBlobPackage, BasicMapPackage, BasicStringPackage,
    MoreStringPackage, Package,
};
use rhai::{Array, Blob, Dynamic, Engine, ImmutableString, Module, OptimizationLevel, Shared};

use super::call::Calls;
use super::error::Stop;
use super::row::{Row, Rows};
use super::{compare, library, meter};
use crate::Fence;

/// How many operations of a script one row is worth. A threshold takes ten, so this is a loop that does not
/// end, or would stop control for longer than anybody wants.
pub(super) const OPERATIONS: u64 = 100_000;
/// How deep functions may call each other.
pub(super) const CALL_LEVELS: usize = 32;
/// How deep expressions and blocks may be within each other.
pub(super) const EXPRESSION_DEPTH: usize = 64;
/// How many variables there may be at a time.
const VARIABLES: usize = 1_000;
const FUNCTIONS: usize = 500;
/// How many bytes a text may have, and those in a map or list together.
pub(super) const STRING_SIZE: usize = 1 << 16;
/// How many elements a list may have, those of lists in it counted as well.
pub(super) const ARRAY_SIZE: usize = 5_000;
/// How many entries a map may have, those of maps in it counted as well: the state of a thousand devices. It
/// is also how deep one can be, and what Rhai does to one takes time with the square of that.
pub(super) const MAP_SIZE: usize = 5_000;

/// What a script that takes too long is stopped by.
#[derive(Debug, Default, Clone)]
pub(super) struct Brake {
    pub fence: Arc<Fence>,
    call: Arc<Operations>,
}

/// Operations of the call at hand. Rhai's own count begins anew where a function calls another one back.
#[derive(Debug, Default)]
struct Operations {
    done: AtomicU64,
    most: AtomicU64,
}

impl Brake {
    /// The next call is for so many rows.
    pub(super) fn release(&self, rows: usize) {
        self.call.done.store(0, Ordering::Relaxed);
        self.call.most.store(OPERATIONS.saturating_mul(rows as u64), Ordering::Relaxed);
    }

    /// The script has done so many operations more. Returns what stops it, if something does.
    pub(super) fn charge(&self, operations: u64) -> Option<Dynamic> {
        // One thread runs a script: nobody else counts.
        let done = self.call.done.load(Ordering::Relaxed).saturating_add(operations);
        self.call.done.store(done, Ordering::Relaxed);
        let why = if done > self.call.most.load(Ordering::Relaxed) {
            Stop::Operations
        } else if self.fence.is_raised() {
            Stop::Fence
        } else {
            return None;
        };
        Some(Dynamic::from_int(why.token()))
    }
}

/// A column that rows have: its name, and where it is in each of the rule's streams.
pub(super) type ColumnPlaces = (String, Vec<Option<usize>>);

/// What comes with Rhai: of its packages those that only compute. Time, threads, files, modules, functions as
/// values, and mathematics that differ between machines, are in others.
pub(super) static PACKAGES: LazyLock<[Shared<Module>; 6]> = LazyLock::new(|| {
    [
        ArithmeticPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicBlobPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        BasicStringPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
    ]
});

/// An engine for one script.
///
/// # Errors
/// When Rhai has changed.
pub(super) fn build(columns: &[ColumnPlaces], calls: &Calls, brake: &Brake) -> Result<Engine, String> {
    let mut engine = Engine::new_raw();
    limit(&mut engine);
    for package in &*PACKAGES {
        engine.register_global_module(Arc::clone(package));
    }
    // What is registered later is found first.
    engine.register_global_module(Arc::clone(&meter::METERED));
    compare::register(&mut engine)?;
    iterate(&mut engine, calls, brake);
    library::register(&mut engine, calls);
    rows(&mut engine, columns);
    // Functions find it there.
    engine.set_default_tag(Dynamic::from(brake.clone()).into_shared());
    let brake = brake.clone();
    engine.on_progress(move |_| brake.charge(1));
    Ok(engine)
}

/// Every limit is set here: Rhai's own differ between its builds.
pub(super) fn limit(engine: &mut Engine) {
    engine
        .set_max_operations(0)
        .set_max_call_levels(CALL_LEVELS)
        .set_max_expr_depths(EXPRESSION_DEPTH, EXPRESSION_DEPTH)
        .set_max_variables(VARIABLES)
        .set_max_functions(FUNCTIONS)
        .set_max_string_size(STRING_SIZE)
        .set_max_array_size(ARRAY_SIZE)
        .set_max_map_size(MAP_SIZE)
        .set_optimization_level(OptimizationLevel::Simple)
        .set_strict_variables(true)
        .set_fast_operators(true)
        .set_allow_looping(true)
        .set_allow_shadowing(true)
        // What a function has captured is in no limit's count.
        .set_allow_anonymous_fn(false);
    // Bits of a power are not the same on all machines: there is `pow`.
    for symbol in ["eval", "Fn", "call", "curry", "is_shared", "is_def_fn", "is_def_var", "**", "**="] {
        engine.disable_symbol(symbol);
    }
}

fn iterate(engine: &mut Engine, calls: &Calls, brake: &Brake) {
    let mut module = Module::new();
    module.set_iterator::<Range<i64>>();
    module.set_iterator::<RangeInclusive<i64>>();
    // What is gone through has been copied.
    let meter = brake.clone();
    module.set_iter(TypeId::of::<Array>(), move |array| {
        meter.charge(meter::size(&array) as u64);
        Box::new(array.cast::<Array>().into_iter())
    });
    let meter = brake.clone();
    module.set_iter(TypeId::of::<Blob>(), move |blob| {
        meter.charge(meter::size(&blob) as u64);
        Box::new(blob.cast::<Blob>().into_iter().map(|byte| Dynamic::from_int(i64::from(byte))))
    });
    let meter = brake.clone();
    module.set_iter(TypeId::of::<ImmutableString>(), move |text| {
        meter.charge(meter::size(&text) as u64);
        let chars: Vec<char> = text.cast::<ImmutableString>().chars().collect();
        Box::new(chars.into_iter().map(Dynamic::from_char))
    });
    let calls = calls.clone();
    module.set_iter(TypeId::of::<Rows>(), move |rows| {
        let Rows { view } = rows.cast::<Rows>();
        let calls = calls.clone();
        Box::new((0..view.len()).map(move |at| {
            // What is written from now on belongs to this row.
            calls.lock().at(view.seq(at), view.ts(at));
            Dynamic::from(Row::new(&view, at))
        }))
    });
    engine.register_global_module(module.into());
}

fn rows(engine: &mut Engine, columns: &[ColumnPlaces]) {
    engine.register_type_with_name::<Row>("row").register_type_with_name::<Rows>("rows");
    for (name, places) in columns {
        let (places, column): (Arc<[_]>, Arc<str>) = (places.as_slice().into(), name.as_str().into());
        engine.register_get(name, move |row: &mut Row| row.column(&column, &places));
    }
    engine.register_indexer_get(|row: &mut Row, name: &str| row.named(name));
    engine.register_fn("to_map", |row: &mut Row| row.to_map());
    engine.register_get("len", |rows: &mut Rows| rows.view.len() as i64);
    engine.register_fn("len", |rows: &mut Rows| rows.view.len() as i64);
    engine.register_fn("is_empty", |rows: &mut Rows| rows.view.len() == 0);
    engine.register_indexer_get(|rows: &mut Rows, at: i64| rows.get(at));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;
    use crate::Catalog;
    use crate::rhai::write::Outlets;

    /// All functions that a script can call, by their names.
    fn functions() -> BTreeSet<String> {
        let calls = Calls::new(Outlets::new(&[], &Catalog::default()));
        let engine = build(&[], &calls, &Brake::default()).unwrap();
        let name = |info: rhai::FuncInfo<'_>| Some(info.metadata.name.to_string());
        engine.collect_fn_metadata(None, name, true).into_iter().collect()
    }

    /// What is new in Rhai is looked at before rules have it.
    #[test]
    fn scripts_have_the_functions_of_a_list_and_no_others() {
        let found = functions().into_iter().collect::<Vec<_>>().join("\n");
        assert_eq!(found, include_str!("functions.txt").trim_end());
    }

    /// A guide that lacks a function hides it.
    #[test]
    fn the_guide_has_all_functions_of_rules() {
        let guide = include_str!("../../../docs/rhai.md");
        let own = crate::rhai::library::names();
        let missing: Vec<_> = own
            .iter()
            .filter(|name| !guide.contains(&format!("`{name}")) && !guide.contains(&format!(".{name}(")))
            .collect();
        assert!(own.len() > 80 && missing.is_empty(), "{missing:?}");
    }
}
