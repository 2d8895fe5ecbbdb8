//! Results on their way to more than one place, and by HTTP.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tidegate_tests::box_under_test::{Site, connection};
use tidegate_tests::client::Client;
use tidegate_tests::http_server::{HttpServer, Request};
use tidegate_tests::mosquitto::Mosquitto;

const NUMBERS: &str = r#"
[streams.numbers]
connection = "plant"
topic = "in/n"
fields = { n = "int64" }
"#;

fn site(plant: &Mosquitto, uplinks: &str) -> Site {
    Site::new(&format!("{}{NUMBERS}{uplinks}", connection("plant", plant, "5")))
}

fn by_http(server: &HttpServer, more: &str) -> String {
    let port = server.port();
    format!(
        "url = \"http://127.0.0.1:{port}/tidegate\"\ntimeout = \"2s\"\nbackoff = {{ min = \"10ms\", max \
        = \"50ms\" }}\n{more}\n"
    )
}

fn numbers(range: std::ops::Range<i64>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| ("in/n".to_owned(), json!({ "n": n }).to_string()))
}

fn values(request: &Request) -> Vec<i64> {
    request.body.iter().map(|message| message["row"]["n"].as_i64().unwrap()).collect()
}

/// What the server has confirmed.
fn taken(requests: &[Request]) -> BTreeSet<i64> {
    requests.iter().filter(|request| request.did == "take").flat_map(values).collect()
}

#[tokio::test]
async fn rows_reach_a_web_server_that_fails_in_every_way_and_what_is_repeated_is_the_same() {
    const COUNT: i64 = 3_000;
    let plant = Mosquitto::start().await;
    let mut server = HttpServer::start(&[
        "503:1", "take", "drop", "500", "take", "stall", "429", "drop", "408", "drop", "take",
    ])
    .await;
    let site = site(&plant, &format!("[uplink]\n{}", by_http(&server, "batch = 100")));
    site.rule("rule", "INSERT INTO uplink SELECT n FROM numbers");
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    devices.publish_all(numbers(0..1_000)).await;
    server.wait_until(|requests| requests.iter().filter(|request| request.did == "drop").count() >= 2).await;
    // It goes away, with whatever was under way.
    server.kill().await;
    devices.publish_all(numbers(1_000..2_000)).await;
    server.restart(&["drop", "503", "drop"]).await;
    devices.publish_all(numbers(2_000..COUNT)).await;
    let requests =
        server.wait_until(|requests| taken(requests).len() >= usize::try_from(COUNT).unwrap()).await;
    assert_eq!(taken(&requests), (0..COUNT).collect());
    // Whatever came more than once came with the same key and as the same request; what is not the same has
    // another key.
    let mut by_row: BTreeMap<i64, &Request> = BTreeMap::new();
    let mut repeats = 0;
    for request in &requests {
        assert!(request.body.len() <= 100 && !request.body.is_empty());
        for value in values(request) {
            let first = *by_row.entry(value).or_insert(request);
            assert_eq!((first.key(), &first.body), (request.key(), &request.body), "row {value}");
            repeats += u32::from(!std::ptr::eq(first, request));
        }
    }
    let keys: BTreeSet<&str> = requests.iter().map(Request::key).collect();
    let bodies: BTreeSet<String> = requests.iter().map(|request| json!(request.body).to_string()).collect();
    assert_eq!(keys.len(), bodies.len());
    assert!(repeats > 0, "nothing had to be sent again");
    // The outbox is empty, so a restart sends nothing.
    assert!(the_box.stop().await.success());
    let before = server.requests().len();
    let again = site.run();
    plant.subscribed("in/n").await;
    devices.publish_all(numbers(COUNT..COUNT + 1)).await;
    let requests = server.wait_until(|requests| taken(requests).contains(&COUNT)).await;
    assert_eq!(requests[before..].iter().flat_map(values).collect::<Vec<_>>(), [COUNT]);
    assert!(again.stop().await.success());
}

#[tokio::test]
async fn a_row_that_the_server_refuses_does_not_take_others_with_it() {
    let plant = Mosquitto::start().await;
    let server = HttpServer::start(&["bad=\"n\":7}"]).await;
    let site = site(&plant, &format!("[uplink]\n{}", by_http(&server, "")));
    site.rule("rule", "INSERT INTO uplink SELECT n FROM numbers");
    let the_box = site.run();
    plant.subscribed("in/n").await;
    Client::publisher(&plant).await.publish_all(numbers(0..200)).await;
    let requests = server.wait_until(|requests| taken(requests).len() >= 199).await;
    assert_eq!(taken(&requests), (0..200).filter(|n| *n != 7).collect());
    let said = the_box.log().wait("a block cannot be delivered").await;
    assert!(said.contains("400 Bad Request: the script says 400"), "{said}");
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn each_uplink_has_its_own_progress_and_gets_what_its_rules_write() {
    let (plant, cloud) = (Mosquitto::start().await, Mosquitto::start().await);
    let mut historian = HttpServer::start(&[]).await;
    let web = by_http(&historian, "rules = [\"even\"]");
    let uplinks = format!(
        "{}[uplinks.cloud]\nconnection = \"cloud\"\n[uplinks.historian]\n{web}",
        connection("cloud", &cloud, "5")
    );
    let site = site(&plant, &uplinks);
    site.rule("even", "INSERT INTO uplink SELECT n FROM numbers WHERE n % 2 = 0");
    site.rule("odd", "INSERT INTO uplink SELECT n FROM numbers WHERE n % 2 = 1");
    historian.kill().await;
    let mut listener = Client::subscriber(&cloud, "tidegate/box/+").await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    let devices = Client::publisher(&plant).await;
    devices.publish_all(numbers(0..1_000)).await;
    // One that is away does not hold up the other.
    let mut seen = BTreeSet::new();
    listener
        .take_until(|message| {
            seen.insert(message.json()["row"]["n"].as_i64().unwrap());
            seen.len() >= 1_000
        })
        .await;
    // Nor does a restart make the box forget who has what.
    assert!(the_box.stop().await.success());
    let the_box = site.run();
    plant.subscribed("in/n").await;
    historian.restart(&[]).await;
    devices.publish_all(numbers(1_000..1_010)).await;
    let requests = historian.wait_until(|requests| taken(requests).len() >= 505).await;
    assert_eq!(taken(&requests), (0..1_010).filter(|n| n % 2 == 0).collect());
    assert!(requests.iter().flat_map(|request| &request.body).all(|message| message["rule"] == "even"));
    assert!(
        requests
            .iter()
            .flat_map(|request| &request.body)
            .all(|message| message["id"].as_str().unwrap().starts_with("box/even/"))
    );
    let mut late = Vec::new();
    listener
        .take_until(|message| {
            late.push(message.json()["row"]["n"].as_i64().unwrap());
            late.contains(&1_009)
        })
        .await;
    // Only what the broker had not confirmed when the box stopped comes again.
    assert!(late.iter().filter(|n| **n < 1_000).count() < 1_000, "sent twice: {late:?}");
    assert!(the_box.stop().await.success());
}

#[tokio::test]
async fn rows_that_are_too_old_when_the_cloud_comes_back_are_reported_and_not_sent() {
    let (plant, mut cloud) = (Mosquitto::start().await, Mosquitto::start().await);
    let site =
        site(&plant, &format!("{}[uplink]\nconnection = \"cloud\"\n", connection("cloud", &cloud, "5")));
    site.rule("fleeting", "--! ttl = \"1s\"\nINSERT INTO uplink SELECT n FROM numbers");
    site.rule("lasting", "INSERT INTO uplink SELECT n FROM numbers");
    let mut listener = Client::subscriber(&cloud, "tidegate/box/+").await;
    let the_box = site.run();
    plant.subscribed("in/n").await;
    cloud.stop().await;
    let devices = Client::publisher(&plant).await;
    devices.publish_all(numbers(0..100)).await;
    the_box.log().wait("rows were older than their `ttl`").await;
    let stats = site.tidegate(&["buffer", "stats"]);
    let stats = String::from_utf8(stats.stdout).unwrap();
    assert!(stats.contains("expired"), "{stats}");
    cloud.restart().await;
    let (mut lasting, mut fleeting, mut gaps) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    listener
        .take_until(|message| {
            let json = message.json();
            let rows = if json["rule"] == "lasting" { &mut lasting } else { &mut fleeting };
            match json["row"]["n"].as_i64() {
                Some(n) => drop(rows.insert(n)),
                None => {
                    assert_eq!(
                        (&json["rule"], &json["gap"]["reason"]),
                        (&json!("fleeting"), &json!("expired"))
                    );
                    gaps.insert(json["id"].to_string(), json["gap"]["rows"].as_u64().unwrap());
                }
            }
            lasting.len() >= 100 && fleeting.len() as u64 + gaps.values().sum::<u64>() >= 100
        })
        .await;
    // On a busy machine some of them may have been young enough.
    assert_eq!(fleeting.len() as u64 + gaps.values().sum::<u64>(), 100);
    assert!(fleeting.len() < 100);
    // What comes now is young enough.
    devices.publish_all(numbers(100..101)).await;
    listener
        .take_until(|message| message.json()["rule"] == "fleeting" && message.json()["row"]["n"] == 100)
        .await;
    assert!(the_box.stop().await.success());
}
