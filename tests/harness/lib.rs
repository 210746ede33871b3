//! Starts the shipped binaries as real processes, does harm to them, and judges what is left.
//!
//!     binaries   where `jangbud` and `jangbu` are
//!     process    one of them, running: its output, its end
//!     node       a replica: its folder, its addresses, its process
//!     cluster    several of them, and who leads
//!     certs      authorities, and what they sign
//!     door       a node's client door, spoken to directly
//!     payer      callers that send payments through the client library
//!     journal    what the callers were told
//!     judge      was every promise kept? Asked of every replica
//!     damage     what disks do to files
//!     s3         object storage on loopback, and what networks do to it
//!     wait       named conditions under a deadline
//!
//! Laws
//! * Nothing here knows the inside of a node: only its configuration, its folder and its doors.
//! * A test waits for a condition with a name, never for time to pass (`wait`).
//! * A process is ended by the one who started it, by its own pid, and doesn't outlive the test program (`process`).
//! * When a test fails, the last words of each node are printed (`cluster`).
//!
//! What fails here panics with a sentence, as a test should; nothing is handed on.
//!
//! Not here: what is promised, which is in `cluster/`, one module per promise.

mod binaries;
mod certs;
mod cluster;
pub mod damage;
mod door;
mod journal;
mod judge;
mod node;
mod payer;
mod process;
mod s3;
mod wait;

pub use binaries::{jangbu, jangbud};
pub use certs::{CLUSTER, Certs};
pub use cluster::{Cluster, Settings, Sizes};
pub use door::Door;
pub use jangbu_proto::convert::Consistency;
pub use journal::{Fate, Journal};
pub use judge::{judge, replicas_agree};
pub use node::{Addresses, Node};
pub use payer::{ACCOUNTS, LEDGER, Payer, Payments, Waits, open_accounts, payment};
pub use process::{Ended, Process, Signal};
pub use s3::{Misfortune, Storage};
pub use wait::{DEADLINE, until, until_ok, until_ok_nearer};
