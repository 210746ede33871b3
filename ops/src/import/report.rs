//! What an import tells: control totals, what was created, and each row that does not agree.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::Arguments;
use super::plan::{Plan, RefusedRow, Sums};
use super::run::{Counts, Outcome};
use crate::error::Failure;
use crate::output::{self, Output};
use crate::{text, whole};

#[derive(Debug, Serialize)]
pub struct Report {
    pub file: String,
    pub format: &'static str,
    pub dry_run: bool,
    pub control_totals: Totals,
    /// Rows that cannot be loaded. With any, nothing is.
    pub rows_refused: Vec<RefusedRow>,
    /// Rows whose recorded balance does not follow from the row before it, in any order of their account's day.
    pub disagreements_count: usize,
    /// The same for a reader who takes each day's rows first fit.
    pub disagreements_first_fit_count: Option<usize>,
    pub days_not_searched: usize,
    pub disagreements: Vec<DisagreementView>,
    /// Accounts whose recorded end balance is not the sum of their amounts.
    pub end_balances_that_differ: Vec<EndBalance>,
    /// `None` until it was loaded.
    pub loaded: Option<Loaded>,
}

#[derive(Debug, Serialize)]
pub struct Totals {
    pub rows: u64,
    pub accounts: u64,
    pub transfers: u64,
    pub ledgers: Vec<LedgerTotal>,
}

#[derive(Debug, Serialize)]
pub struct LedgerTotal {
    pub ledger: u32,
    pub transfers: u64,
    pub amount: String,
}

#[derive(Debug, Serialize)]
pub struct DisagreementView {
    pub line: u64,
    pub transfer: String,
    pub account: String,
    pub date: String,
    /// Amounts in the file's own unit.
    pub before: String,
    pub change: String,
    pub expected: String,
    pub recorded: String,
    pub difference: String,
}

#[derive(Debug, Serialize)]
pub struct EndBalance {
    pub account_id: String,
    pub recorded: String,
    pub sum: String,
    pub difference: String,
}

#[derive(Debug, Serialize)]
pub struct Loaded {
    pub seconds: f64,
    pub accounts_created: u64,
    pub accounts_already_there: u64,
    pub transfers_created: u64,
    pub transfers_already_there: u64,
    pub refused: Vec<RefusedEvent>,
    /// Accounts whose sums in the ledger were compared with the file's.
    pub balances_compared: u64,
    pub balances_different: Vec<DifferentBalance>,
}

#[derive(Debug, Serialize)]
pub struct RefusedEvent {
    /// 0 for an account.
    pub line: u64,
    pub id: String,
    pub status: &'static str,
}

#[derive(Debug, Serialize)]
pub struct DifferentBalance {
    pub account_id: String,
    pub ledger_debits: String,
    pub ledger_credits: String,
    pub file_debits: String,
    pub file_credits: String,
}

impl Loaded {
    pub fn is_whole(&self) -> bool {
        self.refused.is_empty() && self.balances_different.is_empty()
    }
}

impl Report {
    pub fn of(plan: &Plan, arguments: &Arguments) -> Report {
        let totals = plan.control_totals();
        let money = |value: i128| text::decimal_text(value, plan.scale);
        let mut disagreements: Vec<_> = plan.disagreements.iter().collect();
        disagreements.sort_by_key(|row| row.line);
        Report {
            file: arguments.file.display().to_string(),
            format: arguments.format.name(),
            dry_run: arguments.dry_run,
            control_totals: Totals {
                rows: totals.rows,
                accounts: totals.accounts,
                transfers: totals.transfers,
                ledgers: totals
                    .ledgers
                    .iter()
                    .map(|(ledger, (transfers, amount))| LedgerTotal {
                        ledger: *ledger,
                        transfers: *transfers,
                        amount: amount.to_string(),
                    })
                    .collect(),
            },
            rows_refused: plan.refused.clone(),
            disagreements_count: disagreements.len(),
            disagreements_first_fit_count: plan.disagreements_first_fit,
            days_not_searched: plan.days_too_long,
            disagreements: disagreements
                .into_iter()
                .map(|row| DisagreementView {
                    line: row.line,
                    transfer: row.transfer.to_string(),
                    account: row.account.to_string(),
                    date: row.date.to_string(),
                    before: money(row.before),
                    change: money(row.change),
                    expected: money(row.before + row.change),
                    recorded: money(row.recorded),
                    difference: money(row.difference()),
                })
                .collect(),
            end_balances_that_differ: plan
                .end_balances_that_differ()
                .into_iter()
                .map(|(account_id, recorded, sum)| EndBalance {
                    account_id: account_id.to_string(),
                    recorded: money(recorded),
                    sum: money(sum),
                    difference: money(recorded - sum),
                })
                .collect(),
            loaded: None,
        }
    }

    pub fn loaded(&mut self, outcome: Outcome, took: Duration) {
        let Outcome { accounts, transfers, accounts_refused, transfers_refused, compared } = outcome;
        let Counts { created: accounts_created, exists: accounts_already_there, .. } = accounts;
        let Counts { created: transfers_created, exists: transfers_already_there, .. } = transfers;
        let refused_accounts = accounts_refused.iter().map(|(id, status)| RefusedEvent {
            line: 0,
            id: id.to_string(),
            status: status.name(),
        });
        let refused_transfers = transfers_refused.iter().map(|(line, id, status)| RefusedEvent {
            line: *line,
            id: id.to_string(),
            status: status.name(),
        });
        let compared = compared.unwrap_or_default();
        self.loaded = Some(Loaded {
            seconds: took.as_secs_f64(),
            accounts_created,
            accounts_already_there,
            transfers_created,
            transfers_already_there,
            refused: refused_accounts.chain(refused_transfers).collect(),
            balances_compared: compared.accounts_count,
            balances_different: compared
                .different
                .iter()
                .map(|(id, found, expected): &(_, Sums, Sums)| DifferentBalance {
                    account_id: id.to_string(),
                    ledger_debits: found.debits.to_string(),
                    ledger_credits: found.credits.to_string(),
                    file_debits: expected.debits.to_string(),
                    file_credits: expected.credits.to_string(),
                })
                .collect(),
        });
    }

    /// Each row that does not agree, as CSV.
    pub fn write_rows(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: csv::Error| Failure::general(format!("{}: {error}", path.display()));
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in &self.disagreements {
            writer.serialize(row).map_err(failed)?;
        }
        let rows = writer.into_inner().map_err(|error| failed(error.into_error().into()))?;
        whole::replace(path, &rows, 0o644).map_err(|error| failed(error.into()))
    }

    pub fn show(&self, format: Output, rows_are_in: Option<&Path>) -> Result<(), Failure> {
        output::show(format, self, |report| report.text(rows_are_in))
    }

    fn text(&self, rows_are_in: Option<&Path>) -> String {
        let totals = &self.control_totals;
        let mut pairs = vec![
            ("rows", text::grouped(totals.rows)),
            ("accounts", text::grouped(totals.accounts)),
            ("transfers", text::grouped(totals.transfers)),
        ];
        for ledger in &totals.ledgers {
            pairs.push(("sum of amounts", format!("{} in ledger {}", ledger.amount, ledger.ledger)));
        }
        pairs.push(("rows that do not agree", self.disagreements_text()));
        pairs.push(("end balances that differ", text::grouped(self.end_balances_that_differ.len() as u64)));
        match &self.loaded {
            Some(loaded) => {
                let counted = |created: u64, there: u64| {
                    format!("{} ({} already there)", text::grouped(created), text::grouped(there))
                };
                pairs.push(("accounts created", counted(loaded.accounts_created, loaded.accounts_already_there)));
                pairs.push(("transfers created", counted(loaded.transfers_created, loaded.transfers_already_there)));
                pairs.push((
                    "sums compared",
                    format!(
                        "{} accounts, {} different",
                        text::grouped(loaded.balances_compared),
                        loaded.balances_different.len()
                    ),
                ));
                pairs.push(("took", format!("{:.2} s", loaded.seconds)));
            }
            None if self.dry_run => pairs.push(("created", "nothing: this is a dry run".into())),
            None => pairs.push(("created", "nothing".into())),
        }
        let mut lines = vec![output::pairs(pairs)];
        lines.extend(self.rows_refused.iter().take(ROWS_SHOWN).map(|row| format!("line {}: {}", row.line, row.reason)));
        if let Some(loaded) = &self.loaded {
            lines.extend(
                loaded
                    .refused
                    .iter()
                    .take(ROWS_SHOWN)
                    .map(|event| format!("line {}: {} was refused: {}", event.line, event.id, event.status)),
            );
            lines.extend(loaded.balances_different.iter().take(ROWS_SHOWN).map(|account| {
                format!(
                    "account {}: the ledger has debits {} credits {}, the file {} and {}",
                    account.account_id,
                    account.ledger_debits,
                    account.ledger_credits,
                    account.file_debits,
                    account.file_credits
                )
            }));
        }
        lines.extend(self.disagreement_lines(rows_are_in));
        lines.join("\n")
    }

    fn disagreements_text(&self) -> String {
        let count = text::grouped(self.disagreements_count as u64);
        match self.disagreements_first_fit_count {
            Some(first_fit) if first_fit > self.disagreements_count => format!(
                "{count}, in the best order of each day ({} where each day is read first fit)",
                text::grouped(first_fit as u64)
            ),
            _ => count,
        }
    }

    fn disagreement_lines(&self, rows_are_in: Option<&Path>) -> Vec<String> {
        let mut lines: Vec<String> = self
            .disagreements
            .iter()
            .take(ROWS_SHOWN)
            .map(|row| {
                format!(
                    "line {}: transaction {} of account {}: {} {} makes {}, recorded is {} ({})",
                    row.line,
                    row.transfer,
                    row.account,
                    row.before,
                    signed(&row.change),
                    row.expected,
                    row.recorded,
                    signed(&row.difference)
                )
            })
            .collect();
        match (self.disagreements.len().saturating_sub(ROWS_SHOWN), rows_are_in) {
            (_, Some(path)) if !self.disagreements.is_empty() => {
                lines.push(format!("all of them are in {}", path.display()))
            }
            (more @ 1.., _) => {
                lines.push(format!(
                    "… and {} more: --report FILE or -o json names them all",
                    text::grouped(more as u64)
                ));
            }
            _ => {}
        }
        lines
    }
}

/// Enough to see of which kind they are.
const ROWS_SHOWN: usize = 10;

fn signed(amount: &str) -> String {
    if amount.starts_with('-') { amount.to_string() } else { format!("+{amount}") }
}
