//! Who hears whom, and how soon.

use std::time::Duration;

use super::{Cluster, lift::Lift, lift::Struck, strike::Next};
use crate::{faults::Target, marks};

impl Cluster<'_> {
    pub(super) fn lose_data_center(&mut self, center: usize) -> Lift {
        let members = self.members.borrow().clone();
        let (inside, outside): (Vec<usize>, Vec<usize>) = members.iter().partition(|place| *place % 3 == center);
        let mut outside = self.hosts(&outside);
        outside.extend(self.callers.iter().cloned());
        self.cut_both(&product(&self.hosts(&inside), &outside))
    }

    /// Bit i is set: node i is in the first half.
    pub(super) fn partition(&mut self, first: u32) -> Lift {
        let members = self.members.borrow().clone();
        let (a, b): (Vec<usize>, Vec<usize>) = members.iter().partition(|place| first >> **place & 1 == 1);
        self.cut_both(&product(&self.hosts(&a), &self.hosts(&b)))
    }

    pub(super) fn cut_one_way(&mut self, from: Target, to: Target) -> Lift {
        let link = (self.host_of(from), self.host_of(to));
        self.cut_links(vec![link])
    }

    pub(super) fn part_two(&mut self, a: Target, b: Target) -> Lift {
        let pair = (self.host_of(a), self.host_of(b));
        self.cut_both(&[pair])
    }

    /// Two halves that only this node connects.
    pub(super) fn leave_a_bridge(&mut self, node: Target) -> Lift {
        let bridge = self.resolve(node);
        let others = self.others(bridge);
        let (a, b) = others.split_at(others.len() / 2);
        self.cut_both(&product(a, b))
    }

    /// Every node hears its two neighbours only.
    pub(super) fn leave_a_ring(&mut self) -> Lift {
        let members = self.members.borrow().clone();
        let hosts = self.hosts(&members);
        let mut pairs = Vec::new();
        for a in 0..hosts.len() {
            for b in 0..a {
                if a - b != 1 && a - b != hosts.len() - 1 {
                    pairs.push((hosts[a].clone(), hosts[b].clone()));
                }
            }
        }
        self.cut_both(&pairs)
    }

    pub(super) fn leave_leader_alone(&mut self) -> Lift {
        let leader = self.resolve(Target::Leader);
        self.chronicle.mark(&marks::LEADER_ALONE);
        self.cut_both(&product(&self.hosts(&[leader]), &self.others(leader)))
    }

    /// One after the other is clogged, in any order; each comes free at a time of its own.
    pub(super) fn swizzle(&mut self, for_ms: u64, now_ms: u64) -> Lift {
        let members = self.members.borrow().clone();
        let mut clogged: Vec<usize> = members.into_iter().filter(|_| self.dice.percent(60)).collect();
        self.dice.shuffle(&mut clogged);
        for (place, turn) in clogged.into_iter().zip(0..) {
            let clogged_ms = self.dice.range(for_ms / 2, for_ms * 2 + 1);
            self.later(now_ms + turn * for_ms / 4, Next::Clog { place, for_ms: clogged_ms });
        }
        Lift::Nothing
    }

    pub(super) fn clog(&mut self, place: usize, until_ms: u64) {
        let lift = self.hold_links(self.all_links_of(place));
        self.struck.push(Struck { until_ms, lift });
    }

    pub(super) fn hold(&mut self, a: Target, b: Target) -> Lift {
        match self.link(a, b) {
            Some(link) => self.hold_links(vec![link]),
            None => Lift::Nothing,
        }
    }

    pub(super) fn slow_link(&mut self, a: Target, b: Target, ms: u64) -> Lift {
        let Some((a, b)) = self.link(a, b) else { return Lift::Nothing };
        self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), Duration::from_millis(ms));
        Lift::SlowLink(a, b)
    }

    pub(super) fn lose_messages(&mut self, a: Target, b: Target, permille: u64) -> Lift {
        let Some((a, b)) = self.link(a, b) else { return Lift::Nothing };
        self.sim.set_link_fail_rate(a.as_str(), b.as_str(), permille as f64 / 1_000.0);
        Lift::Loss(a, b)
    }

    /// Sets the latency of all links of a node.
    pub(super) fn set_latency_of(&self, place: usize, latency: Duration) {
        let own = self.nodes[place].name.as_str();
        let others = self.nodes.iter().map(|node| node.name.as_str()).chain(self.callers.iter().map(String::as_str));
        for other in others.filter(|other| *other != own) {
            self.sim.set_link_max_message_latency(own, other, latency);
        }
    }

    /// The link between two, if they are two.
    fn link(&mut self, a: Target, b: Target) -> Option<(String, String)> {
        let (a, b) = (self.host_of(a), self.host_of(b));
        (a != b).then_some((a, b))
    }

    fn hosts(&self, places: &[usize]) -> Vec<String> {
        places.iter().map(|place| self.nodes[*place].name.clone()).collect()
    }

    /// The hosts of all members but one.
    fn others(&self, place: usize) -> Vec<String> {
        let others: Vec<usize> = self.members.borrow().iter().copied().filter(|other| *other != place).collect();
        self.hosts(&others)
    }

    /// All links of a node, to its peers and to its callers.
    pub(super) fn all_links_of(&self, place: usize) -> Vec<(String, String)> {
        let own = &self.nodes[place].name;
        let peers = self.nodes.iter().map(|node| &node.name).filter(|name| *name != own);
        peers.chain(&self.callers).map(|other| (own.clone(), other.clone())).collect()
    }

    fn cut_both(&mut self, pairs: &[(String, String)]) -> Lift {
        self.cut_links(pairs.iter().flat_map(|(a, b)| [(a.clone(), b.clone()), (b.clone(), a.clone())]).collect())
    }

    fn cut_links(&mut self, links: Vec<(String, String)>) -> Lift {
        let links: Vec<_> = links.into_iter().filter(|(from, to)| from != to).collect();
        links.iter().for_each(|(from, to)| self.links.cut(from, to));
        Lift::Links(links)
    }

    pub(super) fn hold_links(&mut self, links: Vec<(String, String)>) -> Lift {
        links.iter().for_each(|(a, b)| self.links.hold(a, b));
        Lift::Held(links)
    }
}

fn product(a: &[String], b: &[String]) -> Vec<(String, String)> {
    a.iter().flat_map(|a| b.iter().map(move |b| (a.clone(), b.clone()))).collect()
}
