//! The unmodified Python drivers (ADBC, pyarrow.flight, pandas, polars) against the service.

use super::clients;
use super::test_server::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn python_drivers_work() {
    let server = TestServer::start().await;
    let url = format!("grpc://{}", server.address);
    let tests = tokio::task::spawn_blocking(move || {
        clients::run_client_tests(&url, clients::Backend::Fake)
    });
    if let Err(failure) = tests.await.unwrap() {
        panic!("{failure}");
    }
}
