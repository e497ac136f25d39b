//! Starting and stopping a coordinator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use basalt_engine::channels::checksums::Checksums;
use basalt_engine::channels::{Channels, LocalWorkers};
use basalt_engine::files::AllowedRoots;
use basalt_engine::protocol::PROTOCOL_VERSION;
use basalt_engine::runtime::Resources;
use basalt_engine::secret::ClusterSecret;
use basalt_storage::durable_write::create_dir_durable;
use datafusion::error::DataFusionError;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tower::Layer;

use crate::catalog::{Catalog, CatalogError, NewCluster};
use crate::flight::server::serve_with_routes;
use crate::flight::{FlightOptions, FlightSqlServer};
use crate::log_links::GrpcLinks;
use crate::log_scrub::{LOG_SCRUB_EVERY, LogScrub};
use crate::membership::{Liveness, Members, Versions};
use crate::membership_service::MembershipService;
use crate::reconcile::{ReconcileOptions, Reconciler};
use crate::statements::pressure::SegmentLimits;
use crate::statements::registry::Registry;
use crate::statements::{StatementOptions, Statements};

/// Everything a coordinator needs to know.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Where the catalog and the cluster secret live. Made when missing.
    pub data_dir: PathBuf,
    /// Where it listens for clients and workers; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Workers a new cluster waits for before it assigns slices; `None`: the first one gets all.
    pub workers_expected: Option<u16>,
    /// What COPY and file functions may name.
    pub allowed_roots: AllowedRoots,
    /// What the coordinator's own part of queries may use.
    pub resources: Resources,
    /// Workers of this process; none when each has its own.
    pub local_workers: LocalWorkers,
    /// When silent workers are suspected and given up.
    pub liveness: Liveness,
    /// How copies are kept where they should be.
    pub reconcile: ReconcileOptions,
    /// When writes wait for compaction.
    pub segment_limits: SegmentLimits,
    /// Memory for answers that may be asked for again; 0 keeps none.
    pub result_cache_bytes: usize,
}

/// Why a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The catalog cannot be opened.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// An address beyond this machine was asked for; there is no TLS yet.
    #[error("refusing to listen on {address}: only loopback addresses are allowed without TLS")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// A directory cannot be made.
    #[error("cannot make directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The cluster secret cannot be used.
    #[error("cannot use the cluster secret: {0}")]
    Secret(#[from] basalt_engine::secret::SecretError),
    /// The query runtime cannot be set up.
    #[error("cannot set up the query runtime: {0}")]
    Runtime(#[from] DataFusionError),
}

/// A coordinator that serves.
pub struct Coordinator {
    address: SocketAddr,
    catalog: Catalog,
    members: Arc<Members>,
    statements: Statements,
    stop: CancellationToken,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    watch: JoinHandle<()>,
}

impl Coordinator {
    /// Starts a coordinator: opens or founds the cluster in its data directory, and serves.
    ///
    /// # Errors
    /// [`CoordinatorError`] when the directory or the address cannot be had, or the log is damaged.
    pub async fn start(config: CoordinatorConfig) -> Result<Self, CoordinatorError> {
        let address = config.listen;
        if !address.ip().is_loopback() {
            return Err(CoordinatorError::NotLoopback { address });
        }
        let spill = config.resources.spill_dir.clone();
        let make = create_dir_durable(&config.data_dir).and_then(|()| create_dir_durable(&spill));
        make.map_err(|source| CoordinatorError::Directory { path: spill, source })?;
        let catalog = open_catalog(&config).await?;
        let secret = catalog.secret().clone();
        let versions =
            Versions { binary: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL_VERSION };
        let members = Members::new(catalog.clone(), config.liveness, versions);
        let channels = Channels::new(&secret)?.with_local(config.local_workers);
        catalog.replicate(Arc::new(GrpcLinks::new(channels.clone(), Handle::current())));
        let scrub = LogScrub::new(catalog.clone(), channels.clone());
        let runtime = config.resources.runtime()?;
        let reconciler = Reconciler::new(
            catalog.clone(),
            Arc::clone(&members),
            channels.clone(),
            config.reconcile,
        );
        let registry = Arc::new(Registry::open(&config.data_dir));
        let statements = Statements::new(
            catalog.clone(),
            Arc::clone(&members),
            reconciler.clone(),
            channels,
            runtime,
            StatementOptions {
                allowed_roots: config.allowed_roots,
                segment_limits: config.segment_limits,
                registry,
                result_cache_bytes: config.result_cache_bytes,
            },
        )?;
        let listen = |source| CoordinatorError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let stop = CancellationToken::new();
        let flight = FlightSqlServer::new(Arc::new(statements.clone()), FlightOptions::default());
        let routes = membership_routes(&catalog, &members, secret);
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(serve_with_routes(listener, flight, routes, stopped));
        let (watched, watch_stop) = (Arc::clone(&members), stop.clone());
        let (probes, probes_stop) = (statements.probes().clone(), stop.clone());
        let scrub_stop = stop.clone();
        let watch = tokio::spawn(async move {
            let reconcile = reconciler.run(watch_stop.clone());
            let scrub = scrub.run(LOG_SCRUB_EVERY, scrub_stop);
            tokio::join!(watched.run(watch_stop), probes.run(probes_stop), reconcile, scrub);
        });
        tracing::info!(%address, cluster = %catalog.cluster().cluster, "coordinator serves");
        Ok(Self { address, catalog, members, statements, stop, server, watch })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The secret that workers must present.
    pub fn secret(&self) -> &ClusterSecret {
        self.catalog.secret()
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The statement life cycle, for clients in the same process.
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// Waits until `count` workers are live and every slice has an owner.
    pub async fn wait_ready(&self, count: usize) {
        self.members.wait_live(count).await;
        self.catalog
            .wait_for(|snapshot| {
                !snapshot.cluster.slice_owners.is_empty() && snapshot.cluster.workers.len() >= count
            })
            .await;
    }

    /// Stops taking requests, lets those under way end for a while, and returns.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // An error here ended the server earlier and was logged by it; there is nothing left to do.
        let _ = (&mut self.server).await;
        let _ = (&mut self.watch).await;
        let registry = Arc::clone(self.statements.registry());
        // What is not written by then is not kept.
        let _ = tokio::task::spawn_blocking(move || registry.flush()).await;
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.abort();
        self.watch.abort();
    }
}

async fn open_catalog(config: &CoordinatorConfig) -> Result<Catalog, CoordinatorError> {
    let (dir, expected) = (config.data_dir.clone(), config.workers_expected);
    let opened = tokio::task::spawn_blocking(move || {
        let new = match expected {
            Some(workers) => NewCluster::generate().with_workers_expected(workers),
            None => NewCluster::generate(),
        };
        Catalog::open_or_create(&dir, new)
    });
    match opened.await {
        Ok(catalog) => Ok(catalog?),
        Err(error) => Err(CatalogError::Stopped { reason: error.to_string() }.into()),
    }
}

fn membership_routes(catalog: &Catalog, members: &Arc<Members>, secret: ClusterSecret) -> Routes {
    let service = MembershipService::new(catalog.clone(), Arc::clone(members));
    let guarded = InterceptedService::new(Checksums.layer(service.into_server()), move |request| {
        secret.admit(request)
    });
    Routes::new(guarded)
}
