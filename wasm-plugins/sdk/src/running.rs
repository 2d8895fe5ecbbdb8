//! A plugin at work: what each call from the box becomes.

use crate::Plugin;
use crate::columns::{Table, Values};
use crate::error::Error;
use crate::out::Out;
use crate::rows::Batch;
use crate::schema::Schema;
use crate::state::State;

/// A plugin with the schema that it was made for.
pub struct Running<P> {
    plugin: P,
    schema: Schema,
}

impl<P: Plugin> Running<P> {
    pub(crate) fn new(config: &str, inputs: Vec<Table>, targets: Vec<Table>) -> Result<Self, String> {
        let config = serde_json::from_str(config).map_err(|error| {
            // The place in the JSON that the box made of NAME.toml says nothing to anybody.
            let text = error.to_string();
            let end = text.rfind(" at line ").unwrap_or(text.len());
            format!("[config]: {}", &text[..end])
        })?;
        let schema = Schema::new(inputs, targets);
        let plugin = P::new(config, &schema).map_err(|error| error.text().to_owned())?;
        Ok(Self { plugin, schema })
    }

    pub(crate) fn on_batch(&self, input: u32, rows: u32, columns: &[Values]) -> Result<(), String> {
        if input as usize >= self.schema.inputs.len() {
            return Err(format!("there is no input {input}"));
        }
        let batch = Batch { schema: &self.schema, input, rows: rows as usize, columns };
        self.call(|state, out| self.plugin.on_batch(batch, state, out))
    }

    pub(crate) fn on_timer(&self, tag: &str) -> Result<(), String> {
        self.call(|state, out| self.plugin.on_timer(tag, state, out))
    }

    /// State is loaded once a call, and what was written is handed over once.
    fn call(&self, body: impl FnOnce(&mut P::State, &mut Out) -> Result<(), Error>) -> Result<(), String> {
        let mut state = P::State::load(P::STATE_VERSION);
        let mut out = Out::default();
        body(&mut state.value, &mut out).map_err(|error| error.text().to_owned())?;
        out.hand_over();
        P::State::store(state, P::STATE_VERSION);
        Ok(())
    }
}
