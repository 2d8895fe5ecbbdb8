//! What must hold for the configuration beyond the types of its keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_core::{FieldType, Span, TS};

use super::config::{ConnectionConfig, Framing, MOST_BITS, MOST_REGISTERS, OutputConfig, StreamConfig};
use super::plan::Limits;
use super::points::{Point, Spelling};
use crate::line::limits::{check_interval, check_pause, check_timeout};
use crate::line::tcp::host_problem;
use crate::quality::{FAULT, QUALITY};
use crate::rows::with_quality;
use crate::table::{Problem, Review, tell};

/// The column that tells devices apart.
pub const DEVICE: &str = "device";

impl ConnectionConfig {
    /// Says what is wrong with it.
    pub(crate) fn check(&self, review: &mut Review<'_>) {
        tell(self.problems(), review);
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        match (&self.host, &self.serial) {
            (None, None) => problems.push(Problem::absent(&[], "it says neither `host` nor `serial`").help(
                "add host = \"192.168.10.20\", or serial = { device = \"/dev/ttyUSB0\", baud = 9600 }",
            )),
            (Some(_), Some(_)) => {
                problems.push(Problem::new(&["serial"], "it says `host` and `serial`").help(
                    "keep one of them; a serial server on the network is `host` with framing = \"rtu\"",
                ))
            }
            (Some(host), None) => problems.extend(check_host(host)),
            (None, Some(serial)) => {
                for (key, there) in [("port", self.port.is_some()), ("any_unit", self.any_unit)] {
                    if there {
                        problems.push(
                            Problem::new(&[key], format!("`{key}` is for networks, and this line is serial"))
                                .help("leave it out"),
                        );
                    }
                }
                problems.extend(serial.problems().into_iter().map(|problem| problem.inside("serial")));
                if !matches!(serial.data_bits, None | Some(8)) {
                    let what = "a byte of Modbus RTU has 8 data bits";
                    problems.push(Problem::new(&["serial", "data_bits"], what).help("leave it out"));
                }
            }
        }
        if self.echo && self.serial.is_none() && self.framing == Framing::Tcp {
            problems.push(
                Problem::new(&["echo"], "Modbus TCP has no echo")
                    .help("leave `echo` out, or set framing = \"rtu\""),
            );
        }
        problems.extend(check_timeout(&["timeout"], self.timeout));
        problems.extend(check_timeout(&["connect_timeout"], self.connect_timeout));
        problems.extend(check_pause(&["pause_after_connect"], self.pause_after_connect));
        problems.extend(check_pause(&["pause_between_requests"], self.pause_between_requests));
        problems.extend(self.park.problem());
        problems.extend(self.backoff.problems());
        problems
    }

    /// Whether frames are those of Modbus TCP.
    pub(super) fn is_tcp(&self) -> bool {
        self.serial.is_none() && self.framing == Framing::Tcp
    }
}

/// What is wrong with the key `host`.
fn check_host(host: &str) -> Option<Problem> {
    if host.starts_with("/dev/") {
        return Some(
            Problem::new(&["host"], "`host` takes a name or an address on the network")
                .help(format!("write serial = {{ device = \"{host}\", baud = 9600, parity = \"none\" }}")),
        );
    }
    host_problem(host)
}

/// The points of a map; a problem's place starts at the map's own table.
fn points<'a>(
    fields: &'a BTreeMap<String, super::config::PointConfig>,
    spelling: Spelling,
) -> impl Iterator<Item = Result<Point, Problem>> + 'a {
    fields.iter().map(move |(name, config)| {
        let point = Point::parse(name, config, spelling);
        point.map_err(|problem| problem.inside(name).inside("fields"))
    })
}

fn check_map(
    fields: &BTreeMap<String, super::config::PointConfig>,
    addresses_from: u8,
    timeout: Option<Span>,
    problems: &mut Vec<Problem>,
) {
    if fields.is_empty() {
        problems.push(
            Problem::absent(&["fields"], "it has no fields")
                .help("add some, such as level = { holding = 0, type = \"uint16\" }"),
        );
    }
    if addresses_from > 1 {
        problems.push(
            Problem::new(&["addresses_from"], "data sheets count from 0 or from 1")
                .help("write 0 if register 0 exists in the data sheet, else 1"),
        );
    }
    if fields.contains_key(TS) {
        problems
            .push(Problem::new(&["fields", TS], "`ts` is the time of every row").help("choose another name"));
    }
    problems.extend(timeout.and_then(|timeout| check_timeout(&["timeout"], timeout)));
}

/// Unit ids are 1 to 247 (Serial Line V1.02, section 2.2); a device that is itself on TCP may have 0 or 255
/// (Messaging on TCP/IP V1.0b, section 4.4.2.6).
fn check_unit(at: &[&str], unit: u8, is_tcp: bool) -> Option<Problem> {
    let what = match unit {
        1..=247 => return None,
        0 | 255 if is_tcp => return None,
        0 => "unit 0 is all units at once, and none of them answers",
        255 => "unit 255 is a device's own address on Modbus TCP, and no unit on a serial line",
        _ => "units have the ids 1 to 247",
    };
    Some(Problem::new(at, what).help("write the device's own unit id, 1 to 247"))
}

impl StreamConfig {
    /// Says what is wrong with it. `connections`: those that feed it, as far as they are known.
    pub(crate) fn check<'a>(
        &self,
        connections: impl IntoIterator<Item = &'a ConnectionConfig>,
        review: &mut Review<'_>,
    ) {
        tell(self.problems(connections), review);
    }

    /// What is wrong with it.
    pub(super) fn problems<'a>(
        &self,
        connections: impl IntoIterator<Item = &'a ConnectionConfig>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_map(&self.fields, self.addresses_from, self.timeout, &mut problems);
        let is_tcp = connections.into_iter().all(ConnectionConfig::is_tcp);
        let named = self.units.iter().flatten().map(|(name, unit)| (vec!["units", name.as_str()], *unit));
        for (at, unit) in self.unit.map(|unit| (vec!["unit"], unit)).into_iter().chain(named) {
            problems.extend(check_unit(&at, unit, is_tcp));
        }
        problems.extend(check_interval(&["every"], self.every));
        let names = self.connection.names();
        if names.is_empty() {
            problems.push(Problem::new(&["connection"], "the list names no connection"));
        }
        let twice = names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|of| of == *name));
        if let Some((_, name)) = twice {
            problems.push(Problem::new(&["connection"], format!("the list names `{name}` twice")));
        }
        match &self.units {
            Some(_) if self.unit.is_some() => problems.push(
                Problem::new(&["units"], "it says `unit` and `units`")
                    .help("keep `unit` for one device, or `units` for several"),
            ),
            Some(units) if units.is_empty() => {
                problems.push(
                    Problem::absent(&["units"], "it names no unit")
                        .help("write units = { press_1 = 1, press_2 = 2 }"),
                );
            }
            _ => {}
        }
        for (key, value, most) in
            [("max_registers", self.max_registers, MOST_REGISTERS), ("max_bits", self.max_bits, MOST_BITS)]
        {
            if !(1..=most).contains(&value) {
                let what =
                    format!("`{key}` is from 1 to {most}: that is what a request of Modbus can ask for");
                problems.push(Problem::new(&[key], what));
            }
        }
        for name in self.reserved().filter(|name| self.fields.contains_key(*name)) {
            problems.push(
                Problem::new(&["fields", name], format!("the stream has the column `{name}` already"))
                    .help("choose another name"),
            );
        }
        for point in points(&self.fields, self.spelling()) {
            match point {
                Ok(point) if !point.table.is_bits() && point.count > self.max_registers => {
                    let what = format!(
                        "{point} takes {} registers, and one request reads {}",
                        point.count, self.max_registers
                    );
                    problems.push(Problem::new(&["fields", &point.name], what));
                }
                Ok(_) => {}
                Err(problem) => problems.push(problem),
            }
        }
        problems
    }

    /// The columns beside `ts`, which is the time of arrival.
    pub(crate) fn columns(&self) -> Vec<(String, FieldType)> {
        with_quality(self.values(), self.quality)
    }

    /// The columns of what is read.
    pub(super) fn values(&self) -> Vec<(String, FieldType)> {
        let device = self.has_device().then(|| (DEVICE.to_owned(), FieldType::Utf8));
        let fields = points(&self.fields, self.spelling())
            .flatten()
            .map(|point| (point.name.to_string(), point.field_type()));
        device.into_iter().chain(fields).collect()
    }

    /// Whether a column tells devices apart.
    pub(super) fn has_device(&self) -> bool {
        self.units.is_some() || matches!(self.connection, super::config::Connections::Many(_))
    }

    fn reserved(&self) -> impl Iterator<Item = &'static str> {
        let device = self.has_device().then_some(DEVICE);
        device.into_iter().chain(self.quality.then_some([QUALITY, FAULT]).into_iter().flatten())
    }

    /// The points, in order of their names.
    pub(super) fn points(&self) -> Result<Vec<Point>, Problem> {
        points(&self.fields, self.spelling()).collect()
    }

    /// The devices on one of the connections: what `device` says of each, and its unit id.
    pub(super) fn devices(&self, connection: &str) -> Vec<(Option<Arc<str>>, u8)> {
        let many = matches!(self.connection, super::config::Connections::Many(_));
        match &self.units {
            None => vec![(many.then(|| connection.into()), self.unit.unwrap_or(1))],
            Some(units) => units
                .iter()
                .map(|(name, unit)| {
                    let name = if many { format!("{connection}/{name}") } else { name.clone() };
                    (Some(name.into()), *unit)
                })
                .collect(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            registers: self.max_registers,
            bits: self.max_bits,
            gap: self.gap,
            one_each: self.one_request_per_field,
        }
    }

    fn spelling(&self) -> Spelling {
        Spelling { order: self.order, addresses_from: self.addresses_from }
    }
}

impl OutputConfig {
    /// Says what is wrong with it. `connection`: the one that it writes to, if that is known.
    pub(crate) fn check(&self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        tell(self.problems(connection), review);
    }

    /// What is wrong with it.
    pub(super) fn problems(&self, connection: Option<&ConnectionConfig>) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_map(&self.fields, self.addresses_from, self.timeout, &mut problems);
        problems.extend(check_timeout(&["write_within"], self.write_within));
        let is_tcp = connection.is_none_or(ConnectionConfig::is_tcp);
        problems.extend(self.unit.and_then(|unit| check_unit(&["unit"], unit, is_tcp)));
        // By register: bits, and whose they are.
        let mut claimed: BTreeMap<_, Vec<(u16, Arc<str>)>> = BTreeMap::new();
        for point in points(&self.fields, self.spelling()) {
            let point = match point {
                Ok(point) => point,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let at = ["fields", &point.name];
            if let Some(name) = point.name_of_several() {
                problems.push(
                    Problem::new(&at, format!("two contents of {point} are named \"{name}\""))
                        .help("who writes the name would not know which of them is meant"),
                );
            }
            if !point.table.is_writable() {
                problems.push(
                    Problem::new(&at, format!("{point} can be read only"))
                        .help("Modbus writes coils and holding registers"),
                );
            }
            if point.count > super::write::MOST_REGISTERS {
                problems.push(Problem::new(
                    &at,
                    format!(
                        "{point} is longer than the {} registers of a write",
                        super::write::MOST_REGISTERS
                    ),
                ));
            }
            for address in u32::from(point.address)..point.end() {
                let others = claimed.entry((point.table, address)).or_default();
                if let Some((_, other)) = others.iter().find(|(mask, _)| mask & point.mask() != 0) {
                    problems.push(
                        Problem::new(&at, format!("{point} and `{other}` write the same bits"))
                            .help("a row with both would write one over the other"),
                    );
                    break;
                }
                others.push((point.mask(), Arc::clone(&point.name)));
            }
        }
        problems
    }

    /// What a rule may write.
    pub(crate) fn columns(&self) -> Vec<(String, FieldType)> {
        points(&self.fields, self.spelling())
            .flatten()
            .map(|point| (point.name.to_string(), point.field_type()))
            .collect()
    }

    /// The least and the greatest value of columns that take numbers.
    pub(crate) fn ranges(&self) -> Vec<(String, f64, f64)> {
        let points = points(&self.fields, self.spelling()).flatten();
        points
            .filter_map(|point| point.range().map(|(least, most)| (point.name.to_string(), least, most)))
            .collect()
    }

    /// The names that columns take in place of numbers.
    pub(crate) fn labels(&self) -> Vec<(String, Vec<String>)> {
        let points = points(&self.fields, self.spelling()).flatten();
        points.filter_map(|point| Some((point.name.to_string(), point.names()?))).collect()
    }

    /// The points, in order of their names.
    pub(super) fn points(&self) -> Result<Vec<Point>, Problem> {
        points(&self.fields, self.spelling()).collect()
    }

    fn spelling(&self) -> Spelling {
        Spelling { order: self.order, addresses_from: self.addresses_from }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(problems: Vec<Problem>) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    fn connection(config: Value) -> Vec<String> {
        said(serde_json::from_value::<ConnectionConfig>(config).unwrap().problems())
    }

    fn stream(more: Value) -> Vec<String> {
        let mut config = json!({
            "connection": "plc", "every": "1s", "fields": { "level": { "holding": 0, "type": "uint16" } },
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        said(serde_json::from_value::<StreamConfig>(config).unwrap().problems([]))
    }

    fn output(fields: Value) -> Vec<String> {
        let config = json!({ "connection": "plc", "fields": fields });
        said(serde_json::from_value::<OutputConfig>(config).unwrap().problems(None))
    }

    #[test]
    fn an_output_knows_the_ranges_and_the_names_of_its_columns() {
        let config = json!({ "connection": "plc", "fields": {
            "count": { "holding": 0, "type": "int16" },
            "speed": { "holding": 1, "type": "uint16", "scale": 0.1 },
            "turned": { "holding": 2, "type": "uint8", "byte": "low", "scale": -1.0, "offset": 5.0 },
            "half": { "holding": 3, "type": "float16" },
            "double": { "holding": 4, "type": "float64" },
            "mode": { "holding": 8, "type": "uint16", "values": { "0": "off", "1": "auto" } },
            "run": { "coil": 0 },
        } });
        let output: OutputConfig = serde_json::from_value(config).unwrap();
        let range = |name: &str, least, most| (name.to_owned(), least, most);
        let expected = [
            range("count", -32_768.0, 32_767.0),
            range("half", -65_504.0, 65_504.0),
            range("speed", 0.0, 6_553.5),
            range("turned", -250.0, 5.0),
        ];
        assert_eq!(output.ranges(), expected);
        assert_eq!(output.labels(), [("mode".to_owned(), vec!["off".to_owned(), "auto".to_owned()])]);
    }

    #[test]
    fn a_map_has_a_column_for_each_point_and_for_what_was_asked_for_beside() {
        let config: StreamConfig = serde_json::from_value(json!({
            "connection": ["a", "b"], "units": { "press_1": 1, "press_2": 2 }, "every": "1s", "quality": true,
            "fields": {
                "level": { "holding": 0, "type": "uint16", "scale": 0.1 },
                "temperature": { "input": 10, "type": "float32", "order": "CDAB" },
                "run": { "coil": 5 },
                "alarm": { "holding": 20, "bit": 3 },
                "name": { "holding": 100, "type": "string", "length": 8 },
                "flow": { "at": "40031", "type": "int16" },
                "mode": { "holding": 7, "type": "uint8", "values": { "0": "off" } },
            },
        }))
        .unwrap();
        assert_eq!(config.problems([]), []);
        let columns: Vec<String> =
            config.columns().into_iter().map(|(name, of)| format!("{name} {of}")).collect();
        assert_eq!(
            columns,
            [
                "device utf8",
                "alarm bool",
                "flow int64",
                "level float64",
                "mode utf8",
                "name utf8",
                "run bool",
                "temperature float64",
                "quality utf8",
                "fault utf8",
            ]
        );
        let devices = config.devices("b");
        assert_eq!(devices, [(Some("b/press_1".into()), 1), (Some("b/press_2".into()), 2)]);
    }

    #[test]
    fn connections_that_contradict_themselves_are_refused() {
        let host = || json!({ "host": "192.168.10.20" });
        let with = |key: &str, value: Value| {
            let mut config = host();
            config[key] = value;
            connection(config)
        };
        assert_eq!(connection(host()), [""; 0]);
        for (problems, words) in [
            (connection(json!({})), "neither `host` nor `serial`"),
            (
                connection(json!({ "host": "192.168.10.20:502" })),
                "`host = \"192.168.10.20\"` and `port = 502`",
            ),
            (connection(json!({ "host": "tcp://plc:502" })), "`host = \"plc\"` and `port = 502`"),
            (connection(json!({ "host": "/dev/ttyUSB0" })), "serial = { device = \"/dev/ttyUSB0\""),
            (connection(json!({ "serial": { "device": "/dev/ttyS0" }, "port": 502 })), "this line is serial"),
            (connection(json!({ "serial": { "device": "/dev/ttyS0", "stop_bits": 3 } })), "1 or 2 stop bits"),
            (with("serial", json!({ "device": "/dev/ttyS0" })), "keep one of them"),
            (with("echo", json!(true)), "Modbus TCP has no echo"),
            (with("timeout", json!("0s")), "from 1ms to 10min"),
            (with("pause_between_requests", json!("400d")), "at most 1min"),
            (with("park", json!({ "after": 1, "for": "0s" })), "longer than nothing"),
            (with("backoff", json!({ "min": "2s", "max": "1s" })), "longer than `backoff.max`"),
        ] {
            assert!(problems.len() == 1 && problems[0].contains(words), "{words}: {problems:?}");
        }
    }

    #[test]
    fn streams_and_outputs_that_contradict_themselves_are_refused_with_the_place() {
        assert_eq!(stream(json!({})), [""; 0]);
        let several = json!({ "holding": 1, "type": "int16", "values": { "3": "fault", "4": "fault" } });
        assert_eq!(stream(json!({ "fields": { "mode": several } })), [""; 0], "many devices have that");
        let point = |name: &str| json!({ "fields": { name: { "coil": 1 } } });
        for (problems, words) in [
            (stream(json!({ "fields": {} })), "fields: it has no fields"),
            (stream(json!({ "every": "0s" })), "every: `every` is at least 1ms"),
            (stream(json!({ "unit": 1, "units": { "a": 1 } })), "units: it says `unit` and `units`"),
            (stream(json!({ "units": {} })), "it names no unit"),
            (stream(json!({ "unit": 250 })), "1 to 247"),
            (stream(json!({ "connection": [] })), "names no connection"),
            (stream(json!({ "max_registers": 126 })), "from 1 to 125"),
            (stream(json!({ "addresses_from": 2, "fields": { "x": { "coil": 7 } } })), "from 0 or from 1"),
            (stream(point("ts")), "fields.ts: `ts` is the time"),
            (
                stream(json!({ "units": { "a": 1 }, "fields": point("device")["fields"] })),
                "fields.device: the stream has the column `device` already",
            ),
            (stream(json!({ "fields": { "x": { "coil": 1, "scale": 2 } } })), "fields.x.scale: "),
            (
                stream(json!({
                    "max_registers": 1, "fields": { "x": { "holding": 1, "type": "int32" } },
                })),
                "x (holding register 1 to 2) takes 2 registers, and one request reads 1",
            ),
            (output(json!({ "x": { "discrete": 1 } })), "x (discrete input 1) can be read only"),
            (
                output(json!({
                    "mode": { "holding": 1, "type": "int16", "values": { "3": "fault", "4": "fault" } },
                })),
                "are named \"fault\"",
            ),
            (
                output(json!({
                    "a": { "holding": 1, "type": "int32" }, "b": { "holding": 2, "bit": 3 },
                })),
                "fields.b: b (holding register 2, bit 3) and `a` write the same bits",
            ),
        ] {
            assert!(problems.len() == 1 && problems[0].contains(words), "{words}: {problems:?}");
        }
        let apart = json!({
            "a": { "holding": 2, "type": "int8", "byte": "high" }, "b": { "holding": 2, "bit": 3 },
            "c": { "holding": 2, "bit": 4 }, "d": { "coil": 2 },
        });
        assert_eq!(output(apart), [""; 0]);
    }
}
