//! Between the program and its log file: whoever logs never waits for a disk.
//!
//! Lines wait in a bounded queue for a thread of their own. What finds no room there, or cannot be written, is lost;
//! how many that were is counted and told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::log_file::LogFile;
use crate::output;

/// Bytes of lines that wait: seconds of the busiest log, and nothing beside a receiver's other needs.
const WAITING_MAX: usize = 4 << 20;
/// At the end so long is waited for the last lines, and no longer: a disk may hang.
const END_WAIT: Duration = Duration::from_secs(1);
/// Lost lines are told of no more often than this: on a disk that is nearly full every other line may be lost.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Takes the lines of the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogQueue {
    lines: Sender<Option<Vec<u8>>>,
    counts: Arc<Counts>,
}

/// Writes the lines. The last ones are waited for when this is dropped.
#[derive(Debug)]
pub struct LogThread {
    lines: Sender<Option<Vec<u8>>>,
    ended: Receiver<()>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

/// Starts the thread that writes to a file.
///
/// # Errors
///
/// Where the system gives no thread.
pub fn start(file: LogFile) -> io::Result<(LogQueue, LogThread)> {
    let (queue, waiting) = queue();
    let counts = Arc::clone(&queue.counts);
    let (end, ended) = channel::<()>();
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        write_lines(file, &waiting, &counts);
        drop(end);
    })?;
    let lines = queue.lines.clone();
    Ok((queue, LogThread { lines, ended }))
}

fn queue() -> (LogQueue, Receiver<Option<Vec<u8>>>) {
    let (lines, waiting) = channel();
    (LogQueue { lines, counts: Arc::default() }, waiting)
}

fn write_lines(mut file: LogFile, waiting: &Receiver<Option<Vec<u8>>>, counts: &Counts) {
    let mut has_failed = false;
    let mut told: Option<Instant> = None;
    while let Ok(Some(line)) = waiting.recv() {
        counts.waiting_bytes.fetch_sub(line.len(), Relaxed);
        if let Err(error) = file.write(&line) {
            counts.lost.fetch_add(1, Relaxed);
            if !has_failed {
                has_failed = true;
                let warning = format!("LOG_FILE={} cannot be written: {error}", file.path().display());
                output::warn(
                    &warning,
                    Some("lines are lost until it can; warnings and errors stand here too"),
                );
            }
        } else if counts.lost.load(Relaxed) > 0 && told.is_none_or(|told| told.elapsed() > TELL_INTERVAL) {
            told = Some(Instant::now());
            let lines = counts.lost.swap(0, Relaxed);
            // Comes back here as the next line.
            tracing::warn!(lines, "lines of the log were lost");
        }
    }
}

impl LogQueue {
    fn push(&self, line: &[u8]) {
        let waiting = self.counts.waiting_bytes.fetch_add(line.len(), Relaxed);
        // The receiver is gone only when the program ends.
        if waiting + line.len() > WAITING_MAX || self.lines.send(Some(line.to_vec())).is_err() {
            self.counts.waiting_bytes.fetch_sub(line.len(), Relaxed);
            self.counts.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Takes whole lines: that is how the layer of `tracing-subscriber` writes.
impl io::Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        if self.lines.send(None).is_ok() {
            // Ends with the thread, or with our patience.
            let _ = self.ended.recv_timeout(END_WAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_lines_are_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let (queue, thread) = start(LogFile::open(&path, 1 << 20, 2).unwrap()).unwrap();
        for number in 0..1000 {
            writeln!(&queue, "{number}").unwrap();
        }
        drop(thread);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().eq((0..1000).map(|number| number.to_string())));
    }

    #[test]
    fn a_disk_that_hangs_costs_lines_and_bounded_memory() {
        let (queue, waiting) = queue();
        let line = vec![b'x'; 1 << 10];
        for _ in 0..10_000 {
            (&queue).write_all(&line).unwrap();
        }
        assert_eq!(waiting.try_iter().count(), WAITING_MAX / line.len());
        assert_eq!(queue.counts.lost.load(Relaxed), (10_000 - WAITING_MAX / line.len()) as u64);
    }

    #[test]
    fn goes_on_once_the_disk_has_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let blocker = folder.path().join("a.log.new");
        let mut file = LogFile::open(&path, 4, 2).unwrap();
        file.write(b"old\n").unwrap();
        fs::create_dir(&blocker).unwrap();
        let (queue, waiting) = queue();
        queue.push(b"a\n");
        queue.push(b"b\n");
        queue.lines.send(None).unwrap();
        write_lines(file, &waiting, &queue.counts);
        assert_eq!(
            (queue.counts.lost.load(Relaxed), fs::read_to_string(&path).unwrap()),
            (2, "old\n".into())
        );
        fs::remove_dir(&blocker).unwrap();
        queue.push(b"c\n");
        queue.lines.send(None).unwrap();
        write_lines(LogFile::open(&path, 4, 2).unwrap(), &waiting, &queue.counts);
        assert_eq!((queue.counts.lost.load(Relaxed), fs::read_to_string(&path).unwrap()), (0, "c\n".into()));
    }
}
