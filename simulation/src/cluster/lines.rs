//! What is said on the lines between nodes, and the snapshots that are sent over them.

use super::{Cluster, SNAPSHOT_AHEAD_MS, STARVE_MIN_MS, hosts::NodeState, lift::Lift, lift::Struck, strike::Next};
use crate::{
    chronicle::Command,
    disk::Survival,
    faults::{End, Target},
    marks,
    wiretap::{Happened, Mischief, Wiretap},
};

impl Cluster<'_> {
    pub(super) fn listener(&self) -> Wiretap {
        self.wiretap.clone().expect("a plan with such a fault is listened to")
    }

    pub(super) fn take_snapshot(&mut self, node: Target) -> Lift {
        let node = self.resolve(node);
        self.chronicle.book().commands.push_back(Command::Snapshot { node });
        Lift::Nothing
    }

    /// A follower goes away until the log it needs is purged: what it gets when it comes back is a snapshot. `next` happens
    /// just before.
    pub(super) fn starve(&mut self, for_ms: u64, now_ms: u64, next: Next) -> Lift {
        let place = self.resolve(Target::Follower(0));
        let up_at_ms = now_ms + for_ms.max(STARVE_MIN_MS);
        let lift = self.take_down(place, Survival::Some);
        self.struck.push(Struck { until_ms: up_at_ms, lift });
        self.later(up_at_ms - SNAPSHOT_AHEAD_MS, Next::TakeSnapshot);
        self.later(up_at_ms, next);
        Lift::Nothing
    }

    /// A leader keeps the log that a follower lacks. One of the others has purged its own, and is to lead.
    pub(super) fn have_others_take_snapshots(&mut self) {
        let leader = self.resolve(Target::Leader);
        let up = |place: &usize| *place != leader && self.nodes[*place].state == NodeState::Up;
        let others: Vec<usize> = self.members.borrow().iter().copied().filter(up).collect();
        let mut book = self.chronicle.book();
        book.commands.extend(others.into_iter().map(|node| Command::Snapshot { node }));
        book.commands.push_back(Command::MoveLeader);
    }

    pub(super) fn send_snapshots_again(&mut self, node: Target) -> Lift {
        let host = self.host_of(node);
        let count = self.listener().replay_snapshots(&host);
        self.chronicle.line("faults", "line", format!("{count} transfers are made again"));
        Lift::Nothing
    }

    pub(super) fn double(&mut self, node: Target, percent: u64) -> Lift {
        let host = self.host_of(node);
        self.listener().double(&host, percent);
        Lift::Double(host)
    }

    pub(super) fn say_again(&mut self, node: Target, calls: u64, for_ms: u64) -> Lift {
        let host = self.host_of(node);
        let count = self.listener().replay(&host, calls, for_ms);
        self.chronicle.line("faults", "line", format!("{count} calls are made again"));
        Lift::Nothing
    }

    /// What somebody on the lines did, or brought about.
    pub(super) fn note_what_was_overheard(&mut self, now_ms: u64) {
        let Some(wiretap) = self.wiretap.clone() else { return };
        for happened in wiretap.happened() {
            self.chronicle.line("faults", "line", format!("{happened:?}"));
            match happened {
                Happened::Cut { end, host } => {
                    self.chronicle.mark(match end {
                        End::Sender => &marks::SNAPSHOT_CUT_SENDER,
                        End::Receiver => &marks::SNAPSHOT_CUT_RECEIVER,
                    });
                    let place = self.nodes.iter().position(|node| node.name == host);
                    let place = place.expect("transfers go from node to node");
                    if !self.nodes[place].replaced {
                        let lift = self.take_down(place, Survival::Some);
                        self.struck.push(Struck { until_ms: now_ms + 500, lift });
                    }
                }
                Happened::Refused { mischief: Mischief::Damage, .. } => self.chronicle.mark(&marks::DAMAGED_REFUSED),
                Happened::Refused { mischief: Mischief::Foreign, .. } => self.chronicle.mark(&marks::FOREIGN_REFUSED),
                Happened::Refused { .. } | Happened::Damaged | Happened::Foreign => {}
            }
        }
    }
}
