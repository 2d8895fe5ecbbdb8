//! What entries and manifests say on disk. Sources of rules and contents of tables are named there by their
//! hash, and kept by the buffer: see [`Content`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_core::FieldType;
use tidegate_rules::{Language, Listened, Source};

use crate::buffer::{Buffer, BufferError, Content};
use crate::sequence::edit::Edit;
use crate::sequence::verdict::Verdict;
use crate::sequence::version::RuleFile;

/// What was in force at a snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// by name
    pub rules: BTreeMap<String, StoredRule>,
    /// by reference table: what names its content
    #[serde(default)]
    pub tables: BTreeMap<String, String>,
    /// by stream: the columns behind `ts`, as far as they were known
    pub columns: BTreeMap<String, Vec<(String, FieldType)>>,
    /// by stream: when it was listened to
    #[serde(default)]
    pub listened: BTreeMap<String, Listened>,
}

/// When some streams were listened to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ListenedTo {
    pub streams: Vec<String>,
    pub listened: Listened,
}

/// The newest good source of a rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredRule {
    /// as diagnostics name it
    pub file: String,
    #[serde(flatten)]
    pub source: StoredSource,
}

/// What names a source.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum StoredSource {
    Named {
        language: Language,
        sha256: String,
    },
    /// as programs wrote it that knew no language but SQL
    Text {
        text: String,
    },
}

/// A change of the rules or tables.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredEdit {
    Put {
        name: String,
        file: String,
        #[serde(flatten)]
        source: StoredSource,
        inherits: String,
    },
    Remove {
        name: String,
    },
    Table {
        name: String,
        content: String,
    },
    Stop(Verdict),
    Refuse {
        verdict: Verdict,
        goes_on: Option<StoredRule>,
    },
}

impl From<&RuleFile> for StoredRule {
    fn from(RuleFile { path, source }: &RuleFile) -> Self {
        Self { file: path.clone(), source: StoredSource::from(source) }
    }
}

impl From<&Source> for StoredSource {
    fn from(source: &Source) -> Self {
        Self::Named { language: source.language(), sha256: source.sha256().to_string() }
    }
}

impl StoredSource {
    /// The source. `None`: it is lost.
    pub(super) async fn load(&self, buffer: &Buffer) -> Result<Option<Source>, BufferError> {
        Ok(match self {
            Self::Named { language, sha256 } => {
                buffer.content(sha256).await?.map(|bytes| Source::new(*language, bytes))
            }
            Self::Text { text } => Some(Source::new(Language::Sql, text)),
        })
    }
}

impl StoredEdit {
    /// The edit. `None`: what it names is lost.
    pub(super) async fn load(&self, buffer: &Buffer) -> Result<Option<Edit>, BufferError> {
        Ok(match self.clone() {
            Self::Put { name, file, source, inherits } => {
                let source = source.load(buffer).await?;
                source.map(|source| Edit::Put { name, file, source, inherits })
            }
            Self::Remove { name } => Some(Edit::Remove { name }),
            Self::Stop(verdict) => Some(Edit::Stop(verdict)),
            Self::Refuse { verdict, goes_on: None } => Some(Edit::Refuse { verdict, goes_on: None }),
            Self::Refuse { verdict, goes_on: Some(StoredRule { file, source }) } => {
                let file = source.load(buffer).await?.map(|source| RuleFile { path: file, source });
                file.map(|file| Edit::Refuse { verdict, goes_on: Some(file) })
            }
            Self::Table { name, content } => {
                let bytes = buffer.content(&content).await?;
                bytes.map(|bytes| Edit::Table { name, content: Content::named(&content, bytes) })
            }
        })
    }
}

/// What is stored of `edit`, and what that names.
pub(super) fn stored(edit: &Edit) -> (StoredEdit, Option<Content>) {
    match edit.clone() {
        Edit::Put { name, file, source, inherits } => {
            let content = Content::from(&source);
            (StoredEdit::Put { name, file, source: StoredSource::from(&source), inherits }, Some(content))
        }
        Edit::Remove { name } => (StoredEdit::Remove { name }, None),
        Edit::Stop(verdict) => (StoredEdit::Stop(verdict), None),
        Edit::Refuse { verdict, goes_on } => {
            let content = goes_on.as_ref().map(|file| Content::from(&file.source));
            (StoredEdit::Refuse { verdict, goes_on: goes_on.as_ref().map(StoredRule::from) }, content)
        }
        Edit::Table { name, content } => {
            (StoredEdit::Table { name, content: content.hash().to_string() }, Some(content))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn entries_name_sources_and_those_of_older_programs_hold_them() {
        let source = Source::new(Language::Sql, "abc");
        let put = Edit::Put { name: "a".into(), file: "a.sql".into(), source, inherits: "b".into() };
        let (stored, content) = stored(&put);
        // FIPS 180-4's first example.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            serde_json::to_value(&stored).unwrap(),
            serde_json::json!({ "put": {
                "name": "a", "file": "a.sql", "language": "sql", "sha256": sha256, "inherits": "b"
            } })
        );
        assert_eq!(content.map(|content| content.bytes().to_vec()), Some(b"abc".to_vec()));
        let old = r#"{"put":{"name":"a","file":"a.sql","text":"SELECT 1","inherits":"a"}}"#;
        let old: StoredEdit = serde_json::from_str(old).unwrap();
        assert!(
            matches!(&old, StoredEdit::Put { source: StoredSource::Text { text }, .. } if text == "SELECT 1"),
            "{old:?}"
        );
        let old = r#"{"rules":{"a":{"file":"a.sql","text":"SELECT 1"}},"columns":{}}"#;
        let old: Manifest = serde_json::from_str(old).unwrap();
        let rule = old.rules.get("a").unwrap();
        assert!(matches!(&rule.source, StoredSource::Text { text } if text == "SELECT 1"), "{rule:?}");
    }
}
