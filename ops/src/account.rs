//! `jangbu account`: create, show, history, list.

use clap::{Args, Subcommand};
use jangbu_ledger::{
    Account, AccountFilter, AccountFilterFlags, AccountFlags, AccountId, CreateAccountStatus, QueryFilter,
    QueryFilterFlags, Transfer,
};
use serde::Serialize;

use crate::cli::Global;
use crate::course;
use crate::error::{Failure, Kind};
use crate::read::{AccountView, Fresh, TransferView, UserData, Window, account_id, accounts_text, transfers_text};
use crate::{access, output, text};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an account. Creating it again with the same attributes changes nothing and is no error.
    #[command(after_help = "Examples:
  jangbu account create --ledger 410 --code 1
  jangbu account create --id 1001 --ledger 410 --code 1 --debits-must-not-exceed-credits --history")]
    Create(CreateArgs),
    /// Accounts by id, with their balances.
    #[command(after_help = "Examples:\n  jangbu account show 1001 1002\n  jangbu account show berka:2378 --read local")]
    Show {
        /// The accounts' ids.
        #[arg(required = true, value_parser = account_id)]
        ids: Vec<AccountId>,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// An account's transfers; with --balances the balances after each of them.
    #[command(after_help = "Examples:
  jangbu account history 1001 --reversed --limit 10
  jangbu account history 1001 --balances      for accounts created with the flag `history`")]
    History(HistoryArgs),
    /// Accounts by their attributes, in order of creation.
    #[command(after_help = "Example:\n  jangbu account list --ledger 410 --limit 20")]
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The account's id. Default: a fresh, time-ordered one.
    #[arg(long, value_parser = account_id)]
    id: Option<AccountId>,
    /// Which currency, asset or unit; transfers never cross from one ledger to another.
    #[arg(long)]
    ledger: u32,
    /// What kind of account, by your own numbering.
    #[arg(long)]
    code: u16,
    /// It can never owe: debits, held ones included, stay within posted credits.
    #[arg(long, conflicts_with = "credits_must_not_exceed_debits")]
    debits_must_not_exceed_credits: bool,
    /// Credits, held ones included, stay within posted debits.
    #[arg(long)]
    credits_must_not_exceed_debits: bool,
    /// Keep the balances after each transfer, for `account history --balances`.
    #[arg(long)]
    history: bool,
    /// Born closed: no transfer touches it.
    #[arg(long)]
    closed: bool,
    #[command(flatten)]
    user_data: UserData,
}

impl CreateArgs {
    fn flags(&self) -> AccountFlags {
        text::chosen([
            (self.debits_must_not_exceed_credits, AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS),
            (self.credits_must_not_exceed_debits, AccountFlags::CREDITS_MUST_NOT_EXCEED_DEBITS),
            (self.history, AccountFlags::HISTORY),
            (self.closed, AccountFlags::CLOSED),
        ])
    }
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The account's id.
    #[arg(value_parser = account_id)]
    id: AccountId,
    /// The balances after each transfer, instead of the transfers.
    #[arg(long)]
    balances: bool,
    /// Only transfers that debit the account.
    #[arg(long, conflicts_with = "credits")]
    debits: bool,
    /// Only transfers that credit the account.
    #[arg(long)]
    credits: bool,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    fresh: Fresh,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this ledger.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    ledger: u32,
    /// Only this code.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    code: u16,
    #[command(flatten)]
    user_data: UserData,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    fresh: Fresh,
}

impl ListArgs {
    /// The same question asks for accounts and for transfers.
    pub fn filter(&self, timestamp_min: u64, timestamp_max: u64, limit: u32) -> QueryFilter {
        QueryFilter {
            user_data_128: self.user_data.user_data_128,
            user_data_64: self.user_data.user_data_64,
            user_data_32: self.user_data.user_data_32,
            ledger: self.ledger,
            code: self.code,
            timestamp_min,
            timestamp_max,
            limit,
            flags: if self.window.reversed { QueryFilterFlags::REVERSED } else { QueryFilterFlags::default() },
        }
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn fresh(&self) -> &Fresh {
        &self.fresh
    }
}

#[derive(Serialize)]
struct CreateView {
    id: String,
    status: &'static str,
    timestamp: String,
}

#[derive(Serialize)]
struct BalanceView {
    timestamp: String,
    debits_pending: String,
    debits_posted: String,
    credits_pending: String,
    credits_posted: String,
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Command::Create(args) => create(args, global).await,
            Command::Show { ids, fresh } => {
                let accounts = fresh.client(global)?.lookup_accounts(&ids).await.map_err(access::failure)?.value;
                show(global, &accounts)?;
                absent(&ids, &accounts)
            }
            Command::History(args) if args.balances => balances(args, global).await,
            Command::History(args) => transfers(args, global).await,
            Command::List(args) => {
                let client = args.fresh.client(global)?;
                let page = async |min, max, limit| {
                    let accounts =
                        client.query_accounts(&args.filter(min, max, limit)).await.map_err(access::failure)?;
                    Ok((accounts.value, 0))
                };
                let accounts = args.window.collect(|account: &Account| account.timestamp, page).await?;
                show(global, &accounts)
            }
        }
    }
}

fn show(global: &Global, accounts: &[Account]) -> Result<(), Failure> {
    let views: Vec<AccountView> = accounts.iter().map(AccountView::from).collect();
    output::show(global.output, &views, |views| accounts_text(views))
}

fn absent(ids: &[AccountId], accounts: &[Account]) -> Result<(), Failure> {
    match ids.iter().find(|id| !accounts.iter().any(|account| account.id == **id)) {
        Some(id) => Err(Failure::general(format!("there is no account {id}"))),
        None => Ok(()),
    }
}

async fn create(args: CreateArgs, global: &Global) -> Result<(), Failure> {
    let client = access::client(global)?;
    let account = Account {
        id: args.id.unwrap_or_else(|| AccountId(client.next_id())),
        user_data_128: args.user_data.user_data_128,
        user_data_64: args.user_data.user_data_64,
        user_data_32: args.user_data.user_data_32,
        ledger: args.ledger,
        code: args.code,
        flags: args.flags(),
        ..Account::default()
    };
    course::next(format!("ask again with --id {}: it is created once", account.id));
    let call = async { client.create_accounts(&[account]).await.map_err(access::failure) };
    let created = course::changes(format!("account {}", account.id), call).await?;
    let result = created.results.first().ok_or_else(|| Failure::general("the reply holds no result"))?;
    let view = CreateView {
        id: account.id.to_string(),
        status: result.status.name(),
        timestamp: result.timestamp.to_string(),
    };
    output::show(global.output, &view, |view| format!("{}  {}", view.id, view.status))?;
    match result.status {
        CreateAccountStatus::Created | CreateAccountStatus::Exists => Ok(()),
        refused => Err(Failure::new(Kind::Conflict, format!("the ledger's rules say no: {}", refused.name()))
            .advise("every status is explained in docs/ledger.md")),
    }
}

fn account_filter(args: &HistoryArgs, timestamp_min: u64, timestamp_max: u64, limit: u32) -> AccountFilter {
    let sides = match (args.debits, args.credits) {
        (true, _) => AccountFilterFlags::DEBITS,
        (_, true) => AccountFilterFlags::CREDITS,
        _ => AccountFilterFlags::DEBITS.with(AccountFilterFlags::CREDITS),
    };
    let flags = if args.window.reversed { sides.with(AccountFilterFlags::REVERSED) } else { sides };
    AccountFilter { account_id: args.id, timestamp_min, timestamp_max, limit, flags, ..AccountFilter::default() }
}

async fn transfers(args: HistoryArgs, global: &Global) -> Result<(), Failure> {
    let client = args.fresh.client(global)?;
    let page = async |min, max, limit| {
        let filter = account_filter(&args, min, max, limit);
        let page = client.get_account_transfers(&filter).await.map_err(access::failure)?.value;
        Ok((page.items, page.scanned_to))
    };
    let transfers = args.window.collect(|transfer: &Transfer| transfer.timestamp, page).await?;
    let views: Vec<TransferView> = transfers.iter().map(TransferView::from).collect();
    output::show(global.output, &views, |views| transfers_text(views))
}

async fn balances(args: HistoryArgs, global: &Global) -> Result<(), Failure> {
    let client = args.fresh.client(global)?;
    let page = async |min, max, limit| {
        let filter = account_filter(&args, min, max, limit);
        let page = client.get_account_balances(&filter).await.map_err(access::failure)?.value;
        Ok((page.items, page.scanned_to))
    };
    let balances = args.window.collect(|balance: &jangbu_ledger::AccountBalance| balance.timestamp, page).await?;
    let views: Vec<BalanceView> = balances
        .iter()
        .map(|balance| BalanceView {
            timestamp: balance.timestamp.to_string(),
            debits_pending: balance.balances.debits_pending.to_string(),
            debits_posted: balance.balances.debits_posted.to_string(),
            credits_pending: balance.balances.credits_pending.to_string(),
            credits_posted: balance.balances.credits_posted.to_string(),
        })
        .collect();
    output::show(global.output, &views, |views| {
        let rows = views.iter().map(|view| {
            [
                text::timestamp_text(view.timestamp.parse().unwrap_or(0)),
                view.debits_posted.clone(),
                view.credits_posted.clone(),
                view.debits_pending.clone(),
                view.credits_pending.clone(),
            ]
        });
        output::table(&["time", "debits", "credits", "debits pending", "credits pending"], rows)
    })
}
