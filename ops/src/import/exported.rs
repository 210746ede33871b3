//! An export, taken back: into an empty cluster, as imported events with the timestamps that they had.
//!
//! ```text
//!     survey   every row is read and added up: it is what the manifest says, or nothing is created
//!     accounts · transfers and expiries, in the order in which they happened ──► create ──► exists, if asked again
//!     compare  every account with the file's; the digest of their balances with the manifest's
//! ```
//!
//! What the rules let an import carry: ids, amounts, user data, flags, the order, the timestamps. A pending transfer comes without its
//! timeout, as nobody could say on which clock it runs; one that has expired is voided, by a transfer with an id made of the moment.
//! An account that a transfer closed is opened, and closed by that transfer.
//!
//! Laws
//! * Broken off, it may be started again: what is there already stays, and what differs is named.
//! * Memory holds a request, and the ids of accounts that were closed.
//!
//! Not here: the files (`export/table.rs`), what can't be carried (docs/operations.md).

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::Path;
use std::time::{Duration, Instant};

use jangbu_client::Client;
use jangbu_ledger::{
    Account, AccountFlags, AccountId, Amount, Balances, CreateAccountStatus, CreateTransferStatus, EVENTS_MAX,
    QueryFilter, Transfer, TransferFlags, TransferId,
};
use serde::Serialize;

use super::plan::source_id;
use super::run::{Counts, persist, told_so_far};
use crate::error::{Failure, Kind};
use crate::export::columns::{Expiry, Record};
use crate::export::manifest::{Manifest, Sums, Tally};
use crate::export::table::{self, Rows};
use crate::output::{self, Output};
use crate::{progress, text};

/// How an export is loaded.
pub struct Loading<'a> {
    pub folder: &'a Path,
    /// Events of one request.
    pub batch: usize,
    pub patience: Duration,
}

#[derive(Debug, Serialize)]
pub struct Report {
    folder: String,
    /// Of the cluster that was exported.
    cluster_id: String,
    log_index: u64,
    dry_run: bool,
    accounts_created: u64,
    accounts_already_there: u64,
    transfers_created: u64,
    transfers_already_there: u64,
    /// Pending transfers that had expired: each was voided here.
    expiries_voided: u64,
    /// Pending transfers that are open and would have expired: here they don't.
    timeouts_dropped: u64,
    /// Of the accounts as the ledger has them now; not of a dry run.
    balances_digest: Option<String>,
    seconds: f64,
}

/// All of it; or without a client, as far as the files alone go.
pub async fn run(loading: &Loading<'_>, client: Option<&Client>, output: Output) -> Result<(), Failure> {
    let began = Instant::now();
    let manifest = Manifest::read(loading.folder)?;
    let survey = tokio::task::block_in_place(|| survey(loading.folder, &manifest)).map_err(|mut failure| {
        failure.message.push_str("; nothing was imported");
        failure
    })?;
    let mut report = Report {
        folder: loading.folder.display().to_string(),
        cluster_id: manifest.cluster_id.clone(),
        log_index: manifest.log_index,
        dry_run: client.is_none(),
        accounts_created: 0,
        accounts_already_there: 0,
        transfers_created: 0,
        transfers_already_there: 0,
        expiries_voided: manifest.sums.expiries_count,
        timeouts_dropped: manifest.pendings_expiring_count,
        balances_digest: None,
        seconds: 0.0,
    };
    if let Some(client) = client {
        let work = Work { loading, client, manifest: &manifest, survey: &survey };
        work.check_empty().await?;
        let accounts = work.accounts().await?;
        let transfers = work.transfers().await?;
        (report.accounts_created, report.accounts_already_there) = (accounts.created, accounts.exists);
        (report.transfers_created, report.transfers_already_there) = (transfers.created, transfers.exists);
        report.balances_digest = Some(work.compare().await?);
    }
    report.seconds = began.elapsed().as_secs_f64();
    output::show(output, &report, text_of)
}

fn text_of(report: &Report) -> String {
    let counted =
        |created: u64, there: u64| format!("{} ({} already there)", text::grouped(created), text::grouped(there));
    let mut pairs = vec![(
        "export",
        format!("{}: cluster {} as of entry {}", report.folder, report.cluster_id, text::grouped(report.log_index)),
    )];
    match &report.balances_digest {
        None => pairs.push(("created", "nothing: this is a dry run; the files are what was exported".into())),
        Some(digest) => {
            pairs.push(("accounts created", counted(report.accounts_created, report.accounts_already_there)));
            pairs.push(("transfers created", counted(report.transfers_created, report.transfers_already_there)));
            pairs.push(("digest of balances", format!("{digest}, as in the export; every account was compared")));
        }
    }
    pairs.push(("expired, now voided", text::grouped(report.expiries_voided)));
    pairs.push(("took", format!("{:.1} s", report.seconds)));
    let table = output::pairs(pairs);
    match report.timeouts_dropped {
        0 => table,
        count => format!(
            "{table}\n{} pending transfer(s) would have expired and don't any more: post or void them",
            text::grouped(count)
        ),
    }
}

// --- the files

/// What must be known before the first account is created.
struct Survey {
    /// Accounts that a transfer of the export closed, and which therefore begin open.
    closed_later: BTreeSet<AccountId>,
}

/// Reads all. Blocks on the disk.
fn survey(folder: &Path, manifest: &Manifest) -> Result<Survey, Failure> {
    for file in &manifest.files {
        table::check(folder, file)?;
    }
    let mut tally = Tally::default();
    let mut closed_later = BTreeSet::new();
    each::<Account>(folder, manifest, |account| tally.account(&account))?;
    each::<Transfer>(folder, manifest, |transfer| {
        tally.transfer(&transfer);
        if transfer.flags.contains(TransferFlags::CLOSING_DEBIT) {
            closed_later.insert(transfer.debit_account_id);
        }
        if transfer.flags.contains(TransferFlags::CLOSING_CREDIT) {
            closed_later.insert(transfer.credit_account_id);
        }
    })?;
    each::<Expiry>(folder, manifest, |expiry| tally.expiry(&expiry))?;
    let found = tally.finish();
    if found == manifest.sums {
        return Ok(Survey { closed_later });
    }
    Err(Failure::new(
        Kind::Unhealthy,
        format!("the tables don't add up to what the manifest says: {}", difference(&found, &manifest.sums)),
    )
    .advise("export again"))
}

fn each<R: Record>(folder: &Path, manifest: &Manifest, mut visit: impl FnMut(R)) -> Result<(), Failure> {
    let mut table = manifest.format.open::<R>(folder)?;
    loop {
        let rows = table.next()?;
        if rows.is_empty() {
            return Ok(());
        }
        rows.into_iter().for_each(&mut visit);
    }
}

/// The first thing that differs, for people.
fn difference(found: &Sums, said: &Sums) -> String {
    let counts = |sums: &Sums| [sums.accounts_count, sums.transfers_count, sums.expiries_count];
    for (what, (found, said)) in
        ["accounts", "transfers", "expiries"].iter().zip(counts(found).iter().zip(counts(said)))
    {
        if *found != said {
            return format!("{found} {what}, and {said} were exported");
        }
    }
    match found.ledgers.iter().zip(&said.ledgers).find(|(found, said)| found != said) {
        Some((found, _)) => format!("the sums of ledger {} differ", found.ledger),
        None => format!("the digest of balances is {}, and was {}", found.balances_digest, said.balances_digest),
    }
}

// --- the ledger

struct Work<'a> {
    loading: &'a Loading<'a>,
    client: &'a Client,
    manifest: &'a Manifest,
    survey: &'a Survey,
}

impl Work<'_> {
    /// Empty, or begun with this very export.
    async fn check_empty(&self) -> Result<(), Failure> {
        let filter = QueryFilter { limit: 1, ..QueryFilter::default() };
        let first = persist(self.loading.patience, || self.client.query_accounts(&filter)).await?.value;
        let Some(there) = first.first() else { return Ok(()) };
        let ours = self.open::<Account>()?.next()?;
        if ours.first().is_some_and(|account| account.id == there.id && account.timestamp == there.timestamp) {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Conflict,
            format!("the cluster isn't empty: account {} is there, and isn't of this export", there.id),
        )
        .advise("an export keeps its timestamps, which only an empty cluster can take: make a new one"))
    }

    fn open<R: Record>(&self) -> Result<Box<dyn Rows<R>>, Failure> {
        self.manifest.format.open::<R>(self.loading.folder)
    }

    async fn accounts(&self) -> Result<Counts, Failure> {
        let bar = progress::bar("accounts", self.manifest.sums.accounts_count);
        told_so_far(&bar);
        let (mut counts, mut table) = (Counts::default(), self.open::<Account>()?);
        let is_linked = |account: &Account| account.flags.contains(AccountFlags::LINKED);
        let mut requests = Requests::new(self.loading.batch);
        while requests.fill(&mut || Ok(table.next()?.into_iter().map(|account| self.as_created(&account)).collect()))? {
            let accounts = requests.next(is_linked)?;
            let created = persist(self.loading.patience, || self.client.create_accounts(&accounts)).await?;
            // One that is closed was so by its transfer, in an attempt before this one.
            let is_there = |account: &Account, status| match status {
                CreateAccountStatus::ExistsWithDifferentFlags => self.survey.closed_later.contains(&account.id),
                status => status == CreateAccountStatus::Exists,
            };
            let answers = accounts.iter().zip(&created.results);
            let in_chains = in_chains_that_are_there(
                answers.clone().map(|(account, result)| (is_linked(account), is_there(account, result.status))),
            );
            for ((account, result), chain_is_there) in answers.zip(in_chains) {
                match result.status {
                    CreateAccountStatus::Created => counts.created += 1,
                    CreateAccountStatus::LinkedEventFailed if chain_is_there => counts.exists += 1,
                    status if is_there(account, status) => counts.exists += 1,
                    refused => return Err(not_taken("account", account.id.0, refused.name())),
                }
            }
            bar.inc(accounts.len() as u64);
            told_so_far(&bar);
        }
        bar.finish_and_clear();
        Ok(counts)
    }

    async fn transfers(&self) -> Result<Counts, Failure> {
        let sums = &self.manifest.sums;
        let bar = progress::bar("transfers", sums.transfers_count + sums.expiries_count);
        let mut history = History::new(self.open::<Transfer>()?, self.open::<Expiry>()?);
        let (mut counts, mut requests) = (Counts::default(), Requests::new(self.loading.batch));
        let is_linked = |transfer: &Transfer| transfer.flags.contains(TransferFlags::LINKED);
        while requests.fill(&mut || history.next())? {
            let transfers = requests.next(is_linked)?;
            let created = persist(self.loading.patience, || self.client.create_transfers(&transfers)).await?;
            let is_there = |status| status == CreateTransferStatus::Exists;
            let answers = transfers.iter().zip(&created.results);
            let in_chains = in_chains_that_are_there(
                answers.clone().map(|(transfer, result)| (is_linked(transfer), is_there(result.status))),
            );
            for ((transfer, result), chain_is_there) in answers.zip(in_chains) {
                match result.status {
                    CreateTransferStatus::Created => counts.created += 1,
                    CreateTransferStatus::Exists => counts.exists += 1,
                    CreateTransferStatus::LinkedEventFailed if chain_is_there => counts.exists += 1,
                    refused => return Err(not_taken("transfer", transfer.id.0, refused.name())),
                }
            }
            bar.inc(transfers.len() as u64);
            told_so_far(&bar);
        }
        bar.finish_and_clear();
        Ok(counts)
    }

    /// Every account as the ledger has it, with the file's; the digest of balances.
    async fn compare(&self) -> Result<String, Failure> {
        let bar = progress::bar("comparing", self.manifest.sums.accounts_count);
        let (mut table, mut tally) = (self.open::<Account>()?, Tally::default());
        loop {
            let rows = table.next()?;
            if rows.is_empty() {
                break;
            }
            for rows in rows.chunks(EVENTS_MAX) {
                let ids: Vec<AccountId> = rows.iter().map(|account| account.id).collect();
                // In the order asked.
                let found = persist(self.loading.patience, || self.client.lookup_accounts(&ids)).await?.value;
                let mut found = found.iter().peekable();
                for row in rows {
                    let account = found.next_if(|account| account.id == row.id).copied().unwrap_or_default();
                    check_account(row, &account)?;
                    tally.account(&account);
                }
                bar.inc(rows.len() as u64);
            }
        }
        bar.finish_and_clear();
        Ok(tally.finish().balances_digest)
    }

    /// The event that makes an account of it: empty, and open if a transfer closes it.
    fn as_created(&self, account: &Account) -> Account {
        let mut flags = account.flags.with(AccountFlags::IMPORTED);
        if self.survey.closed_later.contains(&account.id) {
            flags = flags.without(AccountFlags::CLOSED);
        }
        let mut created = Account { flags, ..*account };
        created.set_balances(Balances::default());
        created
    }
}

/// Of each event of a request (is it linked to the next, is it there already) whether something of its chain is there. A chain is
/// created whole: asked again, one event of it answers that it exists, and the others that they failed with it.
fn in_chains_that_are_there(events: impl Iterator<Item = (bool, bool)>) -> Vec<bool> {
    let (mut answers, mut chain_length, mut chain_is_there) = (Vec::new(), 0, false);
    for (is_linked, is_there) in events {
        chain_length += 1;
        chain_is_there |= is_there;
        if !is_linked {
            answers.resize(answers.len() + chain_length, chain_is_there);
            (chain_length, chain_is_there) = (0, false);
        }
    }
    // A request ends with a chain's end; one that doesn't is refused as open.
    answers.resize(answers.len() + chain_length, false);
    answers
}

/// All that an import can carry is there; and that is everything but that it wasn't imported before.
fn check_account(row: &Account, found: &Account) -> Result<(), Failure> {
    if *found == (Account { flags: row.flags.with(AccountFlags::IMPORTED), ..*row }) {
        return Ok(());
    }
    let differs = Account::COLUMNS.iter().find(|column| {
        let imported = u128::from(AccountFlags::IMPORTED.0) * u128::from(column.name == "flags");
        (column.get)(row) | imported != (column.get)(found)
    });
    let (name, there) = differs.map_or(("reserved", 0), |column| (column.name, (column.get)(found)));
    let message = format!("account {} isn't what was exported: its {name} is {there} in the ledger", row.id);
    Err(Failure::new(Kind::Conflict, message)
        .advise("was anything else written to this cluster? Begin again with an empty one"))
}

fn not_taken(what: &str, id: u128, status: &str) -> Failure {
    let advice = match status {
        "imported_event_timestamp_must_not_advance" => {
            "it is of a moment that this cluster hasn't seen yet: compare the clocks, and begin again later"
        }
        _ => "was anything else written to this cluster? Begin again with an empty one",
    };
    Failure::new(Kind::Conflict, format!("{what} {id} was refused: {status}")).advise(advice)
}

/// Transfers in the order of their timestamps; between them, where one expired, what voids it.
struct History {
    transfers: Ahead<Transfer>,
    expiries: Ahead<Expiry>,
}

impl History {
    fn new(transfers: Box<dyn Rows<Transfer>>, expiries: Box<dyn Rows<Expiry>>) -> History {
        History { transfers: Ahead::of(transfers), expiries: Ahead::of(expiries) }
    }

    /// Some more; none at the end.
    fn next(&mut self) -> Result<Vec<Transfer>, Failure> {
        let mut events = Vec::with_capacity(table::ROWS_AT_ONCE);
        while events.len() < table::ROWS_AT_ONCE {
            let (transfer, expiry) = (self.transfers.peek()?, self.expiries.peek()?);
            match (transfer, expiry) {
                (Some(transfer), expiry) if expiry.is_none_or(|expiry| transfer.timestamp < expiry.timestamp) => {
                    events.push(imported(&transfer));
                    self.transfers.rows.next();
                }
                (_, Some(expiry)) => {
                    events.push(void(&expiry));
                    self.expiries.rows.next();
                }
                (_, None) => break,
            }
        }
        Ok(events)
    }
}

/// Rows of a table, one by one.
struct Ahead<R> {
    table: Box<dyn Rows<R>>,
    rows: Peekable<std::vec::IntoIter<R>>,
}

impl<R: Copy> Ahead<R> {
    fn of(table: Box<dyn Rows<R>>) -> Ahead<R> {
        Ahead { table, rows: Vec::new().into_iter().peekable() }
    }

    fn peek(&mut self) -> Result<Option<R>, Failure> {
        if self.rows.peek().is_none() {
            self.rows = self.table.next()?.into_iter().peekable();
        }
        Ok(self.rows.peek().copied())
    }
}

fn imported(transfer: &Transfer) -> Transfer {
    Transfer { flags: transfer.flags.with(TransferFlags::IMPORTED), timeout: 0, ..*transfer }
}

/// Gives back what an expiry gave back, at its moment. No two things happen at one moment: its id is unlike any other's.
fn void(expiry: &Expiry) -> Transfer {
    Transfer {
        id: TransferId(source_id("expiry", 0, expiry.timestamp)),
        pending_id: expiry.pending_id,
        amount: Amount::ZERO,
        flags: TransferFlags::VOID_PENDING_TRANSFER.with(TransferFlags::IMPORTED),
        timestamp: expiry.timestamp,
        ..Transfer::default()
    }
}

/// Events on their way into requests of at most `batch`, never within a chain of linked ones.
struct Requests<E> {
    waiting: Vec<E>,
    batch: usize,
    is_at_end: bool,
}

impl<E: Copy> Requests<E> {
    fn new(batch: usize) -> Requests<E> {
        Requests { waiting: Vec::new(), batch, is_at_end: false }
    }

    /// Reads on until a request and the event behind it are there. False: all is done.
    fn fill(&mut self, more: &mut dyn FnMut() -> Result<Vec<E>, Failure>) -> Result<bool, Failure> {
        while !self.is_at_end && self.waiting.len() <= self.batch {
            let events = more()?;
            self.is_at_end = events.is_empty();
            self.waiting.extend(events);
        }
        Ok(!self.waiting.is_empty())
    }

    fn next(&mut self, is_linked: impl Fn(&E) -> bool) -> Result<Vec<E>, Failure> {
        let mut end = self.waiting.len().min(self.batch);
        while end > 0 && end < self.waiting.len() && is_linked(&self.waiting[end - 1]) {
            end -= 1;
        }
        if end == 0 {
            return Err(Failure::usage("a chain of linked events is longer than a request")
                .advise(format!("a request holds at most {EVENTS_MAX}: leave --batch away")));
        }
        Ok(self.waiting.drain(..end).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given<R>(Vec<Vec<R>>);

    impl<R: Send> Rows<R> for Given<R> {
        fn next(&mut self) -> Result<Vec<R>, Failure> {
            Ok(if self.0.is_empty() { Vec::new() } else { self.0.remove(0) })
        }
    }

    fn transfer(id: u128, timestamp: u64) -> Transfer {
        Transfer { id: TransferId(id), timestamp, timeout: 5, ..Transfer::default() }
    }

    #[test]
    fn what_expired_is_voided_where_it_expired() {
        let transfers = Given(vec![vec![transfer(1, 10), transfer(2, 20)], vec![transfer(3, 30)]]);
        let expiry = |id, timestamp| Expiry { pending_id: TransferId(id), timestamp };
        let expiries = Given(vec![vec![expiry(1, 25)], vec![expiry(3, 99)]]);
        let mut history = History::new(Box::new(transfers), Box::new(expiries));
        let events = history.next().unwrap();
        let told: Vec<(u64, u128)> = events.iter().map(|event| (event.timestamp, event.pending_id.0)).collect();
        assert_eq!(told, [(10, 0), (20, 0), (25, 1), (30, 0), (99, 3)]);
        assert!(events.iter().all(|event| event.flags.contains(TransferFlags::IMPORTED) && event.timeout == 0));
        let voids = events.iter().filter(|event| event.flags.contains(TransferFlags::VOID_PENDING_TRANSFER));
        let ids: BTreeSet<TransferId> = voids.map(|event| event.id).collect();
        assert_eq!(ids.len(), 2, "an id of its own for each");
        assert!(history.next().unwrap().is_empty());
    }

    #[test]
    fn a_chain_is_there_when_one_of_it_is() {
        let events = [(false, true), (true, true), (true, false), (false, false), (true, false), (false, false)];
        assert_eq!(in_chains_that_are_there(events.into_iter()), [true, true, true, true, false, false]);
    }

    #[test]
    fn requests_are_full_and_never_tear_a_chain_apart() {
        let linked = |event: &char| event.is_uppercase();
        let cut = |events: &str, batch: usize| {
            let mut parts: Vec<Vec<char>> = events.split(' ').map(|part| part.chars().collect()).rev().collect();
            let mut requests = Requests::new(batch);
            let mut cut = Vec::new();
            while requests.fill(&mut || Ok(parts.pop().unwrap_or_default()))? {
                cut.push(requests.next(linked)?.into_iter().collect::<String>());
            }
            Ok::<_, Failure>(cut.join(" "))
        };
        assert_eq!(cut("abcdefg h", 3).unwrap(), "abc def gh");
        assert_eq!(cut("abCD e", 4).unwrap(), "ab CDe");
        assert_eq!(cut("aBCDe", 4).unwrap(), "a BCDe");
        assert!(cut("aBCDEf", 4).unwrap_err().message.contains("chain"));
    }
}
