//! `jangbu.v1.Ledger`: the nine operations, and the packed stream.
//!
//! Typed messages become packed records at this door and stay so. Writes go to the batcher; reads are admitted by the
//! reader and answered from the state here.
//!
//! Laws
//! * Whoever isn't granted a ledger changes nothing in it, and sees its records as if they weren't there.
//!
//! Not here: what the rules of money say, which is in the replies and no error.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use jangbu_ledger::{AccountBalance, AccountFilter, AccountId, TransferId};
use jangbu_proto::{
    batch::{Operation, ReplyView, RequestView, events_count},
    convert::{self, Consistency},
    jangbu::v1::{self, ledger_server::Ledger},
};
use jangbu_raft_store::{Page, Read, StateReader, StoreError};
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{
    deadline,
    status::{to_status, to_status_with_ids},
    submit,
};
use crate::{
    access::Access,
    batcher::{Applied, Batcher},
    config::Limits,
    error::CallError,
    metrics::{Call, Metrics},
    reader::Reader,
    traces::{Traces, Trail},
};

#[derive(Clone)]
pub struct LedgerService {
    pub batcher: Batcher,
    pub reader: Arc<Reader>,
    pub state: StateReader,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    pub traces: Traces,
    pub tasks: TaskTracker,
    /// Streams end when it is cancelled: requests in flight are answered, new ones are not taken.
    pub closing: CancellationToken,
}

#[tonic::async_trait]
impl Ledger for LedgerService {
    type SubmitStream = BoxStream<'static, Result<v1::SubmitReply, Status>>;

    async fn create_accounts(
        &self,
        request: Request<v1::CreateAccountsRequest>,
    ) -> Result<Response<v1::CreateAccountsReply>, Status> {
        let call = self.begin("create_accounts", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let records = convert::pack_accounts(request.get_ref());
        let written =
            self.write(&Access::of(&request), Operation::CreateAccounts, records, deadline, call.trail()).await;
        call.end(written).map(|(at, reply)| Response::new(convert::create_accounts_reply(at, &reply)))
    }

    async fn create_transfers(
        &self,
        request: Request<v1::CreateTransfersRequest>,
    ) -> Result<Response<v1::CreateTransfersReply>, Status> {
        let call = self.begin("create_transfers", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let records = convert::pack_transfers(request.get_ref());
        let written =
            self.write(&Access::of(&request), Operation::CreateTransfers, records, deadline, call.trail()).await;
        call.end(written).map(|(at, reply)| Response::new(convert::create_transfers_reply(at, &reply)))
    }

    async fn lookup_accounts(
        &self,
        request: Request<v1::LookupAccountsRequest>,
    ) -> Result<Response<v1::AccountsReply>, Status> {
        let call = self.begin("lookup_accounts", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let (access, request) = (Access::of(&request), request.into_inner());
        let ids = convert::ids(&request.ids).map(|ids| ids.into_iter().map(AccountId).collect());
        let read = |ids| self.state.lookup_accounts(ids);
        let (at, mut accounts) = self.read(call, &request.read, deadline, ids, read).await?;
        accounts.retain(|account| access.may_touch(account.ledger));
        Ok(Response::new(convert::accounts_reply(at, &accounts)))
    }

    async fn lookup_transfers(
        &self,
        request: Request<v1::LookupTransfersRequest>,
    ) -> Result<Response<v1::TransfersReply>, Status> {
        let call = self.begin("lookup_transfers", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let (access, request) = (Access::of(&request), request.into_inner());
        let ids = convert::ids(&request.ids).map(|ids| ids.into_iter().map(TransferId).collect());
        let read = |ids| self.state.lookup_transfers(ids);
        let (at, mut transfers) = self.read(call, &request.read, deadline, ids, read).await?;
        transfers.retain(|transfer| access.may_touch(transfer.ledger));
        Ok(Response::new(convert::transfers_reply(at, &transfers, 0)))
    }

    async fn get_account_transfers(
        &self,
        request: Request<v1::GetAccountTransfersRequest>,
    ) -> Result<Response<v1::TransfersReply>, Status> {
        let call = self.begin("get_account_transfers", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let (access, request) = (Access::of(&request), request.into_inner());
        let filter = convert::account_filter(request.filter.as_ref());
        let read = |filter| self.state.get_account_transfers(filter);
        let (at, mut page) = self.read(call, &request.read, deadline, filter, read).await?;
        page.items.retain(|transfer| access.may_touch(transfer.ledger));
        Ok(Response::new(convert::transfers_reply(at, &page.items, page.scanned_to)))
    }

    async fn get_account_balances(
        &self,
        request: Request<v1::GetAccountBalancesRequest>,
    ) -> Result<Response<v1::AccountBalancesReply>, Status> {
        let call = self.begin("get_account_balances", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let (access, request) = (Access::of(&request), request.into_inner());
        let filter = convert::account_filter(request.filter.as_ref());
        let read = |filter| self.balances(&access, filter);
        let (at, page) = self.read(call, &request.read, deadline, filter, read).await?;
        Ok(Response::new(convert::balances_reply(at, &page.items, page.scanned_to)))
    }

    async fn query_accounts(
        &self,
        request: Request<v1::QueryAccountsRequest>,
    ) -> Result<Response<v1::AccountsReply>, Status> {
        let call = self.begin("query_accounts", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let (access, request) = (Access::of(&request), request.into_inner());
        let filter = convert::query_filter(request.filter.as_ref());
        let filter = allowed(filter, |filter| access.check_query(filter.ledger));
        let read = |filter| self.state.query_accounts(filter);
        let (at, accounts) = self.read(call, &request.read, deadline, filter, read).await?;
        Ok(Response::new(convert::accounts_reply(at, &accounts)))
    }

    async fn query_transfers(
        &self,
        request: Request<v1::QueryTransfersRequest>,
    ) -> Result<Response<v1::TransfersReply>, Status> {
        let call = self.begin("query_transfers", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let (access, request) = (Access::of(&request), request.into_inner());
        let filter = convert::query_filter(request.filter.as_ref());
        let filter = allowed(filter, |filter| access.check_query(filter.ledger));
        let read = |filter| self.state.query_transfers(filter);
        let (at, page) = self.read(call, &request.read, deadline, filter, read).await?;
        Ok(Response::new(convert::transfers_reply(at, &page.items, page.scanned_to)))
    }

    async fn get_change_events(
        &self,
        request: Request<v1::GetChangeEventsRequest>,
    ) -> Result<Response<v1::ChangeEventsReply>, Status> {
        let call = self.begin("get_change_events", &request);
        let deadline = deadline(request.metadata(), &self.limits);
        let (access, request) = (Access::of(&request), request.into_inner());
        let filter = allowed(convert::change_events_filter(request.filter.as_ref()), |_| access.check_all());
        let read = |filter| self.state.change_events(filter);
        let (at, events) = self.read(call, &request.read, deadline, filter, read).await?;
        Ok(Response::new(convert::change_events_reply(at, &events)))
    }

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let parent = self.traces.parent(request.metadata());
        Ok(Response::new(submit::serve(self.clone(), Access::of(&request), parent, request.into_inner())))
    }
}

impl LedgerService {
    fn begin<T>(&self, method: &'static str, request: &Request<T>) -> Call {
        let parent = self.traces.parent(request.metadata());
        self.metrics.call(method).traced(self.traces.call(method, &parent))
    }

    /// Has one request applied. Blocks on a quorum.
    pub(super) async fn write(
        &self,
        access: &Access,
        operation: Operation,
        records: Result<bytes::Bytes, jangbu_proto::Malformed>,
        deadline: Instant,
        trail: Trail,
    ) -> Result<(v1::AppliedAt, ReplyView), Status> {
        let records = records.map_err(|malformed| to_status(malformed.into()))?;
        let events_count = events_count(records.len()).map_err(|malformed| to_status(malformed.into()))?;
        access.check_records(operation, &records).map_err(to_status)?;
        let request = RequestView { operation, events_count, records: records.clone() };
        let applied = self.batcher.submit(vec![request], deadline, trail).await;
        let applied = applied.map_err(|error| {
            let ids: Vec<u128> = convert::record_ids(&records).collect();
            to_status_with_ids(error, ids.into_iter())
        })?;
        Ok(only_reply(applied))
    }

    /// Balances don't say of which ledger they are; their account does, and never changes it.
    async fn balances(&self, access: &Access, filter: AccountFilter) -> Result<Read<Page<AccountBalance>>, StoreError> {
        let read = self.state.get_account_balances(filter).await?;
        if access.scope().is_none() {
            return Ok(read);
        }
        let account = self.state.lookup_accounts(vec![filter.account_id]).await?.value;
        let is_granted = account.first().is_some_and(|account| access.may_touch(account.ledger));
        let Read { at, mut value } = read;
        if !is_granted {
            value = Page { items: Vec::new(), scanned_to: 0 };
        }
        Ok(Read { at, value })
    }

    /// Answers one read. Linearizable reads block on a quorum.
    async fn read<A, T, F>(
        &self,
        call: Call,
        options: &Option<v1::ReadOptions>,
        deadline: Instant,
        asked: Result<A, impl Into<CallError>>,
        read: impl FnOnce(A) -> F,
    ) -> Result<(v1::ReadAt, T), Status>
    where
        F: Future<Output = Result<Read<T>, StoreError>>,
    {
        let answered = async {
            let asked = asked.map_err(Into::into)?;
            let consistency: Consistency = convert::consistency(options.as_ref())?;
            let pass = self.reader.admit(consistency, deadline).await?;
            let Read { at, value } = timeout_at(deadline, read(asked)).await.map_err(|_| slow())??;
            Ok((self.reader.read_at(&pass, &at)?, value))
        };
        call.end(answered.await.map_err(to_status))
    }
}

/// What is asked, if it may be.
fn allowed<T>(
    asked: Result<T, jangbu_proto::Malformed>,
    check: impl FnOnce(&T) -> Result<(), CallError>,
) -> Result<T, CallError> {
    let asked = asked?;
    check(&asked)?;
    Ok(asked)
}

fn slow() -> CallError {
    CallError::unavailable(jangbu_proto::reason::NOT_READY, "the read took longer than its deadline")
}

fn only_reply(applied: Applied) -> (v1::AppliedAt, ReplyView) {
    let reply = applied.replies.into_iter().next().expect("one request, one reply");
    (convert::applied_at(applied.log_index, applied.term, &reply), reply)
}
