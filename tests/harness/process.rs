//! One of our processes: started, signalled, and ended by whoever started it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::wait::until;

/// What can be said to a process.
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    /// SIGTERM: please finish and go.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGKILL: gone.
    Kill,
    /// SIGSTOP: stands still, and knows nothing of it.
    Pause,
    /// SIGCONT: goes on.
    Resume,
}

/// A running (or ended) process. Dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Where in the log the words of this process begin: a folder's log goes on over restarts.
    log_from: u64,
}

impl Process {
    /// Starts `binary`; both its outputs are added to `log`.
    pub fn start(binary: &Path, arguments: &[&str], log: &Path) -> Process {
        Process::start_in(&[], None, binary, arguments, log)
    }

    /// With more in its environment, and with its errors going to `errors` instead of the log.
    pub fn start_in(
        environment: &[(&str, String)],
        errors: Option<Stdio>,
        binary: &Path,
        arguments: &[&str],
        log: &Path,
    ) -> Process {
        let mut output = open_log(log);
        let log_from = output.metadata().expect("the log was just opened").len();
        writeln!(output, "--- {} {}", binary.display(), arguments.join(" ")).expect("the log takes a line");
        let both = || Stdio::from(output.try_clone().expect("a file descriptor can be cloned"));
        let mut command = Command::new(binary);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(both()).stderr(errors.unwrap_or_else(both));
        // SAFETY: between fork and exec only a system call is made, which is safe to call there.
        unsafe {
            // A test program that is killed can't clean up; its children then go with the thread that started them.
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{} doesn't start: {error}", binary.display()));
        Process { child, log: log.to_owned(), log_from }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let number = match signal {
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Kill => libc::SIGKILL,
            Signal::Pause => libc::SIGSTOP,
            Signal::Resume => libc::SIGCONT,
        };
        let pid = i32::try_from(self.pid()).expect("Linux's pids fit");
        // SAFETY: a plain system call. The child was not waited for yet, so the pid is still its own.
        let done = unsafe { libc::kill(pid, number) };
        assert_eq!(done, 0, "{signal:?} can't be sent to {pid}: {}", std::io::Error::last_os_error());
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(mut self) {
        self.kill_and_wait();
    }

    fn kill_and_wait(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `None`: still running.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until the process has ended by itself. What it said goes with it.
    pub async fn ended(mut self, because: &str) -> Ended {
        let status = until(format!("the process ends because {because}"), async || self.exit_status()).await;
        Ended { status, words: self.words() }
    }

    /// All that this process has said so far.
    pub fn words(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.log_from).expect("a log fits in memory").min(all.len());
        String::from_utf8_lossy(&all[from..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_and_wait();
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub words: String,
}

impl Ended {
    /// It stopped because it wanted to, with success.
    pub fn assert_clean(&self) {
        assert!(self.status.success(), "ended with {} instead of 0; it said:\n{}", self.status, self.words);
    }

    /// It gave up, on its own, and told why: each of `expected` is among its words.
    pub fn assert_gave_up_saying(&self, expected: &[&str]) {
        assert!(!self.status.success(), "ended with success; it said:\n{}", self.words);
        assert!(self.status.signal().is_none(), "crashed ({}); it said:\n{}", self.status, self.words);
        for word in expected {
            assert!(self.words.contains(word), "never said `{word}`; it said:\n{}", self.words);
        }
    }
}

fn open_log(path: &Path) -> File {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
