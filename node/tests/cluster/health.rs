use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::Cluster;

impl Cluster {
    /// The value of a metric that has no labels but the node.
    pub async fn metric(&self, id: u64, name: &str) -> u64 {
        let metrics = self.get(id, "/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in {metrics}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }

    /// Status line, headers and body of a GET at a node's HTTP door.
    async fn get(&self, id: u64, path: &str) -> String {
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
        "jangbu_events{node=\"1\"} 1",
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
