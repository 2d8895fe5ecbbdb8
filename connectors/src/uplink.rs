//! What the engine asks of a way to the cloud.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};
use tidegate_core::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::connection::{ConnectionConfig, OpenError};
use crate::status::{FarSideStatus, LineStatus};
use crate::table::{At, Review, Table, inline};
use crate::{DeliveryError, http, mqtt};

/// `[uplink]` or `[uplinks.NAME]`, for each kind.
#[derive(Debug, Clone, PartialEq)]
pub enum UplinkConfig {
    /// a message a row
    Mqtt(mqtt::UplinkConfig),
    /// a request for up to a batch of rows
    Http(http::UplinkConfig),
}

/// What an uplink is opened with.
pub struct Request<'a> {
    /// The uplink's name in the configuration.
    pub name: &'a str,
    /// The box's name.
    pub box_name: &'a str,
    /// The connection that it goes by, if it goes by one that is configured.
    pub connection: Option<&'a ConnectionConfig>,
    /// Whether others go by that connection, too: they have another session.
    pub is_shared: bool,
    /// Where times come from.
    pub clock: Arc<dyn Clock>,
    /// Where it says whether the far side is there.
    pub status: Arc<FarSideStatus>,
    /// Where a line of this name counts.
    pub lines: &'a dyn Fn(&str) -> Arc<LineStatus>,
    /// Ends the session.
    pub stop: CancellationToken,
}

/// A way to the cloud that is ready to run.
pub struct FarSide {
    /// Takes messages.
    pub uplink: Box<dyn Uplink>,
    /// What has to run for that, with names.
    pub tasks: Vec<(String, BoxFuture<'static, ()>)>,
}

/// Resolves when the far side has confirmed a parcel.
pub type Confirmation = BoxFuture<'static, Result<(), DeliveryError>>;

/// Rows of one rule that are sent together, or the record of a gap.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The rule; `*` when nobody knows whose rows are missing.
    pub rule: Arc<str>,
    /// A JSON object a row.
    pub messages: Vec<Bytes>,
}

/// The far side.
pub trait Uplink: Send + 'static {
    /// How many rows a parcel may have.
    fn batch(&self) -> usize;

    /// Sends a parcel, and returns when it is on its way. It is confirmed, or refused for good, as a whole.
    fn send(&mut self, parcel: Parcel) -> BoxFuture<'_, Result<Confirmation, DeliveryError>>;

    /// Some number while the line is up, another one for each time it came up.
    fn generation(&self) -> watch::Receiver<Option<u64>>;

    /// How often the far side has closed the line without a reason that belongs to a row; counted before
    /// [`Self::generation`] says so.
    fn hang_ups(&self) -> u64 {
        0
    }
}

impl Uplink for Box<dyn Uplink> {
    fn batch(&self) -> usize {
        (**self).batch()
    }

    fn send(&mut self, parcel: Parcel) -> BoxFuture<'_, Result<Confirmation, DeliveryError>> {
        (**self).send(parcel)
    }

    fn generation(&self) -> watch::Receiver<Option<u64>> {
        (**self).generation()
    }

    fn hang_ups(&self) -> u64 {
        (**self).hang_ups()
    }
}

impl UplinkConfig {
    /// Reads the table of an uplink; its keys say of which kind it is.
    pub fn read(table: &mut impl Table, review: &mut Review<'_>) -> Option<Self> {
        match (table.contains("url"), table.contains("connection")) {
            (true, true) => {
                let message = format!("{} has both `connection` and `url`", review.title);
                let help = "`connection` is for MQTT, `url` for HTTP; another way is another [uplinks.NAME]";
                review.error(At::value(&["url"]), message, help.to_owned());
                None
            }
            (true, false) => table.read().map(Self::Http),
            (false, _) => table.read().map(Self::Mqtt),
        }
    }

    /// Says what is wrong with it, and resolves its paths.
    pub fn check(&mut self, connection: Option<&ConnectionConfig>, review: &mut Review<'_>) {
        match self {
            Self::Mqtt(config) => config.check(connection, review),
            Self::Http(config) => config.check(review),
        }
    }

    /// The connection that it goes by, if it goes by one.
    #[must_use]
    pub fn connection(&self) -> Option<&str> {
        match self {
            Self::Mqtt(config) => Some(&config.connection),
            Self::Http(_) => None,
        }
    }

    /// Prepares it; does no network I/O, but reads secrets and other files.
    ///
    /// # Errors
    /// When the configuration is wrong in itself or a file cannot be read. That nobody is there is no error.
    pub fn open(&self, request: Request<'_>) -> Result<FarSide, OpenError> {
        match self {
            Self::Mqtt(config) => mqtt::open_uplink(config, request),
            Self::Http(config) => http::open_uplink(config, request),
        }
    }

    /// What the table may look like, for each kind.
    pub fn schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
        vec![inline::<mqtt::UplinkConfig>(generator), inline::<http::UplinkConfig>(generator)]
    }
}
