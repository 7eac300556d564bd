//! The command line: which commands there are, and what they are told.
//!
//! The flags of the settings come from the table of settings. Nothing is done here; `main` does what was asked.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;
use liotbchain_core::{Height, KeyId};

use crate::bench_command::Plan;
use crate::chain_command::{ValidatePlan, prune};
use crate::device_command;
use crate::settings::{Kind, Role, Setting, TABLE, Texts};
use crate::verify_command;

/// What somebody asked for.
#[derive(Debug)]
pub struct Invocation {
    /// What is to be done.
    pub task: Task,
    /// Whether a program reads the answer.
    pub json: bool,
    /// The settings given as flags.
    pub flags: Texts,
}

/// A command with its own arguments.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    Demo,
    Receiver,
    Sender,
    SenderCheck,
    Witness,
    KeysGenerate { out: Option<PathBuf> },
    KeysShow { file: Option<PathBuf> },
    ChainShow { from: Option<Height>, limit: Option<u32> },
    ChainValidate(ValidatePlan),
    ChainExport { out: PathBuf, force: bool },
    ChainImport { file: PathBuf },
    ChainPrune(prune::Plan),
    ConfigShow,
    ConfigCheck,
    Bench(Plan),
    Device(device_command::Plan),
    Completions { shell: Shell },
    Man { out: Option<PathBuf> },
    Verify(verify_command::Plan),
}

impl Task {
    /// Tells whether it runs until it is stopped, so that its log may have a file.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Demo | Self::Receiver | Self::Sender | Self::Witness)
    }

    /// Returns the family whose settings the command takes.
    pub fn role(&self) -> Role {
        match self {
            Self::Demo => Role::Demo,
            Self::Receiver => Role::Receiver,
            Self::Sender | Self::SenderCheck => Role::Sender,
            Self::Witness => Role::Witness,
            Self::KeysGenerate { .. } | Self::KeysShow { .. } => Role::Keys,
            Self::ChainShow { .. }
            | Self::ChainValidate(_)
            | Self::ChainExport { .. }
            | Self::ChainImport { .. }
            | Self::ChainPrune(_) => Role::Chain,
            Self::ConfigShow | Self::ConfigCheck => Role::Config,
            Self::Bench(_) => Role::Bench,
            Self::Device(_) => Role::Device,
            Self::Completions { .. } | Self::Man { .. } | Self::Verify(_) => {
                unreachable!("they are done without settings")
            }
        }
    }
}

impl Invocation {
    /// Parses a command line.
    ///
    /// # Errors
    ///
    /// With what clap has to say: a usage error, or the text of `--help` and `--version`.
    pub fn parse<T: Into<std::ffi::OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut matches = command().try_get_matches_from(words)?;
        let (name, mut command) = matches.remove_subcommand().expect("clap asks for a command");
        let (task, mut leaf) = match name.as_str() {
            "demo" => (Task::Demo, command),
            "receiver" => (Task::Receiver, command),
            "sender" => match command.remove_subcommand() {
                Some((_, leaf)) => (Task::SenderCheck, leaf),
                None => (Task::Sender, command),
            },
            "witness" => (Task::Witness, command),
            "bench" => (Task::Bench(Plan::take(&mut command)), command),
            "device" => (Task::Device(device_command::Plan::take(&mut command)), command),
            "completions" => {
                (Task::Completions { shell: command.remove_one("shell").expect("clap asks for it") }, command)
            }
            "man" => (Task::Man { out: command.remove_one("out") }, command),
            "verify" => (Task::Verify(verify_command::Plan::take(&mut command)), command),
            family => {
                let (name, mut leaf) = command.remove_subcommand().expect("clap asks for a command");
                let task = match (family, name.as_str()) {
                    ("keys", "generate") => Task::KeysGenerate { out: leaf.remove_one("out") },
                    ("keys", "show") => Task::KeysShow { file: leaf.remove_one("file") },
                    ("chain", "show") => {
                        Task::ChainShow { from: leaf.remove_one("from"), limit: leaf.remove_one("limit") }
                    }
                    ("chain", "validate") => Task::ChainValidate(ValidatePlan {
                        skip_signatures: leaf.get_flag("skip-signatures"),
                        since: leaf.remove_one("since"),
                        receipts: leaf.remove_many("receipt").map(Iterator::collect).unwrap_or_default(),
                    }),
                    ("chain", "export") => {
                        let force = leaf.get_flag("force");
                        Task::ChainExport { out: take_path(&mut leaf, "out"), force }
                    }
                    ("chain", "import") => Task::ChainImport { file: take_path(&mut leaf, "file") },
                    ("chain", "prune") => Task::ChainPrune(prune::Plan {
                        key_id: leaf.remove_one("key").expect("clap asks for it"),
                        before: leaf.remove_one("before").expect("clap asks for it"),
                        reason: leaf.remove_one("reason"),
                        yes: leaf.get_flag("yes"),
                        dry_run: leaf.get_flag("dry-run"),
                        vacuum_full: leaf.get_flag("vacuum-full"),
                    }),
                    ("config", "show") => Task::ConfigShow,
                    ("config", "check") => Task::ConfigCheck,
                    _ => unreachable!("clap knows no other command"),
                };
                (task, leaf)
            }
        };
        let json = leaf.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or(false);
        let flags = TABLE
            .iter()
            .filter_map(|setting| Some((setting.name, leaf.try_remove_one::<String>(setting.name).ok()??)))
            .collect();
        Ok(Self { task, json, flags })
    }
}

/// Describes every command.
pub fn command() -> Command {
    Command::new("liotbchain")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps signed readings of small devices in a blockchain, to learn from and to experiment with")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(json(leaf(
            "demo",
            "Runs receiver, sender and simulated devices, and shows each block as it is mined",
            Role::Demo,
            "liotbchain demo --difficulty 4",
        )))
        .subcommand(leaf(
            "receiver",
            "Takes signed readings over HTTP and mines them into blocks",
            Role::Receiver,
            "liotbchain receiver --receiver-listen 127.0.0.1:5001",
        ))
        .subcommand(
            leaf(
                "sender",
                "Takes readings of devices by HTTP and MQTT, signs, keeps and sends them",
                Role::Sender,
                "liotbchain sender --receiver-url http://127.0.0.1:5001",
            )
            // A flag before the subcommand would be passed over.
            .args_conflicts_with_subcommands(true)
            .subcommand(json(leaf(
                "check",
                "Tests key, disk, queue, broker, receiver and clock, and says what to do",
                Role::Sender,
                "liotbchain sender check --receiver-url http://127.0.0.1:5001",
            ))),
        )
        .subcommand(
            leaf(
                "witness",
                "Cosigns the checkpoints of chains whose history only grows, and keeps evidence",
                Role::Witness,
                "liotbchain witness --witness-policy policy.txt",
            )
            .mut_arg("WITNESS_VALIDATE", |validate| {
                validate
                    .visible_alias("validate")
                    .hide_short_help(false)
                    .help("Copies and checks each chain before cosigning")
            })
            .mut_arg("WITNESS_POLICY", |policy| {
                policy.hide_short_help(false).help("File with a line `log KEY [URL]` for each log")
            }),
        )
        .subcommand(
            family("keys", "Makes and shows the key that the sender signs with")
                .subcommand(
                    json(leaf(
                        "generate",
                        "Makes a key, and shows its public half",
                        Role::Keys,
                        "liotbchain keys generate --kind rsa",
                    ))
                    .mut_arg("SENDER_KEY", |kind| kind.visible_alias("kind").hide_short_help(false))
                    .arg(path("out").long("out").help("File to make [default: the sender's, in DATA_DIR]")),
                )
                .subcommand(
                    json(leaf(
                        "show",
                        "Shows the public half of a key and its id, never the private half",
                        Role::Keys,
                        "liotbchain keys show --json",
                    ))
                    .arg(path("file").help("File of the key [default: the sender's, in DATA_DIR]")),
                ),
        )
        .subcommand(
            family("chain", "Shows, checks, exports, imports and prunes the chain in a store")
                .subcommand(
                    json(leaf(
                        "show",
                        "Shows the chain in short with its last blocks, or the blocks asked for",
                        Role::Chain,
                        "liotbchain chain show --from 100 --limit 20 --json",
                    ))
                    .arg(number("from", "HEIGHT", 0).help("First block to show"))
                    .arg(number("limit", "N", 1).help("Blocks to show; without --from the last ones"))
                    .mut_arg("json", |json| {
                        json.help(
                            "Answers with JSON: one object, or with --from or --limit an object a block",
                        )
                    }),
                )
                .subcommand(
                    json(leaf(
                        "validate",
                        "Checks every rule of every block, and names the first fault",
                        Role::Chain,
                        "liotbchain chain validate",
                    ))
                    .arg(
                        Arg::new("skip-signatures")
                            .long("skip-signatures")
                            .action(ArgAction::SetTrue)
                            .help("Checks no signature, which is most of the work, but all else"),
                    )
                    .arg(
                        Arg::new("since").long("since").value_name("CHECKPOINT").help(
                            "Checks only what came after a checkpoint (a file), or after so many blocks",
                        ),
                    )
                    .arg(
                        path("receipt")
                            .long("receipt")
                            .action(ArgAction::Append)
                            .help("A receipt that this chain must agree with; may stand there repeatedly"),
                    ),
                )
                .subcommand(
                    json(leaf(
                        "export",
                        "Writes the chain to a file that others can check",
                        Role::Chain,
                        "liotbchain chain export --out chain.ndjson",
                    ))
                    .arg(path("out").long("out").required(true).help("File to write; - is standard output"))
                    .arg(
                        Arg::new("force")
                            .long("force")
                            .action(ArgAction::SetTrue)
                            .help("Replaces the file if there is one"),
                    ),
                )
                .subcommand(
                    json(leaf(
                        "import",
                        "Checks an exported chain and puts it into an empty store",
                        Role::Chain,
                        "liotbchain chain import chain.ndjson --database-url sqlite:copy.db",
                    ))
                    .arg(path("file").required(true).help("File to read; it is read twice")),
                )
                .subcommand(prune_arguments(json(leaf(
                    "prune",
                    "Drops the payloads of a key for ever, and says so on the chain",
                    Role::Chain,
                    "liotbchain chain prune --key KEY_ID --before 2026-12-01T00:00:00Z --dry-run",
                )))),
        )
        .subcommand(json(verify_command::Plan::arguments(
            Command::new("verify")
                .about("Checks receipts, proofs and exports: no network, no server, no trust in who gave them")
                .after_help("Example:\n  liotbchain verify reading.receipt.json --policy policy.txt"),
        )))
        .subcommand(
            family("config", "Shows and checks the settings")
                .subcommand(json(leaf(
                    "show",
                    "Shows each setting and where its value came from",
                    Role::Config,
                    "liotbchain config show",
                )))
                .subcommand(json(leaf(
                    "check",
                    "Says everything that is wrong with the settings",
                    Role::Config,
                    "liotbchain config check --difficulty 4",
                ))),
        )
        .subcommand(json(Plan::arguments(
            leaf(
                "bench",
                "Sends signed readings to a receiver as fast as it takes them, and measures",
                Role::Bench,
                "liotbchain bench --connections 8 --batch 100 --seconds 10",
            )
            .mut_arg("RECEIVER_URL", |url| {
                url.visible_alias("url").hide_short_help(false).help("The receiver to measure")
            }),
        )))
        .subcommand(json(device_command::Plan::arguments(leaf(
            "device",
            "Simulates devices, or sends what another program prints, for a sender to sign",
            Role::Device,
            "liotbchain device --count 500 --kind temperature\n  sensor | liotbchain device --stdin --device oven-1",
        ))))
        .subcommand(
            Command::new("completions")
                .about("Writes the script by which a shell completes the commands and flags of liotbchain")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)))
                .after_help("Example:\n  source <(liotbchain completions bash)"),
        )
        .subcommand(
            Command::new("man")
                .about("Writes the manual page of liotbchain, or those of all commands into a folder")
                .arg(
                    path("out")
                        .long("out")
                        .value_name("FOLDER")
                        .value_hint(ValueHint::DirPath)
                        .help("Folder to write all pages to; it is made where it is missing"),
                )
                .after_help("Example:\n  liotbchain man --out ~/.local/share/man/man1"),
        )
        .after_help("Example:\n  liotbchain demo\n\n`liotbchain COMMAND --help` shows a command's settings.")
}

fn prune_arguments(command: Command) -> Command {
    let flag = |name, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    command
        .arg(
            Arg::new("key")
                .long("key")
                .value_name("KEY_ID")
                .required(true)
                .value_parser(value_parser!(KeyId))
                .help("Whose transactions; 64 zeros for those that nobody signed"),
        )
        .arg(
            Arg::new("before")
                .long("before")
                .value_name("HEIGHT|TIME")
                .required(true)
                .value_parser(value_parser!(prune::Before))
                .help("Only in blocks below this height, or before this time (2026-12-01T00:00:00Z)"),
        )
        .arg(
            Arg::new("reason")
                .long("reason")
                .value_name("TEXT")
                .required_unless_present("dry-run")
                .value_parser(prune::parse_reason)
                .help("Why; it stands on the chain for ever, so it names nobody"),
        )
        .arg(flag("dry-run", "Shows what would go, and changes nothing"))
        .arg(flag("yes", "Asks nobody"))
        .arg(flag(
            "vacuum-full",
            "Has PostgreSQL give the space to the system as well, while receivers wait; SQLite always does",
        ))
}

fn family(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true)
}

fn leaf(name: &'static str, about: &'static str, role: Role, example: &str) -> Command {
    let settings = TABLE.iter().filter(|setting| role == Role::Config || setting.roles.contains(&role));
    Command::new(name)
        .about(about)
        .args(settings.filter_map(setting_flag))
        .after_help(format!("Example:\n  {example}"))
        .after_long_help(format!(
            "A setting can also be exported as a variable (DATA_DIR), or stand in .env (DATA_DIR) or liotbchain.toml\n\
             (data_dir), in this folder or above. The first of these that has it counts, a flag before all.\n\n\
             Example:\n  {example}"
        ))
}

/// Makes the flag of a setting; `-h` leaves it out, `--help` shows it.
fn setting_flag(setting: &Setting) -> Option<Arg> {
    let long_help = format!("{}\n[{}; default: {}]", setting.meaning, setting.kind, setting.default.words());
    let flag = Arg::new(setting.name)
        .long(setting.flag()?)
        .value_name(setting.kind.value_name())
        .long_help(long_help)
        .help_heading("Settings")
        .hide_short_help(true)
        // So that `--difficulty -1` is answered with the range.
        .allow_negative_numbers(true);
    Some(match setting.kind {
        Kind::Bool => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Path => flag.value_hint(ValueHint::AnyPath),
        _ => flag,
    })
}

fn json(command: Command) -> Command {
    command.arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Answers with JSON"))
}

fn path(name: &'static str) -> Arg {
    Arg::new(name).value_name("FILE").value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath)
}

fn number(name: &'static str, value_name: &'static str, min: i64) -> Arg {
    Arg::new(name).long(name).value_name(value_name).value_parser(value_parser!(u32).range(min..))
}

fn take_path(matches: &mut ArgMatches, name: &str) -> PathBuf {
    matches.remove_one(name).expect("clap asks for the path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, clap::Error> {
        Invocation::parse(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn knows_every_command() {
        for (line, task) in [
            ("liotbchain demo", Task::Demo),
            ("liotbchain receiver", Task::Receiver),
            ("liotbchain sender", Task::Sender),
            ("liotbchain sender check", Task::SenderCheck),
            ("liotbchain witness", Task::Witness),
            ("liotbchain witness --validate", Task::Witness),
            ("liotbchain keys generate", Task::KeysGenerate { out: None }),
            ("liotbchain keys generate --out a.pem", Task::KeysGenerate { out: Some("a.pem".into()) }),
            ("liotbchain keys show", Task::KeysShow { file: None }),
            ("liotbchain keys show a.pem", Task::KeysShow { file: Some("a.pem".into()) }),
            ("liotbchain chain show", Task::ChainShow { from: None, limit: None }),
            ("liotbchain chain show --from 0 --limit 1", Task::ChainShow { from: Some(0), limit: Some(1) }),
            ("liotbchain chain validate", Task::ChainValidate(ValidatePlan::default())),
            (
                "liotbchain chain validate --skip-signatures --since 5 --receipt a --receipt b",
                Task::ChainValidate(ValidatePlan {
                    skip_signatures: true,
                    since: Some("5".into()),
                    receipts: vec!["a".into(), "b".into()],
                }),
            ),
            ("liotbchain chain export --out -", Task::ChainExport { out: "-".into(), force: false }),
            ("liotbchain chain export --out a --force", Task::ChainExport { out: "a".into(), force: true }),
            ("liotbchain chain import a.ndjson", Task::ChainImport { file: "a.ndjson".into() }),
            ("liotbchain config show", Task::ConfigShow),
            ("liotbchain config check", Task::ConfigCheck),
            ("liotbchain bench", Task::Bench(Plan::default())),
            ("liotbchain completions bash", Task::Completions { shell: Shell::Bash }),
            ("liotbchain man", Task::Man { out: None }),
            ("liotbchain man --out man1", Task::Man { out: Some("man1".into()) }),
        ] {
            assert_eq!(parse(line).unwrap().task, task, "{line}");
        }
    }

    #[test]
    fn takes_settings_as_flags_where_they_concern_the_command() {
        let invocation =
            parse("liotbchain receiver --difficulty -1 --data-dir=/d --allow-lossy-failover").unwrap();
        let expected = [("ALLOW_LOSSY_FAILOVER", "true"), ("DATA_DIR", "/d"), ("DIFFICULTY", "-1")];
        assert_eq!(invocation.flags, expected.map(|(name, text)| (name, text.to_owned())).into());
        assert!(parse("liotbchain sender --difficulty 3").is_err());
        let checked = parse("liotbchain sender check --data-dir /d").unwrap();
        assert_eq!(checked.flags, [("DATA_DIR", "/d".to_owned())].into());
        assert!(parse("liotbchain sender --data-dir /d check").is_err());
        assert!(parse("liotbchain config show --sender-key rsa --difficulty 3").is_ok());
    }

    #[test]
    fn the_kind_of_a_new_key_is_the_senders_setting() {
        let invocation = parse("liotbchain keys generate --kind rsa").unwrap();
        assert_eq!(invocation.flags, [("SENDER_KEY", "rsa".to_owned())].into());
    }

    #[test]
    fn takes_no_secret_as_a_flag() {
        assert!(parse("liotbchain receiver --api-token 0123456789abcdef").is_err());
    }

    #[test]
    fn takes_json_where_a_program_may_read() {
        assert!(parse("liotbchain config show --json").unwrap().json);
        assert!(!parse("liotbchain config show").unwrap().json);
        assert!(parse("liotbchain receiver --json").is_err());
        assert!(parse("liotbchain sender check --json").unwrap().json);
    }

    #[test]
    fn every_line_of_the_short_help_fits_a_terminal() {
        let mut root = command();
        for leaf in root.get_subcommands_mut() {
            for line in leaf.render_help().to_string().lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
        assert!(root.render_help().to_string().lines().all(|line| line.chars().count() <= 100));
    }
}
