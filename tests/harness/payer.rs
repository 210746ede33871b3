//! Callers that pay, and write down what they were told.
//!
//! Each caller is sequential: it asks, waits for the answer, writes it down, and asks the next. It goes through the client
//! library, as a service would, and keeps to the nodes it was given.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jangbu_client::{Client, ClientConfig, ClientError, id};
use jangbu_ledger::{
    Account, AccountFlags, AccountId, Amount, CreateResult, CreateTransferStatus, Transfer, TransferFlags, TransferId,
};
use tokio::task::JoinHandle;

use crate::{
    cluster::Cluster,
    journal::{Fate, Journal},
    wait::{until, until_ok},
};

/// The ledger of all accounts under test.
pub const LEDGER: u32 = 1;

/// The accounts under test. None has a limit, so that every payment between two of them is lawful; the first keeps a
/// history of its balances.
pub const ACCOUNTS: [AccountId; 8] = {
    let mut ids = [AccountId(0); 8];
    let mut i = 0;
    while i < ids.len() {
        ids[i] = AccountId(1 + i as u128);
        i += 1;
    }
    ids
};

/// How callers pay.
#[derive(Debug, Clone, Copy)]
pub struct Payments {
    pub callers_count: usize,
    /// Payments in one request.
    pub batch_count: usize,
    /// How long a caller waits for one answer, the library's own attempts included.
    pub deadline: Duration,
}

impl Default for Payments {
    fn default() -> Self {
        Self { callers_count: 4, batch_count: 5, deadline: Duration::from_secs(2) }
    }
}

/// Callers at work.
pub struct Payer {
    pub journal: Arc<Journal>,
    pace: Arc<Pace>,
    callers: Vec<JoinHandle<()>>,
    beats: Vec<Arc<Beats>>,
}

/// How callers go on, as the test wants it by now.
#[derive(Default)]
struct Pace {
    stopped: AtomicBool,
    eased: AtomicBool,
}

/// Between two requests of a caller that takes it easy: many times what one takes.
const EASE: Duration = Duration::from_millis(100);

/// When a caller was told of an acknowledgement.
type Beats = Mutex<Vec<Instant>>;

impl Payer {
    /// Callers at every node.
    pub async fn start(cluster: &Cluster) -> Payer {
        Payer::start_at(cluster, &cluster.ids(), Payments::default()).await
    }

    /// Callers at these nodes and no others; each begins at another one of them.
    pub async fn start_at(cluster: &Cluster, nodes: &[u64], payments: Payments) -> Payer {
        open_accounts(cluster, nodes[0]).await;
        let beats = (0..payments.callers_count).map(|_| Arc::default()).collect();
        let mut payer = Payer { journal: Arc::default(), pace: Arc::default(), callers: Vec::new(), beats };
        for (number, beats) in payer.beats.iter().enumerate() {
            let mut endpoints: Vec<String> =
                nodes.iter().map(|id| cluster.node(*id).addresses.client.clone()).collect();
            endpoints.rotate_left(number % nodes.len());
            let config =
                ClientConfig { deadline: payments.deadline, transport: cluster.way(), ..ClientConfig::default() };
            let client = Client::connect(endpoints, config).expect("the harness made these addresses");
            let caller = Caller { client, journal: payer.journal.clone(), beats: beats.clone() };
            payer.callers.push(tokio::spawn(caller.pay(payments.batch_count, payer.pace.clone())));
        }
        payer
    }

    /// Waits until so many more payments were acknowledged from now on.
    pub async fn progresses(&self, more_count: usize, when: &str) {
        let enough = self.journal.acknowledged_count() + more_count;
        until(format!("{more_count} more payments are acknowledged {when}"), async || {
            (self.journal.acknowledged_count() >= enough).then_some(())
        })
        .await;
    }

    /// How long callers waited from one acknowledgement to the next, where the later one came after `since`.
    pub fn waits(&self, since: Instant) -> Waits {
        let mut waits = Vec::new();
        for beats in &self.beats {
            let beats = beats.lock().expect("nothing here panics while it holds the lock");
            waits.extend(beats.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0]));
        }
        waits.sort_unstable();
        Waits(waits)
    }

    /// Payments go on, and leave the machine to whoever has to catch up.
    pub fn eases(&self) {
        self.pace.eased.store(true, Ordering::Relaxed);
    }

    /// Lets each caller finish what it has asked.
    pub async fn stop(self) -> Journal {
        self.pace.stopped.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("a caller must not panic");
        }
        Arc::into_inner(self.journal).expect("the callers are gone")
    }
}

/// In ascending order. A caller is sequential, so each is also how long a request took, its retries included.
pub struct Waits(Vec<Duration>);

impl Waits {
    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// For people who run the test with `--nocapture`.
    pub fn print(&self, when: &str) {
        let at = |share: f64| self.0.get((self.0.len() as f64 * share) as usize).copied().unwrap_or_default();
        let (p50, p99, longest) = (at(0.5), at(0.99), self.longest());
        println!("{when}: {} requests, p50 {p50:.1?}, p99 {p99:.1?}, longest {longest:.1?}", self.0.len());
    }
}

/// Opens the accounts under test, or finds them open.
pub async fn open_accounts(cluster: &Cluster, at: u64) {
    let accounts = ACCOUNTS.map(|id| Account {
        id,
        ledger: LEDGER,
        code: 1,
        flags: if id == ACCOUNTS[0] { AccountFlags::HISTORY } else { AccountFlags::NONE },
        ..Account::default()
    });
    until_ok("the accounts are open", async || {
        cluster.door(at).create_accounts(&accounts, Duration::from_secs(2)).await
    })
    .await;
}

/// A payment under a new id, between two accounts under test.
pub fn payment(amount: u128) -> Transfer {
    let from = rand::random_range(0..ACCOUNTS.len());
    let to = (from + rand::random_range(1..ACCOUNTS.len())) % ACCOUNTS.len();
    Transfer {
        id: id(),
        debit_account_id: ACCOUNTS[from],
        credit_account_id: ACCOUNTS[to],
        amount: Amount(amount),
        ledger: LEDGER,
        code: 1,
        ..Transfer::default()
    }
}

struct Caller {
    client: Client,
    journal: Arc<Journal>,
    beats: Arc<Beats>,
}

impl Caller {
    /// Every fourth request holds the money first and posts it with the next.
    async fn pay(self, batch_count: usize, pace: Arc<Pace>) {
        for round in 1u64.. {
            if pace.stopped.load(Ordering::Relaxed) {
                return;
            }
            if pace.eased.load(Ordering::Relaxed) {
                tokio::time::sleep(EASE).await;
            }
            let mut batch: Vec<Transfer> = (0..batch_count).map(|i| payment(1 + i as u128)).collect();
            if !round.is_multiple_of(4) {
                self.ask(&batch).await;
                continue;
            }
            batch.iter_mut().for_each(|transfer| transfer.flags = TransferFlags::PENDING);
            let posts: Vec<Transfer> = self.ask(&batch).await.into_iter().map(post).collect();
            if !posts.is_empty() {
                self.ask(&posts).await;
            }
        }
    }

    /// Asks once and writes down the answer; returns which were done.
    async fn ask(&self, batch: &[Transfer]) -> Vec<TransferId> {
        batch.iter().for_each(|transfer| self.journal.asked(*transfer));
        let error = match self.client.create_transfers(batch).await {
            Ok(reply) => return self.answered(batch, &reply.results),
            Err(error) => error,
        };
        self.journal.trouble(error.to_string());
        match error {
            ClientError::Refused(_) | ClientError::NotAllowed { .. } | ClientError::Unintelligible(_) => {
                panic!("a lawful request was answered: {error}")
            }
            ClientError::OutcomeUnknown { .. } => {}
            ClientError::Overloaded { .. } | ClientError::Unavailable { .. } => {
                batch.iter().for_each(|transfer| self.journal.told(transfer.id, Fate::NotDone));
                // Without a quorum this may be the answer to everything, at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Vec::new()
    }

    fn answered(&self, batch: &[Transfer], results: &[CreateResult<CreateTransferStatus>]) -> Vec<TransferId> {
        assert_eq!(results.len(), batch.len(), "one result per event");
        let mut done = Vec::new();
        for (transfer, result) in batch.iter().zip(results) {
            let fate = self.journal.answered(transfer.id, result.status, result.timestamp);
            if matches!(fate, Fate::Acknowledged { .. }) {
                done.push(transfer.id);
            }
        }
        self.beats.lock().expect("nothing here panics while it holds the lock").push(Instant::now());
        done
    }
}

fn post(pending: TransferId) -> Transfer {
    Transfer {
        id: id(),
        pending_id: pending,
        amount: Amount::MAX,
        flags: TransferFlags::POST_PENDING_TRANSFER,
        ..Transfer::default()
    }
}
