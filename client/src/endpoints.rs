//! The known nodes, and the one in use.
//!
//! Any node takes any request, so a client stays with one as long as it answers. One that failed rests for a moment and the
//! next in the list is used; when all rest, the one that has rested longest.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jangbu_proto::{
    Malformed,
    transport::{Channel, Http2Settings, Transport, channel},
};
use tokio::time::Instant;

/// How long a node that failed isn't asked while another may answer: about as long as a restart or an election takes.
const REST: Duration = Duration::from_secs(1);

pub(crate) struct Endpoints {
    endpoints: Vec<Endpoint>,
    state: Mutex<State>,
}

pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

struct State {
    current: usize,
    /// Per endpoint: until when it rests.
    rests_until: Vec<Option<Instant>>,
}

impl Endpoints {
    /// Connects to none yet. At least one; each is host:port.
    pub(crate) fn new(
        addresses: impl IntoIterator<Item = String>,
        transport: &Arc<dyn Transport>,
        http2: &Http2Settings,
    ) -> Result<Self, Malformed> {
        let endpoint = |(index, address): (usize, String)| match channel(transport.clone(), &address, http2) {
            Ok(channel) => Ok(Endpoint { address, channel }),
            Err(refusal) => Err(Malformed::new(format!("endpoints[{index}]"), refusal.reason)),
        };
        let endpoints = addresses.into_iter().enumerate().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Malformed::new("endpoints", "holds none"));
        }
        let rests_until = vec![None; endpoints.len()];
        Ok(Self { endpoints, state: Mutex::new(State { current: 0, rests_until }) })
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(crate) fn get(&self, index: usize) -> &Endpoint {
        &self.endpoints[index]
    }

    /// The one to ask now.
    pub(crate) fn pick(&self) -> usize {
        let now = Instant::now();
        let mut state = self.lock();
        let from_current = (state.current..self.len()).chain(0..state.current);
        let rested_longest = |index: &usize| state.rests_until[*index].filter(|until| *until > now);
        let picked = from_current.min_by_key(rested_longest).expect("there is at least one");
        state.current = picked;
        picked
    }

    /// It answered.
    pub(crate) fn good(&self, index: usize) {
        self.lock().rests_until[index] = None;
    }

    /// It did not, or can't.
    pub(crate) fn bad(&self, index: usize) {
        self.lock().rests_until[index] = Some(Instant::now() + REST);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing here panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use jangbu_proto::transport::TcpTransport;

    use super::*;

    fn three() -> Endpoints {
        let transport: Arc<dyn Transport> = Arc::new(TcpTransport);
        let addresses = ["a:1", "b:1", "c:1"].map(String::from);
        Endpoints::new(addresses, &transport, &Http2Settings::default()).expect("these are addresses")
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_stays_with_the_node_that_answers() {
        let endpoints = three();
        assert_eq!([endpoints.pick(), endpoints.pick()], [0, 0]);
        endpoints.bad(0);
        assert_eq!([endpoints.pick(), endpoints.pick()], [1, 1]);
        tokio::time::advance(REST * 2).await;
        assert_eq!(endpoints.pick(), 1, "it doesn't go back to the first one");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_rest_the_longest_rested_is_asked() {
        let endpoints = three();
        for index in [1, 2, 0] {
            endpoints.bad(index);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(endpoints.pick(), 1);
        endpoints.bad(1);
        assert_eq!(endpoints.pick(), 2);
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        let transport: Arc<dyn Transport> = Arc::new(TcpTransport);
        let refused = |addresses: &[&str]| {
            let addresses: Vec<String> = addresses.iter().map(|address| address.to_string()).collect();
            Endpoints::new(addresses, &transport, &Http2Settings::default()).err().expect("it must be refused").field
        };
        assert_eq!(refused(&[]), "endpoints");
        assert_eq!(refused(&["a:1", "no port"]), "endpoints[1]");
        assert_eq!(refused(&["a"]), "endpoints[0]");
        assert_eq!(refused(&["a:1/path"]), "endpoints[0]");
    }
}
