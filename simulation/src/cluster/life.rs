//! Nodes that end, are ended, and start again, as a service manager would have it.

use jangbu_raft_store::admin::VERSION_MAX;

use super::{Cluster, STOPPING_MAX_MS, hosts::NodeState, lift::Lift, lift::Struck};
use crate::{
    chronicle::Command,
    disk::Survival,
    faults::{Engine, ROCKS_FLUSH_EVENTS_MIN},
    invariants::{News, Program},
    marks,
};

/// How a program says that it is too old for its cluster (`StoreError::TooNew`).
const TOO_OLD: &str = "start the newer program again";

impl Cluster<'_> {
    /// Nodes that ended are noticed, and started again as a service manager would; those that are due come up.
    pub(super) fn tend(&mut self, now_ms: u64) {
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
    pub(super) fn note_installations(&mut self, place: usize) {
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

    pub(super) fn ended(&mut self, place: usize, why: &str, now_ms: u64) {
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
        if why.contains(TOO_OLD) {
            return self.bring_newer_back(place, now_ms);
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

    /// Its program was refused: somebody reads why, and starts the newer one.
    fn bring_newer_back(&mut self, place: usize, now_ms: u64) {
        self.chronicle.mark(&marks::OLDER_REFUSED);
        self.chronicle.book().older_refused = true;
        self.stop(place, Survival::All);
        let node = &mut self.nodes[place];
        node.install_program(VERSION_MAX);
        node.up_at_ms = Some(now_ms + 200);
    }

    /// It was told to stop and has: it comes back with settings that another version could have had as its own.
    pub(super) fn come_back_changed(&mut self, place: usize, now_ms: u64) {
        self.stop(place, Survival::All);
        let flush_events_min = if self.plan.engine == Engine::Rocks { ROCKS_FLUSH_EVENTS_MIN } else { 1 };
        let node = &mut self.nodes[place];
        {
            let storage = &mut node.config.borrow_mut().storage;
            storage.log_segment_bytes = Some(*self.dice.pick(&[32 << 10, 128 << 10, 1 << 20]));
            storage.flush_events = Some(flush_events_min.max(*self.dice.pick(&[1, 50, 1_000])));
            storage.log_entries_kept = *self.dice.pick(&[0, 10, 1_000]);
            storage.snapshot_after_log_bytes = *self.dice.pick(&[64 << 10, 512 << 10, 64 << 20]);
        }
        node.up_at_ms = Some(now_ms + self.dice.range(1, 300));
        self.chronicle.mark(&marks::RESTARTED);
    }

    pub(super) fn start(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.state = NodeState::Up;
        node.up_at_ms = None;
        self.lives.borrow_mut()[place] += 1;
        let (name, knows) = (node.name.clone(), node.knows());
        let older =
            if knows < VERSION_MAX { format!("as a program that knows versions up to {knows}") } else { String::new() };
        self.chronicle.line(&name, "start", older);
        self.note_program(place, Some(knows));
        self.sim.bounce(name.as_str());
    }

    fn note_program(&self, place: usize, knows: Option<u32>) {
        let program = Program { at_ns: self.chronicle.now_ns(), id: self.ids.borrow()[place], knows };
        self.chronicle.hear(&News::Program(program));
    }

    /// The process is gone, now.
    pub(super) fn stop(&mut self, place: usize, survival: Survival) {
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
        self.chronicle.book().stopping.remove(&place);
        self.note_program(place, None);
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

    pub(super) fn take_down(&mut self, place: usize, survival: Survival) -> Lift {
        self.nodes[place].down += 1;
        self.stop(place, survival);
        Lift::Up(vec![place])
    }

    pub(super) fn is_replacing(&self) -> bool {
        let book = self.chronicle.book();
        book.commands_running > 0 || book.commands.iter().any(|command| matches!(command, Command::Replace { .. }))
    }

    /// Another node takes the place of this one, for ever.
    pub(super) fn replace(&mut self, old: usize) {
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
}
