use std::time::Duration;

use futures_util::{StreamExt, future::join_all, stream};
use jangbu_proto::{
    convert::pack_transfers,
    jangbu::v1::{
        CreateTransfersRequest, Operation, SubmitRequest, ledger_client::LedgerClient, submit_reply::Outcome,
    },
};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use crate::harness::{CREATED, Cluster, EXISTS, PATIENCE, pay_once, payment};

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_through_each_node_is_seen_on_all() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    for node in 1..=3 {
        cluster.pay(node, node.into(), 10).await;
        for reader in 1..=3 {
            assert_eq!(cluster.paid(reader, None).await.unwrap(), u128::from(node) * 10, "read at {reader}");
        }
    }
    cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_asked_for_twice_is_made_once_and_says_so() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let first = pay_once(&mut cluster.ledger(1).await, 7, 10).await.unwrap();
    let again = pay_once(&mut cluster.ledger(2).await, 7, 10).await.unwrap();
    assert_eq!((first.results[0].status, again.results[0].status), (CREATED, EXISTS));
    assert_eq!(first.results[0].timestamp, again.results[0].timestamp);
    assert_eq!(cluster.paid(3, None).await.unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_entries() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let before = cluster.until_applied_everywhere().await;
    let follower = cluster.a_follower().await;
    join_all((0..200).map(|id| cluster.pay(follower, 100 + id, 1))).await;
    assert_eq!(cluster.paid(1, None).await.unwrap(), 200);
    let entries = cluster.until_applied_everywhere().await - before;
    assert!(entries < 150, "200 concurrent payments took {entries} entries");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_and_payments_go_on() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let leader = cluster.leader(1).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.pay(others[0], 1, 10).await;
    cluster.kill(leader).await;
    for (id, node) in (2..).zip(&others) {
        cluster.pay(*node, id, 10).await;
    }
    assert_eq!(cluster.paid(others[1], None).await.unwrap(), 30);
    cluster.start(leader).await;
    cluster.until_ready(leader).await;
    assert_eq!(cluster.paid(leader, None).await.unwrap(), 30);
    cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_gone_at_once_come_back_with_everything() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    for id in 1..=20 {
        cluster.pay(1 + (id as u64) % 3, id, 1).await;
    }
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    for id in 1..=3 {
        cluster.until_ready(id).await;
        assert_eq!(cluster.paid(id, None).await.unwrap(), 20);
    }
    cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_payment_expires_by_itself() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let mut pending = payment(1, 10);
    pending.flags = 1 << 1;
    pending.timeout = 1;
    let reply = cluster.ledger(2).await.create_transfers(CreateTransfersRequest { transfers: vec![pending] }).await;
    assert_eq!(reply.unwrap().into_inner().results[0].status, CREATED);
    cluster.until(2, "a payment is pending", |status| status.pendings_open_count == 1).await;
    cluster.until(3, "it has expired", |status| status.pendings_open_count == 0 && status.events_count == 2).await;
    cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_stream_answers_each_request_by_its_tag() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let follower = cluster.a_follower().await;
    let requests = (0..50_u64).map(|tag| {
        let transfers = (0..10).map(|n| payment(1 + u128::from(tag) * 10 + n, 1)).collect();
        let records = pack_transfers(&CreateTransfersRequest { transfers }).expect("good transfers");
        SubmitRequest { tag, operation: Operation::CreateTransfers as i32, records, deadline_ms: 0 }
    });
    let malformed = SubmitRequest { tag: 99, operation: 2, records: vec![0; 127].into(), deadline_ms: 0 };
    let requests = stream::iter(requests.chain([malformed]));
    let replies = cluster.ledger(follower).await.submit(requests).await.unwrap().into_inner();
    let mut seen = Vec::new();
    for reply in replies.collect::<Vec<_>>().await {
        let reply = reply.unwrap();
        match reply.outcome.unwrap() {
            Outcome::Applied(applied) => assert_eq!((applied.events_count, applied.exceptions.len()), (10, 0)),
            Outcome::Failure(failure) => assert_eq!((reply.tag, failure.reason.as_str()), (99, "MALFORMED")),
        }
        seen.push(reply.tag);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..50).chain([99]).collect::<Vec<_>>());
    assert_eq!(cluster.paid(follower, None).await.unwrap(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_dead_leader_holds_up_nobody_after_it() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let leader = cluster.leader(1).await;
    let follower = cluster.a_follower().await;
    // More callers than entries may be in flight, all forwarded to a leader that dies under them.
    let client = cluster.ledger(follower).await;
    let callers = (0..64).map(|id| try_to_pay(client.clone(), 1_000 + id));
    let calls = tokio::spawn(join_all(callers.collect::<Vec<_>>()));
    cluster.kill(leader).await;
    let began = Instant::now();
    cluster.pay(follower, 1, 1).await;
    let paused = began.elapsed();
    assert!(paused < Duration::from_secs(5), "a payment after the leader's death took {paused:?}");
    timeout(PATIENCE, calls).await.unwrap().unwrap();
}

impl Cluster {
    /// Waits until all have applied the same; returns how much.
    async fn until_applied_everywhere(&self) -> u64 {
        self.until_equal().await;
        self.status(1).await.expect("it answers").applied_index
    }
}

/// Whatever becomes of it: the test is about the others.
async fn try_to_pay(mut ledger: LedgerClient<Channel>, id: u128) {
    let _ = pay_once(&mut ledger, id, 1).await;
}
