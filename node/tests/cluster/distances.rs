//! Every setting of distance, at that distance: elections end, hold while nothing is wrong, and end again when a leader dies.

use std::{io, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jangbu_node::{Environment, config::Network};
use jangbu_proto::transport::{Io, Listener, TcpTransport, Transport};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex, split},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::harness::Cluster;

/// Bytes under way in one direction.
const PIPE_BYTES: usize = 1 << 20;

/// Connections between nodes that are this far apart, one way.
struct Far(Duration);

impl Transport for Far {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        TcpTransport.listen(address)
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        let one_way = self.0;
        Box::pin(async move {
            let (from_peer, to_peer) = split(TcpTransport.connect(address).await?);
            let (near, far) = duplex(PIPE_BYTES);
            let (from_node, to_node) = split(far);
            tokio::spawn(carry(from_node, to_peer, one_way));
            tokio::spawn(carry(from_peer, to_node, one_way));
            Ok(Box::new(near) as Io)
        })
    }
}

/// Everything arrives, in order, `one_way` after it was sent; so does the end.
async fn carry(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    one_way: Duration,
) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(1_024);
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if sender.send((Instant::now() + one_way, bytes[..count].to_vec())).await.is_err() {
                return;
            }
        }
    });
    while let Some((arrives, bytes)) = under_way.recv().await {
        sleep_until(arrives).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn elects_holds_and_elects_again(adjust: fn(&mut jangbu_node::NodeConfig), one_way: Duration) {
    let world = move |_| Environment { transport: Arc::new(Far(one_way)), ..Environment::production() };
    let mut cluster = Cluster::in_world(3, adjust, world).await;
    cluster.open_accounts().await;
    let leader = cluster.leader(1).await;
    let term = cluster.status(leader).await.expect("it runs").term;
    for id in 1..=30 {
        cluster.pay(1 + (id % 3) as u64, id, 1).await;
    }
    let after = cluster.status(leader).await.expect("it runs");
    assert_eq!((after.leader_id, after.term), (leader, term), "nobody doubts a leader that lives");

    cluster.kill(leader).await;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.pay(rest[0], 31, 1).await;
    cluster.until(rest[1], "it follows another", |status| ![0, leader].contains(&status.leader_id)).await;
    assert_eq!(cluster.paid(rest[1], None).await.expect("a read"), 31);
    cluster.start(leader).await;
    cluster.until_ready(leader).await;
    cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_centres_of_a_metropolitan_area_elect_and_replace_a_leader() {
    elects_holds_and_elects_again(|config| config.network = Network::Metro, Duration::from_millis(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_centres_of_a_continent_elect_and_replace_a_leader() {
    elects_holds_and_elects_again(|config| config.network = Network::Continent, Duration::from_millis(50)).await;
}
