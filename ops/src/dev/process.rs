//! A process that outlives the command that started it, and is found again by a file.
//!
//! Laws
//! * Only a process that this folder started is ever signalled: its id, its start time and its command line must all
//!   agree with the file, because ids are used again. While it ends it has no command line any more, and is ours still.
//! * None runs that its file doesn't know: it puts its id there itself, before it begins. When whoever started it is killed before it
//!   has added the start time, id and command line must do.
//! * A process that has ended and waits to be reaped counts as ended.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
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
pub enum Life<'a> {
    /// Until it is told to end, found again by this file.
    ItsOwn(&'a Path),
    /// No longer than the thread that starts it, which must be one that ends with this process: killed by the system then.
    Ours,
}

/// Starts `program` in a process group of its own (a Ctrl-C at our terminal is not meant for it), with its output appended
/// to `log`.
pub fn start(program: &Path, life: Life<'_>, arguments: &[&str], directory: &Path, log: &Path) -> io::Result<Mark> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.process_group(0);
    match life {
        // SAFETY: between fork and exec only a system call is made, which is safe to call there.
        Life::Ours => unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        },
        Life::ItsOwn(file) => puts_its_id(&mut command, file)?,
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
    if let Life::ItsOwn(file) = life {
        mark.write(file)?;
    }
    Ok(mark)
}

/// Makes the new process write its id into a file, as the last thing before it becomes the program.
fn puts_its_id(command: &mut Command, file: &Path) -> io::Result<()> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: `write_own_id` makes system calls alone, and asks for no memory.
    unsafe { command.pre_exec(move || write_own_id(&path)) };
    Ok(())
}

fn write_own_id(path: &CStr) -> io::Result<()> {
    let (mut digits, mut left) = ([0; 10], std::process::id());
    let mut first = digits.len();
    while left > 0 {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    let text = &digits[first..];
    // SAFETY: the path ends with a zero, and what is written is as long as is said.
    let written = unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC, 0o644);
        let written = libc::write(file, text.as_ptr().cast(), text.len());
        libc::close(file);
        written
    };
    if usize::try_from(written) == Ok(text.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn command_line(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline")).ok()
}

impl Mark {
    fn write(&self, path: &Path) -> io::Result<()> {
        whole::replace(path, format!("{} {}\n", self.pid, self.started).as_bytes(), 0o644)
    }

    /// The process that `path` speaks of, if it still runs and `argument` stands on its command line.
    pub fn running(path: &Path, argument: &str) -> Option<Mark> {
        let text = fs::read_to_string(path).ok()?;
        let mut numbers = text.split_whitespace();
        let pid = numbers.next()?.parse().ok()?;
        let started: Option<u64> = numbers.next().and_then(|started| started.parse().ok());
        let mark = Mark { pid, started: started.or_else(|| Some(Stat::read(pid)?.started))? };
        let line = command_line(mark.pid)?;
        let is_named = line.split(|&byte| byte == 0).any(|word| word == argument.as_bytes());
        // One that is ending has lost its command line, and has its ports still.
        let is_ours = is_named || (line.is_empty() && started.is_some());
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

/// What the system says of a process.
pub struct Stat {
    state: char,
    threads_count: u64,
    started: u64,
}

impl Stat {
    /// From /proc/PID/stat: after the command's name in parentheses, which may itself hold spaces and parentheses, the
    /// first field is the state, the eighteenth the number of threads, and the twentieth the start.
    pub fn read(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let (threads_count, started) = (fields.nth(16)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
        Some(Stat { state, threads_count, started })
    }

    /// Its first thread may be gone while others still hold its files and ports.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads_count <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_sleep(folder: &Path) -> Mark {
        let life = Life::ItsOwn(&folder.join("pid"));
        start(Path::new("sleep"), life, &["1000"], folder, &folder.join("log")).expect("sleep is everywhere")
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
        assert_eq!(Mark::running(&folder.join("pid"), "2000"), None, "another command line");
        mark.kill().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
    /// As after a kill of whoever started it, between that and its knowing more than the process itself.
    #[test]
    fn a_process_is_found_again_though_nobody_but_itself_has_put_down_its_id() {
        let folder = folder("alone");
        let pid_file = folder.join("pid");
        let mut command = Command::new("sleep");
        puts_its_id(command.arg("1000"), &pid_file).unwrap();
        let mut child = command.spawn().unwrap();
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), child.id().to_string());
        assert_eq!(Mark::running(&pid_file, "1000").map(|mark| mark.pid), Some(child.id()));
        assert_eq!(Mark::running(&pid_file, "2000"), None, "another command line");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Mark::running(&pid_file, "1000"), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
