//! The CAN connection: recordings and adapters here, and the kernel's SocketCAN in a virtual machine, whose
//! peers are can-utils.
//!
//! The kernel that tests run on need not have CAN, so those that need it are ignored here, and [`socketcan`]
//! runs them all in one machine.

mod adapters;
mod configuration;
mod machine;
mod recordings;

use std::path::Path;

use serde_json::{Value, json};
use tidegate_connectors::connection::Kind;
use tidegate_peers::machine::Machine;

use crate::rig::Setup;

impl Setup {
    pub(crate) fn can(connection: Value) -> Self {
        Self::new(Kind::Can, connection)
    }

    pub(crate) fn interface(name: &str) -> Self {
        Self::can(json!({ "interface": name }))
    }

    pub(crate) fn dbc(self, text: &str) -> Self {
        self.file("test.dbc", text).set("dbc", json!(["test.dbc"]))
    }
}

/// Two controllers that are wired to each other.
const CONTROLLERS: [&str; 6] =
    ["-object", "can-bus,id=bus", "-device", "kvaser_pci,canbus=bus", "-device", "kvaser_pci,canbus=bus"];

#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    ignore = "the virtual machine needs Linux on x86-64"
)]
#[tokio::test(flavor = "multi_thread")]
async fn socketcan() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    let binary = std::env::current_exe().unwrap();
    let text = format!("exec '{}' can::machine:: --ignored --test-threads=1\n", binary.display());
    std::fs::write(&script, text).unwrap();
    let options: Vec<String> = CONTROLLERS.into_iter().map(String::from).collect();
    let machine = Machine::boot(Path::new(&script), &options).await;
    assert_eq!(machine.end().await, Some(0), "tests have failed in the machine");
}
