use std::time::Duration;

use jangbu_proto::cluster::v1::{
    AddMemberRequest, InitializeRequest, MoveLeaderRequest, PromoteMemberRequest, RemoveMemberRequest,
};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::harness::{Cluster, PATIENCE, reason};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_added_promoted_and_takes_the_place_of_a_dead_one() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    cluster.pay(1, 1, 10).await;
    let dead = cluster.a_follower().await;
    cluster.kill(dead).await;

    cluster.start(4).await;
    let alive = (1..=3).find(|id| *id != dead).unwrap();
    // Asked of any node that runs, leader or not.
    let mut operator = cluster.operator(alive).await;
    let peer_address = cluster.nodes[&4].peer_address.clone();
    operator.add_member(AddMemberRequest { peer_address: peer_address.clone() }).await.unwrap();
    operator.add_member(AddMemberRequest { peer_address }).await.expect("asking again is no error");
    cluster.until(4, "it has the books", |status| status.accounts_count == 2 && status.events_count == 1).await;
    let status = cluster.status(4).await.unwrap();
    assert_eq!(status.role, "Learner");

    // The leader may have yet to hear how far it is.
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = operator.promote_member(PromoteMemberRequest { node_id: 4 }).await {
        assert!(reason(&status) == "LAGGING" && Instant::now() < deadline, "{status:?}");
        sleep(Duration::from_millis(20)).await;
    }
    operator.remove_member(RemoveMemberRequest { node_id: dead, force: false }).await.unwrap();
    operator.remove_member(RemoveMemberRequest { node_id: dead, force: false }).await.expect("it is done already");
    cluster
        .until(4, "it votes, and the dead node is gone", |status| {
            let voters: Vec<u64> = status
                .members
                .iter()
                .filter(|member| member.voter)
                .map(|member| member.node.as_ref().unwrap().node_id)
                .collect();
            voters.len() == 3 && voters.contains(&4) && !voters.contains(&dead)
        })
        .await;
    cluster.pay(4, 2, 10).await;
    assert_eq!(cluster.paid(alive, None).await.unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_never_used_again() {
    let mut cluster = Cluster::of(3).await;
    let follower = cluster.a_follower().await;
    let mut operator = cluster.operator(1).await;
    let mut operator_elsewhere = cluster.operator(if follower == 1 { 2 } else { 1 }).await;
    operator.remove_member(RemoveMemberRequest { node_id: follower, force: true }).await.unwrap();
    cluster.kill(follower).await;
    std::fs::remove_dir_all(cluster.data_dir(follower)).unwrap();
    cluster.start(follower).await;
    let peer_address = cluster.nodes[&follower].peer_address.clone();
    let status = operator_elsewhere.add_member(AddMemberRequest { peer_address }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "NODE_IN_USE"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_removed_if_the_rest_could_not_go_on() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader(1).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let mut operator = cluster.operator(leader).await;
    let status = operator.remove_member(RemoveMemberRequest { node_id: 99, force: false }).await.unwrap_err();
    assert_eq!(reason(&status), "UNKNOWN_NODE");

    cluster.kill(others[0]).await;
    // Silence is how a leader learns of a death: for some heartbeats, the dead node still counts as answering.
    sleep(Duration::from_secs(1)).await;
    // Of the two that would be left, one is dead.
    let status = operator.remove_member(RemoveMemberRequest { node_id: others[1], force: true }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "NO_QUORUM_LEFT"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leadership_moves_where_it_is_told_to() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let leader = cluster.leader(1).await;
    let to = leader % 3 + 1;
    // Asked of a node that is neither.
    let mut operator = cluster.operator(to % 3 + 1).await;
    let moved = operator.move_leader(MoveLeaderRequest { node_id: to }).await.unwrap().into_inner();
    assert_eq!(moved.leader_id, to);
    cluster.pay(leader, 1, 10).await;
    assert_eq!(cluster.leader(leader).await, to);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_once() {
    let cluster = Cluster::of(1).await;
    let peer_addresses = vec![cluster.nodes[&1].peer_address.clone()];
    let status = cluster.operator(1).await.initialize(InitializeRequest { peer_addresses }).await.unwrap_err();
    assert_eq!(reason(&status), "ALREADY_INITIALIZED");
}
