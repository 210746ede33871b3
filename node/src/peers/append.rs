//! The stream of entries and heartbeats to one peer, and its progress deadline.
//!
//! The first request is polled before anything is connected: openraft's own backoff sleeps inside the request stream, so
//! connecting first would spin on a peer that refuses. A stream may idle for hours, so there is no deadline on the call;
//! but as soon as a request is out, an answer must come in time, or the stream and its connection are given up. (A dead
//! connection can look alive for a quarter of an hour.)
//!
//! Laws
//! * Answers come in the order of the requests; the peer ends its stream when the requests end.
//!
//! Not here: what is in an entry (`proto::entry`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use jangbu_proto::cluster::v1::{AppendReply, AppendRequest, Envelope};
use jangbu_raft_store::{
    Entry, TypeConfig,
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
use tonic::Streaming;

use super::{
    Link, convert,
    network::{network_error, rpc_error},
};

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Sends what `input` yields and gives back the answers.
pub async fn stream<'s, S>(link: Arc<Link>, mut input: S) -> Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
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
    Ok(answers_of(link, answers, progress))
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

fn answers_of<'s>(link: Arc<Link>, answers: Streaming<AppendReply>, progress: Arc<Progress>) -> BoxStream<'s, Answer> {
    let limit = link.common.timings.progress_timeout;
    let unfolded = stream::unfold(Some((answers, progress, link)), move |state| async move {
        let (mut answers, progress, link) = state?;
        let answer = tokio::select! {
            biased;
            answer = answers.message() => answer.map_err(|status| rpc_error(&link, status)),
            () = progress.stalled(limit) => Err(stalled(&link, limit)),
        };
        match answer {
            Ok(Some(reply)) => {
                progress.answered();
                let answer = convert::append_result_from_wire(reply).map_err(|error| network_error(error.to_string()));
                Some((answer, Some((answers, progress, link))))
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

pub fn from_wire(request: AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, jangbu_proto::Malformed> {
    Ok(AppendEntriesRequest {
        vote: convert::vote_from_wire(request.vote)?,
        prev_log_id: request.prev_log_id.map(convert::log_id_from_wire),
        entries: request.entries.into_iter().map(decode_entry).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(convert::log_id_from_wire),
    })
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
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

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
