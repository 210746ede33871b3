//! A fault strikes: whom it means now, and which room knows what it does.
//!
//!     network.rs   who hears whom, and how soon       machines.rs   processes, power, clocks
//!     disks.rs     what a disk does and forgets        lines.rs      what is said on the lines, and snapshots that are sent
//!
//! Each returns what is to be lifted when the fault is over (`lift.rs`).

use super::{Cluster, lift::Lift, lift::Struck};
use crate::{
    chronicle::Command,
    coverage::Lasted,
    faults::{Fault, Kind, Target},
    wiretap::Mischief,
};

/// What follows in the course of a fault.
pub(super) enum Next {
    TakeSnapshot,
    Tamper(Mischief),
    RotSnapshot,
    Clog { place: usize, for_ms: u64 },
    Restart { place: usize },
    Install { place: usize, knows: u32 },
    Finalize,
}

impl Cluster<'_> {
    pub(super) fn strike(&mut self, fault: &Fault, now_ms: u64) {
        *self.faults_struck.entry(fault.kind.name()).or_default() += 1;
        let (from_ns, to_ns) = (now_ms * 1_000_000, (now_ms + fault.for_ms) * 1_000_000);
        self.chronicle.book().faults.push(Lasted { fault: fault.kind.name(), from_ns, to_ns });
        self.chronicle.line("faults", fault.kind.name(), format!("{:?} for {} ms", fault.kind, fault.for_ms));
        let lift = self.effect(fault, now_ms);
        self.links.apply(&self.sim);
        self.struck.push(Struck { until_ms: now_ms + fault.for_ms, lift });
    }

    fn effect(&mut self, fault: &Fault, now_ms: u64) -> Lift {
        let for_ms = fault.for_ms;
        match fault.kind.clone() {
            Kind::Kill { node } => self.kill(node),
            Kind::PowerOff { node } => self.power_off(node),
            Kind::PowerCut => self.power_cut(),
            Kind::QuorumLost => self.lose_quorum(),
            Kind::CrashLoop { node, times } => self.crash_again_and_again(node, times),
            Kind::Pause { node } => self.pause(node, now_ms + for_ms),
            Kind::SlowNode { node, ms } => self.slow_node(node, ms),
            Kind::ClockOffset { node, ms } => self.set_clock_off(node, ms),
            Kind::ClockJump { node, ms } => self.jump_clock(node, ms),
            Kind::ClockDrift { node, ppm } => self.drift_clock(node, ppm, now_ms),
            Kind::RollingRestart => self.restart_one_by_one(for_ms, now_ms),
            Kind::RollingUpgrade { back, finalize_percent } => {
                self.upgrade_one_by_one(back, finalize_percent, for_ms, now_ms)
            }
            Kind::Finalize => self.finalize(),
            Kind::Replace { node } => self.replace_unless_missed(node),

            Kind::DataCenterLost { center } => self.lose_data_center(center),
            Kind::Partition { first } => self.partition(first),
            Kind::OneWay { from, to } => self.cut_one_way(from, to),
            Kind::Partial { a, b } => self.part_two(a, b),
            Kind::Bridge { node } => self.leave_a_bridge(node),
            Kind::Ring => self.leave_a_ring(),
            Kind::LeaderAlone => self.leave_leader_alone(),
            Kind::Swizzle => self.swizzle(for_ms, now_ms),
            Kind::Hold { a, b } => self.hold(a, b),
            Kind::SlowLink { a, b, ms } => self.slow_link(a, b, ms),
            Kind::Loss { a, b, permille } => self.lose_messages(a, b, permille),

            Kind::SlowDisk { node, ms } => self.slow_disk(node, ms),
            Kind::SyncFails { node } => self.break_disk(node, |faults| faults.sync_fails = true),
            Kind::ReadFails { node, percent } => self.break_disk(node, |faults| faults.reads_fail_percent = percent),
            Kind::ReadFlips { node, percent, restart } => self.flip_reads(node, percent, restart, now_ms),
            Kind::DiskFull { node } => self.break_disk(node, |faults| faults.full = true),
            Kind::CrashAtStep { node, step, survival } => self.set_trap(node, step, survival),
            // Whoever is being replaced is missed already: no quorum survives the loss of another.
            Kind::BitRot { .. } | Kind::RotAlive { .. } | Kind::Wipe { .. } if self.is_replacing() => Lift::Nothing,
            Kind::BitRot { node } => self.rot_at_rest(node),
            Kind::RotAlive { node } => self.rot_alive(node),
            Kind::Wipe { node } => self.wipe(node),

            Kind::Snapshot { node } => self.take_snapshot(node),
            Kind::SnapshotCut { end, after } => self.starve(for_ms, now_ms, Next::Tamper(Mischief::Cut { end, after })),
            Kind::SnapshotDamaged { on_disk: true } => self.starve(for_ms, now_ms, Next::RotSnapshot),
            Kind::SnapshotDamaged { on_disk: false } => self.starve(for_ms, now_ms, Next::Tamper(Mischief::Damage)),
            Kind::SnapshotForeign => self.starve(for_ms, now_ms, Next::Tamper(Mischief::Foreign)),
            Kind::SnapshotOlder { node } => self.send_snapshots_again(node),
            Kind::Duplicate { node, percent } => self.double(node, percent),
            Kind::Replay { node, calls } => self.say_again(node, calls, for_ms),

            Kind::MoveLeader => {
                self.chronicle.book().commands.push_back(Command::MoveLeader);
                Lift::Nothing
            }
            Kind::RetryStorm => {
                self.town.borrow_mut().storm = true;
                Lift::Storm
            }
        }
    }

    /// The place of whom a fault means now.
    pub(super) fn resolve(&mut self, target: Target) -> usize {
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

    /// The host of whom a fault means now.
    pub(super) fn host_of(&mut self, target: Target) -> String {
        let place = self.resolve(target);
        self.nodes[place].name.clone()
    }

    pub(super) fn later(&mut self, at_ms: u64, next: Next) {
        self.struck.push(Struck { until_ms: at_ms, lift: Lift::Then(Box::new(next)) });
    }

    pub(super) fn follow_up(&mut self, next: Next, now_ms: u64) {
        match next {
            Next::TakeSnapshot => self.have_others_take_snapshots(),
            Next::Tamper(mischief) => self.listener().tamper(mischief),
            Next::RotSnapshot => self.rot_snapshot(),
            Next::Clog { place, for_ms } => self.clog(place, now_ms + for_ms),
            Next::Restart { place } => self.tell_to_stop(place, now_ms),
            Next::Install { place, knows } => self.install(place, knows, now_ms),
            Next::Finalize => drop(self.finalize()),
        }
    }
}
