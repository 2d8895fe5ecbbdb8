//! Draws a [`Scene`]: on a screen of 80 by 24 characters and up, or as plain lines.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};
use tokio::time::Instant;
use tracing::Level;

use super::cloud::CloudState;
use super::dosing::Dosing;
use super::plant::Tank;
use super::scene::Scene;
use super::station::Station;
use crate::screen::panes;

const TRIPPED: &str = "motor tripped";
const EMPTY: &str = "barrel empty";

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene) {
    let report = &scene.report;
    let above = [
        Constraint::Length(2),
        panes::lines(scene.tanks.len() + scene.station.iter().len() + scene.dosing.iter().len()),
    ];
    let [streams, rules, outputs, outbox, messages] = panes::heights(report, frame.area().height);
    let [head, plant, streams, rules, outputs, outbox, messages] =
        Layout::vertical([above[0], above[1], streams, rules, outputs, outbox, messages]).areas(frame.area());
    draw_head(frame, head, scene);
    draw_plant(frame, plant, scene);
    panes::streams(frame, streams, report);
    panes::rules(frame, rules, report);
    panes::outputs(frame, outputs, report);
    panes::outbox(frame, outbox, report, scene.cloud.map(describe_cloud));
    draw_messages(frame, messages, scene);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let keys = Line::from(vec![
        " tidegate demo ".bold().reversed(),
        format!(" {}   ", clock(scene.running_for)).into(),
        "q, Esc".bold(),
        " quit   ".into(),
        "c".bold(),
        " cloud away/back   ".into(),
        "f".bold(),
        " cause a fault".into(),
    ]);
    let hint = Line::from(vec![
        " edit ".into(),
        scene.rule_to_try.clone().bold().yellow(),
        " (try 80 -> 70), save it, and watch".into(),
    ]);
    frame.render_widget(Paragraph::new(vec![keys, hint]), area);
}

fn draw_plant(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let stations = scene.station.iter().map(station_row).chain(scene.dosing.iter().map(dosing_row));
    let rows = scene.tanks.iter().map(tank_row).chain(stations);
    let widths = [7, 8, 16, 9, 9, 9].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    frame.render_widget(
        Table::new(rows, widths).block(panes::section("plant (the truth, not what its sensors say)")),
        area,
    );
}

fn tank_row(tank: &Tank) -> Row<'static> {
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
}

fn station_row(station: &Station) -> Row<'static> {
    Row::new([
        Span::from("booster"),
        format!("{:.2} bar", station.pressure).into(),
        format!("speed{:9.0} %", station.speed).into(),
        format!("{:5.1} A", station.current).into(),
        on(station.run, "pump RUNS", "pump off"),
        "".into(),
        if station.is_tripped() { TRIPPED } else { "" }.magenta(),
    ])
}

fn dosing_row(dosing: &Dosing) -> Row<'static> {
    Row::new([
        Span::from("dosing"),
        format!("{:5.2} kg", dosing.weight).into(),
        format!("speed{:7.0} rpm", dosing.speed).into(),
        format!("{:4.0} °C", dosing.temperature).into(),
        on(dosing.enabled, "pump RUNS", "pump off"),
        "".into(),
        if dosing.is_empty() { EMPTY } else { "" }.magenta(),
    ])
}

fn on(on: bool, yes: &'static str, no: &'static str) -> Span<'static> {
    if on { yes.green().bold() } else { no.dark_gray() }
}

/// Ten characters for 0 to 100 %.
fn gauge(percent: f64) -> String {
    (0..10).map(|tenth| if f64::from(tenth) * 10.0 + 5.0 <= percent { '█' } else { '·' }).collect()
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
    let logged = scene.messages.iter().map(|message| {
        let times = if message.times > 1 { format!(" (x{})", message.times) } else { String::new() };
        let text = format!("{} {}{times}", message.time, message.text);
        Line::from(match message.level {
            Level::ERROR => text.red(),
            Level::WARN => text.yellow(),
            _ => text.into(),
        })
    });
    panes::messages(
        frame,
        area,
        "messages, newest first",
        panes::refusals(&scene.report).chain(logged).collect(),
    );
}

/// One line that tells all of it, for when nobody can watch a screen.
pub(super) fn plain(scene: &Scene) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let report = &scene.report;
    let stations = scene.station.iter().map(plain_station).chain(scene.dosing.iter().map(plain_dosing));
    let plant = scene.tanks.iter().map(plain_tank).chain(stations);
    let streams =
        report.streams.iter().map(|s| format!("{} {} rows {:.1}/s", s.name, s.rows, s.rate.per_s_10s));
    let rules = report.rules.iter().map(|rule| {
        let refused = panes::wrong(rule).map_or_else(String::new, |why| format!(" EDIT REFUSED: {why}"));
        format!("{} {} {} rows{refused}", rule.name, panes::version(rule), rule.rows)
    });
    let outputs = report
        .outputs
        .iter()
        .map(|o| format!("{} {} written {} failed", o.name, o.written, o.counts.values().sum::<u64>()));
    let uplinks = report.uplinks.iter().map(|u| {
        format!(", {} {}, {} delivered", u.name, if u.connected { "up" } else { "down" }, u.delivered)
    });
    let cloud = scene.cloud.map_or(String::new(), |cloud| format!(" | {}", describe_cloud(cloud)));
    format!(
        "{} plant: {} | streams: {} | rules: {} | outputs: {} | outbox: {} waiting {} dropped{}{cloud}",
        clock(scene.running_for),
        list(plant.collect()),
        list(streams.collect()),
        list(rules.collect()),
        list(outputs.collect()),
        report.buffer.waiting,
        report.buffer.counts.get("dropped").copied().unwrap_or(0),
        uplinks.collect::<String>(),
    )
}

fn plain_tank(tank: &Tank) -> String {
    let pump = if tank.pump_runs { "runs" } else { "off" };
    let gate = if tank.gate_open { "open" } else { "shut" };
    let fault = tank.fault.map_or(String::new(), |(fault, _)| format!(" ({})", fault.describe()));
    format!("{} {:.1} °C {:.0} % pump {pump} gate {gate}{fault}", tank.name, tank.temperature, tank.level)
}

fn plain_station(station: &Station) -> String {
    let pump = if station.run { "runs" } else { "off" };
    let fault = if station.is_tripped() { format!(" ({TRIPPED})") } else { String::new() };
    format!("booster {:.2} bar pump {pump} speed {:.0} %{fault}", station.pressure, station.speed)
}

fn plain_dosing(dosing: &Dosing) -> String {
    let fault = if dosing.is_empty() { format!(" ({EMPTY})") } else { String::new() };
    format!("dosing {:.2} kg speed {:.0} rpm{fault}", dosing.weight, dosing.speed)
}

fn clock(time: Duration) -> String {
    format!("{:02}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::BTreeMap;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::plant::{Plant, TankCommand};
    use super::super::recent::Message;
    use super::*;
    use crate::management::rates::Rate;
    use crate::management::report::{
        Buffer, Connection, Noted, Output, Report, Rule, Stream, Uplink, Version,
    };

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn noted(text: &str) -> Option<Noted> {
        Some(Noted { text: text.to_owned(), ..Noted::default() })
    }

    fn report() -> Report {
        let rate = Rate { per_s_10s: 24.0, ..Rate::default() };
        let newest = noted(r#"{"device":"tank1","temperature":81.2}"#);
        let stream = |name: &str| Stream { name: name.to_owned(), ..Stream::default() };
        let rule = |name: &str, number| Rule {
            name: name.to_owned(),
            version: Some(Version { number, ..Version::default() }),
            ..Rule::default()
        };
        let output = |name: &str| Output { name: name.to_owned(), ..Output::default() };
        let connection = |name: &str| Connection { name: name.to_owned(), ..Connection::default() };
        let refused =
            noted("rules/cooling.sql:12:8: unknown column `temprature`; did you mean `temperature`?");
        let pump = noted(r#"{"device":"tank1","run":true}"#);
        Report {
            streams: vec![
                stream("booster"),
                stream("drive"),
                stream("scale"),
                Stream { rows: 48, rate, newest, ..stream("tank") },
                stream("tank_stats"),
                stream(crate::system::connections::NAME),
            ],
            rules: vec![
                rule("alarms", 1),
                rule("booster", 1),
                Rule { rows: 7, refused, ..rule("cooling", 2) },
                rule("dosing", 1),
                rule("flow_display", 1),
                rule("outlet_gate", 1),
                Rule { counts: counts(&[("late", 3), ("left_out", 0)]), ..rule("statistics", 1) },
            ],
            outputs: vec![
                output("booster_pump"),
                Output {
                    written: 6,
                    counts: counts(&[("failed", 1)]),
                    newest: pump,
                    ..output("cooling_pump")
                },
                output("dosing_pump"),
                output("flow_display"),
                output("outlet_gate"),
            ],
            connections: vec![
                Connection { connected: true, ..connection("booster") },
                connection("cloud"),
                Connection { connected: true, ..connection("drive") },
                Connection { connected: true, counts: counts(&[("malformed", 5)]), ..connection("plant") },
                Connection { connected: true, ..connection("scale") },
            ],
            buffer: Buffer { waiting: 12, ..Buffer::default() },
            uplinks: vec![Uplink { name: "uplink".to_owned(), delivered: 30, ..Uplink::default() }],
            ..Report::default()
        }
    }

    fn filled() -> Scene {
        let mut plant = Plant::new(1);
        plant.command("tank1", TankCommand::Pump(true));
        plant.command("tank3", TankCommand::Gate(true));
        plant.cause_fault();
        let mut station = Station::new(1);
        (station.run, station.setpoint) = (true, 80.0);
        while !station.is_tripped() {
            station.step(0.125);
        }
        station.pressure = 4.567;
        let mut dosing = Dosing::new(1);
        dosing.command(true, 1_500.0);
        dosing.step(0.5);
        Scene {
            tanks: plant.tanks().to_vec(),
            station: Some(station),
            dosing: Some(dosing),
            cloud: Some(CloudState { up: false, until: None, received: 30 }),
            messages: vec![Message {
                level: Level::WARN,
                time: "12:34:56".to_owned(),
                text: "plant: a message is no JSON topic=plant/x".to_owned(),
                times: 4,
            }],
            rule_to_try: "tidegate-demo/rules/cooling.sql".to_owned(),
            running_for: Duration::from_secs(62),
            report: report(),
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
    fn everything_is_on_a_screen_of_80_by_30() {
        let screen = screen(&filled(), 80, 30);
        assert_in_order(
            line(&screen, " tidegate demo"),
            &["01:02", "q, Esc quit", "c cloud away/back", "f cause a fault"],
        );
        assert_in_order(line(&screen, " edit"), &["tidegate-demo/rules/cooling.sql", "80 -> 70"]);
        assert_in_order(
            line(&screen, "tank1"),
            &["76.0 °C", "████······  42 %", "420 l/min", "pump RUNS", "gate shut", "sensor stuck"],
        );
        assert_in_order(line(&screen, "tank3"), &["58.0 °C", "25 %", "pump off", "gate OPEN"]);
        assert_in_order(
            line(&screen, "booster"),
            &["4.57 bar", "speed       80 %", " A ", "pump RUNS", "motor tripped"],
        );
        assert_in_order(line(&screen, " streams"), &["cloud DOWN", "plant up, 5 malformed", "booster"]);
        assert_in_order(line(&screen, "tank "), &["48", "24.0/s", "tank1 temperature=81.2"]);
        assert_in_order(line(&screen, "tank_stats"), &["0", "0.0/s"]);
        // There is not a line for each rule, so two share one.
        assert_in_order(line(&screen, "alarms"), &["v1", "0", "flow_display", "v1", "0"]);
        assert_in_order(line(&screen, "cooling "), &["v2", "EDIT REFUSED", "statistics", "v1", "0 3 late"]);
        assert_in_order(line(&screen, "dosing "), &["12.40 kg", "speed   1500 rpm", "pump RUNS"]);
        assert_in_order(line(&screen, "booster_pump"), &["0", "0 failed"]);
        assert_in_order(line(&screen, "cooling_pump"), &["6", "1 failed", "tank1 run=true"]);
        assert_in_order(line(&screen, "outlet_gate "), &["0", "0 failed"]);
        assert_in_order(
            line(&screen, "12 waiting"),
            &["30 delivered", "uplink DOWN", "cloud AWAY until you press c; took 30"],
        );
        assert_in_order(line(&screen, "rule cooling"), &["refused: rules/cooling.sql:12:8: unknown column"]);
    }

    #[test]
    fn a_screen_of_80_by_24_says_how_much_is_not_on_it() {
        let screen = screen(&filled(), 80, 24);
        assert_in_order(line(&screen, " streams (2 more)"), &["cloud DOWN", "plant up, 5 malformed"]);
        line(&screen, " outputs (2 more)");
        assert_in_order(line(&screen, "dosing "), &["12.40 kg", "pump RUNS"]);
        assert_in_order(line(&screen, "cooling "), &["v2", "EDIT REFUSED"]);
        assert_in_order(line(&screen, "12 waiting"), &["30 delivered", "uplink DOWN"]);
        assert_in_order(line(&screen, "rule cooling"), &["refused: rules/cooling.sql:12:8"]);
    }

    #[test]
    fn a_larger_screen_has_room_for_all_messages() {
        let screen = screen(&filled(), 140, 40);
        assert_in_order(line(&screen, "cooling "), &["v2", "7", "EDIT REFUSED rules/cooling.sql:12:8"]);
        assert_in_order(line(&screen, "statistics"), &["v1", "0 3 late"]);
        assert_in_order(
            line(&screen, "rule cooling"),
            &["rules/cooling.sql:12:8: unknown column `temprature`; did you mean `temperature`?"],
        );
        assert_in_order(line(&screen, "12:34:56 plant: a message is no JSON"), &["topic=plant/x (x4)"]);
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
                ", booster 4.57 bar pump runs speed 80 % (motor tripped), dosing 12.40 kg speed",
                "1500 rpm | streams: booster 0 rows",
                "tank 48 rows 24.0/s",
                "cooling v2 7 rows EDIT REFUSED: rules/cooling.sql:12:8: unknown column",
                "cooling_pump 6 written 1 failed",
                "outbox: 12 waiting 0 dropped, uplink down, 30 delivered | cloud AWAY until you press c; \
                took 30",
            ],
        );
    }
}
