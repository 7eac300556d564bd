//! `liotbchain config show` and `config check`.

use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::output::{print, print_json};
use crate::settings::{Configuration, Found, Problem, Role, Settings};

/// Prints every setting, then fails if anything is wrong with them.
///
/// # Errors
///
/// With all problems, as [`check`].
pub fn show(mut configuration: Configuration, json: bool) -> Result<(), Failure> {
    configuration.check_relations(Role::Config);
    if json {
        print_json(&Listing {
            settings: configuration.found.iter().map(Row::of).collect(),
            problems: configuration.problems.iter().map(Complaint::of).collect(),
            warnings: configuration.warnings.iter().map(Complaint::of).collect(),
        })?;
        return if configuration.problems.is_empty() { Ok(()) } else { Err(Failure::told(Exit::Usage)) };
    }
    let name_width = width(&configuration, |found| found.setting.name.len());
    let value_width = width(&configuration, |found| found.shown().chars().count()).min(40);
    let lines = configuration.found.iter().map(|found| {
        let wrong = if found.problem().is_some() { ", not allowed" } else { "" };
        let (name, value, origin) = (found.setting.name, found.shown(), origin(found));
        format!("{name:name_width$}  {value:value_width$}  {origin}{wrong}\n")
    });
    print(&lines.collect::<String>())?;
    if configuration.problems.is_empty() { Ok(()) } else { Err(configuration.problems.into()) }
}

/// Says everything that is wrong with the settings.
///
/// # Errors
///
/// With all problems at once.
pub fn check(configuration: Configuration, json: bool) -> Result<(), Failure> {
    let warnings: Vec<_> = configuration.warnings.iter().map(Complaint::of).collect();
    let problems = Settings::from_configuration(configuration, Role::Config).err().unwrap_or_default();
    if json {
        let ok = problems.is_empty();
        let problems = problems.iter().map(Complaint::of).collect();
        print_json(&Verdict { ok, problems, warnings })?;
        return if ok { Ok(()) } else { Err(Failure::told(Exit::Usage)) };
    }
    if problems.is_empty() { print("the settings are fine\n") } else { Err(problems.into()) }
}

/// The whole answer of `config show --json`.
#[derive(Serialize)]
struct Listing<'a> {
    settings: Vec<Row<'a>>,
    problems: Vec<Complaint>,
    warnings: Vec<Complaint>,
}

/// The whole answer of `config check --json`.
#[derive(Serialize)]
struct Verdict {
    ok: bool,
    problems: Vec<Complaint>,
    warnings: Vec<Complaint>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    set: bool,
    /// Absent where nothing is set, and for secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    secret: bool,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    valid: bool,
    allowed: String,
    default: &'a str,
    meaning: &'a str,
}

#[derive(Serialize)]
struct Complaint {
    message: String,
    hint: String,
}

impl<'a> Row<'a> {
    fn of(found: &'a Found) -> Self {
        let setting = found.setting;
        let set = found.text.is_some();
        Self {
            name: setting.name,
            set,
            value: (set && !setting.is_secret()).then(|| found.shown()),
            secret: setting.is_secret(),
            origin: found.origin.word(),
            path: found.origin.path().map(|path| path.display().to_string()),
            valid: found.problem().is_none(),
            allowed: setting.kind.to_string(),
            default: setting.default.words(),
            meaning: setting.meaning,
        }
    }
}

impl Complaint {
    fn of(problem: &Problem) -> Self {
        Self { message: problem.to_string(), hint: problem.hint() }
    }
}

fn origin(found: &Found) -> String {
    match found.origin.path() {
        Some(path) => format!("{} ({})", found.origin.word(), path.display()),
        None => found.origin.word().to_owned(),
    }
}

fn width(configuration: &Configuration, of: impl Fn(&Found) -> usize) -> usize {
    configuration.found.iter().map(of).max().unwrap_or(0)
}
