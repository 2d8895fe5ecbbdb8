//! From what users write to points that cannot be wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_core::diagnostic::did_you_mean;

use super::config::{Order, PointConfig, ValueType};
use super::{Integer, Meaning, Point, Table, View, Width};
use crate::scaling::Scaling;
use crate::table::Problem;

/// How the points of a map are written, where they do not say it themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spelling {
    /// order of bytes and words
    pub order: Order,
    /// the number of the first register, 0 or 1
    pub addresses_from: u8,
}

impl Point {
    /// Checks a point and works out where it is.
    ///
    /// # Errors
    /// The first thing that is wrong with it. [`Problem::at`] starts at the point's own table.
    pub fn parse(name: &str, config: &PointConfig, spelling: Spelling) -> Result<Self, Problem> {
        let (table, address) = place(config, spelling.addresses_from)?;
        let value_type = value_type(config, table)?;
        let meaning = meaning(config, table, value_type)?;
        let count = count(config, value_type)?;
        let order = config.order.unwrap_or(spelling.order);
        if table.is_bits() && config.order.is_some() {
            return Err(Problem::new(&["order"], format!("a {table} is one bit, and has no order")));
        }
        let point = Self { name: Arc::from(name), table, address, count, order, meaning };
        if point.end() > 1 << 16 {
            let what = format!("{point} ends behind the last register, 65535");
            return Err(Problem::new(&[place_key(config)], what));
        }
        Ok(point)
    }
}

const EXAMPLE: &str = "such as { holding = 40, type = \"uint16\" } or { coil = 5 }";

fn place_key(config: &PointConfig) -> &'static str {
    if config.at.is_some() {
        return "at";
    }
    tables(config).into_iter().find(|(_, number)| number.is_some()).map_or("at", |(table, _)| table.key())
}

fn tables(config: &PointConfig) -> [(Table, Option<u16>); 4] {
    [
        (Table::Coil, config.coil),
        (Table::Discrete, config.discrete),
        (Table::Input, config.input),
        (Table::Holding, config.holding),
    ]
}

fn place(config: &PointConfig, addresses_from: u8) -> Result<(Table, u16), Problem> {
    let named = tables(config).into_iter().filter_map(|(table, number)| number.map(|n| (table, n)));
    let named: Vec<(Table, u16)> = named.collect();
    match (&config.at, named.as_slice()) {
        (Some(at), []) => data_sheet(at).map_err(|what| Problem::new(&["at"], what)),
        (None, [(table, number)]) => match number.checked_sub(u16::from(addresses_from)) {
            Some(address) => Ok((*table, address)),
            None => Err(Problem::new(&[table.key()], "there is no register 0 where `addresses_from` is 1")
                .help("write the number as the data sheet has it, or `addresses_from = 0`")),
        },
        (None, []) => Err(Problem::absent(&[], "it says no place")
            .help(format!("add `holding`, `input`, `coil`, `discrete` or `at`, {EXAMPLE}"))),
        _ => Err(Problem::new(&[], "it says more than one place")
            .help("keep one of `holding`, `input`, `coil`, `discrete` and `at`")),
    }
}

/// "40031": the kind, then the number counted from 1.
fn data_sheet(at: &str) -> Result<(Table, u16), String> {
    let wrong = || {
        format!(
            "\"{at}\" is not a number of a data sheet: write five or six digits, such as \"40031\" for \
            holding register 30 (3: input register, 1: discrete input, 0: coil)"
        )
    };
    if !(5..=6).contains(&at.len()) || !at.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let (kind, number) = at.split_at(1);
    let table = match kind {
        "0" => Table::Coil,
        "1" => Table::Discrete,
        "3" => Table::Input,
        "4" => Table::Holding,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let address = number.checked_sub(1).and_then(|address| u16::try_from(address).ok());
    address.map(|address| (table, address)).ok_or_else(|| {
        format!("\"{at}\" does not exist: data sheets count from {kind}0001, or {kind}00001 to {kind}65536")
    })
}

fn value_type(config: &PointConfig, table: Table) -> Result<ValueType, Problem> {
    let wrong = |key: &str, what: String| Err(Problem::new(&[key], what));
    match (config.value_type, config.bit) {
        (None | Some(ValueType::Bool), bit) if table.is_bits() => match bit {
            Some(_) => wrong("bit", format!("a {table} is one bit already")),
            None => Ok(ValueType::Bool),
        },
        (Some(other), _) if table.is_bits() => {
            wrong("type", format!("a {table} is true or false, and no {other}"))
        }
        (_, Some(bit)) if bit > 15 => wrong("bit", format!("a register has bits 0 to 15, and no bit {bit}")),
        (None | Some(ValueType::Bool), Some(_)) => Ok(ValueType::Bool),
        (Some(other), Some(_)) => {
            wrong("type", format!("a bit is true or false, and no {other}; leave `type` out"))
        }
        (Some(value_type), None) => Ok(value_type),
        (None, None) => Err(Problem::absent(&[], "it does not say what the register holds")
            .help("add `type`, such as \"int16\", \"uint16\", \"float32\" or \"string\"; or `bit`")),
    }
}

fn count(config: &PointConfig, value_type: ValueType) -> Result<u16, Problem> {
    let number = |width: Width| Ok(width.registers());
    match (value_type, config.length) {
        (ValueType::String, Some(length)) if length > 0 => Ok(length),
        (ValueType::String, _) => Err(Problem::new(&["length"], "a string says how many registers it takes")
            .help("add `length = 8`: eight registers hold sixteen characters")),
        (other, Some(_)) => Err(Problem::new(&["length"], format!("a {other} has its own length"))
            .help("leave `length` out: it is for strings")),
        (ValueType::Int32 | ValueType::Uint32 | ValueType::Float32 | ValueType::Bcd32, None) => {
            number(Width::Two)
        }
        (ValueType::Int64 | ValueType::Uint64 | ValueType::Float64, None) => number(Width::Four),
        _ => number(Width::One),
    }
}

fn meaning(config: &PointConfig, table: Table, value_type: ValueType) -> Result<Meaning, Problem> {
    let (width, signed) = match value_type {
        ValueType::Bool | ValueType::String => {
            for (key, there) in [
                ("scale", config.scale.is_some()),
                ("offset", config.offset.is_some()),
                ("missing", config.missing.is_some()),
                ("values", config.values.is_some()),
                ("byte", config.byte.is_some()),
            ] {
                if there {
                    let what = format!("`{key}` is for numbers, and this is a {value_type}");
                    return Err(Problem::new(&[key], what));
                }
            }
            return Ok(match config.bit {
                _ if value_type == ValueType::String => Meaning::Text,
                _ if table.is_bits() => Meaning::Flag,
                Some(bit) => Meaning::Bit(bit),
                None => Meaning::NonZero,
            });
        }
        ValueType::Float16 => return float(config, Width::One),
        ValueType::Float32 => return float(config, Width::Two),
        ValueType::Float64 => return float(config, Width::Four),
        ValueType::Int8 | ValueType::Uint8 => {
            let (byte, signed) = (config.byte.unwrap_or_default(), value_type == ValueType::Int8);
            return integer(config, value_type, Integer::Byte { byte, signed });
        }
        ValueType::Bcd16 => return integer(config, value_type, Integer::Decimal { width: Width::One }),
        ValueType::Bcd32 => return integer(config, value_type, Integer::Decimal { width: Width::Two }),
        ValueType::Int16 => (Width::One, true),
        ValueType::Uint16 => (Width::One, false),
        ValueType::Int32 => (Width::Two, true),
        ValueType::Uint32 => (Width::Two, false),
        ValueType::Int64 => (Width::Four, true),
        ValueType::Uint64 => (Width::Four, false),
    };
    integer(config, value_type, Integer::Binary { width, signed })
}

fn float(config: &PointConfig, width: Width) -> Result<Meaning, Problem> {
    for (key, there) in [
        ("values", config.values.is_some()),
        ("missing", config.missing.is_some()),
        ("byte", config.byte.is_some()),
    ] {
        if there {
            let what = format!("`{key}` is for whole numbers, and this is a float");
            return Err(Problem::new(&[key], what));
        }
    }
    Ok(Meaning::Float { width, scaling: scaling(config)? })
}

fn integer(config: &PointConfig, value_type: ValueType, integer: Integer) -> Result<Meaning, Problem> {
    if config.byte.is_some() && !matches!(integer, Integer::Byte { .. }) {
        let what = format!("`byte` is for int8 and uint8, and this is a {value_type}");
        return Err(Problem::new(&["byte"], what));
    }
    let (least, most) = integer.range();
    let has = |content: i128, at: &[&str]| {
        if (least..=most).contains(&content) {
            return Ok(content);
        }
        Err(Problem::new(at, format!("a {value_type} is {least} to {most}, and never {content}")))
    };
    let missing = config.missing.map(|content| has(content.into(), &["missing"])).transpose()?;
    let view = match (scaling(config)?, &config.values) {
        (Some(_), Some(_)) => {
            return Err(Problem::new(&["values"], "`values` names contents, and `scale` makes them others")
                .help("keep one of them"));
        }
        (Some(scaling), None) => View::Scaled(scaling),
        (None, None) => View::Plain,
        (None, Some(values)) => {
            let mut names = BTreeMap::new();
            for (content, name) in values {
                let at = ["values", content.as_str()];
                let number = content.parse::<i64>().map_err(|_| {
                    Problem::new(&at, format!("\"{content}\" is not a whole number"))
                        .help("write contents in front: { 0 = \"off\", 1 = \"auto\" }")
                })?;
                names.insert(has(number.into(), &at)?, name.clone());
            }
            View::Named(names)
        }
    };
    Ok(Meaning::Integer { integer, view, missing })
}

fn scaling(config: &PointConfig) -> Result<Option<Scaling>, Problem> {
    if config.scale.is_none() && config.offset.is_none() {
        return Ok(None);
    }
    let (scale, offset) = (config.scale.unwrap_or(1.0), config.offset.unwrap_or(0.0));
    if !scale.is_finite() || scale == 0.0 {
        return Err(Problem::new(&["scale"], format!("a scale of {scale} leaves nothing of the value")));
    }
    if !offset.is_finite() {
        return Err(Problem::new(&["offset"], "an offset is a number"));
    }
    Ok(Some(Scaling::new(scale, offset)))
}

/// "did you mean `x`?" for the name of a column.
pub(in crate::modbus) fn nearest_point(wanted: &str, points: &[Point]) -> String {
    let names: Vec<&str> = points.iter().map(|point| &*point.name).collect();
    did_you_mean(wanted, &names).unwrap_or_default()
}
