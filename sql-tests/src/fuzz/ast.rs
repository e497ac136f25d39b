//! Generated queries as trees, so that they can be taken apart when they fail.
//!
//! Structure where oracles and shrinking need it (clauses, joins, set operations), text where they
//! do not: an expression is a template with holes, and what fills them.
//!
//! Invariant: printing a tree gives SQL, whatever was cut out of it. Whether names still resolve is
//! not known here: a tree that means nothing is refused by every database.

use std::fmt::{self, Display, Formatter, Write};

/// What an expression yields, as coarse as generating needs it: every operand of a family fits
/// every operator of it, whatever its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// BOOLEAN.
    Bool,
    /// Integers of every width, signed or not.
    Int,
    /// REAL and DOUBLE.
    Float,
    /// DECIMAL of any precision.
    Decimal,
    /// VARCHAR.
    Text,
    /// DATE.
    Date,
    /// TIME.
    Time,
    /// TIMESTAMP.
    Timestamp,
    /// TIMESTAMP WITH TIME ZONE.
    TimestampTz,
    /// INTERVAL: has equality, no order.
    Interval,
    /// BYTEA.
    Binary,
    /// BIGINT[]: only looked into.
    List,
}

impl Family {
    /// Whether values have an order that SQL may use.
    pub fn is_ordered(self) -> bool {
        !matches!(self, Self::Interval | Self::List)
    }

    /// A type of the family.
    pub fn sql_type(self) -> &'static str {
        match self {
            Self::Bool => "BOOLEAN",
            Self::Int => "BIGINT",
            Self::Float => "DOUBLE",
            Self::Decimal => "DECIMAL(20, 4)",
            Self::Text => "VARCHAR",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::Timestamp => "TIMESTAMP",
            Self::TimestampTz => "TIMESTAMPTZ",
            Self::Interval => "INTERVAL",
            Self::Binary => "BYTEA",
            Self::List => "BIGINT[]",
        }
    }

    /// The plainest value of the family, for shrinking.
    pub fn plain_literal(self) -> Option<&'static str> {
        match self {
            Self::Bool => Some("true"),
            Self::Int => Some("1"),
            Self::Text => Some("'a'"),
            _ => None,
        }
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it yields.
    pub family: Family,
    /// Its text, with `{}` for each argument and `{q}` for the subquery.
    pub template: String,
    /// What fills the holes, in order.
    pub args: Vec<Expr>,
    /// A subquery.
    pub query: Option<Box<Query>>,
    /// Whether it is the same to the last bit however rows are spread: sums of floats are taken of
    /// these only.
    pub is_exact: bool,
}

impl Expr {
    /// An expression without arguments.
    pub fn leaf(family: Family, text: impl Into<String>) -> Self {
        Self::new(family, text, Vec::new())
    }

    /// An expression over arguments.
    pub fn new(family: Family, template: impl Into<String>, args: Vec<Self>) -> Self {
        let is_exact = args.iter().all(|arg| arg.is_exact);
        Self { family, template: template.into(), args, query: None, is_exact }
    }

    /// An expression with a subquery.
    pub fn with_query(
        family: Family,
        template: impl Into<String>,
        args: Vec<Self>,
        query: Query,
    ) -> Self {
        Self { query: Some(Box::new(query)), ..Self::new(family, template, args) }
    }

    /// The same expression with other rounding on other clusters.
    pub fn inexact(self) -> Self {
        Self { is_exact: false, ..self }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut args = self.args.iter();
        let mut rest = self.template.as_str();
        while let Some(start) = rest.find('{') {
            f.write_str(&rest[..start])?;
            rest = &rest[start..];
            if let Some(tail) = rest.strip_prefix("{}") {
                args.next().map_or(Ok(()), |arg| arg.fmt(f))?;
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix("{q}") {
                self.query.as_ref().map_or(Ok(()), |query| query.fmt(f))?;
                rest = tail;
            } else {
                f.write_char('{')?;
                rest = &rest[1..];
            }
        }
        f.write_str(rest)
    }
}

/// A query with all its clauses.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// Common table expressions.
    pub with: Vec<(String, Query)>,
    /// What makes the rows.
    pub body: Body,
    /// The order, each with its direction.
    pub order_by: Vec<(Expr, &'static str)>,
    /// How many rows, under a total order.
    pub limit: Option<u64>,
    /// How many rows are left out first.
    pub offset: Option<u64>,
}

/// What makes rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// SELECT.
    Select(Box<Select>),
    /// `left op right`.
    SetOperation {
        /// UNION, UNION ALL, INTERSECT or EXCEPT.
        operator: &'static str,
        /// The rows before the operator.
        left: Box<Query>,
        /// And behind it.
        right: Box<Query>,
    },
    /// VALUES, with rows of one length.
    Values(Vec<Vec<Expr>>),
}

impl Default for Body {
    fn default() -> Self {
        Self::Select(Box::default())
    }
}

/// A SELECT.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Select {
    /// Whether it is SELECT DISTINCT.
    pub is_distinct: bool,
    /// The columns, each with its name.
    pub items: Vec<(Expr, String)>,
    /// Where rows come from.
    pub from: Option<Relation>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY.
    pub group: Vec<Expr>,
    /// How the keys make groups.
    pub grouping: Grouping,
    /// HAVING.
    pub having: Option<Expr>,
}

/// How keys make groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Grouping {
    /// One group per combination of all keys.
    #[default]
    Plain,
    /// ROLLUP of the keys.
    Rollup,
    /// CUBE of the keys.
    Cube,
    /// GROUPING SETS of the keys at these indexes.
    Sets(Vec<Vec<usize>>),
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Relation {
    /// A table, or a common table expression.
    Table {
        /// Its name.
        name: String,
        /// Its name in the query.
        alias: String,
    },
    /// A query in parentheses.
    Derived {
        /// The query.
        query: Box<Query>,
        /// Its name.
        alias: String,
    },
    /// `left kind right ON ...`; no conditions for CROSS JOIN.
    Join {
        /// INNER JOIN and so on.
        kind: &'static str,
        /// The rows before the operator.
        left: Box<Relation>,
        /// And behind it.
        right: Box<Relation>,
        /// All of these must hold.
        on: Vec<Expr>,
    },
}

impl Query {
    /// A query that is nothing but a SELECT.
    pub fn select(select: Select) -> Self {
        Self { body: Body::Select(Box::new(select)), ..Self::default() }
    }

    /// The SELECT, when the query is nothing else.
    pub fn as_select(&self) -> Option<&Select> {
        match &self.body {
            Body::Select(select) if self.order_by.is_empty() && self.limit.is_none() => {
                Some(select)
            }
            _ => None,
        }
    }

    /// The same query with another SELECT.
    pub fn replaced(&self, select: Select) -> Self {
        Self { body: Body::Select(Box::new(select)), ..self.clone() }
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, (name, query)) in self.with.iter().enumerate() {
            write!(f, "{} {name} AS ({query})", if index == 0 { "WITH" } else { "," })?;
        }
        if !self.with.is_empty() {
            f.write_char(' ')?;
        }
        self.body.fmt(f)?;
        for (index, (expr, direction)) in self.order_by.iter().enumerate() {
            write!(f, "{} {expr} {direction}", if index == 0 { " ORDER BY" } else { "," })?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " OFFSET {offset}")?;
        }
        Ok(())
    }
}

impl Display for Body {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(select) => select.fmt(f),
            Self::SetOperation { operator, left, right } => {
                write!(f, "({left}) {operator} ({right})")
            }
            Self::Values(rows) => {
                let rows: Vec<_> = rows.iter().map(|row| format!("({})", list(row))).collect();
                write!(f, "VALUES {}", rows.join(", "))
            }
        }
    }
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_distinct { "SELECT DISTINCT " } else { "SELECT " })?;
        for (index, (expr, name)) in self.items.iter().enumerate() {
            write!(f, "{}{expr} AS {name}", if index == 0 { "" } else { ", " })?;
        }
        if let Some(from) = &self.from {
            write!(f, " FROM {from}")?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        if !self.group.is_empty() {
            write!(f, " GROUP BY {}", self.keys())?;
        }
        match &self.having {
            Some(having) => write!(f, " HAVING {having}"),
            None => Ok(()),
        }
    }
}

impl Select {
    fn keys(&self) -> String {
        let keys = list(&self.group);
        match &self.grouping {
            Grouping::Plain => keys,
            Grouping::Rollup => format!("ROLLUP ({keys})"),
            Grouping::Cube => format!("CUBE ({keys})"),
            Grouping::Sets(sets) => {
                let key = |index: &usize| self.group.get(*index).map(Expr::to_string);
                let sets: Vec<_> = sets
                    .iter()
                    .map(|set| set.iter().filter_map(key).collect::<Vec<_>>().join(", "))
                    .map(|set| format!("({set})"))
                    .collect();
                format!("GROUPING SETS ({})", sets.join(", "))
            }
        }
    }
}

impl Display for Relation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { name, alias } => write!(f, "{name} {alias}"),
            Self::Derived { query, alias } => write!(f, "({query}) {alias}"),
            Self::Join { kind, left, right, on } => {
                match **right {
                    Self::Join { .. } => write!(f, "{left} {kind} ({right})")?,
                    _ => write!(f, "{left} {kind} {right}")?,
                }
                for (index, condition) in on.iter().enumerate() {
                    write!(f, "{} {condition}", if index == 0 { " ON" } else { " AND" })?;
                }
                Ok(())
            }
        }
    }
}

fn list(exprs: &[Expr]) -> String {
    exprs.iter().map(Expr::to_string).collect::<Vec<_>>().join(", ")
}
