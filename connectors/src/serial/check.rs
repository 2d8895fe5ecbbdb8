//! What must hold for the configuration beyond the types of its keys.

use super::config::{ConnectionConfig, OutputConfig, StreamConfig};
use crate::line::limits::{check_interval, check_pause, check_timeout};
use crate::quality::{FAULT, QUALITY};
use crate::table::{At, Problem, Review, tell};

impl ConnectionConfig {
    /// Says what is wrong with it.
    pub(crate) fn check(&self, review: &mut Review<'_>) {
        tell(self.problems(), review);
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.port.problems();
        problems.extend(self.frame.problems().into_iter().map(|problem| problem.inside("frame")));
        problems.extend(check_timeout(&["connect_timeout"], self.connect_timeout));
        let pause = self.pause_between_requests;
        problems.extend(pause.and_then(|pause| check_pause(&["pause_between_requests"], pause)));
        problems.extend(self.park.problem());
        problems.extend(self.backoff.problems());
        problems
    }
}

impl StreamConfig {
    /// Says what is wrong with it. `connection`: the one that feeds it, if that is known.
    pub(crate) fn check(&self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        self.payload.check_fields(review);
        self.payload.check_format(review);
        self.payload.check_times(review);
        tell(self.problems(), review);
        if let Some(longest) = connection.map(|connection| connection.frame.longest_content()) {
            for (name, needs) in self.payload.beyond(longest) {
                let what = format!(
                    "`{name}` takes a frame of {needs} bytes, and one of connection {} has {longest} at most, \
                    besides its checksum",
                    self.connection
                );
                let help = "correct `at`, or `frame` of the connection".to_owned();
                review.error(At::value(&["fields", &name, "at"]), what, help);
            }
        }
        // Whatever is left is found by what a box would open.
        if !review.has_errors()
            && let Err(why) = self.decoder(Vec::new())
        {
            review.absence(At::Table, format!("{}: {why}", review.title), None);
        }
    }

    /// What is wrong with it, besides its payload.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(poll) = &self.poll {
            if poll.send.0.is_empty() {
                problems.push(Problem::new(&["poll", "send"], "the request has no bytes"));
            }
            problems.extend(check_interval(&["poll", "every"], poll.every));
            problems.extend(check_timeout(&["poll", "timeout"], poll.timeout));
        }
        if self.stale_after.is_some() && !self.quality {
            problems.push(
                Problem::new(&["stale_after"], "a stale stream says so in the column `quality`")
                    .help("add `quality = true`"),
            );
        }
        let columns = self.payload.fields.iter().flatten().map(|(name, _)| name.as_str());
        for name in columns.filter(|name| self.quality && [QUALITY, FAULT].contains(name)) {
            let what = format!("the stream has the column `{name}` already");
            problems.push(Problem::new(&["fields", name], what).help("choose another name"));
        }
        problems
    }
}

impl OutputConfig {
    /// Says what is wrong with it.
    pub(crate) fn check(&self, review: &mut Review<'_>) {
        tell(self.problems(), review);
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.payload.is_empty() {
            problems.push(
                Problem::new(&["payload"], "nothing would be sent")
                    .help("write one such as \"T{net}\\r\\n\""),
            );
        }
        problems.extend(check_timeout(&["timeout"], self.timeout));
        problems.extend(check_timeout(&["write_within"], self.write_within));
        problems
    }

    /// The columns that stand in its payload, by name.
    pub(crate) fn required_columns(&self) -> Vec<String> {
        let columns: std::collections::BTreeSet<_> = self.payload.columns().map(str::to_owned).collect();
        columns.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn said(check: impl FnOnce(&mut Review<'_>)) -> Vec<String> {
        let mut review = Review::new("[it]", Path::new("/"), Vec::new());
        check(&mut review);
        review.remarks.into_iter().map(|remark| format!("{:?} {}", remark.at, remark.message)).collect()
    }

    fn connection(mut config: Value) -> Vec<String> {
        let config = ConnectionConfig::read(config.as_object_mut().unwrap()).unwrap();
        said(|review| config.check(review))
    }

    fn stream(mut config: Value) -> Vec<String> {
        let config = StreamConfig::read(config.as_object_mut().unwrap()).unwrap();
        said(|review| config.check(None, review))
    }

    #[test]
    fn a_layout_and_a_checksum_have_room_in_the_frame() {
        let line = |frame: Value| json!({ "device": "/dev/ttyS0", "frame": frame });
        for (frame, words) in [
            (json!({ "start": "abc", "length": 2 }), "`start` has 3 bytes, and a frame 2"),
            (json!({ "length": 4, "checksum": "crc32" }), ""),
            (
                json!({ "length": 3, "checksum": "crc32" }),
                "a frame of 3 bytes has no room for a checksum of 4",
            ),
            (
                json!({ "length": 8, "checksum": { "kind": "crc16_modbus", "from": 7 } }),
                "that covers what is in front of it from byte 7 on",
            ),
            (
                json!({ "length": 8, "checksum": { "kind": "crc16_modbus", "at": -9 } }),
                "a checksum of 2 bytes at the 9. last byte",
            ),
            (
                json!({ "end": "#", "checksum": { "kind": "crc16_modbus", "at": -1 } }),
                "`at = -1` is too close to the end for a checksum of 2 bytes",
            ),
        ] {
            let said = connection(line(frame.clone()));
            let is_said = said.len() == 1 && said[0].contains(words);
            assert!(if words.is_empty() { said.is_empty() } else { is_said }, "{frame}: {said:?}");
        }
        let mut indicator = line(json!({ "length": 8, "checksum": "crc16_modbus" }));
        let indicator = ConnectionConfig::read(indicator.as_object_mut().unwrap()).unwrap();
        for (at, value_type, words) in [
            (4, "int16", ""),
            (5, "int16", "`net` takes a frame of 7 bytes, and one of connection scale has 6 at most"),
            (-6, "uint8", ""),
            (-7, "uint8", "`net` takes a frame of 7 bytes"),
            (-1, "int16", "`at = -1` is too close to the end"),
        ] {
            let mut stream = json!({
                "connection": "scale", "format": "layout", "fields": { "net": { "at": at, "type": value_type } },
            });
            let stream = StreamConfig::read(stream.as_object_mut().unwrap()).unwrap();
            let said = said(|review| stream.check(Some(&indicator), review));
            let is_said = said.len() == 1 && said[0].contains(words);
            assert!(if words.is_empty() { said.is_empty() } else { is_said }, "{at} {value_type}: {said:?}");
        }
    }

    #[test]
    fn what_is_not_there_because_it_was_refused_is_not_said_again() {
        let mut config = json!({ "connection": "scale", "format": "regex", "fields": { "net": "float64" } });
        let config = StreamConfig::read(config.as_object_mut().unwrap()).unwrap();
        let mut review = Review::new("[it]", Path::new("/"), Vec::new());
        config.check(None, &mut review);
        assert!(review.remarks.iter().all(|remark| remark.is_absence), "{:?}", review.remarks);
    }

    #[test]
    fn the_schema_of_a_connection_has_the_keys_of_its_port() {
        let schema = schemars::schema_for!(crate::ConnectionConfig).to_value();
        let variants = schema["oneOf"].as_array().unwrap();
        let serial = variants.iter().find(|of| of["properties"]["kind"]["const"] == "serial").unwrap();
        for key in ["device", "baud", "usb", "frame", "park"] {
            assert!(serial["properties"][key].is_object(), "{key}: {serial}");
        }
        assert_eq!(
            (&serial["additionalProperties"], &serial["required"]),
            (&json!(false), &json!(["kind", "frame"]))
        );
    }

    #[test]
    fn what_contradicts_itself_is_named_with_its_place() {
        let frame = || json!({ "end": "\r\n" });
        assert_eq!(connection(json!({ "device": "/dev/ttyS0", "baud": 9600, "frame": frame() })), [""; 0]);
        for (said, words) in [
            (connection(json!({ "frame": frame() })), "which port"),
            (connection(json!({ "device": "/dev/ttyS0", "frame": {} })), "[\"frame\"]"),
            (connection(json!({ "device": "tcp://a:1", "baud": 1, "frame": frame() })), "[\"baud\"]"),
            (
                connection(json!({ "device": "/dev/ttyS0", "frame": frame(), "connect_timeout": "0s" })),
                "[\"connect_timeout\"]",
            ),
        ] {
            assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
        }
        let poll = |poll: Value| stream(json!({ "connection": "scale", "format": "raw", "poll": poll }));
        assert_eq!(poll(json!({ "send": "P\\r\\n", "every": "500ms", "timeout": "200ms" })), [""; 0]);
        for (said, words) in [
            (poll(json!({ "send": "", "every": "1s" })), "no bytes"),
            (poll(json!({ "send": "P", "every": "0s" })), "at least 1ms"),
            (poll(json!({ "send": "P", "every": "1s", "timeout": "1h" })), "from 1ms to 10min"),
            (
                stream(json!({
                    "connection": "scale", "quality": true, "format": "key_value", "fields": { "fault": "utf8" },
                })),
                "already",
            ),
            (stream(json!({ "connection": "scale", "format": "regex" })), "needs a `pattern`"),
        ] {
            assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:?}");
        }
        let output: OutputConfig =
            serde_json::from_value(json!({ "connection": "scale", "payload": "" })).unwrap();
        assert!(output.problems()[0].to_string().contains("nothing would be sent"));
    }
}
