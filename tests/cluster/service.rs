//! Whoever starts a node and reads its log is told the truth, and never waited for.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::Stdio,
};

use jangbu_tests::{Cluster, Payer, Settings, Signal, judge, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_that_the_node_is_ready_lives_and_stops() {
    let mut cluster = Cluster::unborn(Settings { nodes_count: 1, ..Settings::default() });
    let path = cluster.node(1).config.with_extension("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_nonblocking(true).expect("a socket");
    let environment = [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "200000".into())];
    cluster.node_mut(1).start_in(&environment, None);

    // A node in no cluster yet is up, and alive: it waits to be asked into one.
    assert_eq!(next_words(&manager).await, "READY=1");
    assert_eq!(cluster.door(1).status().await.expect("ready means that its doors are open").role, "Uninitialized");
    for _ in 0..3 {
        assert_eq!(next_words(&manager).await, "WATCHDOG=1");
    }
    cluster.node(1).signal(Signal::Terminate);
    until("it says that it stops", async || (manager_hears(&manager)? == "STOPPING=1").then_some(())).await;
    cluster.node_ended(1, "it was told to").await.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_keeps_no_payment_waiting_and_what_is_lost_is_counted() {
    let mut cluster = Cluster::unborn(Settings::default());
    // Pipes hold 64 KiB; nobody ever reads these.
    let mut unread = Vec::new();
    let talkative = [("JANGBU__LOGGING__FILTER", "trace".to_owned()), ("JANGBU__LOGGING__FORMAT", "json".to_owned())];
    for id in cluster.ids() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        cluster.node_mut(id).start_in(&talkative, Some(Stdio::from(writer)));
        unread.push(reader);
    }
    cluster.initialize().await;
    cluster.serves().await;
    let payer = Payer::start(&cluster).await;
    for id in cluster.ids() {
        let address = cluster.node(id).addresses.http.clone();
        until(format!("node {id} has lost lines"), async || (lines_lost(&address) > 0).then_some(())).await;
    }
    payer.progresses(100, "while the logs of all nodes are stuck").await;
    // Whether or not anybody reads its last words, a node that was told to go goes.
    let leader = cluster.leader().await;
    cluster.node(leader).signal(Signal::Terminate);
    cluster.node_ended(leader, "it was told to").await.assert_clean();
    payer.progresses(100, "without the node that went").await;

    // Its log goes to its file again.
    cluster.node_mut(leader).start();
    cluster.serves().await;
    judge(&mut cluster, &payer.stop().await).await;
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_is_lines_of_json_that_name_their_node_and_its_term() {
    let mut cluster = Cluster::unborn(Settings { nodes_count: 1, ..Settings::default() });
    cluster.node_mut(1).start_in(&[("JANGBU__LOGGING__FORMAT", "json".to_owned())], None);
    cluster.initialize().await;
    cluster.serves().await;
    let leading = async || cluster.node(1).words().contains("\"leader\":1").then(|| cluster.node(1).words());
    let words = until("it says that it leads", leading).await;
    // The harness has written the first line; the last may be on its way.
    let whole = words.split_inclusive('\n').filter(|line| line.ends_with('\n') && !line.starts_with("---"));
    let mut terms = Vec::new();
    for line in whole {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(line["node_id"], 1, "{line}");
        assert!(line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
        terms.push(line["term"].as_u64().expect("each line has a term"));
    }
    assert_eq!(terms.first(), Some(&0), "before there was a cluster");
    assert_eq!(terms.last(), Some(&cluster.status(1).await.term), "{terms:?}");
    cluster.kill_all();
}

async fn next_words(manager: &UnixDatagram) -> String {
    until("the node says something to its service manager", async || manager_hears(manager)).await
}

fn manager_hears(manager: &UnixDatagram) -> Option<String> {
    let mut bytes = [0; 64];
    let count = manager.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn lines_lost(http_address: &str) -> u64 {
    let mut connection = TcpStream::connect(http_address).expect("the door is open");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {http_address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("it hears");
    let mut metrics = String::new();
    connection.read_to_string(&mut metrics).expect("it answers");
    let line = metrics.lines().find(|line| line.starts_with("jangbu_log_lines_lost_total{")).expect("it is told");
    line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")
}
