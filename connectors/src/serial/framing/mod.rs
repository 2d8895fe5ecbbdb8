//! Frames: where a message begins and ends in the bytes of a line. Pure: bytes and the time in, frames out.
//!
//! Every byte is accounted for: it is in a frame, or was skipped, or waits ([`Tally`]). What is skipped
//! leaves a sample behind. No more waits than the longest frame takes. A frame of which the beginning may be
//! missing, as the first one of a device that was talking when its port was opened, is skipped: half a number
//! is another number.

mod checksum;
mod config;
mod looks;
mod stuffed;
#[cfg(test)]
mod tests;
mod unframed;

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

pub use checksum::{Checksum, Sum};
pub use config::{Counts, FrameConfig, FrameKind, LengthConfig, PrefixConfig, Width};
use looks::{Delimited, Length};
use stuffed::Stuffing;
pub use unframed::Unframed;

/// A device that was silent for so long after its port was opened was not in the middle of a frame.
pub const SETTLED: Duration = Duration::from_secs(1);

/// Silence after which a frame by its length is given up, if nothing else is said: its length was none.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// What of skipped bytes is kept for the log.
const SAMPLE: usize = 64;

/// Takes the bytes of a line apart.
#[derive(Debug, Clone)]
pub struct Framer {
    kind: Kind,
    max: usize,
    checksum: Option<Checksum>,
    gap: Option<Duration>,
    buffer: Vec<u8>,
    /// bytes at the front of the buffer in which there is no end
    seen: usize,
    /// Whether the next end is that of a frame whose beginning is not known.
    is_torn: bool,
    /// when the line was opened, and how long it has to be silent then until a frame can begin
    opened: Option<(Instant, Duration)>,
    last: Option<Instant>,
    /// a frame without its stuffing
    scratch: Vec<u8>,
    tally: Tally,
    skipped: Skipped,
    unframed: Option<Unframed>,
}

/// What became of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// bytes that came
    pub bytes: u64,
    /// frames
    pub frames: u64,
    /// bytes in frames, with their start, end and checksum
    pub framed: u64,
    /// bytes that fill the time between frames, as the kind has it
    pub filler: u64,
    /// bytes in no frame
    pub skipped: u64,
    /// times that something was skipped
    pub resyncs: u64,
    /// frames whose checksum was wrong
    pub mismatches: u64,
    /// what was longer than a frame may be
    pub too_long: u64,
}

/// Bytes that are in no frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// how many
    pub count: u64,
    /// the first of them
    pub sample: Vec<u8>,
    /// why, for the first of them
    pub why: Option<Why>,
}

/// Why bytes are in no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// they are in front of the start of a frame
    Noise,
    /// the frame's beginning may be missing
    Torn,
    /// the frame is longer than `max`
    TooLong,
    /// its checksum is wrong
    Checksum,
    /// its length, or what it is stuffed with, is none
    Malformed,
    /// the line fell silent in the middle
    Unfinished,
}

impl Why {
    /// In words for the user.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Noise => "no frame begins with them",
            Self::Torn => "the beginning of the frame is missing",
            Self::TooLong => "the frame is longer than `max`, or its end was lost",
            Self::Checksum => "the frame's checksum is wrong",
            Self::Malformed => "the frame is malformed",
            Self::Unfinished => "the line fell silent in the middle of a frame",
        }
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Delimited(Delimited),
    Length(Length),
    Gap,
    Stuffed(Stuffing),
    Nmea,
}

/// What the front of the buffer is.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It cannot be said yet; so many bytes have no end in them.
    More { seen: usize },
    /// So many bytes are in no frame.
    Skip {
        count: usize,
        why: Why,
        /// whether what follows may be the middle of a frame
        is_torn: bool,
        /// as in `More`, behind them
        seen: usize,
    },
    /// So many bytes mean nothing.
    Filler(usize),
    /// So many bytes are a frame, and this part of them, or the scratch buffer, its content.
    Frame(usize, Option<Range<usize>>),
}

impl Look {
    /// So many bytes are in no frame, and another may begin behind them.
    fn skip(count: usize, why: Why) -> Self {
        Self::Skip { count, why, is_torn: false, seen: 0 }
    }

    /// So many bytes are in no frame, nor is what follows up to the next end.
    fn lost(count: usize, why: Why) -> Self {
        Self::Skip { count, why, is_torn: true, seen: 0 }
    }
}

impl Framer {
    /// For frames of this kind.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: &FrameConfig) -> Result<Self, crate::table::Problem> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem);
        }
        let bytes =
            |bytes: &Option<_>| bytes.clone().map_or_else(Vec::new, |crate::serial::escapes::Bytes(all)| all);
        let gap = config.gap.map(|gap| gap.0);
        let (kind, gap) = match (config.kind, &config.length, &config.end) {
            (Some(FrameKind::Cobs), ..) => (Kind::Stuffed(Stuffing::Cobs), gap),
            (Some(FrameKind::Slip), ..) => (Kind::Stuffed(Stuffing::Slip), gap),
            (Some(FrameKind::Hdlc), ..) => (Kind::Stuffed(Stuffing::Hdlc), gap),
            (Some(FrameKind::Nmea), ..) => (Kind::Nmea, gap),
            (None, Some(length), _) => {
                let length = Length { start: bytes(&config.start), length: length.clone() };
                (Kind::Length(length), Some(gap.unwrap_or(GIVEN_UP)))
            }
            (None, None, Some(_)) => {
                let (start, end) = (bytes(&config.start), bytes(&config.end));
                (Kind::Delimited(Delimited { start, end, trailer: config.trailer.into() }), gap)
            }
            (None, None, None) => (Kind::Gap, gap),
        };
        Ok(Self {
            kind,
            max: config.max(),
            checksum: config.checksum.clone(),
            gap,
            buffer: Vec::new(),
            seen: 0,
            is_torn: false,
            opened: None,
            last: None,
            scratch: Vec::new(),
            tally: Tally::default(),
            skipped: Skipped::default(),
            unframed: None,
        })
    }

    /// The line was opened: what had come before is of no use, and a frame may be under way, unless the line
    /// is silent for `settled` before the first byte.
    pub fn opened(&mut self, now: Instant, settled: Duration) {
        self.skip_rest();
        self.is_torn = true;
        self.opened = Some((now, settled));
        self.last = None;
        self.unframed = None;
    }

    /// What waits does not go on; it may all the same, if the last byte came less than `pause` ago.
    pub fn give_up(&mut self, now: Instant, pause: Duration) {
        self.skip_rest();
        self.is_torn = self.last.is_some_and(|last| now < last + pause);
    }

    fn skip_rest(&mut self) {
        self.skip_at(0, self.buffer.len(), Why::Unfinished);
        self.buffer.clear();
        self.seen = 0;
    }

    /// Takes bytes that came at `now`, and gives the content of each frame to `each`.
    pub fn push(&mut self, bytes: &[u8], now: Instant, each: &mut impl FnMut(&[u8])) {
        if bytes.is_empty() {
            return;
        }
        if self.due().is_some_and(|due| due <= now) {
            self.silence(now, each);
        }
        if self.last.is_none() && self.opened.is_none_or(|(opened, settled)| now >= opened + settled) {
            self.is_torn = false;
        }
        self.last = Some(now);
        self.tally.bytes += bytes.len() as u64;
        self.unframed.get_or_insert_with(|| Unframed::since(now)).add(bytes, now);
        for piece in bytes.chunks(self.max.max(256)) {
            self.buffer.extend_from_slice(piece);
            self.look(false, each);
        }
    }

    /// When [`Self::silence`] has to be told of, if nothing comes until then.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let waits = !self.buffer.is_empty() || self.is_torn;
        Some(self.last? + self.gap?).filter(|_| waits)
    }

    /// The line has been silent until `now`.
    pub fn silence(&mut self, now: Instant, each: &mut impl FnMut(&[u8])) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        self.look(true, each);
        self.is_torn = false;
    }

    /// Bytes that a frame has at most.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// What became of all bytes.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// What was skipped since the last call; none: nothing.
    pub fn take_skipped(&mut self) -> Option<Skipped> {
        (self.skipped.count > 0).then(|| std::mem::take(&mut self.skipped))
    }

    /// What has come since the last frame; none: nothing, or no more than the beginning of the next.
    #[must_use]
    pub fn unframed(&self) -> Option<&Unframed> {
        self.unframed.as_ref()
    }

    /// Whether what comes does not become frames: for `patience` or longer there was none, and it was more
    /// than one frame.
    #[must_use]
    pub fn is_lost(&self, now: Instant, patience: Duration) -> bool {
        self.unframed.as_ref().is_some_and(|unframed| {
            let is_more = unframed.pauses >= 2 || unframed.count > self.max as u64;
            unframed.since + patience <= now && is_more
        })
    }

    /// Why what comes is no frame, as far as it shows.
    #[must_use]
    pub fn probable_cause(&self) -> String {
        let seen = self.unframed.as_ref().map(Unframed::newest).unwrap_or_default();
        unframed::probable_cause(&self.kind, seen)
    }

    fn look(&mut self, is_silent: bool, each: &mut impl FnMut(&[u8])) {
        let mut from = 0;
        loop {
            let rest = self.buffer.get(from..).unwrap_or_default();
            if rest.is_empty() {
                self.seen = 0;
                break;
            }
            let look = match &self.kind {
                Kind::Delimited(kind) => {
                    kind.look(rest, self.seen, self.max, self.is_torn, self.checksum.as_ref())
                }
                Kind::Length(kind) => kind.look(rest, self.max, self.is_torn, self.checksum.as_ref()),
                Kind::Stuffed(kind) => {
                    let check = self.checksum.as_ref();
                    kind.look(rest, self.seen, self.max, self.is_torn, check, &mut self.scratch)
                }
                Kind::Nmea => looks::nmea(rest, self.seen, self.max),
                Kind::Gap => looks::by_gap(rest, self.max, self.is_torn, is_silent, self.checksum.as_ref()),
            };
            let look = match look {
                // What seemed to be a length may have been none.
                Look::More { .. } if is_silent && matches!(self.kind, Kind::Length(_)) => {
                    Look::skip(1, Why::Unfinished)
                }
                Look::More { .. } if is_silent => Look::skip(rest.len(), Why::Unfinished),
                look => look,
            };
            match look {
                Look::More { seen } => {
                    self.seen = seen;
                    break;
                }
                Look::Skip { count, why, is_torn, seen } => {
                    from += self.skip_at(from, count, why);
                    (self.is_torn, self.seen) = (is_torn, seen);
                }
                Look::Filler(count) => {
                    self.tally.filler += count as u64;
                    from += count;
                    (self.is_torn, self.seen) = (false, 0);
                }
                Look::Frame(count, content) => {
                    self.unframed = None;
                    self.tally.frames += 1;
                    self.tally.framed += count as u64;
                    let content = match content {
                        Some(part) => rest.get(part).unwrap_or_default(),
                        None => &self.scratch,
                    };
                    each(content);
                    from += count;
                    (self.is_torn, self.seen) = (false, 0);
                }
            }
        }
        self.buffer.drain(..from.min(self.buffer.len()));
    }

    /// Returns how many bytes were there to be skipped.
    fn skip_at(&mut self, from: usize, count: usize, why: Why) -> usize {
        let bytes = self.buffer.get(from..).unwrap_or_default();
        let bytes = bytes.get(..count).unwrap_or(bytes);
        let count = bytes.len();
        let room = SAMPLE.saturating_sub(self.skipped.sample.len());
        self.skipped.sample.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.skip(count, why);
        count
    }

    fn skip(&mut self, count: usize, why: Why) {
        if count == 0 {
            return;
        }
        self.tally.skipped += count as u64;
        self.tally.resyncs += u64::from(self.skipped.count == 0);
        self.tally.mismatches += u64::from(why == Why::Checksum);
        self.tally.too_long += u64::from(why == Why::TooLong);
        self.skipped.count += count as u64;
        self.skipped.why.get_or_insert(why);
    }
}
