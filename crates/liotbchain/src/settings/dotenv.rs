//! Reads a `.env` file as the Python original reads it, and changes nothing in the process.
//!
//! The files people bring along were written for python-dotenv, so its grammar is followed here: an unquoted value
//! may hold spaces (`host=localhost dbname=chain`), a `$` in a password is a `$`, only `${NAME}` and `${NAME:-default}`
//! are replaced, and of two lines for one name the last counts. The `dotenvy` crate stops at the first of these and
//! drops what follows the second.

/// One assignment, or one line that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The line it starts on, from 1.
    pub number: usize,
    /// The name before the `=`; empty where none can be read.
    pub name: String,
    /// The value, or nothing where the line cannot be read.
    pub value: Option<String>,
}

/// Parses a file. `exported` is asked first for the names in `${…}`, as an exported value also wins over one from
/// the file.
pub fn parse(text: &str, exported: impl Fn(&str) -> Option<String>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut cursor = Cursor { rest: text.strip_prefix('\u{feff}').unwrap_or(text), number: 1 };
    while let Some(number) = cursor.skip_to_content() {
        let name = cursor.take_name();
        let value = match cursor.take_value() {
            // `export NAME` alone only marks a variable of the shell.
            Ok(None) => continue,
            Ok(Some(value)) => Some(substitute(&value, |name| {
                let in_file =
                    || lines.iter().rev().find(|line| line.name == name).and_then(|line| line.value.clone());
                exported(name).or_else(in_file)
            })),
            Err(Malformed) => None,
        };
        let value = value.filter(|_| !name.is_empty());
        lines.push(Line { number, name, value });
    }
    lines
}

/// A line that is no assignment. The rest of it is skipped, so that one odd line of another program's costs nothing.
struct Malformed;

struct Cursor<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Cursor<'a> {
    /// Skips blank lines and comments, and returns the line number of what follows, if anything does.
    fn skip_to_content(&mut self) -> Option<usize> {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest.starts_with('#') {
                return (!self.rest.is_empty()).then_some(self.number);
            }
            self.take_line();
        }
    }

    /// Takes the name, and the word `export` before it.
    fn take_name(&mut self) -> String {
        if let Some(after) = self.rest.strip_prefix("export").filter(|after| after.starts_with([' ', '\t'])) {
            self.rest = after;
            self.take_while(is_blank);
        }
        let name = match self.rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            Some((name, rest)) if !name.contains('\n') => {
                self.rest = rest;
                name
            }
            _ => self.take_while(|character| !matches!(character, '=' | '#') && !character.is_whitespace()),
        };
        self.take_while(is_blank);
        name.to_owned()
    }

    /// Takes the value and the rest of its last line; nothing where no `=` follows the name.
    fn take_value(&mut self) -> Result<Option<String>, Malformed> {
        let Some(rest) = self.rest.strip_prefix('=') else {
            let line = self.take_line();
            return if line.is_empty() || line.starts_with('#') { Ok(None) } else { Err(Malformed) };
        };
        self.rest = rest;
        let blanks = self.take_while(is_blank);
        let Some(quote) = self.rest.chars().next().filter(|first| matches!(first, '\'' | '"')) else {
            let line = self.take_line();
            // A `#` begins a comment only after a blank: `a#b` is a value.
            let comment = if !blanks.is_empty() && line.starts_with('#') {
                Some(0)
            } else {
                line.match_indices('#').map(|(at, _)| at).find(|at| line[..*at].ends_with(is_blank))
            };
            return Ok(Some(line[..comment.unwrap_or(line.len())].trim_end().to_owned()));
        };
        let Some((value, length)) = unquote(&self.rest[1..], quote) else {
            self.take_line();
            return Err(Malformed);
        };
        self.take(1 + length);
        let after = self.take_line().trim_start();
        if after.is_empty() || after.starts_with('#') { Ok(Some(value)) } else { Err(Malformed) }
    }

    fn take_while(&mut self, matches: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|character| !matches(character)).unwrap_or(self.rest.len()))
    }

    /// Takes what is left of the line, without its end.
    fn take_line(&mut self) -> &'a str {
        self.take_while(|character| !matches!(character, '\r' | '\n'))
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.number += taken.matches('\n').count();
        taken
    }
}

fn is_blank(character: char) -> bool {
    character.is_whitespace() && !matches!(character, '\r' | '\n')
}

/// Returns the text up to the closing quote, with its escapes read, and how many bytes were taken. An escape that is
/// not known stays as it is, backslash and all.
fn unquote(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            return Some((value, at + 1));
        }
        if character != '\\' {
            value.push(character);
            continue;
        }
        let escaped = characters.next()?.1;
        match (escaped, quote) {
            ('\\' | '\'', _) | ('"', '"') => value.push(escaped),
            ('n', '"') => value.push('\n'),
            ('r', '"') => value.push('\r'),
            ('t', '"') => value.push('\t'),
            _ => value.extend(['\\', escaped]),
        }
    }
    None
}

/// Replaces `${NAME}` and `${NAME:-default}`, in quotes too, as python-dotenv does. What is not known is empty.
fn substitute(value: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, name, after)) = split_variable(rest) {
        let (name, default) = name.split_once(":-").unwrap_or((name, ""));
        result.push_str(before);
        result.push_str(&lookup(name).unwrap_or_else(|| default.to_owned()));
        rest = after;
    }
    result + rest
}

fn split_variable(text: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = text.split_once("${")?;
    let (name, after) = after.split_once('}')?;
    Some((before, name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, Option<String>)> {
        let exported = |name: &str| (name == "HOME").then(|| "/home/pi".to_owned());
        parse(text, exported).into_iter().map(|line| (line.name, line.value)).collect()
    }

    #[track_caller]
    fn reads(text: &str, value: &str) {
        assert_eq!(pairs(text), [("A".to_owned(), Some(value.to_owned()))], "{text:?}");
    }

    #[test]
    fn reads_values_as_python_dotenv_does() {
        reads("A=1", "1");
        reads("\u{feff}A = 1 \r\n", "1");
        reads("export A=1", "1");
        reads("'A'=1", "1");
        reads("\n\n# note\n  A=1 # note", "1");
        reads("A=", "");
        reads("A= # note", "");
        reads("A=#1", "#1");
        reads("A=a#b #c", "a#b");
        reads("A=host=localhost dbname=chain", "host=localhost dbname=chain");
        reads("A=pa$$word$1", "pa$$word$1");
        reads(r"A=C:\data", r"C:\data");
        reads("A='b # c' # d", "b # c");
        reads(r"A='it\'s \n'", r"it's \n");
        reads(r#"A="say \"hi\"\n\d""#, "say \"hi\"\n\\d");
        reads("A=\"two\nlines\"", "two\nlines");
    }

    #[test]
    fn replaces_variables_in_braces_only() {
        reads("A=${HOME}/x", "/home/pi/x");
        reads("A='${NONE:-b}'", "b");
        reads("A=${NONE}c", "c");
        reads("A=$HOME", "$HOME");
        reads("A=${open", "${open");
        let last = pairs("U=pi\nU=po\nHOME=/other\nA=${U}@${HOME}").pop().unwrap();
        assert_eq!(last, ("A".to_owned(), Some("po@/home/pi".to_owned())));
    }

    #[test]
    fn goes_on_after_a_line_that_it_cannot_read() {
        let lines = parse("A='open\nB=2\nC=\"x\" y\nwhat is this\n=5\nexport D\nD\nE=3", |_| None);
        let read: Vec<_> =
            lines.iter().map(|line| (line.number, line.name.as_str(), line.value.as_deref())).collect();
        let expected = [
            (1, "A", None),
            (2, "B", Some("2")),
            (3, "C", None),
            (4, "what", None),
            (5, "", None),
            (8, "E", Some("3")),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn counts_lines_through_values_of_several_lines() {
        let lines = parse("A=\"1\n2\n3\"\r\nB=x", |_| None);
        assert_eq!(lines[1].number, 4);
    }
}
