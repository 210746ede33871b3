//! The judge of all these tests is not blind.

use std::time::Duration;

use jangbu_ledger::CreateTransferStatus;
use jangbu_tests::{Cluster, Journal, Settings, judge, open_accounts, payment};

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "LOST")]
async fn it_notices_a_payment_that_was_acknowledged_and_is_not_there() {
    let mut cluster = one_node().await;
    let journal = Journal::default();
    let lost = payment(7);
    journal.asked(lost);
    journal.answered(lost.id, CreateTransferStatus::Created, 1);
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "isn't the sum of its payments")]
async fn it_notices_money_that_moved_without_being_asked() {
    let mut cluster = one_node().await;
    cluster.door(1).create_transfers(&[payment(7)], DEADLINE).await.unwrap();
    judge(&mut cluster, &Journal::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "another body")]
async fn it_notices_a_payment_with_another_amount() {
    let mut cluster = one_node().await;
    let journal = Journal::default();
    let asked = payment(7);
    let done = jangbu_ledger::Transfer { amount: jangbu_ledger::Amount(8), ..asked };
    let reply = cluster.door(1).create_transfers(&[done], DEADLINE).await.unwrap();
    journal.asked(asked);
    journal.answered(asked.id, CreateTransferStatus::Created, reply.results[0].timestamp);
    judge(&mut cluster, &journal).await;
}

async fn one_node() -> Cluster {
    let cluster = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    open_accounts(&cluster, 1).await;
    cluster
}
