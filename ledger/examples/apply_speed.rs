//! Measures what it costs to decide a plain transfer: deduplication, balances, limits, journal and digest included.
//!
//! ```text
//! cargo run --release -p jangbu-ledger --example apply_speed [ACCOUNTS] [BATCHES]
//! ```
//!
//! Full batches of 8,189 between accounts chosen at random, with time-ordered ids. As in the store, the books are frozen every
//! 256 k events, the frozen part is forgotten half-way to the next freeze, and each batch is first asked for the ids that
//! memory can't resolve. Measured is the time on the CPU, where the system tells it (Linux), and of
//! the fastest and the slowest batch the time on the wall.

use std::time::{Duration, Instant};

use jangbu_ledger::{Account, AccountId, Amount, Books, CreateTransferStatus, EVENTS_MAX, Transfer, TransferId};

const FLUSH_EVENTS: usize = 256 * 1_024;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let accounts = arguments.next().unwrap_or(10_000);
    let batches = arguments.next().unwrap_or(500);

    let clock = Clock(Instant::now());
    let mut chance = Chance(42);
    let mut books = Books::new();
    books.advance(1_700_000_000_000_000_000);
    open_accounts(&mut books, accounts);

    let (mut asking, mut deciding) = (Duration::ZERO, Duration::ZERO);
    let (mut fastest, mut slowest) = (Duration::MAX, Duration::ZERO);
    let (mut unresolved, mut results) = (Vec::new(), Vec::new());
    for batch in 0..batches {
        let transfers = transfers(&mut chance, batch, accounts);
        unresolved.clear();
        results.clear();
        let time = books.head().last_timestamp + 1_000_000;

        let asked = clock.now();
        books.unresolved_ids(&transfers, &mut unresolved);
        let decided = clock.now();
        let wall = Instant::now();
        books.create_transfers(time, &transfers, &mut results);
        fastest = fastest.min(wall.elapsed());
        slowest = slowest.max(wall.elapsed());
        let done = clock.now();
        asking += decided - asked;
        deciding += done - decided;

        assert_eq!(unresolved.len(), transfers.len());
        assert!(results.iter().all(|result| result.status == CreateTransferStatus::Created));
        if books.recent_events_count() > FLUSH_EVENTS / 2 {
            books.forget_frozen();
        }
        if books.recent_events_count() > FLUSH_EVENTS {
            books.freeze();
        }
    }
    let count = batches * EVENTS_MAX as u64;
    let each = |total: Duration| total.as_nanos() as f64 / count as f64;
    println!("{count} transfers between {accounts} accounts, batches of {EVENTS_MAX}");
    println!("unresolved_ids   {:6.1} ns a transfer", each(asking));
    println!("create_transfers {:6.1} ns a transfer", each(deciding));
    let fastest_each = fastest.as_nanos() as f64 / EVENTS_MAX as f64;
    println!("a batch took {fastest:.2?} ({fastest_each:.1} ns a transfer) to {slowest:.2?} on the wall");
    println!("digest {:02x?}", books.head().digest.to_bytes());
}

fn open_accounts(books: &mut Books, count: u64) {
    let accounts: Vec<Account> = (1..=count)
        .map(|number| Account { id: account_id(number), ledger: 1, code: 1, ..Account::default() })
        .collect();
    let mut results = Vec::new();
    for accounts in accounts.chunks(EVENTS_MAX) {
        books.create_accounts(books.head().last_timestamp + accounts.len() as u64, accounts, &mut results);
    }
}

/// Ids as they come from outside: without order.
fn account_id(number: u64) -> AccountId {
    AccountId(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn transfers(chance: &mut Chance, batch: u64, accounts: u64) -> Vec<Transfer> {
    let one = |chance: &mut Chance| {
        let debit = chance.next() % accounts;
        let credit = (debit + 1 + chance.next() % (accounts - 1)) % accounts;
        // 48 bits of milliseconds, 80 of chance: the ids of a client.
        let id = u128::from(1_700_000_000_000 + batch) << 80 | u128::from(chance.next()) << 16 | 1;
        Transfer {
            id: TransferId(id),
            debit_account_id: account_id(debit + 1),
            credit_account_id: account_id(credit + 1),
            amount: Amount(1 + u128::from(chance.next() % 1_000)),
            ledger: 1,
            code: 1,
            ..Transfer::default()
        }
    };
    (0..EVENTS_MAX).map(|_| one(chance)).collect()
}

/// Time on the CPU, or else time on the wall.
struct Clock(Instant);

impl Clock {
    fn now(&self) -> Duration {
        let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        match statistics.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()) {
            Some(nanoseconds) => Duration::from_nanos(nanoseconds),
            None => self.0.elapsed(),
        }
    }
}

/// A small generator of pseudo-random numbers (splitmix64), so that each run is the same.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
