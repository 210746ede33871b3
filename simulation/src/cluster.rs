//! Real nodes on simulated hosts, and what the plan does to them.
//!
//! Every node is `jangbu_node::run` over the seams of `world.rs` and `disk.rs`.
//!
//!     step turmoil ─> strike what is due, lift what is over ─> start again what has ended ─> now and then: look at all disks
//!                     strike.rs           lift.rs              life.rs, hosts.rs
//!
//! Laws
//! * A crash cuts the disk off first: destructors run in a simulated crash and must not write.
//! * A node that ends by itself has a reason in the plan, or the run has failed.
//!
//! Not here: the plan (`faults.rs`), who asks (`actors.rs`), who judges (`auditor.rs`, `invariants`).

mod disks;
mod hosts;
mod life;
mod lift;
mod lines;
mod machines;
mod network;
mod strike;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, UNIX_EPOCH},
};

use hosts::{Node, durable_log};
use lift::Struck;

use crate::{
    actors::{self, CallerConfig},
    chance::Dice,
    chronicle::{Chronicle, Phase},
    faults::{Engine, Plan},
    invariants::{Disks, DurableNode, Loss},
    links::Links,
    wiretap::{self, Wiretap},
    workload::{Generator, SharedTown, Town},
    world::EPOCH_NS,
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
            let wanted = self.chronicle.book().wants_disks();
            if now_ms >= disks_at_ms || wanted {
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
}
