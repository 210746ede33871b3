//! How connections are made and kept: the network seam, and HTTP/2 the way a ledger needs it.
//!
//!     Transport (tcp, tls over another, or a simulated network)
//!        listen  -> Listener -> serve:   the doors of a node
//!        connect -> channel:             the way to a node, from a client or a peer
//!
//! One set of settings holds for both ends. Both ping while idle, because a connection whose other end was unplugged
//! looks just like one on which nothing is said. Windows and frames are sized for batches of a mebibyte.
//!
//! Laws
//! * A refused connection never makes a caller spin: attempts in quick succession wait for each other (`channel`).
//! * A door outlives any error of a single connection, and closes only when it is told to (`tcp`, `server`).
//! * A caller has bounds: connections, calls at once, headers, time to begin, messages not ended, answers not taken (`server`).
//! * When a door has closed, none of its connections is left (`server`).
//!
//! Not here: which node to speak to (`client`, `node/src/peers`).

mod begun;
mod caller;
mod channel;
mod guard;
mod places;
mod refusal;
mod restraint;
mod server;
mod tcp;
mod tls;
mod unread;

use std::{io, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Secret;

pub use caller::{Arrival, Caller, Holder};
pub use channel::{Channel, channel};
pub use guard::Guard;
pub use server::{Door, DoorBuilder, FixedDate, door, guarded_door, serve};
pub use tcp::TcpTransport;
pub use tls::{Certificates, KeyError, KeyFiles, Keyring, OwnFiles, TlsTransport};

/// The largest message a client may send: a request of 8,189 typed events takes less than a third of it.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest reply a client must be ready for: 8,189 change events take up to 4,192,792 bytes, and 4 MiB would leave no
/// room for another field.
pub const CLIENT_REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The largest message between replicas: several full entries in one append.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where processes meet: the real network, or a simulated one.
pub trait Transport: Send + Sync + 'static {
    /// Opens `address` (host:port; port 0: any free one).
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>>;

    /// Makes one connection to `address` (host:port). No retries, no time limit: both are the caller's.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Io>>;

    /// What calls over it show of their caller, beside the connection's certificate. In plain text there must be none: whoever
    /// listens would have it.
    fn token(&self) -> Option<&Secret> {
        None
    }
}

/// One end of a connection.
pub type Io = Box<dyn Wire>;

/// What a connection can do.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// An address that is listened on.
pub struct Listener {
    /// host:port, with the port that was really taken.
    pub address: String,
    /// Who calls. Errors of accepting are the transport's own to wait out; the end means that the address is lost.
    pub incoming: BoxStream<'static, Arrival>,
}

/// How HTTP/2 is spoken, on both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Settings {
    /// How long nothing is heard before a ping is sent, also while no call is under way.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// The pause before the second of several attempts to connect in quick succession; it doubles with each.
    pub connect_backoff_min: Duration,
    /// The longest such pause. It bounds how late a node that came back is found.
    pub connect_backoff_max: Duration,
    /// How long a reset stream is remembered. h2 measures this with the real clock, whatever the runtime's clock says; a
    /// simulation sets it so high that it never comes to that. `None`: h2's default, a second.
    pub reset_stream_duration: Option<Duration>,
    /// Answers carry the same `date` always, as hyper would read the real clock for it. For simulations.
    pub fixed_date: bool,
    /// The most connections a door holds open; those beyond are closed at once.
    pub connections_max: usize,
    /// The most of them from one address; those beyond are closed at once.
    pub connections_per_address_max: usize,
    /// How long a caller may leave an answer unread before its connection is cut, and a message begun and not ended before
    /// its call is.
    pub unread_max: Duration,
    /// The most calls in flight on one connection. tonic would otherwise set no bound at all.
    pub streams_max: u32,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            connect_backoff_min: Duration::from_millis(20),
            connect_backoff_max: Duration::from_millis(250),
            reset_stream_duration: None,
            fixed_date: false,
            connections_max: 10_000,
            connections_per_address_max: 2_000,
            unread_max: Duration::from_secs(30),
            // Each may have an answer of megabytes under way. A client with more callers waits for one of them.
            streams_max: 256,
        }
    }
}

/// What one call may have under way unread: several full batches, so that none waits for a window's round trip.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// What all calls of a connection may have under way unread.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// A full batch in one or two frames instead of sixty-four.
const FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// Room for the ids of an unknown outcome, and for tokens; h2's own default is 16 MiB.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;

#[cfg(test)]
mod tests;
