//! A progress bar on standard error, where that is a terminal; silence where it is not.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` steps.
pub fn bar(what: &'static str, total: u64) -> ProgressBar {
    // indicatif hides itself where standard error is no terminal.
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{msg:>22} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    bar.set_style(style.expect("the template is a constant"));
    bar.set_message(what);
    bar
}

/// The same over bytes.
pub fn bytes(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{msg:>22} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.expect("the template is a constant"));
    bar.set_message(what);
    bar
}

/// A sign of life for work without a known end.
pub fn spinner(what: impl Into<String>) -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message(what.into());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
