//! Faults that last: how each is lifted when its time is over, and all of them in the end.

use std::time::Duration;

use super::{Cluster, hosts::NodeState, strike::Next};
use crate::{
    chronicle::Phase,
    disk::{DiskFaults, Survival},
    marks,
};

/// A fault that has struck and will be lifted.
pub(super) struct Struck {
    pub(super) until_ms: u64,
    pub(super) lift: Lift,
}

pub(super) enum Lift {
    Nothing,
    /// Directed links to mend.
    Links(Vec<(String, String)>),
    Held(Vec<(String, String)>),
    Up(Vec<usize>),
    /// Comes up in a crash loop: (node, times left).
    Loop(usize, u64),
    /// Dies in a crash loop.
    Die(usize, u64),
    Pace(usize),
    Disk(usize),
    SlowLink(String, String),
    Clock(usize, i64),
    Drift(usize),
    Storm,
    Loss(String, String),
    Slow(usize),
    /// A host hears everything once again.
    Double(String),
    /// Another fault strikes: the next part of this one.
    Then(Box<Next>),
}

impl Cluster<'_> {
    pub(super) fn lift_what_is_over(&mut self, now_ms: u64) {
        let (over, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.struck).into_iter().partition(|struck| struck.until_ms <= now_ms);
        self.struck = still;
        if over.is_empty() {
            return;
        }
        for Struck { lift, .. } in over {
            match lift {
                Lift::Nothing => {}
                Lift::Links(links) => links.iter().for_each(|(from, to)| self.links.mend(from, to)),
                Lift::Held(links) => links.iter().for_each(|(a, b)| self.links.release(a, b)),
                Lift::Up(places) => {
                    for place in places {
                        let node = &mut self.nodes[place];
                        node.down = node.down.saturating_sub(1);
                        node.up_at_ms = Some(now_ms);
                    }
                }
                Lift::Loop(place, times) => {
                    let node = &mut self.nodes[place];
                    node.down = node.down.saturating_sub(1);
                    if node.down == 0 && !node.replaced && node.state == NodeState::Down {
                        self.start(place);
                    }
                    if times > 0 {
                        // Long enough to get somewhere in its recovery, or through it.
                        let life_ms = *self.dice.pick(&[1, 5, 30, 200, 900]);
                        self.struck.push(Struck { until_ms: now_ms + life_ms, lift: Lift::Die(place, times - 1) });
                    }
                }
                Lift::Die(place, times) => {
                    let survival = *self.dice.pick(&[Survival::All, Survival::Nothing, Survival::Some]);
                    self.take_down(place, survival);
                    self.chronicle.mark(&marks::DIED_RECOVERING);
                    let gap_ms = *self.dice.pick(&[1, 50, 400]);
                    self.struck.push(Struck { until_ms: now_ms + gap_ms, lift: Lift::Loop(place, times) });
                }
                Lift::Pace(place) => self.nodes[place].pace.slow_down(0),
                Lift::Disk(place) => {
                    let node = &mut self.nodes[place];
                    node.disk.set_faults(DiskFaults::default());
                    if node.state == NodeState::Down {
                        node.up_at_ms = Some(now_ms);
                    }
                }
                Lift::SlowLink(a, b) => {
                    let latency = Duration::from_millis(self.plan.tuning.latency_ms);
                    self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency);
                }
                Lift::Clock(place, ns) => self.nodes[place].clock.jump(ns),
                Lift::Drift(place) => self.nodes[place].clock.drift(0, now_ms * 1_000_000),
                Lift::Storm => self.town.borrow_mut().storm = false,
                Lift::Loss(a, b) => self.sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0),
                Lift::Slow(place) => {
                    self.nodes[place].pace.slow_down(0);
                    self.set_latency_of(place, Duration::from_millis(self.plan.tuning.latency_ms));
                }
                Lift::Double(host) => self.listener().double(&host, 0),
                Lift::Then(next) => self.follow_up(*next, now_ms),
            }
        }
        self.links.apply(&self.sim);
    }

    /// All faults end; what is lost for good is replaced.
    pub(super) fn heal(&mut self, now_ms: u64) {
        self.chronicle.line("faults", "heal", "all faults are lifted".into());
        self.struck.clear();
        let now_ns = now_ms * 1_000_000;
        self.chronicle.book().faults.iter_mut().for_each(|fault| fault.to_ns = fault.to_ns.min(now_ns));
        if let Some(wiretap) = &self.wiretap {
            wiretap.fall_silent();
        }
        self.links.mend_all();
        self.links.apply(&self.sim);
        self.town.borrow_mut().storm = false;
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            node.disk.set_faults(DiskFaults::default());
            node.disk.remove_trap();
            node.pace.slow_down(0);
            node.pace.stand_still_until(0);
            node.clock.mend();
            node.down = 0;
            if node.state == NodeState::Down {
                node.up_at_ms = Some(now_ms);
            }
        }
        self.usual_latencies();
        for place in 0..self.nodes.len() {
            if self.nodes[place].lost && !self.nodes[place].replaced {
                self.replace(place);
            }
        }
        self.chronicle.enter(Phase::Healing);
    }

    pub(super) fn usual_latencies(&mut self) {
        let latency = Duration::from_millis(self.plan.tuning.latency_ms);
        for a in 0..self.nodes.len() {
            for b in 0..a {
                let (a, b) = (self.nodes[a].name.as_str(), self.nodes[b].name.as_str());
                self.sim.set_link_max_message_latency(a, b, latency);
                self.sim.set_link_fail_rate(a, b, 0.0);
            }
        }
        for node in &self.nodes {
            for caller in &self.callers {
                self.sim.set_link_max_message_latency(node.name.as_str(), caller.as_str(), latency);
            }
        }
    }
}
