//! A command: what its topic says of it, and what its signed bytes say.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::envelope::brief;
use crate::json;
use crate::op::Op;
use crate::outcome::Code;
use crate::refusal::Refusal;
use crate::time::WallTime;

/// What a command's payload says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// for whom it is
    #[serde(rename = "box")]
    pub recipient: Recipient,
    /// what to do
    pub op: Op,
    /// the same id again is the same command again
    pub id: CommandId,
    /// Greater than all that this signer sent before: microseconds since 1970 do. Where nothing is signed, it
    /// may be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctr: Option<u64>,
    /// when it was signed
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<WallTime>,
    /// until when it may be begun
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<WallTime>,
    /// what the box said of itself in the last minutes, so that nobody can have kept the command longer
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The operation's own fields. No key is there twice, but what they mean is for the operation to say.
    #[serde(default)]
    pub args: Map<String, Value>,
}

/// Names a command. Whoever makes it chooses it, so that sending it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId(String);

/// Text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 8 to 64 letters, digits, `-` and `_`: a ULID or UUID is a good one")]
pub struct NoCommandId;

/// A box, or a group of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Recipient {
    /// the box of that name
    TheBox(String),
    /// each box that is in the group of that name, written `@name`
    Group(String),
}

/// Text that names neither a box nor a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a box is named by up to 63 lower case letters, digits and hyphens; `@` before it makes it a group")]
pub struct NoRecipient;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `cmd/OP/ID`, retained
    Command,
    /// `ask/OP`, an MQTT 5 request
    Question,
}

/// The topic on which a command came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// a box or a group
    pub recipient: Recipient,
    /// which of the two
    pub channel: Channel,
    /// Not yet known to be an operation: what comes on a topic that names none is answered there.
    pub op: String,
    /// commands have one; questions are answered where they say
    pub id: Option<CommandId>,
}

/// Who the box is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// the box's name
    pub name: String,
    /// the groups that it is in, without `@`
    pub groups: Vec<String>,
}

impl Identity {
    /// Whether that is this box, or a group that it is in.
    #[must_use]
    pub fn is(&self, recipient: &Recipient) -> bool {
        match recipient {
            Recipient::TheBox(name) => *name == self.name,
            Recipient::Group(name) => self.groups.contains(name),
        }
    }
}

impl Topic {
    /// Reads `topic`, which begins with `prefix`, such as `tidegate/v1`.
    ///
    /// # Errors
    /// `invalid`, when there is no such topic.
    pub fn parse(prefix: &str, topic: &str) -> Result<Self, Refusal> {
        let invalid = |why: &dyn fmt::Display| {
            Refusal::new(Code::Invalid, format!("{} is no topic for commands: {why}", brief(topic)))
                .help(format!("write {prefix}/BOX/cmd/OPERATION/ID, or {prefix}/BOX/ask/OPERATION"))
        };
        let rest = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        let levels: Vec<&str> = rest.ok_or_else(|| invalid(&"it begins differently"))?.split('/').collect();
        let (recipient, channel, op, id) = match levels.as_slice() {
            [recipient, "cmd", op, id] => {
                (recipient, Channel::Command, op, Some(id.parse().map_err(|why: NoCommandId| invalid(&why))?))
            }
            [recipient, "ask", op] => (recipient, Channel::Question, op, None),
            _ => return Err(invalid(&"it has other levels")),
        };
        let recipient = recipient.parse().map_err(|why: NoRecipient| invalid(&why))?;
        Ok(Self { recipient, channel, op: (*op).to_owned(), id })
    }
}

impl Command {
    /// Reads a payload whose signatures are good, strictly.
    ///
    /// # Errors
    /// `invalid`, with what cannot be read.
    pub fn parse(payload: &[u8]) -> Result<Self, Refusal> {
        json::read_as(payload).map_err(|why| {
            Refusal::new(Code::Invalid, format!("the command cannot be read: {why}")).help(
                "`box`, `op`, `id`, `ctr`, `issued`, `not_after`, `nonce` and `args` are all that it has",
            )
        })
    }

    /// Whether it belongs on `topic`, and that is one of this box.
    ///
    /// # Errors
    /// `wrong_box`, when it is for another; `invalid`, when it was moved to another operation or id.
    pub fn check_topic(&self, topic: &Topic, me: &Identity) -> Result<(), Refusal> {
        if self.recipient != topic.recipient || !me.is(&topic.recipient) {
            let (signed, here, box_name) = (&self.recipient, &topic.recipient, &me.name);
            let reason =
                format!("the command is for {signed}, came on the topic of {here}, and this is {box_name}");
            return Err(Refusal::new(Code::WrongBox, reason).help(
                "a command that was signed for one box or group is no command for another: sign it anew",
            ));
        }
        let moved = |what: &str, signed: &dyn fmt::Display, topic: &str| {
            let topic = brief(topic);
            Refusal::new(
                Code::Invalid,
                format!("the {what} in the command is \"{signed}\", and {topic} in its topic"),
            )
            .help("publish it on the topic that it was signed for")
        };
        if self.op.name() != topic.op {
            return Err(moved("operation", &self.op, &topic.op));
        }
        if let Some(id) = topic.id.as_ref().filter(|id| **id != self.id) {
            return Err(moved("id", &self.id, &id.0));
        }
        let op = self.op;
        match (topic.channel, op.is_query()) {
            (Channel::Command, true) => Err(Refusal::new(Code::Invalid, format!("{op} is a question"))
                .help(format!("ask it on ask/{op}, with a response topic"))),
            (Channel::Question, false) => Err(Refusal::new(Code::Invalid, format!("{op} is no question"))
                .help(format!("publish it retained on cmd/{op}/{}", self.id))),
            _ => Ok(()),
        }
    }

    /// The text at `key` of the arguments.
    pub(crate) fn argument(&self, key: &str) -> Result<&str, Refusal> {
        self.args.get(key).and_then(Value::as_str).ok_or_else(|| {
            Refusal::new(Code::Invalid, format!("`args.{key}` of {} is not there, or no text", self.op))
        })
    }
}

impl CommandId {
    /// As in a topic.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CommandId {
    type Err = NoCommandId;

    fn from_str(text: &str) -> Result<Self, NoCommandId> {
        let fits = text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if fits && (8..=64).contains(&text.len()) { Ok(Self(text.into())) } else { Err(NoCommandId) }
    }
}

impl TryFrom<String> for CommandId {
    type Error = NoCommandId;

    fn try_from(text: String) -> Result<Self, NoCommandId> {
        text.parse()
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> Self {
        id.0
    }
}

impl FromStr for Recipient {
    type Err = NoRecipient;

    fn from_str(text: &str) -> Result<Self, NoRecipient> {
        let (name, make): (_, fn(String) -> Self) = match text.strip_prefix('@') {
            Some(group) => (group, Self::Group),
            None => (text, Self::TheBox),
        };
        let fits = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        let is_name =
            fits && (1..=63).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-');
        if is_name { Ok(make(name.into())) } else { Err(NoRecipient) }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TheBox(name) => f.write_str(name),
            Self::Group(name) => write!(f, "@{name}"),
        }
    }
}

impl TryFrom<String> for Recipient {
    type Error = NoRecipient;

    fn try_from(text: String) -> Result<Self, NoRecipient> {
        text.parse()
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn topics_are_those_of_the_specification() {
        let topic = Topic::parse("tidegate/v1", "tidegate/v1/press-12/cmd/rules.deploy/01JD3Z0000").unwrap();
        assert_eq!(topic.recipient, Recipient::TheBox("press-12".into()));
        assert_eq!((topic.channel, topic.op.as_str()), (Channel::Command, "rules.deploy"));
        assert_eq!(topic.id.unwrap().as_str(), "01JD3Z0000");
        let topic = Topic::parse("site/a", "site/a/@presses/cmd/rules.deploy/01JD3Z0000").unwrap();
        assert_eq!(topic.recipient, Recipient::Group("presses".into()));
        let topic = Topic::parse("tidegate/v1", "tidegate/v1/press-12/ask/status").unwrap();
        assert_eq!((topic.channel, topic.id), (Channel::Question, None));
        for wrong in [
            "tidegate/v1/press-12/res/rules.deploy/01JD3Z0000",
            "tidegate/v1/press-12/cmd/rules.deploy",
            "tidegate/v1/press-12/cmd/rules.deploy/short",
            "tidegate/v1/press-12/cmd/rules.deploy/01JD3Z0000/more",
            "tidegate/v1/Press/cmd/rules.deploy/01JD3Z0000",
            "tidegate/v1/@/cmd/rules.deploy/01JD3Z0000",
            "tidegate/v1press-12/cmd/rules.deploy/01JD3Z0000",
            "tidegate/v2/press-12/cmd/rules.deploy/01JD3Z0000",
            "",
        ] {
            assert_eq!(Topic::parse("tidegate/v1", wrong).unwrap_err().code, Code::Invalid, "{wrong}");
        }
    }

    #[test]
    fn what_a_command_does_not_have_is_refused() {
        let good = r#"{"box":"press-12","op":"rules.disable","id":"01JD3Z0000","args":{"name":"cooling"}}"#;
        assert!(Command::parse(good.as_bytes()).is_ok());
        for (from, to, why) in [
            (r#""box""#, r#""Box""#, "unknown field `Box`"),
            (r#""args""#, r#""id":"01JD3Z0001","args""#, "`id` is there twice"),
            (r#""name""#, r#""name":"heating","name""#, "`name` is there twice"),
            ("rules.disable", "rules.disabel", "did you mean `rules.disable`?"),
            ("01JD3Z0000", "01JD3Z/000", "an id is"),
            ("press-12", "press_12", "a box is named by"),
            (r#""args""#, r#""ctr":-1,"args""#, "invalid value"),
            (r#""args""#, r#""ctr":18446744073709551616,"args""#, "invalid type"),
            (r#""args""#, r#""not_after":"tomorrow","args""#, "is not a time"),
        ] {
            let refusal = Command::parse(good.replace(from, to).as_bytes()).unwrap_err();
            assert_eq!(refusal.code, Code::Invalid);
            assert!(refusal.reason.contains(why), "{to}: {refusal}");
        }
    }
}
