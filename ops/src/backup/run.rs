//! `jangbu backup run`: a full backup, and the log behind it.
//!
//!     1  the log behind the archive's end, before a new snapshot lets the node forget it
//!     2  the newest snapshot: the pieces that aren't there yet, then its record
//!     3  the log behind that; with --follow again and again, each segment within a few seconds
//!
//! Laws
//! * The log is archived without a gap as long as the node still has what follows; otherwise that is said, and a full backup begins anew.
//! * What comes from a node is compared with the checksum that the node gave for it before its last piece is put.
//! * With --follow a node, a leader or the storage may go away and come back: it waits, asks another node, and goes on.
//!
//! Not here: what can be restored of it (`restore.rs`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use jangbu_proto::cluster::v1::{ReadLogReply, ReadSnapshotReply};
use jangbu_proto::reason;
use jangbu_raft_store::snapshot::manifest::FileInfo;
use serde::Serialize;
use tokio::time::sleep_until;
use xxhash_rust::xxh3::Xxh3;

use super::record::{Archive, At, Full, PIECE_BYTES, piece_name, pieces};
use super::segment::{Builder, Mark};
use super::source::{Pace, Reading, Source};
use super::vault::Vault;
use super::{PlaceArguments, megabytes};
use crate::cli::Global;
use crate::clock::now_ns;
use crate::course::{self, Ending};
use crate::error::{Failure, Kind};
use crate::operator;
use crate::output::{self, Output};
use crate::{progress, text};

/// A segment is put when it has grown to this, however new it is.
const SEGMENT_BYTES: usize = 8 << 20;

/// With --follow, so often is the cluster told how far the backup is; the metric of its age is as coarse as that.
const TELL_EVERY: Duration = Duration::from_secs(3_600);

/// With --follow, between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Go on with the log until this is ended (Ctrl-C, SIGTERM).
    #[arg(long)]
    pub follow: bool,
    /// With --follow: how long entries are gathered before they are put, as 2s.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = text::duration)]
    pub every: Duration,
    /// How much is read from the node at most, in MiB a second. The default leaves payments alone.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
}

#[derive(Serialize)]
struct Report {
    place: String,
    cluster_id: String,
    node_id: u64,
    log_index: u64,
    digest: String,
    /// Of the snapshot, and what of it wasn't there yet.
    bytes: String,
    bytes_new: String,
    full_seconds: f64,
    /// The last entry that can be restored.
    restorable_to: u64,
    /// Log time of the full backup.
    #[serde(skip)]
    timestamp: u64,
}

/// One segment, as it is told to programs.
#[derive(Serialize)]
struct Archived {
    archived_to: u64,
    behind_ms: u64,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let vault = self.place.vault()?;
        let mut source = Source::choose(global, read_before(&vault).await?).await?;
        vault.claim(&source.status.cluster_id).await?;
        course::so_far(format!("what was put into {} stays, and isn't sent again", vault.place()));
        let mut shipper = Shipper {
            vault: &vault,
            every: self.every,
            pace: Pace::new(self.rate),
            after: At { term: 0, node_id: 0, index: 0 },
            output: global.output,
            line: progress::spinner(format!("reading what is in {}", vault.place())),
            follow: false,
            full: At { term: 0, node_id: 0, index: 0 },
            told_at: tokio::time::Instant::now(),
        };
        let mut ending = course::ends_by_itself("what was read of the log is put");
        shipper.resume(&source, &mut ending).await?;
        let mut report = ending.or(self.full(&vault, &source, &mut shipper)).await?;
        shipper.follow = self.follow;
        shipper.tell(report.timestamp)?;
        if self.follow {
            shipper.tell_the_cluster(&source).await;
        }
        loop {
            match shipper.ship(&source, &mut ending).await {
                Ok(()) => break,
                Err(failure) if is_gone_by(&failure) && shipper.after < shipper.full => shipper.skip(),
                Err(failure) if self.follow && may_pass(&failure) => {
                    shipper.line.suspend(|| output::note(format!("waiting: {failure}")));
                    if ending.heard_within(PAUSE).await {
                        break;
                    }
                    // Whoever answers by then.
                    if let Ok(chosen) = ending.or(Source::choose(global, Some(source.status.node_id))).await {
                        source = chosen;
                    }
                    if is_gone_by(&failure) {
                        report = ending.or(self.full(&vault, &source, &mut shipper)).await?;
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        shipper.line.finish_and_clear();
        shipper.tell_the_cluster(&source).await;
        // Who follows is ended by a signal, and in no other way.
        if !self.follow {
            ending.check()?;
        }
        report.restorable_to = shipper.archived_to();
        output::show(global.output, &report, text_of)
    }

    /// A full backup, from which the log goes on; unless the log that is there reaches further already.
    async fn full(&self, vault: &Vault, source: &Source, shipper: &mut Shipper<'_>) -> Result<Report, Failure> {
        let began = Instant::now();
        shipper.line.set_message(format!("node {} takes a snapshot", source.status.node_id));
        source.snapshot().await?;
        let mut reading = Reading::open(&source.operator).await?;
        let first = reading.describe().await?;
        let full = Full::new(&first.manifest, first.timestamp, source.status.node_id, now_ns())?;
        let bytes_new = copy_files(vault, &mut reading, &full, &mut shipper.pace, &shipper.line).await?;
        full.put(vault).await?;
        still_there(vault, &full).await?;
        shipper.full = full.last;
        if shipper.after.index == 0 {
            shipper.after = full.last;
        }
        Ok(Report {
            place: vault.place().to_owned(),
            cluster_id: source.status.cluster_id.clone(),
            node_id: source.status.node_id,
            log_index: full.last.index,
            digest: full.digest,
            bytes: full.bytes.to_string(),
            bytes_new: bytes_new.to_string(),
            full_seconds: began.elapsed().as_secs_f64(),
            restorable_to: full.last.index,
            timestamp: full.timestamp,
        })
    }
}

fn text_of(report: &Report) -> String {
    let bytes = |text: &str| megabytes(text.parse().unwrap_or(0));
    output::pairs([
        ("place", report.place.clone()),
        ("cluster", report.cluster_id.clone()),
        ("read from", format!("node {}", report.node_id)),
        (
            "full backup",
            format!(
                "as of entry {}, digest {}; {}, {} of it new, in {:.1} s",
                text::grouped(report.log_index),
                report.digest,
                bytes(&report.bytes),
                bytes(&report.bytes_new),
                report.full_seconds
            ),
        ),
        ("log", format!("to entry {}", text::grouped(report.restorable_to))),
    ])
}

/// The node of which the newest full backup is.
async fn read_before(vault: &Vault) -> Result<Option<u64>, Failure> {
    Ok(match vault.marker().await? {
        None => None,
        Some(_) => Archive::read(vault).await?.newest().map(|full| full.node_id),
    })
}

/// Whether it is worth waiting for. What is refused is refused again.
fn may_pass(failure: &Failure) -> bool {
    is_gone_by(failure) || matches!(failure.kind, Kind::Unavailable | Kind::General)
}

const GONE_BY: &str = "take another full backup";

fn is_gone_by(failure: &Failure) -> bool {
    failure.kind == Kind::Conflict && failure.message.contains(GONE_BY)
}

// --- the files

/// Whether what was there already is there still, now that nothing takes it away any more: the record names it.
async fn still_there(vault: &Vault, full: &Full) -> Result<(), Failure> {
    let there = vault.list("files").await?;
    match full.pieces()?.into_iter().find(|(name, bytes)| there.get(name) != Some(bytes)) {
        None => Ok(()),
        Some((name, _)) => Err(Failure::new(Kind::Unhealthy, format!("{} was removed meanwhile", vault.named(&name)))
            .advise("did a prune run beside this? Begin again: what is missing is sent anew")),
    }
}

/// Puts what isn't there yet; tells how much that was.
async fn copy_files(
    vault: &Vault,
    reading: &mut Reading,
    full: &Full,
    pace: &mut Pace,
    line: &ProgressBar,
) -> Result<u64, Failure> {
    let there = vault.list("files").await?;
    let bar = progress::bytes("backing up", full.bytes);
    line.set_message("");
    let mut copying = Copying { vault, reading, pace, bar, bytes_new: 0 };
    for file in &full.manifest()?.files {
        copying.file(file, &there).await?;
    }
    copying.bar.finish_and_clear();
    Ok(copying.bytes_new)
}

struct Copying<'a> {
    vault: &'a Vault,
    reading: &'a mut Reading,
    pace: &'a mut Pace,
    bar: ProgressBar,
    bytes_new: u64,
}

impl Copying<'_> {
    async fn file(&mut self, file: &FileInfo, there: &BTreeMap<String, u64>) -> Result<(), Failure> {
        let is_there = |(piece, bytes): &(u64, u64)| there.get(&name(file, *piece)) == Some(bytes);
        let count = pieces(file.bytes).take_while(is_there).count() as u64;
        if count == pieces(file.bytes).count() as u64 {
            self.bar.inc(file.bytes);
            return Ok(());
        }
        let mut hasher = Xxh3::new();
        for piece in 0..count {
            hasher.update(&self.vault.get(&name(file, piece)).await?);
        }
        self.bar.inc(count * PIECE_BYTES);
        // What an attempt before has left may be wrong: then all of it once more.
        if self.rest(file, count, hasher).await? || (count > 0 && self.rest(file, 0, Xxh3::new()).await?) {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Unhealthy,
            format!("{}: {} isn't what the snapshot's own checksum says", self.reading.address, file.name),
        )
        .advise("that node's disk has damaged it: back up from another (--endpoints), and look: jangbu verify --deep"))
    }

    /// A file's pieces from one on. False: they aren't what was promised, and the last one wasn't put.
    async fn rest(&mut self, file: &FileInfo, first: u64, mut hasher: Xxh3) -> Result<bool, Failure> {
        self.reading.ask(&file.name, first * PIECE_BYTES).await?;
        let (mut piece, mut gathered) = (first, Vec::new());
        loop {
            let ReadSnapshotReply { data, end, .. } = self.reading.next().await?;
            hasher.update(&data);
            gathered.extend_from_slice(&data);
            self.bar.inc(data.len() as u64);
            self.bytes_new += data.len() as u64;
            self.pace.spend(data.len()).await;
            if end {
                break;
            }
            // One is held back: the last shows that all are right.
            while gathered.len() as u64 > PIECE_BYTES {
                let rest = gathered.split_off(PIECE_BYTES as usize);
                self.vault.put(&name(file, piece), &gathered).await?;
                (piece, gathered) = (piece + 1, rest);
            }
        }
        if text::hex(&hasher.digest128().to_be_bytes()) != file.xxh3_128 {
            return Ok(false);
        }
        for bytes in gathered.chunks(PIECE_BYTES as usize) {
            self.vault.put(&name(file, piece), bytes).await?;
            piece += 1;
        }
        Ok(true)
    }
}

fn name(file: &FileInfo, piece: u64) -> String {
    piece_name(&file.xxh3_128, file.bytes, piece)
}

// --- the log

/// Archives the log from where it stands.
struct Shipper<'a> {
    vault: &'a Vault,
    every: Duration,
    pace: Pace,
    /// The last entry that is archived.
    after: At,
    output: Output,
    line: ProgressBar,
    follow: bool,
    /// The newest full backup's.
    full: At,
    /// When the cluster last heard how far this is.
    told_at: tokio::time::Instant,
}

impl Shipper<'_> {
    /// Goes on where the archive ends, if the node still has what follows.
    async fn resume(&mut self, source: &Source, ending: &mut Ending) -> Result<(), Failure> {
        let archive = ending.or(Archive::read(self.vault)).await?;
        let Some(newest) = archive.newest() else { return Ok(()) };
        self.after = newest.last;
        if let Some(span) = archive.behind(newest.last.index).last() {
            self.after = super::verify::segment(self.vault, *span).await?.last;
        }
        match self.ship(source, ending).await {
            // Told behind the full backup that is about to be taken.
            Err(failure) if is_gone_by(&failure) => Ok(()),
            done => done,
        }
    }

    /// The node has forgotten what follows; a full backup has it, but not entry by entry.
    fn skip(&mut self) {
        self.line.suspend(|| {
            output::note(format!(
                "the node has no entry {} any more: nothing can be restored to a moment between that and entry {}",
                self.after.index + 1,
                self.full.index
            ));
        });
        self.after = self.full;
    }

    /// To the end, or until told to stop. What was put stays put, whatever comes.
    async fn ship(&mut self, source: &Source, ending: &mut Ending) -> Result<(), Failure> {
        let mut replies = tokio::select! {
            biased;
            () = ending.heard() => return Ok(()),
            replies = source.operator.read_log(self.after.into(), self.follow) => replies?,
        };
        let mut segment = Builder::behind(self.after);
        let mut began = tokio::time::Instant::now();
        loop {
            let is_due = !segment.is_empty() && segment.mark().is_some();
            tokio::select! {
                biased;
                () = ending.heard() => return self.put(&mut segment).await,
                () = sleep_until(began + self.every), if is_due => self.put(&mut segment).await?,
                () = sleep_until(self.told_at + TELL_EVERY), if self.follow && segment.is_empty() => {
                    self.tell_the_cluster(source).await;
                }
                reply = replies.message() => match reply {
                    Ok(Some(reply)) => {
                        if segment.is_empty() {
                            began = tokio::time::Instant::now();
                        }
                        self.take(&mut segment, reply).await?;
                    }
                    Ok(None) if self.follow => {
                        return Err(Failure::new(Kind::Unavailable, format!("{}: the log's stream has ended", source.operator.address)));
                    }
                    Ok(None) => return self.put(&mut segment).await,
                    Err(status) => return Err(told(&source.operator.address, &status)),
                },
            }
        }
    }

    async fn take(&mut self, segment: &mut Builder, reply: ReadLogReply) -> Result<(), Failure> {
        let mut bytes = 0;
        for entry in reply.entries {
            bytes += entry.len();
            segment.push(entry).map_err(senseless)?;
        }
        if let Some(mark) = reply.mark {
            segment.record(Mark::from(mark)).map_err(senseless)?;
        }
        self.pace.spend(bytes).await;
        if segment.bytes() >= SEGMENT_BYTES { self.put(segment).await } else { Ok(()) }
    }

    async fn put(&mut self, segment: &mut Builder) -> Result<(), Failure> {
        if segment.is_empty() {
            return Ok(());
        }
        self.vault.put(&segment.span().name(), &segment.encode()).await?;
        self.after = segment.last();
        self.tell(segment.mark().map_or(0, |mark| mark.timestamp))?;
        *segment = Builder::behind(self.after);
        Ok(())
    }
}

impl Shipper<'_> {
    fn archived_to(&self) -> u64 {
        self.after.index.max(self.full.index)
    }

    /// So that every node's metrics know that there is a backup, and the audit trail since when. A backup without that is one, too.
    async fn tell_the_cluster(&mut self, source: &Source) {
        self.told_at = tokio::time::Instant::now();
        let told = source.operator.record_backup(self.archived_to(), self.vault.place().to_owned()).await;
        if let Err(failure) = told {
            self.line.suspend(|| output::note(format!("the cluster doesn't know of this backup: {failure}")));
        }
    }

    /// How far it is, to people and to programs that follow. `timestamp`: of the last event, in log time.
    fn tell(&self, timestamp: u64) -> Result<(), Failure> {
        let archived_to = self.archived_to();
        self.line.set_message(format!("archived to entry {}", text::grouped(archived_to)));
        if self.follow && self.output == Output::Json {
            let behind_ms = now_ns().saturating_sub(timestamp) / 1_000_000;
            output::json_line(&Archived { archived_to, behind_ms })?;
        }
        Ok(())
    }
}

fn senseless(why: String) -> Failure {
    Failure::general(format!("the node's log makes no sense: {why}"))
}

fn told(address: &str, status: &tonic::Status) -> Failure {
    let failure = operator::failure(address, status);
    match reason::told(status).reason.as_str() {
        reason::HISTORY_DIFFERS => failure.advise(
            "the cluster was recovered or restored since: its books from then on belong in another place (a new backup run)",
        ),
        _ => failure,
    }
}
