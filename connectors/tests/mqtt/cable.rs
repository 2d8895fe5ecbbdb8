//! The line between a box and its broker: a test can cut it, and before that make it lose what one of them
//! says.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::peer::PATIENCE;

#[derive(Clone, Copy, Default)]
struct State {
    cuts: u64,
    /// What the box says does not arrive.
    box_is_mute: bool,
    /// What the broker says does not arrive.
    broker_is_mute: bool,
    /// Bytes that were said and did not arrive.
    lost: usize,
    /// The line is cut when a packet comes that begins so, which does not arrive.
    cut_at: Option<u8>,
}

pub(crate) struct Cable {
    port: u16,
    state: watch::Sender<State>,
    plugged: tokio::task::JoinHandle<()>,
}

impl Cable {
    /// How these packets begin.
    pub(crate) const SUBSCRIBE: u8 = 0x82;
    pub(crate) const SUBACK: u8 = 0x90;

    /// A line to the broker on `broker`.
    pub(crate) async fn to(broker: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = watch::Sender::new(State::default());
        let line = state.clone();
        let plugged = tokio::spawn(async move {
            loop {
                let (here, _) = listener.accept().await.unwrap();
                // No broker: the box sees its connection closed.
                let Ok(there) = TcpStream::connect(("127.0.0.1", broker)).await else { continue };
                here.set_nodelay(true).unwrap();
                there.set_nodelay(true).unwrap();
                let ((from_box, to_box), (from_broker, to_broker)) = (here.into_split(), there.into_split());
                tokio::spawn(carry(from_box, to_broker, line.clone(), |state| state.box_is_mute));
                tokio::spawn(carry(from_broker, to_box, line.clone(), |state| state.broker_is_mute));
            }
        });
        Self { port, state, plugged }
    }

    /// Where the box finds the broker.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing that the box says arrives, until the line is cut.
    pub(crate) fn mute_box(&self) {
        self.state.send_modify(|state| state.box_is_mute = true);
    }

    /// From now on nothing that the broker says arrives, until the line is cut.
    pub(crate) fn mute_broker(&self) {
        self.state.send_modify(|state| state.broker_is_mute = true);
    }

    /// Waits until something that was said on this line has not arrived.
    pub(crate) async fn has_lost_something(&self) {
        let mut state = self.state.subscribe();
        tokio::time::timeout(PATIENCE, state.wait_for(|state| state.lost > 0))
            .await
            .expect("something is said")
            .unwrap();
    }

    /// Cuts the line once, when a packet comes that begins so, which does not arrive.
    pub(crate) fn cut_at(&self, first: u8) {
        self.state.send_modify(|state| state.cut_at = Some(first));
    }

    /// Ends the connections that there are; the next is a whole one.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts + 1, ..State::default() });
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.plugged.abort();
    }
}

/// Carries bytes one way until an end closes or the line is cut.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    line: watch::Sender<State>,
    is_mute: fn(&State) -> bool,
) {
    let mut bytes = [0; 4_096];
    let mut state = line.subscribe();
    let cuts = state.borrow_and_update().cuts;
    loop {
        tokio::select! {
            // A test that has muted or cut the line must not hear what was said after.
            biased;
            changed = state.changed() => if changed.is_err() || state.borrow_and_update().cuts != cuts { return },
            read = from.read(&mut bytes) => {
                let Ok(length @ 1..) = read else { return };
                if line.borrow().cut_at == Some(bytes[0]) {
                    return line.send_modify(|state| *state = State { cuts: state.cuts + 1, ..State::default() });
                }
                if is_mute(&line.borrow()) {
                    line.send_modify(|state| state.lost += length);
                } else if to.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
