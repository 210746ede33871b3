use std::time::Duration;

use futures_util::future::join_all;
use jangbu_proto::{
    jangbu::v1::{
        AccountFilter, BoundedStaleness, ChangeEventsFilter, CreateAccountsRequest, CreateTransfersRequest,
        GetAccountBalancesRequest, GetAccountTransfersRequest, GetChangeEventsRequest, LookupAccountsRequest,
        LookupTransfersRequest, QueryAccountsRequest, QueryFilter, QueryTransfersRequest, ReadOptions,
        read_options::Consistency,
    },
    reason::told,
};
use tonic::{Code, Request, Status};

use crate::harness::{Cluster, number, pay_once, payment, reason};

/// The refused field of a call that must be refused.
macro_rules! field {
    ($ledger:ident . $call:ident ( $request:expr )) => {
        refused_field($ledger.$call($request).await.map(|_| ()))
    };
}

fn refused_field(answer: Result<(), Status>) -> String {
    let status = answer.expect_err("it must be refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    told(&status).field.expect("the field is named").field
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_names_its_field_on_every_call() {
    let cluster = Cluster::of(1).await;
    cluster.open_accounts().await;
    let mut ledger = cluster.ledger(1).await;
    let mut wide = payment(2, 1);
    wide.code = 65_536;
    let transfers = vec![payment(1, 1), wide];
    assert_eq!(field!(ledger.create_transfers(CreateTransfersRequest { transfers })), "transfers[1].code");
    let none = CreateTransfersRequest::default();
    assert_eq!(field!(ledger.create_transfers(none)), "transfers");
    assert_eq!(field!(ledger.create_accounts(CreateAccountsRequest::default())), "accounts");
    assert_eq!(field!(ledger.lookup_accounts(LookupAccountsRequest::default())), "ids");
    assert_eq!(field!(ledger.lookup_transfers(LookupTransfersRequest::default())), "ids");

    let filter = Some(AccountFilter { account_id: Some(number(1)), limit: 0, flags: 3, ..AccountFilter::default() });
    let request = GetAccountTransfersRequest { filter, read: None };
    assert_eq!(field!(ledger.get_account_transfers(request)), "filter.limit");
    assert_eq!(field!(ledger.get_account_balances(GetAccountBalancesRequest { filter, read: None })), "filter.limit");
    let filter = Some(QueryFilter { limit: 8_190, ..QueryFilter::default() });
    assert_eq!(field!(ledger.query_accounts(QueryAccountsRequest { filter, read: None })), "filter.limit");
    assert_eq!(field!(ledger.query_transfers(QueryTransfersRequest { filter, read: None })), "filter.limit");
    let filter = Some(ChangeEventsFilter { limit: 0, ..ChangeEventsFilter::default() });
    assert_eq!(field!(ledger.get_change_events(GetChangeEventsRequest { filter, read: None })), "filter.limit");

    let read = Some(ReadOptions { consistency: Some(Consistency::BoundedStaleness(BoundedStaleness { max_ms: 0 })) });
    let request = LookupAccountsRequest { ids: vec![number(1)], read };
    assert_eq!(field!(ledger.lookup_accounts(request)), "read.bounded_staleness.max_ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_events_are_refused_and_as_many_as_allowed_are_not() {
    let cluster = Cluster::of(1).await;
    cluster.open_accounts().await;
    let mut ledger = cluster.ledger(1).await;
    let transfers = |count: u128| CreateTransfersRequest { transfers: (1..=count).map(|id| payment(id, 1)).collect() };
    assert_eq!(field!(ledger.create_transfers(transfers(8_190))), "transfers");
    let reply = ledger.create_transfers(transfers(8_189)).await.unwrap().into_inner();
    assert_eq!(reply.results.len(), 8_189);
    assert_eq!(cluster.paid(1, None).await.unwrap(), 8_189);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_load_than_room_is_told_when_to_come_back() {
    let cluster = Cluster::adjusted(3, |config| config.limits.requests_max = 4).await;
    cluster.open_accounts().await;
    let ledger = cluster.ledger(1).await;
    let callers = (1..=200_u128).map(|id| {
        let mut ledger = ledger.clone();
        async move { pay_once(&mut ledger, id, 1).await }
    });
    let answers = join_all(callers).await;
    let paid = answers.iter().filter(|answer| answer.is_ok()).count();
    let refused: Vec<&Status> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(paid > 0 && !refused.is_empty(), "{paid} paid, {} refused", refused.len());
    for status in refused {
        assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{status:?}");
        assert!(told(status).retry_after.is_some_and(|delay| !delay.is_zero()));
    }
    // What was turned away was not done.
    assert_eq!(cluster.paid(2, None).await.unwrap(), paid as u128);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_gave_up_make_room_although_no_leader_is_known() {
    let cluster = Cluster::fresh(1, |config| config.limits.requests_max = 10).await;
    let ledger = cluster.ledger(1).await;
    for round in 0..5_u128 {
        let callers = (1..=8_u128).map(|id| {
            let mut ledger = ledger.clone();
            async move {
                let mut request =
                    Request::new(CreateTransfersRequest { transfers: vec![payment(round * 100 + id, 1)] });
                request.set_timeout(Duration::from_millis(200));
                ledger.create_transfers(request).await.unwrap_err()
            }
        });
        for status in join_all(callers).await {
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "NO_LEADER"), "{status:?}");
        }
        // The batcher sweeps now and then; the next callers come a little later.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
