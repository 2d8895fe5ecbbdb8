//! The dosing station's scale on the wire: a serial line behind a serial server on the network.
//!
//! It sends a line twice a second, as scales do: `ST,+00012.34 kg`, with `US` while the weight changes.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::dosing::Dosing;

const SEND_EVERY: Duration = Duration::from_millis(500);

/// Serves what the scale sees on `listener` until `shutdown`.
pub(super) async fn run(
    listener: TcpListener,
    station: watch::Receiver<Dosing>,
    shutdown: CancellationToken,
) {
    let serve = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            if let Err(error) = send(stream, &station).await {
                tracing::debug!(%error, "the demo's scale lost its connection");
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = serve => {}
    }
}

async fn send(mut stream: TcpStream, station: &watch::Receiver<Dosing>) -> std::io::Result<()> {
    let mut clock = interval(SEND_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        clock.tick().await;
        let line = line(&station.borrow());
        stream.write_all(line.as_bytes()).await?;
    }
}

fn line(station: &Dosing) -> String {
    let state = if station.is_stable() { "ST" } else { "US" };
    format!("{state},{:+09.2} kg\r\n", station.measured_weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_state_weight_and_unit() {
        let mut station = Dosing::new(1);
        assert_eq!(line(&station), "ST,+00012.50 kg\r\n");
        station.command(true, 3_000.0);
        station.step(0.1);
        assert!(line(&station).starts_with("US,+00012."), "{}", line(&station));
    }
}
