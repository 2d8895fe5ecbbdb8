//! The commands, a file each. A new one is a file, a line in `mod`, and an arm in [`run`].

pub mod log;
pub mod reload;
pub mod status;
pub mod tail;

use serde_json::Value;

use super::desk::Desk;
use super::{Caller, Code, Command, Listener, Refusal};

/// What `op` can be.
pub const OPS: [&str; 4] = [status::Status::OP, tail::Tail::OP, reload::Reload::OP, log::SetLevel::OP];

/// Runs the command `op`.
///
/// # Errors
/// When there is no such command, or it refuses.
pub async fn run(
    op: &str,
    args: Value,
    desk: &Desk,
    caller: &Caller,
    listener: &mut dyn Listener,
) -> Result<Value, Refusal> {
    match op {
        status::Status::OP => super::run::<status::Status>(args, desk, caller, listener).await,
        tail::Tail::OP => super::run::<tail::Tail>(args, desk, caller, listener).await,
        reload::Reload::OP => super::run::<reload::Reload>(args, desk, caller, listener).await,
        log::SetLevel::OP => super::run::<log::SetLevel>(args, desk, caller, listener).await,
        _ => {
            let refusal = Refusal::new(Code::Invalid, format!("there is no command `{op}`"));
            Err(refusal.help(format!("a box can be asked: {}", OPS.join(", "))))
        }
    }
}
