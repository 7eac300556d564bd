//! What a receiver says at its start: where it listens, what it keeps, and what to expect of mining.

use std::{
    fmt,
    net::SocketAddr,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use liotbchain_core::{
    BlockHash, Difficulty, Header, Root, Target,
    mine::{self, ATTEMPTS_MAX, Kernel},
};
use liotbchain_node::{Ledger, LedgerConfig};

/// A block that is given up more often than this deserves a warning.
const FAILURE_MAX: f64 = 0.01;
/// How long mining is measured at least.
const MEASURED: Duration = Duration::from_millis(50);

/// What to tell at the start, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartReport {
    /// What is so.
    pub lines: Vec<String>,
    /// What should not stay so.
    pub warnings: Vec<String>,
}

impl fmt::Display for StartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl StartReport {
    /// Writes the report to the log.
    pub fn log(&self) {
        self.lines.iter().for_each(|line| tracing::info!("{line}"));
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

/// Describes a ledger that is to be served at an address. Mines for a moment to say what a block will take.
pub async fn start_report(ledger: &Ledger, address: SocketAddr) -> StartReport {
    let config = ledger.config();
    let (kernel, threads) = (config.mining_kernel, config.mining_threads);
    let measured = tokio::task::spawn_blocking(move || measure_mining(kernel, threads)).await;
    let attempts_per_second = measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));

    let store = ledger.store();
    let status = ledger.status();
    let mut lines = vec![
        format!("receiver    http://{address} (to try out: http://{address}/apidocs/)"),
        format!("store       {}", store.location()),
    ];
    lines.extend(store.notice().map(|notice| format!("            {notice}")));
    lines.push(format!("chain       {} {}", ledger.rules().network, ledger.genesis()));
    lines.push(format!("            height {}, {} pending", status.height, status.pending));
    lines.push(describe_blocks(config));
    lines.push(describe_difficulty(config, attempts_per_second));
    StartReport { lines, warnings: warn_of_limit(config, ledger.rules().difficulty).into_iter().collect() }
}

/// Returns how many nonces are tried in a second.
fn measure_mining(kernel: Kernel, threads: usize) -> f64 {
    let header = Header {
        prev_block_hash: BlockHash::ZERO,
        transactions_root: Root::ZERO,
        history_root: Root::ZERO,
        height: 0,
        timestamp_ms: 0,
        // No nonce meets it: the chance is 2^32 in 2^64.
        bits: Difficulty::MAX.bits(),
        nonce: 0,
    };
    let mut attempts = 1 << 16;
    loop {
        let started = Instant::now();
        mine::mine_with(kernel, &header, attempts, threads, &AtomicBool::new(false))
            .expect("the bits of a difficulty encode a target");
        let elapsed = started.elapsed();
        if elapsed >= MEASURED || attempts >= ATTEMPTS_MAX {
            return attempts as f64 / elapsed.as_secs_f64();
        }
        attempts *= 4;
    }
}

fn describe_blocks(config: &LedgerConfig) -> String {
    let count = match config.transactions_per_block {
        1 => "1 transaction".to_owned(),
        count => format!("{count} transactions"),
    };
    let age = config.block_max_age.map(|age| format!(", or what is there after {} s", age.as_secs()));
    format!("blocks      of {count}{}", age.unwrap_or_default())
}

fn describe_difficulty(config: &LedgerConfig, attempts_per_second: f64) -> String {
    let expected = target(config.difficulty).expected_attempts();
    let threads = match config.mining_threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    format!(
        "difficulty  {}: {expected:.0} attempts a block on average, {} (measured {:.1} million a second with {threads}, {})",
        config.difficulty,
        Span(expected / attempts_per_second),
        attempts_per_second / 1e6,
        config.mining_kernel,
    )
}

/// A block that was given up is tried again, so a limit that is too low costs time and no data.
fn warn_of_limit(config: &LedgerConfig, least: Difficulty) -> Option<String> {
    let (limit, difficulty) = (config.nonce_limit, config.difficulty);
    let failure = target(difficulty).failure_probability(limit);
    if failure <= FAILURE_MAX {
        return None;
    }
    let enough = |difficulty: Difficulty| target(difficulty).attempts_for_failure(FAILURE_MAX);
    let cure = if enough(difficulty) <= ATTEMPTS_MAX as f64 {
        format!("set NONCE_LIMIT={:.0} for 1 %", enough(difficulty))
    } else {
        let digits = (0..difficulty.digits()).rev().filter_map(|digits| Difficulty::new(digits.into()).ok());
        let lower = digits.into_iter().find(|lower| *lower >= least && enough(*lower) <= ATTEMPTS_MAX as f64);
        match lower {
            Some(lower) => format!("set DIFFICULTY={lower} and NONCE_LIMIT={:.0} for 1 %", enough(lower)),
            None => "no NONCE_LIMIT is enough, and this chain allows no lower DIFFICULTY".to_owned(),
        }
    };
    Some(format!(
        "NONCE_LIMIT={limit} gives up {:.1} % of the attempts to mine a block at DIFFICULTY={difficulty}: {cure}",
        failure * 100.0
    ))
}

fn target(difficulty: Difficulty) -> Target {
    Target::from_bits(difficulty.bits()).expect("the bits of a difficulty encode a target")
}

/// Seconds, in the unit that a person would choose.
struct Span(f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(f64, &str); 6] = [
            (1e-3, "ms"),
            (1.0, "s"),
            (60.0, "min"),
            (3600.0, "h"),
            (86_400.0, "days"),
            (31_557_600.0, "years"),
        ];
        if self.0 < 1e-3 {
            return f.write_str("less than 1 ms");
        }
        let (size, unit) = UNITS.into_iter().rev().find(|(size, _)| self.0 >= *size).unwrap_or(UNITS[0]);
        let count = self.0 / size;
        let decimals = if count < 10.0 { 1 } else { 0 };
        write!(f, "about {count:.decimals$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(digits: u64, nonce_limit: u64) -> LedgerConfig {
        LedgerConfig { difficulty: Difficulty::new(digits).unwrap(), nonce_limit, ..LedgerConfig::default() }
    }

    fn warning(digits: u64, nonce_limit: u64, least: u64) -> Option<String> {
        warn_of_limit(&config(digits, nonce_limit), Difficulty::new(least).unwrap())
    }

    #[test]
    fn warns_where_the_limit_gives_up_more_than_a_hundredth_of_the_blocks() {
        assert_eq!(warning(2, 10_000_000, 2), None);
        assert_eq!(warning(2, 1_180, 2), None);
        assert_eq!(
            warning(2, 256, 2).unwrap(),
            "NONCE_LIMIT=256 gives up 36.7 % of the attempts to mine a block at DIFFICULTY=2: set NONCE_LIMIT=1177 for 1 %"
        );
    }

    #[test]
    fn names_a_difficulty_where_no_limit_is_enough() {
        let text = warning(16, ATTEMPTS_MAX, 2).unwrap();
        assert!(
            text.contains("gives up 100.0 %") && text.contains("set DIFFICULTY=7 and NONCE_LIMIT=12"),
            "{text}"
        );
        let text = warning(16, ATTEMPTS_MAX, 9).unwrap();
        assert!(text.ends_with("this chain allows no lower DIFFICULTY"), "{text}");
    }

    #[test]
    fn says_how_long_a_block_takes() {
        let line = |digits| {
            describe_difficulty(
                &LedgerConfig { mining_threads: 2, mining_kernel: Kernel::PORTABLE, ..config(digits, 1) },
                20e6,
            )
        };
        assert_eq!(
            line(2),
            "difficulty  2: 256 attempts a block on average, less than 1 ms (measured 20.0 million a second with 2 threads, portable)"
        );
        assert!(line(4).contains(": 65537 attempts a block on average, about 3.3 ms ("), "{}", line(4));
        assert!(line(7).contains(" about 13 s ("), "{}", line(7));
        assert!(line(12).contains(" about 163 days ("), "{}", line(12));
        assert!(line(16).contains(" about 29228 years ("), "{}", line(16));
    }

    #[test]
    fn measures_mining() {
        assert!(measure_mining(Kernel::best(), 1) > 1_000.0);
    }
}
