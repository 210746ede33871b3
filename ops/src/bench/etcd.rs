//! etcd in the comparison: a ledger as one would write it on a store of keys.
//!
//! An account is a key with its balances, a transfer a key under its id. A request reads its accounts, and then writes them
//! and its transfers in one transaction, on the condition that nobody has changed an account since and that no id was used;
//! otherwise it begins again. Two round trips at best.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tonic::transport::{Channel, Endpoint};

use super::jangbu::one_found;
use super::process::Process;
use super::row::{Freshness, Mix, Payment, Request, Row, Work};
use super::system::{Caller, System};
use crate::dev::folder::free_ports;
use crate::error::{During as _, Failure};

#[allow(clippy::all, unreachable_pub, reason = "generated")]
mod wire {
    tonic::include_proto!("etcdserverpb");
}
use wire::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op, response_op};

type Kv = wire::kv_client::KvClient<Channel>;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a caller goes on with other members.
const PATIENCE: Duration = Duration::from_secs(20);
const REPLICAS: usize = 3;
/// As many callers share a connection.
const CALLERS_PER_CONNECTION: u32 = 32;
/// Beyond it etcd refuses a transaction; larger ones block everything else for long.
const TRANSFERS_MAX: u32 = 10;
const ACCOUNTS_PER_TRANSACTION: u64 = 100;

pub struct Etcd {
    folder: PathBuf,
    client_ports: Vec<u16>,
    peer_ports: Vec<u16>,
    processes: Vec<Option<Process>>,
    killed: Option<usize>,
    next_caller: AtomicU64,
}

impl Etcd {
    pub async fn start(folder: &Path) -> Result<Etcd, Failure> {
        let mut ports = free_ports(2 * REPLICAS).during(|| "looking for free ports".into())?;
        let peer_ports = ports.split_off(REPLICAS);
        let mut etcd = Etcd {
            folder: folder.to_path_buf(),
            client_ports: ports,
            peer_ports,
            processes: (0..REPLICAS).map(|_| None).collect(),
            killed: None,
            next_caller: AtomicU64::new(1),
        };
        for replica in 0..REPLICAS {
            etcd.spawn(replica)?;
        }
        for replica in 0..REPLICAS {
            etcd.until_it_serves(replica).await?;
        }
        Ok(etcd)
    }

    /// As its documentation has it for a small cluster; every write is synced. Room for what a run leaves behind.
    fn spawn(&mut self, replica: usize) -> Result<(), Failure> {
        let address = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> =
            (0..REPLICAS).map(|other| format!("replica-{other}={}", address(self.peer_ports[other]))).collect();
        let (client, peer) = (address(self.client_ports[replica]), address(self.peer_ports[replica]));
        let name = format!("replica-{replica}");
        let data = self.folder.join(&name).display().to_string();
        let arguments = [
            ["--name", &name],
            ["--data-dir", &data],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &cluster.join(",")],
            ["--initial-cluster-state", "new"],
            ["--quota-backend-bytes", "8589934592"],
            ["--max-txn-ops", "1024"],
            ["--log-level", "error"],
        ];
        let log = self.folder.join(format!("{name}.log"));
        let process = Process::start(Path::new("etcd"), arguments.as_flattened(), &self.folder, &log, None)
            .map_err(|failure| failure.advise("apt-get install etcd-server, or leave it out with --systems"))?;
        self.processes[replica] = Some(process);
        Ok(())
    }

    async fn connect(&self, replica: usize) -> Result<Channel, tonic::transport::Error> {
        let address = format!("http://127.0.0.1:{}", self.client_ports[replica]);
        Endpoint::from_shared(address)?.tcp_nodelay(true).connect().await
    }

    async fn until_it_serves(&self, replica: usize) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            // A linearizable read: it has a leader, and has caught up with it.
            if let Ok(channel) = self.connect(replica).await
                && Kv::new(channel).range(RangeRequest { key: "-".into(), ..RangeRequest::default() }).await.is_ok()
            {
                return Ok(());
            }
            if began.elapsed() > START_TIMEOUT {
                let log = self.folder.join(format!("replica-{replica}.log"));
                return Err(Failure::general("etcd does not serve").advise(format!("read {}", log.display())));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn leader(&self) -> Result<usize, Failure> {
        for replica in 0..REPLICAS {
            let Ok(channel) = self.connect(replica).await else { continue };
            let mut door = wire::maintenance_client::MaintenanceClient::new(channel);
            if let Ok(status) = door.status(wire::StatusRequest {}).await.map(tonic::Response::into_inner)
                && status.header.is_some_and(|header| header.member_id == status.leader)
            {
                return Ok(replica);
            }
        }
        Err(Failure::general("no member of etcd says that it leads"))
    }

    async fn kill(&mut self, leads: bool) -> Result<(), Failure> {
        let leader = self.leader().await?;
        let replica = if leads { leader } else { (leader + 1) % REPLICAS };
        if let Some(process) = self.processes[replica].take() {
            process.end(libc::SIGKILL, START_TIMEOUT).await?;
        }
        self.killed = Some(replica);
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().filter_map(Option::take) {
            process.end_now(libc::SIGKILL);
        }
    }
}

impl System for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn replicas(&self) -> Vec<u32> {
        self.processes.iter().flatten().map(Process::pid).collect()
    }

    /// It has no secondary index for a history, no bound for staleness, and a transaction of few operations.
    fn can(&self, row: &Row) -> bool {
        let is_known = match row.work {
            Work::Pay { per_request, mix } => per_request <= TRANSFERS_MAX && mix != Mix::Chains,
            Work::Lookup(freshness) => freshness != Freshness::BoundedStaleness,
            Work::TwoPhase { .. } | Work::History => false,
        };
        is_known && !row.gathered && row.callers_count <= 1_000 && row.accounts_count == super::row::ACCOUNTS_COUNT
    }

    fn open_accounts(&self, count: u64) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let mut kv = Kv::new(self.connect(0).await?);
            for first in (0..count).step_by(ACCOUNTS_PER_TRANSACTION as usize) {
                let numbers = first..count.min(first + ACCOUNTS_PER_TRANSACTION);
                // Only where the first is not there: all of them were made together.
                let is_new = unchanged(account_key(first), 0);
                let puts = numbers.map(|number| put(account_key(number), Balances::default().encode())).collect();
                kv.txn(TxnRequest { compare: vec![is_new], success: puts, failure: vec![] }).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn callers<'a>(&'a self, row: &'a Row) -> BoxFuture<'a, Result<Vec<Box<dyn Caller>>, Failure>> {
        async move {
            let leader = self.leader().await?;
            let in_turn = (leader..leader + REPLICAS).map(|number| number % REPLICAS);
            let live: Vec<usize> = in_turn.filter(|replica| self.processes[*replica].is_some()).collect();
            let connections_count = row.callers_count.div_ceil(CALLERS_PER_CONNECTION).max(REPLICAS as u32);
            let mut connections = Vec::new();
            for number in 0..connections_count as usize {
                connections.push(self.connect(live[number % live.len()]).await?);
            }
            let caller = |number: usize| {
                Box::new(EtcdCaller {
                    kv: Kv::new(connections[number % connections.len()].clone()),
                    members: connections[..live.len()].to_vec(),
                    serializable: row.work == Work::Lookup(Freshness::Local),
                    next_id: self.next_caller.fetch_add(1, Ordering::Relaxed) << 40,
                }) as Box<dyn Caller>
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
            let Some(replica) = self.killed.take() else { return Ok(()) };
            self.spawn(replica)?;
            self.until_it_serves(replica).await
        }
        .boxed()
    }
}

impl From<tonic::transport::Error> for Failure {
    fn from(error: tonic::transport::Error) -> Failure {
        Failure::general(format!("cannot connect: {error}"))
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Failure {
        Failure::general(format!("etcd: {}", status.message()))
    }
}

fn account_key(number: u64) -> Bytes {
    format!("a/{number:012}").into()
}

fn transfer_key(id: u64) -> Bytes {
    format!("t/{id:020}").into()
}

fn put(key: Bytes, value: Bytes) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestPut(PutRequest { key, value })) }
}

/// True as long as the key was last changed at `revision`; at 0, as long as there is none.
fn unchanged(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
    }
}

#[derive(Clone, Copy, Default)]
struct Balances {
    debits: u64,
    credits: u64,
}

impl Balances {
    fn encode(self) -> Bytes {
        [self.debits.to_le_bytes(), self.credits.to_le_bytes()].concat().into()
    }

    fn decode(bytes: &[u8]) -> Option<Balances> {
        let (debits, credits) = bytes.split_first_chunk::<8>()?;
        let credits = credits.first_chunk::<8>()?;
        Some(Balances { debits: u64::from_le_bytes(*debits), credits: u64::from_le_bytes(*credits) })
    }
}

struct EtcdCaller {
    kv: Kv,
    /// One of each member: where its own is gone it goes on with another.
    members: Vec<Channel>,
    serializable: bool,
    next_id: u64,
}

impl EtcdCaller {
    async fn pay(&mut self, payments: &[Payment]) -> Result<(), tonic::Status> {
        let first = self.next_id;
        self.next_id += payments.len() as u64;
        loop {
            let mut accounts = self.read(payments).await?;
            for payment in payments {
                let amount = u64::from(payment.amount);
                accounts.entry(payment.debit).and_modify(|(balances, _)| balances.debits += amount);
                accounts.entry(payment.credit).and_modify(|(balances, _)| balances.credits += amount);
            }
            let ids = (first..).zip(payments);
            let transfers = ids.map(|(id, payment)| {
                let fields = [payment.debit, payment.credit, u64::from(payment.amount)];
                (transfer_key(id), Bytes::from(fields.map(u64::to_le_bytes).concat()))
            });
            let mut request = TxnRequest::default();
            for (key, value) in transfers {
                request.compare.push(unchanged(key.clone(), 0));
                request.success.push(put(key, value));
            }
            for (number, (balances, revision)) in accounts {
                request.compare.push(unchanged(account_key(number), revision));
                request.success.push(put(account_key(number), balances.encode()));
            }
            if self.kv.txn(request).await?.into_inner().succeeded {
                return Ok(());
            }
        }
    }

    /// The accounts of `payments`, and the revision at which each was changed.
    async fn read(&mut self, payments: &[Payment]) -> Result<BTreeMap<u64, (Balances, i64)>, tonic::Status> {
        let numbers: BTreeSet<u64> = payments.iter().flat_map(|payment| [payment.debit, payment.credit]).collect();
        let range = |number: &u64| RequestOp {
            request: Some(request_op::Request::RequestRange(RangeRequest {
                key: account_key(*number),
                ..RangeRequest::default()
            })),
        };
        let request = TxnRequest { success: numbers.iter().map(range).collect(), ..TxnRequest::default() };
        let responses = self.kv.txn(request).await?.into_inner().responses;
        let mut accounts = BTreeMap::new();
        for (number, response) in numbers.into_iter().zip(responses) {
            if let Some(response_op::Response::ResponseRange(range)) = response.response
                && let Some(found) = range.kvs.first()
                && let Some(balances) = Balances::decode(&found.value)
            {
                accounts.insert(number, (balances, found.mod_revision));
            }
        }
        Ok(accounts)
    }

    async fn lookup(&mut self, number: u64) -> Result<usize, tonic::Status> {
        let request =
            RangeRequest { key: account_key(number), serializable: self.serializable, ..RangeRequest::default() };
        Ok(self.kv.range(request).await?.into_inner().kvs.len())
    }
}

impl Caller for EtcdCaller {
    fn ask<'a>(&'a mut self, request: &'a Request) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let began = Instant::now();
            loop {
                let answer = match request {
                    Request::Pay(payments) => self.pay(payments).await,
                    Request::Lookup(number) => match self.lookup(*number).await {
                        Ok(count) => return one_found(count, *number),
                        Err(status) => Err(status),
                    },
                    Request::Hold(_) | Request::Post | Request::History(_) => {
                        return Err(Failure::general("etcd is not asked for this"));
                    }
                };
                match answer {
                    Ok(()) => return Ok(()),
                    Err(status) if began.elapsed() > PATIENCE => return Err(status.into()),
                    // No leader, or its member is gone. A payment whose outcome is unknown is begun under new ids: it is
                    // counted once, and a ledger of money could not do so.
                    Err(_) => {
                        self.members.rotate_left(1);
                        self.kv = Kv::new(self.members[0].clone());
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        }
        .boxed()
    }
}
