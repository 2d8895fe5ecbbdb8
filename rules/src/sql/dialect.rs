//! The SQL that rules are written in, as far as the parser has a choice.

use std::any::TypeId;
use std::cell::Cell;

use datafusion_sql::sqlparser::ast::Expr;
use datafusion_sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Token};

/// What `GenericDialect` reads of queries, and `FOR SYSTEM_TIME AS OF`, which it does not.
///
/// The parser tries some words in two ways or three (`INTERVAL`, `CAST`), and what is in them anew each time.
/// Where such words are nested and the text is wrong after all, that multiplies. So it may try a certain
/// number of times.
#[derive(Debug)]
pub(super) struct RuleDialect {
    tries_left: Cell<usize>,
    gave_up_at: Cell<Option<Location>>,
}

impl RuleDialect {
    /// For a text of so many tokens.
    pub(super) fn new(tokens: usize) -> Self {
        Self {
            tries_left: Cell::new(tokens.saturating_mul(TRIES_A_TOKEN).saturating_add(FEW_TRIES)),
            gave_up_at: Cell::new(None),
        }
    }

    /// Where the parser was when it had tried too often, if it has.
    pub(super) fn gave_up_at(&self) -> Option<Location> {
        self.gave_up_at.get()
    }
}

/// Far more than a text needs in which every word is tried in all ways once.
const TRIES_A_TOKEN: usize = 100;
const FEW_TRIES: usize = 10_000;

macro_rules! has {
    ($($feature:ident)*) => {
        $(fn $feature(&self) -> bool {
            true
        })*
    };
}

impl Dialect for RuleDialect {
    /// The parser asks for dialects by name in places.
    fn dialect(&self) -> TypeId {
        GenericDialect.dialect()
    }

    /// Called at the beginning of each expression: only counts.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        if let Some(left) = self.tries_left.get().checked_sub(1) {
            self.tries_left.set(left);
            return None;
        }
        let at = self.gave_up_at.get().unwrap_or(parser.peek_token_ref().span.start);
        self.gave_up_at.set(Some(at));
        Some(Err(ParserError::ParserError("too many ways to read this".into())))
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    /// `->` and `->>` bind as in PostgreSQL: looser than `+`, tighter than `=`.
    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        let is_arrow = matches!(parser.peek_token_ref().token, Token::Arrow | Token::LongArrow);
        is_arrow.then(|| Ok(self.prec_value(Precedence::PlusMinus).saturating_sub(1)))
    }

    has! {
        supports_table_versioning
        allow_extract_custom
        allow_extract_single_quotes
        support_map_literal_syntax
        supports_array_typedef_with_brackets
        supports_bitwise_shift_operators
        supports_comma_separated_trim
        supports_dictionary_syntax
        supports_empty_projections
        supports_extract_comma_syntax
        supports_filter_during_aggregation
        supports_from_first_select
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_interval_options
        supports_left_associative_joins_without_parens
        supports_limit_comma
        supports_match_recognize
        supports_named_fn_args_with_assignment_operator
        supports_nested_comments
        supports_parens_around_table_factor
        supports_partition_by_after_order_by
        supports_projection_trailing_commas
        supports_quote_delimited_string
        supports_select_wildcard_except
        supports_select_wildcard_exclude
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_select_wildcard_replace
        supports_string_escape_constant
        supports_struct_literal
        supports_try_convert
        supports_unicode_string_literal
        supports_values_as_table_factor
        supports_window_clause_named_window_reference
        supports_window_function_null_treatment_arg
    }
}
