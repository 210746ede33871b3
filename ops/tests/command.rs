//! The command as a person or a script meets it, as far as that needs no cluster: words, formats and exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

const NOBODY: &str = "127.0.0.1:1";

fn jangbu(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jangbu"))
        .args(arguments)
        .env_remove("JANGBU_ENDPOINTS")
        .current_dir(std::env::temp_dir())
        .output()
        .expect("the command was built beside this test")
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().expect("it ends by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file that is removed at the end of its test.
struct Sample(PathBuf);

impl Sample {
    fn new(name: &str, content: &str) -> Sample {
        let path = std::env::temp_dir().join(format!("jangbu-command-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("the temporary folder can be written");
        Sample(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("our own name is plain")
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn help_goes_to_standard_output_and_names_every_exit_code() {
    let output = jangbu(&["--help"]);
    assert_eq!(exit_code(&output), 0);
    let help = stdout(&output);
    for word in ["dev", "import", "verify", "Exit codes", "outcome unknown"] {
        assert!(help.contains(word), "`{word}` is missing in\n{help}");
    }
}

#[test]
fn a_command_line_without_sense_ends_with_2_and_says_so_on_standard_error() {
    for arguments in [&["acount", "list"][..], &["load", "--hot", "120%"], &["account", "show", "abc"], &["leader"]] {
        let output = jangbu(arguments);
        assert_eq!(exit_code(&output), 2, "{arguments:?}");
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_a_cluster_it_says_how_to_get_one() {
    let output = jangbu(&["cluster", "status"]);
    assert_eq!(exit_code(&output), 2);
    assert!(stderr(&output).contains("jangbu dev start"), "{}", stderr(&output));
}

#[test]
fn where_nobody_answers_reads_end_with_4_and_nothing_is_on_standard_output() {
    for command in [&["account", "list"][..], &["leader", "show"], &["verify"]] {
        let output = jangbu(&[command, &["--endpoints", NOBODY, "--timeout", "300ms"]].concat());
        assert_eq!(exit_code(&output), 4, "{command:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{command:?}");
    }
}

#[test]
fn a_dry_run_needs_no_cluster_and_names_each_row_that_does_not_agree() {
    let file = Sample::new(
        "bank.asc",
        "\"trans_id\";\"account_id\";\"date\";\"type\";\"operation\";\"amount\";\"balance\";\"k_symbol\";\"bank\";\"account\"\n\
         1;7;930101;\"PRIJEM\";\"VKLAD\";100.00;100.00;\"\";;\n\
         2;7;930131;\"PRIJEM\";\"\";0.40;100.50;\"UROK\";;\n",
    );
    let output = jangbu(&["import", file.path(), "--format", "berka", "--dry-run", "-o", "json"]);
    assert_eq!(exit_code(&output), 0, "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("it is JSON");
    assert_eq!(report["control_totals"]["transfers"], 2);
    assert_eq!(report["control_totals"]["ledgers"][0]["amount"], "10040");
    assert_eq!(report["disagreements"][0]["line"], 3);
    assert_eq!(report["disagreements"][0]["difference"], "0.10");
    let strict = jangbu(&["import", file.path(), "--format", "berka", "--dry-run", "--strict"]);
    assert_eq!(exit_code(&strict), 3);
}

#[test]
fn a_row_that_cannot_be_understood_stops_an_import_before_it_begins() {
    let file = Sample::new("rows.csv", "id,debit_account_id,credit_account_id,amount,ledger,code\n1,2,3,0.5,1,1\n");
    let output = jangbu(&["import", file.path(), "--format", "csv", "--endpoints", NOBODY]);
    assert_eq!(exit_code(&output), 2);
    assert!(stdout(&output).contains("line 2: amount: `0.5` has more than 0 decimal places"), "{}", stdout(&output));
}

#[test]
fn completions_are_for_every_common_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&jangbu(&["completion", shell])).contains("jangbu"), "{shell}");
    }
}
