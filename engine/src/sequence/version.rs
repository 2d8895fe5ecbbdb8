//! A version of a rule.

use std::sync::Arc;

use tidegate_rules::{DeliveryPolicy, Mode, Source};

/// What all that a version of a rule does and writes has in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleVersion {
    /// the rule's name
    pub name: Arc<str>,
    /// the SHA-256 of its source, in hexadecimal digits
    pub hash: Arc<str>,
    /// what it was made of
    pub file: RuleFile,
    /// whether it writes
    pub mode: Mode,
    /// who wins where several write one output: 1 is the strongest, 16 the weakest
    pub rank: u8,
    /// what its rows are worth on their way to the uplinks
    pub delivery: DeliveryPolicy,
}

/// What is in a rule's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// the file, as diagnostics name it
    pub path: String,
    /// its content
    pub source: Source,
}

#[cfg(test)]
impl RuleVersion {
    /// One that writes, of a rule whose source nobody looks at.
    pub(crate) fn active(name: &str) -> Arc<Self> {
        let source = Source::new(tidegate_rules::Language::Sql, "");
        let file = RuleFile { path: name.to_owned(), source };
        let (name, delivery) = (Arc::from(name), DeliveryPolicy::default());
        Arc::new(Self { name, hash: Arc::from(""), file, mode: Mode::Active, rank: 8, delivery })
    }
}
