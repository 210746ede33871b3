//! Bytes that outlive the process: what they are today, so that tomorrow's can't differ unnoticed.

use jangbu_ledger::{
    Account, AccountFlags, AccountId, Amount, Balances, Digest, Event, EventKind, EventNumber, Side, Slot, Transfer,
    TransferFlags, TransferId,
};

fn account() -> Account {
    Account {
        id: AccountId(0x01),
        debits_pending: Amount(0x02),
        debits_posted: Amount(0x03),
        credits_pending: Amount(0x04),
        credits_posted: Amount(0x05),
        user_data_128: 0x06,
        user_data_64: 0x07,
        user_data_32: 0x08,
        reserved: 0x09,
        ledger: 0x0a,
        code: 0x0b,
        flags: AccountFlags(0x0c),
        timestamp: 0x0d,
    }
}

fn transfer() -> Transfer {
    Transfer {
        id: TransferId(0x01),
        debit_account_id: AccountId(0x02),
        credit_account_id: AccountId(0x03),
        amount: Amount(0x04),
        pending_id: TransferId(0x05),
        user_data_128: 0x06,
        user_data_64: 0x07,
        user_data_32: 0x08,
        timeout: 0x09,
        ledger: 0x0a,
        code: 0x0b,
        flags: TransferFlags(0x0c),
        timestamp: 0x0d,
    }
}

fn event() -> Event {
    let balances = |from: u128| Balances {
        debits_pending: Amount(from),
        debits_posted: Amount(from + 1),
        credits_pending: Amount(from + 2),
        credits_posted: Amount(from + 3),
    };
    Event {
        timestamp: 0x0e,
        kind: EventKind::Posted,
        transfer: transfer(),
        pending: Some(EventNumber(3)),
        debit: Side { slot: Slot(1), flags: AccountFlags(2), balances: balances(10) },
        credit: Side { slot: Slot(2), flags: AccountFlags(4), balances: balances(20) },
    }
}

/// Where each field begins: both records have fields of the same sizes in the same order.
const FIELDS: [usize; 13] = [0, 16, 32, 48, 64, 80, 96, 104, 108, 112, 116, 118, 120];

#[test]
fn each_field_is_little_endian_at_its_place() {
    let mut expected = [0; 128];
    for (number, place) in FIELDS.into_iter().enumerate() {
        expected[place] = number as u8 + 1;
    }
    let mut bytes = [0xff; 128];
    account().encode(&mut bytes);
    assert_eq!(bytes, expected);
    assert_eq!(Account::decode(&bytes), account());
    bytes.fill(0xff);
    transfer().encode(&mut bytes);
    assert_eq!(bytes, expected);
    assert_eq!(Transfer::decode(&bytes), transfer());
}

/// Replicas of different versions compare digests: these numbers must not change without a new version of the state.
#[test]
fn the_digests_of_known_records_stay_what_they_are() {
    assert_eq!(format!("{:032x}", Digest::of_account(&account())), "de272d91586340b280ac336cffeefd4a");
    assert_eq!(format!("{:032x}", Digest::of_event(EventNumber(5), &event())), "79fb5d65e7e9625bbf18a0c48e218387");
    assert_eq!(format!("{:032x}", Digest::of_burnt(TransferId(7))), "129f5da7093d8b5e198ad48af1e616fe");
    let digest = Digest { accounts: 1, journal: 2 };
    let hex: String = digest.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "c88e3255b4546aadee3fb5249c767bd2");
}

#[test]
fn a_digest_comes_back_from_its_bytes() {
    let digest = Digest { accounts: 1 << 127 | 3, journal: 1 << 126 | 5 };
    let mut bytes = [0; Digest::BYTES];
    digest.encode(&mut bytes);
    assert_eq!(Digest::decode(&bytes), digest);
}

/// Whatever is written in an event is in its digest.
#[test]
fn each_field_of_an_event_counts_in_its_digest() {
    let event = event();
    let mut others = vec![
        Event { timestamp: 1, ..event },
        Event { kind: EventKind::Voided, ..event },
        Event { pending: None, ..event },
        Event { pending: Some(EventNumber(4)), ..event },
        Event { transfer: Transfer { user_data_32: 0, ..transfer() }, ..event },
    ];
    for side in [
        Side { slot: Slot(9), ..event.debit },
        Side { flags: AccountFlags(9), ..event.debit },
        Side { balances: Balances { debits_pending: Amount(99), ..event.debit.balances }, ..event.debit },
        Side { balances: Balances { debits_posted: Amount(99), ..event.debit.balances }, ..event.debit },
        Side { balances: Balances { credits_pending: Amount(99), ..event.debit.balances }, ..event.debit },
        Side { balances: Balances { credits_posted: Amount(99), ..event.debit.balances }, ..event.debit },
    ] {
        others.push(Event { debit: side, ..event });
        others.push(Event { credit: side, ..event });
    }
    let mut digests: Vec<u128> = others.iter().map(|event| Digest::of_event(EventNumber(5), event)).collect();
    digests.push(Digest::of_event(EventNumber(5), &event));
    digests.push(Digest::of_event(EventNumber(6), &event));
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), others.len() + 2);
}
