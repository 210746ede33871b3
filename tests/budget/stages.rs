//! The stages of the payment path, each on the same transfers: plain, between ten thousand accounts, with ids that grow.
//!
//!     decode        a typed request, from the bytes of its message to packed records
//!     apply         the rules of money, with deduplication, journal and digest
//!     encode        the answer, to the bytes of its message
//!     log_record    the entry in the log, as far as the kernel
//!     state_write   applying and flushing through the store: the rules again, pages, runs, and what RocksDB does with them
//!
//! Code that ships, called as the node calls it. Not here: gRPC, Raft, the network.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jangbu_ledger::{Account, AccountId, Amount, Books, CreateTransferStatus, Transfer, TransferId};
use jangbu_proto::batch::{Answer, Batch, BatchBuilder, Operation, Replies, RepliesBuilder};
use jangbu_proto::convert;
use jangbu_proto::jangbu::v1;
use jangbu_raft_store::{
    Command, Entry, Fatal, LogConfig, LogSetup, LogStore, StateConfig, Store, StoreConfig, StoreEnv, TypeConfig,
    blocking::Lanes, log_id, vfs::StdVfs,
};
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use prost::Message as _;

/// A request of medium size, so that what a request costs is in it too.
pub(crate) const TRANSFERS_PER_ROUND: u64 = 1_024;
const ACCOUNTS_COUNT: u64 = 10_000;
/// Small enough that a short run flushes, merges, and does all that a long one does.
const FLUSH_EVENTS: usize = 16 << 10;
const TIME: u64 = 1_700_000_000_000_000_000;

#[derive(Clone, Copy)]
pub(crate) enum Stage {
    Decode,
    Apply,
    Encode,
    LogRecord,
    StateWrite,
}

impl Stage {
    pub(crate) const ALL: [Stage; 5] =
        [Stage::Decode, Stage::Apply, Stage::Encode, Stage::LogRecord, Stage::StateWrite];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Apply => "apply",
            Stage::Encode => "encode",
            Stage::LogRecord => "log_record",
            Stage::StateWrite => "state_write",
        }
    }

    /// Enough that chance does not show.
    pub(crate) const fn rounds(self) -> u64 {
        match self {
            Stage::Decode | Stage::Encode | Stage::LogRecord => 64,
            Stage::Apply => 128,
            // Eight flushes, then sixteen.
            Stage::StateWrite => 128,
        }
    }

    pub(crate) fn run(self, rounds: u64) {
        match self {
            Stage::Decode => decode(rounds),
            Stage::Apply => apply(rounds),
            Stage::Encode => encode(rounds),
            Stage::LogRecord => block_on(log_record(rounds)),
            Stage::StateWrite => block_on(state_write(rounds)),
        }
    }
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime of one thread").block_on(work);
}

fn decode(rounds: u64) {
    let message = Bytes::from(convert::transfers_to_wire(&transfers(0)).encode_to_vec());
    for _ in 0..rounds {
        let request = v1::CreateTransfersRequest::decode(message.clone()).expect("it was encoded just now");
        let records = convert::pack_transfers(&request).expect("they are well formed");
        std::hint::black_box(records);
    }
}

fn apply(rounds: u64) {
    let mut books = Books::new();
    books.advance(TIME);
    let accounts: Vec<Account> = (0..ACCOUNTS_COUNT).map(account).collect();
    for accounts in accounts.chunks(1_000) {
        let time = books.head().last_timestamp + accounts.len() as u64;
        books.create_accounts(time, accounts, &mut Vec::new());
    }
    let (mut unresolved, mut results) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let transfers = transfers(round);
        unresolved.clear();
        results.clear();
        books.unresolved_ids(&transfers, &mut unresolved);
        books.create_transfers(books.head().last_timestamp + 1_000_000, &transfers, &mut results);
        assert!(results.iter().all(|result| result.status == CreateTransferStatus::Created));
        if books.recent_events_count() > FLUSH_EVENTS {
            books.freeze();
            books.forget_frozen();
        }
    }
}

fn encode(rounds: u64) {
    let at = v1::AppliedAt { log_index: 1, ..v1::AppliedAt::default() };
    for round in 0..rounds {
        let timestamp = TIME + round * TRANSFERS_PER_ROUND;
        let answers = (1..=TRANSFERS_PER_ROUND).map(|place| Answer {
            timestamp: timestamp - TRANSFERS_PER_ROUND + place,
            status: CreateTransferStatus::Created.code(),
        });
        let mut replies = RepliesBuilder::new();
        replies.push(timestamp, answers.collect::<Vec<_>>().into_iter());
        let replies = Replies::parse(replies.finish()).expect("they were built just now");
        for reply in replies.iter() {
            std::hint::black_box(convert::create_transfers_reply(at, reply).encode_to_vec());
        }
    }
}

async fn log_record(rounds: u64) {
    let folder = tempfile::tempdir().expect("a folder to write to");
    // Segments that a short run fills.
    let config = LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() };
    let setup = LogSetup { dir: folder.path().join("log"), group: 0, config, must_exist: false };
    let lanes = Arc::new(Lanes::new("budget"));
    let mut log = LogStore::open(setup, Arc::new(StdVfs), lanes, Fatal::default()).await.expect("a log");
    for round in 0..rounds {
        let (done, durable) = TypeConfig::oneshot();
        log.append([entry(round, transfers_body(round))], IOFlushed::signal(done)).await.expect("appended");
        durable.await.expect("answered").expect("durable");
        // As behind a snapshot: segments are used again, not made anew.
        log.purge(log_id(1, 1, round)).await.expect("purged");
    }
}

async fn state_write(rounds: u64) {
    let folder = tempfile::tempdir().expect("a folder to write to");
    let mut store = open(folder.path()).await;
    let mut index = 0;
    let accounts: Vec<Account> = (0..ACCOUNTS_COUNT).map(account).collect();
    for accounts in accounts.chunks(1_000) {
        index += 1;
        let body = body(Operation::CreateAccounts, accounts, Account::encode);
        store.state.apply_alone(entry(index, body)).await.expect("applied");
    }
    for round in 0..rounds {
        index += 1;
        let applied = store.state.apply_alone(entry(index, transfers_body(round))).await.expect("applied");
        std::hint::black_box(applied);
    }
}

async fn open(folder: &Path) -> Store {
    let config = StoreConfig {
        node_id: 1,
        data_dir: folder.to_owned(),
        new_incarnation: [1; 16],
        group: 0,
        log: LogConfig::default(),
        state: StateConfig { flush_events: FLUSH_EVENTS, ..StateConfig::default() },
    };
    jangbu_raft_store::open(config, StoreEnv::production()).await.expect("a store")
}

fn entry(index: u64, body: Bytes) -> Entry {
    Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(Command(body)) }
}

fn transfers_body(round: u64) -> Bytes {
    let body = body(Operation::CreateTransfers, &transfers(round), Transfer::encode);
    // As the node reads it before it is applied.
    Batch::parse(body.clone()).expect("it was built just now");
    body
}

fn body<T>(operation: Operation, records: &[T], encode: impl Fn(&T, &mut [u8; 128])) -> Bytes {
    let mut bytes = vec![0; records.len() * 128];
    for (record, place) in records.iter().zip(bytes.as_chunks_mut().0) {
        encode(record, place);
    }
    let mut batch = BatchBuilder::new();
    batch.push(operation, &bytes);
    batch.finish(TIME)
}

fn account(number: u64) -> Account {
    Account { id: account_id(number), ledger: 1, code: 1, ..Account::default() }
}

fn transfers(round: u64) -> Vec<Transfer> {
    let first = round * TRANSFERS_PER_ROUND;
    let transfer = |number: u64| {
        let debit = mixed(number) % ACCOUNTS_COUNT;
        let credit = (debit + 1 + mixed(!number) % (ACCOUNTS_COUNT - 1)) % ACCOUNTS_COUNT;
        Transfer {
            id: TransferId(u128::from(number + 1) << 64 | u128::from(mixed(number))),
            debit_account_id: account_id(debit),
            credit_account_id: account_id(credit),
            amount: Amount(u128::from(1 + number % 1_000)),
            ledger: 1,
            code: 1,
            ..Transfer::default()
        }
    };
    (first..first + TRANSFERS_PER_ROUND).map(transfer).collect()
}

/// Ids as they come from outside: without order.
fn account_id(number: u64) -> AccountId {
    AccountId(u128::from(mixed(number)) << 64 | u128::from(number + 1))
}

/// SplitMix64: scatters, the same way each time.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
