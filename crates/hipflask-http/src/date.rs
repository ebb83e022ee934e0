//! Dates (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`, and the two obsolete forms that must be read.
//!
//! Knows no clock: times are seconds since 1970-01-01 00:00:00 UTC.

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: i64 = 86_400;
/// 9999-12-31 23:59:59, the last second that four digits of year can name.
const LAST: i64 = 253_402_300_799;
/// 0000-03-01, the first day that the calendar arithmetic below counts from.
const EPOCH: i64 = 719_468;

/// An `IMF-fixdate`, 29 bytes. Times outside the years 0 to 9999 are moved to the nearest that can be written.
#[must_use]
pub fn format(seconds: i64) -> [u8; 29] {
    let seconds = seconds.clamp(-EPOCH * DAY + 306 * DAY, LAST);
    let days = seconds.div_euclid(DAY);
    let time = seconds.rem_euclid(DAY);
    let (year, month, day) = civil(days);
    let weekday = DAYS.get((days + 3).rem_euclid(7) as usize).copied().unwrap_or_default();
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = out.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, weekday.as_bytes());
    put(5, &two(day));
    put(8, month.as_bytes());
    put(12, &two(year / 100));
    put(14, &two(year % 100));
    put(17, &two(time / 3600));
    put(20, &two(time / 60 % 60));
    put(23, &two(time % 60));
    out
}

fn two(number: i64) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// Year, month (1 to 12) and day of a day counted from 1970-01-01; proleptic Gregorian.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the leap day is the last of its year.
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH
}

/// Reads any of the three forms; `None` if it is none of them or no such day exists.
///
/// `now` decides the century of a two-digit year: one that seems more than 50 years in the future is in the past.
#[must_use]
pub fn parse(text: &[u8], now: i64) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    match text.split_once(", ") {
        Some((name, rest)) if DAYS.contains(&name) => imf_fixdate(rest),
        Some((name, rest)) if LONG_DAYS.contains(&name) => rfc850_date(rest, now),
        _ => asctime_date(text),
    }
}

/// `06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &str) -> Option<i64> {
    let mut parts = text.split(' ');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let (time, zone) = (parts.next()?, parts.next()?);
    if parts.next().is_some() || zone != "GMT" || day.len() != 2 || year.len() != 4 {
        return None;
    }
    seconds(number(year)?, month_number(month)?, number(day)?, time)
}

/// `06-Nov-94 08:49:37 GMT`
fn rfc850_date(text: &str, now: i64) -> Option<i64> {
    let (date, time) = text.strip_suffix(" GMT")?.split_once(' ')?;
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || day.len() != 2 || year.len() != 2 {
        return None;
    }
    let this_year = civil(now.div_euclid(DAY)).0;
    let mut year = number(year)? + this_year.div_euclid(100) * 100;
    if year > this_year + 50 {
        year -= 100;
    }
    seconds(year, month_number(month)?, number(day)?, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_date(text: &str) -> Option<i64> {
    let mut parts = text.split(' ');
    let (name, month) = (parts.next()?, parts.next()?);
    let mut day = parts.next()?;
    if day.is_empty() {
        day = parts.next().filter(|day| day.len() == 1)?;
    } else if day.len() != 2 {
        return None;
    }
    let (time, year) = (parts.next()?, parts.next()?);
    if parts.next().is_some() || !DAYS.contains(&name) || year.len() != 4 {
        return None;
    }
    seconds(number(year)?, month_number(month)?, number(day)?, time)
}

fn number(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn month_number(name: &str) -> Option<i64> {
    MONTHS.iter().position(|month| *month == name).map(|at| at as i64 + 1)
}

fn seconds(year: i64, month: i64, day: i64, time: &str) -> Option<i64> {
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [hour, minute, second].iter().any(|part| part.len() != 2) {
        return None;
    }
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    // 60 is a leap second, which counts as the next minute's first.
    if hour > 23 || minute > 59 || second > 60 || day < 1 {
        return None;
    }
    let date = days(year, month, day);
    if civil(date) != (year, month, day) {
        return None;
    }
    Some(date * DAY + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000;

    #[test]
    fn the_three_forms_name_the_same_second() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse(text.as_bytes(), NOW), Some(784_111_777), "{text}");
        }
        assert_eq!(&format(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Xxx, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), None, "{text:?}");
        }
    }

    #[test]
    fn two_digits_of_year_lie_within_fifty_years() {
        let year = |text: &str| parse(text.as_bytes(), NOW).map(|seconds| civil(seconds / DAY).0);
        assert_eq!(year("Sunday, 06-Nov-76 00:00:00 GMT"), Some(2076));
        assert_eq!(year("Sunday, 06-Nov-77 00:00:00 GMT"), Some(1977));
    }

    #[test]
    fn every_day_survives_the_round_trip() {
        for day in (-719_162..2_932_896).step_by(17) {
            let at = day * DAY + (day * 7919).rem_euclid(DAY);
            assert_eq!(parse(&format(at), NOW), Some(at), "{day}");
        }
    }

    #[test]
    fn times_out_of_range_are_moved_to_the_edge() {
        assert_eq!(&format(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&format(i64::MIN)[8..], b"Jan 0001 00:00:00 GMT");
    }
}
