//! Every command that does something, as `--help` shows them: so that a test that goes through them forgets none.

use std::path::Path;
use std::process::Command;

pub(crate) fn commands(jangbu: &Path) -> Vec<String> {
    let commands = below(jangbu, "");
    assert!(commands.len() > 50, "only {} commands were found", commands.len());
    commands
}

/// The commands under these words, or the words themselves.
fn below(jangbu: &Path, words: &str) -> Vec<String> {
    let help = Command::new(jangbu).args(words.split_whitespace()).arg("--help").output().expect("the command starts");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Two spaces and a name; what is indented further goes on with a description.
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let longer: Vec<String> = names.filter(|name| *name != "help").map(|name| format!("{words} {name}")).collect();
    match longer.is_empty() {
        true => vec![words.trim_start().to_owned()],
        false => longer.iter().flat_map(|words| below(jangbu, words)).collect(),
    }
}
