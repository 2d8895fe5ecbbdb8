//! Lines between a box and its brokers that are slow, lose packets, or let them vanish without a word.
//!
//! [`apart`] runs a test in a network of its own, where it is root and disturbs nobody. A [`Cabinet`] is a
//! second network within it, for the box; a [`Wire`] is a line between the two. What travels are the kernel's
//! own IP packets: each end of a wire is a TUN device, socat hands its packets to the wire, and the wire
//! passes them on late, slowly or not at all, as its [`Quality`] says. TCP on both sides is the kernel's, so
//! that it retransmits, backs off and waits for an answer that never comes as it would on site. (The kernel's
//! own netem would do the same, but many kernels are built without it.)

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::lines::Lines;

/// Set for a test that runs in a network of its own.
const APART: &str = "TIDEGATE_TEST_RUNS_APART";

/// Runs the test that calls it in a network of its own, with its loopback device up and nothing else in it.
/// The test must do nothing else: its process starts itself a second time, for this one test, in new user and
/// network namespaces.
///
/// `scenario` must be a closure in the test itself, since the test is known by its name.
pub fn apart<S: AsyncFnOnce()>(scenario: S) {
    if std::env::var_os(APART).is_some() {
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(scenario());
    }
    // CRATE::MODULE::TEST::{{closure}}
    let test = std::any::type_name::<S>().trim_end_matches("::{{closure}}").split_once("::").unwrap().1;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(APART, "1")
        .stdin(Stdio::null())
        .output()
        .expect("these tests need unshare, of util-linux");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // Had the name been wrong, no test would have run, and well.
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test} in a network of its own: {}\n{text}",
        output.status
    );
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("these tests need {:?}: {error}", command.get_program()));
    assert!(status.success(), "{command:?} failed");
}

/// A network that only [`Wire`]s lead to. It is gone when it is dropped.
#[derive(Debug)]
pub struct Cabinet {
    /// keeps the network
    keeper: std::process::Child,
}

impl Cabinet {
    /// A network with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        // cat ends when this process does, whatever happens to it.
        let mut keeper = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        // The answer comes from the new network.
        keeper.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        keeper.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("a network can be made");
        Self { keeper }
    }

    /// The same command, to be started within.
    #[must_use]
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside
            .arg(format!("--net=/proc/{}/ns/net", self.keeper.id()))
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            inside.current_dir(dir);
        }
        inside
    }
}

impl Default for Cabinet {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cabinet {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// How a wire treats packets that go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// how long a packet is under way
    pub delay: Duration,
    /// how many of a hundred packets are lost
    pub loss_percent: u64,
    /// how many bits a second go through; absent: as many as come
    pub bits_per_s: Option<u32>,
}

impl Quality {
    /// Everything arrives at once.
    pub const GOOD: Self = Self { delay: Duration::ZERO, loss_percent: 0, bits_per_s: None };
    /// Everything vanishes, and no side is told.
    pub const GONE: Self = Self { loss_percent: 100, ..Self::GOOD };
}

/// A line between the network of the test and a [`Cabinet`]. It is gone when it is dropped.
#[derive(Debug)]
pub struct Wire {
    address: Ipv4Addr,
    into: watch::Sender<Quality>,
    out_of: watch::Sender<Quality>,
    _ends: [Child; 2],
    _dir: tempfile::TempDir,
}

impl Wire {
    /// A good wire. `number` tells it from the other wires of the test.
    pub async fn new(cabinet: &Cabinet, number: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (Ipv4Addr::new(10, 9, number, 1), Ipv4Addr::new(10, 9, number, 2));
        let outside = Plug::new(dir.path(), "outside");
        let inside = Plug::new(dir.path(), "inside");
        let ends = [
            outside.end(outer, |socat| socat).await,
            inside.end(inner, |socat| cabinet.inside(&socat)).await,
        ];
        let (into, into_seen) = watch::channel(Quality::GOOD);
        let (out_of, out_of_seen) = watch::channel(Quality::GOOD);
        // On a thread of its own, so that a busy test does not make a wire slow.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (outside, inside) = (outside.open(), inside.open());
                tokio::join!(carry(&outside, &inside, into_seen), carry(&inside, &outside, out_of_seen))
            });
        });
        Self { address: outer, into, out_of, _ends: ends, _dir: dir }
    }

    /// The address on this side, at which processes in the cabinet find a broker of the test.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// From now on packets are treated like this, those that are under way as well.
    pub fn set(&self, quality: Quality) {
        self.into.send_replace(quality);
        self.set_out_of(quality);
    }

    /// The same for packets that come out of the cabinet.
    pub fn set_out_of(&self, quality: Quality) {
        self.out_of.send_replace(quality);
    }
}

/// Where packets of one end come out of the wire and go into it.
struct Plug {
    socket: std::os::unix::net::UnixDatagram,
    wire: PathBuf,
    end: PathBuf,
}

impl Plug {
    fn new(dir: &Path, name: &str) -> Self {
        let (wire, end) = (dir.join(format!("{name}.wire")), dir.join(format!("{name}.end")));
        let socket = std::os::unix::net::UnixDatagram::bind(&wire).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, wire, end }
    }

    /// The end: a TUN device whose packets socat exchanges with the plug. It is up when this returns.
    async fn end(&self, address: Ipv4Addr, place: impl FnOnce(Command) -> Command) -> Child {
        let mut socat = Command::new("socat");
        // Twice: it says when it works.
        socat.args(["-d", "-d"]).arg(format!("TUN:{address}/24,iff-up,iff-no-pi"));
        socat.arg(format!("UNIX-SENDTO:{},bind={}", self.wire.display(), self.end.display()));
        let mut socat = place(socat);
        let (log, writer) = std::io::pipe().unwrap();
        socat.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        let child =
            tokio::process::Command::from(socat).kill_on_drop(true).spawn().expect("these tests need socat");
        let lines = Lines::default();
        lines.follow(log);
        lines.wait("starting data transfer loop").await;
        self.socket.connect(&self.end).unwrap();
        child
    }

    fn open(self) -> UnixDatagram {
        UnixDatagram::from_std(self.socket).unwrap()
    }
}

/// Carries packets in one direction until nobody can change the quality any more.
async fn carry(from: &UnixDatagram, to: &UnixDatagram, mut quality: watch::Receiver<Quality>) {
    let mut flight = Flight::default();
    let mut packet = [0; 1 << 16];
    loop {
        let now = *quality.borrow_and_update();
        let due = flight.due(now);
        if due.is_some_and(|due| due <= Instant::now()) {
            // An end that is gone takes no packets, as a plug that was pulled.
            let _ = to.send(&flight.leave(now)).await;
            continue;
        }
        tokio::select! {
            size = from.recv(&mut packet) => {
                if let Some(packet) = size.ok().and_then(|size| packet.get(..size)) {
                    flight.enter(packet, now, Instant::now());
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            changed = quality.changed() => if changed.is_err() { return },
        }
    }
}

/// Packets that are under way in one direction. Time is an argument.
struct Flight {
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// when the last bit of the packet before went in
    free: Option<Instant>,
    dice: u64,
}

impl Default for Flight {
    fn default() -> Self {
        // The same losses in every run, as far as the packets are the same. The number is the fraction of the
        // golden ratio.
        Self { packets: VecDeque::new(), free: None, dice: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Flight {
    /// As many as a modem keeps; what is too much is lost.
    const ROOM: usize = 1_000;

    fn enter(&mut self, packet: &[u8], quality: Quality, now: Instant) {
        if self.roll() % 100 >= quality.loss_percent && self.packets.len() < Self::ROOM {
            self.packets.push_back((now, packet.to_vec()));
        }
    }

    /// When the first packet arrives.
    fn due(&self, quality: Quality) -> Option<Instant> {
        Some(self.sent(quality)? + quality.delay)
    }

    fn leave(&mut self, quality: Quality) -> Vec<u8> {
        self.free = self.sent(quality);
        self.packets.pop_front().unwrap().1
    }

    /// When the last bit of the first packet has gone in.
    fn sent(&self, quality: Quality) -> Option<Instant> {
        let (entered, packet) = self.packets.front()?;
        let start = self.free.map_or(*entered, |free| free.max(*entered));
        let bits = 8 * packet.len() as u64;
        Some(quality.bits_per_s.map_or(start, |rate| start + Duration::from_secs(bits) / rate))
    }

    /// Xorshift (Marsaglia, 2003).
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }
}
