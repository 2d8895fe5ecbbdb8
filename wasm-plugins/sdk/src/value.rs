//! What Rust types the values of columns are.

use crate::columns::{Data, Kind, Values, bit, push_bit};

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// The type of a column: `bool`, `i64`, `f64`, [`Timestamp`], `str` or `[u8]`.
pub trait Value: sealed::Sealed {
    /// What a single value is.
    type Ref<'a>: Copy;
    /// What a column must be for such values to be written to it.
    const KIND: Kind;

    /// Whether a column of `kind` can be read as such: `f64` takes whole numbers, too.
    fn reads(kind: Kind) -> bool {
        kind == Self::KIND
    }

    #[doc(hidden)]
    fn cell(value: Self::Ref<'_>) -> Cell<'_>;
}

/// A value to be written, see [`Field::is`](crate::Field::is).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// true or false
    Boolean(bool),
    /// a whole number
    Int64(i64),
    /// a number
    Float64(f64),
    /// a time
    Timestamp(Timestamp),
    /// a text
    Utf8(&'a str),
    /// bytes
    Bytes(&'a [u8]),
}

pub(crate) mod sealed {
    use crate::columns::Values;

    pub trait Sealed {
        /// The value of a row that has one.
        #[allow(private_interfaces)]
        fn read<'a>(values: &'a Values, row: usize) -> <Self as super::Value>::Ref<'a>
        where
            Self: super::Value;
    }
}

const MISMATCH: &str = "a handle of another schema: look columns up in `new`";

macro_rules! value {
    ($type:ty, $ref:ty, $kind:ident, reads: [$($reads:ident),*], cell: |$value:ident| $cell:expr,
     read: |$row:ident| { $($pattern:pat => $read:expr),* $(,)? }) => {
        impl Value for $type {
            type Ref<'a> = $ref;
            const KIND: Kind = Kind::$kind;

            fn reads(kind: Kind) -> bool {
                matches!(kind, $(Kind::$reads)|*)
            }

            fn cell($value: Self::Ref<'_>) -> Cell<'_> {
                $cell
            }
        }

        impl sealed::Sealed for $type {
            #[allow(private_interfaces, clippy::needless_lifetimes)] // some of them need it
            #[inline]
            fn read<'a>(values: &'a Values, $row: usize) -> $ref {
                match &values.data {
                    $($pattern => $read,)*
                    _ => panic!("{MISMATCH}"),
                }
            }
        }
    };
}

value!(bool, bool, Boolean, reads: [Boolean], cell: |value| Cell::Boolean(value), read: |row| {
    Data::Boolean(bits) => bit(bits, row),
});
value!(i64, i64, Int64, reads: [Int64], cell: |value| Cell::Int64(value), read: |row| {
    Data::Int64(numbers) => numbers[row],
});
value!(f64, f64, Float64, reads: [Float64, Int64], cell: |value| Cell::Float64(value), read: |row| {
    Data::Float64(numbers) => numbers[row],
    Data::Int64(numbers) => numbers[row] as f64,
});
value!(Timestamp, Timestamp, Timestamp, reads: [Timestamp], cell: |time| Cell::Timestamp(time), read: |row| {
    Data::Timestamp(times) => Timestamp(times[row]),
});
value!(str, &'a str, Utf8, reads: [Utf8], cell: |value| Cell::Utf8(value), read: |row| {
    Data::Utf8(texts) => std::str::from_utf8(texts.get(row)).expect("texts are UTF-8"),
});
value!([u8], &'a [u8], Bytes, reads: [Bytes, Utf8], cell: |value| Cell::Bytes(value), read: |row| {
    Data::Bytes(bytes) => bytes.get(row),
    Data::Utf8(texts) => texts.get(row),
});

impl Values {
    /// Appends a value to the `rows` that are there. `None`: that row has none.
    pub(crate) fn push(&mut self, rows: usize, cell: Option<Cell<'_>>) {
        if cell.is_none() && self.valid.is_none() {
            let mut bits = vec![0xff; rows / 8];
            if rows % 8 != 0 {
                bits.push((1 << (rows % 8)) - 1);
            }
            self.valid = Some(bits);
        }
        if let Some(bits) = &mut self.valid {
            push_bit(bits, rows, cell.is_some());
        }
        match (&mut self.data, cell) {
            (Data::Boolean(bits), Some(Cell::Boolean(set))) => push_bit(bits, rows, set),
            (Data::Boolean(bits), None) => push_bit(bits, rows, false),
            (Data::Int64(numbers), Some(Cell::Int64(number))) => numbers.push(number),
            (Data::Float64(numbers), Some(Cell::Float64(number))) => numbers.push(number),
            (Data::Float64(numbers), None) => numbers.push(0.0),
            (Data::Timestamp(times), Some(Cell::Timestamp(time))) => times.push(time.0),
            (Data::Int64(numbers) | Data::Timestamp(numbers), None) => numbers.push(0),
            (Data::Utf8(texts), Some(Cell::Utf8(text))) => texts.push(text.as_bytes()),
            (Data::Bytes(bytes), Some(Cell::Bytes(value))) => bytes.push(value),
            (Data::Utf8(variable) | Data::Bytes(variable), None) => variable.push(&[]),
            _ => panic!("{MISMATCH}"),
        }
    }
}
