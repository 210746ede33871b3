//! How fast the log acknowledges appends on this machine's disk, with real syncs.
//!
//!     cargo run --release -p jangbu-raft-store --example log_bench -- FOLDER
//!
//! Lone appends (each waits for the one before) show the latency; a window of appends in flight shows the throughput. The
//! disk's own pace stands beside them: the same writes to a plain file, each followed by one fdatasync.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the real clock")]

use std::{
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jangbu_raft_store::{
    Command, Entry, Fatal, LogConfig, LogSetup, LogStore, TypeConfig,
    blocking::Lanes,
    type_config::log_id,
    vfs::{OpenMode, StdVfs, Vfs},
};
use openraft::{
    EntryPayload,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).expect("usage: log_bench FOLDER");
    let folder = Path::new(&folder);
    println!(
        "{:>9} {:>8} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "entry", "window", "count", "MB/s", "p50 µs", "p99 µs", "max µs"
    );
    for (bytes, count) in [(4 << 10, 2000), (1 << 20, 200)] {
        report("fdatasync alone", bytes, 1, raw(folder, bytes, count));
        for window in [1, 16, 256] {
            report("log", bytes, window, append(folder, bytes, count, window).await);
        }
    }
    reopen(folder, 1 << 30).await;
}

/// Time of the whole, and of each.
type Times = (Duration, Vec<Duration>);

fn raw(folder: &Path, bytes: usize, count: usize) -> Times {
    let dir = tempfile::tempdir_in(folder).expect("a folder to write to");
    let file = StdVfs.open(&dir.path().join("raw"), OpenMode::Create).expect("a file");
    // Written before, as a reused segment is.
    for place in 0..count {
        file.write_all_at(&vec![1; bytes], (place * bytes) as u64).expect("room");
    }
    file.sync_data().expect("a disk");
    let body = vec![7; bytes];
    let start = Instant::now();
    let times = (0..count)
        .map(|place| {
            let start = Instant::now();
            file.write_all_at(&body, (place * bytes) as u64).expect("room");
            file.sync_data().expect("a disk");
            start.elapsed()
        })
        .collect();
    (start.elapsed(), times)
}

async fn open(dir: &Path, segment_bytes: u64) -> LogStore {
    let config = LogConfig { segment_bytes, ..LogConfig::default() };
    let setup = LogSetup { dir: dir.join("log"), group: 0, config, must_exist: false };
    let lanes = Arc::new(Lanes::new("bench"));
    LogStore::open(setup, Arc::new(StdVfs), lanes, Fatal::default()).await.expect("a log")
}

/// Appends `indexes`, at most `window` of them unacknowledged at any time.
async fn run(log: &LogStore, body: &Bytes, indexes: Range<u64>, window: usize) -> Vec<Duration> {
    stream::iter(indexes)
        .map(|index| {
            let (mut log, body) = (log.clone(), body.clone());
            async move {
                let start = Instant::now();
                let (done, durable) = TypeConfig::oneshot();
                let entry = Entry::new(log_id(1, 1, index), EntryPayload::Normal(Command(body)));
                log.append([entry], IOFlushed::signal(done)).await.expect("appended");
                durable.await.expect("answered").expect("durable");
                start.elapsed()
            }
        })
        .buffered(window)
        .collect()
        .await
}

async fn append(folder: &Path, bytes: usize, count: usize, window: usize) -> Times {
    let dir = tempfile::tempdir_in(folder).expect("a folder to write to");
    let mut log = open(dir.path(), 16 << 20).await;
    let body = Bytes::from(vec![7; bytes]);
    // A log that has been running: its segments are old ones, purged and used again.
    let megabyte = Bytes::from(vec![1; 1 << 20]);
    let mut next = 0;
    for _ in 0..3 {
        run(&log, &megabyte, next..next + 48, 16).await;
        next += 48;
        log.purge(log_id(1, 1, next - 1)).await.expect("purged");
    }
    let start = Instant::now();
    let times = run(&log, &body, next..next + count as u64, window).await;
    (start.elapsed(), times)
}

/// How long a start-up takes, with so many bytes of log that were not purged.
async fn reopen(folder: &Path, bytes: u64) {
    let dir = tempfile::tempdir_in(folder).expect("a folder to write to");
    let log = open(dir.path(), 64 << 20).await;
    run(&log, &Bytes::from(vec![7; 1 << 20]), 0..bytes >> 20, 16).await;
    drop(log);
    let start = Instant::now();
    let log = open(dir.path(), 64 << 20).await;
    let (took, unpurged) = (start.elapsed(), log.stats().bytes_unpurged());
    println!("opened with {} MiB of log in {} ms", unpurged >> 20, took.as_millis());
}

fn report(name: &str, bytes: usize, window: usize, (whole, mut times): Times) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    let rate = (bytes * times.len()) as f64 / 1e6 / whole.as_secs_f64();
    let count = times.len();
    println!("{bytes:>9} {window:>8} {count:>7} {rate:>9.1} {:>9} {:>9} {:>9}  {name}", at(50), at(99), at(100));
}
