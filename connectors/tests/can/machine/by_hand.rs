//! `tidegate can`.

use clap::Parser;
use tidegate_connectors::can::commission::CanCommand;
use tidegate_connectors::commission::{CommandOutput, Known, Outcome};

use super::{Candump, DRIVE, cansend};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: CanCommand,
}

async fn run(arguments: &[&str], told: impl FnMut(&str) -> bool + Send) -> Result<Outcome, String> {
    let line = Line::try_parse_from([&["can"], arguments].concat()).unwrap();
    let mut told = told;
    let mut show = |output: CommandOutput<'_>| match output {
        CommandOutput::Line(line) => told(line),
        CommandOutput::Progress(_) => true,
    };
    line.command.run(&Known::default(), &mut show).await
}

#[ignore = "needs SocketCAN"]
#[tokio::test]
async fn a_bus_is_looked_at_and_written_to_by_hand() {
    let directory = tempfile::tempdir().unwrap();
    let dbc = directory.path().join("drive.dbc");
    std::fs::write(&dbc, DRIVE).unwrap();
    let dbc = dbc.to_str().unwrap();
    let mut candump = Candump::on("vcan0").await;
    let sent =
        run(&["send", "vcan0", "--dbc", dbc, "MotorCommand", "Target=-1", "Enable=on"], |_| true).await;
    assert_eq!(sent.unwrap().rows, [["200#FEFF0100", "MotorCommand", "1"]]);
    assert_eq!(candump.frame().await, "200#FEFF0100");
    run(&["send", "vcan0", "123##1AABB", "--every", "1ms", "-n", "2"], |_| true).await.unwrap();
    assert_eq!([candump.frame().await, candump.frame().await], ["123##5AABB", "123##5AABB"]);
    for (arguments, words) in [
        (&["send", "vcan0", "--dbc", dbc, "MotorComand", "Target=1"][..], "did you mean `MotorCommand`?"),
        (&["send", "vcan0", "--dbc", dbc, "MotorCommand", "Target=9999"], "the database allows"),
        (&["send", "vcan0", "--dbc", dbc, "MotorCommand", "Target"], "is no signal"),
        (&["send", "vcan0", "12#0"], "three digits"),
        (&["send", "/dev/ttyACM0", "123#"], "--bitrate 250000"),
        (&["dump", "vcan99"], "no CAN connection `vcan99`; name an interface"),
    ] {
        let why = run(arguments, |_| true).await.unwrap_err();
        assert!(why.contains(words), "{arguments:?}: {why}");
    }
    candump.is_silent("vcan0").await;

    let (lines, shown) = std::sync::mpsc::sync_channel(8);
    let dump = tokio::spawn({
        let dbc = dbc.to_owned();
        async move {
            let show = |line: &str| lines.send(line.to_owned()).is_ok();
            run(&["dump", "vcan0", "--dbc", &dbc, "--ids", "0x100", "-n", "1"], show).await
        }
    });
    // It does not say when it listens.
    let line = loop {
        cansend("vcan0", "100#FEFF7D0000210000").await;
        tokio::task::yield_now().await;
        if let Ok(line) = shown.try_recv() {
            break line;
        }
    };
    let (_, frame) = line.split_once(" vcan0 ").unwrap();
    let text = "100#FEFF7D0000210000  MotorStatus: Speed=-1 rpm, Torque=100 Nm, Running=true, Mode=run";
    assert_eq!(frame, text);
    dump.await.unwrap().unwrap();

    let log = directory.path().join("drive.log");
    std::fs::write(&log, "(1.000000) can0 123#01\n(1.000001) can1 124#\n(1.020000) can0 125#R\n").unwrap();
    let mut candump = Candump::on("vcan1").await;
    let replayed = run(&["replay", log.to_str().unwrap(), "vcan1", "--from", "can0"], |_| true).await;
    assert_eq!(replayed.unwrap().rows, [["2", "0"]]);
    assert_eq!([candump.frame().await, candump.frame().await], ["123#01", "125#R"]);
}
