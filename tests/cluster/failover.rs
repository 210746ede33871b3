//! A node that dies or stands still is not missed for longer than a blink.

use std::time::Duration;

use jangbu_tests::{ACCOUNTS, Cluster, Consistency, Payer, Signal, judge, payment, until};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_on_when_the_leader_is_killed_under_load() {
    let mut cluster = Cluster::start().await;
    let payer = Payer::start(&cluster).await;
    payer.progresses(100, "before anything happens").await;

    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    payer.progresses(200, "without the dead leader").await;
    assert_ne!(cluster.leader().await, leader);

    cluster.node_mut(leader).start();
    cluster.serves().await;
    payer.progresses(100, "with all three again").await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_follower_is_not_missed_and_catches_up() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = cluster.other_than(&[leader]);
    let payer = Payer::start(&cluster).await;
    payer.progresses(100, "before anything happens").await;

    cluster.node_mut(follower).kill();
    payer.progresses(200, "without the follower").await;
    assert_eq!(cluster.leader().await, leader, "the leader has no reason to change");

    cluster.node_mut(follower).start();
    cluster.serves().await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_refuse_stale_reads_go_on_and_all_heals() {
    let mut cluster = Cluster::start().await;
    let payer = Payer::start(&cluster).await;
    payer.progresses(100, "before anything happens").await;
    let journal = payer.stop().await;
    cluster.serves().await;

    let survivor = cluster.leader().await;
    let dead: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != survivor).collect();
    for id in &dead {
        cluster.node_mut(*id).kill();
    }

    // A write: an answer within its deadline, and not a yes.
    let transfer = payment(1);
    journal.asked(transfer);
    let deadline = Duration::from_secs(2);
    let refused = cluster.door(survivor).create_transfers(&[transfer], deadline).await.unwrap_err();
    assert!(matches!(refused.code(), Code::Unavailable | Code::DeadlineExceeded), "{refused}");

    // Reads: the strict one is honest, the others go on and say how stale they are.
    let door = cluster.door(survivor);
    let strict = door.accounts(&ACCOUNTS, Consistency::Linearizable).await.unwrap_err();
    assert!(matches!(strict.code(), Code::Unavailable | Code::DeadlineExceeded), "{strict}");
    let (bounded_at, bounded) =
        door.accounts(&ACCOUNTS, Consistency::BoundedStaleness(Duration::from_secs(3_600))).await.unwrap();
    let (local_at, local) = door.accounts(&ACCOUNTS, Consistency::Local).await.unwrap();
    assert_eq!((bounded.len(), local.len()), (ACCOUNTS.len(), ACCOUNTS.len()));
    assert!(bounded_at.staleness_ns > 0 && local_at.staleness_ns > bounded_at.staleness_ns, "staleness grows");
    let too_fresh = until("a bound of a millisecond can't be kept any more", async || {
        door.accounts(&ACCOUNTS, Consistency::BoundedStaleness(Duration::from_millis(1))).await.err()
    })
    .await;
    assert_eq!(too_fresh.code(), Code::Unavailable, "{too_fresh}");

    // One of the two is enough to heal, and the other catches up.
    cluster.node_mut(dead[0]).start();
    cluster.serves().await;
    cluster.node_mut(dead[1]).start();
    cluster.serves().await;
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_all_at_once_the_cluster_comes_back_with_all_it_acknowledged() {
    let mut cluster = Cluster::start().await;
    let payer = Payer::start(&cluster).await;
    payer.progresses(300, "before anything happens").await;

    cluster.kill_all();
    cluster.start_all();
    cluster.serves().await;
    payer.progresses(100, "after the restart").await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_comes_back_as_a_follower_and_never_answers_with_the_past() {
    let mut cluster = Cluster::start().await;
    let old = cluster.leader().await;
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    let payer = Payer::start_at(&cluster, &others, Default::default()).await;
    payer.progresses(100, "before anything happens").await;

    // The old leader still believes that it leads. It must not be believed.
    cluster.node(old).signal(Signal::Pause);
    cluster.leader_among(&others).await;
    payer.progresses(200, "under the new leader").await;
    let journal = payer.stop().await;
    let newest = *journal
        .payments()
        .iter()
        .rev()
        .find_map(|(transfer, fate)| matches!(fate, jangbu_tests::Fate::Acknowledged { .. }).then_some(&transfer.id))
        .expect("payments were acknowledged");

    // These reads lie in its socket when it wakes: they are what it sees first.
    let door = cluster.door(old).clone();
    let reads: Vec<_> = (0..50)
        .map(|_| {
            let door = door.clone();
            tokio::spawn(async move { door.transfers(&[newest], Consistency::Linearizable).await })
        })
        .collect();
    tokio::task::yield_now().await;
    cluster.node(old).signal(Signal::Resume);
    for read in reads {
        match read.await.unwrap() {
            Ok((_, found)) => assert_eq!(found.len(), 1, "a linearizable read missed an acknowledged payment"),
            Err(status) => assert!(
                matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled),
                "{status}"
            ),
        }
    }
    cluster.serves().await;
    judge(&mut cluster, &journal).await;
}
