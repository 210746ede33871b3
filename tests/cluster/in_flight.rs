//! Every command that changes the cluster, interrupted while that change is under way: it says what is done, what is done perhaps,
//! and what to type.
//!
//! ```text
//!     jangbu ──► three doors that say who they are, who leads, and that all is well
//!                  └─ the change is asked for: it is noted, and never answered ──► SIGINT, SIGTERM
//! ```
//!
//! No node runs here: what real ones make of a change that was cut off is `interrupted.rs`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use jangbu_proto::cluster::v1::{DrainReply, MemberStatus, NodeInfo, StatusReply};
use jangbu_tests::{DEADLINE, Process, Signal, jangbu};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};

use crate::hostile::framed;
use crate::interrupted::{INTERRUPTED, TERMINATED, interrupted};

/// As it is typed, the call that is not answered, and what the last word says of it.
const CHANGES: &[(&str, &str, &str)] = &[
    ("cluster init 127.0.0.1:1", "Initialize", "perhaps done: the making of the cluster"),
    ("token create shop --role reader --ledgers all", "CreateToken", "perhaps done: token shop"),
    ("token revoke shop", "RevokeToken", "perhaps done: the end of token shop"),
    ("member add 127.0.0.1:9", "AddMember", "perhaps done: the membership of 127.0.0.1:9"),
    ("member update 127.0.0.1:9", "UpdateMember", "perhaps done: the new address 127.0.0.1:9"),
    ("member promote 2", "PromoteMember", "perhaps done: the vote of node 2"),
    ("member remove 2", "RemoveMember", "perhaps done: the removal of node 2"),
    ("node drain 2", "Drain", "perhaps done: the drain"),
    ("node undrain 2", "Drain", "perhaps done: the end of the drain"),
    (
        "node decommission 2 --force",
        "RemoveMember",
        "done: the drain; asked for, not answered, perhaps done: the removal of node 2",
    ),
    ("node replace 2 127.0.0.1:9", "AddMember", "perhaps done: the membership of 127.0.0.1:9"),
    ("leader move 2", "MoveLeader", "perhaps done: the leadership of node 2"),
    ("leader balance --prefer dc-3", "MoveLeader", "perhaps done: the leadership of node 3"),
    ("upgrade finalize", "FinalizeUpgrade", "perhaps done: the cluster's new version"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_asked_for_and_not_answered_is_said_to_be_done_perhaps() {
    for (signal, code) in [(Signal::Interrupt, INTERRUPTED), (Signal::Terminate, TERMINATED)] {
        join_all(CHANGES.iter().map(|(line, call, told)| is_cut_off(line, call, told, signal, code))).await;
    }
}

async fn is_cut_off(line: &str, call: &str, told: &str, signal: Signal, code: i32) {
    let (asked, mut calls) = mpsc::unbounded_channel();
    let endpoints = doors(call, asked).await;
    let folder = TempDir::new().expect("a temporary folder");
    let arguments: Vec<&str> = line.split(' ').chain(["--timeout", "60s"]).collect();
    let environment = [("JANGBU_ENDPOINTS", endpoints)];
    let running = Process::start_in(&environment, None, &jangbu(), &arguments, &folder.path().join("log"));
    let heard = timeout(DEADLINE, calls.recv()).await;
    assert_eq!(heard.ok().flatten().as_deref(), Some(call), "jangbu {line}: {}", running.words());
    let ended = interrupted(running, signal).await;
    assert_eq!(ended.status.code(), Some(code), "jangbu {line}: {}", ended.words);
    assert!(ended.words.contains(told), "jangbu {line} never says `{told}`: {}", ended.words);
    assert!(ended.words.contains("\n  -> "), "jangbu {line} doesn't say what to do next: {}", ended.words);
}

/// The addresses of three nodes of one cluster, the first of which leads; whatever isn't answered is told by its name.
async fn doors(silent_at: &str, asked: mpsc::UnboundedSender<String>) -> String {
    let bind = async |_| TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
    let listeners = join_all((1..=3).map(bind)).await;
    let addresses: Vec<String> =
        listeners.iter().map(|door| door.local_addr().expect("it is bound").to_string()).collect();
    for (listener, id) in listeners.into_iter().zip(1..) {
        let door = Arc::new(Door { status: status(id, &addresses), silent_at: silent_at.into(), asked: asked.clone() });
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(door.clone().serve(connection));
            }
        });
    }
    addresses.join(",")
}

fn status(id: u64, addresses: &[String]) -> StatusReply {
    let node = |(address, node_id): (&String, u64)| NodeInfo {
        node_id,
        client_address: address.clone(),
        peer_address: address.clone(),
        data_center: format!("dc-{node_id}"),
        ..NodeInfo::default()
    };
    let nodes: Vec<NodeInfo> = addresses.iter().zip(1..).map(node).collect();
    let member = |node: &NodeInfo| MemberStatus { node: Some(node.clone()), voter: true, lag_entries: Some(0) };
    StatusReply {
        node: nodes.iter().find(|node| node.node_id == id).cloned(),
        cluster_id: Bytes::from_static(&[7; 16]),
        role: if id == 1 { "Leader" } else { "Follower" }.into(),
        term: 1,
        leader_id: 1,
        members: nodes.iter().map(member).collect(),
        ready: true,
        cluster_version: 1,
        cluster_version_max: 2,
        ..StatusReply::default()
    }
}

struct Door {
    status: StatusReply,
    silent_at: String,
    asked: mpsc::UnboundedSender<String>,
}

impl Door {
    async fn serve(self: Arc<Self>, connection: TcpStream) {
        let Ok(mut calls) = h2::server::handshake(connection).await else { return };
        // What is dropped is reset.
        let mut held = Vec::new();
        while let Some(Ok((request, mut respond))) = calls.accept().await {
            let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            match self.answer(&call) {
                Some(answer) => answered(&mut respond, answer).expect("whoever asked waits for it"),
                None => drop(self.asked.send(call)), // the test may have ended
            }
            held.push((request, respond));
        }
    }

    fn answer(&self, call: &str) -> Option<Bytes> {
        match call {
            _ if call == self.silent_at => None,
            "Status" => Some(framed(&self.status)),
            "Drain" => Some(framed(&DrainReply::default())),
            _ => None,
        }
    }
}

fn answered(respond: &mut h2::server::SendResponse<Bytes>, answer: Bytes) -> Result<(), h2::Error> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
    let mut body = respond.send_response(head, false)?;
    body.send_data(answer, false)?;
    body.send_trailers(HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]))
}
