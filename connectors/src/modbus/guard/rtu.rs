//! Modbus RTU: answers are told apart by what is in them.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Framing, Guard, HELD};
use crate::modbus::fault::Fault;
use crate::modbus::frame::{Expected, find_rtu, read_like};

/// How often the silence that is waited for may be broken before the line is given up.
const BABBLE: u32 = 10;

/// What an answer may take beside what the slowest one took.
const MARGIN: Duration = Duration::from_millis(20);

/// Answers that may come once more.
const REMEMBERED: usize = 8;

/// What is known of a line.
#[derive(Debug)]
pub(in crate::modbus) struct Wire {
    /// whether what is sent is heard; none: nobody knows yet
    echo: Option<bool>,
    /// how long the line has to be silent before it is used again
    dirty: Option<Duration>,
    /// the newest answers
    answers: VecDeque<Answered>,
    /// how long answers take at the most; it falls slowly
    slowest: Duration,
}

#[derive(Debug)]
struct Answered {
    at: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Wire {
    pub(super) fn new(echo: Option<bool>) -> Self {
        Self { echo, dirty: None, answers: VecDeque::with_capacity(REMEMBERED), slowest: Duration::ZERO }
    }

    /// Whether a frame may be an earlier answer once more, which the device has sent twice: it is the same,
    /// and the request is another one.
    fn is_doubtful(&self, expected: &Expected, request: &[u8], answer: &[u8], within: Duration) -> bool {
        expected.is_data()
            && self.answers.iter().any(|earlier| {
                earlier.at.elapsed() < within && earlier.request != request && earlier.answer == answer
            })
    }

    fn remember(&mut self, request: &[u8], answer: &[u8], took: Duration) {
        self.slowest = took.max(self.slowest - self.slowest / 8);
        self.answers.truncate(REMEMBERED - 1);
        let (request, answer) = (request.to_vec(), answer.to_vec());
        self.answers.push_front(Answered { at: Instant::now(), request, answer });
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guard<T> {
    pub(super) async fn exchange_rtu(
        &mut self,
        unit: u8,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Fault> {
        let content = request.get(1..request.len().saturating_sub(2)).unwrap_or_default();
        let expected = Expected::answer_to(content).ok_or_else(super::unknown)?;
        if expected.is_own_request(content) && self.wire()?.echo.is_none() {
            // An adapter that hears itself would seem to confirm this. A read shows whether it does, also one
            // that is not answered.
            let (probe, its_answer) = read_like(unit, content).ok_or_else(super::unknown)?;
            let probed = self.transact(unit, &probe, &its_answer, timeout, true).await;
            if self.wire()?.echo.is_none() {
                probed?;
            }
        }
        // Without another answer, one that is doubtful is asked for again: the device may have sent an
        // earlier one twice, and lost this one.
        for trusting in [false, true] {
            if let Some(answer) = self.transact(unit, request, &expected, timeout, trusting).await? {
                return Ok(answer);
            }
        }
        Err(super::unknown())
    }

    /// Sends a request and waits for its answer. None: what came may be an earlier answer once more.
    async fn transact(
        &mut self,
        unit: u8,
        request: &[u8],
        expected: &Expected,
        timeout: Duration,
        trusting: bool,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let wire_time = |bytes: usize| self.pace.byte * u32::try_from(bytes).unwrap_or(u32::MAX);
        let patience = timeout + wire_time(request.len() + expected.shortest() + 3);
        self.send(request, patience).await?;
        let sent = Instant::now();
        let deadline = sent + patience;
        let mut doubt: Option<Instant> = None;
        loop {
            while let Some(frame) = self.find(unit, request, expected)? {
                let answer = self.heard.get(frame.clone()).unwrap_or_default().to_vec();
                self.heard.drain(..frame.end);
                let now = Instant::now();
                if doubt.is_some() {
                    // The one before was no answer to this.
                    self.skipped();
                } else if !trusting && self.wire()?.is_doubtful(expected, request, &answer, patience) {
                    doubt = Some(deadline.min(now + 2 * self.wire()?.slowest + MARGIN));
                    continue;
                }
                self.wire()?.remember(request, &answer, now - sent);
                return Ok(Some(answer));
            }
            if self.hear(doubt.unwrap_or(deadline)).await? {
                self.forget_noise();
            } else if doubt.is_some() {
                return Ok(None);
            } else {
                let heard = std::mem::take(&mut self.heard);
                let own = heard.windows(request.len().max(1)).any(|bytes| bytes == request);
                let wire = self.wire()?;
                wire.dirty = Some(patience);
                if own || heard.is_empty() {
                    wire.echo = wire.echo.or(Some(own));
                }
                let heard = heard.len() > if own { request.len() } else { 0 };
                return Err(Fault::Silent { timeout, heard });
            }
        }
    }

    /// Where the answer is. Learns, by the way, whether the adapter hears itself.
    fn find(&mut self, unit: u8, request: &[u8], expected: &Expected) -> Result<Option<Range<usize>>, Fault> {
        let own = self.heard.windows(request.len().max(1)).position(|bytes| bytes == request);
        let own_end = own.map(|at| at + request.len());
        let content = request.get(1..request.len().saturating_sub(2)).unwrap_or_default();
        let like_own = expected.is_own_request(content);
        let from = match (own_end, self.wire()?.echo) {
            (Some(end), Some(true)) => end,
            // It is heard first, so that without it there is no answer yet.
            (None, Some(true)) if like_own => return Ok(None),
            _ => 0,
        };
        let found = find_rtu(&self.heard, from, unit, expected);
        if found.is_some() && !like_own && self.wire()?.echo.is_none() {
            let echo = own_end.is_some();
            if echo {
                tracing::info!("the adapter hears what it sends; `echo = true` says so from the start");
            }
            self.wire()?.echo = Some(echo);
        }
        Ok(found)
    }

    /// Waits until a line is silent on which a device may still be answering.
    pub(super) async fn settle(&mut self) -> Result<(), Fault> {
        let Some(silence) = self.wire()?.dirty.take() else { return Ok(()) };
        let give_up = Instant::now() + BABBLE * silence;
        while self.hear(Instant::now() + silence).await? {
            if Instant::now() > give_up {
                return Err(Fault::Babble);
            }
            self.forget_noise();
        }
        Ok(())
    }

    /// A frame has 256 bytes at the most, so that what is far in front of the newest byte is noise.
    fn forget_noise(&mut self) {
        if self.heard.len() > HELD {
            self.heard.drain(..HELD - 600);
        }
    }

    fn wire(&mut self) -> Result<&mut Wire, Fault> {
        match &mut self.framing {
            Framing::Rtu(wire) => Ok(wire),
            Framing::Tcp(_) => Err(super::unknown()),
        }
    }
}
