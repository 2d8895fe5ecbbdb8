//! The disk does not take writes any more, because it is full, or because Linux has met with an error on it
//! and turned it read-only. Rules go on meanwhile, the box says what is wrong, and in the end everything has
//! arrived: of a stream that goes on, when there is room again before the box ends, and of one that holds,
//! also when the box has been killed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tidegate_tests::PATIENCE;
use tidegate_tests::box_under_test::{Site, binary, connection};
use tidegate_tests::client::Client;
use tidegate_tests::disk::Disk;
use tidegate_tests::machine::Machine;
use tidegate_tests::mosquitto::Mosquitto;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::inspection;

const DISK_BYTES: u64 = 24 << 20;
/// Rows that are to be stored, before and while the disk refuses.
const BEFORE: i64 = 50;
const ALL: i64 = 300;
/// Rows that only pass through.
const PASSING: i64 = 200;

/// `numbers` is journaled and goes to the cloud; `quick` is not, and goes to an output.
const STREAMS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
fields = { n = "int64", text = "utf8" }
on_disk_failure = "WHAT_NUMBERS_DO"

[streams.quick]
connection = "plant"
topic = "in/quick"
qos = 0
fields = { n = "int64" }

[outputs.echo]
connection = "plant"
topic = "echo"
when_full = "block"

[outputs.moves]
connection = "plant"
topic = "moves"
when_full = "block"

[uplink]
connection = "cloud"
"#;

/// How a disk comes to refuse, and how that ends.
struct Trouble {
    /// what stream `numbers` does
    on_disk_failure: &'static str,
    begin: &'static str,
    /// what the box says of it
    complaint: &'static str,
    end: &'static str,
    /// what the box says then
    relief: &'static str,
}

/// Filled to its last block, which passes by itself when somebody makes room.
const FULL: Trouble = Trouble {
    on_disk_failure: "go_on",
    begin: "for size in 1M 4k 512; do dd if=/dev/zero bs=$size >>/data/filler 2>/dev/null; done",
    complaint: "its file system is full: free some space",
    end: "rm /data/filler",
    relief: "the buffer can be written again",
};
/// After an error in the file system, which is mended while it is not in use.
const READ_ONLY: Trouble = Trouble {
    on_disk_failure: "hold",
    begin: "echo 1 >/sys/fs/ext4/vda/trigger_fs_error; while touch /data/probe 2>/dev/null; do :; done",
    complaint: "check",
    end: "kill -KILL $!; wait $!; umount /data; e2fsck -p /dev/vda; mount_disk && start_box",
    relief: "the box runs",
};

/// A machine in which commands are run beside the box.
struct Stage {
    machine: Machine,
    commands: TcpStream,
    plant: Mosquitto,
    cloud: Mosquitto,
    disk: Disk,
    _site: Site,
}

impl Stage {
    async fn set(on_disk_failure: &str) -> Self {
        let (plant, cloud) = (Mosquitto::start().await, Mosquitto::start().await);
        let connections = format!("{}{}", connection("plant", &plant, "5"), connection("cloud", &cloud, "5"));
        // The machine's name for the one that it runs on.
        let connections = connections.replace("127.0.0.1", "10.0.2.2");
        let streams = STREAMS.replace("WHAT_NUMBERS_DO", on_disk_failure);
        let site = Site::new(&format!("data_dir = \"/data\"\n{connections}{streams}"));
        site.rule("store", "INSERT INTO uplink SELECT n, text FROM numbers");
        site.rule("pass", "INSERT INTO echo SELECT n FROM quick");
        site.rule("move", "INSERT INTO moves SELECT n FROM numbers");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = format!(
            "exec bash -c '\n\
             mount_disk() {{ mount -t ext4 -o errors=remount-ro /dev/vda /data; }}\n\
             start_box() {{ NO_COLOR=1 {tidegate} run --config {config} 2>&1 3>&- & }}\n\
             export PATH=$PATH:/usr/sbin:/sbin\n\
             exec 3<>/dev/tcp/10.0.2.2/{port} && mkdir -p /data && mount_disk && start_box || exit 1\n\
             while read -r command <&3; do eval \"$command\"; echo \"done: $command\"; done\n\
             kill -TERM $! && wait $!'\n",
            port = listener.local_addr().unwrap().port(),
            tidegate = binary().display(),
            config = site.path("tidegate.toml").display()
        );
        std::fs::write(site.path("script"), script).unwrap();
        let disk = Disk::new(inspection::format(DISK_BYTES), 1);
        let mut options = vec!["-nic".into(), "user,model=virtio-net-pci".into()];
        options.extend(disk.qemu_options());
        let machine = Machine::boot(&site.path("script"), &options).await;
        let commands = machine.while_running(timeout(PATIENCE, listener.accept())).await.unwrap().unwrap().0;
        machine.while_running(plant.subscribed("in/n")).await;
        Self { machine, commands, plant, cloud, disk, _site: site }
    }

    async fn command(&mut self, command: &str) {
        let before = self.machine.console().count();
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.machine
            .while_running(self.machine.console().wait_after(before, &format!("done: {command}")))
            .await;
    }

    async fn says(&self, text: &str) -> String {
        self.machine.while_running(self.machine.console().wait(text)).await
    }
}

fn numbers(range: std::ops::Range<i64>) -> impl Iterator<Item = (String, String)> {
    // Not to be packed: the buffer has to grow.
    let text = |n: i64| {
        (0..60)
            .map(|i| format!("{:016x}", (n * 60 + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)))
            .collect()
    };
    range.map(move |n| {
        ("in/n".to_owned(), json!({ "n": n, "text": Box::<str>::from(String::as_str(&text(n))) }).to_string())
    })
}

async fn a_disk_refuses(trouble: Trouble) {
    let mut stage = Stage::set(trouble.on_disk_failure).await;
    let mut uplink = Client::subscriber(&stage.cloud, "tidegate/box/store").await;
    let mut echoes = Client::subscriber(&stage.plant, "echo").await;
    let mut moves = Client::subscriber(&stage.plant, "moves").await;
    let devices = Client::publisher(&stage.plant).await;
    devices.publish_all(numbers(0..BEFORE)).await;
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    let mut enter = |message: &tidegate_tests::client::Message| {
        let json = message.json();
        let (id, n) = (json["id"].as_str().unwrap().to_owned(), json["row"]["n"].as_i64().unwrap());
        assert!(rows.insert(id.clone(), n).is_none_or(|known| known == n), "{id} stands for two rows");
        rows.values().collect::<BTreeSet<_>>().len() as i64
    };
    stage.machine.while_running(uplink.take_until(|message| enter(message) == BEFORE)).await;

    stage.command(trouble.begin).await;
    devices.publish_all(numbers(BEFORE..ALL)).await;
    let said = stage.says("the buffer cannot be written; until it can, rows are held").await;
    assert!(said.contains(trouble.complaint), "{said}");
    devices.publish_all((0..PASSING).map(|n| ("in/quick".to_owned(), json!({ "n": n }).to_string()))).await;
    let passed = stage.machine.while_running(echoes.take(PASSING as usize)).await;
    assert!(passed.iter().map(|message| message.json()["n"].as_i64().unwrap()).eq(0..PASSING));

    if trouble.on_disk_failure == "go_on" {
        let moved = stage.machine.while_running(moves.take(ALL as usize)).await;
        assert!(moved.iter().map(|message| message.json()["n"].as_i64().unwrap()).eq(0..ALL));
    }

    let before = stage.machine.console().count();
    assert!(stage.machine.console().find("the buffer can be written again").is_none());
    stage.command(trouble.end).await;
    stage.machine.while_running(stage.machine.console().wait_after(before, trouble.relief)).await;
    stage.machine.while_running(uplink.take_until(|message| enter(message) == ALL)).await;
    assert!(rows.values().copied().collect::<BTreeSet<_>>().into_iter().eq(0..ALL));
    let Stage { machine, commands, disk, .. } = stage;
    drop(commands);
    let ended = machine.console().wait("vm: exit=").await;
    assert_eq!(ended.trim_end(), "vm: exit=0");
    inspection::inspect(&disk.image());
}

#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    ignore = "the virtual machine needs Linux on x86-64"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_no_rule_and_loses_nothing() {
    a_disk_refuses(FULL).await;
}

#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    ignore = "the virtual machine needs Linux on x86-64"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_stops_no_rule_and_loses_nothing() {
    a_disk_refuses(READ_ONLY).await;
}
