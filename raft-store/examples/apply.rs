//! What applying costs: plain transfers through the state machine, without Raft.
//!
//!     cargo run --release -p jangbu-raft-store --example apply -- [transfers] [accounts] [time|random]
//!
//! Reports microseconds of CPU per transfer, background included, less what it takes to make the requests; bytes written per transfer;
//! memory; the pauses; what a restart and a snapshot take. The folder is made under the current one, so that it lies on a real disk.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the real clock")]

use jangbu_ledger::{Account, AccountId, Amount, Transfer, TransferId};
use jangbu_proto::batch::{BatchBuilder, Operation};
use jangbu_raft_store::blocking::Lanes;
use jangbu_raft_store::{Command, Entry, Store, StoreConfig, StoreEnv, log_id};
use openraft::EntryPayload;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVENTS: u64 = 8_189;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let transfers: u64 = arguments.next().map_or(Ok(10_000_000), |text| text.parse())?;
    let accounts: u64 = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let random_ids = arguments.next().is_some_and(|text| text == "random");
    allocate_like_a_node();
    let dir = tempfile::tempdir_in(".")?;

    let mut store = open(dir.path()).await?;
    let mut index = 0;
    for first in (1..=accounts).step_by(EVENTS as usize) {
        index += 1;
        apply(&mut store, index, accounts_body(first, accounts)).await?;
    }

    let (mut making, mut slowest, mut pauses) = (Duration::ZERO, Duration::ZERO, Vec::new());
    let (cpu, written, started) = (cpu(), written(), Instant::now());
    for first in (0..transfers).step_by(EVENTS as usize) {
        let made = self::cpu();
        let body = transfers_body(first, accounts, random_ids);
        making += self::cpu() - made;
        index += 1;
        let began = Instant::now();
        apply(&mut store, index, body).await?;
        slowest = slowest.max(began.elapsed());
        pauses.push(began.elapsed());
    }
    let built = Instant::now();
    let mut builder = store.state.get_snapshot_builder().await;
    drop(builder.build_snapshot().await?);
    let built = built.elapsed();
    let used = self::cpu() - cpu - making;
    pauses.sort();

    let per = |duration: Duration| duration.as_secs_f64() * 1e6 / transfers as f64;
    println!("{transfers} transfers, {accounts} accounts, {} ids", if random_ids { "random" } else { "growing" });
    println!(
        "cpu      {:.3} us per transfer, background included ({:.3} us to make them not counted)",
        per(used),
        per(making)
    );
    println!("time     {:.3} us per transfer, flush and snapshot at the end included", per(started.elapsed()));
    println!(
        "entry    p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        ms(pauses[pauses.len() / 2]),
        ms(pauses[pauses.len() * 99 / 100]),
        ms(slowest)
    );
    println!("written  {:.0} bytes per transfer", (self::written() - written) as f64 / transfers as f64);
    println!("disk     {:.0} bytes per transfer", store.reader.usage().disk_bytes as f64 / transfers as f64);
    println!("memory   {} MiB now, {} MiB at most", rss("VmRSS:"), rss("VmHWM:"));
    println!("snapshot {:.0} ms", ms(built));

    let digest = store.reader.applied().digest;
    drop(builder);
    drop(store);
    let began = Instant::now();
    let store = open(dir.path()).await?;
    println!("restart  {:.0} ms", ms(began.elapsed()));
    assert_eq!(store.reader.applied().digest, digest);
    println!("memory   {} MiB after the restart", rss("VmRSS:"));
    let began = Instant::now();
    let report = store.reader.verify(None).await?.expect("nothing is applied meanwhile");
    assert_eq!(report.digest_recount, report.at.digest);
    println!("verify   {:.0} ms: digest {:02x?}", ms(began.elapsed()), report.at.digest);
    Ok(())
}

async fn open(dir: &Path) -> Result<Store, Box<dyn std::error::Error>> {
    let config = StoreConfig {
        node_id: 1,
        data_dir: dir.to_owned(),
        new_incarnation: [1; 16],
        group: 0,
        log: Default::default(),
        state: Default::default(),
    };
    let env = StoreEnv { blocking: Arc::new(Lanes::new("apply")), ..StoreEnv::production() };
    Ok(jangbu_raft_store::open(config, env).await?)
}

async fn apply(store: &mut Store, index: u64, body: bytes::Bytes) -> std::io::Result<()> {
    let entry = Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(Command(body)) };
    store.state.apply_alone(entry).await.map(drop)
}

fn accounts_body(first: u64, last: u64) -> bytes::Bytes {
    let accounts = (first..=last).take(EVENTS as usize);
    let accounts =
        accounts.map(|id| Account { id: AccountId(account_id(id)), ledger: 1, code: 1, ..Account::default() });
    body(Operation::CreateAccounts, accounts, Account::encode)
}

fn transfers_body(first: u64, accounts: u64, random_ids: bool) -> bytes::Bytes {
    let transfers = (first..first + EVENTS).map(|n| {
        let debit = mixed(n) % accounts;
        let credit = (debit + 1 + mixed(n ^ 0x5555) % (accounts - 1)) % accounts;
        let high = if random_ids { mixed(!n) } else { n };
        Transfer {
            id: TransferId(u128::from(high) << 64 | u128::from(mixed(n))),
            debit_account_id: AccountId(account_id(debit + 1)),
            credit_account_id: AccountId(account_id(credit + 1)),
            amount: Amount(u128::from(1 + n % 1_000)),
            ledger: 1,
            code: 1,
            ..Transfer::default()
        }
    });
    body(Operation::CreateTransfers, transfers, Transfer::encode)
}

fn body<T>(
    operation: Operation,
    records: impl Iterator<Item = T>,
    encode: impl Fn(&T, &mut [u8; 128]),
) -> bytes::Bytes {
    let mut bytes = Vec::with_capacity(EVENTS as usize * 128);
    for record in records {
        let mut packed = [0; 128];
        encode(&record, &mut packed);
        bytes.extend_from_slice(&packed);
    }
    let mut batch = BatchBuilder::new();
    batch.push(operation, &bytes);
    batch.finish(1_700_000_000_000_000_000)
}

fn account_id(n: u64) -> u128 {
    u128::from(mixed(n)) << 64 | u128::from(n)
}

/// SplitMix64.
fn mixed(n: u64) -> u64 {
    let mixed = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// As `jangbud` does at its start: large buffers come and go with every flush, and must not go back to the kernel each time.
fn allocate_like_a_node() {
    // SAFETY: called before other threads allocate; it sets two numbers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

fn cpu() -> Duration {
    // SAFETY: the call fills the structure in, or fails and leaves it as it is.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let part = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    part(usage.ru_utime) + part(usage.ru_stime)
}

fn written() -> u64 {
    line("/proc/self/io", "write_bytes:")
}

fn rss(field: &str) -> u64 {
    line("/proc/self/status", field) / 1024
}

fn line(path: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(field));
    found.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
