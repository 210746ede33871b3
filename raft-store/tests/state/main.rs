//! The state of a replica, as openraft and readers meet it: on both engines, against a model that keeps everything in memory and never flushes.

mod damage;
mod engine_contract;
mod format;
mod harness;
mod model;
mod readers;
mod restart;
mod snapshots;
