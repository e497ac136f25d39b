//! Where files run: a server with a schema for each, plain DataFusion, DuckDB.

use std::path::Path;
use std::sync::Arc;

use datafusion::prelude::{SessionConfig, SessionContext};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::duckdb_engine::DuckDbEngine;
use super::engine::{BoxEngine, EngineError};
use super::report::{Failure, FileReport};
use super::run::run_with;
use super::schema::{self, Schemas};
use super::side::Connect;
use super::{DataFusionEngine, Dialect, FlightEngine, SltOptions};

/// Partitions of plans in DataFusion's own runner.
const DATAFUSION_PARTITIONS: usize = 4;

/// Something that answers the records of files, each file for itself.
#[derive(Debug, Clone)]
pub enum Place {
    /// A Flight SQL server.
    Server {
        /// Its address.
        url: String,
        /// What gives each file a schema; none where files share what is there.
        schemas: Option<Arc<Schemas>>,
        /// Statements that set up each connection.
        settings: Vec<String>,
    },
    /// DataFusion in this process with its default settings: a fresh session for each file. For
    /// its own files with as many partitions as they count on.
    DataFusion,
    /// A Python with the package `duckdb`: a fresh database for each file.
    DuckDb,
}

impl Place {
    /// A server; with a schema per file if it has what that takes, else with the reason why not.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn server(url: &str) -> Result<(Self, Option<String>), EngineError> {
        let mut engine = FlightEngine::connect(url).await?;
        let (schemas, why_not) = match Schemas::probe(&mut engine).await {
            Ok(schemas) => (Some(Arc::new(schemas)), None),
            Err(error) if error.is_disconnect => return Err(error),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok((Self::Server { url: url.to_owned(), schemas, settings: Vec::new() }, why_not))
    }

    /// The same server with connections that start with these statements; other places have none.
    #[must_use]
    pub fn with_settings(mut self, statements: Vec<String>) -> Self {
        if let Self::Server { settings, .. } = &mut self {
            *settings = statements;
        }
        self
    }

    /// How a report calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Server { url, .. } => url,
            Self::DataFusion => "datafusion",
            Self::DuckDb => "duckdb",
        }
    }

    /// Prepares for one file.
    async fn open(&self, dialect: Option<Dialect>) -> Result<Opened, EngineError> {
        match self {
            Self::Server { url, schemas, settings } => {
                let schema = match schemas {
                    Some(schemas) => {
                        let name = schemas.next();
                        let mut engine = FlightEngine::connect(url).await?;
                        schema::create(&mut engine, &name).await?;
                        Some(name)
                    }
                    None => None,
                };
                Ok(Opened::Server { url: url.clone(), schema, settings: settings.clone() })
            }
            Self::DataFusion => {
                let session = match dialect {
                    // As in its own runner.
                    Some(Dialect::DataFusion) => SessionContext::new_with_config(
                        SessionConfig::new().with_target_partitions(DATAFUSION_PARTITIONS),
                    ),
                    _ => SessionContext::new(),
                };
                Ok(Opened::DataFusion(Box::new(session)))
            }
            Self::DuckDb => Ok(Opened::DuckDb),
        }
    }
}

/// A place, prepared for one file.
enum Opened {
    Server { url: String, schema: Option<String>, settings: Vec<String> },
    DataFusion(Box<SessionContext>),
    DuckDb,
}

impl Opened {
    fn connect(&self) -> BoxFuture<'_, Result<BoxEngine, EngineError>> {
        match self {
            Self::Server { url, schema, settings } => async move {
                let mut engine: BoxEngine = Box::new(FlightEngine::connect(url).await?);
                for statement in settings {
                    engine.run(statement).await?;
                }
                if let Some(schema) = schema {
                    schema::enter(&mut engine, schema).await?;
                }
                Ok(engine)
            }
            .boxed(),
            Self::DataFusion(session) => {
                let engine: BoxEngine = Box::new(DataFusionEngine::new((**session).clone()));
                async move { Ok(engine) }.boxed()
            }
            Self::DuckDb => async move {
                let engine: BoxEngine = Box::new(DuckDbEngine::start().await?);
                Ok(engine)
            }
            .boxed(),
        }
    }

    async fn close(&self) -> Result<(), EngineError> {
        let Self::Server { url, schema: Some(schema), .. } = self else { return Ok(()) };
        let mut engine = FlightEngine::connect(url).await?;
        schema::drop(&mut engine, schema).await
    }
}

/// Runs one file at a place, in lockstep with an oracle if there is one.
pub async fn run_at(
    path: &Path,
    ours: &Place,
    oracle: Option<&Place>,
    options: &SltOptions,
) -> FileReport {
    match try_run(path, ours, oracle, options).await {
        Ok(report) => report,
        Err(error) => {
            let mut report = FileReport::new(path);
            report.lost_connection = error.is_disconnect;
            let text = format!("no place to run: {error}");
            report.fail(Failure::new(path.display().to_string(), 0, text));
            report
        }
    }
}

async fn try_run(
    path: &Path,
    ours: &Place,
    oracle: Option<&Place>,
    options: &SltOptions,
) -> Result<FileReport, EngineError> {
    let ours = ours.open(options.dialect).await?;
    let theirs = match oracle {
        Some(place) => match place.open(options.dialect).await {
            Ok(opened) => Some(opened),
            Err(error) => {
                // The error of the oracle says more than one of cleaning up.
                drop(ours.close().await);
                return Err(error);
            }
        },
        None => None,
    };
    let connect: Connect<'_> = Box::new(|| ours.connect());
    let connect_oracle = theirs.as_ref().map(|theirs| Box::new(|| theirs.connect()) as Connect<'_>);
    let mut report = run_with(path, connect, connect_oracle, options).await;
    for (opened, what) in [(Some(&ours), "the schema"), (theirs.as_ref(), "the oracle's schema")] {
        let Some(opened) = opened else { continue };
        if let Err(error) = opened.close().await
            && !report.lost_connection
        {
            let text = format!("{what} of the file was not dropped: {error}");
            report.fail(Failure::new(path.display().to_string(), 0, text));
        }
    }
    Ok(report)
}
