//! Every command, typed wrongly and typed where nobody answers: it names what is wrong, and its exit code is the one that
//! `--help` promises.
//!
//! The commands are those that `--help` shows, so that a new one can't be forgotten.
//!
//! Not here: commands that are interrupted (`tests/cluster/interrupted.rs`), which needs a cluster.

mod commands;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use commands::commands;

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

const USAGE: i32 = 2;
const UNAVAILABLE: i32 = 4;
const OUTCOME_UNKNOWN: i32 = 6;

/// How each command that asks a cluster is typed.
const ASK_A_CLUSTER: &[&str] = &[
    "cluster init 127.0.0.1:1",
    "cluster status",
    "cluster health",
    "token create shop --role reader --ledgers all",
    "token list",
    "token revoke shop",
    "member list",
    "member add 127.0.0.1:1",
    "member update 127.0.0.1:1",
    "member promote 2",
    "member remove 2",
    "node drain 2",
    "node undrain 2",
    "node decommission 2",
    "node replace 2 127.0.0.1:1",
    "upgrade status",
    "upgrade finalize",
    "audit list",
    "audit verify",
    "backup run NOWHERE",
    "export NOWHERE",
    "leader show",
    "leader move",
    "leader balance --prefer seoul",
    "account create --ledger 1 --code 1",
    "account show 1",
    "account history 1",
    "account list",
    "transfer create --from 1 --to 2 --amount 5 --ledger 1 --code 1",
    "transfer show 1",
    "transfer post 1",
    "transfer void 1",
    "transfer list",
    "events",
    "load --duration 1s",
    "top --once",
    "verify",
    "verify --deep",
    "verify --audit",
];

/// How each command that needs a file, a folder or a word is typed where that is missing, and the word that must be named.
const ASK_A_FILE: &[(&str, &str)] = &[
    ("dev start --dir NOWHERE --jangbud NOWHERE", "NOWHERE"),
    ("dev stop --dir NOWHERE", "NOWHERE"),
    ("dev status --dir NOWHERE", "NOWHERE"),
    ("dev kill 1 --dir NOWHERE", "NOWHERE"),
    ("dev restart --dir NOWHERE", "NOWHERE"),
    ("cert node 1 --host a --dir NOWHERE", "NOWHERE"),
    ("cert client shop --roles reader --ledgers all --dir NOWHERE", "NOWHERE"),
    ("cert show NOWHERE", "NOWHERE"),
    ("cert authority --cluster a/b --dir NOWHERE", "a/b"),
    ("backup list NOWHERE", "NOWHERE"),
    ("backup verify NOWHERE", "NOWHERE"),
    ("backup restore NOWHERE --into NOWHERE/2 --node-id 4 --peer-address a:1 --client-address a:2", "NOWHERE"),
    ("backup drill NOWHERE", "NOWHERE"),
    ("backup prune NOWHERE --keep 2", "NOWHERE"),
    ("recover NOWHERE", "NOWHERE"),
    ("import NOWHERE --format csv", "NOWHERE"),
    ("inspect log NOWHERE", "NOWHERE"),
    ("inspect vote NOWHERE", "NOWHERE"),
    ("inspect snapshot NOWHERE", "NOWHERE"),
    ("inspect state NOWHERE", "NOWHERE"),
    ("demo --data NOWHERE", "NOWHERE"),
    ("bench --systems oracle", "oracle"),
    ("completion tcsh", "tcsh"),
];

/// Those that can't fail in either way: they gather what there is, or ask nobody.
const NEITHER: &[&str] = &["support-bundle", "version"];

const JANGBU: &str = env!("CARGO_BIN_EXE_jangbu");

/// A path where there is nothing.
fn nowhere() -> PathBuf {
    std::env::temp_dir().join(format!("jangbu-nowhere-{}", std::process::id()))
}

fn command(line: &str) -> Command {
    let nowhere = nowhere().display().to_string();
    let mut command = Command::new(JANGBU);
    command.args(line.split(' ').map(|word| word.replace("NOWHERE", &nowhere)));
    command.env_remove("JANGBU_ENDPOINTS").current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

fn run(line: &str) -> Output {
    command(line).output().expect("the command was built beside this test")
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_flag_is_named_by_every_command_and_nothing_is_done() {
    for line in commands(Path::new(JANGBU)) {
        let output = run(&format!("{line} --no-such-flag"));
        assert_eq!(output.status.code(), Some(USAGE), "jangbu {line}: {}", complaint(&output));
        assert!(complaint(&output).contains("--no-such-flag"), "jangbu {line}: {}", complaint(&output));
        assert!(output.stdout.is_empty(), "jangbu {line}");
    }
}

#[test]
fn each_command_is_tried_where_what_it_needs_is_missing() {
    let tried = || ASK_A_CLUSTER.iter().chain(ASK_A_FILE.iter().map(|(line, _)| line)).chain(NEITHER);
    for command in commands(Path::new(JANGBU)) {
        let is_tried = tried().any(|line| *line == command || line.starts_with(&format!("{command} ")));
        assert!(is_tried, "jangbu {command}: say in this file how it fails");
    }
}

#[test]
fn where_nobody_answers_every_command_says_at_which_address_and_does_not_wait_for_long() {
    for line in ASK_A_CLUSTER {
        let began = Instant::now();
        let output = run(&format!("{line} --endpoints {NOBODY} --timeout 1s"));
        let said = complaint(&output) + &String::from_utf8_lossy(&output.stdout);
        // Of a write whose time is up while a connection is tried, the client library doesn't claim that nothing was done.
        let writes = ["transfer", "account create", "load"].iter().any(|write| line.starts_with(write));
        let codes = if writes { &[UNAVAILABLE, OUTCOME_UNKNOWN][..] } else { &[UNAVAILABLE] };
        let code = output.status.code().expect("it ends by itself");
        assert!(codes.contains(&code), "jangbu {line}: exit code {code}: {said}");
        assert!(said.contains(NOBODY), "jangbu {line} doesn't name {NOBODY}: {said}");
        assert!(said.contains("->"), "jangbu {line} doesn't say what to do next: {said}");
        assert!(began.elapsed() < Duration::from_secs(30), "jangbu {line} took {:?}", began.elapsed());
        assert!(!nowhere().exists(), "jangbu {line} leaves a folder behind that it has nothing to put into");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (line, named) in ASK_A_FILE {
        let output = run(line);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(USAGE), "jangbu {line}: {said}");
        let named = named.replace("NOWHERE", &nowhere().display().to_string());
        assert!(said.contains(&named), "jangbu {line} doesn't name {named}: {said}");
        assert!(!nowhere().exists(), "jangbu {line} makes what it misses");
    }
}
