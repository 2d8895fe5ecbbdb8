//! `tidegate buffer stats` for people.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::buffer::inspect::{Decided, Gaps, Journal, Moment, Outbox, Refused, Snapshots, Stats};
use crate::cli::table::{age, counted, counted_as, grouped, size, table};

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
    match &stats.decisions {
        Some(found) => decisions(&mut out, found),
        None => line(&mut out, "decisions", &format!("layout {} has none", stats.layout)),
    }
    out
}

fn outbox(out: &mut String, outbox: &Outbox) {
    let Outbox { rows, blocks, bytes, oldest, newest, corrected_rows, rules } = outbox;
    if *blocks == 0 {
        return line(out, "waiting", "nothing");
    }
    line(
        out,
        "waiting",
        &format!("{} in {}, {}", counted(*rows, "row"), counted(*blocks, "block"), size(*bytes)),
    );
    let moment = |moment: &Option<Moment>| {
        let time = moment
            .and_then(|moment| moment.wall_ns)
            .map_or_else(String::new, |ns| format!(" of {}", time(ns)));
        moment.map_or_else(String::new, |moment| format!("{}{time}", moment.seq))
    };
    line(out, "", &format!("from row {} to row {}", moment(oldest), moment(newest)));
    corrected(out, *corrected_rows);
    let cells = rules.iter().map(|of| {
        [
            of.rule.clone(),
            grouped(of.rows),
            grouped(of.blocks),
            size(of.bytes),
            of.first_seq.to_string(),
            of.last_seq.to_string(),
        ]
    });
    table(
        out,
        ["RULE", "ROWS", "BLOCKS", "SIZE", "FIRST", "LAST"],
        [false, true, true, true, true, true],
        cells.collect(),
    );
}

fn corrected(out: &mut String, rows: u64) {
    if rows > 0 {
        line(
            out,
            "",
            &format!("times of {} are corrected: the clock was set afterwards", counted(rows, "row")),
        );
    }
}

fn refused(out: &mut String, refused: &[Refused]) {
    if refused.is_empty() {
        return line(out, "refused", "nothing");
    }
    let (rows, bytes) = (refused.iter().map(|of| of.rows).sum(), refused.iter().map(|of| of.bytes).sum());
    line(out, "refused", &format!("{}, {}", counted(rows, "row"), size(bytes)));
    let cells = refused
        .iter()
        .map(|of| [of.rule.clone(), grouped(of.rows), size(of.bytes), time(of.wall_ns), of.reason.clone()]);
    table(
        out,
        ["RULE", "ROWS", "SIZE", "NEWEST", "REASON"],
        [false, true, true, false, false],
        cells.collect(),
    );
}

fn gaps(out: &mut String, gaps: &[Gaps]) {
    if gaps.is_empty() {
        return line(out, "dropped", "nothing that the uplink does not know of");
    }
    let (rows, records) = (gaps.iter().map(|of| of.rows).sum(), gaps.iter().map(|of| of.records).sum());
    line(
        out,
        "dropped",
        &format!("{} in {} for the uplink", counted(rows, "row"), counted(records, "record")),
    );
    let cells = gaps.iter().map(|of| {
        let rows = if of.rows == 0 { "?".to_owned() } else { grouped(of.rows) };
        [
            of.rule.clone(),
            rows,
            of.first_seq.to_string(),
            of.last_seq.to_string(),
            time(of.wall_ns),
            of.reason.clone(),
        ]
    });
    table(
        out,
        ["RULE", "ROWS", "FIRST", "LAST", "NEWEST", "REASON"],
        [false, true, true, true, false, false],
        cells.collect(),
    );
}

fn journal(out: &mut String, journal: &Journal) {
    let (Some(oldest), Some(newest)) = (journal.oldest_ns, journal.newest_ns) else {
        return line(out, "journal", "nothing");
    };
    let (rows, entries) = (counted(journal.rows, "row"), counted_as(journal.entries, "entry", "entries"));
    let edits = counted_as(journal.edits, "change of the rules", "changes of the rules");
    line(out, "journal", &format!("{rows} in {entries} ({edits}), {}", size(journal.bytes)));
    line(out, "", &format!("from {} to {}", time(oldest), time(newest)));
    corrected(out, journal.corrected_rows);
    let cells = journal.streams.iter().map(|of| {
        [
            of.stream.clone(),
            grouped(of.rows),
            grouped(of.entries),
            size(of.bytes),
            time(of.oldest_ns),
            time(of.newest_ns),
        ]
    });
    table(
        out,
        ["STREAM", "ROWS", "ENTRIES", "SIZE", "OLDEST", "NEWEST"],
        [false, true, true, true, false, false],
        cells.collect(),
    );
}

fn snapshots(out: &mut String, snapshots: &Snapshots, now: Timestamp) {
    let (Some(entry), Some(wall_ns)) = (snapshots.entry, snapshots.wall_ns) else {
        return line(out, "snapshots", "none");
    };
    line(out, "snapshots", &format!("{}, {} of state", snapshots.count, size(snapshots.bytes)));
    line(
        out,
        "",
        &format!(
            "newest after journal entry {entry}, {} ({} old)",
            time(wall_ns),
            age(now.as_nanosecond() - i128::from(wall_ns))
        ),
    );
    let cells = snapshots.rules.iter().map(|of| [of.rule.clone(), grouped(of.parts), size(of.bytes)]);
    table(out, ["RULE", "PARTS", "SIZE"], [false, true, true], cells.collect());
}

fn decisions(out: &mut String, decided: &[Decided]) {
    let count = |of: &Decided, kind: &str| of.verdicts.get(kind).copied().unwrap_or(0);
    let all: u64 = decided.iter().flat_map(|of| of.verdicts.values()).sum();
    if all == 0 {
        return line(out, "decisions", "none");
    }
    let (outputs, bytes) = (counted(decided.len() as u64, "output"), decided.iter().map(|of| of.bytes).sum());
    line(out, "decisions", &format!("{} about {outputs}, {}", grouped(all), size(bytes)));
    let cells = decided.iter().map(|of| {
        let [sent, held, refused, answered] =
            ["sent", "held", "refused", "answered"].map(|kind| grouped(count(of, kind)));
        let [oldest, newest] = [of.oldest_ns, of.newest_ns].map(|ns| ns.map_or_else(String::new, time));
        [of.output.clone(), sent, held, refused, answered, size(of.bytes), oldest, newest]
    });
    table(
        out,
        ["OUTPUT", "SENT", "HELD", "REFUSED", "ANSWERED", "SIZE", "OLDEST", "NEWEST"],
        [false, true, true, true, true, true, false, false],
        cells.collect(),
    );
}

fn line(out: &mut String, head: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{head:10}{text}");
}

/// RFC 3339, to the second.
fn time(ns: i64) -> String {
    Timestamp::from_second(ns.div_euclid(1_000_000_000))
        .map_or_else(|_| format!("{ns} ns"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::buffer::inspect::{RuleRows, State, StreamRows};

    const NS: i64 = 1_000_000_000;

    #[test]
    fn all_that_can_be_in_a_buffer_is_shown() {
        let noon = 1_772_366_400 * NS;
        let (level, odd) = ("level".to_owned(), "odd\x1b[2J".to_owned());
        let rules = vec![
            RuleRows {
                rule: level.clone(),
                rows: 1_200,
                blocks: 12,
                bytes: 40_000,
                first_seq: 5,
                last_seq: 4_294_967_296,
            },
            RuleRows { rule: odd.clone(), rows: 1, blocks: 1, bytes: 500, first_seq: 7, last_seq: 7 },
        ];
        let oldest = Some(Moment { seq: 5, wall_ns: None });
        let newest = Some(Moment { seq: 4_294_967_296, wall_ns: Some(noon) });
        let gap = Gaps {
            rule: "*".into(),
            reason: "buffer damaged".into(),
            records: 1,
            last_seq: 99,
            wall_ns: noon,
            ..Gaps::default()
        };
        let stream = StreamRows {
            stream: "tank".into(),
            entries: 40,
            rows: 4_000,
            bytes: 90_000,
            oldest_ns: noon - NS,
            newest_ns: noon,
        };
        let stats = Stats {
            path: "/var/lib/tidegate/buffer.db".into(),
            layout: 2,
            file_bytes: 3 << 20,
            wal_bytes: 4_152,
            free_bytes: 8_192,
            outbox: Outbox {
                rows: 1_201,
                blocks: 13,
                bytes: 40_500,
                oldest,
                newest,
                corrected_rows: 1_200,
                rules,
            },
            refused: vec![Refused {
                rule: odd,
                reason: "too large".into(),
                rows: 2,
                blocks: 1,
                bytes: 2_048,
                wall_ns: noon,
            }],
            gaps: vec![gap],
            journal: Some(Journal {
                entries: 41,
                rows: 4_000,
                bytes: 90_100,
                edits: 1,
                corrected_rows: 1,
                oldest_ns: Some(noon - NS),
                newest_ns: Some(noon),
                streams: vec![stream],
            }),
            snapshots: Some(Snapshots {
                count: 2,
                entry: Some(39),
                wall_ns: Some(noon),
                bytes: 1_024,
                rules: vec![State { rule: level, parts: 3, bytes: 512 }],
            }),
            decisions: Some(vec![Decided {
                output: "pump".into(),
                verdicts: [("sent".into(), 1_200), ("answered".into(), 1_100), ("refused".into(), 2)].into(),
                bytes: 150_000,
                oldest_ns: Some(noon - NS),
                newest_ns: Some(noon),
            }]),
        };
        let now = Timestamp::from_second(1_772_366_700).unwrap();
        let expected = "\
buffer    /var/lib/tidegate/buffer.db, layout 2
file      3.0 MiB (8.0 KiB of it free), write-ahead log 4.0 KiB
waiting   1 201 rows in 13 blocks, 39 KiB
          from row 5 to row 4294967296 of 2026-03-01T12:00:00Z
          times of 1 200 rows are corrected: the clock was set afterwards
  RULE      ROWS  BLOCKS    SIZE  FIRST        LAST
  level    1 200      12  39 KiB      5  4294967296
  odd\u{fffd}[2J      1       1   500 B      7           7
refused   2 rows, 2.0 KiB
  RULE     ROWS     SIZE  NEWEST                REASON
  odd\u{fffd}[2J     2  2.0 KiB  2026-03-01T12:00:00Z  too large
dropped   0 rows in 1 record for the uplink
  RULE  ROWS  FIRST  LAST  NEWEST                REASON
  *        ?      0    99  2026-03-01T12:00:00Z  buffer damaged
journal   4 000 rows in 41 entries (1 change of the rules), 87 KiB
          from 2026-03-01T11:59:59Z to 2026-03-01T12:00:00Z
          times of 1 row are corrected: the clock was set afterwards
  STREAM   ROWS  ENTRIES    SIZE  OLDEST                NEWEST
  tank    4 000       40  87 KiB  2026-03-01T11:59:59Z  2026-03-01T12:00:00Z
snapshots 2, 1.0 KiB of state
          newest after journal entry 39, 2026-03-01T12:00:00Z (5 min old)
  RULE   PARTS   SIZE
  level      3  512 B
decisions 2 302 about 1 output, 146 KiB
  OUTPUT   SENT  HELD  REFUSED  ANSWERED     SIZE  OLDEST                NEWEST
  pump    1 200     0        2     1 100  146 KiB  2026-03-01T11:59:59Z  2026-03-01T12:00:00Z
";
        assert_eq!(text(&stats, now), expected);
        let (outbox, refused, gaps) = (Outbox::default(), Vec::new(), Vec::new());
        let (journal, snapshots, decisions) = (None, None, None);
        let empty = Stats { layout: 1, outbox, refused, gaps, journal, snapshots, decisions, ..stats };
        let expected = "\
buffer    /var/lib/tidegate/buffer.db, layout 1
file      3.0 MiB (8.0 KiB of it free), write-ahead log 4.0 KiB
waiting   nothing
refused   nothing
dropped   nothing that the uplink does not know of
journal   layout 1 has none
snapshots layout 1 has none
decisions layout 1 has none
";
        assert_eq!(text(&empty, now), expected);
    }

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        let sizes = [0, 1023, 1024, 10 << 10, (1 << 20) - 1, 3 << 29, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1023 KiB", "1.5 GiB", "1717986918 GiB"]);
        assert_eq!(
            [-5, 119, 120, 7_200, 172_800].map(|s| age(s * 1_000_000_000)),
            ["0 s", "119 s", "2 min", "2 h", "2 d"]
        );
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!([counted(1, "row"), counted(0, "row")], ["1 row", "0 rows"]);
    }
}
