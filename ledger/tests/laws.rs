//! The laws, over random requests: the books against a plain model (`model/`).
//!
//! The requests come from small spaces of ids, accounts, amounts and times, so that what is rare elsewhere happens all the time here:
//! retries with one field changed, chains that fail late, limits, balancing, closing, imports, expiry on the nanosecond,
//! amounts near 2^128. Between them the test plays the store: it freezes, flushes, forgets, loads what was asked for,
//! and starts again from what was flushed.
//!
//! Laws
//! * Each result is the model's: status and timestamp. So is each event, with the balances after it, and each account.
//! * Debits equal credits, and no account breaks its limit, after each event.
//! * No result depends on what is in memory; a restart leaves no trace.
//! * The digest that was kept is the one recounted.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use jangbu_ledger::{
    Account, AccountFlags, AccountId, Amount, Books, CreateAccountStatus, CreateResult, CreateTransferStatus, Digest,
    Event, EventKind, EventNumber, Frozen, Head, IdState, PendingState, Slot, TIMESTAMP_MAX, Transfer, TransferFlags,
    TransferId,
};
use model::{Answer, Fate, Model};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

const SECOND: u64 = 1_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_books_do_what_the_model_does((start, steps) in life()) {
        World::live(start, &steps);
    }

    #[test]
    fn no_bytes_make_the_books_panic_or_stray_from_the_model(
        requests in prop::collection::vec((any::<bool>(), prop::collection::vec(wild_record(), 1..6)), 1..20)
    ) {
        let mut world = World::new(SECOND);
        world.open_accounts();
        for (accounts, records) in requests {
            let time = world.last_timestamp() + records.len() as u64;
            if accounts {
                world.request(Request::Accounts(time, records.iter().map(Account::decode).collect()));
            } else {
                world.request(Request::Transfers(time, records.iter().map(Transfer::decode).collect()));
            }
        }
    }

    #[test]
    fn no_byte_of_a_record_is_lost_or_made_up(bytes in prop::array::uniform32(any::<[u8; 4]>())) {
        let bytes: [u8; 128] = bytes.concat().try_into().expect("4 x 32 bytes are 128");
        let mut again = [0; 128];
        Account::decode(&bytes).encode(&mut again);
        prop_assert_eq!(bytes, again);
        again.fill(0);
        Transfer::decode(&bytes).encode(&mut again);
        prop_assert_eq!(bytes, again);
    }
}

/// A property that never meets a case says nothing about it.
#[test]
fn the_random_requests_meet_every_status() {
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeMap::new();
    for _ in 0..1_000 {
        let (start, steps) = life().new_tree(&mut runner).expect("a life can be made").current();
        for (status, count) in World::live(start, &steps).met {
            *met.entry(status).or_insert(0) += count;
        }
    }
    let accounts = CreateAccountStatus::ALL.iter().map(|status| (true, status.name()));
    let transfers = CreateTransferStatus::ALL.iter().map(|status| (false, status.name()));
    let missed: Vec<_> = accounts.chain(transfers).filter(|status| !met.contains_key(status)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}; met: {met:#?}");
}

// ---------------------------------------------------------------- the world: the books, the model and a disk

#[derive(Clone, Debug)]
enum Request {
    Accounts(u64, Vec<Account>),
    Transfers(u64, Vec<Transfer>),
    Pulse(u64, usize),
    Advance(u64),
}

/// What was flushed.
#[derive(Default)]
struct Disk {
    head: Option<Head>,
    /// As they were when they were first flushed: whoever reads them has to roll them forward.
    accounts: Vec<Account>,
    events: Vec<Event>,
    ids: BTreeMap<TransferId, IdState>,
    resolutions: BTreeMap<EventNumber, PendingState>,
    expiries: BTreeSet<(u64, EventNumber)>,
}

impl Disk {
    fn flush(&mut self, frozen: &Frozen, accounts: &[Account]) {
        assert_eq!(frozen.first.0 as usize, self.events.len(), "a freeze begins where the one before ended");
        for event in &frozen.events {
            if event.kind != EventKind::Expired {
                self.ids.insert(event.transfer.id, IdState::Event(EventNumber(self.events.len() as u64)));
            }
            self.events.push(*event);
        }
        assert_eq!(frozen.head.next_event.0 as usize, self.events.len());
        for id in &frozen.burnt {
            assert_eq!(self.ids.insert(*id, IdState::Burnt), None, "an id is burnt once, or used once");
        }
        assert!(frozen.resolutions.is_sorted_by_key(|(pending, _)| *pending));
        for (pending, state) in &frozen.resolutions {
            assert_eq!(self.resolutions.insert(*pending, *state), None, "a pending transfer is resolved once");
        }
        for expiry in &frozen.expiries_added {
            assert!(self.expiries.insert(*expiry), "net: an expiry is added once");
        }
        for expiry in &frozen.expiries_removed {
            assert!(self.expiries.remove(expiry), "net: what is removed is there");
        }
        self.accounts.extend_from_slice(&accounts[self.accounts.len()..]);
        self.head = Some(frozen.head.clone());
    }

    fn restore(&self) -> Option<Books> {
        let mut books = Books::new();
        self.accounts.iter().for_each(|account| books.restore_account(*account));
        for event in &self.events {
            books.restore_side(&event.debit);
            books.restore_side(&event.credit);
        }
        self.expiries.iter().for_each(|(expires_at, pending)| books.restore_expiry(*expires_at, *pending));
        books.restore_head(self.head.clone()?);
        Some(books)
    }

    fn load_event(&self, number: EventNumber, books: &mut Books) {
        let transfer = self.events[number.0 as usize].transfer;
        let is_pending = transfer.flags.contains(TransferFlags::PENDING);
        let state = self.resolutions.get(&number).copied().unwrap_or(PendingState::Open);
        books.load_transfer(number, transfer, is_pending.then_some(state));
    }
}

struct World {
    books: Books,
    model: Model,
    disk: Disk,
    /// What was asked since the last freeze that was flushed, and how much of it since the last freeze.
    log: Vec<Request>,
    frozen: Option<(std::sync::Arc<Frozen>, Vec<Account>, usize)>,
    /// How often each status was answered, to accounts (`true`) and to transfers.
    met: BTreeMap<(bool, &'static str), usize>,
    /// Everything ever asked, to ask it again.
    asked: Vec<Transfer>,
    next_id: u128,
}

impl World {
    fn new(start: u64) -> World {
        let mut books = Books::new();
        books.advance(start);
        World {
            books,
            model: Model::default(),
            disk: Disk::default(),
            log: vec![Request::Advance(start)],
            frozen: None,
            met: BTreeMap::new(),
            asked: Vec::new(),
            next_id: 100,
        }
    }

    fn live(start: u64, steps: &[Step]) -> World {
        let mut world = World::new(start);
        world.open_accounts();
        for step in steps {
            if world.take(step).is_none() {
                break;
            }
        }
        world.restart();
        world
    }

    /// Good accounts to begin with, so that a good share of what follows is lawful. There is time between them for imports.
    fn open_accounts(&mut self) {
        for (place, flags) in [0, 2, 4, 8, 0, 2].into_iter().enumerate() {
            let flags = AccountFlags(flags);
            let account = Account { id: AccountId(place as u128 + 1), ledger: 1, code: 1, flags, ..Account::default() };
            self.request(Request::Accounts(self.last_timestamp() + 10, vec![account]));
        }
    }

    fn last_timestamp(&self) -> u64 {
        self.books.head().last_timestamp
    }

    /// `None`: time is over.
    fn take(&mut self, step: &Step) -> Option<()> {
        match step {
            Step::Accounts(pause, imported, recipes) => {
                let time = self.time(pause, recipes.len())?;
                let accounts =
                    recipes.iter().enumerate().map(|(place, recipe)| recipe.make(self, time, place, *imported));
                let accounts = accounts.collect();
                self.request(Request::Accounts(time, accounts));
            }
            Step::Transfers(pause, imported, recipes) => {
                let time = self.time(pause, recipes.len())?;
                let mut transfers = Vec::new();
                for (place, recipe) in recipes.iter().enumerate() {
                    let transfer = recipe.make(self, &transfers, time, place, *imported);
                    transfers.push(transfer);
                }
                if let Some(last) = transfers.last_mut()
                    && last.id.0 % 4 != 0
                {
                    last.flags.0 &= !TransferFlags::LINKED.0;
                }
                self.asked.extend_from_slice(&transfers);
                self.request(Request::Transfers(time, transfers));
            }
            Step::Pulse(pause, limit) => {
                let time = self.time(pause, *limit)?;
                self.request(Request::Pulse(time, *limit));
            }
            Step::Freeze => self.freeze(),
            Step::Flush => self.flush(),
            Step::Restart => self.restart(),
        }
        Some(())
    }

    fn time(&self, pause: &Pause, count: usize) -> Option<u64> {
        let earliest = self.last_timestamp() + count as u64;
        let time = match pause {
            Pause::None => earliest,
            Pause::For(nanoseconds) => earliest.saturating_add(*nanoseconds),
            Pause::UntilExpiry(offset) => match self.books.next_expiry() {
                Some(expires_at) => expires_at.saturating_add_signed(*offset).max(earliest),
                None => earliest,
            },
        };
        (time <= TIMESTAMP_MAX).then_some(time)
    }

    fn request(&mut self, request: Request) {
        let events_before = self.model.happened.len();
        let answers = apply(&mut self.books, &self.disk, &request);
        let expected = match &request {
            Request::Accounts(time, events) => self.model.create_accounts(*time, events),
            Request::Transfers(time, events) => self.model.create_transfers(*time, events),
            Request::Pulse(time, limit) => vec![("expired", self.model.expire(*time, *limit) as u64)],
            Request::Advance(_) => Vec::new(),
        };
        assert_eq!(answers, expected, "the answers are the model's, to {request:?}");
        for (status, _) in answers {
            *self.met.entry((matches!(request, Request::Accounts(_, _)), status)).or_default() += 1;
        }
        let (Request::Accounts(time, _)
        | Request::Transfers(time, _)
        | Request::Pulse(time, _)
        | Request::Advance(time)) = &request;
        assert_eq!(self.last_timestamp(), *time);
        self.log.push(request);
        self.check_events(events_before);
        self.check();
    }

    fn check_events(&self, first: usize) {
        assert_eq!(self.books.head().next_event.0 as usize, self.model.happened.len());
        for (number, expected) in self.model.happened.iter().enumerate().skip(first) {
            let number = EventNumber(number as u64);
            let event = self.books.recent_event(number).expect("what has just happened is in memory");
            assert_eq!(event.timestamp, expected.timestamp);
            assert_eq!(event.kind.code(), expected.kind);
            assert_eq!(event.transfer, expected.transfer);
            assert_eq!(event.pending.map(|pending| pending.0 as usize), expected.pending);
            for (side, id, expected) in [
                (event.debit, event.transfer.debit_account_id, expected.debit),
                (event.credit, event.transfer.credit_account_id, expected.credit),
            ] {
                assert_eq!(self.model.accounts[side.slot.0 as usize].id, id);
                let [debits_pending, debits_posted, credits_pending, credits_posted] = expected.sums;
                assert_eq!(side.flags.0, expected.flags);
                assert_eq!(side.balances.debits_pending.0, debits_pending);
                assert_eq!(side.balances.debits_posted.0, debits_posted);
                assert_eq!(side.balances.credits_pending.0, credits_pending);
                assert_eq!(side.balances.credits_posted.0, credits_posted);
                let debits = debits_pending.checked_add(debits_posted).expect("an account's debits fit");
                let credits = credits_pending.checked_add(credits_posted).expect("an account's credits fit");
                assert!(expected.flags & 2 == 0 || debits <= credits_posted, "the limit on debits holds");
                assert!(expected.flags & 4 == 0 || credits <= debits_posted, "the limit on credits holds");
            }
        }
    }

    fn check(&self) {
        let head = self.books.head();
        assert_eq!(self.books.accounts_count(), self.model.accounts.len());
        for (place, created) in self.model.accounts.iter().enumerate() {
            let [debits_pending, debits_posted, credits_pending, credits_posted] =
                self.model.sums_of(created.id.0).map(Amount);
            let flags = AccountFlags(self.model.flags_of(created.id.0));
            let expected =
                Account { debits_pending, debits_posted, credits_pending, credits_posted, flags, ..*created };
            assert_eq!(self.books.account(created.id), Some(&expected));
            assert_eq!(self.books.slot(created.id), Some(Slot(place as u32)));
            self.check_account_events(Slot(place as u32), created.id);
        }
        assert_eq!(head.last_account_timestamp, self.model.accounts.last().map_or(0, |account| account.timestamp));
        assert_eq!(head.last_transfer_timestamp, self.model.transfers.last().map_or(0, |transfer| transfer.timestamp));
        assert_eq!(head.pendings_open as usize, self.model.open().len());
        assert_eq!(self.books.next_expiry(), self.model.next_expiry());
        assert!(self.books.totals().values().all(|totals| totals.balance()), "debits equal credits");
        assert_eq!(self.books.accounts_over_limit(), 0, "no account breaks its limit");
        assert_eq!(head.digest, self.recount(), "the digest that was kept is the one recounted");
        self.check_ids();
    }

    /// The index of an account's events in memory is what a search through all of them finds.
    fn check_account_events(&self, slot: Slot, id: AccountId) {
        let touches = |transfer: &Transfer| transfer.debit_account_id == id || transfer.credit_account_id == id;
        let first = self.books.recent_first().0 as usize;
        let expected: Vec<EventNumber> = (first..self.model.happened.len())
            .filter(|number| touches(&self.model.happened[*number].transfer))
            .map(|number| EventNumber(number as u64))
            .collect();
        assert_eq!(self.books.recent_account_events(slot).collect::<Vec<_>>(), expected);
        let newest_first = self.books.recent_account_events_newest_first(slot);
        assert_eq!(newest_first.collect::<Vec<_>>(), expected.into_iter().rev().collect::<Vec<_>>());
    }

    /// What memory says of ids and of pending transfers is so; what it does not know is on the disk, or is not.
    fn check_ids(&self) {
        for (number, happened) in self.model.happened.iter().enumerate() {
            let id = happened.transfer.id;
            let number = EventNumber(number as u64);
            if happened.kind != 4 {
                let known = self.books.recent_id(id).or_else(|| self.disk.ids.get(&id).copied());
                assert_eq!(known, Some(IdState::Event(number)));
                assert_eq!(self.books.recent_id(id).is_some(), number >= self.books.recent_first());
            }
            if happened.kind == 1 {
                let on_disk = self.disk.resolutions.get(&number).copied();
                let known = self.books.recent_pending_state(number).or(on_disk).unwrap_or(PendingState::Open);
                let expected = match self.model.fates.get(&id.0) {
                    None => PendingState::Open,
                    Some(Fate::Posted(_)) => PendingState::Posted,
                    Some(Fate::Voided) => PendingState::Voided,
                    Some(Fate::Expired) => PendingState::Expired,
                };
                assert_eq!(known, expected);
            } else {
                assert_eq!(self.books.recent_pending_state(number), None);
            }
        }
        for id in self.model.burnt.iter().copied().map(TransferId) {
            let known = self.books.recent_id(id).or_else(|| self.disk.ids.get(&id).copied());
            assert_eq!(known, Some(IdState::Burnt));
        }
    }

    fn recount(&self) -> Digest {
        let sum = |sum: u128, hash: u128| sum.wrapping_add(hash);
        let accounts = self.books.accounts().iter().map(Digest::of_account).fold(0, sum);
        let of_event = |number: usize| {
            let event = self.books.recent_event(EventNumber(number as u64));
            Digest::of_event(EventNumber(number as u64), event.unwrap_or_else(|| &self.disk.events[number]))
        };
        let events = (0..self.model.happened.len()).map(of_event).fold(0, sum);
        let journal = self.model.burnt.iter().map(|id| Digest::of_burnt(TransferId(*id))).fold(events, sum);
        Digest { accounts, journal }
    }

    fn freeze(&mut self) {
        if self.frozen.is_some() {
            self.flush();
        }
        let events = self.books.recent_events_count();
        let frozen = self.books.freeze();
        assert_eq!(frozen.events.len(), events);
        assert_eq!(self.books.recent_events_count(), 0);
        self.frozen = Some((frozen, self.books.accounts().to_vec(), self.log.len()));
        self.check();
    }

    fn flush(&mut self) {
        if let Some((frozen, accounts, requests)) = self.frozen.take() {
            self.disk.flush(&frozen, &accounts);
            // The books take the lists back to use them again, unless someone still holds on to them.
            let held = (requests % 4 == 0).then_some(frozen);
            self.books.forget_frozen();
            drop(held);
            self.log.drain(..requests);
            self.check();
        }
    }

    /// As after a crash: what was flushed, and the log from there on.
    fn restart(&mut self) {
        let Some(mut books) = self.disk.restore() else { return };
        self.frozen = None;
        // Several requests an entry: what all of them may need is loaded before the first. A pulse is an entry of its own.
        let is_pulse = |request: &Request| matches!(request, Request::Pulse(_, _));
        for entry in self.log.chunk_by(|before, after| !is_pulse(before) && !is_pulse(after)) {
            entry.iter().for_each(|request| load(&mut books, &self.disk, request));
            entry.iter().for_each(|request| drop(decide(&mut books, request)));
            books.unload();
        }
        assert_eq!(books.head(), self.books.head());
        assert_eq!(books.accounts(), self.books.accounts());
        self.books = books;
        self.check();
    }
}

/// What the store does for one request.
fn apply(books: &mut Books, disk: &Disk, request: &Request) -> Vec<Answer> {
    load(books, disk, request);
    let answers = decide(books, request);
    books.unload();
    answers
}

/// Loads what the books ask for.
fn load(books: &mut Books, disk: &Disk, request: &Request) {
    match request {
        Request::Accounts(_, events) => {
            let mut unresolved = Vec::new();
            books.unresolved_timestamps(events, &mut unresolved);
            for timestamp in unresolved {
                let has = |event: &Event| event.kind != EventKind::Expired && event.transfer.timestamp == timestamp;
                if disk.events.iter().any(has) {
                    books.load_transfer_timestamp(timestamp);
                }
            }
        }
        Request::Transfers(_, events) => {
            let mut unresolved = Vec::new();
            books.unresolved_ids(events, &mut unresolved);
            for id in unresolved {
                match disk.ids.get(&id) {
                    Some(IdState::Event(number)) => disk.load_event(*number, books),
                    Some(IdState::Burnt) => books.load_burnt(id),
                    None => {}
                }
            }
        }
        Request::Pulse(time, limit) => {
            let mut due = Vec::new();
            books.due(*time, *limit, &mut due);
            due.retain(|number| *number < books.recent_first());
            due.into_iter().for_each(|number| disk.load_event(number, books));
        }
        Request::Advance(_) => {}
    }
}

fn decide(books: &mut Books, request: &Request) -> Vec<Answer> {
    match request {
        Request::Accounts(time, events) => {
            let mut results = Vec::new();
            books.create_accounts(*time, events, &mut results);
            results.iter().map(|CreateResult { status, timestamp }| (status.name(), *timestamp)).collect()
        }
        Request::Transfers(time, events) => {
            let mut results = Vec::new();
            books.create_transfers(*time, events, &mut results);
            results.iter().map(|CreateResult { status, timestamp }| (status.name(), *timestamp)).collect()
        }
        Request::Pulse(time, limit) => {
            let mut due = Vec::new();
            books.due(*time, *limit, &mut due);
            assert_eq!(books.expire(*time, *limit), due.len());
            vec![("expired", due.len() as u64)]
        }
        Request::Advance(time) => {
            books.advance(*time);
            Vec::new()
        }
    }
}

// ---------------------------------------------------------------- recipes: random, but aware of what there is

#[derive(Clone, Debug)]
enum Step {
    Accounts(Pause, bool, Vec<AccountRecipe>),
    Transfers(Pause, bool, Vec<TransferRecipe>),
    Pulse(Pause, usize),
    Freeze,
    Flush,
    Restart,
}

#[derive(Clone, Debug)]
enum Pause {
    None,
    For(u64),
    /// Nanoseconds from the next expiry.
    UntilExpiry(i64),
}

#[derive(Clone, Debug)]
struct AccountRecipe {
    /// Asks again for one that exists.
    again: Option<Index>,
    id: u128,
    flags: u16,
    ledger: u32,
    code: u16,
    user_data: (u128, u64, u32),
    /// Sets one of the fields that must be zero, or changes one that is compared.
    stain: u8,
    /// One in some is not what the request is.
    imported_differs: bool,
    stamp: Stamp,
}

#[derive(Clone, Debug)]
struct TransferRecipe {
    new: NewTransfer,
    /// Asks again for something that was asked before, if anything was, perhaps with one field changed.
    again: Option<(Index, Option<(u8, u128)>)>,
}

#[derive(Clone, Debug)]
struct NewTransfer {
    id: Id,
    kind: Kind,
    debit: Who,
    credit: Who,
    amount: u128,
    timeout: u32,
    ledger: u32,
    code: u16,
    flags: u16,
    user_data: (u128, u64, u32),
    imported_differs: bool,
    stamp: Stamp,
}

#[derive(Clone, Debug)]
enum Who {
    /// An account that exists; of two, the second is another one.
    Existing(Index),
    Given(u128),
}

impl Who {
    fn make(&self, world: &World, other: Option<AccountId>) -> AccountId {
        match self {
            Who::Existing(index) => {
                let others: Vec<AccountId> =
                    world.model.accounts.iter().map(|account| account.id).filter(|id| Some(*id) != other).collect();
                *index.get(&others)
            }
            Who::Given(id) => AccountId(*id),
        }
    }
}

#[derive(Clone, Debug)]
enum Id {
    Fresh,
    /// Of something asked before.
    Used(Index),
    Given(u128),
}

#[derive(Clone, Debug)]
enum Kind {
    Ordinary,
    Post(Target),
    Void(Target),
}

#[derive(Clone, Debug)]
enum Target {
    /// A pending transfer that is open, if there is one.
    Open(Index),
    /// Something asked before, of whatever kind.
    Any(Index),
    /// The event before in the same request.
    Previous,
    Itself,
    Given(u128),
}

#[derive(Clone, Debug)]
enum Stamp {
    /// After the last of its kind.
    Next(u64),
    /// Near an account's.
    OfAnAccount(Index, i64),
    OfATransfer(Index),
    /// From the request's time.
    Time(i64),
    Given(u64),
}

impl Stamp {
    fn make(&self, world: &World, time: u64, place: usize, last: u64) -> u64 {
        let (accounts, transfers) = (&world.model.accounts, &world.model.transfers);
        match self {
            Stamp::Next(more) => last + 1 + 3 * place as u64 + more,
            Stamp::OfAnAccount(index, offset) => index.get(accounts).timestamp.saturating_add_signed(*offset),
            Stamp::OfATransfer(_) if transfers.is_empty() => last,
            Stamp::OfATransfer(index) => index.get(transfers).timestamp,
            Stamp::Time(offset) => time.saturating_add_signed(*offset),
            Stamp::Given(stamp) => *stamp,
        }
    }
}

impl AccountRecipe {
    fn make(&self, world: &World, time: u64, place: usize, imported: bool) -> Account {
        let mut account = Account {
            id: AccountId(self.id),
            user_data_128: self.user_data.0,
            user_data_64: self.user_data.1,
            user_data_32: self.user_data.2,
            ledger: self.ledger,
            code: self.code,
            flags: AccountFlags(self.flags),
            ..Account::default()
        };
        if let Some(index) = &self.again {
            let existing = index.get(&world.model.accounts);
            account = Account { timestamp: 0, flags: AccountFlags(existing.flags.0 & !16), ..*existing };
        }
        match self.stain {
            1 => account.debits_pending = Amount(1),
            2 => account.debits_posted = Amount(1),
            3 => account.credits_pending = Amount(1),
            4 => account.credits_posted = Amount(1),
            5 => account.reserved = 1,
            6 => account.timestamp = 1,
            7 => account.flags.0 |= 64,
            8 => account.user_data_128 = 9,
            9 => account.user_data_64 = 9,
            10 => account.user_data_32 = 9,
            11 => account.ledger = 9,
            12 => account.code = 9,
            _ => {}
        }
        if imported != (self.imported_differs && place > 0) {
            account.flags.0 |= AccountFlags::IMPORTED.0;
            account.timestamp = self.stamp.make(world, time, place, world.books.head().last_account_timestamp);
        }
        account
    }
}

impl TransferRecipe {
    fn make(&self, world: &mut World, before: &[Transfer], time: u64, place: usize, imported: bool) -> Transfer {
        let Some((index, change)) = &self.again else { return self.new.make(world, before, time, place, imported) };
        let is_alike = |transfer: &&Transfer| transfer.flags.contains(TransferFlags::IMPORTED) == imported;
        // Mostly what was recorded, sometimes whatever was asked.
        let asked = if index.index(8) == 0 { &world.asked } else { &world.model.transfers };
        let asked: Vec<Transfer> = asked.iter().filter(is_alike).copied().collect();
        if asked.is_empty() {
            return self.new.make(world, before, time, place, imported);
        }
        let mut transfer = *index.get(&asked);
        transfer.timestamp = if imported { transfer.timestamp } else { 0 };
        if let Some((field, value)) = change {
            change_field(&mut transfer, *field, *value);
        }
        transfer
    }
}

fn change_field(transfer: &mut Transfer, field: u8, value: u128) {
    match field {
        0 => transfer.debit_account_id = AccountId(value),
        1 => transfer.credit_account_id = AccountId(value),
        2 => transfer.amount = Amount(value),
        3 => transfer.pending_id = TransferId(value),
        4 => transfer.user_data_128 = value,
        5 => transfer.user_data_64 = value as u64,
        6 => transfer.user_data_32 = value as u32,
        7 => transfer.timeout = value as u32,
        8 => transfer.ledger = value as u32,
        9 => transfer.code = value as u16,
        10 => transfer.flags.0 ^= 1 << (value % 10),
        11 => transfer.amount = Amount(u128::MAX),
        12 => transfer.amount = Amount(0),
        13 => transfer.flags.0 &= !TransferFlags::LINKED.0,
        _ => transfer.timestamp = value as u64,
    }
}

impl NewTransfer {
    fn make(&self, world: &mut World, before: &[Transfer], time: u64, place: usize, imported: bool) -> Transfer {
        world.next_id += 1;
        let id = match &self.id {
            Id::Used(index) if !world.asked.is_empty() => index.get(&world.asked).id.0,
            Id::Fresh | Id::Used(_) => world.next_id,
            Id::Given(id) => *id,
        };
        let debit = self.debit.make(world, None);
        let mut transfer = Transfer {
            id: TransferId(id),
            debit_account_id: debit,
            credit_account_id: self.credit.make(world, Some(debit)),
            amount: Amount(self.amount),
            user_data_128: self.user_data.0,
            user_data_64: self.user_data.1,
            user_data_32: self.user_data.2,
            timeout: if self.flags & 2 != 0 { self.timeout } else { 0 },
            ledger: self.ledger,
            code: self.code,
            flags: TransferFlags(self.flags),
            ..Transfer::default()
        };
        match &self.kind {
            Kind::Ordinary => {}
            Kind::Post(target) => self.resolve(&mut transfer, 4, target, world, before),
            Kind::Void(target) => self.resolve(&mut transfer, 8, target, world, before),
        }
        if imported != (self.imported_differs && place > 0) {
            transfer.flags.0 |= TransferFlags::IMPORTED.0;
            // A timeout is refused there, so it is rare.
            transfer.timeout = if self.amount % 8 == 1 { transfer.timeout } else { 0 };
            transfer.timestamp = self.stamp.make(world, time, place, world.books.head().last_transfer_timestamp);
        }
        transfer
    }

    /// Makes a post or void of it, mostly a lawful one.
    fn resolve(&self, transfer: &mut Transfer, flag: u16, target: &Target, world: &World, before: &[Transfer]) {
        let open = world.model.open();
        let pending = match target {
            // With nothing to resolve it stays what it was.
            Target::Open(_) if open.is_empty() => return,
            Target::Open(index) => index.get(&open).id.0,
            Target::Any(_) if world.asked.is_empty() => return,
            Target::Any(index) => index.get(&world.asked).id.0,
            Target::Previous => before.last().map_or(1, |previous| previous.id.0),
            Target::Itself => transfer.id.0,
            Target::Given(id) => *id,
        };
        transfer.pending_id = TransferId(pending);
        transfer.flags.0 = flag | self.flags & 1;
        transfer.timeout = 0;
        // Each is left out half of the time.
        let keep = self.user_data.0 as u32 + self.user_data.2;
        if keep.is_multiple_of(2) {
            transfer.debit_account_id = AccountId(0);
            transfer.credit_account_id = AccountId(0);
            transfer.ledger = 0;
            transfer.code = 0;
            transfer.amount = Amount(if flag == 4 { u128::MAX } else { 0 });
        } else if let Some(pending) = open.iter().find(|open| open.id.0 == pending) {
            transfer.debit_account_id = pending.debit_account_id;
            transfer.credit_account_id = pending.credit_account_id;
            transfer.ledger = pending.ledger;
        }
    }
}

/// When it begins, and what happens.
fn life() -> impl Strategy<Value = (u64, Vec<Step>)> {
    (start(), prop::collection::vec(step(), 1..40))
}

fn start() -> impl Strategy<Value = u64> {
    // The last is so late that long timeouts don't fit any more.
    prop_oneof![6 => Just(1_000), 6 => Just(1_700_000_000 * SECOND), 1 => Just(TIMESTAMP_MAX - 4 * SECOND)]
}

fn step() -> impl Strategy<Value = Step> {
    let imported = || prop::bool::weighted(0.2);
    prop_oneof![
        3 => (pause(), imported(), prop::collection::vec(account(), 1..5)).prop_map(|(p, i, e)| Step::Accounts(p, i, e)),
        20 => (pause(), imported(), prop::collection::vec(transfer(), 1..9)).prop_map(|(p, i, e)| Step::Transfers(p, i, e)),
        4 => (pause(), 1..6usize).prop_map(|(pause, limit)| Step::Pulse(pause, limit)),
        3 => Just(Step::Freeze),
        3 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

fn pause() -> impl Strategy<Value = Pause> {
    prop_oneof![
        4 => Just(Pause::None),
        2 => (0..20u64).prop_map(Pause::For),
        1 => (0..2 * SECOND).prop_map(Pause::For),
        3 => (-4..8i64).prop_map(Pause::UntilExpiry),
    ]
}

fn user_data() -> impl Strategy<Value = (u128, u64, u32)> {
    (0..3u128, 0..2u64, 0..2u32)
}

fn stamp() -> impl Strategy<Value = Stamp> {
    prop_oneof![
        12 => (0..3u64).prop_map(Stamp::Next),
        4 => (any::<Index>(), -2..3i64).prop_map(|(index, offset)| Stamp::OfAnAccount(index, offset)),
        2 => any::<Index>().prop_map(Stamp::OfATransfer),
        2 => (-3..2i64).prop_map(Stamp::Time),
        1 => prop_oneof![Just(0), Just(1), Just(TIMESTAMP_MAX), Just(TIMESTAMP_MAX + 1), Just(u64::MAX)].prop_map(Stamp::Given),
    ]
}

/// Each of these bits by its own chance.
fn bits(chances: &'static [(u16, f64)]) -> impl Strategy<Value = u16> {
    let bits: Vec<_> = chances.iter().map(|(_, chance)| prop::bool::weighted(*chance)).collect();
    bits.prop_map(move |set| set.iter().zip(chances).map(|(set, (bit, _))| if *set { *bit } else { 0 }).sum())
}

fn account() -> impl Strategy<Value = AccountRecipe> {
    let id = prop_oneof![20 => 1..12u128, 1 => Just(0), 1 => Just(u128::MAX)];
    let flags = bits(&[(1, 0.3), (2, 0.3), (4, 0.2), (8, 0.3), (32, 0.1)]);
    let ledger = prop_oneof![1 => Just(0u32), 20 => Just(1), 3 => Just(2)];
    let code = prop_oneof![1 => Just(0u16), 20 => Just(1), 2 => Just(2)];
    let stain = prop_oneof![2 => Just(0u8), 1 => 1..13u8];
    let again = prop::option::weighted(0.25, any::<Index>());
    (again, id, flags, ledger, code, user_data(), stain, prop::bool::weighted(0.03), stamp()).prop_map(
        |(again, id, flags, ledger, code, user_data, stain, imported_differs, stamp)| AccountRecipe {
            again,
            id,
            flags,
            ledger,
            code,
            user_data,
            stain,
            imported_differs,
            stamp,
        },
    )
}

fn transfer() -> impl Strategy<Value = TransferRecipe> {
    let change = prop::option::weighted(0.8, (0..15u8, prop_oneof![0..5u128, 100..140u128]));
    let again = prop::option::weighted(0.25, (any::<Index>(), change));
    (new_transfer(), again).prop_map(|(new, again)| TransferRecipe { new, again })
}

fn new_transfer() -> impl Strategy<Value = NewTransfer> {
    let id = prop_oneof![
        30 => Just(Id::Fresh),
        2 => any::<Index>().prop_map(Id::Used),
        1 => prop_oneof![Just(0), Just(u128::MAX)].prop_map(Id::Given),
    ];
    let kind = prop_oneof![
        5 => Just(Kind::Ordinary),
        2 => target().prop_map(Kind::Post),
        1 => target().prop_map(Kind::Void),
    ];
    let account = || {
        prop_oneof![
            60 => any::<Index>().prop_map(Who::Existing),
            1 => (1..13u128).prop_map(Who::Given),
            1 => prop_oneof![Just(0), Just(u128::MAX)].prop_map(Who::Given),
        ]
    };
    let amount = prop_oneof![
        20 => 0..30u128,
        1 => Just(u128::MAX),
        1 => (0..10u128).prop_map(|less| u128::MAX - less),
        1 => (0..10u128).prop_map(|less| u128::MAX / 2 - less),
    ];
    let timeout = prop_oneof![4 => Just(0u32), 6 => 1..4u32, 1 => Just(u32::MAX)];
    let ledger = prop_oneof![1 => Just(0u32), 40 => Just(1), 3 => Just(2)];
    let code = prop_oneof![1 => Just(0u16), 40 => Just(1), 2 => Just(2)];
    let flags =
        bits(&[(1, 0.15), (2, 0.5), (16, 0.1), (32, 0.1), (64, 0.04), (128, 0.04), (512, 0.005), (0x8000, 0.005)]);
    let who = (account(), account());
    (id, kind, who, amount, timeout, ledger, code, flags, user_data(), prop::bool::weighted(0.04), stamp()).prop_map(
        |(id, kind, (debit, credit), amount, timeout, ledger, code, flags, user_data, imported_differs, stamp)| {
            NewTransfer {
                id,
                kind,
                debit,
                credit,
                amount,
                timeout,
                ledger,
                code,
                flags,
                user_data,
                imported_differs,
                stamp,
            }
        },
    )
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        12 => any::<Index>().prop_map(Target::Open),
        4 => any::<Index>().prop_map(Target::Any),
        2 => Just(Target::Previous),
        1 => Just(Target::Itself),
        1 => prop_oneof![Just(0), Just(u128::MAX), Just(77)].prop_map(Target::Given),
    ]
}

/// 128 bytes of which most are 0 or 255, so that some records get through the first checks.
fn wild_record() -> impl Strategy<Value = [u8; 128]> {
    let byte = prop_oneof![12 => Just(0u8), 1 => Just(1u8), 1 => Just(2), 1 => Just(255), 1 => any::<u8>()];
    let wild = prop::collection::vec(byte, 128);
    let field = prop_oneof![Just((0usize, 0usize)), (0..128usize, 1..32usize)];
    (wild, field, any::<bool>()).prop_map(|(wild, (from, length), small)| {
        let mut bytes: [u8; 128] = wild.try_into().expect("128 bytes");
        if small {
            // Little-endian: with the high bytes at zero, ids are small and meet each other.
            (0..6).for_each(|field| bytes[16 * field + 1..16 * field + 16].fill(0));
        }
        bytes[from..(from + length).min(128)].fill(255);
        bytes
    })
}
