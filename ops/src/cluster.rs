//! `jangbu cluster`: make a cluster of fresh nodes, and ask how it is.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use jangbu_proto::cluster::v1::StatusReply;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::operator::Operator;
use crate::{member, output, text};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a cluster of fresh nodes; asked once, of one of them.
    #[command(after_help = "Example:
  jangbu cluster init 10.0.1.5:7401,10.0.2.5:7401,10.0.3.5:7401 --endpoints 10.0.1.5:7400")]
    Init {
        /// The nodes' peer doors, host:port, separated by commas; that of the asked node included.
        #[arg(value_delimiter = ',', required = true)]
        peers: Vec<String>,
    },
    /// What each node says of itself.
    #[command(after_help = "Examples:\n  jangbu cluster status\n  jangbu cluster status -o json")]
    Status,
    /// Is every node serving, is there one leader, do the replicas agree? Exit code 3 if not, 4 without a leader.
    #[command(after_help = "Example:\n  jangbu cluster health && echo all is well")]
    Health,
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Command::Init { peers } => {
                let operator = first(global)?;
                let reply = operator.initialize(peers).await?;
                member::show(global.output, &reply)
            }
            Command::Status => {
                let nodes = ask_all(global).await?;
                output::show(global.output, &nodes, |nodes| status_text(nodes))?;
                some_answer(&nodes)
            }
            Command::Health => {
                let nodes = ask_all(global).await?;
                let health = Health::of(&nodes);
                output::show(global.output, &health, health_text)?;
                health.verdict()
            }
        }
    }
}

/// The first of the nodes named: for what is asked of one node only.
fn first(global: &Global) -> Result<Operator, Failure> {
    let endpoints = global.endpoints()?;
    Operator::new(&global.way()?, &endpoints[0], global.timeout)
}

/// Refuses to go on where none of the nodes has answered.
pub fn some_answer(nodes: &[Node]) -> Result<(), Failure> {
    match nodes.iter().all(|node| node.status.is_none()) {
        true => Err(no_answer(nodes.iter().map(|node| node.endpoint.as_str()))),
        false => Ok(()),
    }
}

pub fn no_answer<'a>(asked: impl Iterator<Item = &'a str>) -> Failure {
    let asked: Vec<&str> = asked.collect();
    Failure::new(Kind::Unavailable, format!("no node answers at {}", asked.join(", ")))
        .advise("check the addresses, and that the nodes run")
}

/// Any node that answers: for questions to which each knows the answer.
pub async fn any(global: &Global) -> Result<(Operator, StatusReply), Failure> {
    let way = global.way()?;
    let endpoints = global.endpoints()?;
    let mut last = no_answer(endpoints.iter().map(String::as_str));
    for endpoint in endpoints {
        let operator = Operator::new(&way, &endpoint, global.timeout)?;
        match operator.status().await {
            Ok(status) => return Ok((operator, status)),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

/// The leader's own door: membership and leadership are changed there.
pub async fn leader(global: &Global) -> Result<(Operator, StatusReply), Failure> {
    let (operator, status) = any(global).await?;
    if status.role == "Leader" {
        return Ok((operator, status));
    }
    let address = status
        .members
        .iter()
        .filter_map(|member| member.node.as_ref())
        .find_map(|node| (node.node_id == status.leader_id).then(|| node.client_address.clone()));
    let Some(address) = address else {
        return Err(Failure::new(Kind::Unavailable, format!("{} knows of no leader", operator.address))
            .advise("see which nodes answer: jangbu cluster health"));
    };
    let leader = Operator::new(&global.way()?, &address, global.timeout)?;
    let status = leader.status().await?;
    Ok((leader, status))
}

/// One node and what it said, if it answered.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    pub endpoint: String,
    pub status: Option<NodeStatus>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    pub node_id: u64,
    pub data_center: String,
    pub peer_address: String,
    pub cluster_id: String,
    pub version: String,
    pub role: String,
    pub term: u64,
    pub leader_id: u64,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub digest: String,
    pub last_timestamp: String,
    pub accounts_count: u64,
    pub events_count: u64,
    pub pendings_open_count: u64,
    pub staleness_ns: String,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub ready: bool,
    pub not_ready_because: String,
    /// 0 of a program before versions.
    pub cluster_version: u32,
    pub draining: bool,
    /// The port of its HTTP door; 0: it has none.
    pub http_port: u32,
}

impl NodeStatus {
    /// Whether node `id` is a member, as this one knows it.
    pub fn is_member(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }
}

impl From<StatusReply> for NodeStatus {
    fn from(reply: StatusReply) -> NodeStatus {
        let ids = |voter: bool| {
            let members = reply.members.iter().filter(|member| member.voter == voter);
            members.filter_map(|member| Some(member.node.as_ref()?.node_id)).collect()
        };
        let (voters, learners) = (ids(true), ids(false));
        let node = reply.node.unwrap_or_default();
        NodeStatus {
            node_id: node.node_id,
            data_center: node.data_center,
            peer_address: node.peer_address,
            cluster_id: text::hex(&reply.cluster_id),
            version: reply.version,
            role: reply.role,
            term: reply.term,
            leader_id: reply.leader_id,
            last_log_index: reply.last_log_index,
            committed_index: reply.committed_index,
            applied_index: reply.applied_index,
            snapshot_index: reply.snapshot_index,
            purged_index: reply.purged_index,
            digest: text::hex(&reply.digest),
            last_timestamp: reply.last_timestamp.to_string(),
            accounts_count: reply.accounts_count,
            events_count: reply.events_count,
            pendings_open_count: reply.pendings_open_count,
            staleness_ns: reply.staleness_ns.to_string(),
            voters,
            learners,
            ready: reply.ready,
            not_ready_because: reply.not_ready_because,
            cluster_version: reply.cluster_version,
            draining: reply.draining,
            http_port: reply.http_port,
        }
    }
}

/// Asks the nodes named and every member that those know, at the same time.
pub async fn ask_all(global: &Global) -> Result<Vec<Node>, Failure> {
    let way = global.way()?;
    let mut answers: BTreeMap<String, Result<StatusReply, Failure>> = BTreeMap::new();
    let mut to_ask: BTreeSet<String> = global.endpoints()?.into_iter().collect();
    while !to_ask.is_empty() {
        let mut asking = JoinSet::new();
        for endpoint in std::mem::take(&mut to_ask) {
            let operator = Operator::new(&way, &endpoint, global.timeout)?;
            asking.spawn(async move { (endpoint, operator.status().await) });
        }
        for (endpoint, answer) in asking.join_all().await {
            answers.insert(endpoint, answer);
        }
        let members = answers.values().flatten().flat_map(|status| &status.members);
        let known = members.filter_map(|member| Some(member.node.as_ref()?.client_address.clone()));
        to_ask.extend(known.filter(|address| !answers.contains_key(address)));
    }
    // A node that is named one way and known another way answers twice; once is enough.
    let mut seen = BTreeSet::new();
    let mut nodes: Vec<Node> = answers
        .into_iter()
        .filter_map(|(endpoint, answer)| match answer {
            Ok(status) => {
                let status = NodeStatus::from(status);
                seen.insert(status.node_id).then_some(Node { endpoint, status: Some(status), error: None })
            }
            Err(failure) => Some(Node { endpoint, status: None, error: Some(failure.message) }),
        })
        .collect();
    nodes.sort_by_key(|node| node.status.as_ref().map_or(u64::MAX, |status| status.node_id));
    Ok(nodes)
}

fn status_text(nodes: &[Node]) -> String {
    let newest =
        nodes.iter().filter_map(|node| node.status.as_ref()).max_by_key(|status| (status.term, status.applied_index));
    let role = |status: &NodeStatus| match newest {
        _ if status.cluster_id.is_empty() => "in no cluster".into(),
        // It was removed, and has yet to hear of it.
        Some(newest) if !newest.voters.contains(&status.node_id) && !newest.learners.contains(&status.node_id) => {
            "no member".into()
        }
        _ => status.role.clone(),
    };
    let rows = nodes.iter().map(|node| match &node.status {
        Some(status) => vec![
            status.node_id.to_string(),
            status.data_center.clone(),
            node.endpoint.clone(),
            role(status),
            status.term.to_string(),
            status.committed_index.to_string(),
            status.applied_index.to_string(),
            text::grouped(status.accounts_count),
            text::grouped(status.events_count),
            status.digest.chars().take(12).collect(),
            if status.ready { "yes".into() } else { format!("no: {}", status.not_ready_because) },
        ],
        None => vec![
            "?".into(),
            "-".into(),
            node.endpoint.clone(),
            format!("no answer: {}", node.error.as_deref().unwrap_or("")),
        ],
    });
    output::table(
        &[
            "node",
            "data centre",
            "endpoint",
            "role",
            "term",
            "committed",
            "applied",
            "accounts",
            "events",
            "digest",
            "serves",
        ],
        rows,
    )
}

#[derive(Debug, Serialize)]
pub struct Health {
    healthy: bool,
    /// Nodes answer, and none of them is in a cluster.
    unmade: bool,
    pub leader_id: Option<u64>,
    pub voters: usize,
    pub voters_serving: usize,
    /// How many voters may still be lost before writes stop.
    pub quorum_margin: i64,
    pub problems: Vec<String>,
}

impl Health {
    pub fn of(nodes: &[Node]) -> Health {
        let answers: Vec<(&str, &NodeStatus)> =
            nodes.iter().filter_map(|node| Some((node.endpoint.as_str(), node.status.as_ref()?))).collect();
        let mut problems: Vec<String> = Vec::new();
        for node in nodes.iter().filter(|node| node.status.is_none()) {
            problems.push(format!("{} does not answer: {}", node.endpoint, node.error.as_deref().unwrap_or("")));
        }
        for (_, status) in answers.iter().filter(|(_, status)| !status.ready) {
            problems.push(format!("node {} does not serve: {}", status.node_id, status.not_ready_because));
        }
        let leaders: Vec<&NodeStatus> =
            answers.iter().map(|(_, status)| *status).filter(|status| status.role == "Leader").collect();
        // A leader that was replaced and does not know it yet has an older term.
        let leader = leaders.iter().max_by_key(|status| status.term);
        if leader.is_none() {
            problems.push("no node leads".into());
        }
        let voters: BTreeSet<u64> = answers
            .iter()
            .map(|(_, status)| *status)
            .max_by_key(|status| (status.term, status.applied_index))
            .map(|status| status.voters.iter().copied().collect())
            .unwrap_or_default();
        let serving = answers.iter().filter(|(_, status)| status.ready && voters.contains(&status.node_id)).count();
        let mut digests: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        for (_, status) in &answers {
            digests.entry(status.applied_index).or_default().insert(&status.digest);
        }
        for index in digests.iter().filter(|(_, digests)| digests.len() > 1).map(|(index, _)| index) {
            problems.push(format!("replicas differ at log index {index}: run `jangbu verify`"));
        }
        Health {
            healthy: problems.is_empty(),
            unmade: !answers.is_empty() && answers.iter().all(|(_, status)| status.cluster_id.is_empty()),
            leader_id: leader.map(|status| status.node_id),
            voters: voters.len(),
            voters_serving: serving,
            quorum_margin: serving as i64 - (voters.len() as i64 / 2 + 1),
            problems,
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        if self.unmade {
            return Err(Failure::new(Kind::Unavailable, "these nodes are in no cluster yet")
                .advise("make one of them: jangbu cluster init PEER,PEER,PEER (host:port of their peer doors)"));
        }
        if self.leader_id.is_none() {
            return Err(Failure::new(Kind::Unavailable, "no leader: writes wait, local reads go on")
                .advise("bring back nodes until more than half of the voters serve"));
        }
        if !self.healthy {
            return Err(Failure::new(Kind::Unhealthy, format!("{} problem(s)", self.problems.len()))
                .advise("look at each node: jangbu cluster status"));
        }
        Ok(())
    }
}

fn health_text(health: &Health) -> String {
    let mut lines = vec![output::pairs([
        ("healthy", if health.healthy { "yes".into() } else { "no".into() }),
        ("leader", health.leader_id.map_or_else(|| "none".into(), |id| format!("node {id}"))),
        ("voters serving", format!("{} of {}", health.voters_serving, health.voters)),
        ("may still be lost", if health.unmade { "-".into() } else { margin_text(health.quorum_margin) }),
    ])];
    lines.extend(health.problems.iter().map(|problem| format!("- {problem}")));
    lines.join("\n")
}

fn margin_text(quorum_margin: i64) -> String {
    match quorum_margin {
        margin @ 0.. => margin.to_string(),
        missing => format!("none: {} more must serve before writes go on", -missing),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use jangbu_proto::cluster::v1::{MemberStatus, NodeInfo};

    pub fn node(id: u64, role: &str, digest: u8) -> Node {
        let members = (1..=3).map(|node_id| MemberStatus {
            node: Some(NodeInfo { node_id, ..NodeInfo::default() }),
            voter: true,
            lag_entries: None,
        });
        let reply = StatusReply {
            node: Some(NodeInfo { node_id: id, ..NodeInfo::default() }),
            cluster_id: vec![1; 16].into(),
            role: role.into(),
            term: 2,
            applied_index: 9,
            digest: vec![digest; 16].into(),
            ready: true,
            members: members.collect(),
            ..StatusReply::default()
        };
        Node { endpoint: format!("127.0.0.1:{id}"), status: Some(reply.into()), error: None }
    }

    pub fn gone(endpoint: &str) -> Node {
        Node { endpoint: endpoint.into(), status: None, error: Some("refused".into()) }
    }

    #[test]
    fn three_that_agree_under_one_leader_are_healthy() {
        let health = Health::of(&[node(1, "Follower", 7), node(2, "Leader", 7), node(3, "Follower", 7)]);
        assert!(health.healthy, "{health:?}");
        assert_eq!((health.leader_id, health.quorum_margin), (Some(2), 1));
    }

    #[test]
    fn nodes_in_no_cluster_are_told_how_to_become_one() {
        let mut fresh = node(1, "Uninitialized", 0);
        let status = fresh.status.as_mut().unwrap();
        (status.cluster_id, status.voters, status.ready) = (String::new(), Vec::new(), false);
        let failure = Health::of(&[fresh]).verdict().unwrap_err();
        assert_eq!(failure.kind, Kind::Unavailable);
        assert!(failure.advice.unwrap().contains("jangbu cluster init"));
    }

    #[test]
    fn with_one_gone_it_serves_and_is_not_healthy() {
        let health = Health::of(&[node(1, "Follower", 7), node(2, "Leader", 7), gone("127.0.0.1:3")]);
        assert_eq!(health.verdict().unwrap_err().kind, Kind::Unhealthy);
        assert_eq!(health.quorum_margin, 0);
    }

    #[test]
    fn without_a_leader_the_exit_code_says_so() {
        let health = Health::of(&[node(1, "Candidate", 7), gone("a"), gone("b")]);
        assert_eq!(health.verdict().unwrap_err().kind, Kind::Unavailable);
    }

    #[test]
    fn replicas_that_differ_at_one_index_are_a_problem() {
        let health = Health::of(&[node(1, "Leader", 7), node(2, "Follower", 8), node(3, "Follower", 7)]);
        assert!(health.problems[0].contains("differ at log index 9"), "{:?}", health.problems);
    }
}
