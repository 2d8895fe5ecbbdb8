//! What windows that end by their rows add up to.
//!
//! Most of them have few rows, and then sums of their own cost more than the rows. So rows wait until there
//! are [`MANY`] of a window, and those of windows that end before are added up together, for all that end at
//! once. When rows are added changes no result: it is in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, partition, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion_common::{DataFusionError, Result};

use super::Held;
use super::accumulate::{Addends, Adder};
use super::kept_rows::KeptRows;
use super::keys::Keys;
use super::partition::Content;
use super::sums::{Sums, Total};
use crate::sql::operators::at_rest::columns_of;

const WINDOW: &str = "#window";

/// How many rows of a window wait before they are added to sums of its own: so many take about as much memory
/// as these.
const MANY: usize = 16;

/// How many keys of rows are kept at least before any is forgotten.
const FEW: usize = 64;

/// The sums of all windows of an operator, and the rows that wait to be added to them.
pub(super) struct WindowSums {
    adder: Adder,
    /// the keys by which rows of one window are added up apart
    keys: Keys,
    /// what is needed of the rows that wait
    rows: KeptRows,
    /// the number of a window, and the keys of its rows
    total_schema: SchemaRef,
    groups: Vec<usize>,
    /// in the windows that have sums: groups beside the first, and memory
    held: Held,
}

/// What a window adds up to: its sums, what has joined it, and its rows, in this order.
#[derive(Debug, Default)]
pub(super) struct Parts {
    sums: Option<Box<Sums>>,
    joined: Vec<Part>,
    /// the numbers of rows that wait
    rows: Vec<u32>,
    /// what the sums are known to take
    held: Held,
}

#[derive(Debug)]
enum Part {
    Rows(Vec<u32>),
    /// a session that has become one with this
    Window(Parts),
}

/// What several windows have come to, each known by its index.
struct Closed {
    /// of those that have no sums of their own; the index is the first key
    total: Option<Total>,
    /// of the others
    own: Vec<(u32, Sums)>,
}

impl Content for Parts {
    fn push(&mut self, row: u32) {
        self.rows.push(row);
    }

    /// Only windows that share rows let go of any, and these are not added up.
    fn drop_first(&mut self) {}

    fn join(&mut self, other: Self) {
        self.joined.push(Part::Rows(std::mem::take(&mut self.rows)));
        self.joined.push(Part::Window(other));
    }

    fn copy(&self) -> Self {
        Self::default()
    }
}

impl Parts {
    pub(super) fn new(sums: Option<Sums>) -> Self {
        Self { sums: sums.map(Box::new), ..Self::default() }
    }

    /// Whether there is nothing but rows that wait.
    fn are_rows(&self) -> bool {
        self.sums.is_none() && self.joined.is_empty()
    }

    /// Whether it is time to add them up.
    pub(super) fn are_many(&self) -> bool {
        self.rows.len() >= MANY || !self.joined.is_empty()
    }

    /// Takes out what is to be added to the sums, in order.
    fn take_parts(&mut self) -> std::vec::IntoIter<Part> {
        let mut parts = std::mem::take(&mut self.joined);
        parts.push(Part::Rows(std::mem::take(&mut self.rows)));
        parts.into_iter()
    }
}

impl WindowSums {
    pub(super) fn new(adder: Adder) -> Result<Self> {
        Ok(Self {
            keys: Keys::new(Arc::clone(adder.key_schema()))?,
            rows: KeptRows::new(Arc::new(Schema::new(adder.row_fields()))),
            total_schema: adder.key_schema_behind(Field::new(WINDOW, DataType::UInt32, false)),
            adder,
            groups: Vec::new(),
            held: Held::default(),
        })
    }

    pub(super) fn adder(&self) -> &Adder {
        &self.adder
    }

    /// Keeps what is needed of rows. Returns the number of the first.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<u32> {
        let columns = self.adder.prepare(batch)?.columns();
        Ok(self.rows.push(RecordBatch::try_new(Arc::clone(self.rows.schema()), columns)?))
    }

    /// So many of these rows are in no window.
    pub(super) fn drop_rows(&mut self, rows: usize) {
        self.rows.drop_rows(rows);
    }

    /// What so many windows hold.
    pub(super) fn held(&self, windows: usize) -> Held {
        let waiting = self.rows.bytes() + 4 * self.rows.live();
        Held { entries: windows + self.held.entries, bytes: self.held.bytes + waiting + self.keys.bytes() }
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        self.rows = KeptRows::new(Arc::clone(self.rows.schema()));
        self.held = Held::default();
        self.keys.clear()
    }

    /// Adds all that waits for `windows` to sums of their own.
    pub(super) fn settle(&mut self, mut windows: Vec<&mut Parts>) -> Result<()> {
        for parts in windows.iter_mut().filter(|parts| !parts.joined.is_empty()) {
            self.unite(parts)?;
        }
        let rows: Vec<u32> = windows.iter().flat_map(|parts| &parts.rows).copied().collect();
        let addends = self.take_rows(rows)?;
        let mut at = 0;
        for parts in windows {
            let rows = std::mem::take(&mut parts.rows).len();
            self.add(parts, &addends.slice(at, rows))?;
            at += rows;
            self.forget(parts);
            self.remember(parts);
        }
        Ok(())
    }

    /// Makes one of windows that have joined. They are worked off from the inside, as rows came; there may be
    /// so many of them that recursion would not do.
    fn unite(&mut self, parts: &mut Parts) -> Result<()> {
        let mut outer: Vec<(Parts, std::vec::IntoIter<Part>)> = Vec::new();
        let mut inner = std::mem::take(parts);
        let mut rest = inner.take_parts();
        loop {
            match rest.next() {
                Some(Part::Rows(rows)) => {
                    let addends = self.take_rows(rows)?;
                    self.add(&mut inner, &addends)?;
                }
                Some(Part::Window(mut other)) => {
                    let of_other = other.take_parts();
                    outer
                        .push((std::mem::replace(&mut inner, other), std::mem::replace(&mut rest, of_other)));
                }
                None => match outer.pop() {
                    Some((around, rest_around)) => {
                        let mut other = std::mem::replace(&mut inner, around);
                        self.forget(&mut other);
                        rest = rest_around;
                        match (&mut inner.sums, other.sums) {
                            (Some(sums), Some(other)) => sums.merge(&other.rest()?, &mut self.groups)?,
                            (None, sums) => inner.sums = sums,
                            (Some(_), None) => {}
                        }
                    }
                    None => break,
                },
            }
        }
        *parts = inner;
        Ok(())
    }

    /// Takes rows with these numbers out of those that wait.
    fn take_rows(&mut self, rows: Vec<u32>) -> Result<Addends> {
        self.rows.drop_rows(rows.len());
        let batch = self.rows.take(rows)?;
        let mut addends = self.adder.addends(batch.num_rows(), batch.columns());
        addends.number(&mut self.keys)?;
        Ok(addends)
    }

    fn add(&mut self, parts: &mut Parts, rows: &Addends) -> Result<()> {
        if rows.rows == 0 {
            return Ok(());
        }
        let sums = match &mut parts.sums {
            Some(sums) => sums,
            none => none.insert(Box::new(self.adder.empty()?)),
        };
        sums.add(rows, &mut self.groups)
    }

    /// Counts a window's sums to what is held.
    pub(super) fn remember(&mut self, parts: &mut Parts) {
        let of = |sums: &Sums| Held {
            entries: sums.len().saturating_sub(1),
            bytes: sums.bytes() + size_of::<Sums>(),
        };
        parts.held = parts.sums.as_deref().map_or(Held::default(), of);
        self.held = Held {
            entries: self.held.entries + parts.held.entries,
            bytes: self.held.bytes + parts.held.bytes,
        };
    }

    /// Takes a window's sums out of what is held.
    fn forget(&mut self, parts: &mut Parts) {
        let Held { entries, bytes } = std::mem::take(&mut parts.held);
        self.held = Held {
            entries: self.held.entries.saturating_sub(entries),
            bytes: self.held.bytes.saturating_sub(bytes),
        };
    }

    /// Lets go of a window; nothing has joined it since it was settled.
    pub(super) fn let_go(&mut self, mut parts: Parts) {
        self.forget(&mut parts);
        self.rows.drop_rows(parts.rows.len());
    }

    /// What `windows` add up to: the index of the window, the keys of its rows, and the value of each
    /// aggregate.
    pub(super) fn results(&mut self, mut windows: Vec<Parts>) -> Result<Vec<ArrayRef>> {
        let Closed { total, own } = self.close(&mut windows)?;
        let mut parts = Vec::new();
        if let Some(total) = total {
            let (keys, values) = total.values()?;
            parts.push(keys.into_iter().chain(values).collect());
        }
        for (number, sums) in own {
            let (keys, values) = sums.finish()?;
            let number: ArrayRef = Arc::new(UInt32Array::from(vec![number; keys.len()]));
            parts.push(std::iter::once(number).chain(self.keys.columns(&keys)?).chain(values).collect());
        }
        in_order(parts)
    }

    /// Adds up all that waits for `windows`.
    fn close(&mut self, windows: &mut [Parts]) -> Result<Closed> {
        self.settle(windows.iter_mut().filter(|parts| !parts.are_rows()).collect())?;
        let (mut rows, mut numbers, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for (number, parts) in (0_u32..).zip(windows) {
            self.forget(parts);
            own.extend(parts.sums.take().map(|sums| (number, *sums)));
            rows.append(&mut parts.rows);
            numbers.resize(rows.len(), number);
        }
        if rows.is_empty() {
            return Ok(Closed { total: None, own });
        }
        self.rows.drop_rows(rows.len());
        let batch = self.rows.take(rows)?;
        let mut addends = self.adder.addends(batch.num_rows(), batch.columns());
        addends.keys.insert(0, Arc::new(UInt32Array::from(numbers)));
        Ok(Closed { total: Some(Total::new(&[addends], &self.total_schema, &self.adder)?), own })
    }

    /// Whether it is time to call [`Self::tidy`]; looking at all of so many windows is worth it only for many
    /// rows.
    pub(super) fn is_untidy(&self, windows: usize) -> bool {
        let rows = self.rows.is_mostly_dropped() && self.rows.dropped() * 8 >= windows;
        rows || self.keys.len() > FEW.max(2 * (windows + self.held.entries))
    }

    /// Frees the memory of rows and keys that are of no use to the open `windows`.
    pub(super) fn tidy(&mut self, mut windows: Vec<&mut Parts>) -> Result<()> {
        let mut used: Vec<&mut u32> = windows.iter_mut().flat_map(|parts| &mut parts.rows).collect();
        self.rows.keep_only(&mut used)?;
        if self.keys.len() > FEW.max(2 * (windows.len() + self.held.entries)) {
            let keys = |parts: &&mut Parts| {
                parts.sums.iter().flat_map(|sums| sums.keys().to_vec()).collect::<Vec<_>>()
            };
            let new = self.keys.keep_only(windows.iter().flat_map(keys))?;
            windows.into_iter().filter_map(|parts| parts.sums.as_mut()).for_each(|sums| sums.renumber(&new));
        }
        Ok(())
    }

    /// The same as [`Self::results`], but the state of each aggregate instead of its value.
    pub(super) fn states(&mut self, mut windows: Vec<Parts>) -> Result<Vec<ArrayRef>> {
        let Closed { total, own } = self.close(&mut windows)?;
        let mut parts = Vec::new();
        if let Some(total) = total {
            parts.push(total.states()?);
        }
        for (number, sums) in own {
            let rest = sums.rest()?;
            let number: ArrayRef = Arc::new(UInt32Array::from(vec![number; rest.rows]));
            let states = rest.states.into_iter().flatten();
            parts.push(std::iter::once(number).chain(self.keys.columns(&rest.keys)?).chain(states).collect());
        }
        in_order(parts)
    }

    pub(super) fn state_schema(&self) -> Result<SchemaRef> {
        let mut fields = vec![Field::new(WINDOW, DataType::UInt32, false)];
        fields.extend(self.adder.rest_fields()?);
        Ok(Arc::new(Schema::new(fields)))
    }

    pub(super) fn restore(
        &mut self,
        sums: &RecordBatch,
        misfits: &mut Vec<String>,
    ) -> Result<BTreeMap<u32, Sums>> {
        let states: Vec<Option<Vec<ArrayRef>>> =
            self.adder.calls().iter().map(|call| call.find_state(sums)).collect::<Result<_>>()?;
        for (call, _) in self.adder.calls().iter().zip(&states).filter(|(_, state)| state.is_none()) {
            misfits.push(format!(
                "`{}` is new and starts empty in the windows that are open now",
                call.fingerprint()
            ));
        }
        let missing = || DataFusionError::Internal("sealed sums without their windows".into());
        let column = sums.column_by_name(WINDOW).cloned().ok_or_else(missing)?;
        let windows = column.as_primitive_opt::<UInt32Type>().cloned().ok_or_else(missing)?;
        let Some(keys) = columns_of(sums.columns().iter().skip(1), self.keys.schema().fields()) else {
            misfits
                .push("the keys of the open windows have other types now, and their sums start empty".into());
            return Ok(BTreeMap::new());
        };
        let mut numbers = Vec::new();
        self.keys.number(&keys, sums.num_rows(), &mut numbers)?;
        let mut of_window = BTreeMap::new();
        for range in partition(&[column])?.ranges() {
            let slice = |columns: &Vec<ArrayRef>| {
                columns.iter().map(|column| column.slice(range.start, range.len())).collect::<Vec<_>>()
            };
            let states: Vec<_> = states.iter().map(|state| state.as_ref().map(&slice)).collect();
            of_window.insert(
                windows.value(range.start),
                self.adder.restore(numbers.get(range.clone()).unwrap_or_default(), &states)?,
            );
        }
        Ok(of_window)
    }
}

/// The rows of all `parts`, each of which is columns, in the order of the numbers in the first column. No
/// parts have no columns.
fn in_order(parts: Vec<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>> {
    let columns = parts.first().map_or(0, Vec::len);
    let all = (0..columns).map(|column| {
        let of_parts: Vec<&dyn Array> =
            parts.iter().filter_map(|part| part.get(column)).map(AsRef::as_ref).collect();
        Ok(concat(&of_parts)?)
    });
    let all: Vec<ArrayRef> = all.collect::<Result<_>>()?;
    let numbers = all
        .first()
        .and_then(|numbers| numbers.as_primitive_opt::<UInt32Type>())
        .map_or(&[][..], |numbers| numbers.values());
    if numbers.is_sorted() {
        return Ok(all);
    }
    let mut order: Vec<u32> = (0_u32..).take(numbers.len()).collect();
    order.sort_by_key(|row| numbers.get(*row as usize));
    let order = UInt32Array::from(order);
    Ok(all.iter().map(|column| take(column, &order, None)).collect::<Result<_, _>>()?)
}
