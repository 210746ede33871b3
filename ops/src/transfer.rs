//! `jangbu transfer`: create, show, post, void, list.

use clap::{Args, Subcommand};
use jangbu_client::Client;
use jangbu_ledger::{AccountId, Amount, CreateTransferStatus, Transfer, TransferFlags, TransferId};
use serde::Serialize;

use crate::account::ListArgs;
use crate::cli::Global;
use crate::course;
use crate::error::{Failure, Kind};
use crate::read::{Fresh, TransferView, UserData, account_id, transfer_id, transfers_text};
use crate::{access, output, text};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Move an amount from one account to another, or hold it with --pending.
    #[command(after_help = "Examples:
  jangbu transfer create --from 1001 --to 1002 --amount 5000 --ledger 410 --code 1
  jangbu transfer create --id 77 --from 1001 --to 1002 --amount 5000 --ledger 410 --code 1
  jangbu transfer create --from 1001 --to 1002 --amount 5000 --ledger 410 --code 1 --pending --expires-after 60
Ask again with the same --id as often as you like: the money moves once.")]
    Create(CreateArgs),
    /// Transfers by id.
    Show {
        /// The transfers' ids.
        #[arg(required = true, value_parser = transfer_id)]
        ids: Vec<TransferId>,
        #[command(flatten)]
        fresh: Fresh,
    },
    /// Post what a pending transfer holds, or part of it; the rest is released.
    #[command(after_help = "Examples:\n  jangbu transfer post 77\n  jangbu transfer post 77 --amount 2000")]
    Post(ResolveArgs),
    /// Release what a pending transfer holds.
    Void(VoidArgs),
    /// Transfers by their attributes, in order of creation.
    #[command(after_help = "Example:\n  jangbu transfer list --ledger 410 --reversed --limit 10")]
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The transfer's id: the key to asking again safely. Default: a fresh, time-ordered one.
    #[arg(long, value_parser = transfer_id)]
    id: Option<TransferId>,
    /// The account that is debited.
    #[arg(long, visible_alias = "debit", value_name = "ACCOUNT", value_parser = account_id)]
    from: AccountId,
    /// The account that is credited.
    #[arg(long, visible_alias = "credit", value_name = "ACCOUNT", value_parser = account_id)]
    to: AccountId,
    /// How much, in the ledger's smallest unit.
    #[arg(long, value_parser = text::number)]
    amount: u128,
    /// The ledger of both accounts.
    #[arg(long)]
    ledger: u32,
    /// Why the money moves, by your own numbering.
    #[arg(long)]
    code: u16,
    /// Hold the amount until it is posted, voided or expires.
    #[arg(long)]
    pending: bool,
    /// Seconds until a pending transfer expires; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, requires = "pending")]
    expires_after: u32,
    /// Move at most what keeps the debited account's debits within its credits.
    #[arg(long)]
    balancing_debit: bool,
    /// Move at most what keeps the credited account's credits within its debits.
    #[arg(long)]
    balancing_credit: bool,
    /// Close the debited account; undone by voiding the transfer.
    #[arg(long, requires = "pending")]
    closing_debit: bool,
    /// Close the credited account; undone by voiding the transfer.
    #[arg(long, requires = "pending")]
    closing_credit: bool,
    #[command(flatten)]
    user_data: UserData,
}

impl CreateArgs {
    fn flags(&self) -> TransferFlags {
        text::chosen([
            (self.pending, TransferFlags::PENDING),
            (self.balancing_debit, TransferFlags::BALANCING_DEBIT),
            (self.balancing_credit, TransferFlags::BALANCING_CREDIT),
            (self.closing_debit, TransferFlags::CLOSING_DEBIT),
            (self.closing_credit, TransferFlags::CLOSING_CREDIT),
        ])
    }
}

#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The pending transfer's id.
    #[arg(value_parser = transfer_id)]
    pending: TransferId,
    /// This transfer's own id. Default: a fresh one.
    #[arg(long, value_parser = transfer_id)]
    id: Option<TransferId>,
    /// How much of it. Default: all.
    #[arg(long, value_parser = text::number)]
    amount: Option<u128>,
}

#[derive(Debug, Args)]
pub struct VoidArgs {
    /// The pending transfer's id.
    #[arg(value_parser = transfer_id)]
    pending: TransferId,
    /// This transfer's own id. Default: a fresh one.
    #[arg(long, value_parser = transfer_id)]
    id: Option<TransferId>,
}

#[derive(Serialize)]
struct CreateView {
    id: String,
    status: &'static str,
    timestamp: String,
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Command::Create(args) => {
                let client = access::client(global)?;
                let transfer = Transfer {
                    id: args.id.unwrap_or_else(|| TransferId(client.next_id())),
                    debit_account_id: args.from,
                    credit_account_id: args.to,
                    amount: Amount(args.amount),
                    user_data_128: args.user_data.user_data_128,
                    user_data_64: args.user_data.user_data_64,
                    user_data_32: args.user_data.user_data_32,
                    timeout: args.expires_after,
                    ledger: args.ledger,
                    code: args.code,
                    flags: args.flags(),
                    ..Transfer::default()
                };
                create(&client, transfer, global).await
            }
            Command::Post(args) => {
                let client = access::client(global)?;
                let amount = args.amount.map_or(Amount::MAX, Amount);
                let flags = TransferFlags::POST_PENDING_TRANSFER;
                create(&client, resolving(&client, args.pending, args.id, amount, flags), global).await
            }
            Command::Void(args) => {
                let client = access::client(global)?;
                let flags = TransferFlags::VOID_PENDING_TRANSFER;
                create(&client, resolving(&client, args.pending, args.id, Amount::ZERO, flags), global).await
            }
            Command::Show { ids, fresh } => {
                let transfers = fresh.client(global)?.lookup_transfers(&ids).await.map_err(access::failure)?.value;
                show(global, &transfers)?;
                match ids.iter().find(|id| !transfers.iter().any(|transfer| transfer.id == **id)) {
                    Some(id) => Err(Failure::general(format!("there is no transfer {id}"))),
                    None => Ok(()),
                }
            }
            Command::List(args) => {
                let client = args.fresh().client(global)?;
                let page = async |min, max, limit| {
                    let filter = args.filter(min, max, limit);
                    let page = client.query_transfers(&filter).await.map_err(access::failure)?.value;
                    Ok((page.items, page.scanned_to))
                };
                let transfers = args.window().collect(|transfer: &Transfer| transfer.timestamp, page).await?;
                show(global, &transfers)
            }
        }
    }
}

/// Zero fields inherit those of the pending transfer.
fn resolving(
    client: &Client,
    pending_id: TransferId,
    id: Option<TransferId>,
    amount: Amount,
    flags: TransferFlags,
) -> Transfer {
    let id = id.unwrap_or_else(|| TransferId(client.next_id()));
    Transfer { id, pending_id, amount, flags, ..Transfer::default() }
}

fn show(global: &Global, transfers: &[Transfer]) -> Result<(), Failure> {
    let views: Vec<TransferView> = transfers.iter().map(TransferView::from).collect();
    output::show(global.output, &views, |views| transfers_text(views))
}

async fn create(client: &Client, transfer: Transfer, global: &Global) -> Result<(), Failure> {
    let again = format!("ask again with --id {}: the money moves once", transfer.id);
    course::next(&again);
    let call = async { client.create_transfers(&[transfer]).await.map_err(access::failure) };
    let created = course::changes(format!("transfer {}", transfer.id), call).await;
    let created = created.map_err(|failure| match failure.kind {
        Kind::OutcomeUnknown => failure.advise(again),
        _ => failure,
    })?;
    let result = created.results.first().ok_or_else(|| Failure::general("the reply holds no result"))?;
    let view = CreateView {
        id: transfer.id.to_string(),
        status: result.status.name(),
        timestamp: result.timestamp.to_string(),
    };
    output::show(global.output, &view, |view| format!("{}  {}", view.id, view.status))?;
    match result.status {
        CreateTransferStatus::Created | CreateTransferStatus::Exists => Ok(()),
        refused => Err(Failure::new(Kind::Conflict, format!("the ledger's rules say no: {}", refused.name()))
            .advise("every status is explained in docs/ledger.md")),
    }
}
