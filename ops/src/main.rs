//! `jangbu`, the operator's command. All of it lives in the library, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    jangbu_ops::main()
}
