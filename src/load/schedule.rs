//! The open loop's timetable: request number i is due at i / rate.

use std::time::Duration;

/// A constant rate. All times count from the start of sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    rate: f64,
}

impl Schedule {
    /// `rate` requests a second: finite and positive.
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate }
    }

    /// When request `number` is due. Never less than for a smaller number.
    pub(crate) fn at(&self, number: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "exact for the first 9 * 10^15 requests")]
        let number = number as f64;
        Duration::try_from_secs_f64(number / self.rate).unwrap_or(Duration::MAX)
    }

    /// How many are due at `elapsed`, one that is due right then included.
    pub(crate) fn due(&self, elapsed: Duration) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; what is too large saturates"
        )]
        let mut count = (elapsed.as_secs_f64() * self.rate) as u64;
        // The product may be rounded to either side; `at` has the last word.
        while count > 0 && self.at(count - 1) > elapsed {
            count -= 1;
        }
        while self.at(count) <= elapsed {
            count += 1;
        }
        count
    }

    /// How many are due before `elapsed`.
    pub(crate) fn before(&self, elapsed: Duration) -> u64 {
        elapsed.checked_sub(Duration::from_nanos(1)).map_or(0, |last| self.due(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_at_once_and_the_others_follow_evenly() {
        let schedule = Schedule::new(1000.0);
        assert_eq!(schedule.at(0), Duration::ZERO);
        assert_eq!(schedule.at(1500), Duration::from_millis(1500));
        assert_eq!(schedule.due(Duration::ZERO), 1);
        assert_eq!(schedule.due(Duration::from_micros(999)), 1);
        assert_eq!(schedule.due(Duration::from_millis(1)), 2);
    }

    #[test]
    fn a_span_has_as_many_as_the_rate_says() {
        for rate in [0.5, 3.0, 7.0, 333.3, 5000.0, 99_999.9] {
            let schedule = Schedule::new(rate);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let expected = (10.0 * rate).ceil() as u64;
            assert_eq!(schedule.before(Duration::from_secs(10)), expected, "{rate}");
        }
        assert_eq!(Schedule::new(5000.0).before(Duration::ZERO), 0);
    }

    #[test]
    fn due_and_at_agree_whatever_was_rounded() {
        for rate in [3.0, 7.0, 30.0, 1e6 / 7.0, 250_000.0] {
            let schedule = Schedule::new(rate);
            for number in (0..20_000).step_by(7) {
                let at = schedule.at(number);
                assert!(schedule.due(at) > number, "{rate} {number}");
                assert!(schedule.before(at) <= number, "{rate} {number}");
            }
        }
    }
}
