//! The log of this program: what is logged, how, and where it goes.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry};

use crate::cli::Task;
use crate::log_file::LogFile;
use crate::log_queue::{self, LogQueue, LogThread};
use crate::output;
use crate::settings::{LogFormat, Settings};

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts the log: to standard error, or, for a server with a `LOG_FILE`, to that file, and its warnings and errors to
/// standard error all the same. What is returned must live as long as the program logs.
pub fn start(settings: &Settings, task: &Task) -> Option<LogThread> {
    let level = LevelFilter::from_level(settings.log_level);
    let file = open_file(settings, task);
    let stderr_level = match (task, settings.log_level, &file) {
        (_, _, Some(_)) => level.min(LevelFilter::WARN),
        // The demo itself shows what happens.
        (Task::Demo, Level::INFO, None) => LevelFilter::WARN,
        _ => level,
    };
    let mut layers = Vec::new();
    let thread = file.map(|(queue, thread)| {
        layers.push(layer(settings.log_format, queue, false, level));
        thread
    });
    let ansi = std::io::stderr().is_terminal();
    // After the file's: the fields of a span are written down once, by the first, and a file has no use for colours.
    layers.push(layer(settings.log_format, std::io::stderr, ansi, stderr_level));
    tracing_subscriber::registry().with(layers).init();
    thread
}

/// A log that cannot be written is no reason not to serve.
fn open_file(settings: &Settings, task: &Task) -> Option<(LogQueue, LogThread)> {
    let path = settings.log_file.as_ref().filter(|_| task.is_server())?;
    let opened = LogFile::open(path, settings.log_file_size_max, settings.log_files_max);
    match opened.and_then(|file| Ok(log_queue::start(file)?)) {
        Ok(opened) => Some(opened),
        Err(error) => {
            let warning =
                format!("LOG_FILE={} cannot be used, so the log goes here: {error}", path.display());
            output::warn(&warning, Some("name a file that this user may write to, one for each program"));
            None
        }
    }
}

/// Other crates are heard from `warn` on, and in full at `trace`: what a user raises the level for is what this program
/// does.
fn layer(
    format: LogFormat,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
    ansi: bool,
    level: LevelFilter,
) -> AnyLayer {
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_default(others).with_target("liotbchain", level);
    // A server goes on when nobody reads its log any more, and must not try to say so in the same place.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Text => layer.with_ansi(ansi).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    }
}
