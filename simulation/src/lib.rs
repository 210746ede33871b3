pub mod actors;
pub mod auditor;
pub mod chance;
pub mod chronicle;
pub mod cluster;
pub mod coverage;
pub mod determinism;
pub mod disk;
pub mod door;
pub mod faults;
pub mod invariants;
pub mod links;
pub mod marks;
pub mod minimize;
pub mod report;
pub mod run;
pub mod runner;
pub mod scenarios;
pub mod tell;
pub mod totals;
pub mod wiretap;
pub mod workload;
pub mod world;

/// Which of the two builds this is: the file `gate.toml` turns the assertions of openraft on, and those of this crate with them.
pub const BUILD: &str =
    if cfg!(debug_assertions) { "gate: openraft's assertions are checked" } else { "sweep: as shipped" };
