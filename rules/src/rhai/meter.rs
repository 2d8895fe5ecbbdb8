//! What functions cost that go through all of a text, list or map.
//!
//! Rhai counts a call as one operation, whatever it is handed: a script that sorts a list of thousands again
//! and again would be within its limits for minutes. So the functions of its packages that are handed something
//! of which there can be much stand in [`METERED`] once more. There they cost by the size of that, and hand the
//! call on to an engine that has them as they are.

use std::any::TypeId;
use std::sync::{Arc, LazyLock};

use rhai::{
    Array, Blob, Dynamic, Engine, EvalAltResult, FnPtr, FuncRegistration, ImmutableString, Map, Module,
    NativeCallContext, RhaiFunc, Shared,
};

use super::engine::{Brake, PACKAGES, STRING_SIZE, limit};

/// So many bytes of a text take about as long as one element of a list.
const BYTES: usize = 16;

/// Functions that look at an element, however many there are.
const OF_ONE_ELEMENT: [&str; 10] =
    ["clear", "get", "insert", "is_empty", "len", "pop", "push", "remove", "set", "truncate"];
/// Functions that compare each element, or write it out.
const THOROUGH: [&str; 10] =
    ["!=", "==", "contains", "debug", "dedup", "index_of", "print", "to_debug", "to_json", "to_string"];
/// Functions that compare each element with some of the others: 2^16 are more than there can be.
const SORTING: [&str; 4] = ["order", "order_desc", "sort", "sort_desc"];

/// The functions, for engines to have in the place of those of [`PACKAGES`].
pub(super) static METERED: LazyLock<Shared<Module>> = LazyLock::new(|| metered().into());

/// Has the functions as they come with Rhai.
static PLAIN: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = Engine::new_raw();
    limit(&mut engine);
    for package in &*PACKAGES {
        engine.register_global_module(Arc::clone(package));
    }
    engine
});

fn metered() -> Module {
    let sized =
        [TypeId::of::<ImmutableString>(), TypeId::of::<Array>(), TypeId::of::<Map>(), TypeId::of::<Blob>()];
    let signature =
        |info: rhai::FuncInfo<'_>| Some((info.metadata.name.to_string(), info.metadata.param_types.to_vec()));
    let mut module = Module::new();
    for (name, types) in PLAIN.collect_fn_metadata(None, signature, true) {
        // Scripts have no functions as values.
        let calls_back = types.contains(&TypeId::of::<FnPtr>());
        let is_getter = name.contains('$');
        if calls_back
            || is_getter
            || OF_ONE_ELEMENT.contains(&name.as_str())
            || !types.iter().any(|of| sized.contains(of))
        {
            continue;
        }
        let function: Shared<str> = name.as_str().into();
        let call = move |context: Option<NativeCallContext<'_>>, args: &mut [&mut Dynamic]| match context {
            Some(context) => pass_on(&function, &context, args),
            None => Err(format!("`{function}` is called by nobody").into()),
        };
        FuncRegistration::new(name).in_global_namespace().set_into_module_raw(
            &mut module,
            types,
            RhaiFunc::Method {
                func: Shared::new(call),
                has_context: true,
                // Whether it may change a constant, the function itself says.
                is_pure: true,
                is_volatile: true,
            },
        );
    }
    module
}

/// Calls `function` as it comes with Rhai, for its price.
fn pass_on(
    function: &str,
    context: &NativeCallContext<'_>,
    args: &mut [&mut Dynamic],
) -> Result<Dynamic, Box<EvalAltResult>> {
    let times = match function {
        _ if SORTING.contains(&function) => 16,
        _ if THOROUGH.contains(&function) => 4,
        _ => 1,
    };
    let before = args.first().map_or(0, |first| size(first));
    charge(context, times * args.iter().map(|arg| size(arg)).sum::<usize>())?;
    if function == "replace" && replaced(args).is_some_and(|bytes| bytes > STRING_SIZE) {
        let what = "Length of string".to_owned();
        return Err(EvalAltResult::ErrorDataTooLarge(what, context.call_position()).into());
    }
    let (global, at) = (context.global_runtime_state(), context.call_position());
    // To show what these give is the engine's part, and not that of the other one.
    let called = match function {
        "print" => "to_string",
        "debug" => "to_debug",
        other => other,
    };
    let plain: NativeCallContext<'_> = (&*PLAIN, called, None, global, at).into();
    let result = plain.call_native_fn_raw(called, true, args)?;
    let grown = args.first().map_or(0, |first| size(first)).saturating_sub(before);
    charge(context, grown + size(&result))?;
    Ok(result)
}

/// How long the text will be in which one is replaced by another: Rhai looks at that when it is there, which
/// may take all of the memory.
fn replaced(args: &[&mut Dynamic]) -> Option<usize> {
    let [text, old, new, ..] = args else { return None };
    let text = text.as_immutable_string_ref().ok()?;
    let word = |value: &Dynamic| match value.as_char() {
        Ok(char) => Some(ImmutableString::from(char.to_string())),
        Err(_) => value.as_immutable_string_ref().ok().map(|text| text.clone()),
    };
    let (old, new) = (word(old)?, word(new)?);
    let count = text.matches(old.as_str()).count();
    Some(text.len() - count * old.len() + count * new.len())
}

/// Has the script pay for so many operations.
///
/// # Errors
/// When it has done too many.
pub(super) fn charge(context: &NativeCallContext<'_>, operations: usize) -> Result<(), Box<EvalAltResult>> {
    let brake = context.tag().and_then(|tag| tag.read_lock::<Brake>());
    match brake.and_then(|brake| brake.charge(operations as u64)) {
        Some(token) => Err(EvalAltResult::ErrorTerminated(token, context.call_position()).into()),
        None => Ok(()),
    }
}

/// How much there is of `value`, in elements of lists.
pub(super) fn size(value: &Dynamic) -> usize {
    if let Ok(text) = value.as_immutable_string_ref() {
        text.len() / BYTES
    } else if let Ok(array) = value.as_array_ref() {
        array.iter().map(|value| 1 + size(value)).sum()
    } else if let Ok(map) = value.as_map_ref() {
        size_of_map(&map)
    } else if let Ok(blob) = value.as_blob_ref() {
        blob.len() / BYTES
    } else {
        0
    }
}

/// The same of a map.
pub(super) fn size_of_map(map: &Map) -> usize {
    map.iter().map(|(name, value)| 1 + name.len() / BYTES + size(value)).sum()
}
