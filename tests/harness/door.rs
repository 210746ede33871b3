//! A node's client door, spoken to directly: this node and no other, one attempt, no second thoughts.
//!
//! Callers that want an answer use the client library (`payer`). Here is what a test needs to ask one replica, or to say
//! what the library never would.

use std::{sync::Arc, time::Duration};

use jangbu_ledger::{Account, AccountId, Transfer, TransferId};
use jangbu_proto::{
    cluster::v1 as cluster,
    cluster::v1::operator_client::OperatorClient,
    convert::{self, Consistency},
    jangbu::v1 as wire,
    jangbu::v1::ledger_client::LedgerClient,
    transport::{CLIENT_REPLY_BYTES_MAX, Channel, Http2Settings, Transport, channel},
};
use tonic::{Request, Response, Status};

/// For questions that a node answers by itself. Generous on a busy machine, short against a test's deadline.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node's client door.
#[derive(Clone)]
pub struct Door {
    channel: Channel,
}

impl Door {
    pub fn new(way: Arc<dyn Transport>, address: &str) -> Door {
        // A node that comes back is found soon: tests start and stop nodes all the time.
        let settings = Http2Settings { connect_backoff_max: Duration::from_millis(50), ..Http2Settings::default() };
        let channel = channel(way, address, &settings).expect("the harness made this address");
        Door { channel }
    }

    /// For calls that nobody has generated.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Every call of the ledger, as generated.
    pub fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel.clone()).max_decoding_message_size(CLIENT_REPLY_BYTES_MAX)
    }

    /// Every call for operators, as generated.
    pub fn operator(&self) -> OperatorClient<Channel> {
        OperatorClient::new(self.channel.clone())
    }

    // --- what it is

    pub async fn status(&self) -> Result<cluster::StatusReply, Status> {
        answered(PATIENCE, self.operator().status(cluster::StatusRequest {})).await
    }

    /// The replica recounts itself at what it has applied now.
    pub async fn verify(&self) -> Result<cluster::VerifyReply, Status> {
        answered(PATIENCE * 4, self.operator().verify(cluster::VerifyRequest { log_index: 0, deep: false })).await
    }

    // --- writes

    pub async fn create_accounts(
        &self,
        accounts: &[Account],
        deadline: Duration,
    ) -> Result<wire::CreateAccountsReply, Status> {
        let request = with_deadline(convert::accounts_to_wire(accounts), deadline);
        answered(deadline, self.ledger().create_accounts(request)).await
    }

    pub async fn create_transfers(
        &self,
        transfers: &[Transfer],
        deadline: Duration,
    ) -> Result<wire::CreateTransfersReply, Status> {
        let request = with_deadline(convert::transfers_to_wire(transfers), deadline);
        answered(deadline, self.ledger().create_transfers(request)).await
    }

    // --- reads

    pub async fn accounts(
        &self,
        ids: &[AccountId],
        consistency: Consistency,
    ) -> Result<(wire::ReadAt, Vec<Account>), Status> {
        let ids = convert::ids_to_wire(ids.iter().map(|id| id.0));
        let read = Some(convert::consistency_to_wire(consistency));
        let request = with_deadline(wire::LookupAccountsRequest { ids, read }, PATIENCE);
        let reply = answered(PATIENCE, self.ledger().lookup_accounts(request)).await?;
        let accounts = convert::accounts(&reply.accounts).expect("a node answers with what makes sense");
        Ok((reply.read_at.expect("a read says where it was read"), accounts))
    }

    pub async fn transfers(
        &self,
        ids: &[TransferId],
        consistency: Consistency,
    ) -> Result<(wire::ReadAt, Vec<Transfer>), Status> {
        let ids = convert::ids_to_wire(ids.iter().map(|id| id.0));
        let read = Some(convert::consistency_to_wire(consistency));
        let request = with_deadline(wire::LookupTransfersRequest { ids, read }, PATIENCE);
        let reply = answered(PATIENCE, self.ledger().lookup_transfers(request)).await?;
        let transfers = convert::transfers(&reply.transfers).expect("a node answers with what makes sense");
        Ok((reply.read_at.expect("a read says where it was read"), transfers))
    }
}

fn with_deadline<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// The node should keep the deadline by itself; a paused one can't. Such a call fails here as `Cancelled`, which no
/// node answers, so that the two are never mistaken for each other.
async fn answered<T>(deadline: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    let grace = Duration::from_secs(2);
    match tokio::time::timeout(deadline + grace, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::cancelled(format!("no answer at all within {:?}", deadline + grace))),
    }
}
