//! Why a call failed: the one table of error reasons, and how they travel.
//!
//! A gRPC code tells programs of any language the kind of failure; `ErrorInfo.reason` tells which one it is, and a client
//! of ours goes by that. What the rules of money refuse is no failure: it is a status inside an OK reply.
//!
//! | code                | reasons                                                | was it done? | what to do                |
//! |---------------------|--------------------------------------------------------|--------------|---------------------------|
//! | INVALID_ARGUMENT    | MALFORMED (with BadRequest)                            | no           | mend the request          |
//! | RESOURCE_EXHAUSTED  | OVERLOADED (with RetryInfo)                            | no           | come back after the delay |
//! | UNAVAILABLE         | NO_LEADER, NO_QUORUM, NOT_LEADER, STALE, NOT_READY,    | no           | ask again, here or at     |
//! |                     | SHUTTING_DOWN, FENCED                                  |              | another node              |
//! | DEADLINE_EXCEEDED   | NOT_PROPOSED                                           | no           | ask again                 |
//! | DEADLINE_EXCEEDED   | OUTCOME_UNKNOWN (with the ids)                         | maybe        | ask again, with those ids |
//! | UNAUTHENTICATED     | NO_IDENTITY, IDENTITY_EXPIRED, IDENTITY_REVOKED        | no           | show another certificate  |
//! |                     |                                                        |              | or token                  |
//! | PERMISSION_DENIED   | WRONG_CLUSTER, WRONG_NODE, WRONG_INCARNATION,          | no           | an operator must look     |
//! |                     | NOT_A_MEMBER (with a Removal, if it was one)           |              |                           |
//! | PERMISSION_DENIED   | ROLE_MISSING, LEDGER_NOT_GRANTED                       | no           | ask for the grant         |
//! | FAILED_PRECONDITION | ALREADY_INITIALIZED, NOT_INITIALIZED, NODE_IN_USE,     | no           | the message says          |
//! |                     | UNKNOWN_NODE, MEMBERSHIP_BUSY, LAGGING, NO_QUORUM_LEFT,|              |                           |
//! |                     | GONE_BY, HISTORY_DIFFERS, SNAPSHOT_UNUSABLE,           |              |                           |
//! |                     | WRONG_VERSION, REFUSED                                 |              |                           |
//! | INTERNAL            | INTERNAL                                               | maybe        | an operator must look     |
//!
//! Laws
//! * After a proposal has left, no failure says that nothing happened: it is OUTCOME_UNKNOWN (or INTERNAL).
//! * The same failure makes the same bytes: no map of random order reaches the wire.
//!
//! Not here: which failure of a node gets which reason (`node/src/api/status.rs`).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::{Malformed, cluster, jangbu::v1};

/// The request makes no sense.
pub const MALFORMED: &str = "MALFORMED";

/// More load than capacity.
pub const OVERLOADED: &str = "OVERLOADED";

/// No leader is known.
pub const NO_LEADER: &str = "NO_LEADER";
/// The leader can't reach enough voters to be sure that it is the leader.
pub const NO_QUORUM: &str = "NO_QUORUM";
/// This replica isn't the leader (between replicas only; clients may ask any node).
pub const NOT_LEADER: &str = "NOT_LEADER";
/// What this replica has is staler than the read allows.
pub const STALE: &str = "STALE";
/// This node is starting, or in no cluster yet.
pub const NOT_READY: &str = "NOT_READY";
/// This node is about to stop.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// This replica has taken itself out of service because it can't be trusted.
pub const FENCED: &str = "FENCED";

/// The deadline passed before the request was proposed.
pub const NOT_PROPOSED: &str = "NOT_PROPOSED";
/// The request was proposed, and whether it was carried out isn't known here.
pub const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// The sender belongs to another cluster.
pub const WRONG_CLUSTER: &str = "WRONG_CLUSTER";
/// The sender meant another node.
pub const WRONG_NODE: &str = "WRONG_NODE";
/// The sender's data folder isn't the one that the membership knows.
pub const WRONG_INCARNATION: &str = "WRONG_INCARNATION";
/// The sender isn't in the membership.
pub const NOT_A_MEMBER: &str = "NOT_A_MEMBER";

/// Nothing proves who the caller is.
pub const NO_IDENTITY: &str = "NO_IDENTITY";
/// What proves it has expired.
pub const IDENTITY_EXPIRED: &str = "IDENTITY_EXPIRED";
/// The token that proves it was revoked.
pub const IDENTITY_REVOKED: &str = "IDENTITY_REVOKED";
/// The caller has none of the roles that the call needs.
pub const ROLE_MISSING: &str = "ROLE_MISSING";
/// The caller's roles don't hold for this ledger.
pub const LEDGER_NOT_GRANTED: &str = "LEDGER_NOT_GRANTED";

/// The node is in a cluster already.
pub const ALREADY_INITIALIZED: &str = "ALREADY_INITIALIZED";
/// The node is in no cluster yet.
pub const NOT_INITIALIZED: &str = "NOT_INITIALIZED";
/// The node to be added belongs to a cluster, or its id was used before.
pub const NODE_IN_USE: &str = "NODE_IN_USE";
/// The membership knows no such node.
pub const UNKNOWN_NODE: &str = "UNKNOWN_NODE";
/// Another change of the membership is under way.
pub const MEMBERSHIP_BUSY: &str = "MEMBERSHIP_BUSY";
/// The node has yet to catch up.
pub const LAGGING: &str = "LAGGING";
/// Too few voters would be left.
pub const NO_QUORUM_LEFT: &str = "NO_QUORUM_LEFT";
/// The log index that was asked for has gone by.
pub const GONE_BY: &str = "GONE_BY";
/// Another entry stands in the log where the caller's stands.
pub const HISTORY_DIFFERS: &str = "HISTORY_DIFFERS";

/// The cluster's version doesn't have that yet, or a node's program doesn't know the cluster's version.
pub const WRONG_VERSION: &str = "WRONG_VERSION";

/// The administration's books say no; the audit trail has it.
pub const REFUSED: &str = "REFUSED";

/// The files of a snapshot are what was promised, and no state can be opened from them (between replicas only).
pub const SNAPSHOT_UNUSABLE: &str = "SNAPSHOT_UNUSABLE";

/// A fault of ours.
pub const INTERNAL: &str = "INTERNAL";

/// `ErrorInfo.domain`.
pub const DOMAIN: &str = "jangbu";

/// How many ids an OUTCOME_UNKNOWN spells out: about 4 KB, well within the headers an error travels in.
pub const IDS_MAX: usize = 100;

// --- written by a node

/// A failure with nothing to add to its reason and message.
pub fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    compose(code, message.into(), vec![error_info(reason, BTreeMap::new())])
}

/// INVALID_ARGUMENT, with the field in BadRequest.
pub fn malformed(malformed: &Malformed) -> Status {
    let violation = pb::bad_request::FieldViolation {
        field: malformed.field.clone(),
        description: malformed.reason.clone(),
        ..Default::default()
    };
    let bad_request = pb::BadRequest { field_violations: vec![violation] };
    let details = vec![error_info(MALFORMED, BTreeMap::new()), any(BAD_REQUEST, &bad_request)];
    compose(Code::InvalidArgument, malformed.to_string(), details)
}

/// PERMISSION_DENIED, with what proves to the caller that it was removed.
pub fn removed(message: impl Into<String>, removal: &cluster::v1::Removal) -> Status {
    let details = vec![error_info(NOT_A_MEMBER, BTreeMap::new()), any(REMOVAL, removal)];
    compose(Code::PermissionDenied, message.into(), details)
}

/// RESOURCE_EXHAUSTED, with the delay in RetryInfo.
pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Status {
    let retry_delay =
        prost_types::Duration { seconds: retry_after.as_secs() as i64, nanos: retry_after.subsec_nanos() as i32 };
    let retry_info = pb::RetryInfo { retry_delay: Some(retry_delay) };
    let details = vec![error_info(OVERLOADED, BTreeMap::new()), any(RETRY_INFO, &retry_info)];
    compose(Code::ResourceExhausted, message.into(), details)
}

/// DEADLINE_EXCEEDED, with the ids in ErrorInfo's metadata: `ids_count`, `first_id`, `last_id`, and up to [`IDS_MAX`] of them
/// in `ids`, in the order asked.
pub fn outcome_unknown(message: impl Into<String>, ids: impl ExactSizeIterator<Item = u128> + Clone) -> Status {
    let mut metadata = BTreeMap::from([("ids_count".to_owned(), ids.len().to_string())]);
    if let Some(first) = ids.clone().next() {
        let last = ids.clone().last().expect("there is a first");
        let listed: Vec<String> = ids.take(IDS_MAX).map(|id| id.to_string()).collect();
        metadata.insert("first_id".to_owned(), first.to_string());
        metadata.insert("last_id".to_owned(), last.to_string());
        metadata.insert("ids".to_owned(), listed.join(","));
    }
    compose(Code::DeadlineExceeded, message.into(), vec![error_info(OUTCOME_UNKNOWN, metadata)])
}

/// A failure as it travels on a packed stream.
pub fn failure(status: &Status) -> v1::Failure {
    let told = told(status);
    v1::Failure {
        code: status.code() as i32,
        reason: told.reason,
        message: status.message().to_owned(),
        retry_after_ms: told.retry_after.map_or(0, |delay| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)),
    }
}

// --- read by a client

/// What a failure tells beyond its code and message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Empty when the failure isn't one of ours: a connection broke, or something between us answered.
    pub reason: String,
    pub retry_after: Option<Duration>,
    /// The first field that BadRequest names.
    pub field: Option<Malformed>,
    /// Goes with NOT_A_MEMBER.
    pub removal: Option<cluster::v1::Removal>,
}

/// What a failure tells. Details that can't be read tell nothing.
pub fn told(status: &Status) -> Told {
    let mut told = Told::default();
    let details = pb::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    for detail in details {
        match detail.type_url.as_str() {
            ERROR_INFO => told.reason = decoded::<ErrorInfo>(&detail).filter(is_ours).unwrap_or_default().reason,
            RETRY_INFO => told.retry_after = decoded(&detail).and_then(retry_delay),
            BAD_REQUEST => told.field = decoded(&detail).and_then(first_violation),
            REMOVAL => told.removal = decoded(&detail),
            _ => {}
        }
    }
    told
}

/// The same, of a failure on a packed stream, as a gRPC status.
pub fn status_of_failure(failure: &v1::Failure) -> Status {
    let code = Code::from_i32(failure.code);
    match failure.reason.as_str() {
        OVERLOADED => overloaded(&failure.message, Duration::from_millis(failure.retry_after_ms.into())),
        reason => status(code, reason, &failure.message),
    }
}

fn is_ours(info: &ErrorInfo) -> bool {
    info.domain == DOMAIN
}

fn retry_delay(info: pb::RetryInfo) -> Option<Duration> {
    info.retry_delay.and_then(|delay| delay.try_into().ok())
}

fn first_violation(bad_request: pb::BadRequest) -> Option<Malformed> {
    let violation = bad_request.field_violations.into_iter().next()?;
    Some(Malformed::new(violation.field, violation.description))
}

// --- the form of google.rpc

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const REMOVAL: &str = "type.googleapis.com/cluster.v1.Removal";

/// google.rpc.ErrorInfo with its metadata in order: tonic-types keeps it in a HashMap, whose order would reach the wire.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

fn error_info(reason: &str, metadata: BTreeMap<String, String>) -> Any {
    any(ERROR_INFO, &ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), metadata })
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

fn decoded<M: Message + Default>(detail: &Any) -> Option<M> {
    M::decode(&detail.value[..]).ok()
}

fn compose(code: Code, message: String, details: Vec<Any>) -> Status {
    let status = pb::Status { code: code as i32, message: message.clone(), details };
    Status::with_details(code, message, Bytes::from(status.encode_to_vec()))
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn a_malformed_field_is_named_in_bad_request() {
        let refusal = Malformed::new("transfers[3].code", "65536 is above 65,535");
        let status = malformed(&refusal);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(told(&status), Told { reason: MALFORMED.into(), field: Some(refusal), ..Told::default() });
        let bad_request = status.get_details_bad_request().expect("others read it too");
        assert_eq!(bad_request.field_violations[0].field, "transfers[3].code");
    }

    #[test]
    fn an_overload_says_when_to_come_back() {
        let status = overloaded("the queue is full", Duration::from_millis(250));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(told(&status).retry_after, Some(Duration::from_millis(250)));
        assert_eq!(status.get_details_retry_info().and_then(|info| info.retry_delay), Some(Duration::from_millis(250)));
    }

    #[test]
    fn an_unknown_outcome_names_its_ids_within_a_bound() {
        let status =
            outcome_unknown("the leader is gone", (1..=8_189).map(|id| u128::MAX - id).collect::<Vec<_>>().into_iter());
        let info = status.get_details_error_info().expect("others read it too");
        assert_eq!(info.reason, OUTCOME_UNKNOWN);
        assert_eq!(info.domain, DOMAIN);
        assert_eq!(info.metadata["ids_count"], "8189");
        assert_eq!(info.metadata["first_id"], (u128::MAX - 1).to_string());
        assert_eq!(info.metadata["last_id"], (u128::MAX - 8_189).to_string());
        assert_eq!(info.metadata["ids"].split(',').count(), IDS_MAX);
        assert!(status.details().len() < 6 * 1024);
    }

    #[test]
    fn a_removal_comes_with_its_proof() {
        let removal = cluster::v1::Removal {
            cluster_id: Bytes::from_static(&[7; 16]),
            membership: Some(cluster::v1::LogId { term: 3, node_id: 2, index: 40 }),
        };
        let status = removed("node 3 was removed", &removal);
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(told(&status), Told { reason: NOT_A_MEMBER.into(), removal: Some(removal), ..Told::default() });
    }

    #[test]
    fn the_same_failure_makes_the_same_bytes() {
        let bytes = || outcome_unknown("unknown", [3, 1, 2].into_iter()).details().to_vec();
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn a_failure_survives_the_packed_stream() {
        for status in [
            overloaded("full", Duration::from_millis(40)),
            status(Code::Unavailable, NO_LEADER, "no leader is known"),
            outcome_unknown("unknown", [1].into_iter()),
        ] {
            let back = status_of_failure(&failure(&status));
            assert_eq!(back.code(), status.code());
            assert_eq!(back.message(), status.message());
            assert_eq!(told(&back), told(&status));
        }
    }

    #[test]
    fn a_foreign_failure_tells_no_reason() {
        assert_eq!(told(&Status::unavailable("connection refused")), Told::default());
        assert_eq!(told(&Status::with_details(Code::Unavailable, "", Bytes::from_static(b"\xff"))), Told::default());
    }
}
