//! A part that breaks.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::datatypes::Schema;
use datafusion_common::DataFusionError;
use datafusion_expr::LogicalPlanBuilder;

use super::*;
use crate::rule::{Emissions, When};

/// Breaks in its second pass.
#[derive(Debug)]
struct Brittle {
    schema: SchemaRef,
    panics: bool,
    passes: usize,
}

impl Operator for Brittle {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn inputs(&self) -> Vec<&dyn Operator> {
        Vec::new()
    }

    fn inputs_mut(&mut self) -> Vec<&mut dyn Operator> {
        Vec::new()
    }

    fn run(&mut self, _: &mut Pass<'_>) -> Result<Chunk> {
        self.passes += 1;
        match (self.passes, self.panics) {
            (1, _) => Ok(Chunk::empty(&self.schema)),
            (_, false) => Err(DataFusionError::Execution("it broke".into())),
            (_, true) => panic!("it broke"),
        }
    }

    fn explain(&self) -> String {
        "brittle".into()
    }
}

fn brittle(panics: bool) -> Box<dyn Operator> {
    Box::new(Brittle { schema: Arc::new(Schema::empty()), panics, passes: 0 })
}

/// Two statements that share one.
fn two(panics: bool) -> [Shared; 2] {
    let plan = LogicalPlanBuilder::empty(false).build().unwrap();
    let mut parts = SharedParts::default();
    let shared = ["a", "b"].map(|rule| {
        let computes =
            Computes::new(&plan, &SqlOptions::default(), BTreeSet::new(), |_, _, _| Ok(brittle(false)));
        let mut shared = Shared::new(computes, brittle(panics));
        shared.share(&rule.into(), None, &mut parts).unwrap();
        shared
    });
    assert_eq!(parts.count(), 1);
    shared
}

fn run(shared: &mut Shared, round: u64) -> Result<Chunk, String> {
    let mut out = Emissions::default();
    let mut pass = Pass {
        input: None,
        watermarks: Vec::new(),
        when: When::at(0),
        ends: true,
        number: Some((round, 0)),
        late: Vec::new(),
        out: &mut out,
    };
    shared.run(&mut pass).map_err(|error| error.strip_backtrace())
}

#[test]
fn an_error_is_that_of_all_who_share() {
    let [mut a, mut b] = two(false);
    assert!(run(&mut a, 1).is_ok() && run(&mut b, 1).is_ok());
    for shared in [&mut b, &mut a] {
        assert_eq!(run(shared, 2).unwrap_err(), "Execution error: it broke");
    }
}

#[test]
fn who_shares_with_one_that_panicked_stops_and_says_so() {
    let [mut a, mut b] = two(true);
    assert!(run(&mut a, 1).is_ok() && run(&mut b, 1).is_ok());
    assert!(catch_unwind(AssertUnwindSafe(|| run(&mut a, 2))).is_err());
    drop(a);
    assert!(run(&mut b, 2).unwrap_err().contains("panicked"));
}

#[test]
fn who_is_not_called_with_the_others_does_not_go_on_as_if_he_were() {
    let [mut a, mut b] = two(false);
    assert!(run(&mut a, 1).is_ok());
    assert!(run(&mut b, When::ALONE).is_err());
}
