//! A node that is read from: which one, its snapshot file by file, and no faster than asked for.
//!
//! Not here: where it goes (`run.rs`, `export`).

use std::time::Duration;

use jangbu_proto::cluster::v1::{ReadSnapshotReply, ReadSnapshotRequest};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cli::Global;
use crate::cluster::{self, NodeStatus};
use crate::error::{Failure, Kind};
use crate::operator::{self, Operator};

/// A node that says nothing for so long, while a file is read from it, is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a node may take to make a snapshot.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(600);

/// Between two looks at whether it is made.
const PAUSE: Duration = Duration::from_secs(1);

/// The node that is read from.
pub struct Source {
    pub operator: Operator,
    pub status: NodeStatus,
}

impl Source {
    /// One that serves: that doesn't lead, if there is one; then the one that was read before, whose files are there already;
    /// then the one that has applied the most.
    pub async fn choose(global: &Global, before: Option<u64>) -> Result<Source, Failure> {
        let nodes = cluster::ask_all(global).await?;
        let unreachable = nodes.iter().find_map(|node| node.error.clone());
        let serving = nodes.into_iter().filter_map(|node| Some((node.endpoint, node.status?)));
        let serving = serving.filter(|(_, status)| status.ready);
        let best = serving.max_by_key(|(_, status)| {
            (status.leader_id != status.node_id, before == Some(status.node_id), status.applied_index)
        });
        let (endpoint, status) = best.ok_or_else(|| {
            let why = unreachable.map(|why| format!(" ({why})")).unwrap_or_default();
            Failure::new(Kind::Unavailable, format!("no node serves that could be read from{why}"))
                .advise("see which nodes answer: jangbu cluster health")
        })?;
        Ok(Source { operator: Operator::new(&global.way()?, &endpoint, global.timeout)?, status })
    }

    /// Has the node take one of what it has applied, and waits for it.
    pub async fn snapshot(&self) -> Result<(), Failure> {
        let wanted = self.operator.status().await?.applied_index;
        match self.operator.take_snapshot().await {
            Ok(_) => return Ok(()),
            // It goes on with it.
            Err(failure) if failure.kind == Kind::Unavailable => {}
            Err(failure) => return Err(failure),
        }
        let taken = async {
            while !self.operator.status().await.is_ok_and(|status| status.snapshot_index >= wanted) {
                sleep(PAUSE).await;
            }
        };
        timeout(SNAPSHOT_LIMIT, taken).await.map_err(|_| {
            Failure::new(Kind::Unavailable, format!("{}: no snapshot was made in 10 minutes", self.operator.address))
                .advise("look at its log, and at how busy its disk is")
        })
    }
}

/// A node's snapshot, read file by file; the node keeps it meanwhile.
pub struct Reading {
    requests: mpsc::Sender<ReadSnapshotRequest>,
    replies: Streaming<ReadSnapshotReply>,
    pub address: String,
}

impl Reading {
    pub async fn open(operator: &Operator) -> Result<Reading, Failure> {
        let (requests, asked) = mpsc::channel(1);
        let replies = operator.read_snapshot(ReceiverStream::new(asked)).await?;
        Ok(Reading { requests, replies, address: operator.address.clone() })
    }

    /// What there is, and the log time of the state.
    pub async fn describe(&mut self) -> Result<ReadSnapshotReply, Failure> {
        self.ask("", 0).await?;
        self.next().await
    }

    /// Begins a file, from an offset on.
    pub async fn ask(&mut self, file: &str, offset: u64) -> Result<(), Failure> {
        let request = ReadSnapshotRequest { file: file.to_owned(), offset };
        // The end of the answer tells why it isn't taken.
        match self.requests.send(request).await {
            Ok(()) => Ok(()),
            Err(_) => self.next().await.map(drop),
        }
    }

    pub async fn next(&mut self) -> Result<ReadSnapshotReply, Failure> {
        let broken = |why: &str| {
            Failure::new(Kind::Unavailable, format!("{}: {why}", self.address))
                .advise("begin again: what is there already isn't sent again")
        };
        match timeout(SILENCE, self.replies.message()).await {
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(Ok(None)) => Err(broken("the answer ended before its end")),
            Ok(Err(status)) => Err(operator::failure(&self.address, &status)),
            Err(_) => Err(broken("no answer for a minute")),
        }
    }
}

/// No faster than so many bytes a second.
pub struct Pace {
    bytes_per_second: f64,
    due: tokio::time::Instant,
}

impl Pace {
    pub fn new(mib_per_second: u32) -> Pace {
        Pace { bytes_per_second: f64::from(mib_per_second) * f64::from(1 << 20), due: tokio::time::Instant::now() }
    }

    /// Waits until so many bytes may have been read. What wasn't read in time isn't made up for.
    pub async fn spend(&mut self, bytes: usize) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        self.due = self.due.max(tokio::time::Instant::now()) + cost;
        sleep_until(self.due).await;
    }
}
