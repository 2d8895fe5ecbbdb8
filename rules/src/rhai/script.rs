//! A script, parsed: its constants, and the functions that are called for rows and timers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{
    AST, ASTNode, Dynamic, Engine, Expr, ImmutableString, Module, OptimizationLevel, Position, Scope, Stmt,
    StmtBlock,
};
use tidegate_core::{Diagnostic, Place};

use super::call::Calls;
use super::engine::{self, Brake, ColumnPlaces};
use super::error::{Failure, parse_error, place, unknown};

/// A script that can run.
pub(super) struct Script {
    pub engine: Engine,
    /// what runs
    pub ast: AST,
    pub handlers: Handlers,
    /// the values of `const`
    pub constants: BTreeMap<ImmutableString, Dynamic>,
}

/// What is called, and with what.
#[derive(Debug, Clone, Default)]
pub(super) struct Handlers {
    pub on_start: Option<Handler>,
    pub on_row: Option<Handler>,
    pub on_batch: Option<Handler>,
    pub on_timer: Option<Handler>,
}

/// A function that is called.
#[derive(Debug, Clone)]
pub(super) struct Handler {
    pub form: Form,
    /// the names of its parameters
    pub parameters: Vec<ImmutableString>,
    /// What it does, as a block: Rhai hands the arguments of a function over by value, and this changes the
    /// state where it is.
    pub body: Expr,
}

/// Whether a function for rows is told of which stream they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `on_row(stream, row, state)`
    Long,
    /// `on_row(row, state)`, of the only stream
    Short,
}

/// What the box does for a script: a function of its own of that name would have it do nothing, without a word.
const RESERVED: [&str; 7] = ["write", "after", "cancel", "now", "log", "log_warning", "log_error"];

/// The functions that are called, as they are written.
const HANDLERS: [(&str, &str); 4] = [
    ("on_start", "on_start(state)"),
    ("on_row", "on_row(stream, row, state)"),
    ("on_batch", "on_batch(stream, rows, state)"),
    ("on_timer", "on_timer(tag, state)"),
];

impl Script {
    /// Parses `text`. What comes with the script is its syntax as it is written, for checks.
    pub(super) fn parse(
        file: &str,
        text: &str,
        columns: &[ColumnPlaces],
        streams: &[&str],
        calls: &Calls,
        brake: &Brake,
    ) -> Result<(Self, AST), Vec<Diagnostic>> {
        let one = |diagnostic: Diagnostic| vec![diagnostic];
        let internal = |what: String| one(Diagnostic::new(file, what));
        let mut engine = engine::build(columns, calls, brake).map_err(internal)?;
        engine.set_optimization_level(OptimizationLevel::None).set_strict_variables(false);
        let bare = engine.compile(text).map_err(|error| one(parse_error(file, text, &error)))?;
        only_constants(file, &bare)?;
        let mut constants = Scope::new();
        brake.release(1);
        engine
            .run_ast_with_scope(&mut constants, &bare)
            .map_err(|error| internal_place(file, Failure::new(file, error).text))?;
        let mut module = Module::new();
        let mut values = BTreeMap::new();
        for (name, _, value) in constants.iter() {
            values.insert(name.into(), value.clone());
            module.set_var(name, value);
        }
        engine.register_global_module(module.into());
        engine.set_strict_variables(true);
        let written = engine
            .compile_with_scope(&constants, text)
            .map_err(|error| one(parse_error(file, text, &error)))?;
        let ast = engine.optimize_ast(&constants, written.clone(), OptimizationLevel::Simple);
        let handlers = handlers(file, text, &ast, streams)?;
        Ok((Self { engine, ast, handlers, constants: values }, written))
    }
}

/// A failure that has its file and place in its text.
fn internal_place(file: &str, text: String) -> Vec<Diagnostic> {
    let what = text.strip_prefix(&format!("{file}:")).map_or(text.as_str(), str::trim_start).to_owned();
    let mut parts = what.splitn(3, ':');
    let number = |part: Option<&str>| part.and_then(|part| part.trim().parse().ok());
    let at = number(parts.next()).zip(number(parts.next())).map(|(line, column)| Place { line, column });
    let message = parts.next().map(str::trim_start).filter(|_| at.is_some()).unwrap_or(&what);
    vec![Diagnostic::new(file, message).at(at)]
}

/// Outside of its functions, a script only says what its constants are.
fn only_constants(file: &str, ast: &AST) -> Result<(), Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    for statement in ast.statements() {
        match statement {
            Stmt::Noop(_) => {}
            Stmt::Var(_, flags, _) if flags.intersects(rhai::ASTFlags::CONSTANT) => {}
            Stmt::Var(definition, _, at) => {
                let name = definition.0.as_str();
                let what = format!("`{name}` stands outside of all functions, which cannot change it");
                let help = format!("write `const {name} = ..`, or keep what changes in `state.{name}`");
                wrong.push(Diagnostic::new(file, what).at(place(*at)).help(help));
            }
            other => {
                let what = "this stands outside of all functions, and nothing would ever run it";
                let help =
                    "only `const` may: write it into a function such as `fn on_row(row, state) { .. }`";
                wrong.push(Diagnostic::new(file, what).at(place(other.position())).help(help.to_owned()));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Which functions are called, if they have the right parameters.
fn handlers(file: &str, text: &str, ast: &AST, streams: &[&str]) -> Result<Handlers, Vec<Diagnostic>> {
    let (mut handlers, mut wrong) = (Handlers::default(), Vec::new());
    let mut first_for_rows: Option<Arc<str>> = None;
    for function in ast.iter_fn_def() {
        let name = function.name.as_str();
        let at = function_place(text, name);
        let form = match (function.params.len(), streams.len()) {
            (3, _) => Some(Form::Long),
            (2, 1) => Some(Form::Short),
            _ => None,
        };
        let fits = match name {
            "on_start" => function.params.len() == 1,
            "on_timer" => function.params.len() == 2,
            "on_row" | "on_batch" => form.is_some(),
            _ if name.starts_with("on_") => {
                let names: Vec<&str> = HANDLERS.iter().map(|(name, _)| *name).collect();
                let what = format!("nothing calls `{name}`");
                wrong.push(unknown(file, what, name, &names).at(at));
                continue;
            }
            _ if RESERVED.contains(&name) => {
                let what = format!("a function of the script would take the place of `{name}`");
                wrong.push(Diagnostic::new(file, what).at(at).help("give it another name".to_owned()));
                continue;
            }
            _ => continue,
        };
        if !fits {
            let signature = HANDLERS.iter().find(|(handler, _)| *handler == name).map_or("", |(_, s)| s);
            let what = format!("`{name}` has the parameters ({})", function.params.join(", "));
            let short = match name {
                "on_row" if streams.len() == 1 => " or, for one stream, `fn on_row(row, state)`",
                "on_batch" if streams.len() == 1 => " or, for one stream, `fn on_batch(rows, state)`",
                _ => "",
            };
            wrong.push(Diagnostic::new(file, what).at(at).help(format!("write `fn {signature}`{short}")));
            continue;
        }
        let handler = Handler {
            form: form.unwrap_or(Form::Long),
            parameters: function.params.to_vec(),
            body: body(ast, name, function.params.len()),
        };
        match name {
            "on_start" => handlers.on_start = Some(handler),
            "on_timer" => handlers.on_timer = Some(handler),
            "on_row" => handlers.on_row = Some(handler),
            _ => handlers.on_batch = Some(handler),
        }
        if name == "on_row" || name == "on_batch" {
            match &first_for_rows {
                Some(first) => {
                    let what = format!("there are both `{first}` and `{name}`, and rows go to one of them");
                    let help = "take `on_row`, unless it is for speed".to_owned();
                    wrong.push(Diagnostic::new(file, what).at(at).help(help));
                }
                None => first_for_rows = Some(name.into()),
            }
        }
    }
    if first_for_rows.is_none() && handlers.on_timer.is_none() && wrong.is_empty() {
        let what = "the script has no function that is called";
        let help = "write `fn on_row(stream, row, state) { .. }`".to_owned();
        wrong.push(Diagnostic::new(file, what).help(help));
    }
    if wrong.is_empty() { Ok(handlers) } else { Err(wrong) }
}

/// A function alone, to walk through.
pub(super) fn function(ast: &AST, name: &str, parameters: usize) -> AST {
    let mut alone = ast.clone_functions_only();
    alone.retain_functions(|_, _, other, count| other == name && count == parameters);
    alone
}

/// What a function does, as a block.
fn body(ast: &AST, name: &str, parameters: usize) -> Expr {
    let mut statements = Vec::new();
    function(ast, name, parameters).walk(&mut |path: &[ASTNode<'_>]| {
        if let [ASTNode::Stmt(statement)] = path {
            statements.push((*statement).clone());
        }
        true
    });
    Expr::Stmt(Box::new(StmtBlock::new(statements, Position::NONE, Position::NONE)))
}

/// Where the name of a function stands: Rhai does not say.
fn function_place(text: &str, name: &str) -> Option<Place> {
    let named = text.match_indices(name).map(|(at, _)| at);
    let is_definition = |at: &usize| {
        let (before, after) = text.split_at(*at);
        let rest = after.get(name.len()..).unwrap_or_default();
        before.trim_end().ends_with("fn")
            && before.ends_with(char::is_whitespace)
            && rest.trim_start().starts_with('(')
    };
    named.into_iter().find(is_definition).map(|at| Place::of_offset(text, at))
}

/// Whether `expr` is the variable `name`.
pub(super) fn is_variable(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Variable(variable, ..) if variable.1.as_str() == name)
}
