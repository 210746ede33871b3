//! Every command, interrupted half-way: it ends at once, with a last word that is true; nothing half made bears its final name;
//! and typed again it goes on.
//!
//! The commands are those that `--help` shows, so that a new one can't be forgotten: each has a row in [`COMMANDS`].
//!
//! Not here: what they say while a change is under way, one by one (`in_flight.rs`).

#[path = "../../ops/tests/commands/mod.rs"]
mod commands;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use commands::commands;
use futures_util::future::join_all;
use jangbu_tests::{Cluster, Ended, Payer, Payments, Process, Settings, Signal, Sizes, jangbu, jangbud, judge, until};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::access::knows_tokens;
use crate::command::{CONFLICT, WELL, ask, ask_at, exits, exits_at};

pub(crate) const INTERRUPTED: i32 = 130;
pub(crate) const TERMINATED: i32 = 143;

/// Longer than a command takes to end that lets go at once, on a machine with much else to do; far shorter than any deadline here.
const AT_ONCE: Duration = Duration::from_secs(5);

/// How a command is tried.
enum Tried {
    /// Typed like this where nobody answers: NODE and s3:// stand for somebody who takes a connection and says nothing. The
    /// second is what its last word says.
    Waiting(&'static str, &'static str),
    /// It ends before anybody could press a key, for this reason.
    Instant(&'static str),
    /// By a test whose name begins so, here or in newcomer.rs.
    In(&'static str),
}
use Tried::{In, Instant as Brief, Waiting};

const UNCHANGED: &str = "nothing was changed";
const PERHAPS: &str = "perhaps";

const COMMANDS: &[(&str, Tried)] = &[
    ("dev start", In("a_cluster_on_this_machine_")),
    ("dev stop", In("a_cluster_on_this_machine_")),
    ("dev restart", In("a_cluster_on_this_machine_")),
    ("dev status", Brief("asks processes of this machine")),
    ("dev kill", Brief("one SIGKILL")),
    ("cluster init", Waiting("cluster init 127.0.0.1:1", PERHAPS)),
    ("cluster status", Waiting("cluster status", UNCHANGED)),
    ("cluster health", Waiting("cluster health", UNCHANGED)),
    ("cert authority", Brief("files of this machine, each put whole")),
    ("cert node", Brief("files of this machine, each put whole")),
    ("cert client", Brief("files of this machine, each put whole")),
    ("cert show", Brief("reads files of this machine")),
    ("token create", In("what_was_asked_for_and_not_answered_")),
    ("token list", Waiting("token list", UNCHANGED)),
    ("token revoke", Waiting("token revoke shop", UNCHANGED)),
    ("member list", Waiting("member list", UNCHANGED)),
    ("member add", Waiting("member add 127.0.0.1:1", UNCHANGED)),
    ("member update", Waiting("member update 127.0.0.1:1", UNCHANGED)),
    ("member promote", Waiting("member promote 2", UNCHANGED)),
    ("member remove", Waiting("member remove 2", UNCHANGED)),
    ("node drain", In("nodes_are_drained_")),
    ("node undrain", In("nodes_are_drained_")),
    ("node decommission", In("nodes_are_drained_")),
    ("node replace", In("nodes_are_drained_")),
    ("upgrade status", Waiting("upgrade status", UNCHANGED)),
    ("upgrade finalize", Waiting("upgrade finalize", UNCHANGED)),
    ("audit list", Waiting("audit list", UNCHANGED)),
    ("audit verify", Waiting("audit verify", UNCHANGED)),
    ("backup run", In("a_backup_and_an_export_")),
    ("backup list", Waiting("backup list s3://bank/main", UNCHANGED)),
    ("backup verify", Waiting("backup verify s3://bank/main", UNCHANGED)),
    (
        "backup restore",
        Waiting(
            "backup restore s3://bank/main --into FOLDER/into --node-id 4 --peer-address a:1 --client-address a:2",
            "FOLDER/into.restoring",
        ),
    ),
    ("backup drill", In("a_backup_and_an_export_")),
    ("backup prune", Waiting("backup prune s3://bank/main --keep 1", UNCHANGED)),
    ("recover", In("a_recovery_")),
    ("leader show", Waiting("leader show", UNCHANGED)),
    ("leader move", In("what_was_asked_for_and_not_answered_")),
    ("leader balance", Waiting("leader balance --prefer seoul", UNCHANGED)),
    ("account create", Waiting("account create --ledger 1 --code 1", PERHAPS)),
    ("account show", Waiting("account show 1", UNCHANGED)),
    ("account history", Waiting("account history 1", UNCHANGED)),
    ("account list", Waiting("account list", UNCHANGED)),
    ("transfer create", Waiting("transfer create --from 1 --to 2 --amount 5 --ledger 1 --code 1", "with --id ")),
    ("transfer show", Waiting("transfer show 1", UNCHANGED)),
    ("transfer post", Waiting("transfer post 1", "with --id ")),
    ("transfer void", Waiting("transfer void 1", "with --id ")),
    ("transfer list", Waiting("transfer list", UNCHANGED)),
    ("events", Waiting("events", UNCHANGED)),
    ("import", Waiting("import FOLDER/payments.csv --format csv --accounts FOLDER/accounts.csv", PERHAPS)),
    ("export", In("a_backup_and_an_export_")),
    ("load", Waiting("load", PERHAPS)),
    ("top", Waiting("top --once", UNCHANGED)),
    ("inspect log", Brief("reads a folder of this machine")),
    ("inspect vote", Brief("reads a folder of this machine")),
    ("inspect snapshot", Brief("reads a folder of this machine")),
    ("inspect state", Brief("reads a folder of this machine")),
    ("support-bundle", Waiting("support-bundle --file FOLDER/bundle.tar", UNCHANGED)),
    ("verify", Waiting("verify --deep", UNCHANGED)),
    ("bench", In("a_comparison_")),
    ("demo", In("a_demo_that_is_interrupted_")),
    ("completion", Brief("prints what it knows")),
    ("version", Brief("prints what it knows")),
];

#[test]
fn every_command_has_its_row_and_every_row_its_command_and_test() {
    let known = commands(&jangbu());
    let rows: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
    for command in &known {
        assert!(
            rows.contains(&command.as_str()),
            "jangbu {command}: say in this file what it does when it is interrupted"
        );
    }
    for (name, tried) in COMMANDS {
        assert!(known.iter().any(|command| command == name), "there is no `jangbu {name}`");
        match tried {
            In(test) => {
                let tests = [include_str!("interrupted.rs"), include_str!("newcomer.rs")];
                assert!(tests.iter().any(|tests| tests.contains(&format!("async fn {test}"))), "there is no {test}");
            }
            Waiting(line, _) => assert!(line.starts_with(name), "{line}"),
            Brief(reason) => assert!(!reason.is_empty()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_for_an_answer_ends_at_once_and_says_what_may_have_been_done() {
    let rows: Vec<(&str, &str)> = COMMANDS
        .iter()
        .filter_map(|(_, tried)| if let Waiting(line, word) = tried { Some((*line, *word)) } else { None })
        .collect();
    for some in rows.chunks(8) {
        let mut tries = Vec::new();
        for (line, word) in some.iter().copied() {
            for (signal, code) in [(Signal::Interrupt, INTERRUPTED), (Signal::Terminate, TERMINATED)] {
                tries.push(waits_in_vain(line, word, signal, code));
            }
        }
        join_all(tries).await;
    }
}

async fn waits_in_vain(line: &'static str, word: &'static str, signal: Signal, code: i32) {
    let folder = TempDir::new().expect("a temporary folder");
    let place = folder.path().display().to_string();
    fs::write(folder.path().join("accounts.csv"), "id,ledger,code\n1,7,1\n2,7,1\n").expect("it is written");
    let payments = "id,debit_account_id,credit_account_id,amount,ledger,code\n9,1,2,1,7,1\n";
    fs::write(folder.path().join("payments.csv"), payments).expect("it is written");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
    let address = silent.local_addr().expect("it is bound").to_string();
    let environment = [
        ("JANGBU_ENDPOINTS", address.clone()),
        ("AWS_ENDPOINT", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "anybody".into()),
        ("AWS_SECRET_ACCESS_KEY", "whatever".into()),
    ];
    let words: Vec<String> = line.split(' ').map(|word| word.replace("FOLDER", &place)).collect();
    let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--timeout", "60s"]).collect();
    let log = TempDir::new().expect("a temporary folder");
    let running = Process::start_in(&environment, None, &jangbu(), &arguments, &log.path().join("log"));
    let _connection = asked(&silent).await.unwrap_or_else(|| panic!("jangbu {line} asks nobody: {}", running.words()));
    let ended = interrupted(running, signal).await;
    assert_eq!(ended.status.code(), Some(code), "jangbu {line}: {}", ended.words);
    assert!(
        ended.words.contains(&word.replace("FOLDER", &place)),
        "jangbu {line} never says `{word}`: {}",
        ended.words
    );
    assert!(ended.words.contains("\n  -> "), "jangbu {line} doesn't say what to do next: {}", ended.words);
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "jangbu {line} leaves something behind: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_busy_to_be_left_is_left_all_the_same() {
    let folder = TempDir::new().expect("a temporary folder");
    let (pipe, log) = (folder.path().join("payments.csv"), folder.path().join("log"));
    let named = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).expect("a plain path");
    // SAFETY: a plain system call on a string that lives.
    assert_eq!(unsafe { libc::mkfifo(named.as_ptr(), 0o600) }, 0, "a pipe");
    // Nobody ever writes into it: whoever reads stands still in the system.
    let import = ["import", pipe.to_str().expect("a plain path"), "--format", "csv", "--endpoints", "127.0.0.1:1"];
    let running = Process::start(&jangbu(), &import, &log);
    until("it listens", async || listens(running.pid()).then_some(())).await;
    let ended = interrupted(running, Signal::Interrupt).await;
    assert_eq!(ended.status.code(), Some(INTERRUPTED), "{}", ended.words);
    ended.assert_gave_up_saying(&[UNCHANGED, "type it again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_goes_ends_a_command_but_not_one_that_was_told_to_ignore_it() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
    let address = silent.local_addr().expect("it is bound").to_string();
    let folder = TempDir::new().expect("a temporary folder");
    let log = folder.path().join("log");
    let waits = ["cluster", "status", "--timeout", "60s", "--endpoints", &address];

    let running = Process::start(&jangbu(), &waits, &log);
    let _connection = asked(&silent).await.expect("it asks");
    send(running.pid(), libc::SIGHUP);
    let ended = running.ended("its terminal went").await;
    assert_eq!(ended.status.code(), Some(129), "{}", ended.words);
    ended.assert_gave_up_saying(&["SIGHUP", UNCHANGED]);

    let line = format!("trap '' HUP; exec {} {}", jangbu().display(), waits.join(" "));
    let running = Process::start(Path::new("/bin/sh"), &["-c", &line], &log);
    let _connection = asked(&silent).await.expect("it asks");
    send(running.pid(), libc::SIGHUP);
    let ended = interrupted(running, Signal::Terminate).await;
    assert_eq!(ended.status.code(), Some(TERMINATED), "it went on until then: {}", ended.words);
}

/// A connection to somebody who will say nothing, as long as this is held.
async fn asked(silent: &TcpListener) -> Option<TcpStream> {
    let connection = tokio::time::timeout(jangbu_tests::DEADLINE, silent.accept()).await.ok()?;
    Some(connection.expect("it is accepted").0)
}

/// How it ends, told at once.
pub(crate) async fn interrupted(running: Process, signal: Signal) -> Ended {
    running.signal(signal);
    let began = Instant::now();
    let ended = running.ended("it was told to").await;
    assert!(began.elapsed() < AT_ONCE, "it took {:?} to end; it said:\n{}", began.elapsed(), ended.words);
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_and_not_answered_is_said_to_be_done_perhaps_and_is_looked_for() {
    let mut cluster = Cluster::start().await;
    cluster.move_leader(1).await;
    knows_tokens(&cluster).await;
    let folder = TempDir::new().expect("a temporary folder");
    let (secret, log) = (folder.path().join("shop.token"), folder.path().join("log"));
    let pause = |signal| [2, 3].into_iter().for_each(|id| cluster.node(id).signal(signal));
    let out = secret.display().to_string();
    let token = ["token", "create", "shop", "--role", "reader", "--ledgers", "all", "--out", &out];

    pause(Signal::Pause);
    let running = typed(&cluster, &[1], &token, &log);
    // Written before it is asked for.
    until("the token is asked for", async || secret.exists().then_some(())).await;
    let ended = interrupted(running, Signal::Interrupt).await;
    assert_eq!(ended.status.code(), Some(INTERRUPTED), "{}", ended.words);
    ended.assert_gave_up_saying(&["perhaps done: token shop", "if `jangbu token list` has shop, the token in"]);
    pause(Signal::Resume);
    // As it was told: it is there, or is made.
    until("token shop is there", async || {
        let listed = ask(&cluster, &["token", "list"]);
        if listed.status.code() != Some(WELL) || String::from_utf8_lossy(&listed.stdout).contains("shop") {
            return (listed.status.code() == Some(WELL)).then_some(());
        }
        let _ = fs::remove_file(&secret); // gone already, if it was tried before
        (ask(&cluster, &token).status.code() == Some(WELL)).then_some(())
    })
    .await;

    cluster.move_leader(1).await;
    cluster.node(2).signal(Signal::Pause);
    let running = typed(&cluster, &[1], &["leader", "move", "2"], &log);
    // Whether it has asked by then can't be told from outside.
    until("it listens", async || listens(running.pid()).then_some(())).await;
    let ended = interrupted(running, Signal::Interrupt).await;
    assert_eq!(ended.status.code(), Some(INTERRUPTED), "{}", ended.words);
    let is_told = ["perhaps done: the leadership of node 2", UNCHANGED].iter().any(|word| ended.words.contains(word));
    assert!(is_told, "{}", ended.words);
    cluster.node(2).signal(Signal::Resume);
    cluster.serves().await;
    typed_until_done(&cluster, &cluster.ids(), &["leader", "move", "2"]).await;
}

/// A process that is just starting dies of a signal as any does, having done nothing.
fn listens(pid: u32) -> bool {
    has_signal(pid, &["SigCgt:"], libc::SIGTERM)
}

/// SIGTERM waits for it, which stands still.
fn is_told_to_end(pid: u32) -> bool {
    has_signal(pid, &["ShdPnd:", "SigPnd:"], libc::SIGTERM)
}

fn has_signal(pid: u32, sets: &[&str], signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status.lines().filter(|line| sets.iter().any(|set| line.starts_with(set)));
    let mut masks = lines.filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
    masks.any(|signals| signals & (1 << (signal - 1)) != 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_drained_replaced_and_removed_by_commands_that_are_interrupted_again_and_again() {
    let mut cluster = Cluster::start_with(Settings { sizes: Sizes::Shipped, ..Settings::default() }).await;
    cluster.furnish(4).start();
    let folder = TempDir::new().expect("a temporary folder");
    let log = folder.path().join("log");
    let payments = Payments { deadline: Duration::from_secs(20), ..Payments::default() };
    let payer = Payer::start_at(&cluster, &cluster.ids(), payments).await;
    payer.progresses(100, "before anything happens").await;
    let nodes = [1, 2, 3];

    // After its plan, which it tells first.
    for signal in [Signal::Interrupt, Signal::Terminate, Signal::Kill] {
        broken_off(typed(&cluster, &nodes, &["node", "drain", "1"], &log), "afterwards", signal).await;
        payer.progresses(50, "while node 1 is drained, or isn't").await;
        typed_until_done(&cluster, &nodes, &["node", "drain", "1"]).await;
        assert!(cluster.status(1).await.draining);
        broken_off(typed(&cluster, &nodes, &["node", "undrain", "1"], &log), "", signal).await;
        typed_until_done(&cluster, &nodes, &["node", "undrain", "1"]).await;
        assert!(!cluster.status(1).await.draining);
    }

    // Before the newcomer answers, then after each step that is told.
    let peer = cluster.node(4).addresses.peer.clone();
    let replace = ["node", "replace", "1", &peer, "--wait", "60s"];
    cluster.node(4).signal(Signal::Pause);
    // Refused while a node on a busy machine doesn't serve; then it is typed again.
    until("it is interrupted while the newcomer stands still", async || {
        let ended = broken_off(typed(&cluster, &nodes, &replace, &log), "afterwards", Signal::Interrupt).await;
        (ended.status.code() == Some(INTERRUPTED)).then_some(())
    })
    .await;
    cluster.node(4).signal(Signal::Resume);
    let moments = [
        ("is a member", Signal::Interrupt),
        ("is a member", Signal::Kill),
        (" votes", Signal::Terminate),
        ("is drained", Signal::Kill),
    ];
    for (moment, signal) in moments {
        broken_off(typed(&cluster, &nodes, &replace, &log), moment, signal).await;
        payer.progresses(50, "between two attempts").await;
    }
    typed_until_done(&cluster, &[2, 3, 4], &replace).await;
    cluster.give_away(1).ended("it was removed").await.assert_gave_up_saying(&["was removed from the cluster"]);
    payer.progresses(100, "with the newcomer").await;

    let decommission = ["node", "decommission", "2", "--force"];
    broken_off(typed(&cluster, &[3, 4], &decommission, &log), "afterwards", Signal::Interrupt).await;
    typed_until_done(&cluster, &[3, 4], &decommission).await;
    cluster.give_away(2).ended("it was removed").await.assert_gave_up_saying(&["was removed from the cluster"]);
    payer.progresses(100, "with two").await;

    let journal = payer.stop().await;
    judge(&mut cluster, &journal).await;

    // Those who watch, or pay until they are told to end, end well.
    let watched = typed(&cluster, &[3, 4], &["events", "--follow"], &log);
    broken_off(watched, " -> ", Signal::Interrupt).await.assert_clean();
    let watched = typed(&cluster, &[3, 4], &["top", "-o", "json", "--interval", "100ms"], &log);
    broken_off(watched, "leader_id", Signal::Terminate).await.assert_clean();
    let load = typed(&cluster, &[3, 4], &["load", "--duration", "60s", "--ledger", "9"], &log);
    until("it pays", async || (cluster.status(3).await.accounts_count > 1_000).then_some(())).await;
    let ended = interrupted(load, Signal::Interrupt).await;
    ended.assert_clean();
    assert!(ended.words.contains("seen to their end"), "{}", ended.words);

    exits_at(WELL, &cluster, &[3, 4], &["verify", "--audit", "--timeout", "60s"]);
}

/// A signal when it has said something. Whichever comes first, its end or that: what it says last must be an end.
async fn broken_off(mut running: Process, moment: &str, signal: Signal) -> Ended {
    until(format!("it says `{moment}`, or ends"), async || {
        let says_so = running.words().contains(moment) && listens(running.pid());
        (says_so || running.exit_status().is_some()).then_some(())
    })
    .await;
    if running.exit_status().is_none() {
        running.signal(signal);
    }
    let began = Instant::now();
    let ended = running.ended("it was told to").await;
    assert!(began.elapsed() < AT_ONCE, "it took {:?} to end; it said:\n{}", began.elapsed(), ended.words);
    // Refused for the moment, such as while who leads is being settled; or done before the signal came.
    let codes = [Some(WELL), Some(CONFLICT), Some(crate::command::UNAVAILABLE), Some(INTERRUPTED), Some(TERMINATED)];
    let is_an_end = codes.contains(&ended.status.code()) || matches!(signal, Signal::Kill);
    assert!(is_an_end, "{}: {}", ended.status, ended.words);
    if ended.status.code() != Some(WELL) && !matches!(signal, Signal::Kill) {
        assert!(ended.words.contains("\n  -> "), "it doesn't say what to do next: {}", ended.words);
    }
    ended
}

fn typed(cluster: &Cluster, nodes: &[u64], arguments: &[&str], log: &Path) -> Process {
    let endpoints: Vec<&str> = nodes.iter().map(|id| cluster.node(*id).addresses.client.as_str()).collect();
    Process::start_in(&[("JANGBU_ENDPOINTS", endpoints.join(","))], None, &jangbu(), arguments, log)
}

async fn typed_until_done(cluster: &Cluster, nodes: &[u64], arguments: &[&str]) {
    jangbu_tests::until_ok(format!("jangbu {} is done", arguments.join(" ")), async || {
        let output = ask_at(cluster, nodes, arguments);
        match output.status.code() {
            Some(WELL) => Ok(()),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_an_export_that_are_interrupted_leave_what_is_whole_or_nothing() {
    let cluster = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    let payer = Payer::start_at(&cluster, &[1], Payments { batch_count: 200, ..Payments::default() }).await;
    // Some seconds to read, at a mebibyte a second.
    payer.progresses(30_000, "so that there is something to read").await;
    let journal = payer.stop().await;
    let beside = |name: &str| cluster.node(1).data.with_file_name(name);
    let (place, out, log) = (beside("backups"), beside("books"), beside("log"));
    let (named, exported) = (place.display().to_string(), out.display().to_string());
    let slowly = ["--rate", "1"];

    let back_up = ["backup", "run", &named];
    for (signal, code) in [(Signal::Interrupt, Some(INTERRUPTED)), (Signal::Kill, None)] {
        let _ = fs::remove_dir_all(&place); // what the one before it has put
        let running = typed(&cluster, &[1], &[&back_up[..], &slowly].concat(), &log);
        until("files are put", async || place.join("files").exists().then_some(())).await;
        let ended = interrupted(running, signal).await;
        assert_eq!(ended.status.code(), code, "{}", ended.words);
        assert!(code.is_none() || ended.words.contains("stays, and isn't sent again"), "{}", ended.words);
        assert!(!place.join("full").exists(), "no backup that isn't whole");
    }
    exits(WELL, &cluster, &back_up);
    exits(WELL, &cluster, &["backup", "verify", &named]);

    let export = ["export", &exported];
    let work = beside("books.exporting");
    for (signal, code) in [(Signal::Interrupt, Some(INTERRUPTED)), (Signal::Kill, None)] {
        let running = typed(&cluster, &[1], &[&export[..], &slowly].concat(), &log);
        until("it reads", async || work.join("books").exists().then_some(())).await;
        exits(CONFLICT, &cluster, &export);
        let ended = interrupted(running, signal).await;
        assert_eq!(ended.status.code(), code, "{}", ended.words);
        assert_eq!(work.exists(), code.is_none(), "only what is killed leaves its folder");
        assert!(!out.exists(), "nothing that isn't whole bears its name");
    }
    exits(WELL, &cluster, &export);
    let books: Vec<_> = fs::read_dir(&out).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(books.len(), 4, "{books:?}");
    assert!(!work.exists());

    let scratch = beside("scratch");
    fs::create_dir(&scratch).expect("a folder");
    let scratch_named = scratch.display().to_string();
    let drill = ["backup", "drill", &named, "--dir", &scratch_named];
    for signal in [Signal::Terminate, Signal::Kill] {
        let running = typed(&cluster, &[1], &drill, &log);
        until("its node runs", async || (!nodes_in(&scratch).is_empty()).then_some(())).await;
        // Whoever stands still can't be compared, nor stopped in time: it is still at work when the signal comes.
        for pid in nodes_in(&scratch) {
            stand_still(pid);
        }
        let ended = interrupted(running, signal).await;
        assert!(ended.status.code() != Some(WELL), "{}", ended.words);
        until("no node is left", async || nodes_in(&scratch).is_empty().then_some(())).await;
        let left = fs::read_dir(&scratch).expect("a folder").count();
        assert_eq!(left, usize::from(matches!(signal, Signal::Kill)), "{}", ended.words);
    }
    exits(WELL, &cluster, &drill);
    let mut cluster = cluster;
    judge(&mut cluster, &journal).await;
}

/// Processes of nodes that have something below this folder on their command line.
fn nodes_in(folder: &Path) -> Vec<u32> {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").expect("Linux shows its processes").flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("jangbud\0") && command.contains(&folder)
    };
    pids.filter(is_one).collect()
}

fn stand_still(pid: u32) {
    send(pid, libc::SIGSTOP);
}

fn go_on(pid: u32) {
    send(pid, libc::SIGCONT);
}

/// To a process that this test didn't start itself, or a signal that others need not.
fn send(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("Linux's pids fit");
    // SAFETY: a plain system call; an error means that it is gone.
    unsafe { libc::kill(pid, signal) };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_killed_is_done_or_not_and_its_survivor_serves() {
    let mut cluster = Cluster::start().await;
    let payer = Payer::start_at(&cluster, &[1], Payments::default()).await;
    payer.progresses(100, "before the majority is lost").await;
    let journal = payer.stop().await;
    cluster.serves().await;
    cluster.kill_all();
    let dir = cluster.node(1).data.display().to_string();
    let log = cluster.node(1).data.with_file_name("recover.log");
    let told = ask(&cluster, &["recover", &dir]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let last = told
        .split("--i-understand ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .expect("it tells the entry");
    let recover = ["recover", &dir, "--i-understand", last];
    for signal in [Signal::Kill, Signal::Interrupt] {
        broken_off(typed(&cluster, &[1], &recover, &log), "", signal).await;
    }
    let done = ask(&cluster, &recover);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(WELL) || said.contains("the only voter already"), "{said}");
    for id in [2, 3] {
        let _lost = cluster.give_away(id);
    }
    cluster.node_mut(1).start();
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_on_this_machine_is_started_and_stopped_by_commands_that_are_interrupted() {
    let folder = TempDir::new().expect("a temporary folder");
    let (dir, log) = (folder.path().join("dev"), folder.path().join("log"));
    let named = dir.display().to_string();
    // What a start leaves that is killed while it makes certificates.
    fs::create_dir_all(dir.join("certs.making")).expect("a folder");
    fs::write(dir.join("certs.making/client-authority.key"), "half").expect("a file");
    let start = ["dev", "start", "--nodes", "1", "--dir", &named];
    let typed = |arguments: &[&str]| Process::start(&jangbu(), arguments, &log);
    let node = |nodes: Vec<u32>| *nodes.first().expect("it runs");

    let running = typed(&start);
    until("its node is known", async || dir.join("node-1/pid").exists().then_some(())).await;
    stand_still(node(nodes_in(&dir)));
    let ended = interrupted(running, Signal::Interrupt).await;
    assert_eq!(ended.status.code(), Some(INTERRUPTED), "{}", ended.words);
    ended.assert_gave_up_saying(&["done: node 1 runs", "jangbu dev start --dir", "jangbu dev stop --dir"]);
    // The system may end who stands still when its parent goes. A start that meets it while it ends says so.
    nodes_in(&dir).into_iter().for_each(go_on);
    let started = async || typed(&start).ended("it serves, or doesn't").await.status.success().then_some(());
    until("the cluster is started", started).await;

    for (command, code) in [("restart", INTERRUPTED), ("stop", TERMINATED)] {
        stand_still(node(nodes_in(&dir)));
        let which = if command == "restart" { &["1"][..] } else { &[] };
        let line = [&["dev", command], which, &["--dir", &named, "--timeout", "60s"]].concat();
        let running = typed(&line);
        until("its node is told to end", async || is_told_to_end(node(nodes_in(&dir))).then_some(())).await;
        let signal = if code == INTERRUPTED { Signal::Interrupt } else { Signal::Terminate };
        let ended = interrupted(running, signal).await;
        assert_eq!(ended.status.code(), Some(code), "{}", ended.words);
        go_on(node(nodes_in(&dir)));
        typed(&line).ended("it is typed again").await.assert_clean();
        assert_eq!(nodes_in(&dir).len(), usize::from(command == "restart"), "{command}");
    }
    // Killed by the very node that it starts, before anything else can happen.
    let (other, program) = (folder.path().join("killed"), folder.path().join("jangbud"));
    let script = format!("#!/bin/sh\nkill -9 $PPID\nexec {} \"$@\"\n", jangbud().display());
    fs::write(&program, script).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    let (other_named, program) = (other.display().to_string(), program.display().to_string());
    let start = ["dev", "start", "--nodes", "1", "--dir", &other_named, "--jangbud", &program];
    let ended = typed(&start).ended("its node kills it").await;
    assert_eq!(ended.status.code(), None, "{}", ended.words);
    assert_eq!(nodes_in(&other).len(), 1, "the node runs");
    typed(&["dev", "stop", "--remove", "--dir", &other_named]).ended("it finds the node").await.assert_clean();
    assert!(nodes_in(&other).is_empty() && !other.exists());
    // Half removed, by one that was killed: what says that there is a cluster is there still.
    fs::remove_dir_all(dir.join("certs")).expect("it is there");
    typed(&["dev", "stop", "--remove", "--dir", &named]).ended("it is removed").await.assert_clean();
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_is_interrupted_tells_what_it_measured_and_leaves_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let dir: PathBuf = folder.path().join("bench");
    let named = dir.display().to_string();
    let bench = ["bench", "--systems", "jangbu", "--seconds", "60", "--dir", &named];
    let running = Process::start(&jangbu(), &bench, &folder.path().join("log"));
    until("its nodes run", async || (nodes_in(&dir).len() == 3).then_some(())).await;
    let ended = interrupted(running, Signal::Interrupt).await;
    assert_eq!(ended.status.code(), Some(INTERRUPTED), "{}", ended.words);
    assert!(nodes_in(&dir).is_empty() && !dir.exists(), "{}", ended.words);
}
