//! The result of a run: for programs as JSON, for people as a few lines.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use indicatif::HumanCount;
use serde::Serialize;

use super::plan::Length;
use super::tally::Quantiles;

/// What was measured, and under which conditions.
#[derive(Debug, Serialize)]
pub struct Report {
    pub url: String,
    /// What the receiver says of itself at `/v1/status`, such as its store and block size; null where it has no `/v1`.
    pub status: Option<serde_json::Value>,
    pub connections: u32,
    pub batch: u32,
    pub key: String,
    pub keys: u32,
    /// Readings a second that were to be sent; null where each connection waited for its answer.
    pub rate: Option<u32>,
    pub length: Length,
    /// Whether somebody ended it before its time.
    pub interrupted: bool,
    /// How long lists were sent. Rates are over this time.
    pub seconds: f64,
    pub readings: Readings,
    pub lists: Lists,
    /// Lists that failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Of accepted lists, from the request to the whole answer; with a rate, from when the list was due.
    pub latency_ms: Option<Quantiles>,
    pub sealing: Option<Sealing>,
    pub receiver: Option<Receiver>,
    pub client: Client,
    pub verified: Option<Verified>,
}

#[derive(Debug, Serialize)]
pub struct Readings {
    /// Acknowledged, those after the time was over included.
    pub accepted: u64,
    pub accepted_per_second: f64,
    /// In lists that failed; they may be stored all the same.
    pub failed: u64,
}

#[derive(Debug, Serialize)]
pub struct Lists {
    pub sent: u64,
    pub accepted: u64,
    pub answered_per_second: f64,
    /// Due and never sent, since all connections waited for answers.
    pub late: u64,
}

/// When accepted readings came into a block.
#[derive(Debug, Serialize)]
pub struct Sealing {
    /// Share of the readings that their answer said to be in a block.
    pub in_answer: f64,
    /// Of a sample of the others, from the request until they were seen in a block.
    pub later_ms: Option<Quantiles>,
    /// Readings of the sample that were in none when the waiting ended.
    pub still_pending: usize,
}

/// The process that listens on the receiver's port on this machine.
#[derive(Debug, Serialize)]
pub struct Receiver {
    pub process_id: u32,
    pub name: String,
    /// During the run.
    pub cpu_s: Option<f64>,
    pub cpu_us_per_reading: Option<f64>,
    /// Since its start.
    pub peak_mib: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Client {
    /// Processors of this machine.
    pub cores: usize,
    /// During the run.
    pub cpu_s: Option<f64>,
    pub signed_before: u64,
    pub signed_meanwhile: u64,
    /// Share of the connections' time that they waited for a signature.
    pub waited_for_signatures: f64,
}

#[derive(Debug, Serialize)]
pub struct Verified {
    pub asked_for: u64,
    pub sealed: u64,
    pub pending: u64,
    pub missing: u64,
    /// Those that there was no answer for.
    pub unanswered: u64,
}

impl Report {
    /// Returns what of the receiver's own words explains its speed.
    fn conditions(&self) -> Option<String> {
        let status = self.status.as_ref()?;
        let setting = |name| status.get("settings")?.get(name);
        let (store, per_block) = (status.get("store")?.as_str()?, setting("transactions_per_block")?);
        Some(format!("{store}, {per_block} a block, difficulty {}", setting("difficulty")?))
    }
}

/// Rounds to so many digits after the point: more would be noise.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { connections, batch, key, keys, readings, lists, client, .. } = self;
        let plural = |number: u32| if number == 1 { "" } else { "s" };
        write!(f, "load        {connections} connection{}, lists of {batch}, ", plural(*connections))?;
        write!(f, "{keys} {key} key{}, ", plural(*keys))?;
        match self.rate {
            Some(rate) => write!(f, "{} readings a second asked for", HumanCount(rate.into()))?,
            None => f.write_str("as fast as answered")?,
        }
        writeln!(f, ", {:.1} s{}", self.seconds, if self.interrupted { " (interrupted)" } else { "" })?;
        if let Some(conditions) = self.conditions() {
            writeln!(f, "chain       {conditions}")?;
        }
        let (accepted, a_second) = (HumanCount(readings.accepted), readings.accepted_per_second);
        writeln!(
            f,
            "accepted    {accepted} readings: {a_second:.0} a second, in {:.0} lists a second",
            lists.answered_per_second
        )?;
        if lists.late > 0 {
            writeln!(f, "late        {} lists were due and not sent", HumanCount(lists.late))?;
        }
        if let Some(times) = &self.latency_ms {
            writeln!(f, "latency     {times}")?;
        }
        if let Some(sealing) = &self.sealing {
            writeln!(f, "sealed      {sealing}")?;
        }
        for (name, count) in &self.errors {
            writeln!(f, "failed      {} lists: {name}", HumanCount(*count))?;
        }
        match &self.receiver {
            Some(receiver) => writeln!(f, "receiver    {receiver}")?,
            None => writeln!(f, "receiver    {}, not a process that can be looked at", self.url)?,
        }
        writeln!(f, "client      {}", client.in_words(self.seconds))?;
        if let Some(Verified { asked_for, sealed, pending, missing, unanswered }) = &self.verified {
            let [asked_for, sealed, pending, missing, unanswered] =
                [asked_for, sealed, pending, missing, unanswered].map(|count| HumanCount(*count));
            writeln!(
                f,
                "verified    {asked_for} readings: {sealed} sealed, {pending} pending, {missing} missing, {unanswered} without answer"
            )?;
        }
        Ok(())
    }
}

impl Display for Quantiles {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, p99_9, max, .. } = self;
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p99_9:.1} ms, max {max:.1} ms")
    }
}

impl Display for Sealing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} % in the answer", self.in_answer * 100.0)?;
        if let Some(times) = &self.later_ms {
            write!(f, "; of the others, {} followed: {times}", times.count)?;
        }
        if self.still_pending > 0 {
            write!(f, "; {} of those followed are still pending", self.still_pending)?;
        }
        Ok(())
    }
}

impl Display for Receiver {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.process_id)?;
        if let Some(cpu_us) = self.cpu_us_per_reading {
            write!(f, ", {cpu_us:.0} µs CPU a reading")?;
        }
        if let Some(peak_mib) = self.peak_mib {
            write!(f, ", {peak_mib:.0} MiB at most since its start")?;
        }
        Ok(())
    }
}

impl Client {
    fn in_words(&self, seconds: f64) -> String {
        let cpu = self.cpu_s.map_or_else(String::new, |cpu_s| {
            format!("{:.2} of {} processors; ", cpu_s / seconds.max(0.001), self.cores)
        });
        let [before, meanwhile] = [self.signed_before, self.signed_meanwhile].map(HumanCount);
        let waited = self.waited_for_signatures * 100.0;
        format!(
            "{cpu}signed {before} readings before, {meanwhile} meanwhile, waited for them {waited:.1} % of the time"
        )
    }
}
