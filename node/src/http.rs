//! The HTTP door: metrics for Prometheus, and health for whoever starts, stops and balances.
//!
//!     /metrics            Prometheus text
//!     /livez              200 while the process runs and takes its turns; asks nobody else
//!     /startupz           200 once the state is open and the log behind it applied; until then nobody answers
//!     /readyz[?verbose]   200 if a linearizable read, done for the asking, came through within a second; otherwise 503 and why
//!                         not. Verbose: each check on its line, with its time in milliseconds
//!
//! Laws
//! * Liveness and start-up never depend on other nodes: who restarts a node because a quorum is gone makes it worse.

use std::{future::pending, io, sync::Arc};

use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use futures_util::StreamExt;
use jangbu_proto::transport::{Io, Listener};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    health::{Check, Health},
    metrics::Metrics,
};

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Seen {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

#[derive(Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

/// Serves until `stop`.
pub async fn serve(listener: Listener, health: Arc<Health>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/startupz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Seen { health, metrics });
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        ended = axum::serve(Door(listener), router) => {
            ended.unwrap_or_else(|error| tracing::error!(%error, "the HTTP door is closed"));
        }
    }
}

/// Our listener, as axum wants it.
struct Door(Listener);

impl axum::serve::Listener for Door {
    type Io = Io;
    type Addr = String;

    async fn accept(&mut self) -> (Io, String) {
        match self.0.incoming.next().await {
            Some(arrival) => (arrival.io, String::new()),
            // The address is lost; nobody will call any more.
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.0.address.clone())
    }
}

async fn show_metrics(State(seen): State<Seen>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], seen.metrics.encode(seen.health.snapshot()))
}

async fn ready(State(seen): State<Seen>, Query(query): Query<Verbose>) -> (StatusCode, String) {
    let checks = seen.health.check().await;
    let because = checks.iter().find_map(|check| check.outcome.as_ref().err());
    let status = if because.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = because.map_or("ok\n".to_owned(), |because| format!("not ready: {because}\n"));
    if query.verbose.is_some() {
        text.extend(checks.iter().map(line));
        let now = seen.health.snapshot();
        text += &format!("role: {}\n", seen.health.role());
        text += &format!("term: {}\napplied: {}\nlast log: {}\n", now.term, now.applied_index, now.last_log_index);
        text += &now.staleness.map_or("staleness: unknown\n".into(), |staleness| format!("staleness: {staleness:?}\n"));
    }
    (status, text)
}

/// `[+] leader 0.004 ms` or `[-] leader 0.004 ms: no leader is known`.
fn line(check: &Check) -> String {
    let (sign, because) = match &check.outcome {
        Ok(()) => ('+', String::new()),
        Err(because) => ('-', format!(": {because}")),
    };
    format!("[{sign}] {} {:.3} ms{because}\n", check.name, check.took.as_secs_f64() * 1_000.0)
}
