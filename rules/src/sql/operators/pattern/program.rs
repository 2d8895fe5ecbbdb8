//! A pattern as a program: what a search does with one row after the other.

use crate::sql::pattern::shape::Shape;

/// One step. After a step that is no jump comes the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// takes a row for the variable, if its condition holds
    Row {
        variable: u8,
        hidden: bool,
    },
    /// goes on at both; `first` is preferred
    Split {
        first: usize,
        second: usize,
    },
    Jump(usize),
    /// a repetition begins, of what can match no row at all
    Enter(u8),
    /// it ends; without a row it was none, or it would go on for ever
    Leave(u8),
    /// the pattern is complete
    Done,
}

/// Steps; a search begins at the first.
#[derive(Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    /// how many repetitions there are of what can match no row
    loops: u8,
}

impl Program {
    pub(super) fn compile(shape: &Shape) -> Self {
        let mut program = Self { steps: Vec::new(), loops: 0 };
        program.add(shape);
        program.steps.push(Step::Done);
        program
    }

    /// How many steps there are.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn step(&self, at: usize) -> Step {
        self.steps.get(at).copied().unwrap_or(Step::Done)
    }

    /// The variables, as bits, that the first row of a match can have.
    pub(super) fn starts(&self) -> u64 {
        let mut seen = vec![false; self.steps.len()];
        let mut open = vec![0];
        let mut variables = 0;
        while let Some(at) = open.pop() {
            if seen.get(at).copied().unwrap_or(true) {
                continue;
            }
            if let Some(seen) = seen.get_mut(at) {
                *seen = true;
            }
            match self.step(at) {
                Step::Row { variable, .. } => variables |= 1 << variable,
                Step::Split { first, second } => open.extend([first, second]),
                Step::Jump(to) => open.push(to),
                Step::Enter(_) | Step::Leave(_) => open.push(at + 1),
                Step::Done => {}
            }
        }
        variables
    }

    fn add(&mut self, shape: &Shape) {
        match shape {
            Shape::Row { variable, hidden } => {
                self.steps.push(Step::Row {
                    variable: u8::try_from(*variable).unwrap_or(u8::MAX),
                    hidden: *hidden,
                });
            }
            Shape::Sequence(shapes) => shapes.iter().for_each(|shape| self.add(shape)),
            Shape::Either(shapes) => {
                let mut ends = Vec::new();
                for (at, shape) in shapes.iter().enumerate() {
                    let is_last = at + 1 == shapes.len();
                    let split = self.steps.len();
                    if !is_last {
                        self.steps.push(Step::Split { first: split + 1, second: 0 });
                    }
                    self.add(shape);
                    if !is_last {
                        ends.push(self.steps.len());
                        self.steps.push(Step::Jump(0));
                        let second = self.steps.len();
                        self.set(split, Step::Split { first: split + 1, second });
                    }
                }
                let end = self.steps.len();
                ends.into_iter().for_each(|jump| self.set(jump, Step::Jump(end)));
            }
            Shape::Repeat { shape, least, most, greedy } => {
                (0..*least).for_each(|_| self.add(shape));
                let times = most.map_or(1, |most| most.saturating_sub(*least));
                let mut splits = Vec::new();
                for _ in 0..times {
                    splits.push(self.steps.len());
                    self.steps.push(Step::Jump(0));
                    let number = self.loops;
                    let counts = most.is_none() && shape.can_be_empty();
                    if counts {
                        self.loops = self.loops.saturating_add(1);
                        self.steps.push(Step::Enter(number));
                    }
                    self.add(shape);
                    if counts {
                        self.steps.push(Step::Leave(number));
                    }
                }
                if let (None, Some(split)) = (most, splits.first()) {
                    self.steps.push(Step::Jump(*split));
                }
                let end = self.steps.len();
                for split in splits {
                    let (again, on) = (split + 1, end);
                    let step = if *greedy {
                        Step::Split { first: again, second: on }
                    } else {
                        Step::Split { first: on, second: again }
                    };
                    self.set(split, step);
                }
            }
        }
    }

    fn set(&mut self, at: usize, step: Step) {
        if let Some(place) = self.steps.get_mut(at) {
            *place = step;
        }
    }
}
