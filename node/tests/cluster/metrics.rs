//! What is written about the metrics is what a running cluster tells: the table, the alerts and the dashboards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::harness::{Cluster, PATIENCE};

/// Name and type, as told by any of the nodes.
async fn exported(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut families = BTreeMap::new();
    for id in cluster.nodes.keys() {
        let metrics = cluster.get(*id, "/metrics").await;
        for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            // OpenMetrics names the family; what is asked for has the suffix.
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            families.insert(format!("{name}{suffix}"), kind.to_owned());
        }
    }
    families
}

/// What a cluster tells once it has been at work for a moment: some metrics begin with the first call or the first answer of a
/// peer.
async fn told_at_work() -> BTreeMap<String, String> {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    cluster.pay(1, 1, 10).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = exported(&cluster).await;
        let last = ["jangbu_clock_offset_seconds", "jangbu_raft_replication_lag_entries"];
        if last.iter().all(|name| told.contains_key(*name)) {
            return told;
        }
        assert!(Instant::now() < deadline, "{last:?} are missing in {:?}", told.keys());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_metrics_is_what_a_running_cluster_tells() {
    let table = fs::read_to_string(repository().join("docs/metrics.md")).expect("the table is there");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let described: BTreeMap<String, String> =
        cells.map(|(name, rest)| (name.to_owned(), rest.split(" |").next().expect("a type").to_owned())).collect();
    assert_eq!(told_at_work().await, described);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_in_an_alert_or_on_a_dashboard_is_told_by_a_running_cluster() {
    let exported = told_at_work().await;
    let mut asked = BTreeSet::new();
    for file in [&files("ops/deploy/prometheus", "yaml")[..], &files("ops/deploy/grafana", "json")].concat() {
        let text = fs::read_to_string(&file).expect("it can be read");
        let names = names_in(&text);
        assert!(!names.is_empty(), "{} asks for nothing", file.display());
        asked.extend(names);
    }
    let unknown: Vec<&String> = asked.iter().filter(|name| !exported.contains_key(base_of(name, &exported))).collect();
    assert!(unknown.is_empty(), "nobody tells {unknown:?}; told are {:?}", exported.keys());
}

#[test]
fn every_alert_has_its_page_in_the_runbook_and_every_page_its_alert() {
    let rules =
        fs::read_to_string(repository().join("ops/deploy/prometheus/alerts.yaml")).expect("the rules are there");
    let alerts: BTreeSet<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    let pages: BTreeSet<String> = files("docs/runbook", "md")
        .iter()
        .map(|page| page.file_stem().expect("a name").to_string_lossy().into_owned())
        .filter(|name| name != "README")
        .collect();
    assert_eq!(alerts, pages);
    let contents = fs::read_to_string(repository().join("docs/runbook/README.md")).expect("the list is there");
    for alert in &alerts {
        assert!(rules.contains(&format!("docs/runbook/{alert}.md")), "{alert} doesn't link to its page");
        assert!(contents.contains(&format!("({alert}.md)")), "the runbook's list lacks {alert}");
        let page = fs::read_to_string(repository().join(format!("docs/runbook/{alert}.md"))).expect("it is there");
        for part in ["## What it means", "## What clients see", "## First look", "## What to do", "## Over when"] {
            assert!(page.contains(part), "{alert}.md lacks `{part}`");
        }
    }
}

/// A histogram is asked for by its parts.
fn base_of<'a>(name: &'a str, exported: &BTreeMap<String, String>) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"];
    let base = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    if exported.get(base).is_some_and(|kind| kind == "histogram") { base } else { name }
}

/// Whatever looks like a metric of ours. Recorded series (`job:…`) are not.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter));
    let ours = |word: &&str| ["jangbu_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(ours).map(str::to_owned).collect()
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn repository() -> &'static Path {
    Path::new("..")
}
