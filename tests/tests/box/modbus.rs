//! A box and Modbus devices that others wrote. `tests/devices/prepare` makes them.

use serde_json::Value;
use tidegate_tests::box_under_test::Site;
use tidegate_tests::devices::Device;

fn config(port: u16) -> String {
    format!(
        r#"
[connections.plc]
kind = "modbus"
host = "127.0.0.1"
port = {port}

[streams.tank]
connection = "plc"
unit = 1
every = "50ms"
[streams.tank.fields]
level       = {{ holding = 2, type = "int32", scale = 0.1 }}
temperature = {{ holding = 12, type = "float32", order = "CDAB" }}
run         = {{ coil = 5 }}
alarm       = {{ holding = 30, bit = 3 }}
name        = {{ holding = 22, type = "string", length = 4 }}
flow        = {{ at = "40001", type = "int16" }}

[outputs.pump]
connection = "plc"
unit = 1
fields = {{ run = {{ coil = 5 }}, speed = {{ holding = 40, type = "uint16", scale = 0.1 }} }}
contract = "none"

[outputs.valve]
connection = "plc"
unit = 2
fields = {{ open = {{ coil = 7 }}, word = {{ holding = 41, type = "uint16" }} }}
contract = "none"
"#
    )
}

const OPENS: &str = "
INSERT INTO pump
SELECT run IS NULL OR NOT run AS run, 45.5 AS speed
FROM tank
WHERE alarm AND name = 'pressure' AND temperature = -2.5 AND level = -12345678.9 AND flow = -1234
QUALIFY became(NOT run) OVER ();
-- When the device has the coil set, the valve follows.
INSERT INTO valve SELECT run AS open FROM tank QUALIFY became(run) OVER ();
-- The value is out of the register's range, and is refused when it is written.
INSERT INTO valve SELECT 70000 AS word FROM tank QUALIFY became(run) OVER ();
";

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn a_rule_moves_a_coil_on_what_registers_say() {
    let mut device = Device::pymodbus(&["tcp"]).await;
    let site = Site::new(&config(device.port()));
    site.rule("opens", OPENS);
    let the_box = site.run();
    // unit, function, address, values: registers go first, so that a drive has its setpoint before it runs
    assert_eq!(device.line().await, "write 1 6 40 455");
    assert_eq!(device.line().await, "write 1 5 5 1");
    assert_eq!(device.line().await, "write 2 5 7 1");
    let said = the_box.log().wait("could not be written").await;
    assert!(said.contains("valve") && said.contains("word (holding register 41)"), "{said}");
    assert!(said.contains("70000") && said.contains("65535"), "{said}");
    let status = site.tidegate(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let of = |section: &str, name: &str| {
        let all = status[section].as_array().unwrap();
        all.iter().find(|of| of["name"] == name).unwrap().clone()
    };
    assert_eq!(
        (of("outputs", "pump")["written"].clone(), of("outputs", "valve")["written"].clone()),
        (1.into(), 1.into())
    );
    assert_eq!(of("connections", "plc")["connected"], true);
    assert!(the_box.stop().await.success());
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn rules_see_that_a_device_goes_and_that_a_unit_does_not_answer() {
    let mut device = Device::pymodbus(&["tcp"]).await;
    let config = config(device.port())
        + r#"
[streams.other]
connection = "plc"
unit = 9
every = "20ms"
timeout = "20ms"
fields = { x = { coil = 1 } }
"#;
    let site = Site::new(&config);
    site.rule(
        "watch",
        "INSERT INTO valve SELECT TRUE AS open FROM tidegate_connections WHERE connection = 'plc' AND connected
         QUALIFY became(parked_devices = 'unit 9') OVER ();",
    );
    let the_box = site.run();
    assert_eq!(device.line().await, "write 2 5 7 1");
    let status = site.tidegate(&["status"]);
    let said = String::from_utf8(status.stdout).unwrap();
    assert!(said.contains("plc") && said.contains("unit 9"), "{said}");
    assert!(the_box.stop().await.success());
}

#[test]
fn what_a_device_cannot_take_is_refused_when_the_rule_is_loaded() {
    let site = Site::new(&config(502));
    for (rule, words) in [
        (
            "INSERT INTO pump SELECT 'on' AS run FROM tank",
            "column `run` is utf8, but output `pump` declares it bool",
        ),
        ("INSERT INTO pump SELECT TRUE AS runs FROM tank", "output `pump` has no column `runs`"),
        ("INSERT INTO valve SELECT level AS word FROM tank", "column `word` is float64"),
        ("INSERT INTO pump SELECT ts, TRUE AS run FROM tank", "output `pump` has no column `ts`"),
    ] {
        site.rule("wrong", rule);
        let checked = site.tidegate(&["check"]);
        let said = String::from_utf8(checked.stdout).unwrap();
        assert_eq!(checked.status.code(), Some(3), "{said}");
        assert!(said.contains(words) && said.contains("wrong.sql:1:"), "{rule}: {said}");
    }
}

#[tokio::test]
#[ignore = "needs tests/devices/prepare"]
async fn a_device_is_looked_at_and_moved_by_hand() {
    let mut device = Device::pymodbus(&["tcp"]).await;
    let site = Site::new(&config(device.port()));
    let line = format!("tcp://127.0.0.1:{}", device.port());
    let said = |args: &[&str]| {
        let output = site.tidegate(&[&["modbus"], args].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), [text(&output.stdout), text(&output.stderr)].concat())
    };
    let (code, text) = said(&["scan", &line, "--units", "1-2", "--timeout", "100ms"]);
    assert!(code == Some(0) && text.contains("vendor ACME") && text.contains("unit 2: "), "{text}");
    let (code, text) = said(&["scan", &line, "--units", "9", "--timeout", "100ms"]);
    assert!(code == Some(1) && text.contains("no unit has answered"), "{text}");
    let (code, text) = said(&["read", "plc", "--stream", "tank", "--json"]);
    let readings: Value = serde_json::from_str(&text).unwrap();
    let value = |name: &str| {
        readings.as_array().unwrap().iter().find(|reading| reading["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(code, Some(0));
    assert_eq!(
        (value("name"), value("temperature"), value("run")),
        ("pressure".into(), (-2.5).into(), false.into())
    );
    let (code, text) = said(&["read", &line, "--unit", "2", "input=5", "--count", "3"]);
    assert!(code == Some(0) && text.contains("input register 7") && text.contains("207"), "{text}");
    let (code, text) = said(&["read", &line, "holding=300"]);
    assert!(code == Some(1) && text.contains("illegal data address"), "{text}");
    let (code, text) = said(&["write", "plc", "--output", "pump", "speed", "12.5", "--read-back"]);
    assert!(code == Some(0) && text.contains("12.5"), "{text}");
    assert_eq!(device.line().await, "write 1 6 40 125");
    let (code, text) = said(&["write", "plc", "--output", "pump", "sped", "12.5"]);
    assert!(code == Some(1) && text.contains("did you mean `speed`?"), "{text}");
    let (code, text) = said(&["write", &line, "holding=40,type=int16", "-7"]);
    assert!(code == Some(0), "{text}");
    assert_eq!(device.line().await, "write 1 6 40 65529");
}
