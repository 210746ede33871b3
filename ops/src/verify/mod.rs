//! `jangbu verify`: proves that the replicas agree, that the books balance, and that nothing acknowledged is lost.
//!
//! ```text
//!     replicas   every node recounts its state at one log index: digests equal, debits equal credits, limits kept
//!     audit      with --acknowledged or --audit: every event there ever was, against balances and against a load's journal
//!     deep       with --deep: every node reads all that it has stored, one node after the other
//! ```
//!
//! It changes nothing and may run beside live traffic.

pub mod audit;
pub mod deep;
pub mod replicas;

use std::path::PathBuf;

use clap::Args;
use jangbu_client::Client;
use jangbu_ledger::Transfer;
use serde::Serialize;

use crate::access;
use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::load::journal;
use crate::{events, output, progress, text};
use audit::Audit;
use deep::Deep;
use replicas::Replicas;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jangbu verify
  jangbu verify --acknowledged acks    the journal of `jangbu load --journal acks`
  jangbu verify --audit                every event there ever was against every balance
  jangbu verify --deep --timeout 60s   every table and value on every node's disk against its checksums

Exit code 3 if anything is found.")]
pub struct Arguments {
    /// A journal of acknowledged transfers (jangbu load --journal): each must be there, once, as acknowledged.
    #[arg(long, value_name = "FILE")]
    pub acknowledged: Option<PathBuf>,
    /// Go through all events and recompute every balance. Implied by --acknowledged. Takes about half a gibibyte of memory at
    /// most, besides the accounts and the journal; beyond 12 million events it goes through them again for each 12 million.
    #[arg(long)]
    pub audit: bool,
    /// Have each node read all that it has stored, indexes included, one node after the other. A node that finds damage
    /// names it and ends, as it would when it met it; the others go on.
    #[arg(long)]
    pub deep: bool,
    /// Be content with a majority of the voters: a node may be away.
    #[arg(long)]
    pub allow_absent: bool,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub replicas: Replicas,
    pub audit: Option<AuditReport>,
    /// What each node read, if asked to.
    pub deep: Vec<Deep>,
    pub problems: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct AuditReport {
    pub events: u64,
    /// Transfers in the journal.
    pub acknowledged: u64,
    pub lost: u64,
    pub doubled: u64,
    pub altered: u64,
    /// Accounts whose balances are not explained by their events.
    pub balances_unexplained: u64,
    pub out_of_order: u64,
    /// A few of the ids concerned, lost ones first.
    pub examples: Vec<String>,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let report = self.report_of(global).await?;
        output::show(global.output, &report, Report::text)?;
        match report.problems.len() {
            0 => Ok(()),
            count => Err(Failure::new(Kind::Unhealthy, format!("{count} problem(s) found"))
                .advise("stop writing, keep every data folder as it is, and look at the nodes named above")),
        }
    }

    pub async fn report_of(&self, global: &Global) -> Result<Report, Failure> {
        let replicas = replicas::ask(global).await?;
        let audit = if self.audit || self.acknowledged.is_some() {
            let acknowledged = self.acknowledged.as_deref().map(journal::read).transpose()?.unwrap_or_default();
            let events = replicas.replicas.iter().map(|replica| replica.events).max().unwrap_or(0);
            Some(audited(&access::client(global)?, acknowledged, events).await?)
        } else {
            None
        };
        let deep = if self.deep { deep::read_everything(global, &replicas).await? } else { Vec::new() };
        let mut problems = replicas.problems(self.allow_absent);
        problems.extend(audit.iter().flat_map(AuditReport::problems));
        problems.extend(deep.iter().filter_map(|deep| deep.problem.clone()));
        Ok(Report { replicas, audit, deep, problems })
    }
}

/// Goes through every event that happened up to now.
async fn audited(client: &Client, acknowledged: Vec<Transfer>, events: u64) -> Result<AuditReport, Failure> {
    let acknowledged_count = acknowledged.len() as u64;
    let mut audit = Audit::new(acknowledged, true, events.div_ceil(audit::IDS_AT_ONCE).max(1));
    let bar = progress::spinner("going through all events");
    loop {
        let mut since = 0;
        loop {
            let events = events::page(client, since, u64::MAX).await?;
            let Some(last) = events.last() else { break };
            since = last.timestamp + 1;
            events.iter().for_each(|event| audit.event(event));
            bar.set_message(format!("{} events gone through", text::grouped(audit.events_count)));
        }
        if !audit.all_were_given() {
            break;
        }
    }
    bar.finish_and_clear();
    let examples = audit.lost.iter().chain(&audit.doubled).chain(&audit.altered).map(|id| format!("transfer {id}"));
    let accounts = audit.unexplained.iter().map(|id| format!("account {id}"));
    Ok(AuditReport {
        events: audit.events_count,
        acknowledged: acknowledged_count,
        lost: audit.lost.len() as u64,
        doubled: audit.doubled.len() as u64,
        altered: audit.altered.len() as u64,
        balances_unexplained: audit.unexplained.len() as u64,
        out_of_order: audit.out_of_order_count,
        examples: examples.chain(accounts).take(EXAMPLES_MAX).collect(),
    })
}

const EXAMPLES_MAX: usize = 10;

impl AuditReport {
    fn problems(&self) -> Vec<String> {
        let found = [
            (self.lost, "acknowledged transfer(s) are lost"),
            (self.doubled, "transfer(s) moved money twice"),
            (self.altered, "transfer(s) are recorded otherwise than acknowledged"),
            (self.balances_unexplained, "balance(s) are not explained by their events"),
            (self.out_of_order, "event(s) out of order"),
        ];
        let mut problems: Vec<String> =
            found.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if !problems.is_empty() {
            problems.push(format!("among them: {}", self.examples.join(", ")));
        }
        problems
    }
}

impl Report {
    fn text(&self) -> String {
        let mut lines = vec![self.replicas.text()];
        if let Some(audit) = &self.audit {
            lines.push(output::pairs([
                ("events gone through", text::grouped(audit.events)),
                ("acknowledged transfers", text::grouped(audit.acknowledged)),
                ("lost", audit.lost.to_string()),
                ("doubled", audit.doubled.to_string()),
                ("altered", audit.altered.to_string()),
                ("balances unexplained", audit.balances_unexplained.to_string()),
            ]));
        }
        if !self.deep.is_empty() {
            lines.push(deep::text(&self.deep));
        }
        match self.problems.is_empty() {
            true => lines.push("all is as it should be".into()),
            false => lines.extend(self.problems.iter().map(|problem| format!("PROBLEM: {problem}"))),
        }
        lines.join("\n\n")
    }
}
