//! What a process writes, line by line.

use std::io::{BufRead, BufReader, Read};

use tokio::sync::watch;

use crate::PATIENCE;

/// The lines that a process has written so far. Lines of a process that is started again follow those of the
/// first.
#[derive(Debug, Clone)]
pub struct Lines {
    lines: watch::Sender<Vec<String>>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { lines: watch::Sender::new(Vec::new()) }
    }
}

impl Lines {
    /// Reads `from` on a thread of its own until it ends.
    pub fn follow(&self, from: impl Read + Send + 'static) {
        let lines = self.lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { return };
                lines.send_modify(|lines| lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
        });
    }

    /// How many lines there are; see [`Self::wait_after`].
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.borrow().len()
    }

    /// Waits for a line with `text` in it, and returns it.
    pub async fn wait(&self, text: &str) -> String {
        self.wait_after(0, text).await
    }

    /// Waits for a line with `text` in it, behind the first `after` lines.
    pub async fn wait_after(&self, after: usize, text: &str) -> String {
        match tokio::time::timeout(PATIENCE, self.seen_after(after, text)).await {
            Ok(line) => line,
            Err(_) => panic!("no line with {text:?} came:\n{}", self.text()),
        }
    }

    /// As [`Self::wait_after`], however long it takes.
    pub async fn seen_after(&self, after: usize, text: &str) -> String {
        let mut lines = self.lines.subscribe();
        let find = |lines: &[String]| lines.iter().skip(after).find(|line| line.contains(text)).cloned();
        let lines = lines.wait_for(|lines| find(lines).is_some()).await.unwrap();
        find(&lines).unwrap()
    }

    /// Waits until `enough` says so of all lines so far, and returns them.
    pub async fn wait_until(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut lines = self.lines.subscribe();
        match tokio::time::timeout(PATIENCE, lines.wait_for(|lines| enough(lines))).await {
            Ok(Ok(lines)) => lines.clone(),
            _ => panic!("not enough lines came:\n{}", self.text()),
        }
    }

    /// All lines so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// The first line with `text` in it, if there is one by now.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<String> {
        self.lines.borrow().iter().find(|line| line.contains(text)).cloned()
    }

    /// All lines so far, as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.borrow().join("\n")
    }
}
