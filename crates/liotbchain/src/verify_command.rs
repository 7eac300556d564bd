//! `liotbchain verify`: checks proof files and exports, alone: no network, no server, no settings, no store.

mod file;
mod words;

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use liotbchain_core::{
    BlockHash, Checkpoint, Policy,
    hash::Root,
    note::Note,
    receipt::{ProvenAnchor, ProvenConsistency},
};

use crate::failure::{Exit, Failure};
use crate::output::{print, print_json};

pub use file::read_text;
use file::{Finding, Proven, Read};
pub use words::printable;

/// What is checked, and what whoever asks knows from elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    files: Vec<PathBuf>,
    genesis: Option<BlockHash>,
    policy: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
}

impl Plan {
    /// Adds the arguments of the command.
    pub fn arguments(command: Command) -> Command {
        let file = |name: &'static str| {
            Arg::new(name)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
        };
        command
            .arg(
                file("files")
                    .required(true)
                    .action(ArgAction::Append)
                    .num_args(1..)
                    .help("Receipts, histories of keys, proofs, checkpoints, exports; - is standard input"),
            )
            .arg(
                Arg::new("genesis")
                    .long("genesis")
                    .value_name("HASH")
                    .value_parser(value_parser!(BlockHash))
                    .help("The chain that all must be of: the hash of its genesis block"),
            )
            .arg(file("policy").long("policy").help("Whose signatures are asked for (c2sp.org/tlog-policy)"))
            .arg(
                file("checkpoint")
                    .long("checkpoint")
                    .help("A checkpoint you have: all must be of the same history, not an older one"),
            )
    }

    /// Takes the arguments.
    pub fn take(matches: &mut ArgMatches) -> Self {
        Self {
            files: matches.remove_many("files").map(Iterator::collect).unwrap_or_default(),
            genesis: matches.remove_one("genesis"),
            policy: matches.remove_one("policy"),
            checkpoint: matches.remove_one("checkpoint"),
        }
    }
}

/// What whoever asks knows from elsewhere.
#[derive(Default)]
struct Known {
    genesis: Option<BlockHash>,
    policy: Option<Policy>,
    checkpoint: Option<Checkpoint>,
    /// Trees that a file proves to go on from one another.
    links: Vec<((u64, Root), (u64, Root))>,
}

/// Checks the files and says of each what it proves.
///
/// # Errors
///
/// With the exit code of an invalid chain where a file proves nothing, after all were looked at. Others where a file cannot
/// be read.
pub fn run(plan: &Plan, json: bool) -> Result<(), Failure> {
    let policy = plan.policy.as_ref().map(|path| {
        let text = file::read_text(path)?;
        Policy::parse(&text).map_err(|error| bad_input(path, &error))
    });
    let mut known = Known { genesis: plan.genesis, policy: policy.transpose()?, ..Known::default() };
    if let Some(path) = &plan.checkpoint {
        known.checkpoint = Some(read_checkpoint(path, known.policy.as_ref())?);
    }
    let mut findings = Vec::new();
    for path in &plan.files {
        findings.push((
            path.display().to_string(),
            Read::of(path, known.checkpoint.as_ref().map(|it| it.size))?.verify(),
        ));
    }
    // First, since another file's proof may rest on them.
    for (_, finding) in &findings {
        if let Ok(Proven::Consistency(ProvenConsistency { from, to, .. })) = finding {
            known.links.push(((from.size, from.root), (to.size, to.root)));
        }
    }
    let findings: Vec<_> =
        findings.into_iter().map(|(name, finding)| Finding::new(name, finding, &known)).collect();
    let printed = if json {
        print_json(&findings)
    } else {
        print(&findings.iter().map(|finding| words::describe(finding, &known)).collect::<Vec<_>>().join("\n"))
    };
    // Who has stopped reading still gets the exit code.
    if findings.iter().any(|finding| finding.refused.is_some()) {
        return Err(Failure::told(Exit::ChainInvalid));
    }
    printed
}

fn read_checkpoint(path: &Path, policy: Option<&Policy>) -> Result<Checkpoint, Failure> {
    let note: Note = file::read_text(path)?.parse().map_err(|error| bad_input(path, &error))?;
    match policy {
        Some(policy) => Ok(policy.check(&note).map_err(|error| bad_input(path, &error))?.checkpoint),
        None => Checkpoint::of(&note).map_err(|error| bad_input(path, &error)),
    }
}

fn bad_input(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

impl Known {
    /// Says why an anchor contradicts what is known.
    fn contradict(&self, genesis: BlockHash, anchor: &ProvenAnchor) -> Option<String> {
        if let Some(expected) = self.genesis.filter(|expected| *expected != genesis) {
            return Some(format!("it is of the chain {genesis}: you asked for {expected}"));
        }
        let known = self.checkpoint.as_ref()?;
        if let Err(error) = known.check_origin(&liotbchain_core::checkpoint::origin_of(genesis)) {
            return Some(format!("your checkpoint is of another chain: {error}"));
        }
        (known.size == anchor.size && known.root != anchor.root).then(|| {
            format!(
                "A FORK: of the same {} blocks it names the root {}, your checkpoint {}: two histories were shown",
                known.size, anchor.root, known.root
            )
        })
    }

    /// Says why an anchor contradicts what is known, or does not reach it.
    fn refuse(&self, genesis: BlockHash, anchor: &ProvenAnchor) -> Option<String> {
        if let Some(contradiction) = self.contradict(genesis, anchor) {
            return Some(contradiction);
        }
        let known = self.checkpoint.as_ref()?;
        let (ours, theirs) = ((known.size, known.root), (anchor.size, anchor.root));
        if ours == theirs || self.leads(ours, theirs) || self.leads(theirs, ours) {
            return None;
        }
        let (from, to) = (ours.0.min(theirs.0), ours.0.max(theirs.0));
        let age = if theirs.0 < ours.0 { "older" } else { "newer" };
        Some(format!(
            "it ends in {age} history, of {} blocks, than your checkpoint, of {}, and nothing proves that one goes on from the \
             other: get /v1/proofs/consistency?from={from}&to={to} from the receiver and give it as another file",
            theirs.0, ours.0
        ))
    }

    /// Whether the files prove that the second tree goes on from the first, over any number of steps.
    fn leads(&self, from: (u64, Root), to: (u64, Root)) -> bool {
        let mut reached = vec![from];
        let mut next = 0;
        while let Some(here) = reached.get(next).copied() {
            next += 1;
            for (_, end) in self.links.iter().filter(|(start, _)| *start == here) {
                if !reached.contains(end) {
                    reached.push(*end);
                }
            }
        }
        reached.contains(&to)
    }
}
