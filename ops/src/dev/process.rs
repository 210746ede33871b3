//! A process that outlives the command that started it, and is found again by a file.
//!
//! Laws
//! * Only a process that this folder started is ever signalled: its id, its start time and its command line must all
//!   agree with the file, because ids are used again.
//! * A process that has ended and waits to be reaped counts as ended.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What tells a process from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    started: u64,
}

/// Starts `program` detached: in a process group of its own (a Ctrl-C at our terminal is not meant for it), with its
/// output appended to `log`.
pub fn start(program: &Path, arguments: &[&str], directory: &Path, log: &Path) -> io::Result<Mark> {
    let log = File::options().create(true).append(true).open(log)?;
    let child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
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
        fs::write(path, format!("{} {}\n", self.pid, self.started))
    }

    /// The process that `path` speaks of, if it still runs and `argument` stands on its command line.
    pub fn running(path: &Path, argument: &str) -> Option<Mark> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let mark = Mark { pid: pid.parse().ok()?, started: started.parse().ok()? };
        let is_ours = command_line(mark.pid)?.split(|&byte| byte == 0).any(|word| word == argument.as_bytes());
        (is_ours && mark.is_running()).then_some(mark)
    }

    pub fn is_running(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z' && stat.state != 'X')
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
    started: u64,
}

impl Stat {
    /// From /proc/PID/stat: after the command's name in parentheses, which may itself hold spaces and parentheses, the
    /// first field is the state and the twentieth the start.
    fn read(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        Some(Stat { state: fields.next()?.chars().next()?, started: fields.nth(18)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_sleep(folder: &Path) -> Mark {
        start(Path::new("sleep"), &["1000"], folder, &folder.join("log")).expect("sleep is everywhere")
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
