//! On the kernel's own CAN, with can-utils as peers. vcan0 and vcan1 take FD frames; can0 and can1 are two
//! emulated controllers on one bus.

mod by_hand;
mod frames;
mod nodes;
mod outages;
mod outputs;

use std::process::Stdio;
use std::time::Duration;

use tidegate_peers::PATIENCE;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// A drive: speed and torque as most makers have them, and a command with a start value.
const DRIVE: &str = r#"VERSION ""
NS_ :
BS_:
BU_: PLC Drive
BO_ 256 MotorStatus: 8 Drive
 SG_ Speed : 0|16@1- (0.5,0) [-16000|16000] "rpm" PLC
 SG_ Torque : 23|12@0+ (0.1,-100) [-100|300] "Nm" PLC
 SG_ Running : 40|1@1+ (1,0) [0|1] "" PLC
 SG_ Mode : 44|4@1+ (1,0) [0|15] "" PLC
BO_ 512 MotorCommand: 4 PLC
 SG_ Target : 0|16@1- (0.5,0) [-3000|3000] "rpm" Drive
 SG_ Enable : 16|1@1+ (1,0) [0|1] "" Drive
BO_ 768 Measured: 16 Drive
 SG_ Flow : 64|32@1- (1,0) [0|0] "l/min" PLC
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 100000;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_ "GenMsgCycleTime" BO_ 256 100;
VAL_ 256 Mode 0 "off" 1 "ready" 2 "run" ;
SIG_VALTYPE_ 768 Flow : 1;
"#;

async fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().await.expect("it is installed");
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

async fn link(arguments: &[&str]) {
    run("ip", &[&["link"], arguments].concat()).await;
}

async fn cansend(interface: &str, frame: &str) {
    run("cansend", &[interface, frame]).await;
}

/// What candump has of a bus.
struct Candump {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Candump {
    /// Listens from now on: candump's socket is there when this returns.
    async fn on(interface: &str) -> Self {
        let mut child = Command::new("candump")
            .args(["-L", interface])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("there is candump");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut candump = Self { lines, _child: child };
        // It does not say when it listens; so it is called until it answers.
        loop {
            cansend(interface, "7FF#").await;
            if timeout(Duration::from_millis(200), candump.any()).await.is_ok() {
                break;
            }
        }
        candump
    }

    async fn any(&mut self) -> String {
        self.lines.next_line().await.unwrap().expect("candump runs")
    }

    /// The next frame's time in microseconds, and the frame.
    async fn timed(&mut self) -> (i64, String) {
        loop {
            let line = timeout(PATIENCE, self.any()).await.expect("a frame comes");
            let mut words = line.split_whitespace();
            let (time, _, frame) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            if frame != "7FF#" {
                let time: i64 = time.trim_matches(['(', ')']).replace('.', "").parse().unwrap();
                return (time, frame.to_owned());
            }
        }
    }

    async fn frame(&mut self) -> String {
        self.timed().await.1
    }

    /// Panics if there is a frame before the mark that this sends.
    async fn is_silent(&mut self, interface: &str) {
        cansend(interface, "7FE#").await;
        assert_eq!(self.frame().await, "7FE#");
    }
}
