//! The grammar of queries: DataFusion's default with `^` and `IS DISTINCT FROM` as PostgreSQL has
//! them, and with a bound on the work of parsing.
//!
//! sqlparser tries some constructs in more than one way, and forgets how an attempt inside another
//! one ended: `extract(extract(extract(...` takes twice as long with each level. Its recursion
//! limit does not help, because 2^50 is within it.
//!
//! Invariant: parsing ends after a number of steps that is linear in the number of tokens.

use std::any::TypeId;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// Expressions that may be begun for each token. Statements people write need fewer than two.
const EXPRESSIONS_PER_TOKEN: usize = 30;

/// And for short statements that backtrack more than their length suggests.
const EXPRESSIONS_MIN: usize = 20_000;

/// How tight `^` binds: tighter than `*` and `AT TIME ZONE`, less than a sign and `::`.
const POWER_PRECEDENCE: u8 = 45;
/// How tight a sign binds: `-2 ^ 2` is 4.
const SIGN_PRECEDENCE: u8 = 46;

/// DataFusion's default dialect for one statement.
///
/// It differs in three things: `/*! ... */` is a comment like any other, not SQL in disguise; `^` is
/// a power as in PostgreSQL, Redshift and DuckDB, for DataFusion it is XOR; and `IS DISTINCT FROM`
/// binds tighter than AND.
#[derive(Debug)]
pub(super) struct Grammar {
    generic: GenericDialect,
    /// Expressions that may still be begun.
    expressions_left: AtomicUsize,
}

impl Grammar {
    /// The grammar for a statement of some tokens.
    pub(super) fn for_tokens(tokens: usize) -> Self {
        let expressions = tokens.saturating_mul(EXPRESSIONS_PER_TOKEN).max(EXPRESSIONS_MIN);
        Self { generic: GenericDialect {}, expressions_left: AtomicUsize::new(expressions) }
    }
}

/// Answers each question about the grammar as the generic dialect does.
macro_rules! as_generic {
    ($($question:ident,)*) => {
        $(fn $question(&self) -> bool {
            self.generic.$question()
        })*
    };
}

impl Dialect for Grammar {
    fn dialect(&self) -> TypeId {
        self.generic.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.generic.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.generic.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.generic.is_identifier_part(ch)
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let left = self.expressions_left.load(Ordering::Relaxed);
        if left == 0 {
            // The one error that backtracking hands through.
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        self.expressions_left.store(left - 1, Ordering::Relaxed);
        let op = match parser.peek_token_ref().token {
            Token::Minus => UnaryOperator::Minus,
            Token::Plus => UnaryOperator::Plus,
            _ => return None,
        };
        parser.advance_token();
        let signed = parser.parse_subexpr(SIGN_PRECEDENCE);
        Some(signed.map(|expr| Expr::UnaryOp { op, expr: Box::new(expr) }))
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        base: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        // The parser would take all that follows for the right side, `AND c` too.
        let is_not =
            parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if is_not || parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            let left = Box::new(base.clone());
            let right = parser.parse_subexpr(precedence).map(Box::new);
            return Some(right.map(|right| match is_not {
                true => Expr::IsNotDistinctFrom(left, right),
                false => Expr::IsDistinctFrom(left, right),
            }));
        }
        if parser.peek_token_ref().token != Token::Caret {
            return None;
        }
        parser.advance_token();
        let exponent = parser.parse_subexpr(precedence);
        Some(exponent.map(|exponent| Expr::BinaryOp {
            left: Box::new(base.clone()),
            op: BinaryOperator::PGExp,
            right: Box::new(exponent),
        }))
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        let is_power = parser.peek_token_ref().token == Token::Caret;
        is_power.then_some(Ok(POWER_PRECEDENCE))
    }

    as_generic! {
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_start_transaction_modifier,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_parenthesized_set_variables,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_create_view_comment_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_update_order_by,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_asc_desc_in_column_definition,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_user_host_grantee,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_data_type_signed_suffix,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_optimize_table,
        supports_install,
        supports_detach,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};

    use super::Grammar;

    #[test]
    fn the_grammar_answers_for_the_generic_dialect() {
        let grammar = Grammar::for_tokens(1);
        assert_eq!(grammar.dialect(), GenericDialect {}.dialect());
        let words: BTreeSet<char> = ['a', '_', '#', '@', '$', '"', '`', '1', ' '].into();
        for ch in words {
            assert_eq!(grammar.is_identifier_start(ch), GenericDialect {}.is_identifier_start(ch));
            assert_eq!(grammar.is_identifier_part(ch), GenericDialect {}.is_identifier_part(ch));
        }
        assert!(!grammar.supports_multiline_comment_hints());
    }
}
