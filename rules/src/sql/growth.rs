//! How much a function may make of one row.
//!
//! A function whose result can be much larger than its arguments takes its size from data: one row with a
//! wrong number would ask for gigabytes, and end the box, again at every start. Such a row fails before any
//! memory is taken, and costs itself.
//!
//! Functions that put their arguments together (`concat`, `array_concat`, `overlay`) need no bound: what they
//! give is as large as what they were given.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, TimeUnit, UInt64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};
use datafusion_functions::regex::regexpcount::regexp_count_func;

/// Bytes that are made longer: by `repeat`, `lpad` and `rpad`.
const TEXT: i128 = 64 * 1024;
/// Bytes in which something is replaced or joined, and bytes that copies of elements take in a list: a text
/// of a message may be as long.
const COPIES: i128 = 1024 * 1024;
const ELEMENTS: i128 = 10_000;

/// What a function would make of a row.
struct Size {
    made: i128,
    limit: i128,
    of: &'static str,
}

impl Size {
    fn text(made: i128) -> Self {
        Self { made, limit: TEXT, of: "bytes of text" }
    }

    fn copies(made: i128) -> Self {
        Self { made, limit: COPIES, of: "bytes" }
    }

    fn elements(made: i128) -> Self {
        Self { made, limit: ELEMENTS, of: "elements" }
    }

    fn is_too_large(&self) -> bool {
        self.made > self.limit
    }
}

/// The size of what a function would make of a row. `None`: a null, or an error that the function tells.
type Measure = fn(&Arguments<'_>) -> Option<Size>;

/// By their own names, which aliases have as well.
const MEASURES: [(&str, Measure); 14] = [
    ("array_repeat", array_repeat),
    ("array_replace", array_replace),
    ("array_replace_all", array_replace),
    ("array_replace_n", array_replace),
    ("array_resize", array_resize),
    ("array_to_string", array_to_string),
    ("generate_series", generate_series),
    ("lpad", pad),
    ("range", range),
    ("regexp_replace", regexp_replace),
    ("repeat", repeat),
    ("replace", replace),
    ("rpad", pad),
    ("string_to_array", string_to_array),
];

/// `function`, which fails for a row of which it would make too much.
pub(super) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match MEASURES.iter().find(|(name, _)| *name == function.name()) {
        Some((_, measure)) => Arc::new(ScalarUDF::new_from_impl(Bounded { function, measure: *measure })),
        None => function,
    }
}

#[derive(Debug)]
struct Bounded {
    function: Arc<ScalarUDF>,
    measure: Measure,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.function.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.function.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.function.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args.args.iter().map(plain).collect::<Result<Vec<_>>>()?;
        for row in 0..args.number_rows {
            let size = (self.measure)(&Arguments { columns: &columns, row });
            if let Some(Size { made, limit, of }) = size.filter(Size::is_too_large) {
                return exec_err!(
                    "`{}` would make {made} {of} of a row, and makes {limit} at most",
                    self.name()
                );
            }
        }
        self.function.invoke_with_args(args)
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.function.simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.function.short_circuits()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }
}

/// An argument, of fewer types than there are; one row long where it is the same for all rows.
fn plain(argument: &ColumnarValue) -> Result<ArrayRef> {
    let array = match argument {
        ColumnarValue::Array(array) => Arc::clone(array),
        ColumnarValue::Scalar(value) => value.to_array()?,
    };
    let wanted = match array.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) if values.is_string() => DataType::Utf8,
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => DataType::List(Arc::clone(field)),
        number if number.is_integer() && *number != DataType::UInt64 => DataType::Int64,
        _ => return Ok(array),
    };
    Ok(cast(&array, &wanted)?)
}

/// What a function is given for one row.
struct Arguments<'a> {
    columns: &'a [ArrayRef],
    row: usize,
}

impl<'a> Arguments<'a> {
    /// The column of an argument that is not null, and the row in it.
    fn at(&self, argument: usize) -> Option<(&'a ArrayRef, usize)> {
        let column = self.columns.get(argument)?;
        let row = if column.len() == 1 { 0 } else { self.row };
        (row < column.len() && column.is_valid(row)).then_some((column, row))
    }

    fn text(&self, argument: usize) -> Option<&'a str> {
        let (column, row) = self.at(argument)?;
        Some(column.as_string_opt::<i32>()?.value(row))
    }

    fn number(&self, argument: usize) -> Option<i128> {
        let (column, row) = self.at(argument)?;
        match column.as_primitive_opt::<Int64Type>() {
            Some(numbers) => Some(numbers.value(row).into()),
            None => Some(column.as_primitive_opt::<UInt64Type>()?.value(row).into()),
        }
    }

    fn list(&self, argument: usize) -> Option<ArrayRef> {
        let (column, row) = self.at(argument)?;
        Some(column.as_list_opt::<i32>()?.value(row))
    }

    /// The bytes that so many copies of an argument take.
    fn copies(&self, argument: usize, copies: i128) -> i128 {
        let Some((column, row)) = self.at(argument) else { return 0 };
        let all = |column: &ArrayRef| -> i128 {
            column.to_data().get_slice_memory_size().unwrap_or(usize::MAX).try_into().unwrap_or(i128::MAX)
        };
        // Mostly all rows together are little enough, and the row need not be looked for.
        let made = all(column).saturating_mul(copies);
        if made <= COPIES {
            return made;
        }
        let row =
            u32::try_from(row).ok().and_then(|row| take(column, &UInt32Array::from(vec![row]), None).ok());
        row.map_or(i128::MAX, |row| all(&row).saturating_mul(copies))
    }
}

fn len(text: &str) -> i128 {
    text.len() as i128
}

fn chars(text: &str) -> i128 {
    text.chars().count() as i128
}

/// `repeat(text, times)`
fn repeat(arguments: &Arguments<'_>) -> Option<Size> {
    let (text, times) = (arguments.text(0)?, arguments.number(1)?);
    (times > 1).then(|| Size::text(len(text).saturating_mul(times)))
}

/// `lpad(text, characters[, fill])`
fn pad(arguments: &Arguments<'_>) -> Option<Size> {
    let (text, wanted) = (arguments.text(0)?, arguments.number(1)?);
    let fill = if arguments.columns.len() > 2 { arguments.text(2)? } else { " " };
    let widest = fill.chars().map(char::len_utf8).max()?;
    let missing = wanted - chars(text);
    (missing > 0).then(|| Size::text(len(text).saturating_add(missing.saturating_mul(widest as i128))))
}

/// `replace(text, from, to)`
fn replace(arguments: &Arguments<'_>) -> Option<Size> {
    let (text, from, to) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
    let most = Size::copies((len(text) + 1).saturating_mul(len(to)).saturating_add(len(text)));
    if !most.is_too_large() {
        return None;
    }
    let times = text.matches(from).count() as i128;
    (len(to) > len(from)).then(|| Size::copies(len(text) + times.saturating_mul(len(to) - len(from))))
}

/// `regexp_replace(text, pattern, to[, flags])`: what is put in can name what was found.
fn regexp_replace(arguments: &Arguments<'_>) -> Option<Size> {
    let (text, pattern, to) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
    let flags = if arguments.columns.len() > 3 { arguments.text(3)? } else { "" };
    let named = to.bytes().filter(|byte| matches!(byte, b'\\' | b'$')).count() as i128;
    let size = |times: i128| {
        Size::copies(len(text).saturating_mul(named + 1).saturating_add(times.saturating_mul(len(to))))
    };
    if !flags.contains('g') {
        return Some(size(1));
    }
    let most = size(len(text) + 1);
    if !most.is_too_large() {
        return None;
    }
    let one = |text: &str| Arc::new(StringArray::from(vec![text.to_owned()])) as ArrayRef;
    let first = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let found = regexp_count_func(&[one(text), one(pattern), first, one(&flags.replace('g', ""))]).ok()?;
    Some(size(found.as_primitive_opt::<Int64Type>()?.iter().next()??.into()))
}

/// `array_repeat(element, times)`
fn array_repeat(arguments: &Arguments<'_>) -> Option<Size> {
    let times = arguments.number(1).filter(|times| *times > 1)?;
    let elements =
        Size::elements(times.saturating_mul(arguments.list(0).map_or(1, |list| list.len().max(1) as i128)));
    Some(if elements.is_too_large() { elements } else { Size::copies(arguments.copies(0, times)) })
}

/// `array_resize(list, elements[, fill])`
fn array_resize(arguments: &Arguments<'_>) -> Option<Size> {
    let (list, wanted) = (arguments.list(0)?, arguments.number(1)?);
    let missing = Some(wanted - list.len() as i128).filter(|missing| *missing > 0)?;
    let elements = Size::elements(wanted);
    Some(if elements.is_too_large() { elements } else { Size::copies(arguments.copies(2, missing)) })
}

/// `array_replace(list, from, to)`
fn array_replace(arguments: &Arguments<'_>) -> Option<Size> {
    let elements = arguments.list(0)?.len() as i128;
    Some(Size::copies(arguments.copies(2, elements)))
}

/// `array_to_string(list, between[, for nulls])`
fn array_to_string(arguments: &Arguments<'_>) -> Option<Size> {
    let elements = arguments.list(0)?.len() as i128;
    let each = len(arguments.text(1)?) + arguments.text(2).map_or(0, len);
    Some(Size::copies(elements.saturating_mul(each)))
}

/// `string_to_array(text, between)`
fn string_to_array(arguments: &Arguments<'_>) -> Option<Size> {
    let text = arguments.text(0)?;
    if len(text) < ELEMENTS {
        return None;
    }
    Some(Size::elements(match arguments.text(1) {
        None => chars(text),
        Some("") => 1,
        Some(between) => text.matches(between).count() as i128 + 1,
    }))
}

/// `range(first, end, step)`, of numbers or times, without its end.
fn range(arguments: &Arguments<'_>) -> Option<Size> {
    span_and_step(arguments).map(|(span, step)| Size::elements((span + step - 1) / step))
}

/// The same, with its end.
fn generate_series(arguments: &Arguments<'_>) -> Option<Size> {
    span_and_step(arguments).map(|(span, step)| Size::elements(span / step + 1))
}

fn span_and_step(arguments: &Arguments<'_>) -> Option<(i128, i128)> {
    let (first, last, step) = match arguments.columns.len() {
        1 => (0, arguments.number(0)?, 1),
        2 => (arguments.number(0)?, arguments.number(1)?, 1),
        _ => match arguments.number(2) {
            Some(step) => (arguments.number(0)?, arguments.number(1)?, step),
            None => (nanoseconds(arguments, 0)?, nanoseconds(arguments, 1)?, step_ns(arguments)?),
        },
    };
    let span = last - first;
    (step != 0 && span.signum() * step.signum() >= 0).then(|| (span.abs(), step.abs()))
}

fn nanoseconds(arguments: &Arguments<'_>, argument: usize) -> Option<i128> {
    let (column, row) = arguments.at(argument)?;
    let unit: i128 = match column.data_type() {
        DataType::Date32 => 86_400_000_000_000,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        _ => return None,
    };
    let time = cast(&column.slice(row, 1), &DataType::Int64).ok()?;
    Some(i128::from(time.as_primitive_opt::<Int64Type>()?.value(0)) * unit)
}

/// The shortest that an interval can be.
fn step_ns(arguments: &Arguments<'_>) -> Option<i128> {
    let (column, row) = arguments.at(2)?;
    let step = column.as_primitive_opt::<IntervalMonthDayNanoType>()?.value(row);
    let days = i128::from(step.months) * 28 + i128::from(step.days);
    Some(days * 86_400_000_000_000 + i128::from(step.nanoseconds))
}
