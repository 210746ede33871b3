//! What tests of a store stand on: a disk that crashes where it is told to, and lanes that work when they are told to.
//!
//! Public, because the state's tests and the simulator's use it too. Nothing in the product does.

mod crash_vfs;
mod stepped;

pub use crash_vfs::{CrashVfs, Survival};
pub use stepped::Stepped;

/// From now on this process ends without the global destructors of C++, with the status that it ends with.
///
/// To be called once a store on RocksDB is open. Threads that a test leaves behind may still be at work in it when the test is
/// over, and one that takes a mutex that was destroyed aborts the process. `jangbud` leaves in the same way.
pub fn leave_without_destructors() {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }
    extern "C" fn leave(status: c_int, _argument: *mut c_void) {
        // SAFETY: _exit ends the process at once and touches no memory of it.
        unsafe { libc::_exit(status) }
    }
    // Handlers run in the opposite order: before the destructors of all that was made before now.
    // SAFETY: the handler lives as long as the program, and its argument is not looked at.
    let refused = unsafe { on_exit(leave, std::ptr::null_mut()) };
    assert_eq!(refused, 0, "there is memory for one more handler");
}

/// SplitMix64: a small generator for choices in tests, the same everywhere from the same seed.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
