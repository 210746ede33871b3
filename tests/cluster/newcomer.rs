//! A newcomer's commands, as they are typed: a cluster made and grown by hand, a hold, an import broken off, a demo
//! interrupted.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use jangbu_tests::{Cluster, Process, Settings, Signal, jangbu, replicas_agree, until};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{CONFLICT, DENIED, UNAVAILABLE, USAGE, WELL, ask, exits};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_of_fresh_nodes_by_hand_and_grows() {
    let mut cluster = Cluster::unborn(Settings::default());
    cluster.start_all();
    for id in cluster.ids() {
        until("the fresh node answers", async || cluster.door(id).status().await.ok()).await;
    }
    let unmade = exits(UNAVAILABLE, &cluster, &["cluster", "health"]);
    assert!(complaint(&unmade).contains("jangbu cluster init"), "{}", complaint(&unmade));
    assert!(said(&exits(WELL, &cluster, &["cluster", "status"])).contains("in no cluster"));

    let peers: Vec<&str> = cluster.ids().into_iter().map(|id| cluster.node(id).addresses.peer.as_str()).collect();
    let (peers, with_a_stranger) = (peers.join(","), [&peers[..], &["127.0.0.1:1"]].concat().join(","));
    let unreached = exits(UNAVAILABLE, &cluster, &["cluster", "init", &with_a_stranger]);
    assert!(complaint(&unreached).contains("no node answers at 127.0.0.1:1"), "{}", complaint(&unreached));
    exits(WELL, &cluster, &["cluster", "init", &peers]);
    let made = exits(CONFLICT, &cluster, &["cluster", "init", &peers]);
    assert!(complaint(&made).contains("in a cluster already"), "{}", complaint(&made));
    cluster.serves().await;
    exits(WELL, &cluster, &["cluster", "health"]);
    pay(&cluster);

    let fresh = cluster.furnish(4).addresses.peer.clone();
    exits(UNAVAILABLE, &cluster, &["member", "add", &fresh]);
    cluster.node_mut(4).start();
    until("the fresh node answers", async || cluster.door(4).status().await.ok()).await;
    exits(WELL, &cluster, &["member", "add", &fresh]);
    // Refused while it lags, which passes.
    until("node 4 votes", async || {
        (ask(&cluster, &["member", "promote", "4"]).status.code() == Some(WELL)).then_some(())
    })
    .await;
    cluster.serves().await;
    exits(WELL, &cluster, &["cluster", "health"]);
    replicas_agree(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_voided_by_command_once_and_load_keeps_to_the_node_it_was_told() {
    let cluster = Cluster::start().await;
    open_two_accounts(&cluster);
    let hold = ["transfer", "create", "--id", "77", "--from", "1", "--to", "2", "--amount", "50", "--ledger", "1"];
    exits(WELL, &cluster, &[&hold[..], &["--code", "1", "--pending"]].concat());
    assert_eq!(held(&cluster), "50");

    exits(USAGE, &cluster, &["transfer", "void"]);
    exits(USAGE, &cluster, &["transfer", "void", "seventy-seven"]);
    exits(CONFLICT, &cluster, &["transfer", "void", "99"]);
    exits(WELL, &cluster, &["transfer", "void", "77", "--id", "78"]);
    exits(WELL, &cluster, &["transfer", "void", "77", "--id", "78"]);
    assert_eq!(held(&cluster), "0");
    for again in [&["transfer", "void", "77"][..], &["transfer", "post", "77"]] {
        let refused = exits(CONFLICT, &cluster, again);
        assert!(complaint(&refused).contains("pending_transfer_already_voided"), "{}", complaint(&refused));
    }

    let load = ["load", "--node", "2", "--count", "50", "--clients", "2", "--duration", "60s", "-o", "json"];
    let report = json(&exits(WELL, &cluster, &load));
    assert_eq!(report["transfers_acknowledged"], 50);
    let through: Vec<&String> = report["by_endpoint"].as_object().expect("by node").keys().collect();
    assert_eq!(through, [&cluster.node(2).addresses.client]);
    for nowhere in ["0", "4", "two"] {
        exits(USAGE, &cluster, &["load", "--node", nowhere]);
    }
    exits(USAGE, &cluster, &["verify", "--acknowledged", "no-such-file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_killed_in_the_middle_goes_on_where_it_was_and_creates_nothing_twice() {
    const ROWS: u64 = 20_000;
    let mut cluster = Cluster::start().await;
    let folder = TempDir::new().expect("a temporary folder");
    let (accounts, payments) = (folder.path().join("accounts.csv"), folder.path().join("payments.csv"));
    fs::write(&accounts, format!("id,ledger,code,balance\n1,7,1,-{ROWS}.00\n2,7,1,{ROWS}.00\n"))
        .expect("it is written");
    let rows = (1..=ROWS).map(|row| format!("{},1,2,1.00,7,1\n", 1_000 + row));
    let header = "nr,debit_account_id,credit_account_id,amount,ledger,code\n".to_owned();
    fs::write(&payments, [header].into_iter().chain(rows).collect::<String>()).expect("it is written");
    let (accounts, payments) = (accounts.display().to_string(), payments.display().to_string());

    exits(USAGE, &cluster, &["import", &payments]);
    let unnamed = exits(USAGE, &cluster, &["import", &payments, "--format", "csv"]);
    assert!(said(&unnamed).contains("--map id=COLUMN"), "{}", said(&unnamed));
    exits(USAGE, &cluster, &["import", "no-such-file", "--format", "csv"]);

    let import = ["import", &payments, "--format", "csv", "--accounts", &accounts, "--scale", "2", "--map", "id=nr"];
    let endpoints = cluster.node(1).addresses.client.clone();
    let slowly = [&import[..], &["--batch", "5", "--endpoints", &endpoints]].concat();
    let importing = Process::start(&jangbu(), &slowly, &folder.path().join("import.log"));
    until("a part of it is there", async || (cluster.status(1).await.events_count >= 500).then_some(())).await;
    importing.kill();
    assert!(cluster.status(1).await.events_count < ROWS, "it was killed too late");

    let report = json(&exits(WELL, &cluster, &[&import[..], &["-o", "json"]].concat()));
    let loaded = |report: &Value, what: &str| report["loaded"][what].as_u64().expect("a number");
    let (created, there) = (loaded(&report, "transfers_created"), loaded(&report, "transfers_already_there"));
    assert_eq!(created + there, ROWS);
    assert!(there >= 500 && created > 0, "{created} created, {there} already there");
    assert_eq!(report["end_balances_that_differ"], Value::Array(Vec::new()));
    let report = json(&exits(WELL, &cluster, &[&import[..], &["-o", "json"]].concat()));
    assert_eq!(loaded(&report, "transfers_created"), 0, "all of it was there");
    cluster.serves().await;
    assert_eq!(cluster.status(1).await.events_count, ROWS);
    exits(WELL, &cluster, &["verify", "--audit", "--timeout", "60s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_interrupted_leaves_nothing_behind_and_one_that_makes_no_sense_starts_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let (dir, log) = (folder.path().join("demo"), folder.path().join("demo.log"));
    let demo = ["demo", "--dir", dir.to_str().expect("a plain path")];
    for senseless in [&["--data", "no-such-file"][..], &["--duration", "0s"], &["--clients", "1"], &["--nodes", "3"]] {
        let output = Command::new(jangbu()).args(demo).args(senseless).output().expect("the command starts");
        assert_eq!(output.status.code(), Some(USAGE), "{senseless:?}: {}", complaint(&output));
        assert!(!dir.exists(), "{senseless:?} started something");
    }

    let running = Process::start(&jangbu(), &[&demo[..], &["--duration", "60s"]].concat(), &log);
    until("clients pay", async || running.words().contains("clients pay").then_some(())).await;
    assert_eq!(processes_of(&dir), 3, "three nodes run");
    running.signal(Signal::Interrupt);
    running.ended("it was interrupted").await.assert_gave_up_saying(&["interrupted"]);
    assert_eq!(processes_of(&dir), 0, "no node is left");
    assert!(!dir.exists(), "nor what they kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dev_cluster_opens_to_a_token_alone_and_not_to_whoever_shows_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let jangbu = |arguments: &[&str]| {
        let mut command = Command::new(jangbu());
        command.args(arguments).current_dir(folder.path()).env_remove("JANGBU_ENDPOINTS");
        command.output().expect("the command starts")
    };
    let well = |arguments: &[&str]| {
        let output = jangbu(arguments);
        assert_eq!(output.status.code(), Some(WELL), "{arguments:?}: {}", complaint(&output));
        output
    };
    well(&["dev", "start", "--nodes", "1"]);
    well(&["upgrade", "finalize"]);
    well(&["token", "create", "shop", "--role", "reader", "--ledgers", "7", "--out", "shop.token"]);
    let status = json(&well(&["cluster", "status", "-o", "json"]));
    let endpoint = status[0]["endpoint"].as_str().expect("it has an address");
    let stranger = ["--endpoints", endpoint, "--ca", "jangbu-dev/certs/client-authority.crt"];
    let ask = ["account", "list", "--ledger", "7"];
    well(&[&stranger[..], &["--token-file", "shop.token"], &ask].concat());
    let refused = jangbu(&[&stranger[..], &ask].concat());
    assert_eq!(refused.status.code(), Some(DENIED), "{}", complaint(&refused));
    assert!(complaint(&refused).contains("--token-file"), "{}", complaint(&refused));
    well(&["dev", "stop", "--remove"]);
}

/// How many nodes run that keep their data in this folder.
fn processes_of(dir: &Path) -> usize {
    let dir = dir.display().to_string();
    let commands = fs::read_dir("/proc").expect("Linux shows its processes").flatten();
    let commands = commands.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    commands.filter(|command| command.contains("jangbud\0") && command.contains(&dir)).count()
}

fn pay(cluster: &Cluster) {
    open_two_accounts(cluster);
    let payment = ["transfer", "create", "--from", "1", "--to", "2", "--amount", "5", "--ledger", "1", "--code", "1"];
    exits(WELL, cluster, &payment);
}

fn open_two_accounts(cluster: &Cluster) {
    for id in ["1", "2"] {
        exits(WELL, cluster, &["account", "create", "--id", id, "--ledger", "1", "--code", "1"]);
    }
}

/// What account 1 holds for others.
fn held(cluster: &Cluster) -> String {
    let accounts = json(&exits(WELL, cluster, &["account", "show", "1", "-o", "json"]));
    accounts[0]["debits_pending"].as_str().expect("an amount").to_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", said(output)))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
