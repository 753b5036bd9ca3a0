//! Rows that were counted, and the count of documents across the borders of rows, batches and partitions.
//!
//! A document's tokens follow one another, so within a stretch of neighboring rows (a [`Run`]) a feature's documents are counted by remembering the
//! latest one in which it fired. Only the first and the last document of a run can go on elsewhere. For these two the run remembers which
//! features fired; where two runs meet inside a document, features in both sets were counted twice, and one is taken off. What is held is a function
//! of the set of rows alone, not of the order in which they came.

use crate::error::{Error, Result};
use activation_store::{DocId, TokenPos};
use std::collections::BTreeMap;

/// A census of one run holds the features of its first and last document, and once more while it is saved or merged.
pub(crate) const BYTES_PER_FEATURE: u64 = 16;

/// Documents are numbered up to here; then the numbers start again.
pub(crate) const MOST_DOCUMENTS: u32 = u32::MAX - 1;

/// A document at the edge of a run, and the features that fired in the run's part of it, rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) doc: DocId,
    pub(crate) features: Vec<u32>,
}

/// The documents at the edges of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edges {
    /// No token of the run is of a document.
    None,
    /// The run lies in one document.
    Whole(Edge),
    /// Its first and its last document.
    Two(Edge, Edge),
}

/// Neighboring rows that were taken in: all of them, but for the last from `next_pos` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) end: u64,
    pub(crate) next_pos: u32,
    pub(crate) edges: Edges,
}

/// The run that is growing. The features that fired in its latest document are those with the latest number.
#[derive(Clone, Debug)]
struct Open {
    start: u64,
    end: u64,
    next_pos: u32,
    /// The first document, once it is over.
    head: Option<Edge>,
    doc: Option<DocId>,
}

/// All runs, by their first row.
#[derive(Clone, Debug)]
pub(crate) struct Coverage {
    runs: BTreeMap<u64, Run>,
    open: Option<Open>,
    /// The number of the latest document, from 1.
    number: u32,
}

/// Effect of the next token on the count of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassResult {
    /// It is of the document of this number; 0 for none.
    Document(u32),
    /// The first document of the run is over: before this token is counted, its features must be [noted](Coverage::note_head).
    Note,
    /// It is not in the open run or right behind it: before it is counted, another run must be [opened](Coverage::reopen).
    Reopen,
}

impl Coverage {
    pub(crate) fn new() -> Self {
        Self { runs: BTreeMap::new(), open: None, number: 1 }
    }

    pub(crate) fn from_runs(runs: BTreeMap<u64, Run>) -> Self {
        Self { runs, ..Self::new() }
    }

    /// The number of the document that is open.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Where in its row `at` a batch may go on: 0, or behind what was taken in of it.
    fn next_pos(&self, row: u64) -> u32 {
        let within = |start: u64, end: u64, next_pos: u32| match row {
            _ if row < start || row >= end => 0,
            _ if row + 1 == end => next_pos,
            _ => u32::MAX,
        };
        let open = self.open.as_ref().map_or(0, |open| within(open.start, open.end, open.next_pos));
        let closed =
            self.runs.range(..=row).next_back().map_or(0, |(&start, run)| within(start, run.end, run.next_pos));
        open.max(closed)
    }

    /// Checks that the rows of a batch are new and their positions rise.
    pub(crate) fn check(&self, at: &[TokenPos], rows: &mut Vec<u64>) -> Result<()> {
        rows.clear();
        let mut before: Option<TokenPos> = None;
        for &at in at {
            let next = match before {
                Some(before) if before.row == at.row => before.pos.saturating_add(1),
                _ => {
                    rows.push(at.row);
                    self.next_pos(at.row)
                }
            };
            if at.pos < next {
                return Err(Error::Twice { at });
            }
            before = Some(at);
        }
        rows.sort_unstable();
        match rows.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::Twice { at: TokenPos { row: pair[0], pos: 0 } }),
            None => Ok(()),
        }
    }

    /// Goes on to the next token, unless something has to be done first; then the same token is asked about again.
    pub(crate) fn step(&mut self, at: TokenPos, doc: Option<DocId>) -> PassResult {
        let Some(open) = &mut self.open else { return PassResult::Reopen };
        if at.row != open.end && at.row + 1 != open.end || self.number >= MOST_DOCUMENTS {
            return PassResult::Reopen;
        }
        if let Some(doc) = doc.filter(|doc| open.doc != Some(*doc)) {
            if open.doc.is_some() {
                if open.head.is_none() {
                    return PassResult::Note;
                }
                self.number += 1;
            }
            open.doc = Some(doc);
        }
        open.end = at.row + 1;
        open.next_pos = at.pos + 1;
        PassResult::Document(if doc.is_some() { self.number } else { 0 })
    }

    /// Notes the features that fired in the first document of the open run.
    pub(crate) fn note_head(&mut self, features: Vec<u32>) {
        if let Some(open) = &mut self.open {
            open.head = open.doc.map(|doc| Edge { doc, features });
        }
    }

    /// The open run as one of the others, given the features that fired in its latest document.
    fn closed(open: &Open, features: Vec<u32>) -> (u64, Run) {
        let edges = match (open.doc.map(|doc| Edge { doc, features }), open.head.clone()) {
            (None, _) => Edges::None,
            (Some(only), None) => Edges::Whole(only),
            (Some(tail), Some(head)) => Edges::Two(head, tail),
        };
        (open.start, Run { end: open.end, next_pos: open.next_pos, edges })
    }

    /// Puts the open run among the others, given the features that fired in its latest document. Gives the features whose latest document was
    /// counted twice.
    pub(crate) fn settle(&mut self, features: Vec<u32>) -> Vec<u32> {
        let Some(open) = self.open.take() else { return Vec::new() };
        self.number += 1;
        let (start, run) = Self::closed(&open, features);
        self.insert(start, run)
    }

    /// Opens the run in which `at` goes on, or a new one. Gives the features that fired in its latest document so far, which get the latest number.
    /// Everything must be [settled](Self::settle).
    pub(crate) fn reopen(&mut self, at: TokenPos) -> Vec<u32> {
        let goes_on = |run: &Run| run.end == at.row || run.end == at.row + 1;
        let before = self.runs.range(..=at.row).next_back().filter(|(_, run)| goes_on(run)).map(|(&start, _)| start);
        let Some((start, run)) = before.and_then(|start| Some((start, self.runs.remove(&start)?))) else {
            self.open = Some(Open { start: at.row, end: at.row, next_pos: 0, head: None, doc: None });
            return Vec::new();
        };
        let (head, tail) = match run.edges {
            Edges::None => (None, None),
            Edges::Whole(only) => (None, Some(only)),
            Edges::Two(head, tail) => (Some(head), Some(tail)),
        };
        let (doc, features) = tail.map_or((None, Vec::new()), |tail| (Some(tail.doc), tail.features));
        self.open = Some(Open { start, end: run.end, next_pos: run.next_pos, head, doc });
        features
    }

    /// Starts the numbers of documents again; the caller has forgotten the old ones.
    pub(crate) fn restart_numbers(&mut self) {
        self.number = 1;
    }

    /// All runs, the open one among them, given the features that fired in its latest document.
    pub(crate) fn runs(&self, features: Vec<u32>) -> (BTreeMap<u64, Run>, Vec<u32>) {
        let mut settled = self.clone();
        let twice = settled.settle(features);
        (settled.runs, twice)
    }

    /// A row that another coverage has as well.
    pub(crate) fn overlap(&self, others: &BTreeMap<u64, Run>) -> Option<u64> {
        others.iter().find_map(|(&start, run)| {
            let (ours, theirs) = (self.runs.range(..run.end).next_back(), start..run.end);
            ours.filter(|(_, ours)| ours.end > theirs.start).map(|(&ours, _)| ours.max(theirs.start))
        })
    }

    /// Puts a run among the others and joins it with its neighbors. Gives the features whose document was counted twice.
    pub(crate) fn insert(&mut self, start: u64, run: Run) -> Vec<u32> {
        let mut twice = Vec::new();
        let (mut start, mut run) = (start, run);
        let left = self.runs.range(..start).next_back().filter(|(_, left)| left.end == start).map(|(&start, _)| start);
        if let Some((left, neighbor)) = left.and_then(|left| Some((left, self.runs.remove(&left)?))) {
            run = join(neighbor, run, &mut twice);
            start = left;
        }
        if let Some(neighbor) = self.runs.remove(&run.end) {
            run = join(run, neighbor, &mut twice);
        }
        self.runs.insert(start, run);
        twice
    }

    /// Whether there is at most one run, so that nothing is counted twice.
    pub(crate) fn is_one_run(&self) -> bool {
        self.runs.len() + usize::from(self.open.is_some()) < 2
    }

    /// What is still counted twice where rows are missing between two runs that begin and end in the same document.
    pub(crate) fn twice_across_gaps(runs: &BTreeMap<u64, Run>) -> Vec<u32> {
        let mut twice = Vec::new();
        let mut all: Option<Run> = None;
        for run in runs.values().filter(|run| run.edges != Edges::None) {
            all = Some(match all.take() {
                None => run.clone(),
                Some(all) => join(all, run.clone(), &mut twice),
            });
        }
        twice
    }
}

/// Two neighboring runs as one; `twice` gets the features that fired on both sides of a document that the border cuts.
fn join(left: Run, right: Run, twice: &mut Vec<u32>) -> Run {
    let mut meet = |left: Edge, right: Edge| {
        twice.extend(left.features.iter().filter(|f| right.features.binary_search(f).is_ok()));
        let mut features = left.features;
        features.extend(right.features);
        features.sort_unstable();
        features.dedup();
        Edge { doc: left.doc, features }
    };
    let edges = match (left.edges, right.edges) {
        (Edges::None, edges) | (edges, Edges::None) => edges,
        (Edges::Whole(a), Edges::Whole(b)) if a.doc == b.doc => Edges::Whole(meet(a, b)),
        (Edges::Whole(a), Edges::Whole(b)) => Edges::Two(a, b),
        (Edges::Whole(a), Edges::Two(head, tail)) if a.doc == head.doc => Edges::Two(meet(a, head), tail),
        (Edges::Whole(a), Edges::Two(_, tail)) => Edges::Two(a, tail),
        (Edges::Two(head, tail), Edges::Whole(b)) if tail.doc == b.doc => Edges::Two(head, meet(tail, b)),
        (Edges::Two(head, _), Edges::Whole(b)) => Edges::Two(head, b),
        (Edges::Two(head, a), Edges::Two(b, tail)) => {
            if a.doc == b.doc {
                meet(a, b);
            }
            Edges::Two(head, tail)
        }
    };
    Run { end: right.end, next_pos: right.next_pos, edges }
}
