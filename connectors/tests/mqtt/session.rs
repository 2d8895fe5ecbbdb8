//! What only sessions with a broker have: subscriptions, acknowledgements, messages that are known again.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use serde_json::json;
use tidegate_connectors::Writes;
use tidegate_connectors::connection::Kind;
use tidegate_connectors::mqtt::{self, Session};
use tidegate_core::Batch;

use super::peer::PATIENCE;
use crate::rig::{Rig, Setup};

pub(crate) const VERSIONS: [&str; 2] = ["3.1.1", "5"];

impl Setup {
    pub(crate) fn mqtt(version: &str, port: u16) -> Self {
        let connection = json!({ "host": "127.0.0.1", "port": port, "version": version, "client_id": "box" });
        Self::new(Kind::Mqtt, connection)
    }

    /// A stream of `{"n": 1}` on `plant/{device}/n`.
    pub(crate) fn numbers(self, qos: u8) -> Self {
        let fields = json!({ "n": "int64" });
        self.stream("numbers", json!({ "topic": "plant/{device}/n", "qos": qos, "fields": fields }))
    }
}

impl Rig {
    /// Waits for a connection later than `generation`.
    pub(crate) async fn connected_after(&self, generation: u64) -> Session {
        let mut session = self.publisher().session();
        let found = tokio::time::timeout(
            PATIENCE,
            session.wait_for(|session| session.is_some_and(|session| session.generation > generation)),
        );
        let Ok(found) = found.await else { panic!("it does not connect: {:?}", self.status.trouble()) };
        found.unwrap().unwrap()
    }

    pub(crate) async fn disconnected(&self) {
        let mut session = self.publisher().session();
        tokio::time::timeout(PATIENCE, session.wait_for(Option::is_none)).await.expect("it notices").unwrap();
    }

    /// Takes batches until there are `count` numbers.
    pub(crate) async fn numbers(&mut self, count: usize) -> (Vec<i64>, Vec<Batch>) {
        let (mut seen, mut batches) = (Vec::new(), Vec::new());
        while seen.len() < count {
            let batch = self.batch().await;
            seen.extend(numbers(&batch.rows));
            batches.push(batch);
        }
        (seen, batches)
    }

    /// Waits until `count` messages were known again.
    pub(crate) async fn repeated(&self, count: u64) {
        let repeated = || self.status.count("repeated");
        let wait = async {
            while repeated() < count {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{} messages instead of {count} were known again", repeated());
        }
        assert_eq!(repeated(), count);
    }

    /// Waits until the broker has granted `count` subscriptions.
    pub(crate) async fn subscribed(&self, count: u64) {
        let wait = async {
            while self.status.count("subscriptions") < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the broker grants the subscriptions");
    }

    /// Waits until the broker has every acknowledgement that was due before: it takes packets in the order in
    /// which they are sent.
    pub(crate) async fn acknowledged(&self) {
        self.publisher()
            .publish("box/mark", "".into(), mqtt::config::Qos::AtLeastOnce, false)
            .await
            .unwrap()
            .await
            .unwrap();
    }

    /// Waits until the subscriptions are in force: until a message on `topic` comes through. Its rows are
    /// acknowledged.
    pub(crate) async fn listening(&mut self, peer: &super::peer::Peer) {
        loop {
            peer.publish("plant/probe/n", r#"{"n": -1}"#, 1, false).await;
            if tokio::time::timeout(std::time::Duration::from_millis(50), self.batch()).await.is_ok() {
                break;
            }
        }
        while self.waiting_batch().is_some() {}
    }
}

/// The values of column `n`, without probes.
pub(crate) fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("n")
        .unwrap()
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .copied()
        .filter(|n| *n >= 0)
        .collect()
}

pub(crate) fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    rows.column_by_name(column)
        .unwrap()
        .as_string::<i32>()
        .iter()
        .map(|text| text.unwrap().to_owned())
        .collect()
}

/// Writes of which the far side is told no cause.
pub(crate) fn uncaused(rows: &RecordBatch) -> Writes<'_> {
    Writes { rows, causes: &[], now: 0 }
}
