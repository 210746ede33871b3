//! Why a call gave no answer, told by what the caller can do next.
//!
//! What the rules of money refuse is no error: it is a status in the results.

use std::time::Duration;

use jangbu_proto::Malformed;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The request makes no sense, and nothing was done. Mend it; asking again is useless.
    #[error("refused: {0}")]
    Refused(Malformed),

    /// More load than capacity, and nothing was done. Come back after `retry_after`, or do without.
    #[error("overloaded: {message}; come back in {retry_after:?}")]
    Overloaded { retry_after: Duration, message: String },

    /// No node could answer in time, and nothing was done. Ask again when you like, under the same ids or others.
    /// `reason` is one of [`crate::reason`], or empty when no node said anything.
    #[error("unavailable: {message}")]
    Unavailable { reason: String, message: String },

    /// It may or may not have been done. Ask again with the same ids: that settles it, and moves no money twice.
    #[error("the outcome is unknown ({message}): ask again with the same id{}", if ids.len() == 1 { "" } else { "s" })]
    OutcomeUnknown { ids: Vec<u128>, message: String },

    /// The node understood and won't: the cluster's state doesn't allow it, or the caller may not. Nothing was done.
    /// `reason` is one of [`crate::reason`], or empty.
    #[error("not allowed: {message}")]
    NotAllowed { reason: String, message: String },

    /// An answer came and can't be read: client and node are of versions that don't fit. A write was carried out.
    #[error("the answer makes no sense: {0}")]
    Unintelligible(Malformed),
}

impl ClientError {
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { reason: String::new(), message: message.into() }
    }

    /// Names the node that was asked last: of several, the others failed no better.
    pub(crate) fn at(self, address: &str) -> Self {
        match self {
            Self::Unavailable { reason, message } => {
                Self::Unavailable { reason, message: format!("{address}: {message}") }
            }
            other => other,
        }
    }

    /// Certain that nothing was done?
    pub fn nothing_was_done(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. } | Self::Unintelligible(_))
    }
}
