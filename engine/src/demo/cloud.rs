//! The demo's cloud: a broker that goes away and comes back, on its own or when told.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;

/// How long the cloud stays, and how long it stays away.
const UP: Duration = Duration::from_secs(20);
const DOWN: Duration = Duration::from_secs(10);
/// Between attempts to take the port again, should another program hold it.
const RETRY: Duration = Duration::from_secs(1);

/// What the cloud is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CloudState {
    /// whether it can be reached
    pub(super) up: bool,
    /// when that changes by itself; `None`: only when told
    pub(super) until: Option<Instant>,
    /// messages that it has taken since the demo started
    pub(super) received: u64,
}

/// Runs the cloud that `broker` began until `shutdown`. A message on `toggles` takes it away until the next
/// one, or brings it back.
pub(super) async fn run(
    broker: Broker,
    state: watch::Sender<CloudState>,
    mut toggles: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) {
    let port = broker.port();
    let mut received = 0;
    let mut broker = broker;
    loop {
        state.send_replace(CloudState { up: true, until: Some(Instant::now() + UP), received });
        let by_hand = up_until(&broker, received, &state, &mut toggles, &shutdown).await;
        broker.stop().await;
        received = state.borrow().received;
        let until = (!by_hand).then(|| Instant::now() + DOWN);
        state.send_replace(CloudState { up: false, until, received });
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(()) = toggles.recv() => {}
            () = sleep_until(until) => {}
        }
        broker = tokio::select! {
            () = shutdown.cancelled() => return,
            broker = start_again(port) => broker,
        };
    }
}

/// Counts what arrives until it is time to go; tells whether somebody asked for that.
async fn up_until(
    broker: &Broker,
    received_before: u64,
    state: &watch::Sender<CloudState>,
    toggles: &mut mpsc::Receiver<()>,
    shutdown: &CancellationToken,
) -> bool {
    let until = state.borrow().until;
    let end = sleep_until(until);
    tokio::pin!(end);
    let mut count = tokio::time::interval(Duration::from_millis(200));
    loop {
        let by_hand = tokio::select! {
            () = shutdown.cancelled() => Some(false),
            Some(()) = toggles.recv() => Some(true),
            () = &mut end => Some(false),
            _ = count.tick() => None,
        };
        state.send_modify(|state| state.received = received_before + broker.received());
        if let Some(by_hand) = by_hand {
            return by_hand;
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

async fn start_again(port: u16) -> Broker {
    loop {
        match Broker::start(port).await {
            Ok(broker) => return broker,
            Err(error) => tracing::warn!(%error, "the demo's cloud cannot come back yet and tries again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::broker::nobody_listens_on;
    use super::*;

    #[tokio::test]
    async fn it_goes_away_when_told_and_stays_away_until_told_again() {
        let broker = Broker::start(0).await.unwrap();
        let port = broker.port();
        let (state, mut watched) = watch::channel(CloudState { up: false, until: None, received: 0 });
        let (toggle, toggles) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let cloud = tokio::spawn(run(broker, state, toggles, shutdown.clone()));

        assert!(watched.wait_for(|state| state.up).await.unwrap().until.is_some());
        toggle.send(()).await.unwrap();
        assert_eq!(watched.wait_for(|state| !state.up).await.unwrap().until, None);
        nobody_listens_on(port).await;
        toggle.send(()).await.unwrap();
        watched.wait_for(|state| state.up).await.unwrap();
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok());

        shutdown.cancel();
        cloud.await.unwrap();
    }
}
