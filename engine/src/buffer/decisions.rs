//! What was decided about outputs, and why.
//!
//! A decision is kept as JSON, packed with decisions like it that came before as a dictionary: its *basis*.
//! Decisions of one output and one kind of verdict are a *group*, since they look alike. The id of a
//! decision is that of its group, with the decision's number in the lower bits. A basis has the id of the
//! first decision that was packed with it, and holds up to the next basis of its group. A decision before the
//! first basis was packed without one.
//!
//! # Limits
//! Decisions take [`RING`] bytes in all; then the oldest go. Of each output the last [`OF_OUTPUT`] stay, and
//! of each group the last [`OF_GROUP`], so that an output that is busy does not push out a refusal, be it of
//! another output or its own.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::changes::Step;
use super::signed;
use crate::decision::{Decision, Verdict};

/// Bytes of all of them.
const RING: u64 = if cfg!(test) { 64 << 10 } else { 64 << 20 };
/// What is deleted at once: then it is seldom.
const SPARE: u64 = RING / 64;
/// Decisions of an output that stay.
const OF_OUTPUT: u64 = if cfg!(test) { 100 } else { 1_000 };
/// Decisions of an output and a kind of verdict that stay.
const OF_GROUP: u64 = if cfg!(test) { 10 } else { 100 };
/// Of the oldest decisions of a group so many are deleted before other groups are looked at.
const RUN: u64 = 64;
/// Bits of an id that are the decision's number.
const NUMBER_BITS: u32 = 40;
/// What a row takes besides its data and its instance: the id, the time, lengths.
const ROW: usize = 24;
/// A basis has the newest of the decisions that it is made of.
const BASIS: usize = 8 << 10;
/// Decisions that a basis is used for at least.
const BASIS_LASTS: u64 = 32;
/// Rows of a decision are cut, so that none unpacks to more than this.
const MAX_UNPACKED: u64 = 4 << 20;
/// These are small, and compressed only when an output moves.
const LEVEL: i32 = 9;

/// What `meta` says of the bytes of decisions.
pub(super) const DECISION_BYTES: &str = "(SELECT coalesce(sum(length(data) + octet_length(instance) + 24), \
    0) FROM decision) + (SELECT coalesce(sum(length(data)), 0) FROM decision_basis)";

/// What a [`Verdict`] is, without what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictKind {
    /// Something was sent.
    Sent,
    /// Something waits.
    Held,
    /// A row was no claim.
    Refused,
    /// A write came to an end.
    Answered,
}

impl VerdictKind {
    /// All of them, with their words.
    pub const WORDS: [(&str, Self); 4] = [
        ("sent", Self::Sent),
        ("held", Self::Held),
        ("refused", Self::Refused),
        ("answered", Self::Answered),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// The one of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind)
    }
}

impl From<&Verdict> for VerdictKind {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Sent { .. } => Self::Sent,
            Verdict::Held { .. } => Self::Held,
            Verdict::Refused { .. } => Self::Refused,
            Verdict::Answered { .. } => Self::Answered,
        }
    }
}

/// Decisions of one output and one kind of verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group(u64);

impl Group {
    /// That of a decision, or of a basis.
    pub(super) fn from_id(id: i64) -> Self {
        Self(id.unsigned_abs() >> NUMBER_BITS)
    }

    /// The id of decision `number`. Numbers that do not fit are the last one that does.
    pub(super) fn id(self, number: u64) -> i64 {
        signed((self.0 << NUMBER_BITS) | number.min(Self::LAST))
    }

    pub(super) const LAST: u64 = (1 << NUMBER_BITS) - 1;
}

/// The number of the decision with this id.
pub(super) fn number(id: i64) -> u64 {
    id.unsigned_abs() & Group::LAST
}

/// What is known of the groups without looking: it has to be forgotten when a transaction fails.
#[derive(Default)]
pub(super) struct Groups {
    by_output: HashMap<Arc<str>, BTreeMap<VerdictKind, Group>>,
    /// the newest basis of each, with its id
    bases: HashMap<u64, (i64, Vec<u8>)>,
    /// bytes at which decisions are deleted
    full: u64,
}

/// The groups of `output`.
pub(super) fn groups_of(conn: &Connection, output: &str) -> rusqlite::Result<BTreeMap<VerdictKind, Group>> {
    let mut select = conn.prepare_cached("SELECT id, kind FROM decision_group WHERE output = ?1")?;
    let found = select.query_map([output], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    let mut groups = BTreeMap::new();
    for found in found {
        let (id, kind) = found?;
        groups.extend(VerdictKind::from_word(&kind).map(|kind| (kind, Group(id))));
    }
    Ok(groups)
}

/// By output: the number of the newest decision.
pub(super) fn newest(conn: &Connection) -> rusqlite::Result<HashMap<Arc<str>, u64>> {
    let mut newest: HashMap<Arc<str>, u64> = HashMap::new();
    let mut groups = conn.prepare("SELECT id, output FROM decision_group")?;
    let mut found = groups.query([])?;
    while let Some(row) = found.next()? {
        let (group, output) = (Group(row.get(0)?), row.get::<_, String>(1)?);
        if let Some(id) = last_id(conn, group)? {
            let known = newest.entry(output.into()).or_default();
            *known = number(id).max(*known);
        }
    }
    Ok(newest)
}

/// The id of the newest decision of `group`.
pub(super) fn last_id(conn: &Connection, group: Group) -> rusqlite::Result<Option<i64>> {
    let select = "SELECT id FROM decision WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1";
    let mut select = conn.prepare_cached(select)?;
    select.query_row([group.id(0), group.id(Group::LAST)], |row| row.get(0)).optional()
}

/// The basis that decision `id` was packed with, and the basis's id; with none the bytes are empty.
pub(super) fn basis(conn: &Connection, id: i64) -> rusqlite::Result<(Option<i64>, Vec<u8>)> {
    let select = "SELECT id, data FROM decision_basis WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1";
    let found = conn.prepare_cached(select)?.query_row([Group::from_id(id).id(0), id], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
    });
    Ok(match found.optional()? {
        // One that is damaged makes its decisions unreadable: their checksums say so.
        Some((of, data)) => (Some(of), unpack_bytes(&data, &[]).unwrap_or_default()),
        None => (None, Vec::new()),
    })
}

/// The decision in `data`.
pub(super) fn unpack(data: &[u8], basis: &[u8]) -> Result<Decision, String> {
    let json = unpack_bytes(data, basis).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

pub(super) fn unpack_bytes(data: &[u8], basis: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    zstd::Decoder::with_dictionary(data, basis)?.take(MAX_UNPACKED).read_to_end(&mut plain)?;
    Ok(plain)
}

fn pack(plain: &[u8], basis: &[u8]) -> io::Result<Vec<u8>> {
    let mut packer = zstd::bulk::Compressor::with_dictionary(LEVEL, basis)?;
    packer.include_checksum(true)?;
    packer.compress(plain)
}

/// A decision, packed.
struct Packed {
    data: Vec<u8>,
    /// a basis that begins with it, and that packed
    new_basis: Option<(Vec<u8>, Vec<u8>)>,
}

impl Packed {
    /// With `basis`; if that is not of much use, or there is none, and a new one may begin, with that.
    fn new(decision: &Decision, basis: Vec<u8>, begins: bool, has_basis: bool) -> io::Result<Self> {
        let json = serde_json::to_vec(decision)?;
        let data = pack(&json, &basis)?;
        if !begins || (has_basis && 3 * data.len() < json.len()) {
            return Ok(Self { data, new_basis: None });
        }
        let mut plain = basis;
        plain.extend_from_slice(&json);
        plain.drain(..plain.len().saturating_sub(BASIS));
        let packed = pack(&plain, &[])?;
        Ok(Self { data: pack(&json, &plain)?, new_basis: Some((plain, packed)) })
    }
}

/// Deletes decisions that cannot be read, as when their basis was lost.
pub(super) fn remove_unreadable(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut select = tx.prepare("SELECT id, data FROM decision ORDER BY id")?;
    let mut delete = tx.prepare("DELETE FROM decision WHERE id = ?1")?;
    let mut found = select.query([])?;
    while let Some(row) = found.next()? {
        let (id, data): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (_, basis) = basis(tx, id)?;
        if unpack(&data, &basis).is_err() {
            delete.execute([id])?;
        }
    }
    Ok(())
}

/// Where a group can be made smaller.
struct Oldest {
    group: Group,
    /// the time of the oldest that may go; none: none may
    now_ns: Option<i64>,
    /// the first that has to stay
    stays: i64,
}

impl Step<'_> {
    /// Stores `decision` in the place of one of the same output and number.
    pub(super) fn decision(&mut self, decision: &Decision) -> rusqlite::Result<()> {
        let group = self.group(&decision.output, VerdictKind::from(&decision.verdict))?;
        self.forget_decision(&decision.output, decision.number)?;
        let id = group.id(decision.number);
        let (first, basis) = self.basis(group, id)?;
        let begins = first.is_none_or(|first| id >= first + signed(BASIS_LASTS))
            && last_id(self.tx, group)?.is_none_or(|last| last < id);
        let Packed { data, new_basis } = match Packed::new(decision, basis, begins, first.is_some()) {
            Ok(packed) => packed,
            // Tried again it would be the same, and hold up all that comes behind it.
            Err(error) => {
                tracing::error!(output = %decision.output, %error, "a decision cannot be kept");
                return Ok(());
            }
        };
        if let Some((plain, packed)) = new_basis {
            self.insert_basis(group, id, plain, &packed)?;
        }
        let insert = "INSERT INTO decision (id, now_ns, instance, data) VALUES (?1, ?2, ?3, ?4)";
        self.tx.prepare_cached(insert)?.execute(params![id, decision.at_ns, &*decision.instance, data])?;
        self.totals.decision_bytes += (data.len() + decision.instance.len() + ROW) as u64;
        Ok(())
    }

    fn group(&mut self, output: &Arc<str>, kind: VerdictKind) -> rusqlite::Result<Group> {
        if !self.groups.by_output.contains_key(output) {
            self.groups.by_output.insert(Arc::clone(output), groups_of(self.tx, output)?);
        }
        let groups = self.groups.by_output.entry(Arc::clone(output)).or_default();
        if let Some(group) = groups.get(&kind) {
            return Ok(*group);
        }
        let insert = "INSERT INTO decision_group (output, kind) VALUES (?1, ?2) RETURNING id";
        let id = self.tx.prepare_cached(insert)?.query_row([output, kind.word()], |row| row.get(0))?;
        groups.insert(kind, Group(id));
        Ok(Group(id))
    }

    /// The basis of decision `id`, with its id.
    fn basis(&mut self, group: Group, id: i64) -> rusqlite::Result<(Option<i64>, Vec<u8>)> {
        match self.groups.bases.get(&group.0) {
            Some((first, known)) if *first <= id => Ok((Some(*first), known.clone())),
            Some(_) => basis(self.tx, id),
            None => {
                let newest = basis(self.tx, group.id(Group::LAST))?;
                if let (Some(first), known) = newest {
                    self.groups.bases.insert(group.0, (first, known));
                    return self.basis(group, id);
                }
                Ok(newest)
            }
        }
    }

    fn insert_basis(&mut self, group: Group, id: i64, plain: Vec<u8>, packed: &[u8]) -> rusqlite::Result<()> {
        // Nothing was packed with newer ones any more: what was has another number or verdict now.
        self.forget_bases(id, group.id(Group::LAST))?;
        let insert = "INSERT INTO decision_basis (id, data) VALUES (?1, ?2)";
        self.tx.prepare_cached(insert)?.execute(params![id, packed])?;
        self.totals.decision_bytes += packed.len() as u64;
        self.groups.bases.insert(group.0, (id, plain));
        Ok(())
    }

    /// Deletes decision `number` of `output`, whatever came of it.
    fn forget_decision(&mut self, output: &Arc<str>, number: u64) -> rusqlite::Result<()> {
        let groups: Vec<Group> =
            self.groups.by_output.get(output).into_iter().flat_map(BTreeMap::values).copied().collect();
        groups.into_iter().try_for_each(|group| {
            let id = group.id(number);
            self.forget_decisions(id, id.saturating_add(1), 1)
        })
    }

    /// Deletes the first `count` decisions from `first` on that are before `end`.
    fn forget_decisions(&mut self, first: i64, end: i64, count: u64) -> rusqlite::Result<()> {
        let delete = "DELETE FROM decision WHERE id IN (SELECT id FROM decision WHERE id >= ?1 AND id < ?2 \
            ORDER BY id LIMIT ?3) RETURNING length(data) + octet_length(instance) + 24";
        let mut delete = self.tx.prepare_cached(delete)?;
        let sizes = delete.query_map([first, end, signed(count)], |row| row.get::<_, u64>(0))?;
        let sizes: Vec<u64> = sizes.collect::<rusqlite::Result<_>>()?;
        self.totals.decision_bytes = self.totals.decision_bytes.saturating_sub(sizes.iter().sum());
        Ok(())
    }

    /// Deletes bases with ids from `first` to `last`.
    fn forget_bases(&mut self, first: i64, last: i64) -> rusqlite::Result<()> {
        let delete = "DELETE FROM decision_basis WHERE id BETWEEN ?1 AND ?2 RETURNING length(data)";
        let mut delete = self.tx.prepare_cached(delete)?;
        for size in delete.query_map([first, last], |row| row.get::<_, u64>(0))? {
            self.totals.decision_bytes = self.totals.decision_bytes.saturating_sub(size?);
        }
        Ok(())
    }

    /// Makes room, oldest first, if there are too many.
    pub(super) fn trim_decisions(&mut self) -> rusqlite::Result<()> {
        if self.totals.decision_bytes <= RING.max(self.groups.full) {
            return Ok(());
        }
        let mut groups = self.oldest_decisions()?;
        while self.totals.decision_bytes > RING - SPARE {
            let oldest = groups.iter_mut().filter(|oldest| oldest.now_ns.is_some());
            let Some(oldest) = oldest.min_by_key(|oldest| oldest.now_ns) else { break };
            self.forget_decisions(oldest.group.id(0), oldest.stays, RUN)?;
            oldest.now_ns = self.oldest_before(oldest.group, oldest.stays)?.map(|(_, now_ns)| now_ns);
            let first = self.oldest_before(oldest.group, oldest.group.id(Group::LAST))?;
            if let Some((first, _)) = first
                && let (Some(of), _) = basis(self.tx, first)?
            {
                self.forget_bases(oldest.group.id(0), of - 1)?;
            }
        }
        // If nothing more may go, it is not looked for with each commit.
        self.groups.full = self.totals.decision_bytes + SPARE;
        Ok(())
    }

    fn oldest_decisions(&self) -> rusqlite::Result<Vec<Oldest>> {
        let mut select = self.tx.prepare("SELECT id, output FROM decision_group")?;
        let groups = select.query_map([], |row| Ok((Group(row.get(0)?), row.get::<_, String>(1)?)))?;
        let groups: Vec<(Group, String)> = groups.collect::<rusqlite::Result<_>>()?;
        let newest = newest(self.tx)?;
        let mut found = Vec::with_capacity(groups.len());
        for (group, output) in groups {
            let of_output =
                newest.get(output.as_str()).map_or(0, |newest| newest.saturating_sub(OF_OUTPUT - 1));
            let nth = "SELECT id FROM decision WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3";
            let of_group: Option<i64> = self
                .tx
                .prepare_cached(nth)?
                .query_row([group.id(0), group.id(Group::LAST), signed(OF_GROUP - 1)], |row| row.get(0))
                .optional()?;
            let stays = group.id(of_output).min(of_group.unwrap_or(group.id(0)));
            let now_ns = self.oldest_before(group, stays)?.map(|(_, now_ns)| now_ns);
            found.push(Oldest { group, now_ns, stays });
        }
        Ok(found)
    }

    /// The oldest decision of `group` before `end`: its id and time.
    fn oldest_before(&self, group: Group, end: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        let select = "SELECT id, now_ns FROM decision WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1";
        let found = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.tx.prepare_cached(select)?.query_row([group.id(0), end], found).optional()
    }
}

/// The sequence's time of the oldest decisions, as an SQL expression; null: there are none.
pub(super) const OLDEST_NS: &str = "(SELECT min((SELECT now_ns FROM decision WHERE decision.id >= \
    decision_group.id << 40 ORDER BY decision.id LIMIT 1)) FROM decision_group)";
