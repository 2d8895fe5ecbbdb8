//! `tidegate top`: the status in a full screen, again and again.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Context;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::connect;
use crate::cli::Failure;
use crate::cli::args::TopArgs;
use crate::cli::table::age;
use crate::management::client::Client;
use crate::management::command::status::Status;
use crate::management::report::Report;
use crate::screen::panes;
use crate::screen::terminal::{Key, Screen};

/// Often enough to look alive.
const EVERY: Duration = Duration::from_millis(500);

/// Shows the box until it is told to stop.
///
/// # Errors
/// When no box answers, or there is no terminal.
pub fn top(args: TopArgs) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Failed(anyhow::anyhow!("`top` needs a terminal; use `tidegate status` here")));
    }
    let mut client = connect(args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(watch(&mut client))?)
}

async fn watch(client: &mut Client) -> anyhow::Result<()> {
    let mut report = ask(client)?;
    let mut screen = Screen::open().context("could not take the terminal over; use `tidegate status`")?;
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        screen.show(|frame| draw(frame, &report)).context("could not draw on the terminal")?;
        tokio::select! {
            key = screen.key() => if key == Key::Quit { return Ok(()) },
            // The box answers at once, or is gone.
            _ = ticks.tick() => report = ask(client)?,
        }
    }
}

fn ask(client: &mut Client) -> anyhow::Result<Report> {
    client.ask(&Status {}, |()| true)?.context("the box did not answer")
}

fn draw(frame: &mut Frame<'_>, report: &Report) {
    let [streams, rules, outputs, outbox, messages] = panes::heights(report, frame.area().height);
    let [head, streams, rules, outputs, outbox, messages] =
        Layout::vertical([Constraint::Length(1), streams, rules, outputs, outbox, messages])
            .areas(frame.area());
    let about = &report.about;
    let up = age(i128::from(about.up_s) * 1_000_000_000);
    let title = format!(" {} ", panes::printable(&about.name)).bold().reversed();
    let state = format!(" tidegate {}, {} for {up}   ", about.version, about.state);
    frame.render_widget(
        Paragraph::new(Line::from(vec![title, state.into(), "q".bold(), " quit".into()])),
        head,
    );
    panes::streams(frame, streams, report);
    panes::rules(frame, rules, report);
    panes::outputs(frame, outputs, report);
    panes::outbox(frame, outbox, report, None);
    let lines = report.attention.iter().map(|line| Line::from(panes::printable(line).red())).collect();
    panes::messages(frame, messages, "what needs a person", lines);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::management::report::About;

    #[test]
    fn a_box_is_shown_in_any_size() {
        let about = About {
            name: "press-12".to_owned(),
            version: "1.2.3".to_owned(),
            state: "runs".to_owned(),
            up_s: 7_200,
            ..About::default()
        };
        let report =
            Report { about, attention: vec!["connection plant is down".to_owned()], ..Report::default() };
        let shown = |width, height| {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &report)).unwrap();
            terminal.backend().to_string()
        };
        let screen = shown(80, 24);
        for text in [" press-12  tidegate 1.2.3, runs for 2 h   q quit", "connection plant is down"] {
            assert!(screen.contains(text), "{screen}");
        }
        for (width, height) in [(1, 1), (10, 3), (300, 100)] {
            shown(width, height);
        }
    }
}
