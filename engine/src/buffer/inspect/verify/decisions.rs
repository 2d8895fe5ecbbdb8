//! Decisions about outputs: each can be read, and is what its id says.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row};

use super::{Verifier, cell};
use crate::buffer::VerdictKind;
use crate::buffer::decisions::{Group, basis, number, unpack, unpack_bytes};

impl Verifier<'_> {
    pub(super) fn decision_groups(&mut self) -> rusqlite::Result<()> {
        let mut select = self.conn.prepare("SELECT id, output, kind FROM decision_group ORDER BY id")?;
        let mut found = select.query([])?;
        let mut seen = HashMap::new();
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            let mut check = || -> Result<(), String> {
                let (output, kind): (String, String) = (cell(row, "output")?, cell(row, "kind")?);
                if VerdictKind::from_word(&kind).is_none() {
                    return Err(format!("`kind` is {kind}, which is none"));
                }
                match seen.insert((output, kind), id) {
                    Some(other) => Err(format!("is the same as {other}")),
                    None => Ok(()),
                }
            };
            let checked = check();
            self.note(|| format!("group of decisions {id}"), checked);
        }
        Ok(())
    }

    pub(super) fn decision_bases(&mut self) -> rusqlite::Result<()> {
        let next = "SELECT id, data, id >> 40 IN (SELECT id FROM decision_group) AS known FROM \
            decision_basis WHERE id > ?1 ORDER BY id LIMIT 1";
        let mut next = self.conn.prepare(next)?;
        let read = |row: &Row<'_>| {
            let check = || {
                unpack_bytes(&cell::<Vec<u8>>(row, "data")?, &[]).map_err(|error| error.to_string())?;
                if cell(row, "known")? { Ok(()) } else { Err("its group is not there".to_owned()) }
            };
            Ok((row.get::<_, i64>(0)?, check()))
        };
        let mut after = i64::MIN;
        while let Some((id, checked)) = next.query_row([after], read).optional()? {
            after = id;
            self.note(|| format!("basis of decisions {id}"), checked);
        }
        Ok(())
    }

    pub(super) fn decisions(&mut self) -> rusqlite::Result<()> {
        let conn = self.conn;
        let next = "SELECT decision.id, now_ns, instance, data, output, kind FROM decision LEFT JOIN \
            decision_group ON decision_group.id = decision.id >> 40 WHERE decision.id > ?1 ORDER BY \
            decision.id LIMIT 1";
        let mut next = conn.prepare(next)?;
        let mut after = i64::MIN;
        // The basis of the last one, and how many decisions can have no other.
        let mut known: Option<(i64, Vec<u8>)> = None;
        loop {
            let found = next.query_row([after], |row| {
                let id = row.get::<_, i64>(0)?;
                let newest = "SELECT max(id) FROM decision_basis WHERE id BETWEEN ?1 AND ?2";
                let first: Option<i64> = conn
                    .prepare_cached(newest)?
                    .query_row([Group::from_id(id).id(0), id], |row| row.get(0))?;
                if known.as_ref().map(|(first, _)| *first) != first {
                    let (first, plain) = basis(conn, id)?;
                    known = first.map(|first| (first, plain));
                }
                Ok((id, is_as_its_id_says(row, id, known.as_ref().map_or(&[], |(_, plain)| plain))))
            });
            let Some((id, checked)) = found.optional()? else { return Ok(()) };
            after = id;
            self.verdict.checked.decisions += 1;
            self.tell("decisions", self.verdict.checked.decisions);
            self.note(|| format!("decision {id}"), checked);
        }
    }
}

fn is_as_its_id_says(row: &Row<'_>, id: i64, basis: &[u8]) -> Result<(), String> {
    let (now_ns, instance): (i64, String) = (cell(row, "now_ns")?, cell(row, "instance")?);
    let decision =
        unpack(&cell::<Vec<u8>>(row, "data")?, basis).map_err(|error| format!("cannot be read: {error}"))?;
    let Some(output) = cell::<Option<String>>(row, "output")? else {
        return Err("its group is not there".to_owned());
    };
    let kind: String = cell(row, "kind")?;
    let is = (&*decision.output, VerdictKind::from(&decision.verdict).word(), decision.number);
    let said = (output.as_str(), kind.as_str(), number(id));
    if is != said {
        return Err(format!(
            "is {} {} about `{}`, but stands as {} {} about `{}`",
            is.1, is.2, is.0, said.1, said.2, said.0
        ));
    }
    if (decision.at_ns, &*decision.instance) != (now_ns, instance.as_str()) {
        return Err("`now_ns` or `instance` is not what it says".to_owned());
    }
    Ok(())
}
