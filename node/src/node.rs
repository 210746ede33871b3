//! A node's whole life: builds the rooms, opens the doors, waits, closes, in this order.
//!
//! Laws
//! * Doors open when the state is there, and Raft campaigns when the doors are open.
//! * When Raft or the store can't be trusted any more, [`Node::serve`] ends with the cause, at once and with all doors: a
//!   node that listens but can't commit is worse than one that is gone.
//!
//! Not here: signals and files (`main.rs`).

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use jangbu_proto::{
    CLIENT_DOOR_DESCRIPTORS,
    cluster::v1::{operator_server::OperatorServer, peer_server::PeerServer},
    entry::NodeInfo,
    jangbu::v1::ledger_server::LedgerServer,
    transport::{Door, Http2Settings, Listener, PEER_MESSAGE_BYTES_MAX, Transport, guarded_door, serve},
};
use jangbu_raft_store::{Fatal, Raft, Store, StoreConfig};
use openraft::{Config, SnapshotPolicy, async_runtime::WatchReceiver};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    abdication::Abdication,
    access::{ClientGuard, PeerGuard, Registry},
    administration::Administration,
    admission::Admission,
    api::{ledger::LedgerService, operator::OperatorService},
    applied::AppliedIndex,
    backup::Backup,
    batcher::{Batcher, WayOut},
    clock_skew::ClockSkew,
    config::{NodeConfig, Timings},
    digests::Digests,
    environment::{Clock, Environment, draw_id},
    error::NodeError,
    forwarder::Forwarder,
    health::Health,
    hearsay::{HEARSAY_MAX, Hearing},
    http,
    identity::Identity,
    keys::Keys,
    leadership,
    membership::Membership,
    metrics::Metrics,
    peers::{GROUP, Peers, envelope::Gate, network::Network, service::PeerService, snapshot::Reception},
    proposer::Proposer,
    pulse::Pulse,
    reader::Reader,
    shutdown,
    snapshots::Snapshots,
    succession,
    traces::Traces,
};

/// How long the last tasks may take to end once they are told to.
const LAST_CALL: Duration = Duration::from_secs(2);

/// For the last answers to leave by the peer door, and for those who still forward here to hear that they shouldn't.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How often gRPC's health service is told what [`Health`] knows.
const HEALTH_EVERY: Duration = Duration::from_millis(100);

/// Entries sent to a peer in one message; the log caps the bytes.
const APPEND_ENTRIES_MAX: u64 = 256;

/// Entries written to the log at once.
const WRITE_ENTRIES_MAX: u64 = 64;

/// A follower further behind than this gets a snapshot although the log is still there.
const LAG_FOR_SNAPSHOT: u64 = 1_000_000;

/// Runs a node until `stop`; ends with an error when it can't go on.
///
/// Boxed, here and in [`Node`]: the code of an async function is generated where it is awaited, so every program and
/// every test would otherwise compile the whole node again.
pub fn run(
    config: NodeConfig,
    environment: Environment,
    stop: CancellationToken,
) -> BoxFuture<'static, Result<(), NodeError>> {
    Node::start(config, environment).and_then(|node| node.serve(stop)).boxed()
}

/// A node whose doors are open.
pub struct Node {
    config: NodeConfig,
    info: NodeInfo,
    http_address: Option<String>,
    raft: Raft,
    fatal: Fatal,
    health: Arc<Health>,
    membership: Arc<Membership>,
    admission: Arc<Admission>,
    /// Whoever finds that the node can't go on says so here.
    endings: mpsc::UnboundedReceiver<NodeError>,
    client_tasks: TaskTracker,
    tasks: TaskTracker,
    stop_clients: CancellationToken,
    stop_all: CancellationToken,
}

struct Doors {
    client: Listener,
    peer: Listener,
    http: Option<Listener>,
}

impl Node {
    /// Opens the store and the doors. Blocks on the disk.
    pub fn start(config: NodeConfig, environment: Environment) -> BoxFuture<'static, Result<Self, NodeError>> {
        Self::open(config, environment).boxed()
    }

    /// Serves until `stop`, then drains. Ends with an error when the node can't go on.
    pub fn serve(self, stop: CancellationToken) -> BoxFuture<'static, Result<(), NodeError>> {
        self.serve_until(stop).boxed()
    }

    async fn open(config: NodeConfig, environment: Environment) -> Result<Self, NodeError> {
        let keys = Keys::open(&config.tls, config.node_id)?.map(Arc::new);
        let doors = Doors::open(&config, &environment, keys.as_deref()).await?;
        let mut store = jangbu_raft_store::open(store_config(&config, &environment), environment.store.clone()).await?;
        store.stand_behind_the_log().await?;
        let info = node_info(&config, &doors, &store);
        let identity =
            Arc::new(Identity::new(config.node_id, info, store.folder.clone(), environment.store.blocking.clone()));
        Rooms::build(config, environment, store, identity, keys).await?.open(doors).await
    }

    /// host:port of the client door, as others see it.
    pub fn client_address(&self) -> &str {
        &self.info.client_address
    }

    /// host:port of the peer door, as others see it.
    pub fn peer_address(&self) -> &str {
        &self.info.peer_address
    }

    /// host:port of the HTTP door.
    pub fn http_address(&self) -> Option<&str> {
        self.http_address.as_deref()
    }

    /// Whether the Raft core still takes its turns; asked by a watchdog, which ends a process that hangs. Not whether there is
    /// a quorum or a disk that answers: no restart mends those. A core that has stopped ends the node by itself.
    pub fn core_answers(&self) -> impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static {
        let raft = self.raft.clone();
        move || {
            let raft = raft.clone();
            async move { drop(raft.with_raft_state(|_| ()).await) }.boxed()
        }
    }

    async fn serve_until(mut self, stop: CancellationToken) -> Result<(), NodeError> {
        let ended = tokio::select! {
            biased;
            cause = self.cannot_go_on() => Err(cause),
            () = stop.cancelled() => Ok(()),
        };
        if let Err(cause) = &ended {
            tracing::error!(%cause, "this node can't go on");
        }
        // A node that was removed can be trusted with what it has begun: the answer to who removed it, if it led.
        if matches!(ended, Ok(()) | Err(NodeError::Removed { .. })) {
            self.drain().await;
        }
        self.close().await;
        ended
    }

    async fn cannot_go_on(&mut self) -> NodeError {
        let metrics = self.raft.metrics();
        // These change with the leader and end with Raft's task; `metrics` change several times with every entry.
        let mut rare_metrics = self.raft.server_metrics();
        let raft_stopped = async {
            while rare_metrics.changed().await.is_ok() {}
            match &metrics.borrow_watched().running_state {
                Err(fatal) => fatal.to_string(),
                Ok(()) => "its task has ended".to_owned(),
            }
        };
        tokio::select! {
            biased;
            // The store's word comes first: it is the cause when both fail.
            cause = self.fatal.raised() => NodeError::Fenced(cause.to_string()),
            Some(cause) = self.endings.recv() => cause,
            cause = raft_stopped => match self.fatal.cause() {
                Some(store) => NodeError::Fenced(store.to_string()),
                None => NodeError::RaftStopped(cause),
            },
        }
    }

    async fn drain(&mut self) {
        tracing::info!("stopping");
        let deadline = Instant::now() + self.config.limits.drain_max();
        shutdown::hand_over(&self.health, &self.membership, deadline).await;
        self.stop_clients.cancel();
        self.admission.close();
        self.client_tasks.close();
        // What other nodes have forwarded came in by the peer door, and is answered before that one closes, too.
        let answered = async {
            self.client_tasks.wait().await;
            self.admission.emptied().await;
            sleep(LAST_WORDS).await;
        };
        if timeout_at(deadline, answered).await.is_err() {
            tracing::warn!("some calls were cut off");
        }
    }

    /// Everything ends here, whatever went before.
    async fn close(self) {
        self.admission.close();
        self.stop_clients.cancel();
        self.stop_all.cancel();
        self.tasks.close();
        self.client_tasks.close();
        // A Raft core that hangs must not keep the process.
        if timeout(LAST_CALL, self.raft.shutdown()).await.is_err() {
            tracing::warn!("the Raft core did not stop in time");
        }
        let ended = async {
            self.tasks.wait().await;
            self.client_tasks.wait().await;
        };
        if timeout(LAST_CALL, ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        tracing::info!("stopped");
    }
}

impl Doors {
    async fn open(config: &NodeConfig, environment: &Environment, keys: Option<&Keys>) -> Result<Self, NodeError> {
        let plain = environment.transport.clone();
        let (client, peer): (Arc<dyn Transport>, Arc<dyn Transport>) = match keys {
            Some(keys) => (Arc::new(keys.client_door(plain.clone())), Arc::new(keys.peer_door(plain.clone()))),
            None => (plain.clone(), plain.clone()),
        };
        Ok(Self {
            client: listen(&*client, &config.listen.client).await?,
            peer: listen(&*peer, &config.listen.peer).await?,
            http: match &config.listen.http {
                // Health and metrics hold no secret, and those who ask for them rarely have certificates.
                Some(address) => Some(listen(&*plain, address).await?),
                None => None,
            },
        })
    }
}

async fn listen(transport: &dyn Transport, address: &str) -> Result<Listener, NodeError> {
    let listening = transport.listen(address.to_owned()).await;
    listening.map_err(|source| NodeError::Listen { address: address.to_owned(), source })
}

fn store_config(config: &NodeConfig, environment: &Environment) -> StoreConfig {
    StoreConfig {
        data_dir: config.data_dir.clone(),
        group: GROUP,
        node_id: config.node_id,
        new_incarnation: draw_id(&*environment.entropy),
        log: config.log(),
        state: config.state(),
    }
}

fn node_info(config: &NodeConfig, doors: &Doors, store: &Store) -> NodeInfo {
    let identity = store.folder.identity();
    NodeInfo {
        peer_address: config.advertise.peer.clone().unwrap_or_else(|| doors.peer.address.clone()),
        client_address: config.advertise.client.clone().unwrap_or_else(|| doors.client.address.clone()),
        data_center: config.data_center.clone(),
        incarnation: identity.incarnation,
    }
}

/// All that stands between the store and the doors.
struct Rooms {
    config: NodeConfig,
    settings: Http2Settings,
    raft: Raft,
    peers: Arc<Peers>,
    fatal: Fatal,
    identity: Arc<Identity>,
    metrics: Arc<Metrics>,
    admission: Arc<Admission>,
    batcher: Batcher,
    reader: Arc<Reader>,
    health: Arc<Health>,
    membership: Arc<Membership>,
    administration: Arc<Administration>,
    snapshots: Arc<Snapshots>,
    backup: Backup,
    reception: Arc<Reception>,
    clock_skew: Arc<ClockSkew>,
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    traces: Traces,
    state: jangbu_raft_store::StateReader,
    endings: mpsc::UnboundedReceiver<NodeError>,
    client_tasks: TaskTracker,
    tasks: TaskTracker,
    stop_clients: CancellationToken,
    stop_all: CancellationToken,
}

impl Rooms {
    async fn build(
        config: NodeConfig,
        environment: Environment,
        store: Store,
        identity: Arc<Identity>,
        keys: Option<Arc<Keys>>,
    ) -> Result<Self, NodeError> {
        let (tasks, stop_all) = (TaskTracker::new(), CancellationToken::new());
        let (client_tasks, stop_clients) = (TaskTracker::new(), CancellationToken::new());
        let settings = config.http2();
        let timings = config.network.timings();
        let metrics = Metrics::new(config.node_id);
        let (hearsay, heard) = mpsc::channel(HEARSAY_MAX);
        let to_nodes = keys.as_ref().map(|keys| keys.peer_door(environment.transport.clone()));
        let peers = Peers::new(identity.clone(), timings.clone(), settings.clone(), &environment, to_nodes, hearsay);
        let peers = Arc::new(peers);

        let Store { log, state, reader: state_reader, log_stats, incoming, fatal, .. } = store;
        let raft_config = Arc::new(raft_config(&timings)?);
        let network = Network { peers: peers.clone(), log: log_stats.clone() };
        let raft = Raft::build(config.node_id, raft_config, network, log.clone(), state).await;
        let raft = raft.map_err(|fatal| NodeError::RaftStopped(fatal.to_string()))?;

        let leadership = leadership::watch(&raft, metrics.clone(), environment.term.clone(), &tasks, stop_all.clone());
        let applied = AppliedIndex::watch(&raft, &tasks, stop_all.clone());
        let (end, endings) = mpsc::unbounded_channel();
        let gate = Arc::new(Gate::new(identity.clone(), raft.clone(), state_reader.clone(), end.clone()));

        let (clock, clock_skew_max) = (environment.clock.clone(), config.limits.clock_skew_max());
        let clock_skew = Arc::new(ClockSkew::new(clock, metrics.clone(), clock_skew_max));
        let proposer = Arc::new(Proposer::new(raft.clone(), environment.clock.clone(), clock_skew.clone()));
        let forwarder = Arc::new(Forwarder::new(peers.clone()));
        let admission = Arc::new(Admission::new(&config.limits, environment.entropy.clone(), metrics.clone()));
        let batcher = Batcher::start(
            &config.limits,
            admission.clone(),
            leadership.clone(),
            WayOut { proposer: proposer.clone(), forwarder },
            metrics.clone(),
            &tasks,
            stop_all.clone(),
        );
        let reader = Reader::start(
            raft.clone(),
            peers.clone(),
            applied.clone(),
            leadership.clone(),
            &config.limits,
            metrics.clone(),
            &tasks,
            stop_all.clone(),
        );
        let membership = Arc::new(Membership {
            raft: raft.clone(),
            peers: peers.clone(),
            identity: identity.clone(),
            state: state_reader.clone(),
            leadership: leadership.clone(),
            entropy: environment.entropy.clone(),
            changing: tokio::sync::Mutex::default(),
        });
        let health = Arc::new(Health {
            data_dir: config.data_dir.clone(),
            lines_lost: environment.log_lines_lost.clone(),
            raft: raft.clone(),
            identity: identity.clone(),
            reader: reader.clone(),
            state: state_reader.clone(),
            log: log_stats.clone(),
            draining: watch::Sender::new(false),
        });
        let snapshots = Arc::new(Snapshots {
            raft: raft.clone(),
            log: log_stats,
            applied: applied.clone(),
            after_log_bytes: config.storage.snapshot_after_log_bytes,
            log_entries_kept: config.storage.log_entries_kept,
            log_bytes_kept: config.storage.log_bytes_kept,
            refused: peers.common.snapshot_refused.clone(),
            sendings: peers.common.snapshots_sent.clone(),
        });
        let backup = Backup {
            raft: raft.clone(),
            log,
            state: state_reader.clone(),
            applied: applied.clone(),
            readers: Backup::readers(),
            tasks: client_tasks.clone(),
            closing: stop_clients.clone(),
        };
        let reception = Arc::new(Reception {
            raft: raft.clone(),
            gate: gate.clone(),
            receiver: incoming,
            metrics: metrics.clone(),
            limit: timings.snapshot_progress_timeout,
            one_at_a_time: tokio::sync::Mutex::default(),
        });
        let abdication = Abdication {
            clock_is_wrong: clock_skew.watch(),
            draining: health.draining.subscribe(),
            membership: membership.clone(),
            leadership: leadership.clone(),
        };
        let administration = Arc::new(Administration {
            proposer: proposer.clone(),
            state: state_reader.clone(),
            membership: membership.clone(),
        });
        let pulse = Pulse {
            proposer,
            state: state_reader.clone(),
            applied: applied.clone(),
            leadership,
            clock: environment.clock.clone(),
            metrics: metrics.clone(),
        };
        let hearing = Hearing {
            raft: raft.clone(),
            state: state_reader.clone(),
            identity: identity.clone(),
            heard,
            end,
            moved: false,
        };
        let digests = Digests {
            raft: raft.clone(),
            peers: peers.clone(),
            state: state_reader.clone(),
            clock_skew: clock_skew.clone(),
            metrics: metrics.clone(),
            every: Duration::from_millis(config.storage.digest_interval_ms),
        };
        if let Some(keys) = keys {
            tasks.spawn(keys.watch(environment.clock.clone(), metrics.clone(), stop_all.clone()));
        }
        tasks.spawn(pulse.run(stop_all.clone()));
        tasks.spawn(digests.run(stop_all.clone()));
        tasks.spawn(hearing.run(stop_all.clone()));
        tasks.spawn(abdication.run(stop_all.clone()));
        tasks.spawn(peers.clone().follow(raft.clone(), stop_all.clone()));
        let (taking, stop) = (snapshots.clone(), stop_all.clone());
        tasks.spawn(async move { taking.run(stop).await });

        Ok(Self {
            settings,
            raft,
            peers,
            fatal,
            identity,
            metrics,
            admission,
            batcher,
            reader,
            health,
            membership,
            administration,
            snapshots,
            backup,
            reception,
            clock_skew,
            gate,
            clock: environment.clock,
            traces: environment.traces,
            state: state_reader,
            endings,
            client_tasks,
            tasks,
            stop_clients,
            stop_all,
            config,
        })
    }

    /// Opens the doors and lets Raft campaign.
    async fn open(self, doors: Doors) -> Result<Node, NodeError> {
        let http_address = doors.http.as_ref().map(|listener| listener.address.clone());
        tracing::info!(
            node_id = self.config.node_id,
            client = doors.client.address,
            peer = doors.peer.address,
            http = http_address,
            "serving"
        );
        let (reporter, health_service) = tonic_health::server::health_reporter();
        // Before a door is open: the reporter's own beginning is that all is well.
        tell_health(&reporter, &self.health).await;
        self.tasks.spawn(report_health(reporter, self.health.clone(), self.stop_all.clone()));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(CLIENT_DOOR_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| NodeError::Config(error.to_string()))?;
        let operator = OperatorServer::new(self.operator_service(port_of(http_address.as_deref())));

        let cluster = self.config.tls.believed_cluster();
        let per_second = self.config.limits.identity_calls_per_second;
        let registry = cluster.clone().map(|cluster| Registry {
            cluster,
            clock: self.clock.clone(),
            tokens: Arc::new(self.state.clone()),
        });
        let client_guard = Arc::new(ClientGuard::new(registry, per_second));
        let client_door = guarded_door(&self.settings, client_guard)
            .add_service(
                LedgerServer::new(self.ledger_service())
                    .max_decoding_message_size(self.config.limits.message_bytes_max),
            )
            .add_service(operator.clone())
            .add_service(health_service)
            .add_service(reflection);
        let peer_guard = Arc::new(PeerGuard::new(cluster, self.clock.clone()));
        let peer_door = guarded_door(&self.settings, peer_guard)
            .add_service(
                PeerServer::new(self.peer_service())
                    .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
            )
            .add_service(operator);
        let grace = self.config.limits.drain_max();
        let peer_hung_up = Arc::new(Notify::new());
        self.tasks.spawn(succession::watch(
            self.raft.clone(),
            self.peers.clone(),
            peer_hung_up.clone(),
            self.stop_all.clone(),
        ));
        let settings = self.settings.clone();
        self.tasks.spawn(keep(
            peer_door,
            doors.peer,
            settings.clone(),
            peer_hung_up,
            self.stop_all.clone(),
            Duration::ZERO,
        ));
        self.client_tasks.spawn(keep(
            client_door,
            doors.client,
            settings,
            Arc::default(),
            self.stop_clients.clone(),
            grace,
        ));
        if let Some(listener) = doors.http {
            let (health, metrics) = (self.health.clone(), self.metrics.clone());
            self.tasks.spawn(http::serve(listener, health, metrics, self.stop_all.clone()));
        }
        self.raft.run();
        Ok(Node {
            info: self.identity.info.clone(),
            config: self.config,
            http_address,
            raft: self.raft,
            fatal: self.fatal,
            health: self.health,
            membership: self.membership,
            admission: self.admission,
            endings: self.endings,
            client_tasks: self.client_tasks,
            tasks: self.tasks,
            stop_clients: self.stop_clients,
            stop_all: self.stop_all,
        })
    }

    fn ledger_service(&self) -> LedgerService {
        LedgerService {
            batcher: self.batcher.clone(),
            reader: self.reader.clone(),
            state: self.state.clone(),
            limits: self.config.limits.clone(),
            metrics: self.metrics.clone(),
            tasks: self.client_tasks.clone(),
            closing: self.stop_clients.clone(),
            traces: self.traces.clone(),
        }
    }

    fn operator_service(&self, http_port: u16) -> OperatorService {
        OperatorService {
            raft: self.raft.clone(),
            identity: self.identity.clone(),
            membership: self.membership.clone(),
            administration: self.administration.clone(),
            state: self.state.clone(),
            reader: self.reader.clone(),
            snapshots: self.snapshots.clone(),
            health: self.health.clone(),
            backup: self.backup.clone(),
            limits: self.config.limits.clone(),
            http_port,
        }
    }

    fn peer_service(&self) -> PeerService {
        PeerService {
            raft: self.raft.clone(),
            gate: self.gate.clone(),
            batcher: self.batcher.clone(),
            reader: self.reader.clone(),
            state: self.state.clone(),
            administration: self.administration.clone(),
            leadership: self.membership.leadership.clone(),
            reception: self.reception.clone(),
            clock_skew: self.clock_skew.clone(),
            deadline_max: self.config.limits.deadline_max(),
            tasks: self.tasks.clone(),
            traces: self.traces.clone(),
        }
    }
}

/// 0: there is none.
fn port_of(address: Option<&str>) -> u16 {
    address.and_then(|address| address.rsplit_once(':')?.1.parse().ok()).unwrap_or(0)
}

/// Keeps a door open until `stop`.
async fn keep(
    door: Door,
    listener: Listener,
    settings: Http2Settings,
    hung_up: Arc<Notify>,
    stop: CancellationToken,
    grace: Duration,
) {
    let address = listener.address.clone();
    if let Err(error) = serve(door, listener, &settings, hung_up, stop.cancelled_owned(), grace).await {
        tracing::error!(address, %error, "a door is closed");
    }
}

/// Tells gRPC's health service what load balancers ask it.
async fn report_health(reporter: HealthReporter, health: Arc<Health>, stop: CancellationToken) {
    let mut ticks = interval(HEALTH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tell_health(&reporter, &health).await;
    }
}

async fn tell_health(reporter: &HealthReporter, health: &Health) {
    let status = match health.not_ready_because() {
        None => ServingStatus::Serving,
        Some(_) => ServingStatus::NotServing,
    };
    for service in ["", "jangbu.v1.Ledger"] {
        reporter.set_service_status(service, status).await;
    }
    // Operators are answered also without a quorum.
    reporter.set_service_status("cluster.v1.Operator", ServingStatus::Serving).await;
}

fn raft_config(timings: &Timings) -> Result<Config, NodeError> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let raft = Config {
        cluster_name: "jangbu".into(),
        heartbeat_interval: ms(timings.heartbeat),
        election_timeout_min: ms(timings.election_min),
        election_timeout_max: ms(timings.election_max),
        // Only a bound on the whole transfer, which our own progress deadline makes needless.
        install_snapshot_timeout: 24 * 3_600 * 1_000,
        max_payload_entries: APPEND_ENTRIES_MAX,
        max_append_entries: Some(WRITE_ENTRIES_MAX),
        replication_lag_threshold: LAG_FOR_SNAPSHOT,
        // Snapshots are taken by bytes, and the log behind them is purged by bytes (`snapshots.rs`).
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A node that was cut off must not disturb a healthy leader when it comes back.
        enable_pre_vote: Some(true),
        // A restarted leader asks first: its state may be behind what it had acknowledged.
        enable_leader_restore: Some(false),
        // A follower whose log went back has lost what it acknowledged.
        allow_log_reversion: Some(false),
        ..Config::default()
    };
    raft.validate().map_err(|error| NodeError::Config(error.to_string()))
}
