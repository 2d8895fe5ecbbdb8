//! Rules change while data flows.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use serde_json::json;
use tidegate_tests::box_under_test::{RunningBox, Site, connection};
use tidegate_tests::client::{Client, Message};
use tidegate_tests::mosquitto::Mosquitto;
use tokio::sync::watch;

const NUMBERS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
ts = "time"
fields = { n = "int64" }

[outputs.out]
connection = "plant"
topic = "out"
when_full = "block"

[outputs.windows]
connection = "plant"
topic = "windows"
"#;

/// 2026-01-01T00:00:00Z
const NEW_YEAR_MS: i64 = 1_767_225_600_000;

struct Stage {
    broker: Mosquitto,
    site: Site,
    out: Client,
    devices: Client,
    the_box: RunningBox,
}

/// A box that runs `rule`.
async fn stage(rule: &str) -> Stage {
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{NUMBERS}", connection("plant", &broker, "5")));
    site.rule("rule", rule);
    let out = Client::subscriber(&broker, "out").await;
    let the_box = site.run();
    broker.subscribed("in/n").await;
    let devices = Client::publisher(&broker).await;
    Stage { broker, site, out, devices, the_box }
}

fn version(number: u32) -> String {
    format!("INSERT INTO out SELECT n, {number} AS v FROM numbers WHERE n < 0 OR n >= 0")
}

fn numbers(range: std::ops::Range<i64>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| ("in/n".to_owned(), json!({ "time": NEW_YEAR_MS + n, "n": n }).to_string()))
}

fn n_of(message: &Message) -> i64 {
    message.json()["n"].as_i64().unwrap()
}

fn v_of(message: &Message) -> u64 {
    message.json()["v"].as_u64().unwrap()
}

#[tokio::test]
async fn twenty_versions_under_load_lose_and_double_nothing() {
    const AT_LEAST: i64 = 20_000;
    const LAST: u32 = 20;
    let Stage { broker: _broker, site, out, devices, the_box } = stage(&version(1)).await;
    // As fast as rows come out, with some hundred on their way: a queue that grows in the broker would only
    // delay what is to be seen.
    let (taken, mut progress) = watch::channel(Progress::default());
    let mut publishing = tokio::spawn(async move {
        let mut n = 0;
        while n < AT_LEAST || !progress.borrow_and_update().enough {
            devices.publish_all(numbers(n..n + 200)).await;
            n += 200;
            progress.wait_for(|progress| progress.taken + 600 > n).await.unwrap();
        }
        n
    });
    let mut came = Came { out, messages: Vec::new(), taken };
    came.take_until(|message| n_of(message) == 100).await;
    for number in 2..=LAST {
        match number % 4 {
            0 => site.rule("rule", &version(number)),
            1 => {
                // An editor that writes in place, and stops half-way: the first half would be a good rule,
                // but a wrong one.
                let text = version(number);
                let (half, rest) = text.split_at(text.find(" OR").unwrap());
                let mut file =
                    OpenOptions::new().write(true).truncate(true).open(site.rule_path("rule")).unwrap();
                file.write_all(half.as_bytes()).unwrap();
                let later = came.messages.len() + 150;
                came.take_until(|message| n_of(message) >= i64::try_from(later).unwrap()).await;
                file.write_all(rest.as_bytes()).unwrap();
            }
            2 => {
                // An editor that moves the old file away first.
                fs::remove_file(site.rule_path("rule")).unwrap();
                fs::write(site.rule_path("rule"), version(number)).unwrap();
            }
            _ => {
                let before = the_box.log().count();
                site.rule("rule", "INSERT INTO out SELECT m FROM numbers");
                the_box.log().wait_after(before, "there is no column `m`").await;
                site.rule("rule", &version(number));
            }
        }
        came.take_until(|message| v_of(message) == u64::from(number)).await;
    }
    came.taken.send_modify(|progress| progress.enough = true);
    let count = loop {
        // The publisher may end with the last message or behind it.
        tokio::select! {
            count = &mut publishing => break count.unwrap(),
            () = came.take_until(|_| true) => {}
        }
    };
    if came.messages.last().map(n_of) != Some(count - 1) {
        came.take_until(|message| n_of(message) == count - 1).await;
    }
    if let Some(at) = (0..count).zip(&came.messages).position(|(n, message)| n != n_of(message)) {
        let around: Vec<&str> =
            came.messages[at.saturating_sub(2)..].iter().take(5).map(Message::text).collect();
        panic!(
            "{} messages came for {count}; they are out of step from {at} on: {around:?}",
            came.messages.len()
        );
    }
    assert_eq!(came.messages.len(), usize::try_from(count).unwrap(), "every number came once");
    assert!(came.messages.is_sorted_by_key(v_of), "versions follow each other");
    assert!(the_box.stop().await.success());
    assert_eq!(came.out.rest(), [], "and nothing else");
}

#[derive(Default)]
struct Progress {
    taken: i64,
    enough: bool,
}

/// What came out, with a word to the publisher for each message.
struct Came {
    out: Client,
    messages: Vec<Message>,
    taken: watch::Sender<Progress>,
}

impl Came {
    async fn take_until(&mut self, enough: impl Fn(&Message) -> bool) {
        loop {
            self.messages.push(self.out.next().await);
            self.taken.send_modify(|progress| progress.taken += 1);
            if enough(&self.messages[self.messages.len() - 1]) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_broken_file_is_reported_with_its_place_and_changes_nothing() {
    let Stage { broker: _broker, site, mut out, devices, the_box } = stage(&version(1)).await;
    site.rule("rule", "INSERT INTO out\nSELECT n, 2 AS v\nFROM numbrs");
    let line = the_box.log().wait("rule.sql:3:6").await;
    assert!(line.contains("`numbrs` is not a stream") && line.contains("did you mean `numbers`?"), "{line}");
    devices.publish_all(numbers(0..1)).await;
    assert_eq!(v_of(&out.next().await), 1);
    site.rule("rule", &version(3));
    take_effect(&devices, &mut out, 1, 3).await;
}

#[tokio::test]
async fn a_thousand_files_appear_at_once_and_go_again() {
    const COUNT: usize = 1_000;
    let Stage { broker: _broker, site, mut out, devices, the_box: _the_box } = stage(&version(0)).await;
    let names: Vec<String> = (1..=COUNT).map(|number| format!("many-{number}")).collect();
    for (number, name) in (1..).zip(&names) {
        fs::write(site.rule_path(name), version(number)).unwrap();
    }
    let mut probes = (0..).step_by(2);
    // Rows of one number all come before rows of the next, so the first of these says that all of those have
    // come.
    let mut probe = async |rules: usize| {
        loop {
            let n = probes.next().unwrap();
            devices.publish_all(numbers(n..n + 2)).await;
            let came = out.take_until(|message| n_of(message) == n + 1).await;
            let mut versions: Vec<u64> = came.iter().filter(|message| n_of(message) == n).map(v_of).collect();
            let total = versions.len();
            versions.sort_unstable();
            versions.dedup();
            assert_eq!(versions.len(), total, "no rule ran twice");
            assert!(versions.contains(&0), "the rule that was there before runs on");
            if total == rules {
                return;
            }
        }
    };
    probe(COUNT + 1).await;
    for name in &names {
        fs::remove_file(site.rule_path(name)).unwrap();
    }
    probe(1).await;
}

#[tokio::test]
async fn a_new_threshold_keeps_what_the_open_window_has_counted() {
    let rule = |threshold: i64, version: u32| {
        format!(
            "INSERT INTO windows SELECT {version} AS v, sum(n) AS total, count(*) AS rows
             FROM TUMBLE(numbers, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end \
            HAVING sum(n) > {threshold};
             INSERT INTO out SELECT n, {version} AS v FROM numbers;"
        )
    };
    let Stage { broker, site, mut out, devices, the_box: _the_box } = stage(&rule(1_000, 1)).await;
    let mut windows = Client::subscriber(&broker, "windows").await;
    let at = |second: u32, n: i64| json!({ "time": second * 1_000, "n": n }).to_string();
    for second in 1..=3 {
        devices.publish("in/n", at(second, 10)).await;
    }
    assert!(out.take(3).await.iter().all(|message| v_of(message) == 1));
    site.rule("rule", &rule(25, 2));
    // Rows that add nothing to the sum show when the new version runs.
    let mut probes = 0;
    loop {
        devices.publish("in/n", at(4, 0)).await;
        probes += 1;
        if v_of(&out.next().await) == 2 {
            break;
        }
    }
    devices.publish("in/n", at(10, 0)).await;
    assert_eq!(windows.next().await.json(), json!({ "v": 2, "total": 30, "rows": 3 + probes }));
}

/// Publishes numbers from `n` on until one comes out with `v`.
async fn take_effect(devices: &Client, out: &mut Client, n: i64, v: u64) {
    for n in n.. {
        devices.publish_all(numbers(n..n + 1)).await;
        let message = out.next().await;
        assert_eq!(n_of(&message), n);
        if v_of(&message) == v {
            return;
        }
    }
}

#[tokio::test]
async fn what_is_taken_over_is_said_and_what_a_restart_would_change() {
    let stage = stage(&version(1)).await;
    stage.site.rule("rule", &version(2));
    stage.the_box.log().wait("rule rule: version 2 runs").await;
    let config = stage.site.path("tidegate.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[outputs.new]\nconnection = \"plant\"\ntopic = \"new\"\n")).unwrap();
    stage.the_box.log().wait("the configuration differs from the one that runs").await;
    fs::write(&config, format!("{text}\n[outputs.new]\nconnection = \"plnt\"\ntopic = \"new\"\n")).unwrap();
    stage.the_box.log().wait("(the box goes on with the configuration that it has)").await;
    // Its buffer is looked at before it stops, which needs a configuration that can be read.
    fs::write(&config, text).unwrap();
    assert!(stage.the_box.stop().await.success());
}

#[tokio::test]
async fn a_script_that_cannot_start_leaves_the_one_before_also_after_a_crash_and_a_stop() {
    let script = |start: &str| {
        format!(
            "//! reads = [\"numbers\"]\n//! writes = [\"out\"]\n{start}\nfn on_row(row, state) {{
                state.rows = (state.rows ?? 0) + 1;
                write(\"out\", #{{ n: row.n, v: state.rows }});
            }}\n"
        )
    };
    let broker = Mosquitto::start().await;
    let site = Site::new(&format!("{}{NUMBERS}", connection("plant", &broker, "5")));
    let file = site.path("rules").join("rule.rhai");
    fs::write(&file, script("")).unwrap();
    let mut out = Client::subscriber(&broker, "out").await;
    let mut the_box = site.run();
    broker.subscribed("in/n").await;
    let devices = Client::publisher(&broker).await;
    let mut n = 0;
    // How many rows it has counted, once with each start of the box.
    for end in ["", "crash", "stop"] {
        devices.publish_all(numbers(n..n + 2)).await;
        n += 2;
        let newest = out.take_until(|message| n_of(message) == n - 1).await.pop().unwrap();
        assert_eq!(v_of(&newest), u64::try_from(n).unwrap(), "{end}");
        if end.is_empty() {
            fs::write(&file, script("fn on_start(state) { state.rows = 7; throw \"not now\"; }")).unwrap();
        }
        // A file that was refused is tried again by the next start.
        let line = the_box.log().wait("rule.rhai:3:38: not now, in `on_start`").await;
        assert!(line.contains("the version before keeps running"), "{line}");
        match end {
            "crash" => assert!(the_box.stop().await.success()),
            _ => the_box.kill().await,
        }
        the_box = site.run();
    }
}
