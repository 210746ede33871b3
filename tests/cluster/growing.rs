//! A cluster grows, shrinks and moves to other machines, and its clients have nothing to report.
//!
//! By the commands that an operator types, in the order of docs/operations.md.

use std::time::{Duration, Instant};

use jangbu_tests::{Cluster, Payer, Payments, Process, Settings, Sizes, jangbu, judge, until, until_ok_nearer};
use tempfile::TempDir;

use crate::command::{WELL, ask_at};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_to_five_shrinks_back_and_moves_to_other_machines_without_a_clients_error() {
    // With the smallest sizes five nodes do little else than take snapshots of hundreds of files, and a busy machine takes minutes.
    let mut cluster = Cluster::start_with(Settings { sizes: Sizes::Shipped, ..Settings::default() }).await;
    let (first, more, elsewhere) = ([1, 2, 3], [4, 5], [6, 7, 8]);
    for id in more.into_iter().chain(elsewhere) {
        cluster.furnish(id);
    }
    // The new machines' addresses are in the services' configuration before the first of them runs.
    let payments = Payments { batch_count: 20, deadline: Duration::from_secs(20), ..Payments::default() };
    let payer = Payer::start_at(&cluster, &cluster.ids(), payments).await;
    let phase = async |name: &str, since: Instant| {
        payer.progresses(500, name).await;
        payer.waits(since).print(name);
    };
    phase("with three nodes", Instant::now()).await;

    let mut voters = first.to_vec();
    let since = Instant::now();
    for id in more {
        enters(&mut cluster, id).await;
        let peer = cluster.node(id).addresses.peer.clone();
        typed_until_done(&cluster, &voters, &["member", "add", &peer, "--promote", "--timeout", "300s"]).await;
        voters.push(id);
        serve_healthily(&cluster, &voters).await;
    }
    phase("growing 3 -> 5", since).await;

    // Of the two that go, one leads.
    let balance = ["leader", "balance", "--prefer", "dc-5,dc-4"];
    typed_until_done(&cluster, &voters, &[&balance[..], &["--dry-run"]].concat()).await;
    typed_until_done(&cluster, &voters, &balance).await;
    let since = Instant::now();
    for id in more.into_iter().rev() {
        typed_until_done(&cluster, &voters, &["node", "decommission", &id.to_string()]).await;
        leaves(&mut cluster, id, &mut voters).await;
    }
    phase("shrinking 5 -> 3", since).await;

    let since = Instant::now();
    for (old, new) in first.into_iter().zip(elsewhere) {
        enters(&mut cluster, new).await;
        let (old_id, peer) = (old.to_string(), cluster.node(new).addresses.peer.clone());
        let replace = ["node", "replace", &old_id, &peer, "--wait", "300s"];
        if old == first[0] {
            interrupted_half_way(&cluster, &voters, &replace, new).await;
        }
        typed_until_done(&cluster, &voters, &replace).await;
        voters.push(new);
        leaves(&mut cluster, old, &mut voters).await;
    }
    phase("moving 3 nodes", since).await;

    assert_eq!(cluster.ids(), elsewhere, "nothing is left where the cluster was");
    let journal = payer.stop().await;
    assert_eq!(journal.troubles(), Vec::<String>::new(), "clients' errors");
    judge(&mut cluster, &journal).await;
}

async fn enters(cluster: &mut Cluster, id: u64) {
    cluster.node_mut(id).start();
    until(format!("the fresh node {id} answers"), async || cluster.door(id).status().await.ok()).await;
}

/// A command refuses what isn't safe at the moment, such as while a node on a busy machine doesn't serve; then it is typed again.
async fn typed_until_done(cluster: &Cluster, nodes: &[u64], command: &[&str]) {
    let ask = async || {
        let output = ask_at(cluster, nodes, command);
        match output.status.code() {
            Some(WELL) => Ok(()),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    until_ok_nearer(format!("jangbu {} is done", command.join(" ")), ask, async || laggard(cluster).await).await;
}

/// How far the node is that is furthest behind: as long as that moves, it is on its way.
async fn laggard(cluster: &Cluster) -> Option<u64> {
    let mut applied = Vec::new();
    for id in cluster.ids() {
        applied.extend(cluster.door(id).status().await.ok().map(|status| status.applied_index));
    }
    applied.into_iter().min()
}

/// Whoever typed it gave up once the fresh node was a member.
async fn interrupted_half_way(cluster: &Cluster, nodes: &[u64], replace: &[&str], new: u64) {
    let folder = TempDir::new().expect("a temporary folder");
    let log = folder.path().join("replace.log");
    let endpoints: Vec<&str> = nodes.iter().map(|id| cluster.node(*id).addresses.client.as_str()).collect();
    let endpoints = endpoints.join(",");
    let arguments = [replace, &["--endpoints", &endpoints]].concat();
    let mut running = Process::start(&jangbu(), &arguments, &log);
    until(format!("node {new} is a member"), async || {
        if running.exit_status().is_some() {
            running = Process::start(&jangbu(), &arguments, &log);
        }
        let status = cluster.door(nodes[0]).status().await.ok()?;
        let mut ids = status.members.iter().filter_map(|member| Some(member.node.as_ref()?.node_id));
        ids.any(|id| id == new).then_some(())
    })
    .await;
    running.kill();
}

/// Its process ends by itself, and what is left is as healthy as it was.
async fn leaves(cluster: &mut Cluster, id: u64, voters: &mut Vec<u64>) {
    cluster.give_away(id).ended("it was removed").await.assert_gave_up_saying(&["was removed from the cluster"]);
    voters.retain(|voter| *voter != id);
    serve_healthily(cluster, voters).await;
}

async fn serve_healthily(cluster: &Cluster, voters: &[u64]) {
    let ask = async || {
        let health = ask_at(cluster, voters, &["cluster", "health", "-o", "json"]);
        let told = String::from_utf8_lossy(&health.stdout).into_owned();
        let health: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
        if health["healthy"] == true && health["voters"] == voters.len() { Ok(()) } else { Err(told) }
    };
    until_ok_nearer(format!("nodes {voters:?} are a healthy cluster"), ask, async || laggard(cluster).await).await;
}
