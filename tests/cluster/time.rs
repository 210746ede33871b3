//! Log time decides what expires, and never runs backwards.

use std::time::Duration;

use jangbu_client::id;
use jangbu_ledger::{Amount, CreateTransferStatus as Status, Transfer, TransferFlags};
use jangbu_proto::jangbu::v1::{ChangeEvent, ChangeEventType, ChangeEventsFilter, GetChangeEventsRequest};
use jangbu_tests::{Cluster, Consistency, Fate, Payer, Payments, judge, open_accounts, payment, replicas_agree, until};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn held_money_comes_back_by_itself_on_every_replica_also_over_a_change_of_leader() {
    let mut cluster = Cluster::start().await;
    open_accounts(&cluster, 1).await;
    let held = Transfer { timeout: 1, flags: TransferFlags::PENDING, ..payment(7) };
    let created = cluster.door(2).create_transfers(&[held], DEADLINE).await.unwrap().results[0];
    assert_eq!(created.status, Status::Created.code());
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    cluster.node_mut(leader).start();
    cluster.serves().await;

    for id in cluster.ids() {
        until(format!("node {id} has released what was held"), async || {
            let (_, accounts) = cluster.door(id).accounts(&[held.debit_account_id], Consistency::Local).await.ok()?;
            accounts[0].debits_pending.is_zero().then_some(())
        })
        .await;
    }

    // Gone means gone: the money can't be posted any more, and the release is told as an event at its time.
    let post = Transfer {
        id: id(),
        pending_id: held.id,
        amount: Amount::MAX,
        flags: TransferFlags::POST_PENDING_TRANSFER,
        ..Transfer::default()
    };
    let refused = cluster.door(3).create_transfers(&[post], DEADLINE).await.unwrap().results[0];
    assert_eq!(refused.status, Status::PendingTransferExpired.code());
    let events = change_events(&cluster, 1).await;
    let kinds: Vec<ChangeEventType> = events.iter().map(ChangeEvent::r#type).collect();
    assert_eq!(kinds, [ChangeEventType::TwoPhasePending, ChangeEventType::TwoPhaseExpired]);
    assert!(events[1].timestamp >= created.timestamp + 1_000_000_000, "not a moment too early");
    replicas_agree(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_only_grow_over_changes_of_leader() {
    let mut cluster = Cluster::start().await;
    // One caller asks one payment after the other, so that the order of asking is the order of ids.
    let one_by_one = Payments { callers_count: 1, batch_count: 1, ..Payments::default() };
    let payer = Payer::start_at(&cluster, &cluster.ids(), one_by_one).await;
    for target in [2, 3, 1] {
        payer.progresses(20, "under this leader").await;
        cluster.move_leader(target).await;
    }
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    payer.progresses(20, "after the leader was killed").await;
    cluster.node_mut(leader).start();
    let journal = payer.stop().await;

    let told: Vec<u64> = journal
        .payments()
        .iter()
        .filter_map(|(_, fate)| match fate {
            Fate::Acknowledged { timestamp } => Some(*timestamp),
            _ => None,
        })
        .collect();
    assert!(told.is_sorted_by(|earlier, later| earlier < later), "a later payment bears a later timestamp");
    judge(&mut cluster, &journal).await;
    for id in cluster.ids() {
        let events = change_events(&cluster, id).await;
        assert_eq!(events.len(), journal.acknowledged_count(), "node {id} tells every payment as an event");
        assert!(events.is_sorted_by(|earlier, later| earlier.timestamp < later.timestamp), "in the order of log time");
    }
}

/// All that a replica tells has happened, page by page, as one who follows it would ask.
async fn change_events(cluster: &Cluster, id: u64) -> Vec<ChangeEvent> {
    let mut events: Vec<ChangeEvent> = Vec::new();
    loop {
        let from = events.last().map_or(0, |last| last.timestamp + 1);
        let page = until(format!("node {id} tells what happened"), async || {
            let filter = Some(ChangeEventsFilter { timestamp_min: from, timestamp_max: 0, limit: 100 });
            let request = GetChangeEventsRequest { filter, read: None };
            Some(cluster.door(id).ledger().get_change_events(request).await.ok()?.into_inner())
        })
        .await;
        if page.events.is_empty() {
            return events;
        }
        events.extend(page.events);
    }
}
