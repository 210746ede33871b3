//! The flush: what memory gathered becomes pages, runs and rows, and durable, in one atomic batch.
//!
//!     apply:       … freeze ─┬─ goes on; lookups still see what is frozen … ── takes the new Disk, forgets the frozen part
//!     Flush lane:            └─ pages, runs, rows, stamp -> write -> flush -> a step of each merge ┘
//!
//! Laws
//! * The batch holds everything of the frozen interval and the stamp that says so: a crash leaves the state of this flush, or that of the one before.
//! * What is written follows from the frozen events and from the flushes before; never from a clock or from timing.
//! * Memory: two intervals of events at most (one frozen, one gathering), and one batch.
//!
//! Not here: when to flush (`state_machine.rs`).

use crate::accounts;
use crate::admin::Admin;
use crate::disk::Disk;
use crate::engine::Batch;
use crate::error::StoreError;
use crate::journal::{self, raise_floor};
use crate::runs::merge::{Merges, let_go_between};
use crate::runs::{BURNT, Catalogue, Pair, RunKind, RunWriter, SideKey, history_key, id_key, pair, sort};
use crate::schema::{self, ADMIN, CATALOGUE, EVENTS_PER_PAGE, Family, RunPart, STAMP, TAIL};
use crate::stamp::Stamp;
use crate::type_config::{LogId, StoredMembership};
use jangbu_ledger::planted::{self, Bug};
use jangbu_ledger::{Books, Event, Frozen, TransferId};
use jangbu_proto::cluster::v1::AuditRecord;
use prost::Message as _;
use std::ops::Range;
use std::sync::Arc;

/// What one flush writes, cut out of memory between two entries.
pub struct Cut {
    frozen: Arc<Frozen>,
    /// Pages of accounts under their numbers.
    accounts: Vec<(u32, Vec<u8>)>,
    stamp: Stamp,
    /// The administration, if it has ever been asked for anything, and its new records.
    admin: Option<Vec<u8>>,
    audit: Vec<AuditRecord>,
}

/// Freezes the books. Short: it packs at most some stripes of accounts (16 MiB each) and moves the rest.
pub fn cut(
    books: &mut Books,
    admin: &mut Admin,
    before: &Stamp,
    applied: Option<LogId>,
    membership: StoredMembership,
    highest_node_id: u64,
) -> Cut {
    let frozen = books.freeze();
    let plan = accounts::plan(before, books.accounts_count(), frozen.head.next_event);
    let pages = |range: Range<usize>| accounts::pages(range.start, &books.accounts()[range]);
    let accounts = plan.ranges.into_iter().flat_map(pages).collect();
    let behind = |mut id: LogId| {
        id.index = id.index.saturating_sub(u64::from(planted::is(Bug::AppliedIdBehind)));
        id
    };
    let stamp = Stamp {
        applied: applied.map(behind),
        membership,
        highest_node_id,
        head: frozen.head.clone(),
        accounts_count: books.accounts_count() as u32,
        stripes: plan.stripes,
        version: admin.version(),
    };
    let audit = admin.freeze();
    // Not before there is something in it: programs of version 1 know nothing of it.
    let admin = (admin.records_count() > 0).then(|| admin.encode());
    Cut { frozen, accounts, stamp, admin, audit }
}

/// Does the flushes of one open state, one after the other, and the merges behind them.
pub struct Keeper {
    disk: Arc<Disk>,
    merges: Merges,
    filter_budget_bytes: usize,
}

impl Keeper {
    /// Sweeps away what a crash left of merges, or kept from being let go.
    pub fn new(mut disk: Disk, filter_budget_bytes: usize) -> Result<(Keeper, Arc<Disk>), StoreError> {
        sweep(&mut disk)?;
        let disk = Arc::new(disk);
        Ok((Keeper { disk: disk.clone(), merges: Merges::new(filter_budget_bytes), filter_budget_bytes }, disk))
    }

    /// Makes the cut durable. Blocks on the disk.
    pub fn flush(&mut self, cut: Cut) -> Result<Arc<Disk>, StoreError> {
        let before = &self.disk;
        let engine = before.engine.clone();
        let mut batch = Batch::new();
        let tail = write_journal(before, &cut.frozen, &mut batch);
        let mut catalogue = before.catalogue.clone();
        let flushed = write_runs(&cut.frozen, &mut catalogue, &mut batch);
        write_rows(&cut, &mut batch);
        for (number, payload) in cut.accounts {
            batch.put_sealed(Family::Accounts, &schema::accounts_page(number), payload);
        }
        if let Some(admin) = cut.admin {
            batch.put_sealed(Family::Meta, ADMIN, admin);
        }
        batch.put_sealed(Family::Meta, CATALOGUE, catalogue.encode());
        batch.put_sealed(Family::Meta, STAMP, cut.stamp.encode());
        engine.write(batch)?;
        engine.flush()?;

        self.merges.let_go_of_retired(engine.as_ref(), &catalogue)?;
        self.merges.step(engine.as_ref(), &mut catalogue, flushed)?;
        catalogue.keep_filters_within(self.filter_budget_bytes);
        self.disk = Arc::new(Disk { engine, stamp: cut.stamp, catalogue, tail: tail.events, tail_floor: tail.floor });
        Ok(self.disk.clone())
    }
}

struct Tail {
    events: Vec<Event>,
    floor: u64,
}

/// Full pages, and the tail that is left. The old tail's events come first.
fn write_journal(before: &Disk, frozen: &Frozen, batch: &mut Batch) -> Tail {
    assert_eq!(before.stamp.head.next_event, frozen.first, "a flush goes on where the last one ended");
    let mut tail = Tail { events: before.tail.clone(), floor: before.tail_floor };
    let mut page = journal::place(frozen.first).0;
    let mut rest = frozen.events.as_slice();
    while tail.events.len() + rest.len() >= EVENTS_PER_PAGE {
        let (fill, left) = rest.split_at(EVENTS_PER_PAGE - tail.events.len());
        rest = left;
        if tail.events.is_empty() {
            write_page(page, fill, &mut tail.floor, batch);
        } else {
            tail.events.extend_from_slice(fill);
            write_page(page, &std::mem::take(&mut tail.events), &mut tail.floor, batch);
        }
        page += 1;
    }
    tail.events.extend_from_slice(rest);
    if tail.events.is_empty() {
        batch.delete(Family::Meta, TAIL);
    } else {
        batch.put_sealed(Family::Meta, TAIL, journal::encode_page(&tail.events, tail.floor));
    }
    tail
}

fn write_page(page: u64, events: &[Event], floor: &mut u64, batch: &mut Batch) {
    batch.put_sealed(Family::Journal, &schema::journal_page(page), journal::encode_page(events, *floor));
    *floor = events.iter().fold(*floor, raise_floor);
}

/// One run of each kind that has pairs; tells how many pairs each got.
fn write_runs(frozen: &Frozen, catalogue: &mut Catalogue, batch: &mut Batch) -> [u64; 3] {
    let transfers = || frozen.events.iter().zip(frozen.first.0..).filter(|(event, _)| event.kind.records_transfer());

    let mut ids = Vec::with_capacity(frozen.events.len() + frozen.burnt.len());
    ids.extend(transfers().map(|(event, number)| pair(id_key(event.transfer.id), number)));
    ids.extend(frozen.burnt.iter().map(|id| pair(id_key(*id), BURNT)));

    let mut history = Vec::with_capacity(frozen.events.len() * 2);
    for (event, number) in transfers() {
        history.push(pair(history_key(event.debit.slot, SideKey::Debit), number));
        history.push(pair(history_key(event.credit.slot, SideKey::Credit), number));
    }

    let resolutions =
        frozen.resolutions.iter().map(|(pending, state)| pair(pending.0, u64::from(state.code()))).collect();

    let all_ids = || transfers().map(|(event, _)| event.transfer.id).chain(frozen.burnt.iter().copied());
    let bounds = bounds(all_ids());
    [(RunKind::Ids, ids, bounds), (RunKind::History, history, (0, 0)), (RunKind::Resolutions, resolutions, (0, 0))]
        .map(|(kind, pairs, ids)| write_run(kind, pairs, ids, catalogue, batch))
}

fn bounds(ids: impl Iterator<Item = TransferId>) -> (u128, u128) {
    ids.fold((u128::MAX, 0), |(least, greatest), id| (least.min(id.0), greatest.max(id.0)))
}

fn write_run(
    kind: RunKind,
    mut pairs: Vec<Pair>,
    ids: (u128, u128),
    catalogue: &mut Catalogue,
    batch: &mut Batch,
) -> u64 {
    if pairs.is_empty() {
        return 0;
    }
    sort::sort(&mut pairs);
    let mut writer = RunWriter::new(catalogue.draw_run_id(), kind, 0, ids, usize::MAX);
    pairs.iter().for_each(|pair| writer.push(*pair, batch));
    let run = writer.finish(batch).expect("there are pairs");
    catalogue.of_mut(kind).push(run);
    pairs.len() as u64
}

fn write_rows(cut: &Cut, batch: &mut Batch) {
    let frozen = &cut.frozen;
    for (at, pending) in &frozen.expiries_removed {
        batch.delete(Family::Rows, &schema::expiry_row(*at, *pending));
    }
    for (at, pending) in &frozen.expiries_added {
        batch.put_sealed(Family::Rows, &schema::expiry_row(*at, *pending), Vec::new());
    }
    for record in &cut.audit {
        batch.put_sealed(Family::Rows, &schema::audit_row(record.number), record.encode_to_vec());
    }
    for id in &frozen.burnt {
        batch.put_sealed(Family::Rows, &schema::burnt_row(*id), cut.stamp.applied_index().to_le_bytes().to_vec());
    }
}

/// Deletes runs that the catalogue doesn't name. Costs a read per run there is.
fn sweep(disk: &mut Disk) -> Result<(), StoreError> {
    let_go_between(disk.engine.as_ref(), disk.catalogue.all().map(|run| run.info.id).collect())?;
    let mut batch = Batch::new();
    let mut next = 0;
    while let Some((key, _)) = disk.engine.at_or_after(Family::Runs, &schema::run_key(next, RunPart::Page, 0, 0))? {
        let run =
            schema::run_of_key(&key).ok_or_else(|| crate::codec::corrupt(Family::Runs, &key, "has no key of a run"))?;
        if !disk.catalogue.all().any(|known| known.info.id == run) {
            batch.delete_range(Family::Runs, &schema::run_key(run, RunPart::Page, 0, 0), &schema::run_end(run));
        }
        disk.catalogue.never_draw(run);
        next = run + 1;
    }
    disk.engine.write(batch)
}

/// The books as the last flush left them: accounts carried forward to it, open expiries, the head. Costs the accounts and at most
/// [`accounts::STRIPE_AGE_FLUSHES_MAX`] intervals of events.
pub fn restore(disk: &Disk) -> Result<Books, StoreError> {
    let count = disk.stamp.accounts_count as usize;
    let mut books = Books::with_room_for(count);
    accounts::read(disk.engine.as_ref(), &disk.stamp, 0..count, &mut |account| books.restore_account(account))?;
    disk.each_event_from(accounts::carry_from(&disk.stamp), &mut |event| {
        books.restore_side(&event.debit);
        books.restore_side(&event.credit);
    })?;
    disk.expiries(&mut |at, pending| books.restore_expiry(at, pending))?;
    books.restore_head(disk.stamp.head.clone());
    Ok(books)
}
