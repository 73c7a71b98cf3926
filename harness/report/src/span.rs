//! Times as people read them.

/// Milliseconds in at most two units: `612 ms`, `12.3 s`, `4 min 5 s`.
pub(crate) fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// Microseconds, with one decimal below ten milliseconds, where it matters: `0.4 ms`, `31 ms`.
pub(crate) fn microseconds(us: u64) -> String {
    if us < 10_000 {
        format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
    } else {
        milliseconds(us / 1_000)
    }
}

/// A moment to the millisecond: `2.003 s`, `1 min 10.396 s`.
pub(crate) fn moment(us: u64) -> String {
    let ms = us / 1_000;
    let (minutes, seconds) = (ms / 60_000, format!("{}.{:03} s", ms % 60_000 / 1_000, ms % 1_000));
    if minutes == 0 { seconds } else { format!("{minutes} min {seconds}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_the_unit_that_fits_it() {
        let said: Vec<String> = [0, 999, 1_000, 59_999, 60_000, 3_725_000].map(milliseconds).into();
        assert_eq!(said, ["0 ms", "999 ms", "1.0 s", "59.9 s", "1 min 0 s", "62 min 5 s"]);
    }

    #[test]
    fn a_short_time_keeps_a_decimal() {
        assert_eq!(
            [40, 3_190, 9_999, 10_000].map(microseconds),
            ["0.0 ms", "3.1 ms", "9.9 ms", "10 ms"]
        );
    }

    #[test]
    fn a_moment_is_known_to_the_millisecond() {
        assert_eq!(
            [0, 2_003_999, 70_396_556].map(moment),
            ["0.000 s", "2.003 s", "1 min 10.396 s"]
        );
    }
}
