//! Who may do what: a signed document, each version of which names those who may sign the next.
//!
//! The rules are those of TUF for its root: a new version counts if it is the next one, and enough keys have
//! signed it of those that the old version names, and of those that itself names. The first version comes to
//! the box by hand, and people compare its fingerprint.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::envelope::{Envelope, Kind, brief};
use crate::json;
use crate::key::PublicKey;
use crate::outcome::Code;
use crate::refusal::Refusal;
use crate::role::{Role, Scope};
use crate::time::WallTime;

/// As many keys may be tried for each signature of a stranger; on a small box each try takes a third of a
/// millisecond.
pub const MAX_KEYS: usize = 32;

/// As many can sign an envelope.
pub const MAX_ROOTS: usize = 8;

/// A key set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySet {
    /// one more than that of the set before
    pub version: u64,
    /// When it was made. The box believes that it is not earlier than that.
    pub issued: WallTime,
    /// who may replace it
    pub roots: Roots,
    /// who may command
    pub keys: Vec<Key>,
}

/// Those who sign key sets, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// their keys
    pub keys: Vec<RootKey>,
    /// how many of them have to sign
    pub threshold: usize,
}

/// The key of one who signs key sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKey {
    /// what people call it
    pub id: String,
    /// the key
    pub ed25519: PublicKey,
}

/// The key of one who commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// what people call it
    pub id: String,
    /// the key
    pub ed25519: PublicKey,
    /// what it is for
    pub role: Role,
    /// where that ends
    pub scope: Scope,
    /// when it ends; absent: when it is in no set any more
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<WallTime>,
}

/// The SHA-256 of a key set's bytes, as people compare it: in groups of four.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub Digest);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, digit) in self.0.hex().chars().enumerate() {
            let space = if number > 0 && number.is_multiple_of(4) { " " } else { "" };
            write!(f, "{space}{digit}")?;
        }
        Ok(())
    }
}

fn invalid(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Invalid, format!("the key set cannot be used: {why}"))
}

impl Roots {
    fn named(&self) -> impl Iterator<Item = (&str, PublicKey)> {
        self.keys.iter().map(|root| (root.id.as_str(), root.ed25519))
    }

    /// Whether enough of them are among `signers`; if not, who is missing.
    fn check(&self, signers: &BTreeSet<PublicKey>, whose: &str) -> Result<(), Refusal> {
        let signed = self.keys.iter().filter(|root| signers.contains(&root.ed25519)).count();
        if signed >= self.threshold {
            return Ok(());
        }
        let missing = self.keys.iter().filter(|root| !signers.contains(&root.ed25519));
        let names = missing.map(|root| root.id.as_str()).collect::<Vec<_>>().join(", ");
        let needed = self.threshold;
        let reason = format!("the key set is signed by {signed} of the {needed} roots that {whose} asks for");
        Err(Refusal::new(Code::Forbidden, reason)
            .help(format!("have it signed by {} of: {names}", needed - signed)))
    }
}

impl KeySet {
    /// The first key set of a box, which a person brings, and its fingerprint.
    ///
    /// # Errors
    /// When it is no key set, or not signed by enough of its own roots.
    pub fn first(envelope: &[u8]) -> Result<(Self, Fingerprint), Refusal> {
        // Its own roots sign it, so they have to be known before: what is believed here is who brings it.
        let sealed = Envelope::read(Kind::KeySet, envelope)?;
        let fingerprint = Fingerprint(sealed.digest());
        let claimed = Self::parse(&sealed.clone().unchecked())?;
        let opened = sealed.open(&claimed.roots.named().collect::<Vec<_>>())?;
        claimed.roots.check(&opened.signers, "it itself")?;
        Ok((claimed, fingerprint))
    }

    /// The set that is to take the place of this one.
    ///
    /// # Errors
    /// When it is not the next version, or too few roots of either version have signed it.
    pub fn next(&self, envelope: &[u8]) -> Result<Self, Refusal> {
        let sealed = Envelope::read(Kind::KeySet, envelope)?;
        // Nothing of it is parsed before one of the roots here has signed it. The new roots are known from
        // inside only, so all of its signatures can be checked only then.
        let claimed = sealed.clone().open_any(&self.roots.named().collect::<Vec<_>>())?;
        let next = Self::parse(&claimed)?;
        let known: Vec<_> = self.roots.named().chain(next.roots.named()).collect();
        let signers = sealed.open(&known)?.signers;
        self.roots.check(&signers, "the set before")?;
        next.roots.check(&signers, "it itself")?;
        if Some(next.version) != self.version.checked_add(1) {
            let (is, here) = (next.version, self.version);
            let reason = format!("the key set has version {is}, and version {here} is here");
            let help = if is <= here {
                "a set that was replaced does not come back: make a new one with the next number"
            } else {
                "send the versions in between first, in order"
            };
            return Err(Refusal::new(Code::Precondition, reason).help(help));
        }
        if next.issued < self.issued {
            return Err(invalid(format_args!(
                "it was made at {}, before the one that it replaces",
                next.issued
            )));
        }
        Ok(next)
    }

    fn parse(payload: &[u8]) -> Result<Self, Refusal> {
        let set: Self = json::read_as(payload).map_err(invalid)?;
        set.check()?;
        Ok(set)
    }

    /// The bytes that roots sign.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        self.check()?;
        serde_json::to_vec(self).map_err(invalid)
    }

    fn check(&self) -> Result<(), Refusal> {
        let Roots { keys: roots, threshold } = &self.roots;
        if roots.is_empty() || roots.len() > MAX_ROOTS {
            return Err(invalid(format_args!("it has {} roots, and needs 1 to {MAX_ROOTS}", roots.len())));
        }
        if self.keys.len() > MAX_KEYS {
            return Err(invalid(format_args!("it has {} keys, and {MAX_KEYS} are allowed", self.keys.len())));
        }
        if *threshold == 0 || *threshold > roots.len() {
            let count = roots.len();
            return Err(invalid(format_args!("the threshold is {threshold}, and has to be 1 to {count}")));
        }
        let root_keys: BTreeSet<_> = roots.iter().map(|root| root.ed25519).collect();
        if root_keys.len() < roots.len() {
            return Err(invalid("two roots have the same key, so that one signature would count twice"));
        }
        let mut names = BTreeSet::new();
        for name in roots.iter().map(|root| &root.id).chain(self.keys.iter().map(|key| &key.id)) {
            if name.is_empty() || name.len() > 64 || name.contains(|c: char| c.is_control() || c == ',') {
                return Err(invalid(format_args!(
                    "{} is no name for a key: write up to 64 characters, and no comma",
                    brief(name)
                )));
            }
            if !names.insert(name) {
                return Err(invalid(format_args!("two keys are called {}", brief(name))));
            }
        }
        for key in &self.keys {
            if root_keys.contains(&key.ed25519) {
                return Err(invalid(format_args!(
                    "{} is a root, too: roots stay in a safe, and sign key sets only",
                    brief(&key.id)
                )));
            }
            if key.scope.boxes.is_empty() {
                return Err(invalid(format_args!("the scope of {} has no boxes", brief(&key.id))));
            }
        }
        Ok(())
    }

    /// All keys with their names, as envelopes are opened with.
    pub(crate) fn named(&self) -> Vec<(&str, PublicKey)> {
        self.keys.iter().map(|key| (key.id.as_str(), key.ed25519)).collect()
    }

    /// What the owner of `key` is here. There may be several entries, each with a role.
    pub fn entries(&self, key: PublicKey) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |entry| entry.ed25519 == key)
    }

    /// What its makers should hear, though it is taken.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut roles: BTreeMap<PublicKey, Vec<&Key>> = BTreeMap::new();
        for key in &self.keys {
            roles.entry(key.ed25519).or_default().push(key);
        }
        for entries in roles.values() {
            let has = |role| entries.iter().find(|key| key.role == role);
            if let (Some(deployer), Some(operator)) = (has(Role::Deployer), has(Role::Operator)) {
                found.push(format!(
                    "{} and {} are one key, which deploys rules and moves outputs: who steals it has both; \
                     make two keys",
                    deployer.id, operator.id
                ));
            }
        }
        if self.roots.threshold == 1 {
            found.push("one stolen root key is enough to replace this set; make the threshold 2".into());
        }
        let security: BTreeSet<_> =
            self.keys.iter().filter(|key| key.role == Role::Security).map(|key| key.ed25519).collect();
        if security.len() < 2 {
            found.push(
                "it takes two keys with the role security to send the next set from afar; until then it has \
                 to be brought to each box"
                    .into(),
            );
        }
        found
    }
}
