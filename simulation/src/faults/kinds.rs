//! Each kind of fault: what it is, what it is called, how often it is drawn.

use serde::{Deserialize, Serialize};

use super::Target;
use crate::disk::Survival;

/// A step of making something durable: an operation on a disk.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Step {
    pub act: Act,
    /// What it is done to.
    pub place: Place,
    /// How many such steps pass unharmed first.
    pub skip: u64,
    /// The power fails before the step has any effect; else right after.
    pub before: bool,
}

/// What is done to a disk.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Create,
    Write,
    Sync,
    Rename,
    Link,
    Remove,
    SyncFolder,
}

/// Where on a disk.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Log,
    State,
    /// Which state is in use.
    Current,
    Snapshots,
    Incoming,
    Identity,
}

/// An end of a transfer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub enum End {
    Sender,
    Receiver,
}

/// What a node does when it makes something durable, and where: the steps at which the power can fail.
pub const STEPS: &[(Act, Place)] = &[
    (Act::Write, Place::Log),
    (Act::Sync, Place::Log),
    (Act::Create, Place::Log),
    (Act::Rename, Place::Log),
    (Act::Remove, Place::Log),
    (Act::SyncFolder, Place::Log),
    (Act::Write, Place::Snapshots),
    (Act::Rename, Place::Snapshots),
    (Act::Write, Place::Incoming),
    (Act::Rename, Place::Incoming),
    (Act::Rename, Place::Current),
];

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub enum Kind {
    /// The process dies; unsynced writes survive.
    Kill {
        node: Target,
    },
    /// The power of one machine fails.
    PowerOff {
        node: Target,
    },
    /// The power of all machines fails at once.
    PowerCut,
    /// A node dies again and again, a few times during its recovery.
    CrashLoop {
        node: Target,
        times: u64,
    },
    /// A majority dies, and comes back.
    QuorumLost,
    /// All of one data centre is unreachable.
    DataCenterLost {
        center: usize,
    },
    /// The nodes fall into two halves; bit i set: node i is in the first.
    Partition {
        first: u32,
    },
    /// Nothing from one node reaches another; the other way it does.
    OneWay {
        from: Target,
        to: Target,
    },
    /// Two nodes don't hear each other; all others do.
    Partial {
        a: Target,
        b: Target,
    },
    /// Two halves that only one node connects.
    Bridge {
        node: Target,
    },
    /// Every node hears its two neighbours only.
    Ring,
    /// The leader is cut off from its peers and not from its clients.
    LeaderAlone,
    /// One node after the other is clogged, then unclogged in another order.
    Swizzle,
    /// Messages between two nodes wait.
    Hold {
        a: Target,
        b: Target,
    },
    /// A link becomes slow and uneven, so that messages overtake each other.
    SlowLink {
        a: Target,
        b: Target,
        ms: u64,
    },
    /// A link loses some of what is sent; a lost segment wedges its connection, as nothing sends it again.
    Loss {
        a: Target,
        b: Target,
        permille: u64,
    },
    /// A node stands still and then goes on as if nothing had been: neither its peers nor its callers hear from it, and its
    /// disk does nothing. Its timers go on, because turmoil cannot stop one host's: what they lead to stays within it.
    Pause {
        node: Target,
    },
    SlowDisk {
        node: Target,
        ms: u64,
    },
    /// A disk and all links of its node are slow, and neither is broken.
    SlowNode {
        node: Target,
        ms: u64,
    },
    /// The power fails at one step of making something durable, whenever that comes.
    CrashAtStep {
        node: Target,
        step: Step,
        survival: Survival,
    },
    SyncFails {
        node: Target,
    },
    /// Some reads of a disk fail.
    ReadFails {
        node: Target,
        percent: u64,
    },
    /// Some reads of a disk return one bit that is not what lies there, and say nothing.
    ReadFlips {
        node: Target,
        percent: u64,
        /// The node dies and reads all that it needs to start again.
        restart: bool,
    },
    DiskFull {
        node: Target,
    },
    /// A bit of a log that was synced flips under a node that runs.
    RotAlive {
        node: Target,
    },
    /// A bit of a log that was synced flips while its node is down.
    BitRot {
        node: Target,
    },
    /// The wall clock of a node is off for a while.
    ClockOffset {
        node: Target,
        ms: i64,
    },
    /// The wall clock of a node runs fast or slow.
    ClockDrift {
        node: Target,
        ppm: i64,
    },
    /// The wall clock of a node jumps and stays there.
    ClockJump {
        node: Target,
        ms: i64,
    },
    /// A snapshot is taken now, and the log behind it purged.
    Snapshot {
        node: Target,
    },
    /// A node that comes back needs a snapshot, and one end of the transfer dies in the middle of it.
    SnapshotCut {
        end: End,
        /// Messages that pass before.
        after: u64,
    },
    /// A node that comes back needs a snapshot, and it is damaged: on its way, or on the disk it comes from.
    SnapshotDamaged {
        on_disk: bool,
    },
    /// A node that comes back needs a snapshot, and is offered another cluster's.
    SnapshotForeign,
    /// Snapshots that a node was sent are sent to it again, now older than what it has.
    SnapshotOlder {
        node: Target,
    },
    /// What is said to a node arrives twice: calls, and messages within a stream.
    Duplicate {
        node: Target,
        percent: u64,
    },
    /// What was said to a node is said to it again, much later.
    Replay {
        node: Target,
        calls: u64,
    },
    /// The leadership is handed over.
    MoveLeader,
    /// One node after the other is told to stop, and comes back with other sizes of segments, caches and flushes.
    RollingRestart,
    /// One node after the other is told to stop, and comes back as the newer program, or as the older one again.
    RollingUpgrade {
        back: bool,
        /// When an operator asks for the newer version: at so much of the way, which ends at 100 with the last node.
        finalize_percent: Option<u64>,
    },
    /// An operator asks for the newest version that all know.
    Finalize,
    /// A node is removed and another added, caught up and promoted.
    Replace {
        node: Target,
    },
    /// A node loses its disk and comes back empty, under its old id.
    Wipe {
        node: Target,
    },
    /// Clients repeat all they ever said at once.
    RetryStorm,
}

/// A kind with its name, what it is for, and how often it is drawn.
pub struct Description {
    pub name: &'static str,
    pub about: &'static str,
    pub weight: u64,
    /// Somebody must listen on the lines between callers and doors (`wiretap.rs`).
    pub needs_wiretap: bool,
}

const fn plain(name: &'static str, about: &'static str, weight: u64) -> Description {
    Description { name, about, weight, needs_wiretap: false }
}

const fn heard(name: &'static str, about: &'static str, weight: u64) -> Description {
    Description { name, about, weight, needs_wiretap: true }
}

pub const KINDS: &[Description] = &[
    plain("kill", "a process dies; unsynced writes survive", 6),
    plain("power-off", "a machine's power fails; unsynced writes are lost or torn", 6),
    plain("power-cut", "the power of all machines fails at once", 3),
    plain("crash-loop", "a node dies again and again, also while it recovers", 3),
    plain("quorum-lost", "a majority dies and comes back", 3),
    plain("data-center-lost", "a whole data centre is unreachable", 3),
    plain("partition", "the nodes fall into two halves", 6),
    plain("one-way", "one node is not heard by another, the other way it is", 4),
    plain("partial", "two nodes don't hear each other, all others do", 4),
    plain("bridge", "two halves that one node alone connects", 2),
    plain("ring", "every node hears its two neighbours only", 2),
    plain("leader-alone", "the leader is cut off from peers, not from clients", 6),
    plain("swizzle", "nodes are clogged one by one and unclogged in another order", 3),
    plain("hold", "messages between two nodes wait", 3),
    plain("slow-link", "a link becomes slow and uneven", 3),
    plain("loss", "a link loses some of what is sent", 3),
    plain("pause", "a node stands still and goes on as if nothing had been", 4),
    plain("slow-disk", "a disk becomes slow", 4),
    plain("slow-node", "a disk and all links of its node become slow", 3),
    plain("crash-at-step", "the power fails at one step of making something durable", 6),
    plain("sync-fails", "fsync fails", 3),
    plain("read-fails", "some reads of a disk fail", 2),
    plain("read-flips", "some reads of a disk return a bit that is not what lies there, and say nothing", 2),
    plain("disk-full", "no space is left on a disk", 2),
    plain("bit-rot", "a bit flips in a synced log while its node is down", 1),
    plain("rot-alive", "a bit flips in a synced log under a node that runs", 1),
    plain("clock-offset", "a wall clock is off for a while", 3),
    plain("clock-drift", "a wall clock runs fast or slow", 2),
    plain("clock-jump", "a wall clock jumps and stays there", 3),
    plain("snapshot", "a snapshot is taken and the log purged", 5),
    heard("snapshot-cut", "one end dies in the middle of a snapshot's transfer", 3),
    heard("snapshot-damaged", "a snapshot is damaged on its way or on its sender's disk", 2),
    heard("snapshot-foreign", "a node is offered another cluster's snapshot", 1),
    heard("snapshot-older", "snapshots of the past are sent again", 1),
    heard("duplicate", "what is said to a node arrives twice", 2),
    heard("replay", "what was said to a node is said again, much later", 2),
    plain("move-leader", "the leadership is handed over", 4),
    plain("rolling-restart", "nodes stop one by one and come back with other settings", 2),
    plain("rolling-upgrade", "nodes stop one by one and come back as a newer program, or as the older one", 4),
    plain("finalize", "an operator raises the cluster's version as far as all nodes know it", 2),
    plain("replace", "a node is removed, another added and promoted", 2),
    plain("wipe", "a node loses its disk and comes back under its old id", 1),
    plain("retry-storm", "clients repeat what they said", 2),
];

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Kill { .. } => "kill",
            Kind::PowerOff { .. } => "power-off",
            Kind::PowerCut => "power-cut",
            Kind::CrashLoop { .. } => "crash-loop",
            Kind::QuorumLost => "quorum-lost",
            Kind::DataCenterLost { .. } => "data-center-lost",
            Kind::Partition { .. } => "partition",
            Kind::OneWay { .. } => "one-way",
            Kind::Partial { .. } => "partial",
            Kind::Bridge { .. } => "bridge",
            Kind::Ring => "ring",
            Kind::LeaderAlone => "leader-alone",
            Kind::Swizzle => "swizzle",
            Kind::Hold { .. } => "hold",
            Kind::SlowLink { .. } => "slow-link",
            Kind::Pause { .. } => "pause",
            Kind::SlowDisk { .. } => "slow-disk",
            Kind::Loss { .. } => "loss",
            Kind::SlowNode { .. } => "slow-node",
            Kind::CrashAtStep { .. } => "crash-at-step",
            Kind::ReadFails { .. } => "read-fails",
            Kind::ReadFlips { .. } => "read-flips",
            Kind::RotAlive { .. } => "rot-alive",
            Kind::SnapshotCut { .. } => "snapshot-cut",
            Kind::SnapshotDamaged { .. } => "snapshot-damaged",
            Kind::SnapshotForeign => "snapshot-foreign",
            Kind::SnapshotOlder { .. } => "snapshot-older",
            Kind::Duplicate { .. } => "duplicate",
            Kind::Replay { .. } => "replay",
            Kind::RollingRestart => "rolling-restart",
            Kind::RollingUpgrade { .. } => "rolling-upgrade",
            Kind::Finalize => "finalize",
            Kind::SyncFails { .. } => "sync-fails",
            Kind::DiskFull { .. } => "disk-full",
            Kind::BitRot { .. } => "bit-rot",
            Kind::ClockOffset { .. } => "clock-offset",
            Kind::ClockDrift { .. } => "clock-drift",
            Kind::ClockJump { .. } => "clock-jump",
            Kind::Snapshot { .. } => "snapshot",
            Kind::MoveLeader => "move-leader",
            Kind::Replace { .. } => "replace",
            Kind::Wipe { .. } => "wipe",
            Kind::RetryStorm => "retry-storm",
        }
    }

    pub fn needs_wiretap(&self) -> bool {
        KINDS.iter().any(|kind| kind.name == self.name() && kind.needs_wiretap)
    }

    /// What it is about is the cluster's version.
    pub(super) fn is_about_versions(&self) -> bool {
        matches!(self, Kind::RollingUpgrade { .. } | Kind::Finalize)
    }

    /// A node may forget what it had synced. Two such nodes may take the quorum's memory with them: no protocol survives that.
    pub(super) fn loses_memory(&self) -> bool {
        matches!(self, Kind::BitRot { .. } | Kind::RotAlive { .. } | Kind::Wipe { .. } | Kind::SyncFails { .. })
    }
}
