//! Real time: who was answered before another asked must not come after it in the log.
//!
//! One sweep over all calls in the order of asking, with the newest log time that anyone had been told by then.
//!
//! Laws
//! * A write that was asked after an answer is ordered after what that answer told of.
//! * A linearizable read sees every write acknowledged, and every read answered, before it was asked.
//! * A stale read sees all that was acknowledged longer ago than it says it is stale, and is within the bound it was given.

use super::{
    Violation,
    records::{Answer, Call, Level},
};

pub(super) fn check(history: &[Call], told: &Told, silent: &[(u64, usize)], violations: &mut Vec<Violation>) {
    for (index, call) in history.iter().enumerate() {
        let mut violate = |law, text| violations.push(Violation { law, text, call: Some(index) });
        let known = told.before(call.invoked_ns);
        match &call.answer {
            Answer::Written { timestamp, log_index, .. } if *timestamp <= known.timestamp => violate(
                "a_write_comes_after_what_was_answered",
                format!(
                    "written at log index {log_index}, log time {timestamp}; before it was asked, {} had been told",
                    known.timestamp
                ),
            ),
            Answer::Read { timestamp, log_index, staleness_ns, .. } => match call.level {
                Level::Linearizable if *timestamp < known.timestamp || *log_index < known.log_index => violate(
                    "a_linearizable_read_sees_what_was_answered",
                    format!(
                        "read at log index {log_index}, log time {timestamp}; before it was asked, index {} and time {} had been told",
                        known.log_index, known.timestamp
                    ),
                ),
                Level::Linearizable => {}
                Level::Bounded { .. } | Level::Local => {
                    let known = told.before(call.invoked_ns.saturating_sub(*staleness_ns));
                    if *timestamp < known.timestamp {
                        violate(
                            "a_stale_read_is_no_staler_than_it_says",
                            format!(
                                "read at log time {timestamp}, said to be at most {staleness_ns} ns stale; that long before it was asked, {} had been told",
                                known.timestamp
                            ),
                        );
                    }
                    if let Level::Bounded { max_ms } = call.level
                        && *staleness_ns > u64::from(max_ms) * 1_000_000
                    {
                        violate(
                            "a_stale_read_is_within_its_bound",
                            format!("{staleness_ns} ns stale, at most {max_ms} ms were asked for"),
                        );
                    }
                }
            },
            _ => {}
        }
    }
    for &(timestamp, call) in silent {
        let known = told.before(history[call].invoked_ns);
        if timestamp <= known.timestamp {
            violations.push(Violation {
                law: "a_write_comes_after_what_was_answered",
                text: format!(
                    "took effect at log time {timestamp}; before it was asked, {} had been told",
                    known.timestamp
                ),
                call: Some(call),
            });
        }
    }
}

/// The newest that anyone had been told, by real time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) timestamp: u64,
    log_index: u64,
}

pub(super) struct Told {
    /// (answered at, newest of all answers up to then), ascending.
    by_time: Vec<(u64, Known)>,
}

impl Told {
    pub(super) fn new(history: &[Call]) -> Self {
        let mut answers: Vec<(u64, Known)> = history
            .iter()
            .filter_map(|call| match call.answer {
                Answer::Written { log_index, timestamp, .. } | Answer::Read { log_index, timestamp, .. } => {
                    Some((call.answered_ns, Known { timestamp, log_index }))
                }
                _ => None,
            })
            .collect();
        answers.sort_by_key(|(at, _)| *at);
        let mut newest = Known::default();
        for (_, known) in &mut answers {
            newest.timestamp = newest.timestamp.max(known.timestamp);
            newest.log_index = newest.log_index.max(known.log_index);
            *known = newest;
        }
        Self { by_time: answers }
    }

    /// What had been told strictly before this time.
    pub(super) fn before(&self, ns: u64) -> Known {
        let next = self.by_time.partition_point(|(at, _)| *at < ns);
        next.checked_sub(1).map_or(Known::default(), |last| self.by_time[last].1)
    }
}
