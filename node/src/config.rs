//! Every setting, with its unit, its bound and the reason for its default.
//!
//! A setting comes from the configuration file (TOML), then from the environment (`JANGBU__SECTION__KEY`), then from
//! flags; later ones win. Unknown keys are refused: a misspelt setting is a setting that was not made.
//!
//! Not here: the command line itself (`main.rs`), and what the store does with its sections (`raft_store`).

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use jangbu_proto::{
    grant::Identity,
    transport::{Certificates, Http2Settings},
};
use jangbu_raft_store::{LogConfig, StateConfig, admin::VERSION_MAX};
use serde::Deserialize;

/// The prefix of environment variables.
pub const ENVIRONMENT_PREFIX: &str = "JANGBU__";

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// This node's id: 1 or more, never used by another node of the cluster, past or present.
    pub node_id: u64,
    /// The folder of everything this node keeps. One process at a time.
    pub data_dir: PathBuf,
    /// The name of the data centre this node stands in, for people and for placement. At most 64 bytes.
    #[serde(default)]
    pub data_center: String,
    /// How far apart the nodes are; it sets every timeout between them.
    #[serde(default)]
    pub network: Network,
    pub listen: Listen,
    /// Where others reach this node, if it isn't where it listens.
    #[serde(default)]
    pub advertise: Advertise,
    /// Has no default: that a node speaks in plain text is said in so many words, or it doesn't.
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub storage: Storage,
    #[serde(default)]
    pub logging: Logging,
    #[serde(default)]
    pub tracing: Tracing,
    /// Only a simulation sets these.
    #[serde(skip)]
    pub http2: Http2Overrides,
}

/// host:port of each door. Port 0 picks a free one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub client: String,
    pub peer: String,
    /// Metrics and health over HTTP. Absent: no such door.
    pub http: Option<String>,
}

/// host:port as others see it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertise {
    pub client: Option<String>,
    pub peer: Option<String>,
}

/// What proves who is at the other end: TLS 1.3, with an authority for clients and another for nodes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// `on`, or `off`: plain text, and everybody may everything.
    pub mode: Option<TlsMode>,
    /// With `off`: also where others than this machine can listen and speak.
    pub off_beyond_loopback: bool,
    /// The cluster's name, as certificates have it. 1 to 64 letters, digits, dots, hyphens and underscores.
    pub cluster: String,
    /// Whether a client must show a certificate to connect at all. One that shows none may only ask whether the node serves.
    pub client_certificates: ClientCertificates,
    /// For the client door.
    pub client: Option<DoorKeys>,
    /// For the peer door, and for calling other nodes.
    pub peer: Option<DoorKeys>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    #[default]
    Required,
    Optional,
}

impl From<ClientCertificates> for Certificates {
    fn from(certificates: ClientCertificates) -> Self {
        match certificates {
            ClientCertificates::Required => Certificates::Required,
            ClientCertificates::Optional => Certificates::Optional,
        }
    }
}

/// PEM files. They are looked at every second; what is new holds for new connections.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorKeys {
    /// Of this node; followed by those between it and the authority, if any.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whose certificates are believed; while one authority replaces another, both.
    pub authority: PathBuf,
}

impl Tls {
    /// Plain text, wherever the node listens. For simulations and tests.
    pub fn off() -> Self {
        Self { mode: Some(TlsMode::Off), off_beyond_loopback: true, ..Self::default() }
    }

    pub fn is_on(&self) -> bool {
        self.mode == Some(TlsMode::On)
    }

    /// Whose certificates are believed; `None`: without TLS.
    pub fn believed_cluster(&self) -> Option<String> {
        self.is_on().then(|| self.cluster.clone())
    }

    fn check(&self, listen: &Listen) -> Result<(), String> {
        match self.mode {
            None => Err(
                "tls.mode is not set: make certificates (jangbu cert) and set it to \"on\", or set it to \"off\" for \
                         plain text"
                    .into(),
            ),
            Some(TlsMode::Off) => self.check_off(listen),
            Some(TlsMode::On) => {
                Identity::check_name("tls.cluster", &self.cluster).map_err(|malformed| malformed.to_string())?;
                for (name, keys) in [("client", &self.client), ("peer", &self.peer)] {
                    if keys.is_none() {
                        return Err(format!(
                            "tls.mode = \"on\" needs tls.{name}.certificate, tls.{name}.key and tls.{name}.authority"
                        ));
                    }
                }
                Ok(())
            }
        }
    }

    fn check_off(&self, listen: &Listen) -> Result<(), String> {
        for (name, address) in [("client", &listen.client), ("peer", &listen.peer)] {
            if !self.off_beyond_loopback && !is_loopback(address) {
                return Err(format!(
                    "tls.mode = \"off\", and listen.{name} = \"{address}\" is not on this machine alone: whoever reaches it \
                     could move money. Set tls.mode = \"on\" (jangbu cert makes what it needs), or say that this is \
                     meant with tls.off_beyond_loopback = true"
                ));
            }
        }
        Ok(())
    }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// How far apart the nodes of a cluster are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// One machine: round trips under a millisecond.
    #[default]
    Loopback,
    /// Data centres of one metropolitan area: round trips of 1 to 10 ms.
    Metro,
    /// Data centres of one continent: round trips of 10 to 100 ms.
    Continent,
}

/// What follows from the distance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// A leader shows itself this often.
    pub heartbeat: Duration,
    /// The upper end is also the lease: so long after the leader was last heard nobody votes for another, and a leader that
    /// lost its quorum for so long takes no more writes. A follower that has heard nothing for the lease and a random time
    /// in this range asks whether it would be elected. A process that is gone is noticed at once (`succession.rs`).
    pub election_min: Duration,
    pub election_max: Duration,
    /// To open a connection to a peer.
    pub connect_timeout: Duration,
    /// A silent connection is probed this often, …
    pub keepalive_interval: Duration,
    /// … and is dead when the probe isn't answered for so long.
    pub keepalive_timeout: Duration,
    /// An append that isn't answered for so long means a dead connection: it is dropped and made anew.
    pub progress_timeout: Duration,
    /// A snapshot that doesn't move on for so long is begun again; it resumes where it was.
    pub snapshot_progress_timeout: Duration,
    /// A replica asks at least this often how far the leader has committed, so that it can say how stale it is.
    pub freshness_interval: Duration,
}

impl Network {
    pub fn timings(self) -> Timings {
        let ms = Duration::from_millis;
        match self {
            // A leader that stands still is replaced after 350 to 440 ms. Three nodes and their load on two cores keep a
            // heartbeat waiting for 100 ms now and then: less would depose healthy leaders.
            Self::Loopback => Timings {
                heartbeat: ms(40),
                election_min: ms(130),
                election_max: ms(220),
                connect_timeout: ms(250),
                keepalive_interval: ms(500),
                keepalive_timeout: ms(1_000),
                progress_timeout: ms(1_000),
                snapshot_progress_timeout: ms(10_000),
                freshness_interval: ms(100),
            },
            Self::Metro => Timings {
                heartbeat: ms(100),
                election_min: ms(400),
                election_max: ms(800),
                connect_timeout: ms(500),
                keepalive_interval: ms(1_000),
                keepalive_timeout: ms(2_000),
                progress_timeout: ms(2_000),
                snapshot_progress_timeout: ms(20_000),
                freshness_interval: ms(250),
            },
            Self::Continent => Timings {
                heartbeat: ms(250),
                election_min: ms(1_500),
                election_max: ms(3_000),
                connect_timeout: ms(1_500),
                keepalive_interval: ms(2_000),
                keepalive_timeout: ms(4_000),
                progress_timeout: ms(6_000),
                snapshot_progress_timeout: ms(60_000),
                freshness_interval: ms(500),
            },
        }
    }
}

/// What is taken in, and how long it may take.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Milliseconds a call may take when its caller names no deadline. 1 to `deadline_ms_max`.
    pub deadline_ms_default: u64,
    /// Milliseconds a call may take at most. 1 to 3,600,000.
    pub deadline_ms_max: u64,
    /// Requests waiting or in flight at once. 1 to 1,000,000.
    pub requests_max: usize,
    /// Bytes of records waiting or in flight at once. At least one full request (2 MiB); up to 16 GiB.
    pub requests_bytes_max: usize,
    /// Milliseconds the oldest request may have waited before new ones are turned away. 1 to 60,000.
    pub queue_wait_ms_max: u64,
    /// Microseconds a request may wait for company, at most: half of what an entry takes while one is in flight, and as long as
    /// one takes for those who were answered by the last. 0 to 100,000.
    pub gather_us_max: u64,
    /// Entries proposed or forwarded and not yet answered. 1 to 256.
    pub entries_in_flight_max: usize,
    /// Reads answered at once; each may hold a few MiB. 1 to 100,000.
    pub reads_max: usize,
    /// Requests in flight on one packed stream. 1 to 4,096.
    pub stream_window_max: usize,
    /// Bytes of one message from a client. 2 MiB to 64 MiB.
    pub message_bytes_max: usize,
    /// Milliseconds to finish what is in flight when stopping. 0 to 600,000.
    pub drain_ms_max: u64,
    /// Threads that serve requests. 1 to 1,024; as many as processors if it isn't set.
    pub worker_threads: Option<usize>,
    /// Milliseconds that this node's clock may differ from what a majority agrees on before it leaves leading to others.
    /// 100 to 3,600,000.
    pub clock_skew_ms_max: u64,
    /// Connections open at each door. 1 to 1,000,000.
    pub connections_max: usize,
    /// Connections open at each door from one address. 1 to 1,000,000.
    pub connections_per_address_max: usize,
    /// Milliseconds that a client may leave an answer unread before its connection is cut, or a message half sent before its call
    /// is ended. 100 to 3,600,000.
    pub unread_ms_max: u64,
    /// Calls and packed requests that one caller (a certificate's name; without TLS, an address) may make in a second, and as
    /// many at once. 0: no bound; up to 1,000,000.
    pub identity_calls_per_second: u32,
    /// The newest cluster version that this node takes part in: what its program knows, or less, to try an upgrade and the way
    /// back. 1 to what it knows.
    pub cluster_version_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms_default: 5_000,
            deadline_ms_max: 60_000,
            requests_max: 20_000,
            requests_bytes_max: 256 << 20,
            // Waiting longer than a failover takes means more load than capacity.
            queue_wait_ms_max: 2_000,
            // Under load, when an entry takes long because much is to be done, fewer and larger ones get more of it done. Where
            // it takes long because the nodes are far apart, a longer wait would only add to that.
            gather_us_max: 8_000,
            entries_in_flight_max: 8,
            reads_max: 1_000,
            stream_window_max: 256,
            // 8,189 typed transfers take up to 1.3 MiB.
            message_bytes_max: 4 << 20,
            drain_ms_max: 10_000,
            worker_threads: None,
            // Clocks that are kept by NTP are within some tens of milliseconds, holds last for seconds at least.
            clock_skew_ms_max: 1_000,
            connections_max: 10_000,
            // A fifth of them: services behind one address are common, and one address isn't everybody.
            connections_per_address_max: 2_000,
            // As long as the slowest honest link takes for the largest answer: 16 MiB at 5 Mbit/s.
            unread_ms_max: 30_000,
            // What is too much is for whoever knows the callers to say; admission bounds the whole.
            identity_calls_per_second: 0,
            cluster_version_max: VERSION_MAX,
        }
    }
}

impl Limits {
    pub fn deadline_default(&self) -> Duration {
        Duration::from_millis(self.deadline_ms_default)
    }
    pub fn deadline_max(&self) -> Duration {
        Duration::from_millis(self.deadline_ms_max)
    }
    pub fn queue_wait_max(&self) -> Duration {
        Duration::from_millis(self.queue_wait_ms_max)
    }
    pub fn gather_max(&self) -> Duration {
        Duration::from_micros(self.gather_us_max)
    }
    pub fn clock_skew_max(&self) -> Duration {
        Duration::from_millis(self.clock_skew_ms_max)
    }
    pub fn drain_max(&self) -> Duration {
        Duration::from_millis(self.drain_ms_max)
    }
}

/// What lies on disk, and when it is packed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Bytes of log after which a snapshot is taken and the log behind it purged. A restart reads the log: more makes it slower. 4 KiB to 1 TiB.
    pub snapshot_after_log_bytes: u64,
    /// Bytes of log kept behind a snapshot, so that a replica which was away for a moment needs no snapshot. 0 to 1 TiB.
    pub log_bytes_kept: u64,
    /// As many entries at most are kept behind a snapshot. 0 to 10,000,000.
    pub log_entries_kept: u64,
    /// Milliseconds between comparisons of the replicas' digests. 100 to 3,600,000.
    pub digest_interval_ms: u64,
    /// Events after which the working set is written to the state's disk. 1 to 10,000,000.
    pub flush_events: Option<usize>,
    /// Bytes of one log segment. 16 KiB to 1 GiB.
    pub log_segment_bytes: Option<u64>,
    /// Bytes of the newest log entries that stay in memory; what lies further back is read from the disk when a replica lacks it. 4 KiB to 64 GiB.
    pub log_cache_bytes: Option<u64>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            snapshot_after_log_bytes: 128 << 20,
            log_bytes_kept: 64 << 20,
            log_entries_kept: 1_000_000,
            digest_interval_ms: 5_000,
            flush_events: None,
            log_segment_bytes: None,
            log_cache_bytes: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    /// What is written: a tracing filter such as `info` or `jangbu_node=debug,info`.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for Logging {
    fn default() -> Self {
        // openraft tells of every tick and step at its own levels; its warnings are what an operator can use.
        Self { filter: "info,openraft=error".into(), format: LogFormat::Text }
    }
}

/// What single calls went through, for an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// Where spans are sent: an OTLP/gRPC receiver, http://host:port, in plain text. Absent: nothing is traced.
    pub endpoint: Option<String>,
    /// Of a million calls whose callers haven't decided (header `traceparent`), how many are traced. 0 to 1,000,000.
    pub calls_per_million: u32,
    /// Spans that wait to be sent, each under a kilobyte; those beyond are lost. 512 to 1,000,000.
    pub queue_max: usize,
}

impl Default for Tracing {
    fn default() -> Self {
        // At the rate of the largest cluster some dozens a second: enough to see where time goes.
        Self { endpoint: None, calls_per_million: 1_000, queue_max: 2_048 }
    }
}

impl Tracing {
    fn check(&self) -> Result<(), String> {
        if let Some(endpoint) = &self.endpoint {
            let address = endpoint.strip_prefix("http://").ok_or_else(|| {
                format!("tracing.endpoint = \"{endpoint}\" is not http://host:port: spans are sent in plain text, to a collector beside the node")
            })?;
            check_address("tracing.endpoint", address)?;
        }
        within("tracing.calls_per_million", self.calls_per_million.into(), 0, 1_000_000)?;
        within("tracing.queue_max", self.queue_max as u64, 512, 1_000_000)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// What a simulation needs of HTTP/2 so that a seed repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Http2Overrides {
    /// How long a reset stream is remembered. The library measures it in real time.
    pub reset_stream_duration: Option<Duration>,
    /// Answers carry a constant `date`.
    pub fixed_date: bool,
}

impl NodeConfig {
    /// Reads the settings from TOML, overlaid with `environment` (name and value) and `overrides` (dotted key and value).
    pub fn read(
        toml: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let mut table: toml::Table = toml.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let from_environment: BTreeMap<String, String> =
            environment.into_iter().filter_map(|(name, value)| Some((dotted_key(&name)?, value))).collect();
        for (key, value) in from_environment.into_iter().chain(overrides) {
            overlay(&mut table, &key, &value)?;
        }
        let config: Self = table.try_into().map_err(|error: toml::de::Error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    /// Each bound, in the order of the settings.
    pub fn check(&self) -> Result<(), String> {
        let limits = &self.limits;
        let storage = &self.storage;
        within("node_id", self.node_id, 1, u64::MAX - 1)?;
        within("data_center (bytes)", self.data_center.len() as u64, 0, 64)?;
        for (name, address) in [("listen.client", &self.listen.client), ("listen.peer", &self.listen.peer)]
            .into_iter()
            .chain(self.listen.http.iter().map(|address| ("listen.http", address)))
            .chain(self.advertise.client.iter().map(|address| ("advertise.client", address)))
            .chain(self.advertise.peer.iter().map(|address| ("advertise.peer", address)))
        {
            check_address(name, address)?;
        }
        for (name, address, advertised) in
            [("peer", &self.listen.peer, &self.advertise.peer), ("client", &self.listen.client, &self.advertise.client)]
        {
            if advertised.is_none() && (address.starts_with("0.0.0.0:") || address.starts_with("[::]:")) {
                return Err(format!("listen.{name} = \"{address}\" is no address to call: set advertise.{name}"));
            }
        }
        self.tls.check(&self.listen)?;
        within("limits.deadline_ms_max", limits.deadline_ms_max, 1, 3_600_000)?;
        within("limits.deadline_ms_default", limits.deadline_ms_default, 1, limits.deadline_ms_max)?;
        within("limits.requests_max", limits.requests_max as u64, 1, 1_000_000)?;
        within("limits.requests_bytes_max", limits.requests_bytes_max as u64, 2 << 20, 16 << 30)?;
        within("limits.queue_wait_ms_max", limits.queue_wait_ms_max, 1, 60_000)?;
        within("limits.gather_us_max", limits.gather_us_max, 0, 100_000)?;
        within("limits.entries_in_flight_max", limits.entries_in_flight_max as u64, 1, 256)?;
        within("limits.reads_max", limits.reads_max as u64, 1, 100_000)?;
        within("limits.stream_window_max", limits.stream_window_max as u64, 1, 4_096)?;
        within("limits.connections_max", limits.connections_max as u64, 1, 1_000_000)?;
        let per_address = limits.connections_per_address_max as u64;
        within("limits.connections_per_address_max", per_address, 1, 1_000_000)?;
        within("limits.unread_ms_max", limits.unread_ms_max, 100, 3_600_000)?;
        let per_second = limits.identity_calls_per_second;
        within("limits.identity_calls_per_second", per_second.into(), 0, 1_000_000)?;
        within("limits.message_bytes_max", limits.message_bytes_max as u64, 2 << 20, 64 << 20)?;
        within("limits.drain_ms_max", limits.drain_ms_max, 0, 600_000)?;
        if let Some(threads) = limits.worker_threads {
            within("limits.worker_threads", threads as u64, 1, 1_024)?;
        }
        within("limits.clock_skew_ms_max", limits.clock_skew_ms_max, 100, 3_600_000)?;
        let (version, version_max) = (u64::from(limits.cluster_version_max), u64::from(VERSION_MAX));
        within("limits.cluster_version_max", version, 1, version_max)?;
        within("storage.snapshot_after_log_bytes", storage.snapshot_after_log_bytes, 4 << 10, 1 << 40)?;
        within("storage.log_bytes_kept", storage.log_bytes_kept, 0, 1 << 40)?;
        within("storage.log_entries_kept", storage.log_entries_kept, 0, 10_000_000)?;
        within("storage.digest_interval_ms", storage.digest_interval_ms, 100, 3_600_000)?;
        if let Some(events) = storage.flush_events {
            within("storage.flush_events", events as u64, 1, 10_000_000)?;
        }
        if let Some(bytes) = storage.log_segment_bytes {
            within("storage.log_segment_bytes", bytes, 16 << 10, 1 << 30)?;
        }
        if let Some(bytes) = storage.log_cache_bytes {
            within("storage.log_cache_bytes", bytes, 4 << 10, 64 << 30)?;
        }
        self.tracing.check()
    }

    pub fn http2(&self) -> Http2Settings {
        let timings = self.network.timings();
        Http2Settings {
            keepalive_interval: timings.keepalive_interval,
            keepalive_timeout: timings.keepalive_timeout,
            connect_timeout: timings.connect_timeout,
            reset_stream_duration: self.http2.reset_stream_duration,
            fixed_date: self.http2.fixed_date,
            // What waits for a connection to a dead leader can't be sent to the next one.
            connect_backoff_max: timings.heartbeat,
            connections_max: self.limits.connections_max,
            connections_per_address_max: self.limits.connections_per_address_max,
            unread_max: Duration::from_millis(self.limits.unread_ms_max),
            ..Http2Settings::default()
        }
    }

    pub fn log(&self) -> LogConfig {
        let mut log = LogConfig::default();
        if let Some(bytes) = self.storage.log_segment_bytes {
            log.segment_bytes = bytes;
        }
        if let Some(bytes) = self.storage.log_cache_bytes {
            log.cache_bytes = bytes;
        }
        log
    }

    pub fn state(&self) -> StateConfig {
        let mut state = StateConfig { version_max: self.limits.cluster_version_max, ..StateConfig::default() };
        if let Some(events) = self.storage.flush_events {
            state.flush_events = events;
        }
        state
    }
}

/// `JANGBU__LIMITS__REQUESTS_MAX` is `limits.requests_max`.
fn dotted_key(name: &str) -> Option<String> {
    Some(name.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase().replace("__", "."))
}

/// Puts one value in its place, as TOML would read it: a number, a truth value, or else text.
fn overlay(table: &mut toml::Table, key: &str, text: &str) -> Result<(), String> {
    let (sections, name) = match key.rsplit_once('.') {
        Some((sections, name)) => (sections.split('.').collect(), name),
        None => (vec![], key),
    };
    let mut place = table;
    for section in sections {
        place = place
            .entry(section)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{key}: `{section}` is a setting, not a section"))?;
    }
    let value = match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => toml::Value::Integer(number),
        (_, Ok(truth)) => toml::Value::Boolean(truth),
        _ => toml::Value::String(text.to_owned()),
    };
    place.insert(name.to_owned(), value);
    Ok(())
}

fn within(name: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if value < min || value > max {
        return Err(format!("{name} = {value} is not within {min} to {max}"));
    }
    Ok(())
}

fn check_address(name: &str, address: &str) -> Result<(), String> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(format!("{name} = \"{address}\" is not host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
        node_id = 1
        data_dir = "data"
        [listen]
        client = "127.0.0.1:7400"
        peer = "127.0.0.1:7401"
        [tls]
        mode = "off"
    "#;

    fn read(toml: &str) -> Result<NodeConfig, String> {
        NodeConfig::read(toml, [], [])
    }

    #[test]
    fn the_smallest_file_is_enough() {
        let config = read(SMALLEST).unwrap();
        assert_eq!(config.network, Network::Loopback);
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn the_example_shows_every_setting_with_its_default() {
        let config = read(include_str!("../jangbud.example.toml")).unwrap();
        assert_eq!((config.limits, config.logging), (Limits::default(), Logging::default()));
        let Storage { flush_events, log_segment_bytes, log_cache_bytes, .. } = config.storage;
        let shown = Storage { flush_events, log_segment_bytes, log_cache_bytes, ..Storage::default() };
        assert_eq!(config.storage, shown);
        assert_eq!(flush_events, Some(StateConfig::default().flush_events));
        assert_eq!(log_segment_bytes, Some(LogConfig::default().segment_bytes));
        assert_eq!(log_cache_bytes, Some(LogConfig::default().cache_bytes));
        assert_eq!(config.tracing, Tracing::default());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = read(&format!("{SMALLEST}\n[limits]\nrequests_maximum = 3")).unwrap_err();
        assert!(error.contains("requests_maximum"), "{error}");
    }

    #[test]
    fn a_setting_out_of_its_bound_is_refused_by_name() {
        let error = read(&format!("{SMALLEST}\n[limits]\nrequests_max = 0")).unwrap_err();
        assert_eq!(error, "limits.requests_max = 0 is not within 1 to 1000000");
    }

    #[test]
    fn the_environment_wins_over_the_file_and_flags_over_both() {
        let environment = [("JANGBU__NODE_ID", "2"), ("JANGBU__LIMITS__REQUESTS_MAX", "7"), ("HOME", "/")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let flags = [("node_id".to_owned(), "3".to_owned()), ("network".to_owned(), "metro".to_owned())];
        let config = NodeConfig::read(SMALLEST, environment, flags).unwrap();
        assert_eq!((config.node_id, config.limits.requests_max, config.network), (3, 7, Network::Metro));
    }

    #[test]
    fn an_address_without_a_port_is_refused() {
        let error = NodeConfig::read(SMALLEST, [], [("listen.peer".into(), "localhost".into())]).unwrap_err();
        assert_eq!(error, "listen.peer = \"localhost\" is not host:port");
    }

    #[test]
    fn plain_text_is_said_in_so_many_words() {
        let unset = SMALLEST.replace("mode = \"off\"", "");
        assert!(read(&unset).unwrap_err().starts_with("tls.mode is not set"));
        let beyond = SMALLEST.replace("127.0.0.1:7400", "10.0.0.1:7400");
        let error = read(&beyond).unwrap_err();
        assert!(error.contains("listen.client") && error.contains("tls.off_beyond_loopback = true"), "{error}");
        assert!(read(&format!("{beyond}\noff_beyond_loopback = true")).is_ok());
        for here in ["localhost:1", "[::1]:1", "127.8.8.8:1"] {
            assert!(read(&SMALLEST.replace("127.0.0.1:7401", here)).is_ok(), "{here}");
        }
    }

    #[test]
    fn tls_that_lacks_its_keys_is_refused_by_name() {
        let on = SMALLEST.replace("mode = \"off\"", "mode = \"on\"\ncluster = \"demo\"");
        assert!(read(&on).unwrap_err().contains("tls.client.certificate"));
        let unnamed = SMALLEST.replace("mode = \"off\"", "mode = \"on\"");
        assert!(read(&unnamed).unwrap_err().contains("tls.cluster"));
        let keys = |door: &str| format!("\n[tls.{door}]\ncertificate = \"a\"\nkey = \"b\"\nauthority = \"c\"");
        let whole = read(&(on + &keys("client") + &keys("peer"))).unwrap();
        assert_eq!(whole.tls.believed_cluster().as_deref(), Some("demo"));
    }

    #[test]
    fn a_collector_is_at_an_address_in_plain_text() {
        let with = |setting: &str| read(&format!("{SMALLEST}\n[tracing]\n{setting}"));
        assert!(with("endpoint = \"http://127.0.0.1:4317\"").is_ok());
        for endpoint in ["https://127.0.0.1:4317", "127.0.0.1:4317", "http://nowhere"] {
            let error = with(&format!("endpoint = \"{endpoint}\"")).unwrap_err();
            assert!(error.contains("tracing.endpoint"), "{error}");
        }
        assert!(with("calls_per_million = 1000001").unwrap_err().contains("tracing.calls_per_million"));
    }

    #[test]
    fn elections_leave_room_for_heartbeats_on_every_network() {
        for network in [Network::Loopback, Network::Metro, Network::Continent] {
            let timings = network.timings();
            assert!(timings.heartbeat * 2 < timings.election_min, "{network:?}");
            assert!(timings.election_min < timings.election_max, "{network:?}");
        }
    }
}
