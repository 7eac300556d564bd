use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::running::run;

/// Asks a real bash what it makes of a line whose last word is begun.
fn complete(folder: &TempDir, line: &str) -> Vec<String> {
    let script = r#"
        set -u
        source "$1"
        read -ra COMP_WORDS <<< "$2"
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$2 COMP_POINT=${#2} COMPREPLY=()
        function=$(complete -p liotbchain | sed 's/.*-F \([^ ]*\) .*/\1/')
        "$function" liotbchain "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let completions = folder.path().join("completions.bash");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"]).arg(&completions).arg(line);
    let output = bash.output().expect("bash is installed");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap().lines().map(|word| word.trim().to_owned()).collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    // A script comes out whatever is wrong with the settings.
    fs::write(folder.path().join(".env"), "DIFFICULTY=many").unwrap();
    let script = run(&folder, "completions bash").stdout();
    fs::write(folder.path().join("completions.bash"), script).unwrap();
    assert_eq!(complete(&folder, "liotbchain ch"), ["chain"]);
    assert_eq!(complete(&folder, "liotbchain chain va"), ["validate"]);
    assert_eq!(complete(&folder, "liotbchain receiver --nonce"), ["--nonce-limit"]);
    assert_eq!(complete(&folder, "liotbchain bench --key rs"), ["rsa"]);
    assert_eq!(complete(&folder, "liotbchain sender --difficulty"), [""]);
}

#[test]
fn there_is_a_script_for_each_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&folder, &format!("completions {shell}")).stdout();
        assert!(script.contains("validate") && script.contains("nonce-limit"), "{shell}");
    }
    run(&folder, "completions csh").failed(2, &["csh", "zsh"]);
}
