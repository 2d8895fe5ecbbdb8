//! One attempt to match: the branches from one first row on, and what they have taken.

/// No node.
pub(super) const ROOT: u32 = u32::MAX;

/// The branches from one first row.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub active: bool,
    /// preferred first
    pub branches: Vec<Branch>,
    /// what each remembers
    pub marks: Vec<u32>,
    pub nodes: Vec<Node>,
    /// how many nodes are worth a look for those that no branch needs
    pub clutter: usize,
    /// the last row of the match that is complete, unless a preferred branch completes too
    pub found: Option<u32>,
    /// whether time has ended one of the branches
    pub timed_out: bool,
    /// how many rows are behind the search when nothing is found
    pub fruitless: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Branch {
    /// where it is; at the end of the program it waits for the row that must not come
    pub step: usize,
    pub node: u32,
}

/// A row that some branch has taken; rows are counted from the first of the attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub parent: u32,
    pub row: u32,
    pub label: Label,
}

/// What a row was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub variable: u8,
    pub hidden: bool,
}

/// Room to work in, kept to allocate once.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub branches: Vec<Branch>,
    pub marks: Vec<u32>,
    pub mark: Vec<u32>,
    /// steps to go on from, each with the repetitions that have taken no row yet
    pub open: Vec<(usize, u64)>,
    /// steps that have been visited, with the same and with their place in `visited_marks`
    pub visited: Vec<(usize, u64, usize)>,
    pub visited_marks: Vec<u32>,
}

impl Scratch {
    /// Whether a branch with the marks at hand, and these repetitions without a row, has not been at `step`
    /// yet. From then on it has.
    pub(super) fn visit(&mut self, step: usize, begun: u64) -> bool {
        let width = self.mark.len();
        let same = |at: usize| self.visited_marks.get(at..at + width) == Some(self.mark.as_slice());
        if self.visited.iter().any(|(visited, with, at)| *visited == step && *with == begun && same(*at)) {
            return false;
        }
        self.visited.push((step, begun, self.visited_marks.len()));
        self.visited_marks.extend_from_slice(&self.mark);
        true
    }
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        self.branches.clear();
        self.marks.clear();
        self.visited.clear();
        self.visited_marks.clear();
    }
}

impl Attempt {
    /// Goes on with the branches in `scratch`.
    pub(super) fn keep(&mut self, scratch: &mut Scratch) {
        std::mem::swap(&mut self.branches, &mut scratch.branches);
        std::mem::swap(&mut self.marks, &mut scratch.marks);
    }

    /// What the rows up to `node` were taken for.
    pub(super) fn labels(&self, node: u32) -> Vec<Label> {
        let mut labels: Vec<Label> = self.path(node).map(|node| node.label).collect();
        labels.reverse();
        labels
    }

    /// The nodes from `node` back to the first.
    pub(super) fn path(&self, node: u32) -> impl Iterator<Item = &Node> {
        let get = |at: u32| self.nodes.get(at as usize);
        std::iter::successors(get(node), move |node| get(node.parent))
    }

    /// Clears nodes away that no branch needs.
    pub(super) fn tidy(&mut self) {
        if self.nodes.len() < self.clutter {
            return;
        }
        let mut places = vec![ROOT; self.nodes.len()];
        for node in self.branches.iter().map(|branch| branch.node).chain(self.found) {
            let mut at = node;
            while let (Some(place), Some(node)) = (places.get_mut(at as usize), self.nodes.get(at as usize)) {
                if *place != ROOT {
                    break;
                }
                *place = 0;
                at = node.parent;
            }
        }
        for (kept, place) in (0..).zip(places.iter_mut().filter(|place| **place != ROOT)) {
            *place = kept;
        }
        let place = |at: u32| places.get(at as usize).copied().unwrap_or(ROOT);
        let nodes = self.nodes.iter().zip(&places).filter(|(_, place)| **place != ROOT);
        self.nodes = nodes.map(|(node, _)| Node { parent: place(node.parent), ..*node }).collect();
        self.branches.iter_mut().for_each(|branch| branch.node = place(branch.node));
        self.found = self.found.map(place);
        self.clutter = 2 * self.nodes.len() + 256;
    }
}
