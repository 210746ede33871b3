//! `jangbu inspect`: what lies in the folder of a stopped node.
//!
//! For the night when a node doesn't start, and for whoever wants to know what it knew when it ended. Nothing is changed, and a
//! folder that a node has open is refused. The reading itself is the node's own code (`raft_store::inspect`).
//!
//! Not here: the other replicas, which are asked by their doors (`jangbu cluster`, `jangbu verify`).

use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jangbu_raft_store::inspect::{EntryView, Inspector, LogView, PayloadView, SnapshotView, StateView};
use jangbu_raft_store::{Identity, LogId, StoreError, Vote};
use serde::Serialize;

use crate::error::{Failure, Kind};
use crate::output::{self, Output};
use crate::text;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The entries of the replicated log, one line each. Checks every record on the way.
    #[command(after_help = "Examples:
  jangbu inspect log /var/lib/jangbu                       the newest entries
  jangbu inspect log /var/lib/jangbu --from 1000 --limit 5
  jangbu inspect log /var/lib/jangbu -o json")]
    Log(LogArguments),
    /// Whom this node voted for last, and how far it knew the log to be committed.
    Vote(Folder),
    /// The snapshots, and one that was on its way in: what each says of itself.
    Snapshot(Folder),
    /// What the state on disk is the state of. The log behind it is applied again at the next start.
    State(Folder),
}

#[derive(Debug, Args)]
pub struct Folder {
    /// The node's data_dir. The node must not run.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct LogArguments {
    #[command(flatten)]
    pub folder: Folder,
    /// The first index to show. Default: so that the newest are shown.
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// The last index to show.
    #[arg(long, value_name = "INDEX")]
    pub to: Option<u64>,
    /// How many entries to show at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

impl Command {
    /// Blocks on the disk: a log is read whole.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        match self {
            Command::Log(arguments) => {
                let log = Log::read(&arguments)?;
                output::show(output, &log, log_text)
            }
            Command::Vote(folder) => output::show(output, &Voted::read(&open(&folder)?)?, vote_text),
            Command::Snapshot(folder) => {
                output::show(output, &snapshots(&open(&folder)?)?, |found| snapshots_text(found))
            }
            Command::State(folder) => output::show(output, &State::read(&open(&folder)?)?, state_text),
        }
    }
}

pub fn open(folder: &Folder) -> Result<Inspector, Failure> {
    Inspector::open(&folder.dir).map_err(|error| match &error {
        StoreError::Refused { reason, .. } if reason.contains("another process") => {
            Failure::new(Kind::Conflict, error.to_string())
                .advise("a node runs with this folder: ask it by its door (jangbu cluster status), or stop it first")
        }
        StoreError::Refused { .. } => {
            Failure::usage(error.to_string()).advise("name the data_dir of a node's configuration")
        }
        _ => failure(error),
    })
}

/// What can't be read is a finding, and no mistake of who asks.
fn failure(error: StoreError) -> Failure {
    Failure::new(Kind::Unhealthy, error.to_string())
}

/// `term 3, node 1, index 42`, as JSON in three fields.
#[derive(Clone, Copy, Debug, Serialize)]
struct At {
    term: u64,
    node_id: u64,
    index: u64,
}

impl From<LogId> for At {
    fn from(id: LogId) -> At {
        At { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
    }
}

impl At {
    fn text(at: Option<At>) -> String {
        at.map_or_else(|| "-".into(), |at| format!("{} (term {}, proposed by node {})", at.index, at.term, at.node_id))
    }
}

#[derive(Debug, Serialize)]
pub struct Owner {
    node_id: u64,
    cluster_id: String,
    incarnation: String,
}

impl From<Identity> for Owner {
    fn from(identity: Identity) -> Owner {
        Owner {
            node_id: identity.node_id,
            cluster_id: identity.cluster_id.map(|id| text::hex(&id)).unwrap_or_default(),
            incarnation: text::hex(&identity.incarnation),
        }
    }
}

// --- the log

#[derive(Debug, Serialize)]
pub struct Log {
    owner: Owner,
    /// `None`, like `last_index`: the log holds no entry.
    first_index: Option<u64>,
    last_index: Option<u64>,
    purged: Option<At>,
    committed: Option<At>,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    index: u64,
    term: u64,
    node_id: u64,
    kind: &'static str,
    /// Nanoseconds since the epoch.
    time: Option<String>,
    requests: Option<usize>,
    events: Option<usize>,
    bytes: Option<usize>,
    detail: Option<String>,
}

impl Log {
    fn read(arguments: &LogArguments) -> Result<Log, Failure> {
        let inspector = open(&arguments.folder)?;
        let limit = u64::from(arguments.limit);
        let to = arguments.to.map_or(u64::MAX, |to| to.saturating_add(1));
        let from = match arguments.from {
            Some(from) if from >= to => {
                return Err(Failure::usage(format!("--from {from} lies behind --to {}", to - 1)));
            }
            Some(from) => from,
            // The newest: what there is must be known first.
            None => inspector.log(0..0, 0).map_err(failure)?.held.end.min(to).saturating_sub(limit),
        };
        let view = inspector.log(from..to, arguments.limit as usize).map_err(failure)?;
        Ok(Log::of(&inspector, view))
    }

    /// The newest entries, at most `limit`.
    pub fn newest(inspector: &Inspector, limit: usize) -> Result<Log, Failure> {
        let end = inspector.log(0..0, 0).map_err(failure)?.held.end;
        let view = inspector.log(end.saturating_sub(limit as u64)..u64::MAX, limit).map_err(failure)?;
        Ok(Log::of(inspector, view))
    }

    fn of(inspector: &Inspector, view: LogView) -> Log {
        let (first_index, last_index) = bounds(&view.held);
        Log {
            owner: inspector.identity().into(),
            first_index,
            last_index,
            purged: view.purged.map(At::from),
            committed: view.committed.map(At::from),
            entries: view.entries.into_iter().map(Entry::from).collect(),
        }
    }
}

/// The first and the last of them, if there are any.
fn bounds(held: &Range<u64>) -> (Option<u64>, Option<u64>) {
    let mut indexes = held.clone();
    let first = indexes.next();
    (first, indexes.next_back().or(first))
}

impl From<EntryView> for Entry {
    fn from(view: EntryView) -> Entry {
        let At { term, node_id, index } = view.log_id.into();
        let mut entry = Entry {
            index,
            term,
            node_id,
            kind: "blank",
            time: None,
            requests: None,
            events: None,
            bytes: None,
            detail: None,
        };
        match view.payload {
            PayloadView::Blank => {}
            PayloadView::Batch { time, requests, events, bytes } => {
                (entry.kind, entry.time) = ("batch", Some(time.to_string()));
                (entry.requests, entry.events, entry.bytes) = (Some(requests), Some(events), Some(bytes));
            }
            PayloadView::Pulse { time } => (entry.kind, entry.time) = ("pulse", Some(time.to_string())),
            PayloadView::Admin { time, bytes } => {
                (entry.kind, entry.time, entry.bytes) = ("admin", Some(time.to_string()), Some(bytes));
            }
            PayloadView::Unreadable { bytes, reason } => {
                (entry.kind, entry.bytes, entry.detail) = ("unreadable", Some(bytes), Some(reason));
            }
            PayloadView::Membership { configs, nodes } => {
                let voters: Vec<String> = configs.iter().map(|voters| format!("{voters:?}")).collect();
                let nodes: Vec<String> = nodes.iter().map(|(id, peer)| format!("{id} at {peer}")).collect();
                entry.kind = "membership";
                entry.detail = Some(format!("voters {}; nodes {}", voters.join(" and "), nodes.join(", ")));
            }
        }
        entry
    }
}

fn log_text(log: &Log) -> String {
    let told = output::pairs([
        ("node", log.owner.node_id.to_string()),
        (
            "entries",
            log.first_index.zip(log.last_index).map_or("none".into(), |(first, last)| format!("{first} to {last}")),
        ),
        ("purged up to", At::text(log.purged)),
        ("known to be committed up to", At::text(log.committed)),
    ]);
    let number = |count: Option<usize>| count.map_or_else(String::new, |count| text::grouped(count as u64));
    let rows = log.entries.iter().map(|entry| {
        let time = entry.time.as_deref().and_then(|time| time.parse().ok()).map(text::timestamp_text);
        vec![
            entry.index.to_string(),
            entry.term.to_string(),
            entry.node_id.to_string(),
            entry.kind.to_string(),
            time.unwrap_or_default(),
            number(entry.requests),
            number(entry.events),
            number(entry.bytes),
            entry.detail.clone().unwrap_or_default(),
        ]
    });
    let heading = ["index", "term", "by node", "kind", "time", "requests", "events", "bytes", ""];
    format!("{told}\n\n{}", output::table(&heading, rows))
}

// --- the vote

#[derive(Debug, Serialize)]
pub struct Voted {
    owner: Owner,
    /// `None`: it never voted.
    vote: Option<Ballot>,
    committed: Option<At>,
    last_index: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Ballot {
    term: u64,
    for_node_id: u64,
    /// A quorum voted for that node, as far as this one knew: it led.
    won: bool,
}

impl Ballot {
    fn of(vote: Vote) -> Ballot {
        Ballot { term: vote.leader_id.term, for_node_id: vote.leader_id.node_id, won: vote.committed }
    }
}

impl Voted {
    pub fn read(inspector: &Inspector) -> Result<Voted, Failure> {
        let view = inspector.log(0..0, 0).map_err(failure)?;
        Ok(Voted {
            owner: inspector.identity().into(),
            vote: view.vote.map(Ballot::of),
            committed: view.committed.map(At::from),
            last_index: bounds(&view.held).1,
        })
    }
}

fn vote_text(voted: &Voted) -> String {
    let vote = voted.vote.as_ref().map_or_else(
        || "for nobody, ever".into(),
        |vote| {
            let how = if vote.won { "which led" } else { "which wasn't known to have won" };
            format!("for node {} in term {}, {how}", vote.for_node_id, vote.term)
        },
    );
    output::pairs([
        ("node", voted.owner.node_id.to_string()),
        ("cluster", voted.owner.cluster_id.clone()),
        ("voted", vote),
        ("known to be committed up to", At::text(voted.committed)),
        ("last entry", voted.last_index.map_or("none".into(), |index| index.to_string())),
    ])
}

// --- the snapshots

#[derive(Debug, Serialize)]
pub struct Snapshot {
    name: String,
    last: Option<At>,
    digest: String,
    events_count: u64,
    files_count: usize,
    bytes: u64,
    /// What is wrong with its manifest.
    damage: Option<String>,
}

pub fn snapshots(inspector: &Inspector) -> Result<Vec<Snapshot>, Failure> {
    Ok(inspector.snapshots().map_err(failure)?.into_iter().map(Snapshot::from).collect())
}

impl From<SnapshotView> for Snapshot {
    fn from(view: SnapshotView) -> Snapshot {
        let empty = Snapshot {
            name: view.name,
            last: None,
            digest: String::new(),
            events_count: 0,
            files_count: 0,
            bytes: 0,
            damage: None,
        };
        match view.manifest {
            Err(damage) => Snapshot { damage: Some(damage), ..empty },
            Ok(manifest) => Snapshot {
                last: manifest.last_log_id().map(At::from),
                digest: manifest.digest.clone(),
                events_count: manifest.events_count,
                files_count: manifest.files.len(),
                bytes: manifest.files.iter().map(|file| file.bytes).sum(),
                ..empty
            },
        }
    }
}

fn snapshots_text(snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return "there is no snapshot".into();
    }
    let rows = snapshots.iter().map(|snapshot| match &snapshot.damage {
        Some(damage) => vec![snapshot.name.clone(), format!("damaged: {damage}")],
        None => vec![
            snapshot.name.clone(),
            At::text(snapshot.last),
            text::grouped(snapshot.events_count),
            snapshot.files_count.to_string(),
            text::grouped(snapshot.bytes),
            snapshot.digest.clone(),
        ],
    });
    output::table(&["name", "last entry", "events", "files", "bytes", "digest"], rows)
}

// --- the state

#[derive(Debug, Serialize)]
pub struct State {
    owner: Owner,
    folder: String,
    /// Why this replica must not start any more.
    fenced: Option<String>,
    applied: Option<At>,
    digest: String,
    last_timestamp: String,
    accounts_count: u32,
    events_count: u64,
    pendings_open_count: u64,
    voters: Vec<u64>,
    highest_node_id: u64,
    disk_bytes: u64,
}

impl State {
    pub fn read(inspector: &Inspector) -> Result<State, Failure> {
        let StateView { number, fenced, stamp, usage } = inspector.state().map_err(failure)?;
        Ok(State {
            owner: inspector.identity().into(),
            folder: format!("state-{number}"),
            fenced,
            applied: stamp.applied.map(At::from),
            digest: text::hex(&stamp.head.digest.to_bytes()),
            last_timestamp: stamp.head.last_timestamp.to_string(),
            accounts_count: stamp.accounts_count,
            events_count: stamp.head.next_event.0,
            pendings_open_count: stamp.head.pendings_open,
            voters: stamp.voters(),
            highest_node_id: stamp.highest_node_id,
            disk_bytes: usage.disk_bytes,
        })
    }
}

fn state_text(state: &State) -> String {
    let voters: Vec<String> = state.voters.iter().map(u64::to_string).collect();
    let mut told = vec![
        ("node", state.owner.node_id.to_string()),
        ("cluster", state.owner.cluster_id.clone()),
        ("folder", state.folder.clone()),
        ("applied", At::text(state.applied)),
        ("digest", state.digest.clone()),
        ("log time", state.last_timestamp.parse().map(text::timestamp_text).unwrap_or_default()),
        ("accounts", text::grouped(state.accounts_count)),
        ("events", text::grouped(state.events_count)),
        ("pending, open", text::grouped(state.pendings_open_count)),
        ("voters", voters.join(", ")),
        ("bytes on disk", text::grouped(state.disk_bytes)),
    ];
    told.extend(state.fenced.clone().map(|reason| ("fenced", reason)));
    output::pairs(told)
}
