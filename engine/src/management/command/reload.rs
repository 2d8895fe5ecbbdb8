//! `reload`: what a change of the configuration file would change. Nothing is applied yet: that takes a
//! restart.

use serde::{Deserialize, Serialize};

use super::{Caller, Listener, ManagementCommand, Right};
use crate::management::managed_box::{Compared, ManagedBox};
use crate::management::protocol::Refusal;

/// Has the configuration file read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {}

impl ManagementCommand for Reload {
    const OP: &'static str = "reload";
    const NEEDS: Right = Right::Operate;
    type Answer = Compared;
    type Part = ();

    async fn run(
        self,
        managed: &ManagedBox,
        caller: &Caller,
        _: &mut dyn Listener,
    ) -> Result<Compared, Refusal> {
        let compared = managed.compare();
        compared.say(&caller.name);
        Ok(compared)
    }
}
