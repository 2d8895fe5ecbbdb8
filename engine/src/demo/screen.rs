//! The terminal in full-screen mode, given back on every way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, panic, thread};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Terminal};
use tokio::sync::mpsc;

use super::scene::Scene;
use super::view;

/// What a user asks for with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Cloud,
    Fault,
    /// nothing but a new picture, as after a change of size
    Redraw,
}

/// The full screen. Dropping it restores the terminal; so does a panic on the thread that opened it.
pub(super) struct Screen {
    // In this order: the terminal shows its cursor again before the screen is left.
    terminal: DefaultTerminal,
    keys: mpsc::Receiver<Key>,
    _restore: Restore,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn open() -> io::Result<Self> {
        let restore = Restore::default();
        restore_on_panic(restore.clone());
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(Self { terminal, keys: listen()?, _restore: restore })
    }

    /// Shows `scene`.
    pub(super) fn show(&mut self, scene: &Scene) -> io::Result<()> {
        self.terminal.draw(|frame| view::draw(frame, scene)).map(drop)
    }

    /// The next key that means something; [`Key::Quit`] when the keyboard is gone.
    pub(super) async fn key(&mut self) -> Key {
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

/// A panic of this thread ends the demo and is shown on the restored terminal. One of another thread (a rule, a connection) is for
/// its owner to deal with: it is logged, and must not write over the picture.
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
    thread::Builder::new().name("demo-keys".into()).spawn(move || {
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
            KeyCode::Char('c' | 'C') => Some(Key::Cloud),
            KeyCode::Char('f' | 'F') => Some(Key::Fault),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_head_line_says() {
        let press = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |c| press(KeyCode::Char(c), KeyModifiers::NONE);
        assert_eq!([plain('q'), plain('c'), plain('f'), plain('x')], [Some(Key::Quit), Some(Key::Cloud), Some(Key::Fault), None]);
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(meaning(&Event::Resize(80, 24)), Some(Key::Redraw));
    }
}
