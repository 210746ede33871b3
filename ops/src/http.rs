//! A node's HTTP door, asked one question: metrics and health, which are told there alone.
//!
//! Not here: anything that HTTP can do beyond one GET on a connection of its own.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::Node;

/// Far more than a node tells.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Where a node's HTTP door is: at the host that was asked, at the port that it tells.
pub fn address(node: &Node) -> Option<String> {
    let port = node.status.as_ref().map(|status| status.http_port).filter(|port| *port > 0)?;
    let (host, _) = node.endpoint.rsplit_once(':')?;
    Some(format!("{host}:{port}"))
}

/// Status line, headers and body, parted by an empty line. `None`: nobody answers there in time.
pub async fn get(address: &str, path: &str, limit: Duration) -> Option<(String, String)> {
    let asked = async {
        let mut connection = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        connection.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.to_string(), body.to_string()))
    };
    timeout(limit, asked).await.ok()?
}
