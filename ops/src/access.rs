//! From the command line to a client of the ledger, and from a client's errors to a person.
//!
//! Not here: what certificates allow (`node/src/access.rs`), how they are made (`cert`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jangbu_client::{Client, ClientConfig, ClientError};
use jangbu_proto::token::BearerToken;
use jangbu_proto::transport::{Certificates, KeyFiles, Keyring, OwnFiles, TcpTransport, TlsTransport, Transport};
use jangbu_proto::{Secret, reason};

use crate::cli::Global;
use crate::error::{Failure, Kind};

/// How nodes are reached: encrypted, or in plain text.
pub type Way = Arc<dyn Transport>;

pub fn plain() -> Way {
    Arc::new(TcpTransport)
}

/// Encrypted: to nodes that `authority` vouches for; with `own` or a token, one is somebody there.
pub fn encrypted(authority: PathBuf, own: Option<OwnFiles>, token: Option<Secret>) -> Result<Way, Failure> {
    let keyring = Keyring::open(KeyFiles { authority, own }, Certificates::Optional, None);
    let keyring = keyring.map_err(|error| {
        Failure::new(Kind::Denied, error.to_string()).advise("make certificates with `jangbu cert`, or name others")
    })?;
    let way = TlsTransport::to_hosts(plain(), keyring);
    Ok(Arc::new(match token {
        Some(token) => way.with_token(token),
        None => way,
    }))
}

/// What proves to the nodes who is asking, and to whoever asks that they are the nodes.
#[derive(Clone, Debug, Default, Args)]
pub struct Papers {
    /// The authority for clients (PEM). Default: that of the cluster in ./jangbu-dev, if its nodes are asked.
    #[arg(long, global = true, value_name = "FILE", env = "JANGBU_CA")]
    pub ca: Option<PathBuf>,
    /// Your client certificate (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "JANGBU_CERT")]
    pub cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "JANGBU_KEY")]
    pub key: Option<PathBuf>,
    /// A file that holds a token, which is shown instead of a certificate.
    #[arg(long, global = true, value_name = "FILE", env = "JANGBU_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

impl Papers {
    /// `None`: none are named.
    pub fn way(&self) -> Result<Option<Way>, Failure> {
        let own = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => Some(OwnFiles { certificate: certificate.clone(), key: key.clone() }),
            (None, None) => None,
            _ => return Err(Failure::usage("--cert and --key go together")),
        };
        match (&self.ca, own, self.token()?) {
            (Some(ca), own, token) => encrypted(ca.clone(), own, token).map(Some),
            (None, None, None) => Ok(None),
            (None, ..) => Err(Failure::usage(
                "--cert and --key, and a token, need --ca: the authority that vouches for the nodes to whom they are shown",
            )),
        }
    }

    /// Of a file only: every user of a machine sees what others type, and what is in the environment is inherited.
    fn token(&self) -> Result<Option<Secret>, Failure> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))?;
        match BearerToken::parse(text.trim()) {
            Ok(token) => Ok(Some(token.to_secret())),
            Err(malformed) => Err(Failure::usage(format!("{}: {malformed}", path.display()))),
        }
    }
}

/// A client of the nodes named, or of the cluster in this folder.
pub fn client(global: &Global) -> Result<Client, Failure> {
    client_of(&global.endpoints()?, global.timeout, &global.way()?)
}

/// Prefers the first of `endpoints`; the others are asked when it does not answer.
pub fn client_of(endpoints: &[String], timeout: Duration, way: &Way) -> Result<Client, Failure> {
    let config = ClientConfig { deadline: timeout, transport: way.clone(), ..ClientConfig::default() };
    Client::connect(endpoints, config).map_err(failure)
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
        ClientError::NotAllowed { reason, .. } if is_denial(&reason) => denied(message),
        ClientError::NotAllowed { .. } => Failure::new(Kind::Conflict, message),
        ClientError::Unintelligible(_) => Failure::general(message)
            .advise("the node answers in a way this program does not know: compare `jangbu version`"),
    }
}

fn is_denial(reason: &str) -> bool {
    [
        reason::NO_IDENTITY,
        reason::IDENTITY_EXPIRED,
        reason::IDENTITY_REVOKED,
        reason::ROLE_MISSING,
        reason::LEDGER_NOT_GRANTED,
    ]
    .contains(&reason)
}

/// Whoever asks may not.
pub fn denied(message: String) -> Failure {
    Failure::new(Kind::Denied, message)
        .advise("show another certificate with --cert and --key (see what one grants: jangbu cert show FILE), or a token with --token-file")
}
