//! `reload`: what a change of the configuration file would change. Nothing is applied yet: that takes a
//! restart.

use serde::{Deserialize, Serialize};
use tidegate_core::Diagnostic;

use crate::management::desk::Desk;
use crate::management::{Caller, Command, Listener, Refusal, Right};

/// Has the configuration file read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {}

/// What the configuration file says now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// the file
    pub file: String,
    /// the parts that differ from what runs, such as `streams.tank`; empty: nothing does
    pub changed: Vec<String>,
    /// What is wrong with it; it is not empty when a restart would end with it.
    pub wrong: Vec<Diagnostic>,
}

impl Command for Reload {
    const OP: &'static str = "reload";
    const NEEDS: Right = Right::Operate;
    type Answer = Compared;
    type Part = ();

    async fn run(self, desk: &Desk, caller: &Caller, _: &mut dyn Listener) -> Result<Compared, Refusal> {
        let compared = desk.compare();
        compared.say(&caller.name);
        Ok(compared)
    }
}

impl Compared {
    /// Says it in the log, too; `asked_by` names who wanted to know.
    pub fn say(&self, asked_by: &str) {
        let Self { file, changed, wrong } = self;
        for diagnostic in wrong {
            tracing::error!("{diagnostic} (the box goes on with the configuration that it has)");
        }
        match (wrong.is_empty(), changed.is_empty()) {
            (false, _) => {}
            (true, true) => tracing::info!(
                asked_by,
                file,
                "the configuration is the one that runs; there is nothing to do"
            ),
            (true, false) => {
                let changed = changed.join(", ");
                tracing::warn!(
                    asked_by,
                    file,
                    changed,
                    "the configuration differs from the one that runs; restart the box to use it"
                );
            }
        }
    }
}
