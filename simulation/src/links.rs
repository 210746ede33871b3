//! Who hears whom. Several faults may cut the same link at once; it heals when the last of them is lifted.

use std::collections::BTreeMap;

/// The wishes of all faults, and what turmoil was told so far.
#[derive(Default)]
pub struct Links {
    /// (from, to) -> how many faults cut it.
    cut: BTreeMap<(String, String), u32>,
    /// Both ways, names in order -> how many faults hold it.
    held: BTreeMap<(String, String), u32>,
    told: BTreeMap<(String, String), State>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    /// From the first to the second name, and back.
    cut: (bool, bool),
    held: bool,
}

impl Links {
    pub fn cut(&mut self, from: &str, to: &str) {
        *self.cut.entry((from.into(), to.into())).or_default() += 1;
    }

    pub fn mend(&mut self, from: &str, to: &str) {
        if let Some(count) = self.cut.get_mut(&(from.into(), to.into())) {
            *count = count.saturating_sub(1);
        }
    }

    pub fn hold(&mut self, a: &str, b: &str) {
        *self.held.entry(ordered(a, b)).or_default() += 1;
    }

    pub fn release(&mut self, a: &str, b: &str) {
        if let Some(count) = self.held.get_mut(&ordered(a, b)) {
            *count = count.saturating_sub(1);
        }
    }

    pub fn mend_all(&mut self) {
        self.cut.values_mut().chain(self.held.values_mut()).for_each(|count| *count = 0);
    }

    /// Tells turmoil what has changed. A cut link is not held: nothing arrives in either case.
    pub fn apply(&mut self, sim: &turmoil::Sim<'_>) {
        let is_on = |counts: &BTreeMap<(String, String), u32>, key: &(String, String)| {
            counts.get(key).is_some_and(|count| *count > 0)
        };
        let mut pairs: Vec<(String, String)> = self.cut.keys().map(|(from, to)| ordered(from, to)).collect();
        pairs.extend(self.held.keys().cloned());
        pairs.sort();
        pairs.dedup();
        for pair in pairs {
            let back = (pair.1.clone(), pair.0.clone());
            let cut = (is_on(&self.cut, &pair), is_on(&self.cut, &back));
            let held = cut == (false, false) && is_on(&self.held, &pair);
            let wanted = State { cut, held };
            let told = self.told.entry(pair.clone()).or_default();
            if *told == wanted {
                continue;
            }
            let (a, b) = (pair.0.as_str(), pair.1.as_str());
            if told.held {
                sim.release(a, b);
            }
            if told.cut != (false, false) {
                sim.repair(a, b);
            }
            match cut {
                (true, true) => sim.partition(a, b),
                (true, false) => sim.partition_oneway(a, b),
                (false, true) => sim.partition_oneway(b, a),
                (false, false) => {}
            }
            if held {
                sim.hold(a, b);
            }
            *told = wanted;
        }
    }
}

fn ordered(a: &str, b: &str) -> (String, String) {
    if a <= b { (a.into(), b.into()) } else { (b.into(), a.into()) }
}
