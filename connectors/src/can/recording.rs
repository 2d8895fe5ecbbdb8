//! A log of candump, played instead of a bus.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{Clock, Sampler};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::bus::{Event, Received};
use super::config::LogConfig;
use super::frame::Frame;
use super::log::Line;
use crate::status::LineStatus;

/// Longer than any line that candump writes.
const LONGEST_LINE: u64 = 512;

/// Frames that are played before anything else is done.
const BATCH: usize = 64;

/// How often a log begins again at most. One of a few frames would fill the box otherwise.
const ROUND: Duration = Duration::from_secs(1);

/// A log that is played at its own pace, or at a multiple of it. Rows have the time at which their frames
/// are played.
pub(super) struct Player {
    path: PathBuf,
    speed: f64,
    repeat: bool,
    interface: Option<String>,
    lines: BufReader<File>,
    /// the number of the line that was read last
    line: u64,
    round: Round,
    next: Option<(Instant, Frame)>,
    clock: Arc<dyn Clock>,
    status: Arc<LineStatus>,
    malformed: Sampler,
}

/// One time from the beginning of the log to its end.
#[derive(Debug, Default)]
struct Round {
    /// when it may begin; none: at once
    from: Option<Instant>,
    /// the log's time, and when that is played
    first: Option<(i64, Instant)>,
    /// when the frame behind it is played
    last: Option<Instant>,
    frames: u32,
}

impl Round {
    /// When a frame of this time is played.
    fn play(&mut self, at: i64, speed: f64) -> Instant {
        let start = || self.from.unwrap_or_else(Instant::now);
        let (first, since) = *self.first.get_or_insert_with(|| (at, start()));
        let behind = Duration::from_nanos(u64::try_from(at.saturating_sub(first)).unwrap_or(0));
        let due = since + behind.div_f64(speed);
        self.last = self.last.max(Some(due));
        self.frames = self.frames.saturating_add(1);
        due
    }

    /// The round behind it, in the rhythm of the frames of this one. None: it has no frames.
    fn next(&self) -> Option<Self> {
        let ((_, since), last) = self.first.zip(self.last)?;
        let pause = (last - since) / self.frames.saturating_sub(1).max(1);
        Some(Self { from: Some((last + pause).max(since + ROUND)), ..Self::default() })
    }
}

impl Player {
    pub(super) fn open(
        config: &LogConfig,
        clock: Arc<dyn Clock>,
        status: Arc<LineStatus>,
    ) -> Result<Self, String> {
        let LogConfig { path, speed, repeat, interface } = config.clone();
        let file = File::open(&path).map_err(|error| explain(&path, &error))?;
        let mut player = Self {
            path,
            speed,
            repeat,
            interface,
            lines: BufReader::new(file),
            line: 0,
            round: Round::default(),
            next: None,
            clock,
            status,
            malformed: Sampler::default(),
        };
        // One without frames that is played over and over is no bus that is lost again and again.
        if repeat {
            player.next_due()?;
        }
        Ok(player)
    }

    /// Waits for the next frames. Nothing is lost when it is dropped.
    pub(super) async fn wait(&mut self, frames: &mut Vec<Received>) -> Result<Event, String> {
        let Some(due) = self.next_due()? else { return Ok(Event::Played(self.path.display().to_string())) };
        sleep_until(due).await;
        let (now, before) = (Instant::now(), frames.len());
        while frames.len() < before + BATCH
            && let Some((_, frame)) = self.next.take_if(|(due, _)| *due <= now)
        {
            frames.push(Received { frame, at: self.clock.wall_ns() });
            self.next_due()?;
        }
        Ok(Event::Frames)
    }

    /// When the next frame is due; none: it is over.
    fn next_due(&mut self) -> Result<Option<Instant>, String> {
        while self.next.is_none() {
            let mut line = Vec::new();
            let read = self.lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
            if read.map_err(|error| explain(&self.path, &error))? == 0 {
                if !self.repeat {
                    return Ok(None);
                }
                let next = self.round.next();
                self.round = next.ok_or_else(|| format!("{} has no frames to play", self.path.display()))?;
                self.lines =
                    BufReader::new(File::open(&self.path).map_err(|error| explain(&self.path, &error))?);
                self.line = 0;
                tracing::debug!(path = %self.path.display(), "the log begins again");
                continue;
            }
            self.line += 1;
            // The rest of a line that is too long is no line of its own.
            if !line.ends_with(b"\n") && line.len() as u64 == LONGEST_LINE {
                skip_line(&mut self.lines).map_err(|error| explain(&self.path, &error))?;
                line = b"a line that is too long\n".to_vec();
            }
            self.take(&line);
        }
        Ok(self.next.as_ref().map(|(due, _)| *due))
    }

    fn take(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if text.trim().is_empty() {
            return;
        }
        match Line::parse(text.trim_end()) {
            Ok(_) if !text.ends_with('\n') => {
                self.leave_out("it has no end, and may be only a part of a frame")
            }
            Ok(line) if self.interface.as_ref().is_some_and(|name| name != line.interface) => {}
            Ok(Line { at, frame, .. }) => self.next = Some((self.round.play(at, self.speed), frame)),
            Err(error) => self.leave_out(error),
        }
    }

    fn leave_out(&mut self, why: impl Display) {
        self.status.malformed.add(1);
        if let Some(count) = self.malformed.count(1) {
            let (path, line) = (self.path.display(), self.line);
            warn!(%path, line, count, %why, "lines of the log that cannot be read are left out");
        }
    }
}

/// Goes on behind the end of the line.
fn skip_line(lines: &mut BufReader<File>) -> std::io::Result<()> {
    loop {
        let part = lines.fill_buf()?;
        let end = part.iter().position(|byte| *byte == b'\n');
        let (count, is_over) = (end.map_or(part.len(), |end| end + 1), end.is_some() || part.is_empty());
        lines.consume(count);
        if is_over {
            return Ok(());
        }
    }
}

fn explain(path: &std::path::Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}
