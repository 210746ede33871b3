//! The one table from errors to codes. Details are `google.rpc`'s (`proto::reason`).

use jangbu_proto::reason;
use tonic::{Code, Status};

use crate::error::CallError;

pub fn to_status(error: CallError) -> Status {
    let message = error.to_string();
    match error {
        CallError::Malformed(malformed) => reason::malformed(&malformed),
        CallError::Overloaded { retry_after, .. } => reason::overloaded(message, retry_after),
        CallError::Unavailable { reason, .. } => reason::status(Code::Unavailable, reason, message),
        CallError::NotProposed => reason::status(Code::DeadlineExceeded, reason::NOT_PROPOSED, message),
        CallError::OutcomeUnknown => unknown(std::iter::empty()),
        CallError::Unauthenticated { reason, .. } => reason::status(Code::Unauthenticated, reason, message),
        CallError::Denied { reason, .. } => reason::status(Code::PermissionDenied, reason, message),
        CallError::Removed { removal, .. } => reason::removed(message, &removal),
        CallError::Precondition { reason, .. } => reason::status(Code::FailedPrecondition, reason, message),
        CallError::Internal { .. } => reason::status(Code::Internal, reason::INTERNAL, message),
    }
}

/// The same, naming the ids whose fate is unknown.
pub fn to_status_with_ids(error: CallError, ids: impl ExactSizeIterator<Item = u128> + Clone) -> Status {
    match error {
        CallError::OutcomeUnknown => unknown(ids),
        error => to_status(error),
    }
}

fn unknown(ids: impl ExactSizeIterator<Item = u128> + Clone) -> Status {
    reason::outcome_unknown(CallError::OutcomeUnknown.to_string(), ids)
}
