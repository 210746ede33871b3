//! The machines of a cluster: what is made once for each, and what it takes to start its node again and again.
//!
//! A host dies by dropping the whole runtime; disk, durable state and clock are kept here, as a machine keeps them.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use jangbu_node::{
    Environment, NodeConfig,
    config::{Advertise, Http2Overrides, Limits, Listen, Logging, Network, Storage, Tls, Tracing},
    environment::Term,
    traces::Traces,
};
use jangbu_raft_store::{
    StoreEnv,
    admin::VERSION_MAX,
    engine::{EngineFactory, memory::MemoryEngines, rocks::RocksEngines},
    log::{Inspection, inspect},
    vfs::{StdVfs, Vfs},
};
use tokio_util::sync::CancellationToken;

use super::{CLIENT_PORT, Cluster, PEER_PORT};
use crate::{
    chance::Dice,
    disk::SimDisk,
    faults::{Engine, Plan},
    invariants::{News, Program},
    world::{Pace, RESET_STREAM_DURATION, SimBlocking, SimClock, SimEntropy, SimTransport},
};

/// What the older program of a rehearsed upgrade knows.
pub(super) const OLDER: u32 = VERSION_MAX - 1;

pub(super) struct Node {
    pub(super) name: String,
    pub(super) disk: SimDisk,
    pub(super) clock: SimClock,
    pub(super) pace: Pace,
    pub(super) engines: Arc<dyn EngineFactory>,
    pub(super) data_dir: PathBuf,
    pub(super) state: NodeState,
    /// When it is started again, if it is down: milliseconds of the run.
    pub(super) up_at_ms: Option<u64>,
    /// Faults that keep it down, or make it stop.
    pub(super) down: u32,
    /// It lost what it had synced, by the plan, and will never be what it was.
    pub(super) lost: bool,
    /// All of it.
    pub(super) wiped: bool,
    /// Another takes its place.
    pub(super) replaced: bool,
    /// The plan has done something to its disk.
    pub(super) disk_suffered: bool,
    pub(super) ended: Rc<RefCell<Option<String>>>,
    pub(super) starts_failed: u32,
    pub(super) config: Rc<RefCell<NodeConfig>>,
    /// Tells the process that runs to stop.
    pub(super) stop: Rc<RefCell<CancellationToken>>,
    /// When it was told to.
    pub(super) told_to_stop_ms: Option<u64>,
    /// How often another state came into use.
    pub(super) switched: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    Up,
    Down,
}

impl Node {
    /// The newest version of the cluster that its program knows.
    pub(super) fn knows(&self) -> u32 {
        self.config.borrow().limits.cluster_version_max
    }

    /// Another program is installed; the one that runs goes on until it stops.
    pub(super) fn install_program(&self, knows: u32) {
        self.config.borrow_mut().limits.cluster_version_max = knows;
    }
}

impl Cluster<'_> {
    /// The next node, on a host of its own with an empty disk.
    pub(super) fn add_node(&mut self) -> usize {
        let place = self.nodes.len();
        let (name, id) = (format!("n{}", place + 1), place as u64 + 1);
        let seed = self.plan.seed;
        let disk = SimDisk::new(Dice::new(seed, &format!("disk {name}")));
        let data_dir = match &self.root {
            Some(root) => root.path().join(&name),
            None => PathBuf::from("/data"),
        };
        let engines: Arc<dyn EngineFactory> = match self.plan.engine {
            Engine::Memory => Arc::new(MemoryEngines::new(disk.mount_for_ever())),
            Engine::Rocks => Arc::new(RocksEngines::new(8 << 20).without_compaction()),
        };
        let node = Node {
            config: Rc::new(RefCell::new(node_config(&self.plan, &name, id, &data_dir))),
            name: name.clone(),
            disk,
            clock: SimClock::default(),
            pace: Pace::new(Dice::new(seed, &format!("pace {name}"))),
            engines,
            data_dir,
            state: NodeState::Up,
            up_at_ms: None,
            down: 0,
            lost: false,
            wiped: false,
            replaced: false,
            disk_suffered: false,
            ended: Rc::default(),
            starts_failed: 0,
            stop: Rc::default(),
            told_to_stop_ms: None,
            switched: 0,
        };
        let tapped = self.wiretap.clone().map(|wiretap| (name.clone(), wiretap));
        let host = Host {
            config: node.config.clone(),
            stop: node.stop.clone(),
            transport: SimTransport { tapped },
            disk: node.disk.clone(),
            clock: node.clock.clone(),
            pace: node.pace.clone(),
            engines: node.engines.clone(),
            real_files: self.root.is_some(),
            entropy: Arc::new(SimEntropy::new(Dice::new(seed, &format!("entropy {name}")))),
            ended: node.ended.clone(),
        };
        let program = Program { at_ns: self.chronicle.now_ns(), id, knows: Some(node.knows()) };
        self.chronicle.hear(&News::Program(program));
        self.lives.borrow_mut().push(0);
        self.ids.borrow_mut().push(id);
        self.chronicle.book().ids.insert(place, id);
        self.nodes.push(node);
        self.sim.host(name.as_str(), move || host.clone().live());
        place
    }
}

/// The log that a node would find if the power failed now.
pub(super) fn durable_log(node: &Node) -> Result<Option<Inspection>, String> {
    let dir = node.data_dir.join("group-0/log");
    let mount = node.disk.durable_image(&dir).mount();
    match mount.exists(&dir) {
        true => inspect(&*mount, &dir, 0).map(Some).map_err(|error| error.to_string()),
        false => Ok(None),
    }
}

/// What a host needs to start its node, again and again.
#[derive(Clone)]
struct Host {
    config: Rc<RefCell<NodeConfig>>,
    stop: Rc<RefCell<CancellationToken>>,
    transport: SimTransport,
    disk: SimDisk,
    clock: SimClock,
    pace: Pace,
    engines: Arc<dyn EngineFactory>,
    real_files: bool,
    entropy: Arc<SimEntropy>,
    ended: Rc<RefCell<Option<String>>>,
}

impl Host {
    async fn live(self) -> turmoil::Result {
        let mount = self.disk.mount();
        let stop = CancellationToken::new();
        *self.stop.borrow_mut() = stop.clone();
        let config = self.config.borrow().clone();
        let state_vfs: Arc<dyn Vfs> = if self.real_files { Arc::new(StdVfs) } else { mount.clone() };
        let environment = Environment {
            transport: Arc::new(self.transport),
            clock: Arc::new(self.clock),
            entropy: self.entropy,
            log_lines_lost: Arc::new(|| 0),
            term: Term::default(),
            traces: Traces::default(),
            store: StoreEnv {
                log_vfs: mount,
                state_vfs,
                engines: self.engines,
                blocking: Arc::new(SimBlocking::new(self.pace)),
            },
        };
        let ended = jangbu_node::run(config, environment, stop).await;
        let why = ended.map_or_else(|error| error.to_string(), |()| "it stopped by itself".into());
        *self.ended.borrow_mut() = Some(why);
        Ok(())
    }
}

fn node_config(plan: &Plan, name: &str, id: u64, data_dir: &Path) -> NodeConfig {
    let tuning = &plan.tuning;
    let is_older = id <= plan.nodes as u64 && plan.older >> (id - 1) & 1 == 1;
    let cluster_version_max = if is_older { OLDER } else { VERSION_MAX };
    NodeConfig {
        node_id: id,
        data_dir: data_dir.to_owned(),
        data_center: ["seoul", "busan", "daejeon"][(id as usize - 1) % 3].into(),
        network: Network::Metro,
        listen: Listen { client: format!("{name}:{CLIENT_PORT}"), peer: format!("{name}:{PEER_PORT}"), http: None },
        advertise: Advertise::default(),
        tls: Tls::off(),
        limits: Limits {
            deadline_ms_default: tuning.deadline_ms,
            // Nobody here leaves answers unread; looking for it would only add ticks.
            unread_ms_max: 3_600_000,
            cluster_version_max,
            ..Limits::default()
        },
        storage: Storage {
            snapshot_after_log_bytes: tuning.snapshot_after_log_bytes,
            log_entries_kept: tuning.log_entries_kept,
            // Small segments: so bytes decide in some seeds, and entries in others.
            log_bytes_kept: 2 * tuning.segment_bytes,
            digest_interval_ms: 1_000,
            flush_events: Some(tuning.flush_events),
            log_segment_bytes: Some(tuning.segment_bytes),
            log_cache_bytes: Some(tuning.cache_bytes),
        },
        logging: Logging::default(),
        tracing: Tracing::default(),
        http2: Http2Overrides { reset_stream_duration: Some(RESET_STREAM_DURATION), fixed_date: true },
    }
}
