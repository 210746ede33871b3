//! Sealed values: everything the state writes carries its version and a checksum over itself and its own key.
//!
//!     payload … | version u8 | xxh3-64 u64 (of the payload and the version, seeded by the hash of family and key)
//!
//! The seal covers the key, so that a whole value that turns up in another's place is noticed as well as a flipped bit.
//! It lies at the end, so that a page is built and sealed in one buffer.
//!
//! Not here: the log's records (`log/record.rs`) and the snapshot's manifest, which have seals of their own.

use crate::error::StoreError;
use crate::schema::{FORMAT, Family};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What a seal adds to a payload.
pub const SEAL_BYTES: usize = 9;

/// Adds the seal to a payload.
pub fn seal(family: Family, key: &[u8], mut payload: Vec<u8>) -> Vec<u8> {
    payload.push(FORMAT);
    let checksum = xxh3_64_with_seed(&payload, seed(family, key));
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

/// The payload of a sealed value; an error when it isn't what was once sealed under this key.
pub fn unseal<'a>(family: Family, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let Some(border) = value.len().checked_sub(SEAL_BYTES) else {
        return Err(corrupt(family, key, "is too short to be sealed"));
    };
    let (covered, checksum) = value.split_at(border + 1);
    if xxh3_64_with_seed(covered, seed(family, key)).to_le_bytes() != checksum {
        return Err(corrupt(family, key, "doesn't match its checksum"));
    }
    if covered[border] != FORMAT {
        return Err(corrupt(family, key, &format!("has format {}, this program knows {FORMAT}", covered[border])));
    }
    Ok(&covered[..border])
}

/// The error for a value whose seal is right or wrong, and whose content can't be.
pub fn corrupt(family: Family, key: &[u8], what: &str) -> StoreError {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    StoreError::DamagedState(format!("the value under {}/{key} {what}", family.name()))
}

fn seed(family: Family, key: &[u8]) -> u64 {
    xxh3_64(key) ^ (u64::from(family as u8) << 56)
}

/// Puts numbers into a payload.
pub trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_u128(&mut self, value: u128);
    /// Seven bits to a byte, low ones first: small numbers in few bytes.
    fn put_varint(&mut self, value: u128);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u128(&mut self, value: u128) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    #[inline]
    fn put_varint(&mut self, value: u128) {
        if value < 0x80 {
            return self.push(value as u8);
        }
        if value >> WORD_VARINT_BITS == 0 {
            let value = value as u64;
            let bytes = (64 - value.leading_zeros()).div_ceil(7);
            let more = 0x8080_8080_8080_8080 & ((1 << (8 * (bytes - 1))) - 1);
            let end = self.len() + bytes as usize;
            // A whole word is cheaper to copy than as many bytes as it has.
            self.extend_from_slice(&(spread(value) | more).to_le_bytes());
            self.truncate(end);
            return;
        }
        let mut rest = value;
        while rest >= 0x80 {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
    }
}

/// Numbers of so many bits, nearly all there are, take at most eight bytes: they are put and taken as one word, without a loop.
const WORD_VARINT_BITS: u32 = 56;

/// Eight groups of seven bits, each into a byte of its own.
fn spread(value: u64) -> u64 {
    let halves = (value & 0x0000_0000_0fff_ffff) | ((value & 0x00ff_ffff_f000_0000) << 4);
    let quarters = (halves & 0x0000_3fff_0000_3fff) | ((halves & 0x0fff_c000_0fff_c000) << 2);
    (quarters & 0x007f_007f_007f_007f) | ((quarters & 0x3f80_3f80_3f80_3f80) << 1)
}

/// The low seven bits of each byte, side by side.
fn gather(bytes: u64) -> u64 {
    let pairs = (bytes & 0x007f_007f_007f_007f) | ((bytes & 0x7f00_7f00_7f00_7f00) >> 1);
    let quarters = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (quarters & 0x0000_0000_0fff_ffff) | ((quarters & 0x0fff_ffff_0000_0000) >> 4)
}

/// Takes numbers out of a payload. Every method answers `None` past the end: a payload with a right seal never gets there,
/// so callers turn it into one error for the whole value.
pub struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    pub fn new(payload: &'a [u8]) -> Take<'a> {
        Take { rest: payload }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub fn varint(&mut self) -> Option<u128> {
        if let Some(value) = self.word_varint() {
            return Some(u128::from(value));
        }
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.u8()?;
            let bits = u128::from(byte & 0x7f);
            if shift > 126 || (shift == 126 && bits > 3) {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }

    /// One that ends within eight bytes, unless the payload does before.
    fn word_varint(&mut self) -> Option<u64> {
        let word = u64::from_le_bytes(*self.rest.first_chunk()?);
        let last = !word & 0x8080_8080_8080_8080;
        if last == 0 {
            return None;
        }
        // From the lowest bit to the first byte's that has no more behind it.
        let covered = last ^ (last - 1);
        self.rest = &self.rest[covered.count_ones() as usize / 8..];
        Some(gather(word & covered))
    }

    pub fn varint_u64(&mut self) -> Option<u64> {
        u64::try_from(self.varint()?).ok()
    }

    pub fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_comes_back() {
        let sealed = seal(Family::Meta, b"stamp", b"what was written".to_vec());
        assert_eq!(unseal(Family::Meta, b"stamp", &sealed).unwrap(), b"what was written");
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let sealed = seal(Family::Journal, b"key", b"a page".to_vec());
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(Family::Journal, b"key", &damaged).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(unseal(Family::Journal, b"key", &sealed[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_value_in_anothers_place_is_noticed() {
        let sealed = seal(Family::Journal, b"key", b"a page".to_vec());
        assert!(unseal(Family::Journal, b"kez", &sealed).is_err());
        assert!(unseal(Family::Accounts, b"key", &sealed).is_err());
    }

    #[test]
    fn varints_of_every_length_come_back() {
        for shift in 0..128 {
            for value in [1u128 << shift, (1u128 << shift) - 1, u128::MAX >> shift] {
                let mut payload = Vec::new();
                payload.put_varint(value);
                let mut take = Take::new(&payload);
                assert_eq!(take.varint(), Some(value));
                assert!(take.is_empty());
            }
        }
    }

    #[test]
    fn varints_end_where_the_next_begins() {
        let values: Vec<u128> = (0..128).flat_map(|shift| [1 << shift, u128::MAX >> shift, shift]).collect();
        let mut payload = Vec::new();
        values.iter().for_each(|value| payload.put_varint(*value));
        let mut take = Take::new(&payload);
        let taken: Vec<u128> = values.iter().map_while(|_| take.varint()).collect();
        assert_eq!(taken, values);
        assert!(take.is_empty());
    }

    #[test]
    fn a_varint_of_more_than_128_bits_is_refused() {
        let mut payload = vec![0xff; 18];
        payload.push(0x04);
        assert_eq!(Take::new(&payload).varint(), None);
    }
}
