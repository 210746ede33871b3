use std::fs;

use jangbu_node::NodeError;
use jangbu_proto::{
    cluster::v1::{
        AppendRequest, DigestsRequest, Envelope, ForwardRequest, IdentifyRequest, ReadIndexRequest,
        TransferLeaderRequest, Vote, VoteRequest, operator_client::OperatorClient, peer_client::PeerClient,
    },
    reason::told,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::harness::{Cluster, PATIENCE, channel, reason};

impl Cluster {
    /// What node `from` would say to node `to`.
    async fn envelope(&self, from: u64, to: u64) -> Envelope {
        let identify = async |id: u64| {
            let mut operator = OperatorClient::new(channel(&self.nodes[&id].peer_address));
            operator.identify(IdentifyRequest {}).await.unwrap().into_inner()
        };
        let (sender, receiver) = (identify(from).await, identify(to).await);
        Envelope {
            cluster_id: sender.cluster_id,
            from_node: from,
            from_incarnation: sender.node.unwrap().incarnation,
            to_node: to,
            group: 0,
            to_incarnation: receiver.node.unwrap().incarnation,
        }
    }

    async fn digests(&self, to: u64, envelope: Option<Envelope>) -> Result<(), Status> {
        let mut peer = PeerClient::new(channel(&self.nodes[&to].peer_address));
        peer.digests(DigestsRequest { envelope }).await.map(|_| ())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_who_it_says_is_refused_by_name() {
    let cluster = Cluster::of(3).await;
    let right = cluster.envelope(1, 2).await;
    cluster.digests(2, Some(right.clone())).await.expect("a member is let in");

    let other = vec![9; 16];
    let wrong = [
        ("WRONG_CLUSTER", Envelope { cluster_id: other.clone().into(), ..right.clone() }),
        ("WRONG_NODE", Envelope { to_node: 3, ..right.clone() }),
        ("WRONG_NODE", Envelope { from_node: 2, ..right.clone() }),
        ("WRONG_INCARNATION", Envelope { from_incarnation: other.clone().into(), ..right.clone() }),
        ("WRONG_INCARNATION", Envelope { to_incarnation: other.into(), ..right.clone() }),
    ];
    for (why, envelope) in wrong {
        let status = cluster.digests(2, Some(envelope)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, why), "{status:?}");
    }
    let status = cluster.digests(2, None).await.unwrap_err();
    assert_eq!(told(&status).field.unwrap().field, "envelope");
    let status = cluster.digests(2, Some(Envelope { group: 1, ..right })).await.unwrap_err();
    assert_eq!(told(&status).field.unwrap().field, "envelope.group");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_between_replicas_is_answered_without_the_right_envelope() {
    let cluster = Cluster::of(3).await;
    let wrong = Envelope { cluster_id: vec![9; 16].into(), ..cluster.envelope(1, 2).await };
    let mut peer = PeerClient::new(channel(&cluster.nodes[&2].peer_address));
    let envelope = Some(wrong);
    // A vote high enough to win, if it were looked at.
    let vote = Some(Vote { term: 1_000, node_id: 1, committed: true });
    let asked = VoteRequest { envelope: envelope.clone(), vote, last_log_id: None, leadership_transfer: true };
    let append = AppendRequest { envelope: envelope.clone(), vote, ..AppendRequest::default() };
    let transfer =
        TransferLeaderRequest { envelope: envelope.clone(), from_leader: vote, to_node: 2, last_log_id: None };
    let answers = [
        peer.vote(asked.clone()).await.map(|_| ()),
        peer.pre_vote(asked).await.map(|_| ()),
        peer.append(futures_util::stream::iter([append])).await.map(|_| ()),
        peer.transfer_leader(transfer).await.map(|_| ()),
        peer.read_index(ReadIndexRequest { envelope: envelope.clone() }).await.map(|_| ()),
        peer.forward(ForwardRequest { envelope: envelope.clone(), ..ForwardRequest::default() }).await.map(|_| ()),
        peer.digests(DigestsRequest { envelope }).await.map(|_| ()),
    ];
    for (call, answer) in answers.into_iter().enumerate() {
        assert_eq!(reason(&answer.unwrap_err()), "WRONG_CLUSTER", "call {call}");
    }
    assert!(cluster.status(2).await.unwrap().term < 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_refused_under_its_old_id_and_says_why() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let follower = cluster.a_follower().await;
    cluster.stop(follower).await;
    fs::remove_dir_all(cluster.data_dir(follower)).unwrap();
    cluster.start(follower).await;
    let node = cluster.nodes.get_mut(&follower).unwrap();
    let ended = timeout(PATIENCE, &mut node.ended).await.expect("it ends by itself").unwrap();
    match ended {
        Err(NodeError::Disowned(message)) => assert!(message.contains("has lost its data folder"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_not_added() {
    let cluster = Cluster::of(1).await;
    let stranger = Cluster::of(1).await;
    let request = jangbu_proto::cluster::v1::AddMemberRequest { peer_address: stranger.nodes[&1].peer_address.clone() };
    let status = cluster.operator(1).await.add_member(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "NODE_IN_USE"));
}
