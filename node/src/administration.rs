//! Administrative actions, through the log: what changes the administration's own books, and the record of everything else.
//!
//!     operator -> leader -> recorded as asked for -> done (`membership.rs`, …) -> recorded with what came of it
//!
//! Laws
//! * A change of the members, and of the leadership by hand, is in the audit trail before it is done. Below version 2 there is no
//!   trail. The making of the cluster is recorded once it is made.
//! * What is done to one node (drains, snapshots) is recorded in the same way if a quorum takes the record in good time; it is
//!   done in any case, as it may be needed where there is no quorum. So is who reads all the books (backups, exports).
//! * The version rises only when every member says that its program knows the new one.
//!
//! Not here: what the actions mean (`raft_store::admin`), and who may ask (the doors).

use std::{sync::Arc, time::Duration};

use jangbu_ledger::planted::{self, Bug};
use jangbu_proto::{
    Malformed,
    batch::ADMIN_BYTES_MAX,
    cluster::v1::{
        AdminCommand, AuditRecord, CreateToken, FinalizeUpgradeReply, NodeVersion, Note, RaiseVersion, RecordRequest,
        RevokeToken, Token, admin_command::Command,
    },
    reason,
};
use jangbu_raft_store::{
    StateReader,
    admin::{NOTE_BACKUP, NOTE_DONE, VERSION_WITH_ADMIN},
};
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    error::CallError,
    leadership::Route,
    membership::Membership,
    peers::Purpose,
    proposer::{Proposer, Unapplied},
};

/// Who asked, and from where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Of a certificate; `-`: none was proved.
    pub name: String,
    /// An IP address; empty: not known.
    pub address: String,
}

/// How long what is done to one node waits for its record: longer than an election, and not so long that a person gives up.
const RECORD_LIMIT: Duration = Duration::from_secs(2);

/// Of the name of a place of backups.
const PLACE_BYTES_MAX: usize = 512;

/// Between attempts to find the leader.
const RECORD_PAUSE: Duration = Duration::from_millis(20);

pub struct Administration {
    pub proposer: Arc<Proposer>,
    pub state: StateReader,
    pub membership: Arc<Membership>,
}

impl Administration {
    /// Does `work`, recorded before and after; at the leader. Blocks on a quorum.
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
        let note = |outcome: &str| Note { action: action.into(), detail: detail.clone(), outcome: outcome.into() };
        self.record(caller, note(""), deadline).await?;
        let done = work.await;
        // The leader may be another one by now; that may be what was asked for.
        if let Err(error) = self.record(caller, note(&outcome_of(&done)), deadline).await {
            tracing::info!(action, %error, "what came of it is not in the audit trail; that it was asked for is");
        }
        done
    }

    /// Does `work`, which is of this node alone: recorded before and after if that can be had in time, and done in any case.
    /// Waits for a quorum, and no longer than a moment.
    pub async fn noted<T>(
        &self,
        caller: &Caller,
        action: &str,
        deadline: Instant,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if self.state.version() < VERSION_WITH_ADMIN {
            return work.await;
        }
        let detail = format!("node {}", self.membership.identity.node_id);
        let note = |outcome: &str| Note { action: action.into(), detail: detail.clone(), outcome: outcome.into() };
        self.note(caller, note(""), deadline).await;
        let done = work.await;
        self.note(caller, note(&outcome_of(&done)), deadline).await;
        done
    }

    /// Has recorded that somebody reads all the books from this node. It is handed out in any case: a backup may be what is left
    /// where there is no quorum. Waits for one, and no longer than a moment.
    pub async fn note_reading(&self, caller: &Caller, action: &str, detail: String, deadline: Instant) {
        if self.state.version() < VERSION_WITH_ADMIN {
            return;
        }
        let detail = format!("node {}, {detail}", self.membership.identity.node_id);
        self.note(caller, Note { action: action.into(), detail, outcome: NOTE_DONE.into() }, deadline).await;
    }

    async fn note(&self, caller: &Caller, note: Note, deadline: Instant) {
        let (action, outcome) = (note.action.clone(), note.outcome.clone());
        let limit = deadline.min(Instant::now() + RECORD_LIMIT);
        if let Err(error) = self.record(caller, note, limit).await {
            tracing::warn!(action, outcome, who = caller.name, %error, "this is not in the audit trail");
        }
    }

    /// There is a backup: recorded, so that every node knows of it. Blocks on a quorum.
    pub async fn record_backup(
        &self,
        caller: &Caller,
        log_index: u64,
        place: &str,
        deadline: Instant,
    ) -> Result<AuditRecord, CallError> {
        self.must_have_admin()?;
        if place.len() > PLACE_BYTES_MAX {
            let reason = format!("takes {} bytes; {PLACE_BYTES_MAX} are allowed", place.len());
            return Err(Malformed::new("place", reason).into());
        }
        let detail = format!("to entry {log_index}, in {place}");
        self.record(caller, Note { action: NOTE_BACKUP.into(), detail, outcome: NOTE_DONE.into() }, deadline).await
    }

    /// Has something recorded that is done by other means, wherever the leader is; while there is none, waits for one, and no
    /// longer than a moment. Blocks on a quorum.
    pub async fn record(&self, caller: &Caller, note: Note, deadline: Instant) -> Result<AuditRecord, CallError> {
        let command = self.command(caller, Command::Note(note));
        let leader_until = deadline.min(Instant::now() + RECORD_LIMIT);
        loop {
            match self.record_once(command.clone(), deadline).await {
                // In no log: it can't be there twice.
                Err(CallError::Unavailable { .. }) if Instant::now() + RECORD_PAUSE < leader_until => {
                    sleep(RECORD_PAUSE).await;
                }
                recorded => return recorded,
            }
        }
    }

    async fn record_once(&self, command: AdminCommand, deadline: Instant) -> Result<AuditRecord, CallError> {
        match self.membership.route() {
            Route::Here => self.propose(command, deadline).await,
            Route::There(leader, node) => {
                let link = self.membership.peers.link(leader, &node, Purpose::Append);
                let asked = async {
                    let request = RecordRequest { envelope: Some(link.envelope()), command: Some(command) };
                    link.client()?.record(request).await
                };
                match timeout_at(deadline, asked).await {
                    Ok(Ok(record)) => Ok(record.into_inner()),
                    Ok(Err(status)) if reason::told(&status).reason == reason::NOT_LEADER => {
                        Err(CallError::unavailable(reason::NOT_LEADER, "the leader has changed; ask again"))
                    }
                    Ok(Err(_)) | Err(_) => Err(CallError::OutcomeUnknown),
                }
            }
            Route::Unknown => Err(CallError::unavailable(reason::NO_LEADER, "no leader is known")),
        }
    }

    /// Records what is done on another member, which asks for it. Blocks on a quorum.
    pub async fn record_for(
        &self,
        member: u64,
        command: Option<AdminCommand>,
        deadline: Instant,
    ) -> Result<AuditRecord, CallError> {
        let command = command.ok_or_else(|| Malformed::new("command", "is missing"))?;
        match command.command {
            Some(Command::Note(_)) if command.node_id == member => self.propose(command, deadline).await,
            _ => Err(Malformed::new("command", "is not a note of what was done on the node that sends it").into()),
        }
    }

    pub async fn create_token(
        &self,
        caller: &Caller,
        token: Token,
        deadline: Instant,
    ) -> Result<AuditRecord, CallError> {
        self.must_have_admin()?;
        let command = Command::CreateToken(CreateToken { token: Some(token) });
        self.propose(self.command(caller, command), deadline).await
    }

    pub async fn revoke_token(
        &self,
        caller: &Caller,
        token_id: String,
        deadline: Instant,
    ) -> Result<AuditRecord, CallError> {
        self.must_have_admin()?;
        let command = Command::RevokeToken(RevokeToken { token_id });
        self.propose(self.command(caller, command), deadline).await
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
        let mut known: Vec<u32> = nodes.iter().map(|node| node.cluster_version_max).collect();
        known.sort_unstable();
        let lowest = usize::from(planted::is(Bug::FinalizeForgetsOne));
        let version = known.get(lowest).copied().unwrap_or(version_before);
        if version < version_before {
            let behind =
                nodes.iter().find(|node| node.cluster_version_max < version_before).map_or(0, |node| node.node_id);
            let message =
                format!("node {behind} knows versions up to {version}, and the cluster is at {version_before}");
            return Err(CallError::precondition(reason::WRONG_VERSION, message));
        }
        if version > version_before && !dry_run {
            let command = Command::RaiseVersion(RaiseVersion { version });
            self.propose(self.command(caller, command), deadline).await?;
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

    fn command(&self, caller: &Caller, command: Command) -> AdminCommand {
        AdminCommand {
            actor: caller.name.clone(),
            address: caller.address.clone(),
            node_id: self.membership.identity.node_id,
            command: Some(command),
        }
    }

    /// At the leader only.
    async fn propose(&self, command: AdminCommand, deadline: Instant) -> Result<AuditRecord, CallError> {
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

/// As it is recorded.
fn outcome_of<T>(done: &Result<T, CallError>) -> String {
    done.as_ref().err().map_or_else(|| NOTE_DONE.to_owned(), ToString::to_string)
}

/// What a node says of itself when it is asked for its version.
pub fn node_version(node_id: u64, program_version: String, cluster_version_max: u32) -> NodeVersion {
    // A program before versions says nothing.
    NodeVersion { node_id, program_version, cluster_version_max: cluster_version_max.max(1) }
}
