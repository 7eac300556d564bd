//! `liotbchain completions`: the script by which a shell completes a command line.

use clap_complete::Shell;

use crate::Failure;
use crate::cli::command;
use crate::output::print;

/// Writes the script.
///
/// # Errors
///
/// Where standard output cannot be written.
pub fn run(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "liotbchain", &mut script);
    print(&String::from_utf8(script).expect("the texts it is made of are UTF-8"))
}
