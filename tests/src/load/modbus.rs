//! Modbus TCP: how fast a box reads devices, how many requests it needs for a map, what a steady rate costs,
//! and how long a rule takes to write what it has read.
//!
//! The devices are in this process, on one thread, and so are the bare clients, on another: clients of the
//! same library that do nothing with what they read but compare the first register. Both ends of a latency
//! are seen by the device, with one monotonic clock.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_modbus::client::tcp;
use tokio_modbus::prelude::{Reader, Writer};

use crate::device::{Asked, Count, Devices, ON, READ_HOLDING, WRITE_COIL};
use crate::latency::{percentile, sleep_until};
use crate::packing::{fewest_requests, map};
use crate::peer::Driver;
use crate::report::{Figure, Goal};
use crate::subject::{Site, Subject, cpu_of};
use crate::{Extent, PATIENCE, STALL};

/// What is not counted at the start.
const WARM_UP: Duration = Duration::from_secs(1);

/// Registers of a request as fast as it goes.
const REGISTERS: u16 = 100;
/// Polls that are due each millisecond then, which is the shortest interval: more than any machine manages,
/// so that no line is ever idle.
const POLLS: usize = 50;

/// A rule that no register meets.
const THRESHOLD: &str = "INSERT INTO valve_00 SELECT TRUE AS open FROM plant WHERE r00 > 60000;\n";

/// 10 000 registers a second: a plant of 20 devices with 50 tags each, polled every 100 ms.
const PLANT: usize = 20;
const TAGS: u16 = 50;
const EVERY: Duration = Duration::from_millis(100);
/// A device changes with every so many polls at most, and not all of them with the same.
const CHANGE_EVERY: usize = 5;
/// A change that was not followed by a write for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Devices read as fast as it goes, a map with gaps, and a steady rate with rules that write.
pub fn modbus(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for devices in [1, 10, 50] {
        figures.push(flood(binary, extent, devices)?);
    }
    for gap in [0, 8] {
        figures.push(requests(binary, gap)?);
    }
    figures.extend(steady(binary, extent)?);
    Ok(figures)
}

/// A box with the connections `d00`, `d01` and so on, the outputs `valve_00`, `valve_01` and so on, and one
/// stream, `plant`, of which everything else is given.
fn site(ports: &[u16], stream: &str, rules: &str) -> anyhow::Result<Site> {
    let mut config = "name = \"load\"\n".to_owned();
    for (n, port) in ports.iter().enumerate() {
        config += &format!(
            "[connections.d{n:02}]\nkind = \"modbus\"\nhost = \"127.0.0.1\"\nport = {port}\n\
            [outputs.valve_{n:02}]\nconnection = \"d{n:02}\"\nfields = {{ open = {{ coil = 0 }} }}\ncontract = \"none\"\n"
        );
    }
    let names: Vec<_> = (0..ports.len()).map(|number| format!("\"d{number:02}\"")).collect();
    config += &format!("[streams.plant]\nconnection = [{}]\n{stream}", names.join(", "));
    Site::with_config(&config, &[("load".to_owned(), rules.to_owned())])
}

/// The fields `r00`, `r01` and so on: registers side by side.
fn registers(count: u16) -> String {
    let field = |at| format!("r{at:02} = {{ holding = {at}, type = \"uint16\" }}\n");
    "[streams.plant.fields]\n".to_owned() + &(0..count).map(field).collect::<String>()
}

/// Bare clients, one for each device, on one thread.
struct Clients {
    /// where the system says what the thread has used
    stat: PathBuf,
    _driver: Driver,
}

impl Clients {
    /// Clients that read so many registers, as often or as fast as it goes.
    fn start(devices: &Devices, count: u16, every: Option<Duration>) -> anyhow::Result<Self> {
        let ports = devices.ports.clone();
        let (tell, started) = sync_channel(1);
        let driver = Driver::spawn("clients", move || async move {
            // The receiver waits for exactly this.
            drop(tell.try_send(std::fs::read_link("/proc/thread-self")));
            let mut all = JoinSet::new();
            for port in ports {
                all.spawn(client(port, count, every));
            }
            while let Some(ended) = all.join_next().await {
                crate::progress(&format!("a bare client has ended: {ended:?}"));
            }
        })?;
        let thread = started.recv_timeout(PATIENCE).map_err(|_| anyhow!("there are no bare clients"))?;
        let stat = Path::new("/proc").join(thread.context("cannot find the clients' thread")?).join("stat");
        Ok(Self { stat, _driver: driver })
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(&std::fs::read_to_string(&self.stat).context("the bare clients have ended")?)
    }
}

/// Reads, and sets a coil when the first register has changed: on when it is odd.
async fn client(port: u16, count: u16, every: Option<Duration>) -> anyhow::Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let mut device = tcp::attach(stream);
    let mut ticks = every.map(interval);
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    }
    let mut last = None;
    loop {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let first = device.read_holding_registers(0, count).await??.first().copied();
        if let Some(first) = first
            && last.replace(first) != Some(first)
        {
            device.write_single_coil(0, first % 2 == 1).await??;
        }
    }
}

/// What devices were asked in a second, and what it cost.
#[derive(Debug, Clone, Copy)]
struct Rate {
    registers: f64,
    requests: f64,
    /// cores that whoever asked has used
    cores: f64,
}

impl Rate {
    /// Of so much time, after a while. Each device must have been asked.
    fn measure(
        devices: &Devices,
        cpu: impl Fn() -> anyhow::Result<Duration>,
        time: Duration,
    ) -> anyhow::Result<Self> {
        sleep_until(Instant::now() + WARM_UP);
        let (begin, asked_before, cpu_before) = (Instant::now(), devices.asked(), cpu()?);
        sleep_until(begin + time);
        let (took, asked, cpu) = (begin.elapsed().as_secs_f64(), devices.asked(), cpu()? - cpu_before);
        let mut all = Count::default();
        for (number, (before, after)) in asked_before.iter().zip(&asked).enumerate() {
            ensure!(after.requests > before.requests, "device {number} is not asked any more");
            all.requests += after.requests - before.requests;
            all.registers += after.registers - before.registers;
        }
        Ok(Self {
            registers: all.registers as f64 / took,
            requests: all.requests as f64 / took,
            cores: cpu.as_secs_f64() / took,
        })
    }

    /// Processor time of a request, in microseconds.
    fn request_us(&self) -> f64 {
        self.cores * 1e6 / self.requests
    }
}

/// Registers a second as fast as it goes, the median of the rounds.
fn flood(binary: &Path, extent: &Extent, count: usize) -> anyhow::Result<Figure> {
    // A device answers for as many units as it takes.
    let units: Vec<_> = (1..=POLLS / count).map(|unit| format!("u{unit:02} = {unit}")).collect();
    let stream = format!("every = \"1ms\"\nunits = {{ {} }}\n{}", units.join(", "), registers(REGISTERS));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let (mut peak, mut complaints) = (0, Vec::new());
    for round in 1..=extent.rounds {
        crate::progress(&format!(
            "Modbus, as fast as it goes, devices: {count} ({round} of {})",
            extent.rounds
        ));
        let devices = Devices::start(count, |_| |_: &Asked| 0)?;
        {
            let clients = Clients::start(&devices, REGISTERS, None)?;
            bare.push(Rate::measure(&devices, || clients.cpu(), extent.polled)?);
        }
        let site = site(&devices.ports, &stream, THRESHOLD)?;
        let subject = site.run(binary)?;
        ours.push(Rate::measure(&devices, || subject.cpu(), extent.polled)?);
        peak = peak.max(subject.peak()?);
        complaints.extend(subject.complaints());
        subject.stop()?;
    }
    let (ours, bare) = (median(ours)?, median(bare)?);
    let what = format!("Modbus: registers read, {REGISTERS} a request, devices: {count}");
    let figure = Figure::new(what, ours.registers, "registers/s").against("bare client", bare.registers);
    let used = format!(
        "{:.1} us CPU a request, bare {:.1}; {:.2} cores, bare {:.2}; peak {} MiB",
        ours.request_us(),
        bare.request_us(),
        ours.cores,
        bare.cores,
        peak >> 20
    );
    Ok(figure.note(note(used, &complaints)))
}

/// What was seen, and the first that the box has warned of.
fn note(seen: String, complaints: &[String]) -> String {
    complaints.iter().take(1).fold(seen, |seen, complaint| format!("{seen}; LOST OR DELAYED: {complaint}"))
}

fn median(mut rates: Vec<Rate>) -> anyhow::Result<Rate> {
    rates.sort_by(|one, other| one.registers.total_cmp(&other.registers));
    rates.get(rates.len() / 2).copied().context("no round")
}

/// Requests of one poll of a map, next to the fewest that there can be.
fn requests(binary: &Path, gap: u16) -> anyhow::Result<Figure> {
    crate::progress(&format!("Modbus, requests for a map, gap {gap}"));
    let fields = map();
    let (tell, asked) = sync_channel(16_384);
    let devices = Devices::start(1, |_| {
        let tell = tell.clone();
        move |asked: &Asked| {
            // When nobody takes them any more, enough have been seen.
            let _ = tell.try_send((asked.function, asked.address, asked.count));
            0
        }
    })?;
    let mut stream = format!("every = \"100ms\"\ngap = {gap}\n[streams.plant.fields]\n");
    for (number, field) in fields.iter().enumerate() {
        // By their names they are in another order than by their addresses.
        stream += &format!("r{:02} = {}\n", number * 37 % fields.len(), field.point());
    }
    let site = site(&devices.ports, &stream, THRESHOLD)?;
    let subject = site.run(binary)?;
    let next = || asked.recv_timeout(STALL).map_err(|_| anyhow!("the map is not read"));
    // A poll is over when its first request comes again.
    let first = next()?;
    let (mut count, mut read) = (1_u32, u32::from(first.2));
    loop {
        let request = next()?;
        if request == first {
            break;
        }
        (count, read) = (count + 1, read + u32::from(request.2));
    }
    let complaints = subject.complaints();
    subject.stop()?;
    let what = format!("Modbus: requests for a map of {} fields, gap {gap}", fields.len());
    let fewest = fewest_requests(&fields, gap);
    let figure = Figure::new(what, f64::from(count), "requests").against("ideal packing", fewest as f64);
    Ok(figure.goal(Goal::RatioAtMost(1.1)).note(note(format!("{read} registers and bits"), &complaints)))
}

/// A device whose registers change when they are read, and that times the write which follows.
struct Valve {
    number: usize,
    polls: usize,
    content: u16,
    /// when the change was answered which waits for its write
    changed: Option<Instant>,
    may_change: Arc<AtomicBool>,
    took: SyncSender<Option<Duration>>,
}

impl Valve {
    fn asked(&mut self, asked: &Asked) -> u16 {
        match asked.function {
            READ_HOLDING => self.polled(asked.at),
            WRITE_COIL if (asked.count == ON) == (self.content % 2 == 1) => {
                self.settle(|changed| Some(asked.at - changed));
            }
            _ => {}
        }
        self.content
    }

    /// The answer leaves right after this.
    fn polled(&mut self, now: Instant) {
        self.polls += 1;
        if self.changed.is_some_and(|changed| now - changed > LOST_AFTER) {
            self.settle(|_| None);
        }
        let is_turn = self.polls % CHANGE_EVERY == self.number % CHANGE_EVERY;
        if is_turn && self.changed.is_none() && self.may_change.load(Ordering::Relaxed) {
            self.content = self.content.wrapping_add(1);
            self.changed = Some(now);
        }
    }

    fn settle(&mut self, took: impl FnOnce(Instant) -> Option<Duration>) {
        if let Some(changed) = self.changed.take() {
            // When there is no room, enough have been timed.
            let _ = self.took.try_send(took(changed));
        }
    }
}

/// The devices of a plant.
struct Plant {
    devices: Devices,
    may_change: Arc<AtomicBool>,
    took: Receiver<Option<Duration>>,
}

impl Plant {
    fn start(writes: usize) -> anyhow::Result<Self> {
        let may_change = Arc::new(AtomicBool::new(false));
        let (tell, took) = sync_channel(writes);
        let devices = Devices::start(PLANT, |number| {
            let (may_change, took) = (Arc::clone(&may_change), tell.clone());
            let mut valve = Valve { number, polls: 0, content: 0, changed: None, may_change, took };
            move |asked: &Asked| valve.asked(asked)
        })?;
        Ok(Self { devices, may_change, took })
    }

    /// Lets the devices change, and returns the sorted times in milliseconds until the writes came.
    fn writes(&self, count: usize) -> anyhow::Result<Vec<f64>> {
        self.may_change.store(true, Ordering::Relaxed);
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let took = self.took.recv_timeout(STALL).map_err(|_| anyhow!("nobody writes"))?;
            let took =
                took.with_context(|| format!("a change was not followed by a write: {} were", all.len()))?;
            all.push(took.as_secs_f64() * 1e3);
        }
        all.sort_by(f64::total_cmp);
        Ok(all)
    }
}

/// 10 000 tags a second: what they cost, and how long it takes from a value to the write that a rule makes of
/// it.
fn steady(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    crate::progress("Modbus, 10 000 tags a second: bare clients");
    let (bare, bare_writes) = {
        let plant = Plant::start(extent.writes)?;
        let clients = Clients::start(&plant.devices, TAGS, Some(EVERY))?;
        let rate = Rate::measure(&plant.devices, || clients.cpu(), extent.polled)?;
        (rate, plant.writes(extent.writes)?)
    };
    crate::progress("Modbus, 10 000 tags a second: a box");
    let plant = Plant::start(extent.writes)?;
    let stream = format!("every = \"{}ms\"\n{}", EVERY.as_millis(), registers(TAGS));
    let site = site(&plant.devices.ports, &stream, &follow())?;
    let subject = site.run(binary)?;
    let rate = Rate::measure(&plant.devices, || subject.cpu(), extent.polled)?;
    let memory = memory(&subject)?;
    let writes = plant.writes(extent.writes)?;
    let complaints = subject.complaints();
    subject.stop()?;
    // The clients use a few of the hundredths of a second in which the system counts: no ratio.
    let seen = format!(
        "{:.0} tags/s read, {:.1} us CPU a request; bare clients {:.1} % of a core",
        rate.registers,
        rate.request_us(),
        bare.cores * 100.0
    );
    let processor = Figure::new("Modbus, 10 000 tags/s: processor", rate.cores * 100.0, "% of a core")
        .goal(Goal::AtMost(20.0))
        .note(seen);
    let time = |name: &str, part: f64| {
        let what = format!("Modbus, 10 000 tags/s: value -> rule -> write of a coil, {name}");
        Figure::new(what, percentile(&writes, part), "ms")
            .against("bare clients", percentile(&bare_writes, part))
    };
    Ok(vec![
        processor,
        memory,
        time("p50", 0.5),
        time("p99", 0.99).goal(Goal::AtMost(5.0)),
        time("slowest", 1.0).note(note(format!("{} writes", writes.len()), &complaints)),
    ])
}

fn memory(subject: &Subject) -> anyhow::Result<Figure> {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let (anonymous, peak) = (mb(subject.anonymous()?), mb(subject.peak()?));
    Ok(Figure::new("Modbus, 10 000 tags/s: memory", mb(subject.resident()?), "MB")
        .goal(Goal::AtMost(60.0))
        .note(format!("{anonymous:.1} MB without the binary's pages; peak {peak:.1} MB")))
}

/// For each device a rule that sets its coil when its first register has changed: on when that is odd.
fn follow() -> String {
    let rule = |n: usize| {
        format!(
            "INSERT INTO valve_{n:02} SELECT r00 % 2 = 1 AS open FROM plant WHERE device = 'd{n:02}' QUALIFY \
            changed(r00) OVER ();\n"
        )
    };
    (0..PLANT).map(rule).collect()
}
