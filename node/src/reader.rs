//! Reads: linearizable, or stale and saying so.
//!
//! A linearizable read asks how far the leader had committed at some moment after the read was asked (ReadIndex: the
//! leader confirms with a quorum that it still leads), waits until that is applied here, and answers from here. One
//! such round serves all reads that wait when it starts; a read that comes later waits for the next one.
//!
//!     reads --> waiting --> round: leader confirms with a quorum --> index --> applied here? --> answer
//!
//! The same rounds are the measure of staleness. A round asked at this node's time t and answered with index R says: all
//! that was committed before t is within R. So once R is applied, this state was the newest at t or later. A read tells the
//! age of the state it saw, which another round may have overtaken by the time that it is answered. Nothing else
//! is trusted for that: a heartbeat may have lain in a buffer for a minute, or come from a leader that was deposed.
//!
//! Laws
//! * A read never uses a round that started before it was asked.
//! * The staleness told is an upper bound, measured with this node's monotonic clock alone.
//!
//! Not here: the state itself (`raft_store::StateReader`).

use jangbu_ledger::planted::{self, Bug};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jangbu_proto::{cluster::v1::ReadIndexRequest, convert::Consistency, entry::NodeInfo, jangbu::v1::ReadAt, reason};
use jangbu_raft_store::{AppliedPoint, LogId, Raft};
use openraft::{ReadPolicy, errors::RaftError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Request;

use crate::{
    applied::AppliedIndex,
    config::Limits,
    error::CallError,
    leadership::{self, Leadership, Route},
    metrics::{self, Metrics},
    peers::{Peers, Purpose, convert},
};

/// Rounds on their way at once. More than one, so that a slow round doesn't hold up the reads after it.
const ROUNDS_MAX: usize = 4;

/// Between attempts of one round while no leader can be confirmed.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// `ReadAt.staleness_ns` of a node that has not heard from a leader since it started.
const STALENESS_UNKNOWN: u64 = u64::MAX;

pub struct Reader {
    rounds: mpsc::UnboundedSender<Waiter>,
    applied: AppliedIndex,
    leadership: watch::Receiver<Leadership>,
    fresh: Mutex<Option<Confirmed>>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A round's answer.
#[derive(Debug, Clone, Copy)]
struct Confirmed {
    /// When the round was asked.
    asked: Instant,
    /// All that was committed before then is within this.
    read_log_id: LogId,
}

struct Waiter {
    deadline: Instant,
    answer: oneshot::Sender<Confirmed>,
}

/// Leave to read what is applied here now.
pub struct Pass {
    consistency: Consistency,
    /// The newest round whose index was applied when leave was given: what is read from then on is at least as fresh.
    fresh: Option<Confirmed>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// Starts the rounds; they end with `stop`. Needs a runtime.
    #[expect(clippy::too_many_arguments, reason = "called once, by the room that builds all of these")]
    pub fn start(
        raft: Raft,
        peers: Arc<Peers>,
        applied: AppliedIndex,
        leadership: watch::Receiver<Leadership>,
        limits: &Limits,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let freshness_interval = peers.common.timings.freshness_interval;
        let (rounds, waiters) = mpsc::unbounded_channel();
        let asker = Asker { raft, peers, leadership: leadership.clone() };
        tasks.spawn(run_rounds(asker, waiters, tasks.clone(), stop.clone()));
        let reader = Arc::new(Self {
            rounds,
            applied,
            leadership,
            fresh: Mutex::default(),
            places: Arc::new(Semaphore::new(limits.reads_max)),
            metrics,
        });
        tasks.spawn(reader.clone().stay_fresh(freshness_interval, stop));
        reader
    }

    /// Leave to read with this consistency, or why not. Linearizable reads block on a quorum.
    pub async fn admit(&self, consistency: Consistency, deadline: Instant) -> Result<Pass, CallError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            self.metrics.shed(metrics::READS);
            CallError::Overloaded { what: "reads in flight", retry_after: Duration::from_millis(50) }
        })?;
        match consistency {
            Consistency::Local => {}
            Consistency::Linearizable if planted::is(Bug::ReadWithoutReadIndex) => {}
            Consistency::Linearizable if planted::is(Bug::ReadIndexReused) && self.staleness().is_some() => {}
            Consistency::Linearizable => self.catch_up(deadline).await?,
            Consistency::BoundedStaleness(max) => {
                // A round is cheap; waiting for one that no leader answers is not what was asked for.
                if self.staleness().is_none_or(|staleness| staleness > max) {
                    let _ = self.catch_up(deadline.min(Instant::now() + max)).await;
                }
                check_staleness(self.staleness(), max)?;
            }
        }
        Ok(Pass { consistency, fresh: self.fresh(), _place: place })
    }

    /// What a linearizable read waits for, without taking a reader's place: a node with much to do is still ready. Blocks on a
    /// quorum.
    pub async fn prove(&self, deadline: Instant) -> Result<(), CallError> {
        self.catch_up(deadline).await
    }

    /// What the answer to a read says about its freshness, or that it has become too stale after all.
    pub fn read_at(&self, pass: &Pass, at: &AppliedPoint) -> Result<ReadAt, CallError> {
        let staleness = || staleness_of(newest_covered(self.fresh(), pass.fresh, at.log_index));
        let staleness_ns = match pass.consistency {
            Consistency::Linearizable => 0,
            Consistency::Local => in_ns(staleness()),
            Consistency::BoundedStaleness(max) => {
                check_staleness(staleness(), max)?;
                in_ns(staleness())
            }
        };
        Ok(ReadAt { log_index: at.log_index, term: at.term, timestamp: at.timestamp, staleness_ns })
    }

    /// How long ago, at most, the state here was the newest. `None`: not known since the start.
    pub fn staleness(&self) -> Option<Duration> {
        staleness_of(self.fresh())
    }

    pub fn staleness_ns(&self) -> u64 {
        in_ns(self.staleness())
    }

    /// An index within which is all that was committed before this call. Blocks on a quorum.
    pub async fn confirm(&self, deadline: Instant) -> Result<LogId, CallError> {
        Ok(self.round(deadline).await?.read_log_id)
    }

    /// Waits until all that was committed before this call is applied here. Blocks on a quorum.
    async fn catch_up(&self, deadline: Instant) -> Result<(), CallError> {
        let confirmed = self.round(deadline).await?;
        if !self.applied.reached(confirmed.read_log_id.index, deadline).await {
            return Err(CallError::unavailable(reason::STALE, "this replica has yet to catch up; ask another"));
        }
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_none_or(|fresh| fresh.asked < confirmed.asked) {
            *fresh = Some(confirmed);
        }
        Ok(())
    }

    async fn round(&self, deadline: Instant) -> Result<Confirmed, CallError> {
        let (answer, confirmed) = oneshot::channel();
        self.rounds.send(Waiter { deadline, answer }).map_err(|_| crate::admission::shutting_down())?;
        match timeout_at(deadline, confirmed).await {
            Ok(Ok(confirmed)) => Ok(confirmed),
            _ => Err(self.unconfirmed()),
        }
    }

    fn unconfirmed(&self) -> CallError {
        match self.leadership.borrow().route() {
            Route::Unknown => CallError::unavailable(reason::NO_LEADER, "no leader is known; local reads go on"),
            _ => CallError::unavailable(reason::NO_QUORUM, "no leader could confirm that it leads; local reads go on"),
        }
    }

    fn fresh(&self) -> Option<Confirmed> {
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the staleness known and small while nobody reads.
    async fn stay_fresh(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if self.staleness().is_none_or(|staleness| staleness >= every) && self.leadership.borrow().leader.is_some()
            {
                // A replica that applies slowly still gets there: give it time before asking again.
                let _ = self.catch_up(Instant::now() + every * 20).await;
            }
        }
    }
}

/// The newest round that a read covers. The one that was confirmed last may have asked for more than had been read by then.
fn newest_covered(last: Option<Confirmed>, at_admission: Option<Confirmed>, log_index: u64) -> Option<Confirmed> {
    last.filter(|last| last.read_log_id.index <= log_index).or(at_admission)
}

fn staleness_of(fresh: Option<Confirmed>) -> Option<Duration> {
    fresh.map(|fresh| fresh.asked.elapsed())
}

fn in_ns(staleness: Option<Duration>) -> u64 {
    if planted::is(Bug::StaleSaysFresh) {
        return 0;
    }
    staleness.map_or(STALENESS_UNKNOWN, |staleness| staleness.as_nanos() as u64)
}

fn check_staleness(staleness: Option<Duration>, max: Duration) -> Result<(), CallError> {
    match staleness {
        Some(staleness) if staleness <= max => Ok(()),
        staleness => {
            let told = staleness.map_or("of unknown age".to_owned(), |staleness| format!("up to {staleness:?} old"));
            Err(CallError::unavailable(reason::STALE, format!("the state here is {told}; {max:?} was asked for")))
        }
    }
}

async fn run_rounds(
    asker: Asker,
    mut waiters: mpsc::UnboundedReceiver<Waiter>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let asker = Arc::new(asker);
    let (ended, mut endings) = mpsc::unbounded_channel::<()>();
    let mut on_their_way = 0;
    let mut waiting: Vec<Waiter> = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(()) = endings.recv() => on_their_way -= 1,
            Some(waiter) = waiters.recv() => {
                waiting.push(waiter);
                while let Ok(waiter) = waiters.try_recv() {
                    waiting.push(waiter);
                }
            }
        }
        if on_their_way < ROUNDS_MAX && !waiting.is_empty() {
            on_their_way += 1;
            let (asker, waiters, ended) = (asker.clone(), std::mem::take(&mut waiting), ended.clone());
            tasks.spawn(async move {
                asker.round(waiters).await;
                let _ = ended.send(());
            });
        }
    }
}

/// Asks the leader, wherever it is.
struct Asker {
    raft: Raft,
    peers: Arc<Peers>,
    leadership: watch::Receiver<Leadership>,
}

impl Asker {
    /// Answers those who wait, once a leader is confirmed; gives up when none of them waits any more.
    async fn round(&self, waiters: Vec<Waiter>) {
        let deadline = waiters.iter().map(|waiter| waiter.deadline).max().expect("a round has waiters");
        let confirmed = timeout_at(deadline, self.confirmed(deadline)).await;
        let Ok(Some(confirmed)) = confirmed else { return };
        for waiter in waiters {
            let _ = waiter.answer.send(confirmed);
        }
    }

    async fn confirmed(&self, deadline: Instant) -> Option<Confirmed> {
        let mut leadership = self.leadership.clone();
        loop {
            let route = leadership::known(&mut leadership, deadline).await?;
            let asked = Instant::now();
            let read_log_id = match route {
                Route::Here => self.ask_here().await,
                Route::There(id, node) => self.ask_there(id, &node, deadline).await,
                Route::Unknown => None,
            };
            match read_log_id {
                Some(read_log_id) => return Some(Confirmed { asked, read_log_id }),
                None => sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn ask_here(&self) -> Option<LogId> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read_log_id, _applied)) => Some(*read_log_id.log_id()),
            // No leader any more, or no quorum in time: both may change.
            Err(RaftError::APIError(_)) => None,
            Err(RaftError::Fatal(_)) => std::future::pending().await,
        }
    }

    async fn ask_there(&self, id: u64, node: &NodeInfo, deadline: Instant) -> Option<LogId> {
        let link = self.peers.link(id, node, Purpose::Control);
        // A leader that doesn't answer may be dead: look again who leads before the deadline is used up.
        let limit = deadline.saturating_duration_since(Instant::now()).min(self.peers.common.timings.election_max * 2);
        let mut request = Request::new(ReadIndexRequest { envelope: Some(link.envelope()) });
        request.set_timeout(limit);
        let reply = tokio::time::timeout(limit, link.client().ok()?.read_index(request)).await.ok()?;
        let read_log_id = reply.ok()?.into_inner().read_log_id?;
        Some(convert::log_id_from_wire(read_log_id))
    }
}

#[cfg(test)]
mod tests {
    use jangbu_raft_store::log_id;

    use super::*;

    /// Found by seed 20948: the read had seen entry 2555; while its answer was on its way a round confirmed entry 2562.
    #[test]
    fn a_read_tells_the_age_of_what_it_saw_and_not_of_what_was_applied_since() {
        let now = Instant::now();
        let confirmed =
            |ago_ms, index| Confirmed { asked: now - Duration::from_millis(ago_ms), read_log_id: log_id(1, 1, index) };
        let asked = |last, at_admission, log_index| newest_covered(last, at_admission, log_index).map(|it| it.asked);
        let (older, newer) = (confirmed(90, 2_550), confirmed(6, 2_562));
        assert_eq!(asked(Some(newer), Some(older), 2_555), Some(older.asked));
        assert_eq!(asked(Some(newer), Some(older), 2_562), Some(newer.asked));
        assert_eq!(asked(Some(newer), None, 2_555), None);
    }
}
