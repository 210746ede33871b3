//! The operator's command tells what is true.

use std::process::{Command, Output};

use jangbu_tests::{Cluster, Payer, Payments, Settings, Sizes, jangbu, jangbud, judge, until};

/// Exit codes, as `jangbu --help` lists them.
pub(crate) const WELL: i32 = 0;
pub(crate) const GENERAL: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const UNHEALTHY: i32 = 3;
pub(crate) const UNAVAILABLE: i32 = 4;
pub(crate) const DENIED: i32 = 5;
pub(crate) const CONFLICT: i32 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn by_command_alone_a_dead_node_is_found_replaced_and_the_books_proven() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let dead = cluster.other_than(&[leader]);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != dead).collect();
    let payer = Payer::start_at(&cluster, &others, Payments::default()).await;
    payer.progresses(100, "before anything happens").await;
    exits(WELL, &cluster, &["cluster", "health"]);

    cluster.node_mut(dead).kill();
    until("the dead node is noticed", async || {
        (ask(&cluster, &["cluster", "health"]).status.code() == Some(UNHEALTHY)).then_some(())
    })
    .await;
    cluster.furnish(4).start();
    let fresh = cluster.node(4).addresses.peer.clone();
    until("the fresh node answers", async || cluster.door(4).status().await.ok()).await;
    exits(WELL, &cluster, &["member", "add", &fresh, "--promote", "--timeout", "60s"]);
    exits(WELL, &cluster, &["member", "remove", &dead.to_string()]);
    let _dead = cluster.give_away(dead);
    exits(WELL, &cluster, &["cluster", "health"]);
    exits(CONFLICT, &cluster, &["member", "promote", "99"]);
    exits(USAGE, &cluster, &["cluster", "halth"]);

    let journal = payer.stop().await;
    exits(WELL, &cluster, &["verify", "--audit", "--deep", "--timeout", "60s"]);
    judge(&mut cluster, &journal).await;
    cluster.kill_all();
    exits(UNAVAILABLE, &cluster, &["cluster", "health", "--timeout", "2s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_command_a_member_that_moved_is_found_again_and_no_stranger_at_its_address() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let moved = cluster.other_than(&[leader]);
    let third = cluster.other_than(&[leader, moved]);
    let payer = Payer::start_at(&cluster, &[leader, third], Payments::default()).await;
    payer.progresses(100, "before anything happens").await;
    cluster.node_mut(moved).kill();
    cluster.node_mut(moved).moves(Sizes::Small);
    let peer = cluster.node(moved).addresses.peer.clone();
    exits(UNAVAILABLE, &cluster, &["member", "update", &peer]);

    cluster.node_mut(moved).start();
    until("it answers at its new address", async || cluster.door(moved).status().await.ok()).await;
    until("it says what to do", async || {
        cluster.node(moved).words().contains(&format!("jangbu member update {peer}")).then_some(())
    })
    .await;
    // Whoever answers at an address must be a member: this one is a fresh node, and that one is of another cluster.
    cluster.furnish(4).start();
    until("the fresh node answers", async || cluster.door(4).status().await.ok()).await;
    let stranger = cluster.give_away(4);
    exits(CONFLICT, &cluster, &["member", "update", &stranger.addresses.peer]);
    let foreign = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    exits(CONFLICT, &cluster, &["member", "update", &foreign.node(1).addresses.peer]);

    exits(WELL, &cluster, &["member", "update", &peer]);
    exits(WELL, &cluster, &["member", "update", &peer]);
    cluster.serves().await;
    let listed = exits(WELL, &cluster, &["member", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&peer));
    // It counts again, and every node knows where it is: with the leader gone, the two others need each other.
    payer.progresses(100, "with the node that moved").await;
    cluster.node_mut(leader).kill();
    payer.progresses(100, "on the votes of the third and the one that moved").await;
    cluster.node_mut(leader).start();
    cluster.serves().await;
    exits(WELL, &cluster, &["cluster", "health"]);
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_command_prints_for_programs_can_be_read_by_programs() {
    let cluster = Cluster::start().await;
    for question in [&["cluster", "status"][..], &["cluster", "health"], &["member", "list"], &["verify"]] {
        let output = exits(WELL, &cluster, &[question, &["-o", "json"]].concat());
        let read: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        assert!(read.is_ok(), "{question:?} printed:\n{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[tokio::test]
async fn a_misspelt_setting_is_refused_by_name_before_a_node_starts() {
    let cluster = Cluster::unborn(Settings::default());
    let check = |setting: &str| {
        let config = cluster.node(1).config.display().to_string();
        Command::new(jangbud()).args(["--config", &config, "--check", "--set", setting]).output().expect("it starts")
    };
    assert_eq!(check("limits.requests_max=7").status.code(), Some(WELL));
    let refused = check("limits.requests_maximum=7");
    assert_eq!(refused.status.code(), Some(USAGE));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("requests_maximum"), "{refused:?}");
    assert!(!cluster.node(1).data.exists(), "checking makes nothing");
}

pub(crate) fn exits(expected: i32, cluster: &Cluster, arguments: &[&str]) -> Output {
    exits_at(expected, cluster, &cluster.ids(), arguments)
}

pub(crate) fn exits_at(expected: i32, cluster: &Cluster, nodes: &[u64], arguments: &[&str]) -> Output {
    let output = ask_at(cluster, nodes, arguments);
    let code = output.status.code();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(code, Some(expected), "jangbu {}:\n{said}\n{complained}", arguments.join(" "));
    let complains = !complained.trim().is_empty();
    assert!(complains || expected == WELL, "a failure is told on standard error");
    output
}

/// Runs the command against all nodes of the cluster, and waits for its end.
pub(crate) fn ask(cluster: &Cluster, arguments: &[&str]) -> Output {
    ask_at(cluster, &cluster.ids(), arguments)
}

/// The same, naming these nodes only.
pub(crate) fn ask_at(cluster: &Cluster, nodes: &[u64], arguments: &[&str]) -> Output {
    let endpoints: Vec<&str> = nodes.iter().map(|id| cluster.node(*id).addresses.client.as_str()).collect();
    let command = || Command::new(jangbu()).args(arguments).env("JANGBU_ENDPOINTS", endpoints.join(",")).output();
    // Callers may be at work on this runtime meanwhile.
    tokio::task::block_in_place(command).expect("the command starts")
}
