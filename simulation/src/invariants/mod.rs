//! The laws that are checked while a run goes on, on every replica: one file each, and this table of them.
//!
//! They see what operators see: each node's status, asked all the time. What needs the answers to clients is the auditor's.
//!
//! To add a law: a file with a type that is [`Law`], and a line in [`laws`].

mod applied_is_monotone;
mod committed_is_durable;
mod digests_agree;
mod indexes_are_ordered;
mod members_told_are_durable;
mod one_leader_a_term;
mod term_is_monotone;
mod version_is_known;
mod version_is_known_to_all;
mod version_only_rises;
mod voters;
mod votes_are_durable;

use jangbu_proto::cluster::v1::StatusReply;
use jangbu_raft_store::log::Inspection;

/// What one node said of itself.
#[derive(Debug, Clone)]
pub struct Sighting {
    pub at_ns: u64,
    /// Place in the cluster, counted from 0, over all nodes that ever were.
    pub node: usize,
    /// How often the node had been started with this disk; another number means that it forgot something or died.
    pub life: u64,
    pub status: StatusReply,
}

/// What lies durably on the disks of all nodes, dead ones included.
pub struct Disks<'a> {
    pub nodes: &'a [DurableNode],
    /// Every entry up to here was committed, as some node said.
    pub committed: u64,
    /// What an operator was told since the last look.
    pub told: &'a [MemberTold],
}

/// "It is done": a node is a voter now, or no member any more.
#[derive(Debug, Clone)]
pub struct MemberTold {
    pub id: u64,
    pub voter: bool,
}

/// What the plan took from a disk of what was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    None,
    /// Something is damaged; what the log still accepts must be right.
    Some,
    All,
}

/// The durable part of one node's disk.
pub struct DurableNode {
    pub node: usize,
    pub id: u64,
    /// Nobody was put in its place.
    pub voter: bool,
    pub loss: Loss,
    /// Its log as it would be found; `None`: nothing is there yet. An error: it could not be used.
    pub log: Result<Option<Inspection>, String>,
}

impl DurableNode {
    pub fn inspection(&self) -> Option<&Inspection> {
        self.log.as_ref().ok()?.as_ref()
    }

    pub fn durable_term(&self) -> u64 {
        self.inspection().and_then(|log| log.vote).map_or(0, |vote| vote.leader_id.term)
    }
}

/// What no node's status tells.
#[derive(Debug, Clone)]
pub enum News {
    Program(Program),
    /// An operator asks for the newest version of the cluster that all know.
    FinalizeAsked {
        at_ns: u64,
    },
    /// That call is over, with whatever outcome.
    FinalizeOver {
        at_ns: u64,
    },
}

/// From here on a node runs this program.
#[derive(Debug, Clone)]
pub struct Program {
    pub at_ns: u64,
    pub id: u64,
    /// The newest version of the cluster that it knows; `None`: the node is down.
    pub knows: Option<u32>,
}

pub trait Law {
    fn name(&self) -> &'static str;

    fn hear(&mut self, _news: &News) {}

    /// Says what is wrong, if anything is.
    fn see(&mut self, _sighting: &Sighting) -> Option<String> {
        None
    }

    /// Looks at all disks as they would be after a power cut.
    fn see_disks(&mut self, _disks: &Disks<'_>) -> Option<String> {
        None
    }
}

/// A law with what it says, for people.
pub struct Entry {
    pub name: &'static str,
    pub about: &'static str,
}

/// The laws of the run, and those of the auditor.
pub const TABLE: &[Entry] = &[
    Entry { name: "one_leader_a_term", about: "no two nodes lead in one term" },
    Entry { name: "term_is_monotone", about: "a node's term never goes back, over any crash" },
    Entry { name: "votes_are_durable", about: "who leads was elected by votes that survive a power cut" },
    Entry { name: "applied_is_monotone", about: "applied index and log time never go back while a node lives" },
    Entry { name: "indexes_are_ordered", about: "purged <= snapshot <= applied <= last" },
    Entry { name: "digests_agree", about: "replicas that applied the same index hold the same state" },
    Entry { name: "committed_is_durable", about: "committed entries are on a quorum's durable logs, the same on each" },
    Entry {
        name: "members_told_are_durable",
        about: "a change of members that was told as done is on a majority's disks",
    },
    Entry {
        name: "version_is_known",
        about: "no node has applied what is of a version that its program does not know",
    },
    Entry {
        name: "version_only_rises",
        about: "the cluster's version never falls, along the log and over all replicas",
    },
    Entry {
        name: "version_is_known_to_all",
        about: "the version is raised only to what every member's program knew when it was asked for",
    },
    Entry { name: "log_time_is_unique", about: "no two requests share log time" },
    Entry { name: "log_time_follows_log_index", about: "log time moves on with the log" },
    Entry { name: "one_result_per_event", about: "as many results as events" },
    Entry { name: "every_answer_is_right", about: "each result is what the auditor's own ledger says" },
    Entry { name: "every_read_is_right", about: "each read shows the books at the index it names" },
    Entry { name: "no_phantom", about: "nothing is in the books that nobody asked for" },
    Entry { name: "nothing_done_means_nothing_done", about: "after 'unavailable' nothing has happened, or ever will" },
    Entry { name: "expiry_by_log_time", about: "pending transfers expire in order, by log time alone" },
    Entry {
        name: "the_books_agree_with_the_answers",
        about: "what was acknowledged is there, what was refused is not",
    },
    Entry { name: "the_replicas_agree", about: "in the end all replicas hold the same books" },
    Entry { name: "debits_equal_credits", about: "over every ledger, pending and posted" },
    Entry { name: "no_account_breaks_its_limit", about: "pending included" },
    Entry { name: "a_write_comes_after_what_was_answered", about: "real time orders writes" },
    Entry { name: "a_linearizable_read_sees_what_was_answered", about: "on whichever node" },
    Entry { name: "a_stale_read_is_no_staler_than_it_says", about: "and says how stale it is" },
    Entry { name: "a_stale_read_is_within_its_bound", about: "or is refused" },
    Entry { name: "the_digest_is_what_is_stored", about: "a recount of all that is stored gives the running digest" },
    Entry { name: "the_cluster_heals", about: "faults lifted, it elects, agrees and serves within a bound" },
    Entry {
        name: "the_way_back_is_open_until_finalized",
        about: "an older program is refused only after the version was raised",
    },
    Entry { name: "every_outcome_is_found_out", about: "asking again with the same ids settles it" },
    Entry { name: "a_node_stops_only_for_a_reason", about: "a node ends only after a fault that must end it" },
    Entry { name: "a_node_stops_when_it_is_told_to", about: "it hands over, finishes and ends within a minute" },
];

/// All laws, fresh for one run.
pub fn laws() -> Vec<Box<dyn Law>> {
    vec![
        Box::<one_leader_a_term::OneLeaderATerm>::default(),
        Box::<term_is_monotone::TermIsMonotone>::default(),
        Box::<applied_is_monotone::AppliedIsMonotone>::default(),
        Box::new(indexes_are_ordered::IndexesAreOrdered),
        Box::<digests_agree::DigestsAgree>::default(),
        Box::<votes_are_durable::VotesAreDurable>::default(),
        Box::<committed_is_durable::CommittedIsDurable>::default(),
        Box::<members_told_are_durable::MembersToldAreDurable>::default(),
        Box::new(version_is_known::VersionIsKnown),
        Box::<version_only_rises::VersionOnlyRises>::default(),
        Box::<version_is_known_to_all::VersionIsKnownToAll>::default(),
    ]
}
