//! openraft's types and the wire's, both ways: complete, or refused with the field's name.

use jangbu_ledger::planted::{self, Bug};
use jangbu_proto::{Malformed, cluster::v1 as wire};
use jangbu_raft_store::{LogId, TypeConfig, Vote, type_config::log_id};
use openraft::{
    raft::{StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse},
    vote::RaftLeaderId,
};

pub fn vote_to_wire(vote: &Vote) -> wire::Vote {
    let leader = vote.leader_id();
    wire::Vote { term: leader.term(), node_id: *leader.node_id(), committed: vote.is_committed() }
}

pub fn vote_from_wire(vote: Option<wire::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or_else(|| Malformed::new("vote", "is missing"))?;
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.node_id),
        false => Vote::new(vote.term, vote.node_id),
    })
}

pub fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

pub fn log_id_from_wire(id: wire::LogId) -> LogId {
    log_id(id.term, id.node_id, id.index)
}

pub fn vote_request_to_wire(request: &VoteRequest<TypeConfig>, envelope: wire::Envelope) -> wire::VoteRequest {
    wire::VoteRequest {
        envelope: Some(envelope),
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

pub fn vote_request_from_wire(request: wire::VoteRequest) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let vote = vote_from_wire(request.vote)?;
    let mut asked = VoteRequest::new(vote, request.last_log_id.map(log_id_from_wire));
    asked.leadership_transfer = request.leadership_transfer;
    Ok(asked)
}

pub fn vote_reply_to_wire(reply: &VoteResponse<TypeConfig>) -> wire::VoteReply {
    wire::VoteReply {
        vote: Some(vote_to_wire(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub fn vote_reply_from_wire(reply: wire::VoteReply) -> Result<VoteResponse<TypeConfig>, Malformed> {
    let vote = vote_from_wire(reply.vote)?;
    Ok(VoteResponse::new(vote, reply.last_log_id.map(log_id_from_wire), reply.granted))
}

pub fn append_result_to_wire(result: StreamAppendResult<TypeConfig>) -> wire::AppendReply {
    use wire::append_reply::Outcome;
    let outcome = match result {
        Ok(matched) => Outcome::Matched(wire::Matched { log_id: matched.as_ref().map(log_id_to_wire) }),
        Err(StreamAppendError::Conflict(id)) if planted::is(Bug::AckBeforeCommit) => {
            Outcome::Matched(wire::Matched { log_id: Some(log_id_to_wire(&id)) })
        }
        Err(StreamAppendError::Conflict(id)) => Outcome::Conflict(log_id_to_wire(&id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(vote_to_wire(&vote)),
    };
    wire::AppendReply { outcome: Some(outcome) }
}

pub fn append_result_from_wire(reply: wire::AppendReply) -> Result<StreamAppendResult<TypeConfig>, Malformed> {
    use wire::append_reply::Outcome;
    Ok(match reply.outcome.ok_or_else(|| Malformed::new("outcome", "is missing"))? {
        Outcome::Matched(matched) => Ok(matched.log_id.map(log_id_from_wire)),
        Outcome::Conflict(id) => Err(StreamAppendError::Conflict(log_id_from_wire(id))),
        Outcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_wire(Some(vote))?)),
    })
}

pub fn transfer_to_wire(
    request: &TransferLeaderRequest<TypeConfig>,
    envelope: wire::Envelope,
) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        envelope: Some(envelope),
        from_leader: Some(vote_to_wire(request.from_leader())),
        to_node: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

pub fn transfer_from_wire(
    request: wire::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    let from = vote_from_wire(request.from_leader)?;
    Ok(TransferLeaderRequest::new(from, request.to_node, request.last_log_id.map(log_id_from_wire)))
}
