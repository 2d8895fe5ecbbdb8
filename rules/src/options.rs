//! The leading `--!` lines of a rule file: TOML, one key a line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{ByteSize, Diagnostic, Place, Span};

/// What the `--!` lines of a rule say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What the rule is for.
    pub description: Option<String>,
    /// Whether the rule runs.
    pub mode: Mode,
    /// How much later than the newest row a row may come and still count.
    pub lateness: Span,
    /// How long a stream must be silent for its time to go on by the box's clock; absent: it waits for the
    /// next row, unless `ts` is the time of arrival.
    pub idle_after: Option<Span>,
    /// How far ahead of the time reached so far a row may be and still move it on; absent: as far as it
    /// likes.
    pub max_ahead: Option<Span>,
    /// Where rows go that come too late: a derived stream, an output or the uplink; absent: nowhere.
    pub late_rows: Option<String>,
    /// Whether windows write before they close.
    pub emit: EmitRows,
    /// How often windows write the groups that have changed before they close, in event time.
    pub emit_every: Option<Span>,
    /// How long a key is kept when no row comes for it, where neither time nor an interval ends that; absent:
    /// for ever, and groups without a window are refused.
    pub state_ttl: Option<Span>,
    /// How many bytes of memory its windows and whatever else it keeps may take.
    pub max_state: ByteSize,
    /// What happens when it would keep more.
    pub when_state_full: WhenStateFull,
    /// What its rows are worth on their way to the uplinks.
    pub priority: Priority,
    /// How many packed bytes of its rows may wait for the uplinks; absent: as many as the buffer takes.
    pub max_size: Option<ByteSize>,
    /// What happens when they are as many, or the buffer is full; absent: what the buffer does.
    pub when_full: Option<WhenFull>,
    /// How long its rows are worth sending; absent: what the buffer says.
    #[serde(deserialize_with = "time_to_live")]
    pub ttl: Option<Span>,
}

/// The shortest `ttl`: what is not worth a second needs no buffer.
pub const SHORTEST_TTL: Span = Span(Duration::from_secs(1));

fn time_to_live<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Span>, D::Error> {
    let ttl = Span::deserialize(deserializer)?;
    if ttl < SHORTEST_TTL {
        return Err(D::Error::custom(format!("`ttl` must be at least {SHORTEST_TTL}, and is {ttl}")));
    }
    Ok(Some(ttl))
}

impl Default for Options {
    fn default() -> Self {
        Self {
            description: None,
            mode: Mode::default(),
            lateness: Span::default(),
            idle_after: None,
            max_ahead: None,
            late_rows: None,
            emit: EmitRows::default(),
            emit_every: None,
            state_ttl: None,
            max_state: MAX_STATE,
            when_state_full: WhenStateFull::default(),
            priority: Priority::default(),
            max_size: None,
            when_full: None,
            ttl: None,
        }
    }
}

/// Room for some 100 000 keys, and yet ten rules that have gone astray do not bring down a box with a
/// gigabyte of memory.
const MAX_STATE: ByteSize = ByteSize(64 << 20);

/// What happens when a rule would keep more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenStateFull {
    /// The rule stops. What is missing is seen at once, and nothing moves on half of the truth.
    #[default]
    Stop,
    /// It gives up what is oldest, which is counted and never written, and goes on.
    Forget,
}

/// What rows are worth on their way to the uplinks, from 0 to 9: rows of higher priority are sent first from
/// a backlog, and dropped last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "u8")]
pub struct Priority(u8);

impl Priority {
    /// From the greatest to the least.
    pub const ALL: [Self; 10] =
        [Self(9), Self(8), Self(7), Self(6), Self(5), Self(4), Self(3), Self(2), Self(1), Self(0)];

    /// Whether rows may use what the buffer holds in reserve.
    #[must_use]
    pub fn may_use_reserve(self) -> bool {
        self.0 >= 8
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl TryFrom<u8> for Priority {
    type Error = String;

    fn try_from(priority: u8) -> Result<Self, String> {
        if priority <= 9 {
            Ok(Self(priority))
        } else {
            Err(format!("a priority is from 0 to 9, and not {priority}"))
        }
    }
}

/// What happens to new rows when there is no room for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The rule waits.
    Block,
    /// The oldest rows make room.
    DropOldest,
    /// They are dropped themselves.
    DropNewest,
    /// Every second block of the rows that wait makes room.
    ThinOut,
}

/// What the options say about rows on their way to the uplinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryPolicy {
    /// who goes first
    pub priority: Priority,
    /// packed bytes that may wait
    pub max_size: Option<ByteSize>,
    /// what happens when there is no room
    pub when_full: Option<WhenFull>,
    /// how long they are worth sending
    pub ttl: Option<Span>,
}

/// Whether a rule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It runs.
    #[default]
    Active,
    /// It is evaluated and shown, but writes nothing.
    Shadow,
    /// It is checked, but does not run.
    Off,
}

/// When windows write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmitRows {
    /// When they close.
    #[default]
    Final,
    /// With each row as well.
    Row,
}

/// Every option, what it takes, and how it is written.
const KEYS: [(&str, &str, &str); 15] = [
    ("description", "text", "description = \"Starts the cooling pump\""),
    ("mode", "\"active\", \"shadow\" or \"off\"", "mode = \"shadow\""),
    ("lateness", "a length of time", "lateness = \"5s\""),
    ("idle_after", "a length of time", "idle_after = \"10s\""),
    ("max_ahead", "a length of time", "max_ahead = \"1h\""),
    ("late_rows", "the name of a derived stream or output, or \"uplink\"", "late_rows = \"uplink\""),
    ("emit", "\"final\" or \"row\"", "emit = \"row\""),
    ("emit_every", "a length of time", "emit_every = \"1s\""),
    ("state_ttl", "a length of time", "state_ttl = \"1h\""),
    ("max_state", "a size", "max_state = \"64MiB\""),
    ("when_state_full", "\"stop\" or \"forget\"", "when_state_full = \"forget\""),
    ("priority", "a number from 0 to 9", "priority = 8"),
    ("max_size", "a size", "max_size = \"2MiB\""),
    (
        "when_full",
        "\"block\", \"drop_oldest\", \"drop_newest\" or \"thin_out\"",
        "when_full = \"drop_oldest\"",
    ),
    ("ttl", "a length of time", "ttl = \"7d\""),
];
const MARK: &str = "--!";

impl Options {
    /// What the rule's rows are worth on their way to the uplinks.
    #[must_use]
    pub fn delivery(&self) -> DeliveryPolicy {
        DeliveryPolicy {
            priority: self.priority,
            max_size: self.max_size,
            when_full: self.when_full,
            ttl: self.ttl,
        }
    }

    /// What the lines of `text` say that has effects beyond the rule.
    #[must_use]
    pub fn warnings(&self, file: &str, text: &str) -> Vec<Diagnostic> {
        if self.when_full != Some(WhenFull::Block) {
            return Vec::new();
        }
        let place = Self::place(text, "when_full");
        let what =
            "when the buffer is full, the rule waits, and in the end all streams and outputs wait with it";
        let help = "write `when_full = \"drop_oldest\"` or \"thin_out\", which go on and tell the cloud of \
            the gap, unless to stand still is better";
        vec![Diagnostic::new(file, what).at(place).help(Some(help.to_owned())).warning()]
    }

    /// Where the line of the option `key` is in `text`.
    pub(crate) fn place(text: &str, key: &str) -> Place {
        let says =
            |line: &str| line.trim_start().strip_prefix(MARK).is_some_and(|option| key_of(option) == key);
        let line = (1..).zip(text.lines()).find(|(_, line)| says(line)).map_or(1, |(number, _)| number);
        Place { line, column: 1 }
    }

    /// The option that the comment `comment`, without the `--` that it begins with, would be if it were one.
    pub(crate) fn in_comment(comment: &str) -> Option<String> {
        let (key, value) = comment.trim_start_matches(['-', '!']).split_once('=')?;
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        let takes = |line: &str| toml::from_str::<Self>(line).is_ok();
        let in_quotes = format!("{key} = \"{value}\"");
        // A rule on trial is not to move machines for want of quotation marks.
        let line = Some(format!("{key} = {value}"))
            .filter(|line| takes(line))
            .or_else(|| Some(in_quotes).filter(|line| key == "mode" && takes(line)))?;
        is_known(&key).then_some(line)
    }

    /// Reads the `--!` lines at the start of `text`; empty lines and other comments may stand between them.
    ///
    /// # Errors
    /// One diagnostic for each line that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut toml = String::new();
        let mut wrong = Vec::new();
        let mut said: BTreeMap<&str, u32> = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let trimmed = line.trim_start();
            let Some(option) = trimmed.strip_prefix(MARK) else {
                if trimmed.is_empty() || trimmed.starts_with("--") {
                    continue;
                }
                break;
            };
            let column = line.chars().count() - option.chars().count() + 1;
            let place = |offset: usize| Place {
                line: number,
                column: u32::try_from(column + offset).unwrap_or(u32::MAX),
            };
            // Each line must be good TOML by itself, so that an error names its own line.
            match toml::from_str::<Self>(option) {
                Ok(_) => {
                    let key = key_of(option);
                    if let Some(first) = said.insert(key, number).filter(|_| is_known(key)) {
                        let indent = option.chars().take_while(|c| c.is_whitespace()).count();
                        let what = format!("the option `{key}` stands in line {first} already");
                        let help = "leave one of them out".to_owned();
                        wrong.push(Diagnostic::new(file, what).at(place(indent)).help(help));
                    }
                    toml.push_str(option);
                    toml.push('\n');
                }
                Err(error) => {
                    let offset = error.span().map_or(0, |span| {
                        option.get(..span.start).map_or(0, |before| before.chars().count())
                    });
                    wrong.push(unreadable(file, option, error.message()).at(place(offset)));
                }
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        toml::from_str(&toml).map_err(|error| {
            vec![Diagnostic::new(
                file,
                format!("the option lines contradict each other: {}", error.message().trim_end()),
            )]
        })
    }
}

fn is_known(key: &str) -> bool {
    KEYS.iter().any(|(known, ..)| *known == key)
}

fn key_of(option: &str) -> &str {
    option.split('=').next().unwrap_or("").trim()
}

/// The option line `option` cannot be read, for the reason `message`.
fn unreadable(file: &str, option: &str, message: &str) -> Diagnostic {
    let key = key_of(option);
    let Some((_, takes, example)) = KEYS.iter().find(|(known, ..)| *known == key) else {
        if message.starts_with("unknown field") {
            let known = KEYS.map(|(known, ..)| known);
            return Diagnostic::new(file, format!("unknown option `{key}`")).help(did_you_mean(key, &known));
        }
        return Diagnostic::new(file, format!("cannot read the option line: {}", message.trim_end()))
            .help("write one TOML key a line, such as `--! lateness = \"5s\"`".to_owned());
    };
    let what = if message.starts_with("invalid type") || message.starts_with("invalid value") {
        format!("the option `{key}` takes {takes}")
    } else {
        format!("cannot read the option `{key}`: {}", message.trim_end())
    };
    Diagnostic::new(file, what).help(format!("write `--! {example}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_lines_are_toml() {
        let text =
            "--! description = \"x\"\n-- a comment\n\n  --! lateness = \"5s\"\nSELECT 1 --! mode = \"off\"";
        let options = Options::parse("a.sql", text);
        let expected = Options {
            description: Some("x".into()),
            lateness: Span(Duration::from_secs(5)),
            ..Options::default()
        };
        assert_eq!(options, Ok(expected));
    }

    #[test]
    fn options_say_what_rows_are_worth() {
        let options = Options::parse(
            "a.sql",
            "--! priority = 8\n--! max_size = \"2MiB\"\n--! when_full = \"thin_out\"\n--! ttl = \"7d\"\n\
            SELECT 1",
        );
        let (max_size, ttl) = (Some(ByteSize(2 << 20)), Some(Span(Duration::from_hours(7 * 24))));
        let delivery =
            DeliveryPolicy { priority: Priority(8), max_size, when_full: Some(WhenFull::ThinOut), ttl };
        assert_eq!(options.map(|options| options.delivery()), Ok(delivery));
        assert_eq!(Options::default().delivery().priority.get(), 5);
        assert_eq!(Priority::ALL.map(Priority::get), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        let wrong: Vec<String> = Options::parse("a.sql", "--! priority = 10")
            .err()
            .into_iter()
            .flatten()
            .map(|d| d.to_string())
            .collect();
        assert!(
            matches!(wrong.as_slice(), [one] if one.starts_with("a.sql:1:") && one.contains("from 0 to 9")),
            "{wrong:?}"
        );
    }

    #[test]
    fn a_time_to_live_that_keeps_nothing_is_refused() {
        let wrong: Vec<String> = Options::parse("a.sql", "--! ttl = \"10ms\"")
            .err()
            .into_iter()
            .flatten()
            .map(|d| d.to_string())
            .collect();
        assert!(
            matches!(
                wrong.as_slice(),
                [one] if one.starts_with("a.sql:1:") && one.contains("at least 1s, and is 10ms"),
            ),
            "{wrong:?}"
        );
    }

    #[test]
    fn a_comment_reads_like_an_option_only_if_it_would_be_one() {
        for (comment, expected) in [
            (" mode = \"shadow\"", Some("mode = \"shadow\"")),
            ("-! mode = \"off\"", Some("mode = \"off\"")),
            ("mode=\"off\"\n", Some("mode = \"off\"")),
            (" Mode = shadow", Some("mode = \"shadow\"")),
            (" lateness = how late", None),
            (" mode = what it does", None),
            (" colour = \"red\"", None),
            (" the mode = \"off\"", None),
            (" --! mode = \"off\"", None),
            ("----", None),
        ] {
            assert_eq!(Options::in_comment(comment).as_deref(), expected, "{comment}");
        }
    }

    #[test]
    fn each_wrong_line_is_reported_with_its_place() {
        let text = "--! latness = \"5s\"\n--! lateness = 5\n--! mode = \"shadw\"\nSELECT 1";
        let wrong: Vec<String> =
            Options::parse("a.sql", text).err().into_iter().flatten().map(|d| d.to_string()).collect();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(
            wrong.iter().any(|w| w.starts_with("a.sql:1:") && w.contains("did you mean `lateness`?")),
            "{wrong:?}"
        );
        assert!(wrong.iter().any(|w| w.starts_with("a.sql:2:16")), "{wrong:?}");
        assert!(wrong.iter().any(|w| w.starts_with("a.sql:3:12")), "{wrong:?}");
    }
}
