//! Applies committed entries to the state: load, decide, answer; and now and then, freeze.
//!
//!     entry -> parse -> what can't memory answer? -> (Apply lane: the disk) -> write lock { load, decide, unload } -> replies
//!                                                                                └ enough gathered? freeze -> Flush lane (flush.rs)
//!
//! Laws
//! * What an entry does follows from the entries before it and itself: no clock, no chance, nothing of this machine. Time is the entry's, made to ascend.
//! * Every responder is answered, after its entry was applied.
//! * Nothing is flushed before the log has it durably.
//! * The points of freezing follow from the entries alone (and from restarts and snapshots): a flush that is late makes the next entry wait, not the next freeze.
//!   So memory is bounded: what gathers in two intervals.
//! * An entry that this program can't read, and whatever the disk did wrong, stops the replica.
//!
//! Not here: the rules (`ledger`), pages and runs (`flush.rs`, `disk.rs`), snapshots (`snapshot.rs`).

use crate::admin::VERSION_MAX;
use crate::blocking::{Blocking, Lane, run_blocking};
use crate::disk::{Disk, Found};
use crate::error::{Fatal, StoreError};
use crate::flush::{self, Keeper};
use crate::log_store::LogStore;
use crate::snapshot::{SnapshotBuilder, SnapshotData, Snapshots};
use crate::state::{SharedState, State};
use crate::type_config::{Applied, Command, Entry, LogId, StoredMembership, TypeConfig};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, Shared};
use futures_util::{Stream, TryStreamExt};
use jangbu_ledger::planted::{self, Bug};
use jangbu_ledger::{
    Account, CreateAccountStatus, CreateResult, CreateTransferStatus, EventNumber, Transfer, TransferFlags, TransferId,
};
use jangbu_proto::batch::{Batch, Kind, Operation, RepliesBuilder, RequestView};
use jangbu_proto::convert::answer;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use prost::Message as _;
use std::io;
use std::sync::{Arc, Mutex};

/// What one pulse expires at most; the leader sends the next at once if more is due. As much as a full request.
pub const PULSE_EXPIRIES_MAX: usize = 8_189;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// A flush is due when so many events and new accounts have gathered. A full interval takes about 50 MiB of memory at the default, twice that while it is being flushed.
    pub flush_events: usize,
    /// A flush is due when so many bytes of log have been applied since: what a restart replays.
    pub flush_log_bytes: u64,
    /// Memory for filters over transfer ids: two bytes per id. Ids beyond it are looked up on disk, unless they grow with time.
    pub filter_bytes: usize,
    /// The newest cluster version that this replica takes part in; lower than [`VERSION_MAX`] only where an upgrade is rehearsed.
    pub version_max: u32,
}

impl Default for StateConfig {
    fn default() -> StateConfig {
        StateConfig {
            flush_events: 128 << 10,
            flush_log_bytes: 256 << 20,
            filter_bytes: 64 << 20,
            version_max: VERSION_MAX,
        }
    }
}

/// A flush on its way: whoever waits for it gets the state it left, or hears that it failed.
pub(crate) type Flushing = Shared<BoxFuture<'static, Result<Arc<Disk>, Arc<StoreError>>>>;

/// The state of one group, as openraft drives it.
pub struct StateMachine {
    pub(crate) shared: SharedState,
    pub(crate) snapshots: Snapshots,
    pub(crate) log: LogStore,
    keeper: Arc<Mutex<Keeper>>,
    flushing: Option<Flushing>,
    /// Of the entries applied since the last freeze.
    log_bytes: u64,
    /// As of the last freeze.
    accounts_frozen: usize,
    pub(crate) config: StateConfig,
    pub(crate) blocking: Arc<dyn Blocking>,
    pub(crate) fatal: Fatal,
    scratch: Scratch,
}

/// Reused from entry to entry.
#[derive(Default)]
struct Scratch {
    /// The events of all requests of the entry, in order, by what they are.
    accounts: Vec<Account>,
    transfers: Vec<Transfer>,
    account_results: Vec<CreateResult<CreateAccountStatus>>,
    transfer_results: Vec<CreateResult<CreateTransferStatus>>,
}

/// What memory can't answer about an entry.
#[derive(Default)]
struct Questions {
    ids: Vec<TransferId>,
    timestamps: Vec<u64>,
    due: Vec<EventNumber>,
}

/// What the disk said to it.
#[derive(Default)]
struct Answers {
    found: Vec<(Found, Option<jangbu_ledger::PendingState>)>,
    timestamps: Vec<u64>,
}

impl StateMachine {
    pub(crate) fn new(
        state: State,
        keeper: Keeper,
        snapshots: Snapshots,
        log: LogStore,
        config: StateConfig,
        blocking: Arc<dyn Blocking>,
        fatal: Fatal,
    ) -> StateMachine {
        StateMachine {
            accounts_frozen: state.books.accounts_count(),
            shared: SharedState::new(state),
            snapshots,
            log,
            keeper: Arc::new(Mutex::new(keeper)),
            flushing: None,
            log_bytes: 0,
            config,
            blocking,
            fatal,
            scratch: Scratch::default(),
        }
    }

    // --- entries

    async fn apply_entry(&mut self, entry: Entry) -> Result<Applied, StoreError> {
        self.take_over_finished_flush()?;
        let id = entry.log_id;
        let replies = match entry.payload {
            EntryPayload::Blank => {
                self.shared.write().advance(id);
                Bytes::new()
            }
            EntryPayload::Membership(membership) => {
                let mut state = self.shared.write();
                state.advance(id);
                state.adopt_membership(StoredMembership::new(Some(id), membership));
                Bytes::new()
            }
            EntryPayload::Normal(Command(body)) => {
                self.log_bytes += body.len() as u64;
                let batch =
                    Batch::parse(body).map_err(|error| StoreError::unreadable_entry(id.index, &error.to_string()))?;
                match batch.kind() {
                    Kind::Batch => self.apply_requests(id, &batch).await?,
                    Kind::Pulse => self.apply_pulse(id, batch.time()).await?,
                    Kind::Admin => self.apply_admin(id, &batch)?,
                }
            }
        };
        Ok(Applied { log_index: id.index, term: id.leader_id.term, replies })
    }

    async fn apply_requests(&mut self, id: LogId, batch: &Batch) -> Result<Bytes, StoreError> {
        self.scratch.unpack(batch);
        let questions = self.questions();
        let answers = self.ask_disk(questions).await?;
        let mut replies = RepliesBuilder::new();
        let mut state = self.shared.write();
        let scratch = &mut self.scratch;
        load(&mut state, answers);
        let (mut accounts, mut transfers) = (scratch.accounts.as_slice(), scratch.transfers.as_slice());
        let is_blind = planted::is(Bug::LogTimeGoesBack);
        let last_timestamp = if is_blind { 0 } else { state.books.head().last_timestamp };
        for (time, request) in batch.stamped(last_timestamp) {
            match request.operation {
                Operation::CreateAccounts => {
                    let events = first_of(&mut accounts, request);
                    scratch.account_results.clear();
                    state.books.create_accounts(time, events, &mut scratch.account_results);
                    replies.push(time, scratch.account_results.iter().map(answer));
                }
                Operation::CreateTransfers => {
                    let events = first_of(&mut transfers, request);
                    scratch.transfer_results.clear();
                    state.books.create_transfers(time, events, &mut scratch.transfer_results);
                    replies.push(time, scratch.transfer_results.iter().map(answer));
                }
            }
        }
        state.books.unload();
        state.advance(id);
        Ok(replies.finish())
    }

    /// Expires what is due. Event j of k happens at `now` + j, `now` being the entry's time or right after the last event's.
    async fn apply_pulse(&mut self, id: LogId, time: u64) -> Result<Bytes, StoreError> {
        let mut questions = Questions::default();
        let mut due = Vec::new();
        let now = {
            let state = self.shared.read();
            let now = time.max(state.books.head().last_timestamp + 1);
            state.books.due(now, PULSE_EXPIRIES_MAX, &mut due);
            questions.due.extend(due.iter().copied().filter(|number| *number < state.books.recent_first()));
            now
        };
        let answers = self.ask_disk(questions).await?;
        let mut state = self.shared.write();
        load(&mut state, answers);
        if due.is_empty() {
            state.books.advance(now);
        } else {
            let expired = state.books.expire(now + due.len() as u64 - 1, due.len());
            assert_eq!(expired, due.len(), "what was due a moment ago is due still");
        }
        state.books.unload();
        state.advance(id);
        Ok(Bytes::new())
    }

    /// The reply is the record in the audit trail.
    fn apply_admin(&mut self, id: LogId, batch: &Batch) -> Result<Bytes, StoreError> {
        let mut state = self.shared.write();
        let state = &mut *state;
        let now = batch.time().max(state.books.head().last_timestamp + 1);
        let reply = state.admin.apply(id.index, now, batch.admin(), self.config.version_max)?.encode_to_vec();
        state.books.advance(now);
        state.advance(id);
        Ok(reply.into())
    }

    fn questions(&self) -> Questions {
        let mut questions = Questions::default();
        let state = self.shared.read();
        state.books.unresolved_timestamps(&self.scratch.accounts, &mut questions.timestamps);
        state.books.unresolved_ids(&self.scratch.transfers, &mut questions.ids);
        // Most ids are new, and memory alone can say so.
        questions.ids = state.disk.suspects(&questions.ids);
        questions
    }

    async fn ask_disk(&self, questions: Questions) -> Result<Answers, StoreError> {
        if questions.ids.is_empty() && questions.timestamps.is_empty() && questions.due.is_empty() {
            return Ok(Answers::default());
        }
        let disk = self.shared.read().disk.clone();
        run_blocking(&*self.blocking, Lane::Apply, move || questions.ask(&disk)).await
    }

    // --- flushes

    /// Freezes if enough has gathered. Waits for the flush before, if that is still on its way.
    async fn flush_if_due(&mut self) -> Result<(), StoreError> {
        let gathered = {
            let state = self.shared.read();
            state.books.recent_events_count() + state.books.accounts_count() - self.accounts_frozen
        };
        if gathered >= self.config.flush_events || self.log_bytes >= self.config.flush_log_bytes {
            let _on_its_way = self.start_flush().await?;
        }
        Ok(())
    }

    /// Freezes, and hands what is frozen to the Flush lane. Waits for the flush before, and for the log: what a quorum has is
    /// applied here, though this disk may not have it yet, and a state that a crash left ahead of its log has entries behind
    /// it that no log and no snapshot here holds.
    pub(crate) async fn start_flush(&mut self) -> Result<Flushing, StoreError> {
        self.finish_flush().await?;
        self.log.settled().await?;
        let cut = {
            let mut state = self.shared.write();
            let state = &mut *state;
            self.accounts_frozen = state.books.accounts_count();
            flush::cut(
                &mut state.books,
                &mut state.admin,
                &state.disk.stamp,
                state.applied,
                state.membership.clone(),
                state.highest_node_id,
            )
        };
        self.log_bytes = 0;
        let (keeper, fatal) = (self.keeper.clone(), self.fatal.clone());
        let work = run_blocking(&*self.blocking, Lane::Flush, move || {
            let mut keeper = keeper.lock().expect("a panic in a lane ends the process");
            keeper.flush(cut).map_err(|error| fatal.raise(error))
        });
        let flushing = work.boxed().shared();
        self.flushing = Some(flushing.clone());
        Ok(flushing)
    }

    /// Waits for the flush that is on its way, if any, and takes its result over.
    pub(crate) async fn finish_flush(&mut self) -> Result<(), StoreError> {
        match self.flushing.clone() {
            Some(flushing) => self.take_over(flushing.await),
            None => Ok(()),
        }
    }

    fn take_over_finished_flush(&mut self) -> Result<(), StoreError> {
        match self.flushing.clone().and_then(FutureExt::now_or_never) {
            Some(flushed) => self.take_over(flushed),
            None => Ok(()),
        }
    }

    /// From here on the disk answers for what was frozen.
    fn take_over(&mut self, flushed: Result<Arc<Disk>, Arc<StoreError>>) -> Result<(), StoreError> {
        self.flushing = None;
        let disk = flushed.map_err(|cause| StoreError::Fenced(cause.to_string()))?;
        let mut state = self.shared.write();
        state.books.forget_frozen();
        state.admin.forget_frozen();
        state.disk = disk;
        Ok(())
    }

    /// Replaces everything by a state that was just opened. No flush is on its way.
    pub(crate) fn replace(&mut self, mut state: State, keeper: Keeper) {
        assert!(self.flushing.is_none(), "the old state has come to rest");
        self.accounts_frozen = state.books.accounts_count();
        self.log_bytes = 0;
        self.keeper = Arc::new(Mutex::new(keeper));
        std::mem::swap(&mut *self.shared.write(), &mut state);
    }

    /// For openraft, which hears of the cause; the process hears of it through [`Fatal`].
    pub(crate) fn give_up(&self, error: StoreError) -> io::Error {
        io::Error::other(self.fatal.raise(error))
    }

    /// Applies one entry and tells what it gave: for tests and measurements, which have no openraft to answer to.
    pub async fn apply_alone(&mut self, entry: Entry) -> io::Result<Applied> {
        let applied = self.apply_or_give_up(entry).await?;
        self.flush_or_give_up().await?;
        Ok(applied)
    }

    /// The same without making anything durable, ever: for a look ahead, at most as far as memory holds it.
    pub(crate) async fn apply_in_memory(&mut self, entry: Entry) -> io::Result<Applied> {
        self.apply_or_give_up(entry).await
    }

    async fn apply_stream<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = self.apply_or_give_up(entry).await?;
            // Before a wait for the disk: the answer doesn't depend on it.
            if let Some(responder) = responder {
                responder.send(applied);
            }
            self.flush_or_give_up().await?;
        }
        Ok(())
    }

    async fn apply_or_give_up(&mut self, entry: Entry) -> io::Result<Applied> {
        self.fatal.check()?;
        self.apply_entry(entry).await.map_err(|error| self.give_up(error))
    }

    async fn flush_or_give_up(&mut self) -> io::Result<()> {
        self.flush_if_due().await.map_err(|error| self.give_up(error))
    }
}

impl Scratch {
    fn unpack(&mut self, batch: &Batch) {
        self.accounts.clear();
        self.transfers.clear();
        for request in batch.requests() {
            match request.operation {
                Operation::CreateAccounts => self.accounts.extend(request.events().map(Account::decode)),
                Operation::CreateTransfers => self.transfers.extend(request.events().map(Transfer::decode)),
            }
        }
    }
}

/// Takes the events of the next request off the front.
fn first_of<'a, T>(events: &mut &'a [T], request: &RequestView) -> &'a [T] {
    let (first, rest) = events.split_at(request.events_count as usize);
    *events = rest;
    first
}

impl Questions {
    /// Reads the disk.
    fn ask(self, disk: &Disk) -> Result<Answers, StoreError> {
        let mut answers = Answers::default();
        for id in self.ids {
            if let Some(found) = disk.find_id(id)? {
                answers.add(disk, found)?;
            }
        }
        for number in self.due {
            answers.add(disk, Found::Event(number, Box::new(disk.event(number)?)))?;
        }
        for timestamp in self.timestamps {
            if disk.has_transfer_at(timestamp)? {
                answers.timestamps.push(timestamp);
            }
        }
        Ok(answers)
    }
}

impl Answers {
    fn add(&mut self, disk: &Disk, found: Found) -> Result<(), StoreError> {
        let state = match &found {
            Found::Event(number, event) if event.transfer.flags.contains(TransferFlags::PENDING) => {
                Some(disk.pending_state(*number)?)
            }
            _ => None,
        };
        self.found.push((found, state));
        Ok(())
    }
}

/// Gives the books what was found. What was resolved since the last flush they know better than the disk.
fn load(state: &mut State, answers: Answers) {
    for (found, pending_state) in answers.found {
        match found {
            Found::Event(number, event) => state.books.load_transfer(number, event.transfer, pending_state),
            Found::Burnt(_) if planted::is(Bug::BurntForgottenFlushed) => {}
            Found::Burnt(id) => state.books.load_burnt(id),
        }
    }
    for timestamp in answers.timestamps {
        state.books.load_transfer_timestamp(timestamp);
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.shared.read();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.apply_stream(entries).await
    }

    /// Freezes here, between two entries; the flush and the checkpoint go on beside the entries that follow.
    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let flushing = match self.start_flush().await {
            Ok(flushing) => Ok(flushing),
            Err(error) => Err(self.fatal.raise(error)),
        };
        SnapshotBuilder::new(self.snapshots.clone(), flushing, self.fatal.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &crate::type_config::SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        match self.install(meta, snapshot).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.give_up(error)),
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<crate::type_config::Snapshot>, io::Error> {
        Ok(self.snapshots.newest())
    }
}
