//! A plain model of the ledger, to judge the rules by.
//!
//! It is written from docs/ledger.md, shares no code with the rules, and is as naive as can be: it keeps what was created, what
//! became of each pending transfer, and the ids that are burnt. Every balance is summed up anew from that whenever it is asked for;
//! a chain is undone by going back to a copy of the world; what is due is searched for.
//!
//! Of the crate under test it uses the records (as plain fields; it reads the flags bit by bit) and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use jangbu_ledger::{Account, Transfer};

const SECOND: u128 = 1_000_000_000;
const TIME_MAX: u128 = (1 << 63) - 1;

/// What a bit of an account's or a transfer's flags is called.
const LINKED: u16 = 1;
const DEBITS_LIMITED: u16 = 2;
const CREDITS_LIMITED: u16 = 4;
const ACCOUNT_IMPORTED: u16 = 16;
const CLOSED: u16 = 32;
const PENDING: u16 = 2;
const POST: u16 = 4;
const VOID: u16 = 8;
const BALANCING_DEBIT: u16 = 16;
const BALANCING_CREDIT: u16 = 32;
const CLOSING_DEBIT: u16 = 64;
const CLOSING_CREDIT: u16 = 128;
const TRANSFER_IMPORTED: u16 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Posted(u128),
    Voided,
    Expired,
}

/// Debits pending, debits posted, credits pending, credits posted.
pub(crate) type Sums = [u128; 4];

/// An account after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) flags: u16,
    pub(crate) sums: Sums,
}

/// A change event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) timestamp: u64,
    /// As on the wire: 0 single phase, 1 pending, 2 posted, 3 voided, 4 expired.
    pub(crate) kind: u8,
    pub(crate) transfer: Transfer,
    /// The place in the list of what happened of the pending transfer that this resolves.
    pub(crate) pending: Option<usize>,
    pub(crate) debit: After,
    pub(crate) credit: After,
}

/// A result: a status by name, and a timestamp.
pub(crate) type Answer = (&'static str, u64);

#[derive(Clone, Default)]
pub(crate) struct Model {
    /// As they were created, in that order.
    pub(crate) accounts: Vec<Account>,
    /// As recorded, in that order.
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) fates: BTreeMap<u128, Fate>,
    pub(crate) burnt: BTreeSet<u128>,
    pub(crate) happened: Vec<Happened>,
}

impl Model {
    pub(crate) fn create_accounts(&mut self, time: u64, events: &[Account]) -> Vec<Answer> {
        let linked: Vec<bool> = events.iter().map(|event| event.flags.0 & LINKED != 0).collect();
        let imported = events.first().is_some_and(|event| event.flags.0 & ACCOUNT_IMPORTED != 0);
        self.run(time, &linked, |model, index, at| {
            let event = &events[index];
            let is_imported = event.flags.0 & ACCOUNT_IMPORTED != 0;
            if let Some(status) = refused_for_its_time(imported, is_imported, event.timestamp, time) {
                return (status, at);
            }
            model.create_account(event, if is_imported { event.timestamp } else { at }, at)
        })
    }

    pub(crate) fn create_transfers(&mut self, time: u64, events: &[Transfer]) -> Vec<Answer> {
        let linked: Vec<bool> = events.iter().map(|event| event.flags.0 & LINKED != 0).collect();
        let imported = events.first().is_some_and(|event| event.flags.0 & TRANSFER_IMPORTED != 0);
        self.run(time, &linked, |model, index, at| {
            let event = &events[index];
            let is_imported = event.flags.0 & TRANSFER_IMPORTED != 0;
            if let Some(status) = refused_for_its_time(imported, is_imported, event.timestamp, time) {
                return (status, at);
            }
            let answer = model.create_transfer(event, if is_imported { event.timestamp } else { at }, at);
            // The copy of the world that a failed chain goes back to does not know of it: `run` takes it over.
            if is_transient(answer.0) {
                model.burnt.insert(event.id.0);
            }
            answer
        })
    }

    /// Runs the events of a request, chain by chain. A single event is a chain of one.
    fn run(
        &mut self,
        time: u64,
        linked: &[bool],
        mut create: impl FnMut(&mut Model, usize, u64) -> Answer,
    ) -> Vec<Answer> {
        let count = linked.len();
        let mut answers: Vec<Answer> =
            (0..count).map(|index| ("linked_event_failed", time - count as u64 + index as u64 + 1)).collect();
        let mut first = 0;
        while first < count {
            let last = (first..count).find(|index| !linked[*index]).unwrap_or(count - 1);
            let world = self.clone();
            let mut done = Vec::new();
            for index in first..=last {
                let is_open = index == count - 1 && linked[index];
                let at = answers[index].1;
                let answer = if is_open { ("linked_event_chain_open", at) } else { create(self, index, at) };
                done.push(answer);
                if answer.0 != "created" {
                    break;
                }
            }
            let failed = done.iter().position(|answer| answer.0 != "created");
            match failed {
                None => answers[first..=last].copy_from_slice(&done),
                Some(place) => {
                    let burnt = std::mem::replace(self, world).burnt;
                    self.burnt = burnt;
                    answers[first + place] = done[place];
                    if last == count - 1 && linked[last] {
                        answers[last].0 = "linked_event_chain_open";
                    }
                }
            }
            first = last + 1;
        }
        answers
    }

    fn create_account(&mut self, event: &Account, stamp: u64, at: u64) -> Answer {
        let id = event.id.0;
        let flags = event.flags.0;
        let existing = self.accounts.iter().find(|account| account.id.0 == id);
        let status = if event.reserved != 0 {
            "reserved_field"
        } else if flags >= 64 {
            "reserved_flag"
        } else if id == 0 {
            "id_must_not_be_zero"
        } else if id == u128::MAX {
            "id_must_not_be_int_max"
        } else if let Some(existing) = existing {
            if flags != self.flags_of(id) {
                "exists_with_different_flags"
            } else if event.user_data_128 != existing.user_data_128 {
                "exists_with_different_user_data_128"
            } else if event.user_data_64 != existing.user_data_64 {
                "exists_with_different_user_data_64"
            } else if event.user_data_32 != existing.user_data_32 {
                "exists_with_different_user_data_32"
            } else if event.ledger != existing.ledger {
                "exists_with_different_ledger"
            } else if event.code != existing.code {
                "exists_with_different_code"
            } else {
                return ("exists", existing.timestamp);
            }
        } else if flags & DEBITS_LIMITED != 0 && flags & CREDITS_LIMITED != 0 {
            "flags_are_mutually_exclusive"
        } else if event.debits_pending.0 != 0 {
            "debits_pending_must_be_zero"
        } else if event.debits_posted.0 != 0 {
            "debits_posted_must_be_zero"
        } else if event.credits_pending.0 != 0 {
            "credits_pending_must_be_zero"
        } else if event.credits_posted.0 != 0 {
            "credits_posted_must_be_zero"
        } else if event.ledger == 0 {
            "ledger_must_not_be_zero"
        } else if event.code == 0 {
            "code_must_not_be_zero"
        } else if flags & ACCOUNT_IMPORTED != 0
            && (self.accounts.iter().any(|account| account.timestamp >= stamp)
                || self.transfers.iter().any(|transfer| transfer.timestamp == stamp))
        {
            "imported_event_timestamp_must_not_regress"
        } else {
            self.accounts.push(Account { timestamp: stamp, ..*event });
            return ("created", stamp);
        };
        (status, at)
    }

    fn create_transfer(&mut self, event: &Transfer, stamp: u64, at: u64) -> Answer {
        let id = event.id.0;
        let flags = event.flags.0;
        let status = if flags >= 512 {
            "reserved_flag"
        } else if id == 0 {
            "id_must_not_be_zero"
        } else if id == u128::MAX {
            "id_must_not_be_int_max"
        } else if let Some(existing) = self.transfer(id) {
            match self.compare(event, existing) {
                None => return ("exists", existing.timestamp),
                Some(status) => status,
            }
        } else if self.burnt.contains(&id) {
            "id_already_failed"
        } else {
            let decided = if flags & (POST | VOID) != 0 {
                self.post_or_void(event, stamp, at)
            } else {
                self.move_or_hold(event, stamp, at)
            };
            match decided {
                Ok(()) => return ("created", stamp),
                Err(status) => status,
            }
        };
        (status, at)
    }

    /// What differs first, if anything does.
    fn compare(&self, event: &Transfer, existing: &Transfer) -> Option<&'static str> {
        let resolves = existing.flags.0 & (POST | VOID) != 0;
        let posts = existing.flags.0 & POST != 0;
        let balances = existing.flags.0 & (BALANCING_DEBIT | BALANCING_CREDIT) != 0;
        if event.flags != existing.flags {
            return Some("exists_with_different_flags");
        }
        if event.pending_id != existing.pending_id {
            return Some("exists_with_different_pending_id");
        }
        if event.timeout != existing.timeout {
            return Some("exists_with_different_timeout");
        }
        let pending = if resolves { self.transfer(existing.pending_id.0) } else { None };
        // Left out in a post or void, a field is the pending transfer's.
        let differs = |asked: u128, recorded: u128, held: fn(&Transfer) -> u128| match pending {
            Some(pending) if asked == 0 => held(pending) != recorded,
            _ => asked != recorded,
        };
        if differs(event.debit_account_id.0, existing.debit_account_id.0, |pending| pending.debit_account_id.0) {
            return Some("exists_with_different_debit_account_id");
        }
        if differs(event.credit_account_id.0, existing.credit_account_id.0, |pending| pending.credit_account_id.0) {
            return Some("exists_with_different_credit_account_id");
        }
        let amount_fits = match pending {
            Some(pending) if posts && event.amount.0 == u128::MAX => existing.amount == pending.amount,
            Some(pending) if !posts && event.amount.0 == 0 => existing.amount == pending.amount,
            Some(_) => event.amount == existing.amount,
            None if balances => event.amount.0 >= existing.amount.0,
            None => event.amount == existing.amount,
        };
        if !amount_fits {
            return Some("exists_with_different_amount");
        }
        if differs(event.user_data_128, existing.user_data_128, |pending| pending.user_data_128) {
            return Some("exists_with_different_user_data_128");
        }
        if differs(event.user_data_64.into(), existing.user_data_64.into(), |pending| pending.user_data_64.into()) {
            return Some("exists_with_different_user_data_64");
        }
        if differs(event.user_data_32.into(), existing.user_data_32.into(), |pending| pending.user_data_32.into()) {
            return Some("exists_with_different_user_data_32");
        }
        if differs(event.ledger.into(), existing.ledger.into(), |pending| pending.ledger.into()) {
            return Some("exists_with_different_ledger");
        }
        if differs(event.code.into(), existing.code.into(), |pending| pending.code.into()) {
            return Some("exists_with_different_code");
        }
        None
    }

    fn move_or_hold(&mut self, event: &Transfer, stamp: u64, at: u64) -> Result<(), &'static str> {
        let flags = event.flags.0;
        let (debit_id, credit_id) = (event.debit_account_id.0, event.credit_account_id.0);
        let is_pending = flags & PENDING != 0;
        let refusals = [
            (debit_id == 0, "debit_account_id_must_not_be_zero"),
            (debit_id == u128::MAX, "debit_account_id_must_not_be_int_max"),
            (credit_id == 0, "credit_account_id_must_not_be_zero"),
            (credit_id == u128::MAX, "credit_account_id_must_not_be_int_max"),
            (debit_id == credit_id, "accounts_must_be_different"),
            (event.pending_id.0 != 0, "pending_id_must_be_zero"),
            (!is_pending && event.timeout != 0, "timeout_reserved_for_pending_transfer"),
            (!is_pending && flags & (CLOSING_DEBIT | CLOSING_CREDIT) != 0, "closing_transfer_must_be_pending"),
            (event.ledger == 0, "ledger_must_not_be_zero"),
            (event.code == 0, "code_must_not_be_zero"),
        ];
        first_of(&refusals)?;
        let debit = *self.account(debit_id).ok_or("debit_account_not_found")?;
        let credit = *self.account(credit_id).ok_or("credit_account_not_found")?;
        let imported = flags & TRANSFER_IMPORTED != 0;
        let refusals = [
            (debit.ledger != credit.ledger, "accounts_must_have_the_same_ledger"),
            (debit.ledger != event.ledger, "transfer_must_have_the_same_ledger_as_accounts"),
            (imported && self.regresses(stamp), "imported_event_timestamp_must_not_regress"),
            (imported && stamp <= debit.timestamp, "imported_event_timestamp_must_postdate_debit_account"),
            (imported && stamp <= credit.timestamp, "imported_event_timestamp_must_postdate_credit_account"),
            (imported && event.timeout != 0, "imported_event_timeout_must_be_zero"),
            (self.flags_of(debit_id) & CLOSED != 0, "debit_account_already_closed"),
            (self.flags_of(credit_id) & CLOSED != 0, "credit_account_already_closed"),
        ];
        first_of(&refusals)?;

        let [debits_pending, debits_posted, _, spendable] = self.sums_of(debit_id);
        let [_, receivable, credits_pending, credits_posted] = self.sums_of(credit_id);
        let mut amount = event.amount.0;
        if flags & BALANCING_DEBIT != 0 {
            amount = amount.min(spendable.saturating_sub(debits_pending + debits_posted));
        }
        if flags & BALANCING_CREDIT != 0 {
            amount = amount.min(receivable.saturating_sub(credits_pending + credits_posted));
        }
        let overflows =
            |sums: &[u128]| sums.iter().try_fold(amount, |sum: u128, next| sum.checked_add(*next)).is_none();
        let expires_at = u128::from(stamp) + u128::from(event.timeout) * SECOND;
        let exceeds = |limited: bool, sums: &[u128], limit: u128| {
            limited && sums.iter().fold(amount, |sum, next| sum.saturating_add(*next)) > limit
        };
        let refusals = [
            (is_pending && overflows(&[debits_pending]), "overflows_debits_pending"),
            (is_pending && overflows(&[credits_pending]), "overflows_credits_pending"),
            (overflows(&[debits_posted]), "overflows_debits_posted"),
            (overflows(&[credits_posted]), "overflows_credits_posted"),
            (overflows(&[debits_pending, debits_posted]), "overflows_debits"),
            (overflows(&[credits_pending, credits_posted]), "overflows_credits"),
            (expires_at > TIME_MAX, "overflows_timeout"),
            (
                exceeds(debit.flags.0 & DEBITS_LIMITED != 0, &[debits_pending, debits_posted], spendable),
                "exceeds_credits",
            ),
            (
                exceeds(credit.flags.0 & CREDITS_LIMITED != 0, &[credits_pending, credits_posted], receivable),
                "exceeds_debits",
            ),
        ];
        first_of(&refusals)?;
        let transfer = Transfer { amount: jangbu_ledger::Amount(amount), timestamp: stamp, ..*event };
        self.transfers.push(transfer);
        self.happen(at, if is_pending { 1 } else { 0 }, transfer, None);
        Ok(())
    }

    fn post_or_void(&mut self, event: &Transfer, stamp: u64, at: u64) -> Result<(), &'static str> {
        let flags = event.flags.0;
        let posts = flags & POST != 0;
        let others = PENDING | BALANCING_DEBIT | BALANCING_CREDIT | CLOSING_DEBIT | CLOSING_CREDIT;
        let refusals = [
            (posts && flags & VOID != 0 || flags & others != 0, "flags_are_mutually_exclusive"),
            (event.pending_id.0 == 0, "pending_id_must_not_be_zero"),
            (event.pending_id.0 == u128::MAX, "pending_id_must_not_be_int_max"),
            (event.pending_id == event.id, "pending_id_must_be_different"),
            (event.timeout != 0, "timeout_reserved_for_pending_transfer"),
        ];
        first_of(&refusals)?;
        let pending = *self.transfer(event.pending_id.0).ok_or("pending_transfer_not_found")?;
        if pending.flags.0 & PENDING == 0 {
            return Err("pending_transfer_not_pending");
        }
        let is_other = |asked: u128, held: u128| asked != 0 && asked != held;
        let amount = match event.amount.0 {
            u128::MAX if posts => pending.amount.0,
            0 if !posts => pending.amount.0,
            amount => amount,
        };
        let fate = self.fates.get(&pending.id.0).copied();
        let is_late = expiry(&pending).is_some_and(|expires_at| u128::from(at) >= expires_at);
        let imported = flags & TRANSFER_IMPORTED != 0;
        let (debit_id, credit_id) = (pending.debit_account_id.0, pending.credit_account_id.0);
        let is_closed = |id: u128| posts && self.flags_of(id) & CLOSED != 0;
        let refusals = [
            (is_other(event.debit_account_id.0, debit_id), "pending_transfer_has_different_debit_account_id"),
            (is_other(event.credit_account_id.0, credit_id), "pending_transfer_has_different_credit_account_id"),
            (is_other(event.ledger.into(), pending.ledger.into()), "pending_transfer_has_different_ledger"),
            (is_other(event.code.into(), pending.code.into()), "pending_transfer_has_different_code"),
            (amount > pending.amount.0, "exceeds_pending_transfer_amount"),
            (!posts && amount < pending.amount.0, "pending_transfer_has_different_amount"),
            (matches!(fate, Some(Fate::Posted(_))), "pending_transfer_already_posted"),
            (fate == Some(Fate::Voided), "pending_transfer_already_voided"),
            (fate == Some(Fate::Expired) || is_late, "pending_transfer_expired"),
            (imported && self.regresses(stamp), "imported_event_timestamp_must_not_regress"),
            (is_closed(debit_id), "debit_account_already_closed"),
            (is_closed(credit_id), "credit_account_already_closed"),
        ];
        first_of(&refusals)?;
        let transfer = Transfer {
            id: event.id,
            debit_account_id: pending.debit_account_id,
            credit_account_id: pending.credit_account_id,
            amount: jangbu_ledger::Amount(amount),
            pending_id: pending.id,
            user_data_128: if event.user_data_128 == 0 { pending.user_data_128 } else { event.user_data_128 },
            user_data_64: if event.user_data_64 == 0 { pending.user_data_64 } else { event.user_data_64 },
            user_data_32: if event.user_data_32 == 0 { pending.user_data_32 } else { event.user_data_32 },
            timeout: 0,
            ledger: pending.ledger,
            code: pending.code,
            flags: event.flags,
            timestamp: stamp,
        };
        self.transfers.push(transfer);
        self.fates.insert(pending.id.0, if posts { Fate::Posted(amount) } else { Fate::Voided });
        self.happen(at, if posts { 2 } else { 3 }, transfer, Some(pending));
        Ok(())
    }

    /// The pending transfers that are due at `now`, in order.
    pub(crate) fn due(&self, now: u64) -> Vec<Transfer> {
        let mut due: Vec<Transfer> =
            self.open().into_iter().filter(|pending| expiry(pending).is_some_and(|at| at <= u128::from(now))).collect();
        // A stable sort: those of the same instant stay in the order of creation.
        due.sort_by_key(expiry);
        due
    }

    pub(crate) fn expire(&mut self, time: u64, limit: usize) -> usize {
        let mut due = self.due(time);
        due.truncate(limit);
        for (index, pending) in due.iter().enumerate() {
            self.fates.insert(pending.id.0, Fate::Expired);
            self.happen(time - due.len() as u64 + index as u64 + 1, 4, *pending, Some(*pending));
        }
        due.len()
    }

    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.open().iter().filter_map(expiry).min().map(|at| at as u64)
    }

    pub(crate) fn open(&self) -> Vec<Transfer> {
        let is_open =
            |transfer: &&Transfer| transfer.flags.0 & PENDING != 0 && !self.fates.contains_key(&transfer.id.0);
        self.transfers.iter().filter(is_open).copied().collect()
    }

    fn happen(&mut self, timestamp: u64, kind: u8, transfer: Transfer, pending: Option<Transfer>) {
        let is_pending = |happened: &Happened| Some(happened.transfer.id) == pending.map(|pending| pending.id);
        let pending = self.happened.iter().position(is_pending);
        let after = |id: u128| After { flags: self.flags_of(id), sums: self.sums_of(id) };
        let (debit, credit) = (after(transfer.debit_account_id.0), after(transfer.credit_account_id.0));
        self.happened.push(Happened { timestamp, kind, transfer, pending, debit, credit });
    }

    fn regresses(&self, stamp: u64) -> bool {
        self.transfers.iter().any(|transfer| transfer.timestamp >= stamp)
            || self.accounts.iter().any(|account| account.timestamp == stamp)
    }

    pub(crate) fn account(&self, id: u128) -> Option<&Account> {
        self.accounts.iter().find(|account| account.id.0 == id)
    }

    fn transfer(&self, id: u128) -> Option<&Transfer> {
        self.transfers.iter().find(|transfer| transfer.id.0 == id)
    }

    /// As they are now: born closed, or closed by an open pending transfer.
    pub(crate) fn flags_of(&self, id: u128) -> u16 {
        let closes = |pending: &Transfer| {
            pending.debit_account_id.0 == id && pending.flags.0 & CLOSING_DEBIT != 0
                || pending.credit_account_id.0 == id && pending.flags.0 & CLOSING_CREDIT != 0
        };
        let born = self.account(id).expect("the account exists").flags.0;
        if self.open().iter().any(closes) { born | CLOSED } else { born }
    }

    /// Summed up over all that was recorded.
    pub(crate) fn sums_of(&self, id: u128) -> Sums {
        let mut sums = [0u128; 4];
        let mut add = |place: usize, amount: u128| {
            sums[place] = sums[place].checked_add(amount).expect("money does not wrap");
        };
        for transfer in &self.transfers {
            let is_pending = transfer.flags.0 & PENDING != 0;
            let posted = match self.fates.get(&transfer.id.0) {
                None if is_pending => None,
                None if transfer.flags.0 & (POST | VOID) != 0 => continue,
                None => Some(transfer.amount.0),
                Some(Fate::Posted(amount)) => Some(*amount),
                Some(Fate::Voided | Fate::Expired) => continue,
            };
            let (side, other) = (transfer.debit_account_id.0, transfer.credit_account_id.0);
            match (posted, side == id, other == id) {
                (None, true, _) => add(0, transfer.amount.0),
                (Some(amount), true, _) => add(1, amount),
                (None, _, true) => add(2, transfer.amount.0),
                (Some(amount), _, true) => add(3, amount),
                _ => {}
            }
        }
        sums
    }
}

fn first_of(refusals: &[(bool, &'static str)]) -> Result<(), &'static str> {
    refusals.iter().find(|(applies, _)| *applies).map_or(Ok(()), |(_, status)| Err(status))
}

fn expiry(pending: &Transfer) -> Option<u128> {
    (pending.timeout != 0).then(|| u128::from(pending.timestamp) + u128::from(pending.timeout) * SECOND)
}

fn refused_for_its_time(request: bool, event: bool, given: u64, time: u64) -> Option<&'static str> {
    match (request, event) {
        (true, false) => Some("imported_event_expected"),
        (false, true) => Some("imported_event_not_expected"),
        (false, false) if given != 0 => Some("timestamp_must_be_zero"),
        (false, false) => None,
        (true, true) if given == 0 || u128::from(given) > TIME_MAX => Some("imported_event_timestamp_out_of_range"),
        (true, true) if given >= time => Some("imported_event_timestamp_must_not_advance"),
        (true, true) => None,
    }
}

fn is_transient(status: &str) -> bool {
    [
        "debit_account_not_found",
        "credit_account_not_found",
        "pending_transfer_not_found",
        "debit_account_already_closed",
        "credit_account_already_closed",
        "exceeds_credits",
        "exceeds_debits",
    ]
    .contains(&status)
}
