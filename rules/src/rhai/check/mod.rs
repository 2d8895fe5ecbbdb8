//! What is wrong with a script, as far as that can be seen without running it.
//!
//! It is looked for in the syntax as it is written, function by function. What escapes is an error of the row
//! when it happens.
//!
//! * [`calls`]: functions that are called, and with how many values.
//! * [`conditions`]: what stands where a condition must.
//! * [`names`]: columns of rows, names of streams, entries of the state.
//! * [`writes`]: rows that are written literally.
//! * [`depth`]: whether the script needs room on the stack.

mod calls;
mod conditions;
mod depth;
mod names;
mod writes;

use std::collections::BTreeSet;

use rhai::{AST, ASTNode, Dynamic, Expr, Position, Stmt};
use tidegate_core::{Diagnostic, Place};

use super::call::Calls;
use super::error::place;
use super::options::RhaiOptions;
use super::run::Input;
use super::script::{self, Form, Script, is_variable};
use crate::options::{LanguageOptions, in_comment};

/// What is known of a script that is not wrong.
pub(super) struct Checked {
    /// whether it can nest lists or maps, or calls functions of its own
    pub is_deep: bool,
    pub warnings: Vec<Diagnostic>,
}

/// A function of the script, and what is known of its variables.
struct Function {
    syntax: AST,
    /// the variable that is the name of the stream
    stream: Option<String>,
    /// those that are rows of a stream
    rows: BTreeSet<String>,
    /// the variable that is the state
    state: Option<String>,
    /// the parameters of a function that the script calls itself: they are its own copies
    copies: Vec<String>,
    /// all that it names itself
    own: BTreeSet<String>,
    /// whether it does something that depends on the stream
    asks_for_stream: bool,
}

/// How option lines of rules in SQL begin.
const SQL_MARK: &str = "--!";

/// Options in the wrong place, or with the wrong mark.
pub(super) fn options(file: &str, text: &str) -> Vec<Diagnostic> {
    let (mut wrong, mut is_head) = (Vec::new(), true);
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        let column = u32::try_from(line.chars().count() - trimmed.chars().count() + 1).unwrap_or(1);
        let at = Place { line: number, column };
        if let Some(option) = trimmed.strip_prefix(SQL_MARK) {
            let help = format!("write `{}{option}`", RhaiOptions::MARK);
            wrong.push(Diagnostic::new(file, "this is how options of SQL begin").at(at).help(help));
        }
        let is_comment = trimmed.starts_with(RhaiOptions::COMMENT);
        is_head &= is_comment || trimmed.is_empty();
        if !is_comment || is_head && trimmed.starts_with(RhaiOptions::MARK) {
            continue;
        }
        let comment = trimmed.trim_start_matches('/');
        if let Some(option) = in_comment::<RhaiOptions>(comment) {
            let what = "this comment reads like an option, and is none";
            let help = format!("write `//! {option}` at the top of the file, or other words");
            wrong.push(Diagnostic::new(file, what).at(at).help(help));
        }
    }
    wrong
}

/// Checks `script`, whose syntax is `syntax`.
///
/// # Errors
/// All that is wrong.
pub(super) fn script(
    file: &str,
    script: &Script,
    syntax: &AST,
    inputs: &[Input],
    calls: &Calls,
) -> Result<Checked, Vec<Diagnostic>> {
    let functions: Vec<Function> = syntax
        .iter_fn_def()
        .map(|function| {
            let parameters = function.params.iter().map(ToString::to_string).collect();
            Function::new(script, syntax, function.name.as_str(), parameters)
        })
        .collect();
    let mut found = Found { file, wrong: Vec::new(), warnings: Vec::new() };
    calls::check(script, syntax, &functions, &mut found);
    names::check(&functions, inputs, &mut found);
    conditions::check(&functions, inputs, &mut found);
    writes::check(&functions, inputs, &mut calls.lock().outlets, &mut found);
    if script.handlers.on_batch.is_some() {
        let what = "what `on_batch` writes must not depend on where batches were cut: they are cut anew when \
            the box starts again";
        let help = "take `on_row`, unless it is for speed".to_owned();
        found.warnings.push(Diagnostic::new(file, what).help(help).warning());
    }
    if found.wrong.is_empty() {
        Ok(Checked { is_deep: depth::is_deep(syntax, &functions), warnings: found.warnings })
    } else {
        found.wrong.sort_by_key(|one| one.place);
        found.wrong.dedup();
        Err(found.wrong)
    }
}

/// What has been found.
struct Found<'a> {
    file: &'a str,
    wrong: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Found<'_> {
    fn wrong(&mut self, at: Position, what: String, help: impl Into<Option<String>>) {
        self.wrong.push(Diagnostic::new(self.file, what).at(place(at)).help(help));
    }

    fn warn(&mut self, at: Position, what: String, help: impl Into<Option<String>>) {
        self.warnings.push(Diagnostic::new(self.file, what).at(place(at)).help(help).warning());
    }
}

impl Function {
    fn new(script: &Script, syntax: &AST, name: &str, parameters: Vec<String>) -> Self {
        let syntax = script::function(syntax, name, parameters.len());
        let form = match name {
            "on_row" => script.handlers.on_row.as_ref(),
            "on_batch" => script.handlers.on_batch.as_ref(),
            _ => None,
        };
        let form = form.map(|handler| handler.form);
        let mut parameter = parameters.clone().into_iter();
        let stream = if form == Some(Form::Long) { parameter.next() } else { None };
        let of_stream = form.and_then(|_| parameter.next());
        let state = match name {
            "on_row" | "on_batch" | "on_start" | "on_timer" => parameters.last().cloned(),
            _ => None,
        };
        let copies = if state.is_some() { Vec::new() } else { parameters.clone() };
        let mut rows = BTreeSet::new();
        match (name, of_stream) {
            ("on_row", Some(row)) => drop(rows.insert(row)),
            ("on_batch", Some(all)) => rows.extend(loops_over(&syntax, &all)),
            _ => {}
        }
        let own = parameters.into_iter().collect();
        let mut function = Self { syntax, stream, rows, state, copies, own, asks_for_stream: false };
        function.forget_shadowed();
        function.asks_for_stream = function.asks_for_stream();
        function
    }

    /// A variable of the same name as a parameter is another one from there on: nothing is known of it.
    fn forget_shadowed(&mut self) {
        let (mut defined, mut loops) = (Vec::new(), Vec::new());
        self.each(|path| match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(definition, ..))) => {
                defined.push(definition.0.as_str().to_owned());
            }
            Some(ASTNode::Stmt(Stmt::For(parts, _))) => {
                loops.push(parts.0.as_str().to_owned());
                loops.extend(parts.1.as_ref().map(|counter| counter.as_str().to_owned()));
            }
            _ => {}
        });
        self.own.extend(defined.iter().cloned().chain(loops));
        for name in defined {
            self.rows.remove(&name);
            self.state = self.state.take().filter(|state| *state != name);
            self.stream = self.stream.take().filter(|stream| *stream != name);
        }
    }

    /// Whether the name of the stream is compared or given to a function, rather than only written down.
    fn asks_for_stream(&self) -> bool {
        let mut asks = false;
        self.each(|path| {
            if let [.., parent, ASTNode::Expr(expr)] = path
                && self.stream.as_ref().is_some_and(|stream| is_variable(expr, stream))
            {
                asks |= matches!(
                    parent,
                    ASTNode::Expr(Expr::FnCall(..) | Expr::MethodCall(..) | Expr::Dot(..))
                        | ASTNode::Stmt(Stmt::FnCall(..) | Stmt::Switch(..))
                );
            }
        });
        asks
    }

    /// Shows each node, with those that it is in before it.
    fn each(&self, mut visit: impl FnMut(&[ASTNode<'_>])) {
        self.syntax.walk(&mut |path: &[ASTNode<'_>]| {
            visit(path);
            true
        });
    }

    fn is_row(&self, expr: &Expr) -> bool {
        self.rows.iter().any(|row| is_variable(expr, row))
    }

    /// The value of a literal or a constant. In a map, what is only known when it runs is left out, but for the
    /// names: there it is a number that any function takes.
    fn known_value(&self, script: &Script, expr: &Expr) -> Option<Dynamic> {
        match expr {
            Expr::Map(parts, _) => {
                let entry = |(name, value): &(rhai::Ident, Expr)| {
                    let name = name.as_str();
                    let any = match name {
                        "min" => f64::NEG_INFINITY,
                        "max" => f64::INFINITY,
                        _ => 0.0,
                    };
                    (name.into(), self.known_value(script, value).unwrap_or_else(|| any.into()))
                };
                Some(Dynamic::from_map(parts.0.iter().map(entry).collect()))
            }
            Expr::Variable(variable, ..) if !self.own.contains(variable.1.as_str()) => {
                script.constants.get(&variable.1).cloned()
            }
            _ => expr.get_literal_value(None),
        }
    }

    fn is_state(&self, expr: &Expr) -> bool {
        self.state.as_ref().is_some_and(|state| is_variable(expr, state))
    }
}

/// The variables of loops over the variable `all`.
fn loops_over(syntax: &AST, all: &str) -> Vec<String> {
    let mut variables = Vec::new();
    syntax.walk(&mut |path: &[ASTNode<'_>]| {
        if let Some(ASTNode::Stmt(Stmt::For(parts, _))) = path.last()
            && is_variable(&parts.2.expr, all)
        {
            variables.push(parts.0.as_str().to_owned());
        }
        true
    });
    variables
}

/// A call: the function, what it is given, and where. `None`: the node is none, or an operator.
struct CallNode<'a> {
    name: &'a str,
    arguments: Vec<&'a Expr>,
    /// whether the first argument stands before a dot, and is not among `arguments`
    is_method: bool,
    at: Position,
}

impl<'a> CallNode<'a> {
    fn new(node: &ASTNode<'a>) -> Option<Self> {
        let (call, at, is_method) = match node {
            ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at)) => {
                (call, *at, false)
            }
            ASTNode::Expr(Expr::MethodCall(call, at)) => (call, *at, true),
            _ => return None,
        };
        if call.op_token.is_some() {
            return None;
        }
        Some(Self { name: call.name.as_str(), arguments: call.args.iter().collect(), is_method, at })
    }

    /// How many values the function is given.
    fn count(&self) -> usize {
        self.arguments.len() + usize::from(self.is_method)
    }
}

/// The text that an expression is.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::StringConstant(text, _) => Some(text.as_str()),
        _ => None,
    }
}

/// The name after the dot or in the brackets that follow a variable.
fn first_name(rest: &Expr) -> Option<(&str, Position)> {
    match rest {
        Expr::Property(property, at) => Some((property.2.as_str(), *at)),
        Expr::Dot(parts, ..) | Expr::Index(parts, ..) => first_name(&parts.lhs),
        Expr::StringConstant(name, at) => Some((name.as_str(), *at)),
        _ => None,
    }
}
