//! Brokers of a measurement.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;
use tidegate_peers::mosquitto::Mosquitto;
use tokio::runtime::{Builder, Runtime};

/// A mosquitto of one's own, for a program that is not asynchronous. It ends when it is dropped.
#[derive(Debug)]
pub struct Broker {
    /// on 127.0.0.1
    pub port: u16,
    _mosquitto: Mosquitto,
    /// what the process was started on; nothing runs on it
    _runtime: Runtime,
}

impl Broker {
    /// Starts a broker that drops nothing which a slow subscriber has not taken yet, and has at most
    /// `in_flight` unconfirmed QoS 1 messages under way to each client (mosquitto's default is 20).
    pub fn start(in_flight: u16) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start mosquitto")?;
        // Without nodelay, small messages wait up to 40 ms for acknowledgements of TCP, whoever subscribes.
        let config = format!(
            "allow_anonymous true\npersistence false\nmax_queued_messages 0\nmax_inflight_messages \
            {in_flight}\nset_tcp_nodelay true\n"
        );
        let mosquitto = runtime.block_on(Mosquitto::with_config(&config));
        Ok(Self { port: mosquitto.port(), _mosquitto: mosquitto, _runtime: runtime })
    }
}

/// A port on which nobody listens.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}
