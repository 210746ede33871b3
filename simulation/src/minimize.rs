//! Shrinks a failing plan to the fewest faults and the least work that still break the same law.
//!
//! Delta debugging: first the time after the law was broken goes, which makes all that follows faster. Then without a half, a
//! quarter, … of the faults; then with fewer callers, fewer habits, shorter faults. Each try is a run in a process of its own,
//! and counts only if it breaks the law that was broken at first. It ends when nothing can be left out any more.

#![expect(clippy::disallowed_methods, reason = "how long a search may take is real time")]

use std::time::Instant;

use crate::{faults::Plan, run::Outcome};

pub struct Minimized {
    pub plan: Plan,
    pub law: String,
    pub text: String,
    pub tries: usize,
    /// There was no time to try everything.
    pub unfinished: bool,
}

/// `None`: the plan breaks no law. `run` makes a run; `progress` is told before each.
pub fn minimize(
    plan: &Plan,
    until: Option<Instant>,
    run: impl FnMut(&Plan) -> Outcome,
    progress: impl FnMut(usize, &Plan),
) -> Option<Minimized> {
    let mut search = Search { run, progress, until, found: None };
    search.begin(plan)?;
    loop {
        let before = search.plan().clone();
        search.shorten();
        search.shrink_faults();
        search.shrink_callers();
        search.shorten_faults();
        if *search.plan() == before || search.is_late() {
            break;
        }
    }
    let late = search.is_late();
    search.found.map(|found| Minimized { unfinished: late, ..found })
}

struct Search<Run, Progress> {
    run: Run,
    progress: Progress,
    until: Option<Instant>,
    found: Option<Minimized>,
}

impl<Run: FnMut(&Plan) -> Outcome, Progress: FnMut(usize, &Plan)> Search<Run, Progress> {
    fn begin(&mut self, plan: &Plan) -> Option<()> {
        let outcome = (self.run)(plan);
        let first = outcome.broken.first()?;
        self.found = Some(Minimized {
            plan: plan.clone(),
            law: first.law.clone(),
            text: first.text.clone(),
            tries: 1,
            unfinished: false,
        });
        // All that was broken later is of no interest; a law that was broken in the end leaves the time as it is.
        let at_ms = first.at_ns / 1_000_000;
        if at_ms > 0 && at_ms < plan.duration_ms {
            self.attempt(Plan { duration_ms: at_ms, ..plan.clone() });
        }
        Some(())
    }

    fn plan(&self) -> &Plan {
        &self.found.as_ref().expect("it has begun").plan
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether this smaller plan still breaks the law; it is the one to go on from then.
    fn attempt(&mut self, smaller: Plan) -> bool {
        if self.is_late() || smaller == *self.plan() || smaller.clients.is_empty() {
            return false;
        }
        let found = self.found.as_mut().expect("it has begun");
        found.tries += 1;
        (self.progress)(found.tries, &smaller);
        let outcome = (self.run)(&smaller);
        let Some(broken) = outcome.broken.iter().find(|broken| broken.law == found.law) else { return false };
        found.text = broken.text.clone();
        found.plan = smaller;
        true
    }

    fn shorten(&mut self) {
        let plan = self.plan().clone();
        let last_fault_ms = plan.faults.iter().map(|fault| fault.at_ms + fault.for_ms).max().unwrap_or(0);
        for duration_ms in [plan.duration_ms / 2, last_fault_ms + 500] {
            if (500..self.plan().duration_ms).contains(&duration_ms) {
                self.attempt(Plan { duration_ms, ..self.plan().clone() });
            }
        }
        // Faults that would strike after the end do nothing.
        let mut plan = self.plan().clone();
        plan.faults.retain(|fault| fault.at_ms < plan.duration_ms);
        self.found.as_mut().expect("it has begun").plan = plan;
    }

    fn shrink_faults(&mut self) {
        let mut chunk = self.plan().faults.len().div_ceil(2).max(1);
        loop {
            let mut start = 0;
            while start < self.plan().faults.len() {
                let mut smaller = self.plan().clone();
                let end = (start + chunk).min(smaller.faults.len());
                smaller.faults.drain(start..end);
                if !self.attempt(smaller) {
                    start += chunk;
                }
            }
            if chunk == 1 {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    fn shrink_callers(&mut self) {
        let mut client = 0;
        while client < self.plan().clients.len() {
            let mut smaller = self.plan().clone();
            smaller.clients.remove(client);
            if !self.attempt(smaller) {
                self.shrink_habits(client);
                client += 1;
            }
        }
    }

    fn shrink_habits(&mut self, client: usize) {
        let mut plan = self.plan().clone();
        let habits = &mut plan.clients[client].habits;
        habits.sort();
        habits.dedup();
        self.attempt(plan);
        let mut habit = 0;
        while self.plan().clients[client].habits.len() > 1 && habit < self.plan().clients[client].habits.len() {
            let mut smaller = self.plan().clone();
            smaller.clients[client].habits.remove(habit);
            if !self.attempt(smaller) {
                habit += 1;
            }
        }
    }

    fn shorten_faults(&mut self) {
        for fault in 0..self.plan().faults.len() {
            let mut smaller = self.plan().clone();
            smaller.faults[fault].for_ms /= 2;
            if smaller.faults[fault].for_ms >= 50 {
                self.attempt(smaller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        faults::{Habit, Kind, Target},
        run::BrokenLaw,
    };

    /// A cluster that loses money when a wipe meets a caller that closes accounts, and twists a node now and then.
    fn broken_cluster(plan: &Plan) -> Outcome {
        let wiped = plan.faults.iter().any(|fault| matches!(fault.kind, Kind::Wipe { .. }) && fault.for_ms >= 100);
        let closes = plan.clients.iter().any(|client| client.habits.contains(&Habit::Close));
        let law = |law: &str, at_ns| BrokenLaw { law: law.into(), text: String::new(), at_ns, call: None };
        let mut broken = Vec::new();
        if wiped && closes && plan.duration_ms >= 3_000 {
            broken.push(law("money_is_lost", 5_000_000_000));
        }
        if plan.clients.len() == 1 {
            broken.push(law("another_law", 1));
        }
        Outcome { broken, ..Outcome::default() }
    }

    fn plan() -> Plan {
        let mut plan = Plan::quiet(1, 3, 20_000);
        plan.clients[1].habits = vec![Habit::Pay, Habit::Close, Habit::Query, Habit::Close];
        for at_ms in [300, 500, 700, 900] {
            plan = plan.with(at_ms, 200, Kind::Kill { node: Target::Leader });
        }
        plan = plan.with(1_000, 800, Kind::Wipe { node: Target::Leader });
        plan.with(9_000, 200, Kind::PowerCut)
    }

    #[test]
    fn what_is_left_is_what_it_takes() {
        let found = minimize(&plan(), None, broken_cluster, |_, _| {}).unwrap();
        assert_eq!(found.law, "money_is_lost");
        assert_eq!(found.plan.faults.len(), 1);
        assert!(matches!(found.plan.faults[0].kind, Kind::Wipe { .. }));
        assert_eq!(found.plan.faults[0].for_ms, 100);
        assert_eq!(found.plan.clients.len(), 1);
        assert_eq!(found.plan.clients[0].habits, [Habit::Close]);
        assert!(found.plan.duration_ms <= 5_000, "{}", found.plan.duration_ms);
        assert!(broken_cluster(&found.plan).broken.iter().any(|broken| broken.law == "money_is_lost"));
    }

    #[test]
    fn a_plan_that_breaks_no_law_is_not_shrunk() {
        assert!(minimize(&Plan::quiet(1, 3, 8_000), None, broken_cluster, |_, _| {}).is_none());
    }

    #[test]
    fn there_is_an_end_to_it() {
        let found = minimize(&plan(), Some(Instant::now()), broken_cluster, |_, _| {}).unwrap();
        assert!(found.unfinished);
        assert_eq!(found.plan, plan());
    }
}
