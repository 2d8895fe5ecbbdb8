//! A virtual machine: another kernel, this machine's files, and a plug that can be pulled.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::PATIENCE;
use crate::lines::Lines;

/// A machine that runs a script, as `tests/vm/boot` describes it. It is gone when it is dropped.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    console: Lines,
}

impl Machine {
    /// Boots a machine with these QEMU options, and returns when it begins to run `script`. A machine that
    /// does not boot is tried once more: its kernel runs in an emulator on a machine that may be busy.
    pub async fn boot(script: &Path, options: &[String]) -> Self {
        prepare();
        match Self::try_boot(script, options).await {
            Ok(machine) => machine,
            Err(first) => match Self::try_boot(script, options).await {
                Ok(machine) => machine,
                Err(second) => panic!(
                    "the virtual machine does not boot; its console:\n{first}\nand when it was tried \
                    again:\n{second}"
                ),
            },
        }
    }

    /// What its console shows: the kernel, and what the script writes.
    #[must_use]
    pub fn console(&self) -> &Lines {
        &self.console
    }

    /// Waits for what `event` waits for, and panics when the script ends before that.
    pub async fn while_running<T>(&self, event: impl Future<Output = T>) -> T {
        tokio::select! {
            outcome = event => outcome,
            end = self.console.seen_after(0, "vm: exit=") => panic!("the virtual machine's script has \
                ended: {end}"),
        }
    }

    /// Waits until the script ends. Returns its exit code; none: the machine has ended without one.
    pub async fn end(mut self) -> Option<i32> {
        let end = tokio::select! {
            end = self.console.seen_after(0, "vm: exit=") => Some(end),
            _ = self.process.wait() => self.console.find("vm: exit="),
        };
        let code = end?.rsplit_once('=').and_then(|(_, code)| code.trim().parse().ok());
        if code != Some(0) {
            print_console(&self.console.text());
        }
        code
    }

    /// Pulls the plug.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// The error is what the console showed.
    async fn try_boot(script: &Path, options: &[String]) -> Result<Self, String> {
        let console = Lines::default();
        let (output, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(boot_script());
        command.arg(script).args(options).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut process = command.spawn().unwrap();
        // It holds the pipe's other end, which must close with the machine.
        drop(command);
        console.follow(output);
        let booted = tokio::select! {
            booted = timeout(PATIENCE, console.seen_after(0, "vm: ready")) => booted.is_ok(),
            _ = process.wait() => false,
        };
        if booted { Ok(Self { process, console }) } else { Err(console.text()) }
    }
}

/// Gets the kernel, once.
fn prepare() {
    static PREPARED: OnceLock<()> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let done = std::process::Command::new(boot_script()).arg("--prepare").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    });
}

fn boot_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("vm/boot")
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Shown by the test harness beside what went wrong.
            print_console(&self.console.text());
        }
    }
}

#[allow(clippy::print_stderr, reason = "the console belongs to the report of a failed test")]
fn print_console(console: &str) {
    eprintln!("--- the virtual machine's console\n{console}\n---");
}
