//! `tidegate_writes`: what became of writes to outputs with a contract.
//!
//! Whoever reports stands between the device and the rules, and rows of this stream come before rules again.
//! So nobody waits here, or a box could wait for itself: when more is reported than becomes rows, the oldest
//! reports go, since a newer one says more of where an output is.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Int64Type, SchemaRef};
use futures::future::{BoxFuture, FutureExt};
use tidegate_connectors::Source;
use tidegate_core::{Clock, FieldType, Sampler};

use super::control::json;
use super::feed::{Fed, Feed, Said};
use super::{BoxItself, columns};
use crate::config::Values;
use crate::decision::Outcome;
use crate::status::Status;

/// Its name.
pub const NAME: &str = "tidegate_writes";
/// Reports that wait to become rows: some for each of the instances of several outputs.
const WAITING: usize = 8_192;
/// Reports that become rows together.
const AT_ONCE: usize = 1_024;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    columns([
        ("output", FieldType::Utf8),
        ("instance", FieldType::Utf8),
        ("write", FieldType::Int64),
        ("rule", FieldType::Utf8),
        ("outcome", FieldType::Utf8),
        ("reason", FieldType::Utf8),
        ("values", FieldType::Utf8),
    ])
});

/// Something became of a write.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteReport {
    /// the output
    pub output: Arc<str>,
    /// which of what it moves, such as `line=7`; empty where there is one
    pub instance: Arc<str>,
    /// the write's number
    pub write: u64,
    /// whose claim it was; none: it was none
    pub rule: Option<Arc<str>>,
    /// what became of it
    pub outcome: Outcome,
    /// why, unless it went well
    pub reason: Option<String>,
    /// what was written, or read
    pub values: Values,
}

impl WriteReport {
    /// What the rows of the stream say, without those that cannot be understood.
    #[must_use]
    pub fn read(rows: &RecordBatch) -> Vec<Self> {
        (0..rows.num_rows()).filter_map(|row| Self::from_row(rows, row)).collect()
    }

    fn from_row(rows: &RecordBatch, row: usize) -> Option<Self> {
        let text = |name| {
            let column = rows.column_by_name(name)?.as_string_opt::<i32>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let write = rows.column_by_name("write")?.as_primitive_opt::<Int64Type>()?;
        Some(Self {
            output: text("output")?.into(),
            instance: text("instance").unwrap_or_default().into(),
            write: u64::try_from(write.value(row)).ok()?,
            rule: text("rule").map(Arc::from),
            outcome: Outcome::of_word(text("outcome")?)?,
            reason: text("reason").map(str::to_owned),
            values: match text("values") {
                Some(values) => serde_json::from_str(values).ok()?,
                None => Values::new(),
            },
        })
    }
}

/// Takes reports. Cheap to clone.
#[derive(Clone)]
pub struct WriteReports {
    said: Arc<Said<WriteReport>>,
    status: Arc<Status>,
    reported: Arc<Mutex<Sampler>>,
}

impl WriteReports {
    /// Of a box with this clock; `status` counts those that went for want of room.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, status: Arc<Status>) -> Self {
        Self { said: Arc::new(Said::new(WAITING, clock)), status, reported: Arc::default() }
    }

    /// Takes `report`, which becomes a row of the stream soon. Waits for nobody.
    pub fn report(&self, report: WriteReport) {
        if !self.said.take_in_and_drop_oldest(report) {
            return;
        }
        self.status.streams.of(NAME).lost.add(1);
        let count = self.reported.lock().unwrap_or_else(PoisonError::into_inner).count(1);
        if let Some(reports) = count {
            tracing::error!(
                reports,
                "more was written than the box could take note of: what became of older writes is not in \
                `{NAME}`, and counts as unknown; see which output is written so often, or why rules are held up"
            );
        }
    }
}

impl Feed for WriteReports {
    fn rows(&mut self) -> Option<RecordBatch> {
        let reports = self.said.take_out(AT_ONCE);
        rows(&reports)
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        self.said.filled().boxed()
    }
}

/// Reports, each with what the wall clock showed, as rows of the stream; none: there are none.
#[must_use]
pub fn rows(reports: &[(i64, WriteReport)]) -> Option<RecordBatch> {
    if reports.is_empty() {
        return None;
    }
    let texts = |of: &dyn Fn(&WriteReport) -> Option<String>| -> ArrayRef {
        Arc::new(reports.iter().map(|(_, report)| of(report)).collect::<StringArray>())
    };
    let write = |report: &WriteReport| i64::try_from(report.write).unwrap_or(i64::MAX);
    let ts = TimestampNanosecondArray::from_iter_values(reports.iter().map(|(wall_ns, _)| *wall_ns));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ts.with_timezone("UTC")),
        texts(&|report| Some(report.output.to_string())),
        texts(&|report| Some(report.instance.to_string())),
        Arc::new(Int64Array::from_iter_values(reports.iter().map(|(_, report)| write(report)))),
        texts(&|report| report.rule.as_ref().map(ToString::to_string)),
        texts(&|report| Some(report.outcome.word().to_owned())),
        texts(&|report| report.reason.clone()),
        texts(&|report| json(&report.values)),
    ];
    // The columns are those of the schema, and equally long.
    RecordBatch::try_new(Arc::clone(schema()), columns).ok()
}

pub(super) fn schema() -> &'static SchemaRef {
    &SCHEMA
}

pub(super) fn open(BoxItself { writes, .. }: BoxItself<'_>) -> Box<dyn Source> {
    Box::new(Fed { stream: NAME, feed: writes.clone() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tidegate_core::clock::SimulatedClock;

    use super::*;
    use crate::config::Value;

    fn report(write: u64, outcome: Outcome) -> WriteReport {
        WriteReport {
            output: "pump".into(),
            instance: "".into(),
            write,
            rule: None,
            outcome,
            reason: None,
            values: Values::new(),
        }
    }

    #[test]
    fn what_became_of_writes_can_be_read_from_the_rows() {
        let mut reports = WriteReports::new(Arc::new(SimulatedClock::new(0)), Arc::default());
        let mut said: Vec<WriteReport> =
            (1..).zip(Outcome::WORDS).map(|(write, (_, outcome))| report(write, outcome)).collect();
        said.push(WriteReport {
            instance: "line=7".into(),
            rule: Some("cooling".into()),
            reason: Some("illegal data address".into()),
            values: [("mode".into(), Value::Text("auto".into())), ("level".into(), Value::Int(3))].into(),
            ..report(9, Outcome::Refused)
        });
        said.iter().for_each(|one| reports.report(one.clone()));
        assert_eq!(WriteReport::read(&reports.rows().unwrap()), said);
        assert!(reports.rows().is_none());
    }

    #[test]
    fn the_newest_reports_stay_and_lost_ones_are_counted() {
        let status = Arc::new(Status::default());
        let mut reports = WriteReports::new(Arc::new(SimulatedClock::new(0)), Arc::clone(&status));
        let newest = WAITING as u64 + 3;
        (1..=newest).for_each(|write| reports.report(report(write, Outcome::Acknowledged)));
        assert_eq!(status.streams.of(NAME).lost.get(), 3);
        let mut told = Vec::new();
        while let Some(rows) = reports.rows() {
            assert!(rows.num_rows() <= AT_ONCE);
            told.extend(WriteReport::read(&rows).into_iter().map(|report| report.write));
        }
        assert_eq!(told, (4..=newest).collect::<Vec<_>>());
    }
}
