//! What a service manager hears of this process: systemd's notification protocol, `sd_notify(3)`.
//!
//!     READY=1       the doors are open
//!     WATCHDOG=1    twice in each interval that the unit's WatchdogSec sets, as long as the Raft core takes its turns
//!     STOPPING=1    it was told to stop, and drains
//!
//! One datagram each, to the socket that NOTIFY_SOCKET names. Without one, nobody is told and nothing else changes.
//!
//! Laws
//! * Never waits for the manager: a datagram that it has no room for is lost, and the next one follows.
//!
//! Not here: what ready means to clients (`health.rs`). A node without a quorum is started all the same.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{interval, timeout};

/// The manager that started this process, if there is one.
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// It ends a process that it hasn't heard for so long.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment names it.
    pub fn from_environment() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| {
            let opened = connect(&name);
            opened.inspect_err(|error| tracing::warn!(name, %error, "the service manager can't be told anything")).ok()
        });
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_for_us && *micros > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    pub fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // A manager that doesn't listen any more is no reason to do anything else.
            let _ = socket.send(state.as_bytes());
        }
    }

    /// Tells it again and again that the process is alive, whenever `proof` comes in time; for ever. Does nothing if nobody
    /// watches.
    pub async fn keep_telling(&self, proof: impl Fn() -> BoxFuture<'static, ()>) {
        let Some(watchdog) = self.watchdog else { return };
        let mut ticks = interval(watchdog / 2);
        loop {
            ticks.tick().await;
            match timeout(watchdog / 2, proof()).await {
                Ok(()) => self.tell("WATCHDOG=1"),
                Err(_) => {
                    tracing::error!("the Raft core did not answer in time; the watchdog isn't told that all is well")
                }
            }
        }
    }
}

/// A path, or `@name` for an abstract socket.
fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn manager(name: &str, watchdog: Duration) -> (UnixDatagram, ServiceManager) {
        let name = format!("jangbu-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let hears = UnixDatagram::bind_addr(&address).unwrap();
        hears.set_nonblocking(true).unwrap();
        (hears, ServiceManager { socket: Some(connect(&format!("@{name}")).unwrap()), watchdog: Some(watchdog) })
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let next = || {
            let mut bytes = [0; 64];
            let count = socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
        };
        std::iter::from_fn(next).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_told_twice_an_interval_while_the_core_answers() {
        let (hears, manager) = manager("alive", Duration::from_secs(10));
        let told = manager.keep_telling(|| async {}.boxed());
        assert!(timeout(Duration::from_secs(21), told).await.is_err(), "it never ends");
        assert_eq!(heard(&hears), vec!["WATCHDOG=1"; 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_not_told_that_a_core_which_hangs_is_well() {
        let (hears, manager) = manager("hung", Duration::from_secs(10));
        let told = manager.keep_telling(|| std::future::pending().boxed());
        assert!(timeout(Duration::from_secs(50), told).await.is_err());
        assert_eq!(heard(&hears), Vec::<String>::new());
    }

    #[test]
    fn a_manager_that_does_not_read_keeps_nobody_waiting() {
        let (_hears_nothing, manager) = manager("deaf", Duration::from_secs(10));
        for _ in 0..10_000 {
            manager.tell("WATCHDOG=1");
        }
    }
}
