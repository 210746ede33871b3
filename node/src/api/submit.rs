//! The packed stream: several requests in flight, each answered by its tag, in whatever order they are done.
//!
//! Laws
//! * A window bounds what is in flight; while it is full, nothing more is read, so the sender's own flow control holds it.
//! * A refused request leaves the stream open. A message that can't even be read ends it, and says why, after all that came
//!   before has been answered.
//!
//! Not here: batching (`batcher.rs`), what a failure looks like on a stream (`proto::reason::failure`).

use std::time::Duration;

use futures_util::{StreamExt, stream, stream::BoxStream};
use jangbu_proto::{
    convert,
    jangbu::v1::{self, submit_reply::Outcome},
    reason,
};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, Streaming};

use super::{ledger::LedgerService, status::to_status};
use crate::{access::Access, traces::Parent};

type Reply = Result<v1::SubmitReply, Status>;

pub fn serve(
    service: LedgerService,
    access: Access,
    parent: Parent,
    requests: Streaming<v1::SubmitRequest>,
) -> BoxStream<'static, Reply> {
    let window = service.limits.stream_window_max;
    // One place per request in flight: an answer never waits for room.
    let (replies, outgoing) = mpsc::channel(window);
    let tasks = service.tasks.clone();
    tasks.spawn(run(service, access, parent, requests, replies, window));
    Box::pin(stream::unfold(outgoing, |mut outgoing| async { Some((outgoing.recv().await?, outgoing)) }))
}

async fn run(
    service: LedgerService,
    access: Access,
    parent: Parent,
    requests: Streaming<v1::SubmitRequest>,
    replies: mpsc::Sender<Reply>,
    window: usize,
) {
    let closing = service.closing.clone();
    let gone = replies.clone();
    let mut unreadable = None;
    let requests = requests
        .scan((), |(), request| {
            std::future::ready(match request {
                Ok(request) => Some(request),
                Err(status) => {
                    unreadable = Some(status);
                    None
                }
            })
        })
        .take_until(async move {
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                () = gone.closed() => {}
            }
        });
    requests
        .for_each_concurrent(window, |request| async {
            let reply = answer(&service, &access, &parent, request).await;
            // Whoever hung up will ask again with the same ids.
            let _ = replies.send(Ok(reply)).await;
        })
        .await;
    if let Some(status) = unreadable {
        let _ = replies.send(Err(status)).await;
    }
}

/// Each request is a call of its own in the trace that the stream belongs to.
async fn answer(
    service: &LedgerService,
    access: &Access,
    parent: &Parent,
    request: v1::SubmitRequest,
) -> v1::SubmitReply {
    let call = service.metrics.call("submit").traced(service.traces.call("submit", parent));
    let tag = request.tag;
    let deadline = Instant::now() + limit(service, request.deadline_ms);
    let written = match (access.admit_one_more(), convert::submitted(request)) {
        (Err(refused), _) => Err(to_status(refused)),
        (_, Err(malformed)) => Err(reason::malformed(&malformed)),
        (Ok(()), Ok((operation, records))) => {
            service.write(access, operation, Ok(records), deadline, call.trail()).await
        }
    };
    let outcome = match call.end(written) {
        Ok((at, reply)) => Outcome::Applied(convert::applied(at, &reply)),
        Err(status) => Outcome::Failure(reason::failure(&status)),
    };
    v1::SubmitReply { tag, outcome: Some(outcome) }
}

fn limit(service: &LedgerService, deadline_ms: u32) -> Duration {
    match deadline_ms {
        0 => service.limits.deadline_default(),
        ms => Duration::from_millis(ms.into()).min(service.limits.deadline_max()),
    }
}
