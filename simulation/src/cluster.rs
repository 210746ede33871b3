//! Real nodes on simulated hosts, and what the plan does to them.
//!
//! Every node is `jangbu_node::run` over the seams of `world.rs` and `disk.rs`. Its host dies by dropping the whole runtime;
//! its disk, its durable state and its clock are kept here, as a machine keeps them.
//!
//!     step turmoil ─> strike what is due, lift what is over ─> start again what has ended ─> now and then: look at all disks
//!
//! Laws
//! * A crash cuts the disk off first: destructors run in a simulated crash and must not write.
//! * A node that ends by itself has a reason in the plan, or the run has failed.
//!
//! Not here: the plan (`faults.rs`), who asks (`actors.rs`), who judges (`auditor.rs`, `invariants`).

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use jangbu_node::{
    Environment, NodeConfig,
    config::{Advertise, Http2Overrides, Limits, Listen, Logging, Network, Storage, Tls},
};
use jangbu_raft_store::{
    StoreEnv,
    engine::{EngineFactory, memory::MemoryEngines, rocks::RocksEngines},
    log::{Inspection, inspect},
    vfs::{StdVfs, Vfs},
};
use tokio_util::sync::CancellationToken;

use crate::{
    actors::{self, CallerConfig},
    chance::Dice,
    chronicle::{Chronicle, Command, Phase},
    coverage::Lasted,
    disk::{DiskFaults, SimDisk, Survival},
    faults::{End, Engine, Fault, Kind, Plan, Target},
    invariants::{Disks, DurableNode, Loss},
    links::Links,
    marks,
    wiretap::{self, Happened, Mischief, Wiretap},
    workload::{Generator, SharedTown, Town},
    world::{EPOCH_NS, Pace, RESET_STREAM_DURATION, SimBlocking, SimClock, SimEntropy, SimTransport},
};

pub const CLIENT_PORT: u16 = 7400;
pub const PEER_PORT: u16 = 7401;

/// Simulated time between two looks at all disks.
const DISKS_EVERY_MS: u64 = 2_000;

/// No run is longer, whatever happens.
const RUN_MAX: Duration = Duration::from_secs(900);

/// A node that was told to stop has ended within this time; more than a node gives its callers to be answered.
const STOPPING_MAX_MS: u64 = 60_000;

/// A node that is to need a snapshot is away at least so long, and others take theirs so long before it comes back.
const STARVE_MIN_MS: u64 = 1_500;
const SNAPSHOT_AHEAD_MS: u64 = 700;

/// A step of the simulation. Everything happens at multiples of it.
const TICK: Duration = Duration::from_millis(1);

struct Node {
    name: String,
    disk: SimDisk,
    clock: SimClock,
    pace: Pace,
    engines: Arc<dyn EngineFactory>,
    data_dir: PathBuf,
    state: NodeState,
    /// When it is started again, if it is down: milliseconds of the run.
    up_at_ms: Option<u64>,
    /// Faults that keep it down, or make it stop.
    down: u32,
    /// It lost what it had synced, by the plan, and will never be what it was.
    lost: bool,
    /// All of it.
    wiped: bool,
    /// Another takes its place.
    replaced: bool,
    /// The plan has done something to its disk.
    disk_suffered: bool,
    ended: Rc<RefCell<Option<String>>>,
    starts_failed: u32,
    config: Rc<RefCell<NodeConfig>>,
    /// Tells the process that runs to stop.
    stop: Rc<RefCell<CancellationToken>>,
    /// When it was told to.
    told_to_stop_ms: Option<u64>,
    /// How often another state came into use.
    switched: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeState {
    Up,
    Down,
}

/// A fault that has struck and will be lifted.
struct Struck {
    until_ms: u64,
    lift: Lift,
}

enum Lift {
    Nothing,
    /// Directed links to mend.
    Links(Vec<(String, String)>),
    Held(Vec<(String, String)>),
    Up(Vec<usize>),
    /// Comes up in a crash loop: (node, times left).
    Loop(usize, u64),
    /// Dies in a crash loop.
    Die(usize, u64),
    Pace(usize),
    Disk(usize),
    SlowLink(String, String),
    Clock(usize, i64),
    Drift(usize),
    Storm,
    Loss(String, String),
    Slow(usize),
    /// A host hears everything once again.
    Double(String),
    /// Another fault strikes: the next part of this one.
    Then(Box<Next>),
}

/// What follows in the course of a fault.
enum Next {
    TakeSnapshot,
    Tamper(Mischief),
    RotSnapshot,
    Clog { place: usize, for_ms: u64 },
    Restart { place: usize },
}

pub struct Cluster<'a> {
    sim: turmoil::Sim<'a>,
    plan: Plan,
    chronicle: Chronicle,
    nodes: Vec<Node>,
    callers: Vec<String>,
    links: Links,
    lives: Rc<RefCell<Vec<u64>>>,
    ids: Rc<RefCell<Vec<u64>>>,
    members: Rc<RefCell<Vec<usize>>>,
    town: SharedTown,
    struck: Vec<Struck>,
    dice: Dice,
    load_began_ms: u64,
    replacements: u32,
    root: Option<tempfile::TempDir>,
    faults_struck: std::collections::BTreeMap<&'static str, u64>,
    /// Somebody listens, if the plan needs it.
    wiretap: Option<Wiretap>,
}

/// What a run was, in figures.
pub struct Ran {
    pub simulated_ms: u64,
    pub faults: std::collections::BTreeMap<&'static str, u64>,
    pub syncs: u64,
    pub writes_lost: u64,
    pub disk_failures: u64,
}

impl<'a> Cluster<'a> {
    pub fn new(plan: &Plan, chronicle: Chronicle) -> Self {
        jangbu_raft_store::rt::set_thread_seed(plan.seed);
        let sim = turmoil::Builder::new()
            .epoch(UNIX_EPOCH + Duration::from_nanos(EPOCH_NS))
            .simulation_duration(RUN_MAX * 2)
            .tick_duration(TICK)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(plan.tuning.latency_ms))
            .rng_seed(plan.seed)
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let root =
            (plan.engine == Engine::Rocks).then(|| tempfile::tempdir().expect("a folder for RocksDB can be made"));
        let town = Rc::new(RefCell::new(Town::new(&plan.tuning)));
        let mut cluster = Self {
            sim,
            plan: plan.clone(),
            chronicle,
            nodes: Vec::new(),
            callers: Vec::new(),
            links: Links::default(),
            lives: Rc::default(),
            ids: Rc::default(),
            members: Rc::default(),
            town,
            struck: Vec::new(),
            dice: Dice::new(plan.seed, "cluster"),
            load_began_ms: 0,
            replacements: 0,
            root,
            faults_struck: Default::default(),
            wiretap: plan.needs_wiretap().then(|| Wiretap::new(Dice::new(plan.seed, "wiretap"))),
        };
        for _ in 0..plan.nodes {
            cluster.add_node();
        }
        cluster.members.borrow_mut().extend(0..plan.nodes);
        cluster.add_actors();
        cluster
    }

    /// The next node, on a host of its own with an empty disk.
    fn add_node(&mut self) -> usize {
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
            Engine::Rocks => Arc::new(RocksEngines::new(8 << 20)),
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
        self.lives.borrow_mut().push(0);
        self.ids.borrow_mut().push(id);
        self.chronicle.book().ids.insert(place, id);
        self.nodes.push(node);
        self.sim.host(name.as_str(), move || host.clone().live());
        place
    }

    fn add_actors(&mut self) {
        let (seed, nodes) = (self.plan.seed, self.plan.nodes);
        let founding = self.town.borrow().founding();
        let (chronicle, town) = (self.chronicle.clone(), self.town.clone());
        self.actor("founder", actors::founder(chronicle, seed, nodes, founding, town));
        let mut dice = Dice::new(seed, "callers");
        for (index, plan) in self.plan.clients.clone().into_iter().enumerate() {
            let mut order: Vec<usize> = (0..nodes).collect();
            dice.shuffle(&mut order);
            let config = CallerConfig {
                number: index as u32,
                seed,
                nodes: order,
                deadline: Duration::from_millis(self.plan.tuning.deadline_ms),
                attempts_max: if dice.percent(50) { 1 } else { 6 },
                packed: dice.percent(30),
                wiretap: self.wiretap.clone(),
            };
            let generator = Generator::new(index as u32, plan, seed, self.town.clone());
            let caller = actors::caller(self.chronicle.clone(), config, generator, self.town.clone());
            let name = format!("c{index}");
            self.actor(&name, caller);
            self.callers.push(name);
        }
        let watcher = actors::watcher(self.chronicle.clone(), seed, self.lives.clone());
        self.actor("watcher", watcher);
        self.actor("operator", actors::operator(self.chronicle.clone(), seed, self.ids.clone(), self.members.clone()));
        if let Some(wiretap) = self.wiretap.clone() {
            self.actor("replayer", wiretap::replayer(self.chronicle.clone(), wiretap));
        }
        let finisher = actors::finisher(self.chronicle.clone(), seed, self.members.clone(), self.town.clone());
        self.actor("finisher", finisher);
    }

    fn actor(&mut self, name: &str, acts: impl Future<Output = ()> + 'static) {
        self.sim.client(name, async move {
            acts.await;
            Ok(())
        });
    }

    // ------------------------------------------------------------------ the run

    /// Runs the plan to its end.
    pub fn run(&mut self) -> Ran {
        let mut next_fault = 0;
        let mut disks_at_ms = DISKS_EVERY_MS;
        loop {
            self.sim.step().expect("no host ends with an error: nodes and actors keep theirs");
            let now_ms = self.sim.elapsed().as_millis() as u64;
            self.chronicle.set_now(self.sim.elapsed().as_nanos() as u64);
            match self.chronicle.phase() {
                Phase::Founding if now_ms > 60_000 => {
                    self.chronicle.broken("the_cluster_heals", "no cluster could be made within a minute".into());
                    break;
                }
                Phase::Founding => {}
                Phase::Load => {
                    if self.load_began_ms == 0 {
                        self.load_began_ms = now_ms;
                    }
                    let load_ms = now_ms - self.load_began_ms;
                    while let Some(fault) = self.plan.faults.get(next_fault).filter(|fault| fault.at_ms <= load_ms) {
                        let fault = fault.clone();
                        next_fault += 1;
                        self.strike(&fault, now_ms);
                    }
                    if load_ms >= self.plan.duration_ms {
                        self.heal(now_ms);
                    }
                }
                Phase::Healing => {}
                Phase::Done => break,
            }
            self.lift_what_is_over(now_ms);
            self.note_what_was_overheard(now_ms);
            self.tend(now_ms);
            let told = !self.chronicle.book().members_told.is_empty();
            if now_ms >= disks_at_ms || told {
                disks_at_ms = now_ms + DISKS_EVERY_MS;
                self.look_at_disks();
            }
            if self.sim.elapsed() > RUN_MAX {
                self.chronicle.broken("the_cluster_heals", format!("the run did not end within {RUN_MAX:?}"));
                break;
            }
        }
        self.look_at_disks();
        let stats: Vec<_> = self.nodes.iter().map(|node| node.disk.stats()).collect();
        Ran {
            simulated_ms: self.sim.elapsed().as_millis() as u64,
            faults: self.faults_struck.clone(),
            syncs: stats.iter().map(|stats| stats.syncs).sum(),
            writes_lost: stats.iter().map(|stats| stats.writes_lost).sum(),
            disk_failures: stats.iter().map(|stats| stats.failures).sum(),
        }
    }

    /// What somebody on the lines did, or brought about.
    fn note_what_was_overheard(&mut self, now_ms: u64) {
        let Some(wiretap) = self.wiretap.clone() else { return };
        for happened in wiretap.happened() {
            self.chronicle.line("faults", "line", format!("{happened:?}"));
            match happened {
                Happened::Cut { end, host } => {
                    self.chronicle.mark(match end {
                        End::Sender => &marks::SNAPSHOT_CUT_SENDER,
                        End::Receiver => &marks::SNAPSHOT_CUT_RECEIVER,
                    });
                    let place = self.nodes.iter().position(|node| node.name == host);
                    let place = place.expect("transfers go from node to node");
                    if !self.nodes[place].replaced {
                        let lift = self.take_down(place, Survival::Some);
                        self.struck.push(Struck { until_ms: now_ms + 500, lift });
                    }
                }
                Happened::Refused { mischief: Mischief::Damage, .. } => self.chronicle.mark(&marks::DAMAGED_REFUSED),
                Happened::Refused { mischief: Mischief::Foreign, .. } => self.chronicle.mark(&marks::FOREIGN_REFUSED),
                Happened::Refused { .. } | Happened::Damaged | Happened::Foreign => {}
            }
        }
    }

    /// Nodes that ended are noticed, and started again as a service manager would; those that are due come up.
    fn tend(&mut self, now_ms: u64) {
        for place in 0..self.nodes.len() {
            if let Some(step) = self.nodes[place].disk.sprung() {
                self.chronicle.line("faults", "power-off", format!("{}: {step:?}", self.nodes[place].name));
                self.chronicle.mark(&marks::STEP_SPRUNG);
                let lift = self.take_down(place, Survival::All);
                self.struck.push(Struck { until_ms: now_ms + 300, lift });
            }
            self.note_installations(place);
            let told = self.nodes[place].told_to_stop_ms;
            if told.is_some_and(|told_ms| told_ms + STOPPING_MAX_MS < now_ms) {
                self.nodes[place].told_to_stop_ms = None;
                let text =
                    format!("{} was told to stop and still runs after {STOPPING_MAX_MS} ms", self.nodes[place].name);
                self.chronicle.broken("a_node_stops_when_it_is_told_to", text);
            }
            let ended = self.nodes[place].ended.borrow_mut().take();
            if let Some(why) = ended {
                self.ended(place, &why, now_ms);
            }
            let node = &self.nodes[place];
            let due = node.up_at_ms.is_some_and(|at| at <= now_ms);
            if node.state == NodeState::Down && node.down == 0 && due && !node.replaced {
                self.start(place);
            }
        }
    }

    /// Which state is in use changes when a snapshot is installed, and never else but for the first.
    fn note_installations(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let switched = node.disk.stats().switched;
        if switched > node.switched && node.switched > 0 && !node.lost {
            self.chronicle.line(&node.name, "installed", "a snapshot is its state now".into());
            self.chronicle.mark(&marks::SNAPSHOT_INSTALLED);
            if self.chronicle.book().torn.contains(&place) {
                self.chronicle.mark(&marks::SNAPSHOT_OVER_TORN);
            }
        }
        node.switched = switched;
    }

    fn ended(&mut self, place: usize, why: &str, now_ms: u64) {
        // RocksDB's folder has another name in each run, and the story must not.
        let root = self.root.as_ref().map(|root| root.path().display().to_string());
        let why = &root.map_or(why.to_owned(), |root| why.replace(&root, ""));
        let node = &mut self.nodes[place];
        self.chronicle.line(&node.name, "ended", why.to_owned());
        for (part, mark) in [
            ("reading failed", &marks::READ_STOPPED),
            ("syncing", &marks::SYNC_STOPPED),
            ("no space left", &marks::FULL_STOPPED),
            ("lost its data folder", &marks::OLD_ID_REFUSED),
        ] {
            if why.contains(part) {
                self.chronicle.mark(mark);
            }
        }
        // "Damaged data", or an end that no two reads agree on.
        let read_wrongly = why.contains("damaged data") || why.contains("something else when it was read again");
        if read_wrongly && node.lost {
            self.chronicle.mark(&marks::ROT_STOPPED);
        } else if read_wrongly && node.disk.stats().flips > 0 {
            self.chronicle.mark(&marks::FLIP_STOPPED);
        }
        if node.told_to_stop_ms.take().is_some() {
            return self.come_back_changed(place, now_ms);
        }
        let reason = node.disk_suffered || node.lost || node.replaced;
        if !reason {
            let text = format!("{} ended without a fault that must end it: {why}", node.name);
            self.chronicle.broken("a_node_stops_only_for_a_reason", text);
        }
        let node = &mut self.nodes[place];
        node.starts_failed += 1;
        let starts_failed = node.starts_failed;
        self.stop(place, Survival::All);
        let node = &mut self.nodes[place];
        // What fails again and again gets longer pauses, and an operator's eye in the end.
        node.up_at_ms = Some(now_ms + 200 * u64::from(starts_failed.min(20)));
        if node.lost && starts_failed >= 3 {
            self.replace(place);
        }
    }

    /// It was told to stop and has: it comes back with settings that another version could have had as its own.
    fn come_back_changed(&mut self, place: usize, now_ms: u64) {
        self.stop(place, Survival::All);
        let node = &mut self.nodes[place];
        {
            let storage = &mut node.config.borrow_mut().storage;
            storage.log_segment_bytes = Some(*self.dice.pick(&[32 << 10, 128 << 10, 1 << 20]));
            storage.flush_events = Some(*self.dice.pick(&[1, 50, 1_000]));
            storage.log_entries_kept = *self.dice.pick(&[0, 10, 1_000]);
            storage.snapshot_after_log_bytes = *self.dice.pick(&[64 << 10, 512 << 10, 64 << 20]);
        }
        node.up_at_ms = Some(now_ms + self.dice.range(1, 300));
        self.chronicle.mark(&marks::RESTARTED);
    }

    fn start(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.state = NodeState::Up;
        node.up_at_ms = None;
        self.lives.borrow_mut()[place] += 1;
        let name = node.name.clone();
        self.chronicle.line(&name, "start", String::new());
        self.sim.bounce(name.as_str());
    }

    /// The process is gone, now.
    fn stop(&mut self, place: usize, survival: Survival) {
        let node = &mut self.nodes[place];
        if node.state == NodeState::Down {
            if survival != Survival::All {
                node.disk.crash(survival);
            }
            return;
        }
        node.state = NodeState::Down;
        let name = node.name.clone();
        self.chronicle.line(&name, "stop", format!("{survival:?}"));
        // First the disk, then the process: its destructors must find nothing to write to.
        let lost_before = node.disk.stats().writes_lost;
        node.disk.crash(survival);
        let tore = node.disk.stats().writes_lost > lost_before;
        node.told_to_stop_ms = None;
        if tore {
            self.chronicle.mark(&marks::WRITES_TORN);
            self.chronicle.book().torn.insert(place);
        } else {
            self.chronicle.book().torn.remove(&place);
        }
        self.lives.borrow_mut()[place] += 1;
        self.sim.crash(name.as_str());
        self.nodes[place].ended.borrow_mut().take();
        let role = self.chronicle.book().sightings.get(&place).map(|sighting| sighting.status.role.clone());
        if role.as_deref() == Some("Leader") {
            self.chronicle.mark(&marks::LEADER_DIED);
        }
    }

    /// All faults end; what is lost for good is replaced.
    fn heal(&mut self, now_ms: u64) {
        self.chronicle.line("faults", "heal", "all faults are lifted".into());
        self.struck.clear();
        let now_ns = now_ms * 1_000_000;
        self.chronicle.book().faults.iter_mut().for_each(|fault| fault.to_ns = fault.to_ns.min(now_ns));
        if let Some(wiretap) = &self.wiretap {
            wiretap.fall_silent();
        }
        self.links.mend_all();
        self.links.apply(&self.sim);
        self.town.borrow_mut().storm = false;
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            node.disk.set_faults(DiskFaults::default());
            node.disk.remove_trap();
            node.pace.slow_down(0);
            node.pace.stand_still_until(0);
            node.clock.mend();
            node.down = 0;
            if node.state == NodeState::Down {
                node.up_at_ms = Some(now_ms);
            }
        }
        self.usual_latencies();
        for place in 0..self.nodes.len() {
            if self.nodes[place].lost && !self.nodes[place].replaced {
                self.replace(place);
            }
        }
        self.chronicle.enter(Phase::Healing);
    }

    fn usual_latencies(&mut self) {
        let latency = Duration::from_millis(self.plan.tuning.latency_ms);
        for a in 0..self.nodes.len() {
            for b in 0..a {
                let (a, b) = (self.nodes[a].name.as_str(), self.nodes[b].name.as_str());
                self.sim.set_link_max_message_latency(a, b, latency);
                self.sim.set_link_fail_rate(a, b, 0.0);
            }
        }
        for node in &self.nodes {
            for caller in &self.callers {
                self.sim.set_link_max_message_latency(node.name.as_str(), caller.as_str(), latency);
            }
        }
    }

    fn look_at_disks(&mut self) {
        let committed = self.chronicle.book().committed;
        let nodes: Vec<DurableNode> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(place, node)| DurableNode {
                node: place,
                id: self.ids.borrow()[place],
                voter: !node.replaced,
                loss: match (node.lost, node.wiped) {
                    (false, _) => Loss::None,
                    (true, false) => Loss::Some,
                    (true, true) => Loss::All,
                },
                log: durable_log(node),
            })
            .collect();
        let told = std::mem::take(&mut self.chronicle.book().members_told);
        self.chronicle.see_disks(&Disks { nodes: &nodes, committed, told: &told });
    }

    // ------------------------------------------------------------------ misfortune

    fn resolve(&mut self, target: Target) -> usize {
        let leader = self.chronicle.leader();
        let members = self.members.borrow().clone();
        match target {
            Target::Node(place) => members[place % members.len()],
            Target::Leader => leader.filter(|leader| members.contains(leader)).unwrap_or(members[0]),
            Target::Follower(index) => {
                let followers: Vec<usize> = members.iter().copied().filter(|place| Some(*place) != leader).collect();
                followers[index % followers.len()]
            }
        }
    }

    fn strike(&mut self, fault: &Fault, now_ms: u64) {
        let members = self.members.borrow().clone();
        let name = |cluster: &Self, place: usize| cluster.nodes[place].name.clone();
        *self.faults_struck.entry(fault.kind.name()).or_default() += 1;
        let (from_ns, to_ns) = (now_ms * 1_000_000, (now_ms + fault.for_ms) * 1_000_000);
        self.chronicle.book().faults.push(Lasted { fault: fault.kind.name(), from_ns, to_ns });
        self.chronicle.line("faults", fault.kind.name(), format!("{:?} for {} ms", fault.kind, fault.for_ms));
        let lift = match fault.kind.clone() {
            Kind::Kill { node } => {
                let place = self.resolve(node);
                self.take_down(place, Survival::All)
            }
            Kind::PowerOff { node } => {
                let place = self.resolve(node);
                let survival = *self.dice.pick(&[Survival::Nothing, Survival::Some]);
                self.take_down(place, survival)
            }
            Kind::PowerCut => {
                let survival = *self.dice.pick(&[Survival::Nothing, Survival::Some]);
                for &place in &members {
                    self.take_down(place, survival);
                }
                self.chronicle.mark(&marks::POWER_CUT);
                Lift::Up(members)
            }
            Kind::QuorumLost => {
                let dying: Vec<usize> = members[..members.len() / 2 + 1].to_vec();
                for &place in &dying {
                    self.take_down(place, Survival::Some);
                }
                Lift::Up(dying)
            }
            Kind::CrashLoop { node, times } => {
                let place = self.resolve(node);
                self.take_down(place, Survival::Some);
                Lift::Loop(place, times)
            }
            Kind::DataCenterLost { center } => {
                let inside: Vec<usize> = members.iter().copied().filter(|place| place % 3 == center).collect();
                let mut outside: Vec<String> =
                    members.iter().filter(|place| !inside.contains(place)).map(|&place| name(self, place)).collect();
                outside.extend(self.callers.iter().cloned());
                let inside: Vec<String> = inside.iter().map(|&place| name(self, place)).collect();
                self.cut_both(&product(&inside, &outside))
            }
            Kind::Partition { first } => {
                let (a, b): (Vec<usize>, Vec<usize>) = members.iter().partition(|place| first >> **place & 1 == 1);
                let names = |places: &[usize]| places.iter().map(|&place| name(self, place)).collect::<Vec<_>>();
                let pairs = product(&names(&a), &names(&b));
                self.cut_both(&pairs)
            }
            Kind::OneWay { from, to } => {
                let (from, to) = (self.resolve(from), self.resolve(to));
                self.cut_links(vec![(name(self, from), name(self, to))])
            }
            Kind::Partial { a, b } => {
                let (a, b) = (self.resolve(a), self.resolve(b));
                self.cut_both(&[(name(self, a), name(self, b))])
            }
            Kind::Bridge { node } => {
                let bridge = self.resolve(node);
                let others: Vec<String> =
                    members.iter().filter(|place| **place != bridge).map(|&place| name(self, place)).collect();
                let (a, b) = others.split_at(others.len() / 2);
                self.cut_both(&product(a, b))
            }
            Kind::Ring => {
                let count = members.len();
                let mut pairs = Vec::new();
                for a in 0..count {
                    for b in 0..a {
                        if a - b != 1 && a - b != count - 1 {
                            pairs.push((name(self, members[a]), name(self, members[b])));
                        }
                    }
                }
                self.cut_both(&pairs)
            }
            Kind::LeaderAlone => {
                let leader = self.resolve(Target::Leader);
                let others: Vec<String> =
                    members.iter().filter(|place| **place != leader).map(|&place| name(self, place)).collect();
                self.chronicle.mark(&marks::LEADER_ALONE);
                self.cut_both(&product(&[name(self, leader)], &others))
            }
            Kind::Swizzle => {
                // One after the other is clogged, in any order; each comes free at a time of its own.
                let mut clogged: Vec<usize> = members.iter().copied().filter(|_| self.dice.percent(60)).collect();
                self.dice.shuffle(&mut clogged);
                for (place, turn) in clogged.into_iter().zip(0..) {
                    let for_ms = self.dice.range(fault.for_ms / 2, fault.for_ms * 2 + 1);
                    self.later(now_ms + turn * fault.for_ms / 4, Next::Clog { place, for_ms });
                }
                Lift::Nothing
            }
            Kind::Hold { a, b } => {
                let (a, b) = (self.resolve(a), self.resolve(b));
                if a == b { Lift::Nothing } else { self.hold_links(vec![(name(self, a), name(self, b))]) }
            }
            Kind::Pause { node } => {
                let place = self.resolve(node);
                self.nodes[place].pace.stand_still_until((now_ms + fault.for_ms) * 1_000_000);
                let mut pairs = self.around(place);
                pairs.extend(self.callers.iter().map(|caller| (name(self, place), caller.clone())));
                self.hold_links(pairs)
            }
            Kind::SlowLink { a, b, ms } => {
                let (a, b) = (self.resolve(a), self.resolve(b));
                if a == b {
                    Lift::Nothing
                } else {
                    let (a, b) = (name(self, a), name(self, b));
                    self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), Duration::from_millis(ms));
                    Lift::SlowLink(a, b)
                }
            }
            Kind::Loss { a, b, permille } => {
                let (a, b) = (self.resolve(a), self.resolve(b));
                if a == b {
                    Lift::Nothing
                } else {
                    let (a, b) = (name(self, a), name(self, b));
                    self.sim.set_link_fail_rate(a.as_str(), b.as_str(), permille as f64 / 1_000.0);
                    Lift::Loss(a, b)
                }
            }
            Kind::SlowNode { node, ms } => {
                let place = self.resolve(node);
                self.nodes[place].pace.slow_down(ms);
                self.links_of(place, Duration::from_millis(ms));
                Lift::Slow(place)
            }
            Kind::CrashAtStep { node, step, survival } => {
                let place = self.resolve(node);
                self.nodes[place].disk.set_trap(step, survival);
                Lift::Nothing
            }
            Kind::ReadFails { node, percent } => {
                let place = self.resolve(node);
                let faults = DiskFaults { reads_fail_percent: percent, ..self.nodes[place].disk.faults() };
                self.break_disk(place, faults)
            }
            Kind::SnapshotCut { end, after } => {
                self.starve(fault.for_ms, now_ms, Next::Tamper(Mischief::Cut { end, after }))
            }
            Kind::SnapshotDamaged { on_disk: true } => self.starve(fault.for_ms, now_ms, Next::RotSnapshot),
            Kind::SnapshotDamaged { on_disk: false } => {
                self.starve(fault.for_ms, now_ms, Next::Tamper(Mischief::Damage))
            }
            Kind::SnapshotForeign => self.starve(fault.for_ms, now_ms, Next::Tamper(Mischief::Foreign)),
            Kind::SnapshotOlder { node } => {
                let place = self.resolve(node);
                let count = self.listener().replay_snapshots(&name(self, place));
                self.chronicle.line("faults", "line", format!("{count} transfers are made again"));
                Lift::Nothing
            }
            Kind::Duplicate { node, percent } => {
                let place = self.resolve(node);
                let host = name(self, place);
                self.listener().double(&host, percent);
                Lift::Double(host)
            }
            Kind::Replay { node, calls } => {
                let place = self.resolve(node);
                let count = self.listener().replay(&name(self, place), calls, fault.for_ms);
                self.chronicle.line("faults", "line", format!("{count} calls are made again"));
                Lift::Nothing
            }
            Kind::RollingRestart => {
                for (&place, turn) in members.iter().zip(0..) {
                    self.later(now_ms + turn * fault.for_ms, Next::Restart { place });
                }
                Lift::Nothing
            }
            Kind::SlowDisk { node, ms } => {
                let place = self.resolve(node);
                self.nodes[place].pace.slow_down(ms);
                Lift::Pace(place)
            }
            Kind::SyncFails { node } => {
                let place = self.resolve(node);
                let faults = DiskFaults { sync_fails: true, ..self.nodes[place].disk.faults() };
                self.break_disk(place, faults)
            }
            Kind::DiskFull { node } => {
                let place = self.resolve(node);
                let faults = DiskFaults { full: true, ..self.nodes[place].disk.faults() };
                self.break_disk(place, faults)
            }
            Kind::ReadFlips { node, percent, restart } => {
                let place = self.resolve(node);
                if restart {
                    let up = self.take_down(place, Survival::Nothing);
                    self.struck.push(Struck { until_ms: now_ms + 50, lift: up });
                }
                let faults = DiskFaults { reads_flip_percent: percent, ..self.nodes[place].disk.faults() };
                self.break_disk(place, faults)
            }
            // Whoever is being replaced is missed already: no quorum survives the loss of another.
            Kind::BitRot { .. } | Kind::RotAlive { .. } | Kind::Wipe { .. } if self.is_replacing() => Lift::Nothing,
            Kind::BitRot { node } => {
                let place = self.resolve(node);
                let up = self.take_down(place, Survival::Nothing);
                self.rot_log(place);
                up
            }
            Kind::RotAlive { node } => {
                let place = self.resolve(node);
                self.rot_log(place);
                Lift::Nothing
            }
            Kind::ClockOffset { node, ms } => {
                let place = self.resolve(node);
                self.nodes[place].clock.jump(ms * 1_000_000);
                Lift::Clock(place, -ms * 1_000_000)
            }
            Kind::ClockJump { node, ms } => {
                let place = self.resolve(node);
                self.nodes[place].clock.jump(ms * 1_000_000);
                Lift::Nothing
            }
            Kind::ClockDrift { node, ppm } => {
                let place = self.resolve(node);
                self.nodes[place].clock.drift(ppm, now_ms * 1_000_000);
                Lift::Drift(place)
            }
            Kind::Snapshot { node } => {
                let node = self.resolve(node);
                self.chronicle.book().commands.push_back(Command::Snapshot { node });
                Lift::Nothing
            }
            Kind::MoveLeader => {
                self.chronicle.book().commands.push_back(Command::MoveLeader);
                Lift::Nothing
            }
            Kind::Replace { node } => {
                let place = self.resolve(node);
                if self.replacements == 0 && !self.nodes.iter().any(|node| node.lost) {
                    self.replace(place);
                }
                Lift::Nothing
            }
            Kind::Wipe { node } => {
                let place = self.resolve(node);
                let up = self.take_down(place, Survival::Nothing);
                self.chronicle.book().lost.insert(place);
                self.chronicle.book().sightings.remove(&place);
                let node = &mut self.nodes[place];
                node.disk.wipe();
                // Snapshots that were installed moved the state from folder to folder.
                (0..1_000)
                    .for_each(|number| node.engines.forget(&node.data_dir.join(format!("group-0/state-{number}"))));
                if self.root.is_some() {
                    let _ = std::fs::remove_dir_all(&node.data_dir);
                }
                node.disk_suffered = true;
                node.lost = true;
                node.wiped = true;
                self.chronicle.mark(&marks::DISK_LOST);
                up
            }
            Kind::RetryStorm => {
                self.town.borrow_mut().storm = true;
                Lift::Storm
            }
        };
        self.links.apply(&self.sim);
        self.struck.push(Struck { until_ms: now_ms + fault.for_ms, lift });
    }

    fn later(&mut self, at_ms: u64, next: Next) {
        self.struck.push(Struck { until_ms: at_ms, lift: Lift::Then(Box::new(next)) });
    }

    fn listener(&self) -> Wiretap {
        self.wiretap.clone().expect("a plan with such a fault is listened to")
    }

    /// A follower goes away until the log it needs is purged: what it gets when it comes back is a snapshot. `next` happens
    /// just before.
    fn starve(&mut self, for_ms: u64, now_ms: u64, next: Next) -> Lift {
        let place = self.resolve(Target::Follower(0));
        let up_at_ms = now_ms + for_ms.max(STARVE_MIN_MS);
        let lift = self.take_down(place, Survival::Some);
        self.struck.push(Struck { until_ms: up_at_ms, lift });
        self.later(up_at_ms - SNAPSHOT_AHEAD_MS, Next::TakeSnapshot);
        self.later(up_at_ms, next);
        Lift::Nothing
    }

    fn follow_up(&mut self, next: Next, now_ms: u64) {
        match next {
            Next::TakeSnapshot => {
                // A leader keeps the log that a follower lacks. One of the others has purged its own, and is to lead.
                let leader = self.resolve(Target::Leader);
                let up = |place: &usize| *place != leader && self.nodes[*place].state == NodeState::Up;
                let others: Vec<usize> = self.members.borrow().iter().copied().filter(up).collect();
                let mut book = self.chronicle.book();
                book.commands.extend(others.into_iter().map(|node| Command::Snapshot { node }));
                book.commands.push_back(Command::MoveLeader);
            }
            Next::Tamper(mischief) => self.listener().tamper(mischief),
            Next::RotSnapshot => {
                let place = self.resolve(Target::Leader);
                self.nodes[place].disk_suffered = true;
                let rot = self.nodes[place].disk.rot("/snapshots/", 100);
                let text =
                    rot.map_or("no snapshot to rot".into(), |(_, offset)| format!("a bit flips at byte {offset}"));
                self.chronicle.line("faults", "rot", text);
            }
            Next::Clog { place, for_ms } => {
                let mut pairs = self.around(place);
                pairs.extend(self.callers.iter().map(|caller| (self.nodes[place].name.clone(), caller.clone())));
                let lift = self.hold_links(pairs);
                self.struck.push(Struck { until_ms: now_ms + for_ms, lift });
            }
            Next::Restart { place } => {
                let node = &mut self.nodes[place];
                if node.state == NodeState::Up && !node.replaced && !node.lost {
                    node.told_to_stop_ms = Some(now_ms);
                    node.stop.borrow().cancel();
                    let name = node.name.clone();
                    self.chronicle.line(&name, "told", "to stop".into());
                }
            }
        }
    }

    /// Sets the latency of all links of a node.
    fn links_of(&self, place: usize, latency: Duration) {
        let own = self.nodes[place].name.as_str();
        let others = self.nodes.iter().map(|node| node.name.as_str()).chain(self.callers.iter().map(String::as_str));
        for other in others.filter(|other| *other != own) {
            self.sim.set_link_max_message_latency(own, other, latency);
        }
    }

    fn take_down(&mut self, place: usize, survival: Survival) -> Lift {
        self.nodes[place].down += 1;
        self.stop(place, survival);
        Lift::Up(vec![place])
    }

    fn break_disk(&mut self, place: usize, faults: DiskFaults) -> Lift {
        self.nodes[place].disk.set_faults(faults);
        self.nodes[place].disk_suffered = true;
        Lift::Disk(place)
    }

    /// All links of a node to its peers.
    fn around(&self, place: usize) -> Vec<(String, String)> {
        let own = self.nodes[place].name.clone();
        self.nodes.iter().filter(|node| node.name != own).map(|node| (own.clone(), node.name.clone())).collect()
    }

    fn cut_both(&mut self, pairs: &[(String, String)]) -> Lift {
        self.cut_links(pairs.iter().flat_map(|(a, b)| [(a.clone(), b.clone()), (b.clone(), a.clone())]).collect())
    }

    fn cut_links(&mut self, links: Vec<(String, String)>) -> Lift {
        let links: Vec<_> = links.into_iter().filter(|(from, to)| from != to).collect();
        links.iter().for_each(|(from, to)| self.links.cut(from, to));
        Lift::Links(links)
    }

    fn hold_links(&mut self, links: Vec<(String, String)>) -> Lift {
        links.iter().for_each(|(a, b)| self.links.hold(a, b));
        Lift::Held(links)
    }

    /// A bit flips in what a node's log had synced.
    fn rot_log(&mut self, place: usize) {
        self.look_at_disks();
        self.chronicle.book().lost.insert(place);
        self.chronicle.book().sightings.remove(&place);
        let node = &mut self.nodes[place];
        node.disk_suffered = true;
        node.lost = true;
        let rot = node.disk.rot("/log/", 90);
        let text = rot.map_or("nothing to rot".into(), |(_, offset)| format!("a bit flips at byte {offset}"));
        self.chronicle.line("faults", "rot", text);
        // Before anyone reads it: what it then takes for its log must be what it was.
        self.look_at_disks();
    }

    fn is_replacing(&self) -> bool {
        let book = self.chronicle.book();
        book.commands_running > 0 || book.commands.iter().any(|command| matches!(command, Command::Replace { .. }))
    }

    /// Another node takes the place of this one, for ever.
    fn replace(&mut self, old: usize) {
        self.replacements += 1;
        let new = self.add_node();
        self.usual_latencies();
        self.stop(old, Survival::All);
        self.nodes[old].replaced = true;
        self.members.borrow_mut().retain(|place| *place != old);
        self.members.borrow_mut().push(new);
        self.chronicle.book().sightings.remove(&old);
        self.chronicle.book().commands.push_back(Command::Replace { old, new });
    }

    fn lift_what_is_over(&mut self, now_ms: u64) {
        let (over, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.struck).into_iter().partition(|struck| struck.until_ms <= now_ms);
        self.struck = still;
        if over.is_empty() {
            return;
        }
        for Struck { lift, .. } in over {
            match lift {
                Lift::Nothing => {}
                Lift::Links(links) => links.iter().for_each(|(from, to)| self.links.mend(from, to)),
                Lift::Held(links) => links.iter().for_each(|(a, b)| self.links.release(a, b)),
                Lift::Up(places) => {
                    for place in places {
                        let node = &mut self.nodes[place];
                        node.down = node.down.saturating_sub(1);
                        node.up_at_ms = Some(now_ms);
                    }
                }
                Lift::Loop(place, times) => {
                    let node = &mut self.nodes[place];
                    node.down = node.down.saturating_sub(1);
                    if node.down == 0 && !node.replaced && node.state == NodeState::Down {
                        self.start(place);
                    }
                    if times > 0 {
                        // Long enough to get somewhere in its recovery, or through it.
                        let life_ms = *self.dice.pick(&[1, 5, 30, 200, 900]);
                        self.struck.push(Struck { until_ms: now_ms + life_ms, lift: Lift::Die(place, times - 1) });
                    }
                }
                Lift::Die(place, times) => {
                    let survival = *self.dice.pick(&[Survival::All, Survival::Nothing, Survival::Some]);
                    self.take_down(place, survival);
                    self.chronicle.mark(&marks::DIED_RECOVERING);
                    let gap_ms = *self.dice.pick(&[1, 50, 400]);
                    self.struck.push(Struck { until_ms: now_ms + gap_ms, lift: Lift::Loop(place, times) });
                }
                Lift::Pace(place) => self.nodes[place].pace.slow_down(0),
                Lift::Disk(place) => {
                    let node = &mut self.nodes[place];
                    node.disk.set_faults(DiskFaults::default());
                    if node.state == NodeState::Down {
                        node.up_at_ms = Some(now_ms);
                    }
                }
                Lift::SlowLink(a, b) => {
                    let latency = Duration::from_millis(self.plan.tuning.latency_ms);
                    self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency);
                }
                Lift::Clock(place, ns) => self.nodes[place].clock.jump(ns),
                Lift::Drift(place) => self.nodes[place].clock.drift(0, now_ms * 1_000_000),
                Lift::Storm => self.town.borrow_mut().storm = false,
                Lift::Loss(a, b) => self.sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0),
                Lift::Slow(place) => {
                    self.nodes[place].pace.slow_down(0);
                    self.links_of(place, Duration::from_millis(self.plan.tuning.latency_ms));
                }
                Lift::Double(host) => self.listener().double(&host, 0),
                Lift::Then(next) => self.follow_up(*next, now_ms),
            }
        }
        self.links.apply(&self.sim);
    }
}

fn product(a: &[String], b: &[String]) -> Vec<(String, String)> {
    a.iter().flat_map(|a| b.iter().map(move |b| (a.clone(), b.clone()))).collect()
}

/// The log that a node would find if the power failed now.
fn durable_log(node: &Node) -> Result<Option<Inspection>, String> {
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
    NodeConfig {
        node_id: id,
        data_dir: data_dir.to_owned(),
        data_center: ["seoul", "busan", "daejeon"][(id as usize - 1) % 3].into(),
        network: Network::Metro,
        listen: Listen { client: format!("{name}:{CLIENT_PORT}"), peer: format!("{name}:{PEER_PORT}"), http: None },
        advertise: Advertise::default(),
        tls: Tls::off(),
        limits: Limits { deadline_ms_default: tuning.deadline_ms, ..Limits::default() },
        storage: Storage {
            snapshot_after_log_bytes: tuning.snapshot_after_log_bytes,
            log_entries_kept: tuning.log_entries_kept,
            digest_interval_ms: 1_000,
            flush_events: Some(tuning.flush_events),
            log_segment_bytes: Some(tuning.segment_bytes),
            log_cache_bytes: Some(tuning.cache_bytes),
        },
        logging: Logging::default(),
        http2: Http2Overrides { reset_stream_duration: Some(RESET_STREAM_DURATION), fixed_date: true },
    }
}
