//! The standard's spelling of a window's data, `TABLE t PARTITION BY k`, is not known to the parser. Before
//! it sees the tokens, `SESSION(TABLE t PARTITION BY k, ..)` becomes `SESSION(t, partition_by(k), ..)`.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::{FORMS, PARTITION_BY};

/// Rewrites the data of each window function.
pub(in crate::sql) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).peekable();
    while let Some(token) = rest.next() {
        let is_window = matches!(
            &token.token,
            Token::Word(word) if FORMS.iter().any(|(name, _)| word.value.eq_ignore_ascii_case(name)),
        );
        rewritten.push(token);
        if !is_window {
            continue;
        }
        let Some(open) = rest.next_if(|token| token.token == Token::LParen) else { continue };
        rewritten.push(open);
        // A stream could be called `table`, in quotes.
        rest.next_if(|token| is_keyword(&token.token, Keyword::TABLE));
        while let Some(name) = rest.next_if(|token| {
            matches!(&token.token, Token::Word(word) if word.keyword != Keyword::PARTITION)
                || token.token == Token::Period
        }) {
            rewritten.push(name);
        }
        if let Some(partition) = rest.next_if(|token| is_keyword(&token.token, Keyword::PARTITION)) {
            let put = |token: Token| TokenWithSpan { token, span: partition.span };
            if rest.next_if(|token| is_keyword(&token.token, Keyword::BY)).is_none() {
                rewritten.push(partition);
                continue;
            }
            rewritten.extend([put(Token::Comma), put(Token::Word(word(PARTITION_BY)))]);
            if rest.peek().is_some_and(|token| token.token == Token::LParen) {
                continue;
            }
            rewritten.push(put(Token::LParen));
            key(&mut rest, &mut rewritten);
            rewritten.push(put(Token::RParen));
        }
    }
    rewritten
}

/// One key without parentheses; the comma behind it ends it.
fn key(
    rest: &mut std::iter::Peekable<impl Iterator<Item = TokenWithSpan>>,
    rewritten: &mut Vec<TokenWithSpan>,
) {
    let mut depth = 0_u32;
    while let Some(token) = rest
        .next_if(|token| depth > 0 || !matches!(token.token, Token::Comma | Token::RParen | Token::SemiColon))
    {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        rewritten.push(token);
    }
}

fn is_keyword(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none())
}

fn word(value: &str) -> Word {
    Word { value: value.to_owned(), quote_style: None, keyword: Keyword::NoKeyword }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_sql::sqlparser::dialect::GenericDialect;
    use datafusion_sql::sqlparser::tokenizer::Tokenizer;

    fn rewritten(text: &str) -> String {
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap();
        rewrite(tokens).iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_standards_spelling_becomes_arguments() {
        assert_eq!(
            rewritten("SESSION(t PARTITION BY k, DESCRIPTOR(ts), 1)"),
            "SESSION ( t , partition_by ( k ) , DESCRIPTOR ( ts ) , 1 )"
        );
        assert_eq!(
            rewritten("session(TABLE a.t PARTITION BY (k, f(j)), x)"),
            "session ( a . t , partition_by ( k , f ( j ) ) , x )"
        );
        assert_eq!(
            rewritten("COUNT_WINDOW(t PARTITION BY coalesce(a, b), 5)"),
            "COUNT_WINDOW ( t , partition_by ( coalesce ( a , b ) ) , 5 )"
        );
        assert_eq!(
            rewritten("TABLE(HOP(TABLE t, DESCRIPTOR(ts)))"),
            "TABLE ( HOP ( t , DESCRIPTOR ( ts ) ) )"
        );
    }

    #[test]
    fn all_else_stays() {
        for text in [
            "SELECT lag ( x ) OVER ( PARTITION BY k )",
            "SELECT session FROM t",
            "SESSION ( t PARTITION k )",
            "TUMBLE (",
            "HOP ( t PARTITION",
        ] {
            assert_eq!(rewritten(text), text);
        }
    }
}
