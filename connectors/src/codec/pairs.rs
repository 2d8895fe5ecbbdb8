//! Text that names its values: `T=21.5;RH=48`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::column::Scalar;
use super::csv::Delimiter;
use super::decode::{Decoder, Place};
use super::layout::ROW;
use super::pattern::text_of;
use super::tokens::Fault;

/// `{ key_value = { pairs = ";", separator = ":" } }`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PairFormat {
    /// what separates pairs; when absent, blanks, line ends, `,`, `;` and `&`
    pub pairs: Option<Delimiter>,
    /// what separates a key and its value; when absent, the first `=` or else `:`
    pub separator: Option<Delimiter>,
}

impl PairFormat {
    fn ends_pair(self, mark: char) -> bool {
        match self.pairs {
            Some(pairs) => mark == pairs.mark(),
            None => mark.is_whitespace() || matches!(mark, ',' | ';' | '&'),
        }
    }

    fn split(self, pair: &str) -> Option<(&str, &str)> {
        let split = match self.separator {
            Some(separator) => pair.split_once(separator.mark()),
            None => pair.split_once('=').or_else(|| pair.split_once(':')),
        };
        split.map(|(key, value)| (key.trim(), value.trim()))
    }

    /// The pairs of a text. A value in quotes keeps what separates pairs elsewhere.
    fn pairs(self, text: &str) -> impl Iterator<Item = &str> {
        let mut is_quoted = false;
        text.split(move |mark: char| {
            is_quoted ^= mark == '"';
            !is_quoted && self.ends_pair(mark)
        })
    }
}

impl Decoder {
    /// Adds the row of a text of pairs.
    pub(super) fn read_pairs(&mut self, payload: &[u8], format: PairFormat) -> Result<(), Fault> {
        let text = text_of(payload);
        self.begin_row();
        let mut is_any = false;
        for pair in format.pairs(&text) {
            // A word between pairs, such as a name in front, is none.
            let Some((key, value)) = format.split(pair).filter(|(key, _)| !key.is_empty()) else { continue };
            is_any = true;
            let Some(key) = self.find(ROW, key) else { continue };
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            let value = if value.is_empty() { Scalar::Null } else { Scalar::Text(value) };
            self.put(Place { node: ROW, key }, value);
        }
        if !is_any {
            return Err(Fault::Malformed("there is no pair of a key and a value in it".into()));
        }
        self.end_row()
    }
}
