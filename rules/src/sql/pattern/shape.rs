//! The regular expression of `PATTERN (..)`.

use std::fmt;

use datafusion_common::{Result, plan_err};
use datafusion_sql::sqlparser::ast::{
    Ident, MatchRecognizePattern as Ast, MatchRecognizeSymbol as Symbol, RepetitionQuantifier,
};

/// A pattern with more variables cannot be read by people, and does not fit the bits of a row.
pub(in crate::sql) const MAX_VARIABLES: usize = 62;

/// Repetitions of what can match no row are told apart by a bit each.
const MAX_LOOPS: usize = 64;

/// A pattern with more steps, repetitions written out, would cost memory without being of use to anyone.
const MAX_STEPS: usize = 1_000;

/// What rows must look like, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sql) enum Shape {
    /// a row for which the condition of the variable with this index holds; hidden rows are not written by
    /// `ALL ROWS PER MATCH`
    Row { variable: usize, hidden: bool },
    /// one after the other
    Sequence(Vec<Self>),
    /// the first that matches
    Either(Vec<Self>),
    /// as often as `least`, and up to `most`; greedy: rather more often than less
    Repeat { shape: Box<Self>, least: u32, most: Option<u32>, greedy: bool },
}

impl Shape {
    /// Reads a pattern. Variables get indices in the order in which they are written.
    pub(in crate::sql) fn read(
        pattern: &Ast,
        variables: &mut Vec<String>,
        normal: &dyn Fn(&Ident) -> String,
    ) -> Result<Self> {
        let shape = read(pattern, variables, normal)?;
        if shape.steps() > MAX_STEPS {
            return plan_err!(
                "the pattern has more than {MAX_STEPS} steps when its repetitions are written out; use `+`, \
                `*` or `{{n,}}`"
            );
        }
        if shape.can_be_empty() {
            return plan_err!(
                "the pattern can match no row at all; let at least one variable be there: `A+` instead of \
                `A*`"
            );
        }
        if shape.loops() > MAX_LOOPS {
            return plan_err!(
                "the pattern repeats more than {MAX_LOOPS} times something that can match no row; write \
                `A+` instead of `A*` in parentheses with `*`"
            );
        }
        if variables.len() > MAX_VARIABLES {
            return plan_err!("the pattern has more than {MAX_VARIABLES} variables; use fewer");
        }
        Ok(shape)
    }

    /// How many steps it takes when repetitions are written out.
    fn steps(&self) -> usize {
        match self {
            Self::Row { .. } => 1,
            Self::Sequence(shapes) | Self::Either(shapes) => {
                shapes.iter().map(Self::steps).fold(shapes.len(), usize::saturating_add)
            }
            Self::Repeat { shape, least, most, .. } => {
                let times = most.unwrap_or(least.saturating_add(1)).max(1);
                shape.steps().saturating_add(1).saturating_mul(times as usize)
            }
        }
    }

    /// How often something is repeated that can match no row, when repetitions are written out.
    fn loops(&self) -> usize {
        match self {
            Self::Row { .. } => 0,
            Self::Sequence(shapes) | Self::Either(shapes) => {
                shapes.iter().map(Self::loops).fold(0, usize::saturating_add)
            }
            Self::Repeat { shape, least, most, .. } => {
                let times = most.unwrap_or(least.saturating_add(1)) as usize;
                shape
                    .loops()
                    .saturating_mul(times)
                    .saturating_add(usize::from(most.is_none() && shape.can_be_empty()))
            }
        }
    }

    pub(in crate::sql) fn can_be_empty(&self) -> bool {
        match self {
            Self::Row { .. } => false,
            Self::Sequence(shapes) => shapes.iter().all(Self::can_be_empty),
            Self::Either(shapes) => shapes.iter().any(Self::can_be_empty),
            Self::Repeat { shape, least, most, .. } => {
                *least == 0 || *most == Some(0) || shape.can_be_empty()
            }
        }
    }

    /// Whether the first row of every match has one of these variables.
    pub(in crate::sql) fn begins_with(&self, variables: u64) -> bool {
        match self {
            Self::Row { variable, .. } => variables >> variable & 1 == 1,
            Self::Sequence(shapes) => match shapes.iter().position(|shape| !shape.can_be_empty()) {
                Some(last) => shapes.iter().take(last + 1).all(|shape| shape.begins_with(variables)),
                None => false,
            },
            Self::Either(shapes) => shapes.iter().all(|shape| shape.begins_with(variables)),
            Self::Repeat { shape, .. } => shape.begins_with(variables),
        }
    }

    /// Writes it with the names of its variables.
    pub(in crate::sql) fn display<'a>(&'a self, variables: &'a [String]) -> impl fmt::Display + 'a {
        Display { shape: self, variables }
    }
}

fn read(pattern: &Ast, variables: &mut Vec<String>, normal: &dyn Fn(&Ident) -> String) -> Result<Shape> {
    let mut all = |patterns: &[Ast]| {
        patterns.iter().map(|pattern| read(pattern, variables, normal)).collect::<Result<Vec<_>>>()
    };
    match pattern {
        Ast::Symbol(symbol) => row(symbol, false, variables, normal),
        Ast::Exclude(symbol) => row(symbol, true, variables, normal),
        Ast::Concat(patterns) => Ok(Shape::Sequence(all(patterns)?)),
        Ast::Alternation(patterns) => Ok(Shape::Either(all(patterns)?)),
        Ast::Group(pattern) => read(pattern, variables, normal),
        Ast::Permute(symbols) => {
            // 6 variables have 720 orders.
            if symbols.len() > 5 {
                return plan_err!(
                    "PERMUTE takes up to 5 variables; write the orders that can happen with `|`"
                );
            }
            let rows = symbols
                .iter()
                .map(|symbol| row(symbol, false, variables, normal))
                .collect::<Result<Vec<_>>>()?;
            Ok(Shape::Either(orders(&rows).into_iter().map(Shape::Sequence).collect()))
        }
        Ast::Repetition(inner, quantifier) => {
            // The parser reads `A+?` as `(A+)?`, which without parentheses means: rather less often than
            // more.
            if let (Ast::Repetition(inner, quantifier), RepetitionQuantifier::AtMostOne) =
                (&**inner, quantifier)
            {
                return repeat(inner, quantifier, false, variables, normal);
            }
            repeat(inner, quantifier, true, variables, normal)
        }
    }
}

fn repeat(
    inner: &Ast,
    quantifier: &RepetitionQuantifier,
    greedy: bool,
    variables: &mut Vec<String>,
    normal: &dyn Fn(&Ident) -> String,
) -> Result<Shape> {
    if matches!(inner, Ast::Repetition(..)) {
        return plan_err!(
            "two quantifiers stand behind each other; put parentheses around what the first one repeats"
        );
    }
    let (least, most) = match *quantifier {
        RepetitionQuantifier::ZeroOrMore => (0, None),
        RepetitionQuantifier::OneOrMore => (1, None),
        RepetitionQuantifier::AtMostOne => (0, Some(1)),
        RepetitionQuantifier::Exactly(n) => (n, Some(n)),
        RepetitionQuantifier::AtLeast(n) => (n, None),
        RepetitionQuantifier::AtMost(n) => (0, Some(n)),
        RepetitionQuantifier::Range(n, m) => (n, Some(m)),
    };
    if most.is_some_and(|most| most < least || most == 0) {
        return plan_err!(
            "the quantifier `{quantifier}` allows no row; for a row that must not come, write `PATTERN (..) \
            NOT FOLLOWED BY A WITHIN INTERVAL '5' SECOND`"
        );
    }
    Ok(Shape::Repeat { shape: Box::new(read(inner, variables, normal)?), least, most, greedy })
}

fn row(
    symbol: &Symbol,
    hidden: bool,
    variables: &mut Vec<String>,
    normal: &dyn Fn(&Ident) -> String,
) -> Result<Shape> {
    let name = match symbol {
        Symbol::Named(name) => normal(name),
        Symbol::Start | Symbol::End => {
            return plan_err!(
                "`{symbol}` means the first or last row of all, and a stream has none; leave it out"
            );
        }
    };
    let variable = variables.iter().position(|known| *known == name).unwrap_or_else(|| {
        variables.push(name);
        variables.len() - 1
    });
    Ok(Shape::Row { variable, hidden })
}

/// All orders of `rows`: those that begin with the first come first, and so on.
fn orders(rows: &[Shape]) -> Vec<Vec<Shape>> {
    if rows.len() <= 1 {
        return vec![rows.to_vec()];
    }
    let mut all = Vec::new();
    for (at, first) in rows.iter().enumerate() {
        let others: Vec<Shape> =
            rows.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, row)| row.clone()).collect();
        for mut order in orders(&others) {
            order.insert(0, first.clone());
            all.push(order);
        }
    }
    all
}

struct Display<'a> {
    shape: &'a Shape,
    variables: &'a [String],
}

impl fmt::Display for Display<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, shapes: &[Shape], between: &str| {
            for (at, shape) in shapes.iter().enumerate() {
                write!(f, "{}{}", if at == 0 { "" } else { between }, shape.display(self.variables))?;
            }
            Ok(())
        };
        match self.shape {
            Shape::Row { variable, hidden } => {
                let name = self.variables.get(*variable).map_or("?", String::as_str);
                if *hidden { write!(f, "{{- {name} -}}") } else { f.write_str(name) }
            }
            Shape::Sequence(shapes) => list(f, shapes, " "),
            Shape::Either(shapes) => {
                f.write_str("(")?;
                list(f, shapes, " | ")?;
                f.write_str(")")
            }
            Shape::Repeat { shape, least, most, greedy } => {
                match &**shape {
                    Shape::Row { .. } | Shape::Either(_) => write!(f, "{}", shape.display(self.variables))?,
                    other => write!(f, "({})", other.display(self.variables))?,
                }
                match (*least, *most) {
                    (0, None) => f.write_str("*"),
                    (1, None) => f.write_str("+"),
                    (0, Some(1)) => f.write_str("?"),
                    (n, Some(m)) if n == m => write!(f, "{{{n}}}"),
                    (n, None) => write!(f, "{{{n},}}"),
                    (n, Some(m)) => write!(f, "{{{n},{m}}}"),
                }?;
                f.write_str(if *greedy { "" } else { "?" })
            }
        }
    }
}
