//! The relations that a query names without a schema, and where.
//!
//! A view keeps what its names meant when it was made, so the names that a search path decides
//! about have to be found in its text.
//!
//! Invariant: one walk over the tree. A name that a WITH clause in sight gives is none of them,
//! and neither is a table function's.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ObjectName, ObjectNamePart, Query, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::names::normalize;

/// The names of one part that no WITH clause gives, with where they begin, in order of the text.
pub(super) fn unqualified(query: &Query) -> Vec<(String, Location)> {
    let mut found = Unqualified::default();
    let _never_breaks = query.visit(&mut found);
    let mut names = found.names;
    names.sort_by_key(|(_, at)| (at.line, at.column));
    names.dedup();
    names
}

/// A query that the walk is inside of.
#[derive(Default)]
struct Scope {
    /// Queries of its WITH clauses whose names are not in sight yet.
    pending: Vec<(*const Query, String)>,
    /// Names that its WITH clauses gave so far.
    given: Vec<String>,
}

#[derive(Default)]
struct Unqualified {
    scopes: Vec<Scope>,
    /// Names of table functions, which are visited as relations too.
    functions: Vec<Location>,
    names: Vec<(String, Location)>,
}

impl Visitor for Unqualified {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut scope = Scope::default();
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let name = normalize(&cte.alias.name).unwrap_or_default();
                if with.recursive {
                    scope.given.push(name);
                } else {
                    scope.pending.push((std::ptr::from_ref(cte.query.as_ref()), name));
                }
            }
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        // The name of a WITH clause is in sight after its own query.
        if let Some(scope) = self.scopes.last_mut() {
            let done = |(pending, _): &(*const Query, String)| std::ptr::eq(*pending, query);
            if let Some(index) = scope.pending.iter().position(done) {
                let (_, name) = scope.pending.swap_remove(index);
                scope.given.push(name);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor
            && let [ObjectNamePart::Identifier(ident)] = name.0.as_slice()
        {
            self.functions.push(ident.span.start);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let [ObjectNamePart::Identifier(ident)] = relation.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        let at = ident.span.start;
        let Ok(name) = normalize(ident) else { return ControlFlow::Continue(()) };
        let given = self.scopes.iter().any(|scope| scope.given.contains(&name));
        if !given && at.line > 0 && !self.functions.contains(&at) {
            self.names.push((name, at));
        }
        ControlFlow::Continue(())
    }
}
