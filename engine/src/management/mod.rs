//! A running box can be asked. A question is a command, and a command is one file under [`command`]: what it
//! takes, who may ask it, what it does, what it answers. Where it comes from makes no difference to it: today
//! that is the local socket ([`socket`]).
//!
//! * [`protocol`]: what is said.
//! * [`managed_box`]: what commands can reach of the box.
//! * [`report`]: what there is to say about a box, and [`rates`] of it.
//! * [`remote`]: the same from afar, by messages that can be trusted.
//! * [`client`]: asks. [`thread`]: the thread on which a box is asked ([`socket`]) and the service manager told
//!   ([`service`]).

pub mod client;
pub mod command;
pub mod managed_box;
pub mod protocol;
pub mod rates;
pub mod remote;
pub mod report;
pub mod service;
pub mod socket;
pub mod thread;

#[cfg(test)]
mod outputs_tests;
#[cfg(test)]
mod tests;
