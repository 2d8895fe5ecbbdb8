//! How rows of a line without acknowledgements get to the engine, and what it is told of the line itself.

use std::future::pending;
use std::sync::Arc;

use tidegate_core::Batch;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::error;

use crate::status::LineStatus;
use crate::{Arrival, Inlet, LineNews};

/// Rows that wait for an engine that does not take them. Then rows are dropped, and counted.
const HELD_ROWS: usize = 8_192;

/// Rows of one stream that wait for the engine.
pub(crate) trait Pending: Send {
    /// How many there are.
    fn len(&self) -> usize;

    /// All of them; none when there are none.
    fn take(&mut self) -> Option<Batch>;
}

/// The streams of one line, and the engine's end of it.
pub(crate) struct HandOver<P> {
    streams: Vec<P>,
    status: Arc<LineStatus>,
    inlet: Option<Inlet>,
    asked: watch::Receiver<i64>,
    held: usize,
    /// not told yet
    news: Option<LineNews>,
    /// whether the line was said to listen
    listens: bool,
    /// the newest time of the sequence for which it was said that it does
    heard: i64,
    heard_at: Instant,
}

impl<P: Pending> HandOver<P> {
    /// For these streams; closed until [`HandOver::open`].
    pub(crate) fn new(streams: Vec<P>, status: Arc<LineStatus>) -> Self {
        Self {
            streams,
            status,
            inlet: None,
            asked: Inlet::nowhere().asked,
            held: 0,
            news: None,
            listens: false,
            heard: i64::MIN,
            heard_at: Instant::now(),
        }
    }

    /// Reading begins.
    pub(crate) fn open(&mut self, inlet: Inlet) {
        self.asked = inlet.asked.clone();
        self.inlet = Some(inlet);
    }

    /// Nothing is read any more. Rows for which there is no room are dropped.
    pub(crate) fn close(&mut self) {
        self.pass_on();
        self.inlet = None;
        let dropped = std::mem::take(&mut self.held);
        crate::status::add(&self.status.dropped, dropped);
    }

    /// Whether anything is read.
    pub(crate) fn is_open(&self) -> bool {
        self.inlet.is_some()
    }

    /// A stream by its place.
    pub(crate) fn stream(&mut self, index: usize) -> Option<&mut P> {
        self.streams.get_mut(index)
    }

    /// Adds rows to a stream, if they find room; otherwise one is counted as dropped.
    pub(crate) fn add(&mut self, index: usize, append: impl FnOnce(&mut P)) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        if self.held < HELD_ROWS {
            let before = stream.len();
            append(stream);
            let added = stream.len().saturating_sub(before);
            self.held += added;
            crate::status::add(&self.status.rows, added);
            return;
        }
        if self.status.dropped.get() == 0 {
            error!("the engine is behind and rows are dropped: lighten the rules, or read less often");
        }
        self.status.dropped.add(1);
    }

    /// When the line was last asked whether it listens, in the sequence's time.
    pub(crate) fn asked(&mut self) -> i64 {
        *self.asked.borrow_and_update()
    }

    /// The line is up, and what comes from now on is new.
    pub(crate) fn begins(&mut self) {
        self.heard_at = Instant::now();
        if !std::mem::replace(&mut self.listens, true) {
            self.news = Some(LineNews::Begins);
        }
    }

    /// The line was alive after it was asked at `asked`.
    pub(crate) fn heard(&mut self, asked: i64) {
        self.heard_at = Instant::now();
        if self.listens && asked > self.heard && self.news.is_none() {
            self.heard = asked;
            self.news = Some(LineNews::Heard { asked });
        }
    }

    /// The line is down.
    pub(crate) fn ends(&mut self) {
        if std::mem::take(&mut self.listens) {
            self.news = Some(LineNews::Ends { heard: self.heard_at });
        }
    }

    /// Hands rows to the engine as long as it has room, and then the news of the line.
    pub(crate) fn pass_on(&mut self) {
        let Some(inlet) = &self.inlet else { return };
        for stream in self.streams.iter_mut().filter(|stream| stream.len() > 0) {
            let Ok(permit) = inlet.queue.try_reserve() else { return };
            if let Some(batch) = stream.take() {
                self.held = self.held.saturating_sub(batch.rows.num_rows());
                permit.send(Arrival::Rows(batch));
            }
        }
        if let Some(news) = self.news
            && let Ok(permit) = inlet.queue.try_reserve()
        {
            permit.send(inlet.news(news));
            self.news = None;
        }
    }

    /// Resolves when the engine has room for what waits; with `false` when it is gone.
    pub(crate) async fn room(&self) -> bool {
        match self.inlet.as_ref().filter(|_| self.held > 0 || self.news.is_some()) {
            Some(inlet) => inlet.queue.reserve().await.is_ok(),
            None => pending().await,
        }
    }
}
