//! Functions that are called, and with what.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Dynamic, Expr, Position};
use tidegate_core::diagnostic::did_you_mean;

use super::{CallNode, Found, Function, literal};
use crate::rhai::library::{REMEMBERING, refusal};
use crate::rhai::script::Script;

/// Functions that Rhai has built in.
const BUILT_IN: [(&str, usize); 1] = [("type_of", 1)];

pub(super) fn check(script: &Script, syntax: &AST, functions: &[Function], found: &mut Found<'_>) {
    let known = known(script, syntax);
    let names: Vec<&str> = known.keys().map(String::as_str).filter(|name| is_word(name)).collect();
    let mut remembered: BTreeMap<(String, String), usize> = BTreeMap::new();
    for function in functions {
        function.each(|path| {
            values(path.last(), syntax, found);
            let Some(call) = path.last().and_then(CallNode::new) else { return };
            match known.get(call.name) {
                None => {
                    let help = did_you_mean(call.name, &names)
                        .filter(|help| help.starts_with("did"))
                        .unwrap_or_else(|| "docs/rhai.md lists the functions".to_owned());
                    found.wrong(call.at, format!("there is no function `{}`", call.name), help);
                }
                // What stands before the dot is `this` in functions of the script's own.
                Some(_) if call.is_method && is_own(syntax, call.name, call.arguments.len()) => {}
                Some(counts) if !counts.contains(&call.count()) => {
                    let counts = counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                    let what =
                        format!("`{}` takes {counts} values, and is given {}", call.name, call.count());
                    found.wrong(call.at, what, None);
                }
                Some(_) => {
                    timers(script, &call, found);
                    refused(script, function, &call, found);
                    remembering(function, &call, &mut remembered, found);
                }
            }
        });
    }
}

/// What a function has captured is in no limit's count, so functions are only called.
fn values(node: Option<&ASTNode<'_>>, syntax: &AST, found: &mut Found<'_>) {
    let Some(ASTNode::Expr(Expr::Variable(variable, None, at))) = node else { return };
    let name = &variable.1;
    if variable.0.is_none() && syntax.iter_fn_def().any(|function| function.name == *name) {
        let what = format!("the function `{name}` is no value");
        found.wrong(*at, what, format!("call it: `{name}(..)`"));
    }
}

fn is_own(syntax: &AST, name: &str, parameters: usize) -> bool {
    syntax.iter_fn_def().any(|function| function.name == name && function.params.len() == parameters)
}

fn is_word(name: &str) -> bool {
    name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// All functions, with how many values each takes.
fn known(script: &Script, syntax: &AST) -> BTreeMap<String, BTreeSet<usize>> {
    let mut known: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let of_engine = script.engine.collect_fn_metadata(
        None,
        |info| Some((info.metadata.name.to_string(), info.metadata.num_params)),
        true,
    );
    let own = syntax.iter_fn_def().map(|function| (function.name.to_string(), function.params.len()));
    let built_in = BUILT_IN.iter().map(|(name, count)| ((*name).to_owned(), *count));
    for (name, count) in of_engine.into_iter().chain(own).chain(built_in) {
        known.entry(name).or_default().insert(count);
    }
    known
}

/// What is set must be heard of.
fn timers(script: &Script, call: &CallNode<'_>, found: &mut Found<'_>) {
    if call.name == "after" && script.handlers.on_timer.is_none() {
        let help = "write `fn on_timer(tag, state) { .. }`".to_owned();
        found.wrong(call.at, "nothing is called when this timer is due".to_owned(), help);
    }
}

/// Values that are known, and that the function would refuse in every call.
fn refused(script: &Script, function: &Function, call: &CallNode<'_>, found: &mut Found<'_>) {
    let before_the_dot = call.is_method.then_some(None);
    let arguments = call.arguments.iter().map(|argument| function.known_value(script, argument));
    let given: Vec<Option<Dynamic>> = before_the_dot.into_iter().chain(arguments).collect();
    if let Some((at, what)) = refusal(call.name, &given) {
        let argument = call.arguments.get(at.saturating_sub(usize::from(call.is_method)));
        let place = argument.map_or(call.at, |argument| entry_place(argument, &what));
        found.wrong(place, what, None);
    }
}

/// Where the entry of a map stands of which is said `what`; otherwise where the value stands.
fn entry_place(argument: &Expr, what: &str) -> Position {
    let Expr::Map(parts, _) = argument else { return argument.position() };
    let named = |word: &str| parts.0.iter().find(|(name, _)| name.as_str() == word);
    what.split('`').find_map(named).map_or(argument.position(), |(name, _)| name.pos)
}

/// A function that remembers something is given the state, and a name of its own.
fn remembering(
    function: &Function,
    call: &CallNode<'_>,
    remembered: &mut BTreeMap<(String, String), usize>,
    found: &mut Found<'_>,
) {
    if call.is_method || !REMEMBERING.contains(&call.name) {
        return;
    }
    let Some(first) = call.arguments.first() else { return };
    let (is_state, state) = match &function.state {
        Some(state) => (function.is_state(first), state.as_str()),
        // A function of the script's own sees the state when it is called as `state.name(..)`.
        None => (matches!(first, Expr::ThisPtr(_)), "this"),
    };
    if !is_state {
        let what = format!("what `{}` remembers would be forgotten at once", call.name);
        let but = if state == "this" { ", and call this function as `state.name(..)`" } else { "" };
        let help = format!("give it the state itself: `{}({state}, ..)`{but}", call.name);
        found.wrong(first.position(), what, help);
    }
    let Some(name) = call.arguments.get(1).and_then(|name| literal(name)) else { return };
    let line = call.at.line().unwrap_or(0);
    let key = (call.name.to_owned(), name.to_owned());
    if let Some(other) = remembered.insert(key, line).filter(|other| *other != line) {
        let what =
            format!("`{}` has the name \"{name}\" in line {other}, too: both remember the same", call.name);
        found.warn(call.at, what, "give each its own name".to_owned());
    }
}
