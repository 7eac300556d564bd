//! Tests all that a sender depends on, and says what to do where something is amiss. Changes nothing and stores nothing,
//! here or at the receiver, so it may run beside a sender at work.

mod disk;
mod receiver;

use std::{fmt, path::PathBuf, time::Duration};

use reqwest::{Client, Url, redirect::Policy};
use serde::Serialize;

use crate::{
    forward::ForwardConfig,
    mqtt::{MqttConfig, MqttFault, check_broker},
    outbox::OutboxLimits,
    signer::KeyKind,
};

/// How long each answer is waited for.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What a sender with these settings would depend on.
#[derive(Debug)]
pub struct CheckOptions {
    /// Folder of the key and the queue.
    pub data_dir: PathBuf,
    /// The kind of key that is asked for.
    pub key_kind: KeyKind,
    /// How much the queue may hold.
    pub outbox: OutboxLimits,
    /// Where readings go.
    pub forward: ForwardConfig,
    /// The broker, if there is one.
    pub mqtt: Option<MqttConfig>,
    /// Where a sender that runs already would answer.
    pub sender: Url,
}

/// What one test came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tested: `key`, `folder`, `queue`, `receiver`, `clock` or `broker`.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The sender works, but somebody should look at it.
    Warn,
    /// The sender would not work.
    Fail,
    /// Another machine or program does not answer: readings would wait.
    Unreachable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail | Self::Unreachable => "fail",
        })
    }
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { check, verdict, message: message.into(), cure: None }
    }

    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, message)
    }

    fn warn(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, message)
    }

    fn fail(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, message)
    }

    fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }
}

/// Tests everything, and returns what was found in the order of a reading's way.
pub async fn check(options: &CheckOptions) -> Vec<Finding> {
    let mut findings = vec![
        disk::key(&options.data_dir, options.key_kind),
        disk::folder(&options.data_dir, options.outbox),
        disk::queue(&options.data_dir, &options.sender).await,
    ];
    if let Some(config) = &options.mqtt {
        findings.push(broker(config).await);
    }
    for receiver in &options.forward.receivers {
        findings.extend(receiver::receiver(receiver, options.forward.protocol).await);
    }
    findings
}

async fn broker(config: &MqttConfig) -> Finding {
    let url = config.url();
    let Err(fault) = check_broker(config).await else {
        return Finding::ok("broker", format!("{url} lets the sender in and grants its topics"));
    };
    // A fault says its cure.
    let verdict = match fault {
        MqttFault::Unreachable(_) | MqttFault::Silent(_) => Verdict::Unreachable,
        _ => Verdict::Fail,
    };
    Finding::new("broker", verdict, format!("{url}: {fault}"))
}

/// Returns a client that asks for nothing but what it is told to.
fn client(is_on_this_machine: bool) -> Result<Client, reqwest::Error> {
    let client = Client::builder()
        .user_agent(concat!("liotbchain-sender/", env!("CARGO_PKG_VERSION")))
        .timeout(ANSWER_TIME)
        .redirect(Policy::none());
    if is_on_this_machine { client.no_proxy() } else { client }.build()
}
