//! `jangbu demo`: the whole story on one machine, and a verdict.
//!
//! Three nodes start as three data centres; real bank data is imported where a file is given; clients pay through all three
//! nodes at once; in the middle the leader is killed; payments go on; the killed node comes back and catches up; then
//! everything is verified.
//!
//! Laws
//! * It succeeds only if every line of its table was checked and is true.
//! * It leaves nothing behind, unless it was asked to or found something wrong that should be looked into.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::cli::Global;
use crate::dev::{self, folder::Folder, folder::Node};
use crate::error::{Failure, Kind};
use crate::import::{self, Format};
use crate::load::{self, Run};
use crate::operator::Operator;
use crate::{course, output, text, verify};

/// The leader is killed in the middle, and an election takes its time on a busy machine.
const DURATION_MIN: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jangbu demo
  jangbu demo --data berka-trans.asc    with a real bank's transactions
  jangbu demo --keep                    leave the cluster running")]
pub struct Arguments {
    /// The cluster's folder; what is left there of an earlier demo is removed.
    #[arg(long, value_name = "FOLDER", default_value = "jangbu-demo")]
    dir: PathBuf,
    /// Import this file first: the transactions of the PKDD'99 Discovery Challenge.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// How long payments are made.
    #[arg(long, value_name = "DURATION", default_value = "12s", value_parser = text::duration)]
    duration: Duration,
    /// Clients that pay, over all nodes.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    clients: u32,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
    /// The node's program. Default: `jangbud` beside this one.
    #[arg(long, value_name = "PATH", env = "JANGBU_JANGBUD")]
    jangbud: Option<PathBuf>,
}

/// One line of the table: what was checked, what came out, and whether it is as it must be.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    found: String,
    good: bool,
}

#[derive(Debug, Serialize)]
struct Verdict {
    good: bool,
    checks: Vec<Check>,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        self.check()?;
        self.clear(global.timeout).await?;
        course::next(format!("jangbu dev stop --remove --dir {}", self.dir.display()));
        let mut ending = course::ends_by_itself("the nodes are stopped, and what they kept is removed");
        let told = tokio::select! {
            outcome = self.story(global) => Some(outcome),
            () = ending.heard() => None,
        };
        let Some(outcome) = told else {
            self.clear(global.timeout).await?;
            course::undone();
            return Err(ending.last_word());
        };
        match &outcome {
            Ok(_) if self.keep => {}
            // What was found to be wrong can be looked into.
            Err(failure) if failure.kind == Kind::Unhealthy => {
                self.stop(global.timeout).await?;
                output::note(format!("the nodes' data and logs are kept in {}", self.dir.display()));
            }
            _ => self.clear(global.timeout).await?,
        }
        let verdict = outcome?;
        output::show(global.output, &verdict, verdict_text)?;
        if self.keep {
            output::note(self.what_next()?);
        }
        Ok(())
    }

    /// Before anything is started.
    fn check(&self) -> Result<(), Failure> {
        if self.duration < DURATION_MIN {
            return Err(Failure::usage("payments must go on before, while and after a node is away")
                .advise(format!("give them more time: --duration {}s", DURATION_MIN.as_secs())));
        }
        match &self.data {
            Some(file) => File::open(file).map(drop).map_err(|error| Failure::unreadable(file, &error)),
            None => Ok(()),
        }
    }

    /// Ends and removes an earlier demo. A folder that is no cluster's is left alone.
    async fn clear(&self, timeout: Duration) -> Result<(), Failure> {
        if self.dir.exists() && Folder::open(&self.dir)?.is_none() {
            return Err(Failure::usage(format!("{} is there and holds no cluster", self.dir.display()))
                .advise("name another folder with --dir"));
        }
        self.stop(timeout).await?;
        match self.dir.exists() {
            true => Folder::existing(&self.dir)?.remove(),
            false => Ok(()),
        }
    }

    async fn stop(&self, timeout: Duration) -> Result<(), Failure> {
        match Folder::open(&self.dir)? {
            Some(folder) => dev::stop(&folder, timeout).await,
            None => Ok(()),
        }
    }

    async fn story(&self, global: &Global) -> Result<Verdict, Failure> {
        let started = dev::start(&self.cluster(), global.timeout).await?;
        tell(format!("three nodes serve, {} ms after they were started:", started.ready_after_ms));
        for node in &started.nodes {
            tell(format!("  node {} in {:<8} {}", node.id, node.data_center, node.client));
        }
        let folder = Folder::existing(&self.dir)?;
        let global = Global { endpoints: started.endpoints, papers: folder.papers(), ..global.clone() };
        let mut checks = Vec::new();
        if let Some(file) = &self.data {
            checks.push(import_file(file, &global).await?);
        }
        self.pay(&folder, &global, &mut checks).await?;
        self.prove(&folder, &global, &mut checks).await?;
        let verdict = Verdict { good: checks.iter().all(|check| check.good), checks };
        if !verdict.good {
            output::show(global.output, &verdict, verdict_text)?;
            return Err(Failure::new(Kind::Unhealthy, "not everything is as it must be"));
        }
        Ok(verdict)
    }

    /// Payments through all nodes at once; the leader is killed in the middle, and comes back.
    async fn pay(&self, folder: &Folder, global: &Global, checks: &mut Vec<Check>) -> Result<(), Failure> {
        let load = load::Arguments {
            duration: self.duration,
            count: None,
            accounts: 1_000,
            batch: 1,
            clients: self.clients,
            rate: None,
            hot: 100_000,
            two_phase: 200_000,
            read: 0,
            node: Vec::new(),
            packed: false,
            journal: Some(self.journal()),
            ledger: 700,
            seed: 1,
            patience: Duration::from_secs(30),
        };
        let (run, workers) = load.begin(&global.endpoints, global.timeout, &folder.way()?).await?;
        tell(format!("{} clients pay through all three nodes", self.clients));

        wait_until(run.began + self.duration / 3).await;
        let leader = dev::leader(folder, global.timeout).await?;
        let before = run.acknowledged();
        dev::kill(folder, leader, global.timeout).await?;
        let killed_at = Instant::now();
        tell(format!(
            "{} payments acknowledged; now node {} ({}), which leads, is killed with SIGKILL",
            text::grouped(before),
            leader.id,
            leader.data_center
        ));

        wait_until(run.began + self.duration * 2 / 3).await;
        let without_it = run.acknowledged() - before;
        let new_leader = dev::leader(folder, global.timeout).await?;
        tell(format!(
            "{} more payments without it; node {} ({}) leads now",
            text::grouped(without_it),
            new_leader.id,
            new_leader.data_center
        ));
        dev::restart(folder, leader, global.timeout).await?;
        tell(format!("node {} is started again, and serves", leader.id));

        let report = load::finish(&run, workers).await?;
        let caught_up_after = caught_up(folder, leader, global.timeout).await?;
        tell(format!("node {} has caught up, {} ms after the last payment", leader.id, caught_up_after.as_millis()));
        checks.extend([
            Check {
                what: "payments acknowledged",
                found: format!(
                    "{} ({:.0} a second)",
                    text::grouped(report.transfers_acknowledged),
                    report.transfers_per_second
                ),
                good: before > 0 && report.transfers_acknowledged > 0,
            },
            Check {
                what: "of these while the killed node was away",
                found: text::grouped(without_it),
                good: without_it > 0,
            },
            Check {
                what: "longest pause without a payment",
                found: format!("{:.0} ms{}", report.longest_pause.ms, at_the_kill(&run, &report, killed_at)),
                good: report.longest_pause.ms < PAUSE_MAX.as_millis() as f64,
            },
            Check {
                what: "outcomes unknown at first, all resolved",
                found: report.unknown_resolved.to_string(),
                good: report.unknown_left == 0,
            },
            Check {
                what: "refused or failed payments",
                found: report.transfers_refused.values().sum::<u64>().to_string(),
                good: report.transfers_refused.is_empty(),
            },
        ]);
        Ok(())
    }

    async fn prove(&self, folder: &Folder, global: &Global, checks: &mut Vec<Check>) -> Result<(), Failure> {
        tell("verifying: every replica recounts its state, and every event is gone through".into());
        let arguments =
            verify::Arguments { acknowledged: Some(self.journal()), audit: true, deep: false, allow_absent: false };
        let report = arguments.report_of(global).await?;
        let replicas = &report.replicas;
        let audit = report.audit.as_ref().ok_or_else(|| Failure::general("the audit was not made"))?;
        let all_answer = replicas.replicas.len() == folder.nodes.len();
        let digest = replicas.replicas.first().map_or("none", |replica| &replica.digest);
        checks.extend([
            Check { what: "acknowledged payments lost", found: audit.lost.to_string(), good: audit.lost == 0 },
            Check { what: "payments doubled", found: audit.doubled.to_string(), good: audit.doubled == 0 },
            Check {
                what: "payments or balances altered",
                found: (audit.altered + audit.balances_unexplained).to_string(),
                good: audit.altered + audit.balances_unexplained == 0,
            },
            Check {
                what: "digests of the three replicas",
                found: format!(
                    "{} at log index {}",
                    if replicas.digests_are_equal() { "equal" } else { "DIFFERENT" },
                    replicas.log_index
                ) + &format!(" ({}…)", digest.chars().take(12).collect::<String>()),
                good: all_answer && replicas.digests_are_equal(),
            },
            Check {
                what: "debits equal credits, in each ledger",
                found: if replicas.debits_equal_credits() { "yes".into() } else { "NO".into() },
                good: all_answer && replicas.debits_equal_credits(),
            },
            Check {
                what: "anything else found",
                found: if report.problems.is_empty() { "nothing".into() } else { report.problems.join("; ") },
                good: report.problems.is_empty(),
            },
        ]);
        Ok(())
    }

    fn cluster(&self) -> dev::StartArgs {
        dev::StartArgs { jangbud: self.jangbud.clone(), ..dev::StartArgs::three_in(&self.dir) }
    }

    fn journal(&self) -> PathBuf {
        self.dir.join("acknowledged")
    }

    fn what_next(&self) -> Result<String, Failure> {
        let folder = Folder::existing(&self.dir)?;
        let endpoints = folder.client_addresses().join(",");
        let program = std::env::current_exe()?;
        let exports = dev::exports(&folder);
        let (program, dir) = (program.display(), folder.path.display());
        Ok(format!(
            "
the cluster is left running; what to type next:
  alias jangbu={program}
  export JANGBU_ENDPOINTS={endpoints}{exports}
  jangbu cluster status
  jangbu account list --limit 5
  jangbu load --duration 5s
  jangbu dev kill leader --dir {dir}
  jangbu cluster health
  jangbu dev restart --dir {dir}
  jangbu verify --audit
  jangbu dev stop --remove --dir {dir}"
        ))
    }
}

/// More is no blink; it would mean that the new leader was not found in time.
const PAUSE_MAX: Duration = Duration::from_secs(10);

async fn import_file(file: &std::path::Path, global: &Global) -> Result<Check, Failure> {
    let arguments = import::Arguments::of(file.to_path_buf(), Format::Berka);
    let report = arguments.report_of(global).await?;
    if let Some(row) = report.rows_refused.first() {
        return Err(Failure::usage(format!("{}: line {}: {}", file.display(), row.line, row.reason)));
    }
    let loaded = report.loaded.as_ref().ok_or_else(|| Failure::general("nothing was loaded"))?;
    tell(format!(
        "{} bank transactions of {} accounts imported in {:.2} s; {} rows whose balance does not follow are named by `jangbu import`",
        text::grouped(report.control_totals.transfers),
        text::grouped(report.control_totals.accounts),
        loaded.seconds,
        text::grouped(report.disagreements_count as u64)
    ));
    Ok(Check {
        what: "imported rows; sums equal the file's",
        found: format!(
            "{}; {} of {} accounts",
            text::grouped(loaded.transfers_created),
            loaded.balances_compared - loaded.balances_different.len() as u64,
            loaded.balances_compared
        ),
        good: loaded.is_whole() && loaded.transfers_created == report.control_totals.rows,
    })
}

/// Was the longest pause the one that the kill made?
fn at_the_kill(run: &Arc<Run>, report: &load::report::Report, killed_at: Instant) -> &'static str {
    let began = run.began + Duration::from_secs_f64(report.longest_pause.at_second);
    let ended = began + Duration::from_secs_f64(report.longest_pause.ms / 1e3);
    let near = Duration::from_millis(100);
    if began <= killed_at + near && killed_at <= ended + near { ", when the leader was killed" } else { "" }
}

/// How long until `node` has applied all that the leader has.
async fn caught_up(folder: &Folder, node: &Node, timeout: Duration) -> Result<Duration, Failure> {
    let began = Instant::now();
    let leader = dev::leader(folder, timeout).await?;
    let goal = Operator::new(&folder.way()?, &leader.client, timeout)?.status().await?.applied_index;
    let operator = Operator::new(&folder.way()?, &node.client, timeout)?;
    while operator.status().await?.applied_index < goal {
        if began.elapsed() > timeout {
            return Err(Failure::new(Kind::Unhealthy, format!("node {} does not catch up", node.id)));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(began.elapsed())
}

async fn wait_until(time: Instant) {
    tokio::time::sleep_until(time.into()).await;
}

fn tell(line: String) {
    output::note(line);
}

fn verdict_text(verdict: &Verdict) -> String {
    let rows = verdict.checks.iter().map(|check| {
        [check.what.to_string(), check.found.clone(), if check.good { "ok".into() } else { "NOT AS IT MUST BE".into() }]
    });
    let table = output::table(&["checked", "found", ""], rows);
    let last = if verdict.good { "all of it was checked, and is true" } else { "something is wrong" };
    format!("\n{table}\n\n{last}")
}
