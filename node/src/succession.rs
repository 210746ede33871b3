//! Replaces a leader whose process is gone without waiting for its lease.
//!
//!     a connection to the peer door ends
//!       -> does anybody listen where the leader did?  refused: give up its lease, here; ask to be elected, each in turn
//!                                                     else:    wait, as ever
//!
//! A process that dies takes its sockets with it: its kernel ends the connections and refuses new ones within
//! milliseconds. The lease and the election timeout ([`Timings`](crate::config::Timings)) are for every other end: a
//! machine without power, a cut cable, a process that stands still.
//!
//! Laws
//! * Nothing that must be true rests on the lease. Who leads is decided by votes of a quorum, each synced, for a candidate
//!   whose log holds all that was committed; a linearizable read asks a quorum. A lease given up too early can cost a
//!   healthy leader its office, never a payment.
//! * It doesn't cost that either because of one node that is wrong: each gives up its own lease alone, and the question
//!   before an election (pre-vote) goes to a quorum, of whom every one must have been refused itself, or have waited the
//!   lease out.
//! * What was seen counts against the leader of that term only.
//!
//! Not here: elections (openraft), and the drain of a leader that is asked to stop (`shutdown.rs`).

use std::{io::ErrorKind, sync::Arc};

use jangbu_proto::entry::NodeInfo;
use jangbu_raft_store::{Raft, TypeConfig, Vote};
use openraft::{async_runtime::WatchReceiver, errors::Fatal, raft::TransferLeaderRequest};
use tokio::{
    io::AsyncReadExt,
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::peers::Peers;

/// The others may learn of the death a moment later than this node: until then they refuse.
const ATTEMPTS_MAX: u32 = 8;

/// Watches until `stop`. `hung_up` hears of every connection to the peer door that ends, the leader's among them.
pub async fn watch(raft: Raft, peers: Arc<Peers>, hung_up: Arc<Notify>, stop: CancellationToken) {
    let heir = Heir { raft, peers };
    let watching = async {
        loop {
            hung_up.notified().await;
            // An error: Raft has stopped, and the node ends and says why (`node.rs`).
            if heir.succeed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = watching => {}
    }
}

/// A door that lets in and hangs up, again and again, is no dead process's.
const PROBES_MAX: u32 = 8;

/// The leadership of one node in one term, as this node knows it.
struct Reign {
    id: u64,
    vote: Vote,
    leader: NodeInfo,
    /// This node's place among the voters who are left.
    turn: u32,
}

struct Heir {
    raft: Raft,
    peers: Arc<Peers>,
}

impl Heir {
    /// Nothing happens unless another node leads and its process is gone.
    async fn succeed(&self) -> Result<(), Fatal<TypeConfig>> {
        let Some(reign) = self.reign() else { return Ok(()) };
        if !self.is_gone(&reign.leader).await {
            return Ok(());
        }
        tracing::info!(leader = reign.id, "the leader's process is gone");
        // openraft's word for giving up a lease: the leadership is handed to someone else, in this case to nobody who lives.
        let given_up = TransferLeaderRequest::new(reign.vote, reign.id, None);
        let _ = self.raft.handle_transfer_leader(given_up).await?;
        // Those who ask at once would split the votes.
        let turn = self.peers.common.timings.heartbeat;
        sleep(turn * reign.turn).await;
        for _ in 0..ATTEMPTS_MAX {
            if self.reign().is_none_or(|now| now.vote != reign.vote) {
                break;
            }
            self.raft.trigger().elect(true).await?;
            sleep(turn / 4).await;
        }
        Ok(())
    }

    /// `None` if no other node leads, or this one can't be elected.
    fn reign(&self) -> Option<Reign> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader.filter(|id| *id != metrics.id)?;
        let membership = &metrics.membership_config;
        let turn = membership.voter_ids().filter(|voter| *voter != id).position(|voter| voter == metrics.id)? as u32;
        let leader = membership.membership().get_node(&id)?.clone();
        Some(Reign { id, vote: metrics.vote, leader, turn })
    }

    /// Whether its machine is there and says that nobody listens.
    async fn is_gone(&self, leader: &NodeInfo) -> bool {
        let timings = &self.peers.common.timings;
        for _ in 0..PROBES_MAX {
            let mut io = match timeout(timings.connect_timeout, self.peers.connect(&leader.peer_address)).await {
                Ok(Ok(io)) => io,
                Ok(Err(error)) => return error.kind() == ErrorKind::ConnectionRefused,
                Err(_no_answer) => return false,
            };
            // The kernel ends a process's connections before it closes its door: who is let in may only find nobody behind it.
            match timeout(timings.heartbeat, io.read_u8()).await {
                Ok(Err(_hung_up)) => {}
                Ok(Ok(_greeting)) => return false,
                Err(_silence) => return false,
            }
        }
        false
    }
}
