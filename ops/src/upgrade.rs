//! `jangbu upgrade`: the cluster's version, apart from its programs'.
//!
//! Programs are exchanged one node at a time. As long as the version isn't raised, every entry and snapshot is as the old
//! program wrote it, and the way back is open.

use clap::Subcommand;
use jangbu_proto::cluster::v1::FinalizeUpgradeReply;
use serde::Serialize;

use crate::cli::Global;
use crate::cluster;
use crate::error::{Failure, Kind};
use crate::output;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The cluster's version, and what each node's program knows.
    Status,
    /// Raise the cluster's version to the newest that all nodes know. There is no way back to older programs.
    #[command(after_help = "Examples:\n  jangbu upgrade finalize --dry-run\n  jangbu upgrade finalize")]
    Finalize {
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Serialize)]
struct Upgrade {
    version_before: u32,
    version: u32,
    raised: bool,
    nodes: Vec<NodeVersion>,
}

#[derive(Serialize)]
struct NodeVersion {
    node_id: u64,
    program_version: String,
    cluster_version_max: u32,
}

impl Upgrade {
    fn new(reply: FinalizeUpgradeReply, dry_run: bool) -> Upgrade {
        let nodes = reply.nodes.into_iter().map(|node| NodeVersion {
            node_id: node.node_id,
            program_version: node.program_version,
            cluster_version_max: node.cluster_version_max,
        });
        Upgrade {
            version_before: reply.version_before,
            version: reply.version,
            raised: !dry_run && reply.version > reply.version_before,
            nodes: nodes.collect(),
        }
    }

    fn text(&self) -> String {
        let rows = self
            .nodes
            .iter()
            .map(|node| [node.node_id.to_string(), node.program_version.clone(), node.cluster_version_max.to_string()]);
        let table = output::table(&["node", "program", "knows up to"], rows);
        let verdict = match (self.raised, self.version > self.version_before) {
            (true, _) => format!("the cluster is at version {} now (it was {})", self.version, self.version_before),
            (false, true) => format!(
                "the cluster is at version {}; all nodes know {}: jangbu upgrade finalize",
                self.version_before, self.version
            ),
            (false, false) => format!("the cluster is at version {}, the newest that all nodes know", self.version),
        };
        format!("{table}\n{verdict}")
    }
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let (dry_run, asks_for_change) = match self {
            Command::Status => (true, false),
            Command::Finalize { dry_run } => (dry_run, true),
        };
        let (leader, status) = cluster::leader(global).await?;
        if asks_for_change && status.cluster_version_max == 0 {
            return Err(Failure::new(Kind::Conflict, "the leader's program is of before versions")
                .advise("let a node with the new program lead: jangbu leader move NODE"));
        }
        let upgrade = Upgrade::new(leader.finalize_upgrade(dry_run).await?, dry_run);
        output::show(global.output, &upgrade, Upgrade::text)
    }
}
