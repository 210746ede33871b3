//! Many runs: one child process for each, as many at a time as there are jobs.
//!
//! tokio's task ids are process-global and pick the order in which a crash drops tasks; a panic under turmoil's borrow ends in
//! an abort. So a run is a process, and a process that ends by a signal has failed.
//!
//! Not here: the run itself (`run.rs`).

#![expect(clippy::disallowed_methods, reason = "runs are processes, and these watch them in real time")]

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    faults::Plan,
    marks,
    run::{BrokenLaw, Outcome},
};

/// The line by which a child tells its outcome.
pub const OUTCOME_MARK: &str = "OUTCOME ";

/// Real time that one run may take before it is ended and has failed. It takes seconds; this is for a machine that is busy
/// with other things, and a run that goes round for ever.
const CHILD_MAX: Duration = Duration::from_secs(1_800);

/// Runs one plan in a process of its own and waits for it.
pub fn run_in_child(plan: &Plan) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    start(plan.clone(), sender);
    receiver.recv().expect("every child is answered for")
}

/// Runs plans until there are none, or `until` has come; tells each outcome as it comes in.
pub fn run_all(
    mut plans: impl Iterator<Item = Plan>,
    jobs: usize,
    until: Option<Instant>,
    mut told: impl FnMut(&Plan, Outcome),
) {
    let (sender, receiver) = mpsc::channel();
    let mut running: VecDeque<Plan> = VecDeque::new();
    loop {
        while running.len() < jobs && until.is_none_or(|until| Instant::now() < until) {
            let Some(plan) = plans.next() else { break };
            start(plan.clone(), sender.clone());
            running.push_back(plan);
        }
        if running.is_empty() {
            return;
        }
        let outcome = receiver.recv().expect("a sender is kept here");
        let place = running.iter().position(|plan| plan.seed == outcome.seed).expect("it was started here");
        let plan = running.remove(place).expect("it was just found");
        told(&plan, outcome);
    }
}

fn start(plan: Plan, sender: mpsc::Sender<Outcome>) {
    thread::spawn(move || {
        let began = Instant::now();
        let mut outcome = match child(&plan) {
            Ok(child) => wait(child, plan.seed),
            Err(error) => failed(plan.seed, "process", format!("the run could not be started: {error}")),
        };
        outcome.real_ms = began.elapsed().as_millis() as u64;
        let _ = sender.send(outcome);
    });
}

fn child(plan: &Plan) -> std::io::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["one", "--plan", "-"])
        .env_remove("JANGBU_SIM_TELL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let text = serde_json::to_string(plan)?;
    child.stdin.take().expect("it is piped").write_all(text.as_bytes())?;
    Ok(child)
}

fn wait(mut child: Child, seed: u64) -> Outcome {
    let id = child.id();
    let (done, is_done) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if is_done.recv_timeout(CHILD_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
            // This very process was started above and has not been waited for, so the id is still its own.
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        }
    });
    let mut stderr = child.stderr.take().expect("it is piped");
    let errors = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut outcome = None;
    for line in stdout.lines().map_while(Result::ok) {
        if let Some(text) = line.strip_prefix(OUTCOME_MARK) {
            outcome = serde_json::from_str::<Outcome>(text).ok();
        }
    }
    let (status, cpu_us) = wait_for_end(child);
    let _ = done.send(());
    let _ = watchdog.join();
    let errors = errors.join().unwrap_or_default();
    let outcome = match (outcome, status) {
        (Some(outcome), Ok(status)) if status.success() => outcome,
        (_, status) => {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            if errors.contains(MISTAKEN_ASSERTION) {
                return Outcome { cpu_us, ..undecided(seed) };
            }
            let panic = errors.lines().filter(|line| !line.trim().is_empty()).take(3).collect::<Vec<_>>().join(" | ");
            failed(seed, "the_process_lives", format!("the run ended with {status}: {panic}"))
        }
    };
    Outcome { cpu_us, ..outcome }
}

/// How a child ended, and the microseconds of processor time that it took: the share of a busy machine that it got doesn't count.
fn wait_for_end(child: Child) -> (std::io::Result<ExitStatus>, u64) {
    let mut status = 0;
    // SAFETY: all zeros is a `rusage`; both pointers are to values that live here. The child has not been waited for, so the id
    // is its own.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let id = unsafe { libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    if id < 0 {
        return (Err(std::io::Error::last_os_error()), 0);
    }
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    (Ok(ExitStatus::from_raw(status)), us(usage.ru_utime) + us(usage.ru_stime))
}

/// Of openraft (0.10.0-alpha.37, `replication/stream_state.rs`), and its own mistake: the stream of a leader that was deposed a
/// moment ago compares what it has sent with the node's log, which follows the new leader by now. As shipped, without
/// assertions, it reads nothing, sees the change and sends nothing. Such a run decides nothing; it is counted.
const MISTAKEN_ASSERTION: &str = "read_log_entries received reversed range";

fn undecided(seed: u64) -> Outcome {
    Outcome { seed, marks: [(marks::UNDECIDED.name.to_owned(), 1)].into(), ..Outcome::default() }
}

fn failed(seed: u64, law: &str, text: String) -> Outcome {
    let broken = BrokenLaw { law: law.into(), text, at_ns: 0, call: None };
    Outcome { seed, broken: vec![broken], ..Outcome::default() }
}

/// The code's version, for failures; empty where there is no git.
pub fn commit() -> String {
    let asked = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(here()).output();
    asked
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(|| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
