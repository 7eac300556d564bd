//! Readings accepted a second, beside the Python original on the same PostgreSQL.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use liotbchain_sender::signer::KeyKind;
use tokio::net::TcpStream;

use crate::{Place, cluster::Cluster, median, process::Server, readings::Readings, traffic, verdict};

const ROUNDS: usize = 3;
/// More than any receiver takes in [`SPAN`].
const READINGS: usize = 120_000;
const SPAN: Duration = Duration::from_secs(4);
const CONNECTIONS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// With two, the original forks its chain.
const ORIGINAL_CONNECTIONS: usize = 1;

struct Point {
    per_block: usize,
    list: usize,
    difficulty: u32,
    /// How long the original is given: a block of difficulty 4 takes it more than a second, and luck has to even out.
    span: Duration,
    /// At least so many times as many as the original.
    bar: f64,
}

const POINTS: [Point; 4] = [
    Point { per_block: 2, list: 2, difficulty: 2, span: SPAN, bar: 100.0 },
    Point { per_block: 2, list: 100, difficulty: 2, span: SPAN, bar: 100.0 },
    Point { per_block: 100, list: 100, difficulty: 2, span: SPAN, bar: 50.0 },
    Point { per_block: 2, list: 2, difficulty: 4, span: Duration::from_secs(30), bar: 100.0 },
];

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    println!(
        "## Readings accepted a second beside PyPI `liotbchain==0.0.8`, PostgreSQL, RSA-2048, median of {ROUNDS}\n"
    );
    println!(
        "| a block of | a list of | difficulty | original, 1 connection | liotbchain | connections | times | bar | |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---|");
    let python = prepare_python(place)?;
    let readings = Readings::load(&place.data, KeyKind::Rsa, READINGS)?;
    let cluster = Cluster::start()?;
    let mut databases = (0..).map(|number| cluster.make_database(&format!("round_{number}")));
    let mut next_database = || databases.next().context("numbers do not end")?;
    for point in POINTS {
        let bodies = readings.bodies(point.list);
        let mut best = (0.0, 0);
        for connections in CONNECTIONS {
            let rate = ours(place, &point, &next_database()?, &bodies, connections).await?;
            if rate > best.0 {
                best = (rate, connections);
            }
        }
        let (_, connections) = best;
        let mut columns = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            let original = original(&python, &point, &next_database()?, &bodies).await?;
            let ours = ours(place, &point, &next_database()?, &bodies, connections).await?;
            for (column, value) in columns.iter_mut().zip([original, ours, ours / original]) {
                column.push(value);
            }
        }
        let [original, ours, times] = columns.map(median);
        let Point { per_block, list, difficulty, bar, .. } = point;
        println!(
            "| {per_block} | {list} | {difficulty} | {original:.1} | {ours:.0} | {connections} | {times:.0} | ≥ {bar} | {} |",
            verdict(times >= bar),
        );
    }
    println!();
    Ok(())
}

fn settings(point: &Point, database: &str) -> [(&'static str, String); 3] {
    [
        ("TRANSACTIONS_PER_BLOCK", point.per_block.to_string()),
        ("DIFFICULTY", point.difficulty.to_string()),
        ("DATABASE_URL", database.to_owned()),
    ]
}

async fn ours(
    place: &Place,
    point: &Point,
    database: &str,
    bodies: &[String],
    connections: usize,
) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let settings = settings(point, database);
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let receiver = Server::receiver(&place.program, folder.path(), &settings).await?;
    accepted(&receiver.address, bodies, connections, SPAN, point.list).await
}

async fn original(python: &Python, point: &Point, database: &str, bodies: &[String]) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let original = Original::start(python, folder.path(), &settings(point, database)).await?;
    accepted(&original.address, bodies, ORIGINAL_CONNECTIONS, point.span, point.list).await
}

async fn accepted(
    address: &str,
    bodies: &[String],
    connections: usize,
    span: Duration,
    list: usize,
) -> anyhow::Result<f64> {
    let requests = Arc::new(traffic::requests(address, bodies.to_vec()));
    let (answered, elapsed) = traffic::send_all(address, &requests, connections, span, |_| true).await?;
    Ok((answered * list) as f64 / elapsed.as_secs_f64())
}

struct Python {
    program: PathBuf,
    script: PathBuf,
}

/// Installs the original, at the first run.
fn prepare_python(place: &Place) -> anyhow::Result<Python> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("original");
    let (wanted, script) = (sources.join("requirements.txt"), sources.join("receiver.py"));
    let venv = place.data.with_file_name("original-venv");
    let (program, installed) = (venv.join("bin/python"), venv.join("requirements.txt"));
    if std::fs::read(&installed).ok() != Some(std::fs::read(&wanted)?) {
        let run = |command: &mut Command| {
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
            anyhow::ensure!(status.success(), "{command:?}: {status}");
            Ok(())
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        run(Command::new(&program)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&wanted))?;
        std::fs::copy(&wanted, &installed)?;
    }
    Ok(Python { program, script })
}

struct Original {
    child: Child,
    address: String,
}

impl Original {
    async fn start(
        python: &Python,
        folder: &Path,
        settings: &[(&'static str, String)],
    ) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(&python.program)
            .arg(&python.script)
            .arg(port.to_string())
            .current_dir(folder)
            .env("LOG_LEVEL", "ERROR")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the original does not start")?;
        let mut original = Self { child, address: format!("127.0.0.1:{port}") };
        let started = Instant::now();
        while TcpStream::connect(&original.address).await.is_err() {
            anyhow::ensure!(original.child.try_wait()?.is_none(), "the original ended at its start");
            anyhow::ensure!(started.elapsed() < Duration::from_secs(60), "the original is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(original)
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
