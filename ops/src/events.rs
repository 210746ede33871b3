//! `jangbu events`: what happens in the ledger, gap-free and in the order in which it happened.
//!
//! Laws
//! * Whoever goes on from the last timestamp printed misses nothing and sees nothing twice.

use std::time::Duration;

use clap::Args;
use jangbu_client::{ChangeEvent, Client};
use jangbu_ledger::{ChangeEventsFilter, EVENTS_MAX, EventKind};
use serde::Serialize;

use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::output::{self, Output};
use crate::read::{AccountView, Fresh, TransferView};
use crate::{access, course, text};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  jangbu events --limit 20
  jangbu events --follow                                 until Ctrl-C
  jangbu events --follow -o json --since 1763838000000000001   one JSON value a line, from there on")]
pub struct Arguments {
    /// From this time on (RFC 3339, or nanoseconds since 1970): one more than the last timestamp you have seen.
    #[arg(long, value_name = "TIME", value_parser = text::timestamp, default_value = "0", hide_default_value = true)]
    since: u64,
    /// At most so many. Default: all there are.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on as more happens.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    fresh: Fresh,
}

/// How often a follower asks when nothing happened.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct EventView {
    timestamp: String,
    #[serde(rename = "type")]
    kind: &'static str,
    transfer: TransferView,
    debit_account: AccountView,
    credit_account: AccountView,
}

impl From<&ChangeEvent> for EventView {
    fn from(event: &ChangeEvent) -> EventView {
        EventView {
            timestamp: event.timestamp.to_string(),
            kind: kind_name(event.kind),
            transfer: TransferView::from(&event.transfer),
            debit_account: AccountView::from(&event.debit_account),
            credit_account: AccountView::from(&event.credit_account),
        }
    }
}

fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::SinglePhase => "single_phase",
        EventKind::Pending => "two_phase_pending",
        EventKind::Posted => "two_phase_posted",
        EventKind::Voided => "two_phase_voided",
        EventKind::Expired => "two_phase_expired",
    }
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = self.fresh.client(global)?;
        let mut since = self.since;
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut ending = course::ends_by_itself("");
        while left > 0 {
            let page = tokio::select! {
                biased;
                () = ending.heard() => break,
                page = page(&client, since, left) => page,
            };
            let events = match page {
                // A follower outlives an election.
                Err(failure) if self.follow && failure.kind == Kind::Unavailable => {
                    output::note(format!("waiting: {failure}"));
                    Vec::new()
                }
                other => other?,
            };
            for event in &events {
                print(global.output, event)?;
            }
            left -= events.len() as u64;
            match events.last() {
                Some(last) => since = last.timestamp + 1,
                None if self.follow => _ = ending.heard_within(FOLLOW_INTERVAL).await,
                None => break,
            }
        }
        if global.output == Output::Table {
            output::note(format!("to go on from here: jangbu events --since {since}"));
        }
        // Who follows is ended by a signal, and in no other way.
        if self.follow { Ok(()) } else { ending.check() }
    }
}

/// The next events from `timestamp_min` on; empty at the end.
pub async fn page(client: &Client, timestamp_min: u64, limit: u64) -> Result<Vec<ChangeEvent>, Failure> {
    let limit = limit.min(EVENTS_MAX as u64) as u32;
    let filter = ChangeEventsFilter { timestamp_min, timestamp_max: 0, limit };
    Ok(client.get_change_events(&filter).await.map_err(access::failure)?.value)
}

fn print(format: Output, event: &ChangeEvent) -> Result<(), Failure> {
    match format {
        Output::Json => output::json_line(&EventView::from(event)),
        Output::Table => output::line(&format!(
            "{}  {:<17}  {}  {} -> {}  {}",
            text::timestamp_text(event.timestamp),
            kind_name(event.kind),
            event.transfer.id,
            event.transfer.debit_account_id,
            event.transfer.credit_account_id,
            event.transfer.amount,
        )),
    }
}
