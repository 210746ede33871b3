//! Stamps the time and proposes.
//!
//! The stamp is `max(last + 1, clock)`: wall time as long as it runs forward, and otherwise one nanosecond at a time.
//! openraft has no hook between proposing and appending, so two leaders may stamp out of order; applying enforces order
//! again from the state's own last timestamp (`proto::batch`), and the replies carry the final times.
//!
//! Laws
//! * `NotProposed` is said only of what is in no log. openraft refuses with `ForwardToLeader` before it appends
//!   (raft_core.rs, `write_entries`, alpha.37); for what it had appended and lost it says `LogEntryDiscarded`, which is
//!   unknown, as is everything else.
//! * A clock that is known to be wrong stamps nothing (`clock_skew.rs`).
//!
//! Not here: whether this node leads. Raft itself refuses if it doesn't.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use jangbu_proto::{
    batch::{self, BatchBuilder, Replies},
    cluster::v1::AuditRecord,
};
use jangbu_raft_store::{
    Command, Raft,
    type_config::TypeConfig,
    watched::{Watched, Watcher},
};
use openraft::{
    errors::{ClientWriteError, Fatal, RaftError},
    raft::ClientWriteResponse,
};
use prost::Message as _;

use crate::{
    batcher::{Applied, Outcome},
    clock_skew::ClockSkew,
    environment::Clock,
    traces::Milestones,
};

pub struct Proposer {
    raft: Raft,
    clock: Arc<dyn Clock>,
    clock_skew: Arc<ClockSkew>,
    /// The latest time that was stamped here, or that came back from applying.
    last: AtomicU64,
}

/// Why an entry wasn't seen to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unapplied {
    /// Provably in no log.
    NotProposed,
    /// It may or may not be in the log.
    Unknown,
}

impl Proposer {
    pub fn new(raft: Raft, clock: Arc<dyn Clock>, clock_skew: Arc<ClockSkew>) -> Self {
        Self { raft, clock, clock_skew, last: AtomicU64::new(0) }
    }

    /// Proposes the requests as one entry and waits until it is applied here; how far it gets is noted in the milestones, if
    /// anybody wants to know. Blocks on a quorum, without a limit.
    pub async fn propose(&self, builder: BatchBuilder, milestones: Option<Arc<Milestones>>) -> Outcome {
        if self.clock_skew.is_wrong() {
            return Outcome::NotProposed;
        }
        self.write(builder.finish(self.stamp()), milestones).await
    }

    /// Proposes to expire what is due by now. Blocks on a quorum, without a limit.
    pub async fn pulse(&self) -> Outcome {
        if self.clock_skew.is_wrong() {
            return Outcome::NotProposed;
        }
        self.write(batch::pulse(self.stamp()), None).await
    }

    /// Proposes an administrative action (`cluster.v1.AdminCommand`, packed). Blocks on a quorum, without a limit.
    pub async fn administer(&self, command: &[u8]) -> Result<AuditRecord, Unapplied> {
        if self.clock_skew.is_wrong() {
            return Err(Unapplied::NotProposed);
        }
        let applied = self.commit(batch::admin(command, self.stamp()), None).await?;
        Ok(AuditRecord::decode(applied.replies).expect("this replica wrote the record itself"))
    }

    async fn write(&self, body: Bytes, milestones: Option<Arc<Milestones>>) -> Outcome {
        match self.commit(body, milestones).await {
            Ok(applied) => self.applied(applied),
            Err(Unapplied::NotProposed) => Outcome::NotProposed,
            Err(Unapplied::Unknown) => Outcome::Unknown,
        }
    }

    async fn commit(
        &self,
        body: Bytes,
        milestones: Option<Arc<Milestones>>,
    ) -> Result<jangbu_raft_store::Applied, Unapplied> {
        let written = match milestones {
            None => self.raft.client_write(Command(body)).await,
            Some(milestones) => self.write_noting(Command(body), milestones).await,
        };
        match written {
            Ok(response) => Ok(response.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Unapplied::NotProposed),
            Err(error) => {
                tracing::warn!(%error, "the fate of an entry is unknown");
                Err(Unapplied::Unknown)
            }
        }
    }

    /// As openraft's `client_write`, but for the milestones.
    async fn write_noting(&self, command: Command, milestones: Arc<Milestones>) -> Written {
        let (watched, answer) = Watched::new(Arc::new(Noting { milestones, clock: self.clock.clone() }));
        self.raft.client_write_ff(command, Some(watched)).await.map_err(RaftError::Fatal)?;
        answer.await.map_or(Err(RaftError::Fatal(Fatal::Stopped)), |answer| answer.map_err(RaftError::APIError))
    }

    fn applied(&self, applied: jangbu_raft_store::Applied) -> Outcome {
        let replies = Replies::parse(applied.replies).expect("this replica wrote these replies itself");
        if let Some(reply) = replies.iter().last() {
            self.last.fetch_max(reply.timestamp, Ordering::Relaxed);
        }
        Outcome::Applied(Applied { log_index: applied.log_index, term: applied.term, replies: replies.into_views() })
    }

    /// Later than all stamps before it, and wall time if that is later still.
    fn stamp(&self) -> u64 {
        let wall = self.clock.wall_ns().min(batch::TIME_MAX);
        let after = |last: u64| wall.max(last + 1);
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last)));
        after(last.expect("the update always gives a value"))
    }
}

type Written = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// Looks at the clock when an entry gets somewhere.
struct Noting {
    milestones: Arc<Milestones>,
    clock: Arc<dyn Clock>,
}

impl Watcher for Noting {
    fn committed(&self) {
        self.milestones.is_committed(self.clock.wall_ns());
    }

    fn answered(&self) {
        self.milestones.is_answered(self.clock.wall_ns());
    }
}
