//! Links between nodes that are slow, silent, cut or lying (FAULTS F11 to F19).

use std::net::SocketAddr;
use std::time::Duration;

use basalt_sql_tests::client::Client;
use basalt_sql_tests::faults::choices::Choices;
use basalt_sql_tests::faults::cluster::{Cluster, NodeId};
use basalt_sql_tests::faults::figures::Figures;
use basalt_sql_tests::faults::nemesis::Nemesis;
use basalt_sql_tests::faults::network::Network;
use basalt_sql_tests::faults::proxy::{ANYBODY, Direction, Flow, Link, Proxy};
use basalt_sql_tests::faults::runner::Runner;
use basalt_sql_tests::faults::session::integers;

use super::{Run, light_workload, report, shape};

const WORKERS: usize = 2;

/// Two different nodes.
fn pair(cluster: &Cluster, choices: &mut Choices) -> (NodeId, NodeId) {
    let nodes = cluster.nodes();
    let from = *choices.pick(&nodes);
    let others: Vec<_> = nodes.into_iter().filter(|node| *node != from).collect();
    (from, *choices.pick(&others))
}

/// A fault of links: all are slow, or one is narrow, silent on one side or both, or refused.
fn bad_links(cluster: &Cluster, kind: u64, choices: &mut Choices) -> Nemesis {
    let (from, to) = pair(cluster, choices);
    let held = Flow { hold: true, ..Flow::default() };
    let narrow = Flow { bytes_per_second: Some(50_000), ..Flow::default() };
    let links = match kind % 5 {
        0 => {
            let late = Link::slow(Duration::from_millis(40), Duration::from_millis(80));
            let nodes = cluster.nodes();
            let all = nodes.iter().flat_map(|from| nodes.iter().map(|to| (*from, *to, late)));
            all.filter(|(from, to, _)| from != to).collect()
        }
        1 => vec![(from, to, Link::hold()), (to, from, Link::hold())],
        2 => vec![(from, to, Link { to_client: held, ..Link::pass() })],
        3 => vec![(from, to, Link { refuse: true, ..Link::pass() })],
        _ => vec![(from, to, Link { to_server: narrow, to_client: narrow, refuse: false })],
    };
    Nemesis::Links { links, lasts: Duration::from_millis(500 + choices.below(1_500)) }
}

/// Bad links for a second or two, in the middle of writes and reads.
pub(super) async fn links(run: Run) -> anyhow::Result<Figures> {
    let mut shape = shape(WORKERS);
    shape.proxied = true;
    let test = "faults::wire::writes_go_on_when_links_are_good_again";
    let mut runner = Runner::start(test, run.seed, shape, light_workload).await?;
    let first = run.seed.wrapping_sub(1);
    let schedule = |cluster: &Cluster, trial: u64, choices: &mut Choices| {
        bad_links(cluster, first.wrapping_add(trial), choices)
    };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_when_links_are_good_again() {
    let run = Run::of(3);
    report("bad links", run, &links(run).await.unwrap());
}

fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("grpc://").unwrap().parse().unwrap()
}

/// What a client gets of a long result whose connection is cut after so many bytes.
async fn rows_before_the_cut(proxy: &Proxy, bytes: u64) -> Result<usize, String> {
    let url = format!("grpc://{}", proxy.address());
    let mut client = Client::connect(&url).await.map_err(|error| error.to_string())?;
    proxy.reset_after(ANYBODY, Direction::ToClient, bytes);
    let sql = "SELECT value, value + 1 FROM generate_series(1, 400000)";
    let answer = client.query_all(sql).await.map_err(|error| error.to_string())?;
    Ok(integers(&answer.1).len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_cut_off_is_an_error_and_never_a_shorter_result() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(shape(1), dir.path()).unwrap();
    let handle = tokio::runtime::Handle::current();
    let proxy = Proxy::start(&handle, address_of(&cluster.url()), 1, |_| ANYBODY).unwrap();
    let mut choices = Choices::new(Run::of(0).seed);
    let (mut cut, mut whole) = (0, 0);
    for _ in 0..20 {
        // The result has about 6 MB.
        match rows_before_the_cut(&proxy, choices.below(7_000_000)).await {
            Ok(rows) => {
                assert_eq!(rows, 400_000, "a short result was taken for a whole one");
                whole += 1;
            }
            Err(_) => cut += 1,
        }
        proxy.heal();
    }
    assert!(cut >= 5, "{cut} results were cut off, {whole} were whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_between_two_workers_is_cut_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut shape = shape(WORKERS);
    shape.proxied = true;
    let cluster = Cluster::start(shape, dir.path()).unwrap();
    let mut client = Client::connect(&cluster.url()).await.unwrap();
    let sql =
        "CREATE TABLE t DISTKEY(n) REPLICAS 1 AS SELECT value AS n FROM generate_series(1, 1000)";
    client.execute_update(sql).await.unwrap();
    // One row of nearly every pair has to go from one worker to the other.
    client.execute_update("SET one_task_rows = 0").await.unwrap();
    let between = |network: &Network| {
        let (one, other) = (NodeId::Worker(0), NodeId::Worker(1));
        let (made, refused) = network.connections(one, other);
        let (made_back, refused_back) = network.connections(other, one);
        (made + made_back, refused + refused_back)
    };
    let join = "SELECT count(*) FROM t AS a JOIN t AS b ON a.n = b.n + 1";
    let count = |batches: (_, Vec<_>)| integers(&batches.1)[0][0];
    assert_eq!(count(client.query_all(join).await.unwrap()), 999);

    let network = cluster.network().unwrap();
    let from_workers = |worker| network.connections(worker, NodeId::Coordinator).0;
    assert!(cluster.workers().into_iter().all(|worker| from_workers(worker) > 0));
    assert!(between(network).0 > 0, "the workers have nothing to say to each other");
    let refused = Link { refuse: true, ..Link::pass() };
    network.set_between(NodeId::Worker(0), NodeId::Worker(1), refused);
    network.reset_now_between(NodeId::Worker(0), NodeId::Worker(1));
    // The first query may be through before its connection is cut. Planned again it may need no row
    // to cross; whatever it does, it is not short of any.
    let mut tries = 0;
    while between(network).1 == 0 {
        match client.query_all(join).await {
            Ok(answer) => assert_eq!(count(answer), 999),
            Err(error) => assert_eq!(error.code(), Some("UNAVAILABLE"), "{error}"),
        }
        tries += 1;
        assert!(tries < 50, "nobody tried the link that was cut");
    }
    let counted = client.query_all("SELECT count(*) FROM t").await.unwrap();
    assert_eq!(count(counted), 1_000, "both still reach the coordinator");

    network.heal();
    let mut session = basalt_sql_tests::faults::session::Session::new(&cluster.url());
    assert_eq!(session.read_until_answered(join).await.unwrap(), [[999]]);
}

/// One bit of what nodes say to each other is turned over, again and again, in the middle of
/// writes and reads (F18).
pub(super) async fn flips(run: Run) -> anyhow::Result<Figures> {
    let mut shape = shape(WORKERS);
    shape.proxied = true;
    let test = "faults::wire::a_bit_that_is_flipped_on_the_wire_is_never_stored_and_never_answered";
    let mut runner = Runner::start(test, run.seed, shape, light_workload).await?;
    let schedule = |cluster: &Cluster, _: u64, choices: &mut Choices| {
        let (from, to) = pair(cluster, choices);
        let direction = *choices.pick(&[Direction::ToServer, Direction::ToClient]);
        Nemesis::FlippedBits {
            from,
            to,
            direction,
            within_bytes: 4_000,
            lasts: Duration::from_secs(1),
        }
    };
    runner.trials(run.trials, schedule).await?;
    Ok(runner.finish())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_is_flipped_on_the_wire_is_never_stored_and_never_answered() {
    let run = Run::of(4);
    report("flips on the wire", run, &flips(run).await.unwrap());
}
