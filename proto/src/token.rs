//! A bearer token: what a caller shows instead of a certificate, and what the cluster keeps of it.
//!
//!     jangbu.shop.6b1f…c2      its name among the cluster's tokens, and the secret: 32 random bytes, in hexadecimal
//!
//! Laws
//! * The cluster keeps the secret's hash only; the secret is known to whoever made the token, and to its bearers.
//! * Nothing here shows the secret but [`BearerToken::to_secret`].
//!
//! Not here: what a token grants and for how long (`cluster.v1.Token`), who asks for it (`node/src/access.rs`).

use std::{fmt, fmt::Write as _};

use sha2::{Digest as _, Sha256};

use crate::{Malformed, Secret};

/// Where calls carry it: `authorization: Bearer jangbu.…`.
pub const HEADER: &str = "authorization";
/// Before the token, in that header.
pub const SCHEME: &str = "Bearer ";

/// What every token begins with, so that scanners find one where it doesn't belong.
const PREFIX: &str = "jangbu.";
const SECRET_BYTES: usize = 32;
pub const HASH_BYTES: usize = 32;
pub const ID_BYTES_MAX: usize = 64;

#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken {
    id: String,
    secret: [u8; SECRET_BYTES],
}

impl BearerToken {
    /// `secret`: drawn by chance, never used before.
    pub fn new(id: &str, secret: [u8; SECRET_BYTES]) -> Result<Self, Malformed> {
        check_id(id)?;
        Ok(Self { id: id.to_owned(), secret })
    }

    /// Refuses what is no token, without repeating it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let no_token =
            || Malformed::new("token", "is not of the form jangbu.NAME.SECRET that `jangbu token create` shows");
        let (id, secret) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or_else(no_token)?;
        check_id(id).map_err(|_| no_token())?;
        Ok(Self { id: id.to_owned(), secret: from_hex(secret).ok_or_else(no_token)? })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the cluster keeps. Equal secrets are recognized by it, and no secret is found from it: so it may be compared byte
    /// by byte, in whatever time that takes.
    pub fn hash(&self) -> [u8; HASH_BYTES] {
        Sha256::digest(self.secret).into()
    }

    /// The whole token, for its bearer.
    pub fn to_secret(&self) -> Secret {
        let mut text = format!("{PREFIX}{}.", self.id);
        for byte in self.secret {
            let _ = write!(text, "{byte:02x}"); // writing to a String never fails
        }
        Secret::new(text)
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerToken({}, [secret])", self.id)
    }
}

/// Whether a token may be called so.
pub fn check_id(id: &str) -> Result<(), Malformed> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain) {
        true => Ok(()),
        false => Err(Malformed::new("token_id", format!("takes 1 to {ID_BYTES_MAX} letters, digits, '-' and '_'"))),
    }
}

fn from_hex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let (digits, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let bytes: Vec<u8> =
        digits.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> BearerToken {
        BearerToken::new("shop-1", [0xa7; SECRET_BYTES]).unwrap()
    }

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let written = token().to_secret();
        assert_eq!(written.reveal(), format!("jangbu.shop-1.{}", "a7".repeat(32)));
        assert_eq!(BearerToken::parse(written.reveal()), Ok(token()));
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let whole = token().to_secret().reveal().to_owned();
        let strange = [
            String::new(),
            "hunter2".into(),
            whole.replace("jangbu", "ghp"),
            whole.replace("shop-1", ""),
            whole.replace("shop-1", "a b"),
            whole.to_uppercase(),
            whole[..whole.len() - 1].into(),
            whole.clone() + "a7",
            whole.clone() + ".a7",
        ];
        for text in strange {
            let refused = BearerToken::parse(&text).unwrap_err().to_string();
            assert!(text.is_empty() || !refused.contains(&text), "{text}: {refused}");
        }
    }

    #[test]
    fn a_token_is_known_by_its_hash_and_shown_without_its_secret() {
        assert_eq!(token().hash(), token().hash());
        assert_ne!(token().hash(), BearerToken::new("shop-1", [0xa8; SECRET_BYTES]).unwrap().hash());
        assert_eq!(format!("{:?}", token()), "BearerToken(shop-1, [secret])");
    }
}
