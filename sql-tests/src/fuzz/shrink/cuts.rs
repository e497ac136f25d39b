//! The queries that are one cut smaller than a query.
//!
//! What a query's meaning rests on is kept: orders under a LIMIT and inside windows go as a whole
//! or not at all, for with a part of it gone the rows would not be defined.

use super::super::ast::{Body, Expr, Family, Grouping, Query, Relation, Select};

/// All queries one cut smaller.
pub(super) fn of_query(query: &Query) -> Vec<Query> {
    let mut cuts = Vec::new();
    for index in 0..query.with.len() {
        let mut with = query.with.clone();
        let (name, inner) = with.remove(index);
        cuts.push(Query { with: with.clone(), ..query.clone() });
        for cut in of_query(&inner) {
            let mut with = with.clone();
            with.insert(index, (name.clone(), cut));
            cuts.push(Query { with, ..query.clone() });
        }
    }
    if !query.order_by.is_empty() {
        let (order_by, limit, offset) = (Vec::new(), None, None);
        cuts.push(Query { order_by, limit, offset, ..query.clone() });
        if query.offset.is_some() {
            cuts.push(Query { offset: None, ..query.clone() });
        }
        if query.limit.is_some() {
            cuts.push(Query { limit: None, offset: None, ..query.clone() });
        }
    }
    cuts.extend(of_body(query));
    cuts
}

fn of_body(query: &Query) -> Vec<Query> {
    let with_body = |body| Query { body, ..query.clone() };
    match &query.body {
        Body::Select(select) => of_select(select)
            .into_iter()
            .map(|cut| {
                // An order by a column that is gone goes with it.
                let is_left = |(key, _): &(Expr, &str)| {
                    cut.items.iter().any(|(_, name)| *name == key.template)
                };
                let order_by: Vec<_> =
                    query.order_by.iter().filter(|key| is_left(key)).cloned().collect();
                Query { order_by, ..with_body(Body::Select(Box::new(cut))) }
            })
            .collect(),
        Body::SetOperation { operator, left, right } => {
            let side = |side: &Query| {
                let mut with = query.with.clone();
                with.extend(side.with.clone());
                Query { with, ..side.clone() }
            };
            let mut cuts = vec![side(left), side(right)];
            let rebuilt = |left: Query, right: Query| {
                let (left, right) = (Box::new(left), Box::new(right));
                with_body(Body::SetOperation { operator, left, right })
            };
            cuts.extend(of_query(left).into_iter().map(|cut| rebuilt(cut, (**right).clone())));
            cuts.extend(of_query(right).into_iter().map(|cut| rebuilt((**left).clone(), cut)));
            // A column of both sides at once.
            if let (Some(l), Some(r)) = (left.as_select(), right.as_select()) {
                let count = l.items.len().min(r.items.len());
                for index in (0..count).filter(|_| count > 1) {
                    let (mut l, mut r) = (l.clone(), r.clone());
                    l.items.remove(index);
                    r.items.remove(index);
                    let mut cut = rebuilt(left.replaced(l), right.replaced(r));
                    // Keys of an order may be the columns that went: none is left.
                    (cut.order_by, cut.limit, cut.offset) = (Vec::new(), None, None);
                    cuts.push(cut);
                }
            }
            cuts
        }
        Body::Values(rows) => {
            let without = |index| {
                let mut rows = rows.clone();
                rows.remove(index);
                with_body(Body::Values(rows))
            };
            (0..rows.len()).filter(|_| rows.len() > 1).map(without).collect()
        }
    }
}

fn of_select(select: &Select) -> Vec<Select> {
    let mut cuts = Vec::new();
    if select.is_distinct {
        cuts.push(Select { is_distinct: false, ..select.clone() });
    }
    for index in 0..select.items.len() {
        if select.items.len() > 1 {
            let mut cut = select.clone();
            cut.items.remove(index);
            cuts.push(cut);
        }
        // Keys are cut below, together with their items.
        if select.group.contains(&select.items[index].0) {
            continue;
        }
        for expr in of_expr(&select.items[index].0) {
            let mut cut = select.clone();
            cut.items[index].0 = expr;
            cuts.push(cut);
        }
    }
    of_optional(&select.filter, |filter| cuts.push(Select { filter, ..select.clone() }));
    of_optional(&select.having, |having| cuts.push(Select { having, ..select.clone() }));
    of_groups(select, &mut cuts);
    if let Some(from) = &select.from {
        for (from, gone) in of_relation(from) {
            let mut cut = Select { from: Some(from), ..select.clone() };
            blind(&mut cut, &gone);
            cuts.push(cut);
        }
    }
    cuts
}

fn of_optional(predicate: &Option<Expr>, mut cut: impl FnMut(Option<Expr>)) {
    if let Some(predicate) = predicate {
        cut(None);
        of_expr(predicate).into_iter().for_each(|smaller| cut(Some(smaller)));
    }
}

fn of_groups(select: &Select, cuts: &mut Vec<Select>) {
    if select.grouping != Grouping::Plain {
        cuts.push(Select { grouping: Grouping::Plain, ..select.clone() });
    }
    for (index, key) in select.group.iter().enumerate() {
        let mut cut = Select { grouping: Grouping::Plain, ..select.clone() };
        cut.group.remove(index);
        cut.items.retain(|(expr, _)| expr != key);
        if !cut.items.is_empty() {
            cuts.push(cut);
        }
        for smaller in of_expr(key) {
            let mut cut = select.clone();
            cut.group[index] = smaller.clone();
            let same = cut.items.iter_mut().filter(|(expr, _)| expr == key);
            same.for_each(|(expr, _)| *expr = smaller.clone());
            cuts.push(cut);
        }
    }
}

/// Smaller relations, each with the names that it no longer has.
fn of_relation(relation: &Relation) -> Vec<(Relation, Vec<String>)> {
    match relation {
        Relation::Table { .. } => Vec::new(),
        Relation::Derived { query, alias } => {
            let derived = |cut: Query| {
                let gone = columns(query).into_iter().filter(|name| !columns(&cut).contains(name));
                let gone = gone.map(|name| format!("{alias}.{name}")).collect();
                let relation = Relation::Derived { query: Box::new(cut), alias: alias.clone() };
                (relation, gone)
            };
            of_query(query).into_iter().map(derived).collect()
        }
        Relation::Join { kind, left, right, on } => of_join(kind, left, right, on),
    }
}

fn of_join(
    kind: &'static str,
    left: &Relation,
    right: &Relation,
    on: &[Expr],
) -> Vec<(Relation, Vec<String>)> {
    let rebuilt = |kind, left: &Relation, right: &Relation, on: Vec<Expr>| Relation::Join {
        kind,
        left: Box::new(left.clone()),
        right: Box::new(right.clone()),
        on,
    };
    let mut cuts = vec![(left.clone(), names(right)), (right.clone(), names(left))];
    // What LATERAL names has no other place.
    if !matches!(kind, "INNER JOIN" | "CROSS JOIN") && !kind.ends_with("LATERAL") {
        cuts.push((rebuilt("INNER JOIN", left, right, on.to_vec()), Vec::new()));
    }
    for index in 0..on.len() {
        if on.len() > 1 {
            let mut on = on.to_vec();
            on.remove(index);
            cuts.push((rebuilt(kind, left, right, on), Vec::new()));
        }
        for smaller in of_expr(&on[index]) {
            let mut on = on.to_vec();
            on[index] = smaller;
            cuts.push((rebuilt(kind, left, right, on), Vec::new()));
        }
    }
    let blinded = |gone: &[String]| {
        let mut on = on.to_vec();
        on.iter_mut().for_each(|expr| blind_expr(expr, gone));
        on
    };
    for (cut, gone) in of_relation(left) {
        cuts.push((rebuilt(kind, &cut, right, blinded(&gone)), gone));
    }
    for (cut, gone) in of_relation(right) {
        cuts.push((rebuilt(kind, left, &cut, blinded(&gone)), gone));
    }
    cuts
}

/// The prefixes of the names of a relation's columns.
fn names(relation: &Relation) -> Vec<String> {
    match relation {
        Relation::Table { alias, .. } | Relation::Derived { alias, .. } => {
            vec![format!("{alias}.")]
        }
        Relation::Join { left, right, .. } => names(left).into_iter().chain(names(right)).collect(),
    }
}

fn columns(query: &Query) -> Vec<String> {
    match &query.body {
        Body::Select(select) => select.items.iter().map(|(_, name)| name.clone()).collect(),
        Body::SetOperation { left, .. } => columns(left),
        Body::Values(_) => Vec::new(),
    }
}

/// Puts NULL in the place of every column that is gone.
fn blind(select: &mut Select, gone: &[String]) {
    select.items.iter_mut().for_each(|(expr, _)| blind_expr(expr, gone));
    let others = select.filter.iter_mut().chain(&mut select.having).chain(&mut select.group);
    others.for_each(|expr| blind_expr(expr, gone));
}

fn blind_expr(expr: &mut Expr, gone: &[String]) {
    let is_gone = |name: &String| match name.ends_with('.') {
        true => expr.template.starts_with(name.as_str()),
        false => expr.template == *name,
    };
    if expr.args.is_empty() && gone.iter().any(is_gone) {
        expr.template = null(expr.family);
    }
    expr.args.iter_mut().for_each(|arg| blind_expr(arg, gone));
    if let Some(query) = &mut expr.query
        && let Body::Select(select) = &mut query.body
    {
        blind(select, gone);
    }
}

/// All expressions one cut smaller, of the same family.
fn of_expr(expr: &Expr) -> Vec<Expr> {
    let mut cuts: Vec<_> =
        expr.args.iter().filter(|arg| arg.family == expr.family).cloned().collect();
    let null = null(expr.family);
    let plain = expr.family.plain_literal();
    if expr.template != null && Some(expr.template.as_str()) != plain {
        cuts.extend(plain.map(|plain| Expr::leaf(expr.family, plain)));
        cuts.push(Expr::leaf(expr.family, null));
    }
    if let Some(query) = &expr.query {
        let with_query = |cut| Expr { query: Some(Box::new(cut)), ..expr.clone() };
        cuts.extend(of_query(query).into_iter().map(with_query));
    }
    cuts.extend(without_ends(expr));
    if expr.template.contains("ORDER BY") {
        return cuts;
    }
    for (index, arg) in expr.args.iter().enumerate() {
        for smaller in of_expr(arg) {
            let mut cut = expr.clone();
            cut.args[index] = smaller;
            cuts.push(cut);
        }
    }
    cuts
}

/// A CASE, an IN list or a FILTER without its last part.
fn without_ends(expr: &Expr) -> Option<Expr> {
    const ENDS: [(&str, &str); 3] =
        [(" ELSE {} END", " END"), (", {}))", "))"), (" FILTER (WHERE {})", "")];
    let (end, without) = ENDS.iter().find(|(end, _)| expr.template.ends_with(end))?;
    let kept = expr.template.strip_suffix(end)?;
    let mut cut = expr.clone();
    cut.template = format!("{kept}{without}");
    cut.args.pop();
    Some(cut)
}

fn null(family: Family) -> String {
    format!("CAST(NULL AS {})", family.sql_type())
}
