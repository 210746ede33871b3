//! The columns of the three tables, each once: for both formats, in both directions.
//!
//! Laws
//! * Every field of a record is a column, under the field's name; what is read is what was written.
//!
//! Not here: how a format writes a kind of column (`csv.rs`, `parquet.rs`).

use jangbu_ledger::{Account, AccountFlags, AccountId, Amount, Transfer, TransferFlags, TransferId};

use crate::text;

/// A row of a table.
pub trait Record: Copy + Default + Send + Sync + 'static {
    const TABLE: &'static str;
    const COLUMNS: &'static [Column<Self>];
}

/// A field of a record, as a number: the widest are 128 bits.
pub struct Column<R: 'static> {
    pub name: &'static str,
    pub kind: Kind,
    pub get: fn(&R) -> u128,
    /// The number is none that the kind forbids.
    pub set: fn(&mut R, u128),
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// 128 bits that name something: nobody adds them up.
    Id,
    /// Money, 128 bits.
    Amount,
    /// So many bits: 16, 32 or 64.
    Number(u32),
    /// Sixteen of them, by name.
    Flags(Names),
}

#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub to_text: fn(u128) -> String,
    pub from_text: fn(&str) -> Result<u128, String>,
}

impl Kind {
    pub fn max(self) -> u128 {
        match self {
            Kind::Id | Kind::Amount => u128::MAX,
            Kind::Number(bits) => (1 << bits) - 1,
            Kind::Flags(_) => u128::from(u16::MAX),
        }
    }
}

/// When a pending transfer expired: no transfer of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    pub pending_id: TransferId,
    /// Log time.
    pub timestamp: u64,
}

const ACCOUNT_FLAGS: Kind = Kind::Flags(Names {
    to_text: |bits| names(AccountFlags(bits as u16).names()),
    from_text: |text| text::account_flags(text).map(|flags| flags.0.into()),
});

const TRANSFER_FLAGS: Kind = Kind::Flags(Names {
    to_text: |bits| names(TransferFlags(bits as u16).names()),
    from_text: |text| text::transfer_flags(text).map(|flags| flags.0.into()),
});

fn names(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join("|")
}

macro_rules! column {
    ($name:ident, $kind:expr, $type:ident) => {
        Column {
            name: stringify!($name),
            kind: $kind,
            get: |record| record.$name.0.into(),
            set: |record, number| record.$name = $type(number as _),
        }
    };
    ($name:ident, $kind:expr) => {
        Column {
            name: stringify!($name),
            kind: $kind,
            get: |record| record.$name.into(),
            set: |record, number| record.$name = number as _,
        }
    };
}

impl Record for Account {
    const TABLE: &'static str = "accounts";
    const COLUMNS: &'static [Column<Account>] = &[
        column!(id, Kind::Id, AccountId),
        column!(debits_pending, Kind::Amount, Amount),
        column!(debits_posted, Kind::Amount, Amount),
        column!(credits_pending, Kind::Amount, Amount),
        column!(credits_posted, Kind::Amount, Amount),
        column!(user_data_128, Kind::Id),
        column!(user_data_64, Kind::Number(64)),
        column!(user_data_32, Kind::Number(32)),
        column!(ledger, Kind::Number(32)),
        column!(code, Kind::Number(16)),
        column!(flags, ACCOUNT_FLAGS, AccountFlags),
        column!(timestamp, Kind::Number(64)),
    ];
}

impl Record for Transfer {
    const TABLE: &'static str = "transfers";
    const COLUMNS: &'static [Column<Transfer>] = &[
        column!(id, Kind::Id, TransferId),
        column!(debit_account_id, Kind::Id, AccountId),
        column!(credit_account_id, Kind::Id, AccountId),
        column!(amount, Kind::Amount, Amount),
        column!(pending_id, Kind::Id, TransferId),
        column!(user_data_128, Kind::Id),
        column!(user_data_64, Kind::Number(64)),
        column!(user_data_32, Kind::Number(32)),
        column!(timeout, Kind::Number(32)),
        column!(ledger, Kind::Number(32)),
        column!(code, Kind::Number(16)),
        column!(flags, TRANSFER_FLAGS, TransferFlags),
        column!(timestamp, Kind::Number(64)),
    ];
}

impl Record for Expiry {
    const TABLE: &'static str = "expiries";
    const COLUMNS: &'static [Column<Expiry>] =
        &[column!(pending_id, Kind::Id, TransferId), column!(timestamp, Kind::Number(64))];
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A record in which every field has a value of its own, by its columns.
    pub fn filled<R: Record>(seed: u128) -> R {
        let mut record = R::default();
        for (place, column) in R::COLUMNS.iter().enumerate() {
            let number = match column.kind {
                // What decimals of 38 digits hold, in both formats.
                Kind::Amount => (seed + place as u128) * 0x0123_4567_89ab_cdef_0123_4567,
                Kind::Flags(_) => (seed + 1) & 0b11_1111,
                kind => (u128::MAX / (seed + place as u128 + 2)) & kind.max(),
            };
            (column.set)(&mut record, number);
        }
        record
    }

    /// The columns hold all that a record holds: one that is filled by them encodes to no zero field but those that are reserved.
    #[test]
    fn every_field_is_a_column() {
        fn covered<R: Record + std::fmt::Debug>(fields_count: usize) {
            let text = format!("{:?}", filled::<R>(1));
            let empty = text.split([',', '{', '}']).filter(|field| field.ends_with(": 0") || field.ends_with("(0)"));
            let empty: Vec<&str> = empty.map(str::trim).filter(|field| !field.starts_with("reserved")).collect();
            assert!(empty.is_empty(), "{}: {empty:?} in {text}", R::TABLE);
            assert_eq!(R::COLUMNS.len(), fields_count);
        }
        covered::<Account>(12);
        covered::<Transfer>(13);
        covered::<Expiry>(2);
    }

    #[test]
    fn flags_are_written_by_name_and_read_back() {
        let Kind::Flags(names) = ACCOUNT_FLAGS else { panic!("they are flags") };
        let text = (names.to_text)(0b10_1000);
        assert_eq!(text, "history|closed");
        assert_eq!((names.from_text)(&text), Ok(0b10_1000));
        assert_eq!(((names.to_text)(0), (names.from_text)("")), (String::new(), Ok(0)));
    }
}
