//! The plan of a run: how large the cluster is, who uses it and how, and what goes wrong when.
//!
//! A plan follows from a seed and from nothing else: the code under test cannot shift it, and it is drawn before the run
//! begins. It can be written down as JSON, which is how `minimize` shrinks it and how a found failure is kept.
//!
//! Each seed turns a random subset of all faults on (a "swarm"): faults that are always on together hide what each of them
//! alone would show, and long quiet stretches are states too.
//!
//! To add a fault: a variant of [`Kind`] with its line in [`KINDS`], what it does in `cluster.rs` (`strike` and `lift`).
//!
//! Not here: what a fault does to the world (`cluster.rs`, `disk.rs`, `world.rs`).

use serde::{Deserialize, Serialize};

use crate::{chance::Dice, disk::Survival};

/// One run, complete.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Plan {
    pub seed: u64,
    /// The hand-written story this is, if it is one.
    #[serde(default)]
    pub scenario: Option<String>,
    pub nodes: usize,
    /// Simulated milliseconds under faults and load.
    pub duration_ms: u64,
    pub engine: Engine,
    pub tuning: Tuning,
    pub clients: Vec<ClientPlan>,
    pub faults: Vec<Fault>,
    /// The number of a bug that is planted (`jangbu_ledger::planted`); 0: none.
    #[serde(default)]
    pub planted: u32,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub enum Engine {
    Memory,
    Rocks,
}

/// Sizes small enough that what is rare in production happens every few seconds here.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Tuning {
    pub segment_bytes: u64,
    pub cache_bytes: u64,
    pub snapshot_after_log_bytes: u64,
    pub log_entries_kept: u64,
    pub flush_events: usize,
    pub deadline_ms: u64,
    /// Milliseconds of one way between two data centres.
    pub latency_ms: u64,
    /// Accounts that spend, each with little on it.
    pub wallets: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct ClientPlan {
    /// What this client does, each drawn as often as the others.
    pub habits: Vec<Habit>,
    /// Milliseconds between two of its calls, on average.
    pub think_ms: u64,
    /// The most events in one of its requests.
    pub events_max: u64,
}

/// What a client does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Habit {
    /// Pays from accounts that have next to nothing: many race for the last won.
    Pay,
    /// Reserves, then posts or voids.
    TwoPhase,
    /// Reserves for a second or two and lets it expire, or posts at the last moment.
    Expire,
    Chain,
    Balance,
    Close,
    Import,
    /// Makes accounts, and uses accounts before they are made.
    Open,
    /// Sends what was sent before once more, its own and others'.
    Repeat,
    /// Uses an id again for something else.
    Conflict,
    /// Breaks every rule of form.
    Nonsense,
    /// Asks for accounts and transfers by id.
    Lookup,
    /// Asks for history, by query and by events.
    Query,
    /// Asks nodes for what they have, stale or not.
    Stale,
}

pub const HABITS: &[Habit] = &[
    Habit::Pay,
    Habit::TwoPhase,
    Habit::Expire,
    Habit::Chain,
    Habit::Balance,
    Habit::Close,
    Habit::Import,
    Habit::Open,
    Habit::Repeat,
    Habit::Conflict,
    Habit::Nonsense,
    Habit::Lookup,
    Habit::Query,
    Habit::Stale,
];

/// Whom it strikes; found out when it does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub enum Target {
    /// The node in this place, counted from 0.
    Node(usize),
    /// Whoever leads.
    Leader,
    /// The so-manieth node that does not lead.
    Follower(usize),
}

/// A step of making something durable: an operation on a disk.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Step {
    pub act: Act,
    /// What it is done to.
    pub place: Place,
    /// How many such steps pass unharmed first.
    pub skip: u64,
    /// The power fails before the step has any effect; else right after.
    pub before: bool,
}

/// What is done to a disk.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Create,
    Write,
    Sync,
    Rename,
    Link,
    Remove,
    SyncFolder,
}

/// Where on a disk.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Log,
    State,
    /// Which state is in use.
    Current,
    Snapshots,
    Incoming,
    Identity,
}

/// An end of a transfer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub enum End {
    Sender,
    Receiver,
}

/// What a node does when it makes something durable, and where: the steps at which the power can fail.
pub const STEPS: &[(Act, Place)] = &[
    (Act::Write, Place::Log),
    (Act::Sync, Place::Log),
    (Act::Create, Place::Log),
    (Act::Rename, Place::Log),
    (Act::Remove, Place::Log),
    (Act::SyncFolder, Place::Log),
    (Act::Write, Place::Snapshots),
    (Act::Rename, Place::Snapshots),
    (Act::Write, Place::Incoming),
    (Act::Rename, Place::Incoming),
    (Act::Rename, Place::Current),
];

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Fault {
    /// Milliseconds from the beginning of the load.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    pub kind: Kind,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub enum Kind {
    /// The process dies; unsynced writes survive.
    Kill {
        node: Target,
    },
    /// The power of one machine fails.
    PowerOff {
        node: Target,
    },
    /// The power of all machines fails at once.
    PowerCut,
    /// A node dies again and again, a few times during its recovery.
    CrashLoop {
        node: Target,
        times: u64,
    },
    /// A majority dies, and comes back.
    QuorumLost,
    /// All of one data centre is unreachable.
    DataCenterLost {
        center: usize,
    },
    /// The nodes fall into two halves; bit i set: node i is in the first.
    Partition {
        first: u32,
    },
    /// Nothing from one node reaches another; the other way it does.
    OneWay {
        from: Target,
        to: Target,
    },
    /// Two nodes don't hear each other; all others do.
    Partial {
        a: Target,
        b: Target,
    },
    /// Two halves that only one node connects.
    Bridge {
        node: Target,
    },
    /// Every node hears its two neighbours only.
    Ring,
    /// The leader is cut off from its peers and not from its clients.
    LeaderAlone,
    /// One node after the other is clogged, then unclogged in another order.
    Swizzle,
    /// Messages between two nodes wait.
    Hold {
        a: Target,
        b: Target,
    },
    /// A link becomes slow and uneven, so that messages overtake each other.
    SlowLink {
        a: Target,
        b: Target,
        ms: u64,
    },
    /// A link loses some of what is sent; a lost segment wedges its connection, as nothing sends it again.
    Loss {
        a: Target,
        b: Target,
        permille: u64,
    },
    /// A node stands still and then goes on as if nothing had been: neither its peers nor its callers hear from it, and its
    /// disk does nothing. Its timers go on, because turmoil cannot stop one host's: what they lead to stays within it.
    Pause {
        node: Target,
    },
    SlowDisk {
        node: Target,
        ms: u64,
    },
    /// A disk and all links of its node are slow, and neither is broken.
    SlowNode {
        node: Target,
        ms: u64,
    },
    /// The power fails at one step of making something durable, whenever that comes.
    CrashAtStep {
        node: Target,
        step: Step,
        survival: Survival,
    },
    SyncFails {
        node: Target,
    },
    /// Some reads of a disk fail.
    ReadFails {
        node: Target,
        percent: u64,
    },
    /// Some reads of a disk return one bit that is not what lies there, and say nothing.
    ReadFlips {
        node: Target,
        percent: u64,
        /// The node dies and reads all that it needs to start again.
        restart: bool,
    },
    DiskFull {
        node: Target,
    },
    /// A bit of a log that was synced flips under a node that runs.
    RotAlive {
        node: Target,
    },
    /// A bit of a log that was synced flips while its node is down.
    BitRot {
        node: Target,
    },
    /// The wall clock of a node is off for a while.
    ClockOffset {
        node: Target,
        ms: i64,
    },
    /// The wall clock of a node runs fast or slow.
    ClockDrift {
        node: Target,
        ppm: i64,
    },
    /// The wall clock of a node jumps and stays there.
    ClockJump {
        node: Target,
        ms: i64,
    },
    /// A snapshot is taken now, and the log behind it purged.
    Snapshot {
        node: Target,
    },
    /// A node that comes back needs a snapshot, and one end of the transfer dies in the middle of it.
    SnapshotCut {
        end: End,
        /// Messages that pass before.
        after: u64,
    },
    /// A node that comes back needs a snapshot, and it is damaged: on its way, or on the disk it comes from.
    SnapshotDamaged {
        on_disk: bool,
    },
    /// A node that comes back needs a snapshot, and is offered another cluster's.
    SnapshotForeign,
    /// Snapshots that a node was sent are sent to it again, now older than what it has.
    SnapshotOlder {
        node: Target,
    },
    /// What is said to a node arrives twice: calls, and messages within a stream.
    Duplicate {
        node: Target,
        percent: u64,
    },
    /// What was said to a node is said to it again, much later.
    Replay {
        node: Target,
        calls: u64,
    },
    /// The leadership is handed over.
    MoveLeader,
    /// One node after the other is told to stop, and comes back with other sizes of segments, caches and flushes. There is
    /// one format on disk so far, so it is settings that differ and not versions.
    RollingRestart,
    /// A node is removed and another added, caught up and promoted.
    Replace {
        node: Target,
    },
    /// A node loses its disk and comes back empty, under its old id.
    Wipe {
        node: Target,
    },
    /// Clients repeat all they ever said at once.
    RetryStorm,
}

/// A kind with its name, what it is for, and how often it is drawn.
pub struct Description {
    pub name: &'static str,
    pub about: &'static str,
    pub weight: u64,
    /// Somebody must listen on the lines between callers and doors (`wiretap.rs`).
    pub needs_wiretap: bool,
}

const fn plain(name: &'static str, about: &'static str, weight: u64) -> Description {
    Description { name, about, weight, needs_wiretap: false }
}

const fn heard(name: &'static str, about: &'static str, weight: u64) -> Description {
    Description { name, about, weight, needs_wiretap: true }
}

pub const KINDS: &[Description] = &[
    plain("kill", "a process dies; unsynced writes survive", 6),
    plain("power-off", "a machine's power fails; unsynced writes are lost or torn", 6),
    plain("power-cut", "the power of all machines fails at once", 3),
    plain("crash-loop", "a node dies again and again, also while it recovers", 3),
    plain("quorum-lost", "a majority dies and comes back", 3),
    plain("data-center-lost", "a whole data centre is unreachable", 3),
    plain("partition", "the nodes fall into two halves", 6),
    plain("one-way", "one node is not heard by another, the other way it is", 4),
    plain("partial", "two nodes don't hear each other, all others do", 4),
    plain("bridge", "two halves that one node alone connects", 2),
    plain("ring", "every node hears its two neighbours only", 2),
    plain("leader-alone", "the leader is cut off from peers, not from clients", 6),
    plain("swizzle", "nodes are clogged one by one and unclogged in another order", 3),
    plain("hold", "messages between two nodes wait", 3),
    plain("slow-link", "a link becomes slow and uneven", 3),
    plain("loss", "a link loses some of what is sent", 3),
    plain("pause", "a node stands still and goes on as if nothing had been", 4),
    plain("slow-disk", "a disk becomes slow", 4),
    plain("slow-node", "a disk and all links of its node become slow", 3),
    plain("crash-at-step", "the power fails at one step of making something durable", 6),
    plain("sync-fails", "fsync fails", 3),
    plain("read-fails", "some reads of a disk fail", 2),
    plain("read-flips", "some reads of a disk return a bit that is not what lies there, and say nothing", 2),
    plain("disk-full", "no space is left on a disk", 2),
    plain("bit-rot", "a bit flips in a synced log while its node is down", 1),
    plain("rot-alive", "a bit flips in a synced log under a node that runs", 1),
    plain("clock-offset", "a wall clock is off for a while", 3),
    plain("clock-drift", "a wall clock runs fast or slow", 2),
    plain("clock-jump", "a wall clock jumps and stays there", 3),
    plain("snapshot", "a snapshot is taken and the log purged", 5),
    heard("snapshot-cut", "one end dies in the middle of a snapshot's transfer", 3),
    heard("snapshot-damaged", "a snapshot is damaged on its way or on its sender's disk", 2),
    heard("snapshot-foreign", "a node is offered another cluster's snapshot", 1),
    heard("snapshot-older", "snapshots of the past are sent again", 1),
    heard("duplicate", "what is said to a node arrives twice", 2),
    heard("replay", "what was said to a node is said again, much later", 2),
    plain("move-leader", "the leadership is handed over", 4),
    plain("rolling-restart", "nodes stop one by one and come back with other settings", 2),
    plain("replace", "a node is removed, another added and promoted", 2),
    plain("wipe", "a node loses its disk and comes back under its old id", 1),
    plain("retry-storm", "clients repeat what they said", 2),
];

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Kill { .. } => "kill",
            Kind::PowerOff { .. } => "power-off",
            Kind::PowerCut => "power-cut",
            Kind::CrashLoop { .. } => "crash-loop",
            Kind::QuorumLost => "quorum-lost",
            Kind::DataCenterLost { .. } => "data-center-lost",
            Kind::Partition { .. } => "partition",
            Kind::OneWay { .. } => "one-way",
            Kind::Partial { .. } => "partial",
            Kind::Bridge { .. } => "bridge",
            Kind::Ring => "ring",
            Kind::LeaderAlone => "leader-alone",
            Kind::Swizzle => "swizzle",
            Kind::Hold { .. } => "hold",
            Kind::SlowLink { .. } => "slow-link",
            Kind::Pause { .. } => "pause",
            Kind::SlowDisk { .. } => "slow-disk",
            Kind::Loss { .. } => "loss",
            Kind::SlowNode { .. } => "slow-node",
            Kind::CrashAtStep { .. } => "crash-at-step",
            Kind::ReadFails { .. } => "read-fails",
            Kind::ReadFlips { .. } => "read-flips",
            Kind::RotAlive { .. } => "rot-alive",
            Kind::SnapshotCut { .. } => "snapshot-cut",
            Kind::SnapshotDamaged { .. } => "snapshot-damaged",
            Kind::SnapshotForeign => "snapshot-foreign",
            Kind::SnapshotOlder { .. } => "snapshot-older",
            Kind::Duplicate { .. } => "duplicate",
            Kind::Replay { .. } => "replay",
            Kind::RollingRestart => "rolling-restart",
            Kind::SyncFails { .. } => "sync-fails",
            Kind::DiskFull { .. } => "disk-full",
            Kind::BitRot { .. } => "bit-rot",
            Kind::ClockOffset { .. } => "clock-offset",
            Kind::ClockDrift { .. } => "clock-drift",
            Kind::ClockJump { .. } => "clock-jump",
            Kind::Snapshot { .. } => "snapshot",
            Kind::MoveLeader => "move-leader",
            Kind::Replace { .. } => "replace",
            Kind::Wipe { .. } => "wipe",
            Kind::RetryStorm => "retry-storm",
        }
    }

    pub fn needs_wiretap(&self) -> bool {
        KINDS.iter().any(|kind| kind.name == self.name() && kind.needs_wiretap)
    }

    /// A node may forget what it had synced. Two such nodes may take the quorum's memory with them: no protocol survives that.
    fn loses_memory(&self) -> bool {
        matches!(self, Kind::BitRot { .. } | Kind::RotAlive { .. } | Kind::Wipe { .. } | Kind::SyncFails { .. })
    }

    /// A kind by its name, with the rest drawn.
    pub fn draw(name: &str, nodes: usize, dice: &mut Dice) -> Kind {
        let node = target(nodes, dice);
        let (a, b) = two(nodes, dice);
        let skew_ms = |dice: &mut Dice| {
            let size = *dice.pick(&[50, 500, 5_000, 600_000, 3_600_000]);
            if dice.percent(50) { -size } else { size }
        };
        match name {
            "kill" => Kind::Kill { node },
            "power-off" => Kind::PowerOff { node },
            "power-cut" => Kind::PowerCut,
            "crash-loop" => Kind::CrashLoop { node, times: dice.range(2, 6) },
            "quorum-lost" => Kind::QuorumLost,
            "data-center-lost" => Kind::DataCenterLost { center: dice.below(3) as usize },
            "partition" => Kind::Partition { first: dice.range(1, (1 << nodes) - 2) as u32 },
            "one-way" => Kind::OneWay { from: a, to: b },
            "partial" => Kind::Partial { a, b },
            "bridge" => Kind::Bridge { node },
            "ring" => Kind::Ring,
            "leader-alone" => Kind::LeaderAlone,
            "swizzle" => Kind::Swizzle,
            "hold" => Kind::Hold { a, b },
            "slow-link" => Kind::SlowLink { a, b, ms: *dice.pick(&[20, 100, 400]) },
            "pause" => Kind::Pause { node },
            "loss" => Kind::Loss { a, b, permille: *dice.pick(&[2, 10, 50]) },
            "slow-node" => Kind::SlowNode { node, ms: *dice.pick(&[10, 50, 200]) },
            "crash-at-step" => {
                let (act, place) = *dice.pick(STEPS);
                let often = act == Act::Write || act == Act::Sync;
                let skip = if often && place == Place::Log { dice.below(200) } else { dice.below(2) };
                let step = Step { act, place, skip, before: dice.percent(50) };
                Kind::CrashAtStep { node, step, survival: *dice.pick(&[Survival::Nothing, Survival::Some]) }
            }
            "read-fails" => Kind::ReadFails { node, percent: *dice.pick(&[1, 10, 100]) },
            "read-flips" => Kind::ReadFlips { node, percent: *dice.pick(&[1, 10, 100]), restart: dice.percent(60) },
            "rot-alive" => Kind::RotAlive { node },
            "snapshot-cut" => {
                let end = *dice.pick(&[End::Sender, End::Receiver]);
                Kind::SnapshotCut { end, after: dice.below(4) }
            }
            "snapshot-damaged" => Kind::SnapshotDamaged { on_disk: dice.percent(40) },
            "snapshot-foreign" => Kind::SnapshotForeign,
            "snapshot-older" => Kind::SnapshotOlder { node },
            "duplicate" => Kind::Duplicate { node, percent: *dice.pick(&[5, 30, 100]) },
            "replay" => Kind::Replay { node, calls: dice.range(1, 30) },
            "rolling-restart" => Kind::RollingRestart,
            "slow-disk" => Kind::SlowDisk { node, ms: *dice.pick(&[10, 50, 300]) },
            "sync-fails" => Kind::SyncFails { node },
            "disk-full" => Kind::DiskFull { node },
            "bit-rot" => Kind::BitRot { node },
            "clock-offset" => Kind::ClockOffset { node, ms: skew_ms(dice) },
            "clock-drift" => Kind::ClockDrift { node, ppm: *dice.pick(&[-100_000, -500, 500, 100_000]) },
            "clock-jump" => Kind::ClockJump { node, ms: skew_ms(dice) },
            "snapshot" => Kind::Snapshot { node },
            "move-leader" => Kind::MoveLeader,
            "replace" => Kind::Replace { node },
            "wipe" => Kind::Wipe { node },
            "retry-storm" => Kind::RetryStorm,
            _ => unreachable!("{name} is not in the table of kinds"),
        }
    }
}

fn target(nodes: usize, dice: &mut Dice) -> Target {
    match dice.below(10) {
        0..4 => Target::Leader,
        4..7 => Target::Follower(dice.below(nodes as u64 - 1) as usize),
        _ => Target::Node(dice.below(nodes as u64) as usize),
    }
}

/// Two different nodes.
fn two(nodes: usize, dice: &mut Dice) -> (Target, Target) {
    if dice.percent(50) {
        return (Target::Leader, Target::Follower(dice.below(nodes as u64 - 1) as usize));
    }
    let a = dice.below(nodes as u64) as usize;
    let b = (a + 1 + dice.below(nodes as u64 - 1) as usize) % nodes;
    (Target::Node(a), Target::Node(b))
}

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Plan {
        let mut dice = Dice::new(seed, "plan");
        let nodes = if dice.percent(70) { 3 } else { 5 };
        let duration_ms = dice.range(8, 25) * 1_000;
        let tuning = Tuning {
            segment_bytes: *dice.pick(&[32 << 10, 128 << 10, 1 << 20]),
            cache_bytes: *dice.pick(&[8 << 10, 256 << 10, 8 << 20]),
            snapshot_after_log_bytes: *dice.pick(&[64 << 10, 512 << 10, 64 << 20]),
            log_entries_kept: *dice.pick(&[0, 10, 1_000]),
            flush_events: *dice.pick(&[20, 300, 100_000]),
            deadline_ms: *dice.pick(&[500, 2_000, 5_000]),
            latency_ms: *dice.pick(&[1, 2, 5]),
            wallets: *dice.pick(&[3, 12, 60]),
        };
        let clients = clients(&mut dice);
        let faults = faults(nodes, duration_ms, &mut dice);
        // RocksDB is slower and its files are real: one seed in twelve.
        let engine = if dice.below(12) == 0 { Engine::Rocks } else { Engine::Memory };
        Plan { seed, scenario: None, nodes, duration_ms, engine, tuning, clients, faults, planted: 0 }
    }

    /// A quiet plan, to which a scenario adds its story.
    pub fn quiet(seed: u64, nodes: usize, duration_ms: u64) -> Plan {
        let client = |habits: &[Habit]| ClientPlan { habits: habits.into(), think_ms: 30, events_max: 5 };
        Plan {
            seed,
            scenario: None,
            nodes,
            duration_ms,
            engine: Engine::Memory,
            tuning: Tuning {
                segment_bytes: 128 << 10,
                cache_bytes: 256 << 10,
                snapshot_after_log_bytes: 64 << 20,
                log_entries_kept: 10,
                flush_events: 300,
                deadline_ms: 2_000,
                latency_ms: 2,
                wallets: 12,
            },
            clients: vec![
                client(&[Habit::Pay, Habit::Repeat]),
                client(&[Habit::TwoPhase, Habit::Expire, Habit::Chain]),
                client(&[Habit::Lookup, Habit::Query, Habit::Stale, Habit::Pay]),
            ],
            faults: Vec::new(),
            planted: 0,
        }
    }

    /// One fault and nothing else, three times; once if a node forgets by it.
    pub fn alone(seed: u64, name: &str) -> Plan {
        let mut dice = Dice::new(seed, "alone");
        // A bridge needs two on either side, and a ring of three is a full net.
        let nodes = if matches!(name, "bridge" | "ring" | "data-center-lost") { 5 } else { 3 };
        let mut plan = Plan::quiet(seed, nodes, 12_000);
        plan.tuning.log_entries_kept = 0;
        plan.tuning.segment_bytes = 32 << 10;
        // What a replica that was away lacks is read from the disk.
        plan.tuning.cache_bytes = 8 << 10;
        for at_ms in [1_000, 4_500, 8_000] {
            let kind = Kind::draw(name, nodes, &mut dice);
            let again = !(kind.loses_memory() || matches!(kind, Kind::Replace { .. }));
            plan = plan.with(at_ms, 2_000, kind);
            if !again {
                break;
            }
        }
        plan
    }

    /// Somebody must listen on the lines.
    pub fn needs_wiretap(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind.needs_wiretap())
    }

    pub fn with(mut self, at_ms: u64, for_ms: u64, kind: Kind) -> Plan {
        self.faults.push(Fault { at_ms, for_ms, kind });
        self
    }
}

fn clients(dice: &mut Dice) -> Vec<ClientPlan> {
    let mut on: Vec<Habit> = HABITS.iter().copied().filter(|_| dice.percent(60)).collect();
    // Without payments there is nothing to spend twice.
    for needed in [Habit::Pay, Habit::Lookup] {
        if !on.contains(&needed) {
            on.push(needed);
        }
    }
    let heavy = dice.percent(15);
    (0..dice.range(2, 6))
        .map(|index| {
            let mut habits: Vec<Habit> = on.iter().copied().filter(|_| dice.percent(60)).collect();
            habits.push(if index % 2 == 0 { Habit::Pay } else { *dice.pick(&on) });
            ClientPlan {
                habits,
                think_ms: *dice.pick(&[5, 20, 50, 200]),
                events_max: if heavy && index == 0 { 400 } else { *dice.pick(&[1, 4, 20]) },
            }
        })
        .collect()
}

fn faults(nodes: usize, duration_ms: u64, dice: &mut Dice) -> Vec<Fault> {
    // Listening on all lines costs twice the time: one seed in four.
    let listened_to = dice.percent(25);
    let on: Vec<&Description> =
        KINDS.iter().filter(|kind| dice.percent(40) && (listened_to || !kind.needs_wiretap)).collect();
    let total: u64 = on.iter().map(|kind| kind.weight).sum();
    if total == 0 {
        return Vec::new();
    }
    // From now and then to all the time.
    let count = duration_ms / *dice.pick(&[1_000, 2_000, 4_000]);
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let mut draw = dice.below(total);
            let kind = on
                .iter()
                .find(|kind| {
                    let found = draw < kind.weight;
                    draw = draw.saturating_sub(kind.weight);
                    found
                })
                .expect("a draw below the sum of the weights meets one of them");
            let kind = Kind::draw(kind.name, nodes, dice);
            let for_ms = match dice.below(4) {
                0 => dice.range(10, 300),
                1 | 2 => dice.range(300, 2_500),
                _ => dice.range(2_500, 8_000),
            };
            Fault { at_ms: dice.below(duration_ms), for_ms, kind }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    let mut lost = 0;
    faults.retain(|fault| {
        let loses = fault.kind.loses_memory();
        lost += usize::from(loses);
        !loses || lost <= 1
    });
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_it_can_be_written_down() {
        for seed in 0..200 {
            let plan = Plan::of_seed(seed);
            assert_eq!(plan, Plan::of_seed(seed));
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        }
    }

    #[test]
    fn every_fault_and_every_habit_is_drawn() {
        let plans: Vec<Plan> = (0..2_000).map(Plan::of_seed).collect();
        for Description { name, .. } in KINDS {
            assert!(plans.iter().any(|plan| plan.faults.iter().any(|fault| fault.kind.name() == *name)), "{name}");
        }
        for habit in HABITS {
            let has = |plan: &Plan| plan.clients.iter().any(|client| client.habits.contains(habit));
            assert!(plans.iter().any(has), "{habit:?}");
        }
        assert!(plans.iter().any(|plan| plan.engine == Engine::Rocks));
    }

    #[test]
    fn a_fault_is_called_what_the_table_calls_it() {
        for Description { name, .. } in KINDS {
            for seed in 0..20 {
                assert_eq!(Kind::draw(name, 3, &mut Dice::new(seed, "test")).name(), *name);
            }
        }
    }

    #[test]
    fn the_power_fails_at_every_step() {
        let mut dice = Dice::new(1, "test");
        let drawn: Vec<Kind> = (0..1_000).map(|_| Kind::draw("crash-at-step", 3, &mut dice)).collect();
        for (act, place) in STEPS {
            let at = |kind: &Kind| matches!(kind, Kind::CrashAtStep { step, .. } if (step.act, step.place) == (*act, *place));
            assert!(drawn.iter().any(at), "{act:?} {place:?}");
        }
    }
}
