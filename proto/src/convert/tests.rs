//! Nothing is lost on the way; and each refusal, by the name of its field.

use std::time::Duration;

use jangbu_ledger::{
    Account, AccountBalance, AccountFilter, AccountFilterFlags, AccountFlags, AccountId, Amount, Balances,
    ChangeEventsFilter, CreateAccountStatus, CreateResult, CreateTransferStatus, EventKind, QueryFilter,
    QueryFilterFlags, Transfer, TransferFlags, TransferId,
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    batch::{Operation, Replies, RepliesBuilder},
    entry::NodeInfo,
    jangbu::v1,
};

// --- what can be said

/// Numbers of 128 bits with the borders of their halves among them.
fn number() -> impl Strategy<Value = u128> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX as u128), Just(1 << 64), Just(u128::MAX), any::<u128>()]
}

fn account() -> impl Strategy<Value = Account> {
    let numbers = [number(), number(), number(), number(), number(), number()];
    (numbers, any::<(u64, u32, u32, u32, u16, u16, u64)>()).prop_map(|(numbers, rest)| {
        let (user_data_64, user_data_32, reserved, ledger, code, flags, timestamp) = rest;
        Account {
            id: AccountId(numbers[0]),
            debits_pending: Amount(numbers[1]),
            debits_posted: Amount(numbers[2]),
            credits_pending: Amount(numbers[3]),
            credits_posted: Amount(numbers[4]),
            user_data_128: numbers[5],
            user_data_64,
            user_data_32,
            reserved,
            ledger,
            code,
            flags: AccountFlags(flags),
            timestamp,
        }
    })
}

fn transfer() -> impl Strategy<Value = Transfer> {
    let numbers = [number(), number(), number(), number(), number(), number()];
    (numbers, any::<(u64, u32, u32, u32, u16, u16, u64)>()).prop_map(|(numbers, rest)| {
        let (user_data_64, user_data_32, timeout, ledger, code, flags, timestamp) = rest;
        Transfer {
            id: TransferId(numbers[0]),
            debit_account_id: AccountId(numbers[1]),
            credit_account_id: AccountId(numbers[2]),
            amount: Amount(numbers[3]),
            pending_id: TransferId(numbers[4]),
            user_data_128: numbers[5],
            user_data_64,
            user_data_32,
            timeout,
            ledger,
            code,
            flags: TransferFlags(flags),
            timestamp,
        }
    })
}

fn change_event() -> impl Strategy<Value = ChangeEvent> {
    (any::<u64>(), 0u8..5, transfer(), account(), account()).prop_map(
        |(timestamp, kind, transfer, debit_account, credit_account)| ChangeEvent {
            timestamp,
            kind: EventKind::from_code(kind).expect("it is one of the five"),
            transfer,
            debit_account,
            credit_account,
        },
    )
}

const READ_AT: v1::ReadAt = v1::ReadAt { log_index: 7, term: 2, timestamp: 99, staleness_ns: 5 };

/// What the other side makes of a message.
fn over_the_wire<M: prost::Message + Default>(message: M) -> M {
    M::decode(&message.encode_to_vec()[..]).expect("it was encoded just now")
}

// --- nothing is lost

proptest! {
    #[test]
    fn accounts_arrive_as_the_records_they_are(accounts in vec(account(), 1..20)) {
        let request = over_the_wire(accounts_to_wire(&accounts));
        let records = pack_accounts(&request).expect("any account can be asked for");
        prop_assert_eq!(unpack_accounts(&records).collect::<Vec<_>>(), accounts.clone());
        prop_assert_eq!(record_ids(&records).collect::<Vec<_>>(), accounts.iter().map(|a| a.id.0).collect::<Vec<_>>());
        let reply = over_the_wire(accounts_reply(READ_AT, &accounts));
        prop_assert_eq!(super::accounts(&reply.accounts), Ok(accounts));
    }

    #[test]
    fn transfers_arrive_as_the_records_they_are(transfers in vec(transfer(), 1..20), scanned_to: u64) {
        let request = over_the_wire(transfers_to_wire(&transfers));
        let records = pack_transfers(&request).expect("any transfer can be asked for");
        prop_assert_eq!(unpack_transfers(&records).collect::<Vec<_>>(), transfers.clone());
        prop_assert_eq!(record_ids(&records).collect::<Vec<_>>(), transfers.iter().map(|t| t.id.0).collect::<Vec<_>>());
        let reply = over_the_wire(transfers_reply(READ_AT, &transfers, scanned_to));
        prop_assert_eq!((reply.read_at, reply.scanned_to), (Some(READ_AT), scanned_to));
        prop_assert_eq!(super::transfers(&reply.transfers), Ok(transfers));
    }

    #[test]
    fn change_events_arrive(events in vec(change_event(), 0..8)) {
        let reply = over_the_wire(change_events_reply(READ_AT, &events));
        prop_assert_eq!(change_events(&reply.events), Ok(events));
    }

    #[test]
    fn balances_arrive(numbers in vec([number(), number(), number(), number()], 0..8), timestamp: u64) {
        let sent: Vec<AccountBalance> = numbers.into_iter().map(|[a, b, c, d]| AccountBalance {
            balances: Balances {
                debits_pending: Amount(a), debits_posted: Amount(b), credits_pending: Amount(c), credits_posted: Amount(d),
            },
            timestamp,
        }).collect();
        let reply = over_the_wire(balances_reply(READ_AT, &sent, 0));
        prop_assert_eq!(balances(&reply.balances), sent);
    }

    #[test]
    fn ids_arrive(sent in vec(number(), 1..20)) {
        let request = over_the_wire(v1::LookupAccountsRequest { ids: ids_to_wire(sent.clone()), read: None });
        prop_assert_eq!(ids(&request.ids), Ok(sent));
    }

    #[test]
    fn results_arrive_typed_and_packed(drawn in vec((0..CreateTransferStatus::ALL.len(), 1..u64::MAX), 1..60)) {
        let sent: Vec<_> = drawn.into_iter()
            .map(|(status, timestamp)| CreateResult { status: CreateTransferStatus::ALL[status], timestamp })
            .collect();
        let mut replies = RepliesBuilder::new();
        replies.push(10_000, sent.iter().map(answer));
        let view = Replies::parse(replies.finish()).expect("it was built so").into_views().remove(0);
        let at = applied_at(3, 1, &view);

        let typed = over_the_wire(create_transfers_reply(at, &view));
        prop_assert_eq!(typed.applied_at, Some(v1::AppliedAt { log_index: 3, term: 1, timestamp: 10_000 }));
        prop_assert_eq!(results(&typed.results, sent.len()), Ok(sent.clone()));

        let packed = over_the_wire(applied(at, &view));
        let (packed_at, packed) = view_of_applied(&packed, sent.len()).expect("it was built so");
        prop_assert_eq!(packed_at, at);
        prop_assert_eq!(results_of(&packed), Ok(sent));
    }
}

#[test]
fn filters_arrive() {
    let account_filter = AccountFilter {
        account_id: AccountId(u128::MAX - 1),
        user_data_128: 1 << 90,
        user_data_64: 2,
        user_data_32: 3,
        code: 4,
        timestamp_min: 5,
        timestamp_max: 6,
        limit: 7,
        flags: AccountFilterFlags::ALL,
    };
    let wire = over_the_wire(account_filter_to_wire(&account_filter));
    assert_eq!(super::account_filter(Some(&wire)), Ok(account_filter));

    let query_filter = QueryFilter {
        user_data_128: 1,
        user_data_64: 2,
        user_data_32: 3,
        ledger: 4,
        code: 5,
        timestamp_min: 6,
        timestamp_max: 6,
        limit: 8_189,
        flags: QueryFilterFlags::REVERSED,
    };
    let wire = over_the_wire(query_filter_to_wire(&query_filter));
    assert_eq!(super::query_filter(Some(&wire)), Ok(query_filter));

    let events_filter = ChangeEventsFilter { timestamp_min: 1, timestamp_max: 0, limit: 1 };
    let wire = over_the_wire(change_events_filter_to_wire(&events_filter));
    assert_eq!(change_events_filter(Some(&wire)), Ok(events_filter));
}

#[test]
fn freshness_arrives_and_is_linearizable_unless_said() {
    for asked in [
        Consistency::Linearizable,
        Consistency::Local,
        Consistency::BoundedStaleness(Duration::from_millis(1)),
        Consistency::BoundedStaleness(STALENESS_MAX),
    ] {
        assert_eq!(consistency(Some(&over_the_wire(consistency_to_wire(asked)))), Ok(asked));
    }
    assert_eq!(consistency(None), Ok(Consistency::Linearizable));
    assert_eq!(consistency(Some(&v1::ReadOptions { consistency: None })), Ok(Consistency::Linearizable));
}

#[test]
fn a_node_arrives() {
    let node = NodeInfo {
        peer_address: "a:1".into(),
        client_address: "a:2".into(),
        data_center: "seoul".into(),
        incarnation: [9; 16],
    };
    assert_eq!(node_from_wire(Some(&over_the_wire(node_to_wire(3, &node)))), Ok((3, node)));
}

#[test]
fn a_submitted_request_keeps_its_records() {
    let records = bytes::Bytes::from(vec![5; 256]);
    let request = |operation: v1::Operation| v1::SubmitRequest {
        tag: 1,
        operation: operation.into(),
        records: records.clone(),
        deadline_ms: 0,
    };
    assert_eq!(submitted(request(v1::Operation::CreateAccounts)), Ok((Operation::CreateAccounts, records.clone())));
    assert_eq!(submitted(request(v1::Operation::CreateTransfers)), Ok((Operation::CreateTransfers, records.clone())));
}

#[test]
fn the_largest_messages_stay_within_their_bounds() {
    use prost::Message;

    use crate::{
        batch::EVENTS_MAX,
        transport::{CLIENT_MESSAGE_BYTES_MAX, CLIENT_REPLY_BYTES_MAX},
    };
    let transfer = Transfer::decode(&[0xff; 128]);
    let account = Account::decode(&[0xff; 128]);
    let request = transfers_to_wire(&vec![transfer; EVENTS_MAX]);
    assert!(request.encoded_len() * 3 < CLIENT_MESSAGE_BYTES_MAX, "{}", request.encoded_len());
    let request = accounts_to_wire(&vec![account; EVENTS_MAX]);
    assert!(request.encoded_len() * 3 < CLIENT_MESSAGE_BYTES_MAX, "{}", request.encoded_len());
    let event = ChangeEvent {
        timestamp: u64::MAX,
        kind: EventKind::Expired,
        transfer,
        debit_account: account,
        credit_account: account,
    };
    let reply = change_events_reply(READ_AT, &vec![event; EVENTS_MAX]);
    assert!(reply.encoded_len() * 3 < CLIENT_REPLY_BYTES_MAX, "{}", reply.encoded_len());
}

// --- each refusal

/// The field that is named.
fn refused<T: std::fmt::Debug>(outcome: Result<T, crate::Malformed>) -> String {
    outcome.expect_err("it must be refused").field
}

fn three_transfers(mend: impl Fn(&mut v1::Transfer)) -> v1::CreateTransfersRequest {
    let mut transfers = vec![v1::Transfer::default(); 3];
    mend(&mut transfers[2]);
    v1::CreateTransfersRequest { transfers }
}

#[test]
fn a_request_without_events_is_refused() {
    assert_eq!(refused(pack_transfers(&v1::CreateTransfersRequest::default())), "transfers");
    assert_eq!(refused(pack_accounts(&v1::CreateAccountsRequest::default())), "accounts");
    assert_eq!(refused(ids(&[])), "ids");
}

#[test]
fn a_request_of_8190_events_is_refused_and_one_of_8189_is_not() {
    let of = |count| v1::CreateTransfersRequest { transfers: vec![v1::Transfer::default(); count] };
    assert!(pack_transfers(&of(8_189)).is_ok());
    assert_eq!(refused(pack_transfers(&of(8_190))), "transfers");
    let of = |count| v1::CreateAccountsRequest { accounts: vec![v1::Account::default(); count] };
    assert!(pack_accounts(&of(8_189)).is_ok());
    assert_eq!(refused(pack_accounts(&of(8_190))), "accounts");
    assert!(ids(&vec![v1::Uint128::default(); 8_189]).is_ok());
    assert_eq!(refused(ids(&vec![v1::Uint128::default(); 8_190])), "ids");
}

#[test]
fn a_code_or_flags_above_16_bits_are_refused() {
    assert_eq!(refused(pack_transfers(&three_transfers(|transfer| transfer.code = 65_536))), "transfers[2].code");
    assert_eq!(refused(pack_transfers(&three_transfers(|transfer| transfer.flags = 65_536))), "transfers[2].flags");
    let account = |mend: fn(&mut v1::Account)| {
        let mut accounts = vec![v1::Account::default(); 2];
        mend(&mut accounts[1]);
        v1::CreateAccountsRequest { accounts }
    };
    assert_eq!(refused(pack_accounts(&account(|account| account.code = u32::MAX))), "accounts[1].code");
    assert_eq!(refused(pack_accounts(&account(|account| account.flags = u32::MAX))), "accounts[1].flags");
}

#[test]
fn what_the_rules_judge_is_not_refused() {
    let strange = |transfer: &mut v1::Transfer| (transfer.flags, transfer.timestamp) = (0xffff, u64::MAX);
    assert!(pack_transfers(&three_transfers(strange)).is_ok());
}

#[test]
fn a_missing_filter_is_refused() {
    assert_eq!(refused(account_filter(None)), "filter");
    assert_eq!(refused(query_filter(None)), "filter");
    assert_eq!(refused(change_events_filter(None)), "filter");
}

#[test]
fn each_field_of_an_account_filter_is_checked() {
    let check = |mend: fn(&mut v1::AccountFilter)| {
        let mut filter = v1::AccountFilter { account_id: u128_to_wire(1), limit: 10, flags: 3, ..Default::default() };
        assert!(account_filter(Some(&filter)).is_ok());
        mend(&mut filter);
        refused(account_filter(Some(&filter)))
    };
    assert_eq!(check(|filter| filter.account_id = None), "filter.account_id");
    assert_eq!(check(|filter| filter.account_id = u128_to_wire(u128::MAX)), "filter.account_id");
    assert_eq!(check(|filter| filter.code = 65_536), "filter.code");
    assert_eq!(check(|filter| filter.timestamp_min = 1 << 63), "filter.timestamp_min");
    assert_eq!(check(|filter| filter.timestamp_max = u64::MAX), "filter.timestamp_max");
    assert_eq!(check(|filter| (filter.timestamp_min, filter.timestamp_max) = (3, 2)), "filter.timestamp_max");
    assert_eq!(check(|filter| filter.limit = 0), "filter.limit");
    assert_eq!(check(|filter| filter.limit = 8_190), "filter.limit");
    assert_eq!(check(|filter| filter.flags = 0b1011), "filter.flags");
    assert_eq!(check(|filter| filter.flags = 0b100), "filter.flags", "neither debits nor credits");
}

#[test]
fn each_field_of_a_query_filter_is_checked() {
    let check = |mend: fn(&mut v1::QueryFilter)| {
        let mut filter = v1::QueryFilter { limit: 10, ..Default::default() };
        assert!(query_filter(Some(&filter)).is_ok());
        mend(&mut filter);
        refused(query_filter(Some(&filter)))
    };
    assert_eq!(check(|filter| filter.code = 65_536), "filter.code");
    assert_eq!(check(|filter| filter.timestamp_min = 1 << 63), "filter.timestamp_min");
    assert_eq!(check(|filter| (filter.timestamp_min, filter.timestamp_max) = (3, 2)), "filter.timestamp_max");
    assert_eq!(check(|filter| filter.limit = 0), "filter.limit");
    assert_eq!(check(|filter| filter.limit = 8_190), "filter.limit");
    assert_eq!(check(|filter| filter.flags = 2), "filter.flags");
}

#[test]
fn each_field_of_a_change_events_filter_is_checked() {
    let check = |timestamp_min, timestamp_max, limit| {
        refused(change_events_filter(Some(&v1::ChangeEventsFilter { timestamp_min, timestamp_max, limit })))
    };
    assert_eq!(check(1 << 63, 0, 1), "filter.timestamp_min");
    assert_eq!(check(3, 2, 1), "filter.timestamp_max");
    assert_eq!(check(0, 0, 0), "filter.limit");
    assert_eq!(check(0, 0, 8_190), "filter.limit");
}

#[test]
fn a_staleness_of_zero_or_above_an_hour_is_refused() {
    for max_ms in [0, 3_600_001] {
        let bound = read_options_of(v1::BoundedStaleness { max_ms });
        assert_eq!(refused(consistency(Some(&bound))), "read.bounded_staleness.max_ms");
    }
}

fn read_options_of(bound: v1::BoundedStaleness) -> v1::ReadOptions {
    v1::ReadOptions { consistency: Some(v1::read_options::Consistency::BoundedStaleness(bound)) }
}

#[test]
fn a_submitted_request_that_makes_no_sense_is_refused() {
    let submit = |operation: i32, bytes: usize| {
        refused(submitted(v1::SubmitRequest { tag: 1, operation, records: vec![0; bytes].into(), deadline_ms: 0 }))
    };
    assert_eq!(submit(0, 128), "operation");
    assert_eq!(submit(3, 128), "operation");
    assert_eq!(submit(1, 0), "records");
    assert_eq!(submit(1, 127), "records");
    assert_eq!(submit(2, 8_190 * 128), "records");
}

#[test]
fn a_node_that_is_not_whole_is_refused() {
    let node = v1_node();
    assert_eq!(refused(node_from_wire(None)), "node");
    assert_eq!(
        refused(node_from_wire(Some(&crate::cluster::v1::NodeInfo { node_id: 0, ..node.clone() }))),
        "node.node_id"
    );
    let short = crate::cluster::v1::NodeInfo { incarnation: vec![0; 15].into(), ..node };
    assert_eq!(refused(node_from_wire(Some(&short))), "node.incarnation");
}

fn v1_node() -> crate::cluster::v1::NodeInfo {
    node_to_wire(1, &NodeInfo::default())
}

#[test]
fn an_answer_that_is_not_whole_is_refused() {
    let result = |status| v1::Result { timestamp: 1, status };
    assert_eq!(refused(results::<CreateTransferStatus>(&[result(1)], 2)), "results");
    assert_eq!(refused(results::<CreateTransferStatus>(&[result(1), result(18)], 2)), "results[1].status");
    assert_eq!(refused(results::<CreateAccountStatus>(&[result(27)], 1)), "results[0].status");

    let applied_at = Some(v1::AppliedAt { log_index: 1, term: 1, timestamp: 9 });
    let applied = |applied_at, events_count, exceptions: &'static [u8]| {
        refused(view_of_applied(&v1::Applied { applied_at, events_count, exceptions: exceptions.into() }, 2))
    };
    assert_eq!(applied(None, 2, &[]), "applied.applied_at");
    assert_eq!(applied(applied_at, 1, &[]), "applied.events_count");
    assert_eq!(applied(applied_at, 2, &[0; 15]), "applied.exceptions");

    let code = v1::Transfer { code: 65_536, ..Default::default() };
    assert_eq!(refused(transfers(&[v1::Transfer::default(), code])), "transfers[1].code");
    let flags = v1::Account { flags: 65_536, ..Default::default() };
    assert_eq!(refused(accounts(&[flags])), "accounts[0].flags");
}

#[test]
fn a_change_event_that_is_not_whole_is_refused() {
    let whole = v1::ChangeEvent {
        transfer: Some(v1::Transfer::default()),
        debit_account: Some(v1::Account::default()),
        credit_account: Some(v1::Account::default()),
        ..Default::default()
    };
    let check = |mend: fn(&mut v1::ChangeEvent)| {
        let mut event = whole;
        assert!(change_events(&[event]).is_ok());
        mend(&mut event);
        refused(change_events(&[event]))
    };
    assert_eq!(check(|event| event.r#type = 5), "events[0].type");
    assert_eq!(check(|event| event.r#type = -1), "events[0].type");
    assert_eq!(check(|event| event.transfer = None), "events[0].transfer");
    assert_eq!(check(|event| event.debit_account = None), "events[0].debit_account");
    assert_eq!(check(|event| event.credit_account.as_mut().unwrap().code = 65_536), "events[0].credit_account.code");
}
