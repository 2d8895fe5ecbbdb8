//! How long what a configuration says may take.

use std::time::Duration;

use tidegate_core::Span;

use crate::table::Problem;

/// Nothing on a line is done more often.
const SHORTEST: Duration = Duration::from_millis(1);

/// Longer than any device needs between two requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What nobody waits for any longer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// How long an answer, or the line, is waited for.
pub(crate) fn check_timeout(at: &[&str], timeout: Span) -> Option<Problem> {
    let is_wrong = timeout.0 < SHORTEST || timeout.0 > LONGEST_TIMEOUT;
    let what = || format!("a timeout is from 1ms to {}, and not {timeout}", Span(LONGEST_TIMEOUT));
    is_wrong.then(|| Problem::new(at, what()))
}

/// How long a device has between two requests.
pub(crate) fn check_pause(at: &[&str], pause: Span) -> Option<Problem> {
    let what = || format!("a pause is at most {}, and not {pause}", Span(LONGEST_PAUSE));
    (pause.0 > LONGEST_PAUSE).then(|| Problem::new(at, what()))
}

/// How often something is done, or after how long.
pub(crate) fn check_interval(at: &[&str], interval: Span) -> Option<Problem> {
    let what = || format!("`{}` is at least 1ms", at.last().unwrap_or(&""));
    (interval.0 < SHORTEST).then(|| Problem::new(at, what()).help("write a time such as \"1s\""))
}
