//! From a contract as it is written to one that cannot be wrong.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::diagnostic::did_you_mean;
use tidegate_core::{FieldType, Span};

use super::table::{ContractTable, InterlockTable, ReadBackTable, WordOr};
use super::{
    Contract, ContractKind, External, Interlock, MaxInputAge, OnStop, ReadBack, Rest, Startup, Value, Values,
};

/// More often, a ramp would be nothing but writes.
const SHORTEST_STEP: Duration = Duration::from_millis(10);

/// What is known of an output whose contract is looked at.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct Facts {
    /// The columns that it takes, with their types; `None`: any.
    pub(in crate::config) columns: Option<Vec<(String, FieldType)>>,
    /// The columns that say where a row goes.
    pub(in crate::config) key: Vec<String>,
    /// Whether the device can be asked for what it has.
    pub(in crate::config) is_readable: bool,
    /// Whether each write is looked at by the output itself, whatever the contract says.
    pub(in crate::config) reads_back: bool,
}

/// What is wrong with a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Problem {
    /// the keys that lead to it, from the contract on
    pub(in crate::config) at: Vec<String>,
    pub(in crate::config) what: String,
    pub(in crate::config) help: Option<String>,
    /// it is taken all the same
    pub(in crate::config) is_warning: bool,
}

/// Gathers what is wrong.
struct Checking<'a> {
    facts: &'a Facts,
    problems: Vec<Problem>,
}

impl Checking<'_> {
    fn error(&mut self, at: &[&str], what: impl Into<String>, help: impl Into<Option<String>>) {
        let at = at.iter().map(|key| (*key).to_owned()).collect();
        self.problems.push(Problem { at, what: what.into(), help: help.into(), is_warning: false });
    }

    fn warning(&mut self, at: &[&str], what: impl Into<String>, help: impl Into<Option<String>>) {
        let at = at.iter().map(|key| (*key).to_owned()).collect();
        self.problems.push(Problem { at, what: what.into(), help: help.into(), is_warning: true });
    }

    /// The type of a column, if the output says which columns it takes.
    fn kind(&mut self, at: &[&str], column: &str) -> Option<FieldType> {
        let columns = self.facts.columns.as_ref()?;
        if let Some((_, kind)) = columns.iter().find(|(name, _)| name == column) {
            return Some(*kind);
        }
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let help = did_you_mean(column, &names);
        self.error(at, format!("the output has no `{column}`"), help);
        None
    }

    fn number(&mut self, clause: &str, column: &str) {
        if let Some(kind @ (FieldType::Bool | FieldType::Utf8)) = self.kind(&[clause, column], column) {
            self.error(
                &[clause, column],
                format!("`{column}` is {kind}, and `{clause}` is for numbers"),
                None,
            );
        }
    }

    fn values(
        &mut self,
        at: &[&str],
        values: BTreeMap<String, Value>,
        range: &BTreeMap<Arc<str>, (f64, f64)>,
    ) -> Values {
        let mut typed = Values::new();
        for (column, value) in values {
            let at = [at, &[&column]].concat();
            let kind = self.kind(&at, &column);
            let fits = kind.map_or(Some(value.clone()), |kind| value.of_type(kind));
            let column: Arc<str> = column.as_str().into();
            match (fits, kind) {
                (None, Some(kind)) => {
                    self.error(&at, format!("`{column}` takes {kind}, and {value} is none"), None)
                }
                (None, None) => {}
                (Some(value), _) => {
                    if let (Some((least, greatest)), Some(number)) = (range.get(&column), value.number())
                        && !(*least..=*greatest).contains(&number)
                    {
                        let what = format!(
                            "{number} is not in the `range` of `{column}`, from {least} to {greatest}"
                        );
                        self.error(&at, what, None);
                    }
                    typed.insert(column, value);
                }
            }
        }
        typed
    }
}

fn spans_per_column<T>(table: BTreeMap<String, T>) -> BTreeMap<Arc<str>, T> {
    table.into_iter().map(|(column, value)| (column.into(), value)).collect()
}

impl ContractTable {
    /// The contract that it means, and everything that is wrong with it.
    pub(in crate::config) fn check(self, facts: &Facts) -> (Option<Contract>, Vec<Problem>) {
        let mut checking = Checking { facts, problems: Vec::new() };
        let contract = self.contract(&mut checking);
        let is_wrong = checking.problems.iter().any(|problem| !problem.is_warning);
        (contract.filter(|_| !is_wrong), checking.problems)
    }

    fn contract(self, checking: &mut Checking<'_>) -> Option<Contract> {
        self.check_numbers(checking);
        self.check_kind(checking);
        let range = spans_per_column(self.range.clone());
        let failsafe = self.rest(checking, &range)?;
        let max_input_age = self.ages(checking);
        let on_stop = self.on_stop.unwrap_or(match &failsafe {
            Rest::Values(_) => OnStop::Failsafe,
            Rest::Hold => OnStop::Hold,
            Rest::Release => OnStop::Release,
        });
        if failsafe.values().is_none() {
            for (key, is_set) in
                [("on_stop", on_stop == OnStop::Failsafe), ("startup", self.startup == Startup::Failsafe)]
            {
                if is_set {
                    checking.error(&[key], format!("`{key}` needs values in `failsafe`"), None);
                }
            }
        }
        let interlocks = self.interlock.clone().map_or_else(Vec::new, |interlocks| interlocks.0);
        let interlocks =
            interlocks.into_iter().filter_map(|table| table.interlock(checking, &failsafe, &range)).collect();
        let read_back = self.read_back.clone().and_then(|table| table.read_back(checking));
        let looks = |read_back: &ReadBack| read_back.every.is_some() || !read_back.from.is_empty();
        if self.external != External::Alarm && !read_back.as_ref().is_some_and(looks) {
            let help = "write how often, `read_back = { every = \"10s\", .. }`, or what shows it, `from`";
            let what = "nobody looks whether the device has something else than what was written";
            checking.error(&["external"], what, help.to_owned());
        }
        let key = self.key.clone().unwrap_or_else(|| checking.facts.key.clone());
        Some(Contract {
            kind: self.kind,
            key: key.into_iter().map(Arc::from).collect(),
            max_instances: self.max_instances.get(),
            expiry: self.expiry.0,
            failsafe,
            failsafe_after: self.failsafe_after.0,
            max_input_age,
            tie: self.tie,
            range,
            out_of_range: self.out_of_range,
            interlocks,
            never_with: self.never_with.into_iter().map(Arc::from).collect(),
            dead_time: self.dead_time.0,
            min_on: self.min_on.0,
            min_off: self.min_off.0,
            slew: self.slew.into_iter().map(|(column, rate)| (column.into(), rate.a_second)).collect(),
            slew_every: self.slew_every.0,
            deadband: spans_per_column(self.deadband),
            rate: self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate.a_second)),
            read_back,
            retries: self.retries,
            retry_after: self.retry_after.0,
            refresh: self.refresh.map(|span| span.0),
            startup: self.startup,
            startup_grace: self.startup_grace.0,
            on_stop,
            max_lease: self.max_lease.0,
            after_override: self.after_override,
            external: self.external,
        })
    }

    fn check_numbers(&self, checking: &mut Checking<'_>) {
        for (column, (least, greatest)) in &self.range {
            checking.number("range", column);
            if least.partial_cmp(greatest) != Some(std::cmp::Ordering::Less) {
                let what = format!("the range of `{column}` begins at {least} and ends at {greatest}");
                checking.error(&["range", column], what, "write the smaller number first".to_owned());
            }
        }
        self.slew.keys().for_each(|column| checking.number("slew", column));
        for (column, deadband) in &self.deadband {
            checking.number("deadband", column);
            if deadband.is_nan() || *deadband < 0.0 {
                checking.error(&["deadband", column], format!("a deadband of {deadband} is none"), None);
            }
        }
        if self.slew_every.0 < SHORTEST_STEP {
            let least = Span(SHORTEST_STEP);
            checking.error(&["slew_every"], format!("a ramp takes a step every {least} at most"), None);
        }
        if self.expiry.0 == Some(Duration::ZERO) {
            let help = "write how long a rule may be silent, such as \"30s\", or \"never\"".to_owned();
            checking.error(&["expiry"], "a claim that ends at once is none", help);
        }
        if let (Some(refresh), Some(expiry)) = (self.refresh, self.expiry.0)
            && refresh.0 > expiry
        {
            let what =
                format!("`refresh` ({refresh}) is longer than `expiry` ({}): it never happens", Span(expiry));
            checking.warning(&["refresh"], what, None);
        }
        let switches =
            |columns: &Vec<(String, FieldType)>| columns.iter().any(|(_, kind)| *kind == FieldType::Bool);
        if checking.facts.columns.as_ref().is_some_and(|columns| !switches(columns)) {
            for (key, span) in [("min_on", self.min_on), ("min_off", self.min_off)] {
                if !span.0.is_zero() {
                    let what = format!("`{key}` is for columns that are on or off, and the output has none");
                    checking.warning(&[key], what, None);
                }
            }
        }
    }

    /// What makes no sense for pulses.
    fn check_kind(&self, checking: &mut Checking<'_>) {
        if self.kind != ContractKind::Event {
            return;
        }
        for (key, is_set) in [
            ("tie", self.tie.is_some()),
            ("never_with", !self.never_with.is_empty()),
            ("min_on", !self.min_on.0.is_zero()),
            ("min_off", !self.min_off.0.is_zero()),
            ("slew", !self.slew.is_empty()),
            ("deadband", !self.deadband.is_empty()),
            ("read_back", self.read_back.is_some()),
            ("refresh", self.refresh.is_some()),
        ] {
            if is_set {
                let what =
                    format!("`{key}` is for levels, and this output takes pulses (`kind = \"event\"`)");
                checking.error(&[key], what, "take it out".to_owned());
            }
        }
    }

    fn rest(&self, checking: &mut Checking<'_>, range: &BTreeMap<Arc<str>, (f64, f64)>) -> Option<Rest> {
        let help = "write where the output goes when nobody claims anything: a value a column, such as \
            `failsafe = { run = false }`; \"hold\": it stays as it is; \"release\": it is not written any more";
        match &self.failsafe {
            None if self.kind == ContractKind::Event => Some(Rest::Release),
            None => {
                checking.error(&[], "the contract lacks `failsafe`", help.to_owned());
                None
            }
            Some(WordOr::Word(word)) if word == "hold" => Some(Rest::Hold),
            Some(WordOr::Word(word)) if word == "release" => Some(Rest::Release),
            Some(WordOr::Word(word)) => {
                checking.error(&["failsafe"], format!("\"{word}\" is no failsafe"), help.to_owned());
                None
            }
            Some(WordOr::Table(values)) if values.is_empty() => {
                checking.error(&["failsafe"], "there are no values in `failsafe`", help.to_owned());
                None
            }
            Some(WordOr::Table(values)) => {
                Some(Rest::Values(checking.values(&["failsafe"], values.clone(), range)))
            }
        }
    }

    fn ages(&self, checking: &mut Checking<'_>) -> MaxInputAge {
        match &self.max_input_age {
            None => MaxInputAge::Any,
            Some(WordOr::Word(word)) => match Span::from_str(word) {
                Ok(span) => MaxInputAge::All(span.0),
                Err(error) => {
                    checking.error(&["max_input_age"], error.to_string(), None);
                    MaxInputAge::Any
                }
            },
            Some(WordOr::Table(ages)) => {
                let ages = ages.iter().map(|(stream, span)| (Arc::from(stream.as_str()), span.0));
                MaxInputAge::Some(ages.collect())
            }
        }
    }
}

impl InterlockTable {
    fn interlock(
        self,
        checking: &mut Checking<'_>,
        failsafe: &Rest,
        range: &BTreeMap<Arc<str>, (f64, f64)>,
    ) -> Option<Interlock> {
        let trip = match (self.trip, failsafe.values()) {
            (Some(trip), _) => checking.values(&["interlock", "trip"], trip, range),
            (None, Some(failsafe)) => failsafe.clone(),
            (None, None) => {
                let help = "write where the output goes then, such as `trip = { run = false }`".to_owned();
                checking.error(&["interlock"], "the interlock has no values to go to", help);
                return None;
            }
        };
        let name = self.name.unwrap_or_else(|| self.when.clone()).into();
        Some(Interlock {
            name,
            when: self.when.into(),
            max_age: self.max_age.0,
            trip,
            clear_after: self.clear_after.0,
            latch: self.latch,
            trip_ramp: self.trip_ramp,
        })
    }
}

impl ReadBackTable {
    fn read_back(self, checking: &mut Checking<'_>) -> Option<ReadBack> {
        let mut from = BTreeMap::new();
        for (column, shows) in self.from {
            checking.kind(&["read_back", "from", &column], &column);
            match shows.split_once('.') {
                Some((stream, shown)) if !stream.is_empty() && !shown.is_empty() => {
                    from.insert(Arc::from(column.as_str()), (Arc::from(stream), Arc::from(shown)));
                }
                _ => {
                    let help = "write the stream and its column: `from = { speed = \"drive.actual_speed\" }`";
                    checking.error(
                        &["read_back", "from", &column],
                        format!("\"{shows}\" names no column"),
                        help.to_owned(),
                    );
                }
            }
        }
        if from.is_empty() && !checking.facts.is_readable {
            let help = "name the columns of streams that show what the device does: `from = { speed = \
                \"drive.actual_speed\" }`";
            checking.error(&["read_back"], "this connection cannot read what was written", help.to_owned());
        }
        if checking.facts.reads_back {
            let help = "take one of them out: that of the output compares at once and repeats nothing, that \
                of the contract gives the device time, repeats, and knows `tolerance`";
            checking.error(&["read_back"], "the output has a `read_back` of its own", help.to_owned());
        }
        for column in self.tolerance.keys() {
            checking.kind(&["read_back", "tolerance", column], column);
        }
        if self.within.0 < self.settle.0 || self.within.0.is_zero() {
            let what = "`within` has to be longer than `settle`: it is looked at in between";
            checking.error(&["read_back", "within"], what, None);
        }
        if let Some(every) = self.every {
            if !from.is_empty() {
                let help = "take it out: each row of these streams is looked at".to_owned();
                checking.error(&["read_back", "every"], "`every` is for a device that is asked", help);
            } else if every.0 < self.within.0 {
                let what =
                    format!("`every` ({every}) has to be as long as `within` ({}) at least", self.within);
                checking.error(&["read_back", "every"], what, None);
            }
        }
        Some(ReadBack {
            from,
            settle: self.settle.0,
            within: self.within.0,
            every: self.every.map(|every| every.0),
            tolerance: spans_per_column(self.tolerance),
            retries: self.retries,
            on_mismatch: self.on_mismatch,
        })
    }
}
