//! The `liotbchain` program: reads the command line and the settings, starts the log, and does what was asked.
//!
//! Standard output carries data only; everything said to people goes to standard error.

mod chain_command;
mod cli;
mod config_command;
mod data_dir;
mod demo_command;
mod failure;
mod keys_command;
mod opening;
mod output;
mod program;
mod progress;
mod receiver_command;
mod sender_command;
mod settings;
mod stop;
mod utc;

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use cli::{Invocation, Task};
use failure::Failure;
use program::Program;
use settings::{Configuration, LogFormat, Settings, Sources};

fn main() -> ExitCode {
    let invocation = Invocation::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match run(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(invocation: Invocation) -> Result<(), Failure> {
    let Invocation { task, json, flags } = invocation;
    let sources = Sources::of_process(flags)
        .map_err(|error| Failure::failed(format!("the working directory cannot be read: {error}")))?;
    let configuration = Configuration::read(&sources);
    for warning in &configuration.warnings {
        output::warn(&warning.to_string(), Some(&warning.hint()));
    }
    match task {
        Task::ConfigShow => return config_command::show(configuration, json),
        Task::ConfigCheck => return config_command::check(configuration, json),
        _ => {}
    }
    let program = Program::of_process(&configuration);
    let settings = Settings::from_configuration(configuration, task.role())?;
    start_log(&settings, &task);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the system gives no threads: {error}")))?;
    let done = runtime.block_on(perform(task, &settings, &program, json));
    // What is still under way, such as a validation that nobody waits for, changes nothing.
    runtime.shutdown_background();
    done
}

async fn perform(task: Task, settings: &Settings, program: &Program, json: bool) -> Result<(), Failure> {
    match task {
        Task::Demo => demo_command::run(settings, program, json).await,
        Task::Receiver => receiver_command::run(settings).await,
        Task::Sender => sender_command::run(settings).await,
        Task::KeysGenerate { out } => keys_command::generate(settings, out, json),
        Task::KeysShow { file } => keys_command::show(settings, file, json),
        Task::ChainShow { from, limit } => chain_command::show(settings, from, limit, json).await,
        Task::ChainValidate => chain_command::validate(settings, json).await,
        Task::ChainExport { out, force } => chain_command::export(settings, &out, force, json).await,
        Task::ChainImport { file } => chain_command::import(settings, &file, json).await,
        Task::ConfigShow | Task::ConfigCheck => unreachable!("they need no settings that are in order"),
    }
}

/// Sends the log to standard error. Other crates are heard from `warn` on, and in full at `trace`: what a user raises
/// the level for is what this program does.
fn start_log(settings: &Settings, task: &Task) {
    let level = match (task, settings.log_level) {
        // The demo itself shows what happens.
        (Task::Demo, Level::INFO) => LevelFilter::WARN,
        (_, level) => LevelFilter::from_level(level),
    };
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_default(others).with_target("liotbchain", level);
    // A server goes on when nobody reads its log any more, and must not try to say so in the same place.
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let layer = match settings.log_format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
