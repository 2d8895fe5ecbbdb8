//! When a line may be used. Pure: times in, times out.
//!
//! What has come before a request, or begun to, is no answer to it. So a request waits until the line is
//! quiet, and after an exchange whose answer may come late, until it was silent for long. A write that no
//! late answer can seem to confirm waits for nothing but the end of a frame that is under way.

use std::time::Duration;

use tokio::time::Instant;

/// How long the line has to be quiet before a request, if nothing is said: for so long adapters keep the last
/// bytes of an answer, and devices that send one twice take no longer.
const QUIET: Duration = Duration::from_millis(20);

/// On a line that is never silent, a silence is waited for no longer than so many of them.
const LONGEST_REST: u32 = 4;

/// Whose answer may come late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// Nobody knows: the line was just opened.
    Unknown,
    /// that to a poll
    Poll(usize),
    /// a confirmation
    Write,
}

/// The line has to be silent.
#[derive(Debug)]
struct Rest {
    since: Instant,
    silence: Duration,
    owed: Owed,
}

impl Rest {
    /// When it is over, if nothing comes any more.
    fn end(&self, heard: Instant) -> Instant {
        let longest = self.since + self.silence * LONGEST_REST;
        (heard.max(self.since) + self.silence).min(longest)
    }
}

/// What has to be known of the past of a line.
#[derive(Debug)]
pub(super) struct Pace {
    /// `pause_between_requests`
    pause: Option<Duration>,
    /// when the last byte came
    heard: Instant,
    /// when something was sent, or answered, last
    used: Instant,
    rest: Option<Rest>,
}

impl Pace {
    /// A line that was opened at `now`, and is not used before it was silent for `settled`.
    pub(super) fn new(pause: Option<Duration>, now: Instant, settled: Duration) -> Self {
        let rest = Rest { since: now, silence: settled, owed: Owed::Unknown };
        Self { pause, heard: now, used: now, rest: Some(rest) }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        if self.owed(now).is_none() {
            self.rest = None;
        }
        self.heard = now;
    }

    /// When the last byte came.
    pub(super) fn last_heard(&self) -> Instant {
        self.heard
    }

    pub(super) fn used(&mut self, now: Instant) {
        self.used = now;
    }

    /// An answer was given up.
    pub(super) fn unanswered(&mut self, now: Instant, silence: Duration, owed: Owed) {
        self.used = now;
        self.rest = Some(Rest { since: now, silence, owed });
    }

    /// A request goes out: the line has rested.
    pub(super) fn rested(&mut self) {
        self.rest = None;
    }

    /// Whose answer may come late still.
    pub(super) fn owed(&self, now: Instant) -> Option<Owed> {
        self.rest.as_ref().filter(|rest| now < rest.end(self.heard)).map(|rest| rest.owed)
    }

    /// When a request may be sent. `wanted`: since when it is; `frame_until`: until when a frame that is under
    /// way is waited for; `patience`: for how long at the most.
    pub(super) fn request(
        &self,
        wanted: Instant,
        frame_until: Option<Instant>,
        patience: Duration,
    ) -> Instant {
        let pause = self.pause.unwrap_or(QUIET);
        let begun = wanted.max(self.used);
        let quiet = (self.heard + pause).clamp(self.used + pause, (begun + 2 * pause).max(self.used + pause));
        let rested = self.rest.as_ref().map(|rest| rest.end(self.heard));
        let framed = frame_until.map(|until| until.min(begun + patience));
        [rested, framed].into_iter().flatten().fold(quiet, Instant::max)
    }

    /// When a write may be sent that no late answer can seem to confirm; otherwise it is a request.
    pub(super) fn write(&self, frame_until: Option<Instant>) -> Instant {
        let quiet = self.used + self.pause.unwrap_or_default();
        // Where nothing is owed, both sides may talk at once.
        let rest = self.rest.as_ref().filter(|rest| rest.owed != Owed::Unknown);
        let framed = rest.zip(frame_until).map(|(rest, until)| until.min(rest.since + rest.silence));
        framed.map_or(quiet, |framed| framed.max(quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// A line that has rested, and was used last at `start`.
    fn pace(start: Instant, pause: Option<u64>) -> Pace {
        Pace::new(pause.map(Duration::from_millis), start, Duration::ZERO)
    }

    #[test]
    fn a_request_waits_until_the_line_is_quiet() {
        let start = Instant::now();
        let mut line = pace(start, None);
        assert_eq!(line.request(start, None, SECOND), ms(start, 20));
        // An answer comes once more.
        line.heard(ms(start, 8));
        assert_eq!(line.request(start, None, SECOND), ms(start, 28));
        assert_eq!(line.write(None), start, "a write is not held up by it");
        // A line that is never quiet holds nobody up for long.
        line.heard(ms(start, 500));
        assert_eq!(line.request(start, None, SECOND), ms(start, 40));
        assert_eq!(line.request(ms(start, 490), None, SECOND), ms(start, 520));
        // A frame that is under way comes first, if it does not take too long.
        assert_eq!(line.request(start, Some(ms(start, 600)), SECOND), ms(start, 600));
        assert_eq!(line.request(start, Some(ms(start, 6_000)), SECOND), ms(start, 1_000));
    }

    #[test]
    fn the_pause_that_is_configured_is_kept_by_requests_and_writes() {
        let start = Instant::now();
        let line = pace(start, Some(300));
        assert_eq!((line.request(start, None, SECOND), line.write(None)), (ms(start, 300), ms(start, 300)));
        let fast = pace(start, Some(0));
        assert_eq!((fast.request(start, None, SECOND), fast.write(None)), (start, start));
    }

    #[test]
    fn after_a_timeout_requests_wait_for_silence_and_writes_only_for_a_frame() {
        let start = Instant::now();
        let mut line = pace(start, None);
        line.unanswered(start, SECOND, Owed::Poll(0));
        assert_eq!(line.request(start, None, SECOND), ms(start, 1_000));
        line.heard(ms(start, 900));
        assert_eq!(line.request(start, None, SECOND), ms(start, 1_900));
        assert_eq!(line.write(None), start);
        assert_eq!(line.write(Some(ms(start, 950))), ms(start, 950));
        assert_eq!(line.write(Some(ms(start, 1_500))), ms(start, 1_000), "one that never ends");
        (2..40).for_each(|n| line.heard(ms(start, 100 * n)));
        assert_eq!(line.request(start, None, SECOND), ms(start, 4_000), "a line that is never silent");
        assert_eq!(line.owed(ms(start, 3_999)), Some(Owed::Poll(0)));
        assert_eq!(line.owed(ms(start, 4_000)), None);
        let mut line = pace(start, None);
        line.unanswered(start, SECOND, Owed::Write);
        line.heard(ms(start, 1_000));
        let wanted = ms(start, 1_000);
        assert_eq!(line.request(wanted, None, SECOND), ms(start, 1_020), "it was silent for a second");
    }

    #[test]
    fn a_line_that_was_just_opened_is_not_asked_before_it_is_silent() {
        let start = Instant::now();
        let line = Pace::new(None, start, SECOND);
        assert_eq!((line.request(start, None, SECOND), line.write(None)), (ms(start, 1_000), start));
        assert_eq!(line.write(Some(ms(start, 90))), start);
    }
}
