//! Whom to trust: the file of [c2sp.org/tlog-policy](https://c2sp.org/tlog-policy), which names logs, witnesses, and how many
//! of them must have cosigned.
//!
//! ```text
//! log liotbchain/<genesis hash>+5f2c…+AZ… http://127.0.0.1:5001
//! witness anna witness.example/anna+9d3b…+BC…  http://127.0.0.1:5010
//! witness bert witness.example/bert+71aa…+BF…
//! group both all anna bert
//! quorum both
//! ```

use std::collections::{HashMap, HashSet};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, parse_size},
    note::{Note, NoteError, NoteKey, NoteKeyKind},
};

/// Most bytes of a policy.
const TEXT_SIZE_MAX: usize = 256 << 10;
/// Most lines that define something.
const LINES_MAX: usize = 1_000;

/// Why a text is no policy, or a checkpoint does not satisfy one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than any policy needs to be.
    #[error("the policy has more than {TEXT_SIZE_MAX} bytes or {LINES_MAX} lines")]
    TooLarge,
    /// A control character.
    #[error("line {line}: a control character")]
    Control {
        /// Counted from 1.
        line: usize,
    },
    /// A line that is none of the four kinds.
    #[error(
        "line {line}: expected `log KEY [URL]`, `witness NAME KEY [URL]`, `group NAME all|any|NUMBER NAME…` or `quorum NAME`"
    )]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A key that is none.
    #[error("line {line}: {error}")]
    Key {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: NoteError,
    },
    /// A log with the key of a cosigner, or the other way round.
    #[error("line {line}: this key is not one that a {expected} signs with")]
    KeyKind {
        /// Counted from 1.
        line: usize,
        /// `log` or `witness`.
        expected: &'static str,
    },
    /// A name or a key that stands there twice.
    #[error("line {line}: {what} stands in the policy twice")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// The name, or `this key`.
        what: String,
    },
    /// A name that no line above defines.
    #[error("line {line}: no line above defines {name}")]
    Unknown {
        /// Counted from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// A threshold that no group can reach, or that asks for nothing.
    #[error("line {line}: expected `all`, `any`, or a number from 1 to that of the members")]
    Threshold {
        /// Counted from 1.
        line: usize,
    },
    /// No line says what suffices.
    #[error("the policy has no line `quorum NAME` (`quorum none` asks for no witness)")]
    NoQuorum,
    /// None of the logs signed.
    #[error("no log of the policy signed the checkpoint of {origin}")]
    NoLog {
        /// The checkpoint's.
        origin: String,
    },
    /// The checkpoint is none, or a signature is bad.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A cosignature in a witness's name is not its.
    #[error(transparent)]
    Cosignature(#[from] NoteError),
    /// Too few witnesses cosigned.
    #[error("the quorum {quorum:?} of the policy is not reached: {cosigned} of its witnesses cosigned")]
    Quorum {
        /// The name in the line `quorum`.
        quorum: String,
        /// How many witnesses of the policy cosigned.
        cosigned: usize,
    },
}

/// A log or a witness, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its name in the policy; of a log its origin.
    pub name: String,
    /// What it signs with.
    pub key: NoteKey,
    /// Where it is reached, if that is known.
    pub url: Option<String>,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Any of these may have signed; where there is none, logs are known from elsewhere.
    pub logs: Vec<Party>,
    /// Those whose cosignatures count.
    pub witnesses: Vec<Party>,
    quorum_name: String,
    quorum: Option<Member>,
}

/// Who must have cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    /// A witness, by its place among them.
    Witness(usize),
    /// So many of these.
    Group(usize, Vec<Member>),
}

impl Member {
    fn is_reached(&self, cosigned: &HashSet<usize>) -> bool {
        match self {
            Self::Witness(place) => cosigned.contains(place),
            Self::Group(threshold, members) => {
                members.iter().filter(|member| member.is_reached(cosigned)).count() >= *threshold
            }
        }
    }
}

/// A witness that cosigned a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// The name of the witness's key.
    pub name: String,
    /// When it says it did, in seconds since the Unix epoch.
    pub time_s: u64,
}

/// What a checkpoint that satisfies a policy shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// Whether a log of the policy signed; false where the policy names none.
    pub by_log: bool,
    /// Who cosigned.
    pub cosigned: Vec<Cosigned>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut reader = Reader::default();
        if text.len() > TEXT_SIZE_MAX {
            return Err(PolicyError::TooLarge);
        }
        for (line, text) in (1..).zip(text.split('\n')) {
            if text.contains(|character: char| character.is_ascii_control() && character != '\t') {
                return Err(PolicyError::Control { line });
            }
            let words: Vec<_> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            if line > LINES_MAX {
                return Err(PolicyError::TooLarge);
            }
            match &words[..] {
                [] => {}
                [comment, ..] if comment.starts_with('#') => {}
                ["log", key] => reader.log(line, key, None)?,
                ["log", key, url] => reader.log(line, key, Some(url))?,
                ["witness", name, key] => reader.witness(line, name, key, None)?,
                ["witness", name, key, url] => reader.witness(line, name, key, Some(url))?,
                ["group", name, threshold, members @ ..] => reader.group(line, name, threshold, members)?,
                ["quorum", name] => reader.quorum(line, name)?,
                _ => return Err(PolicyError::Line { line }),
            }
        }
        let (quorum_name, quorum) = reader.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(Self { logs: reader.logs, witnesses: reader.witnesses, quorum_name, quorum })
    }

    /// Returns whether no cosignature is asked for.
    pub fn asks_for_none(&self) -> bool {
        self.quorum.is_none()
    }

    /// Checks a checkpoint: signed by a log of the policy, if it names any, and cosigned by enough witnesses.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NoLog`], [`PolicyError::Quorum`]; others where a signature in a known name is bad.
    pub fn check(&self, note: &Note) -> Result<Vouched, PolicyError> {
        let checkpoint = Checkpoint::of(note)?;
        let mut by_log = false;
        for log in self.logs.iter().filter(|log| log.key.name() == checkpoint.origin) {
            match note.verify(&log.key) {
                Ok(()) => by_log = true,
                Err(NoteError::NotSigned(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !by_log && !self.logs.is_empty() {
            return Err(PolicyError::NoLog { origin: checkpoint.origin });
        }
        let (mut cosigned, mut places) = (Vec::new(), HashSet::new());
        for (place, witness) in self.witnesses.iter().enumerate() {
            match note.verify_cosignature(&witness.key) {
                Ok(time_s) => {
                    cosigned.push(Cosigned { name: witness.key.name().to_owned(), time_s });
                    places.insert(place);
                }
                Err(NoteError::NotSigned(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.quorum.as_ref().is_some_and(|quorum| !quorum.is_reached(&places)) {
            return Err(PolicyError::Quorum { quorum: self.quorum_name.clone(), cosigned: cosigned.len() });
        }
        Ok(Vouched { checkpoint, by_log, cosigned })
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    logs: Vec<Party>,
    witnesses: Vec<Party>,
    /// What a name stands for, until a group takes it.
    names: HashMap<String, Option<Member>>,
    quorum: Option<(String, Option<Member>)>,
}

impl Reader {
    fn log(&mut self, line: usize, key: &str, url: Option<&str>) -> Result<(), PolicyError> {
        let key = parse_key(line, key, NoteKeyKind::Log)?;
        check_new(line, &self.logs, &key)?;
        self.logs.push(Party { name: key.name().to_owned(), key, url: url.map(str::to_owned) });
        Ok(())
    }

    fn witness(&mut self, line: usize, name: &str, key: &str, url: Option<&str>) -> Result<(), PolicyError> {
        let key = parse_key(line, key, NoteKeyKind::Cosigner)?;
        check_new(line, &self.witnesses, &key)?;
        self.define(line, name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(Party { name: name.to_owned(), key, url: url.map(str::to_owned) });
        Ok(())
    }

    fn group(
        &mut self,
        line: usize,
        name: &str,
        threshold: &str,
        members: &[&str],
    ) -> Result<(), PolicyError> {
        let threshold = match threshold {
            "all" => members.len(),
            "any" => 1,
            number => {
                let threshold = parse_size(number).and_then(|threshold| usize::try_from(threshold).ok());
                threshold.ok_or(PolicyError::Threshold { line })?
            }
        };
        if threshold == 0 || threshold > members.len() {
            return Err(PolicyError::Threshold { line });
        }
        let members = members.iter().map(|member| self.take(line, member)).collect::<Result<_, _>>()?;
        self.define(line, name, Member::Group(threshold, members))
    }

    fn quorum(&mut self, line: usize, name: &str) -> Result<(), PolicyError> {
        if self.quorum.is_some() {
            return Err(PolicyError::Twice { line, what: "quorum".to_owned() });
        }
        let quorum = if name == "none" { None } else { Some(self.take(line, name)?) };
        self.quorum = Some((name.to_owned(), quorum));
        Ok(())
    }

    fn define(&mut self, line: usize, name: &str, member: Member) -> Result<(), PolicyError> {
        if name == "none" || self.names.contains_key(name) {
            return Err(PolicyError::Twice { line, what: name.to_owned() });
        }
        self.names.insert(name.to_owned(), Some(member));
        Ok(())
    }

    /// Each name counts in one place, so that no witness counts twice.
    fn take(&mut self, line: usize, name: &str) -> Result<Member, PolicyError> {
        let Some(member) = self.names.get_mut(name) else {
            return Err(PolicyError::Unknown { line, name: name.to_owned() });
        };
        member.take().ok_or_else(|| PolicyError::Twice { line, what: name.to_owned() })
    }
}

fn parse_key(line: usize, key: &str, kind: NoteKeyKind) -> Result<NoteKey, PolicyError> {
    let key: NoteKey = key.parse().map_err(|error| PolicyError::Key { line, error })?;
    let expected = match kind {
        NoteKeyKind::Log => "log",
        NoteKeyKind::Cosigner => "witness",
    };
    if key.kind() == kind { Ok(key) } else { Err(PolicyError::KeyKind { line, expected }) }
}

fn check_new(line: usize, parties: &[Party], key: &NoteKey) -> Result<(), PolicyError> {
    if parties.iter().any(|party| party.key.public_key() == key.public_key()) {
        return Err(PolicyError::Twice { line, what: "this key".to_owned() });
    }
    Ok(())
}
