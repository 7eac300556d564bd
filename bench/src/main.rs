//! Measures liotbchain, and in the same run the bare limit of what each figure rests on.
//!
//! `cargo build --release --workspace && target/release/liotbchain-bench [SECTION…]` prints Markdown tables;
//! docs/benchmarks.md says how to read them. What is measured takes turns with its limit, since other work on a machine
//! drifts.

mod bare;
mod chain;
mod cluster;
mod gateway;
mod growth;
mod ingest;
mod latency;
mod mining;
mod original;
mod postgres;
mod process;
mod proofs;
mod reading;
mod readings;
mod start;
mod traffic;
mod validate;

use std::path::PathBuf;

const SECTIONS: &[&str] = &[
    "mining", "ingest", "postgres", "original", "validate", "reading", "start", "growth", "latency",
    "gateway", "proofs",
];

/// Where things are.
pub struct Place {
    /// The program that is measured, as it was built last.
    program: PathBuf,
    /// What takes long to make and stays the same is kept here.
    data: PathBuf,
}

impl Place {
    fn find() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("liotbchain");
        anyhow::ensure!(
            program.exists(),
            "{} is missing: run `cargo build --release --workspace` first",
            program.display()
        );
        let data = program.with_file_name("../bench-data");
        std::fs::create_dir_all(&data)?;
        Ok(Self { program, data: data.canonicalize()? })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut chosen: Vec<_> = std::env::args().skip(1).collect();
    if chosen.is_empty() {
        chosen = SECTIONS.iter().map(|&name| name.to_owned()).collect();
    }
    if let Some(unknown) = chosen.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        anyhow::bail!("no section {unknown}: there are {}", SECTIONS.join(", "));
    }
    let place = Place::find()?;
    for name in chosen {
        match name.as_str() {
            "mining" => mining::measure()?,
            "ingest" => ingest::measure(&place).await?,
            "postgres" => postgres::measure(&place).await?,
            "original" => original::measure(&place).await?,
            "validate" => validate::measure(&place).await?,
            "reading" => reading::measure(&place).await?,
            "start" => start::measure(&place).await?,
            "growth" => growth::measure(&place).await?,
            "latency" => latency::measure(&place).await?,
            "gateway" => gateway::measure(&place).await?,
            "proofs" => proofs::measure(&place).await?,
            other => anyhow::bail!("section {other} is not there"),
        }
    }
    Ok(())
}

/// Returns the middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Says whether a figure keeps its bar.
fn verdict(kept: bool) -> &'static str {
    if kept { "met" } else { "**missed**" }
}
