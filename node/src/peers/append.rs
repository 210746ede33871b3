//! The stream of entries and heartbeats to one peer, and its progress deadline.
//!
//! The first request is polled before anything is connected: openraft's own backoff sleeps inside the request stream, so
//! connecting first would spin on a peer that refuses. A stream may idle for hours, so there is no deadline on the call;
//! but as soon as a request is out, an answer must come in time, or the stream and its connection are given up. (A dead
//! connection can look alive for a quarter of an hour.)
//!
//! openraft takes up the last thing it was told to send once more after a stream has broken, although the log may have been
//! purged behind it meanwhile. What it reads then has a hole, or nothing in it for ever. So a request from before the purge
//! ends the stream: the peer needs the snapshot, which is on its way, and openraft looks for something newer to send.
//!
//! Laws
//! * Answers come in the order of the requests; the peer ends its stream when the requests end.
//! * The entries of a request follow its predecessor and one another, when it is sent and when it is received.
//! * Whoever stops listening to the answers stops the requests: nothing is read from the log for a stream that has ended.
//!
//! Not here: what is in an entry (`proto::entry`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, future::ready, stream};
use jangbu_proto::{
    Malformed,
    cluster::v1::{AppendReply, AppendRequest, Envelope},
};
use jangbu_raft_store::{
    Entry, LogStats, TypeConfig,
    type_config::{decode_entry, encode_entry},
};
use openraft::{
    base::BoxStream,
    errors::RPCError,
    raft::{AppendEntriesRequest, StreamAppendResult},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;

use super::{
    Link, convert,
    network::{network_error, rpc_error},
};

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Sends what `input` yields, as long as it isn't from before what was purged of `log`, and gives back the answers.
/// Heartbeats carry no entries and need no log.
pub async fn stream<'s, S>(
    link: Arc<Link>,
    log: Option<LogStats>,
    input: S,
) -> Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let over = CancellationToken::new();
    let is_gone = move |prev: Option<u64>| log.as_ref().is_some_and(|log| prev < log.purged_index());
    let mut input = Box::pin(current(is_gone, input).take_until(over.clone().cancelled_owned()));
    let listening = over.drop_guard();
    let Some(first) = input.next().await else {
        return Ok(Box::pin(stream::empty()));
    };
    let progress = Arc::new(Progress::default());
    let requests = requests(&link, first, input, progress.clone());
    let failed = |status| rpc_error(&link, status);
    let mut client = link.client().map_err(failed)?;
    let limit = link.common.timings.progress_timeout;
    let answers = tokio::select! {
        biased;
        answers = client.append(requests) => answers.map_err(failed)?.into_inner(),
        () = progress.stalled(limit) => return Err(stalled(&link, limit)),
    };
    Ok(answers_of(link, answers, progress, listening))
}

/// Ends at the first request that the log can't answer for any more; `is_gone` says so of a predecessor's index.
fn current<S>(
    is_gone: impl Fn(Option<u64>) -> bool + Send + 'static,
    input: S,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
{
    input.take_while(move |request| {
        let prev = request.prev_log_id.map(|id| id.index);
        ready(is_whole(request) && !is_gone(prev))
    })
}

/// Whether the entries follow the predecessor and one another.
fn is_whole(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    let first = request.prev_log_id.map_or(0, |id| id.index + 1);
    (first..).zip(&request.entries).all(|(index, entry)| entry.log_id.index == index)
}

fn requests<S>(
    link: &Arc<Link>,
    first: AppendEntriesRequest<TypeConfig>,
    rest: S,
    progress: Arc<Progress>,
) -> impl Stream<Item = AppendRequest> + Send + 'static
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let mut envelope = Some(link.envelope());
    let clock = link.common.clock.clone();
    stream::iter([first]).chain(rest).map(move |request| {
        progress.asked();
        to_wire(request, envelope.take(), clock.wall_ns())
    })
}

fn answers_of<'s>(
    link: Arc<Link>,
    answers: Streaming<AppendReply>,
    progress: Arc<Progress>,
    listening: DropGuard,
) -> BoxStream<'s, Answer> {
    let limit = link.common.timings.progress_timeout;
    let unfolded = stream::unfold(Some((answers, progress, link, listening)), move |state| async move {
        let (mut answers, progress, link, listening) = state?;
        let answer = tokio::select! {
            biased;
            answer = answers.message() => answer.map_err(|status| rpc_error(&link, status)),
            () = progress.stalled(limit) => Err(stalled(&link, limit)),
        };
        match answer {
            Ok(Some(reply)) => {
                progress.answered();
                let answer = convert::append_result_from_wire(reply).map_err(|error| network_error(error.to_string()));
                Some((answer, Some((answers, progress, link, listening))))
            }
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Box::pin(unfolded)
}

fn stalled(link: &Link, limit: Duration) -> RPCError<TypeConfig> {
    link.drop_channel();
    network_error(format!("no answer from node {} within {limit:?}; the connection is dropped", link.id))
}

/// What is out and not answered yet.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Default)]
struct State {
    unanswered: u64,
    /// When the oldest unanswered request went out, or the last answer came in, whichever was later.
    since: Option<Instant>,
}

impl Progress {
    fn asked(&self) {
        let mut state = self.state();
        state.unanswered += 1;
        if state.unanswered == 1 {
            state.since = Some(Instant::now());
            self.asked.notify_one();
        }
    }

    fn answered(&self) {
        let mut state = self.state();
        state.unanswered = state.unanswered.saturating_sub(1);
        state.since = (state.unanswered > 0).then(Instant::now);
    }

    /// Returns once something has been out for `limit` without an answer.
    async fn stalled(&self, limit: Duration) {
        loop {
            let since = self.state().since;
            match since {
                None => self.asked.notified().await,
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => sleep_until(since + limit).await,
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn to_wire(request: AppendEntriesRequest<TypeConfig>, envelope: Option<Envelope>, clock_ns: u64) -> AppendRequest {
    AppendRequest {
        envelope,
        vote: Some(convert::vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(convert::log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(convert::log_id_to_wire),
        entries: request.entries.iter().map(entry_to_bytes).collect(),
        leader_clock_ns: clock_ns,
    }
}

pub fn from_wire(request: AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let request = AppendEntriesRequest {
        vote: convert::vote_from_wire(request.vote)?,
        prev_log_id: request.prev_log_id.map(convert::log_id_from_wire),
        entries: request.entries.into_iter().map(decode_entry).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(convert::log_id_from_wire),
    };
    // openraft trusts it, and would put the first one behind whatever lies there.
    match is_whole(&request) {
        true => Ok(request),
        false => Err(Malformed::new("entries", "there is a hole before or between them")),
    }
}

fn entry_to_bytes(entry: &Entry) -> Bytes {
    let (header, payload) = encode_entry(entry);
    let mut bytes = BytesMut::with_capacity(header.len() + payload.len());
    bytes.put_slice(&header);
    bytes.put_slice(&payload);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use jangbu_raft_store::{Vote, log_id};
    use openraft::entry::RaftEntry;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn request(prev: Option<u64>, entries: &[u64]) -> AppendEntriesRequest<TypeConfig> {
        let entry = |index: &u64| Entry::new_blank(log_id(1, 1, *index));
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: prev.map(|index| log_id(1, 1, index)),
            entries: entries.iter().map(entry).collect(),
            leader_commit: None,
        }
    }

    #[test]
    fn a_request_with_a_hole_is_not_taken_in() {
        let arrives = |prev, entries: &[u64]| from_wire(to_wire(request(prev, entries), None, 0)).is_ok();
        assert!(arrives(Some(7), &[8, 9]) && arrives(None, &[0, 1]) && arrives(Some(7), &[]));
        assert!(!arrives(Some(7), &[9]), "before them");
        assert!(!arrives(Some(7), &[8, 10]), "between them");
        assert!(!arrives(None, &[1]), "before the first one there is");
    }

    #[tokio::test]
    async fn a_request_from_before_the_purge_ends_the_stream() {
        async fn sent(asked: Vec<AppendEntriesRequest<TypeConfig>>) -> usize {
            current(|prev| prev < Some(20), stream::iter(asked)).count().await
        }
        assert_eq!(sent(vec![request(Some(20), &[21]), request(Some(21), &[])]).await, 2);
        assert_eq!(sent(vec![request(Some(20), &[21]), request(Some(19), &[]), request(Some(21), &[22])]).await, 1);
        assert_eq!(sent(vec![request(None, &[0])]).await, 0);
        assert_eq!(sent(vec![request(Some(20), &[31])]).await, 0, "read while it was being purged");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_idles_is_not_stalled() {
        let progress = Progress::default();
        progress.asked();
        progress.answered();
        assert!(tokio::time::timeout(LIMIT * 3_600, progress.stalled(LIMIT)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_is() {
        let progress = Progress::default();
        progress.asked();
        let before = Instant::now();
        progress.stalled(LIMIT).await;
        assert_eq!(before.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_gives_the_next_its_own_time() {
        let progress = Progress::default();
        progress.asked();
        progress.asked();
        tokio::time::advance(LIMIT / 2).await;
        progress.answered();
        let before = Instant::now();
        progress.stalled(LIMIT).await;
        assert_eq!(before.elapsed(), LIMIT);
    }
}
