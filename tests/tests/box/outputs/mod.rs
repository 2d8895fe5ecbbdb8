//! Outputs keep their contracts, on the wire: a device that others wrote writes down what it is asked, and
//! `tests/oracle`, which knows the contracts and nothing of the box, judges it. `tests/devices/prepare` makes
//! the device.

mod admission;
mod answers;
mod chaos;
mod external;
mod frames;
mod interlocks;
mod minimum_times;
mod overrides;
mod pairs;
mod ramps;
mod reasons;
mod stage;
mod starts;
mod ties;
mod topics;
