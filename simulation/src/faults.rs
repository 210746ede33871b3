//! The plan of a run: how large the cluster is, who uses it and how, and what goes wrong when.
//!
//! A plan follows from a seed and from nothing else: the code under test cannot shift it, and it is drawn before the run
//! begins. It can be written down as JSON, which is how `minimize` shrinks it and how a found failure is kept.
//!
//! Each seed turns a random subset of all faults on (a "swarm"): faults that are always on together hide what each of them
//! alone would show, and long quiet stretches are states too.
//!
//! To add a fault: a variant of [`Kind`] with its line in [`KINDS`] (`faults/kinds.rs`), how it is drawn (`faults/draw.rs`), and
//! what it does (`cluster/strike.rs`, and `cluster/lift.rs` if it lasts).
//!
//! Not here: what a fault does to the world (`cluster.rs`, `disk.rs`, `world.rs`).

mod draw;
mod kinds;

pub use draw::ROCKS_FLUSH_EVENTS_MIN;
pub use kinds::{Act, Description, End, KINDS, Kind, Place, STEPS, Step};
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
    /// Bit i is set: node i begins as an older program, which does not know the newest version of the cluster.
    #[serde(default)]
    pub older: u32,
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

impl Plan {
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
            older: 0,
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
        if plan.faults.iter().any(|fault| fault.kind.is_about_versions()) {
            plan.older = draw::older(nodes, &mut dice);
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
