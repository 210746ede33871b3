//! Numbers and names as people write and read them.
//!
//! Laws
//! * Money is parsed and printed digit by digit; no floating point is involved anywhere.
//! * What is printed as an id, an amount or a time is accepted as input.

use std::fmt::Write as _;

use jangbu_ledger::{AccountFlags, TransferFlags};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An exact decimal such as `-12.50`, in units of 10^-scale: at scale 2 that is -1250. More digits than the scale has are
/// refused unless they are zeros: money is not rounded.
pub fn decimal(text: &str, scale: u32) -> Result<i128, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return Err(format!("`{text}` is no decimal number"));
    }
    let places = scale as usize;
    let kept = &fraction[..fraction.len().min(places)];
    if fraction[kept.len()..].bytes().any(|digit| digit != b'0') {
        return Err(format!("`{text}` has more than {scale} decimal places"));
    }
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(kept.bytes()).chain(std::iter::repeat_n(b'0', places - kept.len())) {
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .ok_or_else(|| format!("`{text}` is too large"))?;
    }
    Ok(if negative { -value } else { value })
}

/// The inverse of `decimal`: -1250 at scale 2 is `-12.50`.
pub fn decimal_text(value: i128, scale: u32) -> String {
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// A u128 in decimal, or in hexadecimal after `0x`. `_` may group digits.
pub fn number(text: &str) -> Result<u128, String> {
    let plain = text.replace('_', "");
    let parsed = match plain.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16),
        None => plain.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is no number from 0 to 2^128 - 1"))
}

/// A duration such as `500ms`, `5s`, `2m` or `1h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale_ms = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}`: write a duration as 500ms, 5s, 2m or 1h")),
    };
    let thousandths = decimal(digits, 3).map_err(|_| format!("`{text}`: write a duration as 500ms, 5s, 2m or 1h"))?;
    let ms = thousandths * scale_ms / 1_000;
    u64::try_from(ms).map(std::time::Duration::from_millis).map_err(|_| format!("`{text}` is too long"))
}

/// A share such as `10%` or `0.1`, in millionths.
pub fn share(text: &str) -> Result<u32, String> {
    let millionths = match text.strip_suffix('%') {
        Some(percent) => decimal(percent, 4),
        None => decimal(text, 6),
    }?;
    if !(0..=1_000_000).contains(&millionths) {
        return Err(format!("`{text}`: a share lies between 0 and 1 (or 0% and 100%)"));
    }
    Ok(millionths as u32)
}

/// A timestamp: nanoseconds since the Unix epoch, or RFC 3339 such as `2026-11-22T19:00:00Z`.
pub fn timestamp(text: &str) -> Result<u64, String> {
    if let Ok(nanoseconds) = text.parse() {
        return Ok(nanoseconds);
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| format!("`{text}`: write a time as 2026-11-22T19:00:00Z or as nanoseconds since 1970"))?;
    u64::try_from(moment.unix_timestamp_nanos()).map_err(|_| format!("`{text}` is out of range"))
}

/// A ledger's timestamp for people: UTC with nanoseconds, because they tell events apart.
pub fn timestamp_text(nanoseconds: u64) -> String {
    if nanoseconds == 0 {
        return "-".into();
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanoseconds))
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| nanoseconds.to_string())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Flags by name, separated by commas, `|` or spaces; or the number of the bits.
pub fn account_flags(text: &str) -> Result<AccountFlags, String> {
    flags(text, AccountFlags, AccountFlags::named, &AccountFlags::NAMES)
}

pub fn transfer_flags(text: &str) -> Result<TransferFlags, String> {
    flags(text, TransferFlags, TransferFlags::named, &TransferFlags::NAMES)
}

fn flags<F: FromIterator<F>>(
    text: &str,
    of_bits: fn(u16) -> F,
    named: fn(&str) -> Option<F>,
    known: &[(&str, F)],
) -> Result<F, String> {
    if let Ok(bits) = text.trim().parse() {
        return Ok(of_bits(bits));
    }
    let words = text.split([',', '|', ' ']).filter(|word| !word.is_empty());
    let unknown = |word| {
        let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        format!("`{word}` is no flag; there are: {}", known.join(", "))
    };
    words.map(|word| named(word).ok_or_else(|| unknown(word))).collect()
}

/// The flags whose switches were given.
pub fn chosen<F: FromIterator<F>>(switches: impl IntoIterator<Item = (bool, F)>) -> F {
    switches.into_iter().filter_map(|(given, flag)| given.then_some(flag)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal("700.00", 2), Ok(70_000));
        assert_eq!(decimal("0.1", 2), Ok(10));
        assert_eq!(decimal("-12.5", 2), Ok(-1_250));
        assert_eq!(decimal("3", 2), Ok(300));
        assert_eq!(decimal(".5", 2), Ok(50));
        assert_eq!(decimal("1.500", 2), Ok(150), "trailing zeros lose nothing");
        assert_eq!(decimal("170141183460469231731687303715884105727", 0), Ok(i128::MAX));
    }

    #[test]
    fn what_is_no_decimal_or_would_be_rounded_is_refused() {
        for text in
            ["", ".", "-", "1.2.3", "1e5", "12,50", " 1", "0.125", "١", "170141183460469231731687303715884105728"]
        {
            assert!(decimal(text, 2).is_err(), "{text}");
        }
    }

    #[test]
    fn decimals_print_as_they_are_read() {
        for text in ["0.00", "0.05", "-0.05", "12.50", "-1234567.89"] {
            assert_eq!(decimal_text(decimal(text, 2).unwrap(), 2), text);
        }
        assert_eq!(decimal_text(-7, 0), "-7");
    }

    #[test]
    fn durations_and_shares_have_units() {
        assert_eq!(duration("250ms").unwrap().as_millis(), 250);
        assert_eq!(duration("1.5s").unwrap().as_millis(), 1_500);
        assert_eq!(duration("2m").unwrap().as_secs(), 120);
        assert!(duration("5 weeks").is_err());
        assert_eq!(share("10%"), Ok(100_000));
        assert_eq!(share("0.1"), Ok(100_000));
        assert_eq!(share("1"), Ok(1_000_000));
        assert!(share("101%").is_err());
    }

    #[test]
    fn times_print_as_they_are_read() {
        let moment = timestamp("2026-11-22T19:00:00.000000001Z").unwrap();
        assert_eq!(timestamp_text(moment), "2026-11-22T19:00:00.000000001Z");
        assert_eq!(timestamp(&moment.to_string()), Ok(moment));
    }

    #[test]
    fn flags_are_read_by_name_and_by_bits() {
        let flags = account_flags("history|debits_must_not_exceed_credits").unwrap();
        assert!(flags.names().eq(["debits_must_not_exceed_credits", "history"]));
        assert_eq!(transfer_flags("2"), Ok(TransferFlags::PENDING));
        assert_eq!(transfer_flags(""), Ok(TransferFlags::NONE));
        assert!(account_flags("locked").unwrap_err().contains("closed"));
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(grouped(0u32), "0");
        assert_eq!(grouped(999u32), "999");
        assert_eq!(grouped(49_102u32), "49,102");
    }
}
