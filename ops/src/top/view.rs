//! Two looks, one after the other: what happened between them, and how it stands now.
//!
//! Laws
//! * What isn't known is `None`, never 0: a node without an HTTP door has no latency, not a good one.
//!
//! Not here: how it is drawn (`screen.rs`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::sample::{Metrics, Sample};
use crate::cluster::{Health, Node, NodeStatus};

/// Payments, by the names of the calls that carry them.
const PAYMENTS: [&str; 2] = ["method=\"create_transfers\"", "method=\"submit\""];

#[derive(Debug, Serialize)]
pub struct View {
    pub cluster_id: String,
    pub leader_id: Option<u64>,
    pub term: u64,
    pub voters: usize,
    pub voters_serving: usize,
    /// How many more voters may be lost before writes stop; negative: how many are missing.
    pub quorum_margin: i64,
    /// Of the whole cluster: transfers made and pending ones expired.
    pub events_per_second: f64,
    pub payment_p50_seconds: Option<f64>,
    pub payment_p99_seconds: Option<f64>,
    pub shed_per_second: Option<f64>,
    /// Calls that ended without a known outcome.
    pub unknown_per_second: Option<f64>,
    pub replicas: Replicas,
    pub problems: Vec<String>,
    pub nodes: Vec<Row>,
}

/// Whether the replicas hold the same books, as far as this look could tell.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replicas {
    /// At least two stood at the same index, and none of those differed.
    Agree,
    Differ,
    /// No two stood at the same index: there is much to do. `jangbu verify` makes them meet.
    NotComparable,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub node_id: Option<u64>,
    pub data_center: String,
    pub endpoint: String,
    pub role: String,
    pub term: u64,
    pub applied_index: u64,
    /// Entries behind the furthest that any node has committed.
    pub lag_entries: u64,
    pub staleness_seconds: Option<f64>,
    pub digest: String,
    pub events_per_second: Option<f64>,
    pub payment_p99_seconds: Option<f64>,
    pub log_sync_p99_seconds: Option<f64>,
    pub queue_requests: Option<f64>,
    pub shed_per_second: Option<f64>,
    pub memory_bytes: Option<f64>,
    /// Of 1.
    pub disk_free_share: Option<f64>,
    /// Why it doesn't serve; empty: it does.
    pub not_ready_because: String,
    /// It doesn't answer, and why.
    pub error: Option<String>,
}

impl View {
    pub fn between(before: &Sample, now: &Sample) -> View {
        let seconds = (now.at - before.at).as_secs_f64();
        let statuses: Vec<&NodeStatus> = now.nodes.iter().filter_map(|(node, _)| node.status.as_ref()).collect();
        let furthest = statuses.iter().map(|status| status.committed_index).max().unwrap_or(0);
        let nodes: Vec<Row> = now
            .nodes
            .iter()
            .map(|(node, metrics)| match &node.status {
                None => Row::silent(&node.endpoint, node.error.as_deref().unwrap_or("no answer")),
                Some(status) => {
                    let earlier = before.nodes.iter().find(|(earlier, _)| is_node(earlier, status.node_id));
                    let metrics = Interval::of(earlier.and_then(|(_, metrics)| metrics.as_ref()), metrics.as_ref());
                    let earlier = earlier.and_then(|(earlier, _)| earlier.status.as_ref());
                    let events_per_second = earlier.map(|earlier| per_second(earlier, status, seconds));
                    Row::of(&node.endpoint, status, furthest, events_per_second, &metrics, seconds)
                }
            })
            .collect();
        let answers: Vec<_> = now.nodes.iter().map(|(node, _)| node.clone()).collect();
        let health = Health::of(&answers);
        let pairs: Vec<Interval> = now
            .nodes
            .iter()
            .map(|(node, metrics)| {
                let earlier = before.nodes.iter().find(|(earlier, _)| same(earlier, node));
                Interval::of(earlier.and_then(|(_, metrics)| metrics.as_ref()), metrics.as_ref())
            })
            .collect();
        View {
            cluster_id: statuses
                .iter()
                .map(|status| status.cluster_id.clone())
                .find(|id| !id.is_empty())
                .unwrap_or_default(),
            leader_id: health.leader_id,
            term: statuses.iter().map(|status| status.term).max().unwrap_or(0),
            voters: health.voters,
            voters_serving: health.voters_serving,
            quorum_margin: health.quorum_margin,
            events_per_second: nodes.iter().filter_map(|row| row.events_per_second).fold(0.0, f64::max),
            payment_p50_seconds: percentile(0.5, payments(&pairs)),
            payment_p99_seconds: percentile(0.99, payments(&pairs)),
            shed_per_second: rate(&pairs, "jangbu_shed_total", |_| true, seconds),
            unknown_per_second: rate(
                &pairs,
                "jangbu_calls_total",
                |labels| labels.contains("code=\"DeadlineExceeded\""),
                seconds,
            ),
            replicas: replicas(&statuses),
            problems: health.problems,
            nodes,
        }
    }
}

impl Row {
    fn silent(endpoint: &str, error: &str) -> Row {
        Row { error: Some(error.into()), ..Row::unknown(endpoint) }
    }

    fn unknown(endpoint: &str) -> Row {
        Row {
            node_id: None,
            data_center: String::new(),
            endpoint: endpoint.into(),
            role: String::new(),
            term: 0,
            applied_index: 0,
            lag_entries: 0,
            staleness_seconds: None,
            digest: String::new(),
            events_per_second: None,
            payment_p99_seconds: None,
            log_sync_p99_seconds: None,
            queue_requests: None,
            shed_per_second: None,
            memory_bytes: None,
            disk_free_share: None,
            not_ready_because: String::new(),
            error: None,
        }
    }

    fn of(
        endpoint: &str,
        status: &NodeStatus,
        furthest: u64,
        events_per_second: Option<f64>,
        metrics: &Interval<'_>,
        seconds: f64,
    ) -> Row {
        let staleness_ns: u64 = status.staleness_ns.parse().unwrap_or(u64::MAX);
        let now = |name: &str| metrics.now.and_then(|now| now.value(name));
        Row {
            node_id: Some(status.node_id),
            data_center: status.data_center.clone(),
            role: status.role.clone(),
            term: status.term,
            applied_index: status.applied_index,
            lag_entries: furthest.saturating_sub(status.applied_index),
            staleness_seconds: (staleness_ns < u64::MAX).then_some(staleness_ns as f64 / 1e9),
            digest: status.digest.clone(),
            events_per_second,
            payment_p99_seconds: percentile(0.99, metrics.histogram("jangbu_call_duration_seconds", is_payment)),
            log_sync_p99_seconds: percentile(0.99, metrics.histogram("jangbu_log_sync_duration_seconds", |_| true)),
            queue_requests: now("jangbu_queue_requests"),
            shed_per_second: metrics.grown("jangbu_shed_total", |_| true).map(|count| count / seconds),
            memory_bytes: now("process_resident_memory_bytes"),
            disk_free_share: now("jangbu_disk_free_bytes")
                .zip(now("jangbu_disk_size_bytes"))
                .filter(|(_, size)| *size > 0.0)
                .map(|(free, size)| free / size),
            not_ready_because: status.not_ready_because.clone(),
            ..Row::unknown(endpoint)
        }
    }
}

fn is_node(node: &Node, id: u64) -> bool {
    node.status.as_ref().is_some_and(|status| status.node_id == id)
}

fn same(one: &Node, other: &Node) -> bool {
    other.status.as_ref().is_some_and(|status| is_node(one, status.node_id))
}

/// A replica that was replaced may have fewer.
fn per_second(before: &NodeStatus, now: &NodeStatus, seconds: f64) -> f64 {
    if seconds <= 0.0 { 0.0 } else { now.events_count.saturating_sub(before.events_count) as f64 / seconds }
}

/// A node's metrics at two looks.
struct Interval<'a> {
    before: Option<&'a Metrics>,
    now: Option<&'a Metrics>,
}

impl<'a> Interval<'a> {
    fn of(before: Option<&'a Metrics>, now: Option<&'a Metrics>) -> Interval<'a> {
        Interval { before, now }
    }

    /// By how much a counter has grown. One that has begun again at 0 has grown by what it shows.
    fn grown(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Option<f64> {
        let (before, now) = (self.before?.sum(name, &wanted), self.now?.sum(name, &wanted));
        Some(if now < before { now } else { now - before })
    }

    /// What was counted between the looks.
    fn histogram(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Vec<(f64, f64)> {
        let Some(now) = self.now else { return Vec::new() };
        let now = now.buckets(name, &wanted);
        let before = self.before.map(|before| before.buckets(name, &wanted)).unwrap_or_default();
        // A process that was restarted counts from 0 again.
        let has_begun_again = before.iter().zip(&now).any(|((_, before), (_, now))| now < before);
        if before.len() != now.len() || has_begun_again {
            return now;
        }
        now.into_iter().zip(before).map(|((bound, now), (_, before))| (bound, now - before)).collect()
    }
}

fn is_payment(labels: &str) -> bool {
    PAYMENTS.iter().any(|method| labels.contains(method))
}

/// Of all nodes together.
fn payments(nodes: &[Interval<'_>]) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = Vec::new();
    for (bound, count) in nodes.iter().flat_map(|node| node.histogram("jangbu_call_duration_seconds", is_payment)) {
        match all.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += count,
            None => all.push((bound, count)),
        }
    }
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    all
}

/// `None` if no node told it.
fn rate(nodes: &[Interval<'_>], name: &str, wanted: impl Fn(&str) -> bool, seconds: f64) -> Option<f64> {
    let grown: Vec<f64> = nodes.iter().filter_map(|node| node.grown(name, &wanted)).collect();
    (!grown.is_empty() && seconds > 0.0).then(|| grown.iter().sum::<f64>() / seconds)
}

/// As Prometheus does: evenly spread within a bucket. Above the last finite bound, that bound. `None`: nothing was counted.
fn percentile(share: f64, cumulative: Vec<(f64, f64)>) -> Option<f64> {
    let total = cumulative.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let wanted = share * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in cumulative {
        if count >= wanted {
            let within = if count > below { (wanted - below) / (count - below) } else { 1.0 };
            return Some(if bound.is_finite() { lower + (bound - lower) * within } else { lower });
        }
        (lower, below) = (bound, count);
    }
    None
}

fn replicas(statuses: &[&NodeStatus]) -> Replicas {
    let mut digests: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for status in statuses {
        digests.entry(status.applied_index).or_default().insert(&status.digest);
    }
    if digests.values().any(|digests| digests.len() > 1) {
        return Replicas::Differ;
    }
    if digests.len() < statuses.len() { Replicas::Agree } else { Replicas::NotComparable }
}

#[cfg(test)]
pub mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::cluster::tests::{gone, node};

    pub fn sample(at: Instant, events: u64, quick: u64, slow: u64) -> Sample {
        let metrics = format!(
            "jangbu_shed_total{{node=\"1\",class=\"start\"}} {slow}\n\
             jangbu_queue_requests{{node=\"1\"}} 7\n\
             process_resident_memory_bytes{{node=\"1\"}} 536870912\n\
             jangbu_disk_free_bytes{{node=\"1\"}} 25\njangbu_disk_size_bytes{{node=\"1\"}} 100\n\
             jangbu_call_duration_seconds_bucket{{le=\"0.001\",node=\"1\",method=\"create_transfers\"}} {quick}\n\
             jangbu_call_duration_seconds_bucket{{le=\"0.002\",node=\"1\",method=\"create_transfers\"}} {all}\n\
             jangbu_call_duration_seconds_bucket{{le=\"+Inf\",node=\"1\",method=\"create_transfers\"}} {all}\n\
             jangbu_call_duration_seconds_bucket{{le=\"+Inf\",node=\"1\",method=\"query_transfers\"}} 1000000\n",
            all = quick + slow,
        );
        let mut leader = node(1, "Leader", 7);
        leader.status.as_mut().unwrap().events_count = events;
        let mut follower = node(2, "Follower", 7);
        follower.status.as_mut().unwrap().events_count = events;
        Sample {
            at,
            nodes: vec![(leader, Some(Metrics::parse(&metrics))), (follower, None), (gone("10.0.0.3:7400"), None)],
        }
    }

    #[test]
    fn rates_and_percentiles_are_of_the_time_between_two_looks() {
        let at = Instant::now();
        let view = View::between(&sample(at, 1_000, 500, 0), &sample(at + Duration::from_secs(2), 3_000, 598, 2));
        assert_eq!(view.events_per_second, 1_000.0);
        assert_eq!(view.shed_per_second, Some(1.0));
        // 98 of 100 took up to a millisecond, two up to two: the 99th lies in the middle of those.
        assert_eq!(view.payment_p99_seconds, Some(0.0015));
        assert!(view.payment_p50_seconds.unwrap() < 0.001);
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_nothing() {
        let at = Instant::now();
        let view = View::between(&sample(at, 0, 0, 0), &sample(at + Duration::from_secs(1), 0, 0, 0));
        assert_eq!(view.payment_p99_seconds, None, "nobody paid");
        let [leader, follower, silent] = &view.nodes[..] else { panic!("{view:?}") };
        assert_eq!((leader.queue_requests, leader.disk_free_share), (Some(7.0), Some(0.25)));
        assert_eq!((follower.queue_requests, follower.shed_per_second), (None, None), "it has no HTTP door");
        assert_eq!((silent.node_id, silent.error.as_deref()), (None, Some("refused")));
    }

    #[test]
    fn replicas_at_one_index_agree_or_differ_and_at_others_cannot_be_compared() {
        let status = |id, digest, index| {
            let mut status = node(id, "Follower", digest).status.unwrap();
            status.applied_index = index;
            status
        };
        let judge = |statuses: &[NodeStatus]| replicas(&statuses.iter().collect::<Vec<_>>());
        assert_eq!(judge(&[status(1, 7, 9), status(2, 7, 9), status(3, 8, 10)]), Replicas::Agree);
        assert_eq!(judge(&[status(1, 7, 9), status(2, 8, 9), status(3, 8, 10)]), Replicas::Differ);
        assert_eq!(judge(&[status(1, 7, 9), status(2, 8, 10), status(3, 9, 11)]), Replicas::NotComparable);
    }

    #[test]
    fn a_counter_that_began_again_has_grown_by_what_it_shows() {
        let at = Instant::now();
        let view = View::between(&sample(at, 9, 500, 100), &sample(at + Duration::from_secs(1), 9, 10, 3));
        assert_eq!(view.shed_per_second, Some(3.0));
    }
}
