//! One look at a cluster: what each node says of itself, and what its metrics say.
//!
//! Not here: rates, which need two looks (`view.rs`).

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cli::Global;
use crate::cluster::{self, Node};
use crate::error::Failure;
use crate::http;

pub struct Sample {
    pub at: Instant,
    pub nodes: Vec<(Node, Option<Metrics>)>,
}

impl Sample {
    /// Asks all nodes, at the same time.
    pub async fn take(global: &Global) -> Result<Sample, Failure> {
        let nodes = cluster::ask_all(global).await?;
        let at = Instant::now();
        let mut asking = JoinSet::new();
        for (place, node) in nodes.iter().enumerate() {
            let Some(address) = http::address(node) else { continue };
            let limit = global.timeout;
            asking.spawn(async move { (place, Metrics::fetch(&address, limit).await) });
        }
        let mut told: Vec<Option<Metrics>> = nodes.iter().map(|_| None).collect();
        for (place, metrics) in asking.join_all().await {
            told[place] = metrics;
        }
        Ok(Sample { at, nodes: nodes.into_iter().zip(told).collect() })
    }
}

/// What `/metrics` says: a line for each series.
#[derive(Debug, Default, PartialEq)]
pub struct Metrics(Vec<Series>);

#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    /// `None`: there is no such door, or nobody answers there in time.
    async fn fetch(address: &str, limit: Duration) -> Option<Metrics> {
        let (head, body) = http::get(address, "/metrics", limit).await?;
        head.starts_with("HTTP/1.1 200").then(|| Metrics::parse(&body))
    }

    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Metrics(lines.filter_map(Series::parse).collect())
    }

    /// The sum of all series of that name whose labels `wanted` takes.
    pub fn sum(&self, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        self.0.iter().filter(|series| series.name == name && wanted(&series.labels)).map(|series| series.value).sum()
    }

    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|series| series.name == name).map(|series| series.value)
    }

    /// Upper bound and count up to it, of all series of that histogram whose labels `wanted` takes, added up.
    pub fn buckets(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for series in self.0.iter().filter(|series| series.name == name && wanted(&series.labels)) {
            let Some(bound) = series.label("le").and_then(|le| le.parse::<f64>().ok()) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += series.value,
                None => buckets.push((bound, series.value)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }
}

impl Series {
    fn parse(line: &str) -> Option<Series> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.strip_suffix('}').unwrap_or(labels);
        Some(Series { name: name.into(), labels: labels.into(), value: value.parse().ok()? })
    }

    /// Our labels hold no quotes and no commas.
    fn label(&self, name: &str) -> Option<&str> {
        let labels = self.labels.split(',').filter_map(|label| label.split_once('='));
        labels.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_as_a_node_tells_them() {
        let metrics = Metrics::parse(
            "# TYPE jangbu_shed counter\n\
             jangbu_shed_total{node=\"1\",class=\"start\"} 3\n\
             jangbu_shed_total{node=\"1\",class=\"read\"} 4\n\
             jangbu_ready{node=\"1\"} 1\n\
             jangbu_x_seconds_bucket{le=\"+Inf\",node=\"1\",method=\"b\"} 9\n\
             jangbu_x_seconds_bucket{le=\"0.5\",node=\"1\",method=\"a\"} 2\n\
             jangbu_x_seconds_bucket{le=\"0.5\",node=\"1\",method=\"b\"} 5\n\
             # EOF\n",
        );
        assert_eq!(metrics.value("jangbu_ready"), Some(1.0));
        assert_eq!(metrics.sum("jangbu_shed_total", |_| true), 7.0);
        assert_eq!(metrics.sum("jangbu_shed_total", |labels| labels.contains("\"read\"")), 4.0);
        assert_eq!(metrics.buckets("jangbu_x_seconds", |_| true), [(0.5, 7.0), (f64::INFINITY, 9.0)]);
        assert_eq!(metrics.value("nothing"), None);
    }
}
