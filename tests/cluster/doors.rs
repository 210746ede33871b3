//! What makes no sense is refused by name, and harms nobody.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use jangbu_ledger::{AccountFlags, CreateAccountStatus, CreateTransferStatus, Transfer};
use jangbu_proto::{
    batch::EVENTS_MAX,
    cluster::v1::{AddMemberRequest, InitializeRequest, MoveLeaderRequest, PromoteMemberRequest, RemoveMemberRequest},
    convert,
    jangbu::v1::{self as wire, submit_reply::Outcome},
};
use jangbu_tests::{Cluster, Journal, Payer, Settings, judge, open_accounts, payment};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_refuses_what_makes_no_sense_and_names_the_field() {
    let mut cluster = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    open_accounts(&cluster, 1).await;
    let mut ledger = cluster.door(1).ledger();
    let account = || wire::Account { ledger: 1, code: 1, ..Default::default() };
    let transfer = || wire::Transfer { ledger: 1, code: 1, ..Default::default() };
    let too_many = EVENTS_MAX + 1;

    macro_rules! refuses {
        ($call:ident, $field:literal, $request:expr) => {
            let answer = ledger.$call($request).await;
            refused_naming(stringify!($call), $field, answer.err());
        };
    }

    use wire::CreateAccountsRequest as Accounts;
    refuses!(create_accounts, "accounts", Accounts { accounts: vec![] });
    refuses!(create_accounts, "accounts", Accounts { accounts: vec![account(); too_many] });
    refuses!(
        create_accounts,
        "accounts[0].code",
        Accounts { accounts: vec![wire::Account { code: 65_536, ..account() }] }
    );
    refuses!(
        create_accounts,
        "accounts[1].flags",
        Accounts { accounts: vec![account(), wire::Account { flags: 65_536, ..account() }] }
    );

    use wire::CreateTransfersRequest as Transfers;
    refuses!(create_transfers, "transfers", Transfers { transfers: vec![] });
    refuses!(create_transfers, "transfers", Transfers { transfers: vec![transfer(); too_many] });
    refuses!(
        create_transfers,
        "transfers[2].code",
        Transfers { transfers: vec![transfer(), transfer(), wire::Transfer { code: u32::MAX, ..transfer() }] }
    );
    refuses!(
        create_transfers,
        "transfers[0].flags",
        Transfers { transfers: vec![wire::Transfer { flags: u32::MAX, ..transfer() }] }
    );

    let id = || wire::Uint128 { high: 0, low: 1 };
    refuses!(lookup_accounts, "ids", wire::LookupAccountsRequest::default());
    refuses!(lookup_accounts, "ids", wire::LookupAccountsRequest { ids: vec![id(); too_many], read: None });
    refuses!(lookup_transfers, "ids", wire::LookupTransfersRequest::default());
    refuses!(lookup_transfers, "ids", wire::LookupTransfersRequest { ids: vec![id(); too_many], read: None });
    for max_ms in [0, 3_600_001] {
        let consistency = wire::read_options::Consistency::BoundedStaleness(wire::BoundedStaleness { max_ms });
        let read = Some(wire::ReadOptions { consistency: Some(consistency) });
        refuses!(
            lookup_accounts,
            "read.bounded_staleness.max_ms",
            wire::LookupAccountsRequest { ids: vec![id()], read }
        );
    }

    let whole = || wire::AccountFilter { account_id: Some(id()), limit: 1, flags: 3, ..Default::default() };
    let of_account = |filter| wire::GetAccountTransfersRequest { filter, read: None };
    refuses!(get_account_transfers, "filter", of_account(None));
    refuses!(
        get_account_transfers,
        "filter.account_id",
        of_account(Some(wire::AccountFilter { account_id: None, ..whole() }))
    );
    refuses!(get_account_transfers, "filter.limit", of_account(Some(wire::AccountFilter { limit: 0, ..whole() })));
    refuses!(get_account_transfers, "filter.flags", of_account(Some(wire::AccountFilter { flags: 0, ..whole() })));
    refuses!(get_account_transfers, "filter.flags", of_account(Some(wire::AccountFilter { flags: 8 | 3, ..whole() })));
    refuses!(get_account_transfers, "filter.code", of_account(Some(wire::AccountFilter { code: 65_536, ..whole() })));
    let balances = |filter| wire::GetAccountBalancesRequest { filter, read: None };
    refuses!(get_account_balances, "filter", balances(None));
    refuses!(
        get_account_balances,
        "filter.limit",
        balances(Some(wire::AccountFilter { limit: too_many as u32, ..whole() }))
    );

    let all = || wire::QueryFilter { limit: 1, ..Default::default() };
    let accounts = |filter| wire::QueryAccountsRequest { filter, read: None };
    refuses!(query_accounts, "filter", accounts(None));
    refuses!(query_accounts, "filter.limit", accounts(Some(wire::QueryFilter { limit: 0, ..all() })));
    refuses!(query_accounts, "filter.flags", accounts(Some(wire::QueryFilter { flags: 2, ..all() })));
    let transfers = |filter| wire::QueryTransfersRequest { filter, read: None };
    refuses!(query_transfers, "filter", transfers(None));
    refuses!(query_transfers, "filter.limit", transfers(Some(wire::QueryFilter { limit: too_many as u32, ..all() })));
    refuses!(query_transfers, "filter.code", transfers(Some(wire::QueryFilter { code: 65_536, ..all() })));

    let events = |filter| wire::GetChangeEventsRequest { filter, read: None };
    refuses!(get_change_events, "filter", events(None));
    refuses!(get_change_events, "filter.limit", events(Some(wire::ChangeEventsFilter::default())));

    judge(&mut cluster, &Journal::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operators_call_refuses_what_makes_no_sense() {
    let mut cluster = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    open_accounts(&cluster, 1).await;
    let mut operator = cluster.door(1).operator();

    macro_rules! refuses {
        ($call:ident, $code:expr, $request:expr) => {
            let refused = operator.$call($request).await.err();
            let refused = refused.unwrap_or_else(|| panic!("{} took what makes no sense", stringify!($call)));
            assert_eq!(refused.code(), $code, "{}: {refused}", stringify!($call));
        };
    }
    refuses!(
        initialize,
        Code::FailedPrecondition,
        InitializeRequest { peer_addresses: vec![cluster.node(1).addresses.peer.clone()] }
    );
    refuses!(add_member, Code::InvalidArgument, AddMemberRequest { peer_address: "nowhere".into() });
    refuses!(promote_member, Code::FailedPrecondition, PromoteMemberRequest { node_id: 99 });
    refuses!(remove_member, Code::FailedPrecondition, RemoveMemberRequest { node_id: 99, force: false });
    refuses!(move_leader, Code::FailedPrecondition, MoveLeaderRequest { node_id: 99 });
    judge(&mut cluster, &Journal::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_flag_is_an_answer_of_the_rules_and_stops_no_neighbour() {
    let mut cluster = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    open_accounts(&cluster, 1).await;
    let journal = Journal::default();
    let (good, strange) = (payment(7), Transfer { flags: jangbu_ledger::TransferFlags(1 << 9), ..payment(8) });
    journal.asked(good);
    journal.asked(strange);
    let reply = cluster.door(1).create_transfers(&[strange, good], Duration::from_secs(5)).await.unwrap();
    assert_eq!(reply.results[0].status, CreateTransferStatus::ReservedFlag.code());
    assert_eq!(reply.results[1].status, CreateTransferStatus::Created.code());
    journal.answered(strange.id, CreateTransferStatus::ReservedFlag, 0);
    journal.answered(good.id, CreateTransferStatus::Created, reply.results[1].timestamp);

    let account = jangbu_ledger::Account {
        id: jangbu_ledger::AccountId(500),
        ledger: 1,
        code: 1,
        flags: AccountFlags(1 << 6),
        ..Default::default()
    };
    let reply = cluster.door(1).create_accounts(&[account], Duration::from_secs(5)).await.unwrap();
    assert_eq!(reply.results[0].status, CreateAccountStatus::ReservedFlag.code());
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_stream_refuses_one_request_by_name_and_stays_open() {
    let mut cluster = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    open_accounts(&cluster, 1).await;
    let journal = Journal::default();
    let good = payment(7);
    journal.asked(good);
    let mut record = [0; Transfer::BYTES];
    good.encode(&mut record);

    let transfers = wire::Operation::CreateTransfers as i32;
    let request = |tag, operation, records: Vec<u8>| wire::SubmitRequest {
        tag,
        operation,
        records: records.into(),
        deadline_ms: 0,
    };
    let requests = vec![
        request(1, 0, record.to_vec()),
        request(2, 77, record.to_vec()),
        request(3, transfers, vec![]),
        request(4, transfers, vec![0; 127]),
        request(5, transfers, vec![0; (EVENTS_MAX + 1) * Transfer::BYTES]),
        request(6, transfers, record.to_vec()),
    ];
    let mut replies = cluster.door(1).ledger().submit(stream::iter(requests)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(reply) = replies.next().await {
        let reply = reply.expect("the stream stays open");
        match reply.outcome.expect("a reply has an outcome") {
            Outcome::Failure(failure) => {
                assert_eq!(failure.code, Code::InvalidArgument as i32, "request {}: {failure:?}", reply.tag);
                let field = if reply.tag <= 2 { "operation" } else { "records" };
                assert!(failure.message.contains(field), "request {} names no `{field}`: {failure:?}", reply.tag);
            }
            Outcome::Applied(applied) => {
                assert_eq!((reply.tag, applied.events_count, applied.exceptions.len()), (6, 1, 0));
                journal.answered(good.id, CreateTransferStatus::Created, applied.applied_at.unwrap().timestamp);
            }
        }
        seen.push(reply.tag);
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6], "each request is answered once");
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_all_bounds_is_refused_and_the_node_goes_on() {
    let mut cluster = Cluster::start_with(Settings { nodes_count: 1, ..Settings::default() }).await;
    let payer = Payer::start(&cluster).await;
    let oversized = wire::SubmitRequest { records: Bytes::from(vec![0u8; 32 << 20]), ..Default::default() };
    let outcome = match cluster.door(1).ledger().submit(stream::iter([oversized])).await {
        Ok(replies) => replies.into_inner().next().await.expect("a refusal").err(),
        Err(status) => Some(status),
    };
    let refused = outcome.expect("32 MiB in one message are refused");
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused}");

    let many = wire::CreateTransfersRequest { transfers: vec![convert::transfer_to_wire(&payment(1)); 200_000] };
    let refused = cluster.door(1).ledger().create_transfers(many).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused}");
    payer.progresses(50, "after the oversized messages").await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_any_port_harms_nobody() {
    let mut cluster = Cluster::start().await;
    let payer = Payer::start(&cluster).await;
    payer.progresses(50, "before anything happens").await;

    let random: Vec<u8> = (0..64 << 10).map(|_| rand::random()).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let garbage: [Vec<u8>; 7] = [
        random.clone(),
        vec![0; 64 << 10],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        // A preface, and then no HTTP/2 at all.
        [&preface[..], &random].concat(),
        // SETTINGS of a length that can't be.
        [&preface[..], &[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]].concat(),
        // A frame that claims 16 MiB.
        [&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        // HEADERS whose compression makes no sense.
        [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]].concat(),
    ];
    for id in cluster.ids() {
        let addresses = cluster.node(id).addresses.clone();
        for address in [addresses.client, addresses.peer, addresses.http] {
            for bytes in &garbage {
                shout(&address, bytes);
            }
        }
    }
    payer.progresses(100, "after the garbage").await;
    for id in cluster.ids() {
        assert!(cluster.node_mut(id).runs(), "node {id} is gone");
    }
    judge(&mut cluster, &payer.stop().await).await;
}

/// Says `bytes` at a port, and hears out the answer, if there is one, as far as it comes.
fn shout(address: &str, bytes: &[u8]) {
    let mut connection = TcpStream::connect(address).expect("the door is open");
    // Errors are welcome here: the other end may close at any moment.
    let _ = connection.set_read_timeout(Some(Duration::from_millis(100)));
    let _ = connection.write_all(bytes);
    let _ = connection.read(&mut [0; 1024]);
}

fn refused_naming(call: &str, field: &str, answer: Option<Status>) {
    let refused = answer.unwrap_or_else(|| panic!("{call} took a request with a wrong `{field}`"));
    assert_eq!(refused.code(), Code::InvalidArgument, "{call}, `{field}`: {refused}");
    let details = refused.get_details_bad_request().unwrap_or_else(|| panic!("{call}: no details in {refused:?}"));
    let fields: Vec<&str> = details.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, [field], "{call} names the field");
}
