//! `liotbchain device`: simulated devices, or what another program prints, handed over to a gateway.
//!
//! Nothing is left out silently: a reading is sent until the gateway has taken it, or refused it for good, which is
//! told and shows in the exit code.

mod backoff;
mod chance;
mod curves;
mod fleet;
mod http;
mod keys;
mod mqtt;
mod plan;
mod run_name;
mod source;
mod stdin;
mod tally;

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use indicatif::HumanCount;
use liotbchain_node::now_ms;
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::Failure;
use crate::failure::Exit;
use crate::output::{print, print_json_line, say};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::utc::Utc;
use backoff::Backoff;
use fleet::Fleet;
use keys::DeviceKeys;
use mqtt::{Broker, Publisher};
pub use plan::Plan;
use plan::{Gateway, Origin};
use run_name::RunName;
use source::Source;
use stdin::Lines;
use tally::{Counts, Tally};

/// How often it is told how far things are.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// How long answers on their way are waited for when somebody asked to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Hands over readings until there are no more, or somebody asks to stop.
///
/// # Errors
///
/// Where the gateway does not let this program in, or a reading was refused, or not taken when somebody asked to stop.
pub async fn run(settings: &Settings, plan: &Plan, json: bool) -> Result<(), Failure> {
    let stop =
        Stop::on_signal().map_err(|error| Failure::failed(format!("no signal can be caught: {error}")))?;
    let run = RunName::draw()?;
    let tally = Arc::<Tally>::default();
    let (fleet, sources) = sources(settings, plan, run, &tally)?;
    let start = Start::new(plan, run);
    if json {
        print_json_line(&Event::Start(&start))?;
    } else {
        say(&start);
    }
    let mut hands = JoinSet::new();
    hand_over(settings, plan, run, sources, &tally, &stop, &mut hands)?;
    let course = Course { tally, fleet, started: Instant::now(), json };
    let done = course.show(&mut hands, &stop).await;
    let end = course.progress();
    if json {
        print_json_line(&Event::End(&end))?;
    } else {
        print(&format!("{}\n", end.summary()))?;
    }
    done?;
    if end.counts.refused > 0 || end.counts.unanswered > 0 {
        return Err(Failure::told(Exit::Failed));
    }
    Ok(())
}

/// Sets up where readings come from, a source a connection.
fn sources(
    settings: &Settings,
    plan: &Plan,
    run: RunName,
    tally: &Arc<Tally>,
) -> Result<(Option<Arc<Fleet>>, Vec<Source>), Failure> {
    match &plan.origin {
        Origin::Stdin(device) => {
            Ok((None, vec![Source::Stdin(Lines::read(device.clone(), Arc::clone(tally))?)]))
        }
        Origin::Fleet(fleet) => {
            let keys = match fleet.sign {
                true => Some(DeviceKeys::load_or_create(&settings.data_dir)?),
                false => None,
            };
            let connections = match plan.to {
                Gateway::Http(_) => http::CONNECTIONS,
                Gateway::Mqtt { .. } => 1,
            };
            let fleet = Fleet::start(fleet, fleet.seed.unwrap_or(run.seed()), keys);
            let shares = fleet.shares(connections).into_iter().map(Source::Fleet).collect();
            Ok((Some(fleet), shares))
        }
    }
}

/// Starts to hand over.
fn hand_over(
    settings: &Settings,
    plan: &Plan,
    run: RunName,
    sources: Vec<Source>,
    tally: &Arc<Tally>,
    stop: &Stop,
    hands: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let (device, devices) = match &plan.origin {
        Origin::Stdin(device) => (device.as_ref(), 1),
        Origin::Fleet(fleet) => (None, fleet.count),
    };
    for (number, source) in (0..).zip(sources) {
        let backoff = Backoff::new(run.bits(), number);
        match &plan.to {
            Gateway::Http(url) => {
                let target = http::Target::new(url, device, settings.api_token.as_ref(), run)?;
                hands.spawn(http::hand_over(target, source, backoff, Arc::clone(tally), stop.clone()));
            }
            Gateway::Mqtt { host, port } => {
                let broker = Broker {
                    host: host.clone(),
                    port: *port,
                    user: settings.mqtt_user.clone(),
                    password: settings.mqtt_password.clone(),
                    site: settings.mqtt_site.clone(),
                    run,
                };
                let publisher = Publisher::new(broker, source, devices, Arc::clone(tally), stop.clone());
                hands.spawn(publisher.run(backoff));
            }
        }
    }
    Ok(())
}

/// A run under way.
struct Course {
    tally: Arc<Tally>,
    fleet: Option<Arc<Fleet>>,
    started: Instant,
    json: bool,
}

impl Course {
    /// Tells how far it is until all is handed over, or somebody asked to stop and the last answers are there.
    async fn show(&self, hands: &mut JoinSet<Result<(), Failure>>, stop: &Stop) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval_at(self.started + TOLD_EVERY, TOLD_EVERY);
        let mut stopped = std::pin::pin!(stop.asked());
        let mut deadline: Option<Instant> = None;
        let mut last = 0;
        loop {
            let end = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                joined = hands.join_next() => match joined {
                    Some(joined) => finished(joined)?,
                    None => return Ok(()),
                },
                () = &mut stopped, if deadline.is_none() => {
                    deadline = Some(Instant::now() + LAST_ANSWERS);
                    say("stopping: answers on their way are waited for; Ctrl-C again ends at once");
                }
                () = end => return Ok(()),
                _ = ticks.tick() => {
                    let progress = self.progress();
                    if self.json {
                        print_json_line(&Event::Progress(&progress))?;
                    } else {
                        print(&format!("{}\n", progress.line(last)))?;
                    }
                    last = progress.counts.acknowledged;
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        let counts = self.tally.counts();
        let waiting = match &self.fleet {
            Some(fleet) => fleet.due().saturating_sub(counts.acknowledged + counts.refused),
            None => counts.unanswered,
        };
        let millis = self.started.elapsed().as_millis() as f64;
        Progress { seconds: millis / 1000.0, counts, waiting, waits_for: self.tally.waits_for() }
    }
}

fn finished(joined: Result<Result<(), Failure>, JoinError>) -> Result<(), Failure> {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What is told to programs, an object a line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Start(&'a Start),
    Progress(&'a Progress),
    End(&'a Progress),
}

/// What begins.
#[derive(Serialize)]
struct Start {
    to: String,
    /// Absent with `--stdin`, as are the others below.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

/// How far it is.
#[derive(Serialize)]
struct Progress {
    seconds: f64,
    #[serde(flatten)]
    counts: Counts,
    /// Readings that are due and neither taken nor refused.
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
}

impl Start {
    fn new(plan: &Plan, run: RunName) -> Self {
        let fleet = match &plan.origin {
            Origin::Stdin(_) => None,
            Origin::Fleet(fleet) => Some(fleet),
        };
        Self {
            to: plan.to.to_string(),
            kind: fleet.map(|fleet| fleet.kind.name()),
            devices: fleet.map(|fleet| fleet.count),
            interval_seconds: fleet.map(|fleet| fleet.interval.as_secs_f64()),
            seed: fleet.map(|fleet| fleet.seed.unwrap_or(run.seed())),
        }
    }
}

impl Display for Start {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let to = &self.to;
        let Self { kind: Some(kind), devices: Some(devices), interval_seconds: Some(interval), seed, .. } =
            self
        else {
            return write!(f, "readings from standard input go to {to}");
        };
        let measure = if *devices == 1 { "device measures" } else { "devices measure" };
        write!(f, "{} {measure} {kind} every {interval} s for {to}", HumanCount((*devices).into()))?;
        if let Some(seed) = seed {
            write!(f, "; --seed {seed} measures the same again")?;
        }
        Ok(())
    }
}

impl Progress {
    /// Says how far it is since so many were taken.
    fn line(&self, taken_before: u64) -> String {
        let Counts { acknowledged, sent_again, refused, .. } = self.counts;
        let [new, all, waiting, again, refused] =
            [acknowledged - taken_before, acknowledged, self.waiting, sent_again, refused].map(HumanCount);
        let time = Utc(now_ms()).time_of_day();
        let mut line = format!("{time} {new} taken, {all} in all, {waiting} waiting");
        if self.counts.sent_again > 0 {
            line += &format!(", {again} sent again");
        }
        if self.counts.refused > 0 {
            line += &format!(", {refused} refused");
        }
        if let Some(trouble) = &self.waits_for {
            line += &format!(": {trouble}");
        }
        line
    }

    /// Says what came of it.
    fn summary(&self) -> String {
        let Counts { sent, acknowledged, sent_again, refused, unanswered } = self.counts;
        let [sent, acknowledged, again, refused] = [sent, acknowledged, sent_again, refused].map(HumanCount);
        let mut summary = format!(
            "{sent} readings sent in {:.1} s: {acknowledged} acknowledged, {again} sent again, {refused} refused",
            self.seconds
        );
        if unanswered > 0 {
            summary += &format!("; {} not acknowledged", HumanCount(unanswered));
        }
        match self.waiting.saturating_sub(unanswered) {
            0 => {}
            late => summary += &format!("; {} more were due", HumanCount(late)),
        }
        summary
    }
}
