//! The door of a node: what is served to whoever connects, until it is told to stop.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{
    StreamExt, TryFutureExt,
    future::{self, MapOk},
};
use http::{HeaderValue, Response, header::DATE};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, oneshot},
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{
    Server,
    server::{Connected, Router},
};
use tower::{
    Layer, Service,
    layer::util::{Identity, Stack},
};

use super::{
    Arrival, CONNECTION_WINDOW_BYTES, Caller, FRAME_BYTES_MAX, HEADERS_BYTES_MAX, Http2Settings, Io, Listener,
    STREAM_WINDOW_BYTES,
    guard::{Guard, Guarded, Nobody},
    places::{Place, Places},
    restraint::Restraint,
};

/// Add services to it; then [`serve`].
pub type DoorBuilder = Server<Layers>;

/// A door with its services.
pub type Door = Router<Layers>;

/// What a call passes before its service, the last of them first.
type Layers = Stack<Guarded, Stack<FixedDate, Identity>>;

/// How many streams a caller may open and reset at once before its connection is cut (the "rapid reset" flood).
const RESETS_MAX: usize = 256;

/// What each HTTP/2 connection begins with. Whoever takes longer over it than [`PREFACE_TIMEOUT`] isn't going to speak.
const PREFACE_BYTES: usize = 24;

/// How many times within the limit a connection is looked at: it is cut at most a quarter later than it could be.
const LOOKS: u32 = 4;

/// Longer than any connection that is of use takes to be made; short enough that silent ones can't fill the door.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A door without services yet, for whoever comes.
pub fn door(settings: &Http2Settings) -> DoorBuilder {
    guarded_door(settings, Arc::new(Nobody))
}

/// A door without services yet, for those whom its guard admits.
pub fn guarded_door(settings: &Http2Settings, guard: Arc<dyn Guard>) -> DoorBuilder {
    Server::builder()
        .http2_keepalive_interval(Some(settings.keepalive_interval))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(settings.streams_max)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .layer(FixedDate(settings.fixed_date))
        .layer(Guarded { guard, message_max: settings.unread_max })
}

/// Serves whoever connects, until `stop`. Then nobody new is let in, calls in flight have `grace` to end, and what is left
/// is cut off. Dropping the future cuts everything off at once. `hung_up` is told whenever a connection has ended.
pub async fn serve(
    door: Door,
    listener: Listener,
    settings: &Http2Settings,
    hung_up: Arc<Notify>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), tonic::transport::Error> {
    let cut = CancellationToken::new();
    let _cut_at_the_latest = cut.clone().drop_guard();
    let connections = connections(listener, settings, cut.clone(), hung_up);

    let (stopped, stopping) = oneshot::channel();
    let signal = async {
        stop.await;
        let _ = stopped.send(());
    };
    let last_call = async {
        match stopping.await {
            Ok(()) => sleep(grace).await,
            Err(_) => future::pending().await,
        }
    };

    let mut serving = pin!(door.serve_with_incoming_shutdown(connections, signal));
    tokio::select! {
        biased;
        served = &mut serving => return served,
        () = last_call => cut.cancel(),
    }
    serving.await
}

fn connections(
    listener: Listener,
    settings: &Http2Settings,
    cut: CancellationToken,
    hung_up: Arc<Notify>,
) -> impl futures_util::Stream<Item = Result<Connection, Infallible>> {
    let places = Places::new(settings.connections_max, settings.connections_per_address_max);
    let unread_max = settings.unread_max;
    let restraint = Restraint::default();
    listener.incoming.filter_map(move |arrival| {
        let from = arrival.caller.address();
        let place = places.take(from).inspect_err(|full| {
            if let Some(unsaid) = restraint.say() {
                tracing::warn!(?from, ?full, unsaid, "a connection is turned away: there are too many");
            }
        });
        let connection =
            place.ok().map(|place| Ok(Connection::new(arrival, place, cut.clone(), hung_up.clone(), unread_max)));
        future::ready(connection)
    })
}

/// A connection that can be cut from outside, must begin in time, and counts against the door's bound.
struct Connection {
    io: Io,
    caller: Caller,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until the caller has spoken: how long it may yet take.
    silence: Option<Pin<Box<Sleep>>>,
    heard_bytes: usize,
    hung_up: Arc<Notify>,
    /// When to look next whether the caller takes its answers.
    look_at: Pin<Box<Sleep>>,
    unread_max: Duration,
    _place: Place,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hung_up.notify_one();
    }
}

impl Connection {
    fn new(arrival: Arrival, place: Place, cut: CancellationToken, hung_up: Arc<Notify>, unread_max: Duration) -> Self {
        let silence = Some(Box::pin(sleep(PREFACE_TIMEOUT)));
        let Arrival { io, caller } = arrival;
        Self {
            io,
            caller,
            cut: Box::pin(cut.cancelled_owned()),
            silence,
            heard_bytes: 0,
            hung_up,
            look_at: Box::pin(sleep(unread_max / LOOKS)),
            unread_max,
            _place: place,
        }
    }

    /// Whether the caller leaves an answer unread for too long.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.look_at.as_mut().poll(cx).is_ready() {
            if let Some(waited) = self.caller.unread().oldest()
                && waited >= self.unread_max
            {
                let bytes = self.caller.unread().bytes();
                tracing::warn!(from = ?self.caller.address(), ?waited, bytes, "a connection is cut: answers are left unread");
                return Err(io::ErrorKind::TimedOut.into());
            }
            let next = tokio::time::Instant::now() + self.unread_max / LOOKS;
            self.look_at.as_mut().reset(next);
        }
        Ok(())
    }

    /// Whether the caller may go on before it has spoken. HTTP/2 writes before it reads, and behind an encryption whose
    /// handshake doesn't end no write ever does: so every way in and out asks.
    fn check_silent(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(silence) = &mut self.silence else { return Ok(()) };
        if self.cut.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match silence.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Reads before the caller has spoken.
    fn poll_read_preface(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_silent(cx)?;
        let filled_before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.heard_bytes += buf.filled().len() - filled_before;
        if self.heard_bytes >= PREFACE_BYTES {
            self.silence = None;
        }
        Poll::Ready(read)
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    /// HTTP/2 always has a read under way, so this is where a connection learns that it is cut.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.poll_unread(cx)?;
        if self.silence.is_some() {
            return self.poll_read_preface(cx, buf);
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_silent(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_silent(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_silent(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Puts a constant `date` into every answer, if so told: hyper keeps one that is there, and would otherwise read the clock.
#[derive(Debug, Clone, Copy)]
pub struct FixedDate(bool);

impl<S> Layer<S> for FixedDate {
    type Service = Dated<S>;
    fn layer(&self, inner: S) -> Dated<S> {
        Dated { inner, fixed: self.0 }
    }
}

#[derive(Debug, Clone)]
pub struct Dated<S> {
    inner: S,
    fixed: bool,
}

impl<S, Request, Body> Service<Request> for Dated<S>
where
    S: Service<Request, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(ready!(self.inner.poll_ready(cx)))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.inner.call(request).map_ok(if self.fixed { with_fixed_date } else { as_it_is })
    }
}

fn with_fixed_date<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
    response
}

fn as_it_is<B>(response: Response<B>) -> Response<B> {
    response
}
