//! What is let in, in which order, and what is told to come back later.
//!
//! Every write passes here before any work is done for it. The room is bounded by requests, by bytes, and by time: when
//! the oldest request has waited too long, the node takes in more than it gets done, and a longer queue would only make
//! everyone late. Finishing a payment goes before starting one, and that before imports; so imports may fill half of the
//! room, new payments nine tenths, and the rest is kept for what releases held money.
//!
//! Laws
//! * Turned away means nothing was done: `RESOURCE_EXHAUSTED` with a time to come back.
//! * A place is given back exactly once, when its [`Permit`] is dropped.
//!
//! Not here: the order of what was let in (`batcher.rs`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jangbu_ledger::{AccountFlags, TransferFlags};
use jangbu_proto::batch::{Operation, RECORD_BYTES, RequestView};
use tokio::{sync::Notify, time::Instant};

use crate::{config::Limits, environment::Entropy, error::CallError, metrics::Metrics};

/// What goes first when there is more than can be done. Lower is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Posts and voids only: money that is already held.
    Finish = 0,
    /// New payments, new accounts.
    Start = 1,
    /// Records of the past.
    Import = 2,
}

pub const CLASSES: usize = 3;

impl Class {
    /// Tenths of the room that this class may help to fill.
    fn share_tenths(self) -> usize {
        match self {
            Self::Finish => 10,
            Self::Start => 9,
            Self::Import => 5,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Finish => "finish",
            Self::Start => "start",
            Self::Import => "import",
        }
    }

    pub fn of(requests: &[RequestView]) -> Self {
        let mut class = Self::Finish;
        for request in requests {
            class = class.max(class_of_request(request));
        }
        class
    }
}

/// Where both kinds of record keep their flags.
const FLAGS_AT: usize = 118;

fn class_of_request(request: &RequestView) -> Class {
    let flags = |record: &[u8; RECORD_BYTES]| u16::from_le_bytes([record[FLAGS_AT], record[FLAGS_AT + 1]]);
    match request.operation {
        Operation::CreateAccounts => {
            let imported = request.events().any(|record| flags(record) & AccountFlags::IMPORTED.0 != 0);
            if imported { Class::Import } else { Class::Start }
        }
        Operation::CreateTransfers => {
            let finishing = TransferFlags::POST_PENDING_TRANSFER.0 | TransferFlags::VOID_PENDING_TRANSFER.0;
            let mut class = Class::Finish;
            for record in request.events() {
                let flags = flags(record);
                if flags & TransferFlags::IMPORTED.0 != 0 {
                    return Class::Import;
                }
                if flags & finishing == 0 {
                    class = Class::Start;
                }
            }
            class
        }
    }
}

/// The room for writes.
pub struct Admission {
    requests_max: usize,
    bytes_max: usize,
    wait_max: Duration,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    room: Mutex<Room>,
    emptied: Notify,
}

#[derive(Default)]
struct Room {
    requests: usize,
    bytes: usize,
    closed: bool,
    /// When the oldest request that waits though a leader is known came in; kept by the batcher.
    oldest: Option<Instant>,
}

/// A place in the room; dropped when the request is answered.
pub struct Permit {
    admission: Arc<Admission>,
    requests: usize,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut room = self.admission.room();
        room.requests -= self.requests;
        room.bytes -= self.bytes;
        self.admission.metrics.queue(room.requests, room.bytes);
        if room.requests == 0 {
            self.admission.emptied.notify_waiters();
        }
    }
}

impl Admission {
    pub fn new(limits: &Limits, entropy: Arc<dyn Entropy>, metrics: Arc<Metrics>) -> Self {
        Self {
            requests_max: limits.requests_max,
            bytes_max: limits.requests_bytes_max,
            wait_max: limits.queue_wait_max(),
            entropy,
            metrics,
            room: Mutex::default(),
            emptied: Notify::new(),
        }
    }

    /// A place for these requests, or the reason why not.
    pub fn admit(self: &Arc<Self>, class: Class, requests: usize, bytes: usize) -> Result<Permit, CallError> {
        let mut room = self.room();
        if room.closed {
            return Err(shutting_down());
        }
        // A room too small to be divided is everyone's.
        let share = |whole: usize| whole / 10 * class.share_tenths() + whole % 10;
        let waited = room.oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed());
        let full = if room.requests + requests > share(self.requests_max) {
            Some("requests in the queue")
        } else if room.bytes + bytes > share(self.bytes_max) {
            Some("bytes in the queue")
        } else if waited > self.wait_max / 10 * class.share_tenths() as u32 {
            Some("time in the queue")
        } else {
            None
        };
        if let Some(what) = full {
            self.metrics.shed(class.name());
            return Err(CallError::Overloaded { what, retry_after: self.retry_after(waited) });
        }
        room.requests += requests;
        room.bytes += bytes;
        self.metrics.queue(room.requests, room.bytes);
        Ok(Permit { admission: self.clone(), requests, bytes })
    }

    /// From now on nobody is let in.
    pub fn close(&self) {
        self.room().closed = true;
    }

    /// Waits until everything that was let in is answered.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.room().requests == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub fn set_oldest(&self, oldest: Option<Instant>) {
        self.room().oldest = oldest;
    }

    /// About as long as the queue is, and spread, so that those turned away don't come back all at once.
    fn retry_after(&self, waited: Duration) -> Duration {
        let base = waited.clamp(Duration::from_millis(50), Duration::from_secs(1));
        base / 2 + base.mul_f64((self.entropy.next_u64() % 1_024) as f64 / 1_024.0)
    }

    fn room(&self) -> std::sync::MutexGuard<'_, Room> {
        // Plain counters: a panic elsewhere leaves them whole.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to whoever comes while the node stops.
pub fn shutting_down() -> CallError {
    CallError::unavailable(jangbu_proto::reason::SHUTTING_DOWN, "this node is stopping; ask another")
}
