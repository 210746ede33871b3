//! `jangbu leader`: the node that leads.

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Global;
use crate::cluster;
use crate::error::{Failure, Kind};
use crate::output;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Which node leads.
    Show,
    /// Hand the leadership to another voter that has caught up.
    #[command(after_help = "Examples:\n  jangbu leader move      to any other voter\n  jangbu leader move 2")]
    Move {
        /// The number of the node that shall lead. Default: any other voter.
        node: Option<u64>,
    },
}

#[derive(Serialize)]
struct Leader {
    leader_id: u64,
    term: u64,
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let leader = match self {
            Command::Show => {
                let (operator, status) = cluster::any(global).await?;
                if status.leader_id == 0 {
                    return Err(Failure::new(Kind::Unavailable, format!("{} knows of no leader", operator.address))
                        .advise("see which nodes answer: jangbu cluster health"));
                }
                Leader { leader_id: status.leader_id, term: status.term }
            }
            Command::Move { node } => {
                let (operator, _) = cluster::leader(global).await?;
                let reply = operator.move_leader(node.unwrap_or(0)).await?;
                Leader { leader_id: reply.leader_id, term: reply.term }
            }
        };
        output::show(global.output, &leader, |leader| {
            format!("node {} leads in term {}", leader.leader_id, leader.term)
        })
    }
}
