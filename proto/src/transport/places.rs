//! How many connections a door holds open, in all and from one address.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(super) struct Places {
    max: usize,
    per_address_max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    count: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    InAll,
    FromThisAddress,
}

impl Places {
    pub(super) fn new(max: usize, per_address_max: usize) -> Self {
        Self { max, per_address_max, taken: Arc::default() }
    }

    /// A place for one more, until it is dropped. Where the address isn't known, only the whole is bounded.
    pub(super) fn take(&self, from: Option<IpAddr>) -> Result<Place, Full> {
        let mut taken = lock(&self.taken);
        if taken.count >= self.max {
            return Err(Full::InAll);
        }
        if let Some(from) = from {
            if taken.by_address.get(&from).is_some_and(|count| *count >= self.per_address_max) {
                return Err(Full::FromThisAddress);
            }
            *taken.by_address.entry(from).or_default() += 1;
        }
        taken.count += 1;
        Ok(Place { taken: self.taken.clone(), from })
    }
}

pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    from: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.count -= 1;
        let Some(from) = self.from else { return };
        if let Some(count) = taken.by_address.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&from);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let places = Places::new(5, 2);
        let [greedy, honest] = [1, 2].map(|end| Some(IpAddr::from([127, 0, 0, end])));
        let held = [places.take(greedy).ok().unwrap(), places.take(greedy).ok().unwrap()];
        assert_eq!(places.take(greedy).err(), Some(Full::FromThisAddress));
        let others = [honest, honest, None].map(|from| places.take(from).expect("there is room"));
        assert_eq!(places.take(None).err(), Some(Full::InAll));
        drop(held);
        assert!(places.take(greedy).is_ok());
        drop(others);
        assert!(lock(&places.taken).by_address.is_empty(), "who has gone is forgotten");
    }
}
