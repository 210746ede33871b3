//! Seeded callers: what is asked, by whom, how often.
//!
//! What is drawn is drawn to collide: few accounts with little on them, ids used twice, pending transfers that several callers
//! try to finish, requests that are sent again whole. A [`Generator`] makes requests and remembers what came of them; it needs
//! no cluster, so the rules alone can be tried with the same requests.
//!
//! Not here: the way to a node (`door.rs`), and when callers stop (`cluster.rs`).

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use crate::{
    auditor::records::{account_flags as af, transfer_flags as tf, *},
    chance::Dice,
    faults::{ClientPlan, Habit, Tuning},
};

const BANK: u128 = 1;
const MERCHANTS: &[u128] = &[1_000, 1_001, 1_002];
/// Credits of these never exceed their debits.
const VAULTS: &[u128] = &[2_000, 2_001];
/// In a ledger of their own.
const FOREIGN: &[u128] = &[3_000, 3_001];
/// Born with a stamp of the past.
const IMPORTED: &[u128] = &[4_000, 4_001];
const WALLETS: u128 = 100;

/// How many requests are remembered to be sent again.
const MEMORY: usize = 64;

/// What all callers of a run know together.
#[derive(Default)]
pub struct Town {
    wallets: u64,
    opened: Vec<u128>,
    /// Pending transfers that may still be open.
    held: VecDeque<Transfer>,
    /// Transfers that were asked for.
    asked: VecDeque<Transfer>,
    requests: VecDeque<Op>,
    /// The newest log time in an answer.
    told: u64,
    /// Repeat without end while this lasts.
    pub storm: bool,
}

pub type SharedTown = Rc<RefCell<Town>>;

impl Town {
    pub fn new(tuning: &Tuning) -> Self {
        Self { wallets: tuning.wallets, ..Self::default() }
    }

    /// The requests that make the town, in order: imported accounts come first, as their stamps lie in the past.
    pub fn founding(&self) -> Vec<Op> {
        let account = |id, ledger, flags| Account { id, ledger, code: 10, flags, ..Account::default() };
        let imported = IMPORTED
            .iter()
            .zip(1..)
            .map(|(&id, stamp)| Account { timestamp: stamp * 1_000, ..account(id, 1, af::IMPORTED) });
        let mut accounts = vec![account(BANK, 1, af::HISTORY)];
        accounts.extend((0..self.wallets).map(|index| {
            let history = if index % 3 == 0 { af::HISTORY } else { 0 };
            account(WALLETS + u128::from(index), 1, af::DEBITS_MUST_NOT_EXCEED_CREDITS | history)
        }));
        accounts.extend(MERCHANTS.iter().map(|&id| account(id, 1, 0)));
        accounts.extend(VAULTS.iter().map(|&id| account(id, 1, af::CREDITS_MUST_NOT_EXCEED_DEBITS | af::HISTORY)));
        accounts.extend(FOREIGN.iter().map(|&id| account(id, 2, 0)));
        let funds = (0..self.wallets).map(|index| Transfer {
            id: 1 + u128::from(index),
            debit_account_id: BANK,
            credit_account_id: WALLETS + u128::from(index),
            amount: 5 + u128::from(index % 7) * 10,
            ledger: 1,
            code: 1,
            ..Transfer::default()
        });
        let vaults = VAULTS.iter().zip(0..).map(|(&vault, index)| Transfer {
            id: 10_000 + index,
            debit_account_id: vault,
            credit_account_id: BANK,
            amount: 100,
            ledger: 1,
            code: 1,
            ..Transfer::default()
        });
        vec![
            Op::CreateAccounts(imported.collect()),
            Op::CreateAccounts(accounts),
            Op::CreateTransfers(funds.chain(vaults).collect()),
        ]
    }

    fn remember(&mut self, op: &Op) {
        if let Op::CreateTransfers(events) = op {
            self.asked.extend(events.iter().take(8));
            while self.asked.len() > 4 * MEMORY {
                self.asked.pop_front();
            }
        }
        if op.is_write() {
            self.requests.push_back(op.clone());
            if self.requests.len() > MEMORY {
                self.requests.pop_front();
            }
        }
    }

    /// What the answer to a request teaches.
    pub fn learn(&mut self, op: &Op, answer: &Answer) {
        let (Answer::Written { timestamp, .. } | Answer::Read { timestamp, .. }) = answer else { return };
        self.told = self.told.max(*timestamp);
        let Answer::Written { results, .. } = answer else { return };
        let made = results.iter().enumerate().filter(|(_, result)| result.status == CREATED).map(|(index, _)| index);
        match op {
            Op::CreateTransfers(events) => {
                let held = made.map(|index| events[index]).filter(|event| event.flags & tf::PENDING != 0);
                self.held.extend(held);
                while self.held.len() > MEMORY {
                    self.held.pop_front();
                }
            }
            Op::CreateAccounts(events) => self.opened.extend(made.map(|index| events[index].id)),
            _ => {}
        }
    }
}

/// One caller's requests.
pub struct Generator {
    client: u32,
    plan: ClientPlan,
    dice: Dice,
    town: SharedTown,
    ids: u128,
}

impl Generator {
    pub fn new(client: u32, plan: ClientPlan, seed: u64, town: SharedTown) -> Self {
        Self { client, plan, dice: Dice::new(seed, &format!("client {client}")), town, ids: 0 }
    }

    /// Milliseconds until the next request.
    pub fn think_ms(&mut self) -> u64 {
        if self.town.borrow().storm {
            return self.dice.below(3);
        }
        // Now and then a caller comes back at once, or goes for a walk.
        match self.dice.below(20) {
            0 => self.plan.think_ms * 10,
            1..5 => 0,
            _ => self.dice.below(self.plan.think_ms * 2 + 1),
        }
    }

    /// The next request and how fresh its answer must be.
    pub fn request(&mut self) -> (Op, Level) {
        let storm = self.town.borrow().storm;
        let habit = if storm && self.dice.percent(80) { Habit::Repeat } else { *self.dice.pick(&self.plan.habits) };
        let mut level = Level::Linearizable;
        let op = match habit {
            Habit::Pay => self.many(Self::payment),
            Habit::TwoPhase => self.many(Self::two_phase),
            Habit::Expire => self.many(Self::expiring),
            Habit::Chain => self.chains(),
            Habit::Balance => self.many(Self::balancing),
            Habit::Close => self.many(Self::closing),
            Habit::Import => self.imports(),
            Habit::Open => self.open_accounts(),
            Habit::Repeat => {
                let town = self.town.borrow();
                match town.requests.len() {
                    0 => None,
                    count => town.requests.get(self.dice.below(count as u64) as usize).cloned(),
                }
                .unwrap_or_else(|| Op::LookupAccounts(vec![BANK]))
            }
            Habit::Conflict => self.many(Self::conflict),
            Habit::Nonsense => self.many(Self::nonsense),
            Habit::Lookup => self.lookup(),
            Habit::Query => self.query(),
            Habit::Stale => {
                level = match self.dice.below(3) {
                    0 => Level::Bounded { max_ms: *self.dice.pick(&[50, 500, 5_000]) },
                    _ => Level::Local,
                };
                if self.dice.percent(60) { self.lookup() } else { self.query() }
            }
        };
        self.town.borrow_mut().remember(&op);
        (op, level)
    }

    fn id(&mut self) -> u128 {
        self.ids += 1;
        (u128::from(self.client) + 1) << 64 | self.ids
    }

    fn many(&mut self, mut one: impl FnMut(&mut Self) -> Transfer) -> Op {
        let count = if self.dice.percent(40) { 1 } else { self.dice.range(1, self.plan.events_max) };
        Op::CreateTransfers((0..count).map(|_| one(self)).collect())
    }

    fn wallet(&mut self) -> u128 {
        let wallets = self.town.borrow().wallets;
        // Half of all goes to the first: an account that everyone wants.
        let index = if self.dice.percent(50) { 0 } else { self.dice.below(wallets) };
        WALLETS + u128::from(index)
    }

    fn anyone(&mut self) -> u128 {
        match self.dice.below(20) {
            0 => BANK,
            1..4 => *self.dice.pick(MERCHANTS),
            4 => *self.dice.pick(VAULTS),
            5 => *self.dice.pick(IMPORTED),
            6 => {
                let town = self.town.borrow();
                let count = town.opened.len() as u64;
                if count == 0 { 999_999 } else { town.opened[self.dice.below(count) as usize] }
            }
            _ => self.wallet(),
        }
    }

    fn amount(&mut self) -> u128 {
        match self.dice.below(20) {
            0 => 0,
            1 => 1_000,
            _ => u128::from(self.dice.range(1, 9)),
        }
    }

    fn payment(&mut self) -> Transfer {
        let (from, to) = match self.dice.below(10) {
            0 | 1 => (BANK, self.wallet()),
            _ => (self.wallet(), self.anyone()),
        };
        let to = if to == from && self.dice.percent(95) { *self.dice.pick(MERCHANTS) } else { to };
        Transfer {
            id: self.id(),
            debit_account_id: from,
            credit_account_id: to,
            amount: self.amount(),
            user_data_128: u128::from(self.dice.below(3)),
            user_data_64: self.dice.below(3),
            user_data_32: self.dice.below(3) as u32,
            ledger: 1,
            code: self.dice.range(1, 3) as u16,
            ..Transfer::default()
        }
    }

    fn held(&mut self) -> Option<Transfer> {
        let town = self.town.borrow();
        match town.held.len() as u64 {
            0 => None,
            count => Some(town.held[self.dice.below(count) as usize]),
        }
    }

    fn two_phase(&mut self) -> Transfer {
        match self.held() {
            Some(held) if self.dice.percent(60) => self.resolve(&held),
            _ => {
                let timeout = if self.dice.percent(50) { 0 } else { self.dice.range(3, 40) as u32 };
                Transfer { flags: tf::PENDING, timeout, ..self.payment() }
            }
        }
    }

    fn resolve(&mut self, held: &Transfer) -> Transfer {
        let void = self.dice.percent(35);
        let amount = match self.dice.below(6) {
            0 => 0,
            1 => held.amount,
            2 => held.amount.saturating_add(1),
            3 | 4 if !void => AMOUNT_MAX,
            _ => held.amount / 2,
        };
        let amount = if void && self.dice.percent(70) { 0 } else { amount };
        let named = self.dice.percent(30);
        Transfer {
            id: self.id(),
            pending_id: held.id,
            amount,
            debit_account_id: if named { held.debit_account_id } else { 0 },
            credit_account_id: if named { held.credit_account_id } else { 0 },
            user_data_64: self.dice.below(2),
            ledger: if named { held.ledger } else { 0 },
            code: if self.dice.percent(10) { 7 } else { 0 },
            flags: if void { tf::VOID } else { tf::POST },
            ..Transfer::default()
        }
    }

    fn expiring(&mut self) -> Transfer {
        match self.held() {
            Some(held) if self.dice.percent(40) => self.resolve(&held),
            _ => Transfer { flags: tf::PENDING, timeout: self.dice.range(1, 2) as u32, ..self.payment() },
        }
    }

    fn chains(&mut self) -> Op {
        let mut events = Vec::new();
        for _ in 0..self.dice.range(1, 3) {
            let length = self.dice.range(1, 5);
            for place in 0..length {
                let mut event = match self.held() {
                    Some(held) if self.dice.percent(25) => self.resolve(&held),
                    _ => self.payment(),
                };
                // The other half of a chain that gives with one hand and takes with the other.
                if self.dice.percent(15) {
                    event.amount = 100_000;
                }
                if place + 1 < length || self.dice.percent(4) {
                    event.flags |= tf::LINKED;
                }
                events.push(event);
            }
        }
        Op::CreateTransfers(events)
    }

    fn balancing(&mut self) -> Transfer {
        let flags =
            *self.dice.pick(&[tf::BALANCING_DEBIT, tf::BALANCING_CREDIT, tf::BALANCING_DEBIT | tf::BALANCING_CREDIT]);
        let pending = if self.dice.percent(30) { tf::PENDING } else { 0 };
        let amount = *self.dice.pick(&[3, 20, AMOUNT_MAX]);
        let mut transfer = Transfer { flags: flags | pending, amount, ..self.payment() };
        if self.dice.percent(30) {
            (transfer.debit_account_id, transfer.credit_account_id) = (*self.dice.pick(VAULTS), self.wallet());
        }
        transfer
    }

    fn closing(&mut self) -> Transfer {
        match self.held() {
            Some(held) if held.flags & (tf::CLOSING_DEBIT | tf::CLOSING_CREDIT) != 0 && self.dice.percent(70) => {
                Transfer { id: self.id(), pending_id: held.id, flags: tf::VOID, ..Transfer::default() }
            }
            _ if self.dice.percent(30) => {
                let flags = tf::PENDING | *self.dice.pick(&[tf::CLOSING_DEBIT, tf::CLOSING_CREDIT]);
                let timeout = self.dice.range(1, 3) as u32;
                Transfer { flags, timeout, amount: self.dice.below(3).into(), ..self.payment() }
            }
            _ => self.payment(),
        }
    }

    fn imports(&mut self) -> Op {
        let told = self.town.borrow().told;
        let mut stamp = told + self.dice.range(1, 1_000);
        let mut events = Vec::new();
        for _ in 0..self.dice.range(1, 4) {
            stamp += self.dice.range(1, 50);
            let timestamp = if self.dice.percent(5) {
                *self.dice.pick(&[0, 1_500, u64::MAX, told + 3_600_000_000_000])
            } else {
                stamp
            };
            let flags = if self.dice.percent(4) { 0 } else { tf::IMPORTED };
            events.push(Transfer { flags, timestamp, ..self.payment() });
        }
        Op::CreateTransfers(events)
    }

    fn open_accounts(&mut self) -> Op {
        if self.dice.percent(30) {
            // Pays into an account that is yet to be made: burns the id.
            let mut payment = self.payment();
            payment.credit_account_id = self.id();
            return Op::CreateTransfers(vec![payment]);
        }
        let count = self.dice.range(1, 4);
        let mut accounts: Vec<Account> = (0..count)
            .map(|_| Account {
                id: if self.dice.percent(80) { self.id() } else { WALLETS },
                ledger: 1,
                code: self.dice.range(10, 11) as u16,
                user_data_64: self.dice.below(3),
                flags: *self.dice.pick(&[0, af::HISTORY, af::DEBITS_MUST_NOT_EXCEED_CREDITS, af::CLOSED, 3 << 1]),
                ..Account::default()
            })
            .collect();
        if count > 1 && self.dice.percent(40) {
            accounts[0].flags |= af::LINKED;
        }
        Op::CreateAccounts(accounts)
    }

    fn conflict(&mut self) -> Transfer {
        let asked = {
            let town = self.town.borrow();
            match town.asked.len() as u64 {
                0 => None,
                count => Some(town.asked[self.dice.below(count) as usize]),
            }
        };
        let Some(mut transfer) = asked else { return self.payment() };
        transfer.flags &= !tf::LINKED;
        match self.dice.below(9) {
            0 => transfer.amount = transfer.amount.wrapping_add(1),
            1 => transfer.debit_account_id = self.wallet(),
            2 => transfer.credit_account_id = self.anyone(),
            3 => transfer.user_data_128 += 1,
            4 => transfer.user_data_64 += 1,
            5 => transfer.user_data_32 += 1,
            6 => transfer.code = transfer.code.wrapping_add(1),
            7 => transfer.flags ^= tf::PENDING,
            _ => {}
        }
        transfer
    }

    fn nonsense(&mut self) -> Transfer {
        let mut transfer = self.payment();
        match self.dice.below(28) {
            0 => transfer.id = 0,
            1 => transfer.id = u128::MAX,
            2 => transfer.debit_account_id = 0,
            3 => transfer.credit_account_id = u128::MAX,
            4 => transfer.credit_account_id = transfer.debit_account_id,
            5 => transfer.pending_id = 5,
            6 => transfer.timeout = 5,
            7 => transfer.flags = tf::CLOSING_DEBIT,
            8 => transfer.ledger = 0,
            9 => transfer.code = 0,
            10 => transfer.flags = 1 << 12,
            11 => transfer.flags = tf::POST | tf::VOID,
            12 => transfer.timestamp = 77,
            13 => transfer.credit_account_id = FOREIGN[0],
            14 => transfer.ledger = 2,
            15 => transfer.debit_account_id = u128::MAX,
            16 => transfer.credit_account_id = 0,
            17 => (transfer.flags, transfer.pending_id) = (tf::POST, 0),
            18 => (transfer.flags, transfer.pending_id) = (tf::VOID, u128::MAX),
            19 => (transfer.flags, transfer.pending_id) = (tf::POST, transfer.id),
            20 => (transfer.flags, transfer.pending_id) = (tf::POST, 987_654_321),
            21 => (transfer.flags, transfer.pending_id) = (tf::VOID, 1),
            22 => (transfer.flags, transfer.pending_id, transfer.timeout) = (tf::VOID, 1, 9),
            23 => (transfer.amount, transfer.debit_account_id) = (AMOUNT_MAX / 3, BANK),
            24 => (transfer.flags, transfer.amount, transfer.debit_account_id) = (tf::PENDING, AMOUNT_MAX / 3, BANK),
            25 => transfer.debit_account_id = 123_456,
            _ => (transfer.debit_account_id, transfer.credit_account_id) = (FOREIGN[0], FOREIGN[1]),
        }
        transfer
    }

    fn lookup(&mut self) -> Op {
        if self.dice.percent(50) {
            return Op::LookupAccounts((0..self.dice.range(1, 6)).map(|_| self.anyone()).collect());
        }
        let known: Vec<u128> = self.town.borrow().asked.iter().map(|transfer| transfer.id).collect();
        let ids = (0..self.dice.range(1, 6)).map(|_| match known.len() as u64 {
            0 => 1,
            count => known[self.dice.below(count) as usize],
        });
        Op::LookupTransfers(ids.collect())
    }

    fn query(&mut self) -> Op {
        let told = self.town.borrow().told;
        let window = *self.dice.pick(&[1_000_000, 300_000_000, 5_000_000_000]);
        let (timestamp_min, timestamp_max) = match self.dice.below(4) {
            0 => (0, 0),
            1 => (told.saturating_sub(window), 0),
            2 => (0, told.saturating_sub(window)),
            _ => (told.saturating_sub(2 * window), told.saturating_sub(window)),
        };
        let limit = *self.dice.pick(&[1, 10, 100]);
        let sides = self.dice.range(1, 3);
        let maybe = |dice: &mut Dice, value: u64| if dice.percent(20) { value } else { 0 };
        let account = AccountFilter {
            account_id: self.anyone(),
            user_data_128: maybe(&mut self.dice, 1).into(),
            user_data_64: maybe(&mut self.dice, 2),
            user_data_32: maybe(&mut self.dice, 1) as u32,
            code: maybe(&mut self.dice, 2) as u16,
            timestamp_min,
            timestamp_max,
            limit,
            debits: sides & 1 != 0,
            credits: sides & 2 != 0,
            reversed: self.dice.percent(50),
        };
        let query = QueryFilter {
            user_data_128: account.user_data_128,
            user_data_64: account.user_data_64,
            user_data_32: account.user_data_32,
            ledger: maybe(&mut self.dice, 1) as u32,
            code: account.code,
            timestamp_min,
            timestamp_max,
            limit,
            reversed: account.reversed,
        };
        match self.dice.below(6) {
            0 => Op::QueryAccounts(QueryFilter { code: if query.code == 0 { 0 } else { 10 }, ..query }),
            1 => Op::QueryTransfers(query),
            2 => Op::ChangeEvents(EventsFilter { timestamp_min, timestamp_max, limit }),
            3 => Op::AccountBalances(account),
            _ => Op::AccountTransfers(account),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jangbu_ledger as product;

    use super::*;
    use crate::{
        auditor::model::Model,
        door::{account_out, transfer_out},
        faults::{HABITS, Plan},
    };

    /// The rules as shipped and the auditor's, side by side, over the same requests: no cluster between them.
    fn compare(seed: u64, requests: usize, statuses: &mut BTreeSet<u32>) {
        let tuning = Plan::quiet(seed, 3, 0).tuning;
        let town = Rc::new(RefCell::new(Town::new(&tuning)));
        let plan = ClientPlan { habits: HABITS.into(), think_ms: 1, events_max: 12 };
        let mut generator = Generator::new(0, plan, seed, town.clone());
        let mut dice = Dice::new(seed, "times");
        let (mut books, mut model) = (product::Books::new(), Model::default());
        let mut time = 1_000_000_000_000u64;
        let founding = town.borrow().founding();
        for index in 0..requests {
            let op = founding.get(index).cloned().unwrap_or_else(|| generator.request().0);
            if !op.is_write() {
                continue;
            }
            time += 10_000 + dice.below(*dice.clone().pick(&[1_000, 1_000_000_000]));
            if books.next_expiry().is_some_and(|at| at <= time) && dice.percent(70) {
                expire(&mut books, &mut model, time);
                time += 10_000;
            }
            let (actual, expected) = match &op {
                Op::CreateAccounts(events) => {
                    let mut results = Vec::new();
                    books.create_accounts(time, &events.iter().map(account_out).collect::<Vec<_>>(), &mut results);
                    let actual: Vec<_> = results.iter().map(|it| (it.status.code(), it.timestamp)).collect();
                    (actual, model.create_accounts(time, events))
                }
                Op::CreateTransfers(events) => {
                    let mut results = Vec::new();
                    books.create_transfers(time, &events.iter().map(transfer_out).collect::<Vec<_>>(), &mut results);
                    let actual: Vec<_> = results.iter().map(|it| (it.status.code(), it.timestamp)).collect();
                    (actual, model.create_transfers(time, events))
                }
                _ => unreachable!("reads were skipped"),
            };
            if matches!(op, Op::CreateTransfers(_)) {
                statuses.extend(expected.iter().map(|it| it.status));
            }
            let expected: Vec<_> = expected.iter().map(|it| (it.status, it.timestamp)).collect();
            assert_eq!(actual, expected, "seed {seed}, request {index}: {op:?}");
            let results = expected.iter().map(|&(status, timestamp)| Outcome { status, timestamp }).collect();
            town.borrow_mut().learn(&op, &Answer::Written { log_index: 0, term: 0, timestamp: time, results });
        }
        let actual: Vec<Account> = books.accounts().iter().map(crate::door::account_in).collect();
        assert_eq!(actual, model.accounts(), "seed {seed}");
    }

    fn expire(books: &mut product::Books, model: &mut Model, time: u64) {
        let first = books.head().next_event;
        let count = books.expire(time, 100) as u64;
        for offset in 0..count {
            let event = books.recent_event(product::EventNumber(first.0 + offset)).expect("it just happened");
            model.expire(event.transfer.id.0, event.timestamp).unwrap();
        }
    }

    #[test]
    fn the_rules_and_the_auditor_agree_on_every_answer() {
        let mut statuses = BTreeSet::new();
        for seed in 0..60 {
            compare(seed, 400, &mut statuses);
        }
        // Of the 69 that there are.
        assert!(statuses.len() >= 55, "{} statuses were seen: {statuses:?}", statuses.len());
    }
}
