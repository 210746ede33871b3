//! What single calls went through, span by span, for whoever runs an OpenTelemetry collector.
//!
//!     caller's traceparent ─► create_transfers ─┬─► gather            waits for company
//!                                               ├─► commit ─► apply   log and quorum, then the books: the leader is here
//!                                               └or forward ─┬─► gather            at the leader, in the same trace
//!                                                            └─► commit ─► apply
//!
//! Laws
//! * Off, it costs a call one look at an empty option. On, there is a span for a call and for its part of an entry, never for a
//!   transfer.
//! * Nobody waits for a collector: ended spans go to a bounded queue, which a thread of its own empties; what finds no room is lost.
//! * A span tells methods, sizes, log indexes and codes; no account, no amount, no id of a transfer and no caller.
//! * Where commit ends and apply begins and ends is noted where it happens, and not when whoever waits for it has its turn.
//! * Nothing is decided by it, and in a simulation there is none.
//!
//! Not here: what is measured of all calls (`metrics.rs`).

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status as SpanStatus, TraceContextExt, TraceFlags, Tracer,
        TracerProvider,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span},
};
use tonic::{Code, Status, metadata::MetadataMap};

use crate::config::Tracing;

/// Of one entry, so many calls are traced on at the leader.
pub const HANDED_ON_MAX: usize = 64;

/// The header of the W3C's trace context.
const TRACEPARENT: &str = "traceparent";

/// How long a collector may take for what it is sent. Only the thread that sends waits.
const EXPORT_MAX: Duration = Duration::from_secs(5);

/// How long the last spans may hold up the end of the process.
const LAST_SPANS_MAX: Duration = Duration::from_secs(1);

/// Where spans are made. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<SdkTracer>>);

/// What a call says of the trace that it belongs to.
#[derive(Debug, Clone, Default)]
pub struct Parent(Option<SpanContext>);

impl Traces {
    /// What the caller says; nothing is looked at where nothing is traced.
    pub fn parent(&self, headers: &MetadataMap) -> Parent {
        let header = || headers.get(TRACEPARENT)?.to_str().ok();
        Parent(self.0.as_ref().and_then(|_| read(header()?)))
    }

    /// A call that has come in; `None`: it isn't traced. The caller's decision holds, if it has made one.
    pub fn call(&self, method: &'static str, parent: &Parent) -> Option<Box<CallSpan>> {
        let tracer = self.0.as_ref()?;
        let attributes = [KeyValue::new("rpc.system", "grpc"), KeyValue::new("rpc.service", "jangbu.v1.Ledger")];
        let builder = SpanBuilder::from_name(method).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = start(tracer, builder, parent.0.clone())?;
        Some(Box::new(CallSpan { traces: self.clone(), span }))
    }

    /// Calls that another node hands on, by what it says of each.
    pub fn handed_on(&self, traceparents: &[String]) -> Trail {
        let mut trail = Trail { traces: self.clone(), legs: Vec::new() };
        if self.0.is_some() {
            let calls = traceparents.iter().take(HANDED_ON_MAX).filter_map(|header| read(header));
            calls.for_each(|call| trail.begin(call));
        }
        trail
    }
}

/// `None`: it isn't sampled.
fn start(tracer: &SdkTracer, builder: SpanBuilder, parent: Option<SpanContext>) -> Option<Span> {
    let context = match parent {
        Some(parent) => Context::new().with_remote_span_context(parent),
        None => Context::new(),
    };
    let span = tracer.build_with_context(builder, &context);
    span.is_recording().then_some(span)
}

/// A call, from its coming in to its answer.
pub struct CallSpan {
    traces: Traces,
    span: Span,
}

impl CallSpan {
    /// The way of its requests into the log.
    pub fn trail(&self) -> Trail {
        let mut trail = Trail { traces: self.traces.clone(), legs: Vec::new() };
        trail.begin(self.span.span_context().clone());
        trail
    }

    pub fn end<T>(mut self, answer: &Result<T, Status>) {
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code as i32)));
        if let Err(status) = answer {
            self.span.set_status(SpanStatus::error(status.code().description()));
        }
    }
}

/// A part of the way into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    Gather,
    /// From the proposal until a quorum has it durable, and the leader knows.
    Commit,
    /// Until the leader's state machine has answered.
    Apply,
    Forward,
}

impl Stretch {
    fn name(self) -> &'static str {
        match self {
            Stretch::Gather => "gather",
            Stretch::Commit => "commit",
            Stretch::Apply => "apply",
            Stretch::Forward => "forward",
        }
    }

    fn kind(self) -> SpanKind {
        match self {
            Stretch::Gather | Stretch::Commit | Stretch::Apply => SpanKind::Internal,
            Stretch::Forward => SpanKind::Client,
        }
    }
}

/// When a proposed entry was committed, and when its leader's state machine answered.
#[derive(Debug, Default)]
pub struct Milestones {
    committed: OnceLock<SystemTime>,
    answered: OnceLock<SystemTime>,
}

impl Milestones {
    /// Nanoseconds since the Unix epoch, as of all times here.
    pub fn is_committed(&self, at: u64) {
        let _ = self.committed.set(SystemTime::UNIX_EPOCH + Duration::from_nanos(at));
    }

    pub fn is_answered(&self, at: u64) {
        let _ = self.answered.set(SystemTime::UNIX_EPOCH + Duration::from_nanos(at));
    }
}

/// The traced calls behind one piece of work, most often none. The stretch that it is on ends when it is dropped.
#[derive(Default)]
pub struct Trail {
    traces: Traces,
    legs: Vec<Leg>,
}

struct Leg {
    call: SpanContext,
    on: Span,
}

impl Trail {
    fn begin(&mut self, call: SpanContext) {
        self.legs.extend(self.traces.leg(call, Stretch::Gather, None));
    }

    /// The stretch before has ended.
    pub fn enters(&mut self, stretch: Stretch) {
        for leg in &mut self.legs {
            if let Some(next) = self.traces.leg(leg.call.clone(), stretch, None) {
                *leg = next;
            }
        }
    }

    /// From commit through apply, as far as the entry has come, with the times at which it did.
    pub fn passes(&mut self, milestones: &Milestones) {
        let Some(&committed) = milestones.committed.get() else { return };
        for leg in &mut self.legs {
            leg.on.end_with_timestamp(committed);
            if let Some(next) = self.traces.leg(leg.call.clone(), Stretch::Apply, Some(committed)) {
                *leg = next;
            }
            if let Some(&answered) = milestones.answered.get() {
                leg.on.end_with_timestamp(answered);
            }
        }
    }

    /// Of the stretch that it is on.
    pub fn tells(&mut self, key: &'static str, value: impl Into<Value> + Clone) {
        self.legs.iter_mut().for_each(|leg| leg.on.set_attribute(KeyValue::new(key, value.clone())));
    }

    /// The stretch that it is on comes to nothing.
    pub fn fails(&mut self, why: &str) {
        self.legs.iter_mut().for_each(|leg| leg.on.set_status(SpanStatus::error(why.to_owned())));
    }

    /// What the leader must be told, so that it goes on in the same traces.
    pub fn traceparents(&self) -> impl Iterator<Item = String> {
        self.legs.iter().map(|leg| written(leg.on.span_context()))
    }
}

impl Traces {
    /// `began`: now, unless it says when.
    fn leg(&self, call: SpanContext, stretch: Stretch, began: Option<SystemTime>) -> Option<Leg> {
        let mut builder = SpanBuilder::from_name(stretch.name()).with_kind(stretch.kind());
        builder.start_time = began;
        let on = start(self.0.as_ref()?, builder, Some(call.clone()))?;
        Some(Leg { call, on })
    }
}

struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// `None`: it says nothing that makes sense.
fn read(traceparent: &str) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(traceparent));
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

fn written(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags() & TraceFlags::SAMPLED)
}

/// Sends spans to a collector for as long as it lives.
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// `None`: nothing is traced. Needs a tokio runtime, and connects to nobody yet.
    pub fn start(config: &Tracing, node_id: u64) -> Result<Option<Self>, String> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let sender = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_MAX);
        let sender = sender.build().map_err(|error| format!("tracing.endpoint = \"{endpoint}\": {error}"))?;
        let queue = BatchConfigBuilder::default().with_max_queue_size(config.queue_max).build();
        let share = f64::from(config.calls_per_million) / 1e6;
        let who = [
            KeyValue::new("service.instance.id", node_id.to_string()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(sender).with_batch_config(queue).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(Resource::builder_empty().with_service_name("jangbud").with_attributes(who).build());
        Ok(Some(Self(provider.build())))
    }

    pub fn traces(&self) -> Traces {
        Traces(Some(Arc::new(self.0.tracer("jangbu"))))
    }

    /// Sends what is left. Blocks, and no longer than a moment.
    pub fn stop(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS_MAX) {
            tracing::info!(%error, "the last spans were not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_makes_no_sense_is_nothing() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(written(&read(header).unwrap()), header);
        let zeros = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        for senseless in ["", "00", "00-xyz-b7ad6b7169203331-01", &zeros, &header.to_uppercase(), &"0".repeat(10_000)] {
            assert!(read(senseless).is_none(), "{senseless}");
        }
    }

    #[test]
    fn off_nothing_is_made_of_a_callers_trace() {
        let traces = Traces::default();
        let mut headers = MetadataMap::new();
        headers.insert(TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        assert!(traces.call("create_transfers", &traces.parent(&headers)).is_none());
        let mut trail = traces.handed_on(&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()]);
        trail.enters(Stretch::Commit);
        assert_eq!(trail.traceparents().count(), 0);
    }
}
