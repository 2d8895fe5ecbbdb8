//! An output that is a topic.

use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::config::Qos;
use super::publisher::Publisher;
use super::template::Template;
use crate::codec::Encoder;
use crate::{Delivery, DeliveryError, Sink, Writes};

/// Publishes each row. All rows of a call are under way at once, in order.
///
/// While the line is down a call fails at once, and nothing is kept: a command that arrives late moves an
/// output that should not move.
pub(super) struct TopicSink {
    pub(super) publisher: Publisher,
    pub(super) topic: Template,
    /// absent: the row as a JSON object
    pub(super) payload: Option<Template>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

impl Sink for TopicSink {
    fn deliver<'a>(&'a mut self, Writes { rows, .. }: Writes<'a>) -> BoxFuture<'a, Delivery> {
        async move {
            let encoder = Encoder::new(rows.schema_ref());
            let mut delivery = Delivery::default();
            let mut under_way = Vec::with_capacity(rows.num_rows());
            for row in 0..rows.num_rows() {
                let published = match self.render(&encoder, rows, row) {
                    Ok((topic, payload)) => {
                        self.publisher.publish(&topic, payload, self.qos, self.retain).await
                    }
                    Err(error) => Err(DeliveryError::Permanent(error)),
                };
                under_way.push(published);
            }
            for published in under_way {
                delivery.count(match published {
                    Ok(confirmation) => confirmation.await,
                    Err(error) => Err(error),
                });
            }
            delivery
        }
        .boxed()
    }

    fn expire_after(&mut self, expiry: Duration) {
        self.publisher.expiry = Some(expiry.into());
    }
}

impl TopicSink {
    fn render(&self, encoder: &Encoder, rows: &RecordBatch, row: usize) -> Result<(String, Bytes), String> {
        let topic = self.topic.topic(rows, row)?;
        let mut payload = Vec::new();
        match &self.payload {
            Some(template) => template.payload(rows, row, &mut payload)?,
            None => encoder.encode_row(rows, row, &mut payload),
        }
        Ok((topic, payload.into()))
    }
}
