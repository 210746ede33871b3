//! Nodes come, go, are replaced, and are never taken for another.

use std::time::Duration;

use jangbu_proto::cluster::v1::{AddMemberRequest, RemoveMemberRequest};
use jangbu_tests::{Cluster, Payer, Payments, Settings, Sizes, damage, judge, payment, until, until_ok};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_away_until_the_log_is_purged_comes_back_by_snapshot_though_killed_while_it_receives_it() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let away = cluster.other_than(&[leader]);
    let payer = Payer::start_at(&cluster, &cluster.ids(), heavy()).await;
    payer.progresses(100, "before anything happens").await;

    cluster.node_mut(away).kill();
    cluster.purges_what_is_needed_by(away).await;

    // Killed at whatever it is about once something has begun to arrive, and again.
    for _ in 0..3 {
        cluster.node_mut(away).start();
        let incoming = cluster.node(away).data.join("group-0/incoming");
        until("a snapshot begins to arrive, or has arrived", async || {
            let arriving = !damage::files_under(&incoming).is_empty();
            let arrived = cluster.door(away).status().await.is_ok_and(|status| status.snapshot_index > 0);
            (arriving || arrived).then_some(())
        })
        .await;
        cluster.node_mut(away).kill();
    }
    // Whoever lags by more than two seconds isn't ready, and under full load on a busy machine that lasts.
    payer.eases();
    cluster.node_mut(away).start();
    cluster.serves().await;
    payer.progresses(100, "with all three again").await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_by_a_fresh_one_under_load() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let dead = cluster.other_than(&[leader]);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != dead).collect();
    let payer = Payer::start_at(&cluster, &others, heavy()).await;
    payer.progresses(100, "before anything happens").await;

    cluster.node_mut(dead).kill();
    cluster.purges_what_is_needed_by(dead).await;
    cluster.furnish(4).start();
    cluster.admit(4).await;
    cluster.dismiss(dead).await;
    let _dead = cluster.give_away(dead);
    payer.progresses(100, "with the new node").await;
    judge(&mut cluster, &payer.stop().await).await;

    // The new one counts: with it, the cluster can lose another.
    let lost = cluster.other_than(&[4]);
    cluster.node_mut(lost).kill();
    let transfer = payment(1);
    until_ok("two of the three pay", async || {
        cluster.door(4).create_transfers(&[transfer], Duration::from_secs(5)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_refused_under_its_old_id_and_says_what_to_do() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let wiped = cluster.other_than(&[leader]);
    let payer = Payer::start(&cluster).await;
    payer.progresses(100, "before anything happens").await;

    cluster.node_mut(wiped).kill();
    cluster.node_mut(wiped).wipe();
    cluster.node_mut(wiped).start();
    let ended = cluster.node_ended(wiped, "it has forgotten what it promised").await;
    ended.assert_gave_up_saying(&["lost its data folder", "new node_id"]);
    payer.progresses(100, "without the wiped node").await;

    // Under a new id it is welcome.
    cluster.furnish(4).start();
    cluster.admit(4).await;
    cluster.dismiss(wiped).await;
    let _wiped = cluster.give_away(wiped);
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_id_is_never_used_again() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let gone = cluster.other_than(&[leader]);
    cluster.dismiss(gone).await;
    let mut old = cluster.give_away(gone);
    old.kill();

    let peer_address = {
        let fresh = cluster.furnish(gone);
        fresh.wipe();
        fresh.start();
        fresh.addresses.peer.clone()
    };
    until("the fresh node answers", async || cluster.door(gone).status().await.ok()).await;
    let refused = cluster.door(leader).operator().add_member(AddMemberRequest { peer_address }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_removed_while_it_was_away_is_told_so_and_ends() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let gone = cluster.other_than(&[leader]);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != gone).collect();
    let payer = Payer::start_at(&cluster, &others, Payments::default()).await;
    cluster.node_mut(gone).kill();
    cluster.dismiss(gone).await;

    let mut gone = cluster.give_away(gone);
    let term = cluster.status(leader).await.term;
    // Each time it is started.
    for _ in 0..2 {
        gone.start();
        let ended = gone.ended("it was removed").await;
        ended.assert_gave_up_saying(&["was removed from the cluster (as node", "Don't start it again"]);
    }
    payer.progresses(100, "without the node that was removed").await;
    assert_eq!(cluster.status(leader).await.term, term, "it disturbed nobody");
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_removed_while_they_run_end_and_a_leader_answers_whoever_removed_it_first() {
    let mut cluster = Cluster::start_with(Settings { nodes_count: 4, ..Settings::default() }).await;
    let leader = cluster.leader().await;
    let follower = cluster.other_than(&[leader]);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| ![leader, follower].contains(id)).collect();
    let payer = Payer::start_at(&cluster, &others, Payments::default()).await;
    for removed in [follower, leader] {
        let leader = cluster.leader().await;
        let request = RemoveMemberRequest { node_id: removed, force: false };
        let removal = cluster.door(leader).operator().remove_member(request).await;
        removal.unwrap_or_else(|status| panic!("node {removed} is removed: {status}"));
        let mut gone = cluster.give_away(removed);
        let ended = gone.ended("it was removed").await;
        ended.assert_gave_up_saying(&["was removed from the cluster", "Don't start it again"]);
        payer.progresses(100, "with one node less").await;
    }
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start().await;
    let mut foreign = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    // A caller at the stranger's door would be served by the stranger's books: nobody but an operator can tell.
    let payer = Payer::start_at(&cluster, &[2, 3], Payments::default()).await;
    cluster.move_leader(2).await;

    // It can't be added …
    let peer_address = foreign.node(1).addresses.peer.clone();
    let refused = cluster.door(2).operator().add_member(AddMemberRequest { peer_address }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    // … nor slip in at the address of a member, under the id of that member.
    cluster.node_mut(1).kill();
    foreign.node_mut(1).kill();
    foreign.node_mut(1).addresses = cluster.node(1).addresses.clone();
    foreign.node(1).configure(Sizes::Small);
    foreign.node_mut(1).start();
    payer.progresses(200, "while a stranger answers at a member's address").await;

    if foreign.node_mut(1).runs() {
        foreign.node_mut(1).kill();
    }
    cluster.node_mut(1).start();
    cluster.serves().await;
    judge(&mut cluster, &payer.stop().await).await;
}

/// Enough in a few seconds for several snapshots of the smallest size.
fn heavy() -> Payments {
    Payments { callers_count: 2, batch_count: 100, ..Payments::default() }
}
