//! What processes use, as Linux tells it in /proc.
//!
//! A replica is a process and all that it started: PostgreSQL works with one process per connection.

use std::fs;

/// Ticks of CPU time in a second, as in every Linux of today on the machines that we know.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a replica has used since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// Handed to the disk, as the kernel counts it.
    pub bytes_written: u64,
    /// In memory now; what processes share is counted once.
    pub memory_bytes: u64,
}

impl Usage {
    /// Of a process and its descendants.
    pub fn of_tree(root: u32) -> Usage {
        let mut sum = Usage::default();
        for pid in tree(root) {
            sum.cpu_seconds += cpu_seconds(pid).unwrap_or(0.0);
            sum.bytes_written += field(&format!("/proc/{pid}/io"), "write_bytes:").unwrap_or(0);
            sum.memory_bytes += field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0) * 1_024;
        }
        sum
    }

    /// What was used from `before` to now; memory as it is now.
    pub fn since(self, before: Usage) -> Usage {
        Usage {
            cpu_seconds: (self.cpu_seconds - before.cpu_seconds).max(0.0),
            bytes_written: self.bytes_written.saturating_sub(before.bytes_written),
            memory_bytes: self.memory_bytes,
        }
    }
}

/// A process and its descendants, itself first.
pub fn tree(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    pids
}

/// In user and kernel mode, of the process and of those of its children that have ended and were waited for.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_time_and_memory() {
        let pid = std::process::id();
        let before = Usage::of_tree(pid);
        let mut sum = 0u64;
        while Usage::of_tree(pid).since(before).cpu_seconds < 0.02 {
            sum = (0..1_000_000u64).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
        assert!(Usage::of_tree(pid).memory_bytes > 100_000);
    }

    #[test]
    fn a_process_that_has_ended_uses_nothing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(Usage::of_tree(pid), Usage::default());
    }
}
