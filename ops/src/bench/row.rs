//! The rows of the comparison: one kind of work each, the same for every system.
//!
//! Pure: what is asked follows from the row and a seed, so every system is asked for the same.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Accounts that most rows use: all fit into any system's memory.
pub const ACCOUNTS_COUNT: u64 = 10_000;
/// Accounts of the large row: a country's vouchers.
pub const ACCOUNTS_COUNT_LARGE: u64 = 5_000_000;

/// The largest request that every gRPC message can hold.
pub const LARGEST: u32 = 8_189;

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// Requests in flight, each from a caller that waits for its answer.
    pub callers_count: u32,
    pub work: Work,
    pub accounts_count: u64,
    /// Callers hand single transfers, or lookups, to a client that gathers them into requests.
    pub gathered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// So many transfers a request.
    Pay { per_request: u32, mix: Mix },
    /// A request of so many holds, then one that posts them all.
    TwoPhase { per_request: u32 },
    /// One account a request.
    Lookup(Freshness),
    /// The newest ten transfers of one account.
    History,
}

/// Which accounts pay which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    Uniform,
    /// One account in every tenth transfer.
    Hot,
    /// The account in place n is as likely as 1/n.
    Zipf,
    /// Every tenth transfer begins a linked pair.
    Chains,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Freshness {
    Linearizable,
    BoundedStaleness,
    Local,
}

const fn pay(name: &'static str, callers_count: u32, per_request: u32, mix: Mix) -> Row {
    Row { name, callers_count, work: Work::Pay { per_request, mix }, accounts_count: ACCOUNTS_COUNT, gathered: false }
}

const fn read(name: &'static str, callers_count: u32, work: Work) -> Row {
    Row { name, callers_count, work, accounts_count: ACCOUNTS_COUNT, gathered: false }
}

const fn gathered(row: Row) -> Row {
    Row { gathered: true, ..row }
}

/// The large row is last: its accounts stay.
pub const ROWS: &[Row] = &[
    pay("1 caller", 1, 1, Mix::Uniform),
    pay("16 callers", 16, 1, Mix::Uniform),
    pay("100 callers", 100, 1, Mix::Uniform),
    pay("256 callers", 256, 1, Mix::Uniform),
    pay("1,000 callers", 1_000, 1, Mix::Uniform),
    pay("4,000 callers", 4_000, 1, Mix::Uniform),
    gathered(pay("1,000 in flight, gathered", 1_000, 1, Mix::Uniform)),
    gathered(pay("4,000 in flight, gathered", 4_000, 1, Mix::Uniform)),
    pay("requests of 10", 16, 10, Mix::Uniform),
    pay("requests of 100", 16, 100, Mix::Uniform),
    pay("requests of 1,000", 8, 1_000, Mix::Uniform),
    pay("largest requests", 4, LARGEST, Mix::Uniform),
    Row {
        name: "two-phase, largest requests",
        callers_count: 4,
        work: Work::TwoPhase { per_request: LARGEST },
        accounts_count: ACCOUNTS_COUNT,
        gathered: false,
    },
    pay("10 % on one account, 16 callers", 16, 1, Mix::Hot),
    pay("10 % on one account, requests of 1,000", 8, 1_000, Mix::Hot),
    pay("Zipf, requests of 1,000", 8, 1_000, Mix::Zipf),
    pay("10 % chains, requests of 1,000", 8, 1_000, Mix::Chains),
    read("lookup, linearizable, 100 callers", 100, Work::Lookup(Freshness::Linearizable)),
    read("lookup, linearizable, 1,000 callers", 1_000, Work::Lookup(Freshness::Linearizable)),
    read("lookup, bounded staleness, 1,000 callers", 1_000, Work::Lookup(Freshness::BoundedStaleness)),
    read("lookup, local, 1,000 callers", 1_000, Work::Lookup(Freshness::Local)),
    gathered(read("lookup, linearizable, 1,000 in flight, gathered", 1_000, Work::Lookup(Freshness::Linearizable))),
    gathered(read("lookup, local, 1,000 in flight, gathered", 1_000, Work::Lookup(Freshness::Local))),
    read("history of an account, 16 callers", 16, Work::History),
    Row {
        accounts_count: ACCOUNTS_COUNT_LARGE,
        ..pay("largest requests, 5 million accounts, Zipf", 4, LARGEST, Mix::Zipf)
    },
];

/// One transfer of a request; accounts by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub debit: u64,
    pub credit: u64,
    pub amount: u32,
    /// It stands or falls with the next one.
    pub linked: bool,
}

/// What one caller asks for next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Pay(Vec<Payment>),
    Hold(Vec<Payment>),
    /// Post all that the caller's last `Hold` held.
    Post,
    Lookup(u64),
    History(u64),
}

/// One caller's requests.
pub struct Requests {
    row: Row,
    chance: StdRng,
    /// Transfers that the caller holds.
    held: bool,
}

impl Requests {
    pub fn new(row: Row, seed: u64) -> Requests {
        Requests { row, chance: StdRng::seed_from_u64(seed), held: false }
    }

    pub fn draw(&mut self) -> Request {
        match self.row.work {
            Work::Pay { per_request, mix } => Request::Pay(self.payments(per_request, mix)),
            Work::TwoPhase { .. } if std::mem::take(&mut self.held) => Request::Post,
            Work::TwoPhase { per_request } => {
                self.held = true;
                Request::Hold(self.payments(per_request, Mix::Uniform))
            }
            Work::Lookup(_) => Request::Lookup(self.account(Mix::Uniform)),
            Work::History => Request::History(self.account(Mix::Uniform)),
        }
    }

    fn payments(&mut self, count: u32, mix: Mix) -> Vec<Payment> {
        (0..count)
            .map(|place| {
                let is_hot = mix == Mix::Hot && self.chance.random_range(0..10) == 0;
                let debit = if is_hot { 0 } else { self.account(mix) };
                let credit = loop {
                    let account = self.account(mix);
                    if account != debit {
                        break account;
                    }
                };
                let linked = mix == Mix::Chains && place % 10 == 0 && place + 1 < count;
                Payment { debit, credit, amount: self.chance.random_range(1..=1_000), linked }
            })
            .collect()
    }

    fn account(&mut self, mix: Mix) -> u64 {
        let count = self.row.accounts_count;
        match mix {
            // The inverse of the harmonic numbers' growth, which is that of the logarithm.
            Mix::Zipf => {
                let place = (count as f64).powf(self.chance.random::<f64>());
                (place as u64 - 1).min(count - 1)
            }
            _ => self.chance.random_range(0..count),
        }
    }
}

impl Row {
    pub fn is_read(&self) -> bool {
        matches!(self.work, Work::Lookup(_) | Work::History)
    }

    /// Transfers, or reads, that one request does.
    pub fn per_request(&self) -> u32 {
        match self.work {
            Work::Pay { per_request, .. } | Work::TwoPhase { per_request } => per_request,
            Work::Lookup(_) | Work::History => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payments(mix: Mix, count: u32) -> Vec<Payment> {
        match Requests::new(pay("", 1, count, mix), 7).draw() {
            Request::Pay(payments) => payments,
            other => panic!("{other:?}"),
        }
    }

    fn share(payments: &[Payment], is_so: impl Fn(&Payment) -> bool) -> f64 {
        payments.iter().filter(|payment| is_so(payment)).count() as f64 / payments.len() as f64
    }

    #[test]
    fn every_system_is_asked_for_the_same() {
        for row in ROWS {
            let (mut one, mut other) = (Requests::new(*row, 1), Requests::new(*row, 1));
            assert!((0..4).all(|_| one.draw() == other.draw()), "{}", row.name);
        }
    }

    #[test]
    fn a_hot_account_pays_in_a_tenth_of_all_transfers() {
        let hot = share(&payments(Mix::Hot, 8_000), |payment| payment.debit == 0);
        assert!((0.08..0.12).contains(&hot), "{hot}");
    }

    #[test]
    fn zipf_prefers_the_first_accounts_and_reaches_the_last() {
        let payments = payments(Mix::Zipf, 8_000);
        let first = share(&payments, |payment| payment.debit < 10);
        let last = share(&payments, |payment| payment.debit > ACCOUNTS_COUNT / 2);
        assert!((0.2..0.3).contains(&first) && (0.05..0.1).contains(&last), "{first} {last}");
    }

    #[test]
    fn a_chain_never_runs_out_of_its_request() {
        let payments = payments(Mix::Chains, 1);
        assert!(!payments[0].linked);
        assert!(!self::payments(Mix::Chains, 101).last().unwrap().linked);
    }

    #[test]
    fn holds_and_posts_take_turns() {
        let row = ROWS.iter().find(|row| matches!(row.work, Work::TwoPhase { .. })).unwrap();
        let mut requests = Requests::new(*row, 1);
        assert!(matches!(requests.draw(), Request::Hold(_)));
        assert_eq!(requests.draw(), Request::Post);
        assert!(matches!(requests.draw(), Request::Hold(_)));
    }
}
