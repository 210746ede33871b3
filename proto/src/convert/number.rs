//! 128-bit numbers: on the wire, and as decimal strings.
//!
//! JSON's numbers lose digits beyond 2^53, so ids and amounts are strings there, and wherever people type them.

use crate::{Malformed, jangbu::v1};

/// An unset number is zero.
pub fn u128_from_wire(number: &Option<v1::Uint128>) -> u128 {
    number.as_ref().map_or(0, |number| (number.high as u128) << 64 | number.low as u128)
}

/// Zero is left unset.
pub fn u128_to_wire(number: u128) -> Option<v1::Uint128> {
    (number != 0).then_some(v1::Uint128 { high: (number >> 64) as u64, low: number as u64 })
}

pub fn to_decimal(number: u128) -> String {
    number.to_string()
}

/// Digits only, without sign or spaces; at most 2^128 - 1. `field` is named in the refusal.
pub fn from_decimal(field: &str, text: &str) -> Result<u128, Malformed> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::new(field, "is no decimal number"));
    }
    text.parse().map_err(|_| Malformed::new(field, "is above 2^128 - 1"))
}

/// For fields that are 32 bits wide on the wire only because it knows no narrower ones.
pub(super) fn u16_from_wire(field: &str, number: u32) -> Result<u16, Malformed> {
    u16::try_from(number).map_err(|_| Malformed::new(field, format!("{number} is above 65,535")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_the_wire_and_its_decimal_form() {
        for number in [0, 1, u64::MAX as u128, 1 << 64, u128::MAX] {
            assert_eq!(u128_from_wire(&u128_to_wire(number)), number);
            assert_eq!(from_decimal("id", &to_decimal(number)), Ok(number));
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "+1", "-1", " 1", "1_000", "0x10", "1.0", "١"] {
            assert_eq!(from_decimal("amount", text), Err(Malformed::new("amount", "is no decimal number")), "{text}");
        }
        let too_large = "340282366920938463463374607431768211456";
        assert_eq!(from_decimal("amount", too_large), Err(Malformed::new("amount", "is above 2^128 - 1")));
    }
}
