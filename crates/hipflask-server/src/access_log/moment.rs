//! The time of day as lines of a log have it, made once a second.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::{self, LocalTime};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment, and what has been written of its second.
#[derive(Clone, Copy)]
pub(super) struct Moment(Duration);

#[derive(Default)]
struct Second {
    at: Option<u64>,
    common: Vec<u8>,
    clock: Vec<u8>,
}

impl Second {
    fn fill(&mut self, second: u64) {
        if self.at == Some(second) {
            return;
        }
        self.at = Some(second);
        let LocalTime { year, month, day, hour, minute, second, offset } = sys::local_time(second);
        let name = MONTHS.get(month as usize - 1).copied().unwrap_or("???");
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
        self.common.clear();
        self.clock.clear();
        // Vectors take whatever is written.
        let _ = write!(
            self.common,
            "{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} {sign}{hours:02}{minutes:02}"
        );
        let _ = write!(self.clock, "{hour:02}:{minute:02}:{second:02}");
    }
}

impl Moment {
    /// So long ago.
    pub(super) fn ago(time: Duration) -> Moment {
        Moment(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(time))
    }

    /// Time since 1970.
    pub(super) fn since_epoch(self) -> Duration {
        self.0
    }

    /// `10/Oct/2000:13:55:36 -0700`.
    pub(super) fn common(self, out: &mut Vec<u8>) {
        self.of(|second| out.extend_from_slice(&second.common));
    }

    /// `13:55:36`.
    pub(super) fn clock(self, out: &mut Vec<u8>) {
        self.of(|second| out.extend_from_slice(&second.clock));
    }

    /// `2000-10-10T20:55:36.123456Z`: RFC 3339, in universal time.
    pub(super) fn iso(self, out: &mut Vec<u8>) {
        let LocalTime { year, month, day, hour, minute, second, .. } = sys::utc_time(self.0.as_secs());
        let micros = self.0.subsec_micros();
        let _ = write!(out, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    }

    fn of(self, give: impl FnOnce(&Second)) {
        thread_local! {
            static SECOND: RefCell<Second> = RefCell::default();
        }
        SECOND.with_borrow_mut(|second| {
            second.fill(self.0.as_secs());
            give(second);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_logs_have_them() {
        let moment = Moment(Duration::from_micros(971_211_336_123_456));
        let mut out = Vec::new();
        moment.iso(&mut out);
        assert_eq!(out, b"2000-10-10T20:55:36.123456Z");
        out.clear();
        moment.common(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!((text.len(), text.contains("/Oct/2000:")), (26, true), "{text}");
    }
}
