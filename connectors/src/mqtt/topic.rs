//! Topic filters whose levels become columns (MQTT 5.0, section 4.7).

use std::ops::Range;

/// How many captures a filter may have: they are handed over on the stack.
pub const MAX_CAPTURES: usize = 16;

/// A topic filter as users write it: `plant/{line}/{machine}/temp`, `site/+/state`, `$share/GROUP/plant/#`.
///
/// `{name}` stands for one level and captures it. Empty levels (`/plant`, `a//b`) are legal in MQTT and in
/// use, so they are taken.
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
    /// Reads a filter. That the columns of all captures have names of their own is the layout's business.
    ///
    /// # Errors
    /// Why it is none, in words for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_text(text)?;
        let (share, filter) = match text.strip_prefix("$share/") {
            None => ("", text),
            Some(rest) => match rest.split_once('/') {
                Some((group, filter))
                    if !group.is_empty() && !group.contains(['+', '#', '{', '}']) && !filter.is_empty() =>
                {
                    (text.get(..text.len() - filter.len()).unwrap_or_default(), filter)
                }
                _ => return Err("a shared subscription is written \"$share/GROUP/TOPIC\"".into()),
            },
        };
        let mut this =
            Self { subscription: share.to_owned(), levels: Vec::new(), open: false, captures: Vec::new() };
        let last = filter.split('/').count() - 1;
        for (index, level) in filter.split('/').enumerate() {
            if index > 0 {
                this.subscription.push('/');
            }
            match level {
                "#" if index == last => this.open = true,
                "+" => this.levels.push(Level::Any),
                _ if level.contains('#') => return Err("`#` stands alone, and only at the end".into()),
                _ if level.contains('+') => {
                    return Err(format!("`+` stands for a whole level, and \"{level}\" is more than that"));
                }
                _ if level.contains(['{', '}']) => {
                    let name = level.strip_prefix('{').and_then(|level| level.strip_suffix('}'));
                    let name = name.filter(|name| !name.is_empty() && !name.contains(['{', '}']));
                    let Some(name) = name else {
                        return Err(format!(
                            "`{{name}}` stands for a whole level, and \"{level}\" is something else"
                        ));
                    };
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
            return Err(format!(
                "it has {} captures, and {MAX_CAPTURES} are the most: write `+` for levels that no rule \
                needs",
                this.captures.len()
            ));
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

    /// The places of the captures in `topic`; none if the topic does not match. Nothing is allocated for
    /// filters without captures.
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

/// What holds for topics and filters alike (MQTT 5.0, sections 1.5.4 and 4.7.3).
pub(super) fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("it is empty".into())
    } else if text.len() > usize::from(u16::MAX) {
        Err(format!("it is longer than {} bytes", u16::MAX))
    } else if text.contains('\0') {
        Err("it has a zero byte in it".into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn captured<'t>(filter: &str, topic: &'t str) -> Option<Vec<&'t str>> {
        Filter::parse(filter)
            .unwrap()
            .matches(topic)
            .map(|ranges| ranges.into_iter().map(|range| &topic[range]).collect())
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
        let long = "{a}/".repeat(17);
        for (filter, why) in [
            ("", "it is empty"),
            ("a\0", "zero byte"),
            ("a/#/b", "`#` stands alone"),
            ("a/b#", "`#` stands alone"),
            ("a+/b", "`+` stands for a whole level"),
            ("a/x{b}", "stands for a whole level"),
            ("a/${b}", "stands for a whole level"),
            ("a/{b", "stands for a whole level"),
            ("a/{}", "stands for a whole level"),
            ("$share/g", "$share/GROUP/TOPIC"),
            ("$share//a", "$share/GROUP/TOPIC"),
            ("$share/+/a", "$share/GROUP/TOPIC"),
            (&long, "17 captures"),
        ] {
            assert!(
                Filter::parse(filter).is_err_and(|error| error.contains(why)),
                "{filter}: {:?}",
                Filter::parse(filter)
            );
        }
    }
}
