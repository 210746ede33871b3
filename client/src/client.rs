//! The nine operations, on ledger types.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jangbu_ledger::{
    Account, AccountBalance, AccountFilter, AccountId, ChangeEventsFilter, CreateAccountStatus, CreateResult,
    CreateTransferStatus, QueryFilter, Transfer, TransferId,
    planted::{self, Bug},
};
use jangbu_proto::{
    Malformed,
    convert::{self, ChangeEvent, Consistency, CreateStatus},
    jangbu::v1::{self, AppliedAt, ReadAt, ledger_client::LedgerClient},
    reason,
    transport::{CLIENT_REPLY_BYTES_MAX, Channel, Http2Settings, TcpTransport, Transport},
};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::{
    ClientError, Gatherer, Ids, LookupGatherer, PackedStream, StreamConfig,
    endpoints::Endpoints,
    environment::{Clock, Entropy, system_clock, system_entropy},
    records::{self, Record, settle},
    retry::{Answered, Budget, Caller, Effect, Failed, Patience},
};

/// How a client behaves, and what it stands on.
#[derive(Clone)]
pub struct ClientConfig {
    /// How long a call may take, all attempts together.
    pub deadline: Duration,
    /// How long one attempt may take before another node is asked. Below the deadline, else a node that hangs uses it up.
    pub attempt_deadline: Duration,
    /// The most attempts of one call.
    pub attempts_max: u32,
    /// How fresh reads must be.
    pub consistency: Consistency,
    pub http2: Http2Settings,
    pub transport: Arc<dyn Transport>,
    pub clock: Clock,
    pub entropy: Entropy,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            attempt_deadline: Duration::from_secs(2),
            // Three nodes at once, then pauses that add up to about two seconds.
            attempts_max: 12,
            consistency: Consistency::Linearizable,
            http2: Http2Settings::default(),
            transport: Arc::new(TcpTransport),
            clock: system_clock(),
            entropy: system_entropy(),
        }
    }
}

/// A client of one cluster. Cheap to clone: clones share connections, retry budget, ids and session.
///
/// Requests of 1 to [`EVENTS_MAX`](crate::EVENTS_MAX) events or ids; anything else is [`ClientError::Refused`]. Every call may wait for nodes, up to the
/// deadline. Dropping a call's future gives up waiting and leaves its outcome unknown.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
    consistency: Consistency,
}

struct Shared {
    caller: Caller,
    ids: Ids,
    attempt_deadline: Duration,
    attempts_max: u32,
    /// The highest log index in an answer so far.
    seen: AtomicU64,
}

/// The answer to a request to create: one result per event, in the order asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created<S> {
    /// Where in the log it was applied. After a doubt that is where it was asked again.
    pub at: AppliedAt,
    pub results: Vec<CreateResult<S>>,
}

/// The answer to a read, and how fresh it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    pub at: ReadAt,
    pub value: T,
}

/// Part of what matches a filter, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Zero: nothing was left out but what is beyond the filter's limit. Otherwise the scan stopped at its bound: everything
    /// up to this timestamp (down to it, when reversed) is here; go on from the next one.
    pub scanned_to: u64,
}

/// What has become of a transfer, as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was carried out.
    Recorded(Transfer),
    /// It hasn't been carried out so far. A request that is still under way may yet do it.
    NotRecorded(TransferId),
}

/// What a client has seen of the books. Handed to another client, it makes that one see as much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionToken {
    pub log_index: u64,
}

impl Client {
    /// A client of the nodes at `endpoints` (client doors, host:port), of which the first is asked first. Connects to none of
    /// them yet. Refuses what is no address.
    pub fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        config: ClientConfig,
    ) -> Result<Self, ClientError> {
        let endpoints = Endpoints::new(endpoints.into_iter().map(Into::into), &config.transport, &config.http2)
            .map_err(ClientError::Refused)?;
        let shared = Shared {
            caller: Caller { endpoints, entropy: config.entropy.clone(), budget: Budget::full() },
            ids: Ids::new(config.clock, config.entropy),
            attempt_deadline: config.attempt_deadline,
            attempts_max: config.attempts_max,
            seen: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), deadline: config.deadline, consistency: config.consistency })
    }

    /// The same client with another deadline for each call.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same client, whose reads are as fresh as this.
    pub fn with_consistency(&self, consistency: Consistency) -> Self {
        Self { consistency, ..self.clone() }
    }

    /// A new id, above all that this client made before.
    pub fn next_id(&self) -> u128 {
        self.shared.ids.next()
    }

    /// What this client has seen so far.
    pub fn session(&self) -> SessionToken {
        SessionToken { log_index: self.shared.seen.load(Ordering::Relaxed) }
    }

    /// From now on reads of bounded staleness show no less than this. Linearizable reads show everything anyway; local ones
    /// promise nothing.
    pub fn observe(&self, token: SessionToken) {
        self.shared.seen.fetch_max(token.log_index, Ordering::Relaxed);
    }

    /// A stream for many requests in flight. Connects when it is first used.
    pub fn stream(&self, config: StreamConfig) -> PackedStream {
        PackedStream::open(self.clone(), config)
    }

    /// Gathers the single transfers of many tasks into packed requests, at most `config.window` of them in flight.
    pub fn gather(&self, config: StreamConfig) -> Gatherer {
        Gatherer::open(self.clone(), config)
    }

    /// Gathers the single lookups of many tasks into lookups of many, at most `window` of them in flight. They are as fresh, and may
    /// take as long, as those of this client.
    pub fn gather_lookups(&self, window: usize) -> LookupGatherer {
        LookupGatherer::open(self.clone(), window)
    }

    // --- writes

    /// Creates accounts. A repeated id answers `exists`, or names the first field that differs.
    pub async fn create_accounts(&self, accounts: &[Account]) -> Result<Created<CreateAccountStatus>, ClientError> {
        let until = Instant::now() + self.deadline;
        let ask = |mut door: Door, limit| {
            let request = within(limit, convert::accounts_to_wire(accounts));
            async move { door.create_accounts(request).await.map(Response::into_inner) }
        };
        let answered = self.write(accounts, ask).await?;
        let mut created = self.created(answered.value.applied_at, &answered.value.results, accounts.len())?;
        let open = open_after_repeat(accounts, &created.results, answered.after_doubt);
        if !open.is_empty() {
            let ids: Vec<_> = open.iter().map(|index| accounts[*index].id).collect();
            let found =
                self.to_settle(until).lookup_accounts(&ids).await.map_err(|error| unsettled(accounts, error))?;
            settle(accounts, &open, &found.value, &mut created.results);
        }
        Ok(created)
    }

    /// Creates transfers. A repeated id answers `exists`, or names the first field that differs; one that was refused for a
    /// passing reason before answers `id_already_failed`.
    pub async fn create_transfers(&self, transfers: &[Transfer]) -> Result<Created<CreateTransferStatus>, ClientError> {
        let until = Instant::now() + self.deadline;
        let mut attempts_count = 0;
        let ask = |mut door: Door, limit| {
            attempts_count += 1;
            let message = match planted::is(Bug::RetryUnderNewId) && attempts_count > 1 {
                true => convert::transfers_to_wire(&under_new_ids(transfers, attempts_count)),
                false => convert::transfers_to_wire(transfers),
            };
            let request = within(limit, message);
            async move { door.create_transfers(request).await.map(Response::into_inner) }
        };
        let answered = self.write(transfers, ask).await?;
        let mut created = self.created(answered.value.applied_at, &answered.value.results, transfers.len())?;
        let open = open_after_repeat(transfers, &created.results, answered.after_doubt);
        if !open.is_empty() {
            let ids: Vec<_> = open.iter().map(|index| transfers[*index].id).collect();
            let found =
                self.to_settle(until).lookup_transfers(&ids).await.map_err(|error| unsettled(transfers, error))?;
            settle(transfers, &open, &found.value, &mut created.results);
        }
        Ok(created)
    }

    async fn write<R: Record, T, F>(
        &self,
        events: &[R],
        mut ask: impl FnMut(Door, Duration) -> F,
    ) -> Result<Answered<T>, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let ask = |channel, limit| ask(door(channel), limit);
        let answered = self.shared.caller.call(self.patience(), Effect::Once, ask).await;
        answered.map_err(|failed| failed.of_write(|| events.iter().map(Record::id).collect()))
    }

    fn created<S: CreateStatus>(
        &self,
        at: Option<AppliedAt>,
        results: &[v1::Result],
        events_count: usize,
    ) -> Result<Created<S>, ClientError> {
        let at = at.ok_or_else(|| missing("applied_at"))?;
        let results = convert::results(results, events_count).map_err(ClientError::Unintelligible)?;
        self.observe(SessionToken { log_index: at.log_index });
        Ok(Created { at, results })
    }

    /// For the lookup at the end of a repeated request, in what is left of its time.
    fn to_settle(&self, until: Instant) -> Self {
        let left = until.saturating_duration_since(Instant::now());
        Self { deadline: left, consistency: Consistency::Linearizable, ..self.clone() }
    }

    // --- reads

    /// Accounts by id, in the order asked; an absent id returns nothing for it.
    pub async fn lookup_accounts(&self, ids: &[AccountId]) -> Result<Read<Vec<Account>>, ClientError> {
        let ask = |mut door: Door, limit, read| {
            let ids = convert::ids_to_wire(ids.iter().map(|id| id.0));
            let request = within(limit, v1::LookupAccountsRequest { ids, read });
            async move { door.lookup_accounts(request).await.map(Response::into_inner) }
        };
        self.read(ask, |reply| convert::accounts(&reply.accounts)).await
    }

    /// Transfers by id, in the order asked; an absent id returns nothing for it.
    pub async fn lookup_transfers(&self, ids: &[TransferId]) -> Result<Read<Vec<Transfer>>, ClientError> {
        let ask = |mut door: Door, limit, read| {
            let ids = convert::ids_to_wire(ids.iter().map(|id| id.0));
            let request = within(limit, v1::LookupTransfersRequest { ids, read });
            async move { door.lookup_transfers(request).await.map(Response::into_inner) }
        };
        self.read(ask, |reply| convert::transfers(&reply.transfers)).await
    }

    /// The transfers of one account.
    pub async fn get_account_transfers(&self, filter: &AccountFilter) -> Result<Read<Page<Transfer>>, ClientError> {
        let filter = Some(convert::account_filter_to_wire(filter));
        let ask = |mut door: Door, limit, read| {
            let request = within(limit, v1::GetAccountTransfersRequest { filter, read });
            async move { door.get_account_transfers(request).await.map(Response::into_inner) }
        };
        self.read(ask, transfers_page).await
    }

    /// The balances of one account after each of its transfers; empty for accounts without the flag `history`.
    pub async fn get_account_balances(
        &self,
        filter: &AccountFilter,
    ) -> Result<Read<Page<AccountBalance>>, ClientError> {
        let filter = Some(convert::account_filter_to_wire(filter));
        let ask = |mut door: Door, limit, read| {
            let request = within(limit, v1::GetAccountBalancesRequest { filter, read });
            async move { door.get_account_balances(request).await.map(Response::into_inner) }
        };
        let page = |reply: &v1::AccountBalancesReply| {
            Ok(Page { items: convert::balances(&reply.balances), scanned_to: reply.scanned_to })
        };
        self.read(ask, page).await
    }

    /// Accounts by their attributes.
    pub async fn query_accounts(&self, filter: &QueryFilter) -> Result<Read<Vec<Account>>, ClientError> {
        let filter = Some(convert::query_filter_to_wire(filter));
        let ask = |mut door: Door, limit, read| {
            let request = within(limit, v1::QueryAccountsRequest { filter, read });
            async move { door.query_accounts(request).await.map(Response::into_inner) }
        };
        self.read(ask, |reply| convert::accounts(&reply.accounts)).await
    }

    /// Transfers by their attributes.
    pub async fn query_transfers(&self, filter: &QueryFilter) -> Result<Read<Page<Transfer>>, ClientError> {
        let filter = Some(convert::query_filter_to_wire(filter));
        let ask = |mut door: Door, limit, read| {
            let request = within(limit, v1::QueryTransfersRequest { filter, read });
            async move { door.query_transfers(request).await.map(Response::into_inner) }
        };
        self.read(ask, transfers_page).await
    }

    /// What happened, gap-free and in the order in which it happened. To follow it, ask again from the last timestamp + 1.
    pub async fn get_change_events(&self, filter: &ChangeEventsFilter) -> Result<Read<Vec<ChangeEvent>>, ClientError> {
        let filter = Some(convert::change_events_filter_to_wire(filter));
        let ask = |mut door: Door, limit, read| {
            let request = within(limit, v1::GetChangeEventsRequest { filter, read });
            async move { door.get_change_events(request).await.map(Response::into_inner) }
        };
        self.read(ask, |reply| convert::change_events(&reply.events)).await
    }

    /// What has become of transfers whose outcome is unknown, in the order asked; always linearizable.
    ///
    /// `NotRecorded` isn't final while a request may still be under way. What settles it is to ask for the transfer again,
    /// under the same id ([`create_transfers`](Self::create_transfers)).
    pub async fn resolve(&self, ids: &[TransferId]) -> Result<Vec<Fate>, ClientError> {
        let found = self.with_consistency(Consistency::Linearizable).lookup_transfers(ids).await?.value;
        // Found ones come in the order asked, so each id is either the next found or not there.
        let mut found = found.into_iter().peekable();
        let fate = |id: &TransferId| match found.next_if(|transfer| transfer.id == *id) {
            Some(transfer) => Fate::Recorded(transfer),
            None => Fate::NotRecorded(*id),
        };
        Ok(ids.iter().map(fate).collect())
    }

    async fn read<W: ReadReply, T, F>(
        &self,
        mut ask: impl FnMut(Door, Duration, Option<v1::ReadOptions>) -> F,
        value: impl FnOnce(&W) -> Result<T, Malformed>,
    ) -> Result<Read<T>, ClientError>
    where
        F: Future<Output = Result<W, Status>>,
    {
        let read = Some(convert::consistency_to_wire(self.consistency));
        let floor = match self.consistency {
            Consistency::BoundedStaleness(_) => self.session(),
            Consistency::Linearizable | Consistency::Local => SessionToken::default(),
        };
        let ask = |channel, limit| {
            let asked = ask(door(channel), limit, read);
            async move { asked.await.and_then(|reply| not_before(floor, reply)) }
        };
        let answered = self.shared.caller.call(self.patience(), Effect::None, ask).await;
        let reply = answered.map_err(Failed::of_read)?.value;
        let at = reply.read_at().ok_or_else(|| missing("read_at"))?;
        self.observe(SessionToken { log_index: at.log_index });
        Ok(Read { at, value: value(&reply).map_err(ClientError::Unintelligible)? })
    }

    // --- shared with the packed stream

    pub(crate) fn caller(&self) -> &Caller {
        &self.shared.caller
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience {
            deadline: self.deadline,
            attempt_deadline: self.shared.attempt_deadline,
            attempts_max: self.shared.attempts_max,
        }
    }
}

pub(crate) type Door = LedgerClient<Channel>;

pub(crate) fn door(channel: Channel) -> Door {
    LedgerClient::new(channel).max_decoding_message_size(CLIENT_REPLY_BYTES_MAX)
}

/// The node is told how long it has, and drops what it can't begin in time.
pub(crate) fn within<M>(limit: Duration, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn transfers_page(reply: &v1::TransfersReply) -> Result<Page<Transfer>, Malformed> {
    Ok(Page { items: convert::transfers(&reply.transfers)?, scanned_to: reply.scanned_to })
}

fn missing(field: &str) -> ClientError {
    ClientError::Unintelligible(Malformed::new(field, "is missing"))
}

/// A node that is behind what this client has seen is asked no further.
fn not_before<W: ReadReply>(floor: SessionToken, reply: W) -> Result<W, Status> {
    match reply.read_at() {
        Some(at) if at.log_index < floor.log_index => {
            let message = format!("read at index {}, which is before {} seen earlier", at.log_index, floor.log_index);
            Err(reason::status(Code::Unavailable, reason::STALE, message))
        }
        _ => Ok(reply),
    }
}

/// A mistake that is planted: whoever retries so pays twice.
fn under_new_ids(transfers: &[Transfer], attempt: u32) -> Vec<Transfer> {
    let renewed =
        |transfer: &Transfer| Transfer { id: TransferId(transfer.id.0 ^ u128::from(attempt) << 96), ..*transfer };
    transfers.iter().map(renewed).collect()
}

/// Only a repeated request can have met its own chain.
fn open_after_repeat<R: Record>(events: &[R], results: &[CreateResult<R::Status>], repeated: bool) -> Vec<usize> {
    if repeated { records::open_after_repeat(events, results) } else { Vec::new() }
}

/// It was asked again, and yet can't be told: the ids have to be asked for once more.
fn unsettled<R: Record>(events: &[R], error: ClientError) -> ClientError {
    ClientError::OutcomeUnknown { ids: events.iter().map(Record::id).collect(), message: error.to_string() }
}

/// A reply that says how fresh it is.
trait ReadReply {
    fn read_at(&self) -> Option<ReadAt>;
}

impl ReadReply for v1::AccountsReply {
    fn read_at(&self) -> Option<ReadAt> {
        self.read_at
    }
}

impl ReadReply for v1::TransfersReply {
    fn read_at(&self) -> Option<ReadAt> {
        self.read_at
    }
}

impl ReadReply for v1::AccountBalancesReply {
    fn read_at(&self) -> Option<ReadAt> {
        self.read_at
    }
}

impl ReadReply for v1::ChangeEventsReply {
    fn read_at(&self) -> Option<ReadAt> {
        self.read_at
    }
}

#[cfg(test)]
mod tests;
