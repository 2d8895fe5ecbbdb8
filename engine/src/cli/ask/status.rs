//! `tidegate status`: how a running box is.

use std::collections::BTreeMap;

use super::connect;
use crate::cli::args::StatusArgs;
use crate::cli::table::{age, counted, cut, grouped, size, table};
use crate::cli::{Failure, print};
use crate::management::command::status::Status;
use crate::management::report::{Buffer, Noted, Report, Rule, Stream};

/// A table has no more columns than that.
const WIDTH: usize = 80;
/// What is longer is cut: `--json` has it.
const NAME: usize = 22;

/// Prints how the box is.
///
/// # Errors
/// When no box answers, or something needs a person.
pub fn status(args: StatusArgs) -> Result<(), Failure> {
    let Some(report) = connect(args.config)?.ask(&Status {}, |()| true)? else { return Ok(()) };
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&text(&report))?;
    }
    if report.attention.is_empty() { Ok(()) } else { Err(Failure::NeedsAPerson) }
}

/// How a box is, for people, on a terminal of 80 columns.
fn text(report: &Report) -> String {
    let about = &report.about;
    let up = age(i128::from(about.up_s) * 1_000_000_000);
    let mut out = String::new();
    let state = format!(
        "{}, tidegate {}, {} for {up} (process {})",
        about.name, about.version, about.state, about.pid
    );
    paragraph(&mut out, "box", &state);
    paragraph(&mut out, "config", &about.config);
    report.attention.iter().for_each(|sentence| paragraph(&mut out, "NEEDS YOU", sentence));
    connections(&mut out, report);
    streams(&mut out, &report.streams);
    rules(&mut out, &report.rules);
    outputs(&mut out, report);
    uplinks(&mut out, report);
    out.push('\n');
    buffer(&mut out, &report.buffer);
    out.push_str("\n`--json` tells all of it; `tidegate tail NAME` shows rows as they pass\n");
    out
}

fn connections(out: &mut String, report: &Report) {
    let cells = report.connections.iter().map(|line| {
        let lasting = line
            .for_s
            .map_or_else(String::new, |seconds| format!(" {}", age(i128::from(seconds) * 1_000_000_000)));
        let state = if line.connected { "up" } else { "DOWN" };
        let mut also = also(&line.counts);
        if let Some(error) = line.last_error.as_ref().filter(|_| line.connected) {
            also.push(format!("{} ago: {}", age_ms(error.ago_ms), error.text));
        }
        [cut(&line.name, NAME), format!("{state}{lasting}"), grouped(line.messages), also.join(", ")]
    });
    section(
        out,
        ["CONNECTION", "STATE", "MESSAGES", "BESIDES"],
        [false, false, true, false],
        cells.collect(),
    );
}

fn streams(out: &mut String, streams: &[Stream]) {
    let cells = streams.iter().map(|stream| {
        let behind = stream.watermark_behind_ms.map_or_else(String::new, |ms| match ms {
            ..-1_000 => format!("{} ahead", age_ms(ms.unsigned_abs())),
            _ => format!("{} ago", age_ms(u64::try_from(ms).unwrap_or(0))),
        });
        let also = also(&stream.counts).join(", ");
        [
            cut(&stream.name, NAME),
            grouped(stream.rows),
            rate(stream.rate.per_s_10s),
            newest(&stream.newest),
            behind,
            also,
        ]
    });
    let heads = ["STREAM", "ROWS", "A SECOND", "NEWEST", "WATERMARK", "BESIDES"];
    section(out, heads, [false, true, true, true, true, false], cells.collect());
}

fn rules(out: &mut String, rules: &[Rule]) {
    let cells = rules.iter().map(|rule| {
        let (state, lasting) = match &rule.version {
            Some(version) => {
                let shadow = if rule.state == "shadow" { " shadow" } else { "" };
                (format!("v{}{shadow}", version.number), age(i128::from(version.for_s) * 1_000_000_000))
            }
            None => (rule.state.clone(), String::new()),
        };
        let mut also = also(&rule.counts);
        also.extend(rule.waits_for.as_ref().map(|what| format!("for {what}")));
        also.extend((rule.state_bytes > 0).then(|| format!("keeps {}", size(rule.state_bytes))));
        [cut(&rule.name, NAME), state, lasting, grouped(rule.rows), newest(&rule.newest), also.join(", ")]
    });
    let heads = ["RULE", "RUNS", "FOR", "ROWS", "NEWEST", "BESIDES"];
    section(out, heads, [false, false, true, true, true, false], cells.collect());
}

fn outputs(out: &mut String, report: &Report) {
    let cells = report.outputs.iter().map(|output| {
        let mut also = also(&output.counts);
        also.extend(
            output.last_error.as_ref().map(|error| format!("{} ago: {}", age_ms(error.ago_ms), error.text)),
        );
        [
            cut(&output.name, NAME),
            grouped(output.written),
            rate(output.rate.per_s_10s),
            newest(&output.newest),
            also.join(", "),
        ]
    });
    section(
        out,
        ["OUTPUT", "WRITTEN", "A SECOND", "NEWEST", "BESIDES"],
        [false, true, true, true, false],
        cells.collect(),
    );
}

fn uplinks(out: &mut String, report: &Report) {
    let cells = report.uplinks.iter().map(|uplink| {
        let state = if uplink.connected { "up" } else { "DOWN" };
        let also = also(&uplink.counts).join(", ");
        [
            cut(&uplink.name, NAME),
            state.to_owned(),
            grouped(uplink.delivered),
            rate(uplink.rate.per_s_10s),
            also,
        ]
    });
    section(
        out,
        ["UPLINK", "STATE", "DELIVERED", "A SECOND", "BESIDES"],
        [false, false, true, true, false],
        cells.collect(),
    );
}

fn buffer(out: &mut String, buffer: &Buffer) {
    let (bytes, max) = (size(buffer.bytes), size(buffer.max_bytes));
    let mut text = format!(
        "{} wait ({bytes} of {max}), journal {}",
        counted(buffer.waiting, "row"),
        size(buffer.journal_bytes)
    );
    text.push_str(&format!("; {}", counted(buffer.commits, "commit")));
    if let Some(dropped) = buffer.counts.get("dropped").filter(|dropped| **dropped > 0) {
        text.push_str(&format!("; {} DROPPED", counted(*dropped, "row")));
    }
    if let Some(mib) = buffer.disk_mib_a_day {
        text.push_str(&format!("; {} MiB a day on the disk", grouped(mib)));
    }
    paragraph(out, "buffer", &text);
}

/// What was counted besides, as far as there was any.
fn also(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    counts.map(|(name, count)| format!("{} {}", grouped(*count), name.replace('_', " "))).collect()
}

fn newest(noted: &Option<Noted>) -> String {
    noted.as_ref().map_or_else(|| "-".to_owned(), |noted| format!("{} ago", age_ms(noted.ago_ms)))
}

fn rate(rate: f64) -> String {
    format!("{rate:.1}")
}

fn age_ms(ms: u64) -> String {
    age(i128::from(ms) * 1_000_000)
}

/// A table, no wider than the terminal.
fn section<const N: usize>(out: &mut String, heads: [&str; N], right: [bool; N], cells: Vec<[String; N]>) {
    let mut text = String::new();
    table(&mut text, heads, right, cells);
    if !text.is_empty() {
        out.push('\n');
    }
    for line in text.lines() {
        out.push_str(&cut(line.strip_prefix("  ").unwrap_or(line), WIDTH));
        out.push('\n');
    }
}

/// Text behind its head, in as many lines as it takes.
fn paragraph(out: &mut String, head: &str, text: &str) {
    const INDENT: usize = 10;
    let mut line = format!("{head:INDENT$}");
    for word in text.split_whitespace() {
        let is_full = line.chars().count() + word.chars().count() + 1 > WIDTH && line.trim().len() > 1;
        if is_full && line.chars().count() > INDENT {
            out.push_str(&cut(line.trim_end(), usize::MAX));
            out.push('\n');
            line = " ".repeat(INDENT);
        }
        if line.chars().count() > INDENT {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&cut(line.trim_end(), usize::MAX));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::rates::Rate;
    use crate::management::report::{About, Connection, Output, Uplink, Version};

    fn named(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn noted(text: &str, ago_ms: u64) -> Option<Noted> {
        Some(Noted { text: text.to_owned(), ago_ms, ..Noted::default() })
    }

    fn report() -> Report {
        let about = About {
            name: "pump-house-3".to_owned(),
            version: "0.1.0".to_owned(),
            state: "runs".to_owned(),
            pid: 4_711,
            config: "/etc/tidegate/tidegate.toml".to_owned(),
            up_s: 10_800,
            ..About::default()
        };
        let attention = "rule cooling: rules/cooling.sql:12:8: there is no column temprature; did you mean \
            temperature? (the version before runs on)";
        let rate = Rate { per_s_10s: 24.0, per_s_60s: 23.9 };
        let version = |number| Some(Version { number, for_s: 300, ..Version::default() });
        Report {
            about,
            attention: vec![attention.to_owned()],
            connections: vec![Connection {
                name: "plant".to_owned(),
                connected: true,
                for_s: Some(3_600),
                messages: 1_234_567,
                counts: named(&[("malformed", 5), ("reconnects", 1), ("dropped", 0)]),
                last_error: noted(
                    "the broker closed the connection, for a reason that takes some words",
                    3_700_000,
                ),
                ..Connection::default()
            }],
            streams: vec![
                Stream {
                    name: "tank".to_owned(),
                    rows: 1_234_562,
                    rate,
                    newest: noted("{}", 40),
                    watermark_behind_ms: Some(1_500),
                    ..Stream::default()
                },
                Stream { name: "a_stream_with_quite_a_long_name".to_owned(), ..Stream::default() },
            ],
            rules: vec![
                Rule {
                    name: "cooling".to_owned(),
                    state: "runs".to_owned(),
                    version: version(3),
                    rows: 12,
                    newest: noted("{}", 61_000),
                    state_bytes: 2_048,
                    ..Rule::default()
                },
                Rule {
                    name: "trial".to_owned(),
                    state: "shadow".to_owned(),
                    version: version(1),
                    counts: named(&[("late", 7)]),
                    ..Rule::default()
                },
                Rule {
                    name: "later".to_owned(),
                    state: "waits".to_owned(),
                    waits_for: Some("meas".to_owned()),
                    ..Rule::default()
                },
            ],
            outputs: vec![Output {
                name: "cooling_pump".to_owned(),
                written: 11,
                counts: named(&[("failed", 1)]),
                last_error: noted("not authorized", 61_000),
                newest: noted("{}", 61_000),
                ..Output::default()
            }],
            uplinks: vec![Uplink { name: "uplink".to_owned(), delivered: 30, ..Uplink::default() }],
            buffer: Buffer {
                waiting: 1,
                bytes: 512,
                max_bytes: 1 << 30,
                commits: 1_200,
                disk_mib_a_day: Some(2_760),
                ..Buffer::default()
            },
        }
    }

    #[test]
    fn a_box_is_told_on_a_terminal_of_80_columns() {
        let expected = "\
box       pump-house-3, tidegate 0.1.0, runs for 3 h (process 4711)
config    /etc/tidegate/tidegate.toml
NEEDS YOU rule cooling: rules/cooling.sql:12:8: there is no column temprature;
          did you mean temperature? (the version before runs on)
";
        let shown = text(&report());
        assert!(shown.starts_with(expected), "{shown}");
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let in_order = |head: &str, parts: &[&str]| {
            let line = shown
                .lines()
                .find(|line| line.starts_with(head))
                .unwrap_or_else(|| panic!("no {head} in\n{shown}"));
            let mut rest = line;
            for part in parts {
                rest = rest.split_once(part).unwrap_or_else(|| panic!("no {part} in its place in {line}")).1;
            }
        };
        in_order("plant", &["up 60 min", "1 234 567", "5 malformed, 1 reconnects", "61 min ago"]);
        in_order("tank", &["1 234 562", "24.0", "0 s ago", "1 s ago"]);
        in_order("a_stream_with_quite_a…", &["0", "0.0", "-"]);
        in_order("cooling ", &["v3", "5 min", "12", "61 s ago", "keeps 2.0 KiB"]);
        in_order("trial", &["v1 shadow", "7 late"]);
        in_order("later", &["waits", "for meas"]);
        in_order("cooling_pump", &["11", "1 failed", "61 s ago: not authorized"]);
        in_order("uplink", &["DOWN", "30"]);
        in_order("buffer", &["1 row wait (512 B of 1.0 GiB)", "1 200 commits"]);
        assert!(shown.contains("2 760 MiB"), "{shown}");
        assert!(shown.ends_with("`tidegate tail NAME` shows rows as they pass\n"));
    }

    #[test]
    fn a_report_comes_back_from_json_as_it_was() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        // An older box says less.
        assert_eq!(serde_json::from_str::<Report>("{}").unwrap(), Report::default());
    }
}
