//! Streams, targets and their columns, looked up by name once.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::columns::{Kind, Table};
use crate::error::{Error, Result};
use crate::value::{Cell, Timestamp, Value};

/// The streams that a plugin reads, and the targets that it writes to: `reads` and `writes` of `NAME.toml`.
pub struct Schema {
    pub(crate) inputs: Vec<Arc<Table>>,
    pub(crate) targets: Vec<Arc<Table>>,
    /// where `ts` is in each input
    pub(crate) times: Column<Timestamp>,
}

/// A stream that is read.
#[derive(Clone, Copy)]
pub struct Input<'a>(pub(crate) &'a Table);

impl<'a> Input<'a> {
    /// Its name.
    pub fn name(self) -> &'a str {
        &self.0.name
    }

    /// Its columns.
    pub fn columns(self) -> impl Iterator<Item = (&'a str, Kind)> {
        self.0.fields.iter().map(|(name, kind)| (name.as_str(), *kind))
    }
}

/// A column of the streams that are read, with values of type `T`.
pub struct Column<T: ?Sized> {
    /// its place in each input; `None`: the input has no such column
    places: Arc<[Option<u32>]>,
    of: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Clone for Column<T> {
    fn clone(&self) -> Self {
        Self { places: Arc::clone(&self.places), of: PhantomData }
    }
}

impl<T: ?Sized> Column<T> {
    pub(crate) fn place(&self, input: u32) -> Option<usize> {
        self.places.get(input as usize).copied().flatten().map(|place| place as usize)
    }
}

/// A target that is written to.
#[derive(Clone)]
pub struct Target {
    pub(crate) index: u32,
    pub(crate) table: Arc<Table>,
}

/// A column of a target, with values of type `T`.
pub struct Field<T: ?Sized> {
    target: u32,
    place: u32,
    of: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Field<T> {}

/// What [`Field::is`] says, for [`Out::write`](crate::Out::write).
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    pub(crate) target: u32,
    pub(crate) place: u32,
    pub(crate) value: Option<Cell<'a>>,
}

impl<T: Value + ?Sized> Field<T> {
    /// The column with `value`; `None`: it has none in this row.
    pub fn is<'a>(&self, value: impl Into<Option<T::Ref<'a>>>) -> Said<'a> {
        Said { target: self.target, place: self.place, value: value.into().map(T::cell) }
    }
}

impl Schema {
    pub(crate) fn new(inputs: Vec<Table>, targets: Vec<Table>) -> Self {
        let [inputs, targets] = [inputs, targets].map(|tables| tables.into_iter().map(Arc::new).collect());
        let mut schema = Self { inputs, targets, times: Column { places: Arc::from([]), of: PhantomData } };
        schema.times.places = schema.places::<Timestamp>("ts").map_or_else(|_| Arc::from([]), Arc::from);
        schema
    }

    /// The streams that are read.
    pub fn inputs(&self) -> impl Iterator<Item = Input<'_>> {
        self.inputs.iter().map(|table| Input(table))
    }

    /// The column `name`, wherever one of the streams has it.
    ///
    /// # Errors
    /// When none has it, or one has it with values of another type.
    pub fn column<T: Value + ?Sized>(&self, name: &str) -> Result<Column<T>> {
        let places = self.places::<T>(name)?;
        if places.iter().any(Option::is_some) {
            return Ok(Column { places: places.into(), of: PhantomData });
        }
        let streams = self.inputs.iter().map(|table| table.name.as_str());
        let known = self.inputs.iter().flat_map(|table| &table.fields).map(|(name, _)| name.as_str());
        Err(unknown(&format!("there is no column `{name}` in {}", list(streams)), name, known))
    }

    /// The column `name`, if one of the streams has it.
    ///
    /// # Errors
    /// When one has it with values of another type.
    pub fn column_if_there<T: Value + ?Sized>(&self, name: &str) -> Result<Option<Column<T>>> {
        let places = self.places::<T>(name)?;
        let is_there = places.iter().any(Option::is_some);
        Ok(is_there.then(|| Column { places: places.into(), of: PhantomData }))
    }

    fn places<T: Value + ?Sized>(&self, name: &str) -> Result<Vec<Option<u32>>> {
        let place = |table: &Arc<Table>| {
            let Some(place) = table.fields.iter().position(|(field, _)| field == name) else {
                return Ok(None);
            };
            let kind = table.fields[place].1;
            if !T::reads(kind) {
                let stream = &table.name;
                let wanted = T::KIND;
                return Err(format!("column `{name}` of `{stream}` is {kind}, but has to be {wanted}").into());
            }
            Ok(Some(place as u32))
        };
        self.inputs.iter().map(place).collect()
    }

    /// The targets.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        (0..).zip(&self.targets).map(|(index, table)| Target { index, table: Arc::clone(table) })
    }

    /// The target `name`.
    ///
    /// # Errors
    /// When `writes` does not name it.
    pub fn target(&self, name: &str) -> Result<Target> {
        self.targets().find(|target| target.name() == name).ok_or_else(|| {
            let known = self.targets.iter().map(|table| table.name.as_str());
            unknown(&format!("`writes` does not name a target `{name}`"), name, known)
        })
    }

    /// The target of a plugin that has one.
    ///
    /// # Errors
    /// When `writes` names several.
    pub fn only_target(&self) -> Result<Target> {
        let mut targets = self.targets();
        match (targets.next(), targets.next()) {
            (Some(target), None) => Ok(target),
            _ => Err(format!("it writes to one target, but `writes` names {}", self.targets.len()).into()),
        }
    }
}

impl Target {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.table.name
    }

    /// Its columns.
    pub fn columns(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.table.fields.iter().map(|(name, kind)| (name.as_str(), *kind))
    }

    /// Its column `name`.
    ///
    /// # Errors
    /// When it has none, or one with values of another type.
    pub fn field<T: Value + ?Sized>(&self, name: &str) -> Result<Field<T>> {
        if let Some(field) = self.field_if_there(name)? {
            return Ok(field);
        }
        let what = format!("there is no column `{name}` in `{}`", self.name());
        Err(unknown(&what, name, self.columns().map(|(name, _)| name)))
    }

    /// Its column `name`, if it has one.
    ///
    /// # Errors
    /// When it has one with values of another type.
    pub fn field_if_there<T: Value + ?Sized>(&self, name: &str) -> Result<Option<Field<T>>> {
        let Some(place) = self.table.fields.iter().position(|(field, _)| field == name) else {
            return Ok(None);
        };
        let kind = self.table.fields[place].1;
        if kind != T::KIND {
            let target = self.name();
            let wanted = T::KIND;
            return Err(
                format!("column `{name}` of `{target}` is {kind}, but the plugin writes {wanted}").into()
            );
        }
        Ok(Some(Field { target: self.index, place: place as u32, of: PhantomData }))
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known: BTreeSet<&str> = known.collect();
    let nearest = known.iter().map(|known| (distance(name, known), known)).min();
    match nearest {
        Some((distance, nearest)) if distance <= name.len().div_ceil(3) => {
            format!("{what}; did you mean `{nearest}`?").into()
        }
        Some(_) => format!("{what}; there are {}", list(known)).into(),
        None => what.into(),
    }
}

/// How many letters must be changed, added or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let fields =
            |fields: &[(&str, Kind)]| fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        Schema::new(
            vec![
                Table {
                    name: "a".into(),
                    fields: fields(&[("ts", Kind::Timestamp), ("count", Kind::Int64)]),
                },
                Table { name: "b".into(), fields: fields(&[("temperature", Kind::Float64)]) },
            ],
            vec![Table { name: "alarms".into(), fields: fields(&[("text", Kind::Utf8)]) }],
        )
    }

    fn error<T>(result: Result<T>) -> String {
        result.err().expect("no error").text().to_owned()
    }

    #[test]
    fn columns_are_found_where_they_are() {
        let schema = schema();
        let count = schema.column::<f64>("count").unwrap();
        assert_eq!([count.place(0), count.place(1), count.place(2)], [Some(1), None, None]);
        assert_eq!(schema.times.place(0), Some(0));
        assert!(schema.column_if_there::<str>("device").unwrap().is_none());
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let schema = schema();
        assert_eq!(
            error(schema.column::<f64>("temperatur")),
            "there is no column `temperatur` in `a`, `b`; did you mean `temperature`?"
        );
        assert_eq!(
            error(schema.column::<f64>("x")),
            "there is no column `x` in `a`, `b`; there are `count`, `temperature`, `ts`"
        );
        assert_eq!(
            error(schema.column::<str>("count")),
            "column `count` of `a` is int64, but has to be utf8"
        );
        let alarms = schema.only_target().unwrap();
        assert_eq!(
            error(schema.target("alarm")),
            "`writes` does not name a target `alarm`; did you mean `alarms`?"
        );
        assert_eq!(
            error(alarms.field::<f64>("text")),
            "column `text` of `alarms` is utf8, but the plugin writes float64"
        );
        assert_eq!(
            error(alarms.field::<str>("level")),
            "there is no column `level` in `alarms`; there are `text`"
        );
    }
}
