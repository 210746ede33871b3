//! Readers beside the writer: whatever is flushed, merged, installed or forgotten meanwhile, an answer is that of one index.

use crate::harness::*;
use futures_util::future::BoxFuture;
use jangbu_ledger::{
    AccountFilter, AccountFilterFlags, AccountId, ChangeEventsFilter, CreateTransferStatus, QueryFilter, TransferId,
};
use jangbu_proto::batch::Replies;
use jangbu_raft_store::blocking::{Blocking, Lane, Lanes, Work};
use jangbu_raft_store::vfs::StdVfs;
use jangbu_raft_store::{Command, Entry, StateReader, StoreEnv, log_id};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SECOND: u64 = 1_000_000_000;

/// Of these, each entry debits account 1 with the first.
const TRANSFERS_PER_ENTRY: u64 = 10;

async fn read_until(done: Arc<AtomicBool>, reader: StateReader, answers: Arc<AtomicU64>) {
    let both = AccountFilterFlags::DEBITS.with(AccountFilterFlags::CREDITS);
    let mut turn = 0u64;
    while !done.load(Ordering::Relaxed) {
        turn += 1;
        let reversed = if turn.is_multiple_of(2) { AccountFilterFlags::REVERSED } else { AccountFilterFlags(0) };
        let filter =
            AccountFilter { account_id: AccountId(1), limit: 8_189, flags: both.with(reversed), ..Default::default() };
        let read = reader.get_account_transfers(filter).await.unwrap();
        // The accounts are the first entry's; every later one has one transfer of this account.
        assert_eq!(read.value.items.len() as u64, read.at.log_index.saturating_sub(1), "at {:?}", read.at);

        let filter = QueryFilter { limit: 8_189, ..Default::default() };
        let read = reader.query_transfers(filter).await.unwrap();
        let expected = (read.at.log_index.saturating_sub(1) * TRANSFERS_PER_ENTRY).min(8_189);
        assert_eq!(read.value.items.len() as u64, expected);

        let read = reader.change_events(ChangeEventsFilter { limit: 8_189, ..Default::default() }).await.unwrap();
        assert!(read.value.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));

        let known = reader.applied().log_index.saturating_sub(1) * TRANSFERS_PER_ENTRY;
        let ids: Vec<TransferId> = (1..=u128::from(known)).step_by(7).map(TransferId).collect();
        assert_eq!(reader.lookup_transfers(ids.clone()).await.unwrap().value.len(), ids.len());
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_answer_is_that_of_one_index_whatever_goes_on_beside_it() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let vfs = Arc::new(StdVfs);
        let blocking = Arc::new(Lanes::new("readers"));
        let env = StoreEnv { log_vfs: vfs.clone(), state_vfs: vfs, engines: engines(kind), blocking };
        let mut store = jangbu_raft_store::open(store_config(dir.path(), tiny()), env).await.unwrap();
        let (done, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let readers: Vec<_> =
            (0..2).map(|_| tokio::spawn(read_until(done.clone(), store.reader.clone(), answers.clone()))).collect();

        let accounts: Vec<_> = (1..=20).map(account).collect();
        let mut bodies = vec![accounts_body(SECOND, &accounts)];
        for entry in 0..400u128 {
            let first = entry * u128::from(TRANSFERS_PER_ENTRY);
            let transfers: Vec<_> = (1..=10).map(|n| transfer(first + n, n, n + 10, 1)).collect();
            bodies.push(transfers_body(SECOND, &transfers));
        }
        for (index, body) in (1..).zip(bodies) {
            let entry = Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(Command(body)) };
            let item: EntryResponder<_> = (entry, None);
            store.state.apply(futures_util::stream::iter([Ok(item)])).await.unwrap();
            if index % 100 == 0 {
                let mut builder = store.state.get_snapshot_builder().await;
                builder.build_snapshot().await.unwrap();
            }
            tokio::task::yield_now().await;
        }
        while answers.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        assert!(store.fatal.cause().is_none());
    }
}

/// Counts what applying asks of the disk.
struct Counted {
    lanes: Lanes,
    asked: AtomicU64,
}

impl Blocking for Counted {
    fn run(&self, lane: Lane, work: Work) -> BoxFuture<'static, ()> {
        self.asked.fetch_add(u64::from(lane == Lane::Apply), Ordering::Relaxed);
        self.lanes.run(lane, work)
    }
}

/// Every thread that reads for queries stands still, and more queries wait: an old id is looked up all the same.
#[tokio::test]
async fn queries_that_keep_all_readers_busy_hold_up_no_payment() {
    let (dir, vfs) = (tempfile::tempdir().unwrap(), Arc::new(StdVfs));
    let lanes = Arc::new(Counted { lanes: Lanes::new("test"), asked: AtomicU64::new(0) });
    let engines = engines(Kind::Rocks);
    let env = StoreEnv { log_vfs: vfs.clone(), state_vfs: vfs, engines, blocking: lanes.clone() };
    let mut store = jangbu_raft_store::open(store_config(dir.path(), tiny()), env).await.unwrap();
    let body = |index: u64, body| Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(Command(body)) };
    let accounts = [account(1), account(2)];
    store.state.apply_alone(body(1, accounts_body(SECOND, &accounts))).await.unwrap();
    let payment = transfer(77, 1, 2, 5);
    store.state.apply_alone(body(2, transfers_body(SECOND, &[payment]))).await.unwrap();
    // Flushed: memory doesn't know it any more.
    store.state.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    for _ in 0..64 {
        let held = held.clone();
        let stand_still = move || assert!(held.lock().unwrap().recv().is_err(), "nobody sends, the end releases");
        drop(lanes.run(Lane::Read, Box::new(stand_still)));
    }
    let again = store.state.apply_alone(body(3, transfers_body(SECOND, &[payment])));
    let applied = tokio::time::timeout(std::time::Duration::from_secs(30), again).await;
    drop(release);
    assert_eq!(lanes.asked.load(Ordering::Relaxed), 1, "memory didn't know the id any more");
    let replies = Replies::parse(applied.expect("it waits for no query").unwrap().replies).unwrap();
    let exists = CreateTransferStatus::Exists.code();
    assert_eq!(replies.iter().next().unwrap().answers().map(|answer| answer.status).collect::<Vec<_>>(), [exists]);
}
