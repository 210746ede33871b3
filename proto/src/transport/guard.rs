//! Who may make a call: decided before its service hears of it, and before a byte of its message is read.
//!
//! Not here: who may make which (`node/src/access.rs`).

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll, ready as polled},
};

use futures_util::future::Either;
use http::{Extensions, HeaderMap, Request, Response};
use tonic::Status;
use tower::{Layer, Service};

use super::Caller;

/// Stands at a door.
pub trait Guard: Send + Sync + 'static {
    /// Whether `caller` may call `path` (`/package.Service/Method`). What it puts among `found`, the service finds there.
    fn admit(&self, caller: &Caller, path: &str, headers: &HeaderMap, found: &mut Extensions) -> Result<(), Status>;
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
pub struct Guarded(pub(super) Arc<dyn Guard>);

impl<S> Layer<S> for Guarded {
    type Service = GuardedService<S>;
    fn layer(&self, inner: S) -> GuardedService<S> {
        GuardedService { inner, guard: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct GuardedService<S> {
    inner: S,
    guard: Arc<dyn Guard>,
}

impl<S, Asked, Body> Service<Request<Asked>> for GuardedService<S>
where
    S: Service<Request<Asked>, Response = Response<Body>>,
    Body: Default,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(polled!(self.inner.poll_ready(cx)))
    }

    fn call(&mut self, mut request: Request<Asked>) -> Self::Future {
        let mut found = Extensions::new();
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        match self.guard.admit(&caller, request.uri().path(), request.headers(), &mut found) {
            Ok(()) => {
                request.extensions_mut().extend(found);
                Either::Left(self.inner.call(request))
            }
            Err(refusal) => Either::Right(ready(Ok(refusal.into_http()))),
        }
    }
}
