//! `liotbchain witness`: cosigns checkpoints until it is asked to stop.

use liotbchain_witness::{Witness, WitnessConfig, bind};

use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::open_files;
use crate::output::say;
use crate::receiver_command::edge;
use crate::settings::{LogFormat, Settings};
use crate::stop::Stop;

/// Runs a witness until somebody asks to stop.
///
/// # Errors
///
/// Where it cannot start. A log that is away is no reason.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let policy = settings.witness_policy.clone().ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "WITNESS_POLICY is not set, and a witness follows no log unless it is told to",
        )
        .with_hint(
            "write a file with a line `log KEY [URL]` for each log and a last line `quorum none`, and set \
             WITNESS_POLICY to it",
        )
    })?;
    let _data_dir = DataDir::take_for_witness(&settings.data_dir)?;
    let stop =
        Stop::on_signal().map_err(|error| Failure::failed(format!("no signal can be caught: {error}")))?;
    let config = WitnessConfig {
        data_dir: settings.data_dir.clone(),
        policy,
        name: settings.witness_name.clone(),
        validate: settings.witness_validate,
        poll: settings.witness_poll,
        edge: edge(settings),
        connections_max: open_files::make_room(settings.connections_max),
    };
    // Before the key is made: a port that is taken must not leave one behind.
    let listener = bind(&config.edge, settings.witness_listen).await?;
    let address = listener.local_addr().unwrap_or(settings.witness_listen);
    let witness = Witness::open(&config).await?;
    let key = witness.key();
    // As others write it into their policies.
    let line = format!("witness {} {key} http://{address}", key.name());
    if settings.log_format == LogFormat::Text {
        say(&line);
    }
    tracing::info!(
        %address, verifier_key = %key, logs = witness.logs().len(), validate = config.validate,
        "witness listens: POST /add-checkpoint cosigns, /apidocs/ shows how"
    );
    let asked = async {
        stop.asked().await;
        tracing::info!("stopping: no new requests, those in flight are answered");
    };
    liotbchain_witness::run(witness, listener, config, asked).await;
    tracing::info!("stopped");
    Ok(())
}
