//! How calls cross the border: the Canonical ABI of the component model, for `wit/rule.wit`, and nothing
//! else.
//!
//! <https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md>
//!
//! Written by hand, since what matters is little: lists come in memory that [`realloc`] gave out, and become
//! `Vec`s without a copy. What is handed to the box stays here, and is only lent.
//!
//! All `unsafe` of the kit is here. What it relies on: the box calls as the contract says, on one thread, and
//! hands over each list once.

#![allow(clippy::missing_safety_doc)] // `export!` calls them, and nobody else

use std::alloc::{Layout, alloc, handle_alloc_error, realloc as grow};
use std::sync::OnceLock;

use crate::Plugin;
use crate::columns::{Data, Kind, Table, Values, Variable};
use crate::running::Running;

/// The contract in the form that linkers of components look for: what `wasm-tools component embed --dummy
/// wit/rule.wit` puts into the custom section `component-type`.
pub const COMPONENT_TYPE: [u8; include_bytes!("rule.component-type").len()] =
    *include_bytes!("rule.component-type");

/// Gives out memory for what the box hands over.
pub unsafe fn realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return align as *mut u8;
    }
    // SAFETY: the box names the size and alignment that it asked for before.
    unsafe {
        let layout = Layout::from_size_align_unchecked(if old_size == 0 { size } else { old_size }, align);
        let new = if old_size == 0 { alloc(layout) } else { grow(old, layout, size) };
        if new.is_null() {
            handle_alloc_error(layout);
        }
        new
    }
}

/// A list that the box has handed over.
#[derive(Clone, Copy)]
#[repr(C)]
struct List {
    start: *mut u8,
    len: usize,
}

impl List {
    /// Its items are `T`s, in memory from [`realloc`] with their alignment; it is taken once.
    unsafe fn take<T>(self) -> Vec<T> {
        // SAFETY: it was allocated with exactly this layout. Without items it was not, and its start is
        // aligned.
        unsafe { Vec::from_raw_parts(self.start.cast(), self.len, self.len) }
    }

    unsafe fn take_text(self) -> String {
        // SAFETY: see `take`; the box has checked that texts are UTF-8.
        unsafe { String::from_utf8_unchecked(self.take()) }
    }

    fn lend<T>(items: &[T]) -> Self {
        Self { start: items.as_ptr().cast_mut().cast(), len: items.len() }
    }
}

const EMPTY: List = List { start: 8 as *mut u8, len: 0 };

/// `column`
#[derive(Clone, Copy)]
#[repr(C)]
struct RawColumn {
    has_valid: u8,
    valid: List,
    kind: u8,
    /// the values, or the offsets of a `variable` and its data
    lists: [List; 2],
}

impl RawColumn {
    unsafe fn take(self) -> Values {
        let [first, second] = self.lists;
        // SAFETY: the box says by `kind` which lists there are.
        unsafe {
            let variable = || Variable { offsets: first.take(), data: second.take() };
            let data = match kind(self.kind) {
                Kind::Boolean => Data::Boolean(first.take()),
                Kind::Int64 => Data::Int64(first.take()),
                Kind::Float64 => Data::Float64(first.take()),
                Kind::Timestamp => Data::Timestamp(first.take()),
                Kind::Utf8 => Data::Utf8(variable()),
                Kind::Bytes => Data::Bytes(variable()),
            };
            Values { valid: (self.has_valid != 0).then(|| self.valid.take()), data }
        }
    }

    fn lend(values: &Values) -> Self {
        let variable = |variable: &Variable| [List::lend(&variable.offsets), List::lend(&variable.data)];
        let (kind, lists) = match &values.data {
            Data::Boolean(bits) => (Kind::Boolean, [List::lend(bits), EMPTY]),
            Data::Int64(numbers) => (Kind::Int64, [List::lend(numbers), EMPTY]),
            Data::Float64(numbers) => (Kind::Float64, [List::lend(numbers), EMPTY]),
            Data::Timestamp(times) => (Kind::Timestamp, [List::lend(times), EMPTY]),
            Data::Utf8(texts) => (Kind::Utf8, variable(texts)),
            Data::Bytes(bytes) => (Kind::Bytes, variable(bytes)),
        };
        let valid = values.valid.as_deref();
        Self {
            has_valid: u8::from(valid.is_some()),
            valid: valid.map_or(EMPTY, List::lend),
            kind: kind as u8,
            lists,
        }
    }
}

fn kind(number: u8) -> Kind {
    // The box has checked it.
    Kind::ALL.get(usize::from(number)).copied().unwrap_or(Kind::Bytes)
}

/// `field`
#[repr(C)]
struct RawField {
    name: List,
    kind: u8,
}

/// `table`
#[repr(C)]
struct RawTable {
    name: List,
    fields: List,
}

unsafe fn take_tables(tables: List) -> Vec<Table> {
    // SAFETY: a list of `table`s, each of which is taken once.
    unsafe {
        let tables = tables.take::<RawTable>().into_iter();
        let field = |field: RawField| (field.name.take_text(), kind(field.kind));
        let fields = |fields: List| fields.take::<RawField>().into_iter().map(field).collect();
        tables.map(|table| Table { name: table.name.take_text(), fields: fields(table.fields) }).collect()
    }
}

/// `result<_, string>`, which the box reads and then gives back to [`forget`].
#[repr(C)]
pub struct Answer {
    failed: u8,
    text: List,
    /// behind what the box reads
    owner: String,
}

impl Answer {
    fn give(result: Result<(), String>) -> *mut Self {
        let failed = u8::from(result.is_err());
        let owner = result.err().unwrap_or_default();
        Box::into_raw(Box::new(Self { failed, text: List::lend(owner.as_bytes()), owner }))
    }
}

/// The box has read it.
pub unsafe fn forget(answer: *mut Answer) {
    // SAFETY: `Answer::give` made it.
    let Answer { owner, .. } = *unsafe { Box::from_raw(answer) };
    drop(owner);
}

/// A text that the box reads and then gives back to [`forget_text`].
#[repr(C)]
pub struct Text {
    text: List,
    owner: String,
}

/// `config-schema`
pub fn config_schema<P: Plugin>() -> *mut Text {
    let owner = P::config_schema();
    Box::into_raw(Box::new(Text { text: List::lend(owner.as_bytes()), owner }))
}

/// The box has read it.
pub unsafe fn forget_text(text: *mut Text) {
    // SAFETY: `config_schema` made it.
    let Text { owner, .. } = *unsafe { Box::from_raw(text) };
    drop(owner);
}

/// `configure`: its three lists as they come.
pub unsafe fn configure<P: Plugin>(
    running: &OnceLock<Running<P>>,
    [config, inputs, targets]: [(*mut u8, usize); 3],
) -> *mut Answer {
    std::panic::set_hook(Box::new(|panic| host::log(crate::Level::Error, &panic.to_string())));
    let list = |(start, len)| List { start, len };
    // SAFETY: they are what the contract says.
    let (config, inputs, targets) =
        unsafe { (list(config).take_text(), take_tables(list(inputs)), take_tables(list(targets))) };
    Answer::give(
        Running::new(&config, inputs, targets)
            .and_then(|made| running.set(made).map_err(|_| "configure was called twice".to_owned())),
    )
}

/// `on-batch`
pub unsafe fn on_batch<P: Plugin>(
    running: &OnceLock<Running<P>>,
    input: u32,
    rows: u32,
    (start, len): (*mut u8, usize),
) -> *mut Answer {
    // SAFETY: a list of `column`s, each of which is taken once.
    let columns: Vec<Values> =
        unsafe { List { start, len }.take::<RawColumn>().into_iter().map(|column| column.take()).collect() };
    Answer::give(began(running).and_then(|running| running.on_batch(input, rows, &columns)))
}

/// `on-timer`
pub unsafe fn on_timer<P: Plugin>(
    running: &OnceLock<Running<P>>,
    (start, len): (*mut u8, usize),
) -> *mut Answer {
    // SAFETY: a text.
    let tag = unsafe { List { start, len }.take_text() };
    Answer::give(began(running).and_then(|running| running.on_timer(&tag)))
}

fn began<P>(running: &OnceLock<Running<P>>) -> Result<&Running<P>, String> {
    running.get().ok_or_else(|| "configure was not called".to_owned())
}

/// `wit/rule.wit`, interface `host`
pub(crate) mod host {
    use super::{EMPTY, List, RawColumn};
    use crate::columns::Written;
    use crate::host::Level;

    /// `written`
    #[repr(C)]
    struct RawWritten {
        field: u32,
        column: RawColumn,
    }

    /// `option<list<u8>>`
    #[repr(C)]
    struct Found {
        is_there: u8,
        bytes: List,
    }

    mod raw {
        use super::{Found, List};

        #[link(wasm_import_module = "tidegate:rule/host@1.0.0")]
        unsafe extern "C" {
            pub safe fn now() -> i64;
            pub fn get(key: *const u8, len: usize, found: *mut Found);
            pub fn set(key: *const u8, len: usize, value: *const u8, value_len: usize);
            pub fn remove(key: *const u8, len: usize);
            pub fn write(
                target: u32,
                causes: *const u32,
                rows: usize,
                columns: *const super::RawWritten,
                n: usize,
            );
            pub fn after(nanoseconds: u64, tag: *const u8, len: usize);
            pub fn cancel(tag: *const u8, len: usize);
            pub fn log(level: u32, text: *const u8, len: usize);
        }

        const _: () = assert!(size_of::<List>() == 8 && size_of::<Found>() == 12);
        const _: () = assert!(size_of::<super::RawColumn>() == 32 && size_of::<super::RawWritten>() == 36);
    }

    // SAFETY, throughout: the box only reads what it is lent, before it returns.

    pub(crate) fn now() -> i64 {
        raw::now()
    }

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        let mut found = Found { is_there: 0, bytes: EMPTY };
        // SAFETY: the box fills `found` in, with a list in memory from `realloc`.
        unsafe {
            raw::get(key.as_ptr(), key.len(), &raw mut found);
            (found.is_there != 0).then(|| found.bytes.take())
        }
    }

    pub(crate) fn set(key: &str, value: &[u8]) {
        // SAFETY: lent.
        unsafe { raw::set(key.as_ptr(), key.len(), value.as_ptr(), value.len()) }
    }

    pub(crate) fn remove(key: &str) {
        // SAFETY: lent.
        unsafe { raw::remove(key.as_ptr(), key.len()) }
    }

    pub(crate) fn write(target: u32, causes: &[u32], columns: &[Written]) {
        let lend =
            |written: &Written| RawWritten { field: written.field, column: RawColumn::lend(&written.values) };
        let columns: Vec<RawWritten> = columns.iter().map(lend).collect();
        // SAFETY: lent.
        unsafe { raw::write(target, causes.as_ptr(), causes.len(), columns.as_ptr(), columns.len()) }
    }

    pub(crate) fn after(nanoseconds: u64, tag: &str) {
        // SAFETY: lent.
        unsafe { raw::after(nanoseconds, tag.as_ptr(), tag.len()) }
    }

    pub(crate) fn cancel(tag: &str) {
        // SAFETY: lent.
        unsafe { raw::cancel(tag.as_ptr(), tag.len()) }
    }

    pub(crate) fn log(level: Level, text: &str) {
        // SAFETY: lent.
        unsafe { raw::log(level as u32, text.as_ptr(), text.len()) }
    }
}
