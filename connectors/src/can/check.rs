//! What must hold for a connection beyond the types of its keys, and its databases.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::Span;
use tidegate_core::diagnostic::{Diagnostic, Severity};

use super::config::{ConnectionConfig, LogConfig, SlcanConfig};
use super::database::{Database, Unresolved};
use super::slcan::BIT_RATES;
use crate::table::{At, Problem, Remark, Review, tell};

/// What nobody waits for any longer.
const LONGEST_SEND_TIMEOUT: Duration = Duration::from_secs(60);

impl ConnectionConfig {
    /// Says what is wrong with it, and reads its databases.
    pub(crate) fn check(&mut self, review: &mut Review<'_>) {
        for path in self.dbc.iter_mut().chain(self.log.iter_mut().map(|log| &mut log.path)) {
            *path = review.base_dir.join(&*path);
        }
        tell(self.problems(), review);
        tell(self.log.as_ref().and_then(missing).into_iter().collect(), review);
        match self.read_databases() {
            Ok(database) => {
                for problem in database.problems() {
                    review.remarks.push(remark(problem, Severity::Warning));
                }
                self.database = Some(Arc::new(database));
            }
            Err(problems) => review.remarks.extend(problems.iter().map(|of| remark(of, Severity::Error))),
        }
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let ways = [
            ("interface", self.interface.is_some()),
            ("slcan", self.slcan.is_some()),
            ("log", self.log.is_some()),
        ];
        let mut said = ways.iter().filter(|(_, is_said)| *is_said).map(|(key, _)| *key);
        match (said.next(), said.next()) {
            (None, _) => problems.push(
                Problem::absent(&[], "it says none of `interface`, `slcan` and `log`")
                    .help("add interface = \"can0\"; list the interfaces with: ip link show type can"),
            ),
            (Some(one), Some(other)) => problems.push(
                Problem::new(&[other], format!("it says `{one}` and `{other}`")).help("keep one of them"),
            ),
            (Some(_), None) => {}
        }
        if let Some(name) = &self.interface
            && (name.is_empty() || name.len() > 15 || name.contains(|c: char| c.is_whitespace() || c == '/'))
        {
            problems.push(
                Problem::new(&["interface"], format!("\"{name}\" is no name of a network interface")).help(
                    "write one such as \"can0\"; an adapter on a serial port is slcan = { device = \
                     \"/dev/ttyACM0\", bitrate = 250000 }",
                ),
            );
        }
        problems.extend(self.slcan.as_ref().and_then(check_slcan));
        problems.extend(self.log.as_ref().and_then(check_log));
        if self.send_timeout.0 < Duration::from_millis(1) || self.send_timeout.0 > LONGEST_SEND_TIMEOUT {
            let what = format!(
                "`send_timeout` is from 1ms to {}, and not {}",
                Span(LONGEST_SEND_TIMEOUT),
                self.send_timeout
            );
            problems.push(Problem::new(&["send_timeout"], what));
        }
        problems.extend(self.park.problem());
        problems.extend(self.backoff.problems());
        problems
    }

    /// What the files of `dbc` say.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read_databases(&self) -> Result<Database, Vec<Diagnostic>> {
        read_databases(&self.dbc)
    }

    /// Why nodes on it cannot be asked.
    pub(super) fn refuses_requests(&self) -> Option<&'static str> {
        match self {
            Self { interface: None, .. } => {
                Some("ISO-TP is the kernel's, and needs `interface` in the connection")
            }
            Self { listen_only: true, .. } => {
                Some("who is asked is sent to, and the connection says listen_only = true")
            }
            _ => None,
        }
    }

    /// Why outputs cannot write to it.
    pub(super) fn refuses_outputs(&self) -> Option<&'static str> {
        match self {
            Self { log: Some(_), .. } => Some("the connection is a recording, to which nothing can be sent"),
            Self { listen_only: true, .. } => Some("the connection says listen_only = true"),
            _ => None,
        }
    }
}

/// Reads DBC files as one database.
///
/// # Errors
/// What is wrong with them.
pub(super) fn read_databases(paths: &[PathBuf]) -> Result<Database, Vec<Diagnostic>> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match std::fs::read(path) {
            Ok(bytes) => files.push((path.clone(), bytes)),
            Err(error) => {
                let file = path.display().to_string();
                errors.push(Diagnostic::new(&file, format!("the file cannot be read: {error}")));
            }
        }
    }
    match Database::read(&files) {
        Ok(database) if errors.is_empty() => Ok(database),
        Ok(_) => Err(errors),
        Err(more) => Err(errors.into_iter().chain(more).collect()),
    }
}

/// Something about a file that `dbc` names.
fn remark(problem: &Diagnostic, severity: Severity) -> Remark {
    let message = problem.to_string();
    Remark { severity, at: At::value(&["dbc"]), message, help: None, is_absence: false }
}

fn check_slcan(slcan: &SlcanConfig) -> Option<Problem> {
    if let Err(problem) = super::link::port(&slcan.device, slcan.baud) {
        return Some(problem.inside("slcan"));
    }
    (!BIT_RATES.contains(&slcan.bitrate)).then(|| {
        let rates: Vec<String> = BIT_RATES.iter().map(ToString::to_string).collect();
        Problem::new(&["slcan", "bitrate"], format!("such adapters have no bit rate {}", slcan.bitrate))
            .help(format!("it is one of {}", rates.join(", ")))
    })
}

fn check_log(log: &LogConfig) -> Option<Problem> {
    let is_speed = log.speed.is_finite() && (1e-3..=1e6).contains(&log.speed);
    (!is_speed).then(|| {
        Problem::new(&["log", "speed"], format!("a log cannot be played {} times as fast", log.speed))
            .help("write 1.0 for the pace at which it was recorded, 10.0 for ten times that")
    })
}

/// That there is no file to be played.
fn missing(log: &LogConfig) -> Option<Problem> {
    let what = match std::fs::metadata(&log.path) {
        Ok(file) if file.is_dir() => format!("{} is a folder", log.path.display()),
        Ok(_) => return None,
        Err(error) => format!("{} cannot be read: {error}", log.path.display()),
    };
    Some(Problem::new(&["log", "path"], what).help("name a file that candump -l has written"))
}

/// What a name of the configuration means.
pub(super) fn find<T>(database: &Database, found: Result<T, Unresolved>, at: &[&str]) -> Result<T, Problem> {
    found.map_err(|Unresolved { message, help }| {
        let problem = Problem::new(at, message);
        match help {
            _ if database.messages().is_empty() && database.problems().is_empty() => {
                problem.help("name the DBC file in the connection: dbc = [\"drive.dbc\"]")
            }
            Some(help) => problem.help(help),
            None => problem,
        }
    })
}
