//! Was every promise kept? Asked of every replica, one by one.
//!
//! 1. Each unknown outcome is resolved, as a caller would: by asking again with the same id.
//! 2. Each replica by itself: what was acknowledged is there, with the body that was asked and the timestamp that was told;
//!    what was refused or not done is not.
//! 3. Each replica by itself: every balance is what an independent tally of the acknowledged payments says, and nothing
//!    happened that nobody asked for. That is how a doubled payment shows.
//! 4. All replicas at one log index: equal digests, kept and recounted; debits equal credits; no account over its limit.

use std::{collections::BTreeMap, time::Duration};

use jangbu_ledger::{Account, AccountId, CreateTransferStatus, Transfer, TransferFlags, TransferId};
use jangbu_proto::{cluster::v1::VerifyReply, convert::Consistency};

use crate::{
    cluster::Cluster,
    journal::{Fate, Journal},
    payer::ACCOUNTS,
    wait::{until, until_ok},
};

/// As many as one request may carry.
const IDS_MAX: usize = 8_189;

/// Judges every node of the cluster; all must run. Panics with the first promise that was broken.
pub async fn judge(cluster: &mut Cluster, journal: &Journal) {
    resolve(cluster, journal).await;
    cluster.serves().await;
    let payments = journal.payments();
    let expected = tally(&payments);
    for id in cluster.ids() {
        nothing_lost(cluster, id, &payments).await;
        nothing_doubled(cluster, id, &expected, journal.acknowledged_count()).await;
    }
    replicas_agree(cluster).await;
}

/// Digests, totals and limits alone; for tests that do more than pay.
pub async fn replicas_agree(cluster: &Cluster) {
    let reports = until("all replicas are verified at one log index", async || {
        let mut reports: Vec<(u64, VerifyReply)> = Vec::new();
        for id in cluster.ids() {
            reports.push((id, cluster.door(id).verify().await.ok()?));
        }
        reports.windows(2).all(|pair| pair[0].1.log_index == pair[1].1.log_index).then_some(reports)
    })
    .await;
    let (_, first) = &reports[0];
    for (id, report) in &reports {
        assert_eq!(report.digest, first.digest, "node {id}'s state differs from node {}'s", reports[0].0);
        assert_eq!(report.digest, report.digest_recount, "node {id} kept another digest than it counts afresh");
        assert_eq!(report.accounts_over_limit, 0, "accounts over their limit at node {id}");
        for totals in &report.totals {
            assert_eq!(totals.debits_posted, totals.credits_posted, "posted, ledger {} at node {id}", totals.ledger);
            assert_eq!(totals.debits_pending, totals.credits_pending, "pending, ledger {} at node {id}", totals.ledger);
        }
    }
}

/// Asks again, at any node, until each outcome is known.
async fn resolve(cluster: &Cluster, journal: &Journal) {
    for transfer in journal.unknown() {
        let mut nodes = cluster.ids().into_iter().cycle();
        let reply = until_ok(format!("the outcome of {} is known", transfer.id), async || {
            let door = cluster.door(nodes.next().expect("a cycle has no end"));
            door.create_transfers(&[transfer], Duration::from_secs(5)).await
        })
        .await;
        let result = reply.results[0];
        let status = CreateTransferStatus::from_code(result.status).expect("the node answers with known statuses");
        journal.answered(transfer.id, status, result.timestamp);
    }
}

async fn nothing_lost(cluster: &Cluster, id: u64, payments: &[(Transfer, Fate)]) {
    for chunk in payments.chunks(IDS_MAX) {
        let asked: Vec<TransferId> = chunk.iter().map(|(transfer, _)| transfer.id).collect();
        let (_, found) = until_ok(format!("node {id} looks up {} transfers", asked.len()), async || {
            cluster.door(id).transfers(&asked, Consistency::Local).await
        })
        .await;
        let found: BTreeMap<TransferId, Transfer> = found.into_iter().map(|transfer| (transfer.id, transfer)).collect();
        for (transfer, fate) in chunk {
            match (fate, found.get(&transfer.id)) {
                (Fate::Acknowledged { timestamp }, Some(stored)) => {
                    assert_eq!(stored.timestamp, *timestamp, "node {id} gives {} another timestamp", transfer.id);
                    assert_same_body(transfer, stored, id);
                }
                (Fate::Acknowledged { .. }, None) => {
                    panic!("LOST: node {id} doesn't know the acknowledged {}", transfer.id)
                }
                (Fate::Refused(_) | Fate::NotDone, Some(_)) => {
                    panic!("node {id} did {}, though it said {fate:?}", transfer.id)
                }
                (Fate::Refused(_) | Fate::NotDone, None) => {}
                (Fate::Unknown, _) => unreachable!("all outcomes were resolved"),
            }
        }
    }
}

fn assert_same_body(asked: &Transfer, stored: &Transfer, id: u64) {
    if asked.flags.contains(TransferFlags::POST_PENDING_TRANSFER) {
        // A post inherits from the pending transfer what it leaves open.
        assert_eq!((asked.pending_id, asked.flags), (stored.pending_id, stored.flags), "node {id}, {}", asked.id);
    } else {
        assert_eq!(*asked, Transfer { timestamp: 0, ..*stored }, "node {id} keeps {} with another body", asked.id);
    }
}

async fn nothing_doubled(cluster: &Cluster, id: u64, expected: &BTreeMap<AccountId, Tally>, events_count: usize) {
    let (_, accounts) = until_ok(format!("node {id} looks up the accounts"), async || {
        cluster.door(id).accounts(&ACCOUNTS, Consistency::Local).await
    })
    .await;
    for account in &accounts {
        let expected = expected.get(&account.id).copied().unwrap_or_default();
        assert_eq!(Tally::of(account), expected, "node {id}: account {} isn't the sum of its payments", account.id);
    }
    assert_eq!(accounts.len(), ACCOUNTS.len(), "node {id} lacks accounts");
    let status = cluster.status(id).await;
    assert_eq!(status.events_count, events_count as u64, "node {id}: as many events as acknowledged payments");
}

/// The four balances of an account, counted by the test itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    debits_pending: u128,
    debits_posted: u128,
    credits_pending: u128,
    credits_posted: u128,
}

impl Tally {
    fn of(account: &Account) -> Tally {
        Tally {
            debits_pending: account.debits_pending.0,
            debits_posted: account.debits_posted.0,
            credits_pending: account.credits_pending.0,
            credits_posted: account.credits_posted.0,
        }
    }
}

/// What the payer's three kinds of payments come to: paid at once, held, or posted in full.
fn tally(payments: &[(Transfer, Fate)]) -> BTreeMap<AccountId, Tally> {
    let done =
        || payments.iter().filter(|(_, fate)| matches!(fate, Fate::Acknowledged { .. })).map(|(transfer, _)| transfer);
    let by_id: BTreeMap<TransferId, &Transfer> = done().map(|transfer| (transfer.id, transfer)).collect();
    let mut tallies: BTreeMap<AccountId, Tally> = BTreeMap::new();
    for transfer in done() {
        if transfer.flags.contains(TransferFlags::POST_PENDING_TRANSFER) {
            let held = by_id.get(&transfer.pending_id).expect("only what was acknowledged as held is posted");
            let amount = held.amount.0;
            let debit = tallies.entry(held.debit_account_id).or_default();
            debit.debits_posted += amount;
            // Wrapping, as the post may come before its pending transfer in this loop; the sum is what counts.
            debit.debits_pending = debit.debits_pending.wrapping_sub(amount);
            let credit = tallies.entry(held.credit_account_id).or_default();
            credit.credits_posted += amount;
            credit.credits_pending = credit.credits_pending.wrapping_sub(amount);
        } else if transfer.flags.contains(TransferFlags::PENDING) {
            let amount = transfer.amount.0;
            let debit = tallies.entry(transfer.debit_account_id).or_default();
            debit.debits_pending = debit.debits_pending.wrapping_add(amount);
            let credit = tallies.entry(transfer.credit_account_id).or_default();
            credit.credits_pending = credit.credits_pending.wrapping_add(amount);
        } else {
            tallies.entry(transfer.debit_account_id).or_default().debits_posted += transfer.amount.0;
            tallies.entry(transfer.credit_account_id).or_default().credits_posted += transfer.amount.0;
        }
    }
    tallies
}
