//! `jangbu leader balance`: brings the leadership back to the data centre where it belongs.
//!
//! A cluster has one log and one leader, so there is no load to spread: what drifts is *where* it leads. Every failover,
//! drain and upgrade leaves it wherever the next election went, and if that is far from those who pay, each payment makes
//! the longer way.
//!
//!     who prefers what -> the voter that should lead -> is anything in the way? -> one move, as `leader move`
//!
//! Laws
//! * Moving a leader costs a moment of every payment, so nothing is moved without need, nor while a voter is missing: that
//!   moment would be an outage if another one failed in it.
//! * Typed again, it finds that nothing is left to do.
//!
//! Not here: the handover itself (`node/src/membership.rs`).

use jangbu_proto::cluster::v1::MemberStatus;
use serde::Serialize;

use crate::cli::Global;
use crate::cluster::{self, Node, NodeStatus};
use crate::error::{Failure, Kind};
use crate::{output, progress};

/// Entries the target may lack: as many as its leader takes for caught up (`node/src/membership.rs`).
const LAG_ENTRIES_MAX: u64 = 1_000;

pub(super) async fn run(global: &Global, prefer: &[String], dry_run: bool) -> Result<(), Failure> {
    let nodes = cluster::ask_all(global).await?;
    // Only the leader knows who lacks how much.
    let (leader, status) = cluster::leader(global).await?;
    let voters = voters(&nodes, &status.members);
    let plan = Plan::new(&voters, status.leader_id, prefer)?;
    if dry_run {
        output::show(global.output, &plan, Plan::text)?;
        return plan.check();
    }
    output::note(plan.text());
    plan.check()?;
    let mut done = Done { leader_id: plan.leader_id, term: status.term, moved: false };
    if plan.moves() {
        let moving = progress::spinner(format!("node {} takes over", plan.target_id));
        let reply = leader.move_leader(plan.target_id).await?;
        moving.finish_and_clear();
        if reply.leader_id != plan.target_id {
            let message = format!("node {} was to lead, and node {} was elected", plan.target_id, reply.leader_id);
            return Err(Failure::new(Kind::Unavailable, message).advise("type the command again"));
        }
        done = Done { leader_id: reply.leader_id, term: reply.term, moved: true };
    }
    output::show(global.output, &done, |done| match done.moved {
        true => format!("node {} leads in term {}", done.leader_id, done.term),
        false => format!("node {} leads already: nothing to do", done.leader_id),
    })
}

#[derive(Serialize)]
struct Done {
    leader_id: u64,
    term: u64,
    moved: bool,
}

/// A voter, as it is seen from outside and by the leader.
#[derive(Clone, Debug)]
struct Voter {
    id: u64,
    data_center: String,
    state: State,
    /// By the leader's word; `None`: it hasn't answered the leader, or leads itself.
    lag_entries: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Serves,
    /// On its operator's word: it shall not lead.
    Drained,
    Missing,
}

fn voters(nodes: &[Node], members: &[MemberStatus]) -> Vec<Voter> {
    let status = |id| nodes.iter().filter_map(|node| node.status.as_ref()).find(|status| status.node_id == id);
    let state = |status: Option<&NodeStatus>| match status {
        Some(status) if status.draining => State::Drained,
        Some(status) if status.ready => State::Serves,
        _ => State::Missing,
    };
    let voters = members.iter().filter(|member| member.voter).filter_map(|member| {
        let node = member.node.clone()?;
        let state = state(status(node.node_id));
        Some(Voter { id: node.node_id, data_center: node.data_center, state, lag_entries: member.lag_entries })
    });
    voters.collect()
}

/// Who leads, who should, and what is in the way.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Plan {
    leader_id: u64,
    leader_data_center: String,
    target_id: u64,
    target_data_center: String,
    /// Why nothing may be moved now; empty: it may.
    in_the_way: Vec<String>,
}

impl Plan {
    fn new(voters: &[Voter], leader_id: u64, prefer: &[String]) -> Result<Plan, Failure> {
        let known = |name: &&String| voters.iter().any(|voter| voter.data_center == **name);
        if let Some(unknown) = prefer.iter().find(|name| !known(name)) {
            let mut names: Vec<&str> = voters.iter().map(|voter| voter.data_center.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            return Err(Failure::usage(format!("--prefer: no voter stands in data centre `{unknown}`"))
                .advise(format!("they stand in: {}", names.join(", "))));
        }
        let leader = voters.iter().find(|voter| voter.id == leader_id).ok_or_else(|| {
            Failure::new(Kind::Unavailable, "the leader has changed meanwhile").advise("type the command again")
        })?;
        // Where all are drained, their operator wants them not to lead.
        let of = |name: &String| -> Vec<&Voter> {
            voters.iter().filter(|voter| voter.data_center == *name && voter.state != State::Drained).collect()
        };
        let Some(candidates) = prefer.iter().map(of).find(|candidates| !candidates.is_empty()) else {
            return Err(Failure::new(Kind::Conflict, format!("every voter in {} is drained", prefer.join(", ")))
                .advise("take a drain back (jangbu node undrain), or name further data centres"));
        };
        // Of several in one place, whoever leads goes on; else whoever has most of the log.
        let rank = |voter: &&&Voter| (voter.state, voter.lag_entries.unwrap_or(u64::MAX), voter.id);
        let target = candidates.iter().find(|voter| voter.id == leader_id).or(candidates.iter().min_by_key(rank));
        let target = target.expect("there is a candidate");
        Ok(Plan {
            leader_id,
            leader_data_center: leader.data_center.clone(),
            target_id: target.id,
            target_data_center: target.data_center.clone(),
            in_the_way: if target.id == leader_id { Vec::new() } else { in_the_way(voters, target) },
        })
    }

    fn moves(&self) -> bool {
        self.target_id != self.leader_id
    }

    fn check(&self) -> Result<(), Failure> {
        if self.in_the_way.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Kind::Conflict, format!("not now: {}", self.in_the_way.join("; ")))
            .advise("mend that first (jangbu cluster health), then type the command again"))
    }

    fn text(&self) -> String {
        let step = match self.moves() {
            true => format!("hand the leadership to node {}, {}", self.target_id, self.target_data_center),
            false => "none: it leads where it should".into(),
        };
        let mut rows =
            vec![("leader", format!("node {}, {}", self.leader_id, self.leader_data_center)), ("step", step)];
        rows.extend(self.in_the_way.iter().map(|what| ("in the way", what.clone())));
        output::pairs(rows)
    }
}

fn in_the_way(voters: &[Voter], target: &Voter) -> Vec<String> {
    let missing = voters.iter().filter(|voter| voter.state == State::Missing);
    let mut found: Vec<String> = missing.map(|voter| format!("node {} does not serve", voter.id)).collect();
    match target.lag_entries {
        Some(..=LAG_ENTRIES_MAX) => {}
        Some(lag) => found.push(format!("node {} has yet to receive {lag} entries", target.id)),
        None => found.push(format!("node {} has not answered the leader", target.id)),
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 1 in seoul leads; 2 is in daejeon, 3 and 4 in busan, 5 in seoul.
    fn five() -> Vec<Voter> {
        let places = ["seoul", "daejeon", "busan", "busan", "seoul"];
        let voter = |(place, id): (&str, u64)| Voter {
            id,
            data_center: place.into(),
            state: State::Serves,
            lag_entries: (id != 1).then_some(10 * id),
        };
        places.into_iter().zip(1..).map(voter).collect()
    }

    fn plan(voters: &[Voter], prefer: &[&str]) -> Result<Plan, Failure> {
        Plan::new(voters, 1, &prefer.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn it_goes_to_whoever_has_most_of_the_log_in_the_first_place_named() {
        let plan = plan(&five(), &["busan", "seoul"]).unwrap();
        assert_eq!((plan.target_id, plan.moves()), (3, true));
        plan.check().unwrap();
    }

    #[test]
    fn a_leader_in_the_right_place_stays_even_if_a_voter_is_missing() {
        let mut voters = five();
        voters[2].state = State::Missing;
        let plan = plan(&voters, &["seoul"]).unwrap();
        assert!(!plan.moves(), "{plan:?}");
        plan.check().unwrap();
    }

    #[test]
    fn while_a_voter_is_missing_or_the_target_lags_nothing_is_moved_and_each_is_named() {
        let mut voters = five();
        voters[4].state = State::Missing;
        voters[1].lag_entries = Some(5_000);
        let failure = plan(&voters, &["daejeon"]).unwrap().check().unwrap_err();
        assert_eq!(failure.kind, Kind::Conflict);
        assert!(failure.message.contains("node 5 does not serve"), "{failure}");
        assert!(failure.message.contains("node 2 has yet to receive 5000 entries"), "{failure}");
    }

    #[test]
    fn where_all_are_drained_the_next_place_counts() {
        let mut voters = five();
        voters[1].state = State::Drained;
        assert_eq!(plan(&voters, &["daejeon", "busan"]).unwrap().target_id, 3);
        assert_eq!(plan(&voters, &["daejeon"]).unwrap_err().kind, Kind::Conflict);
    }

    #[test]
    fn a_place_where_nobody_stands_is_named_with_those_where_somebody_does() {
        let failure = plan(&five(), &["osaka"]).unwrap_err();
        assert!(failure.message.contains("osaka"), "{failure}");
        assert_eq!(failure.advice.unwrap(), "they stand in: busan, daejeon, seoul");
    }
}
