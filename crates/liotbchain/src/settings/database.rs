//! `DATABASE_URL`: which store it names, where a SQLite file lies, and how to show it without its password.
//!
//! Nothing is opened here, and a PostgreSQL text is passed on as it stands: what its parameters mean is the
//! store's business.

use std::path::{self, Path, PathBuf};

/// Where a chain is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A SQLite file, its path as written. [`resolve`](Self::resolve) says where it lies.
    Sqlite(PathBuf),
    /// A PostgreSQL server, or several: a URL or libpq's `key=value` text.
    Postgres(String),
}

impl DatabaseUrl {
    /// Parses the forms that people know from libpq and SQLite's other users; returns nothing for any other.
    ///
    /// `sqlite://NAME` is refused: after two slashes some programs read a host, some a path.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path =
                path.strip_prefix("//").map_or(Some(path), |path| path.starts_with('/').then_some(path))?;
            let is_file =
                !path.is_empty() && !path.ends_with('/') && !path.contains(['?', '\0']) && path != ":memory:";
            return is_file.then(|| Self::Sqlite(path.into()));
        }
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        let is_pairs = !text.contains("://") && parse_pairs(text).is_some_and(|pairs| !pairs.is_empty());
        (is_url || is_pairs).then(|| Self::Postgres(text.to_owned()))
    }

    /// Returns the same place with a relative SQLite path put into the data folder.
    pub fn resolve(self, data_dir: &Path) -> Self {
        match self {
            // `join` leaves an absolute path as it is.
            Self::Sqlite(path) => Self::Sqlite(data_dir.join(path)),
            postgres => postgres,
        }
    }

    /// Returns the place as it may be shown.
    pub fn shown(&self) -> String {
        match self {
            Self::Sqlite(path) => {
                let path = path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("sqlite:{}", path.display())
            }
            Self::Postgres(text) => redact(text),
        }
    }
}

/// Returns a connection text without its passwords. Where it is not clear what is a password, more is hidden, not less.
pub fn redact(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        format!("{scheme}://{}", redact_url(rest))
    } else if !text.contains(['=', '@']) {
        text.to_owned()
    } else if let Some(pairs) = parse_pairs(text) {
        let shown = |(key, value): &(String, String)| match is_password(key) {
            true => format!("{key}=***"),
            false if value.is_empty() || value.contains([' ', '\'', '\\']) => {
                format!("{key}='{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
            }
            false => format!("{key}={value}"),
        };
        pairs.iter().map(shown).collect::<Vec<_>>().join(" ")
    } else {
        "(hidden)".to_owned()
    }
}

fn is_password(key: &str) -> bool {
    matches!(key.to_ascii_lowercase().as_str(), "password" | "sslpassword" | "passwd" | "pwd")
}

/// Redacts what follows `scheme://`.
fn redact_url(rest: &str) -> String {
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    if query.is_some_and(|query| query.contains('@')) {
        // The `?` may be part of a password that was not encoded.
        return "***".to_owned();
    }
    let mut shown = match place.rsplit_once('@') {
        None => place.to_owned(),
        Some((user, host)) => match user.find([':', '/', '@']) {
            None => place.to_owned(),
            Some(end) => format!("{}:***@{host}", &user[..end]),
        },
    };
    if let Some(query) = query {
        let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
            Some((key, _)) if is_password(key) => format!("{key}=***"),
            _ => parameter.to_owned(),
        });
        shown = format!("{shown}?{}", parameters.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// Parses libpq's `key = value` pairs (PostgreSQL manual, 34.1.1.1): a value is quoted by `'` where it is empty or has
/// spaces in it, and `\` takes the next character as it is.
fn parse_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim_end();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let after = after.trim_start();
        let quoted = after.starts_with('\'');
        let (value, length) = parse_pair_value(&after[usize::from(quoted)..], quoted)?;
        pairs.push((key.to_owned(), value));
        rest = after[usize::from(quoted) + length..].trim_start();
    }
    Some(pairs)
}

/// Returns the value and how many bytes of the text it took, the closing quote included.
fn parse_pair_value(text: &str, quoted: bool) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some((value, at + 1)),
            space if space.is_whitespace() && !quoted => return Some((value, at)),
            other => value.push(other),
        }
    }
    (!quoted).then_some((value, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_file_lies_in_the_data_folder_and_an_absolute_one_where_it_says() {
        let resolve = |text: &str| DatabaseUrl::parse(text).unwrap().resolve(Path::new("/data"));
        assert_eq!(resolve("sqlite:liotbchain.db"), DatabaseUrl::Sqlite("/data/liotbchain.db".into()));
        assert_eq!(resolve("sqlite:sub/a.db"), DatabaseUrl::Sqlite("/data/sub/a.db".into()));
        for absolute in ["sqlite:/srv/a.db", "sqlite:///srv/a.db", "sqlite:////srv/a.db"] {
            assert_eq!(resolve(absolute), DatabaseUrl::Sqlite("/srv/a.db".into()), "{absolute}");
        }
    }

    #[test]
    fn passes_postgres_on_as_it_stands() {
        for text in [
            "postgres://u:p@h:5432/n",
            "postgresql://u@h1,h2/n?target_session_attrs=read-write",
            "host=localhost dbname=chain user=pi password='a b'",
            "dbname = chain",
        ] {
            let parsed = DatabaseUrl::parse(text).unwrap();
            assert_eq!(parsed, DatabaseUrl::Postgres(text.to_owned()));
            assert_eq!(parsed.clone().resolve(Path::new("/data")), parsed);
        }
    }

    #[test]
    fn refuses_what_names_no_store_of_ours() {
        for text in [
            "mysql://u:p@h/n",
            "postgresql+psycopg2://u:p@h/n",
            "your_postgres_db_url",
            "liotbchain.db",
            "sqlite:",
            "sqlite://name.db",
            "sqlite:folder/",
            "sqlite::memory:",
            "sqlite:a.db?mode=rwc",
            "host=localhost dbname='chain",
            "=x",
            "",
        ] {
            assert_eq!(DatabaseUrl::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn hides_passwords_wherever_they_stand() {
        for (text, shown) in [
            ("sqlite:liotbchain.db", "sqlite:liotbchain.db"),
            ("postgres://h/n", "postgres://h/n"),
            ("postgres://u@h/n", "postgres://u@h/n"),
            ("postgres://u:geheim@h:5432/n?a=b", "postgres://u:***@h:5432/n?a=b"),
            ("postgres://u:ge@he:im@h1,h2/n", "postgres://u:***@h1,h2/n"),
            ("postgres://u:ge/heim@h/n", "postgres://u:***@h/n"),
            ("postgres://u:ge?heim@h/n", "postgres://***"),
            ("postgres://h/n?user=u&password=geheim", "postgres://h/n?user=u&password=***"),
            ("postgres://h/n?password=ge@heim", "postgres://***"),
            ("mysql://u:geheim@h/n", "mysql://u:***@h/n"),
            ("host=h password=geheim dbname=n", "host=h password=*** dbname=n"),
            (r"host=h password = 'ge \'heim' options='-c a'", "host=h password=*** options='-c a'"),
            ("host=h password='geheim", "(hidden)"),
            ("u:geheim@h", "(hidden)"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }
}
