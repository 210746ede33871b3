//! Starts nodes, talks to them, and waits for what must become true.

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf, time::Duration};

use jangbu_node::{Environment, Node, NodeConfig, NodeError};
use jangbu_proto::{
    cluster::v1::{InitializeRequest, StatusReply, StatusRequest, operator_client::OperatorClient},
    jangbu::v1::{
        Account, CreateAccountsRequest, CreateTransfersReply, CreateTransfersRequest, Local, LookupAccountsRequest,
        ReadOptions, Transfer, Uint128, ledger_client::LedgerClient, read_options::Consistency,
    },
};
use jangbu_raft_store::StoreError;
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

/// Far more than anything here takes; only what hangs reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The status of what was carried out.
pub const CREATED: u32 = u32::MAX;

pub struct Cluster {
    pub nodes: BTreeMap<u64, Running>,
    pub folder: TempDir,
    /// What is changed in each node's configuration, at its next start.
    pub adjust: fn(&mut NodeConfig),
    /// What each node stands on.
    world: Box<dyn Fn(u64) -> Environment + Send + Sync>,
}

/// A node on a runtime of its own, so that it can be taken away with all its tasks.
pub struct Running {
    runtime: Option<Runtime>,
    pub client_address: String,
    pub peer_address: String,
    pub http_address: Option<String>,
    pub stop: CancellationToken,
    pub ended: JoinHandle<Result<(), NodeError>>,
}

impl Cluster {
    /// Nodes 1 to `count`, running and made into a cluster.
    pub async fn of(count: u64) -> Self {
        Self::adjusted(count, |_| {}).await
    }

    pub async fn adjusted(count: u64, adjust: fn(&mut NodeConfig)) -> Self {
        Self::fresh(count, adjust).await.initialized().await
    }

    /// In a world of its own.
    pub async fn in_world(
        count: u64,
        adjust: fn(&mut NodeConfig),
        world: impl Fn(u64) -> Environment + Send + Sync + 'static,
    ) -> Self {
        Self::fresh_in(count, adjust, Box::new(world)).await.initialized().await
    }

    async fn initialized(self) -> Self {
        let cluster = self;
        let count = cluster.nodes.len() as u64;
        let addresses = cluster.nodes.values().map(|node| node.peer_address.clone()).collect();
        let mut operator = cluster.operator(1).await;
        operator.initialize(InitializeRequest { peer_addresses: addresses }).await.expect("fresh nodes make a cluster");
        for id in 1..=count {
            cluster.until_ready(id).await;
        }
        cluster
    }

    /// Nodes 1 to `count`, running, in no cluster.
    pub async fn fresh(count: u64, adjust: fn(&mut NodeConfig)) -> Self {
        Self::fresh_in(count, adjust, Box::new(|_| Environment::production())).await
    }

    async fn fresh_in(
        count: u64,
        adjust: fn(&mut NodeConfig),
        world: Box<dyn Fn(u64) -> Environment + Send + Sync>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { nodes: BTreeMap::new(), folder, adjust, world };
        for id in 1..=count {
            cluster.start(id).await;
        }
        cluster
    }

    /// Starts a node, at the addresses it had before.
    pub async fn start(&mut self, id: u64) {
        let config = self.config(id);
        let node = run(config, &|| (self.world)(id)).await.expect("the node starts");
        jangbu_raft_store::testing::leave_without_destructors();
        self.nodes.insert(id, node);
    }

    /// Starts a node that can't go on, and waits until it has ended.
    pub async fn start_and_end(&mut self, id: u64) {
        let Ok(mut node) = run(self.config(id), &|| (self.world)(id)).await else { return };
        let ended = timeout(PATIENCE, &mut node.ended).await.expect("the node ends").expect("without a panic");
        ended.expect_err("it can't go on");
    }

    pub fn config(&self, id: u64) -> NodeConfig {
        let listen = |door: &str, free: Option<String>| {
            let address = free.unwrap_or_else(free_address);
            format!("{door} = \"{address}\"\n")
        };
        let before = self.nodes.get(&id);
        let toml = format!(
            "node_id = {id}\ndata_dir = \"{}\"\ndata_center = \"dc{id}\"\n[listen]\n{}{}http = \"127.0.0.1:0\"\n[tls]\nmode = \"off\"\n",
            self.data_dir(id).display(),
            listen("client", before.map(|node| node.client_address.clone())),
            listen("peer", before.map(|node| node.peer_address.clone())),
        );
        let mut config = NodeConfig::read(&toml, [], []).expect("the configuration is good");
        // A new node writes zeros all over its first segment.
        config.storage.log_segment_bytes = Some(4 << 20);
        (self.adjust)(&mut config);
        config
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    /// Stops a node as SIGTERM does, and waits until it has ended.
    pub async fn stop(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("the node runs");
        node.stop.cancel();
        let ended = timeout(PATIENCE, &mut node.ended).await.expect("the node ends").expect("without a panic");
        ended.expect("a node that is asked to stop has no error");
    }

    /// Takes a node away without a word: its tasks are gone, its connections break.
    pub async fn kill(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("the node runs");
        node.runtime.take().expect("the node runs").shutdown_background();
        let _ = (&mut node.ended).await;
    }

    pub async fn ledger(&self, id: u64) -> LedgerClient<Channel> {
        LedgerClient::new(channel(&self.nodes[&id].client_address))
    }

    pub async fn operator(&self, id: u64) -> OperatorClient<Channel> {
        OperatorClient::new(channel(&self.nodes[&id].client_address))
    }

    pub async fn status(&self, id: u64) -> Option<StatusReply> {
        let mut operator = self.operator(id).await;
        Some(operator.status(StatusRequest {}).await.ok()?.into_inner())
    }

    pub async fn until_ready(&self, id: u64) {
        self.until(id, "it is ready", |status| status.ready).await;
    }

    /// Waits until a node's status is as it should be.
    pub async fn until(&self, id: u64, what: &str, is_so: impl Fn(&StatusReply) -> bool) -> StatusReply {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            last = self.status(id).await;
            if let Some(status) = last.as_ref().filter(|status| is_so(status)) {
                return status.clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("node {id}: waited in vain until {what}; its status is {last:#?}");
    }

    /// Who leads, as node `id` sees it.
    pub async fn leader(&self, id: u64) -> u64 {
        self.until(id, "it knows a leader", |status| status.leader_id != 0).await.leader_id
    }

    pub async fn a_follower(&self) -> u64 {
        let leader = self.leader(1).await;
        *self.nodes.keys().find(|id| **id != leader).expect("there are followers")
    }

    /// Opens two accounts, 1 and 2, of ledger 1.
    pub async fn open_accounts(&self) {
        let accounts = (1..=2).map(|id| Account { id: uint(id), ledger: 1, code: 1, ..Account::default() }).collect();
        let reply = self.ledger(1).await.create_accounts(CreateAccountsRequest { accounts }).await.expect("a reply");
        let statuses: Vec<u32> = reply.into_inner().results.iter().map(|result| result.status).collect();
        assert_eq!(statuses, [CREATED, CREATED]);
    }

    /// Pays through a node until it is acknowledged, always with the same id.
    pub async fn pay(&self, through: u64, id: u128, amount: u128) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match pay_once(&mut self.ledger(through).await, id, amount).await {
                Ok(reply) => {
                    let status = reply.results[0].status;
                    assert!(status == CREATED || status == EXISTS, "transfer {id}: status {status}");
                    return;
                }
                Err(status) => assert!(is_transient(&status), "transfer {id}: {status:?}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("transfer {id} was never acknowledged");
    }

    /// What account 1 has paid, as node `id` reads it.
    pub async fn paid(&self, id: u64, consistency: Option<Consistency>) -> Result<u128, Status> {
        let request = LookupAccountsRequest { ids: vec![number(1)], read: Some(ReadOptions { consistency }) };
        let reply = self.ledger(id).await.lookup_accounts(request).await?.into_inner();
        let posted = reply.accounts[0].debits_posted.unwrap_or_default();
        Ok((u128::from(posted.high) << 64) | u128::from(posted.low))
    }

    /// All nodes hold the same state at the same index.
    pub async fn until_equal(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            for id in self.nodes.keys().filter(|id| !self.nodes[id].ended.is_finished()) {
                let status = self.status(*id).await.expect("a node that runs answers");
                seen.push((status.applied_index, status.digest));
            }
            if seen.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            assert!(Instant::now() < deadline, "the replicas differ: {seen:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A runtime must not be waited for in a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts a node. One that was just killed may hold its folder for a moment longer.
pub async fn run(config: NodeConfig, world: &(dyn Fn() -> Environment + Sync)) -> Result<Running, NodeError> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let deadline = Instant::now() + PATIENCE;
    let node = loop {
        let started = runtime.spawn(Node::start(config.clone(), world())).await.expect("no panic");
        match started {
            Err(NodeError::Store(StoreError::Refused { .. })) | Err(NodeError::Listen { .. })
                if Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(node) => break node,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        }
    };
    let stop = CancellationToken::new();
    Ok(Running {
        client_address: node.client_address().to_owned(),
        peer_address: node.peer_address().to_owned(),
        http_address: node.http_address().map(str::to_owned),
        stop: stop.clone(),
        ended: runtime.spawn(node.serve(stop)),
        runtime: Some(runtime),
    })
}

/// The status of a transfer that was made before, with the same body.
pub const EXISTS: u32 = 46;

pub async fn pay_once(
    ledger: &mut LedgerClient<Channel>,
    id: u128,
    amount: u128,
) -> Result<CreateTransfersReply, Status> {
    let request = CreateTransfersRequest { transfers: vec![payment(id, amount)] };
    Ok(ledger.create_transfers(request).await?.into_inner())
}

/// From account 1 to account 2.
pub fn payment(id: u128, amount: u128) -> Transfer {
    Transfer {
        id: uint(id),
        debit_account_id: uint(1),
        credit_account_id: uint(2),
        amount: uint(amount),
        ledger: 1,
        code: 1,
        ..Transfer::default()
    }
}

pub fn local() -> Option<Consistency> {
    Some(Consistency::Local(Local {}))
}

pub fn uint(value: u128) -> Option<Uint128> {
    Some(number(value))
}

pub fn number(value: u128) -> Uint128 {
    Uint128 { high: (value >> 64) as u64, low: value as u64 }
}

pub fn reason(status: &Status) -> String {
    jangbu_proto::reason::told(status).reason
}

/// Worth asking again, with the same ids.
fn is_transient(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
}

pub fn channel(address: &str) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
}

/// An address that nobody listens on now.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}
