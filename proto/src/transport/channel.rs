//! The way to a node: connects when it is first used, and again when it has to.
//!
//! tonic connects anew for each call that finds the connection gone, and a refused connection is refused within
//! microseconds: a caller that retries would burn a core and all ephemeral ports. So attempts are paced here, once for
//! all callers. The first attempt after a quiet time is made at once; each further one in quick succession waits longer.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{
    Status,
    body::Body,
    transport::{self, Endpoint},
};
use tower::Service;

use super::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, HEADERS_BYTES_MAX, Http2Settings, Io, STREAM_WINDOW_BYTES, Transport,
    refusal::Refusal,
};
use crate::{
    Malformed, Secret,
    token::{self, BearerToken},
};

/// After so long without an attempt the next is the first again. Longer than the longest pause, else nothing would double.
const QUIET: Duration = Duration::from_secs(1);

/// A way to one node, for the generated clients. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Channel {
    to: transport::Channel,
    /// What each call shows of its caller, beside the connection's certificate.
    shown: Option<HeaderValue>,
    refusal: Refusal,
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.to.poll_ready(cx).map_err(|error| self.refusal.told(error))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(shown) = &self.shown {
            request.headers_mut().insert(AUTHORIZATION, shown.clone());
        }
        Answer { to: self.to.call(request), refusal: self.refusal.clone() }
    }
}

/// An answer on its way.
pub struct Answer {
    to: transport::channel::ResponseFuture,
    refusal: Refusal,
}

impl Future for Answer {
    type Output = Result<Response<Body>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.to).poll(cx).map_err(|error| self.refusal.told(error))
    }
}

/// A channel to `address` (host:port) that connects lazily. Refused if that is no address.
pub fn channel(transport: Arc<dyn Transport>, address: &str, settings: &Http2Settings) -> Result<Channel, Malformed> {
    let pacer = Pacer::new(settings);
    let connect_timeout = settings.connect_timeout;
    let host = address.to_owned();
    let shown = transport.token().map(header).transpose()?;
    let refusal = Refusal::default();
    let noted = refusal.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (transport, pacer, to, refusal) = (transport.clone(), pacer.clone(), host.clone(), noted.clone());
        async move {
            let connected = pacer.paced(connect(&*transport, to, connect_timeout)).await;
            refusal.forget();
            refusal.watch(connected).map(TokioIo::new)
        }
    });
    let to = endpoint(address, settings)?.connect_with_connector_lazy(connector);
    Ok(Channel { to, shown, refusal })
}

/// Marked, so that nobody who prints headers prints it.
fn header(token: &Secret) -> Result<HeaderValue, Malformed> {
    let token = BearerToken::parse(token.reveal())?;
    let mut value = HeaderValue::try_from(format!("{}{}", token::SCHEME, token.to_secret().reveal()))
        .expect("a token is of letters that a header takes");
    value.set_sensitive(true);
    Ok(value)
}

fn endpoint(address: &str, settings: &Http2Settings) -> Result<Endpoint, Malformed> {
    let no_address = || Malformed::new("address", format!("`{address}` is not host:port"));
    let uri: http::Uri = format!("http://{address}").parse().map_err(|_| no_address())?;
    let is_host_and_port = uri.authority().is_some_and(|authority| {
        authority.as_str() == address && authority.port_u16().is_some() && !authority.host().is_empty()
    });
    if !is_host_and_port || address.contains('@') {
        return Err(no_address());
    }
    let mut endpoint = Endpoint::from(uri)
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX);
    if let Some(duration) = settings.reset_stream_duration {
        // The memory is bounded by number instead.
        endpoint = endpoint.http2_reset_stream_duration(duration).http2_max_concurrent_reset_streams(1 << 20);
    }
    Ok(endpoint)
}

async fn connect(transport: &dyn Transport, to: String, limit: Duration) -> io::Result<Io> {
    timeout(limit, transport.connect(to))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")))
}

/// Keeps attempts apart.
#[derive(Clone)]
struct Pacer {
    min: Duration,
    max: Duration,
    // tonic makes one attempt at a time for a channel, so this is never held across another's wait.
    state: Arc<Mutex<Pace>>,
}

#[derive(Clone, Copy)]
struct Pace {
    /// `None`: nothing was tried yet.
    next_at: Option<Instant>,
    pause: Duration,
}

impl Pacer {
    fn new(settings: &Http2Settings) -> Self {
        let (min, max) = (settings.connect_backoff_min, settings.connect_backoff_max);
        Self { min, max, state: Arc::new(Mutex::new(Pace { next_at: None, pause: min })) }
    }

    async fn paced<T>(&self, attempt: impl Future<Output = T>) -> T {
        let Pace { next_at, pause } = self.read();
        let pause = match next_at {
            Some(at) if Instant::now() < at + QUIET => {
                sleep_until(at).await;
                (pause * 2).min(self.max)
            }
            _ => self.min,
        };
        let outcome = attempt.await;
        // Also after a success: a node that takes connections and drops them is no better than one that refuses.
        self.write(Pace { next_at: Some(Instant::now() + pause), pause });
        outcome
    }

    fn read(&self) -> Pace {
        *self.state.lock().expect("nothing here panics while it holds the lock")
    }

    fn write(&self, pace: Pace) {
        *self.state.lock().expect("nothing here panics while it holds the lock") = pace;
    }
}
