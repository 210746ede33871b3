//! Hand-written stories: one named fear or one past bug each. A scenario is a plan, so it runs, replays and shrinks as a seed
//! does; the seed still draws who asks what, and where a crash tears.
//!
//! To add one: an entry in [`SCENARIOS`] that begins with its story.

use crate::faults::{Engine, Habit, Kind, Plan, Target};

pub struct Scenario {
    pub name: &'static str,
    /// What went wrong, the sequence that arms it, what must hold.
    pub story: &'static str,
    pub plan: fn(seed: u64) -> Plan,
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "quiet",
        story: "Nothing goes wrong. If this fails, look no further.",
        plan: |seed| Plan::quiet(seed, 3, 8_000),
    },
    Scenario {
        name: "power-cut-under-load",
        story: "All machines lose power at once while payments are acknowledged. What was acknowledged was synced on a quorum, so it is there when the lights come on.",
        plan: |seed| {
            let plan = Plan::quiet(seed, 3, 10_000);
            (0..4).fold(plan, |plan, index| plan.with(1_500 + 2_000 * index, 300, Kind::PowerCut))
        },
    },
    Scenario {
        name: "leader-alone",
        story: "The leader loses its peers and keeps its clients. It must neither acknowledge a payment nor answer a linearizable read; another is elected, and nobody pays twice.",
        plan: |seed| {
            let plan = Plan::quiet(seed, 5, 12_000);
            (0..3).fold(plan, |plan, index| plan.with(1_000 + 3_500 * index, 2_500, Kind::LeaderAlone))
        },
    },
    Scenario {
        name: "last-won",
        story: "Three wallets with next to nothing, many payers, leaders that die: each won is spent once.",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 10_000);
            plan.tuning.wallets = 3;
            for client in &mut plan.clients {
                client.habits = vec![Habit::Pay, Habit::Repeat, Habit::Balance, Habit::TwoPhase];
                client.think_ms = 5;
            }
            (0..4).fold(plan, |plan, index| plan.with(1_000 + 2_000 * index, 700, Kind::Kill { node: Target::Leader }))
        },
    },
    Scenario {
        name: "expiry-by-wrong-clocks",
        story: "Clocks jump an hour while pending transfers run out, and leaders change between them. Expiry depends on log time alone, and log time never goes back.",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 12_000);
            for client in &mut plan.clients {
                client.habits = vec![Habit::Expire, Habit::TwoPhase, Habit::Close, Habit::Lookup];
            }
            plan.with(1_500, 2_000, Kind::ClockOffset { node: Target::Leader, ms: 3_600_000 })
                .with(3_000, 100, Kind::MoveLeader)
                .with(4_500, 2_000, Kind::ClockOffset { node: Target::Leader, ms: -3_600_000 })
                .with(6_000, 600, Kind::Kill { node: Target::Leader })
                .with(8_000, 3_000, Kind::ClockDrift { node: Target::Leader, ppm: 100_000 })
                .with(9_000, 100, Kind::MoveLeader)
        },
    },
    Scenario {
        name: "purged-under-a-slow-follower",
        story: "A follower is away while the log it needs is snapshotted and purged. It comes back by snapshot, with every id it must not carry out again.",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 14_000);
            plan.tuning.log_entries_kept = 0;
            plan.tuning.segment_bytes = 32 << 10;
            for client in &mut plan.clients {
                client.habits.push(Habit::Repeat);
            }
            plan.with(1_000, 5_000, Kind::PowerOff { node: Target::Follower(0) })
                .with(3_000, 100, Kind::Snapshot { node: Target::Leader })
                .with(5_500, 100, Kind::Snapshot { node: Target::Leader })
                .with(7_500, 400, Kind::PowerOff { node: Target::Follower(0) })
                .with(9_000, 100, Kind::MoveLeader)
                .with(10_500, 2_000, Kind::PowerOff { node: Target::Leader })
        },
    },
    Scenario {
        name: "purged-under-a-paused-follower",
        story: "A follower stands still for two seconds while the log it needs is purged, and its connections live. openraft \
                takes up once more what it was told to send before; that must neither reach the follower as a hole nor \
                keep the leader busy for ever. (Found by seeds 1041, 1066 and 1105.)",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 12_000);
            plan.tuning.snapshot_after_log_bytes = 64 << 10;
            plan.tuning.log_entries_kept = [0, 10, 200][seed as usize % 3];
            for client in &mut plan.clients {
                client.habits.push(Habit::Pay);
                client.think_ms = 5;
                client.events_max = 20;
            }
            (0..3).fold(plan, |plan, index| {
                plan.with(1_000 + 3_500 * index, 2_200, Kind::Pause { node: Target::Follower(index as usize % 2) })
            })
        },
    },
    Scenario {
        name: "crash-loops",
        story: "Nodes die again and again while they recover. Recovery can itself be recovered from.",
        plan: |seed| {
            let plan = Plan::quiet(seed, 3, 12_000);
            (0..4).fold(plan, |plan, index| {
                plan.with(
                    1_000 + 2_500 * index,
                    50,
                    Kind::CrashLoop { node: Target::Node(index as usize % 3), times: 4 },
                )
            })
        },
    },
    Scenario {
        name: "sync-fails",
        story: "A disk says that it could not sync. The node stops and acknowledges nothing on top of it; it comes back when the disk does.",
        plan: |seed| {
            Plan::quiet(seed, 3, 10_000)
                .with(1_500, 1_500, Kind::SyncFails { node: Target::Leader })
                .with(4_500, 1_500, Kind::DiskFull { node: Target::Leader })
                .with(7_500, 1_000, Kind::SyncFails { node: Target::Follower(1) })
        },
    },
    Scenario {
        name: "failed-sync-then-power-cut",
        story: "A sync fails; what was written stays readable and is never written back. The node stops, is started again, \
                and must not build on what it reads there; then the power of all fails. (Found by seed 0: a log with a \
                hole below what it had called durable.)",
        plan: |seed| {
            let plan = Plan::quiet(seed, 3, 12_000);
            (0..3).fold(plan, |plan, index| {
                plan.with(1_000 + 3_500 * index, 600, Kind::SyncFails { node: Target::Node(index as usize) }).with(
                    3_000 + 3_500 * index,
                    300,
                    Kind::PowerCut,
                )
            })
        },
    },
    Scenario {
        name: "snapshot-twice",
        story: "Two snapshots are taken at one index while a follower is away, and the log behind them is purged. The \
                second must be there to be sent. (Found by seed 7: it swept itself away.)",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 10_000);
            plan.tuning.log_entries_kept = 0;
            plan.clients.truncate(1);
            plan.with(1_000, 6_000, Kind::Kill { node: Target::Follower(0) })
                .with(3_000, 2_500, Kind::LeaderAlone)
                .with(4_000, 100, Kind::Snapshot { node: Target::Leader })
                .with(4_100, 100, Kind::Snapshot { node: Target::Leader })
                .with(4_200, 100, Kind::Snapshot { node: Target::Leader })
        },
    },
    Scenario {
        name: "member-replaced",
        story: "A node is replaced while the cluster serves and another falls over. Votes of the one that is gone count no more.",
        plan: |seed| {
            Plan::quiet(seed, 3, 14_000)
                .with(1_500, 100, Kind::Replace { node: Target::Follower(0) })
                .with(3_000, 500, Kind::Kill { node: Target::Leader })
                .with(7_000, 1_000, Kind::PowerOff { node: Target::Leader })
        },
    },
    Scenario {
        name: "wiped",
        story: "A node comes back with an empty disk under its old id. The cluster refuses it: it has forgotten its votes.",
        plan: |seed| {
            Plan::quiet(seed, 3, 12_000).with(1_500, 500, Kind::Wipe { node: Target::Follower(0) }).with(
                4_000,
                700,
                Kind::Kill { node: Target::Leader },
            )
        },
    },
    Scenario {
        name: "rotten-log",
        story: "A bit of a synced log flips while its node is down. The node must not vote or acknowledge on what it can't trust.",
        plan: |seed| {
            Plan::quiet(seed, 5, 12_000).with(4_000, 500, Kind::BitRot { node: Target::Follower(0) }).with(
                6_500,
                700,
                Kind::Kill { node: Target::Leader },
            )
        },
    },
    Scenario {
        name: "rocksdb",
        story: "The state lies in RocksDB on a real disk: crashes lose what was not flushed, and the log brings it back.",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 10_000);
            plan.engine = Engine::Rocks;
            plan.with(2_000, 500, Kind::PowerOff { node: Target::Leader })
                .with(4_000, 100, Kind::Snapshot { node: Target::Leader })
                .with(5_000, 500, Kind::PowerCut)
                .with(7_500, 800, Kind::Kill { node: Target::Follower(0) })
        },
    },
];

pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    pub fn plan_of(&self, seed: u64) -> Plan {
        Plan { scenario: Some(self.name.into()), ..(self.plan)(seed) }
    }
}
