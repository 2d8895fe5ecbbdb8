//! `log`: what is logged from now on, for good or for a while.

use serde::{Deserialize, Serialize};
use tidegate_core::Span;

use super::{Caller, Listener, ManagementCommand, Right};
use crate::management::managed_box::ManagedBox;
use crate::management::protocol::{Code, Refusal};

/// Sets what is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLevel {
    /// A level, or levels by part, as in `TIDEGATE_LOG`; absent: what the box was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// After that, what the box was started with comes back; absent: when it starts again.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Span>,
}

/// What is logged now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// as `TIDEGATE_LOG` has it
    pub level: String,
    /// what comes back in the end
    pub started_with: String,
}

impl ManagementCommand for SetLevel {
    const OP: &'static str = "log";
    const NEEDS: Right = Right::Operate;
    type Answer = Level;
    type Part = ();

    async fn run(
        self,
        managed: &ManagedBox,
        caller: &Caller,
        _: &mut dyn Listener,
    ) -> Result<Level, Refusal> {
        let Some(log) = &managed.log else {
            return Err(Refusal::new(Code::Unable, "the log of this box cannot be changed while it runs"));
        };
        let level = self.level.unwrap_or_else(|| log.started_with().to_owned());
        let lasting = self.lasting.map(|span| span.0);
        log.set(&level, lasting).map_err(|error| {
            let reason = format!("cannot understand the level \"{level}\": {error}");
            Refusal::new(Code::Invalid, reason)
                .help("write error, warn, info, debug or trace, or levels by part")
        })?;
        tracing::info!(
            asked_by = caller.name,
            level,
            lasting = lasting.map(tracing::field::debug),
            "the log level was changed"
        );
        Ok(Level { level, started_with: log.started_with().to_owned() })
    }
}
