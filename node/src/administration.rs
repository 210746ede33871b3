//! Administrative actions, through the log: what changes the administration's own books, and the record of everything else.
//!
//!     operator -> leader -> recorded as asked for -> done (`membership.rs`, …) -> recorded with what came of it
//!
//! Laws
//! * A change of the members, and of the leadership by hand, is in the audit trail before it is done. Below version 2 there is no
//!   trail; drains, snapshots and the making of the cluster are not in it.
//! * The version rises only when every member says that its program knows the new one.
//!
//! Not here: what the actions mean (`raft_store::admin`), and who may ask (the doors).

use std::sync::Arc;

use jangbu_proto::{
    Malformed,
    batch::ADMIN_BYTES_MAX,
    cluster::v1::{
        AdminCommand, AuditRecord, CreateToken, FinalizeUpgradeReply, NodeVersion, Note, RaiseVersion, RevokeToken,
        Token, admin_command::Command,
    },
    reason,
};
use jangbu_raft_store::{StateReader, admin::VERSION_WITH_ADMIN};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use crate::{
    error::CallError,
    membership::Membership,
    proposer::{Proposer, Unapplied},
};

/// Who asked, and from where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Of a certificate; `-`: none was proved.
    pub name: String,
    /// An IP address, of the node that handed the call on if one did; empty: not known.
    pub address: String,
}

/// At the leader only.
pub struct Administration {
    pub proposer: Arc<Proposer>,
    pub state: StateReader,
    pub membership: Arc<Membership>,
}

impl Administration {
    /// Does `work`, recorded before and after. Blocks on a quorum.
    pub async fn audited<T>(
        &self,
        caller: &Caller,
        action: &str,
        detail: String,
        deadline: Instant,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if self.state.version() < VERSION_WITH_ADMIN {
            return work.await;
        }
        let note = |outcome: String| Command::Note(Note { action: action.into(), detail: detail.clone(), outcome });
        self.propose(caller, note(String::new()), deadline).await?;
        let done = work.await;
        let outcome = done.as_ref().err().map_or_else(|| "done".to_owned(), ToString::to_string);
        if let Err(error) = self.propose(caller, note(outcome), deadline).await {
            // After a change of leaders, which may be what was asked for, another node would have to.
            tracing::info!(action, %error, "what came of it is not in the audit trail; that it was asked for is");
        }
        done
    }

    pub async fn create_token(
        &self,
        caller: &Caller,
        token: Token,
        deadline: Instant,
    ) -> Result<AuditRecord, CallError> {
        self.must_have_admin()?;
        self.propose(caller, Command::CreateToken(CreateToken { token: Some(token) }), deadline).await
    }

    pub async fn revoke_token(
        &self,
        caller: &Caller,
        token_id: String,
        deadline: Instant,
    ) -> Result<AuditRecord, CallError> {
        self.must_have_admin()?;
        self.propose(caller, Command::RevokeToken(RevokeToken { token_id }), deadline).await
    }

    /// Raises the cluster's version as far as every member's program allows; tells only what it would do if `dry_run`.
    /// Blocks on all members.
    pub async fn finalize(
        &self,
        caller: &Caller,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<FinalizeUpgradeReply, CallError> {
        // Nobody joins between the question and the entry.
        let _alone = self.membership.alone()?;
        let nodes = self.membership.versions(deadline).await?;
        let version_before = self.state.version();
        let version = nodes.iter().map(|node| node.cluster_version_max).min().unwrap_or(version_before);
        if version < version_before {
            let behind =
                nodes.iter().find(|node| node.cluster_version_max < version_before).map_or(0, |node| node.node_id);
            let message =
                format!("node {behind} knows versions up to {version}, and the cluster is at {version_before}");
            return Err(CallError::precondition(reason::WRONG_VERSION, message));
        }
        if version > version_before && !dry_run {
            self.propose(caller, Command::RaiseVersion(RaiseVersion { version }), deadline).await?;
        }
        Ok(FinalizeUpgradeReply { version_before, version, nodes })
    }

    fn must_have_admin(&self) -> Result<(), CallError> {
        if self.state.version() >= VERSION_WITH_ADMIN {
            return Ok(());
        }
        let message = format!(
            "this needs cluster version {VERSION_WITH_ADMIN}: when every node runs the new program, type: jangbu upgrade finalize"
        );
        Err(CallError::precondition(reason::WRONG_VERSION, message))
    }

    async fn propose(&self, caller: &Caller, command: Command, deadline: Instant) -> Result<AuditRecord, CallError> {
        let command = AdminCommand {
            actor: caller.name.clone(),
            address: caller.address.clone(),
            node_id: self.membership.identity.node_id,
            command: Some(command),
        };
        let command = command.encode_to_vec();
        if command.len() > ADMIN_BYTES_MAX {
            let reason = format!("takes {} bytes; {ADMIN_BYTES_MAX} are allowed", command.len());
            return Err(Malformed::new("action", reason).into());
        }
        let proposed = timeout_at(deadline, self.proposer.administer(&command)).await;
        let record = match proposed {
            Ok(Ok(record)) => record,
            Ok(Err(Unapplied::NotProposed)) => {
                return Err(CallError::unavailable(reason::NOT_LEADER, "the leader has changed; ask again"));
            }
            Ok(Err(Unapplied::Unknown)) | Err(_) => return Err(CallError::OutcomeUnknown),
        };
        match record.refused.as_str() {
            "" => Ok(record),
            refused => Err(CallError::precondition(reason::REFUSED, refused)),
        }
    }
}

/// What a node says of itself when it is asked for its version.
pub fn node_version(node_id: u64, program_version: String, cluster_version_max: u32) -> NodeVersion {
    // A program before versions says nothing.
    NodeVersion { node_id, program_version, cluster_version_max: cluster_version_max.max(1) }
}
