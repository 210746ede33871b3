//! What lies in a stopped node's folder is told, and left alone; what runs is shown.

use std::{
    collections::BTreeMap,
    fs,
    fs::File,
    io::{Read as _, Write as _},
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, FromRawFd as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    ptr,
};

use jangbu_proto::cluster::v1::TakeSnapshotRequest;
use jangbu_tests::{Cluster, Payer, Payments, jangbu, judge, until};
use serde_json::Value;

use crate::command::{CONFLICT, USAGE, WELL, ask, exits};

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_nodes_log_vote_snapshots_and_state_are_told_and_nothing_is_changed() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let stopped = cluster.other_than(&[leader]);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != stopped).collect();
    let payer = Payer::start_at(&cluster, &others, Payments::default()).await;
    payer.progresses(300, "so that there is a log").await;
    // As an operator would: a snapshot of its own, and the log behind it purged.
    until("it has taken a snapshot", async || {
        let reply = cluster.door(stopped).operator().take_snapshot(TakeSnapshotRequest {}).await;
        reply.ok().filter(|reply| reply.get_ref().log_index > 0)
    })
    .await;
    payer.progresses(100, "so that there is a log behind the snapshot").await;

    let dir = cluster.node(stopped).data.display().to_string();
    for what in ["log", "vote", "snapshot", "state"] {
        let refused = inspect(&[what, &dir]);
        assert_eq!(refused.status.code(), Some(CONFLICT), "a folder in use: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("another process has this data folder open"));
    }
    let status = cluster.door(stopped).status().await.expect("it runs");
    cluster.node_mut(stopped).kill();
    let before = contents(Path::new(&dir));

    let log = json(&["log", &dir, "--limit", "5"]);
    let entries = log["entries"].as_array().expect("entries");
    let indexes: Vec<u64> = entries.iter().map(|entry| entry["index"].as_u64().expect("an index")).collect();
    let last = log["last_index"].as_u64().expect("an index");
    assert!(last >= status.committed_index, "what it knew to be committed is in its log");
    assert_eq!(indexes, (last - 4..=last).collect::<Vec<_>>(), "the newest five");
    assert!(entries.iter().all(|entry| entry["kind"] != "unreadable"), "{entries:?}");
    assert!(entries.iter().any(|entry| entry["events"].as_u64() > Some(0)), "payments are among them: {entries:?}");
    let first = log["first_index"].as_u64().expect("an index");
    let part = json(&["log", &dir, "--from", &first.to_string(), "--to", &(first + 1).to_string()]);
    assert_eq!(part["entries"].as_array().map(Vec::len), Some(2));

    let vote = json(&["vote", &dir]);
    assert_eq!(vote["vote"]["term"], status.term);
    assert_eq!(vote["owner"]["node_id"], stopped);
    let snapshots = json(&["snapshot", &dir]);
    let newest = snapshots.as_array().and_then(|all| all.last()).expect("it took one");
    assert!(newest["damage"].is_null() && newest["events_count"].as_u64() > Some(0), "{newest}");
    let state = json(&["state", &dir]);
    assert_eq!(state["voters"], serde_json::json!(cluster.ids()));
    assert!(state["applied"]["index"].as_u64() >= newest["last"]["index"].as_u64(), "{state}");
    assert!(state["fenced"].is_null());
    for what in ["log", "vote", "snapshot", "state"] {
        assert_eq!(inspect(&[what, &dir]).status.code(), Some(WELL), "as text");
    }

    let after = contents(Path::new(&dir));
    let differing: Vec<&PathBuf> =
        after.keys().chain(before.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    assert_eq!(differing, Vec::<&PathBuf>::new(), "looking changes nothing");
    cluster.node_mut(stopped).start();
    cluster.serves().await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[test]
fn what_is_no_nodes_folder_is_refused_with_what_to_do() {
    let refused = inspect(&["state", "/tmp"]);
    assert_eq!(refused.status.code(), Some(USAGE));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no node's data folder") && said.contains("data_dir"), "{said}");
    let refused = inspect(&["log", "/tmp", "--limit", "0"]);
    assert_eq!(refused.status.code(), Some(USAGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn top_looked_at_once_shows_who_leads_how_fast_and_each_node() {
    let cluster = Cluster::start().await;
    let payer = Payer::start(&cluster).await;
    payer.progresses(50, "so that there is something to see").await;
    let output = exits(WELL, &cluster, &["top", "--once", "-o", "json"]);
    let view: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(view["leader_id"].as_u64().is_some());
    assert!(view["events_per_second"].as_f64() > Some(0.0), "{view}");
    assert!(view["payment_p99_seconds"].as_f64() > Some(0.0), "{view}");
    assert_ne!(view["replicas"], "differ");
    let nodes = view["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert!(node["log_sync_p99_seconds"].as_f64() > Some(0.0), "{node}");
        assert!(node["memory_bytes"].as_f64() > Some(0.0), "{node}");
        assert!(node["error"].is_null());
    }
    let text = String::from_utf8(exits(WELL, &cluster, &["top", "--once"]).stdout).expect("text");
    assert!(text.contains("leads in term") && text.contains("1 may still be lost"), "{text}");
    // Into a pipe there is nothing to draw on.
    let refused = ask(&cluster, &["top"]);
    assert_eq!(refused.status.code(), Some(USAGE));
    payer.stop().await;
}

fn inspect(arguments: &[&str]) -> Output {
    Command::new(jangbu()).arg("inspect").args(arguments).output().expect("the command starts")
}

fn json(arguments: &[&str]) -> Value {
    let output = inspect(&[arguments, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(WELL), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Every file below, but for the messages that RocksDB writes beside its tables.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("LOG")) {
            found.insert(path.clone(), fs::read(&path).expect("it can be read"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_support_bundle_has_what_is_needed_and_no_secret() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let stopped = cluster.other_than(&[leader]);
    cluster.node_mut(stopped).kill();
    // What must not leave the house, in all the places where it could lie.
    let config = cluster.node(stopped).config.with_extension("told.toml");
    let settings = fs::read_to_string(&cluster.node(stopped).config).expect("it was written");
    let secrets = "# HUSH in a comment\n[vault]\nkey_file = \"/etc/jangbu/key.pem\"\nkey_password = \"HUSH\"\n\
                   [[tokens]]\nname = \"till\"\nsecret = \"HUSH\"\n";
    fs::write(&config, format!("{settings}{secrets}")).expect("the folder takes files");
    let log = config.with_extension("log");
    let lines = "it began\nauthorization: Bearer HUSH\ntoken=HUSH\n-----BEGIN PRIVATE KEY-----\nHUSH\n-----END PRIVATE KEY-----\n";
    fs::write(&log, lines).expect("the folder takes files");

    let bundle = config.with_extension("tar");
    let paths = [&bundle, &config, &log].map(|path| path.display().to_string());
    let asked = ["support-bundle", "--file", &paths[0], "--config", &paths[1], "--log", &paths[2]];
    exits(WELL, &cluster, &asked);
    let bytes = fs::read(&bundle).expect("it was written");
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("HUSH"), "a secret is in the bundle");
    for part in [
        "jangbu-support/README.txt",
        "jangbu-support/cluster/health.json",
        &format!("jangbu-support/node-{leader}/metrics.txt"),
        "[+] read",
        "jangbu_raft_is_leader{",
        "it began",
        "/etc/jangbu/key.pem",
        "\"for_node_id\"",
        "does not answer",
    ] {
        assert!(text.contains(part), "`{part}` is missing in the bundle");
    }
    // What is there already is somebody's: it is left alone.
    exits(USAGE, &cluster, &asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn top_leaves_the_terminal_as_it_was() {
    let cluster = Cluster::start().await;
    for (how, typed) in [("q", "q"), ("Ctrl-C", "\x03")] {
        let (mut terminal, screen) = terminal();
        let endpoint = &cluster.node(1).addresses.client;
        let both = || Stdio::from(screen.try_clone().expect("a file descriptor can be cloned"));
        let mut command = Command::new(jangbu());
        command.args(["top", "--endpoints", endpoint]).stdin(both()).stdout(both()).stderr(both());
        let echoes_before = echoes(&terminal);
        let mut top = command.spawn().expect("the command starts");
        let mut drawn = String::new();
        until("it has drawn", async || {
            read_more(&mut terminal, &mut drawn);
            drawn.contains("leads in term").then_some(())
        })
        .await;
        assert!(drawn.contains("\x1b[?1049h") && !echoes(&terminal), "it has the screen to itself");
        terminal.write_all(typed.as_bytes()).expect("it hears");
        let status = until(format!("{how} ends it"), async || {
            read_more(&mut terminal, &mut drawn);
            top.try_wait().expect("a child can be waited for")
        })
        .await;
        read_more(&mut terminal, &mut drawn);
        assert!(status.success(), "{how}: {status}");
        assert!(
            drawn.contains("\x1b[?1049l") && drawn.contains("\x1b[?25h"),
            "{how}: the old screen and the cursor are back"
        );
        assert_eq!(echoes(&terminal), echoes_before, "{how}: what is typed is seen again");
    }
}

/// A terminal of 160 by 40: the end at which a person sits, and the program's.
fn terminal() -> (File, File) {
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the three pointers are to what lives here; no name and no settings are asked for.
    let done = unsafe { libc::openpty(&mut ours, &mut theirs, ptr::null_mut(), ptr::null_mut(), &size) };
    assert_eq!(done, 0, "there is no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: both were just opened, and nobody else has them.
    let (ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    // SAFETY: sets a flag of a file that is open.
    unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    (ours, theirs)
}

/// Whether what is typed is shown, as in every terminal that no program has taken over.
fn echoes(terminal: &File) -> bool {
    let mut settings = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: tcgetattr fills the struct it is given, for which zeros are valid.
    let settings = unsafe {
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()), 0);
        settings.assume_init()
    };
    settings.c_lflag & libc::ECHO != 0
}

fn read_more(terminal: &mut File, drawn: &mut String) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = terminal.read(&mut bytes) {
        drawn.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}
