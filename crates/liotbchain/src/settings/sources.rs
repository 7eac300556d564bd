//! Where settings are looked for, and what each source says.
//!
//! The process is asked once, by [`Sources::of_process`]; everything after it is a function of its arguments. The
//! environment is only read: a `.env` must not change what child processes see.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use super::dotenv;
use super::problem::Problem;
use super::table::{Setting, TABLE};
use super::value::Kind;

/// Texts of settings, by the setting's name.
pub type Texts = BTreeMap<&'static str, String>;

/// Where settings are looked for.
#[derive(Debug, Default)]
pub struct Sources {
    /// The flags of the command line.
    pub flags: Texts,
    /// The exported environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder from which `.env` and `liotbchain.toml` are searched for, upwards.
    pub directory: PathBuf,
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The exported environment.
    Environment,
    /// The `.env` at this path.
    Dotenv(PathBuf),
    /// The `liotbchain.toml` at this path.
    Toml(PathBuf),
    /// The table of settings.
    Default,
}

/// What all sources say, each for itself.
#[derive(Debug, Default)]
pub struct Said {
    /// The texts, the source that counts most first.
    pub layers: Vec<(Origin, Texts)>,
    /// Names of no setting, in sources that are shared with other programs.
    pub unknown: Vec<(Origin, String)>,
    /// What must be put right.
    pub problems: Vec<Problem>,
    /// What is probably a slip.
    pub warnings: Vec<Problem>,
}

impl Sources {
    /// Returns the sources of this process.
    ///
    /// # Errors
    ///
    /// If the working directory was removed or must not be entered.
    pub fn of_process(flags: Texts) -> io::Result<Self> {
        Ok(Self { flags, environment: env::vars_os().collect(), directory: env::current_dir()? })
    }

    /// Reads them all.
    pub fn read(&self) -> Said {
        let mut said = Said::default();
        said.layers.push((Origin::Flag, self.flags.clone()));
        said.read_environment(self);
        if let Some(path) = self.find_file(".env") {
            said.read_dotenv(self, path);
        }
        if let Some(path) = self.find_file("liotbchain.toml") {
            said.read_toml(path);
        }
        said
    }

    fn exported(&self, name: &str) -> Option<&OsString> {
        let mut pairs = self.environment.iter();
        pairs.find(|(key, _)| key.as_os_str() == name).map(|(_, text)| text)
    }

    /// Returns the file of this name in the directory or the nearest one above it. A folder of that name is passed
    /// over: Python's virtual environments are often called `.env`.
    fn find_file(&self, name: &str) -> Option<PathBuf> {
        let mut paths = self.directory.ancestors().map(|folder| folder.join(name));
        paths.find(|path| path.is_file())
    }
}

impl Said {
    fn read_environment(&mut self, sources: &Sources) {
        let mut texts = Texts::new();
        for setting in TABLE {
            let Some(text) = sources.exported(setting.name) else {
                continue;
            };
            if let Some(text) = text.to_str() {
                texts.insert(setting.name, text.to_owned());
            } else {
                self.problems.push(Problem::BadValue {
                    setting,
                    origin: Origin::Environment,
                    got: "not UTF-8 text".to_owned(),
                });
            }
        }
        let names = sources.environment.iter().filter_map(|(name, _)| name.to_str());
        let unknown = names.filter(|name| Setting::named(name).is_none());
        self.unknown.extend(unknown.map(|name| (Origin::Environment, name.to_owned())));
        self.layers.push((Origin::Environment, texts));
    }

    fn read_dotenv(&mut self, sources: &Sources, path: PathBuf) {
        let Some(text) = self.read_file(&path) else {
            return;
        };
        let exported = |name: &str| sources.exported(name)?.to_str().map(str::to_owned);
        let mut texts = Texts::new();
        for line in dotenv::parse(&text, exported) {
            let bad_line = Problem::BadLine { line: line.number, path: path.clone() };
            match (Setting::named(&line.name), line.value) {
                (Some(setting), Some(value)) => {
                    texts.insert(setting.name, value);
                }
                // Only a line of ours has to be readable: the file is shared with other programs.
                (Some(_), None) => self.problems.push(bad_line),
                (None, None) => self.warnings.push(bad_line),
                (None, Some(_)) => self.unknown.push((Origin::Dotenv(path.clone()), line.name)),
            }
        }
        self.layers.push((Origin::Dotenv(path), texts));
    }

    fn read_toml(&mut self, path: PathBuf) {
        let Some(text) = self.read_file(&path) else {
            return;
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // Not the error's own display: it quotes the line, which may hold a token.
                let reason = error.message().to_owned();
                let start = error.span().map_or(0, |span| span.start);
                let line = 1 + text[..start].matches('\n').count();
                self.problems.push(Problem::BadToml { path, line, reason });
                return;
            }
        };
        let mut texts = Texts::new();
        for (key, value) in table {
            let Some(setting) = TABLE.iter().find(|setting| setting.key() == key) else {
                self.problems.push(Problem::UnknownKey { key, path: path.clone() });
                continue;
            };
            if let Some(text) = toml_text(setting, &value) {
                texts.insert(setting.name, text);
            } else {
                self.problems.push(Problem::BadValue {
                    setting,
                    origin: Origin::Toml(path.clone()),
                    got: format!("of the TOML type {}", value.type_str()),
                });
            }
        }
        self.layers.push((Origin::Toml(path), texts));
    }

    fn read_file(&mut self, path: &Path) -> Option<String> {
        let path = path.to_owned();
        fs::read_to_string(&path)
            .map_err(|cause| self.problems.push(Problem::Unreadable { path, cause }))
            .ok()
    }
}

impl Origin {
    /// Returns the word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::Dotenv(_) => ".env",
            Self::Toml(_) => "liotbchain.toml",
            Self::Default => "default",
        }
    }

    /// Returns the file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Dotenv(path) | Self::Toml(path) => Some(path),
            Self::Flag | Self::Environment | Self::Default => None,
        }
    }

    /// Returns the place where somebody would change the value.
    pub fn place(&self) -> String {
        match self.path() {
            Some(path) => path.display().to_string(),
            None => format!("the {}", self.word()),
        }
    }
}

/// Returns what a TOML value would be as text, if this setting may be written so.
fn toml_text(setting: &Setting, value: &toml::Value) -> Option<String> {
    match (value, &setting.kind) {
        (toml::Value::String(text), _) => Some(text.clone()),
        (toml::Value::Integer(number), _) => Some(number.to_string()),
        (toml::Value::Boolean(answer), _) => Some(answer.to_string()),
        (toml::Value::Array(items), Kind::Hosts) => {
            let items: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A folder with the files given, and sources that begin there.
    pub struct Place {
        folder: tempfile::TempDir,
        pub sources: Sources,
    }

    impl Place {
        pub fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            let directory = folder.path().to_owned();
            Self { folder, sources: Sources { directory, ..Sources::default() } }
        }

        pub fn export(mut self, name: &str, text: &str) -> Self {
            self.sources.environment.push((name.into(), text.into()));
            self
        }

        pub fn flag(mut self, name: &'static str, text: &str) -> Self {
            self.sources.flags.insert(name, text.to_owned());
            self
        }

        pub fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }
    }

    pub fn told(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn finds_the_nearest_file_above_and_passes_folders_over() {
        let mut place = Place::new(&[(".env", "DIFFICULTY=3")]);
        let below = place.path("a/b");
        fs::create_dir_all(below.join(".env")).unwrap();
        place.sources.directory = below;
        assert_eq!(place.sources.read().layers[2].0, Origin::Dotenv(place.path(".env")));
        fs::write(place.path("a/.env"), "DIFFICULTY=5").unwrap();
        assert_eq!(place.sources.read().layers[2].1["DIFFICULTY"], "5");
    }

    #[test]
    fn an_unknown_key_is_an_error_in_our_own_file() {
        let text = "dificulty = 3\ncolour = 1\nDIFFICULTY = 3\n[database]\nurl = 1";
        let problems = Place::new(&[("liotbchain.toml", text)]).sources.read().problems;
        assert!(problems.iter().all(|problem| matches!(problem, Problem::UnknownKey { .. })));
        let hints: Vec<_> = problems.iter().map(Problem::hint).collect();
        let count = |text: &str| hints.iter().filter(|hint| hint.contains(text)).count();
        assert_eq!((count("did you mean \"difficulty\"?"), count("config show")), (2, 2), "{hints:?}");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_if_it_is_ours() {
        let place = Place::new(&[(".env", "OTHER='open\nDIFFICULTY=\"3\nNONCE_LIMIT=5")]);
        let said = place.sources.read();
        let path = place.path(".env");
        assert_eq!(told(&said.problems), [format!("line 2 of {} cannot be read", path.display())]);
        assert_eq!(told(&said.warnings), [format!("line 1 of {} cannot be read", path.display())]);
        assert_eq!(said.layers[2].1["NONCE_LIMIT"], "5");
    }

    #[test]
    fn takes_toml_values_of_every_fitting_type() {
        let text = "allowed_hosts = [\"a\", \"b\"]\nallow_lossy_failover = true\ndifficulty = \"3\"\n\
                    nonce_limit = 7\nseal_wait = 1.5\nlog_level = [\"info\"]";
        let said = Place::new(&[("liotbchain.toml", text)]).sources.read();
        let expected = [
            ("ALLOWED_HOSTS", "a,b"),
            ("ALLOW_LOSSY_FAILOVER", "true"),
            ("DIFFICULTY", "3"),
            ("NONCE_LIMIT", "7"),
        ];
        assert_eq!(said.layers[2].1, expected.map(|(name, text)| (name, text.to_owned())).into());
        let told = told(&said.problems);
        assert_eq!(told.len(), 2);
        assert!(told.iter().any(|text| text.starts_with("seal_wait") && text.contains("TOML type float")));
        assert!(told.iter().any(|text| text.starts_with("log_level") && text.contains("TOML type array")));
    }

    #[test]
    fn says_so_when_a_file_is_no_text() {
        let place = Place::new(&[]);
        fs::write(place.path(".env"), b"DIFFICULTY=\xff").unwrap();
        let problems = place.sources.read().problems;
        assert!(matches!(&problems[..], [Problem::Unreadable { path, .. }] if *path == place.path(".env")));
    }

    #[cfg(unix)]
    #[test]
    fn says_so_when_a_variable_of_ours_is_no_text() {
        use std::os::unix::ffi::OsStringExt;
        let bad = || OsString::from_vec(vec![0xff]);
        let environment = vec![("DIFFICULTY".into(), bad()), (bad(), bad())];
        let problems = Sources { environment, ..Sources::default() }.read().problems;
        let expected =
            "DIFFICULTY in the environment is not UTF-8 text, but must be a whole number from 0 to 16";
        assert_eq!(told(&problems), [expected]);
    }

    #[test]
    fn leaves_the_environment_of_the_process_alone() {
        let before: Vec<_> = env::vars_os().collect();
        Place::new(&[(".env", "LIOTBCHAIN_TEST=1\nNONCE_LIMIT=7")]).sources.read();
        assert_eq!(before, env::vars_os().collect::<Vec<_>>());
    }
}
