//! The seams between a node and the world: network, clock, chance and disk.
//!
//! Everything that differs between a real machine and a simulated one stands here, so that the simulator runs the very
//! code that ships. Monotonic time is not among the seams: it is always `tokio::time`, which a simulation can advance.
//!
//! Laws
//! * The system clock and the operating system's randomness are read in this file and nowhere else in this crate
//!   (`clippy.toml` names the replacements).
//!
//! Not here: the disk's own seams (`raft_store::{vfs, blocking, engine}`), which [`StoreEnv`] only carries.

use std::sync::{Arc, atomic::AtomicU64};

use jangbu_proto::transport::{TcpTransport, Transport};
use jangbu_raft_store::StoreEnv;

use crate::traces::Traces;

/// What a node stands on. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub store: StoreEnv,
    pub log_lines_lost: LinesLost,
    pub term: Term,
    pub traces: Traces,
}

/// How many lines this process wanted to log and couldn't: whoever set up the logging knows. Only counted, never acted upon.
pub type LinesLost = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The term that this node is in, for whoever writes its log: lines of several nodes are told apart by it. 0: none yet. Only
/// written here, never acted upon.
pub type Term = Arc<AtomicU64>;

impl Environment {
    /// Real sockets, the system clock, the operating system's randomness, real disks; and a log that loses nothing.
    pub fn production() -> Self {
        Self {
            log_lines_lost: Arc::new(|| 0),
            term: Term::default(),
            traces: Traces::default(),
            transport: Arc::new(TcpTransport),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            store: StoreEnv::production(),
        }
    }
}

/// Wall time: for the stamps on entries, and for nothing that measures a duration.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch. May jump either way.
    fn wall_ns(&self) -> u64;
}

/// Chance: identities and jitter.
pub trait Entropy: Send + Sync + 'static {
    fn next_u64(&self) -> u64;
}

/// Sixteen bytes nobody has drawn before.
pub fn draw_id(entropy: &dyn Entropy) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&entropy.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&entropy.next_u64().to_le_bytes());
    id
}

struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn wall_ns(&self) -> u64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 is broken; log time goes on from the last stamp (proposer.rs).
        since_epoch.map_or(0, |elapsed| elapsed.as_nanos() as u64)
    }
}

struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
