//! Whom a box believes, and what it can prove afterwards.
//!
//! A command from afar passes [`gate::Gate::admit`], where all of this comes together: the message's limits,
//! the [`envelope`] and its signatures, the [`command`] in it, the [`key_set`] with its [`role`]s and scopes,
//! and whether it is [`fresh`](freshness). What comes out is an [`Admitted`](gate::Admitted) command or a
//! [`Refusal`], whose sentence is for whoever looks into it at night. What happens is then written down in
//! the [`audit`].
//!
//! Nothing in here does I/O, reads a clock or throws dice: bytes, time and randomness are arguments, and what
//! has to outlive the process is a plain struct, which the caller stores in its own transaction.

pub mod audit;
pub mod command;
pub mod digest;
pub mod envelope;
pub mod freshness;
pub mod gate;
pub mod key;
pub mod key_set;
pub mod op;
pub mod outcome;
pub mod refusal;
pub mod role;
pub mod time;

mod glob;
mod json;

pub use digest::Digest;
pub use op::Op;
pub use outcome::Code;
pub use refusal::Refusal;
pub use time::WallTime;
