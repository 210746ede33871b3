//! The form of an object: what guards its bytes, and its name with them.
//!
//!     plain     "JBV1" 0 0 0 0   zero [u8; 16]   payload      xxh3-128 of name, 0 and payload
//!     sealed    "JBV1" 1 0 0 0   salt [u8; 16]   ciphertext   tag of ChaCha20-Poly1305
//!
//! Each sealed object has a key of its own: HKDF-SHA256 of the backup's key, the object's salt (drawn anew for each put) and its
//! name. So no nonce is ever used twice, and none has to be counted. Objects are bounded in size, and are opened whole.
//!
//! Laws
//! * An object that was changed, cut short, or lies under another's name isn't opened.
//! * What is opened with a key was sealed: a plain object in a sealed place is refused.
//!
//! Not hidden by the seal: how many objects there are, their names, sizes and times.

use std::path::Path;

use jangbu_proto::Secret;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use xxhash_rust::xxh3::Xxh3;

use crate::error::Failure;
use crate::text;

const MAGIC: &[u8; 4] = b"JBV1";
const SALT_BYTES: usize = 16;
const HEAD_BYTES: usize = 8 + SALT_BYTES;
const TAIL_BYTES: usize = 16;

/// What an object takes beside its payload.
pub const OVERHEAD_BYTES: u64 = (HEAD_BYTES + TAIL_BYTES) as u64;

/// A backup's key: 256 bits.
#[derive(Clone, Debug)]
pub struct Key(Secret);

impl Key {
    /// 64 hexadecimal digits, as `openssl rand -hex 32` prints them.
    pub fn from_file(path: &Path) -> Result<Key, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))?;
        Key::parse(&text).ok_or_else(|| {
            Failure::usage(format!("{}: a key is 64 hexadecimal digits", path.display()))
                .advise("make one: openssl rand -hex 32 > backup.key; and keep a copy where the backup isn't")
        })
    }

    fn parse(text: &str) -> Option<Key> {
        let text = text.trim();
        let is_key = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_key.then(|| Key(Secret::new(text)))
    }

    /// Tells this key from others, and nothing about it.
    pub fn fingerprint(&self) -> String {
        let mut check = [0; 8];
        let derived = self.derive(&[0; SALT_BYTES]);
        let okm = derived.expand(&[b"fingerprint"], Length(check.len())).expect("eight bytes can be derived");
        okm.fill(&mut check).expect("the lengths are the same");
        text::hex(&check)
    }

    fn derive(&self, salt: &[u8]) -> hkdf::Prk {
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.0.reveal().to_ascii_lowercase().as_bytes())
    }

    fn cipher(&self, salt: &[u8], name: &str) -> LessSafeKey {
        let derived = self.derive(salt);
        let info = [b"object ", name.as_bytes()];
        let okm = derived.expand(&info, &CHACHA20_POLY1305).expect("a key can be derived");
        LessSafeKey::new(UnboundKey::from(okm))
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The object of a payload.
pub fn seal(key: Option<&Key>, name: &str, payload: &[u8]) -> Vec<u8> {
    let mut object = Vec::with_capacity(payload.len() + OVERHEAD_BYTES as usize);
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&[u8::from(key.is_some()), 0, 0, 0]);
    let salt: [u8; SALT_BYTES] = if key.is_some() { rand::random() } else { [0; SALT_BYTES] };
    object.extend_from_slice(&salt);
    match key {
        None => {
            object.extend_from_slice(payload);
            object.extend_from_slice(&checksum(name, payload));
        }
        Some(key) => {
            let mut body = payload.to_vec();
            let sealed = key.cipher(&salt, name).seal_in_place_append_tag(nonce(), Aad::empty(), &mut body);
            sealed.expect("an object is smaller than what a key can seal");
            object.extend_from_slice(&body);
        }
    }
    object
}

/// The payload of an object, or what is wrong with it.
pub fn open(key: Option<&Key>, name: &str, object: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (head, body) = object.split_at_checked(HEAD_BYTES).ok_or("it is cut short")?;
    if !head.starts_with(MAGIC) || head[5..8] != [0; 3] {
        return Err("it is none of a backup's objects, or its beginning is damaged");
    }
    let salt = &head[8..];
    match (head[4], key) {
        (0, None) => {
            let (payload, told) = body.split_last_chunk::<TAIL_BYTES>().ok_or("it is cut short")?;
            if checksum(name, payload) != *told {
                return Err("its checksum doesn't match: it was damaged, cut short, or is another object");
            }
            Ok(payload.to_vec())
        }
        (1, Some(key)) => {
            let mut body = body.to_vec();
            let cipher = key.cipher(salt, name);
            let opened = cipher.open_in_place(nonce(), Aad::empty(), &mut body);
            let length =
                opened.map_err(|_| "its seal is broken: it was damaged, cut short, or is another object")?.len();
            body.truncate(length);
            Ok(body)
        }
        (1, None) => Err("it is encrypted: name the key with --key-file"),
        (0, Some(_)) => Err("it isn't encrypted, and all others here are"),
        _ => Err("it is of a form that this program doesn't know, or its beginning is damaged"),
    }
}

/// Each key seals one object.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn checksum(name: &str, payload: &[u8]) -> [u8; TAIL_BYTES] {
    let mut hasher = Xxh3::new();
    hasher.update(name.as_bytes());
    hasher.update(&[0]);
    hasher.update(payload);
    hasher.digest128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> [Option<Key>; 2] {
        [None, Key::parse(&"0f".repeat(32))]
    }

    #[test]
    fn what_was_sealed_is_opened_and_an_empty_payload_too() {
        for key in keys() {
            for payload in [&b""[..], b"money", &[7; 70_000]] {
                let object = seal(key.as_ref(), "log/1", payload);
                assert_eq!(object.len() as u64, payload.len() as u64 + OVERHEAD_BYTES);
                assert_eq!(open(key.as_ref(), "log/1", &object).as_deref(), Ok(payload));
            }
        }
    }

    #[test]
    fn any_flipped_bit_any_cut_and_another_name_are_noticed() {
        for key in keys() {
            let object = seal(key.as_ref(), "log/1", b"money");
            for bit in 0..object.len() * 8 {
                let mut flipped = object.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // A plain object's salt is zero, and means nothing.
                let is_unused = key.is_none() && (8 * 8..HEAD_BYTES * 8).contains(&bit);
                assert_eq!(open(key.as_ref(), "log/1", &flipped).is_ok(), is_unused, "bit {bit}");
            }
            for length in 0..object.len() {
                assert!(open(key.as_ref(), "log/1", &object[..length]).is_err(), "cut to {length}");
            }
            assert!(open(key.as_ref(), "log/2", &object).is_err());
        }
    }

    #[test]
    fn another_key_none_or_one_too_many_opens_nothing() {
        let [_, key] = keys();
        let other = Key::parse(&"f0".repeat(32));
        assert_ne!(key.as_ref().map(Key::fingerprint), other.as_ref().map(Key::fingerprint));
        let sealed = seal(key.as_ref(), "a", b"money");
        assert!(open(other.as_ref(), "a", &sealed).is_err());
        assert!(open(None, "a", &sealed).unwrap_err().contains("--key-file"));
        assert!(open(key.as_ref(), "a", &seal(None, "a", b"money")).is_err());
    }

    #[test]
    fn the_same_payload_is_sealed_differently_each_time_and_shows_nothing_of_itself() {
        let [_, key] = keys();
        let objects = [(); 2].map(|()| seal(key.as_ref(), "a", b"money money money"));
        assert_ne!(objects[0], objects[1]);
        assert!(objects.iter().all(|object| !object.windows(5).any(|window| window == b"money")));
    }

    #[test]
    fn a_key_is_sixty_four_hexadecimal_digits() {
        assert!(Key::parse(&format!("{}\n", "aB".repeat(32))).is_some());
        for text in ["", "ab", &"g0".repeat(32), &"ab".repeat(33)] {
            assert!(Key::parse(text).is_none(), "{text}");
        }
        assert_eq!(format!("{:?}", Key::parse(&"ab".repeat(32)).unwrap()), "Key([secret])");
    }
}
