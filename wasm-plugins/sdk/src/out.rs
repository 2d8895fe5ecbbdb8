//! What a plugin writes and asks for.

use std::time::Duration;

use crate::columns::{Values, Written};
use crate::host::{self, Level};
use crate::rows::Row;
use crate::schema::{Said, Target};
use crate::value::Timestamp;

/// Where a plugin writes to, and what it may ask of the box.
///
/// Rows are gathered, and handed over when the call ends.
#[derive(Default)]
pub struct Out {
    cause: u32,
    groups: Vec<Group>,
}

/// Rows of one target that have the same columns, one after the other.
struct Group {
    target: u32,
    /// by their places in the target, in the order in which they were named first
    fields: Vec<u32>,
    columns: Vec<Values>,
    causes: Vec<u32>,
}

impl Out {
    /// Writes a row. Columns that are not named are left as they are (outputs), or have no value (derived
    /// streams).
    ///
    /// # Panics
    /// When a column is of another target, or is named twice.
    pub fn write(&mut self, target: &Target, row: &[Said<'_>]) {
        let same = |group: &Group| {
            group.fields.len() == row.len()
                && group.fields.iter().zip(row).all(|(field, said)| *field == said.place)
        };
        // Only the newest of the target: rows are handed over in the order in which they were written.
        let newest = self.groups.iter().rposition(|group| group.target == target.index);
        let index = newest.filter(|index| same(&self.groups[*index]));
        let index = index.unwrap_or_else(|| self.group(target, row, newest));
        let Self { cause, groups } = self;
        let group = &mut groups[index];
        let rows = group.causes.len();
        assert!(
            group.causes.last().is_none_or(|last| last <= cause),
            "rows for `{}` must be written in the order of the rows that they stem from",
            target.name()
        );
        for (place, said) in row.iter().enumerate() {
            assert!(said.target == target.index, "a column of another target than `{}`", target.name());
            // Nearly always in the order in which they were named first.
            let place = match group.fields[place] == said.place {
                true => Some(place),
                false => group.fields.iter().position(|field| *field == said.place),
            };
            let column = &mut group.columns[place.expect("the group has these columns")];
            column.push(rows, said.value);
        }
        group.causes.push(*cause);
    }

    /// The group for rows such as `row`, in whatever order it names its columns.
    fn group(&mut self, target: &Target, row: &[Said<'_>], newest: Option<usize>) -> usize {
        let fields: Vec<u32> = row.iter().map(|said| said.place).collect();
        let sorted = sorted(&fields);
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        if let Some(place) = twice.and_then(|pair| target.table.fields.get(pair[0] as usize)) {
            panic!("column `{}` of `{}` is named twice in a row", place.0, target.name());
        }
        if let Some(index) = newest.filter(|index| self::sorted(&self.groups[*index].fields) == sorted) {
            return index;
        }
        let kind = |place: &u32| target.table.fields[*place as usize].1;
        let columns = fields.iter().map(|place| Values::empty(kind(place))).collect();
        self.groups.push(Group { target: target.index, fields, columns, causes: Vec::new() });
        self.groups.len() - 1
    }

    /// What is written from now on stems from `row`. Only an `on_batch` of one's own has to say it.
    pub fn caused_by(&mut self, row: Row<'_>) {
        self.cause = row.index() as u32;
    }

    /// Has `on_timer` called with `tag`, once, after `time`. A timer of the same tag is put off.
    pub fn after(&mut self, time: Duration, tag: &str) {
        host::after(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), tag);
    }

    /// Forgets the timer `tag`.
    pub fn cancel(&mut self, tag: &str) {
        host::cancel(tag);
    }

    /// The box's time. It never goes back, and is the same throughout a call; so how long something took is
    /// better told by [`Row::ts`].
    pub fn now(&self) -> Timestamp {
        Timestamp(host::now())
    }

    /// Says something to the people who look after the plugin.
    pub fn log(&mut self, level: Level, text: impl AsRef<str>) {
        host::log(level, text.as_ref());
    }

    /// Hands over what was written, in that order.
    pub(crate) fn hand_over(self) {
        for group in self.groups {
            let columns = group.fields.into_iter().zip(group.columns);
            let columns: Vec<Written> = columns.map(|(field, values)| Written { field, values }).collect();
            host::write(group.target, &group.causes, &columns);
        }
    }
}

fn sorted(fields: &[u32]) -> Vec<u32> {
    let mut sorted = Vec::with_capacity(fields.len());
    for field in fields {
        // A general sort is a tenth of a plugin's size, and these are few.
        sorted.insert(sorted.partition_point(|other| other <= field), *field);
    }
    sorted
}
