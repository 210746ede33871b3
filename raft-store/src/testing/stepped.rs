//! Lanes that do their work when the test says so, on the test's own thread.
//!
//! So a test decides what was queued before a sync and what after, and a run can be repeated.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::blocking::{Blocking, Lane, Work};

#[derive(Clone, Default)]
pub struct Stepped(Arc<Mutex<VecDeque<(Lane, Work)>>>);

impl Stepped {
    /// Does the oldest piece of work of `lane`. False if there is none.
    pub fn step(&self, lane: Lane) -> bool {
        let work = {
            let mut waiting = self.0.lock().expect("work is not done under this lock");
            let place = waiting.iter().position(|(other, _)| *other == lane);
            place.and_then(|place| waiting.remove(place))
        };
        work.map(|(_, work)| work()).is_some()
    }

    /// Does all work, and what follows from it, in the order in which it was handed over.
    pub fn drain(&self) {
        loop {
            let next = self.0.lock().expect("work is not done under this lock").pop_front();
            match next {
                Some((_, work)) => work(),
                None => return,
            }
        }
    }

    /// Forgets all work: the process has died.
    pub fn clear(&self) {
        let forgotten = std::mem::take(&mut *self.0.lock().expect("work is not done under this lock"));
        drop(forgotten);
    }

    /// Polls `future` to its end, doing all work meanwhile.
    pub async fn finish<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = std::future::ready(()) => self.drain(),
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Blocking for Stepped {
    fn run(&self, lane: Lane, work: Work) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move || {
            work();
            let _nobody_may_wait = sender.send(());
        });
        self.0.lock().expect("work is not done under this lock").push_back((lane, work));
        Box::pin(async move { receiver.await.expect("a test that forgets work awaits none of it") })
    }
}
