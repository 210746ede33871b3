//! `jangbu bench`: the same work on this cluster and on what else one could use, in one run on one machine.
//!
//! ```text
//!     row       what is asked: pure, the same for every system
//!     system    what a system has to be able to do          jangbu  postgres  etcd
//!     driver    callers in closed and open loops
//!     measure   one row on one system
//!     usage     CPU, memory and bytes written, from /proc
//!     report    medians, spreads, ratios: a table, JSON, a chart
//! ```
//!
//! Systems take turns, round by round, each with three fresh replicas that sync what they acknowledge. Figures of different
//! runs, or machines, are not to be compared; the ratios within one are.
//!
//! Laws
//! * What was measured is told, also by a run that is interrupted or fails.
//!
//! Not here: proofs that nothing is lost (`verify`, `demo`, the simulation).

pub mod chart;
pub mod driver;
pub mod etcd;
pub mod jangbu;
pub mod measure;
pub mod postgres;
pub mod process;
pub mod report;
pub mod row;
pub mod system;
pub mod usage;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::Global;
use crate::error::{During as _, Failure};
use crate::whole::Scratch;
use crate::{course, output, progress, text, whole};
use measure::Times;
use report::Report;
use row::{ROWS, Row};
use system::{Name, System};

/// Long enough for connections to be made, queues to fill, and the gathering of requests to find its measure.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jangbu bench                                     every row on every system, three rounds: 40 minutes
  jangbu bench --systems jangbu --rounds 1         this cluster alone
  jangbu bench --rows callers --seconds 2          rows whose name contains a word
  jangbu bench --chart bench.svg --json bench.json a chart, and everything for programs
  jangbu bench --long 20000000 --rows none         does the rate decay as the books grow?")]
pub struct Arguments {
    /// What to compare.
    #[arg(long, value_delimiter = ',', default_value = "jangbu,postgres,etcd")]
    systems: Vec<Name>,
    /// Only rows whose name contains this. May be repeated.
    #[arg(long, value_name = "WORD")]
    rows: Vec<String>,
    /// How often each system is started anew and measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// How long each of a row's three measurements takes, after a warm-up of half a second.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// At the end, so many transfers in largest requests on this cluster: the rate of each tenth.
    #[arg(long, value_name = "TRANSFERS", value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000))]
    long: Option<u64>,
    /// Write a chart of the rates to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Write all that was measured to this file, beside the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the systems keep their data; made, and removed at the end. Takes up to 20 GB.
    #[arg(long, value_name = "FOLDER", default_value = "jangbu-bench")]
    dir: PathBuf,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        if self.dir.exists() {
            return Err(Failure::usage(format!("{} is there already", self.dir.display()))
                .advise("remove it, or name another folder with --dir"));
        }
        std::fs::create_dir_all(&self.dir).during(|| self.dir.display().to_string())?;
        let scratch = Scratch::new(self.dir.clone());
        let began = Instant::now();
        let mut report = Report::new(self.rounds, self.seconds);
        let mut ending = course::ends_by_itself("the systems are stopped, and what was measured is told");
        let ended = tokio::select! {
            ended = self.measure(&mut report) => ended,
            () = ending.heard() => {
                course::undone();
                Err(ending.last_word())
            }
        };
        drop(scratch);
        report.seconds_taken = began.elapsed().as_secs();
        report.cut_short = ended.as_ref().err().map(|failure| failure.message.clone());
        self.tell(&report, global)?;
        ended
    }

    fn tell(&self, report: &Report, global: &Global) -> Result<(), Failure> {
        if let Some(path) = &self.chart {
            whole::replace(path, chart::svg(report).as_bytes(), 0o644).during(|| path.display().to_string())?;
        }
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(report).map_err(std::io::Error::other)?;
            whole::replace(path, json.as_bytes(), 0o644).during(|| path.display().to_string())?;
        }
        output::show(global.output, report, Report::text)
    }

    async fn measure(&self, report: &mut Report) -> Result<(), Failure> {
        let rows = self.chosen();
        let times = Times { warm_up: WARM_UP, measured: Duration::from_secs(self.seconds.into()) };
        let steps = u64::from(self.rounds) * self.systems.len() as u64 * (rows.len() as u64 + 1);
        let bar = progress::bar("measuring", steps);
        for round in 1..=self.rounds {
            for name in self.systems.iter().filter(|_| !rows.is_empty()) {
                let folder = self.folder(*name)?;
                let mut system = name.start(&folder).await?;
                let able: Vec<_> = rows.iter().filter(|row| system.can(row)).collect();
                for row in able {
                    bar.set_message(format!("{}, round {round}: {}", system.name(), row.name));
                    system.open_accounts(row.accounts_count).await?;
                    let outcome = measure::row(system.as_mut(), row, u64::from(round) << 8, times).await;
                    let outcome = outcome.map_err(|failure| about(failure, system.as_ref(), row))?;
                    bar.suspend(|| output::note(format!("round {round}: {}", outcome.text())));
                    report.add(outcome);
                    bar.inc(1);
                }
                bar.set_message(format!("{}, round {round}: the leader is killed", system.name()));
                system.open_accounts(row::ACCOUNTS_COUNT).await?;
                report.recovered(measure::recovery(system.as_mut(), times).await?);
                drop(system);
                std::fs::remove_dir_all(&folder).during(|| folder.display().to_string())?;
            }
        }
        if let Some(count) = self.long {
            bar.set_message(format!("{} transfers", text::grouped(count)));
            let mut system = Name::Jangbu.start(&self.folder(Name::Jangbu)?).await?;
            system.open_accounts(row::ACCOUNTS_COUNT).await?;
            report.long = measure::long(system.as_mut(), count).await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn chosen(&self) -> Vec<&'static Row> {
        let is_chosen = |row: &&Row| self.rows.is_empty() || self.rows.iter().any(|word| row.name.contains(word));
        ROWS.iter().filter(is_chosen).collect()
    }

    fn folder(&self, name: Name) -> Result<PathBuf, Failure> {
        let folder = std::fs::canonicalize(&self.dir)?.join(format!("{name:?}").to_lowercase());
        std::fs::create_dir_all(&folder).during(|| folder.display().to_string())?;
        readable(&self.dir)?;
        Ok(folder)
    }
}

/// A system that runs as another user has to get to its folder.
fn readable(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).during(|| folder.display().to_string())
}

fn about(failure: Failure, system: &dyn System, row: &Row) -> Failure {
    Failure { message: format!("{}, {}: {}", system.name(), row.name, failure.message), ..failure }
}
