use jangbu_proto::{
    cluster::v1::{TakeSnapshotRequest, VerifyRequest},
    jangbu::v1::CreateTransfersRequest,
};

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
    let report = cluster.operator(away).await.verify(VerifyRequest { log_index: 0 }).await.unwrap().into_inner();
    assert_eq!(report.digest, report.digest_recount);
    assert_eq!(report.totals[0].debits_posted, "2000");
    assert_eq!(report.totals[0].credits_posted, "2000");
}
