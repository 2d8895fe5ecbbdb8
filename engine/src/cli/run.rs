//! `tidegate run` and `tidegate demo`: a box, until it is told to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::args::RunArgs;
use super::{Failure, load_config, somebody_waits};
use crate::config::Config;
use crate::machine::Machine;
use crate::run::{self, Running};
use crate::status::Status;

/// Runs the box until SIGTERM, SIGINT or SIGHUP, or until a part of it fails.
///
/// # Errors
/// When the configuration is wrong, or the box cannot be started or does not end well.
pub fn run(args: RunArgs) -> Result<(), Failure> {
    let config = load_config(args.config.config)?;
    runtime()?.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hang_up = signal(SignalKind::hangup())?;
        let running = start(&config).await?;
        let (status, begun) = (running.status(), Instant::now());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
            () = running.failed() => {}
            () = report(&status, begun) => {}
        }
        let stopped = running.stop();
        tokio::select! {
            stopped = stopped => {
                say(&status, begun);
                Ok(stopped?)
            }
            // A second Ctrl-C means now. What was not acknowledged will be sent again.
            _ = interrupt.recv() => Err(Failure::Failed(anyhow::anyhow!("stopped at once; what was not acknowledged will be sent again"))),
        }
    })
}

/// Says now and then what flows: often where a person waits, seldom where only a log listens.
async fn report(status: &Status, begun: Instant) {
    let every = Duration::from_secs(if somebody_waits() { 10 } else { 300 });
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        say(status, begun);
    }
}

/// What has flowed since `begun`, and what is not as it should be.
fn say(status: &Status, begun: Instant) {
    let connections = status.connections.all();
    let down: Vec<&str> = connections.iter().filter(|(_, line)| !line.is_connected()).map(|(name, _)| name.as_str()).collect();
    let rules = status.rules.all();
    let refused: Vec<&str> = rules.iter().filter(|(_, rule)| rule.refused.load(Ordering::Relaxed)).map(|(name, _)| name.as_str()).collect();
    let uplinks = status.uplinks.all();
    let away: Vec<&str> =
        uplinks.iter().filter(|(_, uplink)| !uplink.connected.load(Ordering::Relaxed)).map(|(name, _)| name.as_str()).collect();
    // Each uplink by its name, when there are several.
    let delivered: Vec<String> = match uplinks.as_slice() {
        [(_, only)] => vec![only.delivered.get().to_string()],
        several => several.iter().map(|(name, uplink)| format!("{name} {}", uplink.delivered.get())).collect(),
    };
    tracing::info!(
        rows_in = status.streams.all().iter().map(|(_, stream)| stream.rows.get()).sum::<u64>(),
        rows_out = status.outputs.all().iter().map(|(_, output)| output.written.get()).sum::<u64>(),
        failed = status.outputs.all().iter().map(|(_, output)| output.failed.get() + output.dropped.get()).sum::<u64>(),
        outbox_waiting = status.outbox.waiting.get(),
        outbox_delivered = delivered.join(", "),
        uplinks_down = away.join(","),
        down = down.join(","),
        refused_rules = refused.join(","),
        state_mib = rules.iter().map(|(_, rule)| rule.state_bytes.get()).sum::<u64>() >> 20,
        commits = status.outbox.commits.get(),
        // Flash wears by what is written to it; cards and eMMC name how much they stand.
        disk_mib_a_day = written().map(|bytes| per_day(bytes, begun.elapsed()) >> 20),
        "status"
    );
}

/// Bytes that this process has caused to be written to disks (`write_bytes` in proc(5)), where the system says.
fn written() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

/// What `bytes` in `time` would be in a day.
fn per_day(bytes: u64, time: Duration) -> u64 {
    let day_s = 86_400;
    bytes.saturating_mul(day_s) / time.as_secs().max(1)
}

async fn start(config: &Config) -> Result<Running, run::RunError> {
    run::start(config, &mut Machine).await
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // Connections, sequencer and forwarder wait most of the time; rules and the buffer have threads of their own.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("io").enable_all().build()
}

/// Shows the product at work.
///
/// # Errors
/// When a broker, the folder, the box or the terminal cannot be had.
#[cfg(feature = "demo")]
pub fn demo(args: super::args::DemoArgs) -> Result<(), Failure> {
    use crate::demo::{self, Options};

    let dir = args.dir.unwrap_or_else(|| PathBuf::from("tidegate-demo"));
    let options = Options { dir, fresh: args.fresh, plain: args.plain };
    let start_box = async |path: &Path| -> anyhow::Result<Running> {
        let config = crate::config::load(path)
            .map_err(|wrong| anyhow::anyhow!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
        Ok(start(&config).await?)
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
impl crate::demo::RunningBox for Running {
    fn status(&self) -> Arc<Status> {
        Running::status(self)
    }

    async fn stop(self) {
        if let Err(error) = Running::stop(self).await {
            tracing::error!(%error, "the box of the demo");
        }
    }
}
