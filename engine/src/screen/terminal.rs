//! The terminal in full-screen mode, given back on every way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, panic, thread};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Frame, Terminal};
use tokio::sync::mpsc;

/// What a user asks for with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// the end
    Quit,
    /// a letter, in lower case
    Letter(char),
    /// nothing but a new picture, as after a change of size
    Redraw,
}

/// The full screen. Dropping it restores the terminal; so does a panic on the thread that opened it.
pub struct Screen {
    // In this order: the terminal shows its cursor again before the screen is left.
    terminal: DefaultTerminal,
    keys: mpsc::Receiver<Key>,
    _restore: Restore,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When it is none that can be.
    pub fn open() -> io::Result<Self> {
        let restore = Restore::default();
        restore_on_panic(restore.clone());
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(Self { terminal, keys: listen()?, _restore: restore })
    }

    /// Shows what `draw` draws.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn show(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// The next key that means something; [`Key::Quit`] when the keyboard is gone.
    pub async fn key(&mut self) -> Key {
        self.keys.recv().await.unwrap_or(Key::Quit)
    }
}

/// Gives the terminal back, once: a second time would put the cursor back over what was printed in between.
#[derive(Clone, Default)]
struct Restore {
    done: Arc<AtomicBool>,
}

impl Restore {
    fn restore(&self) {
        if !self.done.swap(true, Ordering::Relaxed) {
            ratatui::restore();
        }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.restore();
    }
}

/// A panic of this thread ends the program and is shown on the restored terminal. One of another thread (a
/// rule, a connection) is for its owner to deal with: it is logged, and must not write over the picture.
fn restore_on_panic(restore: Restore) {
    let viewer = thread::current().id();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == viewer {
            restore.restore();
            hook(info);
        } else {
            tracing::error!(panic = %info, "a thread of the program panicked");
        }
    }));
}

/// Reads keys on a thread of its own, since reading blocks. It ends soon after the receiver is dropped.
fn listen() -> io::Result<mpsc::Receiver<Key>> {
    let (sender, keys) = mpsc::channel(16);
    let read = move || -> io::Result<()> {
        while !sender.is_closed() {
            if event::poll(Duration::from_millis(100))?
                && let Some(key) = meaning(&event::read()?)
            {
                // A full queue means that nobody looks at the moment: then the key is dropped.
                let _ = sender.try_send(key);
            }
        }
        Ok(())
    };
    thread::Builder::new().name("keys".into()).spawn(move || {
        if let Err(error) = read() {
            tracing::warn!(%error, "the keyboard cannot be read any more");
        }
    })?;
    Ok(keys)
}

fn meaning(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Redraw),
        Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) => match code {
            // In raw mode Ctrl-C is a key like any other.
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Char(letter) => Some(Key::Letter(letter.to_ascii_lowercase())),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_ctrl_c_end_it_and_other_letters_are_the_callers() {
        let press = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |c| press(KeyCode::Char(c), KeyModifiers::NONE);
        assert_eq!(
            [plain('Q'), plain('c'), plain('F')],
            [Some(Key::Quit), Some(Key::Letter('c')), Some(Key::Letter('f'))]
        );
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(meaning(&Event::Resize(80, 24)), Some(Key::Redraw));
    }
}
