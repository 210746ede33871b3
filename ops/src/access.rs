//! From the command line to a client of the ledger, and from a client's errors to a person.

use std::time::Duration;

use jangbu_client::{Client, ClientConfig, ClientError};

use crate::cli::Global;
use crate::error::{Failure, Kind};

/// A client of the nodes named, or of the cluster in this folder.
pub fn client(global: &Global) -> Result<Client, Failure> {
    client_of(&global.endpoints()?, global.timeout)
}

/// Prefers the first of `endpoints`; the others are asked when it does not answer.
pub fn client_of(endpoints: &[String], timeout: Duration) -> Result<Client, Failure> {
    Client::connect(endpoints, ClientConfig { deadline: timeout, ..ClientConfig::default() }).map_err(failure)
}

pub fn failure(error: ClientError) -> Failure {
    let message = error.to_string();
    match error {
        ClientError::Refused(_) => Failure::usage(message),
        ClientError::Overloaded { .. } => Failure::new(Kind::Unavailable, message)
            .advise("nothing was done; come back in a moment, or give it longer with --timeout"),
        ClientError::Unavailable { .. } => Failure::new(Kind::Unavailable, message)
            .advise("nothing was done; see which nodes answer: jangbu cluster health"),
        ClientError::OutcomeUnknown { .. } => Failure::new(Kind::OutcomeUnknown, message)
            .advise("it may have been done: ask again with the same ids, which is always safe"),
        ClientError::NotAllowed { .. } => Failure::new(Kind::Conflict, message),
        ClientError::Unintelligible(_) => Failure::general(message)
            .advise("the node answers in a way this program does not know: compare `jangbu version`"),
    }
}
