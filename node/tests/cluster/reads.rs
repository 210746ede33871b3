use std::time::Duration;

use jangbu_proto::jangbu::v1::{BoundedStaleness, LookupAccountsRequest, ReadOptions, read_options::Consistency};
use tonic::{Code, Request};

use crate::harness::{Cluster, local, number, reason};

fn bounded(max_ms: u32) -> Option<Consistency> {
    Some(Consistency::BoundedStaleness(BoundedStaleness { max_ms }))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_and_linearizable_reads_are_unavailable_and_local_reads_go_on() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    cluster.pay(1, 1, 10).await;
    for id in 1..=3 {
        assert_eq!(cluster.paid(id, None).await.unwrap(), 10);
    }
    cluster.kill(2).await;
    cluster.kill(3).await;

    assert_eq!(cluster.paid(1, local()).await.unwrap(), 10);
    assert_eq!(cluster.paid(1, bounded(60_000)).await.unwrap(), 10);

    let refused = loop {
        let mut request = Request::new(LookupAccountsRequest { ids: vec![number(1)], read: None });
        request.set_timeout(Duration::from_millis(800));
        let refused = cluster.ledger(1).await.lookup_accounts(request).await.expect_err("nobody can confirm it");
        // On a busy machine the word of the deadline may be here before the node's.
        if refused.code() == Code::Unavailable {
            break refused;
        }
    };
    assert!(["NO_QUORUM", "NO_LEADER"].contains(&reason(&refused).as_str()), "{refused:?}");

    cluster.until(1, "its state is stale", |status| status.staleness_ns > 300_000_000).await;
    let refused = cluster.paid(1, bounded(100)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STALE"));

    cluster.start(2).await;
    cluster.pay(1, 2, 10).await;
    assert_eq!(cluster.paid(2, None).await.unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_says_how_fresh_it_is() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let follower = cluster.a_follower().await;
    let mut ledger = cluster.ledger(follower).await;
    let mut read = async |consistency| {
        let request = LookupAccountsRequest { ids: vec![number(1)], read: Some(ReadOptions { consistency }) };
        ledger.lookup_accounts(request).await.unwrap().into_inner().read_at.unwrap()
    };
    assert_eq!(read(None).await.staleness_ns, 0);
    let bounded = read(bounded(5_000)).await;
    assert!((1..=5_000_000_000).contains(&bounded.staleness_ns), "{bounded:?}");
    let local = read(local()).await;
    assert!((1..u64::MAX).contains(&local.staleness_ns), "{local:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_no_cluster_answers_that_it_is_stale_for_ever() {
    let cluster = Cluster::fresh(1, |_| {}).await;
    let request = LookupAccountsRequest { ids: vec![number(1)], read: Some(ReadOptions { consistency: local() }) };
    let reply = cluster.ledger(1).await.lookup_accounts(request).await.unwrap().into_inner();
    assert_eq!(reply.read_at.unwrap().staleness_ns, u64::MAX);
    assert!(reply.accounts.is_empty());
}
