//! What the program says: data to standard output, talk to standard error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::Failure;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();

/// Writes data.
///
/// # Errors
///
/// Where it cannot be written. A reader who has seen enough (`| head`) ends the command without a word, and with 0.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| not_written(&error))
}

/// Returns the failure of a standard output that cannot be written.
pub fn not_written(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::reader_gone(),
        _ => Failure::failed(format!("standard output cannot be written: {error}")),
    }
}

/// Writes the only answer of a command as JSON, for programs and for people who look over their shoulder.
///
/// # Errors
///
/// As [`print`].
pub fn print_json(answer: &impl Serialize) -> Result<(), Failure> {
    print(
        &(serde_json::to_string_pretty(answer).expect("texts, numbers and booleans have a JSON form") + "\n"),
    )
}

/// Writes one of many objects as a line of JSON.
///
/// # Errors
///
/// As [`print`].
pub fn print_json_line(object: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string(object).expect("texts, numbers and booleans have a JSON form") + "\n"))
}

/// Says something to people. Nobody may be listening: a server goes on without its terminal.
pub fn say(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Says what went wrong, and the cure.
pub fn say_error(error: &str, hint: Option<&str>) {
    say_labelled("error", ERROR, error, hint);
}

/// Says what is probably a slip, but stops nothing.
pub fn warn(warning: &str, hint: Option<&str>) {
    say_labelled("warning", WARNING, warning, hint);
}

fn say_labelled(word: &str, style: Style, text: &str, hint: Option<&str>) {
    say(format_args!("{style}{word}:{style:#} {text}"));
    if let Some(hint) = hint {
        say(format_args!("{HINT}hint:{HINT:#} {hint}"));
    }
}
