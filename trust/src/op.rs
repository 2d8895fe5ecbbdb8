//! What a box can be asked to do from afar, and what it takes to be allowed to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::role::Role::{self, Deployer, Engineer, Operator, Security, Viewer};

/// What has to be known about when a command was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// It changes nothing.
    Query,
    /// It waits with the broker until the box is there, up to its `not_after`.
    Queued,
    /// It moves something now, so it carries the box's newest nonce: nobody can have kept it.
    Live,
}

/// What the arguments name that a key's scope can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The box as a whole.
    TheBox,
    /// `args.name` is a rule.
    Rule,
    /// `args.output` is an output.
    Output,
}

/// What it takes to be allowed an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// who may
    pub roles: &'static [Role],
    /// how fresh it has to be
    pub timing: Timing,
    /// what a scope has to allow
    pub target: Target,
    /// By how many people it has to be signed.
    pub signatures: usize,
}

const ALL_ROLES: &[Role] = &[Viewer, Operator, Deployer, Engineer, Security];

/// One line an operation: its variant, its name, and its terms.
macro_rules! operations {
    ($(
        $(#[$doc:meta])*
        $op:ident $name:literal $roles:expr, $timing:ident, $target:ident, $signatures:literal;
    )*) => {
        /// An operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Op { $($(#[$doc])* $op,)* }

        impl Op {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$op,)*];

            /// As in topics and payloads.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$op => $name,)* }
            }

            /// What it takes to be allowed it.
            #[must_use]
            pub fn terms(self) -> Terms {
                match self {
                    $(Self::$op => Terms {
                        roles: $roles,
                        timing: Timing::$timing,
                        target: Target::$target,
                        signatures: $signatures,
                    },)*
                }
            }
        }
    };
}

operations! {
    /// How the box is.
    Status "status" ALL_ROLES, Query, TheBox, 1;
    /// Counters and gauges.
    Metrics "metrics" ALL_ROLES, Query, TheBox, 1;
    /// What was logged, from a cursor on.
    Logs "logs" ALL_ROLES, Query, TheBox, 1;
    /// SQL over what is on the box, which changes nothing.
    Query "query" ALL_ROLES, Query, TheBox, 1;
    /// Rows as they pass.
    Tail "tail" ALL_ROLES, Query, TheBox, 1;
    /// Why an output does what it does.
    Why "why" ALL_ROLES, Query, TheBox, 1;
    /// How full the buffer is.
    Buffer "buffer" ALL_ROLES, Query, TheBox, 1;
    /// Records of the audit.
    Audit "audit" ALL_ROLES, Query, TheBox, 1;
    /// Which rules there are.
    RulesList "rules.list" ALL_ROLES, Query, TheBox, 1;
    /// The text of a rule.
    RulesGet "rules.get" ALL_ROLES, Query, Rule, 1;
    /// Whether a rule would be taken.
    RulesCheck "rules.check" ALL_ROLES, Query, Rule, 1;
    /// What a shadow rule would have done.
    RulesCompare "rules.compare" ALL_ROLES, Query, Rule, 1;
    /// The configuration, and one that was refused.
    ConfigGet "config.get" &[Engineer, Security], Query, TheBox, 1;
    /// What those need who are asked for help.
    SupportBundle "support.bundle" &[Engineer, Security], Query, TheBox, 1;
    /// A rule or plugin is put in place.
    RulesDeploy "rules.deploy" &[Deployer], Queued, Rule, 1;
    /// A rule goes.
    RulesRemove "rules.remove" &[Deployer], Queued, Rule, 1;
    /// A rule becomes again what it was in an earlier generation.
    RulesRollback "rules.rollback" &[Deployer], Queued, Rule, 1;
    /// A rule that is off writes again.
    RulesEnable "rules.enable" &[Operator], Queued, Rule, 1;
    /// A rule is off.
    RulesDisable "rules.disable" &[Operator], Queued, Rule, 1;
    /// A rule runs and writes nothing.
    RulesShadow "rules.shadow" &[Operator], Queued, Rule, 1;
    /// An output stays where a person wants it, for a lease.
    OutputOverride "output.override" &[Operator], Live, Output, 1;
    /// An override ends.
    OutputRelease "output.release" &[Operator], Live, Output, 1;
    /// A latched trip ends.
    OutputReset "output.reset" &[Operator], Live, Output, 1;
    /// A device is tried.
    OutputTest "output.test" &[Operator], Live, Output, 1;
    /// The box starts again.
    Restart "restart" &[Operator], Live, TheBox, 1;
    /// A queued command is not done.
    Cancel "cancel" &[Operator, Deployer, Engineer, Security], Queued, TheBox, 1;
    /// The configuration changes, until it is confirmed.
    ConfigApply "config.apply" &[Engineer], Queued, TheBox, 1;
    /// The changed configuration stays.
    ConfigConfirm "config.confirm" &[Engineer], Queued, TheBox, 1;
    /// Another key set.
    TrustUpdate "trust.update" &[Security], Queued, TheBox, 2;
}

/// A name that no operation has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no operation `{name}`; did you mean `{nearest}`?")]
pub struct UnknownOp {
    name: String,
    nearest: &'static str,
}

impl Op {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_query(self) -> bool {
        self.terms().timing == Timing::Query
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Op {
    type Error = UnknownOp;

    fn try_from(name: String) -> Result<Self, UnknownOp> {
        if let Some(op) = Self::ALL.iter().find(|op| op.name() == name) {
            return Ok(*op);
        }
        let name: String = name.chars().take(64).collect();
        let likeness = |op: &&Self| (1_000.0 * strsim::jaro_winkler(&name, op.name())) as u32;
        let nearest = Self::ALL.iter().max_by_key(likeness).map_or("status", |op| op.name());
        Err(UnknownOp { name, nearest })
    }
}

impl From<Op> for String {
    fn from(op: Op) -> Self {
        op.name().into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_that_of_one_operation() {
        let names: BTreeSet<&str> = Op::ALL.iter().map(|op| op.name()).collect();
        assert_eq!(names.len(), Op::ALL.len());
        for op in Op::ALL {
            assert_eq!(Op::try_from(op.name().to_owned()), Ok(*op));
        }
    }

    #[test]
    fn a_name_that_is_misspelt_is_told_the_right_one() {
        let error = Op::try_from("rules.deplyo".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "there is no operation `rules.deplyo`; did you mean `rules.deploy`?");
    }

    #[test]
    fn what_moves_something_at_once_is_live_and_needs_no_other_role() {
        // MANAGEMENT.md: override, output.test, restart, reset of a latched trip.
        for op in [Op::OutputOverride, Op::OutputTest, Op::Restart, Op::OutputReset] {
            assert_eq!(op.terms().timing, Timing::Live, "{op}");
            assert_eq!(op.terms().roles, [Operator], "{op}");
        }
    }

    #[test]
    fn no_role_but_security_changes_trust_and_two_of_it_do() {
        assert_eq!(Op::TrustUpdate.terms().roles, [Security]);
        assert_eq!(Op::TrustUpdate.terms().signatures, 2);
    }
}
