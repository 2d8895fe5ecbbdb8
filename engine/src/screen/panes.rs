//! Draws a [`Report`], pane by pane, on a screen of 80 by 24 characters and up. What does not fit is counted in
//! the titles.

use std::fmt::Write;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, Wrap};
use serde_json::Value;

use crate::management::command::tail::Columns;
use crate::management::report::{Connection, Noted, Report, Rule, Stream};
use crate::system;

/// A screen that is lower has fewer streams and outputs on it.
const LOW: u16 = 30;

/// How high panes are on a screen of this height: what is small comes first, rules and messages give way.
#[must_use]
pub fn heights(report: &Report, screen: u16) -> [Constraint; 5] {
    let most = if screen < LOW { 3 } else { 6 };
    [
        lines(shown_streams(report).count().clamp(1, most)),
        Constraint::Max(u16::try_from(report.rules.len().max(1) + 1).unwrap_or(u16::MAX)),
        lines(report.outputs.len().clamp(1, most)),
        Constraint::Length(2),
        Constraint::Min(2),
    ]
}

/// The height of a pane of `n` lines and its title.
#[must_use]
pub fn lines(n: usize) -> Constraint {
    Constraint::Length(u16::try_from(n + 1).unwrap_or(u16::MAX))
}

/// How many of `n` have no line in a pane.
fn more(n: usize, area: Rect) -> String {
    match n.saturating_sub(usize::from(area.height.saturating_sub(1))) {
        0 => String::new(),
        more => format!(" ({more} more)"),
    }
}

/// The frame of a pane.
pub fn section(title: impl Into<String>) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(Style::new().dark_gray())
        .title(format!(" {} ", title.into()).bold().cyan())
}

/// The streams but for the box's own: what these say is shown elsewhere.
fn shown_streams(report: &Report) -> impl Iterator<Item = &Stream> {
    report.streams.iter().filter(|stream| !system::is_fed_by_the_box(&stream.name))
}

/// Streams, with the connections that feed them in the title.
pub fn streams(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let widths = [Constraint::Length(14), Constraint::Length(8), Constraint::Length(8), Constraint::Fill(1)];
    let rows = shown_streams(report).map(|stream| {
        Row::new([
            Span::from(printable(&stream.name)),
            format!("{:>8}", stream.rows).into(),
            format!("{:>6.1}/s", stream.rate.per_s_10s).into(),
            newest(&stream.newest, area, &widths).dark_gray(),
        ])
    });
    let more = more(shown_streams(report).count(), area);
    let mut title = format!("streams{more}: rows, rate, newest");
    let malformed = |line: &Connection| line.counts.get("malformed").copied().unwrap_or(0);
    let is_well = |line: &&Connection| line.connected && malformed(line) == 0;
    // Trouble first: the line may be cut.
    for line in report.connections.iter().filter(|line| !is_well(line)) {
        let state = if line.connected { "up" } else { "DOWN" };
        // Writing to a String cannot fail.
        let _ = write!(title, " | {} {state}", printable(&line.name));
        if malformed(line) > 0 {
            let _ = write!(title, ", {} malformed", malformed(line));
        }
    }
    let well: Vec<String> =
        report.connections.iter().filter(is_well).map(|line| printable(&line.name)).collect();
    if !well.is_empty() {
        let _ = write!(title, " | {} up", well.join(", "));
    }
    frame.render_widget(Table::new(rows, widths).block(section(title)), area);
}

/// Rules, a line each; where there are fewer lines, two on each, without their newest rows.
pub fn rules(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let title = section("rules: version, rows written, newest");
    let inner = title.inner(area);
    frame.render_widget(title, area);
    if report.rules.len() <= usize::from(inner.height) {
        let fill = Constraint::Fill(1);
        let widths = [Constraint::Length(14), Constraint::Length(7), Constraint::Length(17), fill];
        let rows = report.rules.iter().map(|rule| {
            let last = match wrong(rule) {
                Some(why) => format!("EDIT REFUSED {why}").red().bold(),
                None => newest(&rule.newest, area, &widths).dark_gray(),
            };
            let name = Span::from(printable(&rule.name));
            Row::new([name, version(rule).into(), rows_written(rule).into(), last])
        });
        frame.render_widget(Table::new(rows, widths), inner);
        return;
    }
    let halves = Layout::horizontal([Constraint::Fill(1); 2]).spacing(1).areas::<2>(inner);
    let widths = [Constraint::Length(14), Constraint::Length(7), Constraint::Fill(1)];
    for (rules, half) in report.rules.chunks(report.rules.len().div_ceil(2)).zip(halves) {
        let rows = rules.iter().map(|rule| {
            let last = match wrong(rule) {
                Some(_) => "EDIT REFUSED".red().bold(),
                None => rows_written(rule).into(),
            };
            Row::new([Span::from(printable(&rule.name)), version(rule).into(), last])
        });
        frame.render_widget(Table::new(rows, widths), half);
    }
}

/// How many rows the rule has written, and what it has counted besides.
fn rows_written(rule: &Rule) -> String {
    let mut counts = format!("{:>8}", rule.rows);
    for (name, count) in rule.counts.iter().filter(|(_, count)| **count > 0) {
        let _ = write!(counts, " {count} {}", name.replace('_', " "));
    }
    counts
}

/// "v3", or why there is none.
#[must_use]
pub fn version(rule: &Rule) -> String {
    match (&rule.version, rule.state.as_str()) {
        (Some(version), "shadow") => format!("v{} sh", version.number),
        (Some(version), _) => format!("v{}", version.number),
        (None, state) => state.to_owned(),
    }
}

/// Why the newest text of the rule does not run.
#[must_use]
pub fn wrong(rule: &Rule) -> Option<String> {
    rule.refused.as_ref().or(rule.stopped.as_ref()).map(|noted| printable(&noted.text))
}

/// Outputs.
pub fn outputs(frame: &mut Frame<'_>, area: Rect, report: &Report) {
    let more = more(report.outputs.len(), area);
    let widths = [Constraint::Length(14), Constraint::Length(8), Constraint::Length(11), Constraint::Fill(1)];
    let rows = report.outputs.iter().map(|output| {
        let failed: u64 = output.counts.values().sum();
        let text = format!("{failed:>3} failed");
        Row::new([
            Span::from(printable(&output.name)),
            format!("{:>8}", output.written).into(),
            if failed > 0 { text.red() } else { text.dark_gray() },
            match &output.does {
                None => newest(&output.newest, area, &widths).dark_gray(),
                Some(does) if output.overridden > 0 => {
                    format!("OVERRIDDEN {}", printable(does)).yellow().bold()
                }
                Some(does) if output.tripped > 0 => printable(does).red(),
                Some(does) => printable(does).into(),
            },
        ])
    });
    frame.render_widget(
        Table::new(rows, widths).block(section(format!("outputs{more}: rows written, failed, what it does"))),
        area,
    );
}

/// The outbox and the uplinks, with `beside` behind them.
pub fn outbox(frame: &mut Frame<'_>, area: Rect, report: &Report, beside: Option<String>) {
    let waiting = report.buffer.waiting;
    let text = format!("{waiting} waiting");
    let mut line = vec![if waiting > 0 { text.yellow().bold() } else { text.into() }];
    for uplink in &report.uplinks {
        let name = printable(&uplink.name);
        line.push(format!("  {} delivered  ", uplink.delivered).into());
        line.push(if uplink.connected {
            format!("{name} up").green()
        } else {
            format!("{name} DOWN").red().bold()
        });
    }
    if let Some(dropped) = report.buffer.counts.get("dropped").filter(|dropped| **dropped > 0) {
        line.push(format!("  {dropped} DROPPED").red().bold());
    }
    if let Some(beside) = beside {
        line.push(format!("  | {beside}").into());
    }
    frame.render_widget(
        Paragraph::new(Line::from(line)).block(section("outbox: rows kept on disk until the cloud has them")),
        area,
    );
}

/// What is wrong with rules, a line each.
pub fn refusals(report: &Report) -> impl Iterator<Item = Line<'static>> {
    report.rules.iter().filter_map(|rule| {
        let runs = if rule.version.is_some() { "its last good version runs on" } else { "it does not run" };
        Some(Line::from(format!("rule {} refused: {} ({runs})", printable(&rule.name), wrong(rule)?).red()))
    })
}

/// Messages, newest first.
pub fn messages(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(section(title)), area);
}

/// The newest row, in the room that columns of these widths leave of `area`.
fn newest(noted: &Option<Noted>, area: Rect, others: &[Constraint]) -> String {
    let taken = others.iter().map(|width| if let Constraint::Length(width) = width { width + 1 } else { 0 });
    let room = usize::from(area.width.saturating_sub(taken.sum()));
    noted.as_ref().map_or_else(String::new, |noted| printable(&compact(&noted.text, room)))
}

/// A row in as few characters as tell it: columns without quotes and braces, text without its name, and no
/// `ts`. Where they are more than `room`, names are cut, so that values are seen on a narrow screen.
fn compact(text: &str, room: usize) -> String {
    let (label, json) = text.split_at(text.find('{').unwrap_or(text.len()));
    let Ok(Columns(columns)) = serde_json::from_str(json) else { return text.to_owned() };
    let with_names = |longest: usize| {
        let column = |(name, value): &(String, Value)| match value {
            Value::String(text) => text.clone(),
            other => format!("{}={other}", name.chars().take(longest).collect::<String>()),
        };
        let columns = columns.iter().filter(|(name, _)| name != tidegate_core::TS).map(column);
        format!("{label}{}", columns.collect::<Vec<_>>().join(" "))
    };
    let whole = with_names(usize::MAX);
    if whole.chars().count() <= room { whole } else { with_names(4) }
}

/// Rows come from outside, and a terminal obeys control characters.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::management::report::Output;

    #[test]
    fn outputs_show_what_they_do_and_why() {
        let output = |name: &str, does: &str, overridden: u64| Output {
            name: name.to_owned(),
            does: Some(does.to_owned()),
            overridden,
            ..Output::default()
        };
        let outputs = vec![
            output("pump", "run=false  interlock: tank.level was 8.2", 0),
            output("fan", "run=true  override: bearing (ann)", 1),
        ];
        let report = Report { outputs, ..Report::default() };
        let mut terminal = Terminal::new(TestBackend::new(100, 3)).unwrap();
        let draw = |frame: &mut Frame<'_>| {
            let area = frame.area();
            super::outputs(frame, area, &report);
        };
        terminal.draw(draw).unwrap();
        let shown = terminal.backend().to_string();
        for text in
            ["run=false  interlock: tank.level was 8.2", "OVERRIDDEN run=true  override: bearing (ann)"]
        {
            assert!(shown.contains(text), "{shown}");
        }
    }

    #[test]
    fn a_row_is_shown_without_what_only_takes_room() {
        let row = r#"cooling_pump {"ts":"2026-01-01T00:00:00Z","site":"north","device":"tank3","run":false,"t":null}"#;
        assert_eq!(compact(row, 80), "cooling_pump north tank3 run=false t=null");
        assert_eq!(compact("stopped: {it}", 1), "stopped: {it}");
        let row = r#"{"site":"north","device":"tank2","inflow":420.53,"level":56.91,"temperature":79.31}"#;
        assert_eq!(compact(row, 47), "north tank2 infl=420.53 leve=56.91 temp=79.31");
    }

    #[test]
    fn control_characters_from_outside_do_not_reach_the_terminal() {
        assert_eq!(printable("{\"x\":\"\u{1b}[2J\n\"}"), "{\"x\":\" [2J \"}");
    }
}
