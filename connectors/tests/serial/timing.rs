//! When what is sent and heard: what comes too early or too late is no answer, and what waited for too long
//! is not sent. The far side is a serial server, so that time can be simulated.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_connectors::DeliveryError;
use tidegate_peers::devices::SerialCable;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::device::Device;
use crate::rig::Setup;

/// A serial server, and a line to it.
async fn server() -> (TcpListener, Setup) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = format!("tcp://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let line = Setup::serial(json!({ "device": device, "frame": { "end": "\r\n", "max": "256B" } }));
    (listener, line)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn weight(more: Value) -> Value {
    let mut stream = json!({
        "format": "regex", "pattern": "^ST,(?<net>[0-9.]+)kg$", "fields": { "net": "float64" }, "quality": true,
    });
    stream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stream
}

fn polled(every: &str, timeout: &str) -> Value {
    weight(json!({ "poll": { "send": "P\\r\\n", "every": every, "timeout": timeout } }))
}

#[tokio::test]
async fn a_write_goes_before_the_next_request_while_the_line_rests() {
    let cable = SerialCable::plug().await;
    let mut scale = Device::at(&cable.far());
    let mut rig = Setup::serial(json!({ "device": cable.near(), "frame": { "end": "\r\n" } }))
        .stream("weight", polled("1ms", "500ms"))
        .output("display", json!({ "payload": "T{net}\\r\\n" }))
        .output("tare", json!({ "payload": "Z\\r\\n", "answer": "^(ST|OK)" }))
        .run();
    assert_eq!(scale.asked().await, "P\r\n");
    rig.row_where(|row| row["quality"] == "bad").await;
    rig.write("display", &json!({ "net": 1 })).await.unwrap();
    assert_eq!(scale.asked().await, "T1\r\n", "not the next request");
    let confirming = async {
        assert_eq!(scale.asked().await, "Z\r\n");
        // The answer to the poll, which comes late, looks like a confirmation.
        scale.say(b"ST,666kg\r\nOK\r\n").await;
    };
    let row = json!({ "net": 1 });
    let (written, ()) = tokio::join!(rig.write("tare", &row), confirming);
    assert_eq!((written, rig.status.count("strays")), (Ok(()), 1));
    assert_eq!(scale.asked().await, "P\r\n");
    scale.say(b"ST,3kg\r\n").await;
    assert_eq!(rig.row_where(|row| row["quality"] == "good").await["net"], 3.0);
    rig.end().await;
}

#[tokio::test]
async fn a_write_that_the_line_has_kept_waiting_for_too_long_is_not_sent() {
    let cable = SerialCable::plug().await;
    let mut device = Device::at(&cable.far());
    let raw = json!({
        "format": "raw", "fields": { "text": "utf8" }, "quality": true,
        "poll": { "send": "P\\r\\n", "every": "1ms", "timeout": "400ms" },
    });
    let mut rig = Setup::serial(json!({ "device": cable.near(), "frame": { "end": "\r\n" } }))
        .stream("raw", raw)
        // What answers the poll could be anything, this too.
        .output("pump", json!({ "payload": "RUN\\r\\n", "answer": "OK", "write_within": "100ms" }))
        .output("valve", json!({ "payload": "OPEN\\r\\n", "answer": "OK" }))
        .run();
    assert_eq!(device.asked().await, "P\r\n");
    rig.row_where(|row| row["quality"] == "bad").await;
    let error = rig.write("pump", &json!({ "net": 1 })).await.unwrap_err();
    let why = "it could not be sent within 100ms (`write_within`), and is not sent late: the line waited for the \
               late answer to an earlier request";
    assert_eq!(error, DeliveryError::Transient(why.into()));
    assert_eq!((device.asked().await.as_str(), rig.status.count("late_writes")), ("P\r\n", 1));
    // One that may wait goes out when the line has rested, before the next request.
    let confirming = async {
        assert_eq!(device.asked().await, "OPEN\r\n");
        device.say(b"OK\r\n").await;
    };
    let row = json!({ "net": 1 });
    let (written, ()) = tokio::join!(rig.write("valve", &row), confirming);
    assert_eq!(written, Ok(()));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_twice_is_not_the_next_value() {
    let (listener, line) = server().await;
    let mut rig = line.stream("weight", polled("1ms", "1s")).run();
    let scale = tokio::spawn(async move {
        let mut line = BufReader::new(accept(&listener).await);
        for n in 1.. {
            let mut asked = String::new();
            if line.read_line(&mut asked).await.unwrap_or(0) == 0 {
                return;
            }
            let answer = format!("ST,{n}kg\r\n");
            // It comes once more, and ends a moment later than it begins.
            let (begin, end) = answer.as_bytes().split_at(4);
            for (piece, pause) in [(answer.as_bytes(), 8), (begin, 40), (end, 0)] {
                if line.write_all(piece).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(pause)).await;
            }
        }
    });
    for n in 1..20 {
        let row = rig.row().await;
        assert_eq!((&row["net"], &row["quality"]), (&json!(f64::from(n)), &json!("good")));
    }
    assert!(rig.status.count("strays") >= 18);
    rig.end().await;
    scale.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_frame_is_not_believed_unless_the_line_was_silent_for_a_second() {
    for (silence, first) in [(300, 12.5), (1_100, 2.5)] {
        let (listener, line) = server().await;
        let mut rig = line.stream("weight", weight(json!({}))).run();
        let mut scale = accept(&listener).await;
        sleep(Duration::from_millis(silence)).await;
        scale.write_all(b"ST,2.").await.unwrap();
        sleep(Duration::from_millis(600)).await;
        scale.write_all(b"5kg\r\nST,12.5kg\r\n").await.unwrap();
        assert_eq!(rig.row().await["net"], first, "{silence} ms");
        rig.end().await;
    }
}

/// The far side takes no more: what was begun may have been acted on, and the rest is not sent late.
#[tokio::test(start_paused = true)]
async fn a_write_that_does_not_end_in_time_is_unknown_and_counted() {
    let (listener, line) = server().await;
    // More than any buffer between the two has room for.
    let text = json!({ "payload": "x".repeat(24 << 20), "write_within": "300ms" });
    let mut rig = line.stream("weight", weight(json!({}))).output("printer", text).run();
    let printer = accept(&listener).await;
    rig.until_up().await;
    match rig.write("printer", &json!({ "net": 1 })).await {
        Err(DeliveryError::Unknown(why)) => {
            assert!(why.contains("began in time, and did not end within 300ms (`write_within`)"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.status.count("late_writes"), 1);
    drop(printer);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_from_which_nothing_comes_is_named_with_its_probable_cause() {
    let (listener, line) = server().await;
    let mut rig = line.stream("weight", polled("1s", "200ms")).run();
    let mut server = accept(&listener).await;
    let begun = Instant::now();
    let trouble = rig.trouble().await;
    assert!(trouble.contains("no byte has come since it was opened"), "{trouble}");
    assert!(trouble.contains("has the server another client"), "{trouble}");
    assert!(rig.status.is_connected() && begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // The other one goes.
    let mut asked = [0; 64];
    assert!(server.read(&mut asked).await.unwrap() > 0);
    server.write_all(b"\r\n").await.unwrap();
    let mut changes = rig.status.changes();
    while rig.status.trouble().is_some() {
        changes.changed().await.unwrap();
    }
    rig.row().await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_never_become_a_frame_are_shown_with_their_probable_cause() {
    let (listener, line) = server().await;
    let mut rig = line.stream("weight", weight(json!({}))).run();
    let mut scale = accept(&listener).await;
    let speaking = async {
        loop {
            scale.write_all(b"ST,1.5kg\r").await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    };
    let trouble = tokio::select! { trouble = rig.trouble() => trouble, () = speaking => unreachable!() };
    for words in
        ["bytes come, and no frame", r#"write end = "\r""#, "53 54 2c 31 2e 35 6b 67 0d", "ST,1.5kg."]
    {
        assert!(trouble.contains(words), "{words}: {trouble}");
    }
    assert!(rig.status.is_connected() && rig.status.count("bytes_since_frame") > 100);
    scale.write_all(b"\r\nST,2.5kg\r\n").await.unwrap();
    assert_eq!(rig.row_where(|row| row["quality"] == "good").await["net"], 2.5);
    let mut changes = rig.status.changes();
    while rig.status.trouble().is_some() {
        changes.changed().await.unwrap();
    }
    assert_eq!(rig.status.count("bytes_since_frame"), 0);
    rig.end().await;
}
