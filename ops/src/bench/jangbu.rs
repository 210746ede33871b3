//! Our own cluster in the comparison: `jangbu dev`, as shipped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jangbu_client::{Client, ClientError, Consistency, Gatherer, LookupGatherer, StreamConfig};
use jangbu_ledger::{
    Account, AccountFilter, AccountFilterFlags, AccountId, Amount, CreateAccountStatus, CreateTransferStatus,
    EVENTS_MAX, Transfer, TransferFlags, TransferId,
};

use super::row::{Freshness, Payment, Request, Row, Work};
use super::system::{Caller, PLACES, System};
use crate::access;
use crate::dev::{self, folder::Folder, folder::Node, process::Mark};
use crate::error::{Failure, Kind};

const TIMEOUT: Duration = Duration::from_secs(60);
const LEDGER: u32 = 700;
const CODE: u16 = 1;
const STALENESS_MAX: Duration = Duration::from_secs(1);

/// Requests that a gathering client has in flight.
const GATHERED_WINDOW: usize = 4;

pub struct Jangbu {
    folder: Folder,
    killed: Option<Node>,
    _nodes: Nodes,
}

/// The folder of nodes that are killed when this goes; also where their start was cut off.
struct Nodes(PathBuf);

/// A process that was killed is gone by then.
const KILL_LIMIT: Duration = Duration::from_secs(1);

impl Jangbu {
    pub async fn start(folder: &Path) -> Result<Jangbu, Failure> {
        // As those that it is compared with: without encryption.
        let nodes = Nodes(folder.to_owned());
        dev::start(&dev::StartArgs { plain: true, ..dev::StartArgs::three_in(folder) }, TIMEOUT).await?;
        Ok(Jangbu { folder: Folder::existing(folder)?, killed: None, _nodes: nodes })
    }

    /// A client that asks node `number` first.
    fn client(&self, number: usize) -> Result<Client, Failure> {
        let mut endpoints = self.folder.client_addresses();
        let count = endpoints.len();
        endpoints.rotate_left(number % count);
        access::client_of(&endpoints, TIMEOUT, &self.folder.way()?)
    }

    async fn kill(&mut self, leads: bool) -> Result<(), Failure> {
        let leader = dev::leader(&self.folder, TIMEOUT).await?.id;
        let node = self.folder.nodes.iter().find(|node| (node.id == leader) == leads).cloned();
        let node = node.ok_or_else(|| Failure::general("there is no such node"))?;
        dev::kill(&self.folder, &node, TIMEOUT).await?;
        self.killed = Some(node);
        Ok(())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let Ok(Some(folder)) = Folder::open(&self.0) else { return };
        let running: Vec<Mark> = folder.nodes.iter().filter_map(|node| folder.process(node)).collect();
        for process in &running {
            let _ = process.kill(); // it has ended by itself
        }
        // Their folder is removed next.
        let began = Instant::now();
        while running.iter().any(Mark::is_running) && began.elapsed() < KILL_LIMIT {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl System for Jangbu {
    fn name(&self) -> &'static str {
        "jangbu"
    }

    fn replicas(&self) -> Vec<u32> {
        self.folder.nodes.iter().filter_map(|node| self.folder.process(node)).map(|process| process.pid).collect()
    }

    fn can(&self, _row: &Row) -> bool {
        true
    }

    fn open_accounts(&self, count: u64) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let client = self.client(0)?;
            let stream = client.stream(StreamConfig { deadline: TIMEOUT, ..StreamConfig::default() });
            let numbers: Vec<u64> = (0..count).collect();
            let mut tickets = std::collections::VecDeque::new();
            for numbers in numbers.chunks(EVENTS_MAX) {
                let accounts: Vec<Account> = numbers.iter().map(|number| account(*number)).collect();
                tickets.push_back(stream.submit_accounts(&accounts).await.map_err(access::failure)?);
                if tickets.len() >= 8 {
                    opened(tickets.pop_front().expect("eight are there")).await?;
                }
            }
            for ticket in tickets {
                opened(ticket).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn callers<'a>(&'a self, row: &'a Row) -> BoxFuture<'a, Result<Vec<Box<dyn Caller>>, Failure>> {
        async move {
            // As the threads of one program share a connection; to every node in turn, the leader first.
            let connections_count = row.callers_count.div_ceil(32).max(3).min(row.callers_count) as usize;
            let leader = dev::leader(&self.folder, TIMEOUT).await?.id;
            let leader = self.folder.nodes.iter().position(|node| node.id == leader).unwrap_or_default();
            let clients: Vec<Client> = (0..connections_count)
                .map(|number| {
                    let client = self.client(leader + number)?;
                    Ok(match row.work {
                        Work::Lookup(freshness) => client.with_consistency(consistency(freshness)),
                        _ => client,
                    })
                })
                .collect::<Result<_, Failure>>()?;
            let ways = ways(row, &clients);
            let caller = |number: usize| {
                let way = ways[number % ways.len()].clone();
                let place = number % ways.len() % PLACES.len();
                let client = clients[number % clients.len()].clone();
                Box::new(JangbuCaller { client, way, place, held: Vec::new() }) as Box<dyn Caller>
            };
            Ok((0..row.callers_count as usize).map(caller).collect())
        }
        .boxed()
    }

    fn kill_follower(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.kill(false).boxed()
    }

    fn kill_leader(&mut self) -> Option<BoxFuture<'_, Result<(), Failure>>> {
        Some(self.kill(true).boxed())
    }

    fn revive(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            match self.killed.take() {
                Some(node) => dev::restart(&self.folder, &node, TIMEOUT).await,
                None => Ok(()),
            }
        }
        .boxed()
    }
}

/// Through what the callers of a row ask, each of them the next one.
fn ways(row: &Row, clients: &[Client]) -> Vec<Way> {
    let config = StreamConfig { window: GATHERED_WINDOW, deadline: TIMEOUT };
    match (row.gathered, row.is_read()) {
        (false, _) => clients.iter().map(|_| Way::Calls).collect(),
        (true, true) => {
            clients[..PLACES.len()].iter().map(|client| Way::Lookups(client.gather_lookups(GATHERED_WINDOW))).collect()
        }
        (true, false) => vec![Way::Transfers(clients[0].gather(config))],
    }
}

fn consistency(freshness: Freshness) -> Consistency {
    match freshness {
        Freshness::Linearizable => Consistency::Linearizable,
        Freshness::BoundedStaleness => Consistency::BoundedStaleness(STALENESS_MAX),
        Freshness::Local => Consistency::Local,
    }
}

/// Zero is no account's id.
fn account_id(number: u64) -> AccountId {
    AccountId(u128::from(number) + 1)
}

fn account(number: u64) -> Account {
    Account { id: account_id(number), ledger: LEDGER, code: CODE, ..Account::default() }
}

async fn opened(ticket: jangbu_client::Ticket) -> Result<(), Failure> {
    let results = ticket.await.and_then(|reply| reply.results::<CreateAccountStatus>()).map_err(access::failure)?;
    let refused = results
        .iter()
        .map(|result| result.status)
        .find(|status| !matches!(status, CreateAccountStatus::Created | CreateAccountStatus::Exists));
    match refused {
        Some(status) => Err(Failure::new(Kind::Conflict, format!("an account is refused: {}", status.name()))),
        None => Ok(()),
    }
}

/// How a caller's requests get to the cluster.
#[derive(Clone)]
enum Way {
    /// One call each.
    Calls,
    Transfers(Gatherer),
    Lookups(LookupGatherer),
}

struct JangbuCaller {
    client: Client,
    way: Way,
    place: usize,
    /// What the last `Hold` held.
    held: Vec<Transfer>,
}

impl JangbuCaller {
    fn transfers(&self, payments: &[Payment], flags: TransferFlags) -> Vec<Transfer> {
        let transfer = |payment: &Payment| Transfer {
            id: TransferId(self.client.next_id()),
            debit_account_id: account_id(payment.debit),
            credit_account_id: account_id(payment.credit),
            amount: Amount(u128::from(payment.amount)),
            ledger: LEDGER,
            code: CODE,
            flags: if payment.linked { flags.with(TransferFlags::LINKED) } else { flags },
            ..Transfer::default()
        };
        payments.iter().map(transfer).collect()
    }

    async fn create(&self, transfers: &[Transfer]) -> Result<(), Failure> {
        loop {
            let answer = match &self.way {
                Way::Transfers(gatherer) => gatherer.create_transfer(transfers[0]).await.map(|result| vec![result]),
                _ => self.client.create_transfers(transfers).await.map(|created| created.results),
            };
            match answer {
                Ok(results) => {
                    let refused = results
                        .iter()
                        .map(|result| result.status)
                        .find(|status| !matches!(status, CreateTransferStatus::Created | CreateTransferStatus::Exists));
                    return refused.map_or(Ok(()), |status| {
                        Err(Failure::new(Kind::Conflict, format!("a transfer is refused: {}", status.name())))
                    });
                }
                Err(ClientError::Overloaded { retry_after, .. }) => tokio::time::sleep(retry_after).await,
                Err(error) if error.nothing_was_done() && !matches!(error, ClientError::Unavailable { .. }) => {
                    return Err(access::failure(error));
                }
                // The same ids again: that settles it.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Caller for JangbuCaller {
    fn ask<'a>(&'a mut self, request: &'a Request) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            match request {
                Request::Pay(payments) => self.create(&self.transfers(payments, TransferFlags::NONE)).await,
                Request::Hold(payments) => {
                    self.held = self.transfers(payments, TransferFlags::PENDING);
                    self.create(&self.held).await
                }
                Request::Post => {
                    let post = |hold: &Transfer| Transfer {
                        id: TransferId(self.client.next_id()),
                        pending_id: hold.id,
                        flags: TransferFlags::POST_PENDING_TRANSFER,
                        ..*hold
                    };
                    self.create(&self.held.iter().map(post).collect::<Vec<_>>()).await
                }
                Request::Lookup(number) => {
                    let id = account_id(*number);
                    let found_count = match &self.way {
                        Way::Lookups(gatherer) => {
                            gatherer.lookup_account(id).await.map(|found| usize::from(found.value.is_some()))
                        }
                        _ => self.client.lookup_accounts(&[id]).await.map(|found| found.value.len()),
                    };
                    one_found(found_count.map_err(access::failure)?, *number)
                }
                Request::History(number) => {
                    let filter = AccountFilter {
                        account_id: account_id(*number),
                        limit: 10,
                        flags: AccountFilterFlags::DEBITS
                            .with(AccountFilterFlags::CREDITS)
                            .with(AccountFilterFlags::REVERSED),
                        ..AccountFilter::default()
                    };
                    self.client.get_account_transfers(&filter).await.map(drop).map_err(access::failure)
                }
            }
        }
        .boxed()
    }

    fn place(&self) -> usize {
        self.place
    }
}

/// An account that is not found means that the row measures something else.
pub fn one_found(count: usize, number: u64) -> Result<(), Failure> {
    match count {
        1 => Ok(()),
        _ => Err(Failure::general(format!("account {number} is not there"))),
    }
}
