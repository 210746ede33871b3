//! Sorting pairs in linear time: what a flush gathered, before it becomes runs.
//!
//! Two stable passes put them in order of the highest 22 bits in which their keys differ. What shares those, a few hashes or all pairs of
//! one account, is mostly in order already, and is sorted by comparing.
//!
//! Not here: merging of what is sorted already (`merge.rs`).
//!
//! Laws
//! * The order is that of [`Pair`]: by key, then by value.
//! * Keys that somebody chose to be alike cost no more than comparing does.

use super::{Pair, pair};

/// So that the counts of a pass stay in the nearest cache.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

/// Takes as much memory again while it works.
pub fn sort(pairs: &mut [Pair]) {
    let (all, any) = pairs.iter().fold((u64::MAX, 0), |(all, any), pair| (all & pair.key, any | pair.key));
    let differing_bits = 64 - (all ^ any).leading_zeros();
    // Of no pairs all bits are set in "all" and none in "any".
    let low = differing_bits.saturating_sub(2 * DIGIT_BITS);
    let mut aside = vec![pair(0, 0); pairs.len()];
    scatter(pairs, &mut aside, low);
    scatter(&aside, pairs, low + DIGIT_BITS);
    for alike in pairs.chunk_by_mut(|a, b| a.key >> low == b.key >> low) {
        alike.sort_unstable();
    }
}

/// Puts `from` into `into`, in order of the digit whose lowest bit is `shift`; what has the same digit stays in order.
fn scatter(from: &[Pair], into: &mut [Pair], shift: u32) {
    let digit = |pair: &Pair| (pair.key >> shift) as usize % DIGITS;
    let mut places = [0; DIGITS];
    from.iter().for_each(|pair| places[digit(pair)] += 1);
    let mut before = 0;
    for place in &mut places {
        before += std::mem::replace(place, before);
    }
    for pair in from {
        let place = &mut places[digit(pair)];
        into[*place] = *pair;
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Keys that spread over all bits, over few, and that are nearly all the same.
        #[test]
        fn pairs_are_sorted_as_by_comparing(
            keys in prop::collection::vec(any::<u64>(), 0..300),
            mask in prop::sample::select(vec![u64::MAX, 0xff, 0, 0xffff_ff00_0000_0000, 1 << 63, 0x7_ffff_ffff]),
            values in 1u64..5,
        ) {
            let mut pairs: Vec<Pair> = keys.iter().map(|key| pair(key & mask, key % values)).collect();
            let mut expected = pairs.clone();
            expected.sort();
            sort(&mut pairs);
            prop_assert_eq!(pairs, expected);
        }
    }
}
