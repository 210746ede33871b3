//! `jangbu`, the operator's command: what is typed by people at a terminal, and by their scripts.
//!
//! ```text
//!     cli       what can be typed, and every --help
//!     noun      one file per noun: dev · cluster · cert · token · member · leader · account · transfer · events
//!     work      one folder per long job: import · export · load · verify · backup · demo
//!     watch     top, live; inspect, a folder whose node doesn't run; support_bundle, all of it in one file
//!     recover   when a majority is lost for good
//!     access    endpoints and certificates to a client; operator: the cluster's own door for operators
//!     output    table or JSON; error: what went wrong, what to do next, which exit code
//!     course    how far a command has come, and its last word if it is interrupted; whole: files written aside
//! ```
//!
//! Laws
//! * Results go to standard output; errors, advice and progress to standard error, whatever the format.
//! * Exit codes are an interface: `error::Kind` lists them, and they do not change.
//! * In JSON, ids, amounts and timestamps are decimal strings: they do not fit in a double.
//!
//! Not here: the rules (`ledger`), retries (`client`), anything that needs a cluster to be right. What lies on disk is read by the node's own code (`raft_store::inspect`).

pub mod access;
pub mod account;
pub mod audit;
pub mod backup;
pub mod bench;
pub mod cert;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod course;
pub mod demo;
pub mod dev;
pub mod error;
pub mod events;
pub mod export;
pub mod http;
pub mod import;
pub mod inspect;
pub mod leader;
pub mod load;
pub mod member;
pub mod node;
pub mod operator;
pub mod output;
pub mod progress;
pub mod read;
pub mod recover;
pub mod support_bundle;
pub mod text;
pub mod token;
pub mod top;
pub mod transfer;
pub mod upgrade;
pub mod verify;
pub mod whole;

use std::process::ExitCode;

use clap::Parser as _;

pub use cli::Cli;
pub use error::{Failure, Kind};

/// Runs one command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and version to standard output with 0, mistakes to standard error.
            let _ = error.print();
            return if error.use_stderr() { Kind::Usage.exit_code() } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    let outcome = runtime.block_on(course::follow(cli.run()));
    // Calls that nobody waits for any more must not keep the command from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
