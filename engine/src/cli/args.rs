//! What can be said on the command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tidegate_connectors::commission;
use tidegate_core::Span;

use super::moment;
use crate::replay::Input;

pub mod output;
#[cfg(feature = "wasm")]
pub mod plugin;

const EXIT_CODES: &str = "\
Exit codes:
  0  all went well
  1  something failed while running
  2  the command line is wrong
  3  the configuration or a rule is wrong; nothing was started
  4  the box runs, and something needs a person (`status`, `reload`)

Environment:
  TIDEGATE_LOG  what to log, when neither --log-level nor -v is given:
                a level, or levels by part, such as \"info,tidegate::buffer=debug\"
  NO_COLOR      no colours, also on a terminal

Start with `tidegate demo`: it shows rules at work on a simulated plant.";

/// Runs SQL rules on the data of machines, and moves outputs.
///
/// Tidegate reads machines, runs the rules in its rules directory on every row, writes to outputs, and keeps
/// results in a buffer until the cloud has taken them. It is not a safety-rated system.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// what to log, and how
    #[command(flatten)]
    pub log: LogArgs,
    /// what to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this box until it is stopped (Ctrl-C or SIGTERM)
    #[command(after_help = "Examples:
  tidegate run
  tidegate run --config /etc/tidegate/tidegate.toml --log json")]
    Run(RunArgs),
    /// Check configuration and rules; start nothing, touch no machine
    #[command(after_help = "Examples:
  tidegate check
  tidegate check --config tidegate.toml --format json

Exits with 0 when all is well and with 3 when anything is wrong.")]
    Check(CheckArgs),
    /// Show what a rule is made of: operators, what it keeps, which rows concern it, and with which rules it
    /// shares a stream
    #[command(after_help = "Examples:
  tidegate explain cooling
  tidegate explain new/cooling.sql --config /etc/tidegate/tidegate.toml
  tidegate explain cooling --format json")]
    Explain(ExplainArgs),
    /// Show the product at work on a simulated plant; nothing to install
    #[command(after_help = "Examples:
  tidegate demo
  tidegate demo --plain --dir /tmp/plant

It tells you which rule file to edit; the edit takes effect while you watch. Ctrl-C ends it.")]
    Demo(DemoArgs),
    /// Run the rules on recorded rows, and print what they would have written; touch no machine
    #[command(after_help = "Examples:
  tidegate replay --input tank=yesterday.jsonl
  tidegate replay --config tidegate.toml --input tank=tank.csv --input press=press.jsonl --output \
        results.jsonl
  tidegate replay --input tank=yesterday.jsonl --rules rules.new
  mosquitto_sub -h broker -t 'plant/#' -F %j > today.jsonl; tidegate replay --raw today.jsonl
  tidegate replay --buffer /media/stick/buffer.db --since 24h --decisions decisions.jsonl

Recorded rows are JSON Lines (.jsonl) or CSV (.csv) with a column `ts`: RFC 3339 text, or nanoseconds or \
        milliseconds since 1970.
Recorded messages are decoded as the box does it: `--raw` tries topics, `ts`, `rows` and `fields`, too. \
        Lines are what mosquitto_sub
prints: -F %j, -F '%U %t %p' (time, topic, payload), or -v (topic, payload).
Each result is one line: \
        {\"target\":..,\"rule\":..,\"time\":..,\"seq\":..,\"cause\":\"FILE:LINE\",\"row\":{..}}. What an \
        output with a contract
would have been sent has \"output\", \"write\" and \"by\" in place of target and rule. The same recording
and rules give the same bytes. What was read and written, and what is missing, is told on standard error at
the end.")]
    Replay(ReplayArgs),
    /// Run a version of a rule on what the box has kept, beside the one that runs, and say where they differ;
    /// touch no machine
    #[command(after_help = "Examples:
  tidegate backtest new/cooling.sql
  tidegate backtest new/cooling.sql --since 7d --config /etc/tidegate/tidegate.toml
  tidegate backtest cooling --json

It reads the journal, while the box runs or when it is stopped, at the lowest priority. The version that \
        runs is the one of this name in
the rules directory; the name of a rule instead of a file runs that one alone. The same rows give the same: \
        `tidegate replay --buffer`.")]
    Backtest(BacktestArgs),
    /// Ask a running box how it is
    #[command(after_help = "Examples:
  tidegate status
  tidegate status --config /etc/tidegate/tidegate.toml --json

Exits with 0 when all is right, with 1 when no box answers, and with 4 when the box runs and something \
        needs a person: a connection or an
uplink is down, or a rule was refused or stopped.")]
    Status(StatusArgs),
    /// Look at a running box: the status in a full screen, again and again
    #[command(after_help = "Example:
  tidegate top --config /etc/tidegate/tidegate.toml

q, Esc or Ctrl-C ends it; the box runs on.")]
    Top(TopArgs),
    /// Show rows of a running box as they pass: of a stream, a rule or an output
    #[command(after_help = "Examples:
  tidegate tail tank
  tidegate tail cooling_pump --count 3 --json

Rows of an output stand with the rule that wrote them, the number of the row that they stem from, and what \
        the far side answered. Rows that
come faster than they are shown pass by, and are counted. Ctrl-C ends it; the box runs on.")]
    Tail(TailArgs),
    /// Show what outputs with a contract do, and have them do something for a while
    #[command(after_help = "Examples:
  tidegate output list
  tidegate output override cooling_pump run=false --lease 45min --reason \"bearing is changed\"
  tidegate output release cooling_pump
  tidegate output reset press")]
    Output {
        /// what to do
        #[command(subcommand)]
        command: output::OutputCommand,
    },
    /// Ask a running box whether its configuration file has changed; a change takes effect when the box
    /// starts
    #[command(
        after_help = "Exits with 0 when nothing has changed, with 3 when the file is wrong, and with 4 when \
            the box has to be restarted to use it."
    )]
    Reload(ReloadArgs),
    /// Change what a running box logs
    #[command(after_help = "Examples:
  tidegate log debug --for 10min
  tidegate log info,tidegate::buffer=debug
  tidegate log

Without a level, the box logs again what it was started with.")]
    Log(LogCommandArgs),
    /// Say what an output does, and what led to it: rule and rows, claims, the contract, the device's answer
    #[command(after_help = "Examples:
  tidegate why cooling_pump
  tidegate why cooling_pump --at 10:14
  tidegate why valve --instance line=7 --not

It reads the buffer, while the box runs or when it is stopped. Decisions are kept of outputs that have a \
        contract; the newest ones stay when
the journal has gone.")]
    Why(WhyArgs),
    /// Look into the buffer, while the box runs or when it is stopped
    #[command(after_help = "Examples:
  tidegate buffer stats
  tidegate buffer peek --rule cooling --limit 3
  tidegate buffer export --stream tank --since 24h --output yesterday.jsonl
  tidegate buffer verify --buffer /media/stick/buffer.db")]
    Buffer {
        /// what to do with it
        #[command(subcommand)]
        command: BufferCommand,
    },
    /// Write plugins: rules in Rust and other languages
    #[cfg(feature = "wasm")]
    Plugin {
        /// what to do
        #[command(subcommand)]
        command: plugin::PluginCommand,
    },
    /// use a line by hand
    #[command(flatten)]
    Commission(commission::LineCommand),
    /// Print the JSON Schema of the configuration file, for editors
    #[command(after_help = "Example:
  tidegate schema > tidegate.schema.json")]
    Schema,
    /// Print the script that completes this command line in a shell
    #[command(after_help = "Example:
  tidegate completions bash > /etc/bash_completion.d/tidegate")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `--config`, as every command has it.
#[derive(Debug, Args)]
pub struct ConfigArg {
    /// The configuration file; when absent, tidegate.toml in this directory, else /etc/tidegate/tidegate.toml
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `tidegate run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `tidegate status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print all of it as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `tidegate top`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `tidegate tail`
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The name of a stream, a rule or an output
    pub name: String,
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// End after so many rows
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Print a JSON object a line, for programs
    #[arg(long)]
    pub json: bool,
}

/// `tidegate reload`
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `tidegate log`
#[derive(Debug, Args)]
pub struct LogCommandArgs {
    /// error, warn, info, debug or trace, or levels by part, as in TIDEGATE_LOG
    // Every command has a `level` already, for its own log.
    #[arg(id = "new_level", value_name = "LEVEL")]
    pub level: Option<String>,
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// For how long, such as 10min; then the box logs again what it was started with
    #[arg(long = "for", value_name = "TIME", requires = "new_level")]
    pub lasting: Option<Span>,
}

/// `tidegate check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// How to print what is wrong: text for people, or a JSON array of {"file", "line", "column", "message",
    /// "help"} for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `tidegate explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The name of a rule, or a rule file that need not be in the rules directory
    pub rule: String,
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `tidegate demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print plain lines instead of the live view, also on a terminal
    #[arg(long)]
    pub plain: bool,
    /// Keep the demo's configuration, rules and data in this directory; when absent, in `tidegate-demo`
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Bring back files that were edited as they are shipped
    #[arg(long)]
    pub fresh: bool,
}

/// `tidegate replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// Recorded rows and the stream that they are of; may be given several times; FILE `-` is standard input
    #[arg(
        long = "input",
        short,
        value_name = "STREAM=FILE",
        required_unless_present_any = ["raw", "buffer"],
        num_args = 1..,
        value_parser = parse_recording
    )]
    pub inputs: Vec<Input>,
    /// Recorded messages of a connection (or of all), with their payloads as they came: what
    /// `mosquitto_sub -F %j` prints
    #[arg(long, value_name = "[CONNECTION=]FILE", num_args = 1.., value_parser = parse_messages)]
    pub raw: Vec<Input>,
    /// What a box has kept in its journal: the box's buffer, or a copy of it
    #[arg(long, value_name = "FILE")]
    pub buffer: Option<PathBuf>,
    /// With --buffer: only rows that came then or later, by the box's clock: RFC 3339, a day such as
    /// 2026-03-01 (UTC), or how long ago, such as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_moment, requires = "buffer")]
    pub since: Option<i64>,
    /// With --buffer: only rows that came before this, written like --since
    #[arg(long, value_name = "TIME", value_parser = parse_moment, requires = "buffer")]
    pub until: Option<i64>,
    /// Where results are written; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Where decisions about outputs with a contract are written, a JSON object a line: what was sent, held
    /// back and refused, and why
    #[arg(long, value_name = "FILE")]
    pub decisions: Option<PathBuf>,
    /// Rules directory to use instead of the configured one
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
}

/// `tidegate backtest`
#[derive(Debug, Args)]
pub struct BacktestArgs {
    /// A rule file, which need not be in the rules directory, or the name of a rule
    pub rule: String,
    /// the configuration
    #[command(flatten)]
    pub config: ConfigArg,
    /// Another buffer than that of the configuration, such as a copy
    #[arg(long, value_name = "FILE")]
    pub buffer: Option<PathBuf>,
    /// Only rows that came then or later, by the box's clock: RFC 3339, a day such as 2026-03-01 (UTC), or
    /// how long ago
    #[arg(long, value_name = "TIME", value_parser = parse_moment, default_value = "24h")]
    pub since: i64,
    /// Only rows that came before this, written like --since
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub until: Option<i64>,
    /// Print it as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `tidegate why`
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The name of an output
    pub output: String,
    /// the buffer
    #[command(flatten)]
    pub file: BufferFileArgs,
    /// What it did then: a time of day such as 10:14 (up to its end), a day and a time (2026-03-01 10:14),
    /// both as the clock on the wall here shows them, RFC 3339, or how long ago, such as 20min
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub at: Option<i64>,
    /// Of one of those that the output moves, such as line=7
    #[arg(long, alias = "key", value_name = "COLUMN=VALUE")]
    pub instance: Option<String>,
    /// What did not happen instead: rows that were refused, and what was held back, newest first
    #[arg(long)]
    pub not: bool,
    /// Only what this rule wanted
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// With --not: how many
    #[arg(long, value_name = "N", default_value_t = 20, requires = "not")]
    pub limit: usize,
    /// Print it as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `tidegate buffer`
#[derive(Debug, Subcommand)]
pub enum BufferCommand {
    /// Show how much is in it
    Stats(BufferStatsArgs),
    /// Print some rows, one JSON object a line
    #[command(after_help = "Rows of rules look as they do for the uplink: \
            {\"id\":\"BOX/RULE/SEQ/ORDINAL\",\"rule\":..,\"row\":{..}}
(the id starts with RULE when `--buffer` is given without `--config`); rows of streams: \
            {\"seq\":..,\"stream\":..,\"row\":{..}}.")]
    Peek(BufferPeekArgs),
    /// Write rows to a file, as JSON Lines or CSV
    #[command(after_help = "Examples:
  tidegate buffer export --stream tank --since 24h --output yesterday.jsonl
  tidegate replay --input tank=yesterday.jsonl --rules rules.new

Rows of a stream are written as `tidegate replay` reads them. JSON Lines keep every value; CSV does not \
        tell empty text from no value.
Rows of rules look as they do for `tidegate buffer peek`; as CSV, their columns are id, rule, and row.NAME \
        for each column.")]
    Export(BufferExportArgs),
    /// Delete rows or records; only while no box uses the buffer
    #[command(after_help = "Without --yes it says what it would delete, and deletes nothing. Rows that are \
            deleted leave a gap record, which the box sends to
the uplink; deleting gap records is the one loss that nobody is told of.")]
    Purge(BufferPurgeArgs),
    /// Check that everything in it is as it has to be
    #[command(
        after_help = "Reads the whole file, which takes minutes when it is large and the disk is slow. A \
            box that runs meanwhile goes on; its write-ahead
log grows until this is done. Exits with 0 when all is well and with 1 when anything is wrong."
    )]
    Verify(BufferVerifyArgs),
}

/// Which buffer is looked at.
#[derive(Debug, Args)]
pub struct BufferFileArgs {
    /// the configuration, which names the buffer
    #[command(flatten)]
    pub config: ConfigArg,
    /// The buffer itself, such as a copy; no configuration is needed then
    #[arg(long, value_name = "FILE")]
    pub buffer: Option<PathBuf>,
}

/// `tidegate buffer stats`
#[derive(Debug, Args)]
pub struct BufferStatsArgs {
    /// the buffer
    #[command(flatten)]
    pub file: BufferFileArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Which rows are wanted.
#[derive(Debug, Args)]
pub struct BufferRowsArgs {
    /// Rows of this rule only
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// Rows of this stream as they came in, instead of rows that wait for the uplink
    #[arg(long, value_name = "STREAM", conflicts_with = "rule")]
    pub stream: Option<String>,
    /// Rows that could not be delivered and were put aside, instead of rows that wait
    #[arg(long, conflicts_with = "stream")]
    pub refused: bool,
}

/// `tidegate buffer peek`
#[derive(Debug, Args)]
pub struct BufferPeekArgs {
    /// the buffer
    #[command(flatten)]
    pub file: BufferFileArgs,
    /// the rows
    #[command(flatten)]
    pub rows: BufferRowsArgs,
    /// How many rows
    #[arg(long, short, value_name = "N", default_value_t = 10)]
    pub limit: u64,
    /// The newest rows instead of the oldest
    #[arg(long)]
    pub newest: bool,
}

/// `tidegate buffer export`
#[derive(Debug, Args)]
pub struct BufferExportArgs {
    /// the buffer
    #[command(flatten)]
    pub file: BufferFileArgs,
    /// the rows
    #[command(flatten)]
    pub rows: BufferRowsArgs,
    /// Where rows are written: FILE.jsonl or FILE.csv; `-` is standard output, as JSON Lines
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Only rows that came then or later, by the box's clock, whatever their `ts` is: RFC 3339, a day such as
    /// 2026-03-01 (UTC), or how long ago, such as 24h. Rows of a rule: when they were written; with
    /// --refused: when they were put aside
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub since: Option<i64>,
    /// Only rows that came before this, written like --since
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub until: Option<i64>,
}

/// `tidegate buffer purge`
#[derive(Debug, Args)]
pub struct BufferPurgeArgs {
    /// the buffer
    #[command(flatten)]
    pub file: BufferFileArgs,
    /// what is deleted
    #[command(flatten)]
    pub what: BufferPurgeWhat,
    /// Delete it
    #[arg(long)]
    pub yes: bool,
    /// How to print what was deleted
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// What `tidegate buffer purge` deletes: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct BufferPurgeWhat {
    /// Rows that could not be delivered and were put aside
    #[arg(long)]
    pub refused: bool,
    /// Records of dropped rows that the uplink has not confirmed
    #[arg(long)]
    pub gaps: bool,
    /// Waiting rows of this rule
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// All waiting rows
    #[arg(long)]
    pub all_waiting: bool,
}

/// `tidegate buffer verify`
#[derive(Debug, Args)]
pub struct BufferVerifyArgs {
    /// the buffer
    #[command(flatten)]
    pub file: BufferFileArgs,
    /// How to print what is wrong
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Nanoseconds since 1970.
fn parse_moment(text: &str) -> Result<i64, String> {
    let ns = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).ok();
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let ago = || jiff::Timestamp::now().checked_sub(text.parse::<Span>().ok()?.0).ok();
    let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| Some(day()?.timestamp())).or_else(ago);
    moment.and_then(ns).ok_or_else(|| {
        "write RFC 3339 such as `2026-03-01T12:00:00Z`, a day such as `2026-03-01`, or how \
            long ago, such as `24h`"
            .into()
    })
}

fn parse_recording(text: &str) -> Result<Input, String> {
    match text.split_once('=') {
        Some((stream, file)) if !stream.is_empty() && !file.is_empty() => {
            Ok(Input::Rows { stream: stream.into(), file: file.into() })
        }
        _ => Err("write STREAM=FILE, such as `tank=yesterday.jsonl`".into()),
    }
}

/// What stands in front of `=` is a connection, unless it looks like a path.
fn parse_messages(text: &str) -> Result<Input, String> {
    let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '.']);
    match text.split_once('=').filter(|(connection, _)| is_name(connection)) {
        _ if text.is_empty() => Err("write FILE or CONNECTION=FILE, such as `plant=yesterday.txt`".into()),
        Some((connection, file)) => {
            Ok(Input::Messages { connection: Some(connection.into()), file: file.into() })
        }
        None => Ok(Input::Messages { connection: None, file: text.into() }),
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// lines for people
    Text,
    /// JSON for programs
    Json,
}

/// What to log, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// How log lines look; they go to standard error
    #[arg(
        id = "log",
        long = "log",
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t = LogFormat::Text
    )]
    pub format: LogFormat,
    /// The least level that is logged [default: info, or what TIDEGATE_LOG says]
    #[arg(long = "log-level", global = true, value_enum, value_name = "LEVEL", conflicts_with = "verbose")]
    pub level: Option<LogLevel>,
    /// Log more: -v is debug, -vv is trace
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// one line of text an event
    Text,
    /// one JSON object an event
    Json,
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// data was lost, or a person is needed
    Error,
    /// something went wrong and was dealt with
    Warn,
    /// what the box does
    Info,
    /// how it does it
    Debug,
    /// everything
    Trace,
}

impl LogLevel {
    /// As the log library writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_level_of_a_box_is_not_that_of_the_command() {
        let cli = Cli::try_parse_from(["tidegate", "log", "debug", "--for", "10min", "--log-level", "warn"])
            .unwrap();
        let Command::Log(args) = cli.command else { panic!("not log") };
        assert_eq!((args.level.as_deref(), cli.log.level), (Some("debug"), Some(LogLevel::Warn)));
        assert!(Cli::try_parse_from(["tidegate", "log", "--for", "10min"]).is_err());
    }

    #[test]
    fn log_options_may_stand_after_the_command() {
        let cli = Cli::try_parse_from([
            "tidegate",
            "check",
            "--format",
            "json",
            "--log",
            "json",
            "--log-level",
            "warn",
        ])
        .unwrap();
        assert_eq!((cli.log.format, cli.log.level), (LogFormat::Json, Some(LogLevel::Warn)));
    }

    #[test]
    fn a_moment_is_a_time_a_day_or_how_long_ago() {
        assert_eq!(parse_moment("2026-03-01T12:00:00+01:00"), Ok(1_772_362_800_000_000_000));
        assert_eq!(parse_moment("1970-01-02"), Ok(86_400_000_000_000));
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
        let ago = now - parse_moment("24h").unwrap();
        assert!((0..1_000_000_000).contains(&(86_400_000_000_000 - ago)), "{ago}");
        for wrong in ["", "yesterday", "24", "2026-13-01", "12:00"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_recording_is_a_stream_and_a_file() {
        let cli = Cli::try_parse_from(["tidegate", "replay", "--input", "tank=a=b.csv"]).unwrap();
        let Command::Replay(args) = cli.command else { panic!("not replay") };
        assert_eq!(args.inputs, [Input::Rows { stream: "tank".into(), file: "a=b.csv".into() }]);
        for (raw, connection, file) in
            [("plant=a.txt", Some("plant"), "a.txt"), ("-", None, "-"), ("./a=b", None, "./a=b")]
        {
            let cli = Cli::try_parse_from(["tidegate", "replay", "--raw", raw]).unwrap();
            let Command::Replay(args) = cli.command else { panic!("not replay") };
            assert_eq!(
                args.raw,
                [Input::Messages { connection: connection.map(Into::into), file: file.into() }],
                "{raw}"
            );
        }
        for wrong in ["tank", "=x", "tank="] {
            assert!(Cli::try_parse_from(["tidegate", "replay", "--input", wrong]).is_err(), "{wrong}");
        }
    }
}
