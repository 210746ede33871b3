//! Operators against nodes that do what a test tells them.

use jangbu_proto::reason;
use tonic::Code;

use super::*;
use crate::fake::{Act, Cluster, unknown};

fn operator(cluster: &Cluster) -> OperatorClient {
    OperatorClient::connect(cluster.addresses(), cluster.config()).expect("these are addresses")
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_how_it_is() {
    let cluster = Cluster::start(1).await;
    assert_eq!(operator(&cluster).status().await.unwrap().role, "Leader");
}

#[tokio::test(start_paused = true)]
async fn another_node_is_asked_when_surely_nothing_was_done() {
    let cluster = Cluster::start(3).await;
    cluster.nodes[0].die();
    cluster.nodes[1].will([Act::Fail(reason::status(Code::Unavailable, reason::NOT_LEADER, "node 3 leads"))]);
    operator(&cluster).promote_member(3).await.unwrap();
    assert_eq!([cluster.nodes[1].asked().len(), cluster.nodes[2].asked().len()], [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_doubt_is_not_asked_for_again() {
    for act in [Act::DoAndDie, Act::DoAndFail(unknown()), Act::Hang] {
        let cluster = Cluster::start(2).await;
        cluster.nodes[0].will([act]);
        let outcome = operator(&cluster).remove_member(2, false).await;
        assert!(matches!(outcome, Err(ClientError::OutcomeUnknown { .. })), "{outcome:?}");
        assert_eq!(cluster.nodes[1].asked().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_cluster_does_not_allow_is_told_with_its_reason() {
    let cluster = Cluster::start(2).await;
    let initialized = reason::status(Code::FailedPrecondition, reason::ALREADY_INITIALIZED, "it is one already");
    cluster.nodes[0].will([Act::Fail(initialized)]);
    let outcome = operator(&cluster).initialize(&cluster.addresses()).await;
    let expected =
        ClientError::NotAllowed { reason: reason::ALREADY_INITIALIZED.into(), message: "it is one already".into() };
    assert_eq!(outcome, Err(expected));
    assert_eq!(cluster.nodes[1].asked().len(), 0);
}

#[test]
fn calls_can_be_spawned() {
    fn is_send<T: Send>(_: impl FnOnce(&'static OperatorClient) -> T) {}
    is_send(|operator| operator.status());
    is_send(|operator| operator.initialize(&[]));
    is_send(|operator| operator.verify(0));
}
