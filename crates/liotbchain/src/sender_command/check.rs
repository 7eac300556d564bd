//! `liotbchain sender check`: a line for each thing that the sender depends on, and the cure where one is amiss.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use liotbchain_core::KeyId;
use liotbchain_sender::check::{CheckOptions, Finding, Verdict};
use liotbchain_sender::{KEY_FILE, SigningKey};
use serde::Serialize;
use url::Url;

use super::{forward, mqtt};
use crate::Failure;
use crate::failure::Exit;
use crate::output::{print, print_json};
use crate::settings::Settings;

/// Tests all that a sender with these settings depends on.
///
/// # Errors
///
/// Without a word beyond the lines: 4 where nothing is amiss but that a receiver or the broker does not answer, 1 where
/// something else is. Warnings are no failure.
pub async fn check(settings: &Settings, json: bool) -> Result<(), Failure> {
    // A key that is missing or damaged has a line of its own.
    let key_id = SigningKey::load(&settings.data_dir.join(KEY_FILE)).map(|key| key.public_key().key_id());
    let options = CheckOptions {
        data_dir: settings.data_dir.clone(),
        key_kind: settings.sender_key,
        outbox: settings.outbox,
        forward: forward(settings)?,
        mqtt: mqtt(settings, key_id.unwrap_or(KeyId([0; 32])))?,
        sender: own_address(settings),
    };
    let findings = liotbchain_sender::check::check(&options).await;
    let exit = exit(&findings);
    if json {
        print_json(&Answer { ok: exit == Exit::Done, checks: &findings })?;
    } else {
        print(&lines(&findings))?;
    }
    if exit == Exit::Done { Ok(()) } else { Err(Failure::told(exit)) }
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    checks: &'a [Finding],
}

fn exit(findings: &[Finding]) -> Exit {
    let any = |verdict| findings.iter().any(|finding| finding.verdict == verdict);
    if any(Verdict::Fail) {
        Exit::Failed
    } else if any(Verdict::Unreachable) {
        Exit::Unreachable
    } else {
        Exit::Done
    }
}

fn lines(findings: &[Finding]) -> String {
    let mut lines = String::new();
    for Finding { check, verdict, message, cure } in findings {
        writeln!(lines, "{verdict:4}  {check:8}  {message}").expect("a String takes any text");
        if let Some(cure) = cure {
            writeln!(lines, "                {cure}").expect("a String takes any text");
        }
    }
    lines
}

/// Returns where a sender with these settings answers on this machine.
fn own_address(settings: &Settings) -> Url {
    let mut address = settings.sender_listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    Url::parse(&format!("http://{address}")).expect("an address and a port are a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: Verdict) -> Finding {
        Finding { check: "key", verdict, message: "as it is".to_owned(), cure: None }
    }

    #[test]
    fn the_exit_code_tells_what_is_amiss_from_who_is_away() {
        let code = |verdicts: &[Verdict]| exit(&Vec::from_iter(verdicts.iter().map(|it| finding(*it))));
        assert_eq!(code(&[Verdict::Ok, Verdict::Warn]), Exit::Done);
        assert_eq!(code(&[Verdict::Unreachable, Verdict::Warn]), Exit::Unreachable);
        assert_eq!(code(&[Verdict::Unreachable, Verdict::Fail, Verdict::Ok]), Exit::Failed);
    }

    #[test]
    fn a_finding_is_a_line_and_its_cure_another() {
        let cured = Finding { cure: Some("do this".to_owned()), ..finding(Verdict::Unreachable) };
        let expected = "warn  key       as it is\nfail  key       as it is\n                do this\n";
        assert_eq!(lines(&[finding(Verdict::Warn), cured]), expected);
    }
}
