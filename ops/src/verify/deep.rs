//! Every node reads all that it has stored: what a recount doesn't come by, such as the indexes.
//!
//! One node after the other, so that the cluster never reads on all its disks at once, and never loses two nodes to it.

use serde::Serialize;

use super::replicas::Replicas;
use crate::cli::Global;
use crate::error::Failure;
use crate::operator::Operator;
use crate::{output, progress, text};

/// What one node read.
#[derive(Debug, Serialize)]
pub struct Deep {
    pub node_id: u64,
    pub endpoint: String,
    /// Found right.
    pub values: u64,
    pub bytes: u64,
    pub problem: Option<String>,
}

pub async fn read_everything(global: &Global, replicas: &Replicas) -> Result<Vec<Deep>, Failure> {
    let bar = progress::spinner("reading all that is stored");
    let mut read = Vec::new();
    for replica in &replicas.replicas {
        bar.set_message(format!("node {} reads all that it has stored", replica.node_id));
        let (node_id, endpoint) = (replica.node_id, replica.endpoint.clone());
        let reply = Operator::new(&global.way()?, &endpoint, global.timeout)?.verify_deep().await;
        read.push(match reply {
            Ok(reply) => {
                let (values, bytes) = (reply.values_read_count, reply.values_read_bytes);
                Deep { node_id, endpoint, values, bytes, problem: None }
            }
            Err(failure) => {
                let problem = Some(format!("node {node_id} did not read everything: {}", failure.message));
                Deep { node_id, endpoint, values: 0, bytes: 0, problem }
            }
        });
    }
    bar.finish_and_clear();
    Ok(read)
}

pub fn text(deep: &[Deep]) -> String {
    let rows = deep.iter().map(|deep| {
        [
            deep.node_id.to_string(),
            text::grouped(deep.values),
            text::grouped(deep.bytes),
            match (&deep.problem, deep.values) {
                (Some(_), _) => "NOT READ".into(),
                // Young books are in memory and in the log, which is read at each start.
                (None, 0) => "nothing yet".into(),
                (None, _) => "whole".into(),
            },
        ]
    });
    output::table(&["node", "values read", "bytes read", "stored"], rows)
}
