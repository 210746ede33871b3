//! Figures, as a table for people and as JSON for programs.

use serde_json::{Map, Value, json};

/// What was measured so far, in order.
pub(crate) struct Report {
    figures: Vec<(String, f64, &'static str)>,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report { figures: Vec::new() }
    }

    /// Unit last in the name: `failover_pause_median_ms`.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        eprintln!("{name:<52} {value:>14.1} {unit}");
        self.figures.push((name, value, unit));
    }

    pub(crate) fn print(&self) {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, value, unit)| (name.clone(), json!({ "value": value, "unit": unit })))
            .collect();
        let cores_count = std::thread::available_parallelism().map_or(0, usize::from);
        println!("{:#}", json!({ "machine": { "cores_count": cores_count }, "figures": figures }));
    }
}

/// The value that half of them don't pass.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
