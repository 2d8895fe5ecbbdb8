//! Figures, next to their references and targets, as a table or as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure must reach.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// figure : reference
    RatioAtLeast(f64),
    /// figure : reference
    RatioAtMost(f64),
    /// the figure itself
    AtMost(f64),
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Figure {
    what: String,
    unit: &'static str,
    value: f64,
    reference: Option<(String, f64)>,
    goals: Vec<Goal>,
    note: String,
}

impl Figure {
    /// A figure with nothing beside it.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), unit, value, reference: None, goals: Vec::new(), note: String::new() }
    }

    /// What the same unit is without the box.
    pub fn against(mut self, name: impl Into<String>, value: f64) -> Self {
        self.reference = Some((name.into(), value));
        self
    }

    /// What it should be.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// What else was seen.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, reference)| self.value / reference)
    }

    fn meets(&self, goal: Goal) -> bool {
        match goal {
            Goal::RatioAtLeast(least) => self.ratio().is_some_and(|ratio| ratio >= least),
            Goal::RatioAtMost(most) => self.ratio().is_some_and(|ratio| ratio <= most),
            Goal::AtMost(most) => self.value <= most,
        }
    }

    fn row(&self) -> String {
        let reference = self
            .reference
            .as_ref()
            .map(|(name, value)| format!("{} ({name})", number(*value)))
            .unwrap_or_default();
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let goals = self.goals.iter().map(|goal| {
            let met = if self.meets(*goal) { "met" } else { "NOT met" };
            format!("{}: {met}", self.spelt(*goal))
        });
        let goals = goals.collect::<Vec<_>>().join("; ");
        format!(
            "| {} | {} {} | {reference} | {ratio} | {goals} | {} |",
            self.what,
            number(self.value),
            self.unit,
            self.note
        )
    }

    fn spelt(&self, goal: Goal) -> String {
        match goal {
            Goal::RatioAtLeast(least) => format!(">= {least} x"),
            Goal::RatioAtMost(most) => format!("<= {most} x"),
            Goal::AtMost(most) => format!("<= {most} {}", self.unit),
        }
    }

    fn json(&self) -> Value {
        let reference = self.reference.as_ref().map(|(name, value)| json!({ "name": name, "value": value }));
        let goals: Vec<_> = self
            .goals
            .iter()
            .map(|goal| json!({ "goal": self.spelt(*goal), "met": self.meets(*goal) }))
            .collect();
        json!({
            "what": self.what, "value": self.value, "unit": self.unit, "reference": reference, "ratio": self.ratio(),
            "goals": goals, "note": self.note,
        })
    }
}

/// Three significant digits, or all before the point, in groups.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

/// The machine and what ran on it.
pub fn surroundings(tidegate: &str, mosquitto: &str) -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo").lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model.to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    vec![
        (
            "processor",
            format!("{}, {cores} cores", model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())),
        ),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load before", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
        ("tidegate", tidegate.to_owned()),
        ("broker", mosquitto.to_owned()),
    ]
}

/// All of it as a Markdown document.
pub fn table(surroundings: &[(&str, String)], figures: &[Figure]) -> String {
    let mut text = String::new();
    for (name, value) in surroundings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "* {name}: {value}");
    }
    text.push_str(
        "\n| what | box | reference | ratio | target | besides |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    figures.iter().for_each(|figure| text.extend([figure.row().as_str(), "\n"]));
    text
}

/// All of it as JSON.
pub fn json(surroundings: &[(&str, String)], figures: &[Figure]) -> String {
    let about: serde_json::Map<String, Value> =
        surroundings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    format!(
        "{:#}",
        json!({ "about": about, "figures": figures.iter().map(Figure::json).collect::<Vec<_>>() })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts: Vec<String> = [1_234_567.8, 123.4, 12.34, 1.234, 0.1234].into_iter().map(number).collect();
        assert_eq!(texts, ["1 234 568", "123", "12.3", "1.23", "0.123"]);
    }

    #[test]
    fn a_figure_says_whether_it_meets_its_goals() {
        let figure = Figure::new("p99", 2.0, "ms")
            .against("echo", 1.0)
            .goal(Goal::RatioAtMost(1.5))
            .goal(Goal::AtMost(3.0));
        assert_eq!(
            figure.row(),
            "| p99 | 2.00 ms | 1.00 (echo) | 2.00 | <= 1.5 x: NOT met; <= 3 ms: met |  |"
        );
    }
}
