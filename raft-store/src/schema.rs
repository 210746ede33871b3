//! Every column family and key of a group's state, as one table.
//!
//! | family     | key (big-endian)                               | value                                                        |
//! |------------|------------------------------------------------|--------------------------------------------------------------|
//! | `meta`     | `stamp`                                        | format, applied log id, membership, head ([`crate::stamp`])  |
//! | `meta`     | `catalogue`                                    | the runs that are valid ([`crate::runs`])                    |
//! | `meta`     | `admin`                                        | the cluster's version, tokens, the trail's end ([`crate::admin`]) |
//! | `meta`     | `tail`                                         | the last events, fewer than a page ([`crate::journal`])      |
//! | `accounts` | page u32 = slot / 32                           | up to 32 accounts of 128 bytes, in slot order                |
//! | `journal`  | page u64 = event number / 32                   | exactly 32 events                                            |
//! | `runs`     | run u64, 0 u8, key u64, value u64 (first pair) | up to 512 sorted pairs                                       |
//! | `runs`     | run u64, 1 u8, key u64 (first key), 0 u64      | the filter of up to 32,768 pairs                             |
//! | `rows`     | `e`, expires_at u64, event number u64          | (empty) an open pending transfer that expires                |
//! | `rows`     | `b`, transfer id u128                          | applied log index u64 of its flush: an id that is burnt      |
//! | `rows`     | `a`, number u64                                | a record of the audit trail                                  |
//!
//! Laws
//! * Keys of `journal` and `runs` only ever ascend, and a value there is written once. Merged runs have ids of their own range, behind the others, and come as tables of their own: compaction moves tables, it doesn't rewrite them.
//! * Every value is sealed ([`crate::codec`]): a flipped bit, and a value that lies under another's key, are noticed when read.
//! * A run that the catalogue doesn't name is rubbish of a crash, and is swept away at start-up.
//!
//! Not here: what the bytes of a value mean (`stamp.rs`, `journal.rs`, `runs.rs`).

use jangbu_ledger::{EventNumber, TransferId};

/// The version of everything in this table. Bytes of another version are refused, never guessed at.
pub const FORMAT: u8 = 1;

/// Accounts in one page: 4 KiB.
pub const ACCOUNTS_PER_PAGE: usize = 32;

/// Events in one page: about 3 KiB as they are packed, so that fetching one event costs little more than its own page's checksum.
pub const EVENTS_PER_PAGE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    Meta = 0,
    Accounts = 1,
    Journal = 2,
    Runs = 3,
    Rows = 4,
}

impl Family {
    pub const ALL: [Family; 5] = [Family::Meta, Family::Accounts, Family::Journal, Family::Runs, Family::Rows];

    pub fn name(self) -> &'static str {
        match self {
            Family::Meta => "meta",
            Family::Accounts => "accounts",
            Family::Journal => "journal",
            Family::Runs => "runs",
            Family::Rows => "rows",
        }
    }

    pub fn from_u8(byte: u8) -> Option<Family> {
        Family::ALL.into_iter().find(|family| *family as u8 == byte)
    }
}

pub const STAMP: &[u8] = b"stamp";
pub const CATALOGUE: &[u8] = b"catalogue";
pub const TAIL: &[u8] = b"tail";
pub const ADMIN: &[u8] = b"admin";

pub fn accounts_page(page: u32) -> [u8; 4] {
    page.to_be_bytes()
}

pub fn journal_page(page: u64) -> [u8; 8] {
    page.to_be_bytes()
}

/// What a key of a run leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunPart {
    Page = 0,
    Filter = 1,
}

pub const RUN_KEY_BYTES: usize = 25;

pub fn run_key(run: u64, part: RunPart, key: u64, value: u64) -> [u8; RUN_KEY_BYTES] {
    let mut out = [0; RUN_KEY_BYTES];
    out[..8].copy_from_slice(&run.to_be_bytes());
    out[8] = part as u8;
    out[9..17].copy_from_slice(&key.to_be_bytes());
    out[17..].copy_from_slice(&value.to_be_bytes());
    out
}

/// The first key that lies behind everything of a run.
pub fn run_end(run: u64) -> [u8; RUN_KEY_BYTES] {
    run_key(run + 1, RunPart::Page, 0, 0)
}

pub fn run_of_key(key: &[u8]) -> Option<u64> {
    key.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Whether `key` lies in this part of this run.
pub fn is_run_part(key: &[u8], run: u64, part: RunPart) -> bool {
    key.len() == RUN_KEY_BYTES && key[..8] == run.to_be_bytes() && key[8] == part as u8
}

const ROW_AUDIT: u8 = b'a';
const ROW_EXPIRY: u8 = b'e';
const ROW_BURNT: u8 = b'b';

pub fn expiry_row(expires_at: u64, pending: EventNumber) -> [u8; 17] {
    let mut out = [ROW_EXPIRY; 17];
    out[1..9].copy_from_slice(&expires_at.to_be_bytes());
    out[9..].copy_from_slice(&pending.0.to_be_bytes());
    out
}

/// The bounds of all expiry rows: from, and the first key behind.
pub fn expiry_rows() -> ([u8; 1], [u8; 1]) {
    ([ROW_EXPIRY], [ROW_EXPIRY + 1])
}

pub fn parse_expiry_row(key: &[u8]) -> Option<(u64, EventNumber)> {
    if key.len() != 17 || key[0] != ROW_EXPIRY {
        return None;
    }
    let at = u64::from_be_bytes(key[1..9].try_into().ok()?);
    let number = u64::from_be_bytes(key[9..].try_into().ok()?);
    Some((at, EventNumber(number)))
}

pub fn burnt_row(id: TransferId) -> [u8; 17] {
    let mut out = [ROW_BURNT; 17];
    out[1..].copy_from_slice(&id.0.to_be_bytes());
    out
}

/// The bounds of all burnt rows: from, and the first key behind.
pub fn burnt_rows() -> ([u8; 1], [u8; 1]) {
    ([ROW_BURNT], [ROW_BURNT + 1])
}

/// A record of the audit trail.
pub fn audit_row(number: u64) -> [u8; 9] {
    let mut out = [ROW_AUDIT; 9];
    out[1..].copy_from_slice(&number.to_be_bytes());
    out
}

pub fn parse_burnt_row(key: &[u8]) -> Option<TransferId> {
    if key.len() != 17 || key[0] != ROW_BURNT {
        return None;
    }
    Some(TransferId(u128::from_be_bytes(key[1..].try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The layout is a promise to data that exists: a change here needs a new [`FORMAT`].
    #[test]
    fn keys_lie_where_the_table_says() {
        assert_eq!(hex(&accounts_page(0x0102_0304)), "01020304");
        assert_eq!(hex(&journal_page(7)), "0000000000000007");
        assert_eq!(hex(&run_key(2, RunPart::Page, 3, 4)), "00000000000000020000000000000000030000000000000004");
        assert_eq!(hex(&run_key(2, RunPart::Filter, 3, 0)), "00000000000000020100000000000000030000000000000000");
        assert_eq!(hex(&expiry_row(1, EventNumber(2))), "6500000000000000010000000000000002");
        assert_eq!(hex(&burnt_row(TransferId(5))), "6200000000000000000000000000000005");
        assert_eq!(hex(&audit_row(5)), "610000000000000005");
    }

    #[test]
    fn keys_sort_as_what_they_stand_for() {
        assert!(journal_page(255) < journal_page(256));
        assert!(run_key(1, RunPart::Filter, u64::MAX, 0) < run_key(2, RunPart::Page, 0, 0));
        assert!(run_key(1, RunPart::Page, 1, u64::MAX) < run_key(1, RunPart::Page, 2, 0));
        assert!(expiry_row(255, EventNumber(9)) < expiry_row(256, EventNumber(0)));
        assert!(run_key(1, RunPart::Filter, u64::MAX, u64::MAX) < run_end(1));
    }

    #[test]
    fn rows_read_back() {
        assert_eq!(parse_expiry_row(&expiry_row(8, EventNumber(9))), Some((8, EventNumber(9))));
        assert_eq!(parse_burnt_row(&burnt_row(TransferId(u128::MAX))), Some(TransferId(u128::MAX)));
        assert_eq!(parse_burnt_row(&expiry_row(8, EventNumber(9))), None);
    }
}
