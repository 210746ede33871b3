//! Shrinks a failing plan to the fewest faults and the least work that still break the same law.
//!
//! Delta debugging: try without a half, a quarter, … of the faults; then with fewer callers, habits and less time. Each try is a
//! run in a process of its own, and counts only if it breaks the law that was broken at first.

use crate::{faults::Plan, runner::run_in_child};

pub struct Minimized {
    pub plan: Plan,
    pub law: String,
    pub text: String,
    pub tries: usize,
}

/// `None`: the plan breaks no law.
pub fn minimize(plan: &Plan, mut progress: impl FnMut(usize, &Plan)) -> Option<Minimized> {
    let outcome = run_in_child(plan);
    let first = outcome.broken.first()?;
    let mut found = Minimized { plan: plan.clone(), law: first.law.clone(), text: first.text.clone(), tries: 1 };
    loop {
        let before = found.plan.clone();
        shrink_faults(&mut found, &mut progress);
        for smaller in smaller_loads(&found.plan.clone()) {
            attempt(&mut found, smaller, &mut progress);
        }
        if found.plan == before {
            return Some(found);
        }
    }
}

fn attempt(found: &mut Minimized, smaller: Plan, progress: &mut impl FnMut(usize, &Plan)) -> bool {
    if smaller == found.plan || smaller.clients.is_empty() {
        return false;
    }
    found.tries += 1;
    progress(found.tries, &smaller);
    let outcome = run_in_child(&smaller);
    let Some(broken) = outcome.broken.iter().find(|broken| broken.law == found.law) else { return false };
    found.text = broken.text.clone();
    found.plan = smaller;
    true
}

fn shrink_faults(found: &mut Minimized, progress: &mut impl FnMut(usize, &Plan)) {
    let mut chunk = found.plan.faults.len().div_ceil(2).max(1);
    loop {
        let mut start = 0;
        while start < found.plan.faults.len() {
            let mut smaller = found.plan.clone();
            let end = (start + chunk).min(smaller.faults.len());
            smaller.faults.drain(start..end);
            if !attempt(found, smaller, progress) {
                start += chunk;
            }
        }
        if chunk == 1 {
            return;
        }
        chunk = chunk.div_ceil(2);
    }
}

/// One step smaller, in every direction.
fn smaller_loads(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    let last_fault_ms = plan.faults.iter().map(|fault| fault.at_ms + fault.for_ms).max().unwrap_or(0);
    for duration_ms in [last_fault_ms + 500, plan.duration_ms / 2] {
        if duration_ms < plan.duration_ms && duration_ms >= 500 {
            plans.push(Plan { duration_ms, ..plan.clone() });
        }
    }
    for client in 0..plan.clients.len() {
        let mut smaller = plan.clone();
        smaller.clients.remove(client);
        plans.push(smaller);
        let mut habits = plan.clients[client].habits.clone();
        habits.sort();
        habits.dedup();
        if habits.len() > 1 {
            for habit in 0..habits.len() {
                let mut smaller = plan.clone();
                smaller.clients[client].habits = habits.clone();
                smaller.clients[client].habits.remove(habit);
                plans.push(smaller);
            }
        }
    }
    plans
}
