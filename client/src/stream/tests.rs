//! A packed stream against nodes that do what a test tells them.

use futures_util::{FutureExt, future::join_all};
use jangbu_ledger::{Amount, CreateTransferStatus};

use super::*;
use crate::fake::{Act, Cluster, drawn_acts, no_leader, payment, unknown};

fn statuses(reply: &PackedReply) -> Vec<CreateTransferStatus> {
    let results = reply.results::<CreateTransferStatus>().expect("they are statuses of transfers");
    results.iter().map(|result| result.status).collect()
}

fn stream(cluster: &Cluster) -> PackedStream {
    cluster.client().stream(StreamConfig::default())
}

/// Submits payments 1 to `count`, of 1 each.
async fn submit(stream: &PackedStream, count: u128) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for id in 1..=count {
        tickets.push(stream.submit_transfers(&[payment(id, 1)]).await.expect("it is well formed"));
    }
    tickets
}

#[tokio::test(start_paused = true)]
async fn each_request_gets_its_own_answer() {
    let cluster = Cluster::start(1).await;
    let stream = stream(&cluster);
    let first = stream.submit_transfers(&[payment(1, 1), payment(2, 1), payment(1, 2)]).await.unwrap();
    let second = stream.submit_transfers(&[payment(3, 1)]).await.unwrap();
    let (second, first) = (second.await.unwrap(), first.await.unwrap());
    use CreateTransferStatus::{Created, ExistsWithDifferentAmount};
    assert_eq!(statuses(&first), [Created, Created, ExistsWithDifferentAmount]);
    assert_eq!(statuses(&second), [Created]);
    assert!(!first.resubmitted);
    assert_eq!(cluster.moved(), Amount(3));
}

#[tokio::test(start_paused = true)]
async fn a_full_window_makes_the_producer_wait() {
    let cluster = Cluster::start(1).await;
    cluster.nodes[0].will([Act::Hang, Act::Hang]);
    let stream = cluster.client().stream(StreamConfig { window: 2, ..StreamConfig::default() });
    let _in_flight = submit(&stream, 2).await;
    let third = stream.submit_transfers(&[payment(3, 1)]).now_or_never();
    assert!(third.is_none(), "there is no place");
    let third = stream.submit_transfers(&[payment(3, 1)]).await.unwrap();
    assert_eq!(statuses(&third.await.unwrap()), [CreateTransferStatus::Created]);
}

#[tokio::test(start_paused = true)]
async fn what_is_unanswered_when_a_node_dies_is_submitted_to_another_once_more() {
    let cluster = Cluster::start(2).await;
    cluster.nodes[0].will([Act::Hang, Act::DoAndDie]);
    let stream = stream(&cluster);
    let tickets = submit(&stream, 4).await;
    let replies: Vec<PackedReply> = join_all(tickets).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses(&replies[0]), [CreateTransferStatus::Created]);
    assert_eq!(statuses(&replies[1]), [CreateTransferStatus::Exists]);
    assert!(replies.iter().all(|reply| reply.resubmitted));
    assert_eq!(cluster.moved(), Amount(4), "each payment moved money once");
    let resubmitted: Vec<_> = cluster.nodes[1].asked().iter().map(|asked| asked.records.clone()).collect();
    let in_order: Vec<_> = (1..=4).map(|id| packed(&[payment(id, 1)], Transfer::encode)).collect();
    assert_eq!(resubmitted, in_order, "byte for byte, in the order in which they came");
}

#[tokio::test(start_paused = true)]
async fn a_stream_survives_many_deaths() {
    let mut cluster = Cluster::start(3).await;
    let stream = stream(&cluster);
    for round in 0..20u128 {
        let index = round as usize % 3;
        cluster.nodes[index].will([Act::DoAndDie]);
        let tickets = join_all((0..3).map(|id| {
            let stream = &stream;
            async move { stream.submit_transfers(&[payment(1 + round * 3 + id, 1)]).await.unwrap().await }
        }));
        for outcome in tickets.await {
            outcome.unwrap();
        }
        for node in 0..3 {
            cluster.nodes[node].die();
            cluster.start_node(node).await;
        }
    }
    assert_eq!(cluster.moved(), Amount(60));
}

#[tokio::test(start_paused = true)]
async fn with_all_nodes_down_a_ticket_is_answered_by_its_deadline() {
    let cluster = Cluster::start(2).await;
    cluster.nodes.iter().for_each(|node| node.die());
    let stream = stream(&cluster);
    let started = Instant::now();
    let tickets = submit(&stream, 3).await;
    for outcome in join_all(tickets).await {
        assert!(matches!(outcome, Err(ClientError::Unavailable { .. })), "nothing was sent: {outcome:?}");
    }
    assert!(started.elapsed() <= Duration::from_millis(5_001), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_unknown_at_its_deadline() {
    let cluster = Cluster::start(1).await;
    cluster.nodes[0].will(std::iter::repeat_n(Act::Hang, 50));
    let stream = stream(&cluster);
    let started = Instant::now();
    let ticket = stream.submit_transfers(&[payment(7, 1), payment(8, 1)]).await.unwrap();
    match ticket.await {
        Err(ClientError::OutcomeUnknown { ids, .. }) => assert_eq!(ids, [7, 8]),
        other => panic!("{other:?}"),
    }
    assert_eq!(started.elapsed().as_millis(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_failure_concerns_its_request_alone() {
    let cluster = Cluster::start(2).await;
    let refusal = jangbu_proto::Malformed::new("records", "are odd");
    let overloaded = reason::overloaded("full", Duration::from_millis(200));
    let failures = [reason::malformed(&refusal), overloaded, no_leader(), unknown()];
    cluster.nodes[0].will(failures.map(Act::Fail));
    let stream = stream(&cluster);
    let started = Instant::now();
    let outcomes = join_all(submit(&stream, 5).await).await;
    assert!(matches!(&outcomes[0], Err(ClientError::Refused(_))), "{:?}", outcomes[0]);
    for outcome in &outcomes[1..] {
        assert_eq!(statuses(outcome.as_ref().unwrap()), [CreateTransferStatus::Created]);
    }
    assert!(started.elapsed() >= Duration::from_millis(200), "the delay is kept");
    assert_eq!(cluster.nodes[1].asked().len(), 0, "the stream stays where it is");
}

#[tokio::test(start_paused = true)]
async fn an_overload_that_lasts_is_told_and_leaves_no_doubt() {
    let cluster = Cluster::start(1).await;
    let overloaded = reason::overloaded("full", Duration::from_secs(4));
    cluster.nodes[0].will(std::iter::repeat_n(Act::Fail(overloaded), 10));
    let stream = stream(&cluster);
    let ticket = stream.submit_transfers(&[payment(1, 1)]).await.unwrap();
    let expected = ClientError::Overloaded { retry_after: Duration::from_secs(4), message: "full".into() };
    assert_eq!(ticket.await, Err(expected));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shuts_down_is_left() {
    let cluster = Cluster::start(2).await;
    let shutting_down = reason::status(tonic::Code::Unavailable, reason::SHUTTING_DOWN, "bye");
    cluster.nodes[0].will([Act::Fail(shutting_down)]);
    let stream = stream(&cluster);
    let ticket = stream.submit_transfers(&[payment(1, 1)]).await.unwrap();
    assert_eq!(statuses(&ticket.await.unwrap()), [CreateTransferStatus::Created]);
    assert_eq!(cluster.nodes[1].asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_lets_what_is_in_flight_finish() {
    let cluster = Cluster::start(1).await;
    let stream = stream(&cluster);
    let tickets = submit(&stream, 5).await;
    drop(stream);
    for outcome in join_all(tickets).await {
        assert_eq!(statuses(&outcome.unwrap()), [CreateTransferStatus::Created]);
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_are_not_whole_are_refused_before_they_are_sent() {
    let cluster = Cluster::start(1).await;
    let stream = stream(&cluster);
    for bytes in [0, 127, 8_190 * 128] {
        let outcome = stream.submit(Operation::CreateTransfers, Bytes::from(vec![0; bytes])).await;
        assert!(matches!(outcome, Err(ClientError::Refused(refusal)) if refusal.field == "records"));
    }
    assert_eq!(cluster.nodes[0].asked().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_wrote_is_part_of_the_session() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let stream = client.stream(StreamConfig::default());
    stream.submit_transfers(&[payment(1, 1)]).await.unwrap().await.unwrap();
    assert_eq!(client.session().log_index, 101);
}

/// As for single calls (`client/tests.rs`): what is told as done was done, once; what is told as not done never is.
#[tokio::test(start_paused = true)]
async fn whatever_nodes_do_the_stream_tells_the_truth() {
    let (mut done_count, mut not_done_count, mut unknown_count) = (0, 0, 0);
    for seed in 0..300 {
        let mut cluster = Cluster::start(3).await;
        for (node, seed) in cluster.nodes.iter().zip(seed * 3..) {
            node.will(drawn_acts(seed, seed as usize % 60));
        }
        let stream = stream(&cluster);
        let mut tickets = Vec::new();
        let mut ids: Vec<u128> = (1..=20).collect();
        for id in &ids {
            if *id == 15 {
                cluster.start_node(seed as usize % 3).await;
            }
            tickets.push(stream.submit_transfers(&[payment(*id, 1)]).await.unwrap());
        }
        let outcomes = join_all(tickets).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        for (id, outcome) in ids.iter().zip(outcomes) {
            match outcome {
                Ok(reply) => {
                    let status = statuses(&reply)[0];
                    use CreateTransferStatus::{Created, Exists};
                    assert!(matches!(status, Created | Exists), "seed {seed}: {status}");
                    assert!(cluster.recorded(*id), "seed {seed}: {id} is done, and not there");
                    done_count += 1;
                }
                Err(ClientError::OutcomeUnknown { ids, .. }) => {
                    assert_eq!(ids, [*id], "seed {seed}");
                    unknown_count += 1;
                }
                Err(error) => {
                    assert!(error.nothing_was_done(), "seed {seed}: {error}");
                    assert!(!cluster.recorded(*id), "seed {seed}: {id} is not done, and there");
                    not_done_count += 1;
                }
            }
        }
        ids.retain(|id| cluster.recorded(*id));
        assert_eq!(cluster.moved(), Amount(ids.len() as u128), "seed {seed}: each moved money once");
    }
    assert!(
        done_count > 1_000 && not_done_count > 10 && unknown_count > 100,
        "{done_count} {not_done_count} {unknown_count}"
    );
}
