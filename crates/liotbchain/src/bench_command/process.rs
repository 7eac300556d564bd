//! What a process on this machine costs, where the system has `/proc`.

use std::fs;

/// The kernel counts processor time in hundredths of a second on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process by its id, or `self`.
#[derive(Clone, Debug)]
pub struct Process(String);

impl Process {
    /// Returns this process.
    pub fn own() -> Self {
        Self("self".to_owned())
    }

    /// Returns another one.
    pub fn of(id: u32) -> Self {
        Self(id.to_string())
    }

    /// Returns the processor time it has used, in seconds, in the kernel too.
    pub fn cpu_s(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        // The name in brackets may hold anything; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Some(ticks.sum::<Result<f64, _>>().ok()? / TICKS_PER_SECOND)
    }

    /// Returns the most memory it has held since its start, in MiB.
    pub fn peak_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(peak.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn knows_what_this_process_costs() {
        let own = Process::own();
        let before = own.cpu_s().unwrap();
        let memory = std::hint::black_box(vec![1_u8; 64 << 20]);
        let mut sum = 0_u64;
        while own.cpu_s().unwrap() - before < 0.05 {
            sum += memory.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        assert!(std::hint::black_box(sum) > 0);
        assert!(own.peak_mib().unwrap() >= 64.0);
        assert!(Process::of(std::process::id()).cpu_s().unwrap() >= before);
    }

    #[test]
    fn knows_nothing_of_a_process_that_is_gone() {
        // Above the kernel's greatest id, 2^22.
        let gone = Process::of(u32::MAX);
        assert_eq!((gone.cpu_s(), gone.peak_mib()), (None, None));
    }
}
