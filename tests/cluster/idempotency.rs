//! A transfer id has at most one effect, however often and wherever it is asked.

use std::time::Duration;

use jangbu_ledger::{Amount, CreateTransferStatus as Status, Transfer};
use jangbu_tests::{Cluster, Journal, Signal, judge, open_accounts, payment, until};
use tonic::Code;
use tonic_types::StatusExt as _;

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_sent_to_two_nodes_at_once_moves_money_once() {
    let mut cluster = Cluster::start().await;
    open_accounts(&cluster, 1).await;
    let journal = Journal::default();
    for round in 0..100u64 {
        let transfer = payment(7);
        journal.asked(transfer);
        let (one, other) = (1 + round % 3, 1 + (round + 1) % 3);
        let (a, b) = tokio::join!(
            cluster.door(one).create_transfers(std::slice::from_ref(&transfer), DEADLINE),
            cluster.door(other).create_transfers(std::slice::from_ref(&transfer), DEADLINE),
        );
        let (a, b) = (a.unwrap().results[0], b.unwrap().results[0]);
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [Status::Exists.code(), Status::Created.code()], "one created it, one found it");
        assert_eq!(a.timestamp, b.timestamp, "both speak of the same transfer");
        journal.answered(transfer.id, Status::Created, a.timestamp);
    }
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_names_its_ids_and_is_resolved_by_asking_again() {
    let mut cluster = Cluster::start().await;
    open_accounts(&cluster, 1).await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let journal = Journal::default();
    let transfer = payment(7);
    journal.asked(transfer);

    // The leader proposes, and nobody is there to say yes.
    followers.iter().for_each(|id| cluster.node(*id).signal(Signal::Pause));
    let short = Duration::from_millis(200);
    let unknown = cluster.door(leader).create_transfers(&[transfer], short).await.unwrap_err();
    followers.iter().for_each(|id| cluster.node(*id).signal(Signal::Resume));

    assert_eq!(unknown.code(), Code::DeadlineExceeded, "{unknown}");
    let info = unknown.get_details_error_info().expect("an error tells its reason");
    assert_eq!(info.reason, "OUTCOME_UNKNOWN");
    let named = info.metadata.values().any(|ids| ids.contains(&transfer.id.to_string()));
    assert!(named, "the ids whose outcome is unknown are named: {:?}", info.metadata);

    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_another_body_is_refused_at_every_node() {
    let mut cluster = Cluster::start().await;
    open_accounts(&cluster, 1).await;
    let journal = Journal::default();
    let transfer = payment(7);
    journal.asked(transfer);
    let created = cluster.door(1).create_transfers(&[transfer], DEADLINE).await.unwrap().results[0];
    journal.answered(transfer.id, Status::Created, created.timestamp);

    let other = Transfer { amount: Amount(8), ..transfer };
    for id in cluster.ids() {
        let result = cluster.door(id).create_transfers(&[other], DEADLINE).await.unwrap().results[0];
        assert_eq!(result.status, Status::ExistsWithDifferentAmount.code());
        let result = cluster.door(id).create_transfers(&[transfer], DEADLINE).await.unwrap().results[0];
        assert_eq!((result.status, result.timestamp), (Status::Exists.code(), created.timestamp));
    }
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_id_stays_refused_after_every_node_has_restarted() {
    let mut cluster = Cluster::start().await;
    open_accounts(&cluster, 1).await;
    let nowhere = Transfer { debit_account_id: jangbu_ledger::AccountId(999), ..payment(7) };
    let first = cluster.door(1).create_transfers(&[nowhere], DEADLINE).await.unwrap().results[0];
    assert_eq!(first.status, Status::DebitAccountNotFound.code());

    cluster.kill_all();
    cluster.start_all();
    cluster.serves().await;
    let again = until("the refused id is asked again", async || {
        cluster.door(2).create_transfers(&[nowhere], DEADLINE).await.ok()
    })
    .await;
    assert_eq!(again.results[0].status, Status::IdAlreadyFailed.code());
    judge(&mut cluster, &Journal::default()).await;
}
