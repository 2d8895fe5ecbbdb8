//! `tidegate status`: how a running box is.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use super::connect;
use crate::cli::args::StatusArgs;
use crate::cli::table::{age, counted, cut, grouped, size, table};
use crate::cli::{Failure, print};
use crate::management::command::status::Status;
use crate::management::report::{Buffer, Noted, Report, Rule, Stream, unanswered};

/// What is longer is cut on a terminal.
const NAME: usize = 22;
/// Where a paragraph begins.
const INDENT: usize = 10;
/// What has no room for so much beside it goes below.
const LEAST: usize = 24;

/// Prints how the box is.
///
/// # Errors
/// When no box answers, or something needs a person.
pub fn status(args: StatusArgs) -> Result<(), Failure> {
    let Some(report) = connect(args.config)?.ask(&Status {}, |()| true)? else { return Ok(()) };
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&text(&report, terminal_width()))?;
    }
    if report.attention.is_empty() { Ok(()) } else { Err(Failure::NeedsAPerson) }
}

/// How wide the terminal is; none: standard output is none, and lines are as long as they are.
fn terminal_width() -> Option<usize> {
    std::io::stdout().is_terminal().then(|| columns().filter(|columns| *columns > 0).unwrap_or(80).max(40))
}

/// Some serial consoles do not know.
#[cfg(feature = "screen")]
fn columns() -> Option<usize> {
    ratatui::crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns))
}

#[cfg(not(feature = "screen"))]
fn columns() -> Option<usize> {
    None
}

/// Text that is folded to a width, if there is one.
struct Folded {
    text: String,
    width: Option<usize>,
}

/// How a box is, for people.
fn text(report: &Report, width: Option<usize>) -> String {
    let about = &report.about;
    let up = age(i128::from(about.up_s) * 1_000_000_000);
    let mut out = Folded { text: String::new(), width };
    let state = format!(
        "{}, tidegate {}, {} for {up} (process {})",
        about.name, about.version, about.state, about.pid
    );
    out.paragraph("box", &state);
    out.paragraph("config", &about.config);
    report.attention.iter().for_each(|sentence| out.paragraph("NEEDS YOU", sentence));
    connections(&mut out, report);
    streams(&mut out, &report.streams);
    if report.rules.is_empty() {
        out.text.push('\n');
        out.paragraph("RULE", &format!("no rules: there is none in {}", about.rules_dir));
    }
    rules(&mut out, &report.rules);
    outputs(&mut out, report);
    uplinks(&mut out, report);
    out.text.push('\n');
    buffer(&mut out, &report.buffer);
    out.text.push_str("\n`--json` tells all of it; `tidegate tail NAME` shows rows as they pass\n");
    out.text
}

fn connections(out: &mut Folded, report: &Report) {
    let cells = report.connections.iter().map(|line| {
        let lasting = line
            .for_s
            .map_or_else(String::new, |seconds| format!(" {}", age(i128::from(seconds) * 1_000_000_000)));
        let state = if line.connected { "up" } else { "DOWN" };
        let mut also = also(&line.counts);
        if let Some(error) = line.last_error.as_ref().filter(|_| line.connected) {
            also.push(said(error));
        }
        also.extend((!line.parked.is_empty()).then(|| unanswered(&line.parked)));
        [out.name(&line.name), format!("{state}{lasting}"), grouped(line.messages), also.join(", ")]
    });
    out.section(["CONNECTION", "STATE", "MESSAGES", "BESIDES"], [false, false, true, false], cells.collect());
}

fn streams(out: &mut Folded, streams: &[Stream]) {
    let cells = streams.iter().map(|stream| {
        let behind = stream.watermark_behind_ms.map_or_else(String::new, |ms| match ms {
            ..-1_000 => format!("{} ahead", age_ms(ms.unsigned_abs())),
            _ => format!("{} ago", age_ms(u64::try_from(ms).unwrap_or(0))),
        });
        let mut also = also(&stream.counts);
        also.extend(stream.unseen.as_ref().map(|columns| format!("never a value: {columns}")));
        [
            out.name(&stream.name),
            grouped(stream.rows),
            rate(stream.rate.per_s_10s),
            newest(&stream.newest),
            behind,
            also.join(", "),
        ]
    });
    let heads = ["STREAM", "ROWS", "A SECOND", "NEWEST", "WATERMARK", "BESIDES"];
    out.section(heads, [false, true, true, true, true, false], cells.collect());
}

fn rules(out: &mut Folded, rules: &[Rule]) {
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
        [out.name(&rule.name), state, lasting, grouped(rule.rows), newest(&rule.newest), also.join(", ")]
    });
    let heads = ["RULE", "RUNS", "FOR", "ROWS", "NEWEST", "BESIDES"];
    out.section(heads, [false, false, true, true, true, false], cells.collect());
}

fn outputs(out: &mut Folded, report: &Report) {
    let cells = report.outputs.iter().map(|output| {
        let mut also = also(&output.counts);
        let marked = [(output.overridden, "overridden"), (output.tripped, "tripped")];
        also.extend(marked.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        also.extend(output.does.clone());
        also.extend(output.last_error.as_ref().map(said));
        [
            out.name(&output.name),
            grouped(output.written),
            rate(output.rate.per_s_10s),
            newest(&output.newest),
            also.join(", "),
        ]
    });
    out.section(
        ["OUTPUT", "WRITTEN", "A SECOND", "NEWEST", "BESIDES"],
        [false, true, true, true, false],
        cells.collect(),
    );
}

fn uplinks(out: &mut Folded, report: &Report) {
    let cells = report.uplinks.iter().map(|uplink| {
        let state = if uplink.connected { "up" } else { "DOWN" };
        let mut also = also(&uplink.counts);
        also.extend(uplink.last_error.as_ref().map(said));
        [
            out.name(&uplink.name),
            state.to_owned(),
            grouped(uplink.delivered),
            rate(uplink.rate.per_s_10s),
            also.join(", "),
        ]
    });
    out.section(
        ["UPLINK", "STATE", "DELIVERED", "A SECOND", "BESIDES"],
        [false, false, true, true, false],
        cells.collect(),
    );
}

fn buffer(out: &mut Folded, buffer: &Buffer) {
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
    out.paragraph("buffer", &text);
}

/// What was counted besides, as far as there was any.
fn also(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let counts = counts.iter().filter(|(_, count)| **count > 0);
    counts.map(|(name, count)| format!("{} {}", grouped(*count), name.replace('_', " "))).collect()
}

fn said(error: &Noted) -> String {
    format!("{} ago: {}", age_ms(error.ago_ms), error.text)
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

impl Folded {
    /// A name, which is cut where a line is short: `--json` has it.
    fn name(&self, name: &str) -> String {
        cut(name, if self.width.is_some() { NAME } else { usize::MAX })
    }

    /// A table. What is too long in its last column goes on below.
    fn section<const N: usize>(&mut self, heads: [&str; N], right: [bool; N], cells: Vec<[String; N]>) {
        let mut text = String::new();
        table(&mut text, heads, right, cells);
        let Some(head) = text.lines().next() else { return };
        let last = heads.last().map_or(0, |head| head.chars().count());
        let indent = head.chars().count().saturating_sub(last + 2);
        self.text.push('\n');
        text.lines().for_each(|line| self.line(line.strip_prefix("  ").unwrap_or(line), indent));
    }

    /// Text behind its head.
    fn paragraph(&mut self, head: &str, text: &str) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.line(&format!("{head:INDENT$}{}", cut(&text, usize::MAX)), INDENT);
    }

    /// A line, in as many as it takes; those that follow are indented.
    fn line(&mut self, line: &str, indent: usize) {
        let width = self.width.unwrap_or(usize::MAX);
        let indent = if indent + LEAST > width { INDENT } else { indent };
        let mut rest: Vec<char> = line.chars().collect();
        while rest.len() > width {
            // A word that is too long for a line goes over its end.
            let at = |chars: &[char], from: usize| {
                let words = chars.iter().enumerate().skip(from).filter(|(_, c)| **c == ' ');
                words.map(|(at, _)| at).collect::<Vec<_>>()
            };
            let spaces = at(&rest, indent + 1);
            let Some(end) = spaces.iter().rfind(|at| **at <= width).or(spaces.first()).copied() else {
                break;
            };
            let more = rest.split_off(end);
            self.push(&rest);
            rest = vec![' '; indent];
            rest.extend(more.into_iter().skip_while(|c| *c == ' '));
        }
        self.push(&rest);
    }

    fn push(&mut self, line: &[char]) {
        let line: String = line.iter().collect();
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
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
                does: Some("run=false  override: bearing (ann)".to_owned()),
                overridden: 1,
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

    /// Without the places at which lines were folded.
    fn flat(shown: &str) -> String {
        shown.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_box_is_told_on_a_terminal_of_80_columns() {
        let expected = "\
box       pump-house-3, tidegate 0.1.0, runs for 3 h (process 4711)
config    /etc/tidegate/tidegate.toml
NEEDS YOU rule cooling: rules/cooling.sql:12:8: there is no column temprature;
          did you mean temperature? (the version before runs on)
";
        let shown = text(&report(), Some(80));
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
        in_order("plant", &["up 60 min", "1 234 567", "5 malformed, 1 reconnects"]);
        in_order("tank", &["1 234 562", "24.0", "0 s ago", "1 s ago"]);
        in_order("a_stream_with_quite_a…", &["0", "0.0", "-"]);
        in_order("cooling ", &["v3", "5 min", "12", "61 s ago", "keeps 2.0 KiB"]);
        in_order("trial", &["v1 shadow", "7 late"]);
        in_order("later", &["waits", "for meas"]);
        in_order("cooling_pump", &["11", "1 failed", "1 overridden"]);
        assert!(
            flat(&shown).contains("run=false override: bearing (ann), 61 s ago: not authorized"),
            "{shown}"
        );
        in_order("uplink", &["DOWN", "30"]);
        in_order("buffer", &["1 row wait (512 B of 1.0 GiB)", "1 200 commits"]);
        assert!(shown.contains("2 760 MiB"), "{shown}");
        assert!(
            flat(&shown)
                .contains("61 min ago: the broker closed the connection, for a reason that takes some words")
        );
        assert!(shown.ends_with("`tidegate tail NAME` shows rows as they pass\n"));
    }

    #[test]
    fn nothing_is_cut_or_folded_where_there_is_no_terminal() {
        let shown = text(&report(), None);
        let line = |head: &str| shown.lines().find(|line| line.starts_with(head)).unwrap();
        assert!(
            line("plant").ends_with(
                "61 min ago: the broker closed the connection, for a reason that takes some words"
            )
        );
        assert!(line("NEEDS YOU").ends_with("(the version before runs on)"));
        assert!(shown.contains("a_stream_with_quite_a_long_name"));
    }

    #[test]
    fn a_box_without_rules_says_so() {
        let about = About { rules_dir: "/etc/tidegate/rules".to_owned(), ..report().about };
        let shown = text(&Report { about, rules: Vec::new(), ..report() }, Some(80));
        assert!(shown.contains("\nRULE      no rules: there is none in /etc/tidegate/rules\n"), "{shown}");
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
