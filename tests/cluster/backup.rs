//! What was backed up comes back: all of it, or as of a moment, with the digest that it had; or it is refused by name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use jangbu_proto::cluster::v1::StatusReply;
use jangbu_tests::{
    Cluster, Misfortune, Payer, Payments, Process, Settings, Signal, Sizes, Storage, damage, jangbu, judge,
    replicas_agree, until,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::access::{knows_tokens, metrics};
use crate::command::{CONFLICT, DENIED, GENERAL, UNAVAILABLE, UNHEALTHY, USAGE, WELL, exits};
use crate::interrupted::{INTERRUPTED, interrupted};

/// A cluster, and a place for its backups beside it.
struct Bank {
    cluster: Cluster,
    place: PathBuf,
}

impl Bank {
    async fn open(nodes_count: u64) -> Bank {
        let cluster = Cluster::start_with(Settings { nodes_count, ..Settings::default() }).await;
        let place = cluster.node(1).data.with_file_name("backups");
        Bank { cluster, place }
    }

    fn place(&self) -> String {
        self.place.display().to_string()
    }

    /// As an operator would, for ever.
    fn follow(&self, log: &str) -> Process {
        let ids = self.cluster.ids();
        let endpoints: Vec<&str> = ids.iter().map(|id| self.cluster.node(*id).addresses.client.as_str()).collect();
        let arguments = [
            "backup",
            "run",
            &self.place(),
            "--follow",
            "--every",
            "200ms",
            "-o",
            "json",
            "--endpoints",
            &endpoints.join(","),
        ];
        Process::start(&jangbu(), &arguments, &self.place.with_file_name(log))
    }

    fn list(&self) -> Value {
        json(&["backup", "list", &self.place()])
    }

    async fn archives(&self, index: u64) {
        until(format!("entry {index} is archived"), async || {
            let backups = self.list()["backups"].as_array()?.clone();
            backups.iter().any(|backup| backup["restorable_to"].as_u64() >= Some(index)).then_some(())
        })
        .await;
    }

    async fn status(&self) -> StatusReply {
        self.cluster.status(1).await
    }

    /// The environment of a command that knows the cluster and a storage.
    fn with_storage(&self, storage: [(&'static str, String); 5]) -> Vec<(&'static str, String)> {
        let endpoints = ("JANGBU_ENDPOINTS", self.cluster.node(1).addresses.client.clone());
        storage.into_iter().chain([endpoints]).collect()
    }
}

/// What a command answers, as JSON if it is, and what it complains of; `more` goes before the environment.
fn ask(environment: &[(&str, String)], expected: i32, more: &[(&str, &str)], arguments: &[&str]) -> (Value, String) {
    let mut command = Command::new(jangbu());
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).envs(more.iter().copied());
    let output = tokio::task::block_in_place(|| command.output()).expect("the command starts");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(expected), "jangbu {}:\n{said}\n{complained}", arguments.join(" "));
    (serde_json::from_str(&said).unwrap_or_default(), complained.into_owned())
}

/// A server of S3 that others keep, over a folder; and the environment of a command that uses its bucket `money`. It ends with the
/// runtime.
async fn signing_storage(folder: &Path) -> [(&'static str, String); 5] {
    fs::create_dir_all(folder.join("money")).expect("the test's folder takes folders");
    let mut service = S3ServiceBuilder::new(FileSystem::new(folder).expect("it is there"));
    service.set_auth(SimpleAuth::from_single("shop", "between us"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            let serving = async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await };
            tokio::spawn(serving);
        }
    });
    [
        ("AWS_ENDPOINT", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "shop".into()),
        ("AWS_SECRET_ACCESS_KEY", "between us".into()),
    ]
}

/// Without any cluster.
fn run(arguments: &[&str]) -> Output {
    let command = || Command::new(jangbu()).args(arguments).env_remove("JANGBU_ENDPOINTS").output();
    tokio::task::block_in_place(command).expect("the command starts")
}

pub(crate) fn code(expected: i32, arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(expected), "jangbu {}:\n{said}\n{complained}", arguments.join(" "));
    (said.into_owned(), complained.into_owned())
}

pub(crate) fn json(arguments: &[&str]) -> Value {
    let (said, _) = code(WELL, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&said).expect("JSON was asked for")
}

/// The arguments of a restore into a folder, as a node that nobody starts.
fn restore<'a>(place: &'a str, into: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let always = [
        "backup",
        "restore",
        place,
        "--into",
        into,
        "--node-id",
        "4",
        "--peer-address",
        "127.0.0.1:1",
        "--client-address",
        "127.0.0.1:2",
    ];
    [&always[..], more].concat()
}

/// A cluster of one that was restored, as node 4; it serves.
async fn restored(bank: &Bank) -> Cluster {
    let mut cluster = Cluster::unborn(Settings { nodes_count: 0, ..Settings::default() });
    let node = cluster.furnish(4);
    let (into, addresses) = (node.data.display().to_string(), node.addresses.clone());
    let place = bank.place();
    let told = json(&[
        "backup",
        "restore",
        &place,
        "--into",
        &into,
        "--node-id",
        "4",
        "--peer-address",
        &addresses.peer,
        "--client-address",
        &addresses.client,
        "--data-center",
        "dc-4",
    ]);
    assert_ne!(told["cluster_id"].as_str(), bank.list()["cluster_id"].as_str(), "the new cluster has an id of its own");
    cluster.node_mut(4).start();
    cluster.serves().await;
    cluster
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_under_load_comes_back_to_the_end_an_index_or_a_time_and_its_cluster_grows_again() {
    let bank = Bank::open(3).await;
    let payer = Payer::start_at(&bank.cluster, &[1, 2, 3], Payments::default()).await;
    payer.progresses(300, "before the first backup").await;
    let mut first = bank.follow("first.log");
    until("the first full backup is there", async || {
        assert!(first.exit_status().is_none(), "it goes on: {}", first.words());
        bank.place.join("full").is_dir().then_some(())
    })
    .await;
    payer.progresses(300, "while it follows").await;
    // Three moments of one replica, each told with its digest.
    let mut moments = Vec::new();
    for _ in 0..3 {
        moments.push(bank.status().await);
        payer.progresses(100, "between two moments").await;
    }
    first.kill();
    payer.progresses(100, "while nobody archives").await;
    let second = bank.follow("second.log");
    payer.progresses(100, "while the second follows").await;
    let journal = payer.stop().await;
    let end = bank.status().await;
    bank.archives(end.applied_index).await;
    until("the second follows", async || second.words().contains("archived_to").then_some(())).await;
    second.signal(Signal::Terminate);
    second.ended("it was told to").await.assert_clean();
    let listed = bank.list();
    assert!(listed["backups"].as_array().map(Vec::len) >= Some(2), "each began with a full one: {listed}");
    let verified = json(&["backup", "verify", &bank.place()]);
    assert_eq!(verified["faults"], Value::Array(vec![]), "{verified}");

    let place = bank.place();
    for (number, moment) in moments.iter().enumerate() {
        let into = bank.place.with_file_name(format!("moment-{number}")).display().to_string();
        let index = moment.applied_index.to_string();
        let told = json(&restore(&place, &into, &["--index", &index]));
        assert_eq!(told["digest"], hex(&moment.digest), "as of entry {index}: {told}");
        assert_eq!(told["log_index"], moment.applied_index);
        let last = told["proven_at"].as_array().and_then(|all| all.last()?.as_u64());
        assert!(last >= Some(moment.applied_index), "a digest from there on was compared: {told}");
        fs::remove_dir_all(&into).expect("it was made");

        let time = moment.last_timestamp.to_string();
        let told = json(&restore(&place, &into, &["--time", &time]));
        assert_eq!(told["digest"], hex(&moment.digest), "as of log time {time}: {told}");
    }
    let (_, refused) = code(CONFLICT, &restore(&place, "/nowhere/x", &["--index", "999999999"]));
    assert!(refused.contains("ends at entry"), "{refused}");

    let mut again = restored(&bank).await;
    judge(&mut again, &journal).await;
    exits(WELL, &again, &["audit", "verify"]);
    let trail = exits(WELL, &again, &["audit", "list"]);
    let trail = String::from_utf8_lossy(&trail.stdout);
    assert!(trail.contains("backup restore") && trail.contains(&hex(&end.cluster_id)), "{trail}");
    let payer = Payer::start_at(&again, &[4], Payments::default()).await;
    for id in [5, 6] {
        again.furnish(id).start();
        again.admit(id).await;
    }
    payer.progresses(100, "as a cluster of three").await;
    payer.stop().await;
    again.serves().await;
    replicas_agree(&again).await;
    // One that a node has run with is nobody's leftover, wherever it lies.
    again.kill_all();
    let used = again.node(4).data.display().to_string();
    fs::rename(&used, format!("{used}.restoring")).expect("nobody runs there");
    let (_, refused) = code(CONFLICT, &restore(&place, &used, &[]));
    assert!(refused.contains("a node has run with it"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_damaged_or_cut_short_is_named_and_nothing_is_given_out() {
    let bank = Bank::open(1).await;
    let payer = Payer::start(&bank.cluster).await;
    payer.progresses(300, "so that there is something to lose").await;
    let key = bank.place.with_file_name("backup.key");
    fs::write(&key, "5a".repeat(32)).expect("a key");
    let (place, key) = (bank.place(), key.display().to_string());
    let back_up = ["backup", "run", &place, "--key-file", &key];
    exits(WELL, &bank.cluster, &back_up);
    payer.progresses(300, "so that there is a log").await;
    payer.stop().await;
    let full = exits(WELL, &bank.cluster, &[&back_up[..], &["-o", "json"]].concat());
    let full: Value = serde_json::from_slice(&full.stdout).expect("JSON");
    let (bytes, new) = (&full["bytes"], &full["bytes_new"]);
    let number = |text: &Value| text.as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    assert!(number(new) < number(bytes), "what was there already wasn't sent again: {full}");
    let legible = contents(&bank.place).windows(9).any(|window| window == b"manifest\"");
    assert!(!legible, "a record's field can be read");

    let into = bank.place.with_file_name("into").display().to_string();
    code(WELL, &["backup", "verify", &place, "--key-file", &key]);
    let other_key = bank.place.with_file_name("other.key");
    fs::write(&other_key, "a5".repeat(32)).expect("a key");
    for wrong in [&[][..], &["--key-file", &other_key.display().to_string()]] {
        for command in [vec!["backup", "verify", &place], vec!["backup", "list", &place], restore(&place, &into, &[])] {
            let (_, refused) = code(DENIED, &[&command[..], wrong].concat());
            assert!(refused.contains("is encrypted with key"), "{refused}");
        }
    }

    // Before the second full backup: what is there of it comes from the first one, and from the log between them.
    let between = (full["log_index"].as_u64().expect("an index") - 1).to_string();
    let copy = bank.place.with_file_name("copy");
    for harm in [Harm::Missing, Harm::Flipped, Harm::Cut] {
        for (folder, moment) in [("files", &[][..]), ("log", &["--index", &between])] {
            copy_all(&bank.place, &copy);
            let harmed = harm.inflict(&copy.join(folder));
            let name = harmed.strip_prefix(&copy).expect("it lies there").display().to_string();
            let place = copy.display().to_string();
            let keyed = ["--key-file", &key, "-o", "json"];
            let restore = restore(&place, &into, &[&keyed[..2], moment].concat());
            let verify = [&["backup", "verify", &place], &keyed[..]].concat();
            if let (Harm::Missing, "log") = (harm, folder) {
                // Nobody can tell it from one that was never put; but that it isn't there is told.
                let (said, _) = code(WELL, &verify);
                let report: Value = serde_json::from_str(&said).expect("JSON");
                assert_ne!(report["gaps"], Value::Array(vec![]), "{report}");
                code(CONFLICT, &restore);
            } else {
                let (said, _) = code(UNHEALTHY, &verify);
                assert!(said.contains(&name), "{harm:?}: {name} isn't in {said}");
                let (_, refused) = code(UNHEALTHY, &restore);
                assert!(refused.contains(&name), "{harm:?}: {name} isn't in {refused}");
            }
            assert!(!Path::new(&into).exists(), "nothing is given out");
            let _ = fs::remove_dir_all(format!("{into}.restoring"));
        }
    }

    // Half-way, and again.
    let log = bank.place.with_file_name("restore.log");
    let arguments = restore(&place, &into, &["--key-file", &key]);
    let half = Process::start(&jangbu(), &arguments, &log);
    until("the restore has begun", async || {
        Path::new(&format!("{into}.restoring/group-0/incoming")).exists().then_some(())
    })
    .await;
    half.kill();
    assert!(!Path::new(&into).exists(), "half a folder has no name");
    // All done but the name, which a link stands in the way of: as a kill just before the last step leaves it.
    let elsewhere = bank.place.with_file_name("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    std::os::unix::fs::symlink(&elsewhere, &into).expect("a link");
    let (_, refused) = code(GENERAL, &arguments);
    assert!(refused.contains("renaming"), "{refused}");
    fs::remove_file(&into).expect("the link");
    let told = json(&arguments);
    assert_ne!(told["proven_at"], Value::Array(vec![]), "{told}");
    let (_, refused) = code(CONFLICT, &arguments);
    assert!(refused.contains("not empty"), "{refused}");

    let scratch = bank.place.with_file_name("scratch");
    fs::create_dir(&scratch).expect("a folder");
    let drill = json(&["backup", "drill", &place, "--key-file", &key, "--dir", &scratch.display().to_string()]);
    assert_eq!(drill["digest"], drill["restored"]["digest"], "{drill}");
    assert_eq!(fs::read_dir(&scratch).expect("a folder").count(), 0, "a drill leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_what_is_kept_stays_whole_and_every_node_knows_of_the_newest() {
    let bank = Bank::open(3).await;
    // From that version on there is an audit trail, which is how nodes hear of a backup.
    knows_tokens(&bank.cluster).await;
    let place = bank.place();
    let newest_at = |id: u64| {
        let told = metrics(&bank.cluster.node(id).addresses.http);
        let line = told.lines().find(|line| line.starts_with("jangbu_backup_newest_timestamp_seconds"));
        let value = line.and_then(|line| line.split(' ').next_back()?.trim().parse::<f64>().ok());
        value.expect("it is among the metrics")
    };
    assert_eq!([1, 2, 3].map(newest_at), [0.0; 3], "there is none yet");
    let payer = Payer::start(&bank.cluster).await;
    let mut fulls = Vec::new();
    for _ in 0..3 {
        payer.progresses(300, "between two backups").await;
        let full = exits(WELL, &bank.cluster, &["backup", "run", &place, "-o", "json"]);
        fulls.push(serde_json::from_slice::<Value>(&full.stdout).expect("JSON"));
    }
    payer.stop().await;
    let all_know = async || [1, 2, 3].iter().all(|id| newest_at(*id) > 1e9).then_some(());
    until("every node knows of the newest", all_know).await;
    let trail = exits(WELL, &bank.cluster, &["audit", "list"]);
    let trail = String::from_utf8_lossy(&trail.stdout).into_owned();
    for action in ["snapshot read", "log read", "backup run"] {
        assert!(trail.contains(action), "{action} isn't in {trail}");
    }

    let whole = damage::files_under(&bank.place).len();
    let (_, said) = code(USAGE, &["backup", "prune", &place]);
    assert!(said.contains("--keep"), "{said}");
    let nothing = json(&["backup", "prune", &place, "--keep", "3"]);
    assert_eq!(
        (&nothing["fulls_removed"], &nothing["pieces_removed"]),
        (&Value::from(0), &Value::from(0)),
        "{nothing}"
    );
    json(&["backup", "prune", &place, "--keep-days", "1"]);
    let would = json(&["backup", "prune", &place, "--keep", "2", "--dry-run"]);
    assert_eq!(damage::files_under(&bank.place).len(), whole, "nothing has gone yet");
    assert_eq!(would["fulls_removed"], 1, "{would}");
    let gone = json(&["backup", "prune", &place, "--keep", "2"]);
    assert_eq!(
        (&gone["pieces_removed"], &gone["segments_removed"], &gone["bytes_removed"]),
        (&would["pieces_removed"], &would["segments_removed"], &would["bytes_removed"])
    );
    let count = |name: &str| gone[name].as_u64().expect("a number") as usize;
    let removed = count("fulls_removed") + count("segments_removed") + count("pieces_removed");
    assert_eq!(
        (damage::files_under(&bank.place).len(), count("pieces_removed") > 0),
        (whole - removed, true),
        "{gone}"
    );
    assert_eq!(json(&["backup", "verify", &place])["faults"], Value::Array(vec![]));

    let into = bank.place.with_file_name("into").display().to_string();
    let index = |full: &Value| full["log_index"].as_u64().expect("an index").to_string();
    let (_, said) = code(CONFLICT, &restore(&place, &into, &["--index", &index(&fulls[0])]));
    assert!(said.contains("the oldest full backup is of entry"), "{said}");
    let told = json(&restore(&place, &into, &["--index", &index(&fulls[1])]));
    assert_eq!(told["digest"], fulls[1]["digest"]);

    // What it must keep isn't whole: then all stays as it is.
    let newest = damage::files_under(&bank.place.join("files"));
    fs::remove_file(newest.first().expect("there are some")).expect("it is there");
    let before = damage::files_under(&bank.place).len();
    let (_, said) = code(UNHEALTHY, &["backup", "prune", &place, "--keep", "2"]);
    assert!(said.contains("is missing") && said.contains("backup run"), "{said}");
    assert_eq!(damage::files_under(&bank.place).len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_hiccups_breaks_off_or_refuses_holds_a_whole_backup_or_says_so() {
    let bank = Bank::open(1).await;
    let storage = Storage::start().await;
    let environment = bank.with_storage(storage.environment());
    let ask = |expected, more: &[_], arguments: &[_]| ask(&environment, expected, more, arguments);
    let place = "s3://money/bank";
    let run = ["backup", "run", place, "-o", "json"];
    let payer = Payer::start(&bank.cluster).await;
    payer.progresses(500, "so that there is something to lose").await;
    payer.stop().await;

    let (_, told) = ask(DENIED, &[("AWS_ACCESS_KEY_ID", "stranger")], &run);
    assert!(told.contains("403 Forbidden") && told.contains("lets you in"), "{told}");
    let (_, told) = ask(GENERAL, &[], &["backup", "run", "s3://elsewhere/bank"]);
    assert!(told.contains("s3://elsewhere/bank") && told.contains("->"), "{told}");
    let (_, told) = ask(GENERAL, &[("AWS_ALLOW_HTTP", "false")], &run);
    assert!(told.contains("AWS_ALLOW_HTTP=true allows plain text"), "{told}");
    assert_eq!(storage.objects_count(), 0, "nothing was put");

    // Killed half-way, and again: what is there already isn't sent again, whatever happens to the rest on its way.
    storage.silent_at(Some(("PUT", 3)));
    let log = bank.place.with_file_name("s3.log");
    let half = Process::start_in(&environment, None, &jangbu(), &run, &log);
    until("some objects are there", async || (storage.objects_count() == 3).then_some(())).await;
    half.kill();
    storage.silent_at(None);
    storage.order([Misfortune::CutOff, Misfortune::Busy, Misfortune::Halved, Misfortune::CutOff]);
    let (full, _) = ask(WELL, &[], &run);
    let number = |name: &str| full[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    assert!(number("bytes_new") < number("bytes"), "{full}");
    assert_eq!(storage.misfortunes_left(), 0, "they all befell it");

    let (listed, _) = ask(WELL, &[], &["backup", "list", place, "-o", "json"]);
    assert_eq!(listed["backups"][0]["digest"], full["digest"], "{listed}");
    let (verified, _) = ask(WELL, &[], &["backup", "verify", place, "-o", "json"]);
    assert_eq!(verified["faults"], Value::Array(vec![]), "{verified}");
    let into = bank.place.with_file_name("into").display().to_string();
    let (told, _) = ask(WELL, &[], &restore(place, &into, &["-o", "json"]));
    assert!(told["log_index"].as_u64() >= full["log_index"].as_u64(), "{told}");
    // Two of the same entry would be one.
    let payer = Payer::start(&bank.cluster).await;
    payer.progresses(50, "between two backups").await;
    payer.stop().await;
    ask(WELL, &[], &run);
    // Interrupted while the first removal is under way, and again.
    let (before, prune) = (storage.objects_count(), ["backup", "prune", place, "--keep", "1", "-o", "json"]);
    let unanswered = storage.unanswered_count();
    storage.silent_at(Some(("DELETE", 0)));
    let half = Process::start_in(&environment, None, &jangbu(), &prune, &log);
    until("a removal is asked for", async || (storage.unanswered_count() > unanswered).then_some(())).await;
    let ended = interrupted(half, Signal::Interrupt).await;
    assert_eq!(ended.status.code(), Some(INTERRUPTED), "{}", ended.words);
    ended.assert_gave_up_saying(&["interrupted; 0 of ", " objects are removed, and perhaps one more", "type it again"]);
    storage.silent_at(None);
    let (pruned, _) = ask(WELL, &[], &prune);
    assert_eq!(pruned["fulls_removed"], 1, "{pruned}");
    assert!(storage.objects_count() < before);
    let (verified, _) = ask(WELL, &[], &["backup", "verify", place, "-o", "json"]);
    assert_eq!(verified["faults"], Value::Array(vec![]), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_checks_every_signature_keeps_an_encrypted_backup_and_gives_it_back() {
    let bank = Bank::open(1).await;
    let buckets = bank.place.with_file_name("buckets");
    let environment = bank.with_storage(signing_storage(&buckets).await);
    let ask = |expected, more: &[_], arguments: &[_]| ask(&environment, expected, more, arguments);
    let key = bank.place.with_file_name("key");
    fs::write(&key, "5e".repeat(32)).expect("the test's folder takes files");
    let key = key.display().to_string();
    let keyed = ["--key-file", &key, "-o", "json"];
    let verb = |verb| [&["backup", verb, "s3://money/bank"], &keyed[..]].concat();
    let payer = Payer::start(&bank.cluster).await;
    payer.progresses(300, "so that there is something to lose").await;
    payer.stop().await;

    let (_, told) = ask(DENIED, &[("AWS_SECRET_ACCESS_KEY", "guessed")], &verb("run"));
    assert!(told.contains("403 Forbidden") && told.contains("AWS_SECRET_ACCESS_KEY"), "{told}");
    assert_eq!(damage::files_under(&buckets), Vec::<PathBuf>::new(), "nothing was put");

    let (full, _) = ask(WELL, &[], &verb("run"));
    let (listed, _) = ask(WELL, &[], &verb("list"));
    assert_eq!(listed["backups"][0]["digest"], full["digest"], "{listed}");
    let (_, told) = ask(DENIED, &[], &["backup", "verify", "s3://money/bank"]);
    assert!(told.contains("is encrypted with key"), "{told}");
    let into = bank.place.with_file_name("into").display().to_string();
    let (told, _) = ask(WELL, &[], &restore("s3://money/bank", &into, &keyed));
    assert_eq!(told["digest"], full["digest"], "{told}");

    let payer = Payer::start(&bank.cluster).await;
    payer.progresses(50, "between two backups").await;
    payer.stop().await;
    ask(WELL, &[], &verb("run"));
    let before = damage::files_under(&buckets).len();
    let (pruned, _) = ask(WELL, &[], &[&verb("prune")[..], &["--keep", "1"]].concat());
    assert_eq!(pruned["fulls_removed"], 1, "{pruned}");
    assert!(damage::files_under(&buckets).len() < before);
    let (verified, _) = ask(WELL, &[], &verb("verify"));
    assert_eq!(verified["faults"], Value::Array(vec![]), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_command_cannot_do_it_says_and_what_to_do_next() {
    let mut bank = Bank::open(1).await;
    let place = bank.place();
    let (_, said) = code(USAGE, &["backup", "list", "/no/such/folder"]);
    assert!(said.contains("there is no such folder") && said.contains("->"), "{said}");
    let (_, said) = code(USAGE, &["backup", "run", "ftp://somewhere", "--endpoints", "127.0.0.1:1"]);
    assert!(said.contains("s3://BUCKET/PREFIX"), "{said}");
    let (_, said) = code(UNAVAILABLE, &["backup", "run", &place, "--endpoints", "127.0.0.1:1", "--timeout", "500ms"]);
    assert!(said.contains("no node serves") && said.contains("cluster health"), "{said}");
    let a_file = bank.cluster.node(1).config.display().to_string();
    let (_, said) = code(USAGE, &["backup", "run", &a_file]);
    assert!(said.contains("it is a file") && said.contains("name a folder"), "{said}");
    let below_a_file = format!("{a_file}/backups");
    let refused = exits(USAGE, &bank.cluster, &["backup", "run", &below_a_file]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("name a folder"), "{refused:?}");
    let (_, said) = code(USAGE, &["backup", "run", &place, "--rate", "0"]);
    assert!(said.contains("--rate"), "{said}");
    exits(WELL, &bank.cluster, &["backup", "run", &place]);
    let into = bank.place.with_file_name("into").display().to_string();
    let mut low = restore(&place, &into, &[]);
    low[6] = "1";
    let (_, said) = code(USAGE, &low);
    assert!(said.contains("ids above 1 are free"), "{said}");

    // Another cluster's backups don't belong here.
    let other = Cluster::start_with(Settings { nodes_count: 1, sizes: Sizes::Small, tls: false }).await;
    let refused = exits(CONFLICT, &other, &["backup", "run", &place]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("holds backups of cluster"), "{refused:?}");

    // The node goes away and comes back; whoever follows waits.
    let follower = bank.follow("patient.log");
    until("it follows", async || follower.words().contains("archived_to").then_some(())).await;
    bank.cluster.node_mut(1).kill();
    until("it waits", async || follower.words().contains("waiting:").then_some(())).await;
    bank.cluster.node_mut(1).start();
    bank.cluster.serves().await;
    let payer = Payer::start(&bank.cluster).await;
    payer.progresses(50, "after it came back").await;
    payer.stop().await;
    bank.archives(bank.status().await.applied_index).await;
    follower.signal(Signal::Interrupt);
    follower.ended("of Ctrl-C").await.assert_clean();
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Missing,
    Flipped,
    Cut,
}

impl Harm {
    /// On the largest object below a folder.
    fn inflict(self, folder: &Path) -> PathBuf {
        let files = damage::files_under(folder);
        let harmed = files.into_iter().max_by_key(|file| fs::metadata(file).map_or(0, |meta| meta.len()));
        let harmed = harmed.expect("there is one");
        match self {
            Harm::Missing => fs::remove_file(&harmed).expect("it is there"),
            Harm::Flipped => damage::flip(&harmed, 60),
            Harm::Cut => {
                let bytes = fs::read(&harmed).expect("it is there");
                fs::write(&harmed, &bytes[..bytes.len() / 2]).expect("it was there");
            }
        }
        harmed
    }
}

fn copy_all(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for file in damage::files_under(from) {
        let target = to.join(file.strip_prefix(from).expect("it lies below"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("it can be made");
        fs::copy(&file, &target).expect("it can be copied");
    }
}

fn contents(folder: &Path) -> Vec<u8> {
    damage::files_under(folder).into_iter().flat_map(|file| fs::read(file).expect("it is there")).collect()
}
