//! A client against nodes that do what a test tells them, over wires in memory.

use std::time::Duration;

use jangbu_ledger::{AccountFilterFlags, Amount, TransferFlags};
use jangbu_proto::batch::EVENTS_MAX;
use tokio::time::Instant;

use super::*;
use crate::fake::{Act, Cluster, drawn_acts, no_leader, payment, unknown};

fn statuses(created: &Created<CreateTransferStatus>) -> Vec<CreateTransferStatus> {
    created.results.iter().map(|result| result.status).collect()
}

fn ids_in_doubt<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Vec<u128> {
    match outcome {
        Err(ClientError::OutcomeUnknown { ids, .. }) => ids,
        other => panic!("the outcome must be unknown, not {other:?}"),
    }
}

// --- finding a node

#[tokio::test(start_paused = true)]
async fn a_payment_is_answered_by_the_first_node() {
    let cluster = Cluster::start(3).await;
    let created = cluster.client().create_transfers(&[payment(1, 15)]).await.unwrap();
    assert_eq!(statuses(&created), [CreateTransferStatus::Created]);
    assert_eq!(created.at.log_index, 101);
    assert_eq!(cluster.moved(), Amount(15));
    assert_eq!(cluster.nodes[0].asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_a_node_is_down_the_next_one_is_asked_at_once_and_kept() {
    let mut cluster = Cluster::start(3).await;
    cluster.nodes[0].die();
    let client = cluster.client();
    let started = Instant::now();
    client.create_transfers(&[payment(1, 1)]).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(5), "{:?}", started.elapsed());
    cluster.start_node(0).await;
    client.create_transfers(&[payment(2, 1)]).await.unwrap();
    assert_eq!(cluster.nodes.iter().map(|node| node.asked().len()).collect::<Vec<_>>(), [0, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_no_leader_is_left_for_another() {
    let cluster = Cluster::start(2).await;
    cluster.nodes[0].will([Act::Fail(no_leader())]);
    let created = cluster.client().create_transfers(&[payment(1, 1)]).await.unwrap();
    assert_eq!(statuses(&created), [CreateTransferStatus::Created]);
    assert_eq!(cluster.nodes[1].asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_costs_one_attempt() {
    let cluster = Cluster::start(2).await;
    cluster.nodes[0].will([Act::Hang]);
    let started = Instant::now();
    cluster.client().create_transfers(&[payment(1, 1)]).await.unwrap();
    assert!((2_000..2_100).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn many_callers_can_share_a_client() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut callers = tokio::task::JoinSet::new();
    for id in 1..=64 {
        let client = client.clone();
        callers.spawn(async move { client.create_transfers(&[payment(id, 1)]).await });
    }
    for outcome in callers.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(cluster.moved(), Amount(64));
}

// --- the same ids

#[tokio::test(start_paused = true)]
async fn a_payment_whose_answer_was_lost_moves_money_once() {
    let cluster = Cluster::start(3).await;
    cluster.nodes[0].will([Act::DoAndDie]);
    let created = cluster.client().create_transfers(&[payment(1, 15), payment(2, 1)]).await.unwrap();
    assert_eq!(statuses(&created), [CreateTransferStatus::Exists; 2]);
    assert_eq!(cluster.moved(), Amount(16));
    let (first, second) = (&cluster.nodes[0].asked()[0], &cluster.nodes[1].asked()[0]);
    assert_eq!(first.records, second.records, "byte for byte the same");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_settled_by_asking_again() {
    for act in [Act::DoAndFail(unknown()), Act::Fail(unknown())] {
        let cluster = Cluster::start(2).await;
        cluster.nodes[0].will([act]);
        cluster.client().create_transfers(&[payment(1, 15)]).await.unwrap();
        assert_eq!(cluster.moved(), Amount(15));
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_whose_answer_was_lost_exists_as_a_whole() {
    let cluster = Cluster::start(2).await;
    cluster.nodes[0].will([Act::DoAndFail(unknown())]);
    let linked = |id| Transfer { flags: TransferFlags::LINKED, ..payment(id, 1) };
    let chain = [linked(1), linked(2), payment(3, 1)];
    let created = cluster.client().create_transfers(&chain).await.unwrap();
    assert_eq!(statuses(&created), [CreateTransferStatus::Exists; 3]);
    assert_eq!(cluster.moved(), Amount(3));
    let times: Vec<u64> = created.results.iter().map(|result| result.timestamp).collect();
    assert_eq!([times[1] - times[0], times[2] - times[1]], [1, 1], "the times of the first attempt");
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_accounts_whose_answer_was_lost_exists_as_a_whole() {
    use jangbu_ledger::AccountFlags;
    let cluster = Cluster::start(2).await;
    cluster.nodes[0].will([Act::DoAndFail(unknown())]);
    let account = |id, flags| Account { id: AccountId(id), ledger: 1, code: 1, flags, ..Account::default() };
    let chain = [account(8, AccountFlags::LINKED), account(9, AccountFlags::NONE)];
    let created = cluster.client().create_accounts(&chain).await.unwrap();
    assert!(created.results.iter().all(|result| result.status == CreateAccountStatus::Exists), "{created:?}");
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_was_there_before_is_told_as_the_rules_tell_it() {
    let cluster = Cluster::start(1).await;
    let chain = [Transfer { flags: TransferFlags::LINKED, ..payment(1, 1) }, payment(2, 1)];
    let client = cluster.client();
    client.create_transfers(&chain).await.unwrap();
    let again = client.create_transfers(&chain).await.unwrap();
    assert_eq!(statuses(&again), [CreateTransferStatus::Exists, CreateTransferStatus::LinkedEventFailed]);
}

// --- when to stop

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_asked_once() {
    let cluster = Cluster::start(2).await;
    let refusal = Malformed::new("transfers[0].code", "is odd");
    cluster.nodes[0].will([Act::Fail(reason::malformed(&refusal))]);
    let outcome = cluster.client().create_transfers(&[payment(1, 1)]).await;
    assert_eq!(outcome, Err(ClientError::Refused(refusal)));
    assert_eq!([cluster.nodes[0].asked().len(), cluster.nodes[1].asked().len()], [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_too_large_or_empty_is_refused() {
    let cluster = Cluster::start(1).await;
    for events_count in [0, EVENTS_MAX + 1] {
        let outcome = cluster.client().create_transfers(&vec![payment(1, 1); events_count]).await;
        assert!(matches!(&outcome, Err(ClientError::Refused(refusal)) if refusal.field == "transfers"), "{outcome:?}");
    }
    // Above the bound of a message, nobody looks into it.
    let outcome = cluster.client().create_transfers(&vec![payment(u128::MAX, 1); 100_000]).await;
    assert!(matches!(&outcome, Err(ClientError::Refused(refusal)) if refusal.field == "message"), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn with_all_nodes_down_nothing_was_done_and_the_deadline_holds() {
    let cluster = Cluster::start(3).await;
    cluster.nodes.iter().for_each(|node| node.die());
    let started = Instant::now();
    let error = cluster.client().create_transfers(&[payment(1, 1)]).await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error:?}");
    assert!(error.nothing_was_done());
    assert!(started.elapsed() <= Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_apart() {
    let cluster = Cluster::start(2).await;
    for node in &cluster.nodes {
        node.will(std::iter::repeat_n(Act::Fail(no_leader()), 100));
    }
    let error = cluster.client().create_transfers(&[payment(1, 1)]).await.unwrap_err();
    assert!(matches!(&error, ClientError::Unavailable { reason, .. } if reason == reason::NO_LEADER), "{error:?}");
    let mut asked_at: Vec<Instant> = cluster.nodes.iter().flat_map(|node| node.asked()).map(|asked| asked.at).collect();
    asked_at.sort();
    assert_eq!(asked_at.len(), 12);
    assert!(asked_at[11] - asked_at[0] > Duration::from_millis(500), "{asked_at:?}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_while_a_node_hangs_and_the_node_is_told_of_it() {
    let cluster = Cluster::start(1).await;
    cluster.nodes[0].will(std::iter::repeat_n(Act::Hang, 10));
    let client = cluster.client().with_deadline(Duration::from_secs(3));
    let started = Instant::now();
    let outcome = client.create_transfers(&[payment(7, 1), payment(8, 1)]).await;
    assert_eq!(ids_in_doubt(outcome), [7, 8]);
    let took = started.elapsed().as_millis();
    assert!((2_000..=3_001).contains(&took), "{took} ms");
    let asked = cluster.nodes[0].asked();
    assert_eq!(asked[0].timeout.as_deref(), Some("2000000u"), "an attempt has two seconds");
    assert!(asked.len() >= 2, "it was asked again");
}

#[tokio::test(start_paused = true)]
async fn after_a_doubt_no_later_failure_says_that_nothing_was_done() {
    let cluster = Cluster::start(1).await;
    let failures = std::iter::repeat_n(Act::Fail(no_leader()), 100);
    cluster.nodes[0].will([Act::DoAndFail(unknown())].into_iter().chain(failures));
    let outcome = cluster.client().create_transfers(&[payment(5, 1)]).await;
    assert_eq!(ids_in_doubt(outcome), [5]);
    assert!(cluster.recorded(5));
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_node_is_left_alone_for_as_long_as_it_asks() {
    let cluster = Cluster::start(2).await;
    cluster.nodes[0].will([Act::Fail(reason::overloaded("the queue is full", Duration::from_millis(300)))]);
    let created = cluster.client().create_transfers(&[payment(1, 1)]).await.unwrap();
    assert_eq!(statuses(&created), [CreateTransferStatus::Created]);
    let asked = cluster.nodes[0].asked();
    let pause = asked[1].at - asked[0].at;
    assert!((300..=610).contains(&pause.as_millis()), "{pause:?}");
    assert_eq!(cluster.nodes[1].asked().len(), 0, "a neighbour isn't made to pay for it");
}

#[tokio::test(start_paused = true)]
async fn an_overload_that_lasts_is_told_with_its_delay() {
    let cluster = Cluster::start(1).await;
    let overloaded = reason::overloaded("the queue is full", Duration::from_secs(4));
    cluster.nodes[0].will(std::iter::repeat_n(Act::Fail(overloaded), 10));
    let started = Instant::now();
    let error = cluster.client().create_transfers(&[payment(1, 1)]).await.unwrap_err();
    let expected = ClientError::Overloaded { retry_after: Duration::from_secs(4), message: "the queue is full".into() };
    assert_eq!(error, expected);
    assert!(started.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn when_all_fails_retries_stop_multiplying_the_load() {
    let cluster = Cluster::start(1).await;
    cluster.nodes[0].will(std::iter::repeat_n(Act::Fail(no_leader()), 100_000));
    let client = cluster.client();
    for id in 1..=2_000 {
        client.create_transfers(&[payment(id, 1)]).await.unwrap_err();
    }
    let asked_count = cluster.nodes[0].asked().len();
    assert!((3_190..=3_210).contains(&asked_count), "{asked_count}: the calls, the savings, and a tenth");
}

/// The law of this crate, over many histories: what is told as done was done, once; what is told as not done never is.
#[tokio::test(start_paused = true)]
async fn whatever_nodes_do_the_client_tells_the_truth() {
    let (mut done_count, mut not_done_count, mut unknown_count) = (0, 0, 0);
    for seed in 0..300 {
        let cluster = Cluster::start(3).await;
        for (node, seed) in cluster.nodes.iter().zip(seed * 3..) {
            node.will(drawn_acts(seed, seed as usize % 16));
        }
        let client = cluster.client();
        let mut told_done = Vec::new();
        let mut told_not_done = Vec::new();
        for id in 1..=4 {
            let started = Instant::now();
            let outcome = client.create_transfers(&[payment(id, 1)]).await;
            assert!(started.elapsed() <= Duration::from_millis(5_001), "seed {seed}: {:?}", started.elapsed());
            match outcome {
                Ok(created) => {
                    let status = created.results[0].status;
                    assert!(
                        matches!(status, CreateTransferStatus::Created | CreateTransferStatus::Exists),
                        "seed {seed}: {status}"
                    );
                    told_done.push(id);
                }
                Err(ClientError::OutcomeUnknown { ids, .. }) => {
                    assert_eq!(ids, [id], "seed {seed}");
                    unknown_count += 1;
                }
                Err(error) => {
                    assert!(error.nothing_was_done(), "seed {seed}: {error}");
                    told_not_done.push(id);
                }
            }
        }
        // Whatever is still under way comes to its end.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(told_done.iter().all(|id| cluster.recorded(*id)), "seed {seed}: done, and not there");
        assert!(!told_not_done.iter().any(|id| cluster.recorded(*id)), "seed {seed}: not done, and there");
        let recorded_count = (1..=4).filter(|id| cluster.recorded(*id)).count();
        assert_eq!(cluster.moved(), Amount(recorded_count as u128), "seed {seed}: each moved money once");
        done_count += told_done.len();
        not_done_count += told_not_done.len();
    }
    // The histories are of every kind, else this would prove little.
    assert!(
        done_count > 500 && not_done_count > 10 && unknown_count > 50,
        "{done_count} {not_done_count} {unknown_count}"
    );
}

// --- reads

#[tokio::test(start_paused = true)]
async fn lookups_answer_in_the_order_asked() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    client.create_transfers(&[payment(1, 10), payment(2, 20)]).await.unwrap();
    let found = client.lookup_transfers(&[TransferId(2), TransferId(9), TransferId(1)]).await.unwrap();
    assert_eq!(found.at.log_index, 101);
    assert_eq!(found.value.iter().map(|transfer| transfer.id.0).collect::<Vec<_>>(), [2, 1]);
    let accounts = client.lookup_accounts(&[AccountId(2), AccountId(1)]).await.unwrap().value;
    assert_eq!(accounts.iter().map(|account| account.id.0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(accounts[0].credits_posted, Amount(30));
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_stopped_early_says_where() {
    let cluster = Cluster::start(1).await;
    let mut filter =
        AccountFilter { account_id: AccountId(1), limit: 1, flags: AccountFilterFlags::DEBITS, ..Default::default() };
    let page = cluster.client().get_account_transfers(&filter).await.unwrap().value;
    assert_eq!(page, Page { items: Vec::new(), scanned_to: 77 });
    filter.limit = 0;
    let outcome = cluster.client().get_account_transfers(&filter).await;
    assert!(matches!(&outcome, Err(ClientError::Refused(refusal)) if refusal.field == "filter.limit"), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_wrote_it_reads_at_bounded_staleness() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client();
    client.create_transfers(&[payment(1, 1)]).await.unwrap();
    cluster.nodes[0].lags(1);
    let bounded = client.with_consistency(Consistency::BoundedStaleness(Duration::from_secs(10)));
    assert_eq!(bounded.lookup_transfers(&[TransferId(1)]).await.unwrap().at.log_index, 101, "another node is asked");

    cluster.nodes[1].lags(1);
    let error = bounded.lookup_transfers(&[TransferId(1)]).await.unwrap_err();
    assert!(matches!(&error, ClientError::Unavailable { reason, .. } if reason == reason::STALE), "{error:?}");

    let local = client.with_consistency(Consistency::Local);
    assert_eq!(
        local.lookup_transfers(&[TransferId(1)]).await.unwrap().at.log_index,
        100,
        "a local read promises nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_can_be_handed_on() {
    let cluster = Cluster::start(2).await;
    let writer = cluster.client();
    writer.create_transfers(&[payment(1, 1)]).await.unwrap();
    cluster.nodes[0].lags(1);
    let reader = cluster.client().with_consistency(Consistency::BoundedStaleness(Duration::from_secs(10)));
    assert_eq!(reader.lookup_transfers(&[TransferId(1)]).await.unwrap().at.log_index, 100);
    reader.observe(writer.session());
    assert_eq!(reader.lookup_transfers(&[TransferId(1)]).await.unwrap().at.log_index, 101);
}

#[tokio::test(start_paused = true)]
async fn the_fate_of_transfers_can_be_asked() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    client.create_transfers(&[payment(1, 10), payment(3, 30)]).await.unwrap();
    let fates = client.resolve(&[TransferId(3), TransferId(2), TransferId(1)]).await.unwrap();
    assert!(matches!(&fates[0], Fate::Recorded(transfer) if transfer.amount == Amount(30)));
    assert_eq!(fates[1], Fate::NotRecorded(TransferId(2)));
    assert!(matches!(&fates[2], Fate::Recorded(transfer) if transfer.amount == Amount(10)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_whole_is_no_answer() {
    let cluster = Cluster::start(1).await;
    let filter = ChangeEventsFilter { limit: 1, ..Default::default() };
    let error = cluster.client().get_change_events(&filter).await.unwrap_err();
    assert_eq!(error, ClientError::Unintelligible(Malformed::new("read_at", "is missing")));
}

#[test]
fn calls_can_be_spawned() {
    fn is_send<T: Send>(_: impl FnOnce(&'static Client) -> T) {}
    is_send(|client| client.create_accounts(&[]));
    is_send(|client| client.create_transfers(&[]));
    is_send(|client| client.lookup_transfers(&[]));
    is_send(|client| client.resolve(&[]));
}
