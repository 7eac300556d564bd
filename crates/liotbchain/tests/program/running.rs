//! The program: run to its end, or running.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

/// A busy machine may be slow; what takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn program(folder: &TempDir, line: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_liotbchain"));
    program.args(line.split_whitespace()).env_clear().current_dir(folder.path()).stdin(Stdio::null());
    program
}

/// Runs a command to its end.
pub fn run(folder: &TempDir, line: &str) -> Ended {
    Ended::of(program(folder, line).output().unwrap())
}

/// A command that ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self { code: output.status.code(), stdout, stderr }
    }

    /// Returns standard output of a command that must have succeeded.
    #[track_caller]
    pub fn stdout(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Checks how a command failed, and what it said.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} in {self:?}");
        }
    }
}

/// A server or a demo. Killed when it is dropped.
pub struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    pub fn start(folder: &TempDir, line: &str, environment: &[(&str, &str)]) -> Self {
        let mut program = program(folder, line);
        program.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line of standard output.
    #[track_caller]
    pub fn next_data(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line on standard output")
    }

    /// Waits for a line of standard error that begins so, and returns its rest.
    #[track_caller]
    pub fn wait_for_talk(&self, beginning: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(PATIENCE).expect("a line on standard error");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Sends a signal, and returns the exit code with what was said since.
    pub fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let code = self.child.wait().unwrap().code();
        (code, self.stderr.iter().collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        // Nobody may want the rest.
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}
