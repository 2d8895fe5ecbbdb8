//! Who takes what out of the outbox, and what happens to it when the configuration changes that.
//!
//! A block waits until every uplink that takes its rule's rows has confirmed it. Table `confirmed` names
//! those that have while others have not: with one uplink it stays empty. A gap's `uplinks` names those that
//! are still to be told of it, when these are not simply all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use tidegate_rules::Priority;
use tokio::sync::watch;

use super::changes::Step;
use super::writer::Request;
use super::{Buffer, BufferError, Gap, StoredBlock, signed};
use crate::config;

/// The uplinks that rows wait for: by name, the rules whose rows each takes. `None`: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uplinks(BTreeMap<String, Option<BTreeSet<String>>>);

impl Uplinks {
    /// Those of a configuration.
    #[must_use]
    pub fn from_config(uplinks: &BTreeMap<String, config::Uplink>) -> Self {
        Self(uplinks.iter().map(|(name, uplink)| (name.clone(), uplink.rules.clone())).collect())
    }

    /// Those that the buffer was last opened for, as it notes them; none if it does not.
    pub(super) fn noted(conn: &Connection) -> rusqlite::Result<Self> {
        let noted: String = conn.query_row("SELECT uplinks FROM meta", [], |row| row.get(0))?;
        Ok(Self(serde_json::from_str(&noted).unwrap_or_default()))
    }

    #[cfg(test)]
    pub(crate) fn new(uplinks: &[(&str, Option<&[&str]>)]) -> Self {
        let rules = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        Self(uplinks.iter().map(|(name, takes)| ((*name).to_owned(), takes.map(rules))).collect())
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// The rules whose rows `uplink` takes, as a JSON list. `None`: all.
    pub(super) fn rules(&self, uplink: &str) -> Option<String> {
        match self.0.get(uplink) {
            Some(rules) => rules.as_ref().map(json),
            None => Some(json(&[(); 0])),
        }
    }

    /// The uplinks that take what `rule` writes.
    pub(super) fn takers(&self, rule: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(_, rules)| rules.as_ref().is_none_or(|rules| rules.contains(rule)))
            .map(|(name, _)| name.as_str())
    }

    /// The uplinks that are told when rows of `rule` are dropped: those that would have taken them, or all
    /// when there are none.
    fn told(&self, rule: &str) -> BTreeSet<&str> {
        let takers: BTreeSet<_> = self.takers(rule).collect();
        if takers.is_empty() { self.names().collect() } else { takers }
    }

    /// Whether `uplink` is to be told of a gap of `rule` whose column says `noted`.
    pub(super) fn is_told(&self, uplink: &str, rule: &str, noted: &str) -> bool {
        if noted.is_empty() {
            self.told(rule).contains(uplink)
        } else {
            noted.split(',').any(|name| name == uplink)
        }
    }

    /// All rules that some uplink takes. `None`: every rule.
    fn all_rules(&self) -> Option<BTreeSet<&String>> {
        let lists: Option<Vec<_>> = self.0.values().map(Option::as_ref).collect();
        lists.map(|lists| lists.into_iter().flatten().collect())
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Step<'_> {
    /// `uplink` has block `id`. The block is deleted when nobody else waits for it.
    pub(super) fn confirm(&mut self, id: u64, uplink: &str) -> rusqlite::Result<()> {
        if !self.uplinks.is_one() && self.others_wait(id, uplink)? {
            let note = "INSERT OR IGNORE INTO confirmed (uplink, block) VALUES (?1, ?2)";
            return self.tx.prepare_cached(note)?.execute(params![uplink, signed(id)]).map(drop);
        }
        self.delete("id = ?1", id).map(drop)
    }

    fn others_wait(&self, id: u64, uplink: &str) -> rusqlite::Result<bool> {
        let mut rule = self.tx.prepare_cached("SELECT rule FROM block WHERE id = ?1")?;
        let Some(rule) = rule.query_row([signed(id)], |row| row.get::<_, String>(0)).optional()? else {
            return Ok(false);
        };
        let confirmed = self.confirmed(id)?;
        Ok(self.uplinks.takers(&rule).any(|taker| taker != uplink && !confirmed.contains(taker)))
    }

    /// The uplinks that have confirmed block `id`, which others wait for.
    fn confirmed(&self, id: u64) -> rusqlite::Result<BTreeSet<String>> {
        let mut select = self.tx.prepare_cached("SELECT uplink FROM confirmed WHERE block = ?1")?;
        select.query_map([signed(id)], |row| row.get(0))?.collect()
    }

    /// Forgets who has confirmed block `id`, which is gone. Returns who misses it, as a gap notes it.
    pub(super) fn forget_confirmed(&self, id: u64, rule: &str) -> rusqlite::Result<String> {
        if self.uplinks.is_one() {
            return Ok(String::new());
        }
        let confirmed = self.confirmed(id)?;
        if confirmed.is_empty() {
            return Ok(String::new());
        }
        self.tx.prepare_cached("DELETE FROM confirmed WHERE block = ?1")?.execute([signed(id)])?;
        Ok(self
            .uplinks
            .takers(rule)
            .filter(|taker| !confirmed.contains(*taker))
            .collect::<Vec<_>>()
            .join(","))
    }

    /// `uplink` knows of gap `id`. The gap is deleted when nobody else has to be told.
    pub(super) fn confirm_gap(&self, id: u64, uplink: &str) -> rusqlite::Result<()> {
        let select = "SELECT rule, uplinks FROM gap WHERE id = ?1";
        let found = self
            .tx
            .prepare_cached(select)?
            .query_row([signed(id)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((rule, noted)) = found else { return Ok(()) };
        let (rule, noted): (String, String) = (rule, noted);
        let left: Vec<&str> = self
            .uplinks
            .names()
            .filter(|name| *name != uplink && self.uplinks.is_told(name, &rule, &noted))
            .collect();
        self.tell(id, &left)
    }

    fn tell(&self, gap: u64, left: &[&str]) -> rusqlite::Result<()> {
        if left.is_empty() {
            return self.tx.prepare_cached("DELETE FROM gap WHERE id = ?1")?.execute([signed(gap)]).map(drop);
        }
        self.tx
            .prepare_cached("UPDATE gap SET uplinks = ?2 WHERE id = ?1")?
            .execute(params![signed(gap), left.join(",")])
            .map(drop)
    }

    /// Has the outbox follow the configuration: an uplink that is gone holds nothing, a new one gets what is
    /// there. Without any uplink all stays as it is. Returns how many rows were dropped because nobody takes
    /// them any more.
    pub(super) fn follow_configuration(&mut self) -> rusqlite::Result<u64> {
        let before = Uplinks::noted(self.tx)?;
        if self.uplinks.0.is_empty() || before == *self.uplinks {
            return Ok(0);
        }
        let names = json(&self.uplinks.names().collect::<Vec<_>>());
        self.tx.execute(
            "DELETE FROM confirmed WHERE uplink NOT IN (SELECT value FROM json_each(?1))",
            [names],
        )?;
        self.retell_gaps(&before)?;
        let confirmed: Vec<(u64, Option<String>)> =
            self.collect("SELECT DISTINCT block, rule FROM confirmed LEFT JOIN block ON id = block", [])?;
        for (id, rule) in confirmed {
            if rule.is_some() && !self.others_wait(id, "")? {
                self.delete("id = ?1", id)?;
            }
        }
        let mut dropped = 0;
        if let Some(rules) = self.uplinks.all_rules() {
            let unwanted = "SELECT id, rule FROM block WHERE rule NOT IN (SELECT value FROM json_each(?1))";
            let unwanted: Vec<(u64, Option<String>)> = self.collect(unwanted, [json(&rules)])?;
            for (id, _) in unwanted {
                dropped += self.drop_block("id = ?1", id, "no uplink takes it")?;
            }
        }
        self.tx.execute("DELETE FROM confirmed WHERE block NOT IN (SELECT id FROM block)", [])?;
        self.tx.execute("UPDATE meta SET uplinks = ?1", [json(&self.uplinks.0)])?;
        self.totals.write(self.tx)?;
        Ok(dropped)
    }

    fn collect(
        &self,
        select: &str,
        values: impl rusqlite::Params,
    ) -> rusqlite::Result<Vec<(u64, Option<String>)>> {
        self.tx.prepare(select)?.query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Takes uplinks that are gone off the lists of gaps, and puts new ones on.
    fn retell_gaps(&self, before: &Uplinks) -> rusqlite::Result<()> {
        // After damage nobody knows who was there: then nobody is new.
        let is_new = |name: &str| !before.0.is_empty() && !before.0.contains_key(name);
        for (id, listed) in self.collect("SELECT id, uplinks FROM gap WHERE uplinks <> ''", [])? {
            let listed = listed.unwrap_or_default();
            let listed: BTreeSet<&str> = listed.split(',').collect();
            let left: Vec<&str> =
                self.uplinks.names().filter(|name| listed.contains(name) || is_new(name)).collect();
            self.tell(id, &left)?;
        }
        Ok(())
    }
}

/// One uplink's view of the outbox: what it has not confirmed yet.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub(super) buffer: Buffer,
    pub(super) uplink: Arc<str>,
}

impl Outbox {
    /// The newest committed block's id; notifies with each commit, of blocks or of gaps.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.buffer.committed.clone()
    }

    /// Up to `limit` blocks with `after < id <= until`, in order; fewer when they are large, none when there
    /// are no more. Blocks that the uplink has confirmed or does not take are skipped; blocks that cannot be
    /// read are moved to `refused` and skipped.
    pub async fn fetch(&self, after: u64, until: u64, limit: usize) -> Result<Vec<StoredBlock>, BufferError> {
        self.fetch_of(None, after, until, limit).await
    }

    /// The same, of one priority only.
    pub async fn fetch_of(
        &self,
        priority: Option<Priority>,
        after: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<StoredBlock>, BufferError> {
        let uplink = Arc::clone(&self.uplink);
        self.buffer
            .ask(|reply| Request::Fetch { uplink, range: (after, until), priority, limit, reply })
            .await?
    }

    /// Notes with the next commit that blocks were delivered.
    pub async fn confirm(&self, ids: Vec<u64>) -> Result<(), BufferError> {
        self.tell(Request::Confirm(Arc::clone(&self.uplink), ids)).await
    }

    /// Copies a block that the far side will never take to `refused`, with the reason. For this uplink it is
    /// dealt with.
    pub async fn refuse(&self, id: u64, reason: String) -> Result<(), BufferError> {
        self.tell(Request::Refuse(Arc::clone(&self.uplink), id, reason)).await
    }

    /// Up to `limit` gaps, the oldest first. They stay until they are confirmed, and no longer grow: what is
    /// dropped later makes new ones.
    pub async fn fetch_gaps(&self, limit: usize) -> Result<Vec<Gap>, BufferError> {
        let uplink = Arc::clone(&self.uplink);
        self.buffer.ask(|reply| Request::FetchGaps(uplink, limit, reply)).await?
    }

    /// Notes with the next commit that gaps were told of.
    pub async fn confirm_gaps(&self, ids: Vec<u64>) -> Result<(), BufferError> {
        self.tell(Request::ConfirmGaps(Arc::clone(&self.uplink), ids)).await
    }

    /// How often gaps have been committed since the start: when the number grows, there are new ones.
    #[must_use]
    pub fn gaps_noted(&self) -> u64 {
        self.buffer.status.gaps.get()
    }

    async fn tell(&self, request: Request) -> Result<(), BufferError> {
        self.buffer.requests.send(request).await.map_err(|_| BufferError::Closed)
    }
}
