//! A machine that starts without knowing the time, and is told later.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::box_under_test::{Site, binary, connection};
use tidegate_tests::client::Client;
use tidegate_tests::machine::Machine;
use tidegate_tests::mosquitto::Mosquitto;
use tokio::net::TcpListener;

/// 2027-01-15T08:00:00Z
const TODAY_S: i64 = 1_800_000_000;
/// The machine begins ten minutes after 1970, since Linux wants wall time to be ahead of its monotonic clock,
/// and is not up for longer.
const MINUTES_MS: i64 = 1_200_000;

const STREAMS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
fields = { n = "int64" }

[outputs.echo]
connection = "plant"
topic = "echo"
when_full = "block"

[uplink]
connection = "cloud"

[buffer]
ttl = "1d"
"#;

#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    ignore = "the virtual machine needs Linux on x86-64"
)]
#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_the_clock_was_set_are_kept_and_say_how_wrong_it_was() {
    let (plant, mut cloud) = (Mosquitto::start().await, Mosquitto::start().await);
    let connections = format!("{}{}", connection("plant", &plant, "5"), connection("cloud", &cloud, "5"));
    let site = Site::new(&format!(
        "data_dir = \"/var/lib/tidegate\"\n{}{STREAMS}",
        connections.replace("127.0.0.1", "10.0.2.2")
    ));
    site.rule("rule", "INSERT INTO uplink SELECT ts, n FROM numbers; INSERT INTO echo SELECT n FROM numbers");
    // The machine waits for this end of the line to go, and sets its clock then.
    let waiter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = waiter.local_addr().unwrap().port();
    let script = format!(
        "set -e\ndate -s @600\nmkdir -p /var/lib/tidegate /run/systemd/timesync\nrm -f \
        /run/systemd/timesync/synchronized\n(busybox nc 10.0.2.2 {port} </dev/zero >/dev/null || true; date \
        -s @{TODAY_S}; touch /run/systemd/timesync/synchronized; echo clock is set) &\nexport NO_COLOR=1\n\
        exec {} run --config {} 2>&1\n",
        binary().display(),
        site.path("tidegate.toml").display()
    );
    std::fs::write(site.path("script"), script).unwrap();
    let mut uplink = Client::subscriber(&cloud, "tidegate/box/rule").await;
    let mut echoes = Client::subscriber(&plant, "echo").await;
    cloud.stop().await;
    let machine =
        Machine::boot(&site.path("script"), &["-nic".into(), "user,model=virtio-net-pci".into()]).await;
    let (line, _) = machine.while_running(waiter.accept()).await.unwrap();
    machine.while_running(plant.subscribed("in/n")).await;
    let devices = Client::publisher(&plant).await;
    let publish = async |n: i64| devices.publish("in/n", json!({ "n": n }).to_string()).await;
    let mut last = 10;
    for n in 0..last {
        publish(n).await;
        machine.while_running(echoes.next()).await;
    }
    drop(line);
    machine.while_running(machine.console().wait("clock is set")).await;
    // Until the box has surely looked at its clock.
    let set = Instant::now();
    while set.elapsed() < Duration::from_secs(2) {
        publish(last).await;
        machine.while_running(echoes.next()).await;
        last += 1;
    }
    cloud.restart().await;
    let mut arrived: Vec<Value> = Vec::new();
    while arrived.len() < usize::try_from(last).unwrap() {
        let message = machine.while_running(uplink.next()).await.json();
        if arrived.iter().all(|other| other["id"] != message["id"]) {
            arrived.push(message);
        }
    }
    arrived.sort_by_key(|message| message["row"]["n"].as_i64());
    let (early, late) = arrived.split_at(10);
    for message in early {
        assert!(message["row"]["ts"].as_str().unwrap().starts_with("1970-01-01T00:"), "{message}");
        assert!(message["clock"]["written"].as_str().unwrap().starts_with("2027-01-15T0"), "{message}");
        let behind_ms = message["clock"]["behind_ms"].as_i64().unwrap();
        assert!((TODAY_S * 1000 - MINUTES_MS..=TODAY_S * 1000).contains(&behind_ms), "{message}");
    }
    // One that came between the setting and the next look at the clock may count as early.
    assert_eq!(late.last().unwrap()["clock"], Value::Null);
    assert!(
        late.iter().all(|message| message["row"]["ts"].as_str().unwrap().starts_with("2027-01-15T08:")),
        "{late:?}"
    );
    machine.kill().await;
}
