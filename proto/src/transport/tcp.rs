//! The real network.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use super::{Arrival, Caller, Io, Listener, Transport};

/// Calls that may wait to be accepted; Linux cuts it to net.core.somaxconn.
const BACKLOG: u32 = 1_024;

/// How long to wait when the machine is out of something (file descriptors, memory): long enough not to spin, short
/// enough to be there when it has some again.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        Box::pin(async move {
            let listener = bind(&address).await?;
            let address = listener.local_addr()?.to_string();
            let incoming = stream::unfold(listener, |listener| async move {
                let arrival = accept(&listener).await;
                Some((arrival, listener))
            });
            Ok(Listener { address, incoming: incoming.boxed() })
        })
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        Box::pin(async move { TcpStream::connect(address).await.map(prepared) })
    }
}

async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the address names no host");
    for address in lookup_host(address).await? {
        match bind_one(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A node that comes back takes its port although connections of its former life linger in the kernel.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection, however long it takes: no error here is a reason to stop listening.
async fn accept(listener: &TcpListener) -> Arrival {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => return Arrival { io: prepared(stream), caller: Caller::from(from.ip()) },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "can't accept connections; trying again");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// The caller hung up before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn prepared(stream: TcpStream) -> Io {
    // Small messages must not wait for the acknowledgement of the one before. A socket that refuses is a dead one; whoever
    // reads it will see that.
    let _ = stream.set_nodelay(true);
    Box::new(stream)
}
