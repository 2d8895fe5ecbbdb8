//! Where a message from afar becomes a command, or does not.
//!
//! The order of the checks is part of what is promised: the message's limits and its envelope, the
//! signatures, and only then what was signed; the topic, each key, its role and scope, and whether the
//! command is fresh.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Identity, Topic};
use crate::digest::Digest;
use crate::envelope::{Envelope, Kind, brief};
use crate::freshness::{Age, Clock, Freshness, LONGEST_HOLD, NoClock, Nonces};
use crate::json;
use crate::key::PublicKey;
use crate::key_set::{Key, KeySet};
use crate::op::{Op, Target};
use crate::outcome::Code;
use crate::refusal::Refusal;
use crate::role::Role;
use crate::time::{WallTime, parse_duration, write_duration};

/// What may be asked without a signature. The box's local file says so, and nothing from afar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Unsigned {
    /// nothing
    Refuse,
    /// what changes nothing and is no secret: all that a viewer may. It is what a box without a key set does.
    #[default]
    Queries,
    /// everything: whoever can publish commands the box
    Allow,
}

/// Whom the box believes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// whose signatures count; none: nobody's
    pub keys: Option<KeySet>,
    /// what needs none
    pub unsigned: Unsigned,
}

/// What a message is held against.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// who the box is
    pub me: &'a Identity,
    /// whom it believes
    pub trust: &'a Trust,
    /// what was there before
    pub freshness: &'a Freshness,
    /// what it said of itself
    pub nonces: &'a Nonces,
    /// what time that is by the clock that nonces are counted by
    pub uptime: Duration,
    /// what time it is
    pub clock: Clock,
    /// what is done when it does not know
    pub no_clock: NoClock,
}

/// A message on a topic for commands.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// where it came
    pub topic: &'a Topic,
    /// what came
    pub bytes: &'a [u8],
    /// The digest under which a command with the topic's id was admitted before. Refused ones are not
    /// remembered, or whoever can publish could use up ids.
    pub remembered: Option<Digest>,
}

/// What a message turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It is to be done. Its record, state and counters are stored before it is acknowledged.
    New(Box<Admitted>),
    /// It was admitted before: what came of it is told again, and nothing is done.
    Again,
}

/// A command of which is known who sent it, that they may, and that it is new.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admitted {
    /// the command
    pub command: Command,
    /// of its payload
    pub digest: Digest,
    /// who signed it; empty: nobody, and the box allows that
    pub signers: Vec<Signer>,
    /// Whether the box does not know the time, and waits for it: see [`Gate::may_start`].
    pub is_held: bool,
}

/// Whoever signed a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// as the key set calls the key
    pub id: String,
    /// the key
    pub key: PublicKey,
}

/// Whether an admitted command begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It does.
    Now,
    /// The box does not know the time yet; it is asked again when it does, or after that long.
    Wait(Duration),
}

/// A message whose signatures were checked.
struct Unsealed {
    command: Command,
    digest: Digest,
    signers: Vec<Signer>,
}

/// The refusal, with what is known of the message by then.
fn known(refusal: Refusal, digest: Digest, signers: &[Signer]) -> Refusal {
    let signers = signers.iter().map(|signer| signer.id.clone()).collect();
    Refusal { digest: Some(digest), signers, ..refusal }
}

impl Gate<'_> {
    /// Whether `message` is a command that this box does, and whose.
    ///
    /// # Errors
    /// Why not. Nothing has been changed then.
    pub fn admit(&self, message: &Message<'_>) -> Result<Admission, Refusal> {
        let Unsealed { command, digest, signers } = self.unseal(message)?;
        let about = |refusal| known(refusal, digest, &signers);
        command.check_topic(message.topic, self.me).map_err(about)?;
        match message.remembered {
            Some(remembered) if remembered == digest => return Ok(Admission::Again),
            Some(remembered) => {
                let reason = format!("another command had the id {}: {remembered}", command.id);
                let refusal = Refusal::new(Code::IdReused, reason);
                return Err(about(refusal.help("give each command an id of its own")));
            }
            None => {}
        }
        let signers = self.authorise(&command, &signers).map_err(about)?;
        let is_held = self.check_fresh(&command, &signers).map_err(about)?;
        Ok(Admission::New(Box::new(Admitted { command, digest, signers, is_held })))
    }

    /// Whether an admitted command begins, after it has waited that long for the time: its keys must be in
    /// today's set, and it must not be too old by now.
    ///
    /// # Errors
    /// Why it does not begin at all.
    pub fn may_start(&self, admitted: &Admitted, waited: Duration) -> Result<Start, Refusal> {
        let Admitted { command, digest, signers, is_held } = admitted;
        let about = |refusal| known(refusal, *digest, signers);
        self.authorise(command, signers).map_err(about)?;
        let age = self.freshness.check_time(command, !signers.is_empty(), self.clock).map_err(about)?;
        if !is_held || age == Age::Known {
            return Ok(Start::Now);
        }
        match LONGEST_HOLD.checked_sub(waited).filter(|left| !left.is_zero()) {
            Some(left) => Ok(Start::Wait(left)),
            // A rule that is late can be replaced; who knows what a configuration meant a year ago.
            None if command.op.terms().target == Target::Rule => Ok(Start::Now),
            None => Err(about(no_time(command.op))),
        }
    }

    /// Whether an admitted command is signed by two people, where only what it would do tells that it has to
    /// be: from afar, one does not weaken an output's contract.
    ///
    /// # Errors
    /// `forbidden`, if it is not.
    pub fn require_two(&self, admitted: &Admitted, what: &str) -> Result<(), Refusal> {
        let Admitted { digest, signers, .. } = admitted;
        if signers.is_empty() && self.trust.unsigned == Unsigned::Allow || signers.len() >= 2 {
            return Ok(());
        }
        Err(known(too_few(what, signers.len(), 2), *digest, signers))
    }

    /// Takes the command out of the message once its signatures are known to be good, or need not be.
    fn unseal(&self, message: &Message<'_>) -> Result<Unsealed, Refusal> {
        let bytes = message.bytes;
        let max = Kind::Command.max_bytes();
        if bytes.len() > max {
            let reason = format!("the message has {} bytes, and {max} are allowed", bytes.len());
            let refusal = Refusal::new(Code::Invalid, reason);
            return Err(refusal.help("send what is large as an artifact, by its SHA-256"));
        }
        let value = json::read(bytes).map_err(|why| {
            let reason = format!("the message is no JSON that can be read in one way only: {why}");
            Refusal::new(Code::Invalid, reason)
        })?;
        let envelope = is_envelope(&value).then(|| Envelope::from_json(Kind::Command, value)).transpose()?;
        let digest = envelope.as_ref().map_or_else(|| Digest::sha256(bytes), Envelope::digest);
        let (payload, signers) = match (envelope, &self.trust.keys) {
            (Some(envelope), Some(keys)) => {
                let opened = envelope.open(&keys.named())?;
                let id =
                    |key| keys.entries(key).next().map_or_else(|| key.to_string(), |entry| entry.id.clone());
                let signers = opened.signers.into_iter().map(|key| Signer { id: id(key), key });
                (opened.payload, signers.collect())
            }
            // Nobody's signature counts, so it is as if there were none. Where nothing goes without one,
            // nothing without one is parsed.
            (envelope, _) => {
                self.check_unsigned(None).map_err(|refusal| known(refusal, digest, &[]))?;
                (envelope.map_or_else(|| bytes.to_vec(), Envelope::unchecked), Vec::new())
            }
        };
        let command = Command::parse(&payload).map_err(|refusal| known(refusal, digest, &signers))?;
        Ok(Unsealed { command, digest, signers })
    }

    /// Whether `op`, or anything at all, is done though nobody has signed it.
    fn check_unsigned(&self, op: Option<Op>) -> Result<(), Refusal> {
        let may = match self.trust.unsigned {
            Unsigned::Refuse => false,
            Unsigned::Queries => op.is_none_or(|op| op.is_query() && Role::Viewer.may(op)),
            Unsigned::Allow => true,
        };
        if may {
            return Ok(());
        }
        let (reason, help) = match &self.trust.keys {
            Some(_) => ("the command is not signed", "sign it with a key of the box's key set"),
            None => (
                "the box has no key set, so nobody's signature counts",
                "give it one with `tidegate trust init`; until then it answers questions only, unless its \
                 own configuration file says `unsigned = \"allow\"` in [management]",
            ),
        };
        Err(Refusal::new(Code::Unsigned, reason).help(help))
    }

    /// Whether each of `signers` may do that, by any of its entries in today's key set, and they are enough.
    fn authorise(&self, command: &Command, signers: &[Signer]) -> Result<Vec<Signer>, Refusal> {
        if signers.is_empty() {
            return self.check_unsigned(Some(command.op)).map(|()| Vec::new());
        }
        let now = self.freshness.now(self.clock);
        let mut allowed = Vec::new();
        for Signer { id, key } in signers {
            let reason = format!("the key {} was taken out of the key set", brief(id));
            let mut refusal = Refusal::new(Code::UnknownKey, reason)
                .help("have the command signed with a key that is in the set");
            let entries = self.trust.keys.iter().flat_map(|keys| keys.entries(*key));
            let mut entries = entries.map(|entry| (entry, check_entry(entry, command, &self.me.name, now)));
            let entry = entries.find_map(|(entry, checked)| match checked {
                Ok(()) => Some(entry),
                Err(why) => {
                    refusal = why;
                    None
                }
            });
            let Some(entry) = entry else { return Err(refusal) };
            allowed.push(Signer { id: entry.id.clone(), key: *key });
        }
        let needed = command.op.terms().signatures;
        if allowed.len() < needed {
            return Err(too_few(command.op.name(), allowed.len(), needed));
        }
        Ok(allowed)
    }

    /// Whether the command is new, and whether it has to wait until that can be told.
    fn check_fresh(&self, command: &Command, signers: &[Signer]) -> Result<bool, Refusal> {
        let named: Vec<_> = signers.iter().map(|signer| (signer.id.as_str(), signer.key)).collect();
        self.freshness.check_counter(command, &named, self.clock)?;
        self.nonces.check(command, self.uptime)?;
        match (self.freshness.check_time(command, !signers.is_empty(), self.clock)?, self.no_clock) {
            (Age::Known, _) | (Age::Unknown, NoClock::Accept) => Ok(false),
            (Age::Unknown, NoClock::Hold) => Ok(true),
            (Age::Unknown, NoClock::Refuse) => Err(no_time(command.op)),
        }
    }
}

/// Whether the message is meant as an envelope; what it is not says so itself when it is read.
fn is_envelope(value: &serde_json::Value) -> bool {
    ["payload", "payloadType", "signatures"].iter().any(|key| value.get(key).is_some())
}

fn no_time(op: Op) -> Refusal {
    let reason = format!("the box does not know the time, so it cannot tell whether this {op} is too old");
    Refusal::new(Code::NotFresh, reason)
        .help("put the box's newest nonce into the command, or let the box reach a time server")
}

fn too_few(what: &str, signed: usize, needed: usize) -> Refusal {
    let reason = format!("{what} takes {needed} signatures of different keys, and {signed} is there");
    Refusal::new(Code::Forbidden, reason)
        .help("have a second person sign the same bytes, and publish both together")
}

/// Whether this entry of the key set allows that command here and now.
fn check_entry(entry: &Key, command: &Command, box_name: &str, now: WallTime) -> Result<(), Refusal> {
    let (id, op, scope) = (brief(&entry.id), command.op, &entry.scope);
    let forbidden = |reason: String| Refusal::new(Code::Forbidden, reason);
    if let Some(end) = entry.not_after.filter(|end| *end < now) {
        return Err(forbidden(format!("the key {id} was good until {end}, and it is {now} at least"))
            .help("sign with another key, or give it more time in the next key set"));
    }
    if !entry.role.may(op) {
        let roles = op.terms().roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ");
        let role = entry.role.name();
        return Err(forbidden(format!("the key {id} is for the role {role}, and {op} is for: {roles}"))
            .help("sign with a key of such a role"));
    }
    let outside = |what: &str, name: &str, patterns: &[String]| {
        forbidden(format!("the key {id} is not for {what} {}, but for: {}", brief(name), patterns.join(", ")))
            .help("sign with another key, or widen its scope in the next key set")
    };
    if !scope.has_box(box_name) {
        return Err(outside("the box", box_name, &scope.boxes));
    }
    match op.terms().target {
        Target::TheBox => {}
        Target::Rule => {
            let name = command.argument("name")?;
            if !scope.has_rule(name) {
                return Err(outside("the rule", name, &scope.rules));
            }
        }
        Target::Output => {
            let name = command.argument("output")?;
            if !scope.has_output(name) {
                return Err(outside("the output", name, &scope.outputs));
            }
        }
    }
    let Some(max) = scope.max_lease.filter(|_| op == Op::OutputOverride) else { return Ok(()) };
    let text = command.argument("lease")?;
    let lease = parse_duration(text).ok_or_else(|| {
        let reason = format!("`args.lease` is {}, which is no duration", brief(text));
        Refusal::new(Code::Invalid, reason).help("write a whole number and a unit, such as \"45min\"")
    })?;
    if lease > max {
        let (lease, max) = (write_duration(lease), write_duration(max));
        return Err(forbidden(format!("the lease is {lease}, and the key {id} may override for {max}"))
            .help("override for less, and renew it"));
    }
    Ok(())
}
