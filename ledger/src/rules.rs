//! One rule per file. Each looks at the books, decides, and has the decision written down; none changes anything before
//! it has decided.
//!
//! ```text
//! linked            runs a request: each event, and each chain as one
//!   imported          which timestamp an event gets
//!   create_account
//!   create_transfer   an ordinary or pending transfer
//!     post_or_void      …or what becomes of a pending one
//! expire            the pulse
//! ```
//!
//! Laws
//! * The first status of the list in `status.rs` that applies is the answer: in these files the order of the checks is that list.

pub(crate) mod create_account;
pub(crate) mod create_transfer;
pub(crate) mod expire;
pub(crate) mod imported;
pub(crate) mod linked;
pub(crate) mod post_or_void;

/// The answer where a check fails.
macro_rules! refuse_if {
    ($condition:expr, $status:expr) => {
        if $condition {
            return Err($status);
        }
    };
}
pub(crate) use refuse_if;
