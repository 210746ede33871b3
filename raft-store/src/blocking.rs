//! Where work that blocks is done: off the async threads, in lanes.
//!
//! [`Lanes`] gives each lane its own thread, so that a log write is one hop away and never waits behind a snapshot. The
//! simulator runs the same work inline after a simulated wait, because its disk is bound to the thread of the host.
//!
//! Laws
//! * Work is handed over when `run` is called, and is done even if nobody awaits the future.
//! * A lane does its work in the order it was handed over, one piece at a time; only [`Lane::Read`] is a pool without order.
//! * A panic in a lane ends the process: half-done disk work cannot be trusted, and nobody is left to report it.
//!
//! Not here: what the work is.

use std::{
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{Arc, Condvar, Mutex},
    thread,
};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

/// Disk reads of a log or state that is not in memory. A few, so that one slow scan does not hold up all others.
const READ_THREADS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The log's writes and syncs. Nothing else, ever: each acknowledged payment waits for this lane.
    Log,
    /// Log segments made ready before they are needed, and reused after.
    Spare,
    /// The state's flush to disk.
    Flush,
    /// Snapshots: built, sent, received, installed.
    Snapshot,
    /// What applying an entry asks of the disk: old ids. Its own, so that no query holds up a payment.
    Apply,
    /// Reads of what is not in memory, for whoever asks.
    Read,
    /// Reads of everything, to see whether it is still what was written. Nobody waits behind them.
    Scrub,
}

/// All there are, in the order of their numbers.
pub const LANES: [Lane; 7] =
    [Lane::Log, Lane::Spare, Lane::Flush, Lane::Snapshot, Lane::Apply, Lane::Read, Lane::Scrub];

impl Lane {
    /// Whether no payment waits for what is done here. For a flush one does, but only when the next is due before it is done; by then
    /// the node has nothing else to do.
    fn can_wait(self) -> bool {
        matches!(self, Lane::Spare | Lane::Flush | Lane::Snapshot | Lane::Scrub)
    }
}

/// How far the lanes that can wait go behind the others, where there are fewer processors than threads: a tenth of their share.
const NICENESS: i32 = 10;

/// Lets other threads go first, this one only.
fn give_way() {
    // SAFETY: it takes numbers and sets one of this thread's. That it fails where it is forbidden costs speed alone.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

pub type Work = Box<dyn FnOnce() + Send>;

pub trait Blocking: Send + Sync + 'static {
    /// Hands `work` to `lane`. The future is ready once it is done.
    fn run(&self, lane: Lane, work: Work) -> BoxFuture<'static, ()>;
}

/// [`Blocking::run`] with an answer. Blocks on the lane.
pub fn run_blocking<T: Send + 'static>(
    blocking: &dyn Blocking,
    lane: Lane,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let (sender, receiver) = oneshot::channel();
    let done = blocking.run(lane, Box::new(move || drop(sender.send(work()))));
    async move {
        done.await;
        receiver.await.expect("the lane says that it is done after the work has answered")
    }
}

/// One thread per lane; the real thing.
pub struct Lanes {
    queues: Vec<Arc<Queue>>,
}

/// A queue rather than a channel, because several threads take from [`Lane::Read`].
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    work: VecDeque<Work>,
    /// Threads that have nothing to do. Waking one is a call of the kernel, whether or not anybody sleeps.
    idle: usize,
    closed: bool,
}

impl Lanes {
    /// `name` starts the threads' names, so that `top -H` tells groups and nodes apart.
    pub fn new(name: &str) -> Self {
        let queues = LANES.map(|lane| {
            let queue = Arc::new(Queue::default());
            let threads = if lane == Lane::Read { READ_THREADS } else { 1 };
            for _ in 0..threads {
                let queue = queue.clone();
                thread::Builder::new()
                    .name(format!("{name}-{lane:?}").to_lowercase())
                    .spawn(move || {
                        if lane.can_wait() {
                            give_way();
                        }
                        queue.work();
                    })
                    .expect("a node that cannot start a handful of threads cannot start at all");
            }
            queue
        });
        Self { queues: queues.into() }
    }
}

impl Blocking for Lanes {
    fn run(&self, lane: Lane, work: Work) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        self.queues[lane as usize].push(Box::new(move || {
            work();
            let _nobody_may_wait = sender.send(());
        }));
        Box::pin(async move { receiver.await.expect("a lane does all that it was handed") })
    }
}

impl Drop for Lanes {
    /// The threads do what they were handed, then end.
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.close());
    }
}

impl Queue {
    fn push(&self, work: Work) {
        let mut waiting = self.waiting.lock().expect("no work is done under this lock");
        waiting.work.push_back(work);
        let is_awaited = waiting.idle > 0;
        drop(waiting);
        if is_awaited {
            self.changed.notify_one();
        }
    }

    fn close(&self) {
        self.waiting.lock().expect("no work is done under this lock").closed = true;
        self.changed.notify_all();
    }

    fn work(&self) {
        while let Some(work) = self.pop() {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                process::abort();
            }
        }
    }

    fn pop(&self) -> Option<Work> {
        let mut waiting = self.waiting.lock().expect("no work is done under this lock");
        loop {
            match waiting.work.pop_front() {
                Some(work) => return Some(work),
                None if waiting.closed => return None,
                None => {
                    waiting.idle += 1;
                    waiting = self.changed.wait(waiting).expect("no work is done under this lock");
                    waiting.idle -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_keeps_its_order_and_answers() {
        let lanes = Lanes::new("test");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answers: Vec<_> = (0..100)
            .map(|n| {
                let seen = seen.clone();
                run_blocking(&lanes, Lane::Log, move || {
                    seen.lock().unwrap().push(n);
                    n * 2
                })
            })
            .collect();
        assert_eq!(futures_util::future::join_all(answers).await, (0..100).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn work_that_nobody_awaits_is_done() {
        let lanes = Lanes::new("test");
        let (sender, receiver) = oneshot::channel();
        drop(lanes.run(Lane::Flush, Box::new(move || sender.send(7).unwrap())));
        drop(lanes);
        assert_eq!(receiver.await, Ok(7));
    }
}
