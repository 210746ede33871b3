//! The packed stream: many requests in flight over one connection, for heavy producers.
//!
//!     submit -> [a place in the window] -> driver -> node
//!                                            ^         |
//!     ticket <- the answer ------------------+---------+      the stream broke: on another node, all unanswered again
//!
//! A request waits for a place in the window, so a producer is never further ahead of the cluster than that. Replies come in
//! any order. When the stream breaks, the requests that have no answer yet are submitted again under the same ids, in the
//! order in which they came, on another node; those that were carried out before answer `exists`.
//!
//! Laws
//! * Each ticket is answered once, by its deadline: also when the stream is dropped before.
//! * A request is submitted byte for byte the same each time.
//!
//! Not here: what to do about a chain that was submitted twice (see [`PackedReply::resubmitted`]).

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use jangbu_ledger::{Account, CreateResult, Transfer};
use jangbu_proto::{
    batch::{self, Operation, ReplyView},
    convert::{self, CreateStatus},
    jangbu::v1::{self, AppliedAt, submit_reply::Outcome},
    reason,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Client, ClientError, SessionToken,
    client::door,
    retry::{Patience, Then, judge},
};

/// How much longer than its own time limit an answer may take before the stream counts as broken.
const STALL_GRACE: Duration = Duration::from_millis(500);

/// How a packed stream behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfig {
    /// The most requests in flight. Eight full ones keep a connection busy over ten milliseconds of distance.
    pub window: usize,
    /// How long a request may take from `submit` to its answer, all attempts together; the wait for a place not included.
    pub deadline: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { window: 8, deadline: Duration::from_secs(5) }
    }
}

/// A stream of packed requests. Dropping it lets what is in flight finish.
pub struct PackedStream {
    submissions: mpsc::Sender<Submission>,
    places: Arc<Semaphore>,
    deadline: Duration,
}

/// A request in flight: await it for its answer.
#[derive(Debug)]
pub struct Ticket {
    answer: oneshot::Receiver<Result<PackedReply, ClientError>>,
    records: Bytes,
}

/// The answer to a packed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedReply {
    pub at: AppliedAt,
    pub reply: ReplyView,
    /// It was submitted more than once. What was carried out the first time answers `exists`; in a linked chain that was, only
    /// the first event does, and the others answer `linked_event_failed`: look those up.
    pub resubmitted: bool,
}

impl PackedReply {
    /// One result per event, in order.
    pub fn results<S: CreateStatus>(&self) -> Result<Vec<CreateResult<S>>, ClientError> {
        convert::results_of(&self.reply).map_err(ClientError::Unintelligible)
    }
}

impl PackedStream {
    pub(crate) fn open(client: Client, config: StreamConfig) -> Self {
        assert!(config.window > 0, "a window without places would wait for ever");
        let (submissions, submitted) = mpsc::channel(config.window);
        tokio::spawn(Driver::new(client, submitted, config.window).run());
        Self { submissions, places: Arc::new(Semaphore::new(config.window)), deadline: config.deadline }
    }

    /// Submits 1 to 8,189 records of 128 bytes. Waits for a place in the window.
    pub async fn submit(&self, operation: Operation, records: Bytes) -> Result<Ticket, ClientError> {
        batch::events_count(records.len()).map_err(ClientError::Refused)?;
        let place = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (answer, ticket) = oneshot::channel();
        let deadline = Instant::now() + self.deadline;
        let submission = Submission { operation, records: records.clone(), deadline, answer, _place: place };
        let sent = self.submissions.send(submission).await;
        assert!(sent.is_ok(), "the driver runs as long as the stream is there");
        Ok(Ticket { answer: ticket, records })
    }

    /// Submits 1 to 8,189 accounts. Waits for a place in the window.
    pub async fn submit_accounts(&self, accounts: &[Account]) -> Result<Ticket, ClientError> {
        self.submit(Operation::CreateAccounts, packed(accounts, Account::encode)).await
    }

    /// Submits 1 to 8,189 transfers. Waits for a place in the window.
    pub async fn submit_transfers(&self, transfers: &[Transfer]) -> Result<Ticket, ClientError> {
        self.submit(Operation::CreateTransfers, packed(transfers, Transfer::encode)).await
    }
}

fn packed<R>(records: &[R], encode: impl Fn(&R, &mut [u8; batch::RECORD_BYTES])) -> Bytes {
    let mut bytes = BytesMut::zeroed(records.len() * batch::RECORD_BYTES);
    for (record, place) in records.iter().zip(bytes.as_chunks_mut().0) {
        encode(record, place);
    }
    bytes.freeze()
}

impl Future for Ticket {
    type Output = Result<PackedReply, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        // The driver only goes without answering when the runtime does.
        Poll::Ready(answer.unwrap_or_else(|_| Err(unknown(&self.records, "the stream ended"))))
    }
}

fn unknown(records: &[u8], message: impl Into<String>) -> ClientError {
    ClientError::OutcomeUnknown { ids: convert::record_ids(records).collect(), message: message.into() }
}

// --- the driver

struct Submission {
    operation: Operation,
    records: Bytes,
    deadline: Instant,
    answer: oneshot::Sender<Result<PackedReply, ClientError>>,
    _place: OwnedSemaphorePermit,
}

/// A request without an answer yet.
struct Unanswered {
    submission: Submission,
    attempts_count: u32,
    /// An earlier attempt may have been carried out, or still be.
    in_doubt: bool,
    state: State,
    /// Why the last attempt failed.
    error: ClientError,
}

enum State {
    /// It is on the stream; without an answer by then the stream is broken.
    Sent { stalled_at: Instant },
    /// It is to be sent from then on.
    Due(Instant),
}

/// Owns the stream, and everything that is in flight.
struct Driver {
    client: Client,
    submitted: mpsc::Receiver<Submission>,
    window: usize,
    /// By tag, which is the order in which they came.
    unanswered: BTreeMap<u64, Unanswered>,
    next_tag: u64,
    /// Nobody submits any more.
    closed: bool,
    /// Streams in a row that broke without a single answer.
    barren_count: u32,
}

/// Why a stream isn't used any longer.
enum End {
    /// All is answered, and nothing more will come.
    Finished,
    Broken,
}

impl Driver {
    fn new(client: Client, submitted: mpsc::Receiver<Submission>, window: usize) -> Self {
        let unanswered = BTreeMap::new();
        Self { client, submitted, window, unanswered, next_tag: 1, closed: false, barren_count: 0 }
    }

    async fn run(mut self) {
        while self.has_work().await {
            let index = self.client.caller().endpoints.pick();
            let end = match self.connect(index).await {
                Some((requests, replies)) => self.exchange(index, requests, replies).await,
                None => End::Broken,
            };
            match end {
                End::Finished => return,
                End::Broken => self.rest(index).await,
            }
        }
    }

    /// Waits for something to do; false: there will be nothing more.
    async fn has_work(&mut self) -> bool {
        if self.unanswered.is_empty() && !self.closed {
            match self.submitted.recv().await {
                Some(submission) => self.take(submission),
                None => self.closed = true,
            }
        }
        // Time runs for all that were submitted, whether a node can be reached or not.
        while let Ok(submission) = self.submitted.try_recv() {
            self.take(submission);
        }
        !self.unanswered.is_empty()
    }

    fn take(&mut self, submission: Submission) {
        let unanswered = Unanswered {
            submission,
            attempts_count: 0,
            in_doubt: false,
            state: State::Due(Instant::now()),
            error: ClientError::unavailable("no node could be reached"),
        };
        self.unanswered.insert(self.next_tag, unanswered);
        self.next_tag += 1;
        self.client.caller().budget.refill();
    }

    async fn connect(&mut self, index: usize) -> Option<(mpsc::Sender<v1::SubmitRequest>, Streaming<v1::SubmitReply>)> {
        let (requests, outgoing) = mpsc::channel(self.window);
        let mut door = door(self.client.caller().endpoints.get(index).channel.clone());
        let limit = self.next_deadline().min(Instant::now() + self.patience().attempt_deadline);
        let opened = timeout(limit - Instant::now(), door.submit(ReceiverStream::new(outgoing))).await;
        match opened {
            Ok(Ok(replies)) => Some((requests, replies.into_inner())),
            Ok(Err(status)) => {
                // Nothing was sent on it yet, so this is no doubt about any request.
                let verdict = judge(&status);
                for unanswered in self.unanswered.values_mut() {
                    unanswered.error = verdict.error.clone();
                }
                None
            }
            Err(_) => None,
        }
    }

    /// Sends what is due and takes what is answered, until the stream breaks or all is done.
    async fn exchange(
        &mut self,
        index: usize,
        requests: mpsc::Sender<v1::SubmitRequest>,
        mut replies: Streaming<v1::SubmitReply>,
    ) -> End {
        loop {
            self.expire();
            if !self.send_due(&requests) {
                return End::Broken;
            }
            if self.unanswered.is_empty() && self.closed {
                return End::Finished;
            }
            let (next_event, idle) = (self.next_event(), self.unanswered.is_empty());
            tokio::select! {
                biased;
                reply = replies.message() => match reply {
                    Ok(Some(reply)) => {
                        self.client.caller().endpoints.good(index);
                        self.barren_count = 0;
                        if self.answered(reply) == Stream::Leave {
                            return End::Broken;
                        }
                    }
                    Ok(None) | Err(_) => return End::Broken,
                },
                submission = self.submitted.recv(), if !self.closed => match submission {
                    Some(submission) => self.take(submission),
                    None => self.closed = true,
                },
                () = sleep_until(next_event), if !idle => {
                    if self.is_stalled() {
                        return End::Broken;
                    }
                }
            }
        }
    }

    /// After a stream broke: what was on it is in doubt, and due again after a pause; this node has its rest.
    async fn rest(&mut self, index: usize) {
        self.client.caller().endpoints.bad(index);
        self.barren_count += 1;
        let again_at = Instant::now() + self.client.caller().pause(Then::Elsewhere, self.barren_count);
        let attempts_max = self.patience().attempts_max;
        let caller = self.client.caller();
        let hopeless = |_: &u64, unanswered: &mut Unanswered| {
            let was_sent = matches!(unanswered.state, State::Sent { .. });
            if was_sent {
                unanswered.in_doubt = true;
                unanswered.state = State::Due(again_at);
                unanswered.error = ClientError::unavailable("the stream broke");
            }
            was_sent && !(unanswered.attempts_count < attempts_max && caller.budget.spend())
        };
        for (_, unanswered) in self.unanswered.extract_if(.., hopeless) {
            unanswered.give_up();
        }
        sleep_until(again_at.min(self.next_deadline())).await;
        self.expire();
    }

    /// Gives up what has run out of time.
    fn expire(&mut self) {
        let now = Instant::now();
        for (_, unanswered) in self.unanswered.extract_if(.., |_, unanswered| unanswered.submission.deadline <= now) {
            unanswered.give_up();
        }
    }

    /// Puts on the stream what is due. False: the stream takes nothing more.
    fn send_due(&mut self, requests: &mpsc::Sender<v1::SubmitRequest>) -> bool {
        let now = Instant::now();
        let attempt_deadline = self.patience().attempt_deadline;
        for (tag, unanswered) in &mut self.unanswered {
            if !matches!(unanswered.state, State::Due(at) if at <= now) {
                continue;
            }
            let limit = (unanswered.submission.deadline - now).min(attempt_deadline);
            match requests.try_send(unanswered.submission.request(*tag, limit)) {
                Ok(()) => {
                    unanswered.attempts_count += 1;
                    unanswered.state = State::Sent { stalled_at: now + limit + STALL_GRACE };
                }
                // The connection is busy; its next reply or the next tick gets here again.
                Err(mpsc::error::TrySendError::Full(_)) => {
                    unanswered.state = State::Due(now + Duration::from_millis(1));
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
        }
        true
    }

    /// Takes an answer. Says whether the stream is of further use.
    fn answered(&mut self, reply: v1::SubmitReply) -> Stream {
        let Some(unanswered) = self.unanswered.remove(&reply.tag) else {
            // It ran out of time before.
            return Stream::Stay;
        };
        match reply.outcome {
            Some(Outcome::Applied(applied)) => {
                self.applied(unanswered, &applied);
                Stream::Stay
            }
            Some(Outcome::Failure(failure)) => self.failed(reply.tag, unanswered, &failure),
            None => {
                unanswered.give_up_in_doubt("an answer without an outcome");
                Stream::Stay
            }
        }
    }

    fn applied(&mut self, unanswered: Unanswered, applied: &v1::Applied) {
        let events_count = unanswered.submission.records.len() / batch::RECORD_BYTES;
        let answer = match convert::view_of_applied(applied, events_count) {
            Ok((at, reply)) => {
                self.client.observe(SessionToken { log_index: at.log_index });
                Ok(PackedReply { at, reply, resubmitted: unanswered.attempts_count > 1 })
            }
            Err(refusal) => Err(ClientError::Unintelligible(refusal)),
        };
        unanswered.submission.answer(answer);
    }

    fn failed(&mut self, tag: u64, mut unanswered: Unanswered, failure: &v1::Failure) -> Stream {
        let verdict = judge(&reason::status_of_failure(failure));
        unanswered.in_doubt |= verdict.maybe_done;
        unanswered.error = verdict.error;
        let pause = match verdict.then {
            Then::After(_) => self.client.caller().pause(verdict.then, 1),
            _ => self.client.caller().jitter(unanswered.attempts_count),
        };
        let again_at = Instant::now() + pause;
        unanswered.state = State::Due(again_at);
        let go_on = verdict.then != Then::Stop
            && unanswered.attempts_count < self.patience().attempts_max
            && again_at < unanswered.submission.deadline
            && self.client.caller().budget.spend();
        if !go_on {
            unanswered.give_up();
            return Stream::Stay;
        }
        self.unanswered.insert(tag, unanswered);
        // An election is felt at every node alike; these say that this very node won't do.
        match failure.reason.as_str() {
            reason::SHUTTING_DOWN | reason::FENCED | reason::NOT_READY | reason::INTERNAL => Stream::Leave,
            _ => Stream::Stay,
        }
    }

    fn is_stalled(&self) -> bool {
        let now = Instant::now();
        let stalled =
            |unanswered: &Unanswered| matches!(unanswered.state, State::Sent { stalled_at } if stalled_at <= now);
        self.unanswered.values().any(stalled)
    }

    /// When the first of the unanswered wants something.
    fn next_event(&self) -> Instant {
        let event = |unanswered: &Unanswered| {
            let at = match unanswered.state {
                State::Sent { stalled_at } => stalled_at,
                State::Due(at) => at,
            };
            at.min(unanswered.submission.deadline)
        };
        self.unanswered.values().map(event).min().unwrap_or_else(|| Instant::now() + STALL_GRACE)
    }

    fn next_deadline(&self) -> Instant {
        let deadlines = self.unanswered.values().map(|unanswered| unanswered.submission.deadline);
        deadlines.min().unwrap_or_else(Instant::now)
    }

    fn patience(&self) -> Patience {
        self.client.patience()
    }
}

#[derive(PartialEq, Eq)]
enum Stream {
    Stay,
    Leave,
}

impl Unanswered {
    fn give_up(self) {
        // On a stream that still stands it may yet be carried out.
        let in_doubt = self.in_doubt || matches!(self.state, State::Sent { .. });
        let error = match in_doubt {
            true => unknown(&self.submission.records, self.error.to_string()),
            false => self.error,
        };
        self.submission.answer(Err(error));
    }

    fn give_up_in_doubt(self, message: &str) {
        let error = unknown(&self.submission.records, message);
        self.submission.answer(Err(error));
    }
}

impl Submission {
    fn request(&self, tag: u64, limit: Duration) -> v1::SubmitRequest {
        let operation = match self.operation {
            Operation::CreateAccounts => v1::Operation::CreateAccounts,
            Operation::CreateTransfers => v1::Operation::CreateTransfers,
        };
        v1::SubmitRequest {
            tag,
            operation: operation.into(),
            records: self.records.clone(),
            deadline_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1),
        }
    }

    fn answer(self, answer: Result<PackedReply, ClientError>) {
        // Whoever dropped the ticket doesn't want to know.
        let _ = self.answer.send(answer);
    }
}

#[cfg(test)]
mod tests;
