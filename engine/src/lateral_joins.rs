//! LATERAL joins before joins that nobody seems to need are made smaller.
//!
//! DataFusion drops the side of a join whose columns are used nowhere, where rows are DISTINCT above it. It
//! asks expressions, with the subqueries in them, but a subquery of LATERAL is a node of its own: what that
//! takes from the side is not seen, and the statement fails (`sql-tests/upstream/sides-of-lateral.md`).

use crate::logical_rules::LogicalRule;

const MAKES_JOINS: &str = "decorrelate_lateral_join";
const DROPS_SIDES: &str = "eliminate_join";

/// Makes LATERAL a join before sides are dropped.
pub(crate) fn join_first(rules: &mut Vec<LogicalRule>) {
    let place = |name| rules.iter().position(|rule| rule.name() == name);
    if let (Some(drops), Some(joins)) = (place(DROPS_SIDES), place(MAKES_JOINS))
        && drops < joins
    {
        let rule = rules.remove(joins);
        rules.insert(drops, rule);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::optimizer::Optimizer;

    use super::*;

    #[test]
    fn lateral_is_a_join_when_sides_are_dropped() {
        let mut rules = Optimizer::new().rules;
        let count = rules.len();
        join_first(&mut rules);
        let names: Vec<_> = rules.iter().map(|rule| rule.name()).collect();
        let place = |name| names.iter().position(|other| *other == name).unwrap();
        assert_eq!(place(MAKES_JOINS) + 1, place(DROPS_SIDES));
        assert_eq!(names.len(), count);
    }
}
