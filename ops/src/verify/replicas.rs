//! Every node recounts its state at one log index; then the answers are compared.
//!
//! Beside live traffic the index moves on while one asks: a node that is past it refuses, and a later index is tried.

use std::collections::BTreeSet;

use jangbu_proto::cluster::v1::VerifyReply;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::Global;
use crate::cluster;
use crate::error::{Failure, Kind};
use crate::operator::Operator;
use crate::{output, text};

#[derive(Debug, Serialize)]
pub struct Replicas {
    /// The log index at which all were compared.
    pub log_index: u64,
    pub voters: usize,
    pub replicas: Vec<Replica>,
    /// Nodes that gave no answer, and why.
    pub absent: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Replica {
    pub node_id: u64,
    pub endpoint: String,
    pub log_index: u64,
    /// Kept as entries are applied.
    pub digest: String,
    /// Computed afresh from all that is stored.
    pub digest_recount: String,
    pub accounts: u64,
    pub events: u64,
    pub accounts_over_limit: u64,
    pub ledgers: Vec<Ledger>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    pub ledger: u32,
    pub debits_posted: String,
    pub credits_posted: String,
    pub debits_pending: String,
    pub credits_pending: String,
}

/// How often a later index is tried.
const ATTEMPTS_MAX: u32 = 8;

pub async fn ask(global: &Global) -> Result<Replicas, Failure> {
    let mut lead = 0;
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let nodes = cluster::ask_all(global).await?;
        cluster::some_answer(&nodes)?;
        let answering: Vec<(String, &cluster::NodeStatus)> =
            nodes.iter().filter_map(|node| Some((node.endpoint.clone(), node.status.as_ref()?))).collect();
        let newest =
            answering.iter().map(|(_, status)| *status).max_by_key(|status| (status.term, status.applied_index));
        let newest = newest.expect("some answer");
        let applied = answering.iter().map(|(_, status)| status.applied_index).max().unwrap_or(0);
        // A node without traffic never reaches an index in the future, so the first attempt asks for the present.
        let index = applied + lead;
        let mut replicas = Replicas {
            log_index: index,
            voters: newest.voters.len(),
            replicas: Vec::new(),
            absent: nodes.iter().filter(|node| node.status.is_none()).map(|node| node.endpoint.clone()).collect(),
        };
        let mut asking = JoinSet::new();
        for (endpoint, status) in &answering {
            let operator = Operator::new(&global.way()?, endpoint, global.timeout)?;
            let (endpoint, node_id) = (endpoint.clone(), status.node_id);
            asking.spawn(async move { (endpoint, node_id, operator.verify(index).await) });
        }
        let mut gone_by = false;
        for (endpoint, node_id, answer) in asking.join_all().await {
            match answer {
                Ok(reply) => replicas.replicas.push(Replica::new(node_id, endpoint, reply)),
                Err(failure) => {
                    gone_by |= failure.kind == Kind::Conflict;
                    replicas.absent.push(failure.message);
                }
            }
        }
        replicas.replicas.sort_by_key(|replica| replica.node_id);
        if !gone_by {
            return Ok(replicas);
        }
        last = Some(replicas);
        // As far ahead as the log went meanwhile, and some more: the nodes wait for it.
        let now = cluster::ask_all(global).await?;
        let applied_now = now.iter().filter_map(|node| Some(node.status.as_ref()?.applied_index)).max().unwrap_or(0);
        lead = (applied_now.saturating_sub(applied) * 2).min(LEAD_MAX);
    }
    last.ok_or_else(|| Failure::general("no attempt was made"))
}

/// However fast the log grows: a wait of a few seconds at most.
const LEAD_MAX: u64 = 10_000;

impl Replica {
    fn new(node_id: u64, endpoint: String, reply: VerifyReply) -> Replica {
        Replica {
            node_id,
            endpoint,
            log_index: reply.log_index,
            digest: text::hex(&reply.digest),
            digest_recount: text::hex(&reply.digest_recount),
            accounts: reply.accounts_count,
            events: reply.events_count,
            accounts_over_limit: reply.accounts_over_limit,
            ledgers: reply
                .totals
                .into_iter()
                .map(|totals| Ledger {
                    ledger: totals.ledger,
                    debits_posted: totals.debits_posted,
                    credits_posted: totals.credits_posted,
                    debits_pending: totals.debits_pending,
                    credits_pending: totals.credits_pending,
                })
                .collect(),
        }
    }
}

impl Replicas {
    pub fn digests_are_equal(&self) -> bool {
        let first = self.replicas.first().map(|replica| (&replica.digest, replica.log_index));
        !self.replicas.is_empty()
            && self.replicas.iter().all(|replica| {
                replica.digest == replica.digest_recount && Some((&replica.digest, replica.log_index)) == first
            })
    }

    pub fn debits_equal_credits(&self) -> bool {
        self.replicas.iter().flat_map(|replica| &replica.ledgers).all(Ledger::balances)
    }

    pub fn problems(&self, allow_absent: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let digests: BTreeSet<&str> = self.replicas.iter().map(|replica| replica.digest.as_str()).collect();
        let indexes: BTreeSet<u64> = self.replicas.iter().map(|replica| replica.log_index).collect();
        if indexes.len() > 1 {
            problems.push(format!("the replicas answered for different log indexes: {indexes:?}"));
        } else if digests.len() > 1 {
            problems.push(format!("the replicas differ at log index {}", self.log_index));
        }
        for replica in &self.replicas {
            if replica.digest != replica.digest_recount {
                problems.push(format!("node {}: what is stored does not make its digest", replica.node_id));
            }
            if replica.accounts_over_limit > 0 {
                problems.push(format!(
                    "node {}: {} account(s) over their limit",
                    replica.node_id, replica.accounts_over_limit
                ));
            }
            for ledger in replica.ledgers.iter().filter(|ledger| !ledger.balances()) {
                problems.push(format!("node {}: debits are not credits in ledger {}", replica.node_id, ledger.ledger));
            }
        }
        if self.replicas.len() <= self.voters / 2 {
            problems.push(format!("only {} of {} replicas answered", self.replicas.len(), self.voters));
        } else if !allow_absent {
            problems.extend(self.absent.iter().map(|absent| format!("not compared: {absent}")));
        }
        problems
    }

    pub fn text(&self) -> String {
        let rows = self.replicas.iter().map(|replica| {
            [
                replica.node_id.to_string(),
                replica.endpoint.clone(),
                replica.log_index.to_string(),
                replica.digest.clone(),
                if replica.digest == replica.digest_recount { "equal".into() } else { "DIFFERENT".into() },
                text::grouped(replica.accounts),
                text::grouped(replica.events),
                replica.accounts_over_limit.to_string(),
            ]
        });
        let heading = ["node", "endpoint", "log index", "digest", "recount", "accounts", "events", "over limit"];
        let mut text = output::table(&heading, rows);
        if let Some(replica) = self.replicas.first() {
            let rows = replica.ledgers.iter().map(|ledger| {
                [
                    ledger.ledger.to_string(),
                    ledger.debits_posted.clone(),
                    ledger.credits_posted.clone(),
                    ledger.debits_pending.clone(),
                    ledger.credits_pending.clone(),
                    if ledger.balances() { "yes".into() } else { "NO".into() },
                ]
            });
            let heading = ["ledger", "debits", "credits", "debits pending", "credits pending", "equal"];
            text.push_str("\n\n");
            text.push_str(&output::table(&heading, rows));
        }
        text
    }
}

impl Ledger {
    fn balances(&self) -> bool {
        self.debits_posted == self.credits_posted && self.debits_pending == self.credits_pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node_id: u64, digest: &str) -> Replica {
        Replica {
            node_id,
            endpoint: String::new(),
            log_index: 9,
            digest: digest.into(),
            digest_recount: digest.into(),
            accounts: 2,
            events: 1,
            accounts_over_limit: 0,
            ledgers: vec![Ledger {
                ledger: 1,
                debits_posted: "5".into(),
                credits_posted: "5".into(),
                debits_pending: "0".into(),
                credits_pending: "0".into(),
            }],
        }
    }

    fn three(change: impl FnOnce(&mut Replicas)) -> Replicas {
        let replicas = (1..=3).map(|id| replica(id, "aa")).collect();
        let mut replicas = Replicas { log_index: 9, voters: 3, replicas, absent: Vec::new() };
        change(&mut replicas);
        replicas
    }

    #[test]
    fn three_equal_replicas_have_no_problem() {
        let replicas = three(|_| {});
        assert!(replicas.problems(false).is_empty());
        assert!(replicas.digests_are_equal() && replicas.debits_equal_credits());
    }

    #[test]
    fn each_thing_that_can_be_wrong_is_named() {
        let problem = |change: fn(&mut Replicas)| three(change).problems(false).join("; ");
        assert_eq!(problem(|r| r.replicas[1] = replica(2, "bb")), "the replicas differ at log index 9");
        assert_eq!(
            problem(|r| r.replicas[1].digest_recount = "bb".into()),
            "node 2: what is stored does not make its digest"
        );
        assert_eq!(problem(|r| r.replicas[2].accounts_over_limit = 4), "node 3: 4 account(s) over their limit");
        assert_eq!(
            problem(|r| r.replicas[0].ledgers[0].credits_posted = "6".into()),
            "node 1: debits are not credits in ledger 1"
        );
    }

    #[test]
    fn an_absent_node_is_a_problem_unless_it_is_allowed_and_a_majority_is_there() {
        let one_away = three(|r| {
            r.replicas.pop();
            r.absent.push("127.0.0.1:3: refused".into());
        });
        assert_eq!(one_away.problems(false), ["not compared: 127.0.0.1:3: refused"]);
        assert!(one_away.problems(true).is_empty());
        let two_away = three(|r| r.replicas.truncate(1));
        assert_eq!(two_away.problems(true), ["only 1 of 3 replicas answered"]);
    }
}
