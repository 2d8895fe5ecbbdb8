//! A wire: what is said on it comes in pieces that are cut anywhere, one after the other.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::dice::Dice;

/// One direction of a wire, with what its listener has heard and not used.
#[derive(Debug, Default)]
pub struct Wire {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    heard: Vec<u8>,
}

impl Wire {
    /// Says `text` from `at` on, or when all that was said before has come; between two pieces is up to
    /// `gap`. Returns when the last of them comes.
    pub fn say(&mut self, text: &[u8], at: Instant, gap: Duration, dice: &Dice) -> Instant {
        let mut at = self.pieces.back().map_or(at, |(last, _)| at.max(*last));
        let mut rest = text;
        while !rest.is_empty() {
            let len = usize::try_from(dice.between(1, rest.len() as u64)).unwrap_or(1);
            let (piece, others) = rest.split_at(len.min(rest.len()));
            self.pieces.push_back((at, piece.to_vec()));
            rest = others;
            if !rest.is_empty() {
                at += dice.delay(gap);
            }
        }
        at
    }

    /// The next whole line, without its end; none: it has not come `until` then.
    pub async fn line(&mut self, until: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.heard.drain(..=end).collect();
                line.pop();
                return Some(line);
            }
            let Some((at, piece)) = self.pieces.pop_front_if(|(at, _)| *at <= until) else {
                sleep_until(until).await;
                return None;
            };
            sleep_until(at).await;
            self.heard.extend(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_come_whole_wherever_they_were_cut() {
        for seed in 0..200 {
            let (dice, mut wire, began) = (Dice::new(seed), Wire::default(), Instant::now());
            let gap = Duration::from_millis(100);
            wire.say(b"half a li", began, gap, &dice);
            wire.say(b"ne\n\nanother\nand", began, gap, &dice);
            let last = wire.say(b" one\nno end", began, gap, &dice);
            let mut lines = Vec::new();
            while let Some(line) = wire.line(last).await {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            assert_eq!(lines, ["half a line", "", "another", "and one"], "seed {seed}");
            assert_eq!(Instant::now(), last);
        }
    }
}
