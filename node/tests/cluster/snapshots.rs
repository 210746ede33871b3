use jangbu_proto::{
    cluster::v1::{TakeSnapshotRequest, VerifyRequest},
    jangbu::v1::CreateTransfersRequest,
};

use jangbu_raft_store::snapshot::manifest::{FILE_NAME, Manifest};

use crate::harness::{Cluster, payment};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_away_until_the_log_is_purged_comes_back_by_snapshot() {
    let mut cluster = Cluster::adjusted(3, |config| config.storage.log_entries_kept = 0).await;
    cluster.open_accounts().await;
    let away = cluster.a_follower().await;
    cluster.kill(away).await;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != away).collect();
    for round in 0..20_u128 {
        let transfers = (0..100).map(|n| payment(1 + round * 100 + n, 1)).collect();
        cluster.ledger(rest[0]).await.create_transfers(CreateTransfersRequest { transfers }).await.unwrap();
    }
    for id in &rest {
        let taken = cluster.operator(*id).await.take_snapshot(TakeSnapshotRequest {}).await.unwrap().into_inner();
        assert!(taken.log_index > 0);
        cluster.until(*id, "its log is purged", |status| status.purged_index >= taken.log_index).await;
    }
    cluster.start(away).await;
    cluster.until(away, "it has it all", |status| status.events_count == 2_000).await;
    let status = cluster.until(away, "it came by snapshot", |status| status.snapshot_index > 0).await;
    assert!(status.purged_index > 0);
    assert_eq!(cluster.paid(away, None).await.unwrap(), 2_000);
    cluster.until_equal().await;
    let report = cluster.operator(away).await.verify(VerifyRequest::default()).await.unwrap().into_inner();
    assert_eq!(report.digest, report.digest_recount);
    assert_eq!(report.totals[0].debits_posted, "2000");
    assert_eq!(report.totals[0].credits_posted, "2000");
}

/// A thousand of the largest entries are a gigabyte, which a restart would read.
#[tokio::test(flavor = "multi_thread")]
async fn what_stays_in_the_log_behind_a_snapshot_is_bounded_by_bytes() {
    let cluster = Cluster::adjusted(1, |config| config.storage.log_bytes_kept = 30_000).await;
    cluster.open_accounts().await;
    for round in 0..20_u128 {
        // 12,800 bytes, and a little about them.
        let transfers = (0..100).map(|n| payment(1 + round * 100 + n, 1)).collect();
        cluster.ledger(1).await.create_transfers(CreateTransfersRequest { transfers }).await.unwrap();
    }
    assert!(cluster.metric(1, "jangbu_log_unpurged_bytes").await > 256_000);
    cluster.operator(1).await.take_snapshot(TakeSnapshotRequest {}).await.unwrap();
    cluster.until(1, "its log is purged", |status| status.purged_index > 0).await;
    let kept = cluster.metric(1, "jangbu_log_unpurged_bytes").await;
    assert!((12_800..=30_000).contains(&kept), "two such entries stay, not {kept} bytes");
}

/// A backup that began while the node took one by itself waited for ten minutes, in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_asked_for_while_one_of_a_moment_before_is_made_is_made_too() {
    let cluster = Cluster::of(1).await;
    cluster.open_accounts().await;
    for round in 0..10 {
        cluster.pay(1, 1 + 2 * round, 1).await;
        let (mut first, mut second) = (cluster.operator(1).await, cluster.operator(1).await);
        let before = tokio::spawn(async move { first.take_snapshot(TakeSnapshotRequest {}).await });
        cluster.pay(1, 2 + 2 * round, 1).await;
        let applied = cluster.status(1).await.expect("it answers").applied_index;
        let taken = second.take_snapshot(TakeSnapshotRequest {}).await.expect("it is taken").into_inner();
        assert!(taken.log_index >= applied, "round {round}: {} is of before {applied}", taken.log_index);
        before.await.expect("nothing panics").expect("the first is taken, too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_no_receiver_can_open_is_refused_and_replaced_by_its_sender() {
    let mut cluster = Cluster::adjusted(3, |config| config.storage.log_entries_kept = 0).await;
    cluster.open_accounts().await;
    let away = cluster.a_follower().await;
    cluster.kill(away).await;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != away).collect();
    let transfers = (1..=500).map(|id| payment(id, 1)).collect();
    cluster.ledger(rest[0]).await.create_transfers(CreateTransfersRequest { transfers }).await.unwrap();
    for id in &rest {
        let taken = cluster.operator(*id).await.take_snapshot(TakeSnapshotRequest {}).await.unwrap().into_inner();
        cluster.until(*id, "its log is purged", |status| status.purged_index >= taken.log_index).await;
    }
    for id in &rest {
        cluster.stop(*id).await;
        harm_unnoticed(&cluster, *id);
    }
    for id in &rest {
        cluster.start(*id).await;
    }
    for id in &rest {
        cluster.until_ready(*id).await;
    }

    cluster.start(away).await;
    cluster.until(away, "it came by a snapshot after all", |status| status.events_count == 500).await;
    cluster.until_equal().await;
    let refused = cluster.metric(away, "jangbu_snapshots_refused_total").await;
    assert!((1..=3).contains(&refused), "each snapshot is sent, and refused, once: {refused} times");
    cluster.pay(away, 1_000, 1).await;
}

/// Damages a node's snapshot as if it had happened before it was checksummed: everything about it agrees.
fn harm_unnoticed(cluster: &Cluster, id: u64) {
    let folder = cluster.data_dir(id).join("group-0/snapshots");
    let snapshot = std::fs::read_dir(folder).unwrap().next().expect("there is one").unwrap().path();
    let mut manifest = Manifest::parse(&std::fs::read(snapshot.join(FILE_NAME)).unwrap()).unwrap();
    // RocksDB's own manifest is copied into a snapshot; its tables are shared with the state.
    let info = manifest.files.iter_mut().find(|info| info.name.starts_with("MANIFEST")).expect("it has a manifest");
    let path = snapshot.join(&info.name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    info.xxh3_128 = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes));
    std::fs::write(snapshot.join(FILE_NAME), manifest.encode()).unwrap();
}
