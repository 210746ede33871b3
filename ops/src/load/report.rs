//! What a load tells.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Run;
use super::tally::{Latency, Pause, Second, Tally};
use crate::error::{Failure, Kind};
use crate::output;
use crate::text;

#[derive(Debug, Serialize)]
pub struct Report {
    pub run_id: String,
    pub mode: &'static str,
    pub clients: u32,
    pub batch: u32,
    pub packed: bool,
    /// From the first request to the last answer.
    pub seconds: f64,
    pub requests: u64,
    pub transfers_acknowledged: u64,
    pub transfers_per_second: f64,
    /// What the rules of money said no to, by status.
    pub transfers_refused: BTreeMap<&'static str, u64>,
    pub reads: u64,
    pub reads_per_second: f64,
    /// Answers that were errors, by kind; each was asked again.
    pub errors: BTreeMap<&'static str, u64>,
    /// Requests whose outcome was unknown at first, and is known now.
    pub unknown_resolved: u64,
    /// Requests given up with an unknown outcome.
    pub unknown_left: u64,
    pub latency: Latency,
    pub read_latency: Latency,
    /// The longest time without an acknowledged payment, over all clients.
    pub longest_pause: Pause,
    /// Payments acknowledged to the clients of each node. A client whose node is gone goes on with another.
    pub by_endpoint: BTreeMap<String, u64>,
    pub timeline: Vec<Second>,
    pub journal: Option<String>,
}

impl Report {
    pub fn of(run: &Run, tally: Tally) -> Report {
        let arguments = &run.arguments;
        let seconds = tally.last_answer.map_or(0.0, |last| (last - run.began).as_secs_f64());
        let per_second = |count: u64| if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 };
        Report {
            run_id: run.id.to_string(),
            mode: if arguments.rate.is_some() { "open" } else { "closed" },
            clients: arguments.clients,
            batch: arguments.batch,
            packed: arguments.packed,
            seconds,
            requests: tally.requests,
            transfers_acknowledged: tally.acknowledged,
            transfers_per_second: per_second(tally.acknowledged),
            reads: tally.reads,
            reads_per_second: per_second(tally.reads),
            latency: Latency::of(&tally.latency),
            read_latency: Latency::of(&tally.read_latency),
            longest_pause: tally.longest_pause(run.began),
            timeline: tally.timeline(run.began),
            transfers_refused: tally.refused,
            errors: tally.errors,
            unknown_resolved: tally.unknown_resolved,
            unknown_left: tally.unknown_left,
            by_endpoint: tally.by_endpoint,
            journal: arguments.journal.as_ref().map(|path| path.display().to_string()),
        }
    }

    pub fn verdict(&self) -> Result<(), Failure> {
        if self.unknown_left > 0 {
            let message = format!("{} request(s) were given up with an unknown outcome", self.unknown_left);
            return Err(Failure::new(Kind::OutcomeUnknown, message).advise("give them longer with --patience"));
        }
        if self.requests + self.reads == 0 {
            return Err(Failure::new(Kind::Unavailable, "no request was answered")
                .advise("see which nodes answer: jangbu cluster health"));
        }
        Ok(())
    }

    pub fn text(&self) -> String {
        let rate = |count: u64, per_second: f64| format!("{} ({per_second:.0} a second)", text::grouped(count));
        let mut pairs = vec![
            ("transfers acknowledged", rate(self.transfers_acknowledged, self.transfers_per_second)),
            ("requests", text::grouped(self.requests)),
            ("latency", self.latency.text()),
            ("longest pause", self.longest_pause.text()),
        ];
        if self.reads > 0 {
            pairs.push(("inquiries", rate(self.reads, self.reads_per_second)));
            pairs.push(("their latency", self.read_latency.text()));
        }
        let counts = |name, counts: &BTreeMap<&'static str, u64>| {
            let text = |(kind, count): (&&str, &u64)| (name, format!("{kind}: {}", text::grouped(*count)));
            counts.iter().map(text).collect::<Vec<_>>()
        };
        let through = |(endpoint, count): (&String, &u64)| format!("{endpoint}: {}", text::grouped(*count));
        pairs.extend(self.by_endpoint.iter().map(|entry| ("acknowledged through", through(entry))));
        pairs.extend(counts("refused", &self.transfers_refused));
        pairs.extend(counts("asked again after", &self.errors));
        pairs.push(("unknown, then resolved", text::grouped(self.unknown_resolved)));
        if self.unknown_left > 0 {
            pairs.push(("unknown, given up", text::grouped(self.unknown_left)));
        }
        output::pairs(pairs)
    }
}
