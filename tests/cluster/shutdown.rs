//! A node that is told to stop finishes, hands over and goes.

use jangbu_tests::{Cluster, Payer, Payments, Signal, judge};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_told_to_stop_is_not_noticed_by_callers_of_the_other_nodes() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let payer = Payer::start_at(&cluster, &others, Payments::default()).await;
    payer.progresses(100, "before anything happens").await;

    cluster.node(leader).signal(Signal::Terminate);
    cluster.node_ended(leader, "it was told to").await.assert_clean();
    payer.progresses(100, "without the node that went").await;

    cluster.node_mut(leader).start();
    cluster.serves().await;
    let journal = payer.stop().await;
    assert_eq!(journal.troubles(), Vec::<String>::new(), "no caller noticed anything");
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_restarted_one_by_one_under_load() {
    let mut cluster = Cluster::start().await;
    let payer = Payer::start(&cluster).await;
    for id in cluster.ids() {
        payer.progresses(50, "before the next node stops").await;
        cluster.node(id).signal(Signal::Terminate);
        cluster.node_ended(id, "it was told to").await.assert_clean();
        payer.progresses(50, "while one node is away").await;
        cluster.node_mut(id).start();
        cluster.serves().await;
    }
    judge(&mut cluster, &payer.stop().await).await;
}
