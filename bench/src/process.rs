//! A receiver or a sender as a process of its own, and what it costs.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};

/// The kernel counts processor time in hundredths of a second on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Server {
    child: Child,
    /// Host and port.
    pub address: String,
    pub url: String,
    pub client: reqwest::Client,
    /// From the start of the process until it said that it is ready.
    pub ready_after: Duration,
}

impl Server {
    /// Starts a receiver, and waits until it is ready.
    pub async fn receiver(
        program: &Path,
        data_dir: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start(program, ("receiver", "RECEIVER_LISTEN", "/readyz"), data_dir, settings).await
    }

    /// Starts a sender, and waits until it takes readings.
    pub async fn sender(program: &Path, data_dir: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start(program, ("sender", "SENDER_LISTEN", "/healthz"), data_dir, settings).await
    }

    /// Starts the program on a free port, with settings from the environment alone.
    async fn start(
        program: &Path,
        (command, listen, ready): (&str, &str, &str),
        data_dir: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let started = Instant::now();
        let child = Command::new(program)
            .arg(command)
            .current_dir(data_dir)
            .env("DATA_DIR", data_dir)
            .env(listen, &address)
            .env("LOG_LEVEL", "error")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("the {command} does not start"))?;
        let mut server = Self {
            child,
            url: format!("http://{address}"),
            address,
            client: reqwest::Client::builder().build()?,
            ready_after: Duration::ZERO,
        };
        let ready = format!("{}{ready}", server.url);
        while !server.client.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
            anyhow::ensure!(server.child.try_wait()?.is_none(), "the {command} ended at its start");
            anyhow::ensure!(
                started.elapsed() < Duration::from_secs(60),
                "the {command} is not ready after 60 s"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    /// Returns the processor time that the process has used, in seconds.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may hold spaces; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("unknown form of /proc/…/stat")?;
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Returns the most memory that the process has held so far, in MiB.
    pub fn peak_mib(&self) -> anyhow::Result<f64> {
        self.memory_mib("VmHWM:")
    }

    /// Returns the memory that the process holds, in MiB.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        self.memory_mib("VmRSS:")
    }

    fn memory_mib(&self, field: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the processor time that this thread has used, in seconds.
pub fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
