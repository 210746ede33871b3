//! Money: checked arithmetic only.
//!
//! An amount has no `+` and no `-`. Whoever adds must say what happens when the sum does not fit, and whoever subtracts
//! must say what happens below zero.
//!
//! Laws
//! * Money neither wraps nor rounds.

use core::fmt;

/// A number of the smallest units of a ledger's currency, from 0 to 2^128 - 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Amount(pub u128);

impl Amount {
    pub const ZERO: Amount = Amount(0);
    /// In a post it means: all that was held.
    pub const MAX: Amount = Amount(u128::MAX);

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` where the sum does not fit.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// `None` below zero.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// Zero below zero: for "how much is left", where less than nothing is nothing.
    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Amount;

    #[test]
    fn a_sum_that_does_not_fit_is_no_amount() {
        assert_eq!(Amount::MAX.checked_add(Amount(1)), None);
        assert_eq!(Amount(2).checked_add(Amount(3)), Some(Amount(5)));
    }

    #[test]
    fn nothing_goes_below_zero() {
        assert_eq!(Amount(2).checked_sub(Amount(3)), None);
        assert_eq!(Amount(3).checked_sub(Amount(2)), Some(Amount(1)));
        assert_eq!(Amount(2).saturating_sub(Amount(3)), Amount::ZERO);
        assert_eq!(Amount(3).saturating_sub(Amount(2)), Amount(1));
    }

    #[test]
    fn an_amount_prints_as_its_number() {
        assert_eq!(alloc::format!("{} {:?}", Amount(15), Amount(0)), "15 0");
        assert!(Amount::ZERO.is_zero() && !Amount(1).is_zero());
    }
}
