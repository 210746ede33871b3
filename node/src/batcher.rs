//! Gathers what many callers ask into few entries, bounded in size and in wait.
//!
//!     callers -> admission -> queues by class -> one entry -+- proposer   (the leader is here)
//!                                 ^                         +- forwarder  (it is elsewhere)
//!                                 +------ provably not proposed ------+
//!
//! A lone caller pays no wait: with nothing in flight, what is there goes at once, together with whatever is just coming
//! in, and with those who were just answered if they come back at once (`waves.rs`). While an entry is in flight others
//! gather, until it is answered, or the next entry is full, or the first of them has waited half as long as an entry takes.
//! So ten thousand callers with one transfer each cost about as much as one caller with ten thousand.
//!
//! What was provably not proposed (no leader, a leader that isn't one any more, a connection refused) goes back to the
//! front of its queue and is tried again until its deadline. Everything else is answered: applied, or unknown. Trying
//! an unknown one again here would be safe for the money, but its first attempt could then be answered `exists`, as if
//! somebody else had made it; so the caller, who knows what it did before, is told instead.
//!
//! Laws
//! * A work is proposed only if its caller still waits: the caller gives up, or the batcher claims it, never both
//!   ([`Ticket`]). So `NOT_PROPOSED` is the truth.
//! * A request keeps its borders, and a work's requests stay together in one entry.
//!
//! Not here: what is let in (`admission.rs`), stamping (`proposer.rs`).

use jangbu_ledger::planted::{self, Bug};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use jangbu_proto::{
    batch::{BatchBuilder, EVENTS_MAX, ReplyView, RequestView},
    reason,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Admission, CLASSES, Class, Permit, shutting_down},
    config::Limits,
    error::CallError,
    forwarder::Forwarder,
    leadership::{Leadership, Route},
    metrics::Metrics,
    proposer::Proposer,
    traces::{HANDED_ON_MAX, Milestones, Stretch, Trail},
    waves::Waves,
};

/// The size of one entry, its headers included: a full request of 8,189 events fits.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// How often those whose callers gave up are swept out while nothing can be sent off: they must not fill the room.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// How often the tasks of callers who come at the same time get their turn before an entry is cut.
const TURNS_MAX: usize = 8;

/// After an attempt that was not proposed, the next one waits for news of a leader, or for so long.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What a work's requests were answered with, and where.
#[derive(Debug, Clone)]
pub struct Applied {
    pub log_index: u64,
    pub term: u64,
    /// One per request, in order.
    pub replies: Vec<ReplyView>,
}

/// How one attempt to get an entry into the log ended.
pub enum Outcome {
    Applied(Applied),
    /// Provably not in any log; it may be tried again.
    NotProposed,
    /// Not in any log, and there is no use in trying again.
    Refused(CallError),
    /// It may or may not be in the log.
    Unknown,
}

/// The way in, for the API and for peers that forward. Cheap to clone.
#[derive(Clone)]
pub struct Batcher {
    admission: Arc<Admission>,
    inbox: mpsc::UnboundedSender<Work>,
    leadership: watch::Receiver<Leadership>,
}

impl Batcher {
    /// Starts the batcher; it ends with `stop`. Needs a runtime.
    pub fn start(
        limits: &Limits,
        admission: Arc<Admission>,
        leadership: watch::Receiver<Leadership>,
        way_out: WayOut,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        // Unbounded, because admission bounds what can be in it.
        let (inbox, works) = mpsc::unbounded_channel();
        let (finished_sender, finished) = mpsc::unbounded_channel();
        let gatherer = Gatherer {
            queues: Default::default(),
            waiting: Size::default(),
            in_flight: 0,
            epoch: 0,
            paused_until: None,
            swept_at: Instant::now(),
            gather_max: limits.gather_max(),
            entry_takes: Duration::ZERO,
            waves: Waves::default(),
            in_flight_max: limits.entries_in_flight_max,
            admission: admission.clone(),
            leadership: leadership.clone(),
            way_out: Arc::new(way_out),
            metrics,
            tasks: tasks.clone(),
            finished_sender,
        };
        tasks.spawn(gatherer.run(works, finished, stop));
        Self { admission, inbox, leadership }
    }

    /// Has the requests applied in one entry, in order, before `deadline`. Blocks on a quorum.
    pub async fn submit(
        &self,
        requests: Vec<RequestView>,
        deadline: Instant,
        trail: Trail,
    ) -> Result<Applied, CallError> {
        let size = Size::of(&requests);
        let class = Class::of(&requests);
        let permit = self.admission.admit(class, requests.len(), size.bytes)?;
        let ticket = Ticket::new();
        let (reply, answer) = oneshot::channel();
        let caller = Caller(ticket.clone());
        let arrived = Instant::now();
        let work = Work { requests, size, class, arrived, deadline, ticket, reply, trail, _permit: permit };
        self.inbox.send(work).map_err(|_| shutting_down())?;
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(answer) => answer,
                Err(_) => Err(self.unanswered(&caller, deadline)),
            },
            () = sleep_until(deadline) => Err(self.unanswered(&caller, deadline)),
        }
    }

    /// What can be said of a work that gets no answer any more.
    fn unanswered(&self, caller: &Caller, deadline: Instant) -> CallError {
        if !caller.give_up() {
            return CallError::OutcomeUnknown;
        }
        if Instant::now() < deadline {
            return shutting_down();
        }
        match self.leadership.borrow().route() {
            Route::Unknown => CallError::unavailable(reason::NO_LEADER, "no leader is known; nothing was done"),
            // The one that was the leader can't be reached, or has lost its quorum.
            _ if caller.0.was_given_back.load(Ordering::Acquire) => {
                CallError::unavailable(reason::NO_QUORUM, "no leader could take it in time; nothing was done")
            }
            Route::Here | Route::There(..) => CallError::NotProposed,
        }
    }
}

/// Requests that go into the log together, and who waits for them.
struct Work {
    requests: Vec<RequestView>,
    size: Size,
    class: Class,
    arrived: Instant,
    deadline: Instant,
    ticket: Arc<Ticket>,
    reply: oneshot::Sender<Result<Applied, CallError>>,
    trail: Trail,
    _permit: Permit,
}

/// How much it is. Events and bytes count against the bounds of an entry.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    requests: usize,
    events: usize,
    bytes: usize,
}

impl Size {
    fn of(requests: &[RequestView]) -> Self {
        Self {
            requests: requests.len(),
            events: requests.iter().map(|request| request.events_count as usize).sum(),
            bytes: requests.iter().map(|request| BatchBuilder::bytes_of(request.records.len())).sum(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            events: self.events + other.events,
            bytes: self.bytes + other.bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests - other.requests,
            events: self.events - other.events,
            bytes: self.bytes - other.bytes,
        }
    }

    fn fits_one_entry(self) -> bool {
        self.events <= EVENTS_MAX && self.bytes <= ENTRY_BYTES_MAX
    }
}

/// Who may decide about a work: it waits until either its caller gives up or the batcher claims it for an entry.
struct Ticket {
    state: AtomicU8,
    /// An attempt was made, and provably not proposed.
    was_given_back: AtomicBool,
}

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Ticket {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(WAITING), was_given_back: AtomicBool::new(false) })
    }

    fn claim(&self) -> bool {
        self.turn(WAITING, CLAIMED)
    }

    fn is_given_up(&self) -> bool {
        self.state.load(Ordering::Acquire) == GIVEN_UP
    }

    /// The attempt was provably not proposed.
    fn give_back(&self) {
        self.was_given_back.store(true, Ordering::Release);
        assert!(self.turn(CLAIMED, WAITING), "only a claimed work is given back");
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The caller's hold on its ticket. A caller that goes away gives up, too.
struct Caller(Arc<Ticket>);

impl Caller {
    /// True if nothing was or will be proposed.
    fn give_up(&self) -> bool {
        self.0.turn(WAITING, GIVEN_UP)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Where entries go.
pub struct WayOut {
    pub proposer: Arc<Proposer>,
    pub forwarder: Arc<Forwarder>,
}

impl WayOut {
    /// Gets the body into the log, here or at the leader. Blocks on a quorum, at most until `deadline`.
    async fn send(
        &self,
        route: Route,
        builder: BatchBuilder,
        traceparents: Vec<String>,
        milestones: Option<Arc<Milestones>>,
        deadline: Instant,
    ) -> Outcome {
        let attempt = async {
            match route {
                Route::Here => self.proposer.propose(builder, milestones).await,
                Route::There(id, node) => self.forwarder.forward(id, &node, builder, traceparents, deadline).await,
                Route::Unknown => Outcome::NotProposed,
            }
        };
        timeout_at(deadline, attempt).await.unwrap_or(Outcome::Unknown)
    }
}

struct Finished {
    epoch: u64,
    requests_count: usize,
    took: Duration,
    /// Not proposed, in the order they were in.
    returned: Vec<Work>,
}

struct Gatherer {
    queues: [VecDeque<Work>; CLASSES],
    /// All that is in the queues.
    waiting: Size,
    /// Of this epoch.
    in_flight: usize,
    /// Counts the leaders seen. What is in flight to a leader of the past holds up nobody.
    epoch: u64,
    paused_until: Option<Instant>,
    swept_at: Instant,
    gather_max: Duration,
    /// From launch to answer, as it has been lately.
    entry_takes: Duration,
    waves: Waves,
    in_flight_max: usize,
    admission: Arc<Admission>,
    leadership: watch::Receiver<Leadership>,
    way_out: Arc<WayOut>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    finished_sender: mpsc::UnboundedSender<Finished>,
}

impl Gatherer {
    async fn run(
        mut self,
        mut works: mpsc::UnboundedReceiver<Work>,
        mut finished: mpsc::UnboundedReceiver<Finished>,
        stop: CancellationToken,
    ) {
        loop {
            let wake = self.launch_what_is_due();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.leadership.changed() => match changed {
                    Ok(()) => self.begin_epoch(),
                    Err(_) => return,
                },
                Some(finished) = finished.recv() => self.finish(finished),
                Some(work) = works.recv() => {
                    self.enqueue(work);
                    self.enqueue_company(&mut works).await;
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Whoever comes at the same time goes along: their calls have been received, and their tasks wait for their turn.
    async fn enqueue_company(&mut self, works: &mut mpsc::UnboundedReceiver<Work>) {
        for _ in 0..TURNS_MAX {
            yield_now().await;
            let before = works.len();
            while let Ok(work) = works.try_recv() {
                self.enqueue(work);
            }
            if before == 0 || self.is_full() {
                return;
            }
        }
    }

    fn enqueue(&mut self, work: Work) {
        self.waiting = self.waiting.plus(work.size);
        self.queues[work.class as usize].push_back(work);
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.in_flight = 0;
        self.waves.forget();
        self.paused_until = None;
    }

    fn finish(&mut self, finished: Finished) {
        if finished.epoch == self.epoch {
            self.in_flight -= 1;
            self.entry_takes = (self.entry_takes * 3 + finished.took) / 4;
            if !finished.returned.is_empty() {
                self.paused_until = Some(Instant::now() + RETRY_PAUSE);
            } else if self.in_flight == 0 {
                let until = Instant::now() + self.entry_takes.min(self.gather_max);
                self.waves.answered(finished.requests_count, self.waiting.requests, until);
            }
        }
        for work in finished.returned.into_iter().rev() {
            self.waiting = self.waiting.plus(work.size);
            self.queues[work.class as usize].push_front(work);
        }
    }

    /// Sends off the entries whose time has come. Returns when to look again, if nothing happens before.
    fn launch_what_is_due(&mut self) -> Option<Instant> {
        let route = self.leadership.borrow().route();
        let wake = self.launch_by(&route);
        let known = !matches!(route, Route::Unknown);
        self.admission.set_oldest(self.oldest().filter(|_| known));
        wake
    }

    fn launch_by(&mut self, route: &Route) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let oldest = self.oldest()?;
            if matches!(route, Route::Unknown) || self.in_flight >= self.in_flight_max {
                return self.sweep(now);
            }
            if let Some(paused_until) = self.paused_until.filter(|until| *until > now) {
                return Some(paused_until);
            }
            let due = match self.in_flight {
                0 => self.waves.wait_until(self.waiting.requests, now).unwrap_or(now),
                _ => oldest + self.gather_max.min(self.entry_takes / 2),
            };
            if !self.is_full() && due > now {
                return Some(due);
            }
            let entry = self.cut(now);
            if !entry.is_empty() {
                self.launch(route.clone(), entry);
            }
        }
    }

    /// Drops those whose callers gave up, now and then. Returns when to look again, if anybody is left.
    fn sweep(&mut self, now: Instant) -> Option<Instant> {
        if self.swept_at + SWEEP_EVERY <= now {
            self.swept_at = now;
            for queue in &mut self.queues {
                queue.retain(|work| {
                    let given_up = work.ticket.is_given_up();
                    if given_up {
                        self.waiting = self.waiting.minus(work.size);
                    }
                    !given_up
                });
            }
        }
        self.oldest().map(|_| self.swept_at + SWEEP_EVERY)
    }

    fn oldest(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.front()).map(|work| work.arrived).min()
    }

    fn is_full(&self) -> bool {
        self.waiting.events >= EVENTS_MAX || self.waiting.bytes >= ENTRY_BYTES_MAX
    }

    /// The next entry: the soonest classes first, as much as fits. Works whose callers gave up are dropped on the way.
    fn cut(&mut self, now: Instant) -> Vec<Work> {
        let mut entry = Vec::new();
        let mut size = Size::default();
        for queue in &mut self.queues {
            while let Some(work) = queue.front() {
                if !size.plus(work.size).fits_one_entry() && !entry.is_empty() {
                    return entry;
                }
                let work = queue.pop_front().expect("it was just looked at");
                self.waiting = self.waiting.minus(work.size);
                // At its deadline a caller gives up by itself; what is as good as late isn't worth an entry.
                if work.deadline <= now || !work.ticket.claim() {
                    continue;
                }
                size = size.plus(work.size);
                entry.push(work);
            }
        }
        entry
    }

    fn launch(&mut self, route: Route, entry: Vec<Work>) {
        self.in_flight += 1;
        let now = Instant::now();
        for work in &entry {
            self.metrics.queue_wait.observe((now - work.arrived).as_secs_f64());
        }
        self.metrics.entry(entry.iter().map(|work| work.size.events).sum(), entry.len());
        let way_out = self.way_out.clone();
        let finished = self.finished_sender.clone();
        let epoch = self.epoch;
        let requests_count = entry.iter().map(|work| work.size.requests).sum();
        self.tasks.spawn(async move {
            let returned = settle(&way_out, route, entry).await;
            // The batcher may have stopped; then the works are dropped, and their callers told so.
            let _ = finished.send(Finished { epoch, requests_count, took: now.elapsed(), returned });
        });
    }
}

/// Sends one entry off and answers its works. Returns those that may be tried again.
async fn settle(way_out: &WayOut, route: Route, mut entry: Vec<Work>) -> Vec<Work> {
    let stretch = if let Route::Here = route { Stretch::Commit } else { Stretch::Forward };
    entry.iter_mut().for_each(|work| work.trail.enters(stretch));
    let traceparents: Vec<_> = entry.iter().flat_map(|work| work.trail.traceparents()).take(HANDED_ON_MAX).collect();
    let milestones = (!traceparents.is_empty()).then(Arc::<Milestones>::default);
    let deadline = entry.iter().map(|work| work.deadline).max().expect("an entry has works");
    let mut builder = BatchBuilder::new();
    for request in entry.iter().flat_map(|work| &work.requests) {
        builder.push(request.operation, &request.records);
    }
    let outcome = way_out.send(route, builder, traceparents, milestones.clone(), deadline).await;
    if let Some(milestones) = milestones {
        tell_trails(&mut entry, &milestones, &outcome);
    }
    match outcome {
        Outcome::Applied(applied) => {
            answer_each(entry, applied);
            Vec::new()
        }
        Outcome::NotProposed => {
            for work in &mut entry {
                work.ticket.give_back();
                work.trail.fails("not proposed; tried again");
                work.trail.enters(Stretch::Gather);
            }
            entry
        }
        Outcome::Refused(error) => answer_all(entry, &error),
        Outcome::Unknown => answer_all(entry, &CallError::OutcomeUnknown),
    }
}

/// What the traced calls among them are told of their entry.
fn tell_trails(entry: &mut [Work], milestones: &Milestones, outcome: &Outcome) {
    let requests_count: usize = entry.iter().map(|work| work.requests.len()).sum();
    for trail in entry.iter_mut().map(|work| &mut work.trail) {
        if let Outcome::Applied(applied) = outcome {
            trail.tells("jangbu.log_index", applied.log_index as i64);
            trail.tells("jangbu.term", applied.term as i64);
            trail.tells("jangbu.entry_requests", requests_count as i64);
        }
        trail.passes(milestones);
    }
}

fn answer_all(entry: Vec<Work>, error: &CallError) -> Vec<Work> {
    for mut work in entry {
        work.trail.fails(&error.to_string());
        let _ = work.reply.send(Err(error.clone()));
    }
    Vec::new()
}

/// Each work gets the replies to its own requests; they come in the order in which the requests went in.
fn answer_each(entry: Vec<Work>, applied: Applied) {
    let Applied { log_index, term, mut replies } = applied;
    if planted::is(Bug::BordersMixed) {
        replies.reverse();
    }
    let asked: usize = entry.iter().map(|work| work.requests.len()).sum();
    assert_eq!(asked, replies.len(), "an entry is answered request by request");
    let mut replies = replies.into_iter();
    for work in entry {
        let replies = replies.by_ref().take(work.requests.len()).collect();
        // A caller that went away misses its answer and nothing else.
        let _ = work.reply.send(Ok(Applied { log_index, term, replies }));
    }
}
