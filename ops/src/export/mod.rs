//! `jangbu export`: accounts and transfers as of one index of the log, in files that other programs read and `jangbu import` takes back.
//!
//! ```text
//!     books      a cluster's snapshot, or a backup's   ──►  a copy of the state, of one index
//!     columns    every field once                      ──►  accounts · transfers · expiries
//!     table      csv, parquet: rows out and in              └ counted, added up, compared with the replicas' digest
//!     manifest   what it is of, and what it adds up to: written last
//! ```
//!
//! Laws
//! * All of it is of one index, and what was written was counted afresh: the digest is the one that the replicas kept there, or
//!   nothing is given out.
//! * A folder under the name that was asked for is whole. What is at work lies beside it under another name, locked, and goes when it
//!   ends; what a killed one has left goes with the next.
//! * Memory doesn't grow with the number of transfers.
//!
//! Not here: reading it back (`import/exported.rs`), getting a cluster back (`backup`).

pub mod books;
pub mod columns;
pub mod csv;
pub mod manifest;
pub mod pages;
pub mod parquet;
pub mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Args, ValueEnum as _};
use jangbu_ledger::{Account, Digest, EventNumber, Transfer};
use jangbu_raft_store::contents::Contents;
use serde::Serialize;

use crate::backup::restore::{Moment, give_name, is_taken};
use crate::backup::{PlaceArguments, megabytes};
use crate::cli::Global;
use crate::error::{During as _, Failure, Kind};
use crate::whole::Scratch;
use crate::{course, output, progress, text};
use books::Books;
use columns::{Expiry, Record};
use manifest::{Manifest, Tally};
use table::{Format, Sink, Written};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jangbu export books-2026-11 --format parquet         of the cluster, as it is now
  jangbu export books --from /mnt/backup/bank --time 2026-11-23T09:00:00Z   of a backup, as it was then
  jangbu import books --format export                  into an empty cluster: the same balances, by their digest

Writes accounts, transfers, expiries and manifest.json. Needs the role operator, for all ledgers, and room beside OUT for a
copy of the books while it runs. Interrupted, it leaves nothing: type it again.")]
pub struct Arguments {
    /// The folder to write. It must not be there yet, or be empty.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// What the tables are written as.
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    pub format: Format,
    /// Export what this place of backups holds, rather than the cluster: a folder, or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "PLACE")]
    pub from: Option<String>,
    /// With --from: the file of the key that the backups are encrypted with.
    #[arg(long, value_name = "FILE", env = "JANGBU_BACKUP_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// With --from: as of this entry of the log. Default: all that is there.
    #[arg(long, value_name = "INDEX", conflicts_with = "time", requires = "from")]
    pub index: Option<u64>,
    /// With --from: as of this moment of log time, RFC 3339 or nanoseconds since the epoch.
    #[arg(long, value_name = "TIME", value_parser = text::timestamp, requires = "from")]
    pub time: Option<u64>,
    /// How much is read from the node at most, in MiB a second. The default leaves payments alone.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
}

#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    #[serde(flatten)]
    manifest: Manifest,
    seconds: f64,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let began = Instant::now();
        let work = Work::beside(&self.out)?;
        let copy = work.folder.path().join(COPY);
        let books = self.books(global, &copy).await?;
        let mut ending = course::ends_by_itself("");
        let (cluster_id, contents) = (books.cluster_id.clone(), books.contents.clone());
        let (folder, format, ended) = (work.folder.path().to_owned(), self.format, Arc::new(AtomicBool::new(false)));
        let watched = ended.clone();
        let mut writing = tokio::task::spawn_blocking(move || write(&contents, cluster_id, format, &folder, &watched));
        let written = tokio::select! {
            biased;
            () = ending.heard() => {
                ended.store(true, Ordering::Relaxed);
                let _ = writing.await; // its folder goes with this function, and nobody may write there then
                return Err(ending.last_word());
            }
            written = &mut writing => written,
        };
        let manifest = written.map_err(|error| Failure::general(error.to_string()))??;
        drop(books);
        fs::remove_dir_all(&copy).during(|| copy.display().to_string())?;
        give_name(work.folder.path(), &self.out)?;
        let report = Report { folder: self.out, manifest, seconds: began.elapsed().as_secs_f64() };
        output::show(global.output, &report, text_of)
    }

    async fn books(&self, global: &Global, work: &Path) -> Result<Books, Failure> {
        let Some(place) = &self.from else { return books::of_cluster(global, work, self.rate).await };
        let place = PlaceArguments { place: place.clone(), key_file: self.key_file.clone() };
        books::of_backup(&place.existing()?, Moment::of(self.index, self.time), work).await
    }
}

fn stopped() -> Failure {
    Failure::general("stopped half-way: nothing was exported").advise("begin again")
}

fn text_of(report: &Report) -> String {
    let Report { folder, manifest, seconds } = report;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let of_transfers = manifest.sums.transfers_count as f64 / seconds.max(f64::EPSILON);
    let mut pairs = vec![
        ("folder", folder.display().to_string()),
        ("cluster", manifest.cluster_id.clone()),
        ("as of", format!("entry {}, log time {}", text::grouped(manifest.log_index), manifest.time)),
        ("digest of the state", format!("{}, as the replicas have it", manifest.state_digest)),
        ("digest of balances", manifest.sums.balances_digest.clone()),
        ("accounts", text::grouped(manifest.sums.accounts_count)),
        ("transfers", text::grouped(manifest.sums.transfers_count)),
        ("expiries", text::grouped(manifest.sums.expiries_count)),
    ];
    for ledger in &manifest.sums.ledgers {
        let sums = format!(
            "posted {}, pending {} on either side; amounts of transfers {}",
            ledger.debits_posted, ledger.debits_pending, ledger.transfers_amount
        );
        pairs.push(("ledger", format!("{}: {sums}", ledger.ledger)));
    }
    pairs.push(("took", format!("{seconds:.1} s, {}; {of_transfers:.0} transfers a second", megabytes(bytes))));
    output::pairs(pairs)
}

// --- the folder

/// `OUT.exporting`, for as long as this is at work in it.
struct Work {
    folder: Scratch,
    /// Goes with the process, however that ends.
    _lock: fs::File,
}

/// Of the copy of the books, in it.
const COPY: &str = "books";

impl Work {
    fn beside(out: &Path) -> Result<Work, Failure> {
        if is_taken(out)? {
            return Err(Failure::new(Kind::Conflict, format!("{} is there already, and not empty", out.display()))
                .advise("name another folder: an export is never written over"));
        }
        let name = out.file_name();
        let mut name =
            name.ok_or_else(|| Failure::usage(format!("{}: this is no folder's name", out.display())))?.to_owned();
        name.push(".exporting");
        let path = out.with_file_name(name);
        let unusable = |error: io::Error| {
            Failure::usage(format!("{}: {error}", path.display()))
                .advise("name a folder in one that is there, and that you may write to")
        };
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
            _ => {}
        }
        let lock = fs::File::open(&path).map_err(unusable)?;
        if lock.try_lock().is_err() {
            return Err(Failure::new(Kind::Conflict, format!("an export is at work in {}", path.display()))
                .advise("wait for it, or name another folder"));
        }
        clear(&path)?;
        Ok(Work { folder: Scratch::new(path), _lock: lock })
    }
}

/// What an export that was killed has left goes; what somebody else keeps there stays.
fn clear(folder: &Path) -> Result<(), Failure> {
    let failed = || folder.display().to_string();
    let tables = [Account::TABLE, Transfer::TABLE, Expiry::TABLE];
    let is_table = |name: &str| {
        let named = |format: &Format| tables.iter().any(|table| name == format!("{table}.{}", format.extension()));
        Format::value_variants().iter().any(named)
    };
    let left = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()).during(failed)?;
    let is_ours = |name: &str| [COPY, manifest::FILE_NAME].contains(&name) || is_table(name);
    if let Some(other) = left.iter().find(|entry| !entry.file_name().to_str().is_some_and(is_ours)) {
        return Err(Failure::new(Kind::Conflict, format!("{} is there, and of no export", other.path().display()))
            .advise("take it elsewhere, or name another folder"));
    }
    for entry in left {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.during(|| path.display().to_string())?;
    }
    Ok(())
}

// --- the tables

/// All tables, and the manifest behind them. Blocks on the disk.
fn write(
    contents: &Contents,
    cluster_id: String,
    format: Format,
    folder: &Path,
    ended: &AtomicBool,
) -> Result<Manifest, Failure> {
    let mut copying = Copying { contents, ended, tally: Tally::default(), digest: Digest::EMPTY };
    let mut manifest = Manifest::new(format, cluster_id, contents);
    manifest.files.push(copying.accounts(format.create::<Account>(folder)?)?);
    manifest.files.extend(copying.events(format.create::<Transfer>(folder)?, format.create::<Expiry>(folder)?)?);
    copying.prove()?;
    manifest.pendings_expiring_count = contents.pendings_expiring()?;
    manifest.sums = copying.tally.finish();
    manifest.write(folder)?;
    Ok(manifest)
}

/// Books on their way into tables.
struct Copying<'a> {
    contents: &'a Contents,
    ended: &'a AtomicBool,
    tally: Tally,
    /// Of all that was written.
    digest: Digest,
}

impl Copying<'_> {
    fn accounts(&mut self, mut sink: Box<dyn Sink<Account>>) -> Result<Written, Failure> {
        let bar = progress::bar(Account::TABLE, self.contents.accounts_count());
        let mut next = 0;
        loop {
            let accounts = self.contents.accounts(next)?;
            if accounts.is_empty() {
                bar.finish_and_clear();
                return sink.finish();
            }
            next += accounts.len() as u64;
            for account in &accounts {
                self.digest.add_account(account);
                self.tally.account(account);
                sink.push(account)?;
            }
            bar.inc(accounts.len() as u64);
            self.go_on()?;
        }
    }

    fn events(
        &mut self,
        mut transfers: Box<dyn Sink<Transfer>>,
        mut expiries: Box<dyn Sink<Expiry>>,
    ) -> Result<[Written; 2], Failure> {
        let bar = progress::bar("events", self.contents.events_count());
        let mut next = 0;
        loop {
            let events = self.contents.events(EventNumber(next))?;
            if events.is_empty() {
                bar.finish_and_clear();
                return Ok([transfers.finish()?, expiries.finish()?]);
            }
            for event in &events {
                self.digest.add_event(EventNumber(next), event);
                next += 1;
                if event.kind.records_transfer() {
                    self.tally.transfer(&event.transfer);
                    transfers.push(&event.transfer)?;
                } else {
                    let expiry = Expiry { pending_id: event.transfer.id, timestamp: event.timestamp };
                    self.tally.expiry(&expiry);
                    expiries.push(&expiry)?;
                }
            }
            bar.inc(events.len() as u64);
            self.go_on()?;
        }
    }

    fn go_on(&self) -> Result<(), Failure> {
        if self.ended.load(Ordering::Relaxed) { Err(stopped()) } else { Ok(()) }
    }

    /// What was written is the state whose digest the replicas kept.
    fn prove(&mut self) -> Result<(), Failure> {
        self.digest.journal = self.digest.journal.wrapping_add(self.contents.burnt_digest()?);
        let kept = self.contents.digest();
        if self.digest == kept {
            return Ok(());
        }
        let (counted, kept) = (text::hex(&self.digest.to_bytes()), text::hex(&kept.to_bytes()));
        Err(Failure::new(Kind::Unhealthy, format!("what was read has digest {counted}, and the replicas kept {kept}"))
            .advise("nothing is given out. Look at the node that was read: jangbu verify --deep"))
    }
}
