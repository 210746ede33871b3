//! The client door: one gRPC service per file, and the one table from errors to codes.
//!
//! Not here: batching, forwarding and reading, which the services only call; the peer door (`peers/service.rs`).

pub mod ledger;
pub mod operator;
pub mod status;
pub mod submit;

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::config::Limits;

/// Kept back from a caller's deadline, so that the answer still reaches it: its own clock ends the call otherwise, and it
/// never learns whether anything was done.
const ANSWER_MARGIN_MAX: Duration = Duration::from_millis(20);

/// When a call must be answered: what its caller says, or the default; capped.
pub fn deadline(metadata: &MetadataMap, limits: &Limits) -> Instant {
    let left = match time_left(metadata) {
        Some(left) => left - ANSWER_MARGIN_MAX.min(left / 10),
        None => limits.deadline_default(),
    };
    Instant::now() + left.min(limits.deadline_max())
}

/// The header `grpc-timeout`: up to eight digits and a unit.
pub fn time_left(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(text: &str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        time_left(&metadata)
    }

    #[test]
    fn a_timeout_is_read_in_all_its_units() {
        assert_eq!(left("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(left("250m"), Some(Duration::from_millis(250)));
        assert_eq!(left("99999999n"), Some(Duration::from_nanos(99_999_999)));
    }

    #[test]
    fn a_timeout_that_makes_no_sense_is_none() {
        for text in ["", "5", "m", "123456789S", "-1S", "5x"] {
            assert_eq!(left(text), None, "{text}");
        }
    }
}
