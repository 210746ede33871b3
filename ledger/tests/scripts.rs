//! Golden scripts: one behaviour each, readable by a stranger.
//!
//! A script is a list of commands and, below `---`, what was answered. Each event is a request of its own, unless it is
//! `linked` to the next one or stands between `request` and `send`. Time begins at one second; each event takes a
//! nanosecond. What the commands are is written at `Script::run`.
//!
//! `UPDATE_GOLDENFILES=1 cargo test --test scripts` writes the answers down. Read each against the rules before you keep it.
//!
//! Laws
//! * Each status has a script that is named after it and shows it.
//! * After each request the laws hold.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use goldenscript::{Argument, Command, Context};
use jangbu_ledger::{
    Account, AccountBalance, AccountFilter, AccountFilterFlags, AccountFlags, AccountId, Amount, Books,
    CreateAccountStatus, CreateTransferStatus, Event, EventKind, EventNumber, IdState, Transfer, TransferFlags,
    TransferId,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SECOND: u64 = 1_000_000_000;

#[test]
fn each_script_gives_what_is_written_below_it() {
    let mut failed = Vec::new();
    for path in scripts() {
        let run = std::panic::AssertUnwindSafe(|| goldenscript::run(&mut Script::new(), &path));
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{}: {error}", path.display())),
            Err(_) => failed.push(format!("{}: differs, see above", path.display())),
        }
    }
    assert!(failed.is_empty(), "{} scripts failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn each_status_has_a_script_that_shows_it() {
    let scripts: Vec<(String, String)> = scripts()
        .iter()
        .map(|path| (name_of(path), std::fs::read_to_string(path).expect("a script can be read")))
        .collect();
    let shown = |about_accounts: bool, status: &str| {
        scripts.iter().any(|(name, text)| {
            name.starts_with("account_") == about_accounts
                && name.ends_with(&format!("_{status}"))
                && text.lines().any(|line| line.split(' ').nth(1) == Some(status))
        })
    };
    let accounts = CreateAccountStatus::ALL.iter().map(|status| (true, status.name()));
    let transfers = CreateTransferStatus::ALL.iter().map(|status| (false, status.name()));
    let missing: Vec<_> =
        accounts.chain(transfers).filter(|(about_accounts, status)| !shown(*about_accounts, status)).collect();
    assert!(missing.is_empty(), "no script shows {missing:?}");
}

fn scripts() -> Vec<PathBuf> {
    let directory = Path::new("tests/scripts");
    let entries = std::fs::read_dir(directory).expect("the scripts are beside this file");
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.into_iter().collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a script has a name").to_string_lossy().into_owned()
}

/// The request that is being put together.
enum Request {
    None,
    /// Ends with the first event that is not linked.
    Chain(Vec<Asked>),
    /// Ends with `send`.
    Explicit(Vec<Asked>),
}

#[derive(Clone)]
struct Asked {
    name: String,
    event: AskedEvent,
    /// Shall the answer tell its timestamp?
    timed: bool,
}

#[derive(Clone)]
enum AskedEvent {
    Account(Account),
    Transfer(Transfer),
}

struct Script {
    books: Books,
    request: Request,
    /// The time of the next request, if it was given.
    next_time: Option<u64>,
    events_shown: u64,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String> {
        Script::run(self, command, context)
    }

    fn end_script(&mut self) -> Result<()> {
        if !matches!(self.request, Request::None) {
            return Err("the script ends within a request".into());
        }
        Ok(())
    }
}

impl Script {
    fn new() -> Script {
        let mut books = Books::new();
        books.advance(SECOND);
        Script { books, request: Request::None, next_time: None, events_shown: 0 }
    }

    fn run(&mut self, command: &Command, context: &Context) -> Result<String> {
        let timed = context.tags.contains("time");
        let mut words = Words::of(command);
        let output = match command.name.as_str() {
            // account A [FLAG..] [FIELD=VALUE..]: ledger and code are 1 unless told.
            "account" => {
                let (name, account) = words.account()?;
                self.ask(name, AskedEvent::Account(account), account.flags.contains(AccountFlags::LINKED), timed)?
            }
            // transfer T1 A to B AMOUNT [FLAG..] [FIELD=VALUE..]: ledger and code are 1 unless told.
            // post T2 of T1 [AMOUNT], void T2 of T1 [AMOUNT]: all of it unless told; what is not told is zero.
            "transfer" | "post" | "void" => {
                let (name, transfer) = match command.name.as_str() {
                    "transfer" => words.transfer()?,
                    "post" => words.resolution(TransferFlags::POST_PENDING_TRANSFER, Amount::MAX)?,
                    _ => words.resolution(TransferFlags::VOID_PENDING_TRANSFER, Amount::ZERO)?,
                };
                let linked = transfer.flags.contains(TransferFlags::LINKED);
                self.ask(name, AskedEvent::Transfer(transfer), linked, timed)?
            }
            // request .. send: the events in between are one request.
            "request" => {
                self.request = Request::Explicit(Vec::new());
                String::new()
            }
            "send" => self.send()?,
            // at 5s, at 5s-1ns: the time of the next request, which is that of its last event.
            "at" => {
                self.next_time = Some(time(words.word("a time")?)?);
                String::new()
            }
            // pulse [LIMIT]: expires what is due.
            "pulse" => {
                let limit = words.0.next_pos().map_or(Ok(usize::MAX), str::parse)?;
                self.pulse(limit)?
            }
            // balances A B
            "balances" => words.each(|name| self.balances(name))?,
            // show T1, show A: the fields that are not zero.
            "show" => words.each(|name| self.show(name))?,
            // events: those since the last time this was asked.
            "events" => self.events()?,
            // history A
            "history" => words.each(|name| self.history(name))?,
            // transfers A [debits] [credits] [reversed] [limit=N]
            "transfers" => self.transfers(&mut words)?,
            "next_expiry" => self.books.next_expiry().map_or("nothing expires".to_owned(), show_time),
            unknown => return Err(format!("no command {unknown}").into()),
        };
        words.0.reject_next()?;
        Ok(output)
    }

    fn ask(&mut self, name: String, event: AskedEvent, linked: bool, timed: bool) -> Result<String> {
        let asked = Asked { name, event, timed };
        match &mut self.request {
            Request::Explicit(events) => {
                events.push(asked);
                Ok(String::new())
            }
            Request::Chain(events) => {
                events.push(asked);
                if linked { Ok(String::new()) } else { self.send() }
            }
            Request::None => {
                self.request = Request::Chain(vec![asked]);
                if linked { Ok(String::new()) } else { self.send() }
            }
        }
    }

    fn send(&mut self) -> Result<String> {
        let asked = match std::mem::replace(&mut self.request, Request::None) {
            Request::None => return Err("there is nothing to send".into()),
            Request::Chain(asked) | Request::Explicit(asked) => asked,
        };
        let time = self.next_time.take().unwrap_or(self.books.head().last_timestamp + asked.len() as u64);
        let mut accounts = Vec::new();
        let mut transfers = Vec::new();
        for asked in &asked {
            match asked.event {
                AskedEvent::Account(account) => accounts.push(account),
                AskedEvent::Transfer(transfer) => transfers.push(transfer),
            }
        }
        if !accounts.is_empty() && !transfers.is_empty() {
            return Err("a request has accounts or transfers, not both".into());
        }
        let answers: Vec<(&str, u64)> = if transfers.is_empty() {
            let mut results = Vec::new();
            self.books.create_accounts(time, &accounts, &mut results);
            results.iter().map(|result| (result.status.name(), result.timestamp)).collect()
        } else {
            let mut results = Vec::new();
            self.books.create_transfers(time, &transfers, &mut results);
            results.iter().map(|result| (result.status.name(), result.timestamp)).collect()
        };
        self.check_laws();
        let mut output = String::new();
        for (asked, (status, timestamp)) in asked.iter().zip(answers) {
            match asked.timed {
                true => writeln!(output, "{} {status} at {}", asked.name, show_time(timestamp))?,
                false => writeln!(output, "{} {status}", asked.name)?,
            }
        }
        Ok(output)
    }

    fn pulse(&mut self, limit: usize) -> Result<String> {
        let now = self.next_time.take().unwrap_or(self.books.head().last_timestamp + 1);
        let mut due = Vec::new();
        self.books.due(now, limit, &mut due);
        if due.is_empty() {
            self.books.advance(now);
            return Ok("nothing is due".to_owned());
        }
        let time = now - 1 + due.len() as u64;
        assert_eq!(self.books.expire(time, due.len()), due.len());
        self.check_laws();
        let mut output = String::new();
        for pending in due {
            let event = self.books.recent_event(pending).ok_or("scripts keep everything in memory")?;
            writeln!(output, "{} expired", name(event.transfer.id.0))?;
        }
        Ok(output)
    }

    fn check_laws(&self) {
        assert!(self.books.totals().values().all(|totals| totals.balance()), "debits equal credits");
        assert_eq!(self.books.accounts_over_limit(), 0, "no account breaks its limit");
    }

    fn balances(&self, word: &str) -> Result<String> {
        let account = self.books.account(AccountId(id(word)?)).ok_or(format!("there is no account {word}"))?;
        let closed = if account.flags.contains(AccountFlags::CLOSED) { ", closed" } else { "" };
        Ok(format!(
            "{word} debits posted={} pending={}, credits posted={} pending={}{closed}",
            amount_name(account.debits_posted),
            amount_name(account.debits_pending),
            amount_name(account.credits_posted),
            amount_name(account.credits_pending)
        ))
    }

    fn show(&self, word: &str) -> Result<String> {
        if let Some(account) = self.books.account(AccountId(id(word)?)) {
            return Ok(show_account(word, account));
        }
        match self.books.recent_id(TransferId(id(word)?)) {
            Some(IdState::Event(number)) => {
                let event = self.books.recent_event(number).ok_or("scripts keep everything in memory")?;
                Ok(show_transfer(word, &event.transfer))
            }
            Some(IdState::Burnt) => Ok(format!("{word} has failed before")),
            None => Ok(format!("{word} is not there")),
        }
    }

    fn events(&mut self) -> Result<String> {
        let mut output = String::new();
        while let Some(event) = self.books.recent_event(EventNumber(self.events_shown)) {
            let kind = match event.kind {
                EventKind::SinglePhase => "single_phase",
                EventKind::Pending => "two_phase_pending",
                EventKind::Posted => "two_phase_posted",
                EventKind::Voided => "two_phase_voided",
                EventKind::Expired => "two_phase_expired",
            };
            let Event { timestamp, transfer, .. } = event;
            let (id, amount, at) = (name(transfer.id.0), amount_name(transfer.amount), show_time(*timestamp));
            writeln!(output, "{} {kind} {id} {amount} at {at}", self.events_shown)?;
            self.events_shown += 1;
        }
        Ok(output)
    }

    fn history(&self, word: &str) -> Result<String> {
        let slot = self.books.slot(AccountId(id(word)?)).ok_or(format!("there is no account {word}"))?;
        let mut output = String::new();
        for number in self.books.recent_account_events(slot) {
            let event = self.books.recent_event(number).ok_or("what is listed is there")?;
            let Some(AccountBalance { balances, timestamp }) = AccountBalance::after(event, slot) else {
                continue;
            };
            writeln!(
                output,
                "{word} at {} debits posted={} pending={}, credits posted={} pending={}",
                show_time(timestamp),
                balances.debits_posted,
                balances.debits_pending,
                balances.credits_posted,
                balances.credits_pending
            )?;
        }
        if output.is_empty() { Ok(format!("{word} has no history")) } else { Ok(output) }
    }

    fn transfers(&self, words: &mut Words<'_>) -> Result<String> {
        let account_id = AccountId(id(words.word("an account")?)?);
        let mut filter = AccountFilter { account_id, limit: 10, ..AccountFilter::default() };
        while let Some(flag) = words.0.next_pos() {
            filter.flags = filter.flags.with(match flag {
                "debits" => AccountFilterFlags::DEBITS,
                "credits" => AccountFilterFlags::CREDITS,
                "reversed" => AccountFilterFlags::REVERSED,
                unknown => return Err(format!("no flag {unknown}").into()),
            });
        }
        if let Some(limit) = words.0.take_key("limit") {
            filter.limit = limit.parse()?;
        }
        if let Err(invalid) = filter.validate() {
            return Ok(format!("refused: {} {}", invalid.field, invalid.reason));
        }
        let slot = self.books.slot(account_id).ok_or("there is no such account")?;
        let ascending = self.books.recent_account_events(slot);
        let numbers: Vec<EventNumber> =
            if filter.is_reversed() { ascending.rev().collect() } else { ascending.collect() };
        let transfers = numbers
            .iter()
            .filter_map(|number| self.books.recent_event(*number))
            .filter(|event| event.kind.records_transfer() && filter.matches(&event.transfer));
        let names: Vec<String> = transfers.take(filter.limit as usize).map(|event| name(event.transfer.id.0)).collect();
        Ok(names.join(" "))
    }
}

/// The words of a command.
struct Words<'a>(goldenscript::ArgumentConsumer<'a>);

impl<'a> Words<'a> {
    fn of(command: &'a Command) -> Words<'a> {
        Words(command.consume_args())
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        Ok(self.0.next_pos().ok_or(format!("{what} is missing"))?)
    }

    fn filler(&mut self, filler: &str) -> Result<()> {
        match self.word(filler)? {
            word if word == filler => Ok(()),
            word => Err(format!("{filler} is expected, not {word}").into()),
        }
    }

    fn each(&mut self, show: impl Fn(&str) -> Result<String>) -> Result<String> {
        let mut lines = Vec::new();
        while let Some(name) = self.0.next_pos() {
            lines.push(show(name)?.trim_end().to_owned());
        }
        Ok(lines.join("\n"))
    }

    fn account(&mut self) -> Result<(String, Account)> {
        let name = self.word("an account")?;
        let mut account = Account { id: AccountId(id(name)?), ledger: 1, code: 1, ..Account::default() };
        for argument in self.0.by_ref() {
            match argument {
                Argument::Positional(flag) => {
                    account.flags = account.flags.with(AccountFlags::named(flag).ok_or(format!("no flag {flag}"))?)
                }
                Argument::KeyValue(field, value) => set_account_field(&mut account, field, value)?,
                _ => return Err("an argument of an unknown kind".into()),
            }
        }
        Ok((name.to_owned(), account))
    }

    fn transfer(&mut self) -> Result<(String, Transfer)> {
        let name = self.word("a transfer")?;
        let debit = self.word("a debit account")?;
        self.filler("to")?;
        let credit = self.word("a credit account")?;
        let mut transfer = Transfer {
            id: TransferId(id(name)?),
            debit_account_id: AccountId(id(debit)?),
            credit_account_id: AccountId(id(credit)?),
            amount: amount(self.word("an amount")?)?,
            ledger: 1,
            code: 1,
            ..Transfer::default()
        };
        self.flags_and_fields(&mut transfer)?;
        Ok((name.to_owned(), transfer))
    }

    fn resolution(&mut self, flags: TransferFlags, all: Amount) -> Result<(String, Transfer)> {
        let name = self.word("a transfer")?;
        self.filler("of")?;
        let pending = self.word("a pending transfer")?;
        let mut transfer = Transfer {
            id: TransferId(id(name)?),
            pending_id: TransferId(id(pending)?),
            amount: all,
            flags,
            ..Transfer::default()
        };
        self.flags_and_fields(&mut transfer)?;
        Ok((name.to_owned(), transfer))
    }

    fn flags_and_fields(&mut self, transfer: &mut Transfer) -> Result<()> {
        for argument in self.0.by_ref() {
            match argument {
                Argument::Positional(word) => match amount(word) {
                    Ok(amount) => transfer.amount = amount,
                    Err(_) => {
                        transfer.flags =
                            transfer.flags.with(TransferFlags::named(word).ok_or(format!("no flag {word}"))?)
                    }
                },
                Argument::KeyValue(field, value) => set_transfer_field(transfer, field, value)?,
                _ => return Err("an argument of an unknown kind".into()),
            }
        }
        Ok(())
    }
}

fn set_account_field(account: &mut Account, field: &str, value: &str) -> Result<()> {
    match field {
        "debits_pending" => account.debits_pending = amount(value)?,
        "debits_posted" => account.debits_posted = amount(value)?,
        "credits_pending" => account.credits_pending = amount(value)?,
        "credits_posted" => account.credits_posted = amount(value)?,
        "user_data_128" => account.user_data_128 = value.parse()?,
        "user_data_64" => account.user_data_64 = value.parse()?,
        "user_data_32" => account.user_data_32 = value.parse()?,
        "reserved" => account.reserved = value.parse()?,
        "ledger" => account.ledger = value.parse()?,
        "code" => account.code = value.parse()?,
        "flag_bit" => account.flags = account.flags.with(AccountFlags(1 << value.parse::<u16>()?)),
        "timestamp" => account.timestamp = time(value)?,
        unknown => return Err(format!("no field {unknown}").into()),
    }
    Ok(())
}

fn set_transfer_field(transfer: &mut Transfer, field: &str, value: &str) -> Result<()> {
    match field {
        "debit" => transfer.debit_account_id = AccountId(id(value)?),
        "credit" => transfer.credit_account_id = AccountId(id(value)?),
        "pending_id" => transfer.pending_id = TransferId(id(value)?),
        "user_data_128" => transfer.user_data_128 = value.parse()?,
        "user_data_64" => transfer.user_data_64 = value.parse()?,
        "user_data_32" => transfer.user_data_32 = value.parse()?,
        "timeout" => transfer.timeout = value.strip_suffix('s').ok_or("a timeout is in seconds")?.parse()?,
        "ledger" => transfer.ledger = value.parse()?,
        "code" => transfer.code = value.parse()?,
        "flag_bit" => transfer.flags = transfer.flags.with(TransferFlags(1 << value.parse::<u16>()?)),
        "timestamp" => transfer.timestamp = time(value)?,
        unknown => return Err(format!("no field {unknown}").into()),
    }
    Ok(())
}

fn show_account(word: &str, account: &Account) -> String {
    let mut line = word.to_owned();
    show_field(&mut line, "user_data_128", account.user_data_128);
    show_field(&mut line, "user_data_64", account.user_data_64);
    show_field(&mut line, "user_data_32", account.user_data_32);
    show_field(&mut line, "ledger", account.ledger);
    show_field(&mut line, "code", account.code);
    for name in account.flags.names() {
        line = format!("{line} {name}");
    }
    format!("{line} timestamp={}", show_time(account.timestamp))
}

fn show_transfer(word: &str, transfer: &Transfer) -> String {
    let (debit, credit) = (name(transfer.debit_account_id.0), name(transfer.credit_account_id.0));
    let mut line = format!("{word} {debit} to {credit} {}", amount_name(transfer.amount));
    if transfer.pending_id != TransferId::ZERO {
        line = format!("{line} pending_id={}", name(transfer.pending_id.0));
    }
    show_field(&mut line, "user_data_128", transfer.user_data_128);
    show_field(&mut line, "user_data_64", transfer.user_data_64);
    show_field(&mut line, "user_data_32", transfer.user_data_32);
    show_field(&mut line, "timeout", transfer.timeout);
    show_field(&mut line, "ledger", transfer.ledger);
    show_field(&mut line, "code", transfer.code);
    for name in transfer.flags.names() {
        line = format!("{line} {name}");
    }
    format!("{line} timestamp={}", show_time(transfer.timestamp))
}

fn show_field(line: &mut String, field: &str, value: impl Into<u128>) {
    let value = value.into();
    if value != 0 {
        *line = format!("{line} {field}={value}");
    }
}

/// A name is the number that its letters make; `zero` and `max` are those.
fn id(word: &str) -> Result<u128> {
    match word {
        "zero" => Ok(0),
        "max" => Ok(u128::MAX),
        _ if word.len() < 16 => Ok(word.bytes().fold(0, |id, letter| id << 8 | u128::from(letter))),
        _ => Err(format!("{word} is too long for a name").into()),
    }
}

fn name(id: u128) -> String {
    id.to_be_bytes().into_iter().skip_while(|letter| *letter == 0).map(char::from).collect()
}

/// A number, `max`, or `max-5`.
fn amount(word: &str) -> Result<Amount> {
    match word.strip_prefix("max") {
        Some("") => Ok(Amount::MAX),
        Some(less) => {
            let less = Amount(less.strip_prefix('-').ok_or("max, or max-5")?.parse()?);
            Ok(Amount::MAX.checked_sub(less).ok_or("an amount is not below zero")?)
        }
        None => Ok(Amount(word.parse()?)),
    }
}

fn amount_name(amount: Amount) -> String {
    match u128::MAX - amount.0 {
        0 => "max".to_owned(),
        less if less < 1_000 => format!("max-{less}"),
        _ => amount.to_string(),
    }
}

/// `5s`, `5s-1ns` or `17ns`.
fn time(word: &str) -> Result<u64> {
    let nanoseconds = |word: &str| -> Result<u64> { Ok(word.strip_suffix("ns").ok_or("a time has a unit")?.parse()?) };
    let seconds =
        |word: &str| -> Result<u64> { Ok(word.strip_suffix('s').ok_or("a time has a unit")?.parse::<u64>()? * SECOND) };
    match word.split_once('-') {
        Some((whole, less)) => Ok(seconds(whole)? - nanoseconds(less)?),
        None if word.ends_with("ns") => nanoseconds(word),
        None => seconds(word),
    }
}

fn show_time(time: u64) -> String {
    let rest = time % SECOND;
    match (time / SECOND, rest) {
        (seconds, 0) => format!("{seconds}s"),
        (seconds, _) if SECOND - rest <= 1_000 => format!("{}s-{}ns", seconds + 1, SECOND - rest),
        (0, rest) => format!("{rest}ns"),
        (seconds, rest) => format!("{seconds}s+{rest}ns"),
    }
}
