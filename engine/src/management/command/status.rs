//! `status`: what there is to say about the box.

use serde::{Deserialize, Serialize};

use super::{Caller, Listener, ManagementCommand, Right};
use crate::management::managed_box::ManagedBox;
use crate::management::protocol::Refusal;
use crate::management::report::Report;

/// Asks for a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {}

impl ManagementCommand for Status {
    const OP: &'static str = "status";
    const NEEDS: Right = Right::Read;
    type Answer = Report;
    type Part = ();

    async fn run(self, managed: &ManagedBox, _: &Caller, _: &mut dyn Listener) -> Result<Report, Refusal> {
        Ok(Report::new(managed))
    }
}
