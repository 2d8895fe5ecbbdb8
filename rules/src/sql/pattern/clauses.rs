//! Clauses of `MATCH_RECOGNIZE` that the parser does not know are told to it as definitions, which it does
//! know.
//!
//! | written | told to the parser |
//! | --- | --- |
//! | `PATTERN (..) WITHIN span` | `DEFINE WITHIN AS span` |
//! | `NOT FOLLOWED BY c WITHIN span` | `DEFINE NOT_FOLLOWED_BY AS NOT_FOLLOWED_BY(c, span)` |
//! | `SUBSET s = (a, b)` | `DEFINE s AS SUBSET(a, b)` |
//! | `FINAL f(x)` | `FINAL(f(x))` |
//! | `{- a -}` | `({- a -})`: else the brace is taken for a quantifier of what is before it |
//! | `SKIP TO a` | `SKIP TO LAST a` |
//!
//! No token changes its place in the file, so that errors name the right one.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::ParserError;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

pub(in crate::sql) const WITHIN: &str = "within";
pub(in crate::sql) const NOT_FOLLOWED_BY: &str = "not_followed_by";
pub(in crate::sql) const SUBSET: &str = "subset";

/// The parser reads a pattern without a limit of its own: what goes deeper than this would end on the stack.
const MAX_NESTING: usize = 50;
const MAX_ALTERNATIVES: usize = 100;
const MAX_TOKENS: usize = 1_000;

/// The tokens of a file, with the clauses of every `MATCH_RECOGNIZE` as the parser knows them.
///
/// # Errors
/// When a pattern is too large for the parser.
pub(in crate::sql) fn known_to_the_parser(
    mut tokens: Vec<TokenWithSpan>,
) -> Result<Vec<TokenWithSpan>, ParserError> {
    let mut known = Vec::with_capacity(tokens.len());
    while let Some(at) = tokens.iter().position(|token| is_word(token, "MATCH_RECOGNIZE")) {
        let mut rest = tokens.split_off(at + 1);
        known.append(&mut tokens);
        let open = rest.iter().position(|token| !matches!(token.token, Token::Whitespace(_)));
        if let Some(end) = open.and_then(|open| closing(&rest, open)) {
            tokens = rest.split_off(end);
            rest.retain(|token| !matches!(token.token, Token::Whitespace(_)));
            refuse_large(&rest)?;
            known.extend(body(rest));
        } else {
            refuse_large(&rest)?;
            tokens = rest;
        }
    }
    known.append(&mut tokens);
    Ok(known)
}

fn refuse_large(body: &[TokenWithSpan]) -> Result<(), ParserError> {
    let Some(pattern) = at_top(body, 0, "PATTERN") else { return Ok(()) };
    // Where the parenthesis is not closed, the parser reads on to the end.
    let open = body
        .iter()
        .skip(pattern + 1)
        .position(|token| token.token == Token::LParen)
        .map_or(body.len(), |open| pattern + 1 + open);
    let end = closing(body, open).unwrap_or(body.len());
    let (mut depth, mut alternatives) = (0_usize, 1);
    for (count, token) in body.iter().take(end).skip(pattern + 1).enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Pipe => alternatives += 1,
            _ => {}
        }
        let large = [
            (depth > MAX_NESTING, format!("the pattern is nested more than {MAX_NESTING} levels deep")),
            (
                alternatives > MAX_ALTERNATIVES,
                format!("the pattern has more than {MAX_ALTERNATIVES} alternatives"),
            ),
            (count > MAX_TOKENS, format!("the pattern has more than {MAX_TOKENS} words and signs")),
        ];
        if let Some((_, message)) = large.into_iter().find(|(is_large, _)| *is_large) {
            return Err(ParserError::ParserError(format!("{message}{}", token.span.start)));
        }
    }
    Ok(())
}

/// What stands between `MATCH_RECOGNIZE` and the parenthesis that closes it.
fn body(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let Some(pattern) = at_top(&tokens, 0, "PATTERN") else { return tokens };
    let Some(end) = closing(&tokens, pattern + 1) else { return tokens };
    let Some(define) = at_top(&tokens, end, "DEFINE") else { return tokens };
    let part = |from: usize, to: usize| tokens.get(from..to).unwrap_or_default().to_vec();
    let mut known = skips_and_calls(part(0, pattern));
    known.extend(hidden_rows(part(pattern, end + 1)));
    let (unknown, definitions) = clauses(part(end + 1, define));
    known.extend(unknown);
    known.extend(part(define, define + 1));
    known.extend(definitions);
    known.extend(skips_and_calls(part(define + 1, tokens.len())));
    known
}

/// What stands between PATTERN and DEFINE: what of it nobody knows, and definitions, each with a comma behind
/// it.
fn clauses(tokens: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, Vec<TokenWithSpan>) {
    let starts_clause =
        |token: &TokenWithSpan| is_word(token, "WITHIN") || is_word(token, "NOT") || is_word(token, "SUBSET");
    let mut definitions = Vec::new();
    let mut unknown = Vec::new();
    let mut rest = tokens.as_slice();
    while let [first, after @ ..] = rest {
        if is_word(first, "WITHIN") {
            let end = after.iter().position(starts_clause).unwrap_or(after.len());
            let (span, others) = after.split_at(end);
            definitions.extend([first.clone(), word(first, "AS")]);
            definitions.extend_from_slice(span);
            definitions.push(like(first, Token::Comma));
            rest = others;
        } else if let ([followed, by, variable, after @ ..], true) = (after, is_word(first, "NOT"))
            && is_word(followed, "FOLLOWED")
            && is_word(by, "BY")
        {
            definitions.extend([
                word(first, NOT_FOLLOWED_BY),
                word(first, "AS"),
                word(first, NOT_FOLLOWED_BY),
                like(first, Token::LParen),
            ]);
            definitions.push(variable.clone());
            let mut others = after;
            if let [within, after @ ..] = after
                && is_word(within, "WITHIN")
            {
                let end = after.iter().position(starts_clause).unwrap_or(after.len());
                definitions.push(like(variable, Token::Comma));
                definitions.extend(after.iter().take(end).cloned());
                others = after.get(end..).unwrap_or_default();
            }
            definitions.extend([like(first, Token::RParen), like(first, Token::Comma)]);
            rest = others;
        } else if let ([name, equals, ..], true) =
            (after, is_word(first, "SUBSET") || first.token == Token::Comma)
            && equals.token == Token::Eq
            && let Some(end) = closing(after, 2)
        {
            let (subset, others) = after.split_at(end + 1);
            definitions.extend([name.clone(), word(equals, "AS"), word(equals, SUBSET)]);
            definitions.extend(subset.iter().skip(2).cloned());
            definitions.push(like(equals, Token::Comma));
            rest = others;
        } else {
            unknown.push(first.clone());
            rest = after;
        }
    }
    (unknown, definitions)
}

/// Puts parentheses around what is between `{-` and `-}`.
fn hidden_rows(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut known = Vec::with_capacity(tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        let is = |at: Option<usize>, wanted: Token| {
            at.and_then(|at| tokens.get(at)).is_some_and(|token| token.token == wanted)
        };
        if token.token == Token::LBrace && is(Some(at + 1), Token::Minus) {
            known.push(like(token, Token::LParen));
        }
        known.push(token.clone());
        if token.token == Token::RBrace && is(at.checked_sub(1), Token::Minus) {
            known.push(like(token, Token::RParen));
        }
    }
    known
}

/// `SKIP TO a`, and what is FINAL or RUNNING.
fn skips_and_calls(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut known: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // where parentheses must be closed that have been opened here
    let mut ends = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead);
        known.push(token.clone());
        if (is_word(token, "FINAL") || is_word(token, "RUNNING"))
            && next(1).is_some_and(is_function)
            && let Some(end) = closing(&tokens, at + 2)
        {
            known.push(like(token, Token::LParen));
            ends.push(end);
        }
        while ends.last() == Some(&at) {
            known.push(like(token, Token::RParen));
            ends.pop();
        }
        let skips = at > 0
            && is_word(token, "TO")
            && tokens.get(at - 1).is_some_and(|before| is_word(before, "SKIP"));
        if skips
            && !["NEXT", "FIRST", "LAST"]
                .iter()
                .any(|known| next(1).is_some_and(|token| is_word(token, known)))
        {
            known.push(word(token, "LAST"));
        }
    }
    known
}

/// Whether a word before a parenthesis is the name of a function, and no operator.
fn is_function(token: &TokenWithSpan) -> bool {
    let operators = [
        Keyword::AND,
        Keyword::OR,
        Keyword::NOT,
        Keyword::IN,
        Keyword::IS,
        Keyword::BETWEEN,
        Keyword::LIKE,
        Keyword::AS,
    ];
    matches!(&token.token, Token::Word(Word { keyword, .. }) if !operators.contains(keyword))
}

/// The place of the word `wanted` from `from` on, outside of parentheses that are not opened before `from`,
/// but for the outermost.
fn at_top(tokens: &[TokenWithSpan], from: usize, wanted: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ if at >= from && depth == 1 && is_word(token, wanted) => return Some(at),
            _ => {}
        }
    }
    None
}

/// The place of the parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return (token.token == Token::RParen).then_some(at);
        }
    }
    None
}

fn is_word(token: &TokenWithSpan, wanted: &str) -> bool {
    matches!(
        &token.token,
        Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(wanted),
    )
}

fn word(place: &TokenWithSpan, word: &str) -> TokenWithSpan {
    like(place, Token::make_keyword(word))
}

fn like(place: &TokenWithSpan, token: Token) -> TokenWithSpan {
    TokenWithSpan { token, span: place.span }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_sql::sqlparser::dialect::GenericDialect;
    use datafusion_sql::sqlparser::tokenizer::Tokenizer;

    fn known(text: &str) -> String {
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap();
        let written = known_to_the_parser(tokens).unwrap();
        let words = written
            .iter()
            .filter(|token| !matches!(token.token, Token::Whitespace(_)))
            .map(|token| token.token.to_string());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn clauses_become_definitions() {
        let text = "t MATCH_RECOGNIZE (AFTER MATCH SKIP TO a PATTERN (a b) WITHIN INTERVAL '1' HOUR NOT \
            FOLLOWED BY c WITHIN INTERVAL '5' SECOND SUBSET s = (a, b), r = (b, c) DEFINE a AS TRUE) AS m";
        assert_eq!(
            known(text),
            "t MATCH_RECOGNIZE ( AFTER MATCH SKIP TO LAST a PATTERN ( a b ) DEFINE WITHIN AS INTERVAL '1' \
            HOUR , not_followed_by AS not_followed_by ( c , INTERVAL '5' SECOND ) , s AS subset ( a , b ) , \
            r AS subset ( b , c ) , a AS TRUE ) AS m"
        );
    }

    #[test]
    fn only_functions_are_final() {
        let text = "MATCH_RECOGNIZE (MEASURES FINAL LAST(x + (y)) AS z, running AND (b) AS r PATTERN (a) \
            DEFINE a AS TRUE)";
        assert_eq!(
            known(text),
            "MATCH_RECOGNIZE ( MEASURES FINAL ( LAST ( x + ( y ) ) ) AS z , running AND ( b ) AS r PATTERN \
            ( a ) DEFINE a AS TRUE )"
        );
    }

    #[test]
    fn what_is_not_finished_stays_as_it_is() {
        for text in [
            "MATCH_RECOGNIZE",
            "MATCH_RECOGNIZE ( PATTERN",
            "MATCH_RECOGNIZE ( PATTERN ( a ) WITHIN",
            "PATTERN ( a ) WITHIN x DEFINE",
        ] {
            assert_eq!(known(text), text);
        }
    }
}
