use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{Cluster, PATIENCE, channel};

impl Cluster {
    /// The value of a metric that has no labels but the node.
    pub async fn metric(&self, id: u64, name: &str) -> u64 {
        let metrics = self.get(id, "/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in {metrics}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }

    /// Status line, headers and body of a GET at a node's HTTP door.
    pub async fn get(&self, id: u64, path: &str) -> String {
        let address = self.nodes[&id].http_address.as_deref().expect("it has an HTTP door");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it hears");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_serves_is_ready_and_shows_its_metrics() {
    let cluster = Cluster::of(1).await;
    cluster.open_accounts().await;
    cluster.pay(1, 1, 10).await;
    for path in ["/livez", "/startupz", "/readyz?verbose"] {
        let answer = cluster.get(1, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let metrics = cluster.get(1, "/metrics").await;
    for line in [
        "jangbu_raft_is_leader{node=\"1\"} 1",
        "jangbu_accounts{node=\"1\"} 2",
        "jangbu_events_total{node=\"1\"} 1",
        "jangbu_ready{node=\"1\"} 1",
        "jangbu_raft_leader_changes_total{node=\"1\"} 1",
        "jangbu_calls_total{node=\"1\",method=\"create_transfers\",code=\"Ok\"} 1",
        "jangbu_digest_mismatches_total{node=\"1\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_no_cluster_lives_and_is_not_ready_and_says_why() {
    let cluster = Cluster::fresh(1, |_| {}).await;
    assert!(cluster.get(1, "/livez").await.starts_with("HTTP/1.1 200"));
    let answer = cluster.get(1, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not ready: it is in no cluster yet"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_proven_by_a_read_and_each_check_stands_on_its_line() {
    let cluster = Cluster::of(1).await;
    let answer = cluster.get(1, "/readyz?verbose").await;
    for check in ["running", "cluster", "raft", "leader", "read"] {
        let line = answer.lines().find(|line| line.starts_with(&format!("[+] {check} ")));
        assert!(line.is_some_and(|line| line.ends_with(" ms")), "{check} in {answer}");
    }
    assert!(!cluster.get(1, "/readyz").await.contains("[+]"), "only when it is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_node_lives_and_is_not_ready_within_the_bound() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader(1).await;
    let others: Vec<u64> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    for id in others {
        cluster.kill(id).await;
    }
    // Its last round with a quorum is a moment old: a look at it would call this node ready. Only a read can tell.
    let answer = timeout(PATIENCE, cluster.get(leader, "/readyz?verbose")).await.expect("the proof has a bound");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\n[-] read "), "{answer}");
    for path in ["/livez", "/startupz"] {
        assert!(cluster.get(leader, path).await.starts_with("HTTP/1.1 200"), "{path} asks nobody else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn balancers_are_told_by_grpc_health_what_can_be_asked_here() {
    let cluster = Cluster::fresh(1, |_| {}).await;
    let mut health = HealthClient::new(channel(&cluster.nodes[&1].client_address));
    let mut is_serving = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        let answer = health.check(request).await.expect("it is known").into_inner();
        answer.status() == ServingStatus::Serving
    };
    // From the first moment on: a balancer's first question may come before anything else.
    assert!(is_serving("cluster.v1.Operator").await, "operators are answered by a fresh node, too");
    assert!(!is_serving("jangbu.v1.Ledger").await, "a node in no cluster has no ledger");
    assert!(!is_serving("").await);
}
