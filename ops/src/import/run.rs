//! Creates what was planned, and compares the outcome with the plan's sums.
//!
//! Requests go one after the other: an account's transfers then stand in the ledger in the order of the plan.
//!
//! Laws
//! * A failover is waited out: the same request with the same ids is asked again until it is answered or patience ends.
//! * Linked transfers are never torn apart by the end of a request.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use jangbu_client::{Client, ClientError};
use jangbu_ledger::{
    AccountId, CreateAccountStatus, CreateTransferStatus, EVENTS_MAX, Transfer, TransferFlags, TransferId,
};

use super::plan::{Plan, Sums};
use crate::error::{Failure, Kind};
use crate::{access, course, progress, text};

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    pub accounts: Counts,
    pub transfers: Counts,
    pub accounts_refused: Vec<(AccountId, CreateAccountStatus)>,
    /// With the line of the file.
    pub transfers_refused: Vec<(u64, TransferId, CreateTransferStatus)>,
    /// `None`: there was nothing to compare with.
    pub compared: Option<Compared>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub created: u64,
    /// Already there, and the same.
    pub exists: u64,
    pub refused: u64,
}

#[derive(Debug, Default)]
pub struct Compared {
    pub accounts_count: u64,
    /// Account, sums in the ledger, sums of the file.
    pub different: Vec<(AccountId, Sums, Sums)>,
}

pub async fn run(client: &Client, plan: &Plan, batch: usize, patience: Duration) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let bar = progress::bar("accounts", plan.accounts.len() as u64);
    told_so_far(&bar);
    for accounts in plan.accounts.chunks(batch) {
        let created = persist(patience, || client.create_accounts(accounts)).await?;
        for (account, result) in accounts.iter().zip(&created.results) {
            match result.status {
                CreateAccountStatus::Created => outcome.accounts.created += 1,
                CreateAccountStatus::Exists => outcome.accounts.exists += 1,
                refused => {
                    outcome.accounts.refused += 1;
                    outcome.accounts_refused.push((account.id, refused));
                }
            }
        }
        bar.inc(accounts.len() as u64);
        told_so_far(&bar);
    }
    bar.finish_and_clear();

    let bar = progress::bar("transfers", plan.transfers.len() as u64);
    for rows in requests(&plan.transfers, batch)? {
        let transfers: Vec<Transfer> = rows.iter().map(|(_, transfer)| *transfer).collect();
        let created = persist(patience, || client.create_transfers(&transfers)).await?;
        for ((line, transfer), result) in rows.iter().zip(&created.results) {
            match result.status {
                CreateTransferStatus::Created => outcome.transfers.created += 1,
                CreateTransferStatus::Exists => outcome.transfers.exists += 1,
                refused => {
                    outcome.transfers.refused += 1;
                    outcome.transfers_refused.push((*line, transfer.id, refused));
                }
            }
        }
        bar.inc(rows.len() as u64);
        told_so_far(&bar);
    }
    bar.finish_and_clear();

    outcome.compared = compare(client, plan, patience).await?;
    Ok(outcome)
}

/// If it ends here.
pub fn told_so_far(bar: &ProgressBar) {
    let (what, there, all) = (bar.message(), bar.position(), bar.length().unwrap_or(0));
    let (there, all) = (text::grouped(there), text::grouped(all));
    course::so_far(format!("{there} of {all} {what} are in the ledger, and perhaps a request more"));
}

/// Cuts the rows into requests of at most `batch`, never within a chain of linked transfers.
fn requests(rows: &[(u64, Transfer)], batch: usize) -> Result<Vec<&[(u64, Transfer)]>, Failure> {
    let mut requests = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let mut end = rest.len().min(batch);
        let is_linked = |index: usize| {
            let (_, transfer): &(u64, Transfer) = &rest[index];
            transfer.flags.contains(TransferFlags::LINKED)
        };
        while end > 0 && end < rest.len() && is_linked(end - 1) {
            end -= 1;
        }
        if end == 0 {
            return Err(Failure::usage(format!(
                "the chain of linked transfers from line {} on is longer than a request",
                rest[0].0
            ))
            .advise(format!("a request holds at most {EVENTS_MAX} (see --batch)")));
        }
        let (request, after) = rest.split_at(end);
        requests.push(request);
        rest = after;
    }
    Ok(requests)
}

/// Every account that the plan creates against the exact sums of its amounts.
async fn compare(client: &Client, plan: &Plan, patience: Duration) -> Result<Option<Compared>, Failure> {
    let Some(sums) = plan.sums() else { return Ok(None) };
    let mut compared = Compared::default();
    let ids: Vec<AccountId> = plan.accounts.iter().map(|account| account.id).collect();
    for ids in ids.chunks(EVENTS_MAX) {
        let accounts = persist(patience, || client.lookup_accounts(ids)).await?.value;
        for account in &accounts {
            compared.accounts_count += 1;
            let expected = sums.get(&account.id).copied().unwrap_or_default();
            let found = Sums { debits: account.debits_posted.0, credits: account.credits_posted.0 };
            if found != expected {
                compared.different.push((account.id, found, expected));
            }
        }
    }
    Ok(Some(compared))
}

/// Between attempts: long enough not to press, short against a failover.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks again while the cluster cannot answer. Safe for writes because the ids stay the same.
pub async fn persist<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        let failure = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => access::failure(error),
        };
        let is_passing = matches!(failure.kind, Kind::Unavailable | Kind::OutcomeUnknown);
        if !is_passing || Instant::now() >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: u64, linked: bool) -> (u64, Transfer) {
        let flags = if linked { TransferFlags::LINKED } else { TransferFlags::NONE };
        (line, Transfer { flags, ..Transfer::default() })
    }

    fn lengths(rows: &[(u64, Transfer)], batch: usize) -> Vec<usize> {
        requests(rows, batch).unwrap().iter().map(|request| request.len()).collect()
    }

    #[test]
    fn a_chain_is_never_torn_apart() {
        let rows = [row(1, false), row(2, false), row(3, true), row(4, true), row(5, false)];
        assert_eq!(lengths(&rows, 3), [2, 3]);
        assert_eq!(lengths(&rows, 4), [2, 3]);
        assert_eq!(lengths(&rows, 5), [5]);
    }

    #[test]
    fn a_chain_longer_than_a_request_is_refused_by_its_line() {
        let rows = [row(1, false), row(2, true), row(3, true), row(4, false)];
        assert!(requests(&rows, 2).unwrap_err().message.contains("line 2"));
    }
}
