//! What was decided about an output, newest first.

use rusqlite::{Connection, OptionalExtension, params};

use super::Inspector;
use crate::buffer::BufferError;
use crate::buffer::decisions::{Group, VerdictKind, basis, groups_of, last_id, number, unpack};
use crate::decision::{Decision, Outcome, Verdict};
use crate::time::{Readings, WallTime};

/// Answers of an instance that are looked at for those of one write.
const ANSWERS: u64 = 64;

/// Decisions about one output, newest first.
pub struct Decisions<'a> {
    inspector: &'a Inspector,
    groups: Vec<Cursor>,
    instance: Option<String>,
    unreadable: u64,
}

/// Where it is gone on in a group.
struct Cursor {
    group: Group,
    /// a row that was refused may be of none of the instances, and counts for each
    counts_for_all: bool,
    /// all from here on were read, or are not wanted
    end: i64,
    /// that of the last one, with its id
    basis: Option<(i64, Vec<u8>)>,
}

/// Something that became of a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// what
    pub outcome: Outcome,
    /// the decision that says so
    pub decision: Decision,
}

impl Inspector {
    /// The outputs of which there are decisions, in order of their names.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn decided_outputs(&self) -> Result<Vec<String>, BufferError> {
        let work = || {
            if !self.has("decision_group")? {
                return Ok(Vec::new());
            }
            let mut select =
                self.conn.prepare("SELECT DISTINCT output FROM decision_group ORDER BY output")?;
            select.query_map([], |row| row.get(0))?.collect()
        };
        work().map_err(|error| self.sql(error))
    }

    /// Decisions about `output` of these kinds, newest first. `instance`: of that only. `until_ns`: none that
    /// were made later, in nanoseconds since 1970.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn decisions(
        &self,
        output: &str,
        kinds: &[VerdictKind],
        instance: Option<&str>,
        until_ns: Option<i64>,
    ) -> Result<Decisions<'_>, BufferError> {
        let work = || {
            let mut groups = Vec::new();
            if self.has("decision_group")? {
                let readings = if until_ns.is_some() { self.readings()? } else { Readings::default() };
                for (kind, group) in groups_of(&self.conn, output)? {
                    if kinds.contains(&kind)
                        && let Some(last) = last_id(&self.conn, group)?
                    {
                        let end = last.saturating_add(1);
                        let end =
                            until_ns.map_or(Ok(end), |ns| until(&self.conn, group, end, ns, &readings))?;
                        let counts_for_all = kind == VerdictKind::Refused;
                        groups.push(Cursor { group, counts_for_all, end, basis: None });
                    }
                }
            }
            Ok(groups)
        };
        let groups = work().map_err(|error| self.sql(error))?;
        Ok(Decisions { inspector: self, groups, instance: instance.map(str::to_owned), unreadable: 0 })
    }

    /// What became of the write that `sent` is about, as far as that is known, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn answers(&self, sent: &Decision) -> Result<Vec<Answer>, BufferError> {
        let Verdict::Sent { write } = sent.verdict else { return Ok(Vec::new()) };
        let work = || {
            let mut answers = Vec::new();
            let groups = groups_of(&self.conn, &sent.output)?;
            let Some(group) = groups.get(&VerdictKind::Answered) else { return Ok(answers) };
            let select = "SELECT id, data FROM decision WHERE id > ?1 AND id <= ?2 AND instance = ?3 \
                ORDER BY id LIMIT ?4";
            let mut select = self.conn.prepare_cached(select)?;
            let (after, end) = (group.id(sent.number), group.id(Group::LAST));
            let mut found = select.query(params![after, end, &*sent.instance, ANSWERS])?;
            while let Some(row) = found.next()? {
                let (_, basis) = basis(&self.conn, row.get(0)?)?;
                // What cannot be read is told by `tidegate buffer verify`.
                let Ok(decision) = unpack(row.get_ref(1)?.as_blob().unwrap_or_default(), &basis) else {
                    continue;
                };
                if let Verdict::Answered { write: of, outcome, .. } = decision.verdict
                    && of == write
                {
                    answers.push(Answer { outcome, decision });
                }
            }
            Ok(answers)
        };
        work().map_err(|error| self.sql(error))
    }

    /// The wall time at a time of the sequence, as far as it is known.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn wall_times(&self) -> Result<Readings, BufferError> {
        self.readings().map_err(|error| self.sql(error))
    }
}

/// The end of those of `group` before `end` that were made until `until_ns`. Numbers rise with time.
fn until(
    conn: &Connection,
    group: Group,
    end: i64,
    until_ns: i64,
    readings: &Readings,
) -> rusqlite::Result<i64> {
    let mut select = conn
        .prepare_cached("SELECT id, now_ns FROM decision WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1")?;
    let (mut low, mut high) = (group.id(0), end);
    while low < high {
        let middle = low + (high - low) / 2;
        let found =
            select.query_row([middle, high], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()?;
        match found {
            Some((id, now_ns)) if wall_ns(readings, now_ns) <= until_ns => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The wall time at the sequence's time `now_ns`; where nothing is known of it, that.
fn wall_ns(readings: &Readings, now_ns: i64) -> i64 {
    readings.wall_of(now_ns).map_or(now_ns, |WallTime { wall_ns, .. }| wall_ns)
}

impl Decisions<'_> {
    /// The next older one. What cannot be read is left out, and counted.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self) -> Result<Option<Decision>, BufferError> {
        loop {
            match self.step() {
                Ok(Some(Ok(decision))) => return Ok(Some(decision)),
                Ok(Some(Err(_))) => self.unreadable += 1,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.inspector.sql(error)),
            }
        }
    }

    /// How many could not be read so far.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn step(&mut self) -> rusqlite::Result<Option<Result<Decision, String>>> {
        // An older layout has no such table.
        if self.groups.is_empty() {
            return Ok(None);
        }
        let conn = &self.inspector.conn;
        let of_instance =
            if self.instance.is_some() { " AND (instance = ?3 OR (?4 AND instance = ''))" } else { "" };
        let select = format!(
            "SELECT id FROM decision WHERE id >= ?1 AND id < ?2{of_instance} ORDER BY id DESC LIMIT 1"
        );
        let mut select = conn.prepare_cached(&select)?;
        loop {
            let mut newest: Option<(&mut Cursor, i64)> = None;
            for cursor in &mut self.groups {
                let first = cursor.group.id(0);
                let found: Option<i64> = match &self.instance {
                    Some(instance) => {
                        let bounds = params![first, cursor.end, instance, cursor.counts_for_all];
                        select.query_row(bounds, |row| row.get(0))
                    }
                    None => select.query_row([first, cursor.end], |row| row.get(0)),
                }
                .optional()?;
                // What was passed over is not looked at again.
                cursor.end = found.map_or(first, |id| id + 1);
                if let Some(id) = found
                    && newest.as_ref().is_none_or(|(_, known)| number(*known) < number(id))
                {
                    newest = Some((cursor, id));
                }
            }
            let Some((cursor, id)) = newest else { return Ok(None) };
            cursor.end = id;
            let data = "SELECT data FROM decision WHERE id = ?1";
            let data: Option<Vec<u8>> =
                conn.prepare_cached(data)?.query_row([id], |row| row.get(0)).optional()?;
            // It may have been deleted just now.
            let Some(data) = data else { continue };
            // The newest basis that is not newer than a decision is also that of older ones, up to itself.
            if cursor.basis.as_ref().is_none_or(|(first, _)| id < *first) {
                cursor.basis = match basis(conn, id)? {
                    (Some(first), plain) => Some((first, plain)),
                    (None, _) => None,
                };
            }
            let plain = cursor.basis.as_ref().map_or(&[][..], |(_, plain)| plain);
            return Ok(Some(unpack(&data, plain)));
        }
    }
}
