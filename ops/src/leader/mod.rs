//! `jangbu leader`: the node that leads, and where it should.

mod balance;

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
    /// Bring the leadership back to the data centre where it belongs.
    #[command(
        after_help = "One node leads all of a cluster, so there is no load to spread: this is for after a failover or an upgrade, when the
leader is far from those who pay. It says what it would do, moves the leader once at most, and refuses while a voter is
missing or the one that should lead lags. Typed again, it finds nothing to do.

Examples:
  jangbu leader balance --prefer seoul,daejeon --dry-run
  jangbu leader balance --prefer seoul,daejeon"
    )]
    Balance {
        /// The data centres in which the leader belongs, best first. One whose voters are all drained is passed over.
        #[arg(long, required = true, value_name = "NAMES", value_delimiter = ',', env = "JANGBU_LEADER_PREFER")]
        prefer: Vec<String>,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
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
            Command::Balance { prefer, dry_run } => return balance::run(global, &prefer, dry_run).await,
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
