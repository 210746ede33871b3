//! `jangbu import`: a bank's transactions, worked out first, then created, then compared.
//!
//! ```text
//!     plan        what would be created, and what does not add up: pure
//!     berka, csv  one format each: text to plan
//!     day_order   within a day, the order in which recorded balances follow
//!     exported    what `jangbu export` has written, streamed rather than planned
//!     run         create what is planned, go on through failovers, compare what the ledger says with the sums
//!     report      what a person or a program is told
//! ```
//!
//! Laws
//! * Nothing is created from a file of which a single row cannot be understood.
//! * An import may be broken off and started again at any time: ids come from the source, so nothing is created twice.

pub mod berka;
pub mod csv;
pub mod day_order;
pub mod exported;
pub mod plan;
pub mod report;
pub mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::access;
use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::text;
use plan::Plan;
use report::Report;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jangbu import trans.asc --format berka --dry-run            what would be created, what doesn't add up
  jangbu import trans.asc --format berka --report rows.csv    load it; name each row that doesn't agree
  jangbu import payments.csv --format csv --accounts accounts.csv --scale 2
  jangbu import payments.csv --format csv --map id=nr --map amount=betrag
  jangbu import books --format export                         a folder of `jangbu export`, into an empty cluster

CSV columns of transfers: id debit_account_id credit_account_id amount ledger code
  and, where wanted:      pending_id user_data_128 user_data_64 user_data_32 timeout flags
CSV columns of accounts:  id ledger code
  and, where wanted:      user_data_128 user_data_64 user_data_32 flags balance

An import can be broken off and started again: what is already there is left alone.")]
pub struct Arguments {
    /// The file, or the folder of an export.
    pub file: PathBuf,
    /// What it holds.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Only say what would be created and what does not add up.
    #[arg(long)]
    pub dry_run: bool,
    /// Write each row that does not agree to this CSV file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Exit with 3 also when rows of the file itself do not agree with each other.
    #[arg(long)]
    pub strict: bool,
    /// csv: the file of accounts to create first.
    #[arg(long, value_name = "FILE")]
    pub accounts: Option<PathBuf>,
    /// csv: the column of a field, as FIELD=COLUMN. May be repeated.
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = field_column)]
    pub map: Vec<(String, String)>,
    /// csv: decimal places between the file's unit and the ledger's; at 2, 12.50 is 1250.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=18))]
    pub scale: u32,
    /// Events in one request, 1 to 8189.
    #[arg(long, default_value_t = 8_189, value_parser = clap::value_parser!(u32).range(1..=8_189))]
    pub batch: u32,
    /// How long to go on asking while the cluster does not answer.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = text::duration)]
    pub patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The transaction file of the PKDD'99 Discovery Challenge: a Czech bank, in koruna.
    Berka,
    /// Comma-separated values with a header line.
    Csv,
    /// A folder that `jangbu export` has written, CSV or Parquet: into an empty cluster, with the timestamps that all had.
    Export,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Berka => "berka",
            Format::Csv => "csv",
            Format::Export => "export",
        }
    }
}

fn field_column(text: &str) -> Result<(String, String), String> {
    let (field, column) = text.split_once('=').ok_or_else(|| format!("`{text}`: write FIELD=COLUMN"))?;
    Ok((field.to_string(), column.to_string()))
}

impl Arguments {
    /// An import of `file` with everything else as usual.
    pub fn of(file: PathBuf, format: Format) -> Arguments {
        Arguments {
            file,
            format,
            dry_run: false,
            report: None,
            strict: false,
            accounts: None,
            map: Vec::new(),
            scale: 0,
            batch: 8_189,
            patience: Duration::from_secs(60),
        }
    }

    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        if self.format == Format::Export {
            return self.run_export(global).await;
        }
        let report = self.report_of(global).await?;
        if let Some(path) = &self.report {
            report.write_rows(path)?;
        }
        report.show(global.output, self.report.as_deref())?;
        self.verdict(&report)
    }

    async fn run_export(&self, global: &Global) -> Result<(), Failure> {
        let misplaced = [
            ("--accounts", self.accounts.is_some()),
            ("--map", !self.map.is_empty()),
            ("--scale", self.scale != 0),
            ("--report", self.report.is_some()),
            ("--strict", self.strict),
        ];
        if let Some((flag, _)) = misplaced.iter().find(|(_, given)| *given) {
            return Err(Failure::usage(format!("{flag} says nothing about an export"))
                .advise("leave it away: an export is loaded as it was written, or not at all"));
        }
        let client = if self.dry_run { None } else { Some(access::client(global)?) };
        let loading = exported::Loading { folder: &self.file, batch: self.batch as usize, patience: self.patience };
        exported::run(&loading, client.as_ref(), global.output).await
    }

    /// Plans, and unless it is a dry run creates and compares.
    pub async fn report_of(&self, global: &Global) -> Result<Report, Failure> {
        let plan = self.plan()?;
        let mut report = Report::of(&plan, self);
        if self.dry_run || !plan.refused.is_empty() {
            return Ok(report);
        }
        let began = Instant::now();
        let client = access::client(global)?;
        let outcome = run::run(&client, &plan, self.batch as usize, self.patience).await?;
        report.loaded(outcome, began.elapsed());
        Ok(report)
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error));
        let content = read(&self.file)?;
        match self.format {
            Format::Berka => Ok(berka::plan(&content)),
            Format::Csv => {
                let accounts = self.accounts.as_ref().map(read).transpose()?;
                let map: BTreeMap<String, String> = self.map.iter().cloned().collect();
                Ok(csv::plan(&content, accounts.as_deref(), &csv::Reading { map, scale: self.scale }))
            }
            Format::Export => unreachable!("an export is streamed, not planned"),
        }
    }

    fn verdict(&self, report: &Report) -> Result<(), Failure> {
        if !report.rows_refused.is_empty() {
            let count = report.rows_refused.len();
            return Err(Failure::usage(format!("{count} row(s) cannot be loaded; nothing was created"))
                .advise("mend the rows that are named above and start again"));
        }
        if let Some(loaded) = &report.loaded
            && !loaded.is_whole()
        {
            return Err(Failure::new(Kind::Conflict, "not everything is in the ledger as the file says")
                .advise("the rows and accounts are named above; what was created stays"));
        }
        if self.strict && report.disagreements_count > 0 {
            return Err(Failure::new(Kind::Unhealthy, format!("{} row(s) do not agree", report.disagreements_count)));
        }
        Ok(())
    }
}
