//! What a rule is made of: bytes in a language, which their SHA-256 names.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_core::Diagnostic;

/// In what a rule is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// SQL:2016 for streams.
    Sql,
    /// A script: <https://rhai.rs>.
    Rhai,
    /// Whatever becomes a WebAssembly component.
    Wasm,
}

impl Language {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Sql, Self::Rhai, Self::Wasm];

    /// How the names of its files end. Nothing else says what a file is written in.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Rhai => "rhai",
            Self::Wasm => "wasm",
        }
    }

    /// The language of a file; `None`: it is no rule.
    #[must_use]
    pub fn from_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        Self::ALL.into_iter().find(|language| extension == language.extension())
    }

    /// How the name of the file ends that belongs to one of this language, and says what options of other
    /// languages say.
    #[must_use]
    pub fn manifest_extension(self) -> Option<&'static str> {
        match self {
            Self::Wasm => Some("toml"),
            _ => None,
        }
    }

    /// Longer sources are not read: nobody means them.
    #[must_use]
    pub fn max_bytes(self) -> u64 {
        match self {
            Self::Sql | Self::Rhai => 1 << 20,
            // An interpreter of Python, three times over.
            Self::Wasm => 64 << 20,
        }
    }
}

/// What a rule is made of. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    language: Language,
    bytes: Arc<[u8]>,
    sha256: Arc<str>,
}

impl Source {
    /// `bytes` in `language`.
    #[must_use]
    pub fn new(language: Language, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        Self { language, sha256: sha256(bytes), bytes: Arc::from(bytes) }
    }

    /// In what it is written.
    #[must_use]
    pub fn language(&self) -> Language {
        self.language
    }

    /// As they are in the file.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Of the bytes, see [`sha256`].
    #[must_use]
    pub fn sha256(&self) -> &Arc<str> {
        &self.sha256
    }

    /// Whether `name` stands in it somewhere.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        name.is_empty() || self.bytes.windows(name.len()).any(|window| window == name.as_bytes())
    }

    /// The text of `file`, for languages that are text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self, file: &str) -> Result<&str, Diagnostic> {
        let text = std::str::from_utf8(&self.bytes).map_err(|error| {
            let what = format!("the rule is not UTF-8 text (byte {})", error.valid_up_to());
            Diagnostic::new(file, what).help("save the file as UTF-8".to_owned())
        })?;
        // Editors of Windows begin a file with a byte order mark.
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.language == other.language && self.sha256 == other.sha256
    }
}

impl Eq for Source {}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.language.extension(), self.sha256)
    }
}

/// The SHA-256 of `bytes` (FIPS 180-4), in hexadecimal digits as `sha256sum` prints them.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Arc<str> {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_named_by_their_sha256() {
        // The first example of FIPS 180-4's secure hash standard, "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(&*sha256(b"abc"), expected);
        let source = Source::new(Language::Sql, "abc");
        assert_eq!((&**source.sha256(), source.text("a.sql")), (expected, Ok("abc")));
        assert_eq!(source, Source::new(Language::Sql, b"abc"));
        let contains = ["", "a", "bc", "abc", "ac", "abcd"].map(|name| source.contains(name));
        assert_eq!(contains, [true, true, true, true, false, false]);
    }

    #[test]
    fn a_files_extension_says_its_language() {
        let language = |path: &str| Language::from_path(Path::new(path));
        assert_eq!(language("rules/a.b.sql"), Some(Language::Sql));
        assert_eq!([language("a.SQL"), language("a.sql~"), language("sql"), language("a.txt")], [None; 4]);
        for one in Language::ALL {
            assert_eq!(language(&format!("a.{}", one.extension())), Some(one));
        }
    }

    #[test]
    fn text_is_utf_8_and_may_begin_with_a_byte_order_mark() {
        let text = |bytes: &[u8]| {
            let source = Source::new(Language::Sql, bytes);
            source.text("a.sql").map(str::to_owned).map_err(|wrong| wrong.to_string())
        };
        assert_eq!(text("\u{feff}SELECT".as_bytes()), Ok("SELECT".to_owned()));
        let wrong = "a.sql: the rule is not UTF-8 text (byte 5); save the file as UTF-8";
        assert_eq!(text(b"-- gr\xfc\xdfe"), Err(wrong.to_owned()));
    }
}
