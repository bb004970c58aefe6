//! What day it is, for what is shown to people. Nothing waits by it.

use std::time::SystemTime;

/// Seconds since 1970; 0 on a machine whose clock stands before that.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds since 1970 of a date as OSTree prints it: `2026-11-23 05:28:40 +0000`.
pub fn parse(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let mut date = words.next()?.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = words.next()?.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let sane = (1970..10_000).contains(&year) && (1..=12).contains(&month);
    if words.next()? != "+0000" || !sane || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that the odd day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = u64::try_from(days - 719_468).ok()?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(parse("1970-01-01 00:00:00 +0000"), Some(0));
        assert_eq!(parse("2024-02-29 12:00:01 +0000"), Some(1_709_208_001));
        assert_eq!(parse("2026-11-23 05:28:40 +0000"), Some(1_795_411_720));
        for wrong in ["", "2026-11-23", "2026-13-01 00:00:00 +0000", "2026-11-23 05:28:40 +0100"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
