//! `release`: an override ends, and the output goes back to what rules want.

use serde::{Deserialize, Serialize};

use super::outputs::Meant;
use super::override_output::{Told, by_a_person, say};
use super::{Caller, Listener, ManagementCommand, Right};
use crate::management::managed_box::ManagedBox;
use crate::management::protocol::Refusal;
use crate::system::control::{ControlEvent, ControlKind};

/// Ends the override of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// the output
    pub output: String,
    /// which of what it moves, such as `line=7`; absent where there is one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// why, for whoever asks later
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ManagementCommand for Release {
    const OP: &'static str = "release";
    const NEEDS: Right = Right::Operate;
    type Answer = Told;
    type Part = ();

    async fn run(self, managed: &ManagedBox, caller: &Caller, _: &mut dyn Listener) -> Result<Told, Refusal> {
        let meant = Meant::find(managed, &self.output, self.instance.as_deref())?;
        let reason = self.reason.map(Into::into);
        say(managed, caller, ControlEvent { reason, ..by_a_person(ControlKind::Release, &meant, caller) })?;
        Ok(Told::about(&meant))
    }
}
