//! What entries of the journal and snapshots name by its hash, kept once: the sources of rules, and what
//! reference tables held.
//!
//! A content travels with the entry that names it, and is stored in the same transaction. A snapshot brings
//! along all that it names, since entries before it may not have been stored; what is there is not written
//! again. A content goes when neither an entry of the journal nor a snapshot names it any more. Of entries it
//! is noted which was the newest that does; what stands in a snapshot's manifest as a text is named by it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tidegate_rules::{Source, sha256};

use super::changes::Step;
use super::signed;

/// The number of no entry.
const NO_ENTRY: u64 = 0;

/// Bytes with a name that is made of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    hash: Arc<str>,
    bytes: Arc<[u8]>,
}

impl Content {
    /// Names `bytes` by their SHA-256.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self { hash: sha256(&bytes), bytes }
    }

    /// Bytes that an older program has named in its own way.
    #[must_use]
    pub fn named(hash: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { hash: Arc::from(hash), bytes: bytes.into() }
    }

    /// The name.
    #[must_use]
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

impl From<&Source> for Content {
    fn from(source: &Source) -> Self {
        Self { hash: Arc::clone(source.sha256()), bytes: Arc::clone(source.bytes()) }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hash)
    }
}

/// What `meta` says of the bytes of the journal: entries, and what is named.
pub(super) const JOURNAL_BYTES: &str = "(SELECT coalesce(sum(length(data) + octet_length(edit) + \
    length(marks)), 0) FROM journal) + (SELECT coalesce(sum(length(bytes)), 0) FROM content)";

/// Whether `hash` is the name of `bytes`. Names that older programs gave are no SHA-256, and are believed.
pub(super) fn is_named(hash: &str, bytes: &[u8]) -> bool {
    hash.len() != 64 || *sha256(bytes) == *hash
}

/// The bytes that are named `hash`, as they are now.
pub(super) fn read(conn: &Connection, hash: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut select = conn.prepare_cached("SELECT bytes FROM content WHERE hash = ?1")?;
    select.query_row([hash], |row| row.get(0)).optional()
}

/// Deletes what is not what its name says.
pub(super) fn remove_damaged(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let ids: Vec<i64> =
        tx.prepare("SELECT id FROM content")?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for id in ids {
        let select = "SELECT hash, bytes FROM content WHERE id = ?1";
        let (hash, bytes): (String, Vec<u8>) =
            tx.prepare_cached(select)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if !is_named(&hash, &bytes) {
            tx.execute("DELETE FROM content WHERE id = ?1", [id])?;
        }
    }
    Ok(())
}

impl Step<'_> {
    /// Stores `content` unless it is there, and notes that entry `entry` names it.
    pub(super) fn content_of_entry(&mut self, content: &Content, entry: u64) -> rusqlite::Result<()> {
        if !self.has(content)? {
            return self.insert_content(content, entry);
        }
        let note = "UPDATE content SET entry = ?2 WHERE hash = ?1 AND entry < ?2";
        self.tx.prepare_cached(note)?.execute(params![&*content.hash, signed(entry)]).map(drop)
    }

    /// Stores those of `contents` that are not there, for a snapshot.
    pub(super) fn contents_of_snapshot(&mut self, contents: &[Content]) -> rusqlite::Result<()> {
        contents.iter().try_for_each(|content| {
            if self.has(content)? { Ok(()) } else { self.insert_content(content, NO_ENTRY) }
        })
    }

    fn has(&self, content: &Content) -> rusqlite::Result<bool> {
        self.tx.prepare_cached("SELECT 1 FROM content WHERE hash = ?1")?.exists([&*content.hash])
    }

    fn insert_content(&mut self, Content { hash, bytes }: &Content, entry: u64) -> rusqlite::Result<()> {
        let insert = "INSERT INTO content (hash, entry, bytes) VALUES (?1, ?2, ?3)";
        self.tx.prepare_cached(insert)?.execute(params![&**hash, signed(entry), &**bytes])?;
        self.totals.journal_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The names that stand in manifests of snapshots.
    pub(super) fn named_by_snapshots(&self) -> rusqlite::Result<HashSet<String>> {
        let named = "SELECT atom FROM snapshot, json_tree(iif(json_valid(manifest), manifest, '{}')) AS value
            WHERE value.type = 'text'";
        self.tx.prepare_cached(named)?.query_map([], |row| row.get(0))?.collect()
    }

    /// Entry `entry`, which was the newest to name contents, is gone.
    pub(super) fn forget_contents_of(&mut self, entry: u64, named: &HashSet<String>) -> rusqlite::Result<()> {
        let select = "SELECT id, hash, length(bytes) FROM content WHERE entry = ?1";
        self.forget_contents(self.tx.prepare_cached(select)?.query_map([signed(entry)], found)?, named)
    }

    /// Deletes what neither entries nor `named` name, which snapshots do.
    pub(super) fn forget_unnamed_contents(&mut self, named: &HashSet<String>) -> rusqlite::Result<()> {
        let select = "SELECT id, hash, length(bytes) FROM content
            WHERE NOT EXISTS (SELECT 1 FROM journal WHERE journal.id = content.entry)";
        self.forget_contents(self.tx.prepare_cached(select)?.query_map([], found)?, named)
    }

    fn forget_contents(
        &mut self,
        found: impl Iterator<Item = rusqlite::Result<(i64, String, u64)>>,
        named: &HashSet<String>,
    ) -> rusqlite::Result<()> {
        let gone: Vec<(i64, String, u64)> = found
            .filter(|found| found.as_ref().map_or(true, |(_, hash, _)| !named.contains(hash)))
            .collect::<Result<_, _>>()?;
        for (id, _, size) in gone {
            self.tx.prepare_cached("DELETE FROM content WHERE id = ?1")?.execute([id])?;
            self.totals.journal_bytes = self.totals.journal_bytes.saturating_sub(size);
        }
        Ok(())
    }

    /// Deletes a content that is damaged: it would never be stored again.
    pub(super) fn remove_content(&mut self, hash: &str) -> rusqlite::Result<()> {
        let select = "SELECT id, hash, length(bytes) FROM content WHERE hash = ?1";
        self.forget_contents(self.tx.prepare_cached(select)?.query_map([hash], found)?, &HashSet::new())
    }
}

/// From `SELECT id, hash, length(bytes)`.
fn found(row: &Row<'_>) -> rusqlite::Result<(i64, String, u64)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}
