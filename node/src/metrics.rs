//! Every metric: its name, its unit, its meaning.
//!
//! Names follow Prometheus: base units, `_total` for what only grows. Labels have few values: never an account or an id.
//! What others know already (Raft's indexes, the store's sizes) is read when somebody asks, not kept twice.
//!
//! Laws
//! * One registry per node: several nodes in one process (a simulation) never share a number.
//!
//! Not here: the door they leave by (`http.rs`), alerts (`ops/deploy`).

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tokio::time::Instant;
use tonic::Status;

type FloatGauge = Gauge<f64, AtomicU64>;

pub struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    call_duration: Family<MethodLabels, Histogram, fn() -> Histogram>,
    shed: Family<ClassLabels, Counter>,
    queue_requests: Gauge,
    queue_bytes: Gauge,
    /// From a request's arrival to the cut of its entry.
    pub queue_wait: Histogram,
    entries: Counter,
    entry_events: Histogram,
    entry_requests: Histogram,
    clock_offset: Family<PeerLabels, FloatGauge>,
    /// Comparisons of digests with the other replicas that found a difference. Must be 0.
    pub digest_mismatches: Counter,
    /// 1 while a majority has another time than this node. Must be 0.
    pub clock_wrong: Gauge,
    /// Snapshots that other nodes sent and that couldn't be opened here. Must be 0.
    pub snapshots_refused: Counter,
    /// Pulses proposed, each of which expires what is due.
    pub pulses: Counter,
    raft: RaftGauges,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: u64,
}

/// Read from others each time somebody asks.
#[derive(Default)]
struct RaftGauges {
    is_leader: Gauge,
    has_leader: Gauge,
    term: Gauge,
    last_log_index: Gauge,
    committed_index: Gauge,
    applied_index: Gauge,
    snapshot_index: Gauge,
    purged_index: Gauge,
    voters: Gauge,
    staleness: FloatGauge,
    accounts: Gauge,
    events: Gauge,
    pendings_open: Gauge,
    log_bytes: Gauge,
    replication_lag: Family<PeerLabels, Gauge>,
}

/// What [`RaftGauges`] shows.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub is_leader: bool,
    pub has_leader: bool,
    pub term: u64,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub voters: u64,
    pub staleness: Option<Duration>,
    pub accounts: u64,
    pub events: u64,
    pub pendings_open: u64,
    pub log_bytes: u64,
    /// Of the leader: entries each other node has yet to receive.
    pub lags: Vec<(u64, u64)>,
}

impl Metrics {
    pub fn new(node_id: u64) -> Arc<Self> {
        let labels = [("node".into(), node_id.to_string().into())].into_iter();
        let mut registry = Registry::with_prefix_and_labels("jangbu", labels);
        let metrics = Self {
            calls: Family::default(),
            call_duration: Family::new_with_constructor(latencies),
            shed: Family::default(),
            queue_requests: Gauge::default(),
            queue_bytes: Gauge::default(),
            queue_wait: latencies(),
            entries: Counter::default(),
            entry_events: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            entry_requests: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            clock_offset: Family::default(),
            digest_mismatches: Counter::default(),
            clock_wrong: Gauge::default(),
            snapshots_refused: Counter::default(),
            pulses: Counter::default(),
            raft: RaftGauges::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry);
        Arc::new(Self { registry, ..metrics })
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("calls", "Calls answered, by method and code", self.calls.clone());
        registry.register_with_unit(
            "call_duration",
            "Time to answer a call",
            Unit::Seconds,
            self.call_duration.clone(),
        );
        registry.register("shed", "Requests turned away before any work, by class", self.shed.clone());
        registry.register("queue_requests", "Write requests waiting or in flight", self.queue_requests.clone());
        registry.register_with_unit("queue", "Their records", Unit::Bytes, self.queue_bytes.clone());
        registry.register_with_unit(
            "queue_wait",
            "Time from a write's arrival to its entry",
            Unit::Seconds,
            self.queue_wait.clone(),
        );
        registry.register("entries", "Entries sent off, here or to the leader", self.entries.clone());
        registry.register("entry_events", "Events in an entry", self.entry_events.clone());
        registry.register("entry_requests", "Requests in an entry", self.entry_requests.clone());
        registry.register_with_unit(
            "clock_offset",
            "A peer's wall clock less this node's, transit included",
            Unit::Seconds,
            self.clock_offset.clone(),
        );
        registry.register("digest_mismatches", "Replicas found to differ; must be 0", self.digest_mismatches.clone());
        registry.register(
            "clock_wrong",
            "1 while a majority has another time than this node; must be 0",
            self.clock_wrong.clone(),
        );
        registry.register(
            "snapshots_refused",
            "Snapshots from other nodes that can't be opened; must be 0",
            self.snapshots_refused.clone(),
        );
        registry.register("pulses", "Pulses proposed to expire what is due", self.pulses.clone());
        self.raft.register(registry);
    }

    /// The text that Prometheus reads.
    pub fn encode(&self, now: Snapshot) -> String {
        self.raft.set(now);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes all");
        text
    }

    /// Begins to measure a call; [`Call::end`] counts it.
    pub fn call(self: &Arc<Self>, method: &'static str) -> Call {
        Call { metrics: self.clone(), method, began: Instant::now() }
    }

    pub fn shed(&self, class: &'static str) {
        self.shed.get_or_create(&ClassLabels { class }).inc();
    }

    pub fn queue(&self, requests: usize, bytes: usize) {
        self.queue_requests.set(requests as i64);
        self.queue_bytes.set(bytes as i64);
    }

    pub fn entry(&self, events: usize, requests: usize) {
        self.entries.inc();
        self.entry_events.observe(events as f64);
        self.entry_requests.observe(requests as f64);
    }

    pub fn clock_offset(&self, peer: u64, seconds: f64) {
        self.clock_offset.get_or_create(&PeerLabels { peer }).set(seconds);
    }
}

impl RaftGauges {
    fn register(&self, registry: &mut Registry) {
        registry.register("raft_is_leader", "1 if this node leads", self.is_leader.clone());
        registry.register("raft_has_leader", "1 if this node knows a leader", self.has_leader.clone());
        registry.register("raft_term", "The current term", self.term.clone());
        registry.register("raft_last_log_index", "The last entry in this log", self.last_log_index.clone());
        registry.register("raft_committed_index", "The last entry known to be committed", self.committed_index.clone());
        registry.register("raft_applied_index", "The last entry applied here", self.applied_index.clone());
        registry.register("raft_snapshot_index", "The last entry in the newest snapshot", self.snapshot_index.clone());
        registry.register("raft_purged_index", "The last entry purged from this log", self.purged_index.clone());
        registry.register("raft_voters", "Voters in the membership", self.voters.clone());
        registry.register_with_unit(
            "staleness",
            "Upper bound of how long ago the state here was the newest; -1: not known since the start",
            Unit::Seconds,
            self.staleness.clone(),
        );
        registry.register("accounts", "Accounts in the books", self.accounts.clone());
        registry.register("events", "Change events in the books", self.events.clone());
        registry.register(
            "pendings_open",
            "Pending transfers neither posted, voided nor expired",
            self.pendings_open.clone(),
        );
        registry.register_with_unit("log_unpurged", "The log on disk", Unit::Bytes, self.log_bytes.clone());
        registry.register(
            "raft_replication_lag_entries",
            "Entries a peer has yet to receive; known to the leader",
            self.replication_lag.clone(),
        );
    }

    fn set(&self, now: Snapshot) {
        self.is_leader.set(now.is_leader.into());
        self.has_leader.set(now.has_leader.into());
        self.term.set(now.term as i64);
        self.last_log_index.set(now.last_log_index as i64);
        self.committed_index.set(now.committed_index as i64);
        self.applied_index.set(now.applied_index as i64);
        self.snapshot_index.set(now.snapshot_index as i64);
        self.purged_index.set(now.purged_index as i64);
        self.voters.set(now.voters as i64);
        self.staleness.set(now.staleness.map_or(-1.0, |staleness| staleness.as_secs_f64()));
        self.accounts.set(now.accounts as i64);
        self.events.set(now.events as i64);
        self.pendings_open.set(now.pendings_open as i64);
        self.log_bytes.set(now.log_bytes as i64);
        self.replication_lag.clear();
        for (peer, lag) in now.lags {
            self.replication_lag.get_or_create(&PeerLabels { peer }).set(lag as i64);
        }
    }
}

/// One call being answered.
pub struct Call {
    metrics: Arc<Metrics>,
    method: &'static str,
    began: Instant,
}

impl Call {
    pub fn end<T>(self, answer: Result<T, Status>) -> Result<T, Status> {
        let code = answer.as_ref().map_or_else(|status| status.code(), |_| tonic::Code::Ok);
        let labels = CallLabels { method: self.method, code: format!("{code:?}") };
        self.metrics.calls.get_or_create(&labels).inc();
        let duration = self.metrics.call_duration.get_or_create(&MethodLabels { method: self.method }).clone();
        duration.observe(self.began.elapsed().as_secs_f64());
        answer
    }
}

/// From a tenth of a millisecond to half a minute.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 19))
}
