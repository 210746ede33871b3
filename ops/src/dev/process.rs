//! A process that outlives the command that started it, and is found again by a file.
//!
//! Laws
//! * Only a process that this folder started is ever signalled: its id, its start time and its command line must all
//!   agree with the file, because ids are used again. While it ends it has no command line any more, and is ours still.
//! * A process that has ended and waits to be reaped counts as ended.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::whole;

/// What tells a process from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    started: u64,
}

/// How long a process is to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until it is told to end.
    ItsOwn,
    /// No longer than the thread that starts it, which must be one that ends with this process: killed by the system then.
    Ours,
}

/// Starts `program` in a process group of its own (a Ctrl-C at our terminal is not meant for it), with its output appended
/// to `log`.
pub fn start(program: &Path, life: Life, arguments: &[&str], directory: &Path, log: &Path) -> io::Result<Mark> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.process_group(0);
    if life == Life::Ours {
        // SAFETY: between fork and exec only a system call is made, which is safe to call there.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
    }
    let child = command.spawn()?;
    let pid = child.id();
    // Reaps it, should it end before we do. It goes on when we end first.
    std::thread::spawn(move || {
        let mut child = child;
        let _ = child.wait();
    });
    let stat = Stat::read(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
    let mark = Mark { pid, started: stat.started };
    // For a moment after it was started a process has no command line yet; later it is told by it.
    while mark.is_running() && command_line(pid).is_none_or(|line| line.is_empty()) {
        std::thread::yield_now();
    }
    Ok(mark)
}

fn command_line(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline")).ok()
}

impl Mark {
    pub fn write(&self, path: &Path) -> io::Result<()> {
        whole::replace(path, format!("{} {}\n", self.pid, self.started).as_bytes(), 0o644)
    }

    /// The process that `path` speaks of, if it still runs and `argument` stands on its command line.
    pub fn running(path: &Path, argument: &str) -> Option<Mark> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let mark = Mark { pid: pid.parse().ok()?, started: started.parse().ok()? };
        let line = command_line(mark.pid)?;
        // One that is ending has lost its command line, and has its ports still.
        let is_ours = line.is_empty() || line.split(|&byte| byte == 0).any(|word| word == argument.as_bytes());
        (is_ours && mark.is_running()).then_some(mark)
    }

    pub fn is_running(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && !stat.has_ended())
    }

    /// SIGTERM: please finish what is in flight and end.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// SIGKILL: end now, mid-sentence.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        // SAFETY: `kill` takes two numbers and touches no memory of ours.
        match unsafe { libc::kill(self.pid as libc::pid_t, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

struct Stat {
    state: char,
    threads_count: u64,
    started: u64,
}

impl Stat {
    /// From /proc/PID/stat: after the command's name in parentheses, which may itself hold spaces and parentheses, the
    /// first field is the state, the eighteenth the number of threads, and the twentieth the start.
    fn read(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let (threads_count, started) = (fields.nth(16)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
        Some(Stat { state, threads_count, started })
    }

    /// Its first thread may be gone while others still hold its files and ports.
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads_count <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_sleep(folder: &Path) -> Mark {
        start(Path::new("sleep"), Life::ItsOwn, &["1000"], folder, &folder.join("log")).expect("sleep is everywhere")
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("jangbu-process-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_process_is_found_again_and_counts_as_ended_once_killed() {
        let folder = folder("found");
        let mark = start_sleep(&folder);
        mark.write(&folder.join("pid")).unwrap();
        assert_eq!(Mark::running(&folder.join("pid"), "1000"), Some(mark));
        mark.kill().unwrap();
        while mark.is_running() {
            std::thread::yield_now();
        }
        assert_eq!(Mark::running(&folder.join("pid"), "1000"), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_process_that_only_has_the_same_id_is_left_alone() {
        let folder = folder("same-id");
        let mark = start_sleep(&folder);
        let other = Mark { started: mark.started + 1, ..mark };
        other.kill().unwrap();
        assert!(mark.is_running());
        mark.write(&folder.join("pid")).unwrap();
        assert_eq!(Mark::running(&folder.join("pid"), "2000"), None, "another command line");
        mark.kill().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
