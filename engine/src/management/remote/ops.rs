//! Which command of the box an operation from afar is.

use serde_json::Value;
use tidegate_trust::Code;
use tidegate_trust::op::Op;

use super::desk::Failure;
use crate::management::command::{self, Caller, Listener, ManagementCommand, Right};
use crate::management::managed_box::ManagedBox;
use crate::management::protocol;

/// The operations that this box knows, each with the local command that it is.
pub const KNOWN: [(Op, &str); 4] = [
    (Op::Status, command::status::Status::OP),
    (Op::OutputOverride, command::override_output::Override::OP),
    (Op::OutputRelease, command::release::Release::OP),
    (Op::OutputReset, command::reset::Reset::OP),
];

/// Nobody listens to parts: what is asked from afar is answered once.
struct Nobody;

impl Listener for Nobody {
    fn tell(&mut self, _: String) -> futures::future::BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn gone(&mut self) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// Answers a question.
///
/// # Errors
/// When it cannot be answered.
pub async fn answer(managed: &ManagedBox, op: Op, args: Value, who: &str) -> Result<Value, Failure> {
    run(managed, op, args, who, Right::Read).await
}

/// Does what is commanded.
///
/// # Errors
/// When it cannot be done.
pub async fn carry_out(managed: &ManagedBox, op: Op, args: Value, who: &str) -> Result<Value, Failure> {
    run(managed, op, args, who, Right::Operate).await
}

async fn run(managed: &ManagedBox, op: Op, args: Value, who: &str, right: Right) -> Result<Value, Failure> {
    let Some((_, command)) = KNOWN.iter().find(|(known, _)| *known == op) else {
        let known = KNOWN.iter().map(|(op, _)| op.name()).collect::<Vec<_>>().join(", ");
        let reason = format!("this box cannot be told `{op}` from afar; it can: {known}");
        return Err(Failure::new(Code::Invalid, reason));
    };
    let caller = Caller { name: who.to_owned(), right };
    let outcome = command::run(command, args, managed, &caller, &mut Nobody).await;
    outcome.map_err(|refusal| Failure { code: code(refusal.code), reason: refusal.to_string() })
}

fn code(code: protocol::Code) -> Code {
    match code {
        protocol::Code::Invalid | protocol::Code::NotFound => Code::Invalid,
        protocol::Code::Forbidden => Code::Forbidden,
        protocol::Code::Busy | protocol::Code::Unable => Code::Busy,
    }
}
