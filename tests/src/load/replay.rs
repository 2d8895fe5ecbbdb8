//! What a recording of yesterday costs to replay.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::Extent;
use crate::report::Figure;
use crate::subject::cpu_of_children;

const CONFIG: &str = r#"
name = "load"
[connections.plant]
kind = "mqtt"
host = "127.0.0.1"
[connections.cloud]
kind = "mqtt"
host = "127.0.0.1"
[streams.tank]
connection = "plant"
topic = "plant/{device}/tank"
ts = "time"
fields = { temperature = "float64", level = "float64" }
[outputs.pump]
connection = "plant"
topic = "plant/{device}/pump/set"
[uplink]
connection = "cloud"
"#;

/// What a plant's rules ask: a threshold, a mean, a delay, a device that falls silent, a comparison with the
/// row before, and a count by shift.
const RULES: [(&str, &str); 6] = [
    ("filter", "INSERT INTO pump SELECT device, TRUE AS run FROM tank WHERE temperature > 80;\n"),
    (
        "mean",
        "--! lateness = \"2s\"\nINSERT INTO uplink SELECT window_end AS ts, device, avg(temperature) AS \
        mean FROM TUMBLE(tank, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end, \
        device;\n",
    ),
    (
        "held",
        "INSERT INTO uplink SELECT ts, device FROM (SELECT ts, device, held(temperature > 75, INTERVAL '5' \
         SECOND) OVER (PARTITION BY device) AS hot FROM tank) AS t QUALIFY became(hot) OVER (PARTITION BY \
         device);\n",
    ),
    (
        "silent",
        "--! idle_after = \"1m\"\nINSERT INTO uplink SELECT ts, device FROM (SELECT ts, device, \
         held(temperature IS NOT NULL, INTERVAL '1' MINUTE) OVER (PARTITION BY device) AS silent FROM tank) \
         AS t QUALIFY became(silent) OVER (PARTITION BY device);\n",
    ),
    (
        "steps",
        "INSERT INTO uplink SELECT ts, device, step FROM (SELECT ts, device, level - lag(level) OVER \
         (PARTITION BY device) AS step FROM tank) AS t WHERE step > 50;\n",
    ),
    (
        "shifts",
        "INSERT INTO uplink SELECT window_end AS ts, device, count(*) AS rows FROM TUMBLE(tank, \
         DESCRIPTOR(ts), INTERVAL '8' HOUR) GROUP BY window_start, window_end, device;\n",
    ),
];
const DEVICES: u64 = 20;

/// Processor time of `tidegate replay`: all rules together, next to the filter alone.
pub fn replay(binary: &Path, extent: &Extent) -> anyhow::Result<Vec<Figure>> {
    let dir = tempfile::tempdir().context("cannot make a directory for the recording")?;
    std::fs::write(dir.path().join("tidegate.toml"), CONFIG)?;
    record(&dir.path().join("tank.csv"), extent.replayed_rows)?;
    let mut figures: Vec<Figure> = Vec::new();
    let mut filter = Duration::ZERO;
    let (first, _) = RULES[0];
    for (what, rules) in [(first, &RULES[..1]), ("six rules", &RULES[..])] {
        crate::progress(&format!("replay of {} rows, {what}", extent.replayed_rows));
        let dir = dir.path();
        let folder = dir.join("rules");
        std::fs::create_dir_all(&folder)?;
        for (name, text) in rules {
            std::fs::write(folder.join(format!("{name}.sql")), text)?;
        }
        let before = cpu_of_children()?;
        let status = Command::new(binary)
            .args(["replay", "--config", "tidegate.toml", "--input", "tank=tank.csv"])
            .current_dir(dir)
            .stdout(File::create(dir.join("out.ndjson"))?)
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        if !status.success() {
            bail!("tidegate replay ended with {status}");
        }
        let took = cpu_of_children()? - before;
        let name = format!("replay of {} rows, processor time, {what}", extent.replayed_rows);
        let figure = Figure::new(name, took.as_secs_f64(), "s");
        let lines = std::fs::read_to_string(dir.join("out.ndjson"))?.lines().count();
        let figure = figure.note(format!("{lines} results"));
        figures.push(if rules.len() == 1 {
            filter = took;
            figure
        } else {
            figure.against("the filter alone", filter.as_secs_f64())
        });
    }
    Ok(figures)
}

/// A row a second of each device; one in a hundred is hot.
fn record(path: &Path, rows: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "ts,device,temperature,level")?;
    for n in 0..rows {
        let (second, device) = (n / DEVICES, n % DEVICES);
        let temperature = if (second + device) % 100 == 0 { 85.5 } else { 60.25 + (second % 10) as f64 };
        let level = (second * 7 + device) % 60;
        writeln!(file, "{},tank-{device},{temperature},{level}", 1_767_225_600_000 + second * 1_000)?;
    }
    file.flush().context("cannot write the recording")
}
