//! The far side is an HTTP server: rows are posted as a JSON array.
//!
//! There is no session that could be up: the way counts as open until a request fails, and then stays closed
//! for a pause that grows, or for as long as the server asks (Retry-After).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::client::{Client, PostError};
use super::config::UplinkConfig;
use crate::DeliveryError;
use crate::connection::OpenError;
use crate::line::backoff::Backoff;
use crate::status::{FarSideStatus, LineStatus};
use crate::uplink::{Confirmation, FarSide, Parcel, Request, Uplink};

/// Prepares an uplink; nothing is connected yet.
pub(crate) fn open_uplink(config: &UplinkConfig, request: Request<'_>) -> Result<FarSide, OpenError> {
    let Request { name, status, lines, .. } = request;
    let line = lines(&format!("{name} (uplink)"));
    let (uplink, follow) = Posts::new(Client::open(config)?, config, status, line);
    let tasks = vec![(format!("{name} session"), Box::pin(follow) as _)];
    Ok(FarSide { uplink: Box::new(uplink), tasks })
}

/// An uplink by requests.
struct Posts {
    client: Arc<Client>,
    batch: usize,
    generation: watch::Receiver<Option<u64>>,
    outcomes: mpsc::Sender<Outcome>,
    status: Arc<FarSideStatus>,
    line: Arc<LineStatus>,
    /// whether a request has come through
    proven: Arc<AtomicBool>,
}

/// How a request of the generation ended.
enum Outcome {
    Arrived,
    Failed { generation: u64, reason: String, retry_after: Option<Duration> },
}

impl Posts {
    /// Posts by `client`, which was opened with `config`. Pauses are made by a task that ends when the uplink
    /// is dropped.
    fn new(
        client: Client,
        config: &UplinkConfig,
        status: Arc<FarSideStatus>,
        line: Arc<LineStatus>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (tell, generation) = watch::channel(Some(0));
        // Whoever finds it full has nothing to add to what is in it.
        let (outcomes, ends) = mpsc::channel(8);
        let backoff = Backoff::new(config.backoff.min.0, config.backoff.max.0);
        // Nobody knows better before there is something to send.
        status.connected.store(true, Ordering::Relaxed);
        line.is_up();
        let proven = Arc::new(AtomicBool::new(false));
        let follow = follow(ends, tell, backoff, Arc::clone(&status), Arc::clone(&line));
        (
            Self {
                client: Arc::new(client),
                batch: config.batch.get(),
                generation,
                outcomes,
                status,
                line,
                proven,
            },
            follow,
        )
    }
}

impl Uplink for Posts {
    fn batch(&self) -> usize {
        self.batch
    }

    fn send(&mut self, parcel: Parcel) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        let body = array(&parcel.messages);
        let (client, outcomes) = (Arc::clone(&self.client), self.outcomes.clone());
        let (status, line, proven) =
            (Arc::clone(&self.status), Arc::clone(&self.line), Arc::clone(&self.proven));
        let generation = *self.generation.borrow();
        let posted = async move {
            let posted = client.post(body.clone(), &key(&body)).await;
            if let Err(PostError::Transient { reason, retry_after }) = posted {
                let failed = Outcome::Failed {
                    generation: generation.unwrap_or_default(),
                    reason: reason.clone(),
                    retry_after,
                };
                drop(outcomes.try_send(failed));
                return Err(DeliveryError::Transient(reason));
            }
            // The server is there, whatever it says about the rows.
            let (first, back) =
                (!proven.swap(true, Ordering::Relaxed), !status.connected.swap(true, Ordering::Relaxed));
            if first || back {
                line.is_up();
                drop(outcomes.try_send(Outcome::Arrived));
            }
            posted.map_err(|error| DeliveryError::Permanent(error.to_string()))
        };
        Box::pin(async move { Ok(Box::pin(posted) as Confirmation) })
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        self.generation.clone()
    }
}

/// Closes the way after a failure, and opens it again after the pause.
async fn follow(
    mut outcomes: mpsc::Receiver<Outcome>,
    tell: watch::Sender<Option<u64>>,
    mut backoff: Backoff,
    status: Arc<FarSideStatus>,
    line: Arc<LineStatus>,
) {
    let (mut generation, mut up_since, mut said) = (0, None, None);
    while let Some(outcome) = outcomes.recv().await {
        match outcome {
            Outcome::Arrived => {
                up_since = Some(Instant::now());
                said = None;
                tracing::info!("the uplink takes rows");
            }
            // Of requests that fail together, only one counts.
            Outcome::Failed { generation: of, reason, retry_after } if of == generation => {
                status.connected.store(false, Ordering::Relaxed);
                if let Some(since) = up_since.take() {
                    backoff.was_up(since.elapsed());
                }
                let pause = backoff.pause().max(retry_after.unwrap_or_default());
                if said.as_ref() != Some(&reason) {
                    tracing::warn!(
                        reason,
                        again_in = ?pause,
                        "the uplink does not take rows now; they stay in the outbox"
                    );
                    said = Some(reason.clone());
                }
                status.last_error.note(reason.clone());
                line.is_down(Some(reason));
                tell.send_replace(None);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = tell.closed() => return,
                }
                generation += 1;
                tell.send_replace(Some(generation));
            }
            Outcome::Failed { .. } => {}
        }
    }
}

fn array(messages: &[Bytes]) -> Bytes {
    let mut body = Vec::with_capacity(messages.iter().map(|message| message.len() + 1).sum::<usize>() + 2);
    body.push(b'[');
    for (at, message) in messages.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(message);
    }
    body.push(b']');
    body.into()
}

/// The same for the same rows, and only for them: FNV-1a with 128 bits of what is sent, which holds the rows'
/// ids. A server that compares what comes with a key it knows never finds a difference.
fn key(body: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    let hash = body.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_same_for_the_same_rows_only() {
        let key_of = |messages: &[&'static str]| {
            let messages: Vec<Bytes> =
                messages.iter().map(|message| Bytes::from_static(message.as_bytes())).collect();
            key(&array(&messages))
        };
        assert_eq!(
            key_of(&["{\"id\":\"a/r/1/0\"}", "{\"id\":\"a/r/2/0\"}"]),
            key_of(&["{\"id\":\"a/r/1/0\"}", "{\"id\":\"a/r/2/0\"}"])
        );
        assert_ne!(
            key_of(&["{\"id\":\"a/r/1/0\"}", "{\"id\":\"a/r/2/0\"}"]),
            key_of(&["{\"id\":\"a/r/1/0\"}"])
        );
        // Test vectors of draft-eastlake-fnv, appendix C.
        assert_eq!(key(b""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(key(b"a"), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn messages_become_a_json_array() {
        assert_eq!(array(&[Bytes::from_static(b"{}"), Bytes::from_static(b"1")]), "[{},1]");
    }
}
