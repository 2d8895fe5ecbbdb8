//! `tidegate output`: what outputs do, and what a person has them do.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::connect;
use crate::cli::args::output::{OutputCommand, OutputTarget};
use crate::cli::moment::Times;
use crate::cli::render::printable;
use crate::cli::table::{age, table};
use crate::cli::{Failure, print};
use crate::config::{Value, Values};
use crate::management::command::outputs::{InstanceDoes, OutputDoes, Outputs};
use crate::management::command::override_output::{Override, Told};
use crate::management::command::release::Release;
use crate::management::command::reset::Reset;
use crate::time::Readings;

/// Does what the command line asks of outputs.
///
/// # Errors
/// When no box answers, or it refuses.
pub fn output(command: OutputCommand) -> Result<(), Failure> {
    let times = Times::new(Readings::default(), Timestamp::now(), TimeZone::system());
    match command {
        OutputCommand::List(args) => {
            let answer = connect(args.config)?.ask(&Outputs { name: None }, |()| true)?;
            let Some(outputs) = answer else { return Ok(()) };
            print(&if args.json { json(&outputs)? } else { list(&outputs) })
        }
        OutputCommand::Show(args) => {
            let outputs = Outputs { name: Some(args.name) };
            let answer = connect(args.config)?.ask(&outputs, |()| true)?;
            let Some(outputs) = answer else { return Ok(()) };
            print(&if args.json {
                json(&outputs)?
            } else {
                outputs.iter().map(|does| show(does, &times)).collect()
            })
        }
        OutputCommand::Override(args) => {
            let OutputTarget { name: output, instance, config } = args.target;
            let (lease, reason, values) = (args.lease, args.reason, args.values.into_iter().collect());
            let command = Override { output, instance, values, lease, reason };
            let Some(told) = connect(config)?.ask(&command, |()| true)? else { return Ok(()) };
            let until = Timestamp::now().checked_add(SignedDuration::try_from(lease.0).unwrap_or_default());
            let until = until.map_or_else(|_| String::new(), |until| times.clock(until));
            let what = format!("is overridden for {lease}, until {until}: {}", values_of(&told.values));
            print(&done(&told, &what))
        }
        OutputCommand::Release(args) => {
            let OutputTarget { name: output, instance, config } = args.target;
            let command = Release { output, instance, reason: args.reason };
            let Some(told) = connect(config)?.ask(&command, |()| true)? else { return Ok(()) };
            print(&done(&told, "is released: rules have it again"))
        }
        OutputCommand::Reset(args) => {
            let OutputTarget { name: output, instance, config } = args.target;
            let command = Reset { output, instance, reason: args.reason };
            let Some(told) = connect(config)?.ask(&command, |()| true)? else { return Ok(()) };
            print(&done(&told, "is reset: interlocks that are true again let it go"))
        }
    }
}

fn json(outputs: &[OutputDoes]) -> serde_json::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(outputs)?))
}

/// What a person has had an output do.
fn done(told: &Told, what: &str) -> String {
    let Told { output, instance, .. } = told;
    let (of, option) = if instance.is_empty() {
        (String::new(), String::new())
    } else {
        (format!(" ({instance})"), format!(" --instance {instance}"))
    };
    let lines = [format!("{output}{of} {what}"), format!("what comes of it: tidegate why {output}{option}")];
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn list(outputs: &[OutputDoes]) -> String {
    let mut rows = Vec::new();
    for OutputDoes { name, contract, instances } in outputs {
        let row = |instance: &str, values: &str, age: &str, known: &str, why: &str| {
            [name.as_str(), instance, values, age, known, why].map(str::to_owned)
        };
        match (contract, instances.is_empty()) {
            (false, _) => rows.push(row("", "", "", "", "it has no contract")),
            (true, true) => rows.push(row("", "", "", "", "nothing was claimed since the start")),
            (true, false) => rows.extend(instances.iter().map(|does| {
                let (values, held) = (values_of(&does.values), age(i128::from(does.for_s) * 1_000_000_000));
                row(&does.instance, &values, &held, known(does), &does.sentence)
            })),
        }
    }
    if rows.is_empty() {
        return "there are no outputs\n".to_owned();
    }
    let mut out = String::new();
    table(
        &mut out,
        ["OUTPUT", "INSTANCE", "VALUES", "FOR", "KNOWN", "WHY"],
        [false, false, false, true, false, false],
        rows,
    );
    out
}

fn show(does: &OutputDoes, times: &Times) -> String {
    let OutputDoes { name, contract, instances } = does;
    if !contract {
        return printable(&format!("{name} has no contract: rules write to it as they like")) + "\n";
    }
    if instances.is_empty() {
        return printable(&format!("nothing was claimed of {name} since the start of the box")) + "\n";
    }
    let mut out = String::new();
    for does in instances {
        let of = if does.instance.is_empty() { String::new() } else { format!(" ({})", does.instance) };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", printable(&format!("{name}{of}: {}", does.sentence)));
        let mut item = |head: &str, text: &str| {
            let _ = writeln!(out, "  {head:9} {}", printable(text));
        };
        let since = does.since.parse().map_or_else(|_| does.since.clone(), |since| times.clock(since));
        item("values", &format!("{}, {}, since {since}", values_of(&does.values), known(does)));
        does.interlocks.iter().for_each(|interlock| item("interlock", interlock));
        if let Some(holds) = &does.overridden {
            let left = age(i128::from(holds.left_s) * 1_000_000_000);
            let (who, reason, values) = (&holds.who, &holds.reason, values_of(&holds.values));
            item("override", &format!("{values}, for {left} more: {who} ({reason})"));
        }
    }
    out
}

fn known(does: &InstanceDoes) -> &'static str {
    match (does.confirmed, does.values.is_empty()) {
        (true, _) => "confirmed",
        (false, true) => "not sent",
        (false, false) => "not confirmed",
    }
}

fn values_of(values: &Values) -> String {
    let value = |(column, value): (&Arc<str>, &Value)| format!("{column} = {value}");
    if values.is_empty() {
        "nothing".to_owned()
    } else {
        values.iter().map(value).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::management::command::outputs::OverrideHolds;

    fn outputs() -> Vec<OutputDoes> {
        let values = |on: bool| [("run".into(), Value::Bool(on))].into();
        let pump = InstanceDoes {
            instance: String::new(),
            values: values(false),
            confirmed: true,
            by: None,
            since: "2026-03-01T10:14:03.120Z".into(),
            for_s: 725,
            sentence: "off, since interlock `tank.level > 10` has tripped".into(),
            interlocks: vec!["tank.level > 10: tank.level was 8.2".into()],
            overridden: Some(OverrideHolds {
                who: "uid 1000".into(),
                reason: "bearing is changed".into(),
                values: values(true),
                left_s: 2_000,
            }),
        };
        let valve = InstanceDoes {
            instance: "line=7".into(),
            confirmed: false,
            sentence: "on: rule valve claims it\x1b".into(),
            interlocks: Vec::new(),
            overridden: None,
            ..pump.clone()
        };
        let output = |name: &str, contract, instances| OutputDoes { name: name.into(), contract, instances };
        vec![
            output("cooling_pump", true, vec![pump]),
            output("heater", true, Vec::new()),
            output("lamp", false, Vec::new()),
            output("valve", true, vec![valve]),
        ]
    }

    #[test]
    fn outputs_are_listed_with_what_they_do_and_why() {
        #[rustfmt::skip]
        let expected = [
            "  OUTPUT        INSTANCE  VALUES          FOR  KNOWN          WHY",
            "  cooling_pump            run = false  12 min  confirmed      off, since interlock `tank.level > \
            10` has tripped",
            "  heater                                                      nothing was claimed since the start",
            "  lamp                                                        it has no contract",
            "  valve         line=7    run = false  12 min  not confirmed  on: rule valve claims it\u{fffd}",
        ];
        assert_eq!(list(&outputs()).lines().collect::<Vec<_>>(), expected);
        assert_eq!(list(&[]), "there are no outputs\n");
    }

    #[test]
    fn an_output_is_shown_with_interlocks_and_the_end_of_an_override() {
        let now = "2026-03-01T10:26:08Z".parse().unwrap();
        let times = Times::new(Readings::default(), now, TimeZone::UTC);
        let text: Vec<String> = outputs().iter().map(|does| show(does, &times)).collect();
        let expected = "\
cooling_pump: off, since interlock `tank.level > 10` has tripped
  values    run = false, confirmed, since 10:14:03
  interlock tank.level > 10: tank.level was 8.2
  override  run = true, for 33 min more: uid 1000 (bearing is changed)
nothing was claimed of heater since the start of the box
lamp has no contract: rules write to it as they like
valve (line=7): on: rule valve claims it\u{fffd}
  values    run = false, not confirmed, since 10:14:03
";
        assert_eq!(text.concat(), expected);
    }

    #[test]
    fn what_was_done_is_said_with_where_to_look() {
        let told = Told { output: "valve".into(), instance: "line=7".into(), values: Values::new() };
        assert_eq!(
            done(&told, "is released: rules have it again"),
            "valve (line=7) is released: rules have it again\nwhat comes of it: tidegate why valve --instance \
            line=7\n"
        );
    }
}
