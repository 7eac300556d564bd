//! How somebody calls this program from another terminal and meets the same chain.

use crate::settings::{Configuration, Found, Origin};

/// The settings that say which chain it is.
const PLACE: [&str; 2] = ["DATA_DIR", "DATABASE_URL"];

/// This program as it was called, and the flags that another terminal would lack.
#[derive(Debug)]
pub struct Program {
    name: String,
    flags: String,
}

impl Program {
    /// Remembers how this process was called, and with which settings that stand in no file.
    pub fn of_process(configuration: &Configuration) -> Self {
        let name = std::env::args_os().next().map(|name| name.to_string_lossy().into_owned());
        Self::new(&name.unwrap_or_else(|| "liotbchain".to_owned()), configuration)
    }

    fn new(name: &str, configuration: &Configuration) -> Self {
        let flags = PLACE.iter().filter_map(|place| flag(configuration.get(place)));
        Self { name: quote(name), flags: flags.collect() }
    }

    /// Returns the command line of a command, given as its words.
    pub fn command(&self, words: &str) -> String {
        format!("{} {words}{}", self.name, self.flags)
    }
}

fn flag(found: &Found) -> Option<String> {
    let text = found.text.as_ref().filter(|_| matches!(found.origin, Origin::Flag | Origin::Environment))?;
    // One with a password in it is nobody else's business; its owner knows where it stands.
    (*text == found.shown())
        .then(|| format!(" --{} {}", found.setting.flag().unwrap_or_default(), quote(text)))
}

/// Quotes a word for a shell where that is needed.
fn quote(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Sources;

    fn command(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> String {
        let flags = flags.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        let environment = environment.iter().map(|(name, text)| (name.into(), text.into())).collect();
        let configuration = Configuration::read(&Sources { flags, environment, ..Sources::default() });
        Program::new("liotbchain", &configuration).command("chain show")
    }

    #[test]
    fn adds_what_another_terminal_lacks() {
        assert_eq!(command(&[], &[("DIFFICULTY", "3")]), "liotbchain chain show");
        assert_eq!(
            command(&[("DATA_DIR", "my data")], &[("DATABASE_URL", "sqlite:a.db")]),
            "liotbchain chain show --data-dir 'my data' --database-url sqlite:a.db"
        );
        assert_eq!(command(&[], &[("DATABASE_URL", "postgres://u:geheim@h/n")]), "liotbchain chain show");
    }

    #[test]
    fn quotes_for_a_shell() {
        assert_eq!(quote("target/release/liotbchain"), "target/release/liotbchain");
        assert_eq!(quote("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quote(""), "''");
    }
}
