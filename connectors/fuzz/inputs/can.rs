//! Any bytes as a DBC file, as a payload, as lines of a log, from an adapter, and as packets of J1939: no
//! panic, and what is read is written and read again.

use std::time::Duration;

use tidegate_connectors::can::database::Database;
use tidegate_connectors::can::filter::{Wanted, filters};
use tidegate_connectors::can::id::{Id, IdRange, J1939Id};
use tidegate_connectors::can::log::{Line, Written, parse_frame};
use tidegate_connectors::can::slcan::{Decoder, Reply, write_frame};
use tidegate_connectors::can::transport::{MOST_BYTES, Reassembly, TP_CM, TP_DT};

pub type Input = (Vec<u8>, Vec<u8>, String, Vec<(u8, u8, bool, Vec<u8>, u16)>);

pub fn take(input: Input) {
    let (file, payload, text, packets) = input;
    if let Ok(database) = Database::read(&[("fuzz.dbc".into(), file)]) {
        for message in database.messages() {
            let decoded = message.decode(&payload);
            let given: Vec<_> = (0..message.signals.len())
                .filter_map(|at| decoded.value(at, false).ok().map(|value| (at, value)))
                .collect();
            if let Ok(encoded) = message.encode(&given) {
                assert_eq!(encoded.len(), message.length);
                let again = message.decode(&encoded);
                assert!(given.iter().all(|(at, value)| again.value(*at, false).as_ref() == Ok(value)));
            }
        }
    }

    if let Ok(line) = Line::parse(&text) {
        let _ = line.to_string();
    }
    if let Ok(frame) = parse_frame(&text) {
        assert_eq!(parse_frame(&Written(&frame).to_string()), Ok(frame));
    }
    if let Ok(range) = text.parse::<IdRange>() {
        assert_eq!(range.to_string().parse(), Ok(range));
        let filters = filters(&[Wanted::Ids(range)]);
        let passes = |id: Id| filters.list.iter().any(|filter| filter.passes(id));
        assert!(passes(range.first()) && passes(range.last()));
    }

    let mut decoder = Decoder::default();
    for byte in &payload {
        if let Some(Reply::Frame(frame)) = decoder.push(*byte) {
            let mut line = String::new();
            assert!(write_frame(&frame, &mut line));
        }
    }

    let (mut reassembly, mut now) = (Reassembly::default(), Duration::ZERO);
    for (source, destination, is_packet, data, millis) in packets {
        now += Duration::from_millis(millis.into());
        let pgn = if is_packet { TP_DT } else { TP_CM };
        let id = J1939Id { priority: 7, pgn, source, destination: Some(destination) };
        assert_eq!(J1939Id::parse(id.id()), Some(id));
        assert!(matches!(id.id(), Id::Extended(_)));
        if let Some(transferred) = reassembly.take(id, &data, now) {
            assert!(transferred.data.len() <= MOST_BYTES);
        }
    }
}
