//! The whole ledger once more, in the plainest form that is still fast enough: a vector of accounts, a vector of events.
//!
//! Written from the data model's text, not from `ledger/`. It knows no storage, no batches and no Raft; what it is told
//! happens at the time it is told.
//!
//! Not here: which requests happened and in which order (`auditor.rs`).

#![expect(clippy::disallowed_types, reason = "maps are looked up here, and never gone through")]

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    codes::{account as ac, transfer as tc},
    records::{account_flags as af, transfer_flags as tf, *},
};

const SECOND_NS: u64 = 1_000_000_000;
const TIMESTAMP_MAX: u64 = (1 << 63) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PendingState {
    Open,
    Posted,
    Voided,
    Expired,
}

/// One change of balances.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When it happened.
    timestamp: u64,
    kind: u8,
    transfer: Transfer,
    debit: Account,
    credit: Account,
}

/// What a chain must be able to take back, newest first.
#[derive(Clone, Copy)]
#[expect(clippy::large_enum_variant, reason = "chains are short")]
enum Undo {
    Account,
    Entry {
        debit: (usize, Account),
        credit: (usize, Account),
        pending: Option<(u128, PendingState)>,
        stamp_before: u64,
    },
}

#[derive(Default)]
pub struct Model {
    accounts: Vec<Account>,
    account_index: HashMap<u128, usize>,
    account_timestamps: HashSet<u64>,
    transfer_timestamps: HashSet<u64>,
    entries: Vec<Entry>,
    /// Transfers in order of their timestamps: entries that are no expiries.
    transfers: Vec<usize>,
    transfer_index: HashMap<u128, usize>,
    /// Per account: its transfers, ascending.
    history: HashMap<u128, Vec<usize>>,
    pendings: HashMap<u128, PendingState>,
    /// Open pendings with a timeout: (expires at, place in `entries`).
    expiries: BTreeSet<(u64, usize)>,
    burnt: HashSet<u128>,
    last_account_timestamp: u64,
    last_transfer_timestamp: u64,
    undo: Option<Vec<Undo>>,
    trial: Option<Trial>,
}

/// What a request has done that is only being tried.
#[derive(Default)]
struct Trial {
    undo: Vec<Undo>,
    burnt: Vec<u128>,
    assumed: Vec<u128>,
}

impl Model {
    // ------------------------------------------------------------------ what happens

    pub fn create_accounts(&mut self, time: u64, events: &[Account]) -> Vec<Outcome> {
        let imported = events.first().is_some_and(|event| event.flags & af::IMPORTED != 0);
        let codes = Codes {
            failed: ac::LINKED_EVENT_FAILED,
            open: ac::LINKED_EVENT_CHAIN_OPEN,
            expected: ac::IMPORTED_EVENT_EXPECTED,
            not_expected: ac::IMPORTED_EVENT_NOT_EXPECTED,
            zero: ac::TIMESTAMP_MUST_BE_ZERO,
            range: ac::IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE,
            advance: ac::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE,
        };
        let heads: Vec<Head> = events
            .iter()
            .map(|event| Head {
                linked: event.flags & af::LINKED != 0,
                imported: event.flags & af::IMPORTED != 0,
                timestamp: event.timestamp,
            })
            .collect();
        self.run(time, imported, &heads, &codes, |model, now, index| model.create_account(now, &events[index]))
    }

    pub fn create_transfers(&mut self, time: u64, events: &[Transfer]) -> Vec<Outcome> {
        let imported = events.first().is_some_and(|event| event.flags & tf::IMPORTED != 0);
        let codes = Codes {
            failed: tc::LINKED_EVENT_FAILED,
            open: tc::LINKED_EVENT_CHAIN_OPEN,
            expected: tc::IMPORTED_EVENT_EXPECTED,
            not_expected: tc::IMPORTED_EVENT_NOT_EXPECTED,
            zero: tc::TIMESTAMP_MUST_BE_ZERO,
            range: tc::IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE,
            advance: tc::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE,
        };
        let heads: Vec<Head> = events
            .iter()
            .map(|event| Head {
                linked: event.flags & tf::LINKED != 0,
                imported: event.flags & tf::IMPORTED != 0,
                timestamp: event.timestamp,
            })
            .collect();
        self.run(time, imported, &heads, &codes, |model, now, index| {
            let outcome = model.create_transfer(now, &events[index]);
            if tc::burns(outcome.status)
                && model.burnt.insert(events[index].id)
                && let Some(trial) = &mut model.trial
            {
                trial.burnt.push(events[index].id);
            }
            outcome
        })
    }

    /// The sweep released this pending transfer. Says what is wrong with that, if anything is.
    pub fn expire(&mut self, id: u128, now: u64) -> Result<(), String> {
        let Some(&place) = self.transfer_index.get(&id) else {
            return Err(format!("transfer {id} expired and was never made"));
        };
        let Some(&(expires_at, next)) = self.expiries.first() else {
            return Err(format!("transfer {id} expired, and nothing was open that could expire"));
        };
        if next != place {
            let due = self.entries[next].transfer.id;
            return Err(format!("transfer {id} expired before transfer {due}, which was due first at {expires_at}"));
        }
        // The events of one sweep count down to its time, so the first of many may bear a stamp a little before.
        if expires_at > now + 8_192 {
            return Err(format!("transfer {id} expired at {now}, before its time {expires_at}"));
        }
        let transfer = self.entries[place].transfer;
        self.release(&transfer, 0, now, EXPIRED, transfer, PendingState::Expired);
        Ok(())
    }

    /// How long the oldest open pending transfer is overdue at `now`.
    pub fn overdue_ns(&self, now: u64) -> u64 {
        self.expiries.first().map_or(0, |&(expires_at, _)| now.saturating_sub(expires_at))
    }

    /// The id counts as failed from here on, by an attempt that left no other trace.
    pub fn assume_burnt(&mut self, id: u128) {
        if self.burnt.insert(id)
            && let Some(trial) = &mut self.trial
        {
            trial.assumed.push(id);
        }
    }

    pub fn is_known(&self, id: u128) -> bool {
        self.burnt.contains(&id) || self.transfer_index.contains_key(&id)
    }

    /// Runs the events of one request: their clocks, their chains.
    fn run(
        &mut self,
        time: u64,
        imported: bool,
        heads: &[Head],
        codes: &Codes,
        mut create: impl FnMut(&mut Self, u64, usize) -> Outcome,
    ) -> Vec<Outcome> {
        let count = heads.len();
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(count);
        let mut chain_start = None;
        let mut chain_broken = false;
        for (index, head) in heads.iter().enumerate() {
            let now = time - count as u64 + index as u64 + 1;
            let refuse = |status| Outcome { status, timestamp: now };
            if head.linked && chain_start.is_none() {
                chain_start = Some(index);
                chain_broken = false;
                self.undo = Some(Vec::new());
            }
            let outcome = if head.linked && index + 1 == count {
                refuse(codes.open)
            } else if chain_start.is_some() && chain_broken {
                refuse(codes.failed)
            } else if head.imported != imported {
                refuse(if imported { codes.expected } else { codes.not_expected })
            } else if !imported && head.timestamp != 0 {
                refuse(codes.zero)
            } else if imported && (head.timestamp == 0 || head.timestamp > TIMESTAMP_MAX) {
                refuse(codes.range)
            } else if imported && head.timestamp >= time {
                refuse(codes.advance)
            } else {
                create(self, now, index)
            };
            if let Some(start) = chain_start {
                if outcome.status != CREATED && !chain_broken {
                    chain_broken = true;
                    self.take_back();
                    for (earlier, outcome) in outcomes.iter_mut().enumerate().skip(start) {
                        *outcome =
                            Outcome { status: codes.failed, timestamp: time - count as u64 + earlier as u64 + 1 };
                    }
                }
                if !head.linked || index + 1 == count {
                    chain_start = None;
                    self.undo = None;
                }
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// From here on everything can be rolled back.
    pub fn begin_trial(&mut self) {
        self.trial = Some(Trial::default());
    }

    /// Ids that what is being tried has burnt.
    pub fn burnt_on_trial(&self) -> &[u128] {
        self.trial.as_ref().map_or(&[], |trial| &trial.burnt)
    }

    /// What was tried did not happen.
    pub fn roll_back_trial(&mut self) {
        let trial = self.trial.take().expect("a trial was begun");
        trial.undo.into_iter().rev().for_each(|undo| self.undo(undo));
        for id in trial.burnt.into_iter().chain(trial.assumed) {
            self.burnt.remove(&id);
        }
    }

    fn note(&mut self, undo: Undo) {
        let trial = self.trial.as_mut().map(|trial| &mut trial.undo);
        self.undo.as_mut().into_iter().chain(trial).for_each(|notes| notes.push(undo));
    }

    fn take_back(&mut self) {
        let chain = self.undo.take().unwrap_or_default();
        if let Some(trial) = &mut self.trial {
            trial.undo.truncate(trial.undo.len() - chain.len());
        }
        chain.into_iter().rev().for_each(|undo| self.undo(undo));
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Account => {
                let account = self.accounts.pop().expect("what is taken back was made");
                self.account_index.remove(&account.id);
                self.account_timestamps.remove(&account.timestamp);
                self.last_account_timestamp = self.accounts.last().map_or(0, |account| account.timestamp);
            }
            Undo::Entry { debit, credit, pending, stamp_before } => {
                let place = self.entries.len() - 1;
                let entry = self.entries.pop().expect("what is taken back was made");
                let id = entry.transfer.id;
                self.transfers.pop();
                self.transfer_index.remove(&id);
                self.transfer_timestamps.remove(&entry.transfer.timestamp);
                for account in [entry.debit.id, entry.credit.id] {
                    self.history.get_mut(&account).map(Vec::pop);
                }
                self.pendings.remove(&id);
                self.expiries.retain_last(place);
                self.accounts[debit.0] = debit.1;
                self.accounts[credit.0] = credit.1;
                if let Some((pending_id, state)) = pending {
                    self.pendings.insert(pending_id, state);
                    let place = self.transfer_index[&pending_id];
                    let pending = &self.entries[place].transfer;
                    if pending.timeout > 0 {
                        self.expiries.insert((expires_at(pending), place));
                    }
                }
                self.last_transfer_timestamp = stamp_before;
            }
        }
    }

    fn create_account(&mut self, now: u64, event: &Account) -> Outcome {
        let status = self.judge_account(event);
        match status {
            ac::EXISTS => {
                let existing = &self.accounts[self.account_index[&event.id]];
                return Outcome { status, timestamp: existing.timestamp };
            }
            CREATED => {}
            _ => return Outcome { status, timestamp: now },
        }
        let timestamp = if event.flags & af::IMPORTED != 0 { event.timestamp } else { now };
        self.account_index.insert(event.id, self.accounts.len());
        self.account_timestamps.insert(timestamp);
        self.accounts.push(Account { timestamp, ..*event });
        self.last_account_timestamp = timestamp;
        self.note(Undo::Account);
        Outcome { status: CREATED, timestamp }
    }

    fn judge_account(&self, event: &Account) -> u32 {
        let limits = af::DEBITS_MUST_NOT_EXCEED_CREDITS | af::CREDITS_MUST_NOT_EXCEED_DEBITS;
        if event.reserved != 0 {
            ac::RESERVED_FIELD
        } else if event.flags & !af::ALL != 0 {
            ac::RESERVED_FLAG
        } else if event.id == 0 {
            ac::ID_MUST_NOT_BE_ZERO
        } else if event.id == u128::MAX {
            ac::ID_MUST_NOT_BE_INT_MAX
        } else if let Some(&index) = self.account_index.get(&event.id) {
            let existing = &self.accounts[index];
            if event.flags != existing.flags {
                ac::EXISTS_WITH_DIFFERENT_FLAGS
            } else if event.user_data_128 != existing.user_data_128 {
                ac::EXISTS_WITH_DIFFERENT_USER_DATA_128
            } else if event.user_data_64 != existing.user_data_64 {
                ac::EXISTS_WITH_DIFFERENT_USER_DATA_64
            } else if event.user_data_32 != existing.user_data_32 {
                ac::EXISTS_WITH_DIFFERENT_USER_DATA_32
            } else if event.ledger != existing.ledger {
                ac::EXISTS_WITH_DIFFERENT_LEDGER
            } else if event.code != existing.code {
                ac::EXISTS_WITH_DIFFERENT_CODE
            } else {
                ac::EXISTS
            }
        } else if event.flags & limits == limits {
            ac::FLAGS_ARE_MUTUALLY_EXCLUSIVE
        } else if event.debits_pending != 0 {
            ac::DEBITS_PENDING_MUST_BE_ZERO
        } else if event.debits_posted != 0 {
            ac::DEBITS_POSTED_MUST_BE_ZERO
        } else if event.credits_pending != 0 {
            ac::CREDITS_PENDING_MUST_BE_ZERO
        } else if event.credits_posted != 0 {
            ac::CREDITS_POSTED_MUST_BE_ZERO
        } else if event.ledger == 0 {
            ac::LEDGER_MUST_NOT_BE_ZERO
        } else if event.code == 0 {
            ac::CODE_MUST_NOT_BE_ZERO
        } else if event.flags & af::IMPORTED != 0
            && (event.timestamp <= self.last_account_timestamp || self.transfer_timestamps.contains(&event.timestamp))
        {
            ac::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS
        } else {
            CREATED
        }
    }

    fn create_transfer(&mut self, now: u64, event: &Transfer) -> Outcome {
        let refuse = |status| Outcome { status, timestamp: now };
        if event.flags & !tf::ALL != 0 {
            return refuse(tc::RESERVED_FLAG);
        }
        if event.id == 0 {
            return refuse(tc::ID_MUST_NOT_BE_ZERO);
        }
        if event.id == u128::MAX {
            return refuse(tc::ID_MUST_NOT_BE_INT_MAX);
        }
        if let Some(&place) = self.transfer_index.get(&event.id) {
            let existing = self.entries[place].transfer;
            let status = self.compare_with_existing(event, &existing);
            return Outcome { status, timestamp: if status == tc::EXISTS { existing.timestamp } else { now } };
        }
        if self.burnt.contains(&event.id) {
            return refuse(tc::ID_ALREADY_FAILED);
        }
        let made = if event.flags & (tf::POST | tf::VOID) != 0 {
            self.post_or_void(now, event)
        } else {
            self.move_or_reserve(now, event)
        };
        match made {
            Ok(timestamp) => Outcome { status: CREATED, timestamp },
            Err(status) => refuse(status),
        }
    }

    fn compare_with_existing(&self, event: &Transfer, existing: &Transfer) -> u32 {
        if event.flags != existing.flags {
            return tc::EXISTS_WITH_DIFFERENT_FLAGS;
        }
        if event.pending_id != existing.pending_id {
            return tc::EXISTS_WITH_DIFFERENT_PENDING_ID;
        }
        if event.timeout != existing.timeout {
            return tc::EXISTS_WITH_DIFFERENT_TIMEOUT;
        }
        let resolves = event.flags & (tf::POST | tf::VOID) != 0;
        // What a post or void leaves out, it takes from the transfer that it resolves.
        let held = if resolves {
            self.entries[self.transfer_index[&existing.pending_id]].transfer
        } else {
            Transfer::default()
        };
        let or = |given: u128, inherited: u128| if resolves && given == 0 { inherited } else { given };
        if or(event.debit_account_id, held.debit_account_id) != existing.debit_account_id {
            return tc::EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID;
        }
        if or(event.credit_account_id, held.credit_account_id) != existing.credit_account_id {
            return tc::EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID;
        }
        let same_amount = if event.flags & tf::VOID != 0 {
            event.amount == existing.amount || (event.amount == 0 && existing.amount == held.amount)
        } else if event.flags & tf::POST != 0 {
            if event.amount == AMOUNT_MAX { existing.amount == held.amount } else { event.amount == existing.amount }
        } else if event.flags & (tf::BALANCING_DEBIT | tf::BALANCING_CREDIT) != 0 {
            event.amount >= existing.amount
        } else {
            event.amount == existing.amount
        };
        if !same_amount {
            return tc::EXISTS_WITH_DIFFERENT_AMOUNT;
        }
        if or(event.user_data_128, held.user_data_128) != existing.user_data_128 {
            return tc::EXISTS_WITH_DIFFERENT_USER_DATA_128;
        }
        if or(event.user_data_64.into(), held.user_data_64.into()) != u128::from(existing.user_data_64) {
            return tc::EXISTS_WITH_DIFFERENT_USER_DATA_64;
        }
        if or(event.user_data_32.into(), held.user_data_32.into()) != u128::from(existing.user_data_32) {
            return tc::EXISTS_WITH_DIFFERENT_USER_DATA_32;
        }
        if or(event.ledger.into(), held.ledger.into()) != u128::from(existing.ledger) {
            return tc::EXISTS_WITH_DIFFERENT_LEDGER;
        }
        if or(event.code.into(), held.code.into()) != u128::from(existing.code) {
            return tc::EXISTS_WITH_DIFFERENT_CODE;
        }
        tc::EXISTS
    }

    fn move_or_reserve(&mut self, now: u64, event: &Transfer) -> Result<u64, u32> {
        let pending = event.flags & tf::PENDING != 0;
        let closing = event.flags & (tf::CLOSING_DEBIT | tf::CLOSING_CREDIT) != 0;
        refuse_if(event.debit_account_id == 0, tc::DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO)?;
        refuse_if(event.debit_account_id == u128::MAX, tc::DEBIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX)?;
        refuse_if(event.credit_account_id == 0, tc::CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO)?;
        refuse_if(event.credit_account_id == u128::MAX, tc::CREDIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX)?;
        refuse_if(event.debit_account_id == event.credit_account_id, tc::ACCOUNTS_MUST_BE_DIFFERENT)?;
        refuse_if(event.pending_id != 0, tc::PENDING_ID_MUST_BE_ZERO)?;
        refuse_if(!pending && event.timeout != 0, tc::TIMEOUT_RESERVED_FOR_PENDING_TRANSFER)?;
        refuse_if(!pending && closing, tc::CLOSING_TRANSFER_MUST_BE_PENDING)?;
        refuse_if(event.ledger == 0, tc::LEDGER_MUST_NOT_BE_ZERO)?;
        refuse_if(event.code == 0, tc::CODE_MUST_NOT_BE_ZERO)?;
        let debit_index = *self.account_index.get(&event.debit_account_id).ok_or(tc::DEBIT_ACCOUNT_NOT_FOUND)?;
        let credit_index = *self.account_index.get(&event.credit_account_id).ok_or(tc::CREDIT_ACCOUNT_NOT_FOUND)?;
        let mut debit = self.accounts[debit_index];
        let mut credit = self.accounts[credit_index];
        refuse_if(debit.ledger != credit.ledger, tc::ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER)?;
        refuse_if(event.ledger != debit.ledger, tc::TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS)?;
        let timestamp = self.import_stamp(now, event, &debit, &credit)?;
        refuse_if(event.flags & tf::IMPORTED != 0 && event.timeout != 0, tc::IMPORTED_EVENT_TIMEOUT_MUST_BE_ZERO)?;
        refuse_if(debit.flags & af::CLOSED != 0, tc::DEBIT_ACCOUNT_ALREADY_CLOSED)?;
        refuse_if(credit.flags & af::CLOSED != 0, tc::CREDIT_ACCOUNT_ALREADY_CLOSED)?;

        let mut amount = event.amount;
        if event.flags & tf::BALANCING_DEBIT != 0 {
            let spent = debit.debits_posted.saturating_add(debit.debits_pending);
            amount = amount.min(debit.credits_posted.saturating_sub(spent));
        }
        if event.flags & tf::BALANCING_CREDIT != 0 {
            let received = credit.credits_posted.saturating_add(credit.credits_pending);
            amount = amount.min(credit.debits_posted.saturating_sub(received));
        }
        let over = |sum: &[u128]| sum.iter().try_fold(0u128, |sum, part| sum.checked_add(*part)).is_none();
        if pending {
            refuse_if(over(&[amount, debit.debits_pending]), tc::OVERFLOWS_DEBITS_PENDING)?;
            refuse_if(over(&[amount, credit.credits_pending]), tc::OVERFLOWS_CREDITS_PENDING)?;
        }
        refuse_if(over(&[amount, debit.debits_posted]), tc::OVERFLOWS_DEBITS_POSTED)?;
        refuse_if(over(&[amount, credit.credits_posted]), tc::OVERFLOWS_CREDITS_POSTED)?;
        refuse_if(over(&[amount, debit.debits_pending, debit.debits_posted]), tc::OVERFLOWS_DEBITS)?;
        refuse_if(over(&[amount, credit.credits_pending, credit.credits_posted]), tc::OVERFLOWS_CREDITS)?;
        let timeout_ns = u64::from(event.timeout) * SECOND_NS;
        refuse_if(timestamp.checked_add(timeout_ns).is_none_or(|at| at > TIMESTAMP_MAX), tc::OVERFLOWS_TIMEOUT)?;
        let debits = debit.debits_pending + debit.debits_posted + amount;
        let credits = credit.credits_pending + credit.credits_posted + amount;
        refuse_if(
            debit.flags & af::DEBITS_MUST_NOT_EXCEED_CREDITS != 0 && debits > debit.credits_posted,
            tc::EXCEEDS_CREDITS,
        )?;
        refuse_if(
            credit.flags & af::CREDITS_MUST_NOT_EXCEED_DEBITS != 0 && credits > credit.debits_posted,
            tc::EXCEEDS_DEBITS,
        )?;

        let before = ((debit_index, debit), (credit_index, credit));
        if pending {
            debit.debits_pending += amount;
            credit.credits_pending += amount;
        } else {
            debit.debits_posted += amount;
            credit.credits_posted += amount;
        }
        if event.flags & tf::CLOSING_DEBIT != 0 {
            debit.flags |= af::CLOSED;
        }
        if event.flags & tf::CLOSING_CREDIT != 0 {
            credit.flags |= af::CLOSED;
        }
        self.accounts[debit_index] = debit;
        self.accounts[credit_index] = credit;
        let transfer = Transfer { amount, timestamp, ..*event };
        self.record(now, u8::from(pending), transfer, before, (debit, credit), None);
        if pending {
            self.pendings.insert(event.id, PendingState::Open);
            if event.timeout > 0 {
                self.expiries.insert((expires_at(&transfer), self.entries.len() - 1));
            }
        }
        Ok(timestamp)
    }

    fn post_or_void(&mut self, now: u64, event: &Transfer) -> Result<u64, u32> {
        let post = event.flags & tf::POST != 0;
        let others = tf::PENDING | tf::BALANCING_DEBIT | tf::BALANCING_CREDIT | tf::CLOSING_DEBIT | tf::CLOSING_CREDIT;
        refuse_if(post && event.flags & tf::VOID != 0 || event.flags & others != 0, tc::FLAGS_ARE_MUTUALLY_EXCLUSIVE)?;
        refuse_if(event.pending_id == 0, tc::PENDING_ID_MUST_NOT_BE_ZERO)?;
        refuse_if(event.pending_id == u128::MAX, tc::PENDING_ID_MUST_NOT_BE_INT_MAX)?;
        refuse_if(event.pending_id == event.id, tc::PENDING_ID_MUST_BE_DIFFERENT)?;
        refuse_if(event.timeout != 0, tc::TIMEOUT_RESERVED_FOR_PENDING_TRANSFER)?;
        let held_place = *self.transfer_index.get(&event.pending_id).ok_or(tc::PENDING_TRANSFER_NOT_FOUND)?;
        let held = self.entries[held_place].transfer;
        refuse_if(held.flags & tf::PENDING == 0, tc::PENDING_TRANSFER_NOT_PENDING)?;
        let differs = |given: u128, held: u128| given != 0 && given != held;
        refuse_if(
            differs(event.debit_account_id, held.debit_account_id),
            tc::PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID,
        )?;
        refuse_if(
            differs(event.credit_account_id, held.credit_account_id),
            tc::PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID,
        )?;
        refuse_if(differs(event.ledger.into(), held.ledger.into()), tc::PENDING_TRANSFER_HAS_DIFFERENT_LEDGER)?;
        refuse_if(differs(event.code.into(), held.code.into()), tc::PENDING_TRANSFER_HAS_DIFFERENT_CODE)?;
        let all = if post { event.amount == AMOUNT_MAX } else { event.amount == 0 };
        let amount = if all { held.amount } else { event.amount };
        refuse_if(amount > held.amount, tc::EXCEEDS_PENDING_TRANSFER_AMOUNT)?;
        refuse_if(!post && amount < held.amount, tc::PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT)?;
        match self.pendings[&held.id] {
            PendingState::Posted => return Err(tc::PENDING_TRANSFER_ALREADY_POSTED),
            PendingState::Voided => return Err(tc::PENDING_TRANSFER_ALREADY_VOIDED),
            PendingState::Expired => return Err(tc::PENDING_TRANSFER_EXPIRED),
            PendingState::Open => {}
        }
        refuse_if(held.timeout > 0 && expires_at(&held) <= now, tc::PENDING_TRANSFER_EXPIRED)?;
        let debit = self.accounts[self.account_index[&held.debit_account_id]];
        let credit = self.accounts[self.account_index[&held.credit_account_id]];
        let timestamp = self.import_stamp(now, event, &debit, &credit)?;
        refuse_if(post && debit.flags & af::CLOSED != 0, tc::DEBIT_ACCOUNT_ALREADY_CLOSED)?;
        refuse_if(post && credit.flags & af::CLOSED != 0, tc::CREDIT_ACCOUNT_ALREADY_CLOSED)?;

        let or = |given: u128, inherited: u128| if given == 0 { inherited } else { given };
        let transfer = Transfer {
            id: event.id,
            debit_account_id: held.debit_account_id,
            credit_account_id: held.credit_account_id,
            amount,
            pending_id: held.id,
            user_data_128: or(event.user_data_128, held.user_data_128),
            user_data_64: or(event.user_data_64.into(), held.user_data_64.into()) as u64,
            user_data_32: or(event.user_data_32.into(), held.user_data_32.into()) as u32,
            timeout: 0,
            ledger: held.ledger,
            code: held.code,
            flags: event.flags,
            timestamp,
        };
        let (kind, state) = if post { (2, PendingState::Posted) } else { (3, PendingState::Voided) };
        self.release(&held, if post { amount } else { 0 }, now, kind, transfer, state);
        Ok(timestamp)
    }

    /// Ends a pending transfer: what was held goes back, `posted` of it goes over.
    fn release(&mut self, held: &Transfer, posted: u128, now: u64, kind: u8, transfer: Transfer, state: PendingState) {
        let debit_index = self.account_index[&held.debit_account_id];
        let credit_index = self.account_index[&held.credit_account_id];
        let before = ((debit_index, self.accounts[debit_index]), (credit_index, self.accounts[credit_index]));
        let (mut debit, mut credit) = (before.0.1, before.1.1);
        debit.debits_pending -= held.amount;
        credit.credits_pending -= held.amount;
        debit.debits_posted += posted;
        credit.credits_posted += posted;
        if state != PendingState::Posted {
            if held.flags & tf::CLOSING_DEBIT != 0 {
                debit.flags &= !af::CLOSED;
            }
            if held.flags & tf::CLOSING_CREDIT != 0 {
                credit.flags &= !af::CLOSED;
            }
        }
        self.accounts[debit_index] = debit;
        self.accounts[credit_index] = credit;
        let was = self.pendings.insert(held.id, state).expect("only a pending transfer is released");
        if held.timeout > 0 {
            self.expiries.remove(&(expires_at(held), self.transfer_index[&held.id]));
        }
        self.record(now, kind, transfer, before, (debit, credit), Some((held.id, was)));
    }

    fn import_stamp(&self, now: u64, event: &Transfer, debit: &Account, credit: &Account) -> Result<u64, u32> {
        if event.flags & tf::IMPORTED == 0 {
            return Ok(now);
        }
        let stamp = event.timestamp;
        let regresses = stamp <= self.last_transfer_timestamp || self.account_timestamps.contains(&stamp);
        refuse_if(regresses, tc::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS)?;
        refuse_if(stamp <= debit.timestamp, tc::IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_DEBIT_ACCOUNT)?;
        refuse_if(stamp <= credit.timestamp, tc::IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_CREDIT_ACCOUNT)?;
        Ok(stamp)
    }

    fn record(
        &mut self,
        timestamp: u64,
        kind: u8,
        transfer: Transfer,
        before: ((usize, Account), (usize, Account)),
        after: (Account, Account),
        pending: Option<(u128, PendingState)>,
    ) {
        let place = self.entries.len();
        self.entries.push(Entry { timestamp, kind, transfer, debit: after.0, credit: after.1 });
        if kind == EXPIRED {
            return;
        }
        let stamp_before = self.last_transfer_timestamp;
        self.note(Undo::Entry { debit: before.0, credit: before.1, pending, stamp_before });
        self.transfers.push(place);
        self.transfer_index.insert(transfer.id, place);
        self.transfer_timestamps.insert(transfer.timestamp);
        self.last_transfer_timestamp = transfer.timestamp;
        self.history.entry(transfer.debit_account_id).or_default().push(place);
        self.history.entry(transfer.credit_account_id).or_default().push(place);
    }

    // ------------------------------------------------------------------ what is asked

    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    pub fn account(&self, id: u128) -> Option<&Account> {
        self.account_index.get(&id).map(|&index| &self.accounts[index])
    }

    pub fn transfer(&self, id: u128) -> Option<&Transfer> {
        self.transfer_index.get(&id).map(|&place| &self.entries[place].transfer)
    }

    pub fn events_count(&self) -> usize {
        self.entries.len()
    }

    pub fn event(&self, index: usize) -> ChangeEvent {
        let Entry { timestamp, kind, transfer, debit, credit } = self.entries[index];
        ChangeEvent { timestamp, kind, transfer, debit_account: debit, credit_account: credit }
    }

    /// The rows a complete answer has. `scanned_to`: how far the answer says it looked; 0 for all the way.
    pub fn answer(&self, op: &Op, scanned_to: u64) -> Rows {
        match op {
            Op::CreateAccounts(_) | Op::CreateTransfers(_) => unreachable!("a write is no question"),
            Op::LookupAccounts(ids) => Rows::Accounts(ids.iter().filter_map(|&id| self.account(id).copied()).collect()),
            Op::LookupTransfers(ids) => {
                Rows::Transfers(ids.iter().filter_map(|&id| self.transfer(id).copied()).collect())
            }
            Op::AccountTransfers(filter) => {
                Rows::Transfers(self.account_entries(filter, scanned_to).map(|entry| entry.transfer).collect())
            }
            Op::AccountBalances(filter) => Rows::Balances(self.account_balances(filter, scanned_to)),
            Op::QueryAccounts(filter) => {
                Rows::Accounts(take(self.accounts.iter().copied(), filter.reversed, filter.limit, |account| {
                    matches_account(filter, account)
                }))
            }
            Op::QueryTransfers(filter) => Rows::Transfers(take(
                self.transfers.iter().map(|&place| self.entries[place].transfer),
                filter.reversed,
                filter.limit,
                |transfer| matches_query(filter, transfer) && seen(transfer.timestamp, scanned_to, filter.reversed),
            )),
            Op::ChangeEvents(filter) => {
                let first = self.entries.partition_point(|entry| entry.timestamp < filter.timestamp_min);
                let last = if filter.timestamp_max == 0 { u64::MAX } else { filter.timestamp_max };
                Rows::Events(
                    (first..self.entries.len())
                        .take_while(|&index| self.entries[index].timestamp <= last)
                        .take(filter.limit as usize)
                        .map(|index| self.event(index))
                        .collect(),
                )
            }
        }
    }

    fn account_entries(&self, filter: &AccountFilter, scanned_to: u64) -> impl Iterator<Item = &Entry> {
        let places = self.history.get(&filter.account_id).map_or(&[][..], Vec::as_slice);
        take(places.iter().copied(), filter.reversed, filter.limit, |&place| {
            let transfer = &self.entries[place].transfer;
            matches_account_filter(filter, transfer) && seen(transfer.timestamp, scanned_to, filter.reversed)
        })
        .into_iter()
        .map(|place| &self.entries[place])
    }

    fn account_balances(&self, filter: &AccountFilter, scanned_to: u64) -> Vec<Balance> {
        if self.account(filter.account_id).is_none_or(|account| account.flags & af::HISTORY == 0) {
            return Vec::new();
        }
        self.account_entries(filter, scanned_to)
            .map(|entry| {
                let side = if entry.debit.id == filter.account_id { &entry.debit } else { &entry.credit };
                Balance {
                    debits_pending: side.debits_pending,
                    debits_posted: side.debits_posted,
                    credits_pending: side.credits_pending,
                    credits_posted: side.credits_posted,
                    timestamp: entry.transfer.timestamp,
                }
            })
            .collect()
    }
}

/// What the frame around every event looks at.
struct Head {
    linked: bool,
    imported: bool,
    timestamp: u64,
}

/// The codes of that frame; they differ between accounts and transfers.
struct Codes {
    failed: u32,
    open: u32,
    expected: u32,
    not_expected: u32,
    zero: u32,
    range: u32,
    advance: u32,
}

trait RetainLast {
    fn retain_last(&mut self, place: usize);
}

impl RetainLast for BTreeSet<(u64, usize)> {
    /// Forgets the newest entry if it is in the set. Chains are short and rare: no second index for it.
    fn retain_last(&mut self, place: usize) {
        self.retain(|&(_, other)| other != place);
    }
}

fn refuse_if(condition: bool, status: u32) -> Result<(), u32> {
    if condition { Err(status) } else { Ok(()) }
}

fn expires_at(transfer: &Transfer) -> u64 {
    transfer.timestamp + u64::from(transfer.timeout) * SECOND_NS
}

fn seen(timestamp: u64, scanned_to: u64, reversed: bool) -> bool {
    scanned_to == 0 || if reversed { timestamp >= scanned_to } else { timestamp <= scanned_to }
}

fn take<T>(
    rows: impl DoubleEndedIterator<Item = T>,
    reversed: bool,
    limit: u32,
    mut matches: impl FnMut(&T) -> bool,
) -> Vec<T> {
    let limit = limit as usize;
    if reversed {
        rows.rev().filter(|row| matches(row)).take(limit).collect()
    } else {
        rows.filter(|row| matches(row)).take(limit).collect()
    }
}

fn in_range(timestamp: u64, min: u64, max: u64) -> bool {
    timestamp >= min && (max == 0 || timestamp <= max)
}

fn matches_account_filter(filter: &AccountFilter, transfer: &Transfer) -> bool {
    let side = filter.debits && transfer.debit_account_id == filter.account_id
        || filter.credits && transfer.credit_account_id == filter.account_id;
    side && (filter.user_data_128 == 0 || filter.user_data_128 == transfer.user_data_128)
        && (filter.user_data_64 == 0 || filter.user_data_64 == transfer.user_data_64)
        && (filter.user_data_32 == 0 || filter.user_data_32 == transfer.user_data_32)
        && (filter.code == 0 || filter.code == transfer.code)
        && in_range(transfer.timestamp, filter.timestamp_min, filter.timestamp_max)
}

fn matches_query(filter: &QueryFilter, transfer: &Transfer) -> bool {
    (filter.user_data_128 == 0 || filter.user_data_128 == transfer.user_data_128)
        && (filter.user_data_64 == 0 || filter.user_data_64 == transfer.user_data_64)
        && (filter.user_data_32 == 0 || filter.user_data_32 == transfer.user_data_32)
        && (filter.ledger == 0 || filter.ledger == transfer.ledger)
        && (filter.code == 0 || filter.code == transfer.code)
        && in_range(transfer.timestamp, filter.timestamp_min, filter.timestamp_max)
}

fn matches_account(filter: &QueryFilter, account: &Account) -> bool {
    (filter.user_data_128 == 0 || filter.user_data_128 == account.user_data_128)
        && (filter.user_data_64 == 0 || filter.user_data_64 == account.user_data_64)
        && (filter.user_data_32 == 0 || filter.user_data_32 == account.user_data_32)
        && (filter.ledger == 0 || filter.ledger == account.ledger)
        && (filter.code == 0 || filter.code == account.code)
        && in_range(account.timestamp, filter.timestamp_min, filter.timestamp_max)
}
