//! What the box says of itself without being asked: that it is there, what it can, that it is alive.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_connectors::remote::{LARGEST, Publication, Will};
use tidegate_trust::gate::Unsigned;

use super::desk::{Desk, Settings};
use super::ops;
use crate::management::managed_box::ManagedBox;

/// A line that is down for less is not told.
const WILL_DELAY: Duration = Duration::from_secs(10);
/// `alive` is of no use to anybody after that.
const ALIVE_EXPIRY: Duration = Duration::from_mins(2);

/// The box, as it shows itself to whoever manages it.
#[derive(Debug, Clone)]
pub struct Presence {
    /// how its topics begin
    root: String,
    /// one start of the process
    session: String,
    boot: String,
}

impl Presence {
    /// The presence of one start, which `random` tells from others.
    #[must_use]
    pub fn new(settings: &Settings, boot: &str, random: [u8; 16]) -> Self {
        let session = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { root: format!("{}/{}", settings.prefix, settings.me.name), session, boot: boot.to_owned() }
    }

    /// What the far side says when the box is gone without a word.
    #[must_use]
    pub fn will(&self) -> Will {
        let topic = format!("{}/status", self.root);
        Will { topic, payload: self.status(false).to_string(), delay: WILL_DELAY }
    }

    /// What is listened to.
    #[must_use]
    pub fn filters(settings: &Settings) -> Vec<String> {
        let Settings { prefix, me, .. } = settings;
        let mut filters =
            vec![format!("{prefix}/{}/cmd/+/+", me.name), format!("{prefix}/{}/ask/+", me.name)];
        filters.extend(me.groups.iter().map(|group| format!("{prefix}/@{group}/cmd/+/+")));
        filters
    }

    /// All that is said when the line is up: first what the box can, then that it is there.
    #[must_use]
    pub fn arrives(&self, desk: &Desk, managed: &ManagedBox) -> Vec<Publication> {
        vec![self.cap(desk), self.keep("status", &self.status(true)), self.alive(managed)]
    }

    /// The last word.
    #[must_use]
    pub fn leaves(&self) -> Publication {
        self.keep("status", &self.status(false))
    }

    /// What the box can, and takes as new.
    #[must_use]
    pub fn cap(&self, desk: &Desk) -> Publication {
        let trust = desk.trust();
        let signed = match trust.unsigned {
            Unsigned::Refuse => "always",
            Unsigned::Queries => "commands",
            Unsigned::Allow => "never",
        };
        let ops = ops::KNOWN.iter().map(|(op, _)| {
            let terms = op.terms();
            let roles: Vec<_> = terms.roles.iter().map(|role| role.name()).collect();
            let of = json!({ "roles": roles, "fresh": terms.timing, "signatures": terms.signatures });
            (op.name().to_owned(), of)
        });
        let keys = trust.keys.as_ref();
        let freshness = desk.freshness();
        let counters = freshness.counters.iter().map(|(key, counter)| {
            let named = keys.and_then(|keys| keys.entries(*key).next().map(|entry| entry.id.clone()));
            (named.unwrap_or_else(|| key.to_string()), json!(counter.newest()))
        });
        let cap = json!({
            "v": 1,
            "session": self.session,
            "version": env!("CARGO_PKG_VERSION"),
            "signed": signed,
            "max_command": LARGEST,
            "nonce": desk.nonces().current(),
            "time_floor": freshness.floor.at,
            "trust": keys.map(|keys| json!({ "version": keys.version })),
            "counters": counters.collect::<serde_json::Map<_, _>>(),
            "ops": ops.collect::<serde_json::Map<_, _>>(),
        });
        self.keep("cap", &cap)
    }

    /// That the box is alive, and how it is.
    #[must_use]
    pub fn alive(&self, managed: &ManagedBox) -> Publication {
        let alive = json!({
            "session": self.session,
            "uptime_s": managed.started.elapsed().as_secs(),
            "time_ns": managed.time.now(),
        });
        Publication { keep: false, expiry: Some(ALIVE_EXPIRY), ..self.keep("alive", &alive) }
    }

    fn status(&self, online: bool) -> Value {
        let version = env!("CARGO_PKG_VERSION");
        json!({ "online": online, "session": self.session, "boot": self.boot, "v": version })
    }

    fn keep(&self, topic: &str, payload: &Value) -> Publication {
        Publication {
            topic: format!("{}/{topic}", self.root),
            payload: Bytes::from(payload.to_string()),
            keep: true,
            confirmed: true,
            expiry: None,
            correlation: None,
        }
    }
}
