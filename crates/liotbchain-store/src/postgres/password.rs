//! Where the password is, if `DATABASE_URL` holds none: in `PGPASSWORD`, or in the file that `PGPASSFILE` names, or else
//! in `~/.pgpass`, as for every other program that connects to PostgreSQL.

use std::{env, fs, path::Path, path::PathBuf};

use tokio_postgres::{Config, config::Host};

/// Passwords that the process was given apart from its address.
#[derive(Default)]
pub(super) struct Passwords {
    environment: Option<String>,
    /// The lines of the file.
    file: Vec<String>,
}

impl Passwords {
    /// Reads the environment and the file.
    pub fn load() -> Self {
        let environment = env::var("PGPASSWORD").ok().filter(|password| !password.is_empty());
        let home = || env::home_dir().map(|home| home.join(".pgpass"));
        let path = env::var_os("PGPASSFILE").map(PathBuf::from).or_else(home);
        let text = path.filter(|path| is_private(path)).and_then(|path| fs::read_to_string(path).ok());
        Self { environment, file: text.unwrap_or_default().lines().map(str::to_owned).collect() }
    }

    /// Gives a server the password that is meant for it, unless it has one.
    pub fn complete(&self, config: &mut Config) {
        if config.get_password().is_some() {
            return;
        }
        let password = self.environment.clone().or_else(|| self.find(config));
        if let Some(password) = password {
            config.password(password);
        }
    }

    fn find(&self, config: &Config) -> Option<String> {
        let host = match config.get_hosts().first()? {
            Host::Tcp(name) => name.clone(),
            Host::Unix(_) => "localhost".to_owned(),
        };
        let port = config.get_ports().first()?.to_string();
        let user = config.get_user().unwrap_or_default();
        let database = config.get_dbname().unwrap_or(user);
        let wanted = [&host, &port, database, user];
        self.file.iter().filter(|line| !line.starts_with('#')).find_map(|line| {
            let fields = split(line);
            let (password, places) = fields.split_last()?;
            let is_meant = places.len() == wanted.len()
                && places.iter().zip(wanted).all(|(place, wanted)| place == "*" || place == wanted);
            is_meant.then(|| password.clone())
        })
    }
}

/// Splits a line at its colons. A backslash takes the next character as it stands.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("there is always one");
        match character {
            '\\' => field.extend(characters.next()),
            ':' => fields.push(String::new()),
            other => field.push(other),
        }
    }
    fields
}

/// Returns whether only its owner can read a file. Others are not used, as in libpq.
#[cfg(unix)]
fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = fs::metadata(path) else { return false };
    let is_private = metadata.permissions().mode() & 0o077 == 0;
    if !is_private {
        tracing::warn!(path = %path.display(), "the password file is not used, since others can read it: chmod 600");
    }
    is_private
}

#[cfg(not(unix))]
fn is_private(_: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, address: &str) -> Option<String> {
        let mut config: Config = address.parse().unwrap();
        let passwords = Passwords { environment: None, file: file.lines().map(str::to_owned).collect() };
        passwords.complete(&mut config);
        config.get_password().map(|password| String::from_utf8(password.to_vec()).unwrap())
    }

    #[test]
    fn takes_the_first_line_that_is_meant_for_the_server() {
        let file =
            "# db:5432:chain:pi:commented\ndb:5433:chain:pi:another port\ndb:*:chain:pi:right\n*:*:*:*:any";
        assert_eq!(found(file, "host=db port=5432 dbname=chain user=pi").as_deref(), Some("right"));
        assert_eq!(found(file, "host=db port=5433 dbname=chain user=pi").as_deref(), Some("another port"));
        assert_eq!(found(file, "host=other port=5432 dbname=chain user=pi").as_deref(), Some("any"));
        assert_eq!(found(file, "host=db port=5432 user=pi password=own").as_deref(), Some("own"));
        assert_eq!(found("db:5432:chain:pi", "host=db port=5432 dbname=chain user=pi"), None);
        let socket = "host=/run/postgresql port=5432 dbname=chain user=pi";
        assert_eq!(found("localhost:5432:chain:pi:right", socket).as_deref(), Some("right"));
    }

    #[test]
    fn takes_escaped_colons_as_they_stand() {
        let file = r"\:\:1:5432:pi:pi:ge\:hei\\m";
        assert_eq!(found(file, "host=::1 port=5432 user=pi").as_deref(), Some(r"ge:hei\m"));
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let mut config: Config = "host=db port=5432 user=pi".parse().unwrap();
        let file = vec!["*:*:*:*:file".to_owned()];
        Passwords { environment: Some("environment".to_owned()), file }.complete(&mut config);
        assert_eq!(config.get_password(), Some(&b"environment"[..]));
    }
}
