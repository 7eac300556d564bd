//! Why a command ended before its end: in words with a cure, and as an exit code.

use std::process::ExitCode;

use liotbchain_http::BindError;
use liotbchain_node::LedgerError;
use liotbchain_sender::mqtt::MqttConfigError;
use liotbchain_sender::outbox::OutboxError;
use liotbchain_sender::{ReceiverError, SenderError, SignerError};
use liotbchain_store::StoreError;
use liotbchain_witness::WitnessError;

use crate::output;
use crate::settings::Problem;

/// Why a command failed. What is not told on standard error stands in its answer already.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    /// Each error with its cure, if there is one to name.
    errors: Vec<(String, Option<String>)>,
}

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing failed: whoever read the answer has seen enough.
    Done = 0,
    /// What was asked for could not be done.
    Failed = 1,
    /// The command line or the settings are wrong.
    Usage = 2,
    /// A chain breaks a rule.
    ChainInvalid = 3,
    /// A database, a receiver or a broker does not answer.
    Unreachable = 4,
}

impl Failure {
    /// Reports an error.
    pub fn new(exit: Exit, error: impl Into<String>) -> Self {
        Self { exit, errors: vec![(error.into(), None)] }
    }

    /// Reports an error with the general exit code.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::new(Exit::Failed, error)
    }

    /// Adds the cure.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        if let Some((_, cure)) = self.errors.last_mut() {
            *cure = Some(hint.into());
        }
        self
    }

    /// Fails without a word, where the answer has told why.
    pub fn told(exit: Exit) -> Self {
        Self { exit, errors: Vec::new() }
    }

    /// Ends the command because nobody reads what it writes.
    pub fn reader_gone() -> Self {
        Self::told(Exit::Done)
    }

    /// Says what there is to say, and returns the exit code.
    pub fn report(self) -> ExitCode {
        for (error, hint) in &self.errors {
            output::say_error(error, hint.as_deref());
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        let errors = problems.iter().map(|problem| (problem.to_string(), Some(problem.hint()))).collect();
        Self { exit: Exit::Usage, errors }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::CommitUnknown(_) => {
                Self::new(Exit::Unreachable, error.to_string())
            }
            StoreError::Config { problem, cure } => Self::new(Exit::Usage, problem).with_hint(cure),
            StoreError::Corrupt(_) => Self::failed(error.to_string()).with_hint(
                "put a copy of it back, or import an export of the chain into another DATABASE_URL",
            ),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Store(error) => error.into(),
            LedgerError::DifficultyBelowLeast { least, .. } => {
                let hint =
                    format!("set DIFFICULTY={least} or higher, or DATABASE_URL to a place for another chain");
                Self::new(Exit::Usage, error.to_string()).with_hint(hint)
            }
            LedgerError::Genesis(_) => {
                Self::new(Exit::Usage, error.to_string()).with_hint("set NETWORK_NAME to another name")
            }
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<SignerError> for Failure {
    fn from(error: SignerError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<ReceiverError> for Failure {
    fn from(error: ReceiverError) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

impl From<SenderError> for Failure {
    fn from(error: SenderError) -> Self {
        match error {
            SenderError::Bind(error) => error.into(),
            SenderError::Receiver(error) => error.into(),
            SenderError::Outbox(error) => error.into(),
        }
    }
}

impl From<OutboxError> for Failure {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Disk(_) => Self::failed(error.to_string())
                .with_hint("`liotbchain sender check` tests the folder and its disk"),
            // The others say it themselves.
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<WitnessError> for Failure {
    fn from(error: WitnessError) -> Self {
        let text = error.to_string();
        match error {
            WitnessError::Bind(error) => error.into(),
            WitnessError::Key(error) => error.into(),
            WitnessError::Copy { error: StoreError::Unavailable(_), .. } => Self::new(Exit::Unreachable, text),
            WitnessError::StateMissing { .. } => Self::failed(text).with_hint(
                "put the state back as it was last, or move the key away too: the next start makes a new witness",
            ),
            WitnessError::Name(_) => {
                Self::new(Exit::Usage, text).with_hint("write a name such as witness.example.org/anna")
            }
            WitnessError::PolicyFile { .. } | WitnessError::Policy { .. } | WitnessError::NoLog(_) => {
                Self::new(Exit::Usage, text)
                    .with_hint("write a line `log KEY [URL]` for each log, and a last line `quorum none`")
            }
            WitnessError::Address { .. } => {
                Self::new(Exit::Usage, text).with_hint("write http://HOST:PORT, or leave the address out")
            }
            WitnessError::NotCheckable(_) => Self::new(Exit::Usage, text).with_hint(
                "add the receiver's address to its line, or run a witness of its own for it without WITNESS_VALIDATE",
            ),
            _ => Self::failed(text),
        }
    }
}

impl From<MqttConfigError> for Failure {
    fn from(error: MqttConfigError) -> Self {
        vec![Problem::from(error)].into()
    }
}
