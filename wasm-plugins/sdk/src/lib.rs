//! What plugins for Tidegate are made with: a struct, the trait [`Plugin`], and the macro [`export!`].
//!
//! ```
//! use serde::Deserialize;
//! use tidegate_plugin::prelude::*;
//!
//! /// Counts the parts of each machine, and writes how many there were.
//! struct Counter {
//!     device: Column<str>,
//!     done: Column<bool>,
//!     counts: Target,
//!     count: Field<i64>,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     column: String,
//! }
//!
//! impl Plugin for Counter {
//!     type Config = Config;
//!     type State = Keyed<i64>;
//!
//!     fn new(config: Config, schema: &Schema) -> Result<Self> {
//!         let counts = schema.only_target()?;
//!         Ok(Self {
//!             device: schema.column("device")?,
//!             done: schema.column(&config.column)?,
//!             count: counts.field("count")?,
//!             counts,
//!         })
//!     }
//!
//!     fn on_row(&self, row: Row<'_>, state: &mut Self::State, out: &mut Out) -> Result<()> {
//!         if row.get(&self.done) != Some(true) {
//!             return Ok(());
//!         }
//!         let count = state.entry(row.get(&self.device).unwrap_or_default());
//!         *count += 1;
//!         out.write(&self.counts, &[self.count.is(*count)]);
//!         Ok(())
//!     }
//! }
//!
//! export!(Counter);
//! ```
//!
//! * [`Schema`]: which columns there are; [`Row`], [`Batch`]: their values; [`Out`]: what a plugin writes.
//! * [`State`], [`Keyed`]: what it knows of earlier rows. Nothing else is kept: its memory may be thrown away
//!   after any call.
//! * [`testing`]: a plugin at work without a box, for `cargo test`.

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod abi;
mod columns;
mod error;
mod export;
mod host;
mod out;
mod rows;
#[doc(hidden)]
pub mod running;
mod schema;
mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod value;

pub use columns::Kind;
pub use error::{Error, Result};
pub use host::Level;
pub use out::Out;
pub use rows::{Batch, Cells, Row};
pub use schema::{Column, Field, Input, Schema, Target};
pub use state::{Keyed, State};
pub use value::{Cell, Timestamp, Value};

/// What nearly every plugin needs.
pub mod prelude {
    pub use crate::{
        Batch, Column, Error, Field, Keyed, Level, Out, Plugin, Result, Row, Schema, Target, Timestamp,
        export,
    };
}

/// A rule.
///
/// It is made anew whenever the box likes, and whatever it is handed first then, it must go on as if nothing
/// had been. So it cannot change itself: what it knows of earlier rows is in `state`. (`Sync` keeps `Cell`
/// and `RefCell` out of it.)
pub trait Plugin: Send + Sync + Sized + 'static {
    /// What `[config]` of `NAME.toml` says. With `#[serde(deny_unknown_fields)]` a misspelt key is an error.
    type Config: serde::de::DeserializeOwned;
    /// What it keeps: anything that is `Serialize`, `Deserialize` and `Default`, or such a thing a key
    /// ([`Keyed`]). `()`: nothing.
    type State: State;

    /// Raise it when what was kept means something else now, though it may look the same; then the state
    /// begins anew. A new field needs only `#[serde(default)]`.
    const STATE_VERSION: u16 = 0;

    /// Looks up the columns that it needs, once.
    ///
    /// # Errors
    /// When it cannot work like this, in words for the person who wrote the configuration.
    fn new(config: Self::Config, schema: &Schema) -> Result<Self>;

    /// Takes a row of one of its streams.
    ///
    /// # Errors
    /// When there is something wrong with the row: it is left out, and what was written and kept for it is
    /// taken back. Rows that are of no interest are no error.
    fn on_row(&self, row: Row<'_>, state: &mut Self::State, out: &mut Out) -> Result<()>;

    /// Takes rows of one of its streams. What it does must not depend on where they were cut: it is the same
    /// for one batch of a thousand rows and a thousand batches of one.
    ///
    /// # Errors
    /// As [`Plugin::on_row`], which it calls for each row unless it is written otherwise.
    fn on_batch(&self, batch: Batch<'_>, state: &mut Self::State, out: &mut Out) -> Result<()> {
        batch.rows().try_for_each(|row| {
            out.caused_by(row);
            self.on_row(row, state, out)
        })
    }

    /// The time of a timer has come that [`Out::after`] has set.
    ///
    /// # Errors
    /// As [`Plugin::on_row`].
    fn on_timer(&self, tag: &str, state: &mut Self::State, out: &mut Out) -> Result<()> {
        let _ = (tag, state, out);
        Ok(())
    }

    /// The JSON Schema of [`Plugin::Config`], for people and editors; empty: there is none.
    fn config_schema() -> String {
        String::new()
    }
}
