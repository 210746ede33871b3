//! Processes that die, machines without power, programs that are exchanged, and clocks that are wrong.

use std::time::Duration;

use jangbu_raft_store::admin::VERSION_MAX;

use super::{
    Cluster,
    hosts::{NodeState, OLDER},
    lift::Lift,
    strike::Next,
};
use crate::{chronicle::Command, disk::Survival, faults::Target, marks};

impl Cluster<'_> {
    pub(super) fn kill(&mut self, node: Target) -> Lift {
        let place = self.resolve(node);
        self.take_down(place, Survival::All)
    }

    pub(super) fn power_off(&mut self, node: Target) -> Lift {
        let place = self.resolve(node);
        let survival = *self.dice.pick(&[Survival::Nothing, Survival::Some]);
        self.take_down(place, survival)
    }

    pub(super) fn power_cut(&mut self) -> Lift {
        let members = self.members.borrow().clone();
        let survival = *self.dice.pick(&[Survival::Nothing, Survival::Some]);
        for &place in &members {
            self.take_down(place, survival);
        }
        self.chronicle.mark(&marks::POWER_CUT);
        Lift::Up(members)
    }

    pub(super) fn lose_quorum(&mut self) -> Lift {
        let members = self.members.borrow().clone();
        let dying = members[..members.len() / 2 + 1].to_vec();
        for &place in &dying {
            self.take_down(place, Survival::Some);
        }
        Lift::Up(dying)
    }

    pub(super) fn crash_again_and_again(&mut self, node: Target, times: u64) -> Lift {
        let place = self.resolve(node);
        self.take_down(place, Survival::Some);
        Lift::Loop(place, times)
    }

    pub(super) fn pause(&mut self, node: Target, until_ms: u64) -> Lift {
        let place = self.resolve(node);
        self.nodes[place].pace.stand_still_until(until_ms * 1_000_000);
        self.hold_links(self.all_links_of(place))
    }

    pub(super) fn slow_node(&mut self, node: Target, ms: u64) -> Lift {
        let place = self.resolve(node);
        self.nodes[place].pace.slow_down(ms);
        self.set_latency_of(place, Duration::from_millis(ms));
        Lift::Slow(place)
    }

    pub(super) fn set_clock_off(&mut self, node: Target, ms: i64) -> Lift {
        let place = self.resolve(node);
        self.nodes[place].clock.jump(ms * 1_000_000);
        Lift::Clock(place, -ms * 1_000_000)
    }

    pub(super) fn jump_clock(&mut self, node: Target, ms: i64) -> Lift {
        let place = self.resolve(node);
        self.nodes[place].clock.jump(ms * 1_000_000);
        Lift::Nothing
    }

    pub(super) fn drift_clock(&mut self, node: Target, ppm: i64, now_ms: u64) -> Lift {
        let place = self.resolve(node);
        self.nodes[place].clock.drift(ppm, now_ms * 1_000_000);
        Lift::Drift(place)
    }

    pub(super) fn restart_one_by_one(&mut self, for_ms: u64, now_ms: u64) -> Lift {
        let members = self.members.borrow().clone();
        for (place, turn) in members.into_iter().zip(0..) {
            self.later(now_ms + turn * for_ms, Next::Restart { place });
        }
        Lift::Nothing
    }

    /// Another program is installed on one node after the other. `for_ms` lies between two.
    pub(super) fn upgrade_one_by_one(
        &mut self,
        back: bool,
        finalize_percent: Option<u64>,
        for_ms: u64,
        now_ms: u64,
    ) -> Lift {
        let members = self.members.borrow().clone();
        let whole_ms = for_ms * members.len() as u64;
        let knows = if back { OLDER } else { VERSION_MAX };
        for (place, turn) in members.into_iter().zip(0..) {
            self.later(now_ms + turn * for_ms, Next::Install { place, knows });
        }
        if let Some(percent) = finalize_percent {
            self.later(now_ms + whole_ms * percent / 100, Next::Finalize);
        }
        Lift::Nothing
    }

    /// It runs from the next start on, whatever brings that about.
    pub(super) fn install(&mut self, place: usize, knows: u32, now_ms: u64) {
        if !self.nodes[place].replaced && !self.nodes[place].lost {
            self.nodes[place].install_program(knows);
            self.tell_to_stop(place, now_ms);
        }
    }

    pub(super) fn finalize(&mut self) -> Lift {
        self.chronicle.book().commands.push_back(Command::Finalize);
        Lift::Nothing
    }

    pub(super) fn tell_to_stop(&mut self, place: usize, now_ms: u64) {
        let node = &mut self.nodes[place];
        if node.state == NodeState::Up && !node.replaced && !node.lost {
            node.told_to_stop_ms = Some(now_ms);
            self.chronicle.book().stopping.insert(place);
            node.stop.borrow().cancel();
            let name = node.name.clone();
            self.chronicle.line(&name, "told", "to stop".into());
        }
    }

    /// Once in a run, and not while another is missed for good.
    pub(super) fn replace_unless_missed(&mut self, node: Target) -> Lift {
        let place = self.resolve(node);
        if self.replacements == 0 && !self.nodes.iter().any(|node| node.lost) {
            self.replace(place);
        }
        Lift::Nothing
    }
}
