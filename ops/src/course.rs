//! How far a command has come, so that one which is interrupted says what is done, what isn't, and what to type next.
//!
//! ```text
//!     a change is asked for  ──►  under way       a command that ends here doesn't know its outcome
//!     it is answered         ──►  done
//!     SIGINT, SIGTERM, SIGHUP ─►  the command's future is dropped, which takes away what it had made aside ──► last word
//! ```
//!
//! Commands tell their steps; none of them listens to signals. One that has to say goodbye itself (a follower that puts what it
//! has gathered, a demo that stops its nodes) asks for that with [`ends_by_itself`].
//!
//! A command that is too busy to be left is left after half a second (`BUSY_MAX`). One with a folder aside to take away, or with a
//! goodbye to say, has ten seconds beyond that (`PARTING_MAX`), and says that it takes them.
//!
//! Laws
//! * What was asked for and not answered is never said to be undone.
//! * A second signal ends the process there and then; so does the first if the command is too busy to hear it.
//! * A signal that whoever started us ignores (`nohup`, a script's background) stays ignored.
//!
//! Not here: what a killed process leaves. Files get their names when they are whole (`whole.rs`), folders by renaming.

use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::error::{Failure, Kind};
use crate::{output, whole};

/// A command that hasn't come to a place where it can be left is left all the same: whoever pressed Ctrl-C doesn't wait longer.
const BUSY_MAX: Duration = Duration::from_millis(500);

/// One that would leave something behind, or has to say goodbye, is waited for longer: a machine may be busy as well.
const PARTING_MAX: Duration = Duration::from_secs(10);

/// A process runs one command, and signals are the process's.
static COURSE: Mutex<Course> = Mutex::new(Course::NEW);

/// The first signal, once it has come.
static HEARD: LazyLock<watch::Sender<Option<Kind>>> = LazyLock::new(|| watch::Sender::new(None));

/// What is to be said if it ends here.
#[derive(Debug)]
struct Course {
    done: Vec<String>,
    /// Of work without steps: how much of it is there.
    so_far: Option<String>,
    under_way: Option<String>,
    next: Option<String>,
    ending: Option<&'static str>,
    /// After the signal, the command's future was left or ends by itself.
    is_left: bool,
}

impl Course {
    const NEW: Course =
        Course { done: Vec::new(), so_far: None, under_way: None, next: None, ending: None, is_left: false };

    fn told(&self) -> String {
        let done = (!self.done.is_empty()).then(|| format!("done: {}", self.done.join(", ")));
        let under_way = self.under_way.as_ref().map(|what| format!("asked for, not answered, perhaps done: {what}"));
        let told: Vec<String> = [done, self.so_far.clone(), under_way].into_iter().flatten().collect();
        if told.is_empty() { "nothing was changed".into() } else { told.join("; ") }
    }

    fn last_word(&self, signal: Kind) -> Failure {
        let next = self.next.as_deref().unwrap_or("type it again: what is done is not done twice");
        Failure::new(signal, format!("{}; {}", name(signal), self.told())).advise(next)
    }
}

fn course() -> MutexGuard<'static, Course> {
    COURSE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(signal: Kind) -> &'static str {
    match signal {
        Kind::HungUp => "hung up (SIGHUP)",
        Kind::Terminated => "told to end (SIGTERM)",
        _ => "interrupted",
    }
}

// --- what commands tell

/// A change that somebody else makes for us: under way until it is answered, then done or not.
pub async fn changes<T>(
    what: impl Into<String>,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let what = what.into();
    course().under_way = Some(what.clone());
    let answer = answer.await;
    course().under_way = None;
    if answer.is_ok() {
        done(what);
    }
    answer
}

/// A step is behind us.
pub fn done(what: impl Into<String>) {
    course().done.push(what.into());
}

/// How much is there, in the place of what was told before.
pub fn so_far(what: impl Into<String>) {
    course().so_far = Some(what.into());
}

/// What to type if it ends here; otherwise: the same once more.
pub fn next(what: impl Into<String>) {
    course().next = Some(what.into());
}

/// All that was done is taken back.
pub fn undone() {
    let mut course = course();
    *course = Course { ending: course.ending, is_left: course.is_left, ..Course::NEW };
}

/// For as long as this lives, a signal doesn't end the command: it hears of it, and ends by itself.
pub struct Ending(watch::Receiver<Option<Kind>>);

/// `finishing`: what it still does then, for whoever waits; empty if that is nothing.
pub fn ends_by_itself(finishing: &'static str) -> Ending {
    course().ending = Some(finishing);
    Ending(HEARD.subscribe())
}

impl Ending {
    /// Returns when a signal has come.
    pub async fn heard(&mut self) {
        // The sender is as old as the process.
        let _ = self.0.wait_for(Option::is_some).await;
    }

    pub async fn heard_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.heard()).await.is_ok()
    }

    /// The work's end, or the last word if a signal came before it.
    pub async fn or<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.heard() => Err(self.last_word()),
            done = work => done,
        }
    }

    /// `Err`: a signal has come, and this is the last word.
    pub fn check(&self) -> Result<(), Failure> {
        if self.0.borrow().is_some() { Err(self.last_word()) } else { Ok(()) }
    }

    /// Of a command that has heard.
    pub fn last_word(&self) -> Failure {
        course().last_word(self.0.borrow().unwrap_or(Kind::Interrupted))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        course().ending = None;
    }
}

// --- what listens

/// A command from its beginning to its end, whichever comes first: its own, or a signal's.
pub async fn follow(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::spawn(watch_over(listen()?));
    let mut heard = HEARD.subscribe();
    let mut command = Box::pin(command);
    let signal = tokio::select! {
        biased;
        ended = &mut command => {
            course().is_left = true;
            return ended;
        }
        signal = heard.wait_for(Option::is_some) => signal.ok().and_then(|signal| *signal).unwrap_or(Kind::Interrupted),
    };
    let ending = {
        let mut course = course();
        course.is_left = true;
        course.ending
    };
    if let Some(finishing) = ending {
        if !finishing.is_empty() {
            output::note(format!("{}: {finishing}; once more ends it at once", name(signal)));
        }
        return command.await;
    }
    drop(command);
    Err(course().last_word(signal))
}

/// Beside the command, which may be at work on its thread for long.
async fn watch_over(mut signals: mpsc::UnboundedReceiver<Kind>) {
    let Some(first) = signals.recv().await else { return };
    HEARD.send_replace(Some(first));
    tokio::select! {
        // None: the command has ended, and the runtime with it.
        Some(_) = signals.recv() => {}
        () = is_too_busy(first) => {}
    }
    let last_word = course().last_word(first);
    last_word.report();
    // SAFETY: it takes a number and doesn't return. The usual exit would tear down what other threads are at work with.
    unsafe { libc::_exit(last_word.kind as libc::c_int) }
}

async fn is_too_busy(signal: Kind) {
    sleep(BUSY_MAX).await;
    let has_more_to_do = {
        let course = course();
        !course.is_left && (course.ending.is_some() || whole::has_scratches())
    };
    if has_more_to_do {
        output::note(format!("{}: it ends as soon as it can; once more ends it at once", name(signal)));
        sleep(PARTING_MAX).await;
    }
    if course().is_left {
        std::future::pending().await
    }
}

fn listen() -> io::Result<mpsc::UnboundedReceiver<Kind>> {
    let (sender, signals) = mpsc::unbounded_channel();
    for kind in [Kind::HungUp, Kind::Interrupted, Kind::Terminated] {
        // By convention, 128 and the signal's number.
        let number = kind as i32 - 128;
        if is_ignored(number) {
            continue;
        }
        let (mut stream, sender) = (signal(SignalKind::from_raw(number))?, sender.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                let _ = sender.send(kind); // nobody left to tell
            }
        });
    }
    Ok(signals)
}

fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: all zeros is a lawful `sigaction`; the call writes one into it and, asked for no change, makes none.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_tells_what_is_done_what_may_be_and_what_to_type() {
        let mut course = Course::NEW;
        let told = |course: &Course| course.last_word(Kind::Interrupted).message;
        assert_eq!(told(&course), "interrupted; nothing was changed");
        course.under_way = Some("the removal of node 1".into());
        assert_eq!(told(&course), "interrupted; asked for, not answered, perhaps done: the removal of node 1");
        course.done = vec!["node 4 is a member".into(), "node 4 votes".into()];
        assert_eq!(
            told(&course),
            "interrupted; done: node 4 is a member, node 4 votes; asked for, not answered, perhaps done: the removal of node 1"
        );
        assert!(course.last_word(Kind::Terminated).advice.unwrap().contains("again"));
        course.next = Some("jangbu dev stop".into());
        assert_eq!(course.last_word(Kind::Terminated).advice.unwrap(), "jangbu dev stop");
    }
}
