//! One client of a load: begins requests, and sees each to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jangbu_client::{Client, ClientError, PackedStream, StreamConfig};
use jangbu_ledger::{CreateResult, CreateTransferStatus, Transfer};

use super::Run;
use super::tally::Tally;
use super::workload::Workload;

pub struct Worker {
    run: Arc<Run>,
    client: Client,
    stream: Option<PackedStream>,
    endpoint: String,
    workload: Workload,
    tally: Tally,
}

/// Between attempts: long enough not to press, short against a failover.
const PAUSE: Duration = Duration::from_millis(20);

impl Worker {
    pub fn new(run: Arc<Run>, client: Client, endpoint: String, workload: Workload) -> Worker {
        let stream = run.arguments.packed.then(|| client.stream(StreamConfig::default()));
        Worker { run, client, stream, endpoint, workload, tally: Tally::new() }
    }

    pub async fn work(mut self) -> Tally {
        while let Some(intended) = self.run.next_request() {
            until(intended).await;
            if self.workload.is_read() {
                self.read(intended).await;
            } else {
                self.pay(intended).await;
            }
        }
        self.tally
    }

    async fn read(&mut self, intended: Instant) {
        let ids = self.workload.accounts_to_read();
        let give_up = Instant::now() + self.run.arguments.patience;
        while Instant::now() < give_up {
            match self.client.lookup_accounts(&ids).await {
                Ok(_) => return self.tally.read(intended, Instant::now()),
                Err(error) => self.after(&error).await,
            }
        }
    }

    /// Asks for the same transfers until their outcome is known.
    async fn pay(&mut self, intended: Instant) {
        let client = self.client.clone();
        let transfers = self.workload.transfers(|| client.next_id());
        let give_up = Instant::now() + self.run.arguments.patience;
        let mut is_unknown = false;
        loop {
            match self.ask(&transfers).await {
                Ok(results) => {
                    self.tally.unknown_resolved += u64::from(is_unknown);
                    return self.answered(intended, &transfers, &results);
                }
                Err(error) => {
                    is_unknown |= !error.nothing_was_done();
                    self.after(&error).await;
                }
            }
            if Instant::now() >= give_up {
                self.tally.unknown_left += u64::from(is_unknown);
                return;
            }
        }
    }

    async fn ask(&self, transfers: &[Transfer]) -> Result<Vec<CreateResult<CreateTransferStatus>>, ClientError> {
        let Some(stream) = &self.stream else {
            return self.client.create_transfers(transfers).await.map(|created| created.results);
        };
        stream.submit_transfers(transfers).await?.await?.results()
    }

    fn answered(&mut self, intended: Instant, asked: &[Transfer], results: &[CreateResult<CreateTransferStatus>]) {
        let mut acknowledged = Vec::with_capacity(asked.len());
        for (transfer, result) in asked.iter().zip(results) {
            match result.status {
                // An id is used for one body only, so `exists` is this very transfer, from an attempt whose answer was lost.
                CreateTransferStatus::Created | CreateTransferStatus::Exists => {
                    acknowledged.push(Transfer { timestamp: result.timestamp, ..*transfer });
                }
                refused => *self.tally.refused.entry(refused.name()).or_default() += 1,
            }
        }
        self.tally.answered(intended, Instant::now(), acknowledged.len() as u32);
        *self.tally.by_endpoint.entry(self.endpoint.clone()).or_default() += acknowledged.len() as u64;
        self.run.acknowledge(acknowledged.len() as u64);
        acknowledged.iter().for_each(|transfer| self.workload.acknowledged(transfer));
        if let Some(journal) = &self.run.journal
            && let Err(failure) = journal.acknowledged(&acknowledged)
        {
            // Without the journal nothing could be proven any more.
            crate::output::note(format!("the journal cannot be written: {failure}"));
            self.run.stop();
        }
    }

    async fn after(&mut self, error: &ClientError) {
        self.tally.error(kind(error), Instant::now());
        let pause = match error {
            ClientError::Overloaded { retry_after, .. } => (*retry_after).max(PAUSE),
            _ => PAUSE,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Doesn't sleep until a moment that has come: tokio's clock ticks in milliseconds, which is longer than a payment takes.
async fn until(at: Instant) {
    if at > Instant::now() {
        tokio::time::sleep_until(at.into()).await;
    }
}

fn kind(error: &ClientError) -> &'static str {
    match error {
        ClientError::Refused(_) => "malformed",
        ClientError::Overloaded { .. } => "overloaded",
        ClientError::Unavailable { .. } => "unavailable",
        ClientError::OutcomeUnknown { .. } => "outcome_unknown",
        ClientError::NotAllowed { .. } => "not_allowed",
        ClientError::Unintelligible(_) => "unintelligible",
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_request_that_is_due_waits_for_no_tick_of_the_clock() {
        assert_eq!(until(Instant::now()).now_or_never(), Some(()));
        assert_eq!(until(Instant::now() + Duration::from_secs(600)).now_or_never(), None);
    }
}
