//! The figures that are reported of this ledger: measured with the shipped binaries, as shipped, on this machine.
//!
//!     failover      what a caller sees from the leader's SIGKILL to the next acknowledged payment, over many kills
//!     throughput    transfers a second: one a request from 1, 16 and 256 callers, and full batches
//!     history       after ten million transfers: start-up, memory, bytes on disk
//!
//! Three nodes on loopback, every write synced. A table for people on standard error, JSON on standard output.
//!
//! No test: nothing here passes or fails. Run it alone, on a machine that does nothing else: `ops/figures.sh`.
//!
//! Not here: load of other shapes, which is `jangbu load`.

mod failover;
mod history;
mod report;
mod throughput;

use anyhow::{Result, bail};
use report::Report;

#[tokio::main]
async fn main() -> Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let all = ["failover", "throughput", "history"];
    if let Some(unknown) = chosen.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("`{unknown}` is none of {all:?}");
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let mut report = Report::new();
    if wanted("failover") {
        failover::measure(&mut report).await;
    }
    if wanted("throughput") {
        throughput::measure(&mut report).await;
    }
    if wanted("history") {
        history::measure(&mut report).await;
    }
    report.print();
    Ok(())
}
