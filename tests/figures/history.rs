//! What ten million transfers leave behind: start-up, memory and disk must not grow with history beyond what it weighs.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Instant};

use jangbu_tests::{Cluster, Settings, Signal, Sizes, damage, open_accounts, payment, replicas_agree, until_ok};
use tokio::task::JoinSet;

use crate::{report::Report, throughput::client};

const TRANSFERS_COUNT: u64 = 10_000_000;
const BATCH_COUNT: u64 = 8_000;
const CALLERS_COUNT: u64 = 4;

pub(crate) async fn measure(report: &mut Report) {
    let mut cluster = Cluster::start_with(Settings { sizes: Sizes::Shipped, ..Settings::default() }).await;
    open_accounts(&cluster, 1).await;
    let started = Instant::now();
    fill(&cluster).await;
    report.add("history_transfers_count", TRANSFERS_COUNT as f64, "");
    report.add("history_transfers_per_second", TRANSFERS_COUNT as f64 / started.elapsed().as_secs_f64(), "1/s");
    cluster.serves().await;

    let memory: Vec<f64> = cluster.ids().iter().map(|id| resident_mebibytes(cluster.node(*id).pid())).collect();
    report.add("history_memory_largest_mib", memory.iter().copied().fold(0.0, f64::max), "MiB");
    let group = cluster.node(1).data.join("group-0");
    let log_bytes = disk_bytes(&group.join("log"));
    let all_bytes = disk_bytes(&cluster.node(1).data);
    let per_transfer = |bytes: u64| bytes as f64 / TRANSFERS_COUNT as f64;
    report.add("history_disk_log_bytes_per_transfer", per_transfer(log_bytes), "B");
    report.add("history_disk_state_bytes_per_transfer", per_transfer(all_bytes - log_bytes), "B");

    report.add("history_start_after_kill_ms", restarted_ms(&mut cluster, Signal::Kill).await, "ms");
    report.add("history_start_after_stop_ms", restarted_ms(&mut cluster, Signal::Terminate).await, "ms");
    report.add("history_memory_after_start_mib", resident_mebibytes(cluster.node(1).pid()), "MiB");
    replicas_agree(&cluster).await;
}

async fn fill(cluster: &Cluster) {
    let mut callers = JoinSet::new();
    for number in 0..CALLERS_COUNT {
        let client = client(cluster, number as usize);
        callers.spawn(async move {
            for _ in 0..TRANSFERS_COUNT / BATCH_COUNT / CALLERS_COUNT {
                let batch: Vec<_> = (0..BATCH_COUNT).map(|_| payment(1)).collect();
                client.create_transfers(&batch).await.expect("nothing is done to the cluster");
            }
        });
    }
    callers.join_all().await;
    let remainder = TRANSFERS_COUNT % (BATCH_COUNT * CALLERS_COUNT);
    let client = client(cluster, 0);
    for chunk in (0..remainder).collect::<Vec<_>>().chunks(BATCH_COUNT as usize) {
        let batch: Vec<_> = chunk.iter().map(|_| payment(1)).collect();
        client.create_transfers(&batch).await.expect("nothing is done to the cluster");
    }
}

/// From the start of the process until it is ready to serve linearizable requests.
async fn restarted_ms(cluster: &mut Cluster, by: Signal) -> f64 {
    match by {
        Signal::Kill => cluster.node_mut(1).kill(),
        by => {
            cluster.node(1).signal(by);
            cluster.node_ended(1, "it was told to").await.assert_clean();
        }
    }
    let started = Instant::now();
    cluster.node_mut(1).start();
    until_ok("node 1 is ready", async || match cluster.door(1).status().await {
        Ok(status) if status.ready => Ok(()),
        Ok(status) => Err(status.not_ready_because),
        Err(status) => Err(status.to_string()),
    })
    .await;
    let elapsed = started.elapsed();
    cluster.serves().await;
    elapsed.as_secs_f64() * 1e3
}

fn resident_mebibytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
    let kibibytes: f64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kibibytes / 1024.0
}

/// What lies on disk. A file that has two names, as a snapshot's have, is counted once.
fn disk_bytes(folder: &Path) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    let files = damage::files_under(folder).into_iter().filter_map(|file| fs::metadata(file).ok());
    files.filter(|meta| seen.insert(meta.ino())).map(|meta| meta.blocks() * 512).sum()
}
