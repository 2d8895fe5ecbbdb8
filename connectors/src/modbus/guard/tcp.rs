//! Modbus TCP: answers are told apart by their transaction ids.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Framing, Guard};
use crate::hex::Hex;
use crate::modbus::fault::Fault;
use crate::modbus::frame::{Expected, HEADER, Look, tcp_frame};

/// So many of the newest transactions may still be answered; half of all ids are told from those to come.
const REMEMBERED: u16 = 1 << 15;

/// The transactions of a connection.
#[derive(Debug)]
pub(in crate::modbus) struct Transactions {
    any_unit: bool,
    next: u16,
    /// how many were begun, as far as they count
    begun: u16,
}

impl Transactions {
    pub(super) fn new(any_unit: bool, first: u16) -> Self {
        Self { any_unit, next: first, begun: 0 }
    }

    pub(super) fn next(&self) -> u16 {
        self.next
    }

    fn begin(&mut self) -> u16 {
        let id = self.next;
        self.next = id.wrapping_add(1);
        self.begun = (self.begun + 1).min(REMEMBERED);
        id
    }

    /// Whether the transaction was begun on this connection.
    fn is_known(&self, id: u16) -> bool {
        let age = self.next.wrapping_sub(id);
        age > 0 && age <= self.begun
    }

    /// Throws away what has come before a request, except for the beginning of an answer that is known to be
    /// late: its end is still to come. Whether there was anything.
    pub(super) fn discard(&self, heard: &mut Vec<u8>) -> bool {
        let before = heard.len();
        while let Ok(Some(frame)) = tcp_frame(heard) {
            heard.drain(..frame.len);
        }
        let late = heard.first_chunk::<2>().is_some_and(|id| self.is_known(u16::from_be_bytes(*id)));
        if !late {
            heard.clear();
        }
        heard.len() < before
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guard<T> {
    pub(super) async fn exchange_tcp(
        &mut self,
        unit: u8,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Fault> {
        let expected = request.get(HEADER..).and_then(Expected::answer_to).ok_or_else(super::unknown)?;
        let Framing::Tcp(transactions) = &mut self.framing else { return Err(super::unknown()) };
        let id = transactions.begin();
        let any_unit = transactions.any_unit;
        // Clients come and go, and count from 0.
        let Some((theirs, rest)) = request.split_first_chunk::<2>() else { return Err(super::unknown()) };
        self.send(&[&id.to_be_bytes()[..], rest].concat(), timeout).await?;
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(frame) = tcp_frame(&self.heard).map_err(Fault::Garbled)? {
                let mut answer: Vec<u8> = self.heard.drain(..frame.len).collect();
                if frame.transaction == id {
                    check(&expected, answer.get(HEADER..).unwrap_or_default())?;
                    if frame.unit != unit && !(any_unit && matches!(frame.unit, 0 | 255)) {
                        return Err(Fault::Garbled(format!(
                            "it is from unit {}, and unit {unit} was asked; where a gateway always says 0 \
                            or 255, set `any_unit = true`",
                            frame.unit
                        )));
                    }
                    // The client knows its own id and unit only.
                    for (to, from) in answer.iter_mut().zip(theirs) {
                        *to = *from;
                    }
                    if let Some(to) = answer.get_mut(HEADER - 1) {
                        *to = unit;
                    }
                    return Ok(answer);
                }
                self.skip_late(frame.transaction)?;
            }
            if !self.hear(deadline).await? {
                if !self.heard.is_empty() {
                    return Err(Fault::Garbled("half of it is missing".into()));
                }
                return Err(Fault::Silent { timeout, heard: false });
            }
        }
    }

    fn skip_late(&self, transaction: u16) -> Result<(), Fault> {
        let Framing::Tcp(transactions) = &self.framing else { return Err(super::unknown()) };
        if !transactions.is_known(transaction) {
            return Err(Fault::Garbled(format!(
                "it belongs to transaction {transaction}, which nobody began"
            )));
        }
        self.skipped();
        Ok(())
    }
}

fn check(expected: &Expected, content: &[u8]) -> Result<(), Fault> {
    if expected.look(content) == Look::Fits(content.len()) {
        return Ok(());
    }
    let start = content.get(..16).unwrap_or(content);
    Err(Fault::Garbled(format!(
        "it is not for what was asked: {} bytes, beginning with {:#x}",
        content.len(),
        Hex(start)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_all_that_was_asked_lately_are_known() {
        let mut transactions = Transactions::new(false, 65_530);
        assert!(!transactions.is_known(65_530) && !transactions.is_known(65_529));
        let first = transactions.begin();
        for _ in 0..100 {
            transactions.begin();
        }
        assert!(transactions.is_known(first) && transactions.is_known(94), "the newest is 94");
        assert!(!transactions.is_known(95) && !transactions.is_known(65_529), "nobody began these");
        for _ in 0..70_000 {
            transactions.begin();
        }
        assert!(!transactions.is_known(transactions.next()));
    }
}
