//! The file becomes statements.

use datafusion_sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Spanned, Statement as Ast, TableObject,
};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError};
use tidegate_core::{Diagnostic, Place};

use super::dialect::RuleDialect;
use super::nesting::too_deep;
use super::pattern::clauses::known_to_the_parser;
use super::spellings::{of_statement, of_syntax, of_token, options_out_of_place};
use super::table_functions::rewrite_tokens;

/// Nesting beyond this is not written by people; it would only cost stack.
const MAX_NESTING: usize = 50;

/// One statement of a rule file.
pub(super) struct Statement {
    /// Where it starts.
    pub start: Option<Place>,
    pub body: Body,
}

pub(super) enum Body {
    /// `INSERT INTO target [(columns)] SELECT ..`
    Insert { target: String, columns: Vec<String>, query: Box<Query> },
    /// `CREATE VIEW name AS SELECT ..`: a named step
    View { name: String, query: Box<Query> },
}

pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Statement>, Vec<Diagnostic>> {
    let tokens = legal_tokens(file, text)?;
    statements(file, text, tokens).map_err(|wrong| vec![wrong])
}

/// The text of one condition.
pub(super) fn condition(file: &str, text: &str) -> Result<Expr, Vec<Diagnostic>> {
    let tokens = legal_tokens(file, text)?;
    let alone = |parser: &mut Parser<'_>| {
        let condition = parser.parse_expr()?;
        match parser.next_token() {
            end if end.token == Token::EOF => Ok(condition),
            more => parser.expected("the end of the condition", more),
        }
    };
    read(file, text, tokens, alone).map_err(|wrong| vec![wrong])
}

/// The tokens of `text`, none of which is of another language.
fn legal_tokens(file: &str, text: &str) -> Result<Vec<TokenWithSpan>, Vec<Diagnostic>> {
    let tokens = tokens(text).map_err(|error| vec![syntax_error(file, text, &[], error.into())])?;
    let mut wrong: Vec<Diagnostic> =
        tokens
            .iter()
            .filter_map(|token| of_token(&token.token).map(|wrong| (token, wrong)))
            .map(|(token, (what, help))| {
                Diagnostic::new(file, what).help(help.to_owned()).at(place(token.span.start))
            })
            .chain(options_out_of_place(&tokens).map(|(token, what, help)| {
                Diagnostic::new(file, what).help(help).at(place(token.span.start))
            }))
            .chain(hashes(&tokens).map(|token| {
                Diagnostic::new(file, "`#` is no comment in SQL")
                    .help("comments begin with `--`".to_owned())
                    .at(place(token.span.start))
            }))
            .collect();
    if !wrong.is_empty() {
        wrong.sort_by_key(|diagnostic| diagnostic.place);
        return Err(wrong);
    }
    Ok(tokens)
}

/// Each `#` that begins a line: in the middle of one it may be an operator.
fn hashes(tokens: &[TokenWithSpan]) -> impl Iterator<Item = &TokenWithSpan> {
    let mut line = 0;
    tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).filter(move |token| {
        let begins = std::mem::replace(&mut line, token.span.start.line) != token.span.start.line;
        begins && token.token == Token::Sharp
    })
}

/// Where each statement begins.
fn starts(tokens: &[TokenWithSpan]) -> Vec<(Option<Place>, Token)> {
    let mut begins = true;
    let mut starts = Vec::new();
    for token in tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))) {
        let is_end = token.token == Token::SemiColon;
        if begins && !is_end {
            starts.push((place(token.span.start), token.token.clone()));
        }
        begins = is_end;
    }
    starts
}

/// The tokens of `text`, with comments and spaces.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    Tokenizer::new(&RuleDialect::new(0), text).tokenize_with_location()
}

/// What `parse` makes of `tokens`, which are those of `text`.
fn read<T>(
    file: &str,
    text: &str,
    tokens: Vec<TokenWithSpan>,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T, Diagnostic> {
    if let Some((at, what)) = too_deep(&tokens) {
        return Err(Diagnostic::new(file, what).at(place(at)));
    }
    let written = tokens.clone();
    let tokens = known_to_the_parser(rewrite_tokens(tokens))
        .map_err(|error| syntax_error(file, text, &written, error))?;
    let dialect = RuleDialect::new(tokens.len());
    let parsed = parse(
        &mut Parser::new(&dialect).with_recursion_limit(MAX_NESTING).with_tokens_with_locations(tokens),
    );
    if let Some(at) = dialect.gave_up_at() {
        let what = "SQL syntax: the words around this can be read in too many ways, none of which makes \
            sense so far";
        let help = "look for a missing word or parenthesis here; write `INTERVAL '5' SECOND` and `CAST(x AS \
            DOUBLE)`, none within another INTERVAL";
        return Err(Diagnostic::new(file, what).at(place(at)).help(Some(help.to_owned())));
    }
    parsed.map_err(|error| syntax_error(file, text, &written, error))
}

fn statements(file: &str, text: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<Statement>, Diagnostic> {
    let mut starts = starts(&tokens).into_iter();
    let asts = read(file, text, tokens, |parser| parser.parse_statements())?;
    let mut statements = Vec::with_capacity(asts.len());
    for ast in asts {
        // The parser does not know where some statements begin that no rule has.
        let (start, first) = starts.next().unwrap_or((None, Token::EOF));
        let start = place(ast.span().start).or(start);
        if let Some((what, help)) = of_statement(&first) {
            return Err(Diagnostic::new(file, what).at(start).help(help.to_owned()));
        }
        let body = body(ast).map_err(|message| Diagnostic::new(file, message).at(start))?;
        statements.push(Statement { start, body });
    }
    if !statements.iter().any(|s| matches!(s.body, Body::Insert { .. })) {
        return Err(Diagnostic::new(file, "the rule writes nothing").help(Some(
            "write `INSERT INTO target SELECT ..`, where target is an output, a derived stream or `uplink`"
                .to_owned(),
        )));
    }
    Ok(statements)
}

fn body(ast: Ast) -> Result<Body, String> {
    match ast {
        Ast::Insert(insert) => {
            let plain = insert.into
                && !insert.overwrite
                && !insert.ignore
                && !insert.replace_into
                && insert.or.is_none()
                && insert.on.is_none();
            if !plain
                || insert.returning.is_some()
                || insert.partitioned.is_some()
                || !insert.assignments.is_empty()
            {
                return Err(
                    "of INSERT, only the form `INSERT INTO target [(columns)] SELECT ..` is known".into()
                );
            }
            let TableObject::TableName(target) = insert.table else {
                return Err("INSERT INTO takes the name of an output, a derived stream or `uplink`".into());
            };
            let Some(query) = insert.source else {
                return Err("INSERT INTO needs a SELECT".into());
            };
            let columns = insert.columns.iter().map(simple_name).collect::<Result<_, _>>()?;
            Ok(Body::Insert { target: simple_name(&target)?, columns, query })
        }
        Ast::CreateView(view) => {
            if view.materialized || !view.columns.is_empty() {
                return Err("of CREATE VIEW, only the form `CREATE VIEW name AS SELECT ..` is known".into());
            }
            Ok(Body::View { name: simple_name(&view.name)?, query: view.query })
        }
        Ast::Query(_) => Err("a SELECT alone goes nowhere; write `INSERT INTO target SELECT ..`".into()),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            Err(format!(
                "`{} ..` cannot be used in a rule; a rule consists of INSERT INTO .. SELECT and CREATE VIEW",
                words.join(" ")
            ))
        }
    }
}

fn simple_name(name: &ObjectName) -> Result<String, String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(normal).ok_or_else(|| format!("`{name}` is not a name")),
        _ => Err(format!("`{name}` has more than one part; streams and outputs have plain names")),
    }
}

/// SQL folds unquoted names to lower case.
pub(super) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn syntax_error(file: &str, text: &str, tokens: &[TokenWithSpan], error: ParserError) -> Diagnostic {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return Diagnostic::new(file, format!("the SQL is nested more than {MAX_NESTING} levels deep"))
                .help(Some("split it with CREATE VIEW".to_owned()));
        }
    };
    // sqlparser gives the place only as text.
    let (said, at) = message.rsplit_once(" at Line: ").unwrap_or((&message, ""));
    let place = at.split_once(", Column: ").and_then(|(line, column)| {
        Some(Place { line: line.parse().ok()?, column: column.trim().parse().ok()? })
    });
    let place =
        place.or_else(|| message.contains("EOF").then(|| Place::of_offset(text, text.trim_end().len())));
    let said = said.strip_prefix("sql parser error: ").unwrap_or(said);
    let words: Vec<TokenWithSpan> =
        tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).cloned().collect();
    let stuck = words.iter().position(|token| self::place(token.span.start) == place).unwrap_or(words.len());
    match of_syntax(&words, stuck).filter(|_| !words.is_empty()) {
        Some((what, help)) => {
            Diagnostic::new(file, format!("SQL syntax: {what}")).help(help.to_owned()).at(place)
        }
        None => Diagnostic::new(file, format!("SQL syntax: {}", lower_first(said))).at(place),
    }
}

pub(super) fn place(location: datafusion_sql::sqlparser::tokenizer::Location) -> Option<Place> {
    // sqlparser uses line 0 for "unknown".
    let (line, column) = (u32::try_from(location.line).ok()?, u32::try_from(location.column).ok()?);
    (line > 0).then_some(Place { line, column })
}

/// Messages start in lower case; keywords and names stay as they are.
pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}
