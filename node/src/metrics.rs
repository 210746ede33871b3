//! Every metric: its name, its unit, its meaning.
//!
//! Names follow Prometheus: base units, `_total` for what only grows. Labels have few values: never an account or an id.
//! What others know already (Raft's indexes, the store's sizes) is read when somebody asks, not kept twice.
//!
//! Laws
//! * One registry per node: several nodes in one process (a simulation) never share a number.
//! * Each metric stands in `docs/metrics.md`, with what to do about it (`tests/cluster/metrics.rs` compares them).
//!
//! Not here: the door they leave by (`http.rs`), alerts (`ops/deploy`).

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jangbu_raft_store::SyncHistogram;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    admission::Class,
    machine::Machine,
    traces::{CallSpan, Trail},
};

type FloatGauge = Gauge<f64, AtomicU64>;
type FloatCounter = Counter<f64, AtomicU64>;

pub struct Metrics {
    registry: Registry,
    /// What every program under Prometheus tells under the same names.
    process_registry: Registry,
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
    /// Leaders that this node has heard of, one after the other.
    pub leader_changes: Counter,
    certificate_expiry: Family<DoorLabels, Gauge>,
    raft: RaftGauges,
    machine: MachineGauges,
}

/// To whom a certificate is shown.
pub const CLIENTS: &str = "clients";
pub const PEERS: &str = "peers";

/// The class of a read that was turned away; writes have theirs from `admission.rs`.
pub const READS: &str = "read";

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    shown_to: &'static str,
}

/// Read from others each time somebody asks.
#[derive(Default)]
struct RaftGauges {
    ready: Gauge,
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
    backed_up_at: Gauge,
    events: Counter,
    pendings_open: Gauge,
    log_bytes: Gauge,
    log_syncs: LogSyncs,
    log_lines_lost: Counter,
    replication_lag: Family<PeerLabels, Gauge>,
}

/// Read from the operating system each time somebody asks.
#[derive(Default)]
struct MachineGauges {
    cpu: FloatCounter,
    resident: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    started: FloatGauge,
    disk_free: Gauge,
    disk_size: Gauge,
}

/// What [`RaftGauges`] and [`MachineGauges`] show.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub ready: bool,
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
    /// Nanoseconds since the Unix epoch, log time; 0: never.
    pub backed_up_at: u64,
    pub events: u64,
    pub pendings_open: u64,
    pub log_bytes: u64,
    pub log_syncs: SyncHistogram,
    /// Lines that were not logged, because whoever reads them didn't keep up.
    pub log_lines_lost: u64,
    /// Of the leader: entries each other node has yet to receive.
    pub lags: Vec<(u64, u64)>,
    pub machine: Machine,
}

/// The log's own histogram, as it was when somebody asked.
#[derive(Debug, Default, Clone)]
struct LogSyncs(Arc<Mutex<SyncHistogram>>);

impl LogSyncs {
    fn set(&self, now: SyncHistogram) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl EncodeMetric for LogSyncs {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let SyncHistogram { sum, count, buckets } = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl Metrics {
    pub fn new(node_id: u64) -> Arc<Self> {
        let labels = || [("node".into(), node_id.to_string().into())].into_iter();
        let mut registry = Registry::with_prefix_and_labels("jangbu", labels());
        let mut process_registry = Registry::with_prefix_and_labels("process", labels());
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
            leader_changes: Counter::default(),
            certificate_expiry: Family::default(),
            raft: RaftGauges::default(),
            machine: MachineGauges::default(),
            registry: Registry::default(),
            process_registry: Registry::default(),
        };
        metrics.register(&mut registry);
        metrics.machine.register(&mut registry, &mut process_registry);
        // What may never happen is told as 0 from the start: a series that begins with its first event hides that event.
        for class in [Class::Finish.name(), Class::Start.name(), Class::Import.name(), READS] {
            drop(metrics.shed.get_or_create(&ClassLabels { class }));
        }
        for shown_to in [CLIENTS, PEERS] {
            metrics.certificate_expires_at(shown_to, 0);
        }
        Arc::new(Self { registry, process_registry, ..metrics })
    }

    fn register(&self, registry: &mut Registry) {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this program", version);
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
        registry.register(
            "raft_leader_changes",
            "Leaders heard of, one after the other; the first one included",
            self.leader_changes.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When a certificate of this node expires, since the Unix epoch; 0: there is none",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        self.raft.register(registry);
    }

    /// The text that Prometheus reads.
    pub fn encode(&self, now: Snapshot) -> String {
        self.machine.set(&now.machine);
        self.raft.set(now);
        let mut told = String::new();
        text::encode_registry(&mut told, &self.registry).expect("a String takes all");
        text::encode(&mut told, &self.process_registry).expect("a String takes all");
        told
    }

    /// Begins to measure a call; [`Call::end`] counts it.
    pub fn call(self: &Arc<Self>, method: &'static str) -> Call {
        Call { metrics: self.clone(), method, began: Instant::now(), span: None }
    }

    /// `at_s`: seconds since the Unix epoch. 0: there is none.
    pub fn certificate_expires_at(&self, shown_to: &'static str, at_s: i64) {
        self.certificate_expiry.get_or_create(&DoorLabels { shown_to }).set(at_s);
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
        registry.register("ready", "1 if linearizable requests can be served here", self.ready.clone());
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
        registry.register_with_unit(
            "backup_newest_timestamp",
            "When a backup last said that it holds everything, since the Unix epoch; 0: never",
            Unit::Seconds,
            self.backed_up_at.clone(),
        );
        registry.register("events", "Change events in the books, since their beginning", self.events.clone());
        registry.register(
            "pendings_open",
            "Pending transfers neither posted, voided nor expired",
            self.pendings_open.clone(),
        );
        registry.register_with_unit("log_unpurged", "The replicated log on disk", Unit::Bytes, self.log_bytes.clone());
        registry.register_with_unit(
            "log_sync_duration",
            "Time of one sync of the replicated log to its disk",
            Unit::Seconds,
            self.log_syncs.clone(),
        );
        registry.register(
            "log_lines_lost",
            "Lines not logged because whoever reads them didn't keep up",
            self.log_lines_lost.clone(),
        );
        registry.register(
            "raft_replication_lag_entries",
            "Entries a peer has yet to receive; known to the leader",
            self.replication_lag.clone(),
        );
    }

    fn set(&self, now: Snapshot) {
        self.ready.set(now.ready.into());
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
        self.backed_up_at.set((now.backed_up_at / 1_000_000_000) as i64);
        self.events.inner().store(now.events, Ordering::Relaxed);
        self.pendings_open.set(now.pendings_open as i64);
        self.log_bytes.set(now.log_bytes as i64);
        self.log_syncs.set(now.log_syncs);
        self.log_lines_lost.inner().store(now.log_lines_lost, Ordering::Relaxed);
        self.replication_lag.clear();
        for (peer, lag) in now.lags {
            self.replication_lag.get_or_create(&PeerLabels { peer }).set(lag as i64);
        }
    }
}

impl MachineGauges {
    fn register(&self, registry: &mut Registry, process: &mut Registry) {
        let (free, size) = (self.disk_free.clone(), self.disk_size.clone());
        registry.register_with_unit("disk_free", "Room on the disk that holds the data", Unit::Bytes, free);
        registry.register_with_unit("disk_size", "Size of the disk that holds the data", Unit::Bytes, size);
        process.register_with_unit("cpu", "CPU used, by all threads", Unit::Seconds, self.cpu.clone());
        process.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, self.resident.clone());
        process.register("open_fds", "Open files and connections", self.open_fds.clone());
        process.register("max_fds", "How many may be open", self.max_fds.clone());
        process.register_with_unit(
            "start_time",
            "When the process was started, since the Unix epoch",
            Unit::Seconds,
            self.started.clone(),
        );
    }

    fn set(&self, now: &Machine) {
        self.cpu.inner().store(now.cpu_seconds.to_bits(), Ordering::Relaxed);
        self.resident.set(now.resident_bytes as i64);
        self.open_fds.set(now.open_fds as i64);
        self.max_fds.set(now.max_fds as i64);
        self.started.set(now.start_seconds);
        self.disk_free.set(now.disk_free_bytes as i64);
        self.disk_size.set(now.disk_size_bytes as i64);
    }
}

/// One call being answered.
pub struct Call {
    metrics: Arc<Metrics>,
    method: &'static str,
    began: Instant,
    span: Option<Box<CallSpan>>,
}

impl Call {
    /// With a span, if the call is traced.
    pub fn traced(self, span: Option<Box<CallSpan>>) -> Self {
        Self { span, ..self }
    }

    /// The way of its requests into the log.
    pub fn trail(&self) -> Trail {
        self.span.as_ref().map(|span| span.trail()).unwrap_or_default()
    }

    pub fn end<T>(self, answer: Result<T, Status>) -> Result<T, Status> {
        let code = answer.as_ref().map_or_else(|status| status.code(), |_| tonic::Code::Ok);
        let labels = CallLabels { method: self.method, code: format!("{code:?}") };
        self.metrics.calls.get_or_create(&labels).inc();
        let duration = self.metrics.call_duration.get_or_create(&MethodLabels { method: self.method }).clone();
        duration.observe(self.began.elapsed().as_secs_f64());
        if let Some(span) = self.span {
            span.end(&answer);
        }
        answer
    }
}

/// From a tenth of a millisecond to half a minute.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 19))
}
