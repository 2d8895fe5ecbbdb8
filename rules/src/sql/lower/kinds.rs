//! What sorts of things there are, and which of them may meet.

use arrow::datatypes::{DataType, Fields};

/// What sort of thing a type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// null meets everything
    Null,
    Number,
    Text,
    Condition,
    Moment,
    TimeOfDay,
    Span,
    List,
    Struct,
    /// only DataFusion knows what it may meet
    Other,
}

impl Kind {
    pub(super) fn from_arrow(data_type: &DataType) -> Self {
        match data_type {
            DataType::Null => Self::Null,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Boolean => Self::Condition,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Self::Moment,
            DataType::Time32(_) | DataType::Time64(_) => Self::TimeOfDay,
            DataType::Interval(_) | DataType::Duration(_) => Self::Span,
            DataType::Dictionary(_, values) => Self::from_arrow(values),
            DataType::Struct(_) => Self::Struct,
            list if element(list).is_some() => Self::List,
            number if number.is_numeric() => Self::Number,
            _ => Self::Other,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Number => "a number",
            Self::Text => "text",
            Self::Condition => "true or false",
            Self::Moment => "a time",
            Self::TimeOfDay => "a time of day",
            Self::Span => "a length of time",
            Self::List => "a list",
            Self::Struct => "a struct",
            Self::Other => "of another type",
        }
    }

    fn many(self) -> &'static str {
        match self {
            Self::Null => "nulls",
            Self::Number => "numbers",
            Self::Text => "texts",
            Self::Condition => "conditions",
            Self::Moment => "times",
            Self::TimeOfDay => "times of day",
            Self::Span => "lengths of time",
            Self::List => "lists",
            Self::Struct => "structs",
            Self::Other => "other things",
        }
    }
}

/// Whether things of these types may be compared, or stand in one column: with all that is in them.
pub(super) fn meet(one: &DataType, other: &DataType) -> bool {
    if let (Some(one), Some(other)) = (element(one), element(other)) {
        return meet(one, other);
    }
    if let (DataType::Struct(one), DataType::Struct(other)) = (one, other) {
        return fields_meet(one, other);
    }
    let kinds = [Kind::from_arrow(one), Kind::from_arrow(other)];
    // DataFusion has its own word where only one of them is a list or a struct.
    let is_left_to_it = |kind: &Kind| matches!(kind, Kind::Null | Kind::List | Kind::Struct | Kind::Other);
    kinds[0] == kinds[1] || kinds.iter().any(is_left_to_it)
}

/// Fields meet those of the same name, or, in rows, where they stand.
fn fields_meet(one: &Fields, other: &Fields) -> bool {
    let by_name = one.iter().all(|field| other.find(field.name()).is_some());
    one.iter().enumerate().all(|(place, field)| {
        let partner =
            if by_name { other.find(field.name()).map(|(_, partner)| partner) } else { other.get(place) };
        partner.is_none_or(|partner| meet(field.data_type(), partner.data_type()))
    })
}

fn element(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => Some(field.data_type()),
        _ => None,
    }
}

/// What a thing of this type is, with what is in it.
pub(super) fn told(data_type: &DataType) -> String {
    if let Some(element) = element(data_type) {
        return format!("a list of {}", Kind::from_arrow(element).many());
    }
    match data_type {
        DataType::Struct(fields) => {
            let of: Vec<_> = fields.iter().map(|field| told(field.data_type())).collect();
            format!("a row of ({})", of.join(", "))
        }
        other => Kind::from_arrow(other).name().to_owned(),
    }
}
