//! What a caller has begun to say and has yet to end.
//!
//! A message is kept until its last byte is there. A caller that begins one on each of its calls and ends none would have so
//! many of the largest kept for ever. So each message announces its length to its connection's budget before more of it is
//! read; while there is no room, its sender's own flow control holds it back. A message that isn't ended in time ends its call.
//!
//!     frame ─► whole messages                ─► handed on, uncounted
//!           └► the beginning of another one ─► waits for room for all of it ─► handed on; the room is free at its end
//!
//! Laws
//! * Whoever holds room has room for the whole message, so nobody waits for somebody who waits.
//! * A connection waits for its own messages only.
//!
//! Not here: how large one message may be (tonic's own bound, set with each service).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::Status;

/// What is begun and not ended on one connection: four of the largest messages, sixteen full batches. They arrive faster than
/// they are dealt with.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Before each message: whether it is compressed, and four bytes of its length.
const HEAD_BYTES: usize = 5;

/// The room of one connection.
#[derive(Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BYTES_MAX)))
    }
}

/// A request's messages, held to their connection's room.
pub struct Begun<B> {
    body: B,
    /// `None`: who calls is trusted to end what it begins.
    room: Option<Arc<Semaphore>>,
    /// How long a message may take from its beginning to its end.
    message_max: Duration,
    head: Head,
    /// Of the message that is under way: what is missing.
    missing: usize,
    under_way: Option<UnderWay>,
    waits: Option<Waiting>,
}

struct UnderWay {
    _room: OwnedSemaphorePermit,
    ends_at: Pin<Box<Sleep>>,
}

/// A frame that is handed on when there is room for the message that it begins.
struct Waiting {
    frame: Bytes,
    room: BoxFuture<'static, OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Head {
    bytes: [u8; HEAD_BYTES],
    count: usize,
}

impl<B> Begun<B> {
    pub(super) fn new(body: B, room: Option<&Room>, message_max: Duration) -> Self {
        let room = room.map(|room| room.0.clone());
        Self { body, room, message_max, head: Head::default(), missing: 0, under_way: None, waits: None }
    }

    /// Walks over a frame. Returns the length of the message that it begins and doesn't end.
    fn walk(&mut self, mut frame: &[u8]) -> Option<usize> {
        let mut begun = None;
        while !frame.is_empty() {
            if self.missing > 0 {
                let here = self.missing.min(frame.len());
                self.missing -= here;
                frame = &frame[here..];
                if self.missing == 0 {
                    self.under_way = None;
                }
                continue;
            }
            let here = (HEAD_BYTES - self.head.count).min(frame.len());
            self.head.bytes[self.head.count..][..here].copy_from_slice(&frame[..here]);
            self.head.count += here;
            frame = &frame[here..];
            if self.head.count == HEAD_BYTES {
                let [_, length @ ..] = std::mem::take(&mut self.head).bytes;
                self.missing = u32::from_be_bytes(length) as usize;
                begun = Some(self.missing);
            }
        }
        begun.filter(|_| self.missing > 0)
    }

    fn begin(&mut self, room: OwnedSemaphorePermit) {
        self.under_way = Some(UnderWay { _room: room, ends_at: Box::pin(sleep(self.message_max)) });
    }

    /// Whether the message that is under way has had its time.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.under_way.as_mut().is_some_and(|under_way| under_way.ends_at.as_mut().poll(cx).is_ready())
    }
}

impl<B> Body for Begun<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(room) = this.room.clone() else { return Pin::new(&mut this.body).poll_frame(cx) };
        if let Some(waiting) = &mut this.waits {
            let permit = ready!(waiting.room.as_mut().poll(cx));
            let frame = this.waits.take().map(|waiting| waiting.frame).unwrap_or_default();
            this.begin(permit);
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        if this.is_late(cx) {
            return Poll::Ready(Some(Err(Status::deadline_exceeded(format!(
                "the rest of a message did not come within {:?}: {} bytes are missing",
                this.message_max, this.missing
            )))));
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return Poll::Ready(Some(Ok(other))),
        };
        if let Some(length) = this.walk(&data) {
            // A message above the bound is refused as soon as its head is seen, or takes all the room.
            let bytes = length.min(BYTES_MAX) as u32;
            match room.clone().try_acquire_many_owned(bytes) {
                Ok(permit) => this.begin(permit),
                Err(_) => {
                    let acquired = async move { room.acquire_many_owned(bytes).await.expect("it is never closed") };
                    this.waits = Some(Waiting { frame: data, room: Box::pin(acquired) });
                    return self.poll_frame(cx);
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.waits.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt as _;

    use super::*;

    /// Frames that are there; then nothing more comes.
    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.pop_front().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
        }
    }

    fn head(length: usize) -> Vec<u8> {
        [&[0][..], &(length as u32).to_be_bytes()].concat()
    }

    fn begun(room: &Room, frames: impl IntoIterator<Item = Vec<u8>>) -> Begun<Frames> {
        Begun::new(Frames(frames.into_iter().map(Bytes::from).collect()), Some(room), Duration::from_secs(30))
    }

    async fn next(begun: &mut Begun<Frames>) -> Option<Result<Bytes, Status>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *begun).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().expect("data")))
    }

    #[tokio::test]
    async fn messages_that_are_whole_take_no_room_wherever_frames_are_cut() {
        let stream = [head(3), vec![7; 3], head(0), head(1), vec![8]].concat();
        for cut in 0..stream.len() {
            let room = Room::default();
            let (first, rest) = stream.split_at(cut);
            let mut begun = begun(&room, [first.to_vec(), rest.to_vec()]);
            let mut through = Vec::new();
            for _ in 0..2 {
                through.extend(next(&mut begun).now_or_never().unwrap().unwrap().unwrap());
            }
            assert_eq!(through, stream, "cut at {cut}");
            assert_eq!(room.0.available_permits(), BYTES_MAX, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_is_begun_has_room_for_all_of_it_or_waits() {
        let room = Room::default();
        let large = BYTES_MAX / 2 + 1;
        let mut one = begun(&room, [head(large), vec![0; large]]);
        let mut other = begun(&room, [head(large)]);
        assert!(next(&mut one).now_or_never().is_some());
        assert!(next(&mut other).now_or_never().is_none(), "there is no room for both");
        assert!(next(&mut one).now_or_never().is_some(), "who has room goes on");
        assert!(next(&mut other).now_or_never().is_some(), "the first is whole, and has made room");
        drop(other);
        assert_eq!(room.0.available_permits(), BYTES_MAX, "who goes leaves nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_not_ended_in_time_ends_its_call() {
        let room = Room::default();
        let mut begun = begun(&room, [head(10)]);
        next(&mut begun).await.unwrap().unwrap();
        let late = tokio::time::timeout(Duration::from_secs(60), next(&mut begun)).await;
        let status = late.expect("it doesn't wait for ever").unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
    }
}
