//! `reload`: what a change of the configuration file would change. Nothing is applied yet: that takes a
//! restart.

use serde::{Deserialize, Serialize};

use super::{Caller, Command, Listener, Right};
use crate::management::desk::{Compared, Desk};
use crate::management::protocol::Refusal;

/// Has the configuration file read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {}

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
