//! Clients that go on until they are told to stop, each of which knows what its answers must be.
//!
//! - [`changes`]: UPDATE and DELETE of a table whose rows come back
//! - [`inserts`]: small INSERTs, old rows deleted, VACUUM
//! - [`loads`]: tables that are made, loaded by COPY and INSERT, and dropped
//! - [`reads`]: point look-ups, joins, aggregates, windows and sorts of a table that nobody changes
//! - [`rudeness`]: statements that fail, queries that are cut off, connections that are opened and closed
//!
//! Invariant: an answer that is not the expected one ends the whole run.

mod changes;
mod inserts;
mod loads;
mod reads;
mod rudeness;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::faults::choices::Choices;

/// How long a statement may take beside all others before it counts as hanging.
const STATEMENT_MAX: Duration = Duration::from_secs(120);

/// Whether the load is over, and how much there was of it.
#[derive(Debug, Default)]
pub struct Watch {
    is_over: AtomicBool,
    written: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    cut_off: AtomicU64,
    connections: AtomicU64,
}

/// How many statements there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes and definitions that were made.
    pub written: u64,
    /// Queries that were answered as they must be.
    pub answered: u64,
    /// Statements that were refused as they must be.
    pub refused: u64,
    /// Queries that their client gave up.
    pub cut_off: u64,
    /// Connections that were opened.
    pub connections: u64,
}

impl Watch {
    /// Asks all clients to end after the round they are in.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// How much there was so far.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            written: of(&self.written),
            answered: of(&self.answered),
            refused: of(&self.refused),
            cut_off: of(&self.cut_off),
            connections: of(&self.connections),
        }
    }
}

/// One connection, whose statements are counted and must end as they should.
pub struct Hand {
    client: Client,
    watch: Arc<Watch>,
}

impl Hand {
    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(url: &str, watch: &Arc<Watch>) -> anyhow::Result<Self> {
        let client = Client::connect(url).await?;
        watch.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Self { client, watch: Arc::clone(watch) })
    }

    /// Runs a statement that must work; returns the rows it changed.
    ///
    /// # Errors
    /// When it does not.
    pub async fn done(&mut self, sql: &str) -> anyhow::Result<u64> {
        let done = within_time(self.client.execute_update(sql)).await;
        let rows = done.and_then(|done| Ok(done?)).with_context(|| sql.to_owned())?;
        self.watch.written.fetch_add(1, Ordering::Relaxed);
        Ok(rows)
    }

    /// The integers of a query of one row.
    ///
    /// # Errors
    /// When it does not work or has not one row.
    pub async fn numbers(&mut self, sql: &str) -> anyhow::Result<Vec<i64>> {
        let rows = self.rows(sql).await?;
        let [row] = &rows[..] else { bail!("{sql} has {} rows", rows.len()) };
        let number = |text: &String| text.parse().with_context(|| format!("{sql}: {text}"));
        row.iter().map(number).collect()
    }

    /// The rows of a query as text.
    ///
    /// # Errors
    /// When it does not work.
    pub async fn rows(&mut self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let rows = within_time(self.client.query_all(sql)).await;
        let (_, batches) = rows.and_then(|rows| Ok(rows?)).with_context(|| sql.to_owned())?;
        let options = FormatOptions::default();
        let mut texts = Vec::new();
        for batch in &batches {
            let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let row = |row| columns.iter().map(|column| column.value(row).to_string()).collect();
            texts.extend((0..batch.num_rows()).map(row));
        }
        Ok(texts)
    }

    /// Runs a query of integers and one row, whose answer is known.
    ///
    /// # Errors
    /// Any other answer.
    pub async fn is(&mut self, sql: &str, expected: &[i64]) -> anyhow::Result<()> {
        let found = self.numbers(sql).await?;
        ensure!(found == expected, "wrong answer: {sql}: {found:?}, not {expected:?}");
        self.watch.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Runs a statement that must fail with this code.
    ///
    /// # Errors
    /// Any other end of it.
    async fn refused(&mut self, sql: &str, code: &str) -> anyhow::Result<()> {
        match within_time(self.client.query_all(sql)).await.with_context(|| sql.to_owned())? {
            Err(error) if error.code() == Some(code) => {}
            Err(error) => bail!("{sql}: {error:?}, not {code}"),
            Ok(_) => bail!("{sql} is not refused"),
        }
        self.watch.refused.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn within_time<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(STATEMENT_MAX, work)
        .await
        .map_err(|_| anyhow::anyhow!("no end within {STATEMENT_MAX:?}"))
}

/// The clients, with their tables made.
pub struct Clients {
    url: String,
    watch: Arc<Watch>,
    changes: changes::Changes,
    inserts: inserts::Inserts,
    loads: loads::Loads,
}

/// The clients at work.
pub struct Working {
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Clients {
    /// Makes the tables; files that COPY reads go to `dir`, where the cluster may read.
    ///
    /// # Errors
    /// When the cluster does not take them.
    pub async fn prepare(url: &str, dir: &Path, watch: &Arc<Watch>) -> anyhow::Result<Self> {
        let mut hand = Hand::connect(url, watch).await?;
        reads::prepare(&mut hand).await?;
        Ok(Self {
            url: url.to_owned(),
            watch: Arc::clone(watch),
            changes: changes::Changes::prepare(&mut hand).await?,
            inserts: inserts::Inserts::prepare(&mut hand).await?,
            loads: loads::Loads::new(dir)?,
        })
    }

    /// Starts all of them.
    pub fn start(self, choices: &mut Choices) -> Working {
        let Self { url, watch, changes, inserts, loads } = self;
        let mut tasks = JoinSet::new();
        let of = |choices: &mut Choices| (url.clone(), Arc::clone(&watch), choices.fork());
        let (own, shared, random) = of(choices);
        tasks.spawn(async move { changes.run(Hand::connect(&own, &shared).await?, random).await });
        let (own, shared, random) = of(choices);
        tasks.spawn(async move { inserts.run(Hand::connect(&own, &shared).await?, random).await });
        let (own, shared, _) = of(choices);
        tasks.spawn(async move { loads.run(Hand::connect(&own, &shared).await?).await });
        let (own, shared, random) = of(choices);
        tasks.spawn(async move { reads::run(Hand::connect(&own, &shared).await?, random).await });
        let (own, shared, random) = of(choices);
        tasks.spawn(async move { rudeness::run(&own, &shared, random).await });
        Working { tasks }
    }
}

impl Working {
    /// Waits for the first client that ends.
    ///
    /// # Errors
    /// What it found.
    pub async fn first_to_end(&mut self) -> anyhow::Result<()> {
        self.tasks.join_next().await.context("there are clients")??
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// The first thing that one of them found.
    pub async fn end(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}
