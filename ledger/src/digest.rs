//! A running digest of the state: equal on all replicas that applied the same entries, always on, cheap.
//!
//! Two sums, modulo 2^128: one of the hashes of all accounts as they are, one of the hashes of all that ever happened
//! (change events with their numbers, burnt ids). A sum can be kept: subtract what an account was, add what it is. And it can be recounted
//! in any order from what lies on the disk, by whoever doubts it.
//!
//! Laws
//! * The kept digest equals the recounted one (tests/laws.rs).
//!
//! Not here: proof against a forger. The hash is fast, not cryptographic: it finds faults, not fraud.

use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use crate::bytes::{Reader, Writer};
use crate::{Account, Balances, Event, EventNumber, Side, Transfer, TransferId};

/// Tells an event's hash from a burnt id's: the first field of what is hashed.
const EVENT: u16 = 1;
const BURNT: u16 = 2;

/// The digest of all accounts and of all that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The sum of `of_account` over all accounts.
    pub accounts: u128,
    /// The sum of `of_event` over all events and of `of_burnt` over all burnt ids.
    pub journal: u128,
}

impl Digest {
    pub const BYTES: usize = 32;
    /// Of books in which nothing is written.
    pub const EMPTY: Digest = Digest { accounts: 0, journal: 0 };

    pub fn of_account(account: &Account) -> u128 {
        let mut bytes = [0; Account::BYTES];
        account.encode(&mut bytes);
        xxh3_128(&bytes)
    }

    pub fn of_event(number: EventNumber, event: &Event) -> u128 {
        // In two parts, because this hash is fastest below 241 bytes.
        let balances = of_balances(number, &event.debit.balances, &event.credit.balances);
        let mut bytes = [0; 2 + 8 + 8 + 2 + 8 + Transfer::BYTES + 6 + 6 + 16];
        let mut out = Writer(&mut bytes);
        out.u16(EVENT);
        out.u64(number.0);
        out.u64(event.timestamp);
        out.u16(event.kind.code().into());
        out.u64(event.pending.map_or(u64::MAX, |pending| pending.0));
        put_transfer(&mut out, &event.transfer);
        put_side(&mut out, &event.debit);
        put_side(&mut out, &event.credit);
        out.u128(balances);
        xxh3_128(&bytes)
    }

    pub fn of_burnt(id: TransferId) -> u128 {
        let mut bytes = [0; 2 + 16];
        let mut out = Writer(&mut bytes);
        out.u16(BURNT);
        out.u128(id.0);
        xxh3_128(&bytes)
    }

    pub fn add_account(&mut self, account: &Account) {
        self.accounts = self.accounts.wrapping_add(Digest::of_account(account));
    }

    pub fn remove_account(&mut self, account: &Account) {
        self.accounts = self.accounts.wrapping_sub(Digest::of_account(account));
    }

    pub fn add_event(&mut self, number: EventNumber, event: &Event) {
        self.journal = self.journal.wrapping_add(Digest::of_event(number, event));
    }

    pub fn add_burnt(&mut self, id: TransferId) {
        self.journal = self.journal.wrapping_add(Digest::of_burnt(id));
    }

    pub fn encode(&self, out: &mut [u8; Digest::BYTES]) {
        let mut out = Writer(out);
        out.u128(self.accounts);
        out.u128(self.journal);
    }

    pub fn decode(bytes: &[u8; Digest::BYTES]) -> Digest {
        let mut bytes = Reader(bytes);
        Digest { accounts: bytes.u128(), journal: bytes.u128() }
    }

    /// Both sums in one, to be compared and shown.
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; Digest::BYTES];
        self.encode(&mut bytes);
        xxh3_128(&bytes).to_be_bytes()
    }
}

fn of_balances(number: EventNumber, debit: &Balances, credit: &Balances) -> u128 {
    let mut bytes = [0; 128];
    let mut out = Writer(&mut bytes);
    for balances in [debit, credit] {
        out.u128(balances.debits_pending.0);
        out.u128(balances.debits_posted.0);
        out.u128(balances.credits_pending.0);
        out.u128(balances.credits_posted.0);
    }
    xxh3_128_with_seed(&bytes, number.0)
}

fn put_transfer(out: &mut Writer<'_>, transfer: &Transfer) {
    let (bytes, rest) = core::mem::take(&mut out.0).split_first_chunk_mut().expect("the transfer has its place");
    transfer.encode(bytes);
    out.0 = rest;
}

fn put_side(out: &mut Writer<'_>, side: &Side) {
    out.u32(side.slot.0);
    out.u16(side.flags.0);
}
