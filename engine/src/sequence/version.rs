//! A version of a rule.

use std::sync::Arc;

use tidegate_rules::{DeliveryPolicy, Mode};

/// What all that a version of a rule does and writes has in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleVersion {
    /// the rule's name
    pub name: Arc<str>,
    /// the SHA-256 of its source, in hexadecimal digits
    pub hash: Arc<str>,
    /// whether it writes
    pub mode: Mode,
    /// who wins where several write one output: 1 is the strongest, 16 the weakest
    pub rank: u8,
    /// what its rows are worth on their way to the uplinks
    pub delivery: DeliveryPolicy,
}

#[cfg(test)]
impl RuleVersion {
    /// One that writes, of a rule whose source nobody looks at.
    pub(crate) fn active(name: &str) -> Arc<Self> {
        let (name, delivery) = (Arc::from(name), DeliveryPolicy::default());
        Arc::new(Self { name, hash: Arc::from(""), mode: Mode::Active, rank: 8, delivery })
    }
}
