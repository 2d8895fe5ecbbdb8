//! Everything around the box: two brokers, the devices of the plant, and the cloud.

use std::path::Path;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, BrokerError};
use super::cloud::{self, CloudState};
use super::devices;
use super::folder::{Folder, FolderError};
use super::plant::{Plant, Tank};
use super::scene::Scene;

/// The plant is the same at every start, so that what is written about the demo stays true.
const SEED: u64 = 1;

/// A running plant and cloud.
pub(super) struct World {
    plant_broker: Broker,
    cloud_port: u16,
    tanks: watch::Receiver<Vec<Tank>>,
    cloud: watch::Receiver<CloudState>,
    faults: mpsc::Sender<()>,
    cloud_toggles: mpsc::Sender<()>,
    shutdown: CancellationToken,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl World {
    /// Starts it on free ports of the loopback interface.
    pub(super) async fn start() -> Result<Self, BrokerError> {
        let plant_broker = Broker::start(0).await?;
        let cloud_broker = Broker::start(0).await?;
        let cloud_port = cloud_broker.port();
        let shutdown = CancellationToken::new();
        let (truth, tanks) = watch::channel(Vec::new());
        let (faults, on_fault) = mpsc::channel(4);
        let devices = devices::run(Plant::new(SEED), plant_broker.port(), truth, on_fault, shutdown.clone());
        let (cloud_state, cloud) = watch::channel(CloudState { up: true, until: None, received: 0 });
        let (cloud_toggles, on_toggle) = mpsc::channel(4);
        let cloud_run = cloud::run(cloud_broker, cloud_state, on_toggle, shutdown.clone());
        let tasks = vec![("devices", tokio::spawn(devices)), ("cloud", tokio::spawn(cloud_run))];
        Ok(Self { plant_broker, cloud_port, tanks, cloud, faults, cloud_toggles, shutdown, tasks })
    }

    /// Prepares the working folder for a box in this world.
    pub(super) fn folder(&self, dir: &Path, fresh: bool) -> Result<Folder, FolderError> {
        Folder::prepare(dir, fresh, self.plant_broker.port(), self.cloud_port)
    }

    /// Adds what is true outside the box.
    pub(super) fn add_to(&self, scene: &mut Scene) {
        scene.tanks = self.tanks.borrow().clone();
        scene.cloud = Some(*self.cloud.borrow());
    }

    /// Makes one of the plant's sensors or devices misbehave for a few seconds.
    pub(super) fn cause_fault(&self) {
        // A full queue already holds more faults than anybody can tell apart.
        let _ = self.faults.try_send(());
    }

    /// Takes the cloud away, or brings it back.
    pub(super) fn toggle_cloud(&self) {
        let _ = self.cloud_toggles.try_send(());
    }

    /// Ends it: devices and cloud, then the plant's broker.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        for (name, task) in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, name, "a part of the demo ended badly");
            }
        }
        self.plant_broker.stop().await;
    }
}
