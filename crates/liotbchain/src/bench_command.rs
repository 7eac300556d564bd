//! `liotbchain bench`: sends signed readings to a receiver, and tells how many it takes and how fast.

mod follow;
mod load;
mod plan;
mod process;
mod readings;
mod report;
mod tally;
mod target;

use std::sync::Arc;
use std::time::Duration;

use liotbchain_core::TransactionId;
use liotbchain_http::find_listener;
use tokio::task::JoinSet;

use crate::Failure;
use crate::output::{print, print_json, say, warn};
use crate::progress::{Progress, Unit};
use crate::settings::Settings;
use crate::stop::Stop;
use follow::{Followed, Follower};
use load::Load;
use plan::Length;
pub use plan::Plan;
use process::Process;
use readings::Lists;
use report::{Client, Readings, Receiver, Report, Sealing, Verified, rounded};
use target::{State, Target};

/// Readings asked for at a time when they are verified.
const ASKED_AT_A_TIME: usize = 16;
/// Above this share of time spent waiting for signatures it is this program that is measured.
const WAITED_MAX: f64 = 0.05;

/// Loads a receiver and reports.
///
/// # Errors
///
/// Where there is no receiver, or it refuses the readings, or takes none, or has lost one.
pub async fn run(settings: &Settings, plan: &Plan, json: bool) -> Result<(), Failure> {
    let stop =
        Stop::on_signal().map_err(|error| Failure::failed(format!("no signal can be caught: {error}")))?;
    let target = Target::new(settings, plan.connections)?;
    let status = target.status().await?;
    if plan.verify && status.is_none() {
        return Err(Failure::failed(format!(
            "{} cannot be asked for a reading: it has no /v1",
            target.url()
        ))
        .with_hint("leave --verify out, or load a receiver of this version"));
    }
    let lists = Lists::start(plan)?;
    tokio::select! {
        () = sign_ahead(&lists) => {}
        () = stop.asked() => return Err(Failure::failed("interrupted before anything was sent")),
    }
    let report = measure(plan, &stop, target, lists, status).await?;
    if json {
        print_json(&report)?
    } else {
        print(&report.to_string())?
    }
    if report.client.waited_for_signatures > WAITED_MAX {
        let hint = "send so many --readings that all are signed before, or use --key ed25519";
        warn(
            "this program signs more slowly than the receiver takes readings: the rate is its own",
            Some(hint),
        );
    }
    if report.verified.as_ref().is_some_and(|verified| verified.missing > 0) {
        return Err(Failure::failed("the receiver does not know readings that it acknowledged"));
    }
    if report.readings.accepted == 0 {
        return Err(Failure::failed("the receiver took no reading"));
    }
    Ok(())
}

async fn sign_ahead(lists: &Lists) {
    let mut progress = Progress::new("signing", Unit::Readings);
    lists.ahead(|signed, of| progress.set(signed, of)).await;
}

async fn measure(
    plan: &Plan,
    stop: &Stop,
    target: Target,
    lists: Lists,
    status: Option<serde_json::Value>,
) -> Result<Report, Failure> {
    // Only a receiver with /v1 can be asked when a reading came into a block.
    let following = status.is_some().then(|| Follower::start(target.clone()));
    let (follower, followed) = following.unzip();
    let holder = target.local_port().and_then(find_listener);
    let process = holder.as_ref().map(|holder| Process::of(holder.process_id));
    let cpu_before = [process.as_ref().and_then(Process::cpu_s), Process::own().cpu_s()];
    let signed_before = lists.signed();

    let load = Load::new(plan, target.clone(), lists, follower);
    load.pace()?;
    let mut connections: JoinSet<_> = (0..plan.connections).map(|_| Arc::clone(&load).connection()).collect();
    let interrupted = until_end(plan, stop, &mut connections).await?;
    load.end();
    // What is answered from here on counts, but not as a rate.
    let seconds = load.elapsed().as_secs_f64();
    let (accepted, accepted_lists) = {
        let tally = load.tally();
        (tally.accepted, tally.accepted_lists)
    };
    let late = load.late();
    while let Some(joined) = connections.join_next().await {
        finished(joined)?;
    }

    let cpu_after = [process.as_ref().and_then(Process::cpu_s), Process::own().cpu_s()];
    let [receiver_cpu_s, own_cpu_s] =
        [0, 1].map(|which| Some(rounded(cpu_after[which]? - cpu_before[which]?, 2)));
    let followed = match followed {
        Some(followed) => {
            load.stop_following();
            followed.await.ok()
        }
        None => None,
    };
    let ids = load.tally().ids.take();
    let verified = match ids {
        Some(ids) => Some(verify(&target, ids).await),
        None => None,
    };
    let waited_s = load.lists().waited().as_secs_f64();
    let tally = load.tally();
    Ok(Report {
        url: target.url().to_string(),
        status,
        connections: plan.connections,
        batch: plan.batch,
        key: plan.key.to_string(),
        keys: plan.keys,
        rate: plan.rate,
        length: plan.length,
        interrupted,
        seconds: rounded(seconds, 3),
        readings: Readings {
            accepted: tally.accepted,
            accepted_per_second: rounded(accepted as f64 / seconds, 1),
            failed: tally.failed,
        },
        lists: report::Lists {
            sent: tally.lists,
            accepted: tally.accepted_lists,
            answered_per_second: rounded(accepted_lists as f64 / seconds, 1),
            late,
        },
        errors: tally.errors.clone(),
        latency_ms: tally.latency.quantiles(),
        sealing: tally.sealed.map(|sealed| sealing(sealed as f64 / tally.accepted as f64, followed)),
        receiver: holder.map(|holder| Receiver {
            process_id: holder.process_id,
            name: holder.name,
            cpu_s: receiver_cpu_s,
            cpu_us_per_reading: receiver_cpu_s
                .filter(|_| tally.accepted > 0)
                .map(|cpu_s| rounded(cpu_s * 1e6 / tally.accepted as f64, 1)),
            peak_mib: process.as_ref().and_then(Process::peak_mib).map(|mib| rounded(mib, 1)),
        }),
        client: Client {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_s: own_cpu_s,
            signed_before,
            signed_meanwhile: load.lists().signed() - signed_before,
            waited_for_signatures: rounded(waited_s / (seconds * f64::from(plan.connections)), 3),
        },
        verified,
    })
}

/// Waits until the run is over; returns whether somebody ended it.
async fn until_end(
    plan: &Plan,
    stop: &Stop,
    connections: &mut JoinSet<Result<(), Failure>>,
) -> Result<bool, Failure> {
    let time = async {
        match plan.length {
            Length::Seconds(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
            Length::Readings(_) => std::future::pending().await,
        }
    };
    let all_sent = async {
        while let Some(joined) = connections.join_next().await {
            finished(joined)?;
        }
        Ok(())
    };
    tokio::select! {
        () = time => Ok(false),
        sent = all_sent => sent.map(|()| false),
        () = stop.asked() => {
            say("stopping: answers on their way are waited for; Ctrl-C again ends at once");
            Ok(true)
        }
    }
}

fn finished(joined: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn sealing(in_answer: f64, followed: Option<Followed>) -> Sealing {
    let (later_ms, still_pending) = match followed {
        Some(followed) => (followed.until_sealed.quantiles(), followed.pending),
        None => (None, 0),
    };
    Sealing { in_answer: rounded(in_answer, 4), later_ms, still_pending }
}

/// Asks for every reading.
async fn verify(target: &Target, ids: Vec<TransactionId>) -> Verified {
    let mut progress = Progress::new("verifying", Unit::Readings);
    let asked_for = ids.len() as u64;
    let mut verified = Verified { asked_for, sealed: 0, pending: 0, missing: 0, unanswered: 0 };
    let mut ids = ids.into_iter();
    let mut asking = JoinSet::new();
    let mut answered = 0;
    loop {
        while asking.len() < ASKED_AT_A_TIME
            && let Some(id) = ids.next()
        {
            let target = target.clone();
            asking.spawn(async move { target.state(id).await });
        }
        let Some(state) = asking.join_next().await else { return verified };
        answered += 1;
        progress.set(answered, asked_for);
        match state.ok().flatten() {
            Some(State::Sealed) => verified.sealed += 1,
            Some(State::Pending) => verified.pending += 1,
            Some(State::Missing) => verified.missing += 1,
            None => verified.unanswered += 1,
        }
    }
}
