//! Ports of serial servers: pyserial's, as `tests/devices/prepare` makes it, and one that hands bytes through.

use serde_json::json;
use tidegate_peers::devices::{Device, Ser2net, SerialCable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::rig::Setup;

fn echoed(device: String) -> Setup {
    let poll = json!({ "send": "n=1\\xff\\r\\n", "every": "20ms" });
    let stream = json!({ "format": "key_value", "fields": { "n": "utf8" }, "poll": poll });
    Setup::serial(json!({ "device": device, "frame": { "end": "\r\n" } })).stream("s", stream)
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn pyserials_server_is_told_how_its_port_is_set_and_bytes_come_through() {
    let mut server = Device::pyserial(&[]).await;
    let mut rig = echoed(format!("rfc2217://127.0.0.1:{}", server.port()))
        .set("baud", json!(19_200))
        .set("data_bits", json!(7))
        .set("parity", json!("mark"))
        .set("stop_bits", json!(2))
        .set("flow_control", json!("xon_xoff"))
        .run();
    while server.line().await != "set 19200 7M2 xonxoff" {}
    for _ in 0..10 {
        // 0xff is doubled on the way there and back.
        assert_eq!(rig.row().await, json!({ "n": "1ÿ" }));
    }
    rig.end().await;
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn a_rate_that_a_server_does_not_take_is_named_unless_nobody_wants_to_know() {
    let server = Device::pyserial(&["deaf"]).await;
    let line = || echoed(format!("rfc2217://127.0.0.1:{}", server.port())).set("baud", json!(250_000));
    let strict = line().run();
    let why = strict.trouble().await;
    assert!(why.contains("told SET-BAUDRATE 250000 and has 9600"), "{why}");
    strict.end().await;
    let mut lax = line().set("strict", json!(false)).run();
    assert_eq!(lax.row().await["n"], "1ÿ");
    lax.end().await;
}

#[tokio::test]
#[ignore = "needs ser2net"]
async fn ser2net_offers_a_port_and_a_device_at_it_is_asked() {
    let cable = SerialCable::plug().await;
    let server = Ser2net::serve(&cable.near()).await;
    let mut far = super::device::Device::at(&cable.far());
    let mut rig = echoed(format!("rfc2217://127.0.0.1:{}", server.port())).set("baud", json!(19_200)).run();
    for n in 0..10 {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n") {
            asked.push(far.byte().await);
        }
        assert_eq!(asked, b"n=1\xff\r\n");
        // Bytes that telnet has a use for, and a CR alone.
        far.say(format!("n={n}\r\0").as_bytes()).await;
        far.say(b"\xff\r\n").await;
        let row = rig.row().await;
        assert_eq!(row["n"], format!("{n}"), "{row:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_server_that_hands_bytes_through_is_a_port_and_one_that_knows_no_options_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                // It answers only what is no telnet.
                if buffer[0] != 255 && stream.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        }
    });
    let mut rig = echoed(format!("tcp://127.0.0.1:{port}")).run();
    assert_eq!(rig.row().await["n"], "1ÿ");
    rig.end().await;
    let deaf = echoed(format!("rfc2217://127.0.0.1:{port}")).set("connect_timeout", json!("100ms")).run();
    let why = deaf.trouble().await;
    assert!(why.contains("does not answer COM-PORT-OPTION, BINARY"), "{why}");
    deaf.end().await;
    serving.abort();
}
