//! Where the shipped binaries are, beside the program that tests them; and where there is room to test them.
//!
//! Cargo builds a package's own binaries before its tests, but not those of another package, and importing `node` would
//! be an arrow that the house doesn't have. So `ops/test.sh` builds the workspace first, and this says so when it didn't.

use std::{env, fs, path::PathBuf};

/// The node.
pub fn jangbud() -> PathBuf {
    binary("jangbud")
}

/// The operator's command.
pub fn jangbu() -> PathBuf {
    binary("jangbu")
}

/// Where tests keep their nodes' folders: beside the build, on a real disk. The system's own folder for temporary files is
/// memory on many machines, and what is "synced" there proves nothing.
pub(crate) fn workshop() -> PathBuf {
    let folder = jangbud().with_file_name("../tmp");
    fs::create_dir_all(&folder).expect("the build's folder takes more");
    folder.canonicalize().expect("it was just made")
}

fn binary(name: &str) -> PathBuf {
    let own = env::current_exe().expect("a running program has a path");
    // Binaries lie in target/release, test programs one folder below it, in deps.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no `{name}` beside {}. Build it first: cargo build --release --workspace --bins", own.display())
    })
}
