//! What the operating system says of this process, and of the disk under its data.
//!
//! Laws
//! * A question that can't be answered leaves its number at 0; it never fails a look at the others.
//!
//! Not here: what the node knows of itself (`health.rs`).

use std::{ffi::CString, fs, mem::MaybeUninit, os::unix::ffi::OsStrExt as _, path::Path};

/// One look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Of all threads, in user and kernel mode.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_fds: u64,
    pub max_fds: u64,
    /// Since the Unix epoch.
    pub start_seconds: f64,
    /// What this process may still write to the disk that holds its data.
    pub disk_free_bytes: u64,
    pub disk_size_bytes: u64,
}

impl Machine {
    pub fn look(data_dir: &Path) -> Self {
        let mut machine = Self::default();
        machine.look_at_process();
        machine.open_fds = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        machine.max_fds = max_fds();
        (machine.disk_free_bytes, machine.disk_size_bytes) = disk(data_dir).unwrap_or_default();
        machine
    }

    /// From /proc/self/stat: after the command's name in parentheses, which may itself hold spaces and parentheses, the first
    /// field is the state.
    fn look_at_process(&mut self) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(')') else { return };
        let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let [_, .., start_ticks, _, resident_pages] = fields[..22.min(fields.len())] else { return };
        let (user_ticks, kernel_ticks) = (fields[11], fields[12]);
        // SAFETY: sysconf only reads numbers of the system.
        let (ticks_per_second, page_bytes) =
            unsafe { (libc::sysconf(libc::_SC_CLK_TCK) as f64, libc::sysconf(libc::_SC_PAGESIZE) as u64) };
        self.cpu_seconds = (user_ticks + kernel_ticks) as f64 / ticks_per_second;
        self.start_seconds = boot_seconds() + start_ticks as f64 / ticks_per_second;
        self.resident_bytes = resident_pages * page_bytes;
    }
}

/// When the machine was started, since the Unix epoch.
fn boot_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let told = stat.lines().find_map(|line| line.strip_prefix("btime "));
    told.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0.0)
}

fn max_fds() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the struct it is given, which lives here.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if done == 0 { limit.rlim_cur } else { 0 }
}

/// Bytes free for this process, and bytes in all.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut told = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a zero byte; statvfs fills the struct it is given, for which zeros are valid.
    let told = unsafe { (libc::statvfs(path.as_ptr(), told.as_mut_ptr()) == 0).then(|| told.assume_init())? };
    Some((told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let folder = std::env::temp_dir();
        let mut burnt = 0u64;
        while Machine::look(&folder).cpu_seconds == 0.0 {
            burnt = (0..1_000_000).fold(burnt, |sum, number| sum ^ (sum << 1) ^ number);
        }
        let machine = Machine::look(&folder);
        let now = fs::metadata("/proc/self").and_then(|told| told.modified()).expect("Linux");
        let now = now.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((now - 86_400.0..now + 2.0).contains(&machine.start_seconds), "{} at {now}", machine.start_seconds);
        assert!((1 << 20..64 << 30).contains(&machine.resident_bytes), "{machine:?}");
        assert!(machine.open_fds >= 3 && machine.open_fds <= machine.max_fds, "{machine:?}");
        assert!(machine.disk_free_bytes > 0 && machine.disk_free_bytes <= machine.disk_size_bytes, "{machine:?}");
    }

    #[test]
    fn a_disk_that_is_not_there_leaves_the_rest_standing() {
        let machine = Machine::look(Path::new("/no/such/folder"));
        assert_eq!((machine.disk_free_bytes, machine.disk_size_bytes), (0, 0));
        assert!(machine.resident_bytes > 0);
    }
}
