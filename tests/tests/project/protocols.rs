//! The engine knows no protocol: what is particular to one is in `connectors/` alone.

use std::path::PathBuf;

use crate::{files, read, root};

/// Protocols, and words of theirs that nobody else uses. (A `unit` may be one of length.)
const PROTOCOLS: [&str; 14] = [
    "mqtt",
    "broker",
    "brokers",
    "topic",
    "topics",
    "qos",
    "retained",
    "modbus",
    "register",
    "registers",
    "coil",
    "http",
    "can",
    "serial",
];

/// Messages that were recorded are run again as they came, and said to be what they are.
const OF_MESSAGES: [&str; 2] = ["engine/src/replay/messages.rs", "engine/src/cli/args.rs"];

/// Whoever manages a box speaks to it on topics, whatever carries them: they are signed with what is said.
const OF_MANAGEMENT: [&str; 2] = ["engine/src/management/remote/", "engine/src/config/management.rs"];

/// The words of a line: letters that belong together, `MqttStream` and `mqtt_stream` as two.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        let starts = before.is_lowercase() && c.is_uppercase();
        if starts || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().unwrap().push(c);
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The protocol that a line names. `can` and `serial` are words of English, too: in comments and texts only a
/// name in capitals counts.
fn named(line: &str) -> Option<&'static str> {
    let in_words =
        |text: &str, protocol: &str| words(text).iter().any(|word| word.to_lowercase() == protocol);
    let code: String = line.split("//").next().unwrap_or("").split('"').step_by(2).collect();
    PROTOCOLS.into_iter().find(|protocol| match *protocol {
        "can" | "serial" => {
            in_words(&code, protocol)
                || words(line).iter().any(|word| word.len() > 1 && *word == protocol.to_uppercase())
        }
        _ => in_words(line, protocol),
    })
}

/// The text without the tests at its end: they need configurations that are real.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

#[test]
fn the_engine_names_no_protocol() {
    let is_looked_at = |path: &&PathBuf| {
        let path = path.to_string_lossy();
        !path.starts_with("engine/src/demo")
            && !path.ends_with("tests.rs")
            && !path.contains("/tests/")
            && !OF_MESSAGES.contains(&&*path)
    };
    let all = files(&root().join("engine/src"), "rs");
    let sources: Vec<_> = all.iter().filter(is_looked_at).collect();
    assert!(sources.len() > 50, "the engine was not found");
    let mut found = Vec::new();
    for file in sources {
        let is_of_management = OF_MANAGEMENT.iter().any(|place| file.to_string_lossy().starts_with(place));
        for (number, line) in (1..).zip(without_tests(&read(file)).lines()) {
            let may = |word: &str| is_of_management && matches!(word, "topic" | "topics");
            if let Some(protocol) = named(line).filter(|word| !may(word)) {
                found.push(format!("{}:{number}: `{protocol}`", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "this belongs into `connectors/`: {found:#?}");
}

#[test]
fn names_of_protocols_are_found_and_words_of_english_are_not() {
    for line in [
        "MqttStream",
        "mod http;",
        "its topics",
        "/// An MQTT broker.",
        "Kind::Can(x)",
        "let serial = 1;",
        "a CAN bus",
    ] {
        assert!(named(line).is_some(), "{line}");
    }
    for line in
        ["// it can wait", "\"this can wait\"", "https://x", "serialize(cannot)", "/// a serial number"]
    {
        assert_eq!(named(line), None, "{line}");
    }
}
