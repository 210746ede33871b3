//! Many callers, few requests: single transfers gathered into packed ones, single lookups into lookups of many.
//!
//!     create_transfer -> [queue] -> driver -> [a place in flight] -> all that waits, as one request -> PackedStream
//!     lookup_account                                                                                   or lookup_accounts
//!            ^                                                                                             |
//!            +------------------------------- its own result ----------------------------------------------+
//!
//! A lone one goes at once. While every place is taken others gather, so requests grow with the load and nobody waits for a
//! timer.
//!
//! Laws
//! * Each caller gets the result of its own transfer or lookup, whatever its neighbours' become.
//! * Transfers go in the order in which they were handed in.
//! * A lookup is in a request that is sent after it was handed in: so it is as fresh as if it were asked alone.
//!
//! Not here: linked chains (they are one request: [`Client::create_transfers`]), asking again (the stream and the client do).

use std::sync::Arc;

use jangbu_ledger::{Account, AccountId, CreateResult, CreateTransferStatus, Transfer, TransferFlags};
use jangbu_proto::{Malformed, batch::EVENTS_MAX};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{Client, ClientError, PackedStream, Read, StreamConfig};

/// Transfers, or lookups, that may wait for a place: beyond, callers wait to hand theirs in.
const WAITING_MAX: usize = 2 * EVENTS_MAX;

type Outcome = Result<CreateResult<CreateTransferStatus>, ClientError>;

/// Gathers the transfers of many tasks. Cheap to clone; dropping the last one lets what is in flight finish.
#[derive(Clone)]
pub struct Gatherer {
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    transfer: Transfer,
    answer: oneshot::Sender<Outcome>,
}

impl Gatherer {
    pub(crate) fn open(client: Client, config: StreamConfig) -> Self {
        let (waiting, handed_in) = mpsc::channel(WAITING_MAX);
        tokio::spawn(drive(client.stream(config), config.window, handed_in));
        Self { waiting }
    }

    /// Creates one transfer; waits while too many wait already. After a doubt the stream asks again by itself, and a transfer
    /// that was carried out the first time answers `exists`. Refuses a `linked` one.
    pub async fn create_transfer(&self, transfer: Transfer) -> Outcome {
        if transfer.flags.contains(TransferFlags::LINKED) {
            return Err(ClientError::Refused(Malformed {
                field: "flags".into(),
                reason: "a linked transfer can't be gathered: its chain has to be one request".into(),
            }));
        }
        let (answer, outcome) = oneshot::channel();
        let handed_in = self.waiting.send(Waiting { transfer, answer }).await;
        assert!(handed_in.is_ok(), "the driver runs as long as somebody can hand in");
        // The driver only goes without answering when the runtime does.
        let ended = || ClientError::OutcomeUnknown { ids: vec![transfer.id.0], message: "the runtime ended".into() };
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn drive(stream: PackedStream, window: usize, mut handed_in: mpsc::Receiver<Waiting>) {
    let places = Arc::new(Semaphore::new(window));
    let mut gathered = Vec::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        if handed_in.recv_many(&mut gathered, EVENTS_MAX).await == 0 {
            return;
        }
        let transfers: Vec<Transfer> = gathered.iter().map(|waiting: &Waiting| waiting.transfer).collect();
        let ticket = stream.submit_transfers(&transfers).await;
        let callers: Vec<_> = gathered.drain(..).map(|waiting| waiting.answer).collect();
        tokio::spawn(async move {
            let reply = match ticket {
                Ok(ticket) => ticket.await,
                Err(error) => Err(error),
            };
            drop(place);
            let results = reply.and_then(|reply| reply.results::<CreateTransferStatus>());
            hand_out(callers, &transfers, results);
        });
    }
}

/// To each its own. A caller that no longer listens is no loss: its transfer stands as it does.
fn hand_out(
    callers: Vec<oneshot::Sender<Outcome>>,
    transfers: &[Transfer],
    results: Result<Vec<CreateResult<CreateTransferStatus>>, ClientError>,
) {
    for (index, (caller, transfer)) in callers.into_iter().zip(transfers).enumerate() {
        let own = match &results {
            Ok(results) => Ok(results[index]),
            Err(ClientError::OutcomeUnknown { message, .. }) => {
                Err(ClientError::OutcomeUnknown { ids: vec![transfer.id.0], message: message.clone() })
            }
            Err(error) => Err(error.clone()),
        };
        let _ = caller.send(own);
    }
}

// --- lookups

type Found = Result<Read<Option<Account>>, ClientError>;

/// Gathers the lookups of many tasks. Cheap to clone; dropping the last one lets what is in flight finish.
#[derive(Clone)]
pub struct LookupGatherer {
    waiting: mpsc::Sender<Asked>,
}

struct Asked {
    id: AccountId,
    answer: oneshot::Sender<Found>,
}

impl LookupGatherer {
    pub(crate) fn open(client: Client, window: usize) -> Self {
        assert!(window > 0, "a window without places would wait for ever");
        let (waiting, handed_in) = mpsc::channel(WAITING_MAX);
        tokio::spawn(drive_lookups(client, window, handed_in));
        Self { waiting }
    }

    /// Looks one account up, as fresh as the client that gathers asks for; `None`: there is none. Waits while too many wait
    /// already.
    pub async fn lookup_account(&self, id: AccountId) -> Found {
        let (answer, found) = oneshot::channel();
        let handed_in = self.waiting.send(Asked { id, answer }).await;
        assert!(handed_in.is_ok(), "the driver runs as long as somebody can hand in");
        // The driver only goes without answering when the runtime does.
        found.await.unwrap_or_else(|_| Err(ClientError::unavailable("the runtime ended")))
    }
}

async fn drive_lookups(client: Client, window: usize, mut handed_in: mpsc::Receiver<Asked>) {
    let places = Arc::new(Semaphore::new(window));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let mut gathered = Vec::new();
        if handed_in.recv_many(&mut gathered, EVENTS_MAX).await == 0 {
            return;
        }
        let client = client.clone();
        tokio::spawn(async move {
            let ids: Vec<AccountId> = gathered.iter().map(|asked| asked.id).collect();
            let found = client.lookup_accounts(&ids).await;
            drop(place);
            hand_out_found(gathered, found);
        });
    }
}

/// Accounts come in the order asked, so each id is either the next found or not there.
fn hand_out_found(gathered: Vec<Asked>, found: Result<Read<Vec<Account>>, ClientError>) {
    let (at, accounts) = match found {
        Ok(Read { at, value }) => (at, value),
        Err(error) => {
            for asked in gathered {
                let _ = asked.answer.send(Err(error.clone())); // whoever no longer listens misses nothing
            }
            return;
        }
    };
    let mut accounts = accounts.into_iter().peekable();
    for asked in gathered {
        let value = accounts.next_if(|account| account.id == asked.id);
        let _ = asked.answer.send(Ok(Read { at, value }));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;
    use jangbu_ledger::Amount;

    use super::*;
    use crate::fake::{Act, Cluster, payment};

    fn statuses(outcomes: Vec<Outcome>) -> Vec<CreateTransferStatus> {
        outcomes.into_iter().map(|outcome| outcome.expect("it was answered").status).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn transfers_gather_while_every_place_is_taken() {
        let cluster = Cluster::start(1).await;
        let gatherer = cluster.client().gather(StreamConfig { window: 1, ..StreamConfig::default() });
        let outcomes = join_all((1..=100).map(|id| gatherer.create_transfer(payment(id, 1)))).await;
        assert_eq!(statuses(outcomes), [CreateTransferStatus::Created; 100]);
        assert!(cluster.nodes[0].asked().len() <= 2, "{} requests", cluster.nodes[0].asked().len());
        assert_eq!(cluster.moved(), Amount(100));
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_gets_its_own_result() {
        let cluster = Cluster::start(1).await;
        let gatherer = cluster.client().gather(StreamConfig::default());
        let asked = [payment(1, 1), payment(2, 1), payment(1, 2)];
        let outcomes = join_all(asked.map(|transfer| gatherer.create_transfer(transfer))).await;
        use CreateTransferStatus::{Created, ExistsWithDifferentAmount};
        assert_eq!(statuses(outcomes), [Created, Created, ExistsWithDifferentAmount]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_names_the_callers_own_id_alone() {
        let cluster = Cluster::start(1).await;
        cluster.nodes[0].will(std::iter::repeat_n(Act::Hang, 50));
        let deadline = Duration::from_secs(1);
        let gatherer = cluster.client().gather(StreamConfig { deadline, ..StreamConfig::default() });
        for (index, outcome) in
            join_all([7, 8].map(|id| gatherer.create_transfer(payment(id, 1)))).await.into_iter().enumerate()
        {
            match outcome {
                Err(ClientError::OutcomeUnknown { ids, .. }) => assert_eq!(ids, [7 + index as u128]),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_lookup_gets_its_own_account_and_few_requests_do_it() {
        let cluster = Cluster::start(1).await;
        let gatherer = cluster.client().gather_lookups(1);
        // Some are asked for twice, and some are not there.
        let asked: Vec<AccountId> = (0..100).map(|number| AccountId(number % 7)).collect();
        let found = join_all(asked.iter().map(|id| gatherer.lookup_account(*id))).await;
        for (id, found) in asked.iter().zip(found) {
            let account = found.expect("it was answered").value;
            assert_eq!(account.map(|account| account.id), Some(*id).filter(|id| [1, 2].contains(&id.0)), "{id:?}");
        }
        let requests_count = cluster.nodes[0].lookups_count();
        assert!((1..=2).contains(&requests_count), "{requests_count} requests");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_no_node_answers_fails_for_all_who_wait() {
        let cluster = Cluster::start(1).await;
        cluster.nodes[0].die();
        let gatherer = cluster.client().with_deadline(Duration::from_secs(1)).gather_lookups(1);
        let found = join_all([1, 2].map(|id| gatherer.lookup_account(AccountId(id)))).await;
        assert!(found.iter().all(|found| matches!(found, Err(ClientError::Unavailable { .. }))), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_linked_transfer_is_refused_and_nothing_is_done() {
        let cluster = Cluster::start(1).await;
        let gatherer = cluster.client().gather(StreamConfig::default());
        let linked = Transfer { flags: TransferFlags::LINKED, ..payment(1, 1) };
        assert!(matches!(gatherer.create_transfer(linked).await, Err(ClientError::Refused(_))));
        assert_eq!(cluster.moved(), Amount(0));
    }
}
