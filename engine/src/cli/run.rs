//! `tidegate run` and `tidegate demo`: a box, until it is told to stop.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::args::RunArgs;
use super::{Failure, find_config, somebody_waits};
use crate::config::{self, Config};
use crate::error::RunError;
use crate::machine::Machine;
use crate::management::managed_box::{LogFilter, ManagedBox};
use crate::management::report::{Report, disk_mib_a_day};
use crate::management::service::Service;
use crate::management::thread::ManagementThread;
use crate::preflight::preflight;
use crate::run::{self, Running};
use crate::system;

/// How often it is looked whether the configuration file was changed; one that has stayed as it is for so
/// long is finished.
const CONFIG_PATROL: Duration = Duration::from_secs(1);

/// Runs the box until SIGTERM or SIGINT, or until a part of it fails. SIGHUP asks for what `tidegate reload`
/// says.
///
/// # Errors
/// When the configuration is wrong, or the box cannot be started or does not end well.
pub fn run(args: RunArgs, log: Option<Arc<LogFilter>>) -> Result<(), Failure> {
    let path = find_config(args.config.config).map_err(|diagnostic| Failure::Refused(vec![diagnostic]))?;
    let config = config::load(&path).map_err(Failure::Refused)?;
    let wrong = preflight(&path, &config);
    if !wrong.is_empty() {
        return Err(Failure::Refused(wrong));
    }
    runtime()?.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hang_up = signal(SignalKind::hangup())?;
        let running = BoxThatAnswers::start(config, &path, log).await?;
        let managed = Arc::clone(&running.managed);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = running.failed() => {}
            () = report(&managed) => {}
            () = compare_on(&mut hang_up, &managed) => {}
            () = compare_when_changed(&managed) => {}
        }
        let stopped = running.stop();
        tokio::select! {
            stopped = stopped => Ok(stopped?),
            // A second Ctrl-C means now. What was not acknowledged will be sent again.
            _ = interrupt.recv() => Err(Failure::Failed(anyhow::anyhow!("stopped at once; what was not \
                acknowledged will be sent again"))),
        }
    })
}

/// Says what a change of the configuration file would change, whenever it is asked to.
async fn compare_on(hang_up: &mut tokio::signal::unix::Signal, managed: &ManagedBox) {
    while hang_up.recv().await.is_some() {
        managed.compare().say("SIGHUP");
    }
    std::future::pending().await
}

/// Says what a change of the configuration file would change, when it is changed and whoever writes it has
/// finished.
async fn compare_when_changed(managed: &ManagedBox) {
    let stamp = || {
        let meta = std::fs::metadata(&managed.config_path).ok()?;
        Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    let (mut said, mut seen) = (stamp(), stamp());
    loop {
        tokio::time::sleep(CONFIG_PATROL).await;
        let now = stamp();
        if now != said && now == seen {
            said = now;
            managed.compare().say("a change of the file");
        }
        seen = now;
    }
}

/// Says now and then what flows: often where a person waits, seldom where only a log listens.
async fn report(managed: &ManagedBox) {
    let every = Duration::from_secs(if somebody_waits() { 10 } else { 300 });
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        say(&Report::new(managed), managed.started);
    }
}

/// What has flowed since the start, what was counted besides, and what is not as it should be.
fn say(report: &Report, started: Instant) {
    let names = |names: Vec<&str>| names.join(",");
    let down =
        report.connections.iter().filter(|line| !line.connected).map(|line| line.name.as_str()).collect();
    let refused = report
        .rules
        .iter()
        .filter(|rule| rule.refused.is_some() || rule.stopped.is_some())
        .map(|rule| rule.name.as_str())
        .collect();
    let away =
        report.uplinks.iter().filter(|uplink| !uplink.connected).map(|uplink| uplink.name.as_str()).collect();
    // Each uplink by its name, when there are several.
    let delivered: Vec<String> = match report.uplinks.as_slice() {
        [only] => vec![only.delivered.to_string()],
        several => several.iter().map(|uplink| format!("{} {}", uplink.name, uplink.delivered)).collect(),
    };
    // What the box tells itself does not come in.
    let outside = report.streams.iter().filter(|stream| !system::is_fed_by_the_box(&stream.name));
    tracing::info!(
        rows_in = outside.map(|stream| stream.rows).sum::<u64>(),
        rows_out = report.outputs.iter().map(|output| output.written).sum::<u64>(),
        besides = counted_besides(report),
        outbox_waiting = report.buffer.waiting,
        outbox_delivered = delivered.join(", "),
        uplinks_down = names(away),
        down = names(down),
        refused_rules = names(refused),
        state_mib = report.rules.iter().map(|rule| rule.state_bytes).sum::<u64>() >> 20,
        commits = report.buffer.commits,
        disk_mib_a_day = disk_mib_a_day(started),
        "status"
    );
}

/// Everything that was counted besides rows, with how often: `malformed 5, late 3`.
fn counted_besides(report: &Report) -> String {
    let mut sums = BTreeMap::<&str, u64>::new();
    let lines = report.connections.iter().flat_map(|line| &line.counts);
    lines.for_each(|(name, count)| *sums.entry(name).or_default() += count);
    // What a connection counts of all its messages, a stream counts of its own.
    let streams = report.streams.iter().flat_map(|stream| &stream.counts);
    let streams: Vec<_> = streams.filter(|(name, _)| !sums.contains_key(name.as_str())).collect();
    let rules = report.rules.iter().flat_map(|rule| &rule.counts);
    let outputs = report.outputs.iter().flat_map(|output| &output.counts);
    let uplinks = report.uplinks.iter().flat_map(|uplink| &uplink.counts);
    for (name, count) in
        streams.into_iter().chain(rules).chain(outputs).chain(uplinks).chain(&report.buffer.counts)
    {
        *sums.entry(name).or_default() += count;
    }
    sums.retain(|_, count| *count > 0);
    sums.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// A running box with its local socket.
struct BoxThatAnswers {
    running: Running,
    managed: Arc<ManagedBox>,
    management: ManagementThread,
}

impl BoxThatAnswers {
    async fn start(config: Config, path: &Path, log: Option<Arc<LogFilter>>) -> Result<Self, RunError> {
        let running = run::start(&config, &mut Machine).await?;
        let data_dir = config.data_dir.clone();
        let managed = Arc::new(ManagedBox::new(config, path, running.handles(), log));
        let management = ManagementThread::open(Arc::clone(&managed), &data_dir, running.heartbeat());
        Ok(Self { running, managed, management })
    }

    async fn failed(&self) {
        self.running.failed().await;
    }

    /// Stops the box, which answers until it has stopped. Then it is said what came of it, and how things
    /// were before it let go of them.
    async fn stop(self) -> Result<(), RunError> {
        let Self { running, managed, management } = self;
        let before = Report::new(&managed);
        managed.stops();
        if let Some(service) = Service::from_environment() {
            service.stops();
        }
        let stopped = running.stop().await;
        drop(management);
        say(&Report::new(&managed).with_lines_of(&before), managed.started);
        stopped
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // Connections, sequencer and uplinks wait most of the time. The only worker runs here too; several have
    // threads of their own, as the buffer has.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("io").enable_all().build()
}

/// Shows the product at work.
///
/// # Errors
/// When a port, the folder, the box or the terminal cannot be had.
#[cfg(feature = "demo")]
pub fn demo(args: super::args::DemoArgs) -> Result<(), Failure> {
    use crate::demo::{self, Options};

    let dir = args.dir.unwrap_or_else(|| PathBuf::from("tidegate-demo"));
    let options = Options { dir, fresh: args.fresh, plain: args.plain };
    let start_box = async |path: &Path| -> anyhow::Result<BoxThatAnswers> {
        let config = config::load(path).map_err(|wrong| {
            anyhow::anyhow!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        Ok(BoxThatAnswers::start(config, path, None).await?)
    };
    Ok(runtime()?.block_on(demo::run(options, start_box))?)
}

/// Says that this build has no demo.
///
/// # Errors
/// Always.
#[cfg(not(feature = "demo"))]
pub fn demo(_: super::args::DemoArgs) -> Result<(), Failure> {
    Err(Failure::Failed(anyhow::anyhow!("this build has no demo; build it with `--features demo`")))
}

#[cfg(feature = "demo")]
impl crate::demo::RunningBox for BoxThatAnswers {
    fn report(&self) -> Report {
        Report::new(&self.managed)
    }

    async fn stop(self) {
        if let Err(error) = Self::stop(self).await {
            tracing::error!(%error, "the box of the demo");
        }
    }
}
