//! The commands, a file each. A new one is a file, a line in `mod`, and an arm in [`run`].

pub mod log;
pub mod outputs;
pub mod override_output;
pub mod release;
pub mod reload;
pub mod reset;
pub mod status;
pub mod tail;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::managed_box::ManagedBox;
use super::protocol::{Code, Outcome, Refusal, Reply, Request, VERSION};

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Look.
    Read,
    /// Change how the box runs.
    Operate,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// for the log
    pub name: String,
    /// the most that it may do
    pub right: Right,
}

/// Something that a box can be asked, or told to do.
pub trait ManagementCommand: Serialize + for<'de> Deserialize<'de> + Send {
    /// its name
    const OP: &'static str;
    /// who may
    const NEEDS: Right;
    /// what it answers in the end
    type Answer: Serialize + for<'de> Deserialize<'de> + Send;
    /// what it tells while it goes on
    type Part: Serialize + for<'de> Deserialize<'de> + Send;

    /// Does it.
    fn run(
        self,
        managed: &ManagedBox,
        caller: &Caller,
        listener: &mut dyn Listener,
    ) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;
}

/// Takes what a command tells while it goes on.
pub trait Listener: Send {
    /// Hands on `part`, a [`ManagementCommand::Part`] as JSON: columns stay in their order. False: nobody listens any
    /// more.
    fn tell(&mut self, part: String) -> BoxFuture<'_, bool>;

    /// Resolves when nobody listens any more.
    fn gone(&mut self) -> BoxFuture<'_, ()>;
}

/// Checks that `caller` may run `C`, and does.
async fn checked<C: ManagementCommand>(
    args: Value,
    managed: &ManagedBox,
    caller: &Caller,
    listener: &mut dyn Listener,
) -> Result<Value, Refusal> {
    let command: C = serde_json::from_value(args).map_err(|error| {
        Refusal::new(Code::Invalid, format!("the args of `{}` cannot be understood: {error}", C::OP))
    })?;
    if caller.right < C::NEEDS {
        return Err(Refusal::new(Code::Forbidden, format!("{} may look, but not `{}`", caller.name, C::OP)));
    }
    let answer = command.run(managed, caller, listener).await?;
    serde_json::to_value(answer)
        .map_err(|error| Refusal::new(Code::Unable, format!("the answer cannot be written: {error}")))
}

/// Answers `request`.
pub async fn answer(
    managed: &ManagedBox,
    caller: &Caller,
    request: Request,
    listener: &mut dyn Listener,
) -> Reply {
    let Request { v, id, op, args } = request;
    let outcome = if v == VERSION {
        run(&op, args.unwrap_or_else(|| Value::Object(serde_json::Map::new())), managed, caller, listener)
            .await
    } else {
        let reason = format!("this box speaks version {VERSION} of the protocol, not {v}");
        Err(Refusal::new(Code::Invalid, reason).help("use the `tidegate` that is as old as the box"))
    };
    let outcome = outcome.map_or_else(Outcome::Failed, |result| Outcome::Successful { result });
    Reply { v: VERSION, id, outcome }
}

/// What `op` can be.
pub const OPS: [&str; 8] = [
    status::Status::OP,
    tail::Tail::OP,
    reload::Reload::OP,
    log::SetLevel::OP,
    outputs::Outputs::OP,
    override_output::Override::OP,
    release::Release::OP,
    reset::Reset::OP,
];

/// Runs the command `op`.
///
/// # Errors
/// When there is no such command, or it refuses.
pub async fn run(
    op: &str,
    args: Value,
    managed: &ManagedBox,
    caller: &Caller,
    listener: &mut dyn Listener,
) -> Result<Value, Refusal> {
    match op {
        status::Status::OP => checked::<status::Status>(args, managed, caller, listener).await,
        tail::Tail::OP => checked::<tail::Tail>(args, managed, caller, listener).await,
        reload::Reload::OP => checked::<reload::Reload>(args, managed, caller, listener).await,
        log::SetLevel::OP => checked::<log::SetLevel>(args, managed, caller, listener).await,
        outputs::Outputs::OP => checked::<outputs::Outputs>(args, managed, caller, listener).await,
        override_output::Override::OP => {
            checked::<override_output::Override>(args, managed, caller, listener).await
        }
        release::Release::OP => checked::<release::Release>(args, managed, caller, listener).await,
        reset::Reset::OP => checked::<reset::Reset>(args, managed, caller, listener).await,
        _ => {
            let refusal = Refusal::new(Code::Invalid, format!("there is no command `{op}`"));
            Err(refusal.help(format!("a box can be asked: {}", OPS.join(", "))))
        }
    }
}
