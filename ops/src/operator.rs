//! The cluster's own door for operators, asked node by node.
//!
//! Unlike the client, which looks for any node that answers, an operator wants to know what *this* node says.
//!
//! Not here: which nodes there are (`access.rs`).

use std::time::Duration;

use futures_util::Stream;
use jangbu_proto::cluster::v1::operator_client::OperatorClient;
use jangbu_proto::cluster::v1::*;
use jangbu_proto::transport::{self, Channel, Http2Settings, PEER_MESSAGE_BYTES_MAX};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::access::{self, Way};
use crate::course;
use crate::error::{Failure, Kind};

/// One node's operator door.
#[derive(Clone)]
pub struct Operator {
    pub address: String,
    client: OperatorClient<Channel>,
    timeout: Duration,
}

impl Operator {
    /// Does not connect yet; the first call does.
    pub fn new(way: &Way, address: &str, timeout: Duration) -> Result<Operator, Failure> {
        // Whoever waits for a node to come back should see it soon.
        let settings = Http2Settings { connect_backoff_max: Duration::from_millis(50), ..Http2Settings::default() };
        let channel = transport::channel(way.clone(), address, &settings)
            .map_err(|malformed| Failure::usage(malformed.to_string()))?;
        Ok(Operator { address: address.to_string(), client: OperatorClient::new(channel), timeout })
    }

    pub async fn status(&self) -> Result<StatusReply, Failure> {
        self.answer(self.client.clone().status(self.request(StatusRequest {})).await)
    }

    pub async fn initialize(&self, peer_addresses: Vec<String>) -> Result<MembershipReply, Failure> {
        let request = self.request(InitializeRequest { peer_addresses });
        self.change("the making of the cluster", self.client.clone().initialize(request)).await
    }

    pub async fn add_member(&self, peer_address: String) -> Result<MembershipReply, Failure> {
        let what = format!("the membership of {peer_address}");
        let request = self.request(AddMemberRequest { peer_address });
        self.change(what, self.client.clone().add_member(request)).await
    }

    pub async fn update_member(&self, peer_address: String) -> Result<MembershipReply, Failure> {
        let what = format!("the new address {peer_address}");
        let request = self.request(UpdateMemberRequest { peer_address });
        self.change(what, self.client.clone().update_member(request)).await
    }

    pub async fn promote_member(&self, node_id: u64) -> Result<MembershipReply, Failure> {
        let request = self.request(PromoteMemberRequest { node_id });
        self.change(format!("the vote of node {node_id}"), self.client.clone().promote_member(request)).await
    }

    pub async fn remove_member(&self, node_id: u64, force: bool) -> Result<MembershipReply, Failure> {
        let request = self.request(RemoveMemberRequest { node_id, force });
        self.change(format!("the removal of node {node_id}"), self.client.clone().remove_member(request)).await
    }

    pub async fn move_leader(&self, node_id: u64) -> Result<MoveLeaderReply, Failure> {
        let request = self.request(MoveLeaderRequest { node_id });
        self.change(
            match node_id {
                0 => "the leadership of another node".to_owned(),
                id => format!("the leadership of node {id}"),
            },
            self.client.clone().move_leader(request),
        )
        .await
    }

    pub async fn verify(&self, log_index: u64) -> Result<VerifyReply, Failure> {
        self.answer(self.client.clone().verify(self.request(VerifyRequest { log_index, deep: false })).await)
    }

    /// Reads all that the node has stored.
    pub async fn verify_deep(&self) -> Result<VerifyReply, Failure> {
        self.answer(self.client.clone().verify(self.request(VerifyRequest { log_index: 0, deep: true })).await)
    }

    pub async fn take_snapshot(&self) -> Result<TakeSnapshotReply, Failure> {
        self.answer(self.client.clone().take_snapshot(self.request(TakeSnapshotRequest {})).await)
    }

    /// Asked of the node itself.
    pub async fn drain(&self, undrain: bool) -> Result<DrainReply, Failure> {
        let request = self.request(DrainRequest { undrain });
        self.change(if undrain { "the end of the drain" } else { "the drain" }, self.client.clone().drain(request))
            .await
    }

    pub async fn finalize_upgrade(&self, dry_run: bool) -> Result<FinalizeUpgradeReply, Failure> {
        let request = self.request(FinalizeUpgradeRequest { dry_run });
        if dry_run {
            return self.answer(self.client.clone().finalize_upgrade(request).await);
        }
        self.change("the cluster's new version", self.client.clone().finalize_upgrade(request)).await
    }

    pub async fn audit(&self, from_number: u64, limit: u32) -> Result<AuditReply, Failure> {
        self.answer(self.client.clone().audit(self.request(AuditRequest { from_number, limit })).await)
    }

    /// The token's secret stays here; what goes out is its hash.
    pub async fn create_token(&self, token: Token) -> Result<AuditRecord, Failure> {
        let what = format!("token {}", token.token_id);
        let request = self.request(CreateTokenRequest { token: Some(token) });
        self.change(what, self.client.clone().create_token(request)).await
    }

    pub async fn revoke_token(&self, token_id: String) -> Result<AuditRecord, Failure> {
        let what = format!("the end of token {token_id}");
        let request = self.request(RevokeTokenRequest { token_id });
        self.change(what, self.client.clone().revoke_token(request)).await
    }

    pub async fn list_tokens(&self) -> Result<ListTokensReply, Failure> {
        self.answer(self.client.clone().list_tokens(self.request(ListTokensRequest {})).await)
    }

    /// Has it written down that a backup holds everything up to an entry.
    pub async fn record_backup(&self, log_index: u64, place: String) -> Result<AuditRecord, Failure> {
        self.answer(self.client.clone().record_backup(self.request(RecordBackupRequest { log_index, place })).await)
    }

    /// For as long as it takes: whoever reads watches that it goes on.
    pub async fn read_snapshot(
        &self,
        requests: impl Stream<Item = ReadSnapshotRequest> + Send + 'static,
    ) -> Result<Streaming<ReadSnapshotReply>, Failure> {
        self.answer(self.client.clone().read_snapshot(requests).await)
    }

    /// For as long as it takes, or for ever.
    pub async fn read_log(&self, after: EntryId, follow: bool) -> Result<Streaming<ReadLogReply>, Failure> {
        let mut client = self.client.clone().max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
        self.answer(client.read_log(ReadLogRequest { after: Some(after), follow }).await)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// A call that changes something: a command that ends before the answer says that it may be done.
    async fn change<T>(
        &self,
        what: impl Into<String>,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Failure> {
        course::changes(what, async { self.answer(call.await) }).await
    }

    fn answer<T>(&self, answer: Result<tonic::Response<T>, Status>) -> Result<T, Failure> {
        answer.map(tonic::Response::into_inner).map_err(|status| failure(&self.address, &status))
    }
}

/// A gRPC status as an operator should read it.
pub fn failure(address: &str, status: &Status) -> Failure {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let message = format!("{address}: {}", status.message());
    match (status.code(), reason.as_str()) {
        (_, "OUTCOME_UNKNOWN") => Failure::new(Kind::OutcomeUnknown, message)
            .advise("look with `jangbu cluster status` whether it was done; asking again is safe"),
        (Code::Unavailable, _) => {
            Failure::new(Kind::Unavailable, message).advise("see which nodes answer: jangbu cluster health")
        }
        (Code::DeadlineExceeded, _) | (Code::Cancelled, _) => {
            Failure::new(Kind::Unavailable, format!("{address}: no answer in time ({})", status.message()))
                .advise("give it longer with --timeout, or see which nodes answer: jangbu cluster health")
        }
        (Code::Unimplemented, _) => Failure::new(
            Kind::Conflict,
            format!("{address}: the program of this node is older and doesn't know this call"),
        )
        .advise("exchange its program first, or ask where a newer one leads: jangbu leader move NODE"),
        (Code::InvalidArgument, _) => Failure::new(Kind::Usage, message),
        (Code::Unauthenticated | Code::PermissionDenied, _) => access::denied(message),
        (Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted | Code::NotFound, _) => {
            Failure::new(Kind::Conflict, message)
        }
        _ => Failure::general(format!("{message} ({:?})", status.code())),
    }
}
