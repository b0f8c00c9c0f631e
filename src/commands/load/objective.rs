//! A service level: what a run must not miss.

use std::{str::FromStr, time::Duration};

use crate::commands::load::{profile::duration, report::Report};

/// `p99<200ms`, `failed<1%`, `rate>40`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Objective {
    /// A percentile of the answers' latency stays below.
    Latency(f64, Duration),
    /// The share of requests that are not answered stays below.
    Failed(f64),
    /// Answers a second stay above.
    Rate(f64),
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no objective: expected p99<200ms, failed<1% or rate>40");
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        if let Some(rate) = text.strip_prefix("rate>") {
            return number(rate).map(Self::Rate).ok_or_else(wrong);
        }
        if let Some(percent) = text.strip_prefix("failed<").and_then(|rest| rest.strip_suffix('%')) {
            return number(percent).map(|percent| Self::Failed(percent / 100.0)).ok_or_else(wrong);
        }
        let (percent, limit) = text.strip_prefix('p').and_then(|rest| rest.split_once('<')).ok_or_else(wrong)?;
        let percent = number(percent).filter(|percent| *percent <= 100.0).ok_or_else(wrong)?;
        Ok(Self::Latency(percent, duration(limit).map_err(|_error| wrong())?))
    }
}

impl Objective {
    /// What was measured instead, if it is missed.
    pub(super) fn missed(&self, report: &Report<'_>) -> Option<String> {
        match self {
            Self::Latency(percent, limit) => match report.percentile(*percent) {
                None => Some(format!("p{percent}: nothing was answered")),
                Some(time) => (time >= *limit).then(|| format!("p{percent} is {time:.1?}, the limit {limit:?}")),
            },
            Self::Failed(limit) => {
                let share = report.failed_share();
                (share >= *limit && share > 0.0)
                    .then(|| format!("{:.2} % failed, the limit is {} %", 100.0 * share, 100.0 * limit))
            }
            Self::Rate(limit) => {
                (report.rate() <= *limit).then(|| format!("{:.2} answers a second, not above {limit}", report.rate()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_and_nonsense_is_not() {
        let read = |text: &str| text.parse::<Objective>();
        assert_eq!(read("p99.9<200ms"), Ok(Objective::Latency(99.9, Duration::from_millis(200))));
        assert_eq!(read("failed<1%"), Ok(Objective::Failed(0.01)));
        assert_eq!(read("rate>40"), Ok(Objective::Rate(40.0)));
        for text in ["", "p99", "p101<1s", "p99<200", "failed<1", "rate<3", "p-1<1s"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
