//! An embedded MQTT broker: on loopback, in memory, without accounts. For the demo only.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mqtt5::broker::MqttBroker;
use mqtt5::broker::config::{BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::server::BrokerShutdownHandle;
use mqtt5::broker::sys_topics::BrokerStats;
use tokio::task::JoinHandle;

/// A running broker. Dropping it ends it at once; [`Broker::stop`] says goodbye to its clients first.
pub(super) struct Broker {
    port: u16,
    stats: Arc<BrokerStats>,
    shutdown: BrokerShutdownHandle,
    task: JoinHandle<mqtt5::Result<()>>,
}

/// Why a broker could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokerError {
    #[error("could not start an MQTT broker on 127.0.0.1:{port}: {reason}")]
    Start { port: u16, reason: mqtt5::MqttError },
    #[error("the MQTT broker on 127.0.0.1:{port} ended while it started")]
    Ended { port: u16 },
}

impl Broker {
    /// Starts a broker on `port` of the loopback interface, or on a free port when `port` is 0, and returns
    /// when it takes clients.
    pub(super) async fn start(port: u16) -> Result<Self, BrokerError> {
        let storage = StorageConfig::new().with_backend(StorageBackend::Memory);
        let config = BrokerConfig::new()
            .with_bind_addresses(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
            .with_storage(storage)
            // What a connection asks for where nothing is configured.
            .with_session_expiry(Duration::from_hours(7 * 24))
            .with_max_packet_size(1 << 20)
            .with_max_clients(64)
            .with_max_retained_messages(1_000)
            .with_sys_topics_enabled(false);
        let mut broker =
            MqttBroker::with_config(config).await.map_err(|reason| BrokerError::Start { port, reason })?;
        let port = broker.local_addr().map_or(port, |address| address.port());
        let mut ready = broker.ready_receiver();
        let stats = broker.stats();
        let shutdown = broker.shutdown_handle();
        let task = tokio::spawn(async move { broker.run().await });
        // A shutdown that is sent before `run` listens for it would be lost, so nobody gets the handle
        // earlier.
        if ready.wait_for(|ready| *ready).await.is_err() {
            return Err(BrokerError::Ended { port });
        }
        Ok(Self { port, stats, shutdown, task })
    }

    /// The port that it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Messages that clients published since the start.
    pub(super) fn received(&self) -> u64 {
        self.stats.publish_received.load(Ordering::Relaxed)
    }

    /// Disconnects every client and frees the port.
    pub(super) async fn stop(mut self) {
        self.shutdown.shutdown();
        match (&mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(port = self.port, %error, "the demo's broker ended with an error")
            }
            Err(error) => tracing::warn!(port = self.port, %error, "the demo's broker was cut off"),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until nobody listens on `port`. A program that another test starts at that moment holds the socket
/// until its exec.
#[cfg(test)]
pub(super) async fn nobody_listens_on(port: u16) {
    let refused =
        async { while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {} };
    assert!(
        tokio::time::timeout(Duration::from_secs(60), refused).await.is_ok(),
        "port {port} is still open"
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::process::{Command, Output, Stdio};

    use super::*;

    /// Runs one of mosquitto's own clients against `broker` to its end.
    async fn mosquitto(
        program: &'static str,
        broker: &Broker,
        version: &'static str,
        arguments: &[&str],
    ) -> Output {
        let mut command = Command::new(program);
        command
            .args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-V", version])
            .args(arguments)
            .stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap_or_else(|error| {
            panic!("could not run {program} ({error}): sudo apt-get install -y mosquitto-clients")
        })
    }

    async fn publish(broker: &Broker, version: &'static str, arguments: &[&str]) {
        let output = mosquitto("mosquitto_pub", broker, version, arguments).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What a subscriber gets: it ends after `count` messages, or fails after `-W` seconds.
    async fn subscribe(broker: &Broker, version: &'static str, count: &str, arguments: &[&str]) -> String {
        let arguments: Vec<_> =
            ["-W", "30", "-C", count, "-F", "%t %q %r %p"].iter().chain(arguments).copied().collect();
        let output = mosquitto("mosquitto_sub", broker, version, &arguments).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[tokio::test]
    async fn it_speaks_3_1_1_and_5_and_keeps_retained_messages() {
        let broker = Broker::start(0).await.unwrap();
        for (publisher, subscriber) in [("mqttv311", "mqttv5"), ("mqttv5", "mqttv311")] {
            publish(
                &broker,
                publisher,
                &["-q", "1", "-r", "-t", "plant/north/tank1/telemetry", "-m", publisher],
            )
            .await;
            let got = subscribe(&broker, subscriber, "1", &["-q", "1", "-t", "plant/+/+/telemetry"]).await;
            assert_eq!(got, format!("plant/north/tank1/telemetry 1 1 {publisher}\n"));
        }
        assert_eq!(broker.received(), 2);
        broker.stop().await;
    }

    #[tokio::test]
    async fn a_session_queues_qos_1_while_its_client_is_away() {
        let broker = Broker::start(0).await.unwrap();
        for (version, session) in [("mqttv311", &["-c"][..]), ("mqttv5", &["-c", "-x", "600"])] {
            let id = format!("box-{version}");
            let subscription = [&["-i", &id, "-q", "1", "-t", "plant/#"], session].concat();
            // `-E` leaves as soon as the broker has acknowledged the subscription.
            let left =
                mosquitto("mosquitto_sub", &broker, version, &[&subscription[..], &["-E"]].concat()).await;
            assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
            for n in ["1", "2", "3"] {
                publish(&broker, version, &["-q", "1", "-t", "plant/x", "-m", n]).await;
            }
            assert_eq!(
                subscribe(&broker, version, "3", &subscription).await,
                "plant/x 1 0 1\nplant/x 1 0 2\nplant/x 1 0 3\n"
            );
        }
        broker.stop().await;
    }

    #[tokio::test]
    async fn it_goes_away_and_comes_back_on_the_same_port() {
        let mut port = 0;
        for n in 0..4 {
            let broker = Broker::start(port).await.unwrap();
            assert!(port == 0 || broker.port() == port);
            port = broker.port();
            // A client that is connected while the broker stops must not keep the port from being taken
            // again.
            let mut idle = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let connect = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03abc"; // MQTT 3.1.1, section 3.1
            tokio::io::AsyncWriteExt::write_all(&mut idle, connect).await.unwrap();
            let mut connack = [0; 4];
            tokio::io::AsyncReadExt::read_exact(&mut idle, &mut connack).await.unwrap();
            assert_eq!(connack, [0x20, 2, 0, 0], "round {n}");
            broker.stop().await;
            nobody_listens_on(port).await;
        }
    }
}
