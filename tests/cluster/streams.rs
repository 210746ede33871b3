//! The packed stream keeps the same promises.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use jangbu_client::{Client, ClientConfig, StreamConfig, Ticket};
use jangbu_ledger::{CreateResult, CreateTransferStatus, Transfer};
use jangbu_proto::{
    convert,
    jangbu::v1::{Applied, Operation, SubmitRequest, submit_reply::Outcome},
};
use jangbu_tests::{Cluster, Journal, judge, open_accounts, payment};
use tokio::sync::mpsc;
use tonic::Code;

const WINDOW: usize = 8;
const BATCH_COUNT: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_stays_open_while_the_leader_is_killed_and_each_request_is_answered() {
    let mut cluster = Cluster::start().await;
    open_accounts(&cluster, 1).await;
    let leader = cluster.leader().await;
    let asked = cluster.other_than(&[leader]);
    let journal = Journal::default();

    let (requests, receiver) = mpsc::channel(WINDOW);
    let requests_stream = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let mut replies = cluster.door(asked).ledger().submit(Box::pin(requests_stream)).await.unwrap().into_inner();

    let mut in_flight: BTreeMap<u64, Vec<Transfer>> = BTreeMap::new();
    let mut applied_count = 0;
    for tag in 0..WINDOW as u64 {
        let batch = new_batch(&journal);
        requests.send(request(tag, &batch)).await.unwrap();
        in_flight.insert(tag, batch);
    }
    for next_tag in WINDOW as u64.. {
        if in_flight.is_empty() {
            break;
        }
        let reply = replies.next().await.expect("the stream stays open").expect("the stream never fails");
        let batch = in_flight.remove(&reply.tag).expect("a reply has the tag of a request, once");
        let again = match reply.outcome.expect("a reply has an outcome") {
            Outcome::Applied(applied) => {
                record(&journal, &batch, &applied);
                applied_count += 1;
                if applied_count == 20 {
                    cluster.node_mut(leader).kill();
                }
                (applied_count < 100).then(|| new_batch(&journal))
            }
            Outcome::Failure(failure) => {
                let passing = [Code::Unavailable as i32, Code::DeadlineExceeded as i32];
                assert!(passing.contains(&failure.code), "{failure:?}");
                // The same ids, whatever became of them.
                Some(batch)
            }
        };
        if let Some(batch) = again {
            requests.send(request(next_tag, &batch)).await.unwrap();
            in_flight.insert(next_tag, batch);
        }
    }
    drop(requests);
    assert!(replies.next().await.is_none(), "the stream ends when its requests end");

    cluster.node_mut(leader).start();
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_with_the_client_library_pays_through_the_death_of_its_node_and_of_the_leader() {
    let mut cluster = Cluster::start().await;
    open_accounts(&cluster, 1).await;
    let leader = cluster.leader().await;
    let own = cluster.other_than(&[leader]);
    let journal = Journal::default();
    // Its own node is asked first.
    let mut endpoints: Vec<String> =
        cluster.ids().iter().map(|id| cluster.node(*id).addresses.client.clone()).collect();
    endpoints.rotate_left(cluster.ids().iter().position(|id| *id == own).expect("it is one of them"));
    let client = Client::connect(endpoints, ClientConfig::default()).unwrap();
    let stream = client.stream(StreamConfig { window: WINDOW, deadline: Duration::from_secs(20) });

    let mut in_flight: VecDeque<(Vec<Transfer>, Ticket)> = VecDeque::new();
    for round in 0..120 {
        let batch = new_batch(&journal);
        let ticket = stream.submit_transfers(&batch).await.unwrap();
        in_flight.push_back((batch, ticket));
        match round {
            30 => cluster.node_mut(own).kill(),
            60 => {
                cluster.node_mut(own).start();
                cluster.serves().await;
                cluster.node_mut(leader).kill();
            }
            _ => {}
        }
        if in_flight.len() == WINDOW {
            let (batch, ticket) = in_flight.pop_front().expect("the window is full");
            settle(&journal, &batch, ticket).await;
        }
    }
    for (batch, ticket) in in_flight {
        settle(&journal, &batch, ticket).await;
    }
    cluster.node_mut(leader).start();
    judge(&mut cluster, &journal).await;
}

/// Within its deadline the library has an answer for everything: what it isn't sure of, it asks again.
async fn settle(journal: &Journal, batch: &[Transfer], ticket: Ticket) {
    let reply = ticket.await.expect("the cluster heals well within the deadline");
    for (transfer, result) in batch.iter().zip(reply.results::<CreateTransferStatus>().unwrap()) {
        journal.answered(transfer.id, result.status, result.timestamp);
    }
}

fn new_batch(journal: &Journal) -> Vec<Transfer> {
    let batch: Vec<Transfer> = (0..BATCH_COUNT).map(|_| payment(3)).collect();
    batch.iter().for_each(|transfer| journal.asked(*transfer));
    batch
}

fn request(tag: u64, batch: &[Transfer]) -> SubmitRequest {
    let mut records = vec![0; batch.len() * Transfer::BYTES];
    let (slots, _) = records.as_chunks_mut();
    batch.iter().zip(slots).for_each(|(transfer, slot)| transfer.encode(slot));
    SubmitRequest { tag, operation: Operation::CreateTransfers.into(), records: records.into(), deadline_ms: 3_000 }
}

fn record(journal: &Journal, batch: &[Transfer], applied: &Applied) {
    let (_, reply) = convert::view_of_applied(applied, batch.len()).expect("a node answers with what makes sense");
    let results: Vec<CreateResult<CreateTransferStatus>> =
        convert::results_of(&reply).expect("a node answers with known statuses");
    for (transfer, result) in batch.iter().zip(results) {
        journal.answered(transfer.id, result.status, result.timestamp);
    }
}
