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
    fn takes_any_timestamp_that_a_header_can_hold() {
        assert!(Utc(u64::MAX).to_string().ends_with("T14:25:51Z"), "{}", Utc(u64::MAX));
    }
}
