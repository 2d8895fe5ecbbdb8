//! The plant's devices on the wire: an ordinary MQTT 5 client that publishes what the tanks measure and does
//! what it is told.
//!
//! It shares nothing with the box but the broker.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::mqttbytes::v5::Publish;
use rumqttc_v5::{AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, PublishOptions};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::plant::{Plant, Reading, SITE, Sample, Tank, TankCommand};

/// Eight messages a second from each tank.
const STEP: Duration = Duration::from_millis(125);

/// Runs the plant against the broker on `port` until `shutdown`. `truth` always has the tanks' real state;
/// every message on `faults` causes a fault.
pub(super) async fn run(
    mut plant: Plant,
    port: u16,
    truth: watch::Sender<Vec<Tank>>,
    mut faults: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) {
    let mut options = MqttOptions::new("demo-plant", ("127.0.0.1", port));
    options.set_keep_alive(10);
    // Room for a second of messages: when the broker is away longer, measurements are lost, as from a real
    // device.
    let (client, mut events) = AsyncClient::builder(options).capacity(32).build();
    let mut clock = tokio::time::interval(STEP);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = clock.tick() => {
                plant.step(STEP.as_secs_f64());
                truth.send_replace(plant.tanks().to_vec());
                publish(&client, &mut plant);
            }
            Some(()) = faults.recv() => plant.cause_fault(),
            event = events.poll() => on_event(event, &client, &mut plant).await,
        }
    }
    if client.try_disconnect_now().is_ok() {
        say_goodbye(events).await;
    }
}

fn publish(client: &AsyncClient, plant: &mut Plant) {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    for (device, sample) in plant.sample() {
        let payload = match sample {
            Sample::Reading(Reading { temperature, level, inflow }) => json!({
                "time": u64::try_from(now_ms).unwrap_or(0), "temperature": temperature, "level": level,
                "inflow": inflow,
            })
            .to_string(),
            Sample::Garbage => r#"{"time": 17672256000"#.to_owned(),
            Sample::Silence => continue,
        };
        let topic = format!("plant/{SITE}/{device}/telemetry");
        if let Err(error) = client.try_publish(topic, payload, PublishOptions::new(QoS::AtLeastOnce)) {
            tracing::debug!(%error, device, "the demo's device lost a measurement: its queue is full");
        }
    }
}

async fn on_event(event: Result<Event, ConnectionError>, client: &AsyncClient, plant: &mut Plant) {
    match event {
        Ok(Event::Incoming(Incoming::ConnAck(_))) => {
            for filter in ["plant/+/+/pump/set", "plant/+/+/gate/set"] {
                if let Err(error) = client.try_subscribe(filter, QoS::AtLeastOnce) {
                    tracing::warn!(
                        %error,
                        filter,
                        "the demo's devices could not subscribe to their commands",
                    );
                }
            }
        }
        Ok(Event::Incoming(Incoming::Publish(message))) => match command(&message) {
            Some((device, command)) => plant.command(&device, command),
            None => tracing::warn!(
                topic = %String::from_utf8_lossy(&message.topic),
                payload = %String::from_utf8_lossy(&message.payload),
                "the demo's devices ignored a command: they understand {{\"run\": true}} on \
                plant/SITE/DEVICE/pump/set and {{\"open\": true}} on plant/SITE/DEVICE/gate/set",
            ),
        },
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "the demo's devices lost their broker and try again");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// The device and what it is told, from `plant/SITE/DEVICE/pump/set` with `{"run": true}` and the like.
fn command(message: &Publish) -> Option<(String, TankCommand)> {
    let topic = std::str::from_utf8(&message.topic).ok()?;
    let payload: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
    let mut levels = topic.split('/').skip(1);
    let (site, device, part) = (levels.next()?, levels.next()?, levels.next()?);
    let command = match part {
        "pump" => TankCommand::Pump(payload.get("run")?.as_bool()?),
        "gate" => TankCommand::Gate(payload.get("open")?.as_bool()?),
        _ => return None,
    };
    (site == SITE).then(|| (device.to_owned(), command))
}

/// Lets the DISCONNECT leave the socket; a broker that does not answer is not waited for.
async fn say_goodbye(mut events: EventLoop) {
    let goodbye = async { while events.poll().await.is_ok() {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::super::broker::Broker;
    use super::*;

    fn message(topic: &str, payload: &str) -> Publish {
        Publish::new(topic.to_owned(), QoS::AtLeastOnce, payload.to_owned(), None)
    }

    #[test]
    fn commands_are_read_from_topic_and_payload() {
        let read = |topic, payload| command(&message(topic, payload));
        let tank1 = |command| Some(("tank1".to_owned(), command));
        assert_eq!(
            read("plant/north/tank1/pump/set", r#"{"site":"north","run":true}"#),
            tank1(TankCommand::Pump(true))
        );
        assert_eq!(read("plant/north/tank1/gate/set", r#"{"open":false}"#), tank1(TankCommand::Gate(false)));
        for (topic, payload) in [
            ("plant/south/tank1/pump/set", r#"{"run":true}"#),
            ("plant/north/tank1/pump/set", r#"{"run":1}"#),
            ("plant/north/tank1/pump/set", "yes"),
            ("plant/north/tank1/horn/set", r#"{"run":true}"#),
            ("plant", r#"{"run":true}"#),
        ] {
            assert_eq!(read(topic, payload), None, "{topic} {payload}");
        }
    }

    #[tokio::test]
    async fn a_command_on_the_broker_starts_the_pump_and_telemetry_comes_out() {
        let broker = Broker::start(0).await.unwrap();
        let (truth, mut tanks) = watch::channel(Vec::new());
        let (_faults, on_fault) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let devices = tokio::spawn(run(Plant::new(1), broker.port(), truth, on_fault, shutdown.clone()));

        let (client, mut events) =
            AsyncClient::builder(MqttOptions::new("probe", ("127.0.0.1", broker.port()))).capacity(8).build();
        client.try_subscribe("plant/north/tank2/telemetry", QoS::AtLeastOnce).unwrap();
        let reading: serde_json::Value = loop {
            if let Event::Incoming(Incoming::Publish(message)) = events.poll().await.unwrap() {
                break serde_json::from_slice(&message.payload).unwrap();
            }
        };
        assert!(reading["time"].as_u64().unwrap() > 1_700_000_000_000);
        assert!((40.0..100.0).contains(&reading["temperature"].as_f64().unwrap()), "{reading}");
        assert!(tanks.wait_for(|tanks| !tanks.is_empty()).await.unwrap().iter().all(|tank| !tank.pump_runs));

        // Telemetry comes from the client that subscribes to commands, after it has subscribed.
        client
            .try_publish(
                "plant/north/tank2/pump/set",
                r#"{"run":true}"#,
                PublishOptions::new(QoS::AtLeastOnce).retain(true),
            )
            .unwrap();
        let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
        let started = tanks
            .wait_for(|tanks| tanks.iter().any(|tank| tank.name == "tank2" && tank.pump_runs))
            .await
            .unwrap()
            .clone();
        assert!(!started[0].pump_runs && !started[2].pump_runs);

        shutdown.cancel();
        devices.await.unwrap();
        polling.abort();
        broker.stop().await;
    }
}
