//! Disks that are slow, full, broken, worn, or gone.

use super::{Cluster, lift::Lift, lift::Struck};
use crate::{
    disk::{DiskFaults, Survival},
    faults::{Step, Target},
    marks,
};

/// How long a node is down before it reads from a disk that returns wrong bits.
const DOWN_BEFORE_FLIPS_MS: u64 = 50;

impl Cluster<'_> {
    pub(super) fn slow_disk(&mut self, node: Target, ms: u64) -> Lift {
        let place = self.resolve(node);
        self.nodes[place].pace.slow_down(ms);
        Lift::Pace(place)
    }

    pub(super) fn break_disk(&mut self, node: Target, break_it: impl FnOnce(&mut DiskFaults)) -> Lift {
        let place = self.resolve(node);
        let node = &mut self.nodes[place];
        let mut faults = node.disk.faults();
        break_it(&mut faults);
        node.disk.set_faults(faults);
        node.disk_suffered = true;
        Lift::Disk(place)
    }

    pub(super) fn flip_reads(&mut self, node: Target, percent: u64, restart: bool, now_ms: u64) -> Lift {
        if restart {
            let place = self.resolve(node);
            let lift = self.take_down(place, Survival::Nothing);
            self.struck.push(Struck { until_ms: now_ms + DOWN_BEFORE_FLIPS_MS, lift });
        }
        self.break_disk(node, |faults| faults.reads_flip_percent = percent)
    }

    pub(super) fn set_trap(&mut self, node: Target, step: Step, survival: Survival) -> Lift {
        let place = self.resolve(node);
        self.nodes[place].disk.set_trap(step, survival);
        Lift::Nothing
    }

    pub(super) fn rot_at_rest(&mut self, node: Target) -> Lift {
        let place = self.resolve(node);
        let up = self.take_down(place, Survival::Nothing);
        self.rot_log(place);
        up
    }

    pub(super) fn rot_alive(&mut self, node: Target) -> Lift {
        let place = self.resolve(node);
        self.rot_log(place);
        Lift::Nothing
    }

    /// A bit flips in what a node's log had synced.
    fn rot_log(&mut self, place: usize) {
        self.look_at_disks();
        self.give_up_for_lost(place);
        let rot = self.nodes[place].disk.rot("/log/", 90);
        let text = rot.map_or("nothing to rot".into(), |(_, offset)| format!("a bit flips at byte {offset}"));
        self.chronicle.line("faults", "rot", text);
        // Before anyone reads it: what it then takes for its log must be what it was.
        self.look_at_disks();
    }

    pub(super) fn rot_snapshot(&mut self) {
        let place = self.resolve(Target::Leader);
        self.nodes[place].disk_suffered = true;
        let rot = self.nodes[place].disk.rot("/snapshots/", 100);
        let text = rot.map_or("no snapshot to rot".into(), |(_, offset)| format!("a bit flips at byte {offset}"));
        self.chronicle.line("faults", "rot", text);
    }

    pub(super) fn wipe(&mut self, node: Target) -> Lift {
        let place = self.resolve(node);
        let up = self.take_down(place, Survival::Nothing);
        self.give_up_for_lost(place);
        let node = &mut self.nodes[place];
        node.disk.wipe();
        // Snapshots that were installed moved the state from folder to folder.
        (0..1_000).for_each(|number| node.engines.forget(&node.data_dir.join(format!("group-0/state-{number}"))));
        if self.root.is_some() {
            let _ = std::fs::remove_dir_all(&node.data_dir);
        }
        node.wiped = true;
        self.chronicle.mark(&marks::DISK_LOST);
        up
    }

    /// It will never be what it was, and another is to take its place.
    fn give_up_for_lost(&mut self, place: usize) {
        self.chronicle.book().lost.insert(place);
        self.chronicle.book().sightings.remove(&place);
        self.nodes[place].disk_suffered = true;
        self.nodes[place].lost = true;
    }
}
