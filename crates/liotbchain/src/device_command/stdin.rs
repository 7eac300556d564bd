//! `--stdin`: what another program prints, a reading a line.
//!
//! An object is handed over as it stands, byte for byte; a bare number becomes `{"value":21.5}`. A line that is neither
//! is refused with a word about it, and the next one is read.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::thread;

use liotbchain_sender::reading::{DeviceName, DeviceNameError, READING_SIZE_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::source::Reading;
use super::tally::Tally;
use crate::Failure;

/// Lines that are read ahead; who prints faster than the gateway takes is made to wait.
const LINES_AHEAD: usize = 256;
/// Bytes of a line that are kept: blanks may stand around a reading.
const LINE_SIZE_MAX: usize = READING_SIZE_MAX + 1024;

/// Lines that come from another program.
pub struct Lines(mpsc::Receiver<Result<Reading, Failure>>);

/// Why a line is no reading.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LineError {
    #[error("it is longer than {LINE_SIZE_MAX} bytes")]
    TooLong,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is not JSON ({0}): print an object, {{\"celsius\":21.5}}, or a number")]
    NotJson(String),
    #[error("it is neither a JSON object nor a number")]
    NotAReading,
    #[error("it has {0} bytes: a reading has {READING_SIZE_MAX} at most")]
    ReadingTooLong(usize),
    #[error("it names no device: name it with --device, or in a member \"device\" of each line")]
    NoDevice,
    #[error(transparent)]
    DeviceName(#[from] DeviceNameError),
}

impl Lines {
    /// Starts to read.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn read(device: Option<DeviceName>, tally: Arc<Tally>) -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel(LINES_AHEAD);
        let read = move || {
            let ended = read_lines(io::stdin().lock(), device.as_ref(), &tally, |reading| {
                sender.blocking_send(Ok(reading)).is_ok()
            });
            if let Err(error) = ended {
                let _ = sender
                    .blocking_send(Err(Failure::failed(format!("standard input cannot be read: {error}"))));
            }
        };
        let spawned = thread::Builder::new().name("stdin".to_owned()).spawn(read);
        spawned.map_err(|error| Failure::failed(format!("the system gives no threads: {error}")))?;
        Ok(Self(receiver))
    }

    /// Waits for the next reading; none at the end of the input.
    ///
    /// # Errors
    ///
    /// Where the input cannot be read.
    pub async fn next(&mut self) -> Result<Option<Reading>, Failure> {
        self.0.recv().await.transpose()
    }

    /// Returns a reading that is there already.
    ///
    /// # Errors
    ///
    /// Where the input cannot be read.
    pub fn ready(&mut self) -> Result<Option<Reading>, Failure> {
        self.0.try_recv().ok().transpose()
    }
}

/// Reads until the input ends, or nobody takes readings any more.
fn read_lines(
    mut input: impl BufRead,
    device: Option<&DeviceName>,
    tally: &Tally,
    mut take: impl FnMut(Reading) -> bool,
) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        if !read_line(&mut input, &mut line)? {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match parse(&line, device) {
            Ok((device, text)) => {
                let identity = Some(number);
                if !take(Reading { device, text, identity }) {
                    break;
                }
            }
            Err(error) => tally.refuse_unsent(format_args!("line {number} is not sent: {error}")),
        }
    }
    Ok(())
}

/// Reads a line without its end, or the beginning of one that is too long; false at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut is_there = false;
    loop {
        let chunk = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            chunk => chunk?,
        };
        if chunk.is_empty() {
            return Ok(is_there);
        }
        is_there = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        // One byte more than is allowed shows that it was too long.
        let room = (LINE_SIZE_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Returns the name of the device and the text of the reading.
fn parse(line: &[u8], device: Option<&DeviceName>) -> Result<(String, String), LineError> {
    #[derive(Deserialize)]
    struct Named {
        device: Option<serde_json::Value>,
    }
    if line.len() > LINE_SIZE_MAX {
        return Err(LineError::TooLong);
    }
    let text = std::str::from_utf8(line).map_err(|_| LineError::NotUtf8)?.trim();
    let not_json = |error: serde_json::Error| LineError::NotJson(error.to_string());
    let value: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    let reading = match text.as_bytes()[0] {
        b'{' => text.to_owned(),
        b'-' | b'0'..=b'9' => format!(r#"{{"value":{text}}}"#),
        _ => return Err(LineError::NotAReading),
    };
    if reading.len() > READING_SIZE_MAX {
        return Err(LineError::ReadingTooLong(reading.len()));
    }
    let device = match device {
        Some(device) => device.clone(),
        None => {
            let Named { device } = serde_json::from_str(value.get()).map_err(|_| LineError::NoDevice)?;
            DeviceName::new(device.as_ref().and_then(|it| it.as_str()).ok_or(LineError::NoDevice)?)?
        }
    };
    Ok((device.as_str().to_owned(), reading))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], device: Option<&str>) -> (Vec<Reading>, u64) {
        let tally = Tally::default();
        let device = device.map(|name| DeviceName::new(name).unwrap());
        let mut readings = Vec::new();
        // A buffer of a few bytes, so that lines come in pieces.
        let input = io::BufReader::with_capacity(7, input);
        read_lines(input, device.as_ref(), &tally, |reading| {
            readings.push(reading);
            true
        })
        .unwrap();
        (readings, tally.counts().refused)
    }

    #[test]
    fn an_object_stays_as_it_is_and_a_number_becomes_one() {
        let input = b"  { \"celsius\" : 2.150e1 }\r\n\n-3.25\n7";
        let (readings, refused) = read(input, Some("oven"));
        let texts: Vec<_> = readings.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts, ["{ \"celsius\" : 2.150e1 }", "{\"value\":-3.25}", "{\"value\":7}"]);
        assert!(readings.iter().all(|it| it.device == "oven"));
        let identities: Vec<_> = readings.iter().map(|it| it.identity).collect();
        assert_eq!((identities, refused), (vec![Some(1), Some(3), Some(4)], 0));
    }

    #[test]
    fn goes_on_after_a_line_that_is_no_reading() {
        for line in ["celsius 21", "[1]", "\"a\"", "null", "NaN", "{", "1 2", "{\"a\":1}{}", "\u{feff}1"] {
            let (readings, refused) = read(format!("1\n{line}\n2\n").as_bytes(), Some("oven"));
            assert_eq!((readings.len(), refused), (2, 1), "{line}");
        }
        assert_eq!(read(b"1\n\xff\n2", Some("oven")).1, 1);
    }

    #[test]
    fn a_long_line_is_refused_and_not_kept() {
        let member = |size: usize| format!("{{\"a\":\"{}\"}}\n", "x".repeat(size - 8));
        for (size, is_taken) in [
            (READING_SIZE_MAX, true),
            (READING_SIZE_MAX + 1, false),
            (LINE_SIZE_MAX + 1, false),
            (1 << 20, false),
        ] {
            let (readings, refused) = read((member(size) + "1\n").as_bytes(), Some("oven"));
            assert_eq!(
                (readings.len(), refused),
                (1 + usize::from(is_taken), u64::from(!is_taken)),
                "{size}"
            );
        }
    }

    #[test]
    fn a_line_can_name_its_device() {
        let input = b"{\"device\":\"a\",\"v\":1}\n{\"v\":1}\n1\n{\"device\":7}\n{\"device\":\"a#\"}\n";
        let (readings, refused) = read(input, None);
        assert_eq!((readings.len(), refused), (1, 4));
        assert_eq!(readings[0].device, "a");
        // The name on the command line counts before that of the line, as at the gateway.
        assert_eq!(read(input, Some("b")).0[0].device, "b");
    }
}
