//! CAN: how long it takes from a frame on the bus to the frame that a rule answers.
//!
//! The kernel that this runs on need not have CAN, so the box runs in a virtual machine, on a bus of that
//! machine's (vcan0), and so does its peer, which is this program once more. The peer sends a frame, waits for
//! the answer, and reads one clock for both; beside the box it asks a bare echo on the same bus, a thread that
//! answers frames as they are. The machine is emulated: figures are many times those of a real one, and what
//! counts is the ratio.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use socketcan::{
    CanDataFrame, CanFilter, CanFrame, CanSocket, EmbeddedFrame, Socket, SocketOptions, StandardId,
};
use tidegate_peers::machine::Machine;

use crate::latency::{percentile, sleep_until};
use crate::report::Figure;
use crate::subject::Site;
use crate::{Extent, PATIENCE};

/// Ids: what the box is asked, and what it answers; the same for the bare echo.
const BOX: (u16, u16) = (0x100, 0x200);
const ECHO: (u16, u16) = (0x101, 0x201);

/// From one frame to the next.
const PACE: Duration = Duration::from_millis(2);
/// Frames at the start that are not counted.
const WARM_UP: usize = 100;
/// An answer that has not come in that time is lost, also where the emulator's own machine is busy.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// How long the first answer is waited for, again and again.
const PROBE: Duration = Duration::from_millis(500);

/// How lines of the peer begin.
const PEER: &str = "can peer: ";

/// The controller is there for the interfaces that the machine makes where there is one.
const CONTROLLER: [&str; 4] = ["-object", "can-bus,id=bus", "-device", "kvaser_pci,canbus=bus"];

const CONFIG: &str = r#"name = "load"

[connections.bus]
kind = "can"
interface = "vcan0"
dbc = ["load.dbc"]

[streams.ping]
connection = "bus"
message = "Ping"

[outputs.pong]
connection = "bus"
message = "Pong"
contract = "none"
"#;

const DBC: &str = "BU_: A B\nBO_ 256 Ping: 8 A\n SG_ n : 0|32@1+ (1,0) [0|0] \"\" B\nBO_ 512 Pong: 8 B\n \
    SG_ n : 0|32@1+ (1,0) [0|0] \"\" A\n";

const RULE: &str = "INSERT INTO pong SELECT n FROM ping WHERE n >= 0;\n";

/// Percentiles of the box and of the echo.
pub fn can(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        crate::progress("CAN: left out, since there is no qemu-system-x86_64");
        return Ok(Vec::new());
    }
    crate::progress("CAN: a virtual machine");
    let site = Site::with_config(CONFIG, &[("load".to_owned(), RULE.to_owned())])?;
    std::fs::write(site.path().join("load.dbc"), DBC)?;
    let this = std::env::current_exe().context("cannot find this program")?;
    let quick = if extent.frames < 1_000 { "--quick" } else { "" };
    // Through a pipe, the box's log has no colours.
    let script = format!(
        "cd '{site}'\n'{binary}' run --config tidegate.toml 2>&1 | cat &\n'{this}' {quick} --can-peer vcan0\n",
        site = site.path().display(),
        binary = binary.display(),
        this = this.display(),
    );
    let script_path = site.path().join("script");
    std::fs::write(&script_path, script)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let console = runtime.block_on(async {
        let options: Vec<String> = CONTROLLER.into_iter().map(String::from).collect();
        let machine = Machine::boot(&script_path, &options).await;
        let console = machine.console().clone();
        let code = machine.end().await;
        ensure!(code == Some(0), "the peer has failed in the machine: {code:?}");
        Ok(console.all())
    })?;
    let (ours, bare) = (times_of("box", &console)?, times_of("echo", &console)?);
    let complaint = console.iter().find(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    let lost = complaint.map(|complaint| format!("; LOST OR DELAYED: {complaint}")).unwrap_or_default();
    let figure = |name: &str, at: usize| {
        let value = |times: &[f64]| times.get(at).copied().unwrap_or(f64::NAN);
        let what = format!("CAN, emulated machine: frame -> rule -> frame, {name}");
        Figure::new(what, value(&ours), "ms").against("bare echo", value(&bare))
    };
    let slowest = figure("slowest", 2).note(format!("{} frames{lost}", extent.frames));
    Ok(vec![figure("p50", 0), figure("p99", 1), slowest])
}

/// What the peer has printed of one of the two: milliseconds of p50, p99 and the slowest.
fn times_of(who: &str, console: &[String]) -> anyhow::Result<Vec<f64>> {
    let start = format!("{PEER}{who} ");
    let line = console.iter().find_map(|line| line.strip_prefix(&start));
    let line = line.with_context(|| format!("the peer has not told of the {who}"))?;
    let times = line.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    ensure!(times.len() == 3, "the peer has told of the {who}: {line}");
    Ok(times)
}

/// The peer in the machine: asks the bare echo and the box, and prints what it has seen.
pub fn peer(interface: &str, frames: usize) -> anyhow::Result<()> {
    let echo = socket(interface, ECHO.0)?;
    // It ends with the process.
    std::thread::spawn(move || answer(&echo));
    let mut text = String::new();
    let mut askers = Vec::new();
    // The box is starting: nothing is timed before it answers.
    for (who, ids) in [("echo", ECHO), ("box", BOX)] {
        let asker = Asker { socket: socket(interface, ids.1)?, id: ids.0 };
        asker.await_answer()?;
        askers.push((who, asker));
    }
    for (who, asker) in askers {
        let mut times = (0..frames + WARM_UP).map(|n| asker.ask(n)).collect::<Result<Vec<_>, _>>()?;
        times.drain(..WARM_UP);
        times.sort_by(f64::total_cmp);
        let [half, most, all] = [0.5, 0.99, 1.0].map(|part| percentile(&times, part));
        writeln!(text, "{PEER}{who} {half:.4} {most:.4} {all:.4}")?;
    }
    // The box writes to the same console, which takes lines in pieces otherwise.
    println!("{text}");
    Ok(())
}

/// A socket that is told of the frames of one id.
fn socket(interface: &str, id: u16) -> anyhow::Result<CanSocket> {
    let socket = CanSocket::open(interface).with_context(|| format!("cannot open {interface}"))?;
    // Of all 11 bits, and of the flag that tells longer ids.
    socket.set_filters(&[CanFilter::new(id.into(), 0x8000_07ff)])?;
    socket.set_read_timeout(LOST_AFTER)?;
    Ok(socket)
}

fn frame(id: u16, data: &[u8]) -> anyhow::Result<CanDataFrame> {
    let id = StandardId::new(id).context("the id has 11 bits")?;
    CanDataFrame::new(id, data).context("the frame has 8 bytes at most")
}

/// Answers frames as they are, for as long as they come.
fn answer(socket: &CanSocket) -> anyhow::Result<()> {
    loop {
        if let Ok(CanFrame::Data(asked)) = socket.read_frame() {
            socket.write_frame(&frame(ECHO.1, asked.data())?)?;
        }
    }
}

struct Asker {
    socket: CanSocket,
    id: u16,
}

impl Asker {
    /// Waits until somebody answers.
    fn await_answer(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        self.socket.set_read_timeout(PROBE)?;
        while begin.elapsed() < 3 * PATIENCE {
            self.socket.write_frame(&self.question(u32::MAX)?)?;
            if self.socket.read_frame().is_ok() {
                // Those behind it.
                while self.socket.read_frame().is_ok() {}
                self.socket.set_read_timeout(LOST_AFTER)?;
                return Ok(());
            }
        }
        Err(anyhow!("nobody answers frames of id {:#x}", self.id))
    }

    fn question(&self, n: u32) -> anyhow::Result<CanDataFrame> {
        frame(self.id, &[&n.to_le_bytes()[..], &[0; 4]].concat())
    }

    /// Asks once, and returns the milliseconds until the answer.
    fn ask(&self, n: usize) -> anyhow::Result<f64> {
        let n = u32::try_from(n)?;
        let question = self.question(n)?;
        sleep_until(Instant::now() + PACE);
        let begin = Instant::now();
        self.socket.write_frame(&question)?;
        let answer = self.socket.read_frame().with_context(|| format!("frame {n} is not answered"))?;
        let took = begin.elapsed();
        ensure!(answer.data().get(..4) == Some(&n.to_le_bytes()[..]), "another frame was answered than {n}");
        Ok(took.as_secs_f64() * 1e3)
    }
}
