//! A box between a plant and a cloud, and an account of what flows from one to the other.

use crate::box_under_test::{RunningBox, Site, connection};
use crate::client::Client;
use crate::mosquitto::Mosquitto;
use crate::plant::{self, Pace, Plant, Published, Rules};
use crate::reckoning::{Balance, Reckoning};

/// What may differ between trials, as configurations say it.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// of MQTT, on both sides
    pub version: &'static str,
    /// Messages that the plant's broker sends without an acknowledgement; mosquitto's default is 20.
    pub in_flight: &'static str,
    /// threads that run rules
    pub workers: &'static str,
    /// `[buffer]`: more keys of the configuration
    pub buffer: &'static str,
    /// of all rules
    pub lateness: &'static str,
}

/// Both brokers, the box's site, and what the cloud got.
pub struct Trial {
    /// the plant's broker
    pub plant_broker: Mosquitto,
    /// the cloud's broker
    pub cloud_broker: Mosquitto,
    /// of the box
    pub site: Site,
    /// of the site
    pub rules: Rules,
    /// of all that the cloud got
    pub account: Reckoning,
    cloud: Client,
    plant: Option<Plant>,
}

/// How a trial ended.
#[derive(Debug)]
pub struct Outcome {
    /// what was published
    pub published: Published,
    /// whether as much came as had to come
    pub complete: bool,
    /// the account
    pub balance: Balance,
}

impl Trial {
    /// Brokers that run, and a site with rules for the box.
    pub async fn new(terms: Terms) -> Self {
        let Terms { version, in_flight, workers, buffer, lateness } = terms;
        let usual = "allow_anonymous true\npersistence true\nmax_queued_messages 0\n";
        let plant_broker =
            Mosquitto::with_config(&format!("{usual}max_inflight_messages {in_flight}\n")).await;
        let cloud_broker = Mosquitto::start().await;
        let connections = format!(
            "{}{}",
            connection("plant", &plant_broker, version),
            connection("cloud", &cloud_broker, version)
        );
        let site = Site::new(&format!(
            "{connections}{}[rules]\nworkers = {workers}\n[buffer]\n{buffer}\n",
            plant::CONFIG
        ));
        let rules = Rules::write(&site, lateness);
        let cloud = Client::subscriber(&cloud_broker, "tidegate/#").await;
        Self { plant_broker, cloud_broker, site, rules, account: Reckoning::default(), cloud, plant: None }
    }

    /// Starts the box for the first time, and when the plant's broker knows of it the plant.
    pub async fn start(&mut self, pace: Pace) -> RunningBox {
        let the_box = self.site.run();
        self.plant_broker.subscribed(plant::FILTER).await;
        self.plant = Some(Plant::start(Client::publisher(&self.plant_broker).await, pace));
        the_box
    }

    /// Enters what comes until `enough`. False: nothing came for too long.
    pub async fn enter_until(&mut self, enough: impl Fn(&Reckoning) -> bool) -> bool {
        self.enter_rest();
        while !enough(&self.account) {
            let Some(message) = self.cloud.next_if_any().await else { return false };
            self.account.take(&message);
            self.tell_plant();
        }
        true
    }

    /// Enters what comes until so many rows have arrived.
    pub async fn arrive(&mut self, rows: i64) {
        let arrived = self.enter_until(|account| account.arrived() >= rows).await;
        assert!(arrived, "only {} of {rows} rows arrive", self.account.arrived());
    }

    /// Puts a new version of rule `rows` in place, and enters what comes until it has taken effect.
    pub async fn newest_rules(&mut self) {
        self.rules.renew(&self.site, "rows");
        let version = i64::from(self.rules.version());
        let came = self.enter_until(|account| account.versions().contains(&version)).await;
        assert!(came, "version {version} of rule `rows` takes no effect");
    }

    /// Enters what has come.
    pub fn enter_rest(&mut self) {
        self.cloud.rest().iter().for_each(|message| self.account.take(message));
        self.tell_plant();
    }

    fn tell_plant(&self) {
        if let Some(plant) = &self.plant {
            plant.arrived(self.account.arrived());
        }
    }

    /// Stops the plant, closes all windows, waits for what is still under way, stops the box and draws up the
    /// account.
    pub async fn finish(&mut self, the_box: RunningBox) -> Outcome {
        let mut published = self.plant.take().expect("the trial was started").stop().await;
        // The first mark closes the windows of the rows, the second the windows of the first.
        self.mark(&mut published).await;
        self.mark(&mut published).await;
        let complete = self.enter_until(|account| account.is_complete(published.rows)).await;
        self.stop(the_box).await;
        let balance = self.account.balance(published.rows);
        Outcome { published, complete, balance }
    }

    /// Publishes a mark, and enters what comes until it has come.
    async fn mark(&mut self, published: &mut Published) {
        let mark = published.mark().await;
        let came = self.enter_until(|account| account.has(mark)).await;
        assert!(came, "mark {mark} does not come\n{}", self.account.balance(published.rows));
    }

    /// Stops the box in order. All that it has sent is with the broker then, and a message of ours comes
    /// behind it.
    pub async fn stop(&mut self, the_box: RunningBox) {
        let log = the_box.log().clone();
        // What came may be of the process before: one that has just begun does not know what SIGTERM means.
        log.wait("the box runs").await;
        let status = the_box.stop().await;
        assert!(status.success(), "the box ended with {status}\n{}", log.text());
        let goodbye = Client::publisher(&self.cloud_broker).await;
        goodbye.publish("tidegate/goodbye", "").await;
        loop {
            let message = self.cloud.next().await;
            if message.topic == "tidegate/goodbye" {
                return;
            }
            self.account.take(&message);
        }
    }

    /// Starts the box twice more, with nothing new for it. The second time it takes two marks, so that
    /// whatever the first start has left on disk is sent before them. Returns the account after that.
    pub async fn start_for_nothing(&mut self, published: &mut Published) -> Balance {
        let before = self.account.messages();
        let the_box = self.site.run();
        the_box.log().wait("connection=cloud}: tidegate_connectors::mqtt::losses: connected").await;
        self.stop(the_box).await;
        assert_eq!(self.account.messages(), before, "nothing new came in, and yet something new was sent");
        let the_box = self.site.run();
        self.mark(published).await;
        self.mark(published).await;
        self.stop(the_box).await;
        self.account.balance(published.rows)
    }
}
