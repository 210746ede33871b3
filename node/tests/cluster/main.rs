//! Whole nodes in one process, on real sockets and real disks: what a cluster promises, seen through its doors.
//!
//! Not here: the shipped binaries and what kills them (`tests/`), and misfortune by the thousand (`simulation/`).

#![allow(unreachable_pub, reason = "a test program has no outside")]

mod administration;
mod clocks;
mod deployment;
mod digests;
mod distances;
mod envelopes;
mod harness;
mod health;
mod membership;
mod metrics;
mod payments;
mod reads;
mod refusals;
mod shutdown;
mod snapshots;
mod succession;
