//! `tidegate buffer stats` for people.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::buffer::inspect::{Gaps, Journal, Moment, Outbox, Refused, Snapshots, Stats};
use crate::cli::render::printable;

/// What is in a buffer, in lines.
pub(super) fn text(stats: &Stats, now: Timestamp) -> String {
    let mut out = String::new();
    line(&mut out, "buffer", &format!("{}, layout {}", stats.path.display(), stats.layout));
    let (file, log, free) = (size(stats.file_bytes), size(stats.wal_bytes), size(stats.free_bytes));
    line(&mut out, "file", &format!("{file} ({free} of it free), write-ahead log {log}"));
    outbox(&mut out, &stats.outbox);
    refused(&mut out, &stats.refused);
    gaps(&mut out, &stats.gaps);
    match &stats.journal {
        Some(found) => journal(&mut out, found),
        None => line(&mut out, "journal", &format!("layout {} has none", stats.layout)),
    }
    match &stats.snapshots {
        Some(found) => snapshots(&mut out, found, now),
        None => line(&mut out, "snapshots", &format!("layout {} has none", stats.layout)),
    }
    out
}

fn outbox(out: &mut String, outbox: &Outbox) {
    let Outbox { rows, blocks, bytes, oldest, newest, rules } = outbox;
    if *blocks == 0 {
        return line(out, "waiting", "nothing");
    }
    line(out, "waiting", &format!("{} in {}, {}", counted(*rows, "row"), counted(*blocks, "block"), size(*bytes)));
    let moment = |moment: &Option<Moment>| {
        let time = moment.and_then(|moment| moment.wall_ns).map_or_else(String::new, |ns| format!(" of {}", time(ns)));
        moment.map_or_else(String::new, |moment| format!("{}{time}", moment.seq))
    };
    line(out, "", &format!("from row {} to row {}", moment(oldest), moment(newest)));
    let cells = rules.iter().map(|of| {
        [of.rule.clone(), grouped(of.rows), grouped(of.blocks), size(of.bytes), of.first_seq.to_string(), of.last_seq.to_string()]
    });
    table(out, ["RULE", "ROWS", "BLOCKS", "SIZE", "FIRST", "LAST"], [false, true, true, true, true, true], cells.collect());
}

fn refused(out: &mut String, refused: &[Refused]) {
    if refused.is_empty() {
        return line(out, "refused", "nothing");
    }
    let (rows, bytes) = (refused.iter().map(|of| of.rows).sum(), refused.iter().map(|of| of.bytes).sum());
    line(out, "refused", &format!("{}, {}", counted(rows, "row"), size(bytes)));
    let cells = refused.iter().map(|of| [of.rule.clone(), grouped(of.rows), size(of.bytes), time(of.wall_ns), of.reason.clone()]);
    table(out, ["RULE", "ROWS", "SIZE", "NEWEST", "REASON"], [false, true, true, false, false], cells.collect());
}

fn gaps(out: &mut String, gaps: &[Gaps]) {
    if gaps.is_empty() {
        return line(out, "dropped", "nothing that the uplink does not know of");
    }
    let (rows, records) = (gaps.iter().map(|of| of.rows).sum(), gaps.iter().map(|of| of.records).sum());
    line(out, "dropped", &format!("{} in {} for the uplink", counted(rows, "row"), counted(records, "record")));
    let cells = gaps.iter().map(|of| {
        let rows = if of.rows == 0 { "?".to_owned() } else { grouped(of.rows) };
        [of.rule.clone(), rows, of.first_seq.to_string(), of.last_seq.to_string(), time(of.wall_ns), of.reason.clone()]
    });
    table(out, ["RULE", "ROWS", "FIRST", "LAST", "NEWEST", "REASON"], [false, true, true, true, false, false], cells.collect());
}

fn journal(out: &mut String, journal: &Journal) {
    let (Some(oldest), Some(newest)) = (journal.oldest_ns, journal.newest_ns) else { return line(out, "journal", "nothing") };
    let (rows, entries) = (counted(journal.rows, "row"), counted_as(journal.entries, "entry", "entries"));
    let edits = counted_as(journal.edits, "change of the rules", "changes of the rules");
    line(out, "journal", &format!("{rows} in {entries} ({edits}), {}", size(journal.bytes)));
    line(out, "", &format!("from {} to {}", time(oldest), time(newest)));
    let cells = journal
        .streams
        .iter()
        .map(|of| [of.stream.clone(), grouped(of.rows), grouped(of.entries), size(of.bytes), time(of.oldest_ns), time(of.newest_ns)]);
    table(out, ["STREAM", "ROWS", "ENTRIES", "SIZE", "OLDEST", "NEWEST"], [false, true, true, true, false, false], cells.collect());
}

fn snapshots(out: &mut String, snapshots: &Snapshots, now: Timestamp) {
    let (Some(entry), Some(wall_ns)) = (snapshots.entry, snapshots.wall_ns) else { return line(out, "snapshots", "none") };
    line(out, "snapshots", &format!("{}, {} of state", snapshots.count, size(snapshots.bytes)));
    line(
        out,
        "",
        &format!("newest after journal entry {entry}, {} ({} old)", time(wall_ns), age(now.as_nanosecond() - i128::from(wall_ns))),
    );
    let cells = snapshots.rules.iter().map(|of| [of.rule.clone(), grouped(of.parts), size(of.bytes)]);
    table(out, ["RULE", "PARTS", "SIZE"], [false, true, true], cells.collect());
}

fn line(out: &mut String, head: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{head:10}{text}");
}

/// Columns as wide as what is in them; those of `right` are numbers.
fn table<const N: usize>(out: &mut String, heads: [&str; N], right: [bool; N], rows: Vec<[String; N]>) {
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|cells| cells.map(|cell| printable(&cell))));
    let mut widths = [0; N];
    for cells in &lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }
    for cells in &lines {
        let mut text = String::new();
        for ((cell, width), right) in cells.iter().zip(widths).zip(right) {
            let _ = if right { write!(text, "  {cell:>width$}") } else { write!(text, "  {cell:width$}") };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}

/// "1 row", "2 rows"
pub(super) fn counted(count: u64, what: &str) -> String {
    counted_as(count, what, &format!("{what}s"))
}

pub(super) fn counted_as(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// "12 345 678"
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// "1.2 MiB": two digits at least.
pub(super) fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let tenths = bytes.saturating_mul(10) >> shift;
        if tenths >= 100 {
            return format!("{} {unit}", tenths / 10);
        }
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// RFC 3339, to the second.
fn time(ns: i64) -> String {
    Timestamp::from_second(ns.div_euclid(1_000_000_000)).map_or_else(|_| format!("{ns} ns"), |time| time.to_string())
}

/// The largest unit is enough.
fn age(ns: i128) -> String {
    let seconds = (ns / 1_000_000_000).max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        let sizes = [0, 1023, 1024, 10 << 10, (1 << 20) - 1, 3 << 29, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1023 KiB", "1.5 GiB", "1717986918 GiB"]);
        assert_eq!([-5, 119, 120, 7_200, 172_800].map(|s| age(s * 1_000_000_000)), ["0 s", "119 s", "2 min", "2 h", "2 d"]);
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!([counted(1, "row"), counted(0, "row")], ["1 row", "0 rows"]);
    }
}
