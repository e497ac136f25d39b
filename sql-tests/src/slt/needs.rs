//! What records of DataFusion's own files need that SQL alone does not give.
//!
//! A rule over the text of a file, never a list of names: each record is judged by its own SQL,
//! and by what the records before it left: the relations that they made or would have made, and
//! the settings that they changed. Such a record is no failure of whoever cannot answer it.
//!
//! Not here: which records plain DataFusion itself does not answer as the file says, which only a
//! run in lockstep can tell ([`Need::NotPlain`]).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Component, Path};

use datafusion::prelude::SessionContext;
use datafusion::sql::parser::DFParser;
use datafusion::sql::resolve::resolve_table_references;
use sqllogictest::{QueryExpect, Record, StatementExpect};

use super::engine::SltType;
use super::sketch::Sketch;
use super::{agree, source};

macro_rules! needs {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// Why a record is left out of the judgement.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Need { $($(#[$doc])* $variant,)* }

        impl Need {
            /// The word in reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

needs! {
    /// The file tests the functions of another crate.
    Spark = "spark", "functions and dialect of the crate datafusion-spark";
    /// Files beside the crate.
    DataOutside = "data-outside", "reads files that the crate does not have (../...)";
    /// A remote object store.
    ObjectStore = "object-store", "names an object store (s3://, https://, ...)";
    /// CREATE EXTERNAL TABLE over files of the crate or of earlier records.
    ExternalTable = "external-table", "CREATE EXTERNAL TABLE, whose statement Basalt does not have";
    /// COPY TO.
    CopyTo = "copy-to", "COPY ... TO writes files where the engine runs";
    /// A path in the place of a table or an argument.
    FileName = "file-name", "reads files of the crate or of earlier records by their names";
    /// EXPLAIN.
    Plan = "plan", "EXPLAIN: the text of a plan for one process";
    /// What the catalog has, by DataFusion's names.
    Catalog = "catalog", "shows the catalog: DataFusion's names of catalogs, schemas and types";
    /// SET, RESET and SHOW of DataFusion's settings.
    Setting = "setting", "sets, resets or shows a setting of DataFusion";
    /// A relation that nothing in the file makes.
    RunnerTable = "runner-table", "a table that no record makes: DataFusion's runner registers it";
    /// A relation that an excluded record was to make.
    DependsOnExcluded = "depends-on-excluded", "a table or a prepared statement that an excluded record makes";
    /// Answers depend on a setting that is changed.
    SettingInForce = "setting-in-force", "stands where a setting of DataFusion that changes answers is changed";
    /// LIMIT without ORDER BY.
    AnyRows = "any-rows", "LIMIT without ORDER BY: SQL does not say which rows";
    /// Plain DataFusion does not answer as the file says.
    NotPlain = "not-plain", "plain DataFusion, given the same SQL and nothing else, is not as the file says";
}

/// Settings that change answers; the others change plans, their text and their speed.
const ANSWERS: [&str; 9] = [
    "datafusion.sql_parser.",
    "datafusion.format.",
    "datafusion.runtime.",
    "datafusion.spark.",
    "datafusion.catalog.default_",
    "datafusion.catalog.create_default_",
    "datafusion.execution.time_zone",
    "datafusion.execution.enable_ansi_mode",
    "datafusion.execution.enable_recursive_ctes",
];
/// Schemes of object stores.
const SCHEMES: [&str; 7] = ["s3://", "s3a://", "gs://", "gcs://", "http://", "https://", "oss://"];
/// Endings of names of files.
const ENDINGS: [&str; 6] = [".csv", ".parquet", ".json", ".arrow", ".avro", ".ndjson"];

/// A record's need, and whether it is run in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excluded {
    pub(super) need: Need,
    /// Not where it could only fail, or would read or write files.
    pub(super) runs: bool,
}

/// The state of a file between its records.
pub(super) struct Scan {
    is_spark: bool,
    /// Relations and prepared statements that are there.
    made: HashSet<String>,
    /// Those that an excluded record was to make or to fill, and whether they are there.
    lost: HashMap<String, bool>,
    /// Settings that change answers and are changed.
    in_force: BTreeSet<String>,
    defaults: HashMap<String, String>,
    table_functions: HashSet<String>,
}

impl Scan {
    /// The state before the first record of a file.
    pub(super) fn new(path: &Path) -> Self {
        let session = SessionContext::new();
        let state = session.state();
        let entries = state.config_options().entries().into_iter();
        Self {
            is_spark: path.components().any(|part| part == Component::Normal("spark".as_ref())),
            made: HashSet::new(),
            lost: HashMap::new(),
            in_force: BTreeSet::new(),
            defaults: entries.map(|e| (e.key, e.value.unwrap_or_default())).collect(),
            table_functions: state.table_functions().keys().cloned().collect(),
        }
    }

    /// Judges the next record.
    pub(super) fn next(&mut self, record: &Record<SltType>) -> Option<Excluded> {
        if self.is_spark {
            return Some(Excluded { need: Need::Spark, runs: false });
        }
        let sql = source::sql(record);
        let sketch = Sketch::of(sql);
        let relations = relations(sql, &sketch);
        let excluded = self.excluded(record, &sketch, &relations);
        if !fails(record) {
            self.follow(&sketch, excluded);
        }
        excluded
    }

    fn excluded(
        &self,
        record: &Record<SltType>,
        sketch: &Sketch,
        relations: &Relations,
    ) -> Option<Excluded> {
        if let Some(need) = of_files(sketch, relations) {
            return Some(Excluded { need, runs: false });
        }
        // What is there can be dropped, whatever its rows.
        let is_lost = relations.names().any(|name| match self.lost.get(name) {
            Some(is_there) => !(*is_there && sketch.starts_with("drop")),
            None => false,
        });
        let excluded = |need| Some(Excluded { need, runs: !is_lost });
        if sketch.starts_with("explain") {
            return excluded(Need::Plan);
        }
        if is_setting(sketch) {
            return excluded(Need::Setting);
        }
        if is_lost {
            return excluded(Need::DependsOnExcluded);
        }
        if is_catalog(sketch) {
            return excluded(Need::Catalog);
        }
        if !fails(record) && relations.parsed().any(|name| self.is_of_the_runner(name, sketch)) {
            return excluded(Need::RunnerTable);
        }
        if !self.in_force.is_empty() {
            return excluded(Need::SettingInForce);
        }
        let is_any = sketch.has("limit") && !agree::is_ordered(source::sql(record));
        if is_any && !fails(record) { excluded(Need::AnyRows) } else { None }
    }

    fn is_of_the_runner(&self, name: &str, sketch: &Sketch) -> bool {
        let is_known = self.made.contains(name)
            || self.lost.contains_key(name)
            || self.table_functions.contains(name)
            || sketch.made().as_deref() == Some(name);
        // DROP ... IF EXISTS needs nothing.
        let may_lack = sketch.starts_with("drop") && sketch.has("if");
        !is_known && !may_lack
    }

    /// Takes over what a record leaves.
    fn follow(&mut self, sketch: &Sketch, excluded: Option<Excluded>) {
        if let Some(name) = sketch.dropped() {
            self.made.remove(&name);
            self.lost.remove(&name);
        }
        // Rows that are not there: its table is not what the file goes on with.
        if let Some(name) =
            sketch.changed().filter(|_| excluded.is_some_and(|excluded| !excluded.runs))
        {
            let is_there = self.made.remove(&name) || self.lost.get(&name) == Some(&true);
            self.lost.insert(name, is_there);
        }
        if let Some(name) = sketch.made() {
            let is_made =
                excluded.is_none_or(|excluded| excluded.runs && excluded.need != Need::RunnerTable);
            if is_made {
                self.lost.remove(&name);
                self.made.insert(name);
            } else {
                self.made.remove(&name);
                self.lost.insert(name, false);
            }
        }
        if let Some((name, value)) = sketch.setting() {
            let is_default = match (value.as_deref(), self.defaults.get(&name)) {
                (None, _) => true,
                (Some(value), Some(default)) => value.eq_ignore_ascii_case(default),
                (Some(value), None) => value.eq_ignore_ascii_case("unlimited"),
            };
            if is_default {
                self.in_force.remove(&name);
            } else if ANSWERS.iter().any(|prefix| name.starts_with(prefix)) {
                self.in_force.insert(name);
            }
        }
    }
}

/// Whether the file expects an error.
fn fails(record: &Record<SltType>) -> bool {
    matches!(
        record,
        Record::Statement { expected: StatementExpect::Error(_), .. }
            | Record::Query { expected: QueryExpect::Error(_), .. }
    )
}

/// What a record needs that reads or writes files.
fn of_files(sketch: &Sketch, relations: &Relations) -> Option<Need> {
    let starts = |prefixes: &[&str]| {
        sketch.strings().any(|text| prefixes.iter().any(|prefix| text.starts_with(prefix)))
    };
    let is_external = sketch.starts_with("create") && sketch.has("external");
    if starts(&SCHEMES) && (is_external || sketch.starts_with("copy")) {
        return Some(Need::ObjectStore);
    }
    if starts(&["../"]) {
        return Some(Need::DataOutside);
    }
    if sketch.starts_with("copy") && sketch.has("to") {
        return Some(Need::CopyTo);
    }
    if is_external {
        return Some(Need::ExternalTable);
    }
    let is_file = |name: &str| {
        ENDINGS.iter().any(|ending| name.ends_with(ending))
            || SCHEMES.iter().any(|scheme| name.starts_with(scheme))
    };
    if starts(&["test_files/", "data/"]) || relations.parsed().any(is_file) {
        return Some(Need::FileName);
    }
    None
}

/// Whether a statement is about DataFusion's settings. `SHOW TABLES` and its like are not, nor is
/// `SET` of a setting that SQL knows (`TIME ZONE`).
fn is_setting(sketch: &Sketch) -> bool {
    const SHOWN: [&str; 4] = ["tables", "columns", "functions", "create"];
    let is_datafusions = sketch.words().any(|word| word == "datafusion");
    (sketch.starts_with("set") || sketch.starts_with("reset")) && is_datafusions
        || sketch.starts_with("show")
            && sketch.words().nth(1).is_some_and(|word| !SHOWN.contains(&word))
        || sketch.has("df_settings")
}

/// Whether a statement shows what the catalog has.
fn is_catalog(sketch: &Sketch) -> bool {
    ["show", "describe", "desc"].iter().any(|word| sketch.starts_with(word))
        || sketch.has("information_schema")
}

/// The relations that a statement names.
enum Relations {
    /// By DataFusion's parser; functions in FROM are among them.
    Parsed(HashSet<String>),
    /// All words: the text does not parse.
    Words(HashSet<String>),
}

impl Relations {
    fn names(&self) -> impl Iterator<Item = &str> {
        let (Self::Parsed(names) | Self::Words(names)) = self;
        names.iter().map(String::as_str)
    }

    /// Those that are relations for sure.
    fn parsed(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Parsed(names) => Some(names),
            Self::Words(_) => None,
        };
        names.into_iter().flatten().map(String::as_str)
    }
}

fn relations(sql: &str, sketch: &Sketch) -> Relations {
    let mut names = HashSet::new();
    names.extend(sketch.executed());
    let Ok(statements) = DFParser::parse_sql(sql) else {
        names.extend(sketch.words().map(str::to_owned));
        return Relations::Words(names);
    };
    for statement in &statements {
        let Ok((tables, _)) = resolve_table_references(statement, true) else { continue };
        let plain = tables.iter().filter(|table| table.schema() != Some("information_schema"));
        names.extend(plain.map(|table| table.table().to_owned()));
    }
    Relations::Parsed(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs_in(path: &str, text: &str) -> Vec<Option<&'static str>> {
        let mut scan = Scan::new(Path::new(path));
        let records = sqllogictest::parse::<SltType>(text).unwrap();
        let counted = records.iter().filter(|record| source::counts(record));
        counted.map(|record| scan.next(record).map(|excluded| excluded.need.name())).collect()
    }

    /// Each statement with the word for what it needs; `-` for nothing, `!` where it is to fail.
    fn check(statements: &[(&str, &str)]) {
        let mut text = String::new();
        for (sql, need) in statements {
            let expected = if need.starts_with('!') { "error" } else { "ok" };
            text.push_str(&format!("statement {expected}\n{sql}\n\n"));
        }
        let needs = needs_in("x.slt", &text);
        for ((sql, expected), need) in statements.iter().zip(needs) {
            let expected = expected.trim_start_matches('!');
            assert_eq!(need.unwrap_or("-"), expected, "{sql}\nin\n{text}");
        }
    }

    #[test]
    fn sql_alone_needs_nothing() {
        check(&[
            ("CREATE TABLE t (a INT) AS VALUES (1)", "-"),
            ("WITH c AS (SELECT * FROM t) SELECT * FROM c, generate_series(1, 2)", "-"),
            ("INSERT INTO public.T VALUES (2)", "-"),
            ("SET TIME ZONE = '+01:00'", "-"),
            ("DROP TABLE t", "-"),
            ("SELECT * FROM t", "!-"),
        ]);
    }

    #[test]
    fn files_are_needed_by_statement_and_by_name() {
        check(&[
            (
                "CREATE EXTERNAL TABLE a STORED AS CSV LOCATION '../../testing/a.csv'",
                "data-outside",
            ),
            (
                "CREATE EXTERNAL TABLE b STORED AS CSV LOCATION 'test_files/scratch/b'",
                "external-table",
            ),
            ("CREATE EXTERNAL TABLE c STORED AS CSV LOCATION 's3://bucket/c.csv'", "object-store"),
            ("COPY (SELECT 1) TO 'test_files/scratch/x.csv'", "copy-to"),
            ("SELECT * FROM 'test_files/x/data.csv'", "file-name"),
            ("SELECT * FROM parquet_metadata('../x.parquet')", "data-outside"),
        ]);
    }

    #[test]
    fn what_an_excluded_record_makes_is_lost_until_it_is_made_again() {
        check(&[
            ("CREATE EXTERNAL TABLE a STORED AS CSV LOCATION '../a.csv'", "data-outside"),
            ("SELECT x.b FROM a x", "depends-on-excluded"),
            ("SELECT nonsense FROM a", "!depends-on-excluded"),
            ("CREATE VIEW v AS SELECT * FROM a", "depends-on-excluded"),
            ("SELECT * FROM v", "depends-on-excluded"),
            ("PREPARE p AS SELECT * FROM v", "depends-on-excluded"),
            ("EXECUTE p", "depends-on-excluded"),
            ("SELECT 'a', a FROM (VALUES (1)) AS s(a)", "-"),
            ("DROP VIEW v", "depends-on-excluded"),
            ("CREATE TABLE v AS VALUES (1)", "-"),
            ("SELECT * FROM v", "-"),
            ("INSERT INTO v SELECT * FROM a", "depends-on-excluded"),
            ("SELECT * FROM v", "depends-on-excluded"),
            ("SELECT * INTO w FROM v", "depends-on-excluded"),
            ("DROP TABLE v", "-"),
            ("CREATE TABLE v AS VALUES (1)", "-"),
            ("SELECT * FROM v", "-"),
            ("SELECT * FROM w", "depends-on-excluded"),
            ("DROP TABLE IF EXISTS u", "-"),
            ("DROP TABLE u", "runner-table"),
        ]);
    }

    #[test]
    fn plans_catalogs_and_settings_are_datafusions_own() {
        check(&[
            ("SELECT * FROM information_schema.tables", "catalog"),
            ("SHOW TABLES", "catalog"),
            ("SELECT a FROM (VALUES (1), (2)) t(a) LIMIT 1", "any-rows"),
            ("SELECT a FROM (VALUES (1), (2)) t(a) ORDER BY a LIMIT 1", "-"),
            ("DESCRIBE SELECT 1", "catalog"),
            ("EXPLAIN SELECT 1", "plan"),
            ("set datafusion.execution.batch_size = 2", "setting"),
            ("SHOW datafusion.execution.batch_size", "setting"),
            ("SELECT * FROM information_schema.df_settings", "setting"),
            ("SELECT 1", "-"),
        ]);
    }

    #[test]
    fn a_setting_that_changes_answers_is_in_force_until_it_is_as_it_was() {
        check(&[
            ("set datafusion.sql_parser.dialect = 'mysql'", "setting"),
            ("SELECT 1", "setting-in-force"),
            ("set datafusion.sql_parser.dialect to generic", "setting"),
            ("SELECT 1", "-"),
            ("set datafusion.execution.time_zone = '+08:00'", "setting"),
            ("SELECT 1", "setting-in-force"),
            ("reset datafusion.execution.time_zone", "setting"),
            ("SELECT 1", "-"),
        ]);
    }

    #[test]
    fn a_table_that_nothing_makes_is_the_runners() {
        check(&[
            ("SELECT * FROM table_with_many_types", "runner-table"),
            ("SELECT * FROM table_with_many_types", "!-"),
            ("CREATE TABLE t AS SELECT * FROM table_with_many_types", "runner-table"),
            ("SELECT * FROM t", "depends-on-excluded"),
        ]);
    }

    #[test]
    fn a_folder_named_spark_is_another_crates() {
        let text = "statement ok\nSELECT 1\n";
        assert_eq!(needs_in("test_files/spark/math/abs.slt", text), [Some("spark")]);
        assert_eq!(needs_in("test_files/sparkling.slt", text), [None]);
    }
}
