//! A foreign program that the comparison runs: started here, and ended here.
//!
//! Not here: our own nodes, which outlive the command that started them (`dev::process`).

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::dev::process::Stat;
use crate::error::{During as _, Failure};

/// Whom a program runs as, where it refuses to run as root.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// None if we are not root: then it runs as we do.
    pub fn unless_we_are_nobody_special(name: &str) -> Result<Option<User>, Failure> {
        // SAFETY: it only reads a number of this process.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").during(|| "/etc/passwd".into())?;
        let user = users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_it = fields.first() == Some(&name);
            is_it.then(|| Some(User { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? }))?
        });
        user.map(Some).ok_or_else(|| Failure::usage(format!("there is no user `{name}` to run as")))
    }
}

/// Gives a folder to the user that will work in it.
pub fn own(folder: &Path, user: Option<User>) -> Result<(), Failure> {
    let Some(user) = user else { return Ok(()) };
    std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid)).during(|| folder.display().to_string())
}

/// When nothing can be awaited, a process is asked so often to end, the last time with SIGKILL; …
const ATTEMPTS_MAX: u32 = 6;
/// … and looked at so often after each, half a second in all.
const LOOKS_PER_ATTEMPT: u32 = 50;
const LOOK: Duration = Duration::from_millis(10);

pub struct Process(Child);

impl Process {
    /// In a process group of its own: a Ctrl-C at our terminal is not meant for it.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        directory: &Path,
        log: &Path,
        user: Option<User>,
    ) -> Result<Process, Failure> {
        let log = File::options().create(true).append(true).open(log).during(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory).stdin(Stdio::null()).process_group(0);
        command.stdout(log.try_clone()?).stderr(log);
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        Ok(Process(command.spawn().during(|| program.display().to_string())?))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal and waits until it has ended, by SIGKILL at the latest.
    pub async fn end(mut self, signal: libc::c_int, patience: Duration) -> Result<(), Failure> {
        self.signal(signal);
        let began = Instant::now();
        while self.0.try_wait()?.is_none() {
            if began.elapsed() > patience {
                self.signal(libc::SIGKILL);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// SIGKILL for it and all that it started: as a machine that loses its power. None of them is left when this returns, or the next
    /// one might find the memory that they shared in use, and end.
    pub async fn kill_tree(self, patience: Duration) -> Result<(), Failure> {
        let descendants: Vec<u32> = super::usage::tree(self.pid()).into_iter().skip(1).collect();
        self.end(libc::SIGKILL, patience).await?;
        for pid in &descendants {
            // SAFETY: as below; they were its children a moment ago, and end by themselves soon after it otherwise.
            unsafe { libc::kill(*pid as libc::pid_t, libc::SIGKILL) };
        }
        let began = Instant::now();
        while descendants.iter().any(|pid| has_memory(*pid)) && began.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Where nothing can be awaited any more. Asks more than once: a program that is just starting may miss a signal.
    pub fn end_now(mut self, signal: libc::c_int) {
        for attempt in 0..ATTEMPTS_MAX {
            self.signal(if attempt + 1 < ATTEMPTS_MAX { signal } else { libc::SIGKILL });
            for _ in 0..LOOKS_PER_ATTEMPT {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        }
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: `kill` takes two numbers; the child has not been waited for, so its id is still its own.
        unsafe { libc::kill(self.0.id() as libc::pid_t, signal) };
    }
}

/// A process that is there, and has not given its memory back: one that nobody has waited for yet has.
fn has_memory(pid: u32) -> bool {
    Stat::read(pid).is_some_and(|stat| !stat.has_ended())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_process_that_is_killed_with_all_that_it_started_nothing_is_left() {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("jangbu-bench-tree-{}", std::process::id()));
        let process = Process::start(Path::new("sh"), &["-c", "sleep 1000 & sleep 1000"], &folder, &log, None).unwrap();
        let started = || super::super::usage::tree(process.pid());
        while started().iter().filter(|pid| has_memory(**pid)).count() < 3 {
            tokio::time::sleep(LOOK).await;
        }
        let all = started();
        process.kill_tree(Duration::from_secs(10)).await.unwrap();
        assert!(!all.into_iter().any(has_memory));
        fs::remove_file(log).unwrap();
    }

    #[tokio::test]
    async fn a_process_ends_when_it_is_told_to() {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("jangbu-bench-process-{}", std::process::id()));
        let process = Process::start(Path::new("sleep"), &["1000"], &folder, &log, None).unwrap();
        let pid = process.pid();
        process.end(libc::SIGTERM, Duration::from_secs(10)).await.unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_process_that_ignores_the_signal_ends_all_the_same() {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("jangbu-bench-deaf-{}", std::process::id()));
        let deaf = ["-c", "trap '' QUIT; while :; do sleep 0.1; done"];
        let process = Process::start(Path::new("sh"), &deaf, &folder, &log, None).unwrap();
        let pid = process.pid();
        process.end_now(libc::SIGQUIT);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        fs::remove_file(log).unwrap();
    }
}
