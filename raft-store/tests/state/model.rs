//! Random work against a model: books that are never frozen, and queries by looking at everything.
//!
//! Flushes, merges, crashes and snapshots come at random points; none of them may be seen in an answer.

use crate::harness::*;
use bytes::Bytes;
use jangbu_ledger::*;
use jangbu_proto::batch::{Batch, Kind as BodyKind, Operation, RepliesBuilder};
use jangbu_proto::convert::answer;
use jangbu_raft_store::state_machine::{PULSE_EXPIRIES_MAX, StateConfig};
use jangbu_raft_store::testing::Dice;
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;

const SECOND: u64 = 1_000_000_000;

/// The same requests on books that keep everything in memory.
#[derive(Default)]
struct Model {
    books: Books,
}

impl Model {
    fn apply(&mut self, body: &Bytes) -> Bytes {
        let batch = Batch::parse(body.clone()).unwrap();
        if batch.kind() == BodyKind::Pulse {
            self.expire(batch.time());
            return Bytes::new();
        }
        let mut replies = RepliesBuilder::new();
        for (time, request) in batch.stamped(self.books.head().last_timestamp) {
            match request.operation {
                Operation::CreateAccounts => {
                    let (events, mut results): (Vec<Account>, _) =
                        (request.events().map(Account::decode).collect(), Vec::new());
                    self.books.create_accounts(time, &events, &mut results);
                    replies.push(time, results.iter().map(answer));
                }
                Operation::CreateTransfers => {
                    let (events, mut results): (Vec<Transfer>, _) =
                        (request.events().map(Transfer::decode).collect(), Vec::new());
                    self.books.create_transfers(time, &events, &mut results);
                    replies.push(time, results.iter().map(answer));
                }
            }
        }
        replies.finish()
    }

    fn expire(&mut self, time: u64) {
        let now = time.max(self.books.head().last_timestamp + 1);
        let mut due = Vec::new();
        self.books.due(now, PULSE_EXPIRIES_MAX, &mut due);
        match due.len() as u64 {
            0 => self.books.advance(now),
            count => drop(self.books.expire(now + count - 1, due.len())),
        }
    }

    fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        (0..self.books.head().next_event.0).map(|number| self.books.recent_event(EventNumber(number)).unwrap())
    }

    fn transfers(&self, reversed: bool) -> Vec<&Event> {
        let mut events: Vec<&Event> = self.events().filter(|event| event.kind.records_transfer()).collect();
        if reversed {
            events.reverse();
        }
        events
    }
}

/// Seeded requests, lawful and not.
struct Workload {
    dice: Dice,
    time: u64,
    next_id: u128,
    accounts: u128,
    ids: Vec<u128>,
    pendings: Vec<u128>,
}

impl Workload {
    fn new(seed: u64) -> Workload {
        Workload { dice: Dice(seed), time: SECOND, next_id: 1, accounts: 0, ids: Vec::new(), pendings: Vec::new() }
    }

    fn body(&mut self) -> Bytes {
        self.time += self.dice.below(SECOND / 2);
        // A leader whose clock is behind: time must ascend all the same.
        let time = if self.dice.one_in(10) { self.time - SECOND / 3 } else { self.time };
        match self.dice.below(12) {
            0 => accounts_body(time, &self.new_accounts()),
            1 => pulse_body(time),
            2 if self.dice.one_in(3) => self.imported(time),
            _ => {
                let count = 1 + self.dice.below(60);
                let mut transfers: Vec<Transfer> = (0..count).map(|_| self.transfer()).collect();
                transfers.last_mut().unwrap().flags.0 &= !TransferFlags::LINKED.0;
                transfers_body(time, &transfers)
            }
        }
    }

    fn new_accounts(&mut self) -> Vec<Account> {
        let count = 1 + self.dice.below(40) as u128;
        let first = self.accounts + 1;
        self.accounts += count;
        let flags = [AccountFlags::NONE, AccountFlags::HISTORY, AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS];
        (first..first + count)
            .map(|id| Account {
                flags: flags[self.dice.below(3) as usize],
                code: 1 + self.dice.below(3) as u16,
                ..account(id)
            })
            .collect()
    }

    fn imported(&mut self, time: u64) -> Bytes {
        let stamps = (1..=3).map(|n| time - SECOND / 2 + n);
        let transfers: Vec<Transfer> =
            stamps.map(|timestamp| Transfer { timestamp, flags: TransferFlags::IMPORTED, ..self.plain() }).collect();
        transfers_body(time, &transfers)
    }

    fn plain(&mut self) -> Transfer {
        let id = self.new_id();
        let accounts = self.accounts as u64 + 1;
        let (debit, credit) = (1 + self.dice.below(accounts) as u128, 1 + self.dice.below(accounts) as u128);
        let amount = self.dice.below(1_000) as u128;
        Transfer {
            user_data_64: self.dice.below(4),
            code: 1 + self.dice.below(2) as u16,
            ..transfer(id, debit, credit, amount)
        }
    }

    fn transfer(&mut self) -> Transfer {
        let mut transfer = self.plain();
        match self.dice.below(12) {
            0 | 1 => {
                transfer.flags = TransferFlags::PENDING;
                transfer.timeout = self.dice.below(30) as u32;
                self.pendings.push(transfer.id.0);
            }
            2 | 3 => {
                let pending = self.choose(Choice::Pending);
                let flags = [TransferFlags::POST_PENDING_TRANSFER, TransferFlags::VOID_PENDING_TRANSFER];
                transfer = Transfer {
                    id: transfer.id,
                    pending_id: TransferId(pending),
                    amount: if self.dice.one_in(2) { Amount::MAX } else { Amount(0) },
                    flags: flags[self.dice.below(2) as usize],
                    ..Transfer::default()
                };
            }
            // An id that was used, with this body or near it.
            4 => transfer.id = TransferId(self.choose(Choice::Any)),
            5 => transfer.flags = TransferFlags::LINKED,
            6 => transfer.flags = TransferFlags::BALANCING_DEBIT,
            _ => {}
        }
        transfer
    }

    fn choose(&mut self, choice: Choice) -> u128 {
        let from = match choice {
            Choice::Pending => &self.pendings,
            Choice::Any => &self.ids,
        };
        if from.is_empty() { 7 } else { from[self.dice.below(from.len() as u64) as usize] }
    }

    /// Some ids grow with time, others are all over the place.
    fn new_id(&mut self) -> u128 {
        self.next_id += 1;
        let id = if self.dice.one_in(2) { self.next_id } else { u128::from(self.dice.roll()) << 64 | self.next_id };
        self.ids.push(id);
        id
    }
}

enum Choice {
    Pending,
    Any,
}

struct Trial {
    replica: Replica,
    model: Model,
    work: Workload,
}

impl Trial {
    fn new(kind: Kind, config: StateConfig, seed: u64) -> Trial {
        let mut trial =
            Trial { replica: Replica::new(kind, config), model: Model::default(), work: Workload::new(seed) };
        let accounts = accounts_body(SECOND, &trial.work.new_accounts());
        trial.apply(accounts);
        trial
    }

    fn apply(&mut self, body: Bytes) {
        let expected = self.model.apply(&body);
        assert_eq!(self.replica.apply_body(body), expected, "every event is answered as the model does");
        let head = self.replica.store().reader.head();
        assert_eq!(
            head,
            self.model.books.head(),
            "after entry {:?}",
            self.replica.log.last().map(|entry| entry.log_id)
        );
    }

    fn run(&mut self, entries: u64) {
        for entry in 0..entries {
            match self.work.dice.below(40) {
                0 => drop(self.replica.apply(EntryPayload::Blank)),
                1 => drop(self.replica.apply(membership(&[1, 2, 3 + entry]))),
                2 => self.replica.crash_and_replay(),
                3 => drop(self.replica.snapshot()),
                _ => {}
            }
            let body = self.work.body();
            self.apply(body);
            if self.work.dice.one_in(25) {
                self.compare_answers();
            }
        }
        self.compare_answers();
        let report = now(self.replica.store().reader.verify(None)).unwrap().unwrap();
        assert_eq!(report.digest_recount, report.at.digest, "what is stored is what was applied");
        assert_eq!(report.accounts_over_limit, 0);
        assert!(report.totals.values().all(Totals::balance));
    }

    /// A workload that is refused wherever it goes proves nothing.
    fn has_seen_life(&self) {
        let mut kinds = [0; 5];
        self.model.events().for_each(|event| kinds[event.kind.code() as usize] += 1);
        assert!(kinds[0] > 500 && kinds[1..].iter().all(|count| *count > 20), "{kinds:?} events of each kind");
    }

    fn compare_answers(&mut self) {
        for _ in 0..5 {
            self.compare_lookups();
            self.compare_account_queries();
            self.compare_queries();
            self.compare_change_events();
        }
    }

    fn compare_lookups(&mut self) {
        let ids: Vec<TransferId> =
            (0..20).map(|_| TransferId(self.work.choose(Choice::Any))).chain([TransferId(u128::MAX - 9)]).collect();
        let answer = now(self.replica.store().reader.lookup_transfers(ids.clone())).unwrap();
        let expected: Vec<Transfer> = ids
            .iter()
            .filter_map(|id| match self.model.books.recent_id(*id) {
                Some(IdState::Event(number)) => Some(self.model.books.recent_event(number).unwrap().transfer),
                _ => None,
            })
            .collect();
        assert_eq!(answer.value, expected);

        let ids: Vec<AccountId> =
            (0..20).map(|_| AccountId(1 + self.work.dice.below(self.work.accounts as u64 + 3) as u128)).collect();
        let answer = now(self.replica.store().reader.lookup_accounts(ids.clone())).unwrap();
        let expected: Vec<Account> = ids.iter().filter_map(|id| self.model.books.account(*id).copied()).collect();
        assert_eq!(answer.value, expected);
    }

    fn some_time(&mut self) -> u64 {
        match self.work.dice.below(3) {
            0 => 0,
            _ => SECOND + self.work.dice.below(self.work.time),
        }
    }

    fn some_range(&mut self) -> (u64, u64) {
        let (min, max) = (self.some_time(), self.some_time());
        if max == 0 { (min, max) } else { (min.min(max), min.max(max)) }
    }

    fn compare_account_queries(&mut self) {
        let sides = [
            AccountFilterFlags::DEBITS,
            AccountFilterFlags::CREDITS,
            AccountFilterFlags::DEBITS.with(AccountFilterFlags::CREDITS),
        ];
        let mut flags = sides[self.work.dice.below(3) as usize];
        if self.work.dice.one_in(2) {
            flags = flags.with(AccountFilterFlags::REVERSED);
        }
        let (timestamp_min, timestamp_max) = self.some_range();
        let filter = AccountFilter {
            account_id: AccountId(1 + self.work.dice.below(self.work.accounts as u64 + 1) as u128),
            user_data_64: self.work.dice.below(4),
            timestamp_min,
            timestamp_max,
            limit: 1 + self.work.dice.below(200) as u32,
            flags,
            ..AccountFilter::default()
        };
        filter.validate().unwrap();
        let events: Vec<&Event> = self
            .model
            .transfers(filter.is_reversed())
            .into_iter()
            .filter(|event| filter.matches(&event.transfer))
            .take(filter.limit as usize)
            .collect();
        let expected: Vec<Transfer> = events.iter().map(|event| event.transfer).collect();
        let reader = self.replica.store().reader.clone();
        let answer = now(reader.get_account_transfers(filter)).unwrap();
        assert_eq!((answer.value.scanned_to, &answer.value.items), (0, &expected), "{filter:?}");

        let slot = self.model.books.slot(filter.account_id);
        let slot = slot.filter(|slot| self.model.books.account_at(*slot).flags.contains(AccountFlags::HISTORY));
        let expected: Vec<AccountBalance> = slot.map_or(Vec::new(), |slot| {
            events.iter().map(|event| AccountBalance::after(event, slot).unwrap()).collect()
        });
        assert_eq!(now(reader.get_account_balances(filter)).unwrap().value.items, expected);
    }

    fn compare_queries(&mut self) {
        let (timestamp_min, timestamp_max) = self.some_range();
        let filter = QueryFilter {
            user_data_64: self.work.dice.below(4),
            code: self.work.dice.below(3) as u16,
            timestamp_min,
            timestamp_max,
            limit: 1 + self.work.dice.below(300) as u32,
            flags: QueryFilterFlags(self.work.dice.below(2) as u32),
            ..QueryFilter::default()
        };
        filter.validate().unwrap();
        let reader = self.replica.store().reader.clone();
        let matching = self
            .model
            .transfers(filter.is_reversed())
            .into_iter()
            .map(|event| event.transfer)
            .filter(|transfer| filter.matches(transfer));
        let expected: Vec<Transfer> = matching.take(filter.limit as usize).collect();
        assert_eq!(now(reader.query_transfers(filter)).unwrap().value.items, expected, "{filter:?}");

        let mut accounts = self.model.books.accounts().to_vec();
        if filter.is_reversed() {
            accounts.reverse();
        }
        let expected: Vec<Account> = accounts
            .into_iter()
            .filter(|account| filter.matches_account(account))
            .take(filter.limit as usize)
            .collect();
        assert_eq!(now(reader.query_accounts(filter)).unwrap().value, expected);
    }

    fn compare_change_events(&mut self) {
        let (timestamp_min, timestamp_max) = self.some_range();
        let filter = ChangeEventsFilter { timestamp_min, timestamp_max, limit: 1 + self.work.dice.below(300) as u32 };
        let answer = now(self.replica.store().reader.change_events(filter)).unwrap();
        let expected: Vec<&Event> =
            self.model.events().filter(|event| filter.matches(event.timestamp)).take(filter.limit as usize).collect();
        assert_eq!(answer.value.len(), expected.len(), "{filter:?}");
        for (event, expected) in answer.value.iter().zip(expected) {
            assert_eq!(
                (event.timestamp, event.kind, event.transfer),
                (expected.timestamp, expected.kind, expected.transfer)
            );
            assert_eq!(event.debit_account.balances(), expected.debit.balances);
            assert_eq!(event.credit_account.balances(), expected.credit.balances);
            assert_eq!(event.debit_account.flags, expected.debit.flags);
            assert_eq!(event.debit_account.id, expected.transfer.debit_account_id);
        }
    }
}

#[test]
fn random_work_is_answered_as_if_nothing_were_ever_flushed() {
    for kind in KINDS {
        for seed in 0..if kind == Kind::Memory { 12 } else { 3 } {
            // From a flush after each entry to a few in all.
            let flush_events = [1, 33, 300, 2_000][seed as usize % 4];
            // Filters that fit, and filters that are read from disk.
            let filter_bytes = if seed % 2 == 0 { 1 << 20 } else { 0 };
            let config = StateConfig { flush_events, filter_bytes, ..StateConfig::default() };
            let mut trial = Trial::new(kind, config, seed);
            trial.run(if kind == Kind::Memory { 300 } else { 150 });
            trial.has_seen_life();
        }
    }
}

#[test]
fn both_engines_come_to_the_same_digest() {
    let digests = KINDS.map(|kind| {
        let mut trial = Trial::new(kind, tiny(), 99);
        for _ in 0..100 {
            let body = trial.work.body();
            trial.apply(body);
        }
        trial.replica.digest()
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn node_ids_that_left_are_remembered() {
    for kind in KINDS {
        let mut replica = Replica::new(kind, tiny());
        replica.apply(membership(&[1, 2, 9]));
        replica.apply(membership(&[1, 2]));
        drop(replica.snapshot());
        replica.crash_and_replay();
        assert_eq!(replica.store().reader.highest_node_id(), 9);
        let (applied, membership) = now(replica.store().state.applied_state()).unwrap();
        assert_eq!(applied.unwrap().index, 2);
        assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [1, 2]);
    }
}
