//! Bugs that are planted on purpose, to measure what the simulation finds.
//!
//! Each is one condition at the place where a mistake would be easy to make. Without the feature `planted`, which no release
//! has, [`is`] is the constant `false` and nothing of this is left in the program.
//!
//! Here, in the lowest room, because every other room may ask it. Not here: planting them (`simulation`).

/// A mistake that somebody could have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bug {
    /// Funds that have not arrived count as spendable.
    LimitCountsPendingCredits = 1,
    /// A pending transfer is posted after its time, if the sweep has not come by.
    PostAfterExpiry,
    /// What was voided can be posted.
    ReleasedTwice,
    /// A chain that fails keeps what it had done.
    ChainHalfUndone,
    /// An id that failed may be tried again.
    BurntNotRemembered,
    /// Balancing spends what is reserved.
    BalancingIgnoresPending,
    /// A closed account still pays.
    ClosedStillPays,
    /// An id used again with another amount "exists".
    ExistsIgnoresAmount,
    /// The log says "durable" without a sync.
    AckBeforeSync,
    /// A vote is given before it is durable.
    VoteNotSynced,
    /// A vote is forgotten at a restart.
    VoteForgotten,
    /// A damaged middle of the log is cut as if it were a torn tail.
    MiddleDropped,
    /// A record whose checksum is wrong is taken.
    TornTailAccepted,
    /// What Raft truncated comes back at a restart.
    TruncateNotWritten,
    /// A snapshot lacks one family of rows.
    SnapshotMissesRows,
    /// A flush records an older applied id than its changes have.
    AppliedIdBehind,
    /// Ids that were flushed are not looked up any more.
    DedupForgetsFlushed,
    /// Burnt ids that were flushed are not looked up any more.
    BurntForgottenFlushed,
    /// Log time follows the leader's clock alone.
    LogTimeGoesBack,
    /// A linearizable read does not ask whether the leader still leads.
    ReadWithoutReadIndex,
    /// A ReadIndex answer serves later reads as well.
    ReadIndexReused,
    /// A stale read says that it is fresh.
    StaleSaysFresh,
    /// What may have been proposed is told as "nothing was done".
    DoubtIsDenied,
    /// Two callers in one entry get each other's answer.
    BordersMixed,
    /// The client forgets that an earlier attempt may have been carried out.
    ClientForgetsDoubt,
    /// History shows the other side's balance.
    HistoryOfTheOtherSide,
    /// A follower's refusal counts as its consent: what only the leader has is committed and acknowledged.
    AckBeforeCommit,
    /// The log is purged further than the snapshot reaches.
    PurgePastSnapshot,
    /// A retry goes out under new ids.
    RetryUnderNewId,
    /// A change of members is told as done before it is committed.
    MembersBeforeCommit,
    /// The version is raised although one member's program does not know it.
    FinalizeForgetsOne,
    /// A program opens a state of a version that it does not know.
    OlderOpensNewer,
}

#[cfg(feature = "planted")]
mod switch {
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::Bug;

    static PLANTED: AtomicU32 = AtomicU32::new(0);

    /// Plants the bug of this number, for the rest of the process; 0 for none.
    pub fn plant(number: u32) {
        PLANTED.store(number, Ordering::Relaxed);
    }

    pub fn is(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u32
    }

    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::LimitCountsPendingCredits,
        Bug::PostAfterExpiry,
        Bug::ReleasedTwice,
        Bug::ChainHalfUndone,
        Bug::BurntNotRemembered,
        Bug::BalancingIgnoresPending,
        Bug::ClosedStillPays,
        Bug::ExistsIgnoresAmount,
        Bug::AckBeforeSync,
        Bug::VoteNotSynced,
        Bug::VoteForgotten,
        Bug::MiddleDropped,
        Bug::TornTailAccepted,
        Bug::TruncateNotWritten,
        Bug::SnapshotMissesRows,
        Bug::AppliedIdBehind,
        Bug::DedupForgetsFlushed,
        Bug::BurntForgottenFlushed,
        Bug::LogTimeGoesBack,
        Bug::ReadWithoutReadIndex,
        Bug::ReadIndexReused,
        Bug::StaleSaysFresh,
        Bug::DoubtIsDenied,
        Bug::BordersMixed,
        Bug::ClientForgetsDoubt,
        Bug::HistoryOfTheOtherSide,
        Bug::AckBeforeCommit,
        Bug::PurgePastSnapshot,
        Bug::RetryUnderNewId,
        Bug::MembersBeforeCommit,
        Bug::FinalizeForgetsOne,
        Bug::OlderOpensNewer,
    ];
}

#[cfg(feature = "planted")]
pub use switch::{ALL, is, plant};

/// Whether this bug is planted.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}
