use std::fs;
use std::path::Path;
use std::process::Command;

use crate::running::run;

const PAGES: [&str; 23] = [
    "liotbchain-bench.1",
    "liotbchain-chain-export.1",
    "liotbchain-chain-import.1",
    "liotbchain-chain-prune.1",
    "liotbchain-chain-show.1",
    "liotbchain-chain-validate.1",
    "liotbchain-chain.1",
    "liotbchain-completions.1",
    "liotbchain-config-check.1",
    "liotbchain-config-show.1",
    "liotbchain-config.1",
    "liotbchain-demo.1",
    "liotbchain-device.1",
    "liotbchain-keys-generate.1",
    "liotbchain-keys-show.1",
    "liotbchain-keys.1",
    "liotbchain-man.1",
    "liotbchain-receiver.1",
    "liotbchain-sender-check.1",
    "liotbchain-sender.1",
    "liotbchain-verify.1",
    "liotbchain-witness.1",
    "liotbchain.1",
];

/// Formats a page as `man` does, and returns its text.
fn formatted(page: &Path) -> String {
    // Not man itself: it refuses to run without a user's locale and pager.
    let output =
        Command::new("groff").args(["-man", "-Tutf8", "-ww", "-rHY=0", "-P-cbou"]).arg(page).output();
    let output = output.expect("groff is installed; in Debian it is in groff-base");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
    // Lines and columns are groff's business.
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_has_a_page_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(&folder, "man --out share/man1");
    assert!(told.stderr.starts_with("the pages are in share/man1"), "{told:?}");
    let pages = folder.path().join("share/man1");
    let names = pages.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, PAGES);
    for name in names {
        let text = formatted(&pages.join(&name));
        let command = name.trim_end_matches(".1");
        let named = format!("NAME {command} - ");
        let called = format!("SYNOPSIS {}", command.replace('-', " "));
        assert!(text.contains(&named) && text.contains(&called), "{name}: {text}");
        assert!(text.contains(&format!("liotbchain {}", env!("CARGO_PKG_VERSION"))), "{name}: {text}");
    }
    let receiver = formatted(&pages.join("liotbchain-receiver.1"));
    for part in ["--nonce-limit", "Attempts before mining a block is given up", "default: 10000000"] {
        assert!(receiver.contains(part), "{part} in {receiver}");
    }
}

#[test]
fn the_main_page_goes_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let page = run(&folder, "man").stdout();
    fs::write(folder.path().join("page"), &page).unwrap();
    let text = formatted(&folder.path().join("page"));
    for command in ["receiver", "sender", "demo", "keys", "chain", "config", "bench", "completions", "man"] {
        assert!(text.contains(&format!("liotbchain-{command}(1)")), "{command} in {text}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    fs::write(folder.path().join("taken"), "").unwrap();
    run(&folder, "man --out taken").failed(1, &["taken cannot be written", "hint: "]);
}
