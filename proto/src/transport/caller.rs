//! Who is at the other end of a connection, as far as the transport can tell.
//!
//! tonic puts the [`Caller`] of a connection among the extensions of each of its requests.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use super::{Io, begun::Room, unread::Unread};
use crate::{Malformed, grant::Identity};

/// A connection that has just come in.
pub struct Arrival {
    pub io: Io,
    pub caller: Caller,
}

/// From a transport that knows nothing of its callers: memory, or a simulated network.
impl From<Io> for Arrival {
    fn from(io: Io) -> Self {
        Self { io, caller: Caller::default() }
    }
}

/// Who called. Clones speak of the same connection.
#[derive(Debug, Clone, Default)]
pub struct Caller(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    address: Option<IpAddr>,
    unread: Arc<Unread>,
    room: Room,
    /// Set when the handshake is over, before any byte of a request is read. Never set: the connection is in plain text.
    secured: OnceLock<Option<Holder>>,
}

/// Whoever has shown a certificate that the door's authority has signed, and has proved to hold its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What the certificate says of its holder; refused here, not at the handshake, so that the caller is told why.
    pub identity: Result<Identity, Malformed>,
    /// Seconds since the Unix epoch.
    pub expires_at_s: i64,
}

impl Caller {
    pub fn from(address: IpAddr) -> Self {
        Self(Arc::new(Known { address: Some(address), ..Known::default() }))
    }

    /// `None`: the transport doesn't know.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.address
    }

    /// Whether the connection is encrypted.
    pub fn is_secured(&self) -> bool {
        self.0.secured.get().is_some()
    }

    /// `None`: no certificate was shown.
    pub fn holder(&self) -> Option<&Holder> {
        self.0.secured.get()?.as_ref()
    }

    pub(super) fn unread(&self) -> &Arc<Unread> {
        &self.0.unread
    }

    pub(super) fn room(&self) -> &Room {
        &self.0.room
    }

    /// The handshake is over.
    pub(super) fn secure(&self, holder: Option<Holder>) {
        let first = self.0.secured.set(holder).is_ok();
        assert!(first, "a connection has one handshake");
    }
}
