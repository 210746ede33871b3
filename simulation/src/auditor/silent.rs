//! Attempts that took effect though nobody was told: which call was it?
//!
//!     an effect in the books that no answer tells of ──> the calls that named its id ──> tried one by one ──> the one that
//!     does just what is in the books
//!
//! The same id may have been sent in several requests, so each is replayed on trial, at the time that the stamp implies. It must
//! make every transfer that the books have there, and none that they lack. Where nothing here speaks against a transfer that
//! the books lack, a still earlier attempt may have burnt its id. Of the calls that fit, it is one that real time allows, and
//! then the one that needs the fewest such beliefs.
//!
//! Laws
//! * An id is not believed to be burnt before a time at which it was answered or made as one that is not.
//! * An effect that no call can have had is a violation.

use std::collections::HashMap;

use super::{Books, Judge, Step, codes, describe, records::*};

/// Something in the books that no answer tells of.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    happened_at: u64,
    id: u128,
    /// Calls that can have done it, the one that was asked first in front: if several fit, no answer came before that one that
    /// doesn't come before the others. Each with the log time of its last event.
    candidates: Vec<(u64, usize)>,
}

/// How much has to be believed for a call to be the one: less is likelier. Whether it was asked too late, and how many ids must
/// have been burnt unseen.
type Cost = (bool, usize);

/// Until when each id was certainly not burnt, by log time.
pub(super) fn unburnt_until(history: &[Call], books: &Books) -> HashMap<u128, u64> {
    let mut until: HashMap<u128, u64> = HashMap::new();
    let mut note = |id, at: u64| {
        let last = until.entry(id).or_default();
        *last = at.max(*last);
    };
    for Call { op, answer, .. } in history {
        if let (Op::CreateTransfers(events), Answer::Written { timestamp, results, .. }) = (op, answer) {
            for ((event, result), behind) in events.iter().zip(results).zip((0..events.len() as u64).rev()) {
                if result.status == CREATED || codes::transfer::burns(result.status) {
                    note(event.id, timestamp - behind);
                }
            }
        }
    }
    let made = books.events.iter().filter(|event| event.kind != EXPIRED);
    made.for_each(|event| note(event.transfer.id, event.timestamp));
    until
}

impl Judge<'_> {
    /// What the books prove and no answer tells of, as steps at the time when it happened.
    pub(super) fn find_effects(&mut self, writes: &[(u64, usize)]) -> Vec<Step> {
        let (history, books) = (self.history, self.books);
        let mut transfers: HashMap<u128, Vec<(usize, usize)>> = HashMap::new();
        let mut accounts: HashMap<u128, Vec<(usize, usize)>> = HashMap::new();
        for (call, Call { op, .. }) in history.iter().enumerate() {
            let index = if matches!(op, Op::CreateAccounts(_)) { &mut accounts } else { &mut transfers };
            for place in 0..op.events_count() {
                index.entry(op.event_id(place)).or_default().push((call, place));
            }
        }
        let made = books.events.iter().filter(|event| event.kind != EXPIRED);
        let opened = books.accounts.iter().filter(|account| account.flags & account_flags::IMPORTED == 0);
        let happened = made
            .map(|event| (event.timestamp, event.transfer.id, false))
            .chain(opened.map(|account| (account.timestamp, account.id, true)));
        let mut steps = Vec::new();
        for (happened_at, id, is_account) in happened {
            if is_told(history, writes, happened_at, id, is_account) {
                continue;
            }
            let named = if is_account { accounts.get(&id) } else { transfers.get(&id) };
            let named = named.map_or(&[][..], Vec::as_slice);
            let mut candidates: Vec<(u64, usize)> = named
                .iter()
                .filter(|(call, place)| self.can_have(writes, *call, *place, happened_at))
                .map(|&(call, place)| (happened_at + (history[call].op.events_count() - 1 - place) as u64, call))
                .collect();
            candidates.sort_by_key(|(_, call)| history[*call].invoked_ns);
            if candidates.is_empty() {
                self.violate_phantom(id, happened_at, named.first().map(|(call, _)| *call));
                continue;
            }
            steps.push(Step::Effect { timestamp: happened_at, effect: self.effects.len() });
            self.effects.push(Effect { happened_at, id, candidates });
        }
        steps
    }

    fn violate_phantom(&mut self, id: u128, happened_at: u64, call: Option<usize>) {
        match call {
            None => self.violate("no_phantom", None, format!("id {id} is in the books and nobody asked for it")),
            Some(call) => {
                let answer = describe(&self.history[call].answer);
                let text = format!("id {id} took effect at {happened_at}; its call was answered: {answer}");
                self.violate("nothing_done_means_nothing_done", Some(call), text);
            }
        }
    }

    /// Whether an attempt of this call can have been carried out so that event `place` happened at this time, without a look
    /// at what the rules would have said.
    fn can_have(&self, writes: &[(u64, usize)], call: usize, place: usize, happened_at: u64) -> bool {
        let Call { op, answer, retried, .. } = &self.history[call];
        let last_at = happened_at + (op.events_count() - 1 - place) as u64;
        let first_at = first_of(last_at, op);
        let next = writes.partition_point(|(timestamp, _)| *timestamp < first_at);
        let is_free = writes
            .get(next)
            .is_none_or(|(timestamp, told)| *timestamp >= last_at + self.history[*told].op.events_count() as u64);
        let is_open = match answer {
            Answer::Unknown(_) => true,
            Answer::Written { .. } => *retried,
            _ => false,
        };
        is_free && is_open
    }

    /// Finds out which call it was, and replays it.
    pub(super) fn replay_effect(&mut self, effect: usize) {
        let Effect { happened_at, id, candidates } = self.effects[effect].clone();
        if happened_at <= self.silent_until {
            return;
        }
        let candidates: Vec<(u64, usize)> = candidates
            .into_iter()
            .filter(|&(last_at, call)| first_of(last_at, &self.history[call].op) > self.silent_until)
            .collect();
        let mut best: Option<(Cost, Vec<u128>, u64, usize)> = None;
        for &(last_at, call) in &candidates {
            let Some(beliefs) = self.beliefs_needed(last_at, call) else { continue };
            let is_late = self.told.before(self.history[call].invoked_ns).timestamp >= last_at;
            let cost = (is_late, beliefs.len());
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, beliefs, last_at, call));
            }
        }
        let Some((_, beliefs, last_at, call)) = best else {
            let text = format!(
                "id {id} took effect at {happened_at}; none of the {} calls that named it can have done just what is in the books there",
                candidates.len()
            );
            return self.violate("the_books_agree_with_the_answers", candidates.first().map(|(_, call)| *call), text);
        };
        self.verdict.assumed_burnt += beliefs.len();
        beliefs.into_iter().for_each(|id| self.model.assume_burnt(id));
        self.carry_out(last_at, call);
        self.silent_until = last_at;
        self.silent.push((last_at, call));
    }

    /// Ids that must have been burnt before, so that this call did at this time just what is in the books; `None` if it can't
    /// have.
    fn beliefs_needed(&mut self, last_at: u64, call: usize) -> Option<Vec<u128>> {
        let history = self.history;
        let mut beliefs = Vec::new();
        loop {
            self.model.begin_trial();
            beliefs.iter().for_each(|id| self.model.assume_burnt(*id));
            let outcomes = self.carry_out(last_at, call);
            let differs = (0..outcomes.len()).find(|&place| !self.is_in_the_books(last_at, call, place, &outcomes));
            let burnt_too_soon = self.model.burnt_on_trial().iter().any(|id| !self.can_be_burnt_at(*id, last_at));
            self.model.roll_back_trial();
            let place = match differs {
                None => return (!burnt_too_soon).then_some(beliefs),
                Some(place) => place,
            };
            let Op::CreateTransfers(events) = &history[call].op else { return None };
            let id = events[place].id;
            let may_be_burnt = outcomes[place].status == CREATED
                && !beliefs.contains(&id)
                && self.can_be_burnt_at(id, first_of(last_at, &history[call].op))
                && self.may_have_silent_attempts(id, call);
            if !may_be_burnt {
                return None;
            }
            beliefs.push(id);
        }
    }

    fn can_be_burnt_at(&self, id: u128, at: u64) -> bool {
        self.unburnt_until.get(&id).is_none_or(|until| *until < at)
    }

    fn carry_out(&mut self, last_at: u64, call: usize) -> Vec<Outcome> {
        match &self.history[call].op {
            Op::CreateAccounts(events) => self.model.create_accounts(last_at, events),
            Op::CreateTransfers(events) => self.model.create_transfers(last_at, events),
            _ => unreachable!("only writes have effects"),
        }
    }

    /// Whether the books have what this event made, or nothing, if it made nothing.
    fn is_in_the_books(&self, last_at: u64, call: usize, place: usize, outcomes: &[Outcome]) -> bool {
        let op = &self.history[call].op;
        let at = first_of(last_at, op) + place as u64;
        let made = outcomes[place].status == CREATED;
        let id = op.event_id(place);
        match op {
            Op::CreateTransfers(_) => {
                let recorded = self.place_of.get(&at).map(|&place| &self.books.events[place]);
                let recorded = recorded.filter(|event| event.kind != EXPIRED).map(|event| &event.transfer);
                recorded == self.model.transfer(id).filter(|_| made)
            }
            Op::CreateAccounts(events) if events[place].flags & account_flags::IMPORTED == 0 => {
                (self.opened_at.get(&at) == Some(&id)) == made
            }
            _ => true,
        }
    }
}

/// Log time of the first event of a request whose last was at `last_at`.
fn first_of(last_at: u64, op: &Op) -> u64 {
    last_at + 1 - op.events_count() as u64
}

/// Whether a known answer covers this moment of log time, and is about this id.
fn is_told(history: &[Call], writes: &[(u64, usize)], happened_at: u64, id: u128, accounts: bool) -> bool {
    let next = writes.partition_point(|&(timestamp, _)| timestamp < happened_at);
    writes.get(next).is_some_and(|&(timestamp, call)| {
        let op = &history[call].op;
        let behind = timestamp - happened_at;
        let count = op.events_count() as u64;
        behind < count
            && matches!(op, Op::CreateAccounts(_)) == accounts
            && op.event_id((count - 1 - behind) as usize) == id
    })
}
