//! The `liotbchain` program: reads the command line and the settings, starts the log, and does what was asked.
//!
//! Standard output carries data only; everything said to people goes to standard error.

mod bench_command;
mod chain_command;
mod cli;
mod client;
mod completions_command;
mod config_command;
mod data_dir;
mod demo_command;
mod device_command;
mod failure;
mod keys_command;
mod log;
mod log_file;
mod log_queue;
mod man_command;
mod open_files;
mod opening;
mod operator_key;
mod output;
mod program;
mod progress;
mod receiver_command;
mod sender_command;
mod settings;
mod stop;
mod utc;
mod verify_command;
mod witness_command;

use std::process::ExitCode;

use cli::{Invocation, Task};
use failure::Failure;
use program::Program;
use settings::{Configuration, Settings, Sources};

fn main() -> ExitCode {
    let invocation = Invocation::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match run(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(invocation: Invocation) -> Result<(), Failure> {
    let Invocation { task, json, flags } = invocation;
    // These need no settings, and are done whatever is wrong with them.
    match &task {
        Task::Completions { shell } => return completions_command::run(*shell),
        Task::Man { out } => return man_command::run(out.as_deref()),
        Task::Verify(plan) => return verify_command::run(plan, json),
        _ => {}
    }
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
    let _log = log::start(&settings, &task);
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
        Task::SenderCheck => sender_command::check(settings, json).await,
        Task::Witness => witness_command::run(settings).await,
        Task::KeysGenerate { out } => keys_command::generate(settings, out, json),
        Task::KeysShow { file } => keys_command::show(settings, file, json),
        Task::ChainShow { from, limit } => chain_command::show(settings, from, limit, json).await,
        Task::ChainValidate(plan) => chain_command::validate(settings, &plan, json).await,
        Task::ChainExport { out, force } => chain_command::export(settings, &out, force, json).await,
        Task::ChainImport { file } => chain_command::import(settings, &file, json).await,
        Task::ChainPrune(plan) => chain_command::prune::prune(settings, &plan, json).await,
        Task::Bench(plan) => bench_command::run(settings, &plan, json).await,
        Task::Device(plan) => device_command::run(settings, &plan, json).await,
        Task::ConfigShow
        | Task::ConfigCheck
        | Task::Completions { .. }
        | Task::Man { .. }
        | Task::Verify(_) => {
            unreachable!("they need no settings that are in order")
        }
    }
}
