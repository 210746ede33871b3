//! `jangbu backup restore`: the folder of a new cluster's first node, out of a place of backups.
//!
//!     pick    the newest full backup before the moment that is wanted, and the segments behind it
//!     files   -> a folder beside the one that is wanted -> entry after entry, to the moment
//!     prove   the recorded digest at each segment's end on the way, and the next one behind the moment
//!     found   the node is its cluster's only member; renamed to the folder that is wanted, as the last step
//!
//! Laws
//! * A digest that differs from the recorded one ends the restore: nothing is given out.
//! * A folder under the name that was asked for is whole.
//! * The cluster has a new id, and its audit trail says what it was restored from.
//!
//! Not here: how a state is made of a snapshot and entries (`raft_store::restore`).

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use jangbu_proto::entry::NodeInfo;
use jangbu_raft_store::restore::{Founding, Record, RestoreError, Restoring};
use jangbu_raft_store::{Identity, LogId, StoreError};
use serde::Serialize;

use super::record::{Archive, Full, PIECE_BYTES, Span, piece_name};
use super::segment::{Mark, Segment};
use super::vault::Vault;
use super::{PlaceArguments, operator_name, verify};
use crate::cli::Global;
use crate::clock::now_ns;
use crate::error::{During as _, Failure, Kind};
use crate::{course, output, progress, text};

/// So many segments are looked at behind the moment for a recorded digest, at most: what they hold is in memory until then.
const LOOK_AHEAD: usize = 16;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// The node's data_dir. It must not be there yet, or be empty.
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// The new node's id, above all that the old cluster has used: ids are never used again.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub node_id: u64,
    /// host:port of its peer door, as other nodes will reach it.
    #[arg(long, value_name = "ADDRESS")]
    pub peer_address: String,
    /// host:port of its client door, as others will reach it.
    #[arg(long, value_name = "ADDRESS")]
    pub client_address: String,
    /// The name of its data centre.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub data_center: String,
    /// As of this entry of the log. Default: all that is there.
    #[arg(long, value_name = "INDEX", conflicts_with = "time")]
    pub index: Option<u64>,
    /// As of this moment of log time, RFC 3339 or nanoseconds since the epoch: nothing that happened later is in it.
    #[arg(long, value_name = "TIME", value_parser = text::timestamp)]
    pub time: Option<u64>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    End,
    Index(u64),
    Time(u64),
}

impl Moment {
    /// At most one of the two.
    pub fn of(index: Option<u64>, time: Option<u64>) -> Moment {
        match (index, time) {
            (Some(index), _) => Moment::Index(index),
            (_, Some(time)) => Moment::Time(time),
            _ => Moment::End,
        }
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Restored {
    pub folder: PathBuf,
    pub node_id: u64,
    pub cluster_id: String,
    /// The last entry of the old cluster's that is in it.
    pub log_index: u64,
    /// Log time of its last event.
    pub time: String,
    pub digest: String,
    pub events_count: u64,
    /// Indexes at which the digest was compared with what a node had recorded: the last one up to `log_index`, and the first one
    /// from there on.
    pub proven_at: Vec<u64>,
    pub seconds: f64,
}

impl Restored {
    /// For people.
    pub fn proof(&self) -> String {
        let proven: Vec<String> = self.proven_at.iter().map(|index| text::grouped(*index)).collect();
        let mut proof = format!("equal to what was recorded at entry {}", proven.join(" and at entry "));
        if self.proven_at.last().is_none_or(|last| *last < self.log_index) {
            proof.push_str(
                "; none was recorded behind that: the rest is vouched for by its checksums and its order alone",
            );
        }
        proof
    }
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let vault = self.place.existing()?;
        let moment = Moment::of(self.index, self.time);
        let node = NodeInfo {
            peer_address: self.peer_address,
            client_address: self.client_address,
            data_center: self.data_center,
            ..NodeInfo::default()
        };
        course::so_far(format!("what was restored lies in {}", beside(&self.into)?.display()));
        let restored = restore(&vault, moment, &self.into, self.node_id, node).await?;
        output::show(global.output, &restored, text_of)
    }
}

fn text_of(restored: &Restored) -> String {
    let pairs = output::pairs([
        ("folder", restored.folder.display().to_string()),
        ("cluster", format!("{} (new)", restored.cluster_id)),
        ("as of", format!("entry {}, log time {}", text::grouped(restored.log_index), restored.time)),
        ("digest", restored.digest.clone()),
        ("proven", restored.proof()),
        ("took", format!("{:.1} s", restored.seconds)),
    ]);
    format!(
        "{pairs}\n\nNext: node_id = {} and data_dir = \"{}\" in its configuration; start jangbud, then\n  jangbu verify --deep\n  jangbu member add PEER --promote      for each further node: a new id above {}, an empty folder",
        restored.node_id,
        restored.folder.display(),
        restored.node_id
    )
}

/// Restores into `into`, by way of a folder beside it.
pub async fn restore(
    vault: &Vault,
    moment: Moment,
    into: &Path,
    node_id: u64,
    node: NodeInfo,
) -> Result<Restored, Failure> {
    let began = Instant::now();
    let marker = vault.existing().await?;
    let plan = Plan::make(vault, moment).await?;
    plan.check_node_id(node_id)?;
    let work = beside(into)?;
    let mut making = Making::open(vault, &plan, &work, node_id).await?;
    making.files().await?;
    let (at, mark) = making.entries().await?;
    let detail = format!(
        "of cluster {} from {} as of entry {}, digest {}",
        marker.cluster_id,
        vault.place(),
        at.index,
        mark.digest
    );
    let (identity, events_count) = making.found(at, node, detail).await?;
    let proven_at = making.proven_at;
    drop(making.restoring);
    give_name(&work, into)?;
    Ok(Restored {
        folder: into.to_owned(),
        node_id,
        cluster_id: text::hex(&identity.cluster_id.unwrap_or_default()),
        log_index: at.index,
        time: text::timestamp_text(mark.timestamp),
        digest: mark.digest,
        events_count,
        proven_at,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// The state as of a moment, in a folder of its own that no node starts with: to be looked at.
pub async fn settle(vault: &Vault, moment: Moment, work: &Path, node_id: u64) -> Result<Restoring, Failure> {
    let plan = Plan::make(vault, moment).await?;
    let mut making = Making::open(vault, &plan, work, node_id).await?;
    making.files().await?;
    making.entries().await?;
    Ok(making.restoring)
}

// --- which backup, and how much of the log

struct Plan {
    full: Full,
    spans: Vec<Span>,
    moment: Moment,
}

impl Plan {
    async fn make(vault: &Vault, moment: Moment) -> Result<Plan, Failure> {
        let archive = Archive::read(vault).await?;
        let is_early = |full: &&Full| match moment {
            Moment::End => true,
            Moment::Index(index) => full.last.index <= index,
            Moment::Time(time) => full.timestamp <= time,
        };
        let Some(full) = archive.fulls.iter().rfind(is_early).cloned() else {
            return Err(too_early(vault, archive.fulls.first()));
        };
        let spans = archive.behind(full.last.index);
        let end = spans.last().map_or(full.last.index, |span| span.last);
        match moment {
            Moment::Index(index) if index > end => {
                return Err(too_late(format!("entry {index} isn't there: what can be restored ends at entry {end}")));
            }
            Moment::Time(time) => {
                let known_to = match spans.last() {
                    None => full.timestamp,
                    Some(span) => verify::segment(vault, *span).await?.mark.map_or(u64::MAX, |mark| mark.timestamp),
                };
                if known_to < time {
                    let known_to = text::timestamp_text(known_to);
                    return Err(too_late(format!("what can be restored ends at entry {end}, of log time {known_to}")));
                }
            }
            _ => {}
        }
        Ok(Plan { full, spans, moment })
    }

    /// As far as the snapshot knows; members that came later are looked at in the end.
    fn check_node_id(&self, node_id: u64) -> Result<(), Failure> {
        let meta = self.full.manifest()?.meta().map_err(|malformed| Failure::general(malformed.to_string()))?;
        let used = meta.last_membership.nodes().map(|(id, _)| *id).max().unwrap_or(0);
        check_node_id(node_id, used)
    }
}

fn too_early(vault: &Vault, oldest: Option<&Full>) -> Failure {
    match oldest {
        None => Failure::new(Kind::Unhealthy, format!("{}: there is no full backup", vault.place()))
            .advise("none has come to its end: jangbu backup run PLACE"),
        Some(full) => Failure::new(
            Kind::Conflict,
            format!(
                "the oldest full backup is of entry {}, of log time {}: nothing from before can be restored",
                full.last.index,
                text::timestamp_text(full.timestamp)
            ),
        )
        .advise("see what there is: jangbu backup list PLACE"),
    }
}

fn too_late(why: String) -> Failure {
    Failure::new(Kind::Conflict, why)
        .advise("restore all there is by leaving --index and --time away; see what there is: jangbu backup list PLACE")
}

fn check_node_id(node_id: u64, used: u64) -> Result<(), Failure> {
    if node_id > used {
        return Ok(());
    }
    Err(Failure::usage(format!("node id {node_id} was used in the old cluster, or may have been"))
        .advise(format!("ids above {used} are free: give the new node one of them, here and in its configuration")))
}

// --- the folder

/// `INTO.restoring`; refused if there is something under the name that is wanted.
fn beside(into: &Path) -> Result<PathBuf, Failure> {
    if is_taken(into)? {
        return Err(Failure::new(Kind::Conflict, format!("{} is there already, and not empty", into.display()))
            .advise("name another folder: what a node has kept is never written over"));
    }
    let name =
        into.file_name().ok_or_else(|| Failure::usage(format!("{}: this is no folder's name", into.display())))?;
    let mut name = name.to_owned();
    name.push(".restoring");
    Ok(into.with_file_name(name))
}

/// Whether there is something under a folder's name.
pub fn is_taken(folder: &Path) -> Result<bool, Failure> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        listed => Ok(listed.during(|| folder.display().to_string())?.next().is_some()),
    }
}

/// Renames a folder that is whole to the name that was asked for. Durable when it returns.
pub fn give_name(work: &Path, into: &Path) -> Result<(), Failure> {
    // Empty, or not there.
    let _ = std::fs::remove_dir(into);
    std::fs::rename(work, into).during(|| format!("renaming {}", work.display()))?;
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|folder| folder.sync_all()).during(|| parent.display().to_string())
}

/// A folder that is being made.
struct Making<'a> {
    vault: &'a Vault,
    plan: &'a Plan,
    restoring: Restoring,
    work: &'a Path,
    proven_at: Vec<u64>,
}

impl Making<'_> {
    async fn open<'a>(vault: &'a Vault, plan: &'a Plan, work: &'a Path, node_id: u64) -> Result<Making<'a>, Failure> {
        let drawn = (rand::random(), rand::random());
        let opened = Restoring::open(work, node_id, drawn, plan.full.manifest_bytes()).await;
        let mut restoring = opened.map_err(|error| failed(work, error))?;
        match restoring.founding().await.map_err(|error| failed(work, error))? {
            Founding::No => {}
            // Cut off when only the name was lacking. What is wanted now may be more, and is proven like any other.
            Founding::Alone => restoring.take_back().await.map_err(|error| failed(work, error))?,
            Founding::Used => {
                let why = format!("{} was restored by an earlier attempt, and a node has run with it", work.display());
                return Err(Failure::new(Kind::Conflict, why)
                    .advise("if it is one that is wanted, give it another name; otherwise remove it to begin anew"));
            }
        }
        Ok(Making { vault, plan, restoring, work, proven_at: vec![plan.full.last.index] })
    }

    /// Brings what is lacking, and makes a state of it: the one that the snapshot's digest says, or none.
    async fn files(&mut self) -> Result<(), Failure> {
        let manifest = self.plan.full.manifest()?;
        let bar = progress::bytes("restoring", self.plan.full.bytes);
        for (name, offset) in self.restoring.wants() {
            let Some(file) = manifest.file(&name) else { continue };
            let mut offset = offset;
            while offset < file.bytes {
                let piece = self.vault.get(&piece_name(&file.xxh3_128, file.bytes, offset / PIECE_BYTES)).await?;
                let skip = (offset % PIECE_BYTES) as usize;
                let data = Bytes::from(piece).slice(skip..);
                let bytes = data.len() as u64;
                self.restoring.write(&name, offset, data).await.map_err(|error| failed(self.work, error))?;
                offset += bytes;
                bar.inc(bytes);
            }
        }
        bar.finish_and_clear();
        self.restoring.install().await.map_err(|error| failed(self.work, error))
    }

    /// Applies entries up to the moment that is wanted; then, in memory alone, up to the next recorded digest.
    async fn entries(&mut self) -> Result<(LogId, Mark), Failure> {
        let standing = self.index();
        let bar = progress::bar("applying entries", self.plan.spans.last().map_or(0, |span| span.last));
        let (mut settled, mut ahead) = (None, 0);
        for span in &self.plan.spans {
            let segment = verify::segment(self.vault, *span).await?;
            for (index, entry) in &segment.entries {
                if *index <= self.index() {
                    continue;
                }
                if settled.is_none() && self.is_behind_moment(*index, entry)? {
                    settled = Some(self.settle().await?);
                }
                let applied = match settled {
                    None => self.restoring.apply(entry).await,
                    Some(_) => self.restoring.try_on(entry).await,
                };
                applied.map_err(|error| self.senseless(&segment, error))?;
                bar.set_position(*index);
            }
            self.compare(&segment)?;
            ahead += usize::from(settled.is_some());
            let is_proven = settled.is_some() && segment.mark.is_some();
            if is_proven || ahead == LOOK_AHEAD || self.plan.moment == Moment::Index(self.index()) {
                break;
            }
        }
        bar.finish_and_clear();
        let settled = match settled {
            Some(settled) => settled,
            None => self.settle().await?,
        };
        match self.plan.moment {
            // It was there before the first entry: an earlier attempt wanted more.
            Moment::Index(index) if standing > index => {
                Err(Failure::new(Kind::Conflict, format!("{} stands at entry {standing} already", self.work.display()))
                    .advise("remove it to begin anew"))
            }
            _ => Ok(settled),
        }
    }

    fn is_behind_moment(&self, index: u64, entry: &[u8]) -> Result<bool, Failure> {
        match self.plan.moment {
            Moment::End => Ok(false),
            Moment::Index(last) => Ok(index > last),
            Moment::Time(time) => {
                let happens = self.restoring.time_of(entry).map_err(|error| failed(self.work, error))?;
                Ok(happens.is_some_and(|happens| happens > time))
            }
        }
    }

    async fn settle(&mut self) -> Result<(LogId, Mark), Failure> {
        self.restoring.settle().await.map_err(|error| failed(self.work, error))?;
        let last = self.restoring.last().ok_or_else(|| Failure::general("the backup is of nothing"))?;
        Ok((last, self.restoring.mark().into()))
    }

    /// With what a node has recorded at the end of the segment.
    fn compare(&mut self, segment: &Segment) -> Result<(), Failure> {
        let Some(recorded) = segment.mark.as_ref().filter(|mark| mark.log_index == self.index()) else { return Ok(()) };
        let restored = Mark::from(self.restoring.mark());
        if restored != *recorded {
            return Err(Failure::new(
                Kind::Unhealthy,
                format!(
                    "at entry {} the digest is {} (trail {}), and {} (trail {}) was recorded: this isn't the state that was backed up",
                    recorded.log_index, restored.digest, restored.audit_hash, recorded.digest, recorded.audit_hash
                ),
            )
            .advise(format!(
                "nothing is given out. Restore from another full backup or place; keep {} for study",
                self.work.display()
            )));
        }
        self.proven_at.push(recorded.log_index);
        Ok(())
    }

    fn index(&self) -> u64 {
        self.restoring.last().map_or(0, |last| last.index)
    }

    fn senseless(&self, segment: &Segment, error: RestoreError) -> Failure {
        let named = Span { first: segment.after.index + 1, last: segment.last.index }.name();
        match error {
            RestoreError::Malformed(malformed) => self.vault.damaged(&named, &malformed.to_string()),
            error => failed(self.work, error),
        }
    }

    /// Makes the node its cluster's only member.
    async fn found(&mut self, at: LogId, node: NodeInfo, detail: String) -> Result<(Identity, u64), Failure> {
        let identity = self.restoring.identity();
        check_node_id(identity.node_id, self.restoring.highest_node_id())?;
        let record = Record { actor: operator_name(), action: "backup restore".into(), detail, time: now_ns() };
        let node = NodeInfo { incarnation: identity.incarnation, ..node };
        self.restoring.found(at, node, &record).await.map_err(|error| failed(self.work, error))?;
        // The last one up to the moment, and the first one from there on.
        let before = self.proven_at.iter().rfind(|index| **index <= at.index).copied();
        let behind = self.proven_at.iter().find(|index| **index > at.index).copied();
        self.proven_at = before.into_iter().chain(behind).collect();
        Ok((identity, self.restoring.events_count()))
    }
}

/// What a state that is being made in a folder has met.
pub fn failed(work: &Path, error: RestoreError) -> Failure {
    match &error {
        RestoreError::Malformed(_) | RestoreError::Snapshot(_) => Failure::new(Kind::Unhealthy, error.to_string())
            .advise("nothing is given out. Restore from an older full backup (--index) or from another place"),
        RestoreError::Store(StoreError::Refused { .. }) => Failure::new(Kind::Conflict, error.to_string())
            .advise(format!("is another restore at work in {}? Otherwise remove it to begin anew", work.display())),
        _ => Failure::general(error.to_string())
            .advise(format!("begin again: it goes on where it was; or remove {} to begin anew", work.display())),
    }
}
