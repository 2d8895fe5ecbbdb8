//! The newest messages of the box, for a pane of the view. Everything is logged to a file beside.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// More than any terminal shows below the rest of the view.
const KEPT: usize = 50;

/// The brokers' and clients' own warnings are about connections that the demo cuts on purpose.
const FILTER: &str = "info,mqtt5=error,rumqttc=error,rumqttc_v4=error,rumqttc_v5=error";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) level: Level,
    /// when it came last: the time of day, UTC, as in the log
    pub(super) time: String,
    pub(super) text: String,
    /// how often it came in a row
    pub(super) times: u32,
}

/// A bounded list of messages, shared between whoever logs and the view.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<Message>>>);

impl Recent {
    /// Appends the program's log to `file`, and sends it to the returned list, and its warnings to standard
    /// error if `plain`. A program that has set up logging already keeps what it has, and the list stays
    /// empty.
    pub(super) fn install(file: &Path, plain: bool) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(file)?;
        let recent = Self::default();
        let to_file = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Mutex::new(file));
        let to_stderr = plain.then(|| {
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(io::stderr)
                .with_filter(LevelFilter::WARN)
        });
        let installed = tracing_subscriber::registry()
            .with(EnvFilter::new(FILTER))
            .with(to_file)
            .with(to_stderr)
            .with(recent.clone())
            .try_init();
        if let Err(error) = installed {
            tracing::warn!(%error, "the demo's own log file stays empty: the program logs elsewhere");
        }
        Ok(recent)
    }

    /// The messages, newest first.
    pub(super) fn newest_first(&self) -> Vec<Message> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, level: Level, time: String, text: String) {
        let mut messages = self.lock();
        match messages.back_mut() {
            Some(last) if last.level == level && last.text == text => {
                (last.time, last.times) = (time, last.times.saturating_add(1));
            }
            _ => {
                if messages.len() == KEPT {
                    messages.pop_front();
                }
                messages.push_back(Message { level, time, text, times: 1 });
            }
        }
    }
}

/// The connection that a span is about: most of what goes wrong concerns one of several.
struct Connection(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recent {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut line = Line::default();
        span.record(&mut line);
        if let (Some(span), Some(connection)) = (context.span(id), line.connection) {
            span.extensions_mut().insert(Connection(connection));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let spans = context.event_scope(event).into_iter().flatten();
        let of_span = spans
            .filter_map(|span| span.extensions().get::<Connection>().map(|Connection(name)| name.clone()))
            .next();
        let connection = line.connection.or(of_span).map_or_else(String::new, |name| format!("{name}: "));
        let time = jiff::Timestamp::now().strftime("%H:%M:%S").to_string();
        self.push(level, time, format!("{connection}{}{}", line.message, line.fields));
    }
}

/// An event as one line: its message, then its fields.
#[derive(Default)]
struct Line {
    connection: Option<String>,
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "connection" => {
                self.connection = Some(format!("{value:?}"));
                Ok(())
            }
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_with_their_connection_and_fields_and_repeats_are_counted() {
        let recent = Recent::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recent.clone()), || {
            tracing::debug!("not this");
            for _ in 0..3 {
                tracing::warn!(stream = "tank", lost = 2, "a message is no JSON");
            }
            let span = tracing::info_span!("mqtt", connection = "cloud");
            span.in_scope(|| {
                tracing::info!(attempts = 2, "connected again");
                tracing::error!(error = %"disk full", "cannot write");
            });
        });
        let messages: Vec<_> = recent
            .newest_first()
            .into_iter()
            .map(|message| (message.level, message.text, message.times))
            .collect();
        let message = |level, text: &str, times| (level, text.to_owned(), times);
        assert_eq!(
            messages,
            [
                message(Level::ERROR, "cloud: cannot write error=disk full", 1),
                message(Level::INFO, "cloud: connected again attempts=2", 1),
                message(Level::WARN, "a message is no JSON stream=tank lost=2", 3)
            ]
        );
        assert!(recent.newest_first().iter().all(|message| message.time.len() == "23:59:59".len()));
    }

    #[test]
    fn the_list_is_bounded() {
        let recent = Recent::default();
        for n in 0..1_000 {
            recent.push(Level::WARN, String::new(), n.to_string());
        }
        let texts: Vec<_> = recent.newest_first().into_iter().map(|message| message.text).collect();
        assert_eq!((texts.len(), texts.first().map(String::as_str)), (KEPT, Some("999")));
    }
}
