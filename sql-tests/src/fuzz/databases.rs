//! What answers queries: plain DataFusion in this process, and clusters behind Flight SQL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use basalt_engine::arithmetic::{with_checked_arithmetic, with_sound_floats};
use basalt_engine::rewording::{reworded, unknown_nulls};
use basalt_engine::stack::LargeStack;
use basalt_engine::types::{SqlTypes, wire_schema};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::Optimizer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::answers::{Answer, Failure};
use super::data::Table;
use crate::client::{Client, ClientError};

/// How long a query may take: generated queries take milliseconds, so this is a hang.
const QUERY_TIME_MAX: Duration = Duration::from_secs(120);

/// Anything that answers SQL, many statements at a time.
#[async_trait]
pub trait Database: Send + Sync {
    /// Runs a query to its end.
    async fn query(&self, sql: &str) -> Result<Answer, Failure>;

    /// Runs anything else to its end.
    async fn execute(&self, sql: &str) -> Result<(), Failure>;

    /// Whether it knows DISTKEY and the like.
    fn is_ours(&self) -> bool;

    /// Makes a table, in the place of one of its name.
    async fn load(&self, table: &Table) -> Result<(), Failure> {
        self.execute(&format!("DROP TABLE IF EXISTS {}", table.name)).await?;
        self.execute(&table.create(self.is_ours())).await?;
        for insert in table.inserts() {
            self.execute(&insert).await?;
        }
        if table.is_compacted && self.is_ours() {
            self.execute(&format!("VACUUM {}", table.name)).await?;
        }
        Ok(())
    }
}

/// Plain DataFusion in this process, with our meaning of type names, and with our floats: DataFusion's
/// own depend on the order of rows and on the sign of NaN, so they say nothing about ours. Where
/// it fails at its own plans, it gets the statement in other words.
#[derive(Clone)]
pub struct PlainDataFusion {
    session: SessionContext,
}

impl PlainDataFusion {
    /// DataFusion as it is: integers wrap.
    pub fn new(partitions: usize) -> Self {
        Self::of(Self::builder(partitions))
    }

    /// DataFusion with our arithmetic, in one process: an overflow is an error.
    pub fn checked(partitions: usize) -> Self {
        Self::of(with_checked_arithmetic(Self::builder(partitions)))
    }

    /// DataFusion without the rules that find columns by their names or places, groups by `==`, bounds by
    /// casts, one meaning of NULL for all keys of a join, and order where outer joins and GROUPING SETS
    /// put NULL: where that changes an answer, one of these rules is wrong.
    pub fn with_few_rules(partitions: usize) -> Self {
        const LEFT_OUT: [&str; 2] = ["eliminate_cross_join", "extract_equijoin_predicate"];
        const PHYSICAL_LEFT_OUT: [&str; 4] =
            ["FilterPushdown", "LimitAggregation", "ProjectionPushdown", "aggregate_statistics"];
        let stays = |left_out: &[&str], name: &str| !left_out.iter().any(|n| name.starts_with(n));
        let mut builder = Self::builder(partitions);
        let rules = &mut builder.optimizer().get_or_insert_with(Optimizer::new).rules;
        rules.retain(|rule| stays(&LEFT_OUT, rule.name()));
        let physical = PhysicalOptimizer::new().rules.into_iter();
        let physical = physical.filter(|rule| stays(&PHYSICAL_LEFT_OUT, rule.name()));
        let physical = std::iter::once(unknown_nulls()).chain(physical);
        Self::of(builder.with_physical_optimizer_rules(physical.collect()))
    }

    /// DataFusion as it is, but for the rule that pushes filters down: where that changes an
    /// answer, the rule is wrong.
    pub fn without_pushdown(partitions: usize) -> Self {
        let mut builder = Self::builder(partitions);
        let rules = &mut builder.optimizer().get_or_insert_with(Optimizer::new).rules;
        rules.retain(|rule| rule.name() != "push_down_filter");
        Self::of(builder)
    }

    fn builder(partitions: usize) -> SessionStateBuilder {
        let config = SessionConfig::new().with_target_partitions(partitions);
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_type_planner(Arc::new(SqlTypes));
        with_sound_floats(reworded(builder))
    }

    fn of(builder: SessionStateBuilder) -> Self {
        Self { session: SessionContext::new_with_state(builder.build()) }
    }

    async fn run(self, sql: String) -> Result<Answer, Failure> {
        let frame = self.session.sql(&sql).await?;
        let context = Arc::new(frame.task_ctx());
        let announced = wire_schema(frame.schema().as_arrow());
        // The types of the plan that runs: the frame's are those before types are reconciled.
        let plan = frame.create_physical_plan().await?;
        let schema = plan.schema();
        let batches = collect(plan, context).await?;
        let announced = announced.fields().iter();
        let announced = announced.map(|f| (f.name().clone(), f.data_type().clone())).collect();
        Ok(Answer { announced, ..Answer::new(&schema, &batches)? })
    }
}

#[async_trait]
impl Database for PlainDataFusion {
    async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        // A task of its own: a panic of DataFusion's is an answer too.
        let task = tokio::spawn(LargeStack::new(self.clone().run(sql.to_owned())));
        let abort = AbortOnDrop(task.abort_handle());
        let answer = tokio::time::timeout(QUERY_TIME_MAX, task).await;
        drop(abort);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(Failure::of_panic(panic)),
            Err(_) => Err(no_answer()),
        }
    }

    async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.session.sql(sql).await?.collect().await?;
        Ok(())
    }

    fn is_ours(&self) -> bool {
        false
    }
}

/// Ends a task whose answer nobody waits for.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a session is set to in which each query is asked until its plan is one that was kept.
const KEEPS_PLANS: &str = "plan_cache=on";
/// How often: the second plan is kept, and the third time it is found.
const TIMES_UNTIL_KEPT: usize = 3;

/// A session on a cluster.
pub struct Cluster {
    client: Client,
    /// How often each query is asked; the last answer counts.
    times: usize,
}

impl Cluster {
    /// A session with this many partitions per task and some more settings, like `pruning=off`, in
    /// which tables of few rows are cut into tasks as those of many are.
    ///
    /// # Errors
    /// When nobody answers, or a setting is refused.
    pub async fn connect(
        url: &str,
        partitions: usize,
        settings: &[String],
    ) -> Result<Self, ClientError> {
        let mut client = Client::connect(url).await?;
        client.run(&format!("SET target_partitions = {partitions}")).await?;
        client.run("SET one_task_rows = 0").await?;
        for setting in settings {
            client.run(&format!("SET {setting}")).await?;
        }
        let keeps_plans = settings.iter().any(|setting| setting == KEEPS_PLANS);
        Ok(Self { client, times: if keeps_plans { TIMES_UNTIL_KEPT } else { 1 } })
    }
}

#[async_trait]
impl Database for Cluster {
    async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        let mut client = self.client.clone();
        for _ in 1..self.times {
            // What it fails with is seen the last time.
            let _ = tokio::time::timeout(QUERY_TIME_MAX, client.query_all(sql)).await;
        }
        match tokio::time::timeout(QUERY_TIME_MAX, client.query_all(sql)).await {
            Ok(answer) => {
                let (schema, batches) = answer?;
                Answer::new(&schema, &batches)
            }
            Err(_) => Err(no_answer()),
        }
    }

    async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.client.clone().execute_update(sql).await?;
        Ok(())
    }

    fn is_ours(&self) -> bool {
        true
    }
}

fn no_answer() -> Failure {
    Failure::new(format!("no answer within {} s", QUERY_TIME_MAX.as_secs()))
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self::new(error.strip_backtrace())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self { sqlstate: error.sqlstate().map(str::to_owned), message: error.to_string() }
    }
}
