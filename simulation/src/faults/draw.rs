//! From a seed to a plan: who asks, what goes wrong and when, all of it drawn.

use super::{
    Act, ClientPlan, Description, End, Engine, Fault, HABITS, Habit, KINDS, Kind, Place, Plan, STEPS, Step, Target,
    Tuning,
};
use crate::{chance::Dice, disk::Survival};

/// Each flush of RocksDB waits for a real disk.
pub const ROCKS_FLUSH_EVENTS_MIN: usize = 50;

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Plan {
        let mut dice = Dice::new(seed, "plan");
        let nodes = if dice.percent(70) { 3 } else { 5 };
        let duration_ms = dice.range(8, 25) * 1_000;
        let mut tuning = Tuning {
            segment_bytes: *dice.pick(&[32 << 10, 128 << 10, 1 << 20]),
            cache_bytes: *dice.pick(&[8 << 10, 256 << 10, 8 << 20]),
            snapshot_after_log_bytes: *dice.pick(&[64 << 10, 512 << 10, 64 << 20]),
            log_entries_kept: *dice.pick(&[0, 10, 1_000]),
            flush_events: *dice.pick(&[1, 20, 300, 100_000]),
            deadline_ms: *dice.pick(&[500, 2_000, 5_000]),
            latency_ms: *dice.pick(&[1, 2, 5]),
            wallets: *dice.pick(&[3, 12, 60]),
        };
        let clients = clients(&mut dice);
        let faults = faults(nodes, duration_ms, &mut dice);
        // RocksDB is slower and its files are real: one seed in twelve.
        let engine = if dice.below(12) == 0 { Engine::Rocks } else { Engine::Memory };
        if engine == Engine::Rocks {
            tuning.flush_events = tuning.flush_events.max(ROCKS_FLUSH_EVENTS_MIN);
        }
        let older = match faults.iter().any(|fault| fault.kind.is_about_versions()) {
            true => older(nodes, &mut dice),
            false => 0,
        };
        Plan { seed, scenario: None, nodes, duration_ms, engine, tuning, clients, faults, older, planted: 0 }
    }
}

/// Which nodes begin as an older program: mostly all, as before an upgrade, or as many as an upgrade left that was broken off.
pub(super) fn older(nodes: usize, dice: &mut Dice) -> u32 {
    let all = (1 << nodes) - 1;
    if dice.percent(60) { all } else { dice.range(0, u64::from(all)) as u32 }
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

impl Kind {
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
            "rolling-upgrade" => Kind::RollingUpgrade {
                back: dice.percent(35),
                finalize_percent: dice.percent(70).then(|| dice.below(160)),
            },
            "finalize" => Kind::Finalize,
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
