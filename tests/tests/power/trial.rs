//! A plant, a cloud, and between them a box whose power is cut.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::pin::pin;

use serde_json::json;
use tidegate_tests::box_under_test::{Site, binary, connection};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::dice::Dice;
use tidegate_tests::disk::{Disk, Loss};
use tidegate_tests::machine::Machine;
use tidegate_tests::mosquitto::Mosquitto;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::inspection;

const DISK_BYTES: u64 = 64 << 20;
/// Numbers that are published each time the box starts; and another one for each echo.
const AHEAD: i64 = 200;
const CHUNK: i64 = 50;
/// Long enough for no row to grow so old, whatever the machine's clock says.
const TTL: &str = "[buffer]\nttl = \"1h\"\n";
/// 2023-11-14T22:13:20Z: later than any time that the machine believes in, since a file system does not like
/// the future.
const LATEST_S: u64 = 1_700_000_000;
/// mosquitto's default of messages under way: of what it has sent, all but so many were acknowledged.
const WINDOW: usize = 20;

/// A topic below the uplink's that no row has.
const MARK: &str = "tidegate/mark";

const STREAMS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
fields = { n = "int64" }

[outputs.echo]
connection = "plant"
topic = "echo"
when_full = "block"

[uplink]
connection = "cloud"
"#;

pub struct Trial {
    plant: Mosquitto,
    cloud: Mosquitto,
    cloud_is_there: bool,
    site: Site,
    disk: Disk,
    dice: Dice,
    echoes: Client,
    uplink: Client,
    account: Account,
    /// numbers that the box has echoed
    echoed: HashSet<i64>,
    allowed: watch::Sender<i64>,
    publisher: JoinHandle<(Client, i64)>,
}

/// What has become of the numbers.
#[derive(Debug, Default)]
pub struct Account {
    /// at the cloud, by the ids of their rows
    rows: BTreeMap<String, i64>,
    arrived: HashSet<i64>,
    /// how often the end of what has arrived was marked
    marks: u64,
    /// ids that stood for two numbers
    pub twice: Vec<(String, i64, i64)>,
    /// published, and never at the cloud
    pub missing: Vec<i64>,
}

impl Account {
    fn take(&mut self, message: &Message) {
        if message.topic == MARK {
            return;
        }
        let json = message.json();
        let (id, n) = (json["id"].as_str().unwrap().to_owned(), json["row"]["n"].as_i64().unwrap());
        self.arrived.insert(n);
        if let Some(known) = self.rows.insert(id.clone(), n).filter(|known| *known != n) {
            self.twice.push((id, known, n));
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arrived, rows) = (self.arrived.len(), self.rows.len());
        write!(
            f,
            "{arrived} numbers arrived in {rows} rows; {} are missing; {} ids of two rows",
            self.missing.len(),
            self.twice.len()
        )
    }
}

impl Trial {
    /// Starts to publish. The box has not run yet.
    pub async fn start(disk: impl FnOnce(Vec<u8>, u64) -> Disk, seed: u64) -> Self {
        let plant = Mosquitto::start().await;
        let cloud = Mosquitto::start().await;
        let connections = format!("{}{}", connection("plant", &plant, "5"), connection("cloud", &cloud, "5"));
        // The machine's name for the one that it runs on.
        let connections = connections.replace("127.0.0.1", "10.0.2.2");
        let site = Site::new(&format!("data_dir = \"/var/lib/tidegate\"\n{connections}{STREAMS}{TTL}"));
        site.rule("rule", "INSERT INTO uplink SELECT n FROM numbers; INSERT INTO echo SELECT n FROM numbers");
        let (config, clock, tidegate) = (site.path("tidegate.toml"), site.path("clock"), binary());
        // As distributions do: ext4 refuses a journal whose last block is torn, until its own check has
        // looked at it (1: and mended it).
        let script = format!(
            "set -e\ndate -s @$(cat {})\nexport PATH=$PATH:/usr/sbin:/sbin\n\
             echo write cache: $(cat /sys/block/vda/queue/write_cache)\n\
             e2fsck -p /dev/vda || [ $? = 1 ]\n\
             mkdir -p /var/lib/tidegate\nmount -t ext4 /dev/vda /var/lib/tidegate\n\
             export NO_COLOR=1\n\
             exec {} run --config {} 2>&1\n",
            clock.display(),
            tidegate.display(),
            config.display()
        );
        std::fs::write(site.path("script"), script).unwrap();
        let echoes = Client::subscriber(&plant, "echo").await;
        let uplink = Client::subscriber(&cloud, "tidegate/#").await;
        let (allowed, wanted) = watch::channel(0);
        let publisher = tokio::spawn(publish(Client::publisher(&plant).await, wanted));
        Self {
            plant,
            cloud,
            cloud_is_there: true,
            site,
            disk: disk(inspection::format(DISK_BYTES), seed),
            dice: Dice::new(seed ^ 1),
            echoes,
            uplink,
            account: Account::default(),
            echoed: HashSet::new(),
            allowed,
            publisher,
        }
    }

    /// Boots the box, lets it work for a while, with the cloud or without, and cuts the power. Returns how
    /// many acknowledged numbers only the disk had, at least, and what became of what the disk had not
    /// flushed.
    pub async fn run_until_a_cut(&mut self) -> (usize, Loss) {
        let cloud_is_there = self.dice.chance(1, 3);
        self.cloud(cloud_is_there).await;
        let early = self.dice.chance(1, 4) && !self.echoed.is_empty();
        let new = self.dice.below(400);
        let writes = self.dice.below(60);
        self.run((!early).then_some(new), writes).await
    }

    /// As [`Self::run_until_a_cut`]; a hundred numbers are at stake, at least.
    pub async fn run_until_a_cut_without_the_cloud(&mut self) -> (usize, Loss) {
        self.cloud(false).await;
        self.run(Some(100 + WINDOW as u64), 0).await
    }

    /// Panics if the file system or the buffer on the disk is damaged.
    pub fn inspect_disk(&self) {
        inspection::inspect(&self.disk.image());
    }

    /// Lets the box deliver everything, and accounts for it.
    pub async fn finish(mut self) -> Account {
        self.cloud(true).await;
        let machine = self.boot().await;
        drop(self.allowed);
        let (publisher, published) = self.publisher.await.unwrap();
        // The plant's broker and the box keep the order: when the last number is here, all before it have
        // been committed.
        publisher.publish_all([number(published)]).await;
        while !self.account.arrived.contains(&published) {
            let message = machine.while_running(self.uplink.next()).await;
            self.account.take(&message);
        }
        let waits = machine.console().count();
        machine.while_running(machine.console().wait_after(waits, " outbox_waiting=0 ")).await;
        take_arrived(&self.cloud, &mut self.uplink, &mut self.account).await;
        assert_sound(&machine);
        self.account.missing = (0..published).filter(|n| !self.account.arrived.contains(n)).collect();
        self.account
    }

    async fn cloud(&mut self, there: bool) {
        match (self.cloud_is_there, there) {
            (true, false) => {
                take_arrived(&self.cloud, &mut self.uplink, &mut self.account).await;
                self.cloud.stop().await;
            }
            (false, true) => self.cloud.restart().await,
            _ => {}
        }
        self.cloud_is_there = there;
    }

    /// The power goes at some write after so many `new` numbers, or, without any, while the box starts.
    async fn run(&mut self, new: Option<u64>, writes: u64) -> (usize, Loss) {
        let early = new.is_none().then(|| self.disk.stall_after(writes));
        let machine = self.boot().await;
        if self.echoed.is_empty() {
            machine.while_running(self.plant.subscribed("in/n")).await;
        }
        // Echoes of what was acknowledged may be lost with the power, so they alone would not keep it going.
        self.allowed.send_modify(|allowed| *allowed += AHEAD);
        let enough = self.echoed.len() + usize::try_from(new.unwrap_or(0)).unwrap();
        while self.echoed.len() < enough {
            machine.while_running(self.echo()).await;
        }
        let mut stalled = pin!(early.unwrap_or_else(|| self.disk.stall_after(writes)));
        loop {
            tokio::select! {
                () = &mut stalled => break,
                () = machine.while_running(self.echo()) => {}
            }
        }
        assert_sound(&machine);
        machine.kill().await;
        let loss = self.disk.cut().await;
        if self.cloud_is_there {
            take_arrived(&self.cloud, &mut self.uplink, &mut self.account).await;
        }
        let acknowledged = self.echoed.len().saturating_sub(WINDOW);
        (acknowledged.saturating_sub(self.account.arrived.len()), loss)
    }

    /// Takes an echo, and lets the publisher go on.
    async fn echo(&mut self) {
        let echo = self.echoes.next().await;
        self.echoed.insert(echo.json()["n"].as_i64().unwrap());
        self.allowed.send_modify(|allowed| *allowed += 1);
    }

    async fn boot(&mut self) -> Machine {
        std::fs::write(self.site.path("clock"), (600 + self.dice.below(LATEST_S)).to_string()).unwrap();
        let mut options = vec!["-nic".into(), "user,model=virtio-net-pci".into()];
        options.extend(self.disk.qemu_options());
        let machine = Machine::boot(&self.site.path("script"), &options).await;
        machine.while_running(machine.console().wait("write cache: write back")).await;
        machine
    }
}

/// Takes all that the cloud's broker has.
async fn take_arrived(cloud: &Mosquitto, uplink: &mut Client, account: &mut Account) {
    // An earlier mark may come again, when the cloud's broker was stopped before it had the acknowledgement.
    account.marks += 1;
    let mark = account.marks.to_string();
    Client::publisher(cloud).await.publish(MARK, mark.clone()).await;
    for message in uplink.take_until(|message| message.topic == MARK && message.text() == mark).await {
        account.take(&message);
    }
}

/// Panics if the kernel or the box has met with damage.
fn assert_sound(machine: &Machine) {
    for bad in ["EXT4-fs error", "I/O error", "Kernel panic", "buffer was damaged", "vm: exit="] {
        if let Some(line) = machine.console().find(bad) {
            panic!("{line}");
        }
    }
}

/// Publishes numbers as far as `allowed` says, until nobody says any more. Returns how many the plant's
/// broker has taken.
async fn publish(client: Client, mut allowed: watch::Receiver<i64>) -> (Client, i64) {
    let mut next = 0;
    while allowed.wait_for(|allowed| *allowed >= next + CHUNK).await.is_ok() {
        client.publish_all((next..next + CHUNK).map(number)).await;
        next += CHUNK;
    }
    (client, next)
}

fn number(n: i64) -> (String, String) {
    ("in/n".to_owned(), json!({ "n": n }).to_string())
}
