//! `jangbu load`: many clients that pay, and what they see.
//!
//! ```text
//!     workload   what is asked: accounts, amounts, hot accounts, two-phase transfers. Pure, from a seed
//!     worker     one client: asks, asks again while the outcome is unknown, writes down what was acknowledged
//!     tally      what was measured: latency, pauses, second by second
//!     journal    the acknowledged transfers, for `jangbu verify --acknowledged`
//!     report     what a person or a program is told
//! ```
//!
//! In a closed loop each client asks again when it has its answer; the cluster sets the pace. In an open loop (`--rate`)
//! requests have a time at which they should be sent; latency counts from that time, also where a slow answer before it
//! made it late. So a pause of the cluster shows in the figures at its full length; and so does the timer's grain, up to a
//! millisecond.
//!
//! Laws
//! * A payment that was begun is asked for, under the same id, until its outcome is known or patience ends.
//! * Only what the cluster acknowledged is counted as a payment, and all of it is in the journal.

pub mod journal;
pub mod report;
pub mod tally;
pub mod worker;
pub mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use jangbu_client::Client;
use jangbu_ledger::{Account, CreateAccountStatus, EVENTS_MAX};
use tokio::task::JoinHandle;

use crate::access::{self, Way};
use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::import::run::persist;
use crate::{course, output, progress, text};
use journal::Journal;
use report::Report;
use tally::Tally;
use worker::Worker;
use workload::{Shape, Workload};

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  jangbu load                                          16 clients, one payment a request, 10 seconds
  jangbu load --clients 4 --batch 8189 --packed        full batches on packed streams
  jangbu load --rate 2000 --duration 1m                open loop: 2,000 requests a second, whatever happens
  jangbu load --hot 10% --two-phase 20% --read 90%     a subsidy account, holds, and mostly inquiries
  jangbu load --journal acks && jangbu verify --acknowledged acks")]
pub struct Arguments {
    /// How long new requests are begun.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = text::duration)]
    pub duration: Duration,
    /// Stop after so many transfers, if that comes first.
    #[arg(long, value_name = "TRANSFERS")]
    pub count: Option<u64>,
    /// Accounts that pay each other; created where they are not there yet.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..=10_000_000))]
    pub accounts: u64,
    /// Transfers in one request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8_189))]
    pub batch: u32,
    /// Clients, each with one request in flight.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Open loop: so many requests a second, all clients together. Default: closed loop.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// The share of transfers that debit one hot account, as 10% or 0.1.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = text::share)]
    pub hot: u32,
    /// The share of transfers that are held first, and posted or voided later.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = text::share)]
    pub two_phase: u32,
    /// The share of requests that are balance inquiries (linearizable).
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = text::share)]
    pub read: u32,
    /// Ask only this node: its place in the list of endpoints, from 1. May be repeated. Default: all, in turn.
    #[arg(long, value_name = "N")]
    pub node: Vec<usize>,
    /// Use the packed stream instead of typed calls.
    #[arg(long)]
    pub packed: bool,
    /// Write every acknowledged transfer to this file.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// The ledger that the accounts are in.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u32).range(1..))]
    pub ledger: u32,
    /// Which money moves between which accounts follows from it; ids do not.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long one payment is asked for again before it is given up.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = text::duration)]
    pub patience: Duration,
}

/// What all clients of a run share.
pub struct Run {
    pub arguments: Arguments,
    /// Marks this run's transfers (`user_data_128`).
    pub id: u128,
    pub began: Instant,
    pub journal: Option<Journal>,
    /// Transfers that may still be begun.
    left: AtomicI64,
    /// The next request's place in an open loop.
    next_slot: AtomicU64,
    stopped: AtomicBool,
    acknowledged: AtomicU64,
}

/// A run's clients, at work.
pub type Workers = Vec<JoinHandle<Tally>>;

impl Run {
    fn new(arguments: Arguments) -> Result<Run, Failure> {
        let id = u128::from(rand::random::<u64>().max(1));
        Ok(Run {
            id,
            began: Instant::now(),
            journal: arguments.journal.as_deref().map(|path| Journal::create(path, id)).transpose()?,
            left: AtomicI64::new(arguments.count.map_or(0, |count| i64::try_from(count).unwrap_or(i64::MAX))),
            next_slot: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            arguments,
        })
    }

    /// Transfers acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn acknowledge(&self, count: u64) {
        self.acknowledged.fetch_add(count, Ordering::Relaxed);
    }

    /// No new requests; what is under way is seen to its end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// When the next request is to be sent; `None` when no more are to be begun.
    fn next_request(&self) -> Option<Instant> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let batch = i64::from(self.arguments.batch);
        if self.arguments.count.is_some() && self.left.fetch_sub(batch, Ordering::Relaxed) <= 0 {
            return None;
        }
        let at = match self.arguments.rate {
            Some(rate) => {
                let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
                self.began + Duration::from_nanos((u128::from(slot) * 1_000_000_000 / u128::from(rate)) as u64)
            }
            None => Instant::now(),
        };
        (at < self.began + self.arguments.duration).then_some(at)
    }
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let endpoints = self.chosen(&global.endpoints()?)?;
        let (run, workers) = self.begin(&endpoints, global.timeout, &global.way()?).await?;
        let (bar, watched) = (progress::spinner("paying"), run.clone());
        let mut ending = course::ends_by_itself("payments that were begun are seen to their end");
        let beside = tokio::spawn(async move {
            loop {
                if ending.heard_within(LOOK_EVERY).await {
                    watched.stop();
                    std::future::pending::<()>().await;
                }
                let acknowledged = text::grouped(watched.acknowledged());
                course::so_far(format!("{acknowledged} transfers acknowledged"));
                bar.set_message(format!("{acknowledged} transfers acknowledged"));
            }
        });
        let report = finish(&run, workers).await?;
        beside.abort();
        output::show(global.output, &report, Report::text)?;
        report.verdict()
    }

    fn chosen(&self, endpoints: &[String]) -> Result<Vec<String>, Failure> {
        if self.node.is_empty() {
            return Ok(endpoints.to_vec());
        }
        let chosen = self.node.iter().map(|place| {
            let endpoint = place.checked_sub(1).and_then(|index| endpoints.get(index));
            let missing = || Failure::usage(format!("--node {place}: there are {} endpoints", endpoints.len()));
            endpoint.cloned().ok_or_else(missing)
        });
        chosen.collect()
    }

    /// Creates the accounts and sets the clients going.
    pub async fn begin(
        self,
        endpoints: &[String],
        timeout: Duration,
        way: &Way,
    ) -> Result<(Arc<Run>, Workers), Failure> {
        let client = access::client_of(endpoints, timeout, way)?;
        course::changes("the accounts that pay", create_accounts(&self, &client, timeout)).await?;
        let connections = connections(self.clients as usize, endpoints, timeout, way)?;
        let run = Arc::new(Run::new(self)?);
        let shape = Shape::of(&run.arguments, run.id);
        let workers = (0..run.arguments.clients as usize).map(|number| {
            let (endpoint, client) = &connections[number % connections.len()];
            let seed = run.arguments.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
            let workload = Workload::new(shape, seed);
            tokio::spawn(Worker::new(run.clone(), client.clone(), endpoint.clone(), workload).work())
        });
        let workers = workers.collect();
        Ok((run, workers))
    }
}

/// How often the count is told.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// So many clients share a connection, as the threads of one program would.
const CLIENTS_PER_CONNECTION: usize = 32;

/// Connections to each node in turn, as many as the clients need. Each goes on to the other nodes when its own is gone.
fn connections(
    clients: usize,
    endpoints: &[String],
    timeout: Duration,
    way: &Way,
) -> Result<Vec<(String, Client)>, Failure> {
    let count = clients.div_ceil(CLIENTS_PER_CONNECTION).next_multiple_of(endpoints.len());
    let connect = |number: usize| {
        let mut order = endpoints.to_vec();
        order.rotate_left(number % endpoints.len());
        Ok((order[0].clone(), access::client_of(&order, timeout, way)?))
    };
    (0..count).map(connect).collect()
}

/// Nothing has begun yet, so whoever named nodes that don't answer is told so soon.
async fn create_accounts(arguments: &Arguments, client: &Client, timeout: Duration) -> Result<(), Failure> {
    let shape = Shape::of(arguments, 0);
    let account = |number| Account {
        id: shape.account_id(number),
        ledger: arguments.ledger,
        code: workload::ACCOUNT_CODE,
        ..Account::default()
    };
    let accounts: Vec<Account> = (0..arguments.accounts).map(account).collect();
    for accounts in accounts.chunks(EVENTS_MAX) {
        let created = persist(arguments.patience.min(timeout), || client.create_accounts(accounts)).await?;
        let is_there =
            |status: &CreateAccountStatus| matches!(status, CreateAccountStatus::Created | CreateAccountStatus::Exists);
        if let Some(status) = created.results.iter().map(|result| result.status).find(|status| !is_there(status)) {
            return Err(Failure::new(Kind::Conflict, format!("the accounts cannot be created: {}", status.name()))
                .advise("use another --ledger"));
        }
    }
    Ok(())
}

/// Waits for every client and adds up what they saw.
pub async fn finish(run: &Run, workers: Workers) -> Result<Report, Failure> {
    let mut total = Tally::new();
    for worker in workers {
        total.add(worker.await.map_err(|error| Failure::general(format!("a client ended: {error}")))?);
    }
    if let Some(journal) = &run.journal {
        journal.finish()?;
    }
    Ok(Report::of(run, total))
}
