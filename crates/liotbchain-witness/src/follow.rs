//! Looks at the checkpoint that each log shows to everybody, and compares it with what was cosigned: a log that shows one
//! history to its witness and another one to its readers is found out.

use std::{sync::atomic::Ordering, time::Duration};

use liotbchain_core::{Checkpoint, Fork, Note};
use tokio::time::sleep;

use crate::{
    evidence::Evidence,
    remote::{Remote, RemoteError},
    submission::Known,
    witness::{Log, Refusal, Witness},
};

/// Why a look told nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("the public checkpoint is refused: {0}")]
    Checkpoint(String),
    #[error(transparent)]
    State(#[from] Refusal),
}

/// Looks at a log again and again. Never ends.
pub async fn follow(witness: Witness, place: usize, every: Duration) {
    let log = &witness.logs()[place];
    let Some(remote) = &log.remote else { return };
    let mut told = None;
    loop {
        let looked = look(&witness, log, remote).await.err().map(|error| error.to_string());
        if let Some(error) = &looked {
            witness.counts().polls_failed.fetch_add(1, Ordering::Relaxed);
            // Once an outage, and not every few seconds.
            if told.as_ref() != Some(error) {
                tracing::warn!(origin = log.origin, error, "cannot look at what the log shows");
            }
        } else if told.is_some() {
            tracing::info!(origin = log.origin, "what the log shows can be looked at again");
        }
        told = looked;
        sleep(every).await;
    }
}

async fn look(witness: &Witness, log: &Log, remote: &Remote) -> Result<(), LookError> {
    // A receiver that makes no checkpoints has nothing to compare.
    let Some(text) = remote.checkpoint().await? else { return Ok(()) };
    let refused = |error: &dyn std::fmt::Display| LookError::Checkpoint(error.to_string());
    let note: Note = text.parse().map_err(|error| refused(&error))?;
    let shown = Checkpoint::of(&note).map_err(|error| refused(&error))?;
    shown.check_origin(&log.origin).map_err(|error| refused(&error))?;
    let signed = log.signed(&note).map_err(|error| refused(&error))?;
    let Some(latest) = witness.latest(&log.origin).await? else { return Ok(()) };
    let Known { size, root } = latest.known;
    if shown.size == size {
        if shown.root != root {
            let fork = Fork { first: latest.note, second: signed, old: size, proof: Vec::new() };
            witness.keep(Evidence::of_fork(&log.origin, &fork, size)).await?;
        }
        return Ok(());
    }
    let cosigned = Known { size, root };
    let (older, newer) =
        if shown.size < size { (Known::from(&shown), cosigned) } else { (cosigned, Known::from(&shown)) };
    if older.size == 0 {
        return Ok(());
    }
    let Some(consistency) = remote.consistency(older.size, newer.size).await? else { return Ok(()) };
    let proof = consistency.path;
    let checked =
        liotbchain_core::proof::verify_consistency(older.size, older.root, newer.size, newer.root, &proof);
    if let Err(error) = checked {
        let reason = format!("no proof leads from size {} to size {}: {error}", older.size, newer.size);
        let fork = Fork { first: latest.note, second: signed, old: older.size, proof };
        witness.keep(Evidence::of_doubt(&log.origin, &fork, reason)).await?;
    }
    Ok(())
}
