//! Random commands against a naive model: the same are refused, the same is visible, and the
//! log brings it back.

use std::collections::{BTreeMap, BTreeSet};

use basalt_coordinator::catalog::{Catalog, Change, Command, NewCluster, NewTable, State};
use basalt_engine::snapshot::{Relation, Snapshot};
use basalt_storage::ids::{SegmentId, TableId, TxnId, WorkerId};
use proptest::prelude::*;

use super::fixtures::{command, join, new_table, segment};

/// One step of a random command; small numbers so that steps meet each other.
#[derive(Debug, Clone)]
enum Step {
    CreateSchema(u8),
    DropSchema(u8),
    CreateTable { schema: u8, name: u8, fresh: bool },
    DropTable(u8),
    CreateView { schema: u8, name: u8 },
    DropView { schema: u8, name: u8 },
    Append { table: u8, rows: u32, version: u32 },
    AppendAgain,
}

fn step() -> impl Strategy<Value = Step> {
    let schema = || 0..3u8;
    let name = || 0..4u8;
    prop_oneof![
        1 => schema().prop_map(Step::CreateSchema),
        1 => schema().prop_map(Step::DropSchema),
        4 => (schema(), name(), prop::bool::weighted(0.9))
            .prop_map(|(schema, name, fresh)| Step::CreateTable { schema, name, fresh }),
        2 => (0..8u8).prop_map(Step::DropTable),
        1 => (schema(), name()).prop_map(|(schema, name)| Step::CreateView { schema, name }),
        1 => (schema(), name()).prop_map(|(schema, name)| Step::DropView { schema, name }),
        6 => (0..8u8, 1..9u32, prop::sample::select(vec![1, 1, 1, 1, 1, 1, 2]))
            .prop_map(|(table, rows, version)| Step::Append { table, rows, version }),
        1 => Just(Step::AppendAgain),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec(step(), 1..4), 1..40)
}

#[derive(Debug, Clone, PartialEq)]
enum ModelRelation {
    Table { id: TableId, segments: Vec<(SegmentId, u64)> },
    View,
}

/// The obvious way: names to relations, everything copied.
#[derive(Debug, Clone, Default)]
struct Model {
    schemas: BTreeSet<String>,
    relations: BTreeMap<(String, String), ModelRelation>,
    used: BTreeSet<TableId>,
    segments: BTreeSet<SegmentId>,
}

impl Model {
    /// Does one change; `None` when it must be refused.
    fn change(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::CreateSchema { name } => self.schemas.insert(name.clone()).then_some(()),
            Change::DropSchema { name } => {
                let used = self.relations.keys().any(|(schema, _)| schema == name);
                (name != "public" && !used && self.schemas.remove(name)).then_some(())
            }
            Change::CreateTable(NewTable { id, schema, name, .. }) => {
                let table = ModelRelation::Table { id: *id, segments: Vec::new() };
                self.add(schema, name, table)?;
                self.used.insert(*id).then_some(())
            }
            Change::CreateView { schema, name, .. } => self.add(schema, name, ModelRelation::View),
            Change::DropView { schema, name } => {
                let key = (schema.clone(), name.clone());
                let dropped = (self.relations.get(&key)? == &ModelRelation::View).then_some(());
                self.relations.remove(&key);
                dropped
            }
            Change::DropTable { table, .. } => {
                let key = self.find(*table)?;
                self.relations.remove(&key).map(|_| ())
            }
            Change::AddSegments { table, schema_version: 1, segments: new } => {
                let key = self.find(*table)?;
                let known = &mut self.segments;
                let fresh = new.iter().all(|segment| known.insert(segment.segment));
                let Some(ModelRelation::Table { segments, .. }) = self.relations.get_mut(&key)
                else {
                    return None;
                };
                segments.extend(new.iter().map(|segment| (segment.segment, segment.rows)));
                fresh.then_some(())
            }
            _ => None,
        }
    }

    fn add(&mut self, schema: &str, name: &str, relation: ModelRelation) -> Option<()> {
        let key = (schema.to_owned(), name.to_owned());
        let free = self.schemas.contains(schema) && !self.relations.contains_key(&key);
        free.then(|| self.relations.insert(key, relation)).map(|_| ())
    }

    fn find(&self, table: TableId) -> Option<(String, String)> {
        let is_it = |relation: &ModelRelation| matches!(relation, ModelRelation::Table { id, .. } if *id == table);
        self.relations.iter().find(|(_, relation)| is_it(relation)).map(|(key, _)| key.clone())
    }

    fn check(&self, snapshot: &Snapshot) {
        let schemas: BTreeSet<_> = snapshot.schemas.keys().cloned().collect();
        assert_eq!(schemas, self.schemas);
        let mut seen = BTreeMap::new();
        for (schema, relations) in &snapshot.schemas {
            for (name, relation) in &relations.relations {
                let relation = match relation {
                    Relation::View(_) => ModelRelation::View,
                    Relation::Table(table) => ModelRelation::Table {
                        id: table.id,
                        segments: (table.segments.iter())
                            .map(|segment| (segment.segment, segment.rows))
                            .collect(),
                    },
                };
                seen.insert((schema.clone(), name.clone()), relation);
            }
        }
        assert_eq!(seen, self.relations);
    }
}

/// Turns steps into commands, with ids that mostly make sense.
struct Script {
    worker: WorkerId,
    next_table: u64,
    tables: Vec<TableId>,
    last_append: Option<Change>,
}

impl Script {
    fn schema(schema: u8) -> String {
        ["public", "a", "b"][usize::from(schema)].to_owned()
    }

    fn name(name: u8) -> String {
        format!("r{name}")
    }

    fn table(&self, index: u8) -> TableId {
        let at = usize::from(index) % self.tables.len().max(1);
        self.tables.get(at).copied().unwrap_or(TableId(1))
    }

    fn change(&mut self, step: &Step, txn: TxnId) -> Option<Change> {
        Some(match *step {
            Step::CreateSchema(schema) => Change::CreateSchema { name: Self::schema(schema) },
            Step::DropSchema(schema) => Change::DropSchema { name: Self::schema(schema) },
            Step::CreateTable { schema, name, fresh } => {
                if fresh || self.tables.is_empty() {
                    self.next_table += 1;
                    self.tables.push(TableId(self.next_table));
                }
                let mut table = new_table(*self.tables.last()?, &Self::name(name));
                table.schema = Self::schema(schema);
                Change::CreateTable(table)
            }
            Step::DropTable(table) => Change::DropTable { table: self.table(table), version: None },
            Step::CreateView { schema, name } => Change::CreateView {
                schema: Self::schema(schema),
                name: Self::name(name),
                query: "select 1".to_owned(),
            },
            Step::DropView { schema, name } => {
                Change::DropView { schema: Self::schema(schema), name: Self::name(name) }
            }
            Step::Append { table, rows, version } => {
                let table = self.table(table);
                let segments = vec![segment(table, txn, rows, self.worker)];
                let append = Change::AddSegments { table, schema_version: version, segments };
                self.last_append = Some(append.clone());
                append
            }
            Step::AppendAgain => {
                let mut again = self.last_append.clone()?;
                if let Change::AddSegments { segments, .. } = &mut again {
                    segments.iter_mut().for_each(|segment| segment.txn = txn);
                }
                again
            }
        })
    }

    fn command(&mut self, steps: &[Step]) -> Command {
        let txn = TxnId::generate();
        let changes = steps.iter().filter_map(|step| self.change(step, txn)).collect();
        Command::new(txn, 0, changes)
    }
}

fn setup(worker: WorkerId) -> Command {
    let mut changes = vec![Change::ReserveTableIds { count: 1000 }];
    changes.extend(join(&[worker]));
    command(changes)
}

fn new_script(worker: WorkerId) -> (Script, Model) {
    let script = Script { worker, next_table: 0, tables: Vec::new(), last_append: None };
    let schemas = BTreeSet::from(["public".to_owned()]);
    (script, Model { schemas, ..Model::default() })
}

/// The model after the command, when it must succeed.
fn expected(model: &Model, command: &Command) -> Option<Model> {
    let mut next = model.clone();
    command.changes.iter().try_for_each(|change| next.change(change)).map(|()| next)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_machine_does_what_the_naive_model_does(commands in commands()) {
        let worker = WorkerId::generate();
        let (mut script, mut model) = new_script(worker);
        let founding = command(vec![
            Change::CreateCluster(NewCluster::generate()),
            Change::CreateSchema { name: "public".to_owned() },
        ]);
        let mut log = vec![founding, setup(worker)];
        let mut state = State::new();
        for command in &log {
            state.apply(command.clone()).unwrap();
        }
        for steps in commands {
            let command = script.command(&steps);
            let before = state.digest().unwrap();
            let result = state.apply(command.clone());
            match expected(&model, &command) {
                Some(next) => {
                    prop_assert!(result.is_ok(), "{command:?}: {result:?}");
                    model = next;
                    log.push(command);
                }
                None => {
                    prop_assert!(result.is_err(), "{command:?}");
                    prop_assert_eq!(state.digest().unwrap(), before);
                }
            }
            model.check(&state.snapshot(&BTreeMap::new()).unwrap());
        }
        let mut replayed = State::new();
        for command in log {
            let json = serde_json::to_vec(&command).unwrap();
            replayed.apply(serde_json::from_slice(&json).unwrap()).unwrap();
        }
        prop_assert_eq!(replayed.digest().unwrap(), state.digest().unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_catalog_opened_after_each_commit_is_the_one_that_was_closed(
        commands in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let worker = WorkerId::generate();
        let (mut script, mut model) = new_script(worker);
        let mut catalog = Catalog::create(dir.path(), NewCluster::generate()).unwrap();
        runtime.block_on(catalog.commit(setup(worker))).unwrap();
        for steps in commands {
            let command = script.command(&steps);
            let next = expected(&model, &command);
            let result = runtime.block_on(catalog.commit(command));
            prop_assert_eq!(result.is_ok(), next.is_some());
            model = next.unwrap_or(model);
            let before = format!("{:?}", catalog.snapshot());
            drop(catalog);
            catalog = Catalog::open(dir.path()).unwrap();
            prop_assert_eq!(format!("{:?}", catalog.snapshot()), before);
            model.check(&catalog.snapshot());
        }
    }
}
