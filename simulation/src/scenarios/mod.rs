//! Hand-written stories: one named fear or one past bug each. A scenario is a plan, so it runs, replays and shrinks as a seed
//! does; the seed still draws who asks what, and where a crash tears.
//!
//! To add one: an entry in [`STORIES`] that begins with its story. Each fault of `faults::KINDS` is a scenario without one.

use crate::{
    disk::Survival,
    faults::{Act, End, Engine, Habit, KINDS, Kind, Place, Plan, Step, Target},
};

pub struct Scenario {
    pub name: String,
    /// What went wrong, the sequence that arms it, what must hold.
    pub story: String,
    plan: Box<dyn Fn(u64) -> Plan>,
}

struct Story {
    name: &'static str,
    story: &'static str,
    plan: fn(seed: u64) -> Plan,
}

const STORIES: &[Story] = &[
    Story {
        name: "quiet",
        story: "Nothing goes wrong. If this fails, look no further.",
        plan: |seed| Plan::quiet(seed, 3, 8_000),
    },
    Story {
        name: "power-cut-under-load",
        story: "All machines lose power at once while payments are acknowledged. What was acknowledged was synced on a quorum, so it is there when the lights come on.",
        plan: |seed| {
            let plan = Plan::quiet(seed, 3, 10_000);
            (0..4).fold(plan, |plan, index| plan.with(1_500 + 2_000 * index, 300, Kind::PowerCut))
        },
    },
    Story {
        name: "leader-alone",
        story: "The leader loses its peers and keeps its clients. It must neither acknowledge a payment nor answer a linearizable read; another is elected, and nobody pays twice.",
        plan: |seed| {
            let plan = Plan::quiet(seed, 5, 12_000);
            (0..3).fold(plan, |plan, index| plan.with(1_000 + 3_500 * index, 2_500, Kind::LeaderAlone))
        },
    },
    Story {
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
    Story {
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
    Story {
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
    Story {
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
    Story {
        name: "a-snapshot-of-what-is-here",
        story: "What a follower answers is lost, though it hears and keeps what it is told. The third node loses its disk, the \
                leader takes a snapshot and purges, and offers it to a follower that has all of it. The follower must say so: \
                nothing can be committed without it. (Found by seed 21001.)",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 8_000);
            plan.tuning.log_entries_kept = 0;
            plan.tuning.segment_bytes = 32 << 10;
            for client in &mut plan.clients {
                client.habits = vec![Habit::Pay];
                client.think_ms = 5;
            }
            plan.with(1_000, 2_500, Kind::OneWay { from: Target::Follower(0), to: Target::Leader })
                .with(1_040, 400, Kind::Wipe { node: Target::Follower(1) })
                .with(1_150, 100, Kind::Snapshot { node: Target::Leader })
        },
    },
    Story {
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
    Story {
        name: "sync-fails",
        story: "A disk says that it could not sync. The node stops and acknowledges nothing on top of it; it comes back when the disk does.",
        plan: |seed| {
            Plan::quiet(seed, 3, 10_000)
                .with(1_500, 1_500, Kind::SyncFails { node: Target::Leader })
                .with(4_500, 1_500, Kind::DiskFull { node: Target::Leader })
                .with(7_500, 1_000, Kind::SyncFails { node: Target::Follower(1) })
        },
    },
    Story {
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
    Story {
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
    Story {
        name: "member-replaced",
        story: "A node is replaced while the cluster serves and another falls over. Votes of the one that is gone count no more.",
        plan: |seed| {
            Plan::quiet(seed, 3, 14_000)
                .with(1_500, 100, Kind::Replace { node: Target::Follower(0) })
                .with(3_000, 500, Kind::Kill { node: Target::Leader })
                .with(7_000, 1_000, Kind::PowerOff { node: Target::Leader })
        },
    },
    Story {
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
    Story {
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
    Story {
        name: "snapshot-torn-off",
        story: "A follower comes back and needs a snapshot. First the sender dies while it sends, then the receiver while it \
                receives, then both in turn. What came over is used if it is whole, and nothing half is ever the state.",
        plan: |seed| {
            let mut plan = needs_snapshots(seed, 16_000);
            plan = plan.with(1_000, 2_000, Kind::SnapshotCut { end: End::Sender, after: 1 });
            plan = plan.with(5_000, 2_000, Kind::SnapshotCut { end: End::Receiver, after: 1 });
            plan = plan.with(9_000, 2_000, Kind::SnapshotCut { end: End::Receiver, after: 2 });
            plan.with(12_500, 1_500, Kind::SnapshotCut { end: End::Sender, after: 2 })
        },
    },
    Story {
        name: "snapshot-not-what-it-seems",
        story: "A follower comes back and needs a snapshot. It is offered one of another cluster, then one that is damaged on \
                its way, then those of the past once more. It takes none of them, and the right one in the end.",
        plan: |seed| {
            let mut plan = needs_snapshots(seed, 16_000);
            plan = plan.with(1_000, 2_000, Kind::SnapshotForeign);
            plan = plan.with(5_500, 2_000, Kind::SnapshotDamaged { on_disk: false });
            (0..3).fold(plan, |plan, node| {
                plan.with(11_000 + 500 * node, 500, Kind::SnapshotOlder { node: Target::Node(node as usize) })
            })
        },
    },
    Story {
        name: "power-off-while-installing",
        story: "A follower comes back and needs a snapshot. The power fails just before it keeps what it received, as it gives \
                it its name, and as it makes it its state. It never has purged what no snapshot of its own holds. (Found by a \
                seed: the state was switched first, and a leader in that place could have helped nobody.)",
        plan: |seed| {
            let steps =
                [(Act::Write, Place::Snapshots), (Act::Rename, Place::Snapshots), (Act::Rename, Place::Current)];
            steps.into_iter().zip(0..).fold(needs_snapshots(seed, 14_000), |plan, ((act, place), turn)| {
                let step = Step { act, place, skip: 0, before: true };
                let trap = Kind::CrashAtStep { node: Target::Follower(0), step, survival: Survival::Nothing };
                // Cut after more messages than there are: it only has to need the snapshot.
                plan.with(900 + 4_000 * turn, 100, trap).with(
                    1_000 + 4_000 * turn,
                    2_000,
                    Kind::SnapshotCut { end: End::Receiver, after: 1_000 },
                )
            })
        },
    },
    Story {
        name: "snapshot-rots-where-it-lies",
        story: "The snapshot that a follower needs has rotted on the leader's disk. The follower refuses it, and the leader \
                must not offer the same one for ever. (Found by seed 117: the follower stayed behind.)",
        plan: |seed| needs_snapshots(seed, 8_000).with(3_000, 2_000, Kind::SnapshotDamaged { on_disk: true }),
    },
    Story {
        name: "state-ahead-of-its-log",
        story: "A follower's disk is slow and its power fails. What the others had committed is applied there before its own log \
                has it; the state must not be durable first: what neither the log nor a snapshot holds, nobody could be \
                given from there. (Found by seed 30342.)",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 13_000);
            plan.tuning.flush_events = 1;
            plan.tuning.log_entries_kept = 1_000;
            for node in 0..3 {
                plan = plan.with(500, 100, Kind::Snapshot { node: Target::Node(node) });
            }
            for client in &mut plan.clients {
                client.think_ms = 10;
            }
            (0..6).fold(plan, |plan, round| {
                let node = Target::Follower(round as usize % 2);
                plan.with(1_000 + 1_900 * round, 900, Kind::SlowDisk { node, ms: 300 }).with(
                    1_600 + 1_900 * round,
                    300,
                    Kind::PowerOff { node },
                )
            })
        },
    },
    Story {
        name: "votes-on-slow-disks",
        story: "Leaders die while every disk takes its time, and the power of a voter fails right after the vote. A vote that \
                was given before it was durable would be forgotten and given again, and one term would have two leaders.",
        plan: |seed| {
            let plan = (0..3).fold(Plan::quiet(seed, 3, 13_000), |plan, node| {
                plan.with(500, 12_000, Kind::SlowDisk { node: Target::Node(node), ms: 300 })
            });
            (0..4).fold(plan, |plan, round| {
                let at_ms = 1_000 + 3_000 * round;
                plan.with(at_ms, 1_500, Kind::Kill { node: Target::Leader }).with(
                    at_ms + 900,
                    300,
                    Kind::PowerOff { node: Target::Follower(round as usize % 2) },
                )
            })
        },
    },
    Story {
        name: "upgrade-there-and-back",
        story: "All nodes begin as an older program. They are exchanged one by one for the newer, and back, and for the newer \
                again while the leader dies. Asked for while one is old, the newer version is not raised, and the way back is \
                open; asked for when none is, it is raised, and the older program is refused.",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 12_000);
            plan.older = 0b111;
            plan.with(1_000, 300, Kind::RollingUpgrade { back: false, finalize_percent: Some(50) })
                .with(3_000, 300, Kind::RollingUpgrade { back: true, finalize_percent: None })
                .with(5_000, 400, Kind::RollingUpgrade { back: false, finalize_percent: Some(140) })
                .with(5_600, 300, Kind::Kill { node: Target::Leader })
                .with(9_000, 300, Kind::RollingUpgrade { back: true, finalize_percent: None })
        },
    },
    Story {
        name: "older-program-needs-a-snapshot",
        story: "The version is raised while a follower's disk is slow, and its power fails before it has the entry. It comes \
                back as the older program when the others have purged that entry: the snapshot that it is offered is of a \
                version that it does not know. It must say so and end, and the newer program loses nothing.",
        plan: |seed| {
            let mut plan = needs_snapshots(seed, 12_000);
            plan.older = 0b111;
            let node = Target::Follower(0);
            let plan = plan
                .with(500, 300, Kind::RollingUpgrade { back: false, finalize_percent: None })
                .with(3_500, 3_000, Kind::SlowDisk { node, ms: 300 })
                .with(3_600, 100, Kind::Finalize)
                .with(3_700, 3_000, Kind::PowerOff { node })
                .with(3_800, 200, Kind::RollingUpgrade { back: true, finalize_percent: None });
            (0..3).fold(plan, |plan, node| {
                plan.with(5_800 + 100 * node, 100, Kind::Snapshot { node: Target::Node(node as usize) })
            })
        },
    },
    Story {
        name: "everything-twice",
        story: "All that is said to two nodes arrives twice, and much of it again long after: votes of terms that are gone, \
                entries that were overwritten, payments that were answered. Each payment has one effect.",
        plan: |seed| {
            let mut plan = Plan::quiet(seed, 3, 14_000);
            for client in &mut plan.clients {
                client.think_ms = 15;
            }
            plan.with(500, 12_000, Kind::Duplicate { node: Target::Node(0), percent: 60 })
                .with(500, 12_000, Kind::Duplicate { node: Target::Node(1), percent: 60 })
                .with(3_000, 700, Kind::Kill { node: Target::Leader })
                .with(5_000, 1_500, Kind::LeaderAlone)
                .with(7_500, 3_000, Kind::Replay { node: Target::Node(0), calls: 60 })
                .with(8_000, 3_000, Kind::Replay { node: Target::Node(1), calls: 60 })
                .with(9_000, 700, Kind::Kill { node: Target::Leader })
                .with(11_000, 2_000, Kind::Replay { node: Target::Node(2), calls: 60 })
        },
    },
    Story {
        name: "member-replaced-while-cut",
        story: "A node is replaced while the leader is cut off from its peers, and again fails under the new one. The change \
                is made once, or not at all, and never by a minority.",
        plan: |seed| {
            Plan::quiet(seed, 5, 16_000)
                .with(1_500, 100, Kind::Replace { node: Target::Follower(1) })
                .with(1_700, 2_500, Kind::LeaderAlone)
                .with(5_000, 1_500, Kind::Partition { first: 0b00011 })
                .with(7_500, 800, Kind::PowerOff { node: Target::Leader })
        },
    },
    Story {
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

/// Snapshots are all that helps a follower that was away.
fn needs_snapshots(seed: u64, duration_ms: u64) -> Plan {
    let mut plan = Plan::quiet(seed, 3, duration_ms);
    plan.tuning.log_entries_kept = 0;
    plan.tuning.segment_bytes = 32 << 10;
    plan
}

/// The stories, then each fault by itself.
pub fn all() -> Vec<Scenario> {
    let told = STORIES.iter().map(|story| Scenario {
        name: story.name.into(),
        story: story.story.into(),
        plan: Box::new(story.plan),
    });
    let alone = KINDS.iter().map(|kind| Scenario {
        name: format!("only-{}", kind.name),
        story: format!("By itself: {}.", kind.about),
        plan: Box::new(|seed| Plan::alone(seed, kind.name)),
    });
    told.chain(alone).collect()
}

pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    pub fn plan_of(&self, seed: u64) -> Plan {
        Plan { scenario: Some(self.name.clone()), ..(self.plan)(seed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_also_a_scenario_by_itself() {
        for kind in KINDS {
            let plan = find(&format!("only-{}", kind.name)).unwrap().plan_of(5);
            assert!(!plan.faults.is_empty());
            assert!(plan.faults.iter().all(|fault| fault.kind.name() == kind.name), "{}", kind.name);
        }
    }

    #[test]
    fn no_two_scenarios_share_a_name() {
        let mut names: Vec<String> = all().into_iter().map(|scenario| scenario.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
