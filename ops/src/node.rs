//! `jangbu node`: take one node out of its duties, or out of the cluster, in the order that is safe.
//!
//! Every command first says what it would do to the quorum; with --dry-run that is all it does. Each step is skipped where it
//! was done before, so a command that was cut off is typed again.
//!
//! Laws
//! * Nothing is taken away before what replaces it is there.
//! * What would leave no voter to spare has to be asked for twice (--force); what would leave too few is refused.
//!
//! Not here: the single steps (`member.rs`, `leader.rs`).

use std::time::{Duration, Instant};

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Global;
use crate::cluster::{self, Node, NodeStatus};
use crate::error::{Failure, Kind};
use crate::operator::Operator;
use crate::{member, output, progress, text};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let a node leave leading to others and say that it isn't ready, so that it can be stopped unnoticed.
    #[command(
        after_help = "It goes on to vote, to replicate and to answer whoever asks it. A restart ends the drain, too.

Examples:
  jangbu node drain 2 --dry-run
  jangbu node drain 2        then: systemctl restart jangbud, on that machine"
    )]
    Drain {
        /// The node's number.
        node: u64,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a drain back.
    Undrain {
        /// The node's number.
        node: u64,
    },
    /// Drain a node and remove it for good, with nothing in its place.
    #[command(after_help = "Examples:
  jangbu node decommission 5 --dry-run
  jangbu node decommission 3 --force    also when no voter could be lost afterwards")]
    Decommission {
        /// The node's number; never used again.
        node: u64,
        /// Also when no further voter could be lost afterwards.
        #[arg(long)]
        force: bool,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Add a fresh node, wait until it has caught up, make it a voter, then drain and remove the old one.
    #[command(
        after_help = "The fresh node runs already, with a new node_id and an empty data_dir. The old one may be dead.

Examples:
  jangbu node replace 2 10.0.9.5:7401 --dry-run
  jangbu node replace 2 10.0.9.5:7401"
    )]
    Replace {
        /// The number of the node that goes; never used again.
        node: u64,
        /// The fresh node's peer door, host:port.
        with: String,
        /// How long the fresh node may take to catch up, as 30s, 10m or 2h.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = text::duration)]
        wait: Duration,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let nodes = cluster::ask_all(global).await?;
        cluster::some_answer(&nodes)?;
        match self {
            Command::Drain { node, dry_run } => {
                let plan = Plan::new(&nodes, node, vec![Step::Drain], None)?;
                plan.announce(global, dry_run)?;
                if !dry_run {
                    plan.drain(global, true).await?;
                }
                Ok(())
            }
            Command::Undrain { node } => Plan::new(&nodes, node, vec![Step::Undrain], None)?.drain(global, false).await,
            Command::Decommission { node, force, dry_run } => {
                if !dry_run && was_removed(global, node).await? {
                    return remove(global, node, force).await;
                }
                let plan = Plan::new(&nodes, node, vec![Step::Drain, Step::Remove], None)?;
                plan.announce(global, dry_run)?;
                plan.check(force)?;
                if dry_run { Ok(()) } else { plan.take_away(global, force).await }
            }
            Command::Replace { node, with, wait, dry_run } => {
                if !dry_run && was_removed(global, node).await? {
                    return bring_in(global, &with, wait).await;
                }
                let steps = vec![Step::Add, Step::CatchUp, Step::Promote, Step::Drain, Step::Remove];
                let plan = Plan::new(&nodes, node, steps, Some(with.clone()))?;
                plan.announce(global, dry_run)?;
                plan.check(false)?;
                if dry_run {
                    return Ok(());
                }
                bring_in(global, &with, wait).await?;
                plan.take_away(global, false).await
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Add,
    CatchUp,
    Promote,
    Drain,
    Undrain,
    Remove,
}

/// Voters, and how many of them may be lost before writes stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Quorum {
    voters: usize,
    serving: usize,
    /// Negative: so many more must serve.
    may_be_lost: i64,
}

impl Quorum {
    fn of(voters: usize, serving: usize) -> Quorum {
        Quorum { voters, serving, may_be_lost: serving as i64 - (voters as i64 / 2 + 1) }
    }
}

/// What is to be done to one node, and what that does to the quorum.
#[derive(Debug, Serialize)]
struct Plan {
    node: u64,
    role: String,
    /// Where it is asked; absent if it doesn't answer.
    endpoint: Option<String>,
    with: Option<String>,
    steps: Vec<Step>,
    now: Quorum,
    afterwards: Quorum,
}

impl Plan {
    fn new(nodes: &[Node], id: u64, steps: Vec<Step>, with: Option<String>) -> Result<Plan, Failure> {
        let answers = || nodes.iter().filter_map(|node| Some((node, node.status.as_ref()?)));
        let newest = newest(nodes);
        let voters = &newest.voters;
        if !newest.is_member(id) {
            return Err(Failure::new(Kind::Conflict, format!("node {id} is no member"))
                .advise("see who is: jangbu member list"));
        }
        let asked = answers().find(|(_, status)| status.node_id == id);
        let serves = |id: &u64| answers().any(|(_, status)| status.node_id == *id && (status.ready || status.draining));
        let serving = voters.iter().filter(|id| serves(id)).count();
        let now = Quorum::of(voters.len(), serving);
        let leaves = steps.contains(&Step::Remove) && voters.contains(&id);
        let comes = steps.contains(&Step::Promote);
        let left = serving - usize::from(leaves && serves(&id)) + usize::from(comes);
        let afterwards = Quorum::of(voters.len() - usize::from(leaves) + usize::from(comes), left);
        let endpoint = asked.map(|(node, _)| node.endpoint.clone());
        let role = asked.map_or_else(|| "does not answer".into(), |(_, status)| status.role.clone());
        Ok(Plan { node: id, role, endpoint, with, steps, now, afterwards })
    }

    fn announce(&self, global: &Global, dry_run: bool) -> Result<(), Failure> {
        if dry_run {
            return output::show(global.output, self, Plan::text);
        }
        output::note(self.text());
        Ok(())
    }

    fn text(&self) -> String {
        let quorum = |quorum: Quorum| {
            let spare = match quorum.may_be_lost {
                spare @ 0.. => format!("{spare} may be lost"),
                missing => format!("{} too few for a quorum", -missing),
            };
            format!("{} voters, {} serve, {spare}", quorum.voters, quorum.serving)
        };
        let steps: Vec<String> = self.steps.iter().map(|step| self.step_text(*step)).collect();
        output::pairs([
            ("node", format!("{} ({})", self.node, self.role)),
            ("steps", steps.join(", then ")),
            ("now", quorum(self.now)),
            ("afterwards", quorum(self.afterwards)),
        ])
    }

    fn step_text(&self, step: Step) -> String {
        let (node, with) = (self.node, self.with.as_deref().unwrap_or_default());
        match step {
            Step::Add => format!("add {with}"),
            Step::CatchUp => "wait until it has caught up".into(),
            Step::Promote => "make it a voter".into(),
            Step::Drain if self.endpoint.is_none() => format!("(node {node} does not answer: no drain)"),
            Step::Drain if self.role == "Leader" => format!("drain node {node}, which hands the leadership over"),
            Step::Drain => format!("drain node {node}"),
            Step::Undrain => format!("take the drain of node {node} back"),
            Step::Remove => format!("remove node {node} for good"),
        }
    }

    /// What must not be, and what must be asked for twice.
    fn check(&self, force: bool) -> Result<(), Failure> {
        let refuse = |message: &str, advice: &str| Err(Failure::new(Kind::Conflict, message).advise(advice));
        match self.afterwards.may_be_lost {
            ..0 => refuse(
                "afterwards too few voters would serve: writes would stop",
                "bring back a voter first, or replace this one: jangbu node replace",
            ),
            0 if !force => refuse(
                "afterwards no further voter could be lost without writes stopping",
                "replace it instead (jangbu node replace), or say that you mean it: --force",
            ),
            _ => Ok(()),
        }
    }

    async fn drain(&self, global: &Global, drain: bool) -> Result<(), Failure> {
        let Some(endpoint) = &self.endpoint else {
            return Err(Failure::new(Kind::Unavailable, format!("node {} does not answer", self.node))
                .advise("a node that is down leads nothing; see how it is: jangbu cluster status"));
        };
        let reply = Operator::new(&global.way()?, endpoint, global.timeout)?.drain(!drain).await?;
        let text = match (drain, reply.led) {
            (true, true) => format!("node {} is drained; node {} leads", self.node, reply.leader_id),
            (true, false) => format!("node {} is drained; it did not lead", self.node),
            (false, _) => format!("node {} is back in service", self.node),
        };
        output::show(global.output, &Drained { node: self.node, draining: drain, leader_id: reply.leader_id }, |_| text)
    }

    async fn take_away(&self, global: &Global, force: bool) -> Result<(), Failure> {
        if self.endpoint.is_some() {
            self.drain(global, true).await?;
        }
        remove(global, self.node, force).await
    }
}

/// Whether this was done before; a node that never was a member is refused.
async fn was_removed(global: &Global, node: u64) -> Result<bool, Failure> {
    let (leader, status) = cluster::leader(global).await?;
    if NodeStatus::from(status).is_member(node) {
        return Ok(false);
    }
    // Changes nothing: of a node that was removed the leader says so, of one that never was that it knows none.
    leader.remove_member(node, false).await?;
    Ok(true)
}

async fn remove(global: &Global, node: u64, force: bool) -> Result<(), Failure> {
    let (leader, _) = cluster::leader(global).await?;
    let reply = leader.remove_member(node, force).await?;
    member::show(global.output, &reply)
}

/// Who knows most, of those who have answered.
fn newest(nodes: &[Node]) -> &NodeStatus {
    let answers = nodes.iter().filter_map(|node| node.status.as_ref());
    answers.max_by_key(|status| (status.term, status.applied_index)).expect("some node has answered")
}

#[derive(Serialize)]
struct Drained {
    node: u64,
    draining: bool,
    /// 0: none is known.
    leader_id: u64,
}

/// Adds the node at this address, unless it is a member, and makes it a voter when it has caught up.
async fn bring_in(global: &Global, peer: &str, wait: Duration) -> Result<(), Failure> {
    let (leader, _) = cluster::leader(global).await?;
    // Asked again, this is no error and changes nothing.
    let reply = leader.add_member(peer.to_owned()).await?;
    let member = |member: &&jangbu_proto::cluster::v1::MemberStatus| {
        member.node.as_ref().is_some_and(|node| node.peer_address == peer)
    };
    let added = reply.members.iter().find(member);
    let added =
        added.ok_or_else(|| Failure::general(format!("{peer} was added and is not listed under that address")))?;
    let id = added.node.as_ref().map_or(0, |node| node.node_id);
    if !added.voter {
        output::note(format!("node {id} at {peer} is a member, and has no vote until it has caught up"));
        let waiting = progress::spinner(format!("node {id} catches up"));
        member::wait_caught_up(global, id, Instant::now() + wait, |lag| {
            waiting.set_message(format!("node {id} has yet to receive {lag} entries"));
        })
        .await?;
        waiting.finish_and_clear();
        let (leader, _) = cluster::leader(global).await?;
        leader.promote_member(id).await?;
    }
    output::note(format!("node {id} at {peer} votes"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_proto::cluster::v1::{MemberStatus, NodeInfo, StatusReply};

    /// Voters 1 to `voters`; those in `down` don't answer; node 1 leads.
    fn nodes(voters: u64, down: &[u64]) -> Vec<Node> {
        let member = |node_id| MemberStatus {
            node: Some(NodeInfo { node_id, ..NodeInfo::default() }),
            voter: true,
            lag_entries: None,
        };
        let node = |id: u64| {
            let reply = StatusReply {
                node: Some(NodeInfo { node_id: id, ..NodeInfo::default() }),
                role: if id == 1 { "Leader" } else { "Follower" }.into(),
                ready: true,
                members: (1..=voters).map(member).collect(),
                ..StatusReply::default()
            };
            Node { endpoint: format!("127.0.0.1:{id}"), status: Some(reply.into()), error: None }
        };
        (1..=voters).filter(|id| !down.contains(id)).map(node).collect()
    }

    fn removal(voters: u64, down: &[u64], id: u64) -> Plan {
        Plan::new(&nodes(voters, down), id, vec![Step::Drain, Step::Remove], None).unwrap()
    }

    #[test]
    fn one_of_five_may_go() {
        let plan = removal(5, &[], 5);
        assert_eq!((plan.now.may_be_lost, plan.afterwards.may_be_lost), (2, 1));
        plan.check(false).unwrap();
    }

    #[test]
    fn one_of_three_goes_only_if_it_is_asked_for_twice() {
        let plan = removal(3, &[], 3);
        assert_eq!(plan.check(false).unwrap_err().kind, Kind::Conflict);
        plan.check(true).unwrap();
    }

    #[test]
    fn a_dead_one_of_three_may_go_and_leaves_as_many_as_before() {
        let plan = removal(3, &[3], 3);
        assert_eq!((plan.now.may_be_lost, plan.afterwards.may_be_lost), (0, 0));
        assert!(plan.text().contains("does not answer"), "{}", plan.text());
    }

    #[test]
    fn a_living_one_does_not_go_while_the_rest_could_not_go_on() {
        let plan = removal(3, &[3], 2);
        assert_eq!(plan.afterwards.may_be_lost, -1);
        assert!(plan.check(true).unwrap_err().message.contains("too few"));
    }

    #[test]
    fn a_replacement_spares_as_many_as_before() {
        let steps = vec![Step::Add, Step::CatchUp, Step::Promote, Step::Drain, Step::Remove];
        let plan = Plan::new(&nodes(3, &[]), 1, steps, Some("10.0.0.9:7401".into())).unwrap();
        assert_eq!(plan.now, plan.afterwards);
        plan.check(false).unwrap();
        assert!(plan.text().contains("hands the leadership over"), "{}", plan.text());
    }

    #[test]
    fn who_is_no_member_is_named() {
        let failure = Plan::new(&nodes(3, &[]), 9, vec![Step::Drain], None).unwrap_err();
        assert_eq!(failure.message, "node 9 is no member");
    }
}
