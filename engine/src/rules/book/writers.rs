//! Outputs that several rules write. It is allowed, and seldom meant: the row that comes last decides what
//! the machine does.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::Diagnostic;
use tidegate_rules::{Flow, Target};

/// So many files show what is meant; a line in a log is to be read.
const MOST_NAMED: usize = 3;

/// A warning for each output that more than one of the rules writes, at the last of their files. The rules
/// are told by file and flows; `is_decided`: whether it
/// is said of an output which of them counts.
pub(super) fn warnings<'a>(
    rules: impl Iterator<Item = (&'a str, &'a [Flow])>,
    is_decided: &dyn Fn(&str) -> bool,
) -> Vec<Diagnostic> {
    let mut writers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, flows) in rules {
        for flow in flows {
            if let Target::Output(output) = &flow.target
                && !is_decided(output)
            {
                writers.entry(output).or_default().insert(file);
            }
        }
    }
    let several = writers.into_iter().filter_map(|(output, mut files)| {
        let last = files.pop_last()?;
        let mut others: Vec<String> = files.iter().take(MOST_NAMED).map(|file| format!("`{file}`")).collect();
        if files.len() > MOST_NAMED {
            others.push(format!("{} more", files.len() - MOST_NAMED));
        }
        (!others.is_empty()).then_some((output, last, others.join(", ")))
    });
    several
        .map(|(output, file, others)| {
            Diagnostic::new(
                file,
                format!(
                    "{others} writes to the output `{output}`, too: the row that \
                comes last decides what it does"
                ),
            )
            .help("let one rule write it, from a derived stream that the others write to".to_owned())
            .warning()
        })
        .collect()
}
