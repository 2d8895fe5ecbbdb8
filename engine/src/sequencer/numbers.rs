//! Row numbers. Those of rows that are stored were reserved on disk before, so that none is used twice,
//! whatever happens to the box.

use std::time::Duration;

use arrow::array::RecordBatch;
use tidegate_core::{Rows, Seqs};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::buffer::{Buffer, BufferError};

/// Pauses between two attempts to reserve: there are plenty left when the first is made.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Gives numbers to rows.
#[derive(Debug)]
pub struct Numbers {
    next: u64,
    reserved: Option<Reserved>,
}

/// What is reserved, and how to say that more is wanted.
#[derive(Debug)]
struct Reserved {
    end: watch::Receiver<u64>,
    /// up to where numbers are wanted
    wanted: watch::Sender<u64>,
    /// as many are wanted beyond those that are needed at once
    ahead: u64,
}

impl Numbers {
    /// Numbers from `first` on, of rows that are not stored.
    #[must_use]
    pub fn from(first: u64) -> Self {
        Self { next: first, reserved: None }
    }

    /// Numbers that `buffer` has reserved. The second reserves more in time, and has to be run.
    pub fn reserved_in(buffer: Buffer) -> (Self, impl Future<Output = ()> + Send) {
        let (first, end) = buffer.sequence_start();
        let (extend, reserved) = watch::channel(end);
        let (wanted, asked) = watch::channel(0);
        let reserved = Reserved { end: reserved, wanted, ahead: (end - first) / 2 };
        (Self { next: first, reserved: Some(reserved) }, reserve(buffer, asked, extend))
    }

    /// The number of the next row.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether the next `count` numbers may be used for what is stored.
    #[must_use]
    pub fn are_reserved(&self, count: u64) -> bool {
        let Some(Reserved { end, wanted, ahead }) = &self.reserved else { return true };
        let after = self.next.saturating_add(count);
        let more = after.saturating_add(*ahead);
        if more > *end.borrow() {
            wanted.send_if_modified(|wanted| std::mem::replace(wanted, more.max(*wanted)) < more);
        }
        after <= *end.borrow()
    }

    /// Resolves when they may, or when the buffer is closed.
    pub async fn reserved(&self, count: u64) {
        if !self.are_reserved(count)
            && let Some(Reserved { end, .. }) = &self.reserved
        {
            let after = self.next.saturating_add(count);
            // An error means that nothing is stored any more.
            drop(end.clone().wait_for(|end| after <= *end).await);
        }
    }

    /// Resolves when enough are reserved for a while.
    pub async fn plenty(&self) {
        self.reserved(self.reserved.as_ref().map_or(0, |reserved| reserved.ahead)).await;
    }

    /// Numbers the rows of `batch`.
    pub fn number(&mut self, batch: RecordBatch) -> Rows {
        let first = self.next;
        self.next += batch.num_rows() as u64;
        Rows { batch, seqs: Seqs::Run { first } }
    }

    /// The number of a tick.
    pub fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// Reserves as many as are wanted, until nobody gives numbers any more.
async fn reserve(buffer: Buffer, mut wanted: watch::Receiver<u64>, extend: watch::Sender<u64>) {
    while wanted.wait_for(|wanted| *wanted > *extend.borrow()).await.is_ok() {
        let mut pause = FIRST_PAUSE;
        loop {
            match buffer.reserve_more().await {
                Ok((_, end)) => {
                    extend.send_replace(end);
                    break;
                }
                Err(BufferError::Closed) => return,
                Err(error) => tracing::error!(%error, "row numbers could not be reserved; it is tried again"),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
                () = extend.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::sync::Arc;

    use tidegate_core::clock::SystemClock;

    use super::*;
    use crate::buffer::Uplinks;
    use crate::config;
    use crate::disk::SystemDisk;

    fn open(dir: &Path) -> (Buffer, tokio::task::JoinHandle<()>) {
        let settings = config::Buffer { numbers: 100, ..config::Buffer::at(dir.join("box.db")) };
        let (clock, disk) = (Arc::new(SystemClock), Arc::new(SystemDisk));
        let (buffer, writer) =
            Buffer::open(&settings, Uplinks::default(), clock, disk, Arc::default()).unwrap();
        (buffer, tokio::spawn(writer))
    }

    #[tokio::test]
    async fn no_number_is_used_before_it_is_reserved_and_none_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let (buffer, writer) = open(dir.path());
        let (mut numbers, reserving) = Numbers::reserved_in(buffer.clone());
        assert_eq!(numbers.next(), 0);
        for _ in 0..100 {
            assert!(numbers.are_reserved(1));
            numbers.tick();
        }
        // Nothing has been reserved yet: nobody ran it.
        assert!(!numbers.are_reserved(1));
        let reserving = tokio::spawn(reserving);
        numbers.reserved(30).await;
        assert!(numbers.are_reserved(30));
        drop(numbers);
        reserving.await.unwrap();
        drop(buffer);
        writer.await.unwrap();
        let (buffer, writer) = open(dir.path());
        assert!(buffer.sequence_start().0 >= 200);
        drop(buffer);
        writer.await.unwrap();
    }
}
