//! A blocked Bloom filter: says of most keys that a run doesn't hold them, for two bytes a key and one cache line a question.
//!
//! A run's filter comes in partitions of consecutive keys, so that building one takes no more memory than a partition, however long the run.
//!
//! Not here: which partition answers for a key, and what happens when memory for filters has run out (`runs.rs`).

/// Keys per partition: 64 KiB of bits.
pub const KEYS_PER_PARTITION: usize = 32_768;

/// With eight probes in one block of 512 bits: about one wrong answer in 1,000 (measured in the tests below).
const BITS_PER_KEY: usize = 16;
const PROBES: u32 = 8;
const WORDS_PER_BLOCK: usize = 8;

/// The bits of one partition. Keys are hashes already, but sorted ones: neighbours share their high bits, so they are mixed once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    words: Box<[u64]>,
}

impl Filter {
    pub fn build(keys: &[u64]) -> Filter {
        let blocks = (keys.len() * BITS_PER_KEY).div_ceil(64 * WORDS_PER_BLOCK).max(1);
        let mut filter = Filter { words: vec![0; blocks * WORDS_PER_BLOCK].into() };
        for key in keys {
            let (block, probes) = filter.place(*key);
            for bit in bits(probes) {
                filter.words[block + bit / 64] |= 1 << (bit % 64);
            }
        }
        filter
    }

    /// `false`: certainly not among the keys.
    pub fn may_contain(&self, key: u64) -> bool {
        let (block, probes) = self.place(key);
        bits(probes).all(|bit| self.words[block + bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// Where the key's block begins, and the bits that choose its probes.
    fn place(&self, key: u64) -> (usize, u64) {
        let mixed = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let blocks = (self.words.len() / WORDS_PER_BLOCK) as u64;
        let block = ((mixed >> 32) * blocks) >> 32;
        (block as usize * WORDS_PER_BLOCK, (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    }

    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    pub fn encode(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub fn decode(payload: &[u8]) -> Option<Filter> {
        let (words, rest) = payload.as_chunks::<8>();
        if words.is_empty() || words.len() % WORDS_PER_BLOCK != 0 || !rest.is_empty() {
            return None;
        }
        Some(Filter { words: words.iter().map(|word| u64::from_le_bytes(*word)).collect() })
    }
}

/// The places of a key's bits in its block: seven of nine bits each, and one more from what mixing them gives.
fn bits(probes: u64) -> impl Iterator<Item = usize> {
    let last = probes.wrapping_mul(0x94d0_49bb_1331_11eb) >> 55;
    (0..PROBES - 1).map(move |probe| (probes >> (9 * probe)) % 512).chain([last]).map(|bit| bit as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(from: u64, count: u64) -> Vec<u64> {
        let mut keys: Vec<u64> = (from..from + count).map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes())).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn what_was_put_in_is_found() {
        let keys = keys(0, KEYS_PER_PARTITION as u64);
        let filter = Filter::build(&keys);
        assert!(keys.iter().all(|key| filter.may_contain(*key)));
        assert_eq!(Filter::decode(&filter.encode()), Some(filter));
    }

    #[test]
    fn few_absent_keys_are_thought_to_be_there() {
        let filter = Filter::build(&keys(0, KEYS_PER_PARTITION as u64));
        let wrong = keys(1 << 40, 100_000).iter().filter(|key| filter.may_contain(**key)).count();
        assert!(wrong < 150, "{wrong} of 100,000");
    }

    /// A partition of a long run holds keys that share their first bits.
    #[test]
    fn keys_that_lie_close_together_are_told_apart() {
        let dense: Vec<u64> = (0..10_000u64).map(|n| (7 << 50) + n * 2).collect();
        let filter = Filter::build(&dense);
        let wrong = (0..10_000u64).filter(|n| filter.may_contain((7 << 50) + n * 2 + 1)).count();
        assert!(wrong < 100, "{wrong} of 10,000");
    }
}
