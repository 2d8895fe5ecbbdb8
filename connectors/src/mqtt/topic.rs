//! Topic filters whose levels become columns (MQTT 5.0, section 4.7).

use std::ops::Range;

/// How many captures a filter may have: they are handed over on the stack.
pub const MAX_CAPTURES: usize = 16;

/// A topic filter as users write it: `plant/{line}/{machine}/temp`, `site/+/state`, `$share/GROUP/plant/#`.
///
/// `{name}` stands for one level and captures it. Empty levels (`/plant`, `a//b`) are legal in MQTT and in use, so they are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    subscription: String,
    levels: Vec<Level>,
    /// ends with `#`
    open: bool,
    captures: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    Any,
    Capture,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// In words for the user, when it breaks a rule of MQTT or of captures.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = |why: &str| Err(format!("\"{text}\" is not a topic filter: {why}"));
        if text.is_empty() {
            return fail("it is empty");
        }
        if text.len() > usize::from(u16::MAX) || text.contains('\0') {
            return fail("MQTT allows at most 65535 bytes and no NUL character");
        }
        let (share, filter) = match text.strip_prefix("$share/") {
            None => ("", text),
            Some(rest) => match rest.split_once('/') {
                Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#', '{', '}']) && !filter.is_empty() => {
                    (text.get(..text.len() - filter.len()).unwrap_or_default(), filter)
                }
                _ => return fail("a shared subscription is written \"$share/GROUP/FILTER\", and the group has no wildcard"),
            },
        };
        let mut this = Self { subscription: share.to_owned(), levels: Vec::new(), open: false, captures: Vec::new() };
        let count = filter.split('/').count();
        for (index, level) in filter.split('/').enumerate() {
            if index > 0 {
                this.subscription.push('/');
            }
            match level {
                "#" if index + 1 == count => this.open = true,
                "+" => this.levels.push(Level::Any),
                _ if level.contains('#') => return fail("`#` stands alone in the last level"),
                _ if level.contains('+') => return fail("`+` stands alone in its level"),
                _ if level.contains(['{', '}']) => {
                    let Some(name) = level.strip_prefix('{').and_then(|level| level.strip_suffix('}')) else {
                        return fail("a capture such as `{machine}` stands alone in its level");
                    };
                    if !is_name(name) {
                        return fail("the name of a capture consists of letters, digits and `_`, and does not start with a digit");
                    }
                    if name == tidegate_core::TS {
                        return fail("a capture cannot be called `ts`: that is the event time");
                    }
                    if this.captures.iter().any(|other| other == name) {
                        return fail(&format!("two captures are called `{name}`"));
                    }
                    this.captures.push(name.to_owned());
                    this.levels.push(Level::Capture);
                    this.subscription.push('+');
                    continue;
                }
                _ => this.levels.push(Level::Literal(level.to_owned())),
            }
            this.subscription.push_str(level);
        }
        if this.captures.len() > MAX_CAPTURES {
            return fail(&format!("it has more than {MAX_CAPTURES} captures"));
        }
        Ok(this)
    }

    /// What the broker is asked for.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The names of the captures, from left to right.
    #[must_use]
    pub fn captures(&self) -> &[String] {
        &self.captures
    }

    /// The places of the captures in `topic`; none if the topic does not match. Nothing is allocated for filters without captures.
    #[must_use]
    pub fn matches(&self, topic: &str) -> Option<Vec<Range<usize>>> {
        // Wildcards in the first level do not match topics that belong to the broker (section 4.7.2).
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Literal(_))) {
            return None;
        }
        let mut captures = Vec::new();
        let mut at = Some(0);
        for level in &self.levels {
            let start = at?;
            let rest = topic.get(start..)?;
            let end = rest.find('/').map_or(topic.len(), |slash| start + slash);
            match level {
                Level::Literal(literal) if topic.get(start..end) != Some(literal) => return None,
                Level::Literal(_) | Level::Any => {}
                Level::Capture => captures.push(start..end),
            }
            at = (end < topic.len()).then_some(end + 1);
        }
        // "sport/#" also matches "sport" itself.
        (self.open || at.is_none()).then_some(captures)
    }
}

/// Letters, digits and `_`, not starting with a digit.
pub(super) fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && text.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn captured<'t>(filter: &str, topic: &'t str) -> Option<Vec<&'t str>> {
        Filter::parse(filter).unwrap().matches(topic).map(|ranges| ranges.into_iter().map(|range| &topic[range]).collect())
    }

    #[test]
    fn captures_become_plus_and_are_found_again() {
        let filter = Filter::parse("plant/{line}/{machine}/temp").unwrap();
        assert_eq!(filter.subscription(), "plant/+/+/temp");
        assert_eq!(filter.captures(), ["line", "machine"]);
        assert_eq!(captured("plant/{line}/{machine}/temp", "plant/3/press/temp"), Some(vec!["3", "press"]));
        assert_eq!(captured("plant/{line}/temp", "plant//temp"), Some(vec![""]));
        assert_eq!(captured("plant/{line}/temp", "plant/3/press/temp"), None);
        assert_eq!(captured("$share/g/plant/{line}", "plant/3"), Some(vec!["3"]));
        assert_eq!(Filter::parse("$share/g/plant/{line}").unwrap().subscription(), "$share/g/plant/+");
    }

    // The examples of MQTT 5.0, sections 4.7.1.2, 4.7.1.3 and 4.7.2.
    #[test]
    fn wildcards_match_as_the_standard_says() {
        for (filter, topic, matches) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "anything/at/all", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/broker/uptime", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/broker/uptime", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ] {
            assert_eq!(captured(filter, topic).is_some(), matches, "{filter} and {topic}");
        }
    }

    #[test]
    fn wrong_filters_are_refused_with_the_reason() {
        for (filter, why) in [
            ("", "it is empty"),
            ("a/#/b", "`#` stands alone in the last level"),
            ("a/b#", "`#` stands alone in the last level"),
            ("a+/b", "`+` stands alone in its level"),
            ("a/x{b}", "stands alone in its level"),
            ("a/{b", "stands alone in its level"),
            ("a/{}", "letters, digits"),
            ("a/{1st}", "letters, digits"),
            ("a/{b}/{b}", "two captures are called `b`"),
            ("a/{ts}", "event time"),
            ("$share/g", "$share/GROUP/FILTER"),
            ("$share//a", "$share/GROUP/FILTER"),
            ("$share/+/a", "$share/GROUP/FILTER"),
        ] {
            assert!(Filter::parse(filter).is_err_and(|error| error.contains(why)), "{filter}: {:?}", Filter::parse(filter));
        }
    }
}
