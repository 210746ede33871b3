//! "This must sometimes happen": the rare moments that the simulation exists for, counted.
//!
//! A simulation that never meets them proves nothing, however many seeds are green. So each mark says within how many seeds
//! it must have come up, and a run of that many seeds or more in which it did not has failed.
//!
//! To add a mark: a constant with its line in [`TABLE`], and a `chronicle.mark` where it happens, or a line in [`seen`] or
//! [`look_back`] if it shows in a node's status or in the answers.

use std::collections::BTreeMap;

use crate::{
    auditor::{Books, codes, records::*},
    invariants::Sighting,
};

pub struct Mark {
    pub name: &'static str,
    /// A run of so many seeds or more must have met it. About eight times as many as it took on average when it was
    /// measured, so that chance alone fails one run in thousands.
    pub within: u64,
}

/// No run needs to have met it.
const NEVER: u64 = u64::MAX;

macro_rules! marks {
    ($($id:ident = $name:literal within $within:expr;)*) => {
        $(pub const $id: Mark = Mark { name: $name, within: $within };)*
        pub const TABLE: &[Mark] = &[$($id),*];
    };
}

marks! {
    LEADER_DIED = "a leader died" within 30;
    LEADER_ALONE = "a leader was cut off from its peers" within 60;
    LEADER_DEPOSED = "a leader was deposed with a write in flight" within 30;
    TWO_LEADERS = "two nodes believed that they lead" within 60;
    POWER_CUT = "the power of all failed" within 100;
    DIED_RECOVERING = "a node died while it recovered" within 100;
    STEP_SPRUNG = "the power failed at a step of making something durable" within 60;
    WRITES_TORN = "unsynced writes were torn or lost" within 30;
    TRUNCATED = "a follower's log was cut back" within 100;
    PURGED_UNDER = "the log was purged under a follower that needed it" within 100;
    SNAPSHOT_INSTALLED = "a snapshot was installed" within 60;
    SNAPSHOT_OVER_TORN = "a snapshot was installed over a torn log" within 400;
    SNAPSHOT_CUT_SENDER = "a snapshot's sender died in the middle of it" within 2_000;
    SNAPSHOT_CUT_RECEIVER = "a snapshot's receiver died in the middle of it" within 2_000;
    DAMAGED_REFUSED = "a snapshot damaged on its way was refused" within 600;
    FOREIGN_REFUSED = "another cluster's snapshot was refused" within 600;
    OLD_SNAPSHOT_KNOWN = "a snapshot of the past was offered to who had it" within 600;
    HEARD_AGAIN = "an old message was heard again" within 100;
    READ_STOPPED = "a node stopped at a failed read" within 800;
    FLIP_STOPPED = "a node stopped at a read that returned something wrong" within 400;
    ROT_STOPPED = "a node stopped at a log that had rotted" within 400;
    SYNC_STOPPED = "a node stopped at a failed sync" within 200;
    FULL_STOPPED = "a node stopped at a full disk" within 400;
    DISK_LOST = "a node lost its disk" within 400;
    OLD_ID_REFUSED = "a node without its disk was refused under its old id" within 600;
    REPLACED = "a node was replaced" within 100;
    RESTARTED = "a node was told to stop and came back with other settings" within 100;
    FINALIZED_MIXED = "a newer version was asked for while an older program ran, and nothing was raised" within 600;
    FINALIZED = "the cluster's version was raised" within 600;
    WENT_BACK = "a node went back to an older program" within 600;
    OLDER_REFUSED = "an older program was refused after the version was raised" within 600;
    UNKNOWN_WAS_DONE = "an outcome was unknown, and it had happened" within 60;
    UNKNOWN_WAS_NOT = "an outcome was unknown, and it had not happened" within 60;
    SILENT = "an attempt took effect that nobody was told of" within 60;
    STALE_READ = "a read was answered that was stale and said so" within 60;
    POOR = "a payment was refused for the last won" within 30;
    CHAIN_UNDONE = "a chain was undone whole" within 30;
    EXPIRY_LATE = "a post came after its expiry" within 60;
    UNDECIDED = "a run ended undecided, at an assertion of openraft that is its own mistake" within NEVER;
    EXPIRY_CLOSE = "an expiry raced a post: less than a second lay between them" within 60;
}

/// What a node's status shows, next to what it said before and what the others said last.
pub fn seen(now: &Sighting, before: Option<&Sighting>, all: &BTreeMap<usize, Sighting>) -> Vec<&'static Mark> {
    let mut marks = Vec::new();
    let status = &now.status;
    let is_shorter =
        |before: &Sighting| before.life == now.life && status.last_log_index < before.status.last_log_index;
    if before.is_some_and(is_shorter) {
        marks.push(&TRUNCATED);
    }
    let purged_before = before.map_or(0, |before| before.status.purged_index);
    let others = || all.values().filter(|other| other.node != now.node);
    let lacks = |other: &Sighting| (purged_before..status.purged_index).contains(&other.status.last_log_index);
    if others().any(lacks) {
        marks.push(&PURGED_UNDER);
    }
    let knew = before.map_or(0, |before| before.status.cluster_version_max);
    let is_known = |other: &Sighting| other.status.cluster_version <= status.cluster_version_max;
    if knew > status.cluster_version_max && all.values().all(is_known) {
        marks.push(&WENT_BACK);
    }
    let leads = |sighting: &Sighting| sighting.status.role == "Leader";
    let was_told = before.is_some_and(leads);
    // Both said so within the last moments.
    let fresh = |other: &Sighting| other.at_ns + 300_000_000 > now.at_ns;
    if leads(now) && !was_told && others().any(|other| leads(other) && fresh(other)) {
        marks.push(&TWO_LEADERS);
    }
    marks
}

/// What the answers and the books show in the end. `leaders`: when each term's leader was first seen.
pub fn look_back(history: &[Call], books: &Books, leaders: &[u64]) -> Vec<(&'static Mark, u64)> {
    let status = |wanted: u32| {
        let answered = history.iter().filter(|call| matches!(call.op, Op::CreateTransfers(_)));
        let results = answered.flat_map(|call| match &call.answer {
            Answer::Written { results, .. } => results.as_slice(),
            _ => &[],
        });
        results.filter(|result| result.status == wanted).count() as u64
    };
    let in_flight = |at_ns: u64| {
        history.iter().any(|call| call.op.is_write() && call.invoked_ns < at_ns && at_ns < call.answered_ns)
    };
    let deposed = leaders.iter().skip(1).filter(|at_ns| in_flight(**at_ns)).count() as u64;
    let is_stale = |call: &&Call| {
        matches!(call.answer, Answer::Read { staleness_ns: 1_000_000.., .. }) && call.level != Level::Linearizable
    };
    vec![
        (&LEADER_DEPOSED, deposed),
        (&STALE_READ, history.iter().filter(is_stale).count() as u64),
        (&POOR, status(codes::transfer::EXCEEDS_CREDITS)),
        (&CHAIN_UNDONE, status(codes::transfer::LINKED_EVENT_FAILED)),
        (&EXPIRY_LATE, status(codes::transfer::PENDING_TRANSFER_EXPIRED)),
        (&EXPIRY_CLOSE, posts_close_to_expiry(books)),
    ]
}

fn posts_close_to_expiry(books: &Books) -> u64 {
    let transfers = || books.events.iter().filter(|event| event.kind != EXPIRED).map(|event| &event.transfer);
    let expires_at: BTreeMap<u128, u64> = transfers()
        .filter(|transfer| transfer.flags & transfer_flags::PENDING != 0 && transfer.timeout > 0)
        .map(|transfer| (transfer.id, transfer.timestamp + u64::from(transfer.timeout) * 1_000_000_000))
        .collect();
    let is_close = |post: &&Transfer| {
        expires_at.get(&post.pending_id).is_some_and(|at| at.saturating_sub(post.timestamp) < 1_000_000_000)
    };
    transfers().filter(|transfer| transfer.flags & transfer_flags::POST != 0).filter(is_close).count() as u64
}

/// Marks that a run of so many seeds must have met and has not.
pub fn missing(seeds: u64, met: &BTreeMap<String, u64>) -> Vec<&'static Mark> {
    TABLE.iter().filter(|mark| mark.within <= seeds && !met.contains_key(mark.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_must_have_met_what_a_short_one_need_not() {
        let met: BTreeMap<String, u64> =
            TABLE.iter().filter(|mark| mark.within <= 100).map(|mark| (mark.name.to_owned(), 1)).collect();
        assert!(missing(100, &met).is_empty());
        assert!(missing(10_000, &met).iter().any(|mark| mark.name == SNAPSHOT_OVER_TORN.name));
        assert!(missing(30, &BTreeMap::new()).iter().any(|mark| mark.name == LEADER_DIED.name));
        assert!(missing(1, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn no_two_marks_share_a_name() {
        let mut names: Vec<&str> = TABLE.iter().map(|mark| mark.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
