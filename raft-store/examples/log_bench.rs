//! How fast the log acknowledges appends on this machine's disk, with real syncs.
//!
//!     cargo run --release -p jangbu-raft-store --example log_bench -- FOLDER
//!
//! Lone appends (each waits for the one before) show the latency; a window of appends in flight shows the throughput. The
//! disk's own pace stands beside them: the same writes to a plain file, each followed by one fdatasync.

use std::{
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
    println!(
        "{:>9} {:>8} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "entry", "window", "count", "MB/s", "p50 µs", "p99 µs", "max µs"
    );
    for (bytes, count) in [(4 << 10, 2000), (1 << 20, 200)] {
        report("fdatasync", bytes, 1, raw(Path::new(&folder), bytes, count));
        for (window, spares_max) in [(1, 0), (1, 2), (16, 2)] {
            let name = if spares_max == 0 { "log, none spare" } else { "log" };
            report(name, bytes, window, append(Path::new(&folder), bytes, count, window, spares_max).await);
        }
    }
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

async fn append(folder: &Path, bytes: usize, count: usize, window: usize, spares_max: usize) -> Times {
    let dir = tempfile::tempdir_in(folder).expect("a folder to write to");
    let setup = LogSetup {
        dir: dir.path().join("log"),
        group: 0,
        config: LogConfig { spares_max, ..LogConfig::default() },
        must_exist: false,
    };
    let lanes = Arc::new(Lanes::new("bench"));
    let log = LogStore::open(setup, Arc::new(StdVfs), lanes, Fatal::default()).await.expect("a log");
    let body = Bytes::from(vec![7; bytes]);
    // The first spare is being filled: not what is measured.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let start = Instant::now();
    let times = stream::iter(0..count as u64)
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
        .await;
    (start.elapsed(), times)
}

fn report(name: &str, bytes: usize, window: usize, (whole, mut times): Times) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    let rate = (bytes * times.len()) as f64 / 1e6 / whole.as_secs_f64();
    let count = times.len();
    println!("{bytes:>9} {window:>8} {count:>7} {rate:>9.1} {:>9} {:>9} {:>9}  {name}", at(50), at(99), at(100));
}
