//! `liotbchain man`: the manual pages, made from the same table of commands as `--help`.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use crate::Failure;
use crate::cli::command;
use crate::output::{print, say};

/// Writes the page of the program, or the pages of all commands into a folder.
///
/// # Errors
///
/// Where they cannot be written.
pub fn run(out: Option<&Path>) -> Result<(), Failure> {
    // So that `help` has no page, and each page knows the whole name of its command.
    let mut command = command().disable_help_subcommand(true);
    command.build();
    let Some(out) = out else {
        let mut text = Vec::new();
        page(&command).render(&mut text).expect("a vector takes all that is written");
        return print(&String::from_utf8(text).expect("the texts it is made of are UTF-8"));
    };
    fs::create_dir_all(out).and_then(|()| write_pages(&command, out)).map_err(|error| {
        Failure::failed(format!("{} cannot be written: {error}", out.display()))
            .with_hint("name a folder that this user may write to")
    })?;
    say(format_args!("the pages are in {}; read one: man {}/liotbchain.1", out.display(), out.display()));
    Ok(())
}

fn page(command: &Command) -> Man {
    Man::new(command.clone()).source(concat!("liotbchain ", env!("CARGO_PKG_VERSION")))
}

fn write_pages(command: &Command, out: &Path) -> io::Result<()> {
    page(command).generate_to(out)?;
    command.get_subcommands().try_for_each(|command| write_pages(command, out))
}
