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

use crate::chance::Dice;

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
    /// A node stands still and then goes on as if nothing had been.
    Pause {
        node: Target,
    },
    /// Everything a node does takes longer.
    SlowDisk {
        node: Target,
        ms: u64,
    },
    SyncFails {
        node: Target,
    },
    DiskFull {
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
    /// The leadership is handed over.
    MoveLeader,
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
}

pub const KINDS: &[Description] = &[
    Description { name: "kill", about: "a process dies; unsynced writes survive", weight: 6 },
    Description { name: "power-off", about: "a machine's power fails; unsynced writes are lost or torn", weight: 6 },
    Description { name: "power-cut", about: "the power of all machines fails at once", weight: 3 },
    Description { name: "crash-loop", about: "a node dies again and again, also while it recovers", weight: 3 },
    Description { name: "quorum-lost", about: "a majority dies and comes back", weight: 3 },
    Description { name: "data-center-lost", about: "a whole data centre is unreachable", weight: 3 },
    Description { name: "partition", about: "the nodes fall into two halves", weight: 6 },
    Description { name: "one-way", about: "one node is not heard by another, the other way it is", weight: 4 },
    Description { name: "partial", about: "two nodes don't hear each other, all others do", weight: 4 },
    Description { name: "bridge", about: "two halves that one node alone connects", weight: 2 },
    Description { name: "ring", about: "every node hears its two neighbours only", weight: 2 },
    Description { name: "leader-alone", about: "the leader is cut off from peers, not from clients", weight: 6 },
    Description { name: "swizzle", about: "nodes are clogged one by one and unclogged in another order", weight: 3 },
    Description { name: "hold", about: "messages between two nodes wait", weight: 3 },
    Description { name: "slow-link", about: "a link becomes slow and uneven", weight: 3 },
    Description { name: "pause", about: "a node stands still and goes on as if nothing had been", weight: 4 },
    Description { name: "slow-disk", about: "a disk becomes slow", weight: 4 },
    Description { name: "sync-fails", about: "fsync fails", weight: 3 },
    Description { name: "disk-full", about: "no space is left on a disk", weight: 2 },
    Description { name: "bit-rot", about: "a bit flips in a synced log while its node is down", weight: 1 },
    Description { name: "clock-offset", about: "a wall clock is off for a while", weight: 3 },
    Description { name: "clock-drift", about: "a wall clock runs fast or slow", weight: 2 },
    Description { name: "clock-jump", about: "a wall clock jumps and stays there", weight: 3 },
    Description { name: "snapshot", about: "a snapshot is taken and the log purged", weight: 5 },
    Description { name: "move-leader", about: "the leadership is handed over", weight: 4 },
    Description { name: "replace", about: "a node is removed, another added and promoted", weight: 2 },
    Description { name: "wipe", about: "a node loses its disk and comes back under its old id", weight: 1 },
    Description { name: "retry-storm", about: "clients repeat what they said", weight: 2 },
];

impl Kind {
    pub fn name(&self) -> &'static str {
        let index = match self {
            Kind::Kill { .. } => 0,
            Kind::PowerOff { .. } => 1,
            Kind::PowerCut => 2,
            Kind::CrashLoop { .. } => 3,
            Kind::QuorumLost => 4,
            Kind::DataCenterLost { .. } => 5,
            Kind::Partition { .. } => 6,
            Kind::OneWay { .. } => 7,
            Kind::Partial { .. } => 8,
            Kind::Bridge { .. } => 9,
            Kind::Ring => 10,
            Kind::LeaderAlone => 11,
            Kind::Swizzle => 12,
            Kind::Hold { .. } => 13,
            Kind::SlowLink { .. } => 14,
            Kind::Pause { .. } => 15,
            Kind::SlowDisk { .. } => 16,
            Kind::SyncFails { .. } => 17,
            Kind::DiskFull { .. } => 18,
            Kind::BitRot { .. } => 19,
            Kind::ClockOffset { .. } => 20,
            Kind::ClockDrift { .. } => 21,
            Kind::ClockJump { .. } => 22,
            Kind::Snapshot { .. } => 23,
            Kind::MoveLeader => 24,
            Kind::Replace { .. } => 25,
            Kind::Wipe { .. } => 26,
            Kind::RetryStorm => 27,
        };
        KINDS[index].name
    }

    fn draw(name: &str, nodes: usize, dice: &mut Dice) -> Kind {
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
    let on: Vec<&Description> = KINDS.iter().filter(|_| dice.percent(40)).collect();
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
    // Two nodes that lose what they had synced may take the quorum's memory with them: no protocol survives that.
    let mut lost = 0;
    faults.retain(|fault| {
        let loses = matches!(fault.kind, Kind::BitRot { .. } | Kind::Wipe { .. } | Kind::SyncFails { .. });
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
}
