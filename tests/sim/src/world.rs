//! The simulated world, as the engine sees it.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use futures::future::BoxFuture;
use tidegate::config::{Config, Stream, Uplink};
use tidegate::error::RunError;
use tidegate::rules::book::{Compile, RuleBook};
use tidegate::status::Status;
use tidegate::supervisor::Threads;
use tidegate::world::{Known, Line, Rules, World};
use tidegate_connectors::Sink;
use tidegate_connectors::uplink::FarSide;
use tidegate_core::Clock;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, PlantLine, Weather};
use crate::cloud::{Cloud, CloudLine};
use crate::columns::Columns;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::echo;
use crate::panel::PanelLine;
use crate::plc::{OUTPUTS, Plc, PlcLine, PlcSink};
use crate::press::{Press, PressLine};
use crate::record::Record;
use crate::rules::RuleFiles;
use crate::valve::{Valve, ValveLine};
use crate::witness::Witness;

/// 2026-01-01T00:00:00Z
const EPOCH_NS: i64 = 1_767_225_600_000_000_000;

/// The machine's clocks: they outlive the box, and some of it a power cut.
#[derive(Debug, Default)]
pub struct Hardware {
    /// how long the box ran before this round
    pub ran: Duration,
    /// how long the machine was off
    pub off: Duration,
    /// how often it was started, and how long the box had run before
    boot: (u32, Duration),
    /// what is wrong with wall time
    wrong_ns: AtomicI64,
    synchronised: AtomicBool,
}

impl Hardware {
    /// The machine was off for so long. Its wall time is wrong by `wrong_ns` now.
    pub fn reboot(&mut self, off: Duration, wrong_ns: i64) {
        self.off += off;
        self.boot = (self.boot.0 + 1, self.ran);
        self.jump(wrong_ns);
    }

    /// Wall time jumps to so much after, or before, what it should be.
    pub fn jump(&self, ns: i64) {
        self.wrong_ns.store(ns, Ordering::Relaxed);
        self.synchronised.store(false, Ordering::Relaxed);
    }

    /// A time service sets wall time.
    pub fn synchronise(&self) {
        self.wrong_ns.store(0, Ordering::Relaxed);
        self.synchronised.store(true, Ordering::Relaxed);
    }
}

/// A clock that goes with the runtime's.
pub struct SimulatedClock {
    began: Instant,
    hardware: Arc<Hardware>,
}

impl SimulatedClock {
    /// A round begins.
    #[must_use]
    pub fn new(hardware: &Arc<Hardware>) -> Self {
        Self { began: Instant::now(), hardware: Arc::clone(hardware) }
    }

    /// What has really passed since the simulation began, in nanoseconds.
    #[must_use]
    pub fn passed_ns(&self) -> i64 {
        let Hardware { ran, off, .. } = &*self.hardware;
        i64::try_from((*ran + *off + self.began.elapsed()).as_nanos()).unwrap_or(i64::MAX)
    }
}

impl Clock for SimulatedClock {
    fn wall_ns(&self) -> i64 {
        EPOCH_NS + self.passed_ns() + self.hardware.wrong_ns.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.hardware.ran + self.began.elapsed() - self.hardware.boot.1
    }

    fn boot(&self) -> Arc<str> {
        self.hardware.boot.0.to_string().into()
    }

    fn is_synchronised(&self) -> bool {
        self.hardware.synchronised.load(Ordering::Relaxed)
    }
}

/// How things go in one round.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// the connection to the plant
    pub plant: Weather,
    /// the connection to the cloud
    pub cloud: Weather,
    /// nothing goes wrong
    pub calm: bool,
    /// the last box
    pub last: bool,
    /// how long a part may be held up
    pub pause: Duration,
    /// how often somebody edits the rules
    pub edits: Option<Duration>,
}

/// The world of one round.
pub struct SimulatedWorld {
    /// the clock
    pub clock: Arc<SimulatedClock>,
    /// the disk
    pub disk: Disk,
    /// the plant
    pub broker: Broker,
    /// what is polled
    pub press: Press,
    /// an output
    pub valve: Valve,
    /// what moves
    pub plc: Plc,
    /// sees what comes in
    pub witness: Witness,
    /// the cloud
    pub cloud: Cloud,
    /// the rules directory
    pub rules: RuleFiles,
    /// how it goes
    pub conditions: Conditions,
    /// what goes wrong
    pub dice: Dice,
    /// what happened
    pub record: Record,
}

impl World for SimulatedWorld {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn disk(&self) -> Arc<dyn tidegate::disk::Disk> {
        Arc::new(self.disk.clone())
    }

    fn threads(&self) -> Arc<dyn Threads> {
        Arc::new(OneThread { dice: self.dice.others(), pause: self.conditions.pause })
    }

    fn lines(&mut self, config: &Config, known: &Known, status: &Status) -> Result<Vec<Line>, RunError> {
        self.witness.watch(status, &self.clock);
        let columns = Columns::from(known.columns.get("noise").cloned().unwrap_or_default());
        let marks = known.marks.get("tank").map(Vec::as_slice).unwrap_or_default();
        let source = PlantLine::new(
            &self.broker,
            self.dice.others(),
            &self.record,
            self.conditions.plant,
            (schema(config, "tank"), columns),
            marks,
        );
        let sink =
            ValveLine { valve: self.valve.clone(), dice: self.dice.others(), record: self.record.clone() };
        let polled = PressLine::new(
            &self.press,
            self.dice.others(),
            &self.record,
            self.conditions.calm,
            self.clock(),
            schema(config, "level"),
        );
        let plant = Line {
            name: "plant".into(),
            source: Box::new(source),
            sinks: [("valve".to_owned(), Box::new(sink) as _)].into(),
        };
        let press = Line { name: "press".into(), source: Box::new(polled), sinks: BTreeMap::new() };
        Ok(vec![plant, press, self.panel(config), self.controller(config, status)])
    }

    fn uplink(
        &mut self,
        _: &Config,
        name: &str,
        _: &Uplink,
        status: &Status,
        stop: &CancellationToken,
    ) -> Result<FarSide, RunError> {
        let Conditions { cloud, calm, .. } = self.conditions;
        let (uplink, task) = CloudLine::new(
            &self.cloud,
            &self.dice,
            &self.record,
            cloud,
            calm,
            status.uplinks.of(name),
            stop.clone(),
        );
        Ok(FarSide { uplink: Box::new(uplink), tasks: vec![("cloud".into(), task)] })
    }

    fn compile(&self) -> Compile {
        echo::compile_any
    }

    fn rules(&mut self, _config: &Config, book: RuleBook) -> Rules {
        self.rules.watch(book, self.conditions.edits)
    }
}

impl SimulatedWorld {
    fn panel(&self, config: &Config) -> Line {
        let source = PanelLine {
            dice: self.dice.others(),
            is_last: self.conditions.last,
            clock: Arc::clone(&self.clock),
            schema: schema(config, "wish"),
        };
        Line { name: "panel".into(), source: Box::new(source), sinks: BTreeMap::new() }
    }

    fn controller(&self, config: &Config, status: &Status) -> Line {
        let Conditions { calm, last, plant: weather, .. } = self.conditions;
        let source = PlcLine {
            plc: self.plc.clone(),
            dice: self.dice.others(),
            record: self.record.clone(),
            weather,
            is_last: last,
            clock: Arc::clone(&self.clock),
            schemas: ["guard", "gate"].map(|stream| schema(config, stream)),
            status: status.connections.of("plc"),
        };
        let sink = |output: &'static str| {
            let sink = PlcSink {
                plc: self.plc.clone(),
                output,
                dice: self.dice.others(),
                calm,
                clock: Arc::clone(&self.clock),
                witness: self.witness.clone(),
                record: self.record.clone(),
            };
            (output.to_owned(), Box::new(sink) as Box<dyn Sink>)
        };
        Line { name: "plc".into(), source: Box::new(source), sinks: OUTPUTS.map(sink).into() }
    }
}

fn schema(config: &Config, stream: &str) -> SchemaRef {
    config.streams.get(stream).and_then(Stream::schema).unwrap_or_else(|| Arc::new(Schema::empty()))
}

/// Everything on one thread; what would have a thread of its own is held up at random.
struct OneThread {
    dice: Dice,
    pause: Duration,
}

impl Threads for OneThread {
    fn run(&self, _: &str, work: BoxFuture<'static, ()>) -> io::Result<BoxFuture<'static, bool>> {
        let task = tokio::spawn(HeldUp { work, dice: self.dice.others(), pause: self.pause, until: None });
        Ok(Box::pin(async move { task.await.is_err_and(|error| error.is_panic()) }))
    }
}

struct HeldUp {
    work: BoxFuture<'static, ()>,
    dice: Dice,
    pause: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

impl Future for HeldUp {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.until.is_none() && !this.pause.is_zero() && this.dice.one_in(8) {
            this.until = Some(Box::pin(sleep(this.dice.delay(this.pause))));
        }
        if let Some(until) = &mut this.until {
            match until.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => this.until = None,
            }
        }
        this.work.as_mut().poll(context)
    }
}
