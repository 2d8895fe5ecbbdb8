//! `tidegate demo`: a plant, a cloud and a box on real protocols, with nothing installed.
//!
//! * [`plant`]: the simulated pump house, a pure model; [`devices`]: its MQTT client.
//! * [`station`]: the simulated booster station, likewise; [`controller`]: its Modbus server.
//! * [`dosing`]: the simulated dosing station; [`drive`]: its drive on a CAN bus, [`scale`]: its scale on a
//!   serial line. [`noise`] makes all of them uneven.
//! * [`broker`]: the embedded brokers; [`cloud`]: the one that goes away and comes back; [`world`]: all of
//!   these together.
//! * [`folder`]: the copy of `deploy/demo` that the user edits.
//! * [`scene`]: what there is to see; [`view`]: draws it on the [`screen`](crate::screen); [`recent`]: the
//!   newest warnings.
//!
//! The box is an ordinary one. It is started from its configuration file, and the demo sees no more of it
//! than its [`Report`].

mod broker;
mod cloud;
mod controller;
mod devices;
mod dosing;
mod drive;
mod folder;
mod noise;
mod plant;
mod recent;
mod scale;
mod scene;
#[cfg(test)]
mod shipped_rules;
mod station;
mod view;
mod world;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::management::report::Report;
use crate::screen::terminal::{Key, Screen};
use folder::{Folder, Part};
use recent::Recent;
use scene::Scene;
use world::World;

/// Often enough to look alive.
const PICTURE_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(2);
/// A box that has not stopped by then is named and left behind.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// How to run the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The folder for configuration, rules, data and log; `./tidegate-demo` unless said otherwise.
    pub dir: PathBuf,
    /// Overwrite files that the user has edited with those that are shipped.
    pub fresh: bool,
    /// Print lines even on a terminal.
    pub plain: bool,
}

/// The box that the demo shows.
pub trait RunningBox {
    /// How it is.
    fn report(&self) -> Report;

    /// Stops it and returns when it has stopped.
    fn stop(self) -> impl Future<Output = ()>;
}

/// Runs the demo until the user ends it with a key, SIGINT, SIGTERM or SIGHUP. `start_box` starts a box from
/// a configuration file.
///
/// It sets up logging to `demo.log` in its folder, so the caller must not have done so.
///
/// # Errors
/// When a broker, the folder, the box or the terminal cannot be had. Whatever had been started is stopped,
/// and the terminal restored.
pub async fn run<B: RunningBox>(
    options: Options,
    start_box: impl AsyncFnOnce(&Path) -> anyhow::Result<B>,
) -> anyhow::Result<()> {
    let full_screen = !options.plain && io::stdout().is_terminal() && io::stdin().is_terminal();
    let ending = end_on_signals()?;
    let dir = &options.dir;
    Folder::check(dir)?;
    std::fs::create_dir_all(dir).with_context(|| {
        format!("could not create the demo's folder {}; choose another with --dir", dir.display())
    })?;
    let log = dir.join(folder::LOG);
    let recent = Recent::install(&log, !full_screen)
        .with_context(|| format!("could not write the log {}", log.display()))?;
    run_until(&ending, &options, start_box, &recent, full_screen, &mut io::stdout()).await
}

async fn run_until<B: RunningBox>(
    ending: &CancellationToken,
    options: &Options,
    start_box: impl AsyncFnOnce(&Path) -> anyhow::Result<B>,
    recent: &Recent,
    full_screen: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let world = World::start().await?;
    let shown = async {
        let folder = world.folder(&options.dir, options.fresh)?;
        for path in &folder.kept {
            tracing::warn!(
                file = %path.display(),
                "your edited file is used; --fresh brings back the one that was shipped"
            );
        }
        for copy in &folder.copies {
            tracing::warn!(
                copy = %copy.display(),
                "your edited file was kept under this name, and the one that was shipped is used"
            );
        }
        if !folder.lacks.is_empty() {
            tracing::info!(
                "tidegate.toml is of an older demo, with fewer devices and rules; --fresh brings all of them"
            );
        }
        let config = folder.config();
        let the_box = tokio::select! {
            started = start_box(&config) => {
                started.with_context(|| format!("could not start the box from {}", config.display()))?
            }
            () = ending.cancelled() => return Ok(()),
        };
        let rule_to_try = folder.rule_to_try().display().to_string();
        let report = || the_box.report();
        let config = config.display().to_string();
        let started = Instant::now();
        let lacks = &folder.lacks;
        let camera = Camera { world: &world, report: &report, recent, rule_to_try, config, lacks, started };
        let shown = if full_screen {
            watch_screen(&camera, ending).await
        } else {
            print_lines(&camera, out, ending).await
        };
        if tokio::time::timeout(STOP_DEADLINE, the_box.stop()).await.is_err() {
            tracing::error!(
                seconds = STOP_DEADLINE.as_secs(),
                "the box did not stop in time and was left behind"
            );
        }
        shown
    }
    .await;
    world.stop().await;
    shown?;
    match out.write_all(what_next(&options.dir).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("could not print"),
        _ => Ok(()),
    }
}

/// What to do when the demo has ended.
fn what_next(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "The demo has ended. Its configuration, rules, data and log are in {dir}.
  tidegate demo --dir {dir}                    goes on with them, and with your edits
  tidegate check --config {dir}/tidegate.toml  says what is wrong with them
For a box of your own, copy tidegate.toml and rules from there and name your broker; the guide \
        (docs/guide.md) goes on from here.
"
    )
}

/// Takes the pictures.
struct Camera<'a> {
    world: &'a World,
    report: &'a dyn Fn() -> Report,
    recent: &'a Recent,
    rule_to_try: String,
    /// the box's configuration file
    config: String,
    lacks: &'a [Part],
    started: Instant,
}

impl Camera<'_> {
    fn take(&self) -> Scene {
        let mut scene =
            Scene { running_for: self.started.elapsed(), report: (self.report)(), ..Scene::default() };
        self.world.add_to(&mut scene, self.lacks);
        scene.messages = self.recent.newest_first();
        scene.rule_to_try.clone_from(&self.rule_to_try);
        scene
    }
}

async fn watch_screen(camera: &Camera<'_>, ending: &CancellationToken) -> anyhow::Result<()> {
    let mut screen = Screen::open().context("could not take the terminal over; try --plain")?;
    let mut picture = every(PICTURE_EVERY);
    loop {
        tokio::select! {
            () = ending.cancelled() => return Ok(()),
            key = screen.key() => match key {
                Key::Quit => return Ok(()),
                Key::Letter('c') => camera.world.toggle_cloud(),
                Key::Letter('f') => camera.world.cause_fault(),
                Key::Letter(_) | Key::Redraw => {}
            },
            _ = picture.tick() => {}
        }
        let scene = camera.take();
        screen.show(|frame| view::draw(frame, &scene)).context("could not draw on the terminal")?;
    }
}

async fn print_lines(
    camera: &Camera<'_>,
    out: &mut impl Write,
    ending: &CancellationToken,
) -> anyhow::Result<()> {
    let mut line = every(LINE_EVERY);
    line.reset(); // there is nothing to tell yet
    let Camera { rule_to_try, config, .. } = camera;
    let mut text = format!(
        "edit {rule_to_try} (try 80 -> 70), save it, and watch; ask the box: tidegate status --config \
        {config}; Ctrl-C ends the demo"
    );
    loop {
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever read the lines has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).context("could not print"),
        }
        tokio::select! {
            () = ending.cancelled() => return Ok(()),
            _ = line.tick() => text = view::plain(&camera.take()),
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// A token that is cancelled when the system asks the program to end.
#[cfg(unix)]
fn end_on_signals() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};

    let ending = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).context("could not listen for signals")?;
        let ending = ending.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                ending.cancel();
            }
        });
    }
    Ok(ending)
}

/// A token that is cancelled when the system asks the program to end.
#[cfg(not(unix))]
fn end_on_signals() -> anyhow::Result<CancellationToken> {
    let ending = CancellationToken::new();
    let token = ending.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            token.cancel();
        }
    });
    Ok(ending)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rumqttc_v5::mqttbytes::QoS;
    use rumqttc_v5::{AsyncClient, Event, Incoming, MqttOptions, PublishOptions};

    use super::*;
    use crate::management::managed_box::{Handles, ManagedBox};
    use crate::status::Status;

    /// Counts what comes from the plant, and starts every pump.
    struct CountingBox {
        managed: ManagedBox,
        task: tokio::task::JoinHandle<()>,
        stopped: Arc<AtomicBool>,
    }

    impl CountingBox {
        fn start(config: &Path, stopped: Arc<AtomicBool>) -> Self {
            let (port, status) = (port(config, "plant"), Arc::new(Status::default()));
            let handles = Handles::unattached(Arc::clone(&status));
            let managed = ManagedBox::new(crate::config::load(config).unwrap(), config, handles, None);
            let (tank, pump) = (status.streams.of("tank"), status.outputs.of("cooling_pump"));
            let (client, mut events) =
                AsyncClient::builder(MqttOptions::new("box", ("127.0.0.1", port))).capacity(32).build();
            client.try_subscribe("plant/+/+/telemetry", QoS::AtLeastOnce).unwrap();
            let task = tokio::spawn(async move {
                while let Ok(event) = events.poll().await {
                    let Event::Incoming(Incoming::Publish(message)) = event else { continue };
                    tank.rows.add(1);
                    let topic =
                        String::from_utf8(message.topic.to_vec()).unwrap().replace("telemetry", "pump/set");
                    client
                        .publish(topic, r#"{"run":true}"#, PublishOptions::new(QoS::AtLeastOnce))
                        .await
                        .unwrap();
                    pump.written.add(1);
                }
            });
            Self { managed, task, stopped }
        }
    }

    impl RunningBox for CountingBox {
        fn report(&self) -> Report {
            Report::new(&self.managed)
        }

        async fn stop(self) {
            self.task.abort();
            self.stopped.store(true, Ordering::Relaxed);
        }
    }

    /// Takes lines until one has all `parts`; then it asks for the end.
    struct Reader {
        lines: String,
        parts: &'static [&'static str],
        ending: CancellationToken,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lines.push_str(std::str::from_utf8(bytes).map_err(io::Error::other)?);
            if self.lines.lines().any(|line| self.parts.iter().all(|part| line.contains(part))) {
                self.ending.cancel();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn port(config: &Path, connection: &str) -> u16 {
        let config: toml::Table = std::fs::read_to_string(config).unwrap().parse().unwrap();
        config["connections"][connection]["port"].as_integer().unwrap().try_into().unwrap()
    }

    #[tokio::test]
    async fn a_box_moves_the_plants_pumps_and_nothing_is_left_running() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { dir: dir.path().join("new"), fresh: false, plain: true };
        let ending = CancellationToken::new();
        let stopped = Arc::new(AtomicBool::new(false));
        let parts = &["tank1", "% pump runs", "cooling_pump"];
        let mut reader = Reader { lines: String::new(), parts, ending: ending.clone() };
        let start = async |config: &Path| Ok(CountingBox::start(config, Arc::clone(&stopped)));
        tokio::time::timeout(
            Duration::from_secs(60),
            run_until(&ending, &options, start, &Recent::default(), false, &mut reader),
        )
        .await
        .unwrap()
        .unwrap();

        assert!(
            reader.lines.starts_with("edit ") && reader.lines.contains("cooling.sql"),
            "{}",
            reader.lines
        );
        assert!(reader.lines.contains("The demo has ended"), "{}", reader.lines);
        assert!(stopped.load(Ordering::Relaxed));
        for connection in ["plant", "cloud", "booster"] {
            broker::nobody_listens_on(port(&options.dir.join("tidegate.toml"), connection)).await;
        }
    }

    #[tokio::test]
    async fn a_box_that_does_not_start_ends_the_demo_with_its_error() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { dir: dir.path().to_owned(), fresh: false, plain: true };
        let start = async |_: &Path| Err::<CountingBox, _>(anyhow::anyhow!("no such rule"));
        let error =
            run_until(&CancellationToken::new(), &options, start, &Recent::default(), false, &mut Vec::new())
                .await
                .unwrap_err();
        let expected = format!(
            "could not start the box from {}: no such rule",
            dir.path().join("tidegate.toml").display()
        );
        assert_eq!(format!("{error:#}"), expected);
        broker::nobody_listens_on(port(&dir.path().join("tidegate.toml"), "plant")).await;
    }
}
