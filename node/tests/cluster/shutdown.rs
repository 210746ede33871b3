use tokio_util::sync::CancellationToken;

use crate::harness::{CREATED, Cluster, pay_once};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_stop_hands_over_and_loses_nothing() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let leader = cluster.leader(1).await;
    let follower = cluster.a_follower().await;
    let mut ledger = cluster.ledger(follower).await;
    let done = CancellationToken::new();
    let stop = done.clone();
    // One caller that never retries: every call must be answered.
    let paying = tokio::spawn(async move {
        let mut paid: u128 = 0;
        while !stop.is_cancelled() {
            let reply = pay_once(&mut ledger, paid + 1, 1).await.expect("a drain is not noticed at the other nodes");
            assert_eq!(reply.results[0].status, CREATED);
            paid += 1;
        }
        paid
    });
    cluster.stop(leader).await;
    done.cancel();
    let paid = paying.await.unwrap();
    assert!(paid > 0);
    assert_ne!(cluster.leader(follower).await, leader);
    assert_eq!(cluster.paid(follower, None).await.unwrap(), paid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_is_not_ready_and_one_that_serves_is() {
    let mut cluster = Cluster::of(1).await;
    assert!(cluster.status(1).await.unwrap().ready);
    cluster.stop(1).await;
    assert!(cluster.status(1).await.is_none());
    cluster.start(1).await;
    cluster.until_ready(1).await;
}
