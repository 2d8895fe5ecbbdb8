//! How deeply a rule may be nested. Parser, planner and operators call themselves once a level, and a stack
//! that is used up ends the whole box.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion_common::{Result, plan_err};
use datafusion_sql::sqlparser::ast::{Expr, ObjectName, Query, Visit, Visitor};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

/// Levels of an expression. A chain such as `a OR b OR c` has one for each operator.
const MOST_LEVELS: usize = 256;

/// Queries on top of each other in a statement.
const MOST_STEPS: usize = 64;

/// Streams and tables that a statement reads, when all that it reads is written out.
const MOST_READS: usize = 256;

/// What a rule within these limits needs of the stack, many times over: a level takes up to 20 KiB in a build
/// without optimisation.
const STACK: usize = 64 << 20;

/// Compiles with a stack that is large enough for whatever is within the limits.
pub(super) fn with_room<T>(compile: impl FnOnce() -> T) -> T {
    stacker::grow(STACK, compile)
}

/// Between two parentheses, or `CASE` and `END`.
#[derive(Default)]
struct Level {
    /// of the condition at hand: its operators, and the levels of what is in parentheses
    operators: usize,
    within: usize,
    /// of the part at hand: its `AND` and `OR`, and the most levels of the conditions between them
    joints: usize,
    conditions: usize,
    /// the most levels of the parts before it
    parts: usize,
    /// queries that are joined or put together: each takes one more for all that is before it
    queries: usize,
}

impl Level {
    fn levels(&self) -> usize {
        self.parts.max(self.of_part()) + self.queries
    }

    fn of_part(&self) -> usize {
        self.joints + self.conditions.max(self.operators + self.within)
    }

    fn begin_condition(&mut self) {
        self.conditions = self.conditions.max(self.operators + self.within);
        (self.operators, self.within) = (0, 0);
    }

    fn begin_part(&mut self) {
        self.parts = self.parts.max(self.of_part());
        (self.operators, self.within, self.joints, self.conditions) = (0, 0, 0, 0);
    }
}

/// Where an expression begins to be nested too deeply, if it does.
pub(super) fn too_deep(tokens: &[TokenWithSpan]) -> Option<(Location, String)> {
    let mut levels = vec![Level::default()];
    let mut before = Keyword::NoKeyword;
    for TokenWithSpan { token, span } in tokens {
        let keyword = match token {
            Token::Whitespace(_) => continue,
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match (token, keyword) {
            (Token::SemiColon, _) => levels = vec![Level::default()],
            (Token::LParen | Token::LBracket | Token::LBrace, _) | (_, Keyword::CASE) => {
                levels.push(Level::default())
            }
            (Token::RParen | Token::RBracket | Token::RBrace, _) | (_, Keyword::END) => {
                // More are closed than opened: the parser says so.
                let closed = if levels.len() > 1 { levels.pop() } else { None };
                if let (Some(closed), Some(around)) = (closed, levels.last_mut()) {
                    around.within = around.within.max(closed.levels() + 1);
                    // What is in brackets may be an index, of which there can be many in a row.
                    around.operators += usize::from(matches!(token, Token::RBracket));
                }
            }
            _ => levels.last_mut().into_iter().for_each(|level| count(level, token, before, keyword)),
        }
        before = keyword;
        let so_far = levels.iter().map(|level| level.levels() + 1).sum::<usize>();
        if so_far > MOST_LEVELS {
            let help = "write a list as `column IN (..)`, look it up in a reference table, or make several \
                rules of it";
            return Some((
                span.start,
                format!("this is nested or chained more than {MOST_LEVELS} levels deep; {help}"),
            ));
        }
    }
    None
}

/// Counts one token. Each symbol and each keyword may be an operator; that some are none is of no account.
fn count(level: &mut Level, token: &Token, before: Keyword, keyword: Keyword) {
    use Keyword::{
        AND, DISTINCT, ELSE, EXCEPT, FROM, GROUP, HAVING, INTERSECT, JOIN, NoKeyword, ON, OR, ORDER, QUALIFY,
        SELECT, THEN, UNION, WHEN, WHERE, WITHIN, XOR,
    };
    match (token, keyword) {
        // Within an expression: `IS DISTINCT FROM`, `WITHIN GROUP (..)`.
        (_, FROM) if before == DISTINCT => level.operators += 1,
        (_, GROUP) if before == WITHIN => level.operators += 1,
        (Token::Comma, _)
        | (_, SELECT | FROM | WHERE | GROUP | HAVING | QUALIFY | ON | ORDER | WHEN | THEN | ELSE) => {
            level.begin_part()
        }
        (_, UNION | EXCEPT | INTERSECT | JOIN) => {
            level.begin_part();
            level.queries += 1;
        }
        (_, AND | OR | XOR) => {
            level.begin_condition();
            level.joints += 1;
        }
        (Token::Word(_), NoKeyword) | (Token::Number(..) | Token::Period | Token::Colon | Token::EOF, _) => {}
        (Token::SingleQuotedString(_) | Token::DoubleQuotedString(_), _) => {}
        _ => level.operators += 1,
    }
}

/// What a query comes to when all that it reads is written out.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// queries on top of each other
    steps: usize,
    /// streams and tables; what is read twice counts twice, for it is computed twice
    reads: usize,
}

/// The sizes of queries that have a name, for those that read them.
#[derive(Debug, Default)]
pub(super) struct Sizes(HashMap<String, Size>);

impl Sizes {
    /// Refuses `query` when it is too large; the planner would go through all of it.
    ///
    /// # Errors
    /// When it is.
    pub(super) fn check(&self, query: &Query) -> Result<()> {
        self.of(query).map(drop)
    }

    /// The same for the view `name`, which later queries may read.
    ///
    /// # Errors
    /// When it is too large.
    pub(super) fn check_view(&mut self, name: &str, query: &Query) -> Result<()> {
        let size = self.of(query)?;
        self.0.insert(name.to_owned(), size);
        Ok(())
    }

    fn of(&self, query: &Query) -> Result<Size> {
        let mut measure = Measure { views: &self.0, open: vec![Open::default()] };
        if query.visit(&mut measure).is_break() {
            return plan_err!(
                "this has more than {MOST_STEPS} steps on top of each other, or reads more than \
                {MOST_READS} streams and tables (what is read twice is computed twice); make several rules \
                of it, with derived streams between them"
            );
        }
        Ok(measure.open.first().map(|all| all.size).unwrap_or_default())
    }
}

/// Goes through a query.
struct Measure<'a> {
    views: &'a HashMap<String, Size>,
    /// the queries around the place at hand, the outermost first
    open: Vec<Open>,
}

#[derive(Default)]
struct Open {
    size: Size,
    /// the steps of its WITH
    named: HashMap<String, Size>,
    /// those that were not gone through yet, by where they are, the next one last
    next: Vec<(*const Query, String)>,
}

impl Measure<'_> {
    fn read(&mut self, name: &str) -> ControlFlow<()> {
        let named =
            self.open.iter().rev().find_map(|open| open.named.get(name)).or_else(|| self.views.get(name));
        let size = named.copied().unwrap_or(Size { steps: 0, reads: 1 });
        self.add(size)
    }

    fn add(&mut self, size: Size) -> ControlFlow<()> {
        let Some(open) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        open.size.steps = open.size.steps.max(size.steps);
        open.size.reads = open.size.reads.saturating_add(size.reads);
        if open.size.steps > MOST_STEPS || open.size.reads > MOST_READS {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Visitor for Measure<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let steps = query.with.iter().flat_map(|with| &with.cte_tables).rev();
        let next =
            steps.map(|step| (std::ptr::from_ref(&*step.query), step.alias.name.value.clone())).collect();
        self.open.push(Open { next, ..Open::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let Some(Open { mut size, .. }) = self.open.pop() else { return ControlFlow::Continue(()) };
        size.steps += 1;
        if let Some(around) = self.open.last_mut()
            && let Some((_, name)) = around.next.pop_if(|(next, _)| std::ptr::eq(*next, query))
        {
            around.named.insert(name, size);
            return ControlFlow::Continue(());
        }
        self.add(size)
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        match name.0.last().and_then(|part| part.as_ident()) {
            Some(name) => self.read(&name.value),
            None => ControlFlow::Continue(()),
        }
    }

    /// `TUMBLE(step, ..)` reads `step`. A column of that name is taken for it, too, which is of no account.
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name)
                if self.open.iter().any(|open| open.named.contains_key(&name.value))
                    || self.views.contains_key(&name.value) =>
            {
                self.read(&name.value)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
