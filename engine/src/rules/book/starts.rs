//! Versions that were good when they were compiled, and could not start all the same.

use tidegate_core::{Diagnostic, Place};
use tidegate_rules::{Compiled, Mode};

use super::{RuleBook, placement, tables};
use crate::sequence::edit::Placed;
use crate::sequence::verdict::Verdict;
use crate::sequence::version::RuleFile;

impl RuleBook {
    /// The newest version of a rule could not start, as `verdict` says. `goes_on` is what runs instead,
    /// since it ran before.
    pub(super) fn cannot_start(&mut self, verdict: &Verdict, goes_on: Option<&RuleFile>) -> Vec<Placed> {
        let Some((name, entry)) = self.rules.get_key_value(&*verdict.rule) else { return Vec::new() };
        // Another version may have come meanwhile.
        let Some(refused) = entry.good.clone().filter(|good| **good.sha256() == *verdict.version) else {
            return Vec::new();
        };
        let (name, file) = (name.clone(), entry.file.clone());
        let before = goes_on.and_then(|before| {
            // It runs, whatever has become of the catalog.
            let compiled = self.compile_again(&name, &before.path, &before.source).ok();
            compiled.map(|compiled| (before.source.clone(), compiled))
        });
        let mut changes = Vec::new();
        let Some(entry) = self.rules.get_mut(&name) else { return changes };
        match before {
            Some((source, Compiled { options, mut rule, warnings })) => {
                let flows = rule.flows().to_vec();
                let ties = placement::ties(&flows, &self.catalog);
                (entry.good, entry.warnings, entry.warned) = (Some(source), warnings, true);
                (entry.tables, entry.rank) = (tables(&mut *rule), options.rank);
                (entry.writes, entry.running) = (options.mode == Mode::Active, Some(flows));
                self.placement.settle(&name, None, ties);
                changes = self.bring_together(&name);
            }
            None if goes_on.is_none() => {
                (entry.good, entry.running, entry.writes) = (None, None, false);
                self.placement.leave(&name);
                let status = self.status.rules.of(&name);
                status.stopped.clear();
            }
            None => {}
        }
        self.refuse(&name, &file, vec![diagnostic(&file, &verdict.reason)], Some(refused));
        changes
    }
}

/// What is wrong with `file`, where `reason` may begin with its place there.
fn diagnostic(file: &str, reason: &str) -> Diagnostic {
    let placed = reason.strip_prefix(file).and_then(|rest| {
        let (place, what) = rest.strip_prefix(':')?.split_once(": ")?;
        let (line, column) = place.split_once(':')?;
        Some((Place { line: line.parse().ok()?, column: column.parse().ok()? }, what))
    });
    match placed {
        Some((place, what)) => Diagnostic::new(file, what).at(place),
        None => Diagnostic::new(file, format!("it cannot start: {reason}")),
    }
}

#[cfg(all(test, feature = "rhai"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use tidegate_rules::{Language, Source};

    use super::super::tests::House;
    use super::*;
    use crate::sequence::edit::Edit;

    const OPTIONS: &str = "//! reads = [\"tank\"]\n//! writes = [\"pump\"]\n";
    const COUNT: &str =
        "fn on_row(row, state) { state.n = (state.n ?? 0.0) + 1.0; write(\"pump\", #{ x: state.n }); }\n";
    /// Does not start before three rows were counted.
    const LATE: &str = "fn on_start(state) {\n    if (state.n ?? 0.0) < 3.0 { state.n = -1.0; throw \"too few\"; }\n    \
        state.n *= 100.0;\n    write(\"pump\", #{ x: state.n });\n}\n";

    fn counting() -> String {
        format!("{OPTIONS}{COUNT}")
    }

    fn late() -> String {
        format!("{OPTIONS}{LATE}{COUNT}")
    }

    /// What the worker says goes to the book, as it does in a box and when its journal is run again.
    fn tell(house: &mut House) -> Vec<Edit> {
        let mut said: Vec<Edit> = Vec::new();
        house.workers.iter_mut().for_each(|worker| said.extend(worker.take_verdicts()));
        for edit in &said {
            let changes = house.book.edit(edit).changes;
            assert!(changes.is_empty(), "it runs where it has run");
        }
        said
    }

    #[test]
    fn a_version_that_cannot_start_is_refused_and_the_one_before_goes_on_with_what_it_has() {
        let mut house = House::new(1);
        house.put_script("r", &counting()).feed("tank", &[0.0, 0.0]);
        house.put_script("r", &late()).feed("tank", &[0.0]);
        assert_eq!(house.values("pump"), [1.0, 2.0, 3.0]);
        let said = tell(&mut house);
        let [Edit::Refuse { verdict, goes_on }] = &said[..] else { panic!("{said:?}") };
        assert_eq!((verdict.rule.as_str(), verdict.at, verdict.is_start), ("r", 2, true));
        let before = Source::new(Language::Rhai, counting());
        assert_eq!(goes_on, &Some(RuleFile { path: "r.rhai".into(), source: before }));
        let wrong: Vec<String> = house.book.wrong().iter().map(ToString::to_string).collect();
        assert_eq!(wrong, ["r.rhai:4:49: too few, in `on_start`"]);
        let status = house.book.status().rules.of("r");
        assert!(status.running.is_some() && status.refused.is_some() && !status.stopped.is_some());
        // By now it can: what it writes comes before the row with whose number it starts.
        house.put_script("r", &late()).feed("tank", &[0.0]);
        assert_eq!(house.rows("pump")[3..], [("r".into(), 3, 0, 300.0), ("r".into(), 3, 1, 301.0)]);
        assert!(tell(&mut house).is_empty() && house.book.wrong().is_empty());
        // And not again, when it takes over what it has kept itself.
        house.put_script("r", &late()).feed("tank", &[0.0]);
        assert_eq!(house.values("pump")[5..], [302.0]);
    }

    #[test]
    fn a_first_version_that_cannot_start_does_not_run_and_a_newer_one_does() {
        let mut house = House::new(2);
        house.put_script("r", &late()).feed("tank", &[0.0]);
        assert!(house.book.status().rules.of("r").stopped.is_some(), "where there is no book to be told");
        let said = tell(&mut house);
        assert!(matches!(&said[..], [Edit::Refuse { goes_on: None, .. }]), "{said:?}");
        let status = house.book.status().rules.of("r");
        assert!(!status.running.is_some() && status.refused.is_some() && !status.stopped.is_some());
        assert_eq!((house.book.worker_of("r"), house.book.wrong().len()), (None, 1));
        house.put_script("r", &counting()).feed("tank", &[0.0]);
        assert_eq!(house.values("pump"), [1.0]);
    }

    #[test]
    fn what_was_refused_meanwhile_counts_no_more() {
        let mut house = House::new(1);
        house.put_script("r", &counting()).feed("tank", &[0.0]);
        house.put_script("r", &late()).feed("tank", &[0.0]);
        let newer = format!("{}// newer\n", counting());
        house.put_script("r", &newer).feed("tank", &[0.0]);
        assert_eq!(tell(&mut house).len(), 1);
        assert!(house.book.runs("r", &Source::new(Language::Rhai, newer)));
        assert_eq!(house.values("pump"), [1.0, 2.0, 3.0]);
        // One that was replaced before anything came has never been.
        house.put_script("r", &late()).put_script("r", &counting()).feed("tank", &[0.0]);
        assert!(tell(&mut house).is_empty());
        assert_eq!(house.values("pump"), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn whoever_shares_something_with_the_version_before_stays_with_it() {
        let mut house = House::new(3);
        let derives = counting().replace("pump", "d1").replace("x: state.n", "ts: row.ts, x: state.n");
        house.put_script("w", &derives).put_script("r", &counting().replace("tank", "d1"));
        // The new version would share nothing with the reader any more.
        house.put_script("w", &late().replace("pump", "lamp")).feed("tank", &[0.0]);
        assert_eq!(tell(&mut house).len(), 1);
        house.feed("tank", &[0.0]);
        assert_eq!(house.values("pump"), [1.0, 2.0]);
    }
}
