//! A network in memory, and nodes on it that keep real books and otherwise do what a test tells them.
//!
//! The nodes share their books, as replicas of one cluster do. A test lays down in advance what a node does with the next
//! requests ([`Act`]); after that it answers. Time stands still while anything can run (tokio's paused clock).

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use jangbu_ledger::{Account, AccountId, Amount, Books, Transfer, TransferId};
use jangbu_proto::{
    batch::{Operation, Replies, RepliesBuilder, ReplyView},
    cluster::v1 as cluster,
    convert,
    jangbu::v1::{
        self,
        ledger_server::{Ledger, LedgerServer},
        submit_reply::Outcome,
    },
    reason,
    transport::{Http2Settings, Io, Listener, Transport, door, serve},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{Client, ClientConfig};

// --- the network

#[derive(Clone, Default)]
pub(crate) struct Network {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<Io>>>>,
}

impl Transport for Network {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        let (calls, called) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().insert(address.clone(), calls);
        let incoming = stream::unfold(called, |mut called| async move { Some((called.recv().await?.into(), called)) });
        Box::pin(async move { Ok(Listener { address, incoming: incoming.boxed() }) })
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        let (here, there) = tokio::io::duplex(1 << 20);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let called = match self.listeners.lock().unwrap().get(&address) {
            Some(calls) => calls.send(Box::new(there)).map_err(|_| refused()),
            None => Err(refused()),
        };
        Box::pin(async move { called.map(|()| Box::new(here) as Io) })
    }
}

// --- the cluster

/// What a node does with a request to create.
#[derive(Clone)]
pub(crate) enum Act {
    /// Fails, and does nothing.
    Fail(Status),
    /// Carries it out, and fails.
    DoAndFail(Status),
    /// Carries it out, and is gone before it answers.
    DoAndDie,
    /// Does nothing, ever.
    Hang,
    /// Carries it out after this time, when nobody waits for it any more, and never answers.
    DoLate(Duration),
}

pub(crate) fn no_leader() -> Status {
    reason::status(Code::Unavailable, reason::NO_LEADER, "no leader is known")
}

pub(crate) fn unknown() -> Status {
    reason::outcome_unknown("the leader is gone", [].into_iter())
}

/// Acts drawn from a seed: mostly faults that are over soon, of every kind.
pub(crate) fn drawn_acts(seed: u64, count: usize) -> Vec<Act> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let mut act = || match draw(8) {
        0 => Act::Fail(no_leader()),
        1 => Act::Fail(reason::overloaded("full", Duration::from_millis(1 + draw(300)))),
        2 => Act::Fail(unknown()),
        3 => Act::DoAndFail(unknown()),
        4 => Act::DoAndFail(Status::unknown("something in between broke")),
        5 => Act::DoAndDie,
        6 => Act::Hang,
        _ => Act::DoLate(Duration::from_millis(draw(4_000))),
    };
    (0..count).map(|_| act()).collect()
}

/// Nodes at n1:1, n2:1, … with one set of books, in which accounts 1 and 2 are open.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    books: Arc<Mutex<Ledgerbook>>,
}

/// What replicas have in common.
struct Ledgerbook {
    books: Books,
    log_index: u64,
}

#[derive(Clone)]
pub(crate) struct Node {
    state: Arc<Mutex<NodeState>>,
    books: Arc<Mutex<Ledgerbook>>,
}

#[derive(Default)]
struct NodeState {
    acts: VecDeque<Act>,
    asked: Vec<Asked>,
    lookups_count: usize,
    /// Log indexes that this node is behind.
    lag: u64,
    serving: Option<JoinHandle<()>>,
}

/// A request to create, as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) records: Bytes,
    pub(crate) timeout: Option<String>,
}

impl Cluster {
    pub(crate) async fn start(nodes_count: usize) -> Self {
        let mut books = Books::new();
        let account = |id| Account { id: AccountId(id), ledger: 1, code: 1, ..Account::default() };
        books.create_accounts(1_000, &[account(1), account(2)], &mut Vec::new());
        let books = Arc::new(Mutex::new(Ledgerbook { books, log_index: 100 }));
        let node = |_| Node { state: Arc::default(), books: books.clone() };
        let mut cluster = Self { network: Network::default(), nodes: (0..nodes_count).map(node).collect(), books };
        for index in 0..nodes_count {
            cluster.start_node(index).await;
        }
        cluster
    }

    /// Starts a node, or starts it anew with nothing laid down for it.
    pub(crate) async fn start_node(&mut self, index: usize) {
        self.nodes[index].lock().acts.clear();
        let listener = self.network.listen(address(index)).await.expect("memory has room");
        let node = self.nodes[index].clone();
        let settings = Http2Settings::default();
        let service = LedgerServer::new(node.clone());
        let operator = cluster::operator_server::OperatorServer::new(node.clone());
        let door = door(&settings).add_service(service).add_service(operator);
        let serving = async move {
            let forever = std::future::pending();
            serve(door, listener, &settings, Arc::default(), forever, Duration::ZERO).await.expect("nothing ends it");
        };
        self.nodes[index].lock().serving = Some(tokio::spawn(serving));
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let state = Mutex::new(7u64);
        let entropy = move || {
            let mut state = state.lock().unwrap();
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *state ^ (*state >> 33)
        };
        ClientConfig {
            transport: Arc::new(self.network.clone()),
            clock: Arc::new(|| 1_700_000_000_000_000_000),
            entropy: Arc::new(entropy),
            ..ClientConfig::default()
        }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..self.nodes.len()).map(address).collect()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addresses(), self.config()).expect("these are addresses")
    }

    pub(crate) fn recorded(&self, id: u128) -> bool {
        self.books.lock().unwrap().books.recent_id(TransferId(id)).is_some()
    }

    /// What was moved from account 1 to account 2.
    pub(crate) fn moved(&self) -> Amount {
        self.books.lock().unwrap().books.account(AccountId(1)).expect("it is open").debits_posted
    }
}

fn address(index: usize) -> String {
    format!("n{}:1", index + 1)
}

impl Node {
    /// What it does with the next requests to create.
    pub(crate) fn will(&self, acts: impl IntoIterator<Item = Act>) {
        self.lock().acts.extend(acts);
    }

    /// The requests to create that reached it.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// How many requests to look accounts up reached it.
    pub(crate) fn lookups_count(&self) -> usize {
        self.lock().lookups_count
    }

    pub(crate) fn lags(&self, indexes: u64) {
        self.lock().lag = indexes;
    }

    /// All its connections break, and new ones are refused.
    pub(crate) fn die(&self) {
        if let Some(serving) = self.lock().serving.take() {
            serving.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap()
    }

    async fn create(&self, operation: Operation, asked: Asked) -> Result<(v1::AppliedAt, ReplyView), Status> {
        let records = asked.records.clone();
        let act = {
            let mut state = self.lock();
            state.asked.push(asked);
            state.acts.pop_front()
        };
        match act {
            None => Ok(self.carry_out(operation, &records)),
            Some(Act::Fail(status)) => Err(status),
            Some(Act::DoAndFail(status)) => {
                self.carry_out(operation, &records);
                Err(status)
            }
            Some(Act::DoAndDie) => {
                self.carry_out(operation, &records);
                self.die();
                std::future::pending().await
            }
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::DoLate(delay)) => {
                let node = self.clone();
                tokio::spawn(async move {
                    sleep(delay).await;
                    node.carry_out(operation, &records)
                });
                std::future::pending().await
            }
        }
    }

    fn carry_out(&self, operation: Operation, records: &Bytes) -> (v1::AppliedAt, ReplyView) {
        let mut guard = self.books.lock().unwrap();
        let Ledgerbook { books, log_index } = &mut *guard;
        *log_index += 1;
        let mut replies = RepliesBuilder::new();
        let time = books.head().last_timestamp + 10_000;
        match operation {
            Operation::CreateAccounts => {
                let events: Vec<_> = convert::unpack_accounts(records).collect();
                let mut results = Vec::new();
                books.create_accounts(time, &events, &mut results);
                replies.push(time, results.iter().map(convert::answer));
            }
            Operation::CreateTransfers => {
                let events: Vec<_> = convert::unpack_transfers(records).collect();
                let mut results = Vec::new();
                books.create_transfers(time, &events, &mut results);
                replies.push(time, results.iter().map(convert::answer));
            }
        }
        let reply = Replies::parse(replies.finish()).expect("it was built so").into_views().remove(0);
        (convert::applied_at(*log_index, 1, &reply), reply)
    }

    fn read_at(&self) -> v1::ReadAt {
        let log_index = self.books.lock().unwrap().log_index - self.lock().lag;
        v1::ReadAt { log_index, term: 1, timestamp: 0, staleness_ns: 0 }
    }
}

fn asked<M>(request: &Request<M>, records: Bytes) -> Asked {
    let timeout = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
    Asked { at: Instant::now(), records, timeout }
}

#[tonic::async_trait]
impl Ledger for Node {
    async fn create_accounts(
        &self,
        request: Request<v1::CreateAccountsRequest>,
    ) -> Result<Response<v1::CreateAccountsReply>, Status> {
        let records = convert::pack_accounts(request.get_ref()).map_err(|refusal| reason::malformed(&refusal))?;
        let (at, reply) = self.create(Operation::CreateAccounts, asked(&request, records)).await?;
        Ok(Response::new(convert::create_accounts_reply(at, &reply)))
    }

    async fn create_transfers(
        &self,
        request: Request<v1::CreateTransfersRequest>,
    ) -> Result<Response<v1::CreateTransfersReply>, Status> {
        let records = convert::pack_transfers(request.get_ref()).map_err(|refusal| reason::malformed(&refusal))?;
        let (at, reply) = self.create(Operation::CreateTransfers, asked(&request, records)).await?;
        Ok(Response::new(convert::create_transfers_reply(at, &reply)))
    }

    async fn lookup_accounts(
        &self,
        request: Request<v1::LookupAccountsRequest>,
    ) -> Result<Response<v1::AccountsReply>, Status> {
        self.lock().lookups_count += 1;
        let ids = convert::ids(&request.get_ref().ids).map_err(|refusal| reason::malformed(&refusal))?;
        let guard = self.books.lock().unwrap();
        let found: Vec<Account> = ids.iter().filter_map(|id| guard.books.account(AccountId(*id)).copied()).collect();
        drop(guard);
        Ok(Response::new(convert::accounts_reply(self.read_at(), &found)))
    }

    async fn lookup_transfers(
        &self,
        request: Request<v1::LookupTransfersRequest>,
    ) -> Result<Response<v1::TransfersReply>, Status> {
        let ids = convert::ids(&request.get_ref().ids).map_err(|refusal| reason::malformed(&refusal))?;
        let guard = self.books.lock().unwrap();
        let found: Vec<Transfer> = ids.iter().filter_map(|id| recorded(&guard.books, *id)).collect();
        drop(guard);
        Ok(Response::new(convert::transfers_reply(self.read_at(), &found, 0)))
    }

    async fn get_account_transfers(
        &self,
        request: Request<v1::GetAccountTransfersRequest>,
    ) -> Result<Response<v1::TransfersReply>, Status> {
        convert::account_filter(request.get_ref().filter.as_ref()).map_err(|refusal| reason::malformed(&refusal))?;
        Ok(Response::new(convert::transfers_reply(self.read_at(), &[], 77)))
    }

    async fn get_account_balances(
        &self,
        _: Request<v1::GetAccountBalancesRequest>,
    ) -> Result<Response<v1::AccountBalancesReply>, Status> {
        Ok(Response::new(convert::balances_reply(self.read_at(), &[], 0)))
    }

    async fn query_accounts(
        &self,
        _: Request<v1::QueryAccountsRequest>,
    ) -> Result<Response<v1::AccountsReply>, Status> {
        Ok(Response::new(convert::accounts_reply(self.read_at(), &[])))
    }

    async fn query_transfers(
        &self,
        _: Request<v1::QueryTransfersRequest>,
    ) -> Result<Response<v1::TransfersReply>, Status> {
        Ok(Response::new(convert::transfers_reply(self.read_at(), &[], 0)))
    }

    async fn get_change_events(
        &self,
        _: Request<v1::GetChangeEventsRequest>,
    ) -> Result<Response<v1::ChangeEventsReply>, Status> {
        // A node of another version.
        Ok(Response::new(v1::ChangeEventsReply { read_at: None, events: Vec::new() }))
    }

    type SubmitStream = BoxStream<'static, Result<v1::SubmitReply, Status>>;

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let node = self.clone();
        let requests = request.into_inner();
        let replies = requests.map(move |request| {
            let node = node.clone();
            async move { node.submitted(request?).await }
        });
        // In flight side by side, answered in whatever order.
        Ok(Response::new(replies.buffer_unordered(64).boxed()))
    }
}

impl Node {
    async fn submitted(&self, request: v1::SubmitRequest) -> Result<v1::SubmitReply, Status> {
        let tag = request.tag;
        let (operation, records) = convert::submitted(request).expect("the client checks first");
        let asked = Asked { at: Instant::now(), records, timeout: None };
        let outcome = match self.create(operation, asked).await {
            Ok((at, reply)) => Outcome::Applied(convert::applied(at, &reply)),
            Err(status) => Outcome::Failure(reason::failure(&status)),
        };
        Ok(v1::SubmitReply { tag, outcome: Some(outcome) })
    }
}

fn recorded(books: &Books, id: u128) -> Option<Transfer> {
    match books.recent_id(TransferId(id))? {
        jangbu_ledger::IdState::Event(number) => books.recent_event(number).map(|event| event.transfer),
        jangbu_ledger::IdState::Burnt => None,
    }
}

/// Each call is treated as a request to create that has no records.
#[tonic::async_trait]
impl cluster::operator_server::Operator for Node {
    async fn status(&self, _: Request<cluster::StatusRequest>) -> Result<Response<cluster::StatusReply>, Status> {
        Ok(Response::new(cluster::StatusReply { role: "Leader".into(), ..Default::default() }))
    }

    async fn initialize(
        &self,
        request: Request<cluster::InitializeRequest>,
    ) -> Result<Response<cluster::MembershipReply>, Status> {
        self.operated(&request).await
    }

    async fn add_member(
        &self,
        request: Request<cluster::AddMemberRequest>,
    ) -> Result<Response<cluster::MembershipReply>, Status> {
        self.operated(&request).await
    }

    async fn update_member(
        &self,
        request: Request<cluster::UpdateMemberRequest>,
    ) -> Result<Response<cluster::MembershipReply>, Status> {
        self.operated(&request).await
    }

    async fn promote_member(
        &self,
        request: Request<cluster::PromoteMemberRequest>,
    ) -> Result<Response<cluster::MembershipReply>, Status> {
        self.operated(&request).await
    }

    async fn remove_member(
        &self,
        request: Request<cluster::RemoveMemberRequest>,
    ) -> Result<Response<cluster::MembershipReply>, Status> {
        self.operated(&request).await
    }

    async fn move_leader(
        &self,
        request: Request<cluster::MoveLeaderRequest>,
    ) -> Result<Response<cluster::MoveLeaderReply>, Status> {
        self.operated(&request).await
    }

    async fn verify(&self, request: Request<cluster::VerifyRequest>) -> Result<Response<cluster::VerifyReply>, Status> {
        self.operated(&request).await
    }

    async fn take_snapshot(
        &self,
        request: Request<cluster::TakeSnapshotRequest>,
    ) -> Result<Response<cluster::TakeSnapshotReply>, Status> {
        self.operated(&request).await
    }

    type ReadSnapshotStream = BoxStream<'static, Result<cluster::ReadSnapshotReply, Status>>;

    async fn read_snapshot(
        &self,
        _: Request<Streaming<cluster::ReadSnapshotRequest>>,
    ) -> Result<Response<Self::ReadSnapshotStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    type ReadLogStream = BoxStream<'static, Result<cluster::ReadLogReply, Status>>;

    async fn read_log(&self, _: Request<cluster::ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn record_backup(
        &self,
        request: Request<cluster::RecordBackupRequest>,
    ) -> Result<Response<cluster::AuditRecord>, Status> {
        self.operated(&request).await
    }

    async fn identify(
        &self,
        request: Request<cluster::IdentifyRequest>,
    ) -> Result<Response<cluster::IdentifyReply>, Status> {
        self.operated(&request).await
    }

    async fn drain(&self, request: Request<cluster::DrainRequest>) -> Result<Response<cluster::DrainReply>, Status> {
        self.operated(&request).await
    }

    async fn finalize_upgrade(
        &self,
        request: Request<cluster::FinalizeUpgradeRequest>,
    ) -> Result<Response<cluster::FinalizeUpgradeReply>, Status> {
        self.operated(&request).await
    }

    async fn create_token(
        &self,
        request: Request<cluster::CreateTokenRequest>,
    ) -> Result<Response<cluster::AuditRecord>, Status> {
        self.operated(&request).await
    }

    async fn revoke_token(
        &self,
        request: Request<cluster::RevokeTokenRequest>,
    ) -> Result<Response<cluster::AuditRecord>, Status> {
        self.operated(&request).await
    }

    async fn list_tokens(
        &self,
        request: Request<cluster::ListTokensRequest>,
    ) -> Result<Response<cluster::ListTokensReply>, Status> {
        self.operated(&request).await
    }

    async fn audit(&self, request: Request<cluster::AuditRequest>) -> Result<Response<cluster::AuditReply>, Status> {
        self.operated(&request).await
    }
}

impl Node {
    async fn operated<M, R: Default>(&self, request: &Request<M>) -> Result<Response<R>, Status> {
        let act = {
            let mut state = self.lock();
            state.asked.push(asked(request, Bytes::new()));
            state.acts.pop_front()
        };
        match act {
            None => Ok(Response::new(R::default())),
            Some(Act::Fail(status) | Act::DoAndFail(status)) => Err(status),
            Some(Act::DoAndDie) => {
                self.die();
                std::future::pending().await
            }
            Some(Act::Hang | Act::DoLate(_)) => std::future::pending().await,
        }
    }
}

/// A payment from account 1 to account 2.
pub(crate) fn payment(id: u128, amount: u128) -> Transfer {
    Transfer {
        id: TransferId(id),
        debit_account_id: AccountId(1),
        credit_account_id: AccountId(2),
        amount: Amount(amount),
        ledger: 1,
        code: 1,
        ..Transfer::default()
    }
}
