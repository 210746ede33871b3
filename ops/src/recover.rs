//! `jangbu recover`: a majority of the nodes is lost for good, and a survivor goes on alone.
//!
//! Asked once, it says what the survivor has and what may be lost, and changes nothing. Asked again with the index that it
//! told, it writes a membership of that node alone behind the log, and a record into the audit trail.
//!
//! Laws
//! * It is refused while anything speaks against it: the node runs, another member answers, a better survivor is at hand.
//! * What was told is what is done: the index must be given that was told, and be the last one still.
//!
//! Not here: a cluster of which nothing is left (`jangbu backup restore`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jangbu_raft_store::inspect::{EntryView, PayloadView};
use jangbu_raft_store::restore::{Record, RestoreError};
use jangbu_raft_store::{LogId, StoreError, recover};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Failure, Kind};
use crate::inspect::{self, Folder};
use crate::output::{self, Output};
use crate::{backup, clock, course, text};

/// For a member to take a connection: it is on the same network, or gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jangbu recover /var/lib/jangbu                           what would be kept, and what may be lost
  jangbu recover /var/lib/jangbu --compare /mnt/node-2     is there a better survivor?
  jangbu recover /var/lib/jangbu --i-understand 120345     do it: 120345 is the last entry that the first call told

If a majority can be brought back, with its disks, bring it back instead: nothing is lost then.
If a backup reaches further than the survivor, restore that instead (jangbu backup list).")]
pub struct Arguments {
    /// The survivor's data_dir. It must not run.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Another survivor's data_dir, or a copy of it. May be repeated.
    #[arg(long, value_name = "DIR")]
    pub compare: Vec<PathBuf>,
    /// The last entry, as this told before: what only the lost nodes had is given up.
    #[arg(long, value_name = "INDEX")]
    pub i_understand: Option<u64>,
}

/// What a survivor has.
#[derive(Debug, Serialize)]
struct Survivor {
    folder: PathBuf,
    node_id: u64,
    cluster_id: String,
    #[serde(skip)]
    last: LogId,
    last_index: u64,
    last_term: u64,
    /// As far as it knew.
    committed_index: u64,
    /// Of the last entry behind the flushed state that has one, RFC 3339.
    last_time: Option<String>,
    voters: Vec<u64>,
    #[serde(skip)]
    others: Vec<(u64, String)>,
}

#[derive(Serialize)]
struct Report {
    survivor: Survivor,
    /// False: this was told, and nothing done.
    recovered: bool,
}

impl Arguments {
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let survivor = Survivor::look(self.dir.clone())?;
        self.check(&survivor).await?;
        let last = survivor.last_index;
        let recovered = match self.i_understand {
            None => false,
            Some(told) if told != last => {
                return Err(Failure::new(Kind::Conflict, format!("the last entry is {last}, not {told}"))
                    .advise("look again without --i-understand, and read what it says"));
            }
            Some(_) => {
                self.stand_alone(&survivor).await?;
                true
            }
        };
        output::show(output, &Report { survivor, recovered }, text_of)?;
        if recovered {
            return Ok(());
        }
        Err(Failure::new(Kind::Conflict, "nothing was done: this has to be asked for twice")
            .advise(format!("if that is what you want: jangbu recover {} --i-understand {last}", self.dir.display())))
    }

    /// Whatever speaks against it.
    async fn check(&self, survivor: &Survivor) -> Result<(), Failure> {
        let refuse = |why: String, advice: &str| Err(Failure::new(Kind::Conflict, why).advise(advice));
        let node_id = survivor.node_id;
        if survivor.voters == [node_id] {
            return refuse(format!("node {node_id} is the only voter already"), "start it: it needs nobody else");
        }
        if !survivor.voters.contains(&node_id) {
            return refuse(
                format!("node {node_id} had no vote in its cluster: it may lack anything"),
                "name the folder of a voter, or restore a backup (jangbu backup restore)",
            );
        }
        for dir in &self.compare {
            let other = Survivor::look(dir.clone())?;
            if other.cluster_id != survivor.cluster_id {
                return refuse(
                    format!(
                        "{} is of cluster {}, and {} of cluster {}",
                        dir.display(),
                        other.cluster_id,
                        self.dir.display(),
                        survivor.cluster_id
                    ),
                    "compare folders of one cluster",
                );
            }
            if (other.last.leader_id, other.last.index) > (survivor.last.leader_id, survivor.last.index) {
                return refuse(
                    format!(
                        "{} has more: entry {} of term {}, against entry {} of term {}",
                        dir.display(),
                        other.last_index,
                        other.last_term,
                        survivor.last_index,
                        survivor.last_term
                    ),
                    "recover that one instead",
                );
            }
        }
        for (id, address) in &survivor.others {
            if timeout(ANSWER_LIMIT, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok()) {
                return refuse(
                    format!("node {id} answers at {address}: it isn't lost"),
                    "if a majority can serve, let it; otherwise stop that node, and compare its folder with --compare",
                );
            }
        }
        Ok(())
    }

    async fn stand_alone(&self, survivor: &Survivor) -> Result<(), Failure> {
        let lost: Vec<String> =
            survivor.voters.iter().filter(|id| **id != survivor.node_id).map(ToString::to_string).collect();
        let record = Record {
            actor: backup::operator_name(),
            action: "recover".into(),
            detail: format!("alone behind entry {}, without nodes {}", survivor.last_index, lost.join(", ")),
            time: clock::now_ns(),
        };
        course::next(format!("see whether it is done: jangbu recover {}", self.dir.display()));
        let alone = async {
            recover::stand_alone(&self.dir, &record).await.map(drop).map_err(|error| match error {
                RestoreError::Store(StoreError::Refused { .. }) => Failure::new(Kind::Conflict, error.to_string()),
                error => Failure::new(Kind::Unhealthy, error.to_string())
                    .advise("recover another survivor, or restore a backup (jangbu backup restore)"),
            })
        };
        course::changes(format!("node {} stands alone", survivor.node_id), alone).await
    }
}

impl Survivor {
    fn look(folder: PathBuf) -> Result<Survivor, Failure> {
        let inspector = inspect::open(&Folder { dir: folder.clone() })?;
        let unreadable = |error: StoreError| {
            Failure::new(Kind::Unhealthy, error.to_string())
                .advise("recover another survivor, or restore a backup (jangbu backup restore)")
        };
        let state = inspector.state().map_err(unreadable)?;
        if let Some(reason) = state.fenced {
            return Err(Failure::new(
                Kind::Conflict,
                format!("{}: this replica was fenced: {reason}", folder.display()),
            )
            .advise("its state can't be trusted: recover another survivor, or restore a backup"));
        }
        // What the flushed state doesn't know: the members may have changed since.
        let first = state.stamp.applied.map_or(0, |applied| applied.index + 1);
        let log = inspector.log(first..u64::MAX, usize::MAX).map_err(unreadable)?;
        let newest = log.entries.last().map(|entry| entry.log_id).or(state.stamp.applied);
        let last = newest.ok_or_else(|| {
            Failure::new(Kind::Conflict, format!("{}: its log is empty", folder.display()))
                .advise("there is nothing to go on from: recover another survivor, or restore a backup")
        })?;
        let identity = inspector.identity();
        let changed = log.entries.iter().rev().find_map(members);
        let Members { voters, nodes: mut others } = changed.unwrap_or_else(|| {
            let nodes = state.stamp.membership.nodes().map(|(id, node)| (*id, node.peer_address.clone()));
            Members { voters: state.stamp.voters(), nodes: nodes.collect() }
        });
        others.retain(|(id, _)| *id != identity.node_id);
        Ok(Survivor {
            node_id: identity.node_id,
            cluster_id: text::hex(&identity.cluster_id.unwrap_or_default()),
            last,
            last_index: last.index,
            last_term: last.leader_id.term,
            committed_index: log.committed.map_or(0, |committed| committed.index),
            last_time: log.entries.iter().rev().find_map(time).map(text::timestamp_text),
            voters,
            others,
            folder,
        })
    }
}

struct Members {
    voters: Vec<u64>,
    /// All nodes with their peer addresses.
    nodes: Vec<(u64, String)>,
}

fn members(entry: &EntryView) -> Option<Members> {
    match &entry.payload {
        PayloadView::Membership { configs, nodes } => {
            Some(Members { voters: configs.last()?.clone(), nodes: nodes.clone() })
        }
        _ => None,
    }
}

fn time(entry: &EntryView) -> Option<u64> {
    match entry.payload {
        PayloadView::Batch { time, .. } | PayloadView::Pulse { time } | PayloadView::Admin { time, .. } => Some(time),
        _ => None,
    }
}

fn text_of(report: &Report) -> String {
    let survivor = &report.survivor;
    let voters: Vec<String> = survivor.voters.iter().map(ToString::to_string).collect();
    let pairs = output::pairs([
        ("survivor", format!("node {} of cluster {}", survivor.node_id, survivor.cluster_id)),
        ("voters", voters.join(", ")),
        ("last entry", format!("{} (term {})", survivor.last_index, survivor.last_term)),
        ("its time", survivor.last_time.clone().unwrap_or_else(|| "-".into())),
        ("known committed", survivor.committed_index.to_string()),
    ]);
    let what = if report.recovered {
        "Node {id} is the only member now. Start it; then jangbu verify --deep, jangbu audit list, and\n  jangbu member add PEER --promote      for each further node: a new id, an empty folder\n\nDestroy the folders of the lost nodes: two of them, started again, would serve as the old cluster."
    } else {
        "What may be lost: every payment that the others acknowledged behind that entry. Nobody can tell how many.\nWhat is kept: all entries up to it, also those that this node didn't know to be committed."
    };
    format!("{pairs}\n\n{}", what.replace("{id}", &survivor.node_id.to_string()))
}
