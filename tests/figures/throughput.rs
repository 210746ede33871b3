//! Transfers a second, from callers that wait for each answer before they ask again.
//!
//! Callers know all nodes and are spread over them, so that two of three requests are forwarded to the leader. All use the
//! typed call; the packed stream, which costs both ends less, is not measured here.

use std::time::{Duration, Instant};

use jangbu_client::{Client, ClientConfig};
use jangbu_tests::{Cluster, Settings, Sizes, open_accounts, payment};
use tokio::task::JoinSet;

use crate::report::Report;

/// Long enough for several flushes of the working set.
const MEASURED: Duration = Duration::from_secs(10);

pub(crate) async fn measure(report: &mut Report) {
    for callers_count in [1, 16, 256] {
        let per_second = rate(callers_count, 1).await;
        report.add(format!("transfers_per_second_single_callers_{callers_count}"), per_second, "1/s");
    }
    for callers_count in [1, 4] {
        let per_second = rate(callers_count, 8_189).await;
        report.add(format!("transfers_per_second_full_batches_callers_{callers_count}"), per_second, "1/s");
    }
}

/// Each on a fresh cluster, so that none pays for what another left behind.
async fn rate(callers_count: usize, batch_count: usize) -> f64 {
    let cluster = Cluster::start_with(Settings { sizes: Sizes::Shipped, ..Settings::default() }).await;
    open_accounts(&cluster, 1).await;
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..callers_count {
        let client = client(&cluster, caller);
        callers.spawn(async move {
            let mut done_count = 0u64;
            while started.elapsed() < MEASURED {
                let batch: Vec<_> = (0..batch_count).map(|_| payment(1)).collect();
                client.create_transfers(&batch).await.expect("nothing is done to the cluster");
                done_count += batch_count as u64;
            }
            done_count
        });
    }
    let done_count: u64 = callers.join_all().await.into_iter().sum();
    done_count as f64 / started.elapsed().as_secs_f64()
}

/// A client that begins at another node than its neighbour.
pub(crate) fn client(cluster: &Cluster, number: usize) -> Client {
    let mut endpoints: Vec<String> =
        cluster.ids().into_iter().map(|id| cluster.node(id).addresses.client.clone()).collect();
    endpoints.rotate_left(number % cluster.ids().len());
    let config = ClientConfig { deadline: Duration::from_secs(30), ..ClientConfig::default() };
    Client::connect(endpoints, config).expect("the harness made these addresses")
}
