//! Whether a script needs room on the stack: whether it could build a list in a list in a list, or calls
//! functions of its own. One that cannot is spared a stack of its own for each batch.

use rhai::{AST, ASTNode, Expr};

use super::{CallNode, Function};
use crate::rhai::library::REMEMBERING;

/// Functions, beside those that remember, to which a map can be given that is gone afterwards, or that give
/// neither lists nor maps.
const FLAT: [&str; 37] = [
    "abs",
    "after",
    "bit",
    "bits",
    "cancel",
    "ceiling",
    "clamp",
    "contains",
    "duration",
    "exp",
    "floor",
    "is_empty",
    "is_nan",
    "len",
    "ln",
    "log",
    "log_error",
    "log_warning",
    "max",
    "min",
    "now",
    "parse_float",
    "parse_int",
    "pow",
    "round",
    "scale",
    "set_bit",
    "sign",
    "signed",
    "sqrt",
    "time_text",
    "to_float",
    "to_int",
    "to_lower",
    "to_string",
    "to_upper",
    "write",
];

pub(super) fn is_deep(syntax: &AST, functions: &[Function]) -> bool {
    let calls_own = syntax.iter_fn_def().any(|function| !function.name.starts_with("on_"));
    if calls_own {
        return true;
    }
    let mut is_deep = false;
    for function in functions {
        function.each(|path| {
            let parent = path.len().checked_sub(2).and_then(|at| path.get(at));
            is_deep |= match path.last() {
                Some(ASTNode::Expr(Expr::Array(..) | Expr::DynamicConstant(..))) => true,
                Some(ASTNode::Expr(Expr::Map(..))) => !is_given(parent),
                Some(ASTNode::Expr(Expr::Index(parts, ..))) => function.is_state(&parts.lhs),
                Some(ASTNode::Expr(expr)) if function.is_state(expr) => !is_given(parent) && !is_base(parent),
                _ => false,
            };
            if let Some(call) = path.last().and_then(CallNode::new) {
                is_deep |= !FLAT.contains(&call.name) && !REMEMBERING.contains(&call.name);
            }
        });
    }
    is_deep
}

/// Whether a value is only given to a function.
fn is_given(parent: Option<&ASTNode<'_>>) -> bool {
    parent.and_then(CallNode::new).is_some()
}

/// Whether a variable stands before a dot.
fn is_base(parent: Option<&ASTNode<'_>>) -> bool {
    matches!(parent, Some(ASTNode::Expr(Expr::Dot(parts, ..))) if matches!(parts.lhs, Expr::Variable(..)))
}
