//! Who may make a call: decided before its service hears of it, and before a byte of its message is read.
//!
//! Laws
//! * A connection whose answers pile up unread is told to read before it asks for more.
//! * A connection keeps a bounded part of messages that it has begun and not ended.
//!
//! Not here: who may make which (`node/src/access.rs`).

use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready as polled},
    time::Duration,
};

use futures_util::future::Either;
use http::{Extensions, HeaderMap, Request, Response};
use tonic::Status;
use tower::{Layer, Service};

use super::{Caller, begun::Begun, unread::Followed};
use crate::reason;

/// When to come back with answers unread.
const UNREAD_RETRY: Duration = Duration::from_millis(500);

/// Stands at a door.
pub trait Guard: Send + Sync + 'static {
    /// Whether `caller` may call `path` (`/package.Service/Method`). What it puts among `found`, the service finds there.
    fn admit(&self, caller: &Caller, path: &str, headers: &HeaderMap, found: &mut Extensions) -> Result<(), Status>;

    /// Whether who is admitted is trusted to end what it begins; all others are held to their connection's room (`begun`).
    fn trusts(&self) -> bool {
        false
    }
}

/// Where nobody stands, everybody may.
pub(super) struct Nobody;

impl Guard for Nobody {
    fn admit(&self, _: &Caller, _: &str, _: &HeaderMap, _: &mut Extensions) -> Result<(), Status> {
        Ok(())
    }
}

/// Puts a guard before the services of a door.
#[derive(Clone)]
pub struct Guarded {
    pub(super) guard: Arc<dyn Guard>,
    /// How long a message may take from its beginning to its end.
    pub(super) message_max: Duration,
}

impl<S> Layer<S> for Guarded {
    type Service = GuardedService<S>;
    fn layer(&self, inner: S) -> GuardedService<S> {
        GuardedService { inner, at: self.clone() }
    }
}

#[derive(Clone)]
pub struct GuardedService<S> {
    inner: S,
    at: Guarded,
}

impl<S, Asked, Body> Service<Request<Asked>> for GuardedService<S>
where
    S: Service<Request<Begun<Asked>>, Response = Response<Body>>,
    Body: Default,
{
    type Response = Response<Followed<Body>>;
    type Error = S::Error;
    type Future = Either<Answering<S::Future>, Ready<Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(polled!(self.inner.poll_ready(cx)))
    }

    fn call(&mut self, mut request: Request<Asked>) -> Self::Future {
        let mut found = Extensions::new();
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        let admitted = match caller.unread().piles_up() {
            false => self.at.guard.admit(&caller, request.uri().path(), request.headers(), &mut found),
            true => {
                Err(reason::overloaded("this connection has too many answers unread; read them first", UNREAD_RETRY))
            }
        };
        match admitted {
            Ok(()) => {
                request.extensions_mut().extend(found);
                let room = (!self.at.guard.trusts()).then(|| caller.room());
                let request = request.map(|asked| Begun::new(asked, room, self.at.message_max));
                Either::Left(Answering { answer: Box::pin(self.inner.call(request)), caller })
            }
            Err(refusal) => {
                let refused = refusal.into_http().map(|body| Followed::new(body, caller.unread().clone()));
                Either::Right(ready(Ok(refused)))
            }
        }
    }
}

/// An answer on its way, to be followed.
pub struct Answering<F> {
    answer: Pin<Box<F>>,
    caller: Caller,
}

impl<F, Body, Error> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = Result<Response<Followed<Body>>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = polled!(self.answer.as_mut().poll(cx))?;
        Poll::Ready(Ok(response.map(|body| Followed::new(body, self.caller.unread().clone()))))
    }
}
