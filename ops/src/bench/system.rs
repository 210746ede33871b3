//! What the comparison needs of a system: three replicas on this machine that take the same requests.
//!
//! Laws
//! * A request that a caller counts as done is durable on a majority of the replicas.
//! * A system that cannot do a row's work says so, and is not asked for something else instead.

use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::row::{Request, Row};
use crate::error::Failure;

/// Three replicas, at work. Dropping it ends its processes.
pub trait System: Send + Sync {
    fn name(&self) -> &'static str;

    /// The first process of each replica.
    fn replicas(&self) -> Vec<u32>;

    fn can(&self, row: &Row) -> bool;

    /// Makes the accounts from 0 to `count`; those that are there stay as they are.
    fn open_accounts(&self, count: u64) -> BoxFuture<'_, Result<(), Failure>>;

    /// Callers of a row, each for a task of its own.
    fn callers<'a>(&'a self, row: &'a Row) -> BoxFuture<'a, Result<Vec<Box<dyn Caller>>, Failure>>;

    /// Done before a load under which a replica is killed, so that it comes back soon: outside of all measured time.
    fn make_ready_for_a_kill(&self) -> BoxFuture<'_, Result<(), Failure>> {
        std::future::ready(Ok(())).boxed()
    }

    /// Kills a replica that does not lead, with SIGKILL.
    fn kill_follower(&mut self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Kills the leader with SIGKILL. `None`: nothing takes its place by itself.
    fn kill_leader(&mut self) -> Option<BoxFuture<'_, Result<(), Failure>>>;

    /// Starts what was killed, and waits until it serves and has caught up.
    fn revive(&mut self) -> BoxFuture<'_, Result<(), Failure>>;
}

/// One caller: asks, and waits for the answer.
pub trait Caller: Send {
    /// Asks until it is done: a retry is part of the time that it takes.
    fn ask<'a>(&'a mut self, request: &'a Request) -> BoxFuture<'a, Result<(), Failure>>;

    /// Which replica it asks first: an index into [`PLACES`].
    fn place(&self) -> usize {
        0
    }
}

/// The replicas by what they were when the row began.
pub const PLACES: [&str; 3] = ["leader", "first follower", "second follower"];

/// The systems that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    Jangbu,
    Postgres,
    Etcd,
}

impl Name {
    /// Makes and starts it in a folder of its own.
    pub async fn start(self, folder: &Path) -> Result<Box<dyn System>, Failure> {
        Ok(match self {
            Name::Jangbu => Box::new(super::jangbu::Jangbu::start(folder).await?),
            Name::Postgres => Box::new(super::postgres::Postgres::start(folder).await?),
            Name::Etcd => Box::new(super::etcd::Etcd::start(folder).await?),
        })
    }
}
