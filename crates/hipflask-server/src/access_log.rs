//! The access log: a line for each answer, to a stream, a file or syslog.
//!
//! Whoever answers a request puts the line into a bounded buffer and goes on; a thread of the log's own writes. Where that
//! cannot keep up lines are dropped and counted, since a log that nobody reads must not stop the server.

mod escape;
mod format;
mod moment;
mod place;
mod writer;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::Duration;

use crate::exchange::Answered;
use format::Format;

pub(crate) use escape::json as write_json;
pub use place::Place;
pub use writer::{Writer, WriterConfig};

/// A short line is kept in a buffer of the thread's own; one that was longer gives the memory back.
const USUAL: usize = 4096;

/// How a log is written.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// `short`, `common`, `combined`, `json`, or directives of Apache's `LogFormat`.
    pub format: String,
    /// Whether `short` may use colours.
    pub coloured: bool,
    /// The part of answers that is logged, 0 to 1; those with a status of 400 or more always are.
    pub sample: f64,
    /// Where lines go, and how many wait at most.
    pub writer: WriterConfig,
}

/// An access log.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    /// Of 2⁶⁴ answers so many are logged; `None`: all.
    share: Option<u64>,
    writer: Writer,
}

/// Looks whether a format can be used.
///
/// # Errors
///
/// A sentence that says what is wrong with it.
pub fn check_format(text: &str) -> Result<(), String> {
    Format::parse(text, false).map(drop)
}

impl AccessLog {
    /// Opens a log. `report` is told, on the log's own thread, what its operator should know.
    ///
    /// # Errors
    ///
    /// A sentence about the format, or what the system says about the place.
    pub fn open(config: &AccessLogConfig, report: Box<dyn Fn(&str) + Send>) -> io::Result<AccessLog> {
        let format = Format::parse(&config.format, config.coloured)
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let share = (config.sample < 1.0).then_some((config.sample.max(0.0) * u64::MAX as f64) as u64);
        Ok(AccessLog { format, share, writer: Writer::open(&config.writer, report)? })
    }

    /// The request fields that lines have, for [`Config::tell_fields`](crate::Config::tell_fields).
    pub fn fields(&self) -> &[String] {
        self.format.fields()
    }

    /// Logs an answer. Does not block.
    pub fn write(&self, answered: &Answered<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        if answered.status < 400 && self.share.is_some_and(|share| !is_drawn(share)) {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.format.write(answered, line);
            line.push(b'\n');
            self.writer.put(line);
            if line.capacity() > USUAL {
                *line = Vec::new();
            }
        });
    }

    /// What writes the lines.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Writes what waits, for at most so long; whether all of it is out.
    pub fn flush(&self, most: Duration) -> bool {
        self.writer.flush(most)
    }
}

/// Whether one of `share` in 2⁶⁴ is drawn.
fn is_drawn(share: u64) -> bool {
    thread_local! {
        static DRAWS: (RandomState, Cell<u64>) = (RandomState::new(), const { Cell::new(0) });
    }
    DRAWS.with(|(keys, count)| {
        count.set(count.get().wrapping_add(1));
        keys.hash_one(count.get()) < share
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_drawn() {
        for (sample, least, most) in [(0.0, 0, 0), (0.5, 4_500, 5_500), (0.01, 40, 180)] {
            let share = (sample * u64::MAX as f64) as u64;
            let drawn = (0..10_000).filter(|_| is_drawn(share)).count();
            assert!((least..=most).contains(&drawn), "{drawn} of 10,000 at {sample}");
        }
    }
}
