//! The judge: replays everything that was answered through a ledger of its own, and compares.
//!
//! ```text
//!     answers, ordered by log time ──┐
//!     what the replicas hold ────────┼──> Model ──> the same answers? the same books?
//!     who answered before who asked ─┘
//! ```
//!
//! Every answer says where in the log it stands, so the order need not be searched for: sort, replay, compare; n log n.
//! Log time and log index must agree on that order, which is itself checked.
//!
//! A call may have been carried out by an attempt whose answer was lost. Such a silent attempt shows by its effects
//! (`silent.rs`): its request is then replayed whole, and must have had exactly the effects that are in the books. A silent
//! attempt whose events all failed leaves at most a burnt id; where a later answer says so, it is believed only if the call can
//! have had such an attempt.
//!
//! Laws
//! * Nothing of `ledger/` is used here, or the same mistake would be made twice.
//! * What cannot be decided is a violation.
//!
//! Not here: the laws that need no replay (`invariants`).

#![expect(clippy::disallowed_types, reason = "maps are looked up here, and never gone through")]

pub mod codes;
mod edges;
pub mod model;
pub mod records;
mod silent;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use edges::Told;
use model::Model;
use records::*;
use silent::Effect;

/// What the replicas hold in the end.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// In order of creation.
    pub accounts: Vec<Account>,
    /// Gap-free, from the first.
    pub events: Vec<ChangeEvent>,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub law: &'static str,
    pub text: String,
    /// The call it was found in, by its place in the history.
    pub call: Option<usize>,
}

/// What was judged.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub writes: usize,
    pub reads: usize,
    pub events: usize,
    /// Requests that took effect though nobody was told.
    pub silent: usize,
    /// Ids that a silent attempt must have burnt.
    pub assumed_burnt: usize,
    /// Answers by status, transfers only.
    pub statuses: BTreeMap<u32, u64>,
}

/// More than this says nothing new.
const VIOLATIONS_MAX: usize = 20;

/// Judges a whole run.
pub fn judge(history: &[Call], books: &Books) -> Verdict {
    let mut judge = Judge {
        history,
        books,
        place_of: books.events.iter().enumerate().map(|(place, event)| (event.timestamp, place)).collect(),
        opened_at: books.accounts.iter().map(|account| (account.timestamp, account.id)).collect(),
        unburnt_until: silent::unburnt_until(history, books),
        told: Told::new(history),
        effects: Vec::new(),
        silent: Vec::new(),
        silent_until: 0,
        verdict: Verdict::default(),
        model: Model::default(),
    };
    let steps = judge.order();
    for step in &steps {
        judge.replay(step);
        if judge.verdict.violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    if judge.verdict.violations.is_empty() {
        judge.compare_books();
    }
    judge.verdict.silent = judge.silent.len();
    edges::check(history, &judge.told, &judge.silent, &mut judge.verdict.violations);
    judge.verdict.violations.truncate(VIOLATIONS_MAX);
    judge.verdict
}

/// One thing that happened, in the order of log time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The answer of this call tells what happened at this time.
    Write {
        timestamp: u64,
        call: usize,
    },
    /// The books tell of something that no answer tells of.
    Effect {
        timestamp: u64,
        effect: usize,
    },
    Expiry {
        timestamp: u64,
        event: usize,
    },
    Read {
        timestamp: u64,
        call: usize,
    },
}

impl Step {
    /// Reads come after what happened at the same time.
    fn key(&self) -> (u64, u8) {
        match *self {
            Step::Write { timestamp, .. } | Step::Effect { timestamp, .. } | Step::Expiry { timestamp, .. } => {
                (timestamp, 0)
            }
            Step::Read { timestamp, .. } => (timestamp, 1),
        }
    }
}

struct Judge<'a> {
    history: &'a [Call],
    books: &'a Books,
    /// Log time of each change event, and its place in the books.
    place_of: HashMap<u64, usize>,
    /// When each account was opened.
    opened_at: HashMap<u64, u128>,
    unburnt_until: HashMap<u128, u64>,
    told: Told,
    effects: Vec<Effect>,
    /// Attempts that nobody was told of, as far as they are found: log time of the last event, and call. In order.
    silent: Vec<(u64, usize)>,
    /// All effects up to here are explained.
    silent_until: u64,
    verdict: Verdict,
    model: Model,
}

impl Judge<'_> {
    fn violate(&mut self, law: &'static str, call: Option<usize>, text: String) {
        self.verdict.violations.push(Violation { law, text, call });
    }

    // ------------------------------------------------------------------ order

    fn order(&mut self) -> Vec<Step> {
        let mut writes = Vec::new();
        let mut steps = Vec::new();
        for (call, Call { answer, .. }) in self.history.iter().enumerate() {
            match answer {
                Answer::Written { timestamp, .. } => writes.push((*timestamp, call)),
                Answer::Read { timestamp, .. } => steps.push(Step::Read { timestamp: *timestamp, call }),
                _ => {}
            }
        }
        writes.sort_unstable();
        self.check_log_order(&writes);
        steps.extend(self.find_effects(&writes));
        steps.extend(writes.iter().map(|&(timestamp, call)| Step::Write { timestamp, call }));
        steps.extend(
            self.books
                .events
                .iter()
                .enumerate()
                .filter(|(_, event)| event.kind == EXPIRED)
                .map(|(index, event)| Step::Expiry { timestamp: event.timestamp, event: index }),
        );
        steps.sort_by_key(Step::key);
        steps
    }

    /// Requests occupy disjoint stretches of log time, and log time moves on with the log index.
    fn check_log_order(&mut self, writes: &[(u64, usize)]) {
        for pair in writes.windows(2) {
            let [(earlier_at, earlier), (later_at, later)] = [pair[0], pair[1]];
            let count = self.history[later].op.events_count() as u64;
            if later_at - earlier_at < count {
                let text = format!("two requests share log time: {earlier_at} and the {count} events up to {later_at}");
                self.violate("log_time_is_unique", Some(later), text);
            }
            if self.log_index(earlier) > self.log_index(later) {
                let text = format!(
                    "log time {earlier_at} is at index {}, the later {later_at} at index {}",
                    self.log_index(earlier),
                    self.log_index(later)
                );
                self.violate("log_time_follows_log_index", Some(later), text);
            }
        }
    }

    fn log_index(&self, call: usize) -> u64 {
        match self.history[call].answer {
            Answer::Written { log_index, .. } | Answer::Read { log_index, .. } => log_index,
            _ => 0,
        }
    }

    // ------------------------------------------------------------------ replay

    fn replay(&mut self, step: &Step) {
        match *step {
            Step::Write { timestamp, call } => self.replay_write(timestamp, call),
            Step::Effect { effect, .. } => self.replay_effect(effect),
            Step::Expiry { timestamp, event } => {
                let id = self.books.events[event].transfer.id;
                if let Err(text) = self.model.expire(id, timestamp) {
                    self.violate("expiry_by_log_time", None, text);
                }
            }
            Step::Read { call, .. } => self.replay_read(call),
        }
    }

    fn replay_write(&mut self, timestamp: u64, call: usize) {
        let history = self.history;
        let Answer::Written { results, .. } = &history[call].answer else { return };
        self.verdict.writes += 1;
        self.verdict.events += results.len();
        if results.len() != history[call].op.events_count() {
            let text = format!("{} events were asked, {} results came", history[call].op.events_count(), results.len());
            return self.violate("one_result_per_event", Some(call), text);
        }
        let expected = match &history[call].op {
            Op::CreateAccounts(events) => self.model.create_accounts(timestamp, events),
            Op::CreateTransfers(events) => {
                self.believe_burnt(call, events, results);
                for result in results {
                    *self.verdict.statuses.entry(result.status).or_default() += 1;
                }
                self.model.create_transfers(timestamp, events)
            }
            _ => unreachable!("only writes are written"),
        };
        let settled = |index: usize| self.is_settled_by_lookup(call, index, results[index], expected[index]);
        if let Some(index) = (0..results.len()).find(|&index| results[index] != expected[index] && !settled(index)) {
            let text = format!(
                "event {index} of {}: answered {} at {}, should be {} at {}; {}",
                results.len(),
                status_name(&history[call].op, results[index].status),
                results[index].timestamp,
                status_name(&history[call].op, expected[index].status),
                expected[index].timestamp,
                describe_event(&history[call].op, index),
            );
            self.violate("every_answer_is_right", Some(call), text);
        }
    }

    /// A chain that was carried out by an earlier attempt answers `linked_event_failed` when it is asked for again. The client
    /// looks such events up, and tells those that are there as `exists`.
    fn is_settled_by_lookup(&self, call: usize, index: usize, told: Outcome, expected: Outcome) -> bool {
        let Call { op, retried, .. } = &self.history[call];
        let existing = match op {
            Op::CreateTransfers(events) => {
                self.model.transfer(events[index].id).map(|it| (codes::transfer::EXISTS, it.timestamp))
            }
            Op::CreateAccounts(events) => {
                self.model.account(events[index].id).map(|it| (codes::account::EXISTS, it.timestamp))
            }
            _ => None,
        };
        // The code is the same for accounts and transfers.
        *retried
            && expected.status == codes::transfer::LINKED_EVENT_FAILED
            && existing == Some((told.status, told.timestamp))
    }

    /// An answer `id_already_failed` for an id that never failed in our sight: an attempt of the same call may have burnt it.
    fn believe_burnt(&mut self, call: usize, events: &[Transfer], results: &[Outcome]) {
        for (index, event) in events.iter().enumerate() {
            let first = events[..index].iter().all(|earlier| earlier.id != event.id);
            let failed = results[index].status == codes::transfer::ID_ALREADY_FAILED;
            if first && failed && !self.model.is_known(event.id) && self.may_have_silent_attempts(event.id, call) {
                self.verdict.assumed_burnt += 1;
                self.model.assume_burnt(event.id);
            }
        }
    }

    fn may_have_silent_attempts(&self, id: u128, call: usize) -> bool {
        let asked_by = |other: &Call| matches!(&other.op, Op::CreateTransfers(events) if events.iter().any(|event| event.id == id));
        self.history[call].retried
            || self.history.iter().any(|other| {
                other.invoked_ns <= self.history[call].answered_ns
                    && (other.retried || matches!(other.answer, Answer::Unknown(_)))
                    && asked_by(other)
            })
    }

    fn replay_read(&mut self, call: usize) {
        let Call { op, answer, .. } = &self.history[call];
        let Answer::Read { rows, scanned_to, log_index, timestamp, .. } = answer else { return };
        self.verdict.reads += 1;
        let expected = self.model.answer(op, *scanned_to);
        if *rows != expected {
            let text = format!(
                "{} at log index {log_index}, log time {timestamp}: {}",
                op.name(),
                describe_difference(rows, &expected)
            );
            self.violate("every_read_is_right", Some(call), text);
        }
    }

    // ------------------------------------------------------------------ the end

    fn compare_books(&mut self) {
        let count = self.model.events_count().max(self.books.events.len());
        for index in 0..count {
            let expected = (index < self.model.events_count()).then(|| self.model.event(index));
            let actual = self.books.events.get(index).copied();
            if expected != actual {
                let text = format!("change event {index}: the books say {actual:?}, the answers say {expected:?}");
                self.violate("the_books_agree_with_the_answers", None, text);
                break;
            }
        }
        let expected = Rows::Accounts(self.model.accounts().to_vec());
        let actual = Rows::Accounts(self.books.accounts.clone());
        if actual != expected {
            let text = format!("accounts: {}", describe_difference(&actual, &expected));
            self.violate("the_books_agree_with_the_answers", None, text);
        }
        self.check_sums();
    }

    /// Debits equal credits over every ledger, pending and posted; nobody is over a limit.
    fn check_sums(&mut self) {
        let mut sums: BTreeMap<u32, [u128; 4]> = BTreeMap::new();
        for account in &self.books.accounts {
            let sum = sums.entry(account.ledger).or_default();
            for (sum, part) in sum.iter_mut().zip([
                account.debits_pending,
                account.credits_pending,
                account.debits_posted,
                account.credits_posted,
            ]) {
                // Sums over many accounts can pass 128 bits; both sides wrap alike.
                *sum = sum.wrapping_add(part);
            }
        }
        for (ledger, [debits_pending, credits_pending, debits_posted, credits_posted]) in sums {
            if debits_pending != credits_pending || debits_posted != credits_posted {
                let text = format!(
                    "ledger {ledger}: debits {debits_posted} (pending {debits_pending}), credits {credits_posted} (pending {credits_pending})"
                );
                self.violate("debits_equal_credits", None, text);
            }
        }
        let over: Vec<u128> =
            self.books.accounts.iter().filter(|account| is_over_limit(account)).map(|account| account.id).collect();
        if !over.is_empty() {
            self.violate("no_account_breaks_its_limit", None, format!("accounts over their limit: {over:?}"));
        }
    }
}

pub fn is_over_limit(account: &Account) -> bool {
    let debits = account.debits_pending + account.debits_posted;
    let credits = account.credits_pending + account.credits_posted;
    account.flags & account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS != 0 && debits > account.credits_posted
        || account.flags & account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS != 0 && credits > account.debits_posted
}

pub fn status_name(op: &Op, status: u32) -> &'static str {
    if matches!(op, Op::CreateAccounts(_)) { codes::account::name(status) } else { codes::transfer::name(status) }
}

pub fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Written { log_index, timestamp, results, .. } => {
            let created = results.iter().filter(|result| result.status == CREATED).count();
            format!("{created} of {} created at log index {log_index}, log time {timestamp}", results.len())
        }
        Answer::Read { log_index, rows, .. } => format!("{} rows at log index {log_index}", rows.count()),
        Answer::Malformed(why) => format!("malformed: {why}"),
        Answer::Unavailable(why) => format!("unavailable: {why}"),
        Answer::Unknown(why) => format!("unknown: {why}"),
    }
}

fn describe_event(op: &Op, index: usize) -> String {
    match op {
        Op::CreateAccounts(events) => format!("{:?}", events[index]),
        Op::CreateTransfers(events) => format!("{:?}", events[index]),
        _ => String::new(),
    }
}

fn describe_difference(actual: &Rows, expected: &Rows) -> String {
    fn first<T: PartialEq + std::fmt::Debug>(actual: &[T], expected: &[T]) -> String {
        let index = (0..actual.len().max(expected.len()))
            .find(|&index| actual.get(index) != expected.get(index))
            .unwrap_or_default();
        format!(
            "{} rows came, {} should have; row {index} is {:?}, should be {:?}",
            actual.len(),
            expected.len(),
            actual.get(index),
            expected.get(index)
        )
    }
    match (actual, expected) {
        (Rows::Accounts(actual), Rows::Accounts(expected)) => first(actual, expected),
        (Rows::Transfers(actual), Rows::Transfers(expected)) => first(actual, expected),
        (Rows::Balances(actual), Rows::Balances(expected)) => first(actual, expected),
        (Rows::Events(actual), Rows::Events(expected)) => first(actual, expected),
        _ => "rows of another kind".into(),
    }
}
