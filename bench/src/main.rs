//! Measures liotbchain, and in the same run the bare limit of what each figure rests on.
//!
//! `cargo build --release && cargo run --release -p liotbchain-bench` prints Markdown tables; docs/benchmarks.md says how
//! to read them. Each measured part takes turns with its limit, since other work on a machine drifts.

mod chain;
mod ingest;
mod mining;
mod process;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name("liotbchain");
    anyhow::ensure!(program.exists(), "{} is missing: run `cargo build --release` first", program.display());
    mining::measure()?;
    ingest::measure(&program).await?;
    chain::measure(&program).await
}

/// Returns the middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
