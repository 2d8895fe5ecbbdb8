//! Control waits for nothing: while the cloud is away, the buffer is full or the disk refuses, every message
//! moves its output at once.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate::config::{self, Config, Stream};
use tidegate::run::{self, Running};
use tidegate_connectors::StreamConfig;
use tidegate_connectors::stream::OnDiskFailure;
use tidegate_core::{ByteSize, Span};
use tidegate_sim::broker::{Broker, Message, Weather};
use tidegate_sim::cloud::Cloud;
use tidegate_sim::dice::Dice;
use tidegate_sim::disk::{Disk, Faults};
use tidegate_sim::plc::Plc;
use tidegate_sim::press::Press;
use tidegate_sim::record::Record;
use tidegate_sim::rules::{self, RuleFiles};
use tidegate_sim::terms::Terms;
use tidegate_sim::valve::Valve;
use tidegate_sim::witness::Witness;
use tidegate_sim::world::{Conditions, SimulatedClock, SimulatedWorld};
use tokio::time::sleep;

/// How late an output may be.
const AT_ONCE: Duration = Duration::from_millis(10);
const NO_FAULTS: Faults = Faults { reads: 0, writes: 0, syncs: 0, full: false };
/// What mosquitto sends ahead.
const WINDOW: usize = 20;

struct Stage {
    disk: Disk,
    broker: Broker,
    cloud: Cloud,
    valve: Valve,
    running: Running,
    published: u64,
}

impl Stage {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let (dice, record) = (Dice::new(7), Record::new(false));
        let disk = Disk::new(dice.others());
        let terms = Terms::draw(&dice.others());
        let text = tidegate_sim::config_of(&terms);
        let mut config = config::parse(&text, "tidegate.toml", Path::new(disk.root())).unwrap();
        config.buffer.path = Path::new(disk.root()).join("data/box.db");
        config.buffer.snapshot_every = Span(Duration::from_secs(5));
        for output in config.outputs.values_mut() {
            output.queue = NonZeroUsize::new(100_000).unwrap();
        }
        change(&mut config);
        let (broker, cloud, valve) = (Broker::new(WINDOW), Cloud::default(), Valve::default());
        let there = Weather { lasts: Duration::from_hours(1_000), away: Duration::ZERO, calm: true };
        let away =
            Weather { lasts: Duration::from_millis(1), away: Duration::from_hours(1_000), calm: false };
        let mut world = SimulatedWorld {
            clock: Arc::new(SimulatedClock::new(&Arc::default())),
            disk: disk.clone(),
            broker: broker.clone(),
            press: Press::default(),
            valve: valve.clone(),
            plc: Plc::new(&terms),
            witness: Witness::default(),
            cloud: cloud.clone(),
            rules: RuleFiles::new(dice.others(), &record),
            conditions: Conditions {
                plant: there,
                cloud: away,
                calm: true,
                last: false,
                pause: Duration::ZERO,
                edits: None,
            },
            dice,
            record,
        };
        let running = run::start(&config, &mut world).await.unwrap();
        Self { disk, broker, cloud, valve, running, published: 0 }
    }

    /// Messages come, some at a time. Whenever the box has taken some, the rule for the valve has written its
    /// rows at once.
    async fn messages_move_the_valve(&mut self, count: u64) {
        let until = self.published + count;
        while self.published < until {
            self.broker.publish(10, 1);
            self.published += 10;
            sleep(Duration::from_millis(200)).await;
            let taken: Vec<u64> = (1..=self.published).filter(|n| self.broker.taken(*n) > 0).collect();
            sleep(AT_ONCE).await;
            let written = self.running.status().rules.of("valve").rows.get();
            let moves = taken.iter().filter(|n| Message::new(**n, u64::MAX).v >= rules::VALVE).count() as u64;
            assert!(
                written >= moves,
                "{moves} of the messages that the box has taken move the valve; it was told {written}"
            );
        }
    }

    fn taken(&self) -> u64 {
        (1..=self.published).filter(|n| self.broker.taken(*n) > 0).count() as u64
    }

    fn unjournaled(&self) -> u64 {
        self.running.status().streams.of("tank").unjournaled.get()
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        tokio::time::timeout(Duration::from_secs(900), async {
            while !is_so(self) {
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
    }
}

fn play(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_full_buffer_does_not_delay_an_output() {
    play(async {
        let mut stage = Stage::start(|config| config.buffer.max_size = ByteSize(5_000)).await;
        stage.messages_move_the_valve(3_000).await;
        assert_eq!(stage.taken(), 3_000);
        let status = stage.running.status();
        assert!(status.outbox.dropped.get() > 0 && status.outbox.waiting.get() > 0, "the buffer is full");
        assert_eq!(stage.unjournaled(), 0);
        stage.until(|stage| stage.broker.is_done()).await;
        stage.until(|stage| !stage.valve.told().is_empty()).await;
        assert!(stage.cloud.rows(rules::EACH).is_empty(), "the cloud is away");
    });
}

#[test]
fn a_disk_that_refuses_does_not_delay_an_output_and_the_journal_goes_on_afterwards() {
    for faults in [
        Faults { full: true, ..NO_FAULTS },
        Faults { writes: 1_000, ..NO_FAULTS },
        Faults { syncs: 1_000, ..NO_FAULTS },
    ] {
        play(async {
            let mut stage = Stage::start(|config| {
                config.buffer.queue = NonZeroUsize::new(500).unwrap();
                // Numbers run out meanwhile.
                config.buffer.numbers = 2_000;
            })
            .await;
            stage.messages_move_the_valve(200).await;
            stage.until(|stage| stage.broker.is_done()).await;
            stage.disk.fail(faults);
            stage.messages_move_the_valve(6_000).await;
            assert_eq!(stage.taken(), stage.published, "{faults:?}");
            stage.until(|stage| stage.broker.is_done()).await;
            let status = stage.running.status();
            assert!(stage.unjournaled() > 3_000, "{faults:?}: {}", stage.unjournaled());
            assert!(status.outbox.broken_off.load(Ordering::Relaxed));
            stage.disk.fail(NO_FAULTS);
            stage.until(|stage| !stage.running.status().outbox.broken_off.load(Ordering::Relaxed)).await;
            let before = stage.unjournaled();
            stage.messages_move_the_valve(500).await;
            stage.until(|stage| stage.broker.is_done()).await;
            assert_eq!(stage.unjournaled(), before, "{faults:?}: the journal goes on");
        });
    }
}

#[test]
fn a_stream_that_holds_is_not_acknowledged_before_the_disk_has_it() {
    play(async {
        let mut stage = Stage::start(|config| {
            if let Some(Stream::Input(StreamConfig::Mqtt(tank))) = config.streams.get_mut("tank") {
                tank.on_disk_failure = OnDiskFailure::Hold;
            }
        })
        .await;
        stage.disk.fail(Faults { full: true, ..NO_FAULTS });
        stage.messages_move_the_valve(500).await;
        // The first were stored where there was room in the file.
        let held = stage.taken();
        stage.messages_move_the_valve(500).await;
        assert_eq!(stage.taken(), held, "the broker waits for acknowledgements");
        assert!(held < 500 && !stage.broker.is_done());
        stage.disk.fail(NO_FAULTS);
        stage.until(|stage| stage.broker.is_done()).await;
        assert_eq!((stage.taken(), stage.unjournaled()), (1_000, 0));
    });
}
