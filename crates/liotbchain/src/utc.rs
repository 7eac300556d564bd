//! Points in time for people: RFC 3339, in UTC, to the second.

use std::fmt;

use liotbchain_core::TimestampMs;

const DAY_MS: u64 = 86_400_000;

/// A point in time, shown as `2026-11-22T13:56:02Z`.
#[derive(Debug, Clone, Copy)]
pub struct Utc(pub TimestampMs);

impl Utc {
    /// Returns the time of the day alone, as `13:56:02Z`.
    pub fn time_of_day(self) -> impl fmt::Display {
        let seconds = self.0 % DAY_MS / 1000;
        format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

impl Utc {
    /// Reads a time of RFC 3339, section 5.6, which says its offset from UTC. None where the text is another one, or a time
    /// before 1970. Fractions of a millisecond are dropped, and a leap second is the one after it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<i64>().ok(),
            false => None,
        };
        let (start, rest) = text.split_at_checked(19)?;
        let marks = [(4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":")];
        let has =
            |(place, mark): &(usize, &[u8; 1])| start.as_bytes()[*place].to_ascii_uppercase() == mark[0];
        if !start.is_ascii() || !marks.iter().all(has) {
            return None;
        }
        let field = |from: usize, to: usize, range: std::ops::RangeInclusive<i64>| {
            digits(&start[from..to]).filter(|value| range.contains(value))
        };
        let (year, month, day) = (field(0, 4, 0..=9999)?, field(5, 7, 1..=12)?, field(8, 10, 1..=31)?);
        let (hour, minute, second) = (field(11, 13, 0..=23)?, field(14, 16, 0..=59)?, field(17, 19, 0..=60)?);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let month_days = match month {
            2 => 28 + i64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if day > month_days {
            return None;
        }
        let (fraction, offset) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("0", rest),
        };
        digits(fraction.get(..1)?)?;
        let ms = digits(&format!("{fraction:0<3}")[..3])?;
        let offset = match offset {
            "Z" | "z" => 0,
            _ => {
                let (sign, time) = offset.split_at_checked(1)?;
                let (hours, minutes) = time.split_once(':').filter(|_| time.len() == 5)?;
                let hours = digits(hours).filter(|hours| *hours <= 23)?;
                let minutes = digits(minutes).filter(|minutes| *minutes <= 59)?;
                match sign {
                    "+" => 60 * hours + minutes,
                    "-" => -(60 * hours + minutes),
                    _ => return None,
                }
            }
        };
        // As `Display` does: from 1 March on, in eras of 400 years.
        let from_march = (month + 9) % 12;
        let year = year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * from_march + 2) / 5 + day - 1;
        let days =
            era * 146_097 + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
        let minutes = (days * 24 + hour) * 60 + minute - offset;
        u64::try_from((minutes * 60 + second) * 1000 + ms).ok().map(Self)
    }
}

impl fmt::Display for Utc {
    /// Counts years from 1 March, so that a leap day is the last of its year, in eras of 400 years, which all have
    /// 146,097 days. 1970 began 719,468 days after 1 March of the year 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0 / DAY_MS + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // From March on, the months' lengths repeat every five months, which have 153 days.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}T{}", self.time_of_day())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_calendar_as_it_is() {
        // `date -u -d @N`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_355_762, "2026-11-22T13:56:02Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Utc(seconds * 1000 + 999).to_string(), text);
        }
    }

    #[test]
    fn reads_what_it_shows() {
        for seconds in (0..253_402_300_800).step_by(86_399 * 97) {
            let text = Utc(seconds * 1000).to_string();
            assert_eq!(Utc::parse(&text).map(|Utc(ms)| ms), Some(seconds * 1000), "{text}");
        }
    }

    #[test]
    fn reads_offsets_and_fractions_and_nothing_else() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.1239Z", 123),
            ("1970-01-01t00:00:01.5z", 1500),
            ("1970-01-01T05:30:00+05:30", 0),
            ("1969-12-31T23:00:00-01:00", 0),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ] {
            assert_eq!(Utc::parse(text).map(|Utc(ms)| ms), Some(ms), "{text}");
        }
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01 00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00+01:60",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00Zx",
            "+970-01-01T00:00:00Z",
            "1970-01-0éT00:00:00Z",
            "1970-01-01T00:00:00.éZ",
            "1970-01-01T00:00:00é",
        ] {
            assert!(Utc::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn takes_any_timestamp_that_a_header_can_hold() {
        assert!(Utc(u64::MAX).to_string().ends_with("T14:25:51Z"), "{}", Utc(u64::MAX));
    }
}
