//! `jangbu member`: the nodes of a cluster.

use std::time::Instant;

use clap::Subcommand;
use jangbu_proto::cluster::v1::{MemberStatus, MembershipReply};
use serde::Serialize;

use crate::cli::Global;
use crate::cluster;
use crate::error::{Failure, Kind};
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// All nodes of the cluster.
    List,
    /// Add a fresh node: it receives the log, and does not vote until it is promoted.
    #[command(after_help = "Examples:
  jangbu member add 10.0.4.5:7401              then: jangbu member promote 4
  jangbu member add 10.0.4.5:7401 --promote    waits until it has caught up, then promotes it")]
    Add {
        /// The fresh node's peer door, host:port.
        peer: String,
        /// Wait until it has caught up and make it a voter. Waits as long as --timeout.
        #[arg(long)]
        promote: bool,
    },
    /// Tell the cluster where a member is now: a machine moved, or got another address.
    #[command(
        after_help = "Stop the node, give it its new addresses (listen or advertise in its configuration), start it with its old
data_dir, and type the address that its peer door has now. The others reach it again from then on. One node at a time:
more than half of the voters must hear each other.

Example:
  jangbu member update 10.0.9.5:7401"
    )]
    Update {
        /// The member's peer door, host:port, where it is now.
        peer: String,
    },
    /// Make a node that has caught up a voter.
    Promote {
        /// The node's number.
        node: u64,
    },
    /// Remove a node for good; its number is never used again.
    #[command(after_help = "Examples:
  jangbu member remove 3
  jangbu member remove 3 --force    also when too few others would be left that answer")]
    Remove {
        /// The node's number.
        node: u64,
        /// Also when the remaining voters that answer would be no safe quorum.
        #[arg(long)]
        force: bool,
    },
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let (leader, status) = match self {
            Command::List => cluster::any(global).await?,
            _ => cluster::leader(global).await?,
        };
        match self {
            Command::List => {
                let reply = MembershipReply { members: status.members, cluster_id: status.cluster_id };
                show(global.output, &reply)
            }
            Command::Add { peer, promote } => {
                let mut reply = leader.add_member(peer.clone()).await?;
                if promote {
                    let added = reply.members.iter().filter_map(|member| member.node.as_ref());
                    let node_id = added.into_iter().find(|node| node.peer_address == peer).map(|node| node.node_id);
                    let node_id =
                        node_id.ok_or_else(|| Failure::general(format!("{peer} was added and is not listed")))?;
                    wait_caught_up(global, node_id, Instant::now() + global.timeout, |_| {}).await?;
                    reply = leader.promote_member(node_id).await?;
                }
                show(global.output, &reply)
            }
            Command::Update { peer } => show(global.output, &leader.update_member(peer).await?),
            Command::Promote { node } => show(global.output, &leader.promote_member(node).await?),
            Command::Remove { node, force } => show(global.output, &leader.remove_member(node, force).await?),
        }
    }
}

/// A learner that lacks fewer entries than this is promoted; the rest arrives while the change itself is agreed on.
const LAG_ENTRIES_MAX: u64 = 100;

/// Tells the lag as it shrinks.
pub async fn wait_caught_up(
    global: &Global,
    node_id: u64,
    deadline: Instant,
    mut tell: impl FnMut(u64),
) -> Result<(), Failure> {
    loop {
        let (_, status) = cluster::leader(global).await?;
        let lag = status
            .members
            .iter()
            .find(|member| member.node.as_ref().is_some_and(|node| node.node_id == node_id))
            .and_then(|member| member.lag_entries);
        if lag.is_some_and(|lag| lag <= LAG_ENTRIES_MAX) {
            return Ok(());
        }
        lag.into_iter().for_each(&mut tell);
        if Instant::now() >= deadline {
            return Err(Failure::new(Kind::Unavailable, format!("node {node_id} has not caught up yet")).advise(
                format!("wait until `jangbu member list` shows a small lag, then: jangbu member promote {node_id}"),
            ));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[derive(Serialize)]
struct Members {
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    node_id: u64,
    data_center: String,
    peer_address: String,
    client_address: String,
    voter: bool,
    lag_entries: Option<u64>,
}

impl From<&MemberStatus> for Member {
    fn from(status: &MemberStatus) -> Member {
        let node = status.node.clone().unwrap_or_default();
        Member {
            node_id: node.node_id,
            data_center: node.data_center,
            peer_address: node.peer_address,
            client_address: node.client_address,
            voter: status.voter,
            lag_entries: status.lag_entries,
        }
    }
}

pub fn show(output: Output, reply: &MembershipReply) -> Result<(), Failure> {
    let members = Members { members: reply.members.iter().map(Member::from).collect() };
    output::show(output, &members, |members| {
        let rows = members.members.iter().map(|member| {
            [
                member.node_id.to_string(),
                member.data_center.clone(),
                member.client_address.clone(),
                member.peer_address.clone(),
                if member.voter { "voter".into() } else { "learner".into() },
                member.lag_entries.map_or_else(|| "-".into(), |lag| lag.to_string()),
            ]
        });
        output::table(&["node", "data centre", "client", "peer", "role", "lag"], rows)
    })
}
