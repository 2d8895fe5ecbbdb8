//! The options of a rule: those that rules of every language have, and how they are read.
//!
//! They are TOML, in comments at the start of the source, one key a line. What else a language asks for is
//! its own: see [`LanguageOptions`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{ByteSize, Diagnostic, Place, Span};

/// The options that rules of every language have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What the rule is for.
    pub description: Option<String>,
    /// Whether the rule runs.
    pub mode: Mode,
    /// How many bytes of memory whatever it keeps may take.
    pub max_state: ByteSize,
    /// What happens when it would keep more.
    pub when_state_full: WhenStateFull,
    /// Which rule an output obeys when several want something of it.
    pub rank: Rank,
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
            max_state: MAX_STATE,
            when_state_full: WhenStateFull::default(),
            rank: Rank::default(),
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

/// Which rule an output obeys when several want something of it, from 1, the strongest, to 16. The direction
/// is that of BACnet's priority array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "u8")]
pub struct Rank(u8);

impl Rank {
    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Rank {
    fn default() -> Self {
        Self(8)
    }
}

impl TryFrom<u8> for Rank {
    type Error = String;

    fn try_from(rank: u8) -> Result<Self, String> {
        if (1..=16).contains(&rank) {
            Ok(Self(rank))
        } else {
            Err(format!("a rank is from 1 to 16, and not {rank}"))
        }
    }
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

/// An option: its name, what it takes, and how it is written.
pub(crate) type Key = (&'static str, &'static str, &'static str);

impl Options {
    pub(crate) const KEYS: &[Key] = &[
        ("description", "text", "description = \"Starts the cooling pump\""),
        ("mode", "\"active\", \"shadow\" or \"off\"", "mode = \"shadow\""),
        ("max_state", "a size", "max_state = \"64MiB\""),
        ("when_state_full", "\"stop\" or \"forget\"", "when_state_full = \"forget\""),
        ("rank", "a whole number from 1, the strongest, to 16", "rank = 4"),
        ("priority", "a number from 0 to 9", "priority = 8"),
        ("max_size", "a size", "max_size = \"2MiB\""),
        (
            "when_full",
            "\"block\", \"drop_oldest\", \"drop_newest\" or \"thin_out\"",
            "when_full = \"drop_oldest\"",
        ),
        ("ttl", "a length of time", "ttl = \"7d\""),
    ];

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

    /// What they say, in `lines`, that has effects beyond the rule.
    pub(crate) fn warnings(&self, lines: &OptionLines<'_>) -> Vec<Diagnostic> {
        let waits = self.waiting_for_the_buffer();
        waits.into_iter().map(|(what, help)| lines.warning("when_full", what, help)).collect()
    }

    /// What comes of it, and what is better, if `when_full` has all wait for the buffer.
    pub(crate) fn waiting_for_the_buffer(&self) -> Option<(&'static str, &'static str)> {
        let what =
            "when the buffer is full, the rule waits, and in the end all streams and outputs wait with it";
        let help = "write `when_full = \"drop_oldest\"` or \"thin_out\", which go on and tell the cloud of \
            the gap, unless to stand still is better";
        (self.when_full == Some(WhenFull::Block)).then_some((what, help))
    }
}

/// The options that rules of one language have, beside those of all.
pub(crate) trait LanguageOptions: DeserializeOwned {
    /// Each of them.
    const KEYS: &'static [Key];
    /// How an option line begins.
    const MARK: &'static str;
    /// How other comments begin, which may stand between option lines.
    const COMMENT: &'static str;
}

/// The option lines at the start of a source; empty lines and other comments may stand between them.
pub(crate) struct OptionLines<'a> {
    file: &'a str,
    lines: Vec<OptionLine<'a>>,
}

struct OptionLine<'a> {
    number: u32,
    /// where its TOML begins
    column: usize,
    toml: &'a str,
}

impl<'a> OptionLines<'a> {
    /// Those of the source `text` of `file`.
    pub(crate) fn find<L: LanguageOptions>(file: &'a str, text: &'a str) -> Self {
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let trimmed = line.trim_start();
            match trimmed.strip_prefix(L::MARK) {
                Some(toml) => {
                    let column = line.chars().count() - toml.chars().count() + 1;
                    lines.push(OptionLine { number, column, toml });
                }
                None if trimmed.is_empty() || trimmed.starts_with(L::COMMENT) => {}
                None => break,
            }
        }
        Self { file, lines }
    }

    /// What they say.
    ///
    /// # Errors
    /// One diagnostic for each line that is wrong.
    pub(crate) fn read<L: LanguageOptions>(&self) -> Result<(Options, L), Vec<Diagnostic>> {
        let (mut common, mut own, mut wrong) = (String::new(), String::new(), Vec::new());
        let mut said: BTreeMap<&str, u32> = BTreeMap::new();
        for line in &self.lines {
            // Each line must be good TOML by itself, so that an error names its own line.
            if let Err(error) = check::<L>(line.toml) {
                wrong.push(self.unreadable::<L>(line, &error));
                continue;
            }
            let first = said.insert(key_of(line.toml), line.number);
            if let Some(first) = first.filter(|_| known::<L>(key_of(line.toml)).is_some()) {
                wrong.push(self.twice(line, first));
            }
            let toml = if is_common(line.toml) { &mut common } else { &mut own };
            toml.push_str(line.toml);
            toml.push('\n');
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok((self.parse(&common)?, self.parse(&own)?))
    }

    fn parse<T: DeserializeOwned>(&self, toml: &str) -> Result<T, Vec<Diagnostic>> {
        toml::from_str(toml).map_err(|error| {
            let what = format!("the option lines contradict each other: {}", error.message().trim_end());
            vec![Diagnostic::new(self.file, what)]
        })
    }

    /// `line` cannot be read.
    fn unreadable<L: LanguageOptions>(&self, line: &OptionLine<'_>, error: &toml::de::Error) -> Diagnostic {
        let offset = error
            .span()
            .map_or(0, |span| line.toml.get(..span.start).map_or(0, |before| before.chars().count()));
        let (key, message) = (key_of(line.toml), error.message().trim_end());
        let (what, help) = match known::<L>(key) {
            None if message.starts_with("unknown field") => {
                let known: Vec<&str> = keys::<L>().map(|(name, ..)| name).collect();
                (format!("unknown option `{key}`"), did_you_mean(key, &known))
            }
            None => {
                let example = keys::<L>().next().map(|(.., example)| example).unwrap_or_default();
                let help = format!("write one TOML key a line, such as `{} {example}`", L::MARK);
                (format!("cannot read the option line: {message}"), Some(help))
            }
            Some((_, takes, example)) => {
                let is_other = message.starts_with("invalid type") || message.starts_with("invalid value");
                let what = if is_other {
                    format!("the option `{key}` takes {takes}")
                } else {
                    format!("cannot read the option `{key}`: {message}")
                };
                (what, Some(format!("write `{} {example}`", L::MARK)))
            }
        };
        Diagnostic::new(self.file, what).at(line.place(offset)).help(help)
    }

    /// The option of `line` stands in the line `first` as well.
    fn twice(&self, line: &OptionLine<'_>, first: u32) -> Diagnostic {
        let what = format!("the option `{}` stands in line {first} already", key_of(line.toml));
        let indent = line.toml.chars().take_while(|c| c.is_whitespace()).count();
        Diagnostic::new(self.file, what).at(line.place(indent)).help("leave one of them out".to_owned())
    }

    /// What is wrong with what the option `key` says, or with that it is not there.
    #[cfg(feature = "rhai")]
    pub(crate) fn error(&self, key: &str, what: impl Into<String>, help: &str) -> Diagnostic {
        let warning = self.warning(key, what, help);
        let help = warning.help.filter(|help| !help.is_empty());
        Diagnostic { severity: tidegate_core::diagnostic::Severity::Error, help, ..warning }
    }

    /// A warning of what the option `key` says.
    pub(crate) fn warning(&self, key: &str, what: impl Into<String>, help: &str) -> Diagnostic {
        let line = self.lines.iter().find(|line| key_of(line.toml) == key).map_or(1, |line| line.number);
        Diagnostic::new(self.file, what).at(Place { line, column: 1 }).help(help.to_owned()).warning()
    }
}

impl OptionLine<'_> {
    /// Where the character of its TOML is before which there are `offset` others.
    fn place(&self, offset: usize) -> Place {
        Place { line: self.number, column: u32::try_from(self.column + offset).unwrap_or(u32::MAX) }
    }
}

/// The option that a comment with the text `comment` would be, if it were one.
pub(crate) fn in_comment<L: LanguageOptions>(comment: &str) -> Option<String> {
    let (key, value) = comment.trim_start_matches(|c| L::MARK.contains(c)).split_once('=')?;
    let (key, value) = (key.trim().to_lowercase(), value.trim());
    let takes = |line: &String| check::<L>(line).is_ok();
    let in_quotes = format!("{key} = \"{value}\"");
    // A rule on trial is not to move machines for want of quotation marks.
    let line = Some(format!("{key} = {value}"))
        .filter(takes)
        .or_else(|| Some(in_quotes).filter(|line| key == "mode" && takes(line)))?;
    known::<L>(&key).is_some().then_some(line)
}

/// Whether `toml` is good as an option line.
fn check<L: LanguageOptions>(toml: &str) -> Result<(), toml::de::Error> {
    if is_common(toml) {
        return toml::from_str::<Options>(toml).map(drop);
    }
    toml::from_str::<L>(toml).map(drop)
}

/// Whether it is an option of all languages. One that is no TOML is nobody's.
fn is_common(toml: &str) -> bool {
    let is_key = |key: &String| Options::KEYS.iter().any(|(name, ..)| name == key);
    toml.parse::<toml::Table>().is_ok_and(|table| table.keys().any(is_key))
}

/// The key of an option line, as it is written.
fn key_of(toml: &str) -> &str {
    toml.split('=').next().unwrap_or("").trim()
}

fn keys<L: LanguageOptions>() -> impl Iterator<Item = Key> {
    L::KEYS.iter().chain(Options::KEYS).copied()
}

fn known<L: LanguageOptions>(key: &str) -> Option<Key> {
    keys::<L>().find(|(name, ..)| *name == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A language with a single option of its own.
    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Own {
        lateness: Span,
    }

    impl LanguageOptions for Own {
        const KEYS: &'static [Key] = &[("lateness", "a length of time", "lateness = \"5s\"")];
        const MARK: &'static str = "//!";
        const COMMENT: &'static str = "//";
    }

    fn parse(text: &str) -> Result<(Options, Own), Vec<String>> {
        let wrong = |wrong: Vec<Diagnostic>| wrong.iter().map(ToString::to_string).collect();
        OptionLines::find::<Own>("a.rule", text).read().map_err(wrong)
    }

    #[test]
    fn option_lines_are_toml() {
        let text = "//! description = \"x\"\n// a comment\n\n  //! lateness = \"5s\"\nlet x = 1; //! mode = \
            \"off\"";
        let common = Options { description: Some("x".into()), ..Options::default() };
        assert_eq!(parse(text), Ok((common, Own { lateness: Span(Duration::from_secs(5)) })));
    }

    #[test]
    fn options_say_what_rows_are_worth() {
        let text =
            "//! priority = 8\n//! max_size = \"2MiB\"\n//! when_full = \"thin_out\"\n//! ttl = \"7d\"\n1";
        let (max_size, ttl) = (Some(ByteSize(2 << 20)), Some(Span(Duration::from_hours(7 * 24))));
        let delivery =
            DeliveryPolicy { priority: Priority(8), max_size, when_full: Some(WhenFull::ThinOut), ttl };
        assert_eq!(parse(text).map(|(options, _)| options.delivery()), Ok(delivery));
        assert_eq!(Options::default().delivery().priority.get(), 5);
        assert_eq!(Priority::ALL.map(Priority::get), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        let wrong = parse("//! priority = 10").err().unwrap_or_default();
        assert!(
            matches!(wrong.as_slice(), [one] if one.starts_with("a.rule:1:") && one.contains("from 0 to 9")),
            "{wrong:?}"
        );
    }

    #[test]
    fn a_rank_is_from_1_to_16() {
        let rank = |text: &str| parse(text).map(|(options, _)| options.rank.get());
        assert_eq!([rank("1"), rank("//! rank = 1"), rank("//! rank = 16")], [Ok(8), Ok(1), Ok(16)]);
        for (wrong, said) in [
            ("0", "cannot read the option `rank`: a rank is from 1 to 16, and not 0"),
            ("17", "cannot read the option `rank`: a rank is from 1 to 16, and not 17"),
            ("-1", "the option `rank` takes a whole number from 1, the strongest, to 16"),
            ("300", "the option `rank` takes a whole number from 1, the strongest, to 16"),
            ("1.5", "the option `rank` takes a whole number from 1, the strongest, to 16"),
            ("\"first\"", "the option `rank` takes a whole number from 1, the strongest, to 16"),
        ] {
            let said = format!("a.rule:1:12: {said}; write `//! rank = 4`");
            assert_eq!(rank(&format!("//! rank = {wrong}")), Err(vec![said]));
        }
    }

    #[test]
    fn a_time_to_live_that_keeps_nothing_is_refused() {
        let wrong = parse("//! ttl = \"10ms\"").err().unwrap_or_default();
        assert!(
            matches!(
                wrong.as_slice(),
                [one] if one.starts_with("a.rule:1:") && one.contains("at least 1s, and is 10ms"),
            ),
            "{wrong:?}"
        );
    }

    #[test]
    fn a_comment_reads_like_an_option_only_if_it_would_be_one() {
        for (comment, expected) in [
            (" mode = \"shadow\"", Some("mode = \"shadow\"")),
            ("/! mode = \"off\"", Some("mode = \"off\"")),
            ("mode=\"off\"\n", Some("mode = \"off\"")),
            (" Mode = shadow", Some("mode = \"shadow\"")),
            (" lateness = \"5s\"", Some("lateness = \"5s\"")),
            (" lateness = how late", None),
            (" mode = what it does", None),
            (" colour = \"red\"", None),
            (" the mode = \"off\"", None),
            (" //! mode = \"off\"", None),
            ("////", None),
        ] {
            assert_eq!(in_comment::<Own>(comment).as_deref(), expected, "{comment}");
        }
    }

    #[test]
    fn each_wrong_line_is_reported_with_its_place() {
        let text =
            "//! latness = \"5s\"\n//! lateness = 5\n//! mode = \"shadw\"\n//! priorty = 1\n//! mode\n1";
        let wrong = parse(text).err().unwrap_or_default();
        let [latness, lateness, mode, priorty, no_value] = wrong.as_slice() else {
            unreachable!("{wrong:?}")
        };
        assert!(
            latness.starts_with("a.rule:1:5: unknown option `latness`; did you mean `lateness`?"),
            "{latness}"
        );
        let takes = "a.rule:2:16: the option `lateness` takes a length of time; write `//! lateness = \
            \"5s\"`";
        assert_eq!(lateness, takes);
        assert!(mode.starts_with("a.rule:3:12: "), "{mode}");
        assert!(priorty.contains("unknown option `priorty`; did you mean `priority`?"), "{priorty}");
        assert!(no_value.starts_with("a.rule:5:"), "{no_value}");
    }

    #[test]
    fn an_option_stands_in_one_line() {
        for key in ["ttl", "lateness"] {
            let wrong = parse(&format!("//! {key} = \"5s\"\n\n//! {key} = \"6s\"")).err();
            let said = format!("a.rule:3:5: the option `{key}` stands in line 1 already; ");
            assert_eq!(wrong, Some(vec![said + "leave one of them out"]));
        }
        let wrong = parse("//! \"ttl\" = \"5s\"\n//! \"ttl\" = \"6s\"").err().unwrap_or_default();
        let said = "a.rule: the option lines contradict each other: duplicate key";
        assert!(matches!(wrong.as_slice(), [one] if one.starts_with(said)), "{wrong:?}");
    }

    #[test]
    fn the_names_are_those_of_the_options() {
        for (key, _, example) in Options::KEYS {
            assert_eq!(key_of(example), *key);
            assert!(toml::from_str::<Options>(example).is_ok(), "{example}");
        }
    }
}
