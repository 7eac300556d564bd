//! Runs the program's `config show` and `config check`, in a folder and an environment of their own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn run(folder: &TempDir, environment: &[(&str, &str)], line: &str) -> (Output, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_liotbchain"))
        .args(line.split_whitespace())
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    (output, stdout, stderr)
}

#[test]
fn show_tells_each_value_and_its_source() {
    let folder = folder(&[
        (".env", "NONCE_LIMIT=500\nAPI_TOKEN=0123456789abcdef\nDATABASE_URL=host=h password=geheim dbname=n"),
        ("liotbchain.toml", "network_name = \"lab\""),
    ]);
    let (output, stdout, stderr) =
        run(&folder, &[("TRANSACTIONS_PER_BLOCK", "5")], "config show --difficulty 3");
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    let dotenv = folder.path().join(".env");
    let toml = folder.path().join("liotbchain.toml");
    for (name, value, origin) in [
        ("DIFFICULTY", "3", "flag".to_owned()),
        ("TRANSACTIONS_PER_BLOCK", "5", "environment".to_owned()),
        ("NONCE_LIMIT", "500", format!(".env ({})", dotenv.display())),
        ("API_TOKEN", "(set)", format!(".env ({})", dotenv.display())),
        ("RECEIVER_TOKEN", "(not set)", "default".to_owned()),
        ("DATABASE_URL", "host=h password=*** dbname=n", format!(".env ({})", dotenv.display())),
        ("NETWORK_NAME", "lab", format!("liotbchain.toml ({})", toml.display())),
        ("BLOCK_MAX_AGE", "off", "default".to_owned()),
    ] {
        let line = stdout.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        let rest = line.strip_prefix(name).unwrap().trim_start();
        assert_eq!(rest.strip_prefix(value).unwrap().trim_start(), origin);
    }
    assert!(!stdout.contains("geheim") && !stdout.contains("0123456789abcdef"));
}

#[test]
fn show_answers_programs_with_json() {
    let folder = folder(&[]);
    let environment = [("API_TOKEN", "0123456789abcdef"), ("DIFFICULTY", "17")];
    let (output, stdout, stderr) = run(&folder, &environment, "config show --json");
    assert_eq!((output.status.code(), stderr.as_str()), (Some(2), ""));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let row =
        |name: &str| answer["settings"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    let token = row("API_TOKEN");
    assert_eq!(
        (&token["set"], &token["origin"], token.get("value")),
        (&true.into(), &"environment".into(), None)
    );
    assert_eq!(row("DIFFICULTY")["valid"], false);
    assert_eq!(row("SEAL_WAIT")["value"], "5");
    assert_eq!(answer["problems"].as_array().unwrap().len(), 1);
    assert!(!stdout.contains("0123456789abcdef"));
}

#[test]
fn check_is_content_with_the_defaults() {
    let (output, stdout, stderr) = run(&folder(&[]), &[], "config check");
    assert_eq!(
        (output.status.code(), stdout.as_str(), stderr.as_str()),
        (Some(0), "the settings are fine\n", "")
    );
}

#[test]
fn check_tells_all_problems_at_once() {
    let folder = folder(&[("liotbchain.toml", "dificulty = 3")]);
    let environment = [("NONCE_LIMIT", "0"), ("RECEIVER_LISTEN", "0.0.0.0:5001"), ("LOG_LEVL", "info")];
    let (output, stdout, stderr) = run(&folder, &environment, "config check --seal-wait -1");
    assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""));
    let toml = folder.path().join("liotbchain.toml");
    let expected = format!(
        "warning: LOG_LEVL in the environment is no setting of liotbchain\n\
         hint: did you mean LOG_LEVEL?\n\
         error: unknown setting \"dificulty\" in {}\n\
         hint: did you mean \"difficulty\"?\n\
         error: NONCE_LIMIT in the environment is \"0\", but must be a whole number from 1 to 4294967296\n\
         hint: leave it out to have the default: 10000000\n\
         error: --seal-wait is \"-1\", but must be whole seconds from 0 to 300\n\
         hint: leave it out to have the default: 5\n\
         error: RECEIVER_LISTEN is 0.0.0.0:5001, which other machines can reach, but API_TOKEN is not set\n\
         hint: set API_TOKEN (`openssl rand -hex 24` makes one) or listen on 127.0.0.1\n",
        toml.display()
    );
    assert_eq!(stderr, expected);
}

#[test]
fn check_answers_programs_with_json() {
    let (output, stdout, stderr) = run(&folder(&[]), &[("API_TOKEN", "short")], "config check --json");
    assert_eq!((output.status.code(), stderr.as_str()), (Some(2), ""));
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["problems"][0]["hint"], "make one with `openssl rand -hex 24`");
}

#[test]
fn a_command_does_not_start_with_wrong_settings() {
    for line in ["receiver", "sender", "demo", "chain show", "keys show"] {
        let (output, stdout, stderr) = run(&folder(&[]), &[("DIFFICULTY", "17")], line);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{line}");
        assert!(stderr.starts_with("error: DIFFICULTY in the environment is \"17\""), "{line}: {stderr}");
    }
}

#[test]
fn a_public_address_does_not_start_without_a_token() {
    for (line, code) in [("receiver --receiver-listen 0.0.0.0:0", 2), ("sender --sender-listen [::]:0", 2)] {
        let (output, _, stderr) = run(&folder(&[]), &[], line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(stderr.contains("but API_TOKEN is not set"), "{line}: {stderr}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (output, stdout, _) = run(&folder(&[]), &[], "--version");
    assert_eq!(
        (output.status.code(), stdout),
        (Some(0), format!("liotbchain {}\n", env!("CARGO_PKG_VERSION")))
    );
    let (output, stdout, _) = run(&folder(&[]), &[], "receiver --help");
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout.contains("--nonce-limit <N>") && !stdout.contains("--api-token"));
    let (output, stdout, stderr) = run(&folder(&[]), &[], "receive");
    assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("receiver"), "{stderr}");
}
