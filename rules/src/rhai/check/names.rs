//! Columns of rows, names of streams, entries of the state.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Expr, Position, Stmt};
use tidegate_core::diagnostic::{did_you_mean, nearest};

use super::{CallNode, Found, Function, first_name};
use crate::rhai::library::REMEMBERING;
use crate::rhai::run::Input;
use crate::rhai::script::is_variable;

pub(super) fn check(functions: &[Function], inputs: &[Input], found: &mut Found<'_>) {
    let mut entries = Entries::default();
    for function in functions {
        function.each(|path| {
            let Some(node) = path.last() else { return };
            columns(function, node, inputs, found);
            streams(function, node, inputs, found);
            assignments(function, node, found);
            entries.look(function, path);
        });
    }
    entries.check(found);
}

/// `row.column` and `row["column"]`.
fn columns(function: &Function, node: &ASTNode<'_>, inputs: &[Input], found: &mut Found<'_>) {
    let ASTNode::Expr(Expr::Dot(parts, ..) | Expr::Index(parts, ..)) = node else { return };
    if !function.is_row(&parts.lhs) {
        return;
    }
    let Some((name, at)) = first_name(&parts.rhs) else { return };
    let has = |input: &&Input| input.schema.index_of(name).is_ok();
    if let Some(with) = inputs.iter().find(has) {
        if let Some(without) = inputs.iter().find(|input| !has(input))
            && !function.asks_for_stream
        {
            let what = format!("`{}` has no column `{name}`, and its rows would be left out", without.name);
            let help =
                format!("ask first of which stream the row is: `if stream == \"{}\" {{ .. }}`", with.name);
            found.warn(at, what, help);
        }
        return;
    }
    let of_all =
        inputs.iter().flat_map(|input| input.schema.fields().iter().map(|field| field.name().as_str()));
    let known: Vec<&str> = of_all.collect::<BTreeSet<_>>().into_iter().collect();
    let streams = inputs.iter().map(|input| format!("`{}`", input.name)).collect::<Vec<_>>().join(" and ");
    let have = if inputs.len() == 1 { "has" } else { "have" };
    found.wrong(at, format!("{streams} {have} no column `{name}`"), did_you_mean(name, &known));
}

/// `stream == "name"`.
fn streams(function: &Function, node: &ASTNode<'_>, inputs: &[Input], found: &mut Found<'_>) {
    let Some(stream) = &function.stream else { return };
    let ASTNode::Expr(Expr::FnCall(call, _)) = node else { return };
    let ([a, b], "==" | "!=") = (call.args.as_slice(), call.name.as_str()) else { return };
    let text = if is_variable(a, stream) { b } else { a };
    let is_compared = is_variable(a, stream) || is_variable(b, stream);
    let Expr::StringConstant(name, at) = text else { return };
    if is_compared && !inputs.iter().any(|input| *input.name == **name) {
        let known: Vec<&str> = inputs.iter().map(|input| &*input.name).collect();
        found.wrong(*at, format!("the script does not read `{name}`"), did_you_mean(name, &known));
    }
}

/// What is set that cannot be.
fn assignments(function: &Function, node: &ASTNode<'_>, found: &mut Found<'_>) {
    let ASTNode::Stmt(Stmt::Assignment(parts)) = node else { return };
    let to = &parts.1.lhs;
    if function.is_state(to) {
        let what = "the state cannot be replaced".to_owned();
        found.wrong(to.position(), what, "set its entries, or write `state.clear()`".to_owned());
    }
    if let Expr::Dot(parts, ..) | Expr::Index(parts, ..) = to
        && let Some(copy) = function.copies.iter().find(|name| is_variable(&parts.lhs, name))
    {
        let what = format!("`{copy}` is a copy, and what is set in it is lost");
        let help = "write `this` for the state in this function, and call it as `state.name(..)`".to_owned();
        found.wrong(to.position(), what, help);
    }
    if let Expr::Dot(parts, ..) | Expr::Index(parts, ..) = to
        && function.is_row(&parts.lhs)
    {
        let what = "a row cannot be changed".to_owned();
        found.wrong(to.position(), what, "keep the value in a variable".to_owned());
    }
}

/// Entries of the state, by their names.
#[derive(Default)]
struct Entries {
    set: BTreeSet<String>,
    read: BTreeMap<String, Position>,
    /// whether some are set by names that are computed, or in ways that are not looked at
    others: bool,
}

impl Entries {
    fn look(&mut self, function: &Function, path: &[ASTNode<'_>]) {
        let Some(node) = path.last() else { return };
        self.others |= matches!(node, ASTNode::Expr(Expr::ThisPtr(_)));
        if let ASTNode::Stmt(Stmt::Assignment(parts)) = node {
            self.assigned(function, &parts.1.lhs);
        }
        match node {
            ASTNode::Expr(Expr::Dot(parts, ..) | Expr::Index(parts, ..)) if function.is_state(&parts.lhs) => {
                match first_name(&parts.rhs) {
                    Some((name, at)) => drop(self.read.entry(name.to_owned()).or_insert(at)),
                    // `state.set(..)`, `state[name]`
                    None => self.others = true,
                }
            }
            // Given to a function, or to another variable.
            ASTNode::Expr(expr) if function.is_state(expr) => {
                let parent = path.len().checked_sub(2).and_then(|at| path.get(at));
                let is_remembering =
                    parent.and_then(CallNode::new).is_some_and(|call| REMEMBERING.contains(&call.name));
                let is_base = parent.is_some_and(|node| {
                    matches!(node, ASTNode::Expr(Expr::Dot(parts, ..) | Expr::Index(parts, ..))
                        if function.is_state(&parts.lhs))
                });
                self.others |= !is_remembering && !is_base;
            }
            _ => {}
        }
    }

    fn assigned(&mut self, function: &Function, to: &Expr) {
        if let Expr::Dot(parts, ..) | Expr::Index(parts, ..) = to
            && function.is_state(&parts.lhs)
        {
            match &parts.rhs {
                Expr::Property(property, _) => drop(self.set.insert(property.2.to_string())),
                Expr::StringConstant(name, _) => drop(self.set.insert(name.to_string())),
                _ => {}
            }
        }
    }

    fn check(&self, found: &mut Found<'_>) {
        if self.others {
            return;
        }
        for (name, at) in self.read.iter().filter(|(name, _)| !self.set.contains(*name)) {
            let help = nearest(name, self.set.iter().map(String::as_str))
                .map(|near| format!("did you mean `state.{near}`?"))
                .unwrap_or_else(|| {
                    "set it in `on_start(state)`, or say what it is until then: `?? 0`".to_owned()
                });
            found.warn(*at, format!("`state.{name}` is read, and nothing sets it"), help);
        }
    }
}
