//! Draws a [`Scene`]: on a screen of 80 by 24 characters and up, or as plain lines.

use std::fmt::Write;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, Wrap};
use tokio::time::Instant;
use tracing::Level;

use super::cloud::CloudState;
use super::plant::Tank;
use super::scene::{OutboxLine, Scene, UplinkLine};

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene) {
    let lines = |n: usize| Constraint::Length(u16::try_from(n + 1).unwrap_or(u16::MAX)); // one more for the title
    // When it does not all fit, rules and messages give way to what is small.
    let [head, plant, streams, rules, outputs, outbox, messages] = Layout::vertical([
        Constraint::Length(2),
        lines(scene.tanks.len()),
        lines(scene.streams.len().clamp(1, 6)),
        Constraint::Max(u16::try_from(scene.rules.len().max(1) + 1).unwrap_or(u16::MAX)),
        lines(scene.outputs.len().clamp(1, 6)),
        Constraint::Length(2),
        Constraint::Min(3),
    ])
    .areas(frame.area());
    draw_head(frame, head, scene);
    draw_plant(frame, plant, scene);
    draw_streams(frame, streams, scene);
    draw_rules(frame, rules, scene);
    draw_outputs(frame, outputs, scene);
    draw_outbox(frame, outbox, scene);
    draw_messages(frame, messages, scene);
}

fn section(title: impl Into<String>) -> Block<'static> {
    Block::new().borders(Borders::TOP).border_style(Style::new().dark_gray()).title(format!(" {} ", title.into()).bold().cyan())
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let keys = Line::from(vec![
        " tidegate demo ".bold().reversed(),
        format!(" {}   ", clock(scene.running_for)).into(),
        "q".bold(),
        " quit   ".into(),
        "c".bold(),
        " cloud away/back   ".into(),
        "f".bold(),
        " cause a fault".into(),
    ]);
    let hint = Line::from(vec![" edit ".into(), scene.rule_to_try.clone().bold().yellow(), " (try 80 -> 70), save it, and watch".into()]);
    frame.render_widget(Paragraph::new(vec![keys, hint]), area);
}

fn draw_plant(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let rows = scene.tanks.iter().map(|tank| {
        let on = |on: bool, yes: &'static str, no: &'static str| if on { yes.green().bold() } else { no.dark_gray() };
        let temperature = format!("{:5.1} °C", tank.temperature);
        let fault = tank.fault.map_or("", |(fault, _)| fault.describe());
        Row::new([
            Span::from(tank.name),
            if tank.temperature > 80.0 { temperature.red() } else { temperature.into() },
            format!("{} {:3.0} %", gauge(tank.level), tank.level).into(),
            format!("{:3.0} l/min", tank.inflow).into(),
            on(tank.pump_runs, "pump RUNS", "pump off"),
            on(tank.gate_open, "gate OPEN", "gate shut"),
            fault.magenta(),
        ])
    });
    let widths = [5, 8, 16, 9, 9, 9].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    frame.render_widget(Table::new(rows, widths).block(section("plant (the truth, not what its sensors say)")), area);
}

/// Ten characters for 0 to 100 %.
fn gauge(percent: f64) -> String {
    (0..10).map(|tenth| if f64::from(tenth) * 10.0 + 5.0 <= percent { '█' } else { '·' }).collect()
}

fn draw_streams(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let rows = scene.streams.iter().map(|stream| {
        Row::new([
            Span::from(stream.name.as_str()),
            format!("{:>8}", stream.rows).into(),
            format!("{:>6.1}/s", stream.per_second).into(),
            stream.last.as_str().dark_gray(),
        ])
    });
    let mut title = "streams: rows, rows a second, newest".to_owned();
    for connection in &scene.connections {
        let state = if connection.connected { "up" } else { "DOWN" };
        // Writing to a String cannot fail.
        let _ = write!(title, " | {} {state}", connection.name);
        if connection.malformed > 0 {
            let _ = write!(title, ", {} malformed", connection.malformed);
        }
    }
    let widths = [Constraint::Length(14), Constraint::Length(8), Constraint::Length(8), Constraint::Fill(1)];
    frame.render_widget(Table::new(rows, widths).block(section(title)), area);
}

fn draw_rules(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let rows = scene.rules.iter().map(|rule| {
        let mut counts = format!("{:>8}", rule.rows);
        for (n, what) in [(rule.late, "late"), (rule.errors, "errors")] {
            if n > 0 {
                let _ = write!(counts, " {n} {what}");
            }
        }
        Row::new([
            Span::from(rule.name.as_str()),
            format!("v{}", rule.versions).into(),
            counts.into(),
            if rule.refused { format!("EDIT REFUSED {}", rule.last).red().bold() } else { rule.last.as_str().dark_gray() },
        ])
    });
    let widths = [Constraint::Length(14), Constraint::Length(4), Constraint::Length(17), Constraint::Fill(1)];
    frame.render_widget(Table::new(rows, widths).block(section("rules: version, rows written, newest")), area);
}

fn draw_outputs(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let rows = scene.outputs.iter().map(|output| {
        let failed = format!("{:>3} failed", output.failed);
        Row::new([
            Span::from(output.name.as_str()),
            format!("{:>8}", output.written).into(),
            if output.failed > 0 { failed.red() } else { failed.dark_gray() },
            output.last.as_str().dark_gray(),
        ])
    });
    let widths = [Constraint::Length(14), Constraint::Length(8), Constraint::Length(11), Constraint::Fill(1)];
    frame.render_widget(Table::new(rows, widths).block(section("outputs: rows written, failed, newest")), area);
}

fn draw_outbox(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let OutboxLine { waiting, dropped } = scene.outbox;
    let text = format!("{waiting} waiting");
    let mut line = vec![if waiting > 0 { text.yellow().bold() } else { text.into() }];
    for UplinkLine { name, delivered, connected } in &scene.uplinks {
        line.push(format!("  {delivered} delivered  ").into());
        line.push(if *connected { format!("{name} up").green() } else { format!("{name} DOWN").red().bold() });
    }
    if dropped > 0 {
        line.push(format!("  {dropped} DROPPED").red().bold());
    }
    if let Some(cloud) = scene.cloud {
        line.push(format!("  | {}", describe_cloud(cloud)).into());
    }
    frame.render_widget(Paragraph::new(Line::from(line)).block(section("outbox: rows kept on disk until the cloud has them")), area);
}

fn describe_cloud(cloud: CloudState) -> String {
    let seconds = cloud.until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
    let state = match (cloud.up, seconds) {
        (true, Some(s)) => format!("up, goes away in {s} s"),
        (true, None) => "up".to_owned(),
        (false, Some(s)) => format!("AWAY, back in {s} s"),
        (false, None) => "AWAY until you press c".to_owned(),
    };
    format!("cloud {state}; took {}", cloud.received)
}

fn draw_messages(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let refused = scene
        .rules
        .iter()
        .filter(|rule| rule.refused)
        .map(|rule| Line::from(format!("rule {} refused: {} (its last good version runs on)", rule.name, rule.last).red()));
    let logged = scene.messages.iter().map(|message| {
        let text = if message.times > 1 { format!("{} (x{})", message.text, message.times) } else { message.text.clone() };
        Line::from(if message.level == Level::ERROR { text.red() } else { text.yellow() })
    });
    let lines: Vec<_> = refused.chain(logged).collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(section("messages, newest first")), area);
}

/// One line that tells all of it, for when nobody can watch a screen.
pub(super) fn plain(scene: &Scene) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let streams = scene.streams.iter().map(|s| format!("{} {} rows {:.1}/s", s.name, s.rows, s.per_second));
    let rules = scene.rules.iter().map(|r| {
        let refused = if r.refused { format!(" EDIT REFUSED: {}", r.last) } else { String::new() };
        format!("{} v{} {} rows{refused}", r.name, r.versions, r.rows)
    });
    let outputs = scene.outputs.iter().map(|o| format!("{} {} written {} failed", o.name, o.written, o.failed));
    let outbox = &scene.outbox;
    let uplinks =
        scene.uplinks.iter().map(|u| format!(", {} {}, {} delivered", u.name, if u.connected { "up" } else { "down" }, u.delivered));
    let cloud = scene.cloud.map_or(String::new(), |cloud| format!(" | {}", describe_cloud(cloud)));
    format!(
        "{} plant: {} | streams: {} | rules: {} | outputs: {} | outbox: {} waiting {} dropped{}{cloud}",
        clock(scene.running_for),
        list(scene.tanks.iter().map(plain_tank).collect()),
        list(streams.collect()),
        list(rules.collect()),
        list(outputs.collect()),
        outbox.waiting,
        outbox.dropped,
        uplinks.collect::<String>(),
    )
}

fn plain_tank(tank: &Tank) -> String {
    let pump = if tank.pump_runs { "runs" } else { "off" };
    let gate = if tank.gate_open { "open" } else { "shut" };
    let fault = tank.fault.map_or(String::new(), |(fault, _)| format!(" ({})", fault.describe()));
    format!("{} {:.1} °C {:.0} % pump {pump} gate {gate}{fault}", tank.name, tank.temperature, tank.level)
}

fn clock(time: Duration) -> String {
    format!("{:02}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::sync::atomic::Ordering;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::plant::{Command, Plant};
    use super::super::recent::Message;
    use super::super::scene::Rates;
    use super::*;
    use crate::status::Status;

    fn filled() -> Scene {
        let status = Status::default();
        let mut rates = Rates::default();
        Scene::of(&status, &mut rates, Duration::from_secs(60));
        let tank = status.streams.of("tank");
        tank.rows.add(48);
        tank.last.replace(r#"{"device":"tank1","temperature":81.2}"#.to_owned());
        let _ = status.streams.of("tank_stats");
        for name in ["alarms", "flow_display", "outlet_gate", "statistics"] {
            status.rules.of(name).versions.add(1);
        }
        status.rules.of("statistics").late.add(3);
        let cooling = status.rules.of("cooling");
        cooling.rows.add(7);
        cooling.versions.add(2);
        cooling.refused.store(true, Ordering::Relaxed);
        cooling.last.replace("rules/cooling.sql:12:8: unknown column `temprature`; did you mean `temperature`?".to_owned());
        let pump = status.outputs.of("cooling_pump");
        pump.written.add(6);
        pump.failed.add(1);
        pump.last.replace(r#"{"device":"tank1","run":true}"#.to_owned());
        let _ = (status.outputs.of("flow_display"), status.outputs.of("outlet_gate"));
        let plant = status.connections.of("plant");
        plant.connected.store(true, Ordering::Relaxed);
        plant.malformed.store(5, std::sync::atomic::Ordering::Relaxed);
        status.outbox.waiting.set(12);
        status.uplinks.of("uplink").delivered.add(30);

        let mut plant = Plant::new(1);
        plant.command("tank1", Command::Pump(true));
        plant.command("tank3", Command::Gate(true));
        plant.cause_fault();
        Scene {
            tanks: plant.tanks().to_vec(),
            cloud: Some(CloudState { up: false, until: None, received: 30 }),
            messages: vec![Message { level: Level::WARN, text: "a message is no JSON topic=plant/x".to_owned(), times: 4 }],
            rule_to_try: "tidegate-demo/rules/cooling.sql".to_owned(),
            ..Scene::of(&status, &mut rates, Duration::from_secs(62))
        }
    }

    fn screen(scene: &Scene, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, scene)).unwrap();
        terminal.backend().to_string()
    }

    /// The first line of `screen` that starts with `name`.
    fn line<'a>(screen: &'a str, name: &str) -> &'a str {
        screen
            .lines()
            .map(|line| line.trim_matches('"'))
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name} in\n{screen}"))
    }

    fn assert_in_order(line: &str, parts: &[&str]) {
        let mut rest = line;
        for part in parts {
            rest = rest.split_once(part).unwrap_or_else(|| panic!("no \"{part}\" in its place in: {line}")).1;
        }
    }

    #[test]
    fn everything_is_on_a_screen_of_80_by_24() {
        let screen = screen(&filled(), 80, 24);
        assert_in_order(line(&screen, " tidegate demo"), &["01:02", "q quit", "c cloud away/back", "f cause a fault"]);
        assert_in_order(line(&screen, " edit"), &["tidegate-demo/rules/cooling.sql", "80 -> 70"]);
        assert_in_order(line(&screen, "tank1"), &["76.0 °C", "████······  42 %", "420 l/min", "pump RUNS", "gate shut", "sensor stuck"]);
        assert_in_order(line(&screen, "tank3"), &["58.0 °C", "25 %", "pump off", "gate OPEN"]);
        assert_in_order(line(&screen, " streams"), &["plant up, 5 malformed"]);
        assert_in_order(line(&screen, "tank "), &["48", "24.0/s", r#"{"device":"tank1","temperature":81.2}"#]);
        assert_in_order(line(&screen, "tank_stats"), &["0", "0.0/s"]);
        assert_in_order(line(&screen, "cooling "), &["v2", "7", "EDIT REFUSED"]);
        assert_in_order(line(&screen, "statistics"), &["v1", "0 3 late"]);
        assert_in_order(line(&screen, "cooling_pump"), &["6", "1 failed", r#"{"device":"tank1","run":true}"#]);
        assert_in_order(line(&screen, "12 waiting"), &["30 delivered", "uplink DOWN", "cloud AWAY until you press c; took 30"]);
        assert_in_order(line(&screen, "rule cooling"), &["refused: rules/cooling.sql:12:8: unknown column"]);
    }

    #[test]
    fn a_larger_screen_has_room_for_all_messages() {
        let screen = screen(&filled(), 140, 40);
        assert_in_order(
            line(&screen, "rule cooling"),
            &["rules/cooling.sql:12:8: unknown column `temprature`; did you mean `temperature`?"],
        );
        assert_in_order(line(&screen, "a message is no JSON"), &["topic=plant/x (x4)"]);
    }

    #[test]
    fn no_size_and_no_emptiness_breaks_it() {
        for (width, height) in [(1, 1), (10, 3), (80, 10), (300, 100)] {
            screen(&filled(), width, height);
            screen(&Scene::default(), width, height);
        }
    }

    #[test]
    fn a_plain_line_tells_the_same() {
        let line = plain(&filled());
        assert!(!line.contains('\n'));
        assert_in_order(
            &line,
            &[
                "01:02 plant: tank1 76.0 °C 42 % pump runs gate shut (sensor stuck)",
                "streams: tank 48 rows 24.0/s",
                "cooling v2 7 rows EDIT REFUSED: rules/cooling.sql:12:8: unknown column",
                "cooling_pump 6 written 1 failed",
                "outbox: 12 waiting 0 dropped, uplink down, 30 delivered | cloud AWAY until you press c; took 30",
            ],
        );
    }
}
