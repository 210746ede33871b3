use jangbu_node::config::Network;
use tokio::time::timeout;

use crate::harness::Cluster;

/// A dead process is told from a silent one. Waiting for this lease and the election timeout after it takes 4.5 s or more.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_process_is_gone_is_replaced_before_its_lease_has_run_out() {
    let mut cluster = Cluster::adjusted(3, |config| config.network = Network::Continent).await;
    let dead = cluster.leader(1).await;
    let follower = cluster.a_follower().await;
    cluster.kill(dead).await;
    let replaced = cluster.until(follower, "another leads", |status| status.leader_id != 0 && status.leader_id != dead);
    let lease = Network::Continent.timings().election_max;
    timeout(lease, replaced).await.expect("another leads while the dead one's lease would still last");
}
