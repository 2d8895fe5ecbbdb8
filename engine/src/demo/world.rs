//! Everything around the box: two brokers, the devices of the plant, the booster and the dosing station, and
//! the cloud.

use std::path::Path;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, BrokerError};
use super::cloud::{self, CloudState};
use super::controller;
use super::devices;
use super::dosing::Dosing;
use super::drive;
use super::folder::{Folder, FolderError, Part, Ports};
use super::plant::{Plant, Tank};
use super::scale;
use super::scene::Scene;
use super::station::Station;

/// The plant is the same at every start, so that what is written about the demo stays true.
const SEED: u64 = 1;

/// A running plant and cloud.
pub(super) struct World {
    plant_broker: Broker,
    ports: Ports,
    tanks: watch::Receiver<Vec<Tank>>,
    station: watch::Receiver<Station>,
    dosing: watch::Receiver<Dosing>,
    cloud: watch::Receiver<CloudState>,
    faults: mpsc::Sender<()>,
    cloud_toggles: mpsc::Sender<()>,
    shutdown: CancellationToken,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

/// Why it could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorldError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("could not listen on a free port of 127.0.0.1 for a device of the plant: {0}")]
    Device(#[from] std::io::Error),
}

impl World {
    /// Starts it on free ports of the loopback interface.
    pub(super) async fn start() -> Result<Self, WorldError> {
        let plant_broker = Broker::start(0).await?;
        let cloud_broker = Broker::start(0).await?;
        let (listener, booster) = controller::listen().await?;
        let (drive_listener, drive) = controller::listen().await?;
        let (scale_listener, scale) = controller::listen().await?;
        let (plant, cloud) = (plant_broker.port(), cloud_broker.port());
        let ports = Ports { plant, cloud, booster, drive, scale };
        let shutdown = CancellationToken::new();
        let (truth, tanks) = watch::channel(Vec::new());
        let (faults, on_fault) = mpsc::channel(4);
        let devices = devices::run(Plant::new(SEED), plant_broker.port(), truth, on_fault, shutdown.clone());
        let (pressure, station) = watch::channel(Station::new(SEED));
        let controller = controller::run(listener, pressure, shutdown.clone());
        let (truth_of_dosing, dosing) = watch::channel(Dosing::new(SEED));
        let drive = drive::run(drive_listener, truth_of_dosing, shutdown.clone());
        let scale = scale::run(scale_listener, dosing.clone(), shutdown.clone());
        let (cloud_state, cloud) = watch::channel(CloudState { up: true, until: None, received: 0 });
        let (cloud_toggles, on_toggle) = mpsc::channel(4);
        let cloud_run = cloud::run(cloud_broker, cloud_state, on_toggle, shutdown.clone());
        let tasks = vec![
            ("devices", tokio::spawn(devices)),
            ("controller", tokio::spawn(controller)),
            ("drive", tokio::spawn(drive)),
            ("scale", tokio::spawn(scale)),
            ("cloud", tokio::spawn(cloud_run)),
        ];
        Ok(Self {
            plant_broker,
            ports,
            tanks,
            station,
            dosing,
            cloud,
            faults,
            cloud_toggles,
            shutdown,
            tasks,
        })
    }

    /// Prepares the working folder for a box in this world.
    pub(super) fn folder(&self, dir: &Path, fresh: bool) -> Result<Folder, FolderError> {
        Folder::prepare(dir, fresh, self.ports)
    }

    /// Adds what is true outside the box, but for the parts of the plant that it has nothing to do with.
    pub(super) fn add_to(&self, scene: &mut Scene, lacks: &[Part]) {
        scene.tanks = self.tanks.borrow().clone();
        scene.station = (!lacks.contains(&Part::Booster)).then(|| self.station.borrow().clone());
        scene.dosing = (!lacks.contains(&Part::Dosing)).then(|| self.dosing.borrow().clone());
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

    /// Ends it: devices, stations and cloud, then the plant's broker.
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
