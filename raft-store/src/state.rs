//! What the state machine writes and readers read: the books, and the disk beneath them, always of one index.
//!
//! Laws
//! * Only the state machine's own task changes anything, between two entries or within one; so what it looked up before a decision still holds at the decision.
//! * Books and disk change hands together: nobody sees an event in both, or in neither.
//! * The write lock is held for a decision or a freeze, never over a disk.
//!
//! Not here: who decides what (`state_machine.rs`), and what may be asked (`reader.rs`).

use crate::admin::Admin;
use crate::disk::Disk;
use crate::type_config::{LogId, StoredMembership};
use jangbu_ledger::{Books, Digest, EventNumber, Head, Totals};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::oneshot;

/// Every so many entries the digest is kept, for replicas to compare. A power of two.
pub const DIGEST_INTERVAL: u64 = 1_024;

/// So many digests are kept: at 1,000 entries a second those of the last 17 minutes.
pub const DIGESTS_MAX: usize = 1_024;

/// The index a state stands at, and what tells it from another state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedPoint {
    pub log_index: u64,
    pub term: u64,
    /// Log time.
    pub timestamp: u64,
    pub digest: [u8; 16],
}

/// The state at an index, audit trail included: what a backup records, and what its restore must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMark {
    pub at: AppliedPoint,
    pub audit_hash: [u8; 32],
}

pub struct State {
    pub books: Books,
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    /// Of all memberships ever applied.
    pub highest_node_id: u64,
    pub admin: Admin,
    pub disk: Arc<Disk>,
    digests: VecDeque<(u64, [u8; 16])>,
    /// Who wants to know the state at an index that is not applied yet.
    probes: BTreeMap<u64, Vec<oneshot::Sender<Probe>>>,
}

/// What a recount needs of the state at one index.
pub struct Probe {
    pub at: AppliedPoint,
    pub head: Head,
    pub accounts_digest: u128,
    pub totals: BTreeMap<u32, Totals>,
    pub accounts_over_limit: u64,
    pub accounts_count: u64,
    /// Of the events since the last flush, recounted.
    pub recent_digest: u128,
    pub disk: Arc<Disk>,
}

impl State {
    /// The state that a disk holds.
    pub fn new(books: Books, admin: Admin, disk: Arc<Disk>) -> State {
        let stamp = &disk.stamp;
        State {
            books,
            applied: stamp.applied,
            membership: stamp.membership.clone(),
            highest_node_id: stamp.highest_node_id,
            admin,
            digests: VecDeque::new(),
            probes: BTreeMap::new(),
            disk,
        }
    }

    pub fn point(&self) -> AppliedPoint {
        let head = self.books.head();
        AppliedPoint {
            log_index: self.applied.map_or(0, |id| id.index),
            term: self.applied.map_or(0, |id| id.leader_id.term),
            timestamp: head.last_timestamp,
            digest: head.digest.to_bytes(),
        }
    }

    pub fn mark(&self) -> StateMark {
        StateMark { at: self.point(), audit_hash: self.admin.last_hash() }
    }

    /// An entry has been applied.
    pub fn advance(&mut self, id: LogId) {
        assert!(self.applied.is_none_or(|applied| applied.index < id.index), "the applied log id never moves back");
        self.applied = Some(id);
        if id.index.is_multiple_of(DIGEST_INTERVAL) {
            self.digests.push_back((id.index, self.whole_digest()));
            if self.digests.len() > DIGESTS_MAX {
                self.digests.pop_front();
            }
        }
        // Those who asked for an index that a snapshot jumped over hear that it has gone by.
        while let Some(asked) = self.probes.first_entry().filter(|asked| *asked.key() <= id.index) {
            let (index, askers) = asked.remove_entry();
            if index == id.index {
                askers.into_iter().for_each(|asker| drop(asker.send(self.probe())));
            }
        }
    }

    /// Of the books and of the administration: what replicas compare. The trail's last hash stands for all that was administered;
    /// before anything was, it is zero, and this is the digest of the books.
    fn whole_digest(&self) -> [u8; 16] {
        let books = u128::from_le_bytes(self.books.head().digest.to_bytes());
        let trail = *self.admin.last_hash().first_chunk().expect("a hash has 32 bytes");
        books.wrapping_add(u128::from_le_bytes(trail)).to_le_bytes()
    }

    /// Recounts the accounts and the events in memory: a few tens of nanoseconds for each.
    fn probe(&self) -> Probe {
        let head = self.books.head();
        let accounts = self.books.accounts().iter().map(Digest::of_account);
        let recent = (self.books.recent_first().0..head.next_event.0).map(EventNumber);
        let recent = recent.map(|number| {
            let event = self.books.recent_event(number).expect("events since the last flush are in memory");
            Digest::of_event(number, event)
        });
        Probe {
            at: self.point(),
            accounts_digest: accounts.fold(0, u128::wrapping_add),
            recent_digest: recent.fold(0, u128::wrapping_add),
            totals: self.books.totals(),
            accounts_over_limit: self.books.accounts_over_limit() as u64,
            accounts_count: self.books.accounts_count() as u64,
            disk: self.disk.clone(),
            head,
        }
    }

    /// The probe at an index, now or once it is applied; it is dropped if the index has gone by.
    pub fn ask_probe(&mut self, index: Option<u64>) -> oneshot::Receiver<Probe> {
        let (asker, answer) = oneshot::channel();
        let applied = self.applied.map_or(0, |id| id.index);
        match index {
            Some(index) if index > applied => self.probes.entry(index).or_default().push(asker),
            Some(index) if index < applied => drop(asker),
            _ => drop(asker.send(self.probe())),
        }
        answer
    }

    pub fn adopt_membership(&mut self, membership: StoredMembership) {
        let highest = membership.nodes().map(|(id, _)| *id).max().unwrap_or(0);
        self.highest_node_id = self.highest_node_id.max(highest);
        self.membership = membership;
    }

    /// Newest last.
    pub fn digests(&self) -> Vec<(u64, [u8; 16])> {
        self.digests.iter().copied().collect()
    }
}

/// The state under its lock.
#[derive(Clone)]
pub struct SharedState(Arc<RwLock<State>>);

impl SharedState {
    pub fn new(state: State) -> SharedState {
        SharedState(Arc::new(RwLock::new(state)))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().expect(POISONED)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().expect(POISONED)
    }
}

/// A panic in a decision leaves books that may be half changed: whoever comes next must not go on with them.
const POISONED: &str = "the state was left by a panic, and can't be trusted";
