//! What a caller was answered and has yet to take.
//!
//! HTTP/2 holds back what the other end makes no room for. A caller that asks and never reads costs nothing to itself and the
//! answers' memory here, and it can go on so for ever while it answers pings. So each answer is followed until its last
//! byte was written to the connection; one that waits for too long is the end of its connection (`server`), and a
//! connection that has too much waiting is asked for patience instead of answered more (`guard`).
//!
//! Laws
//! * What waits for its service isn't the caller's fault, and isn't counted: a quiet stream may stay open for ever.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Several of the largest answers: who reads at all never has as much waiting.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// So many answers at a time are no sign of harm, …
const ANSWERS_MAX: usize = 64;
/// … unless none of them was taken for so long.
const ANSWERS_LATE: Duration = Duration::from_secs(1);

/// The answers of one connection that were handed over and are not written yet.
#[derive(Debug, Default)]
pub(super) struct Unread(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order in which they began to wait.
    since: BTreeMap<u64, Instant>,
    bytes: usize,
}

impl Unread {
    /// How long the oldest has waited.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.lock().since.first_key_value().map(|(_, since)| since.elapsed())
    }

    /// Whether so much waits that nothing should be added.
    pub(super) fn piles_up(&self) -> bool {
        let waiting = self.lock();
        let oldest = waiting.since.first_key_value().map(|(_, since)| since.elapsed());
        let are_many = waiting.since.len() >= ANSWERS_MAX && oldest.is_some_and(|oldest| oldest >= ANSWERS_LATE);
        are_many || waiting.bytes >= BYTES_MAX
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn wait(self: &Arc<Self>, bytes: usize) -> Ticket {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.bytes += bytes;
        waiting.since.insert(number, Instant::now());
        Ticket { of: self.clone(), number, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that waits for the caller to take it; until it is dropped.
struct Ticket {
    of: Arc<Unread>,
    number: u64,
    bytes: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.of.lock();
        waiting.since.remove(&self.number);
        waiting.bytes -= self.bytes;
    }
}

/// A part of an answer, until it is written.
struct Part {
    bytes: Bytes,
    _waits: Ticket,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer that is followed.
pub struct Followed<B> {
    body: B,
    unread: Arc<Unread>,
    /// From when it could be asked for more until it is: there is no room for it.
    waits: Option<Ticket>,
}

impl<B> Followed<B> {
    pub(super) fn new(body: B, unread: Arc<Unread>) -> Self {
        let waits = Some(unread.wait(0));
        Self { body, unread, waits }
    }
}

impl<B> Body for Followed<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.waits = None;
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        self.waits = Some(self.unread.wait(0));
        let unread = self.unread.clone();
        Poll::Ready(Some(Ok(frame.map_data(|bytes| {
            let _waits = unread.wait(bytes.len());
            Bytes::from_owner(Part { bytes, _waits })
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
