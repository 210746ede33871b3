//! What happened, in order: for the judge, for the reader, and for the proof that the same seed tells the same story.
//!
//! Laws
//! * Every line carries simulated time and follows from the seed alone. No address, no path, no real clock enters it.
//!
//! Not here: how it is shown (`report.rs`).

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    rc::Rc,
};

use jangbu_proto::cluster::v1::StatusReply;
use serde::Serialize;

use crate::{
    auditor::{Books, describe, records::*},
    coverage::{self, Lasted},
    invariants::{Law, MemberTold, News, Sighting, laws},
    marks::{self, Mark},
    tell::{Tell, Teller},
};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The cluster is made and its accounts are opened.
    Founding,
    /// Load and faults.
    Load,
    /// All faults are lifted; callers still finish what they began.
    Healing,
    /// The books of all replicas have been read.
    Done,
}

/// A line of the story.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub at_ns: u64,
    /// Who it is about: a host, or `faults`, `law`.
    pub lane: String,
    pub kind: &'static str,
    pub text: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Broken {
    pub law: String,
    pub text: String,
    pub at_ns: u64,
    /// The call that showed it, by its place in the history.
    pub call: Option<usize>,
}

/// What an operator is asked to do; see `actors::operator`.
#[derive(Debug, Clone)]
pub enum Command {
    Snapshot { node: usize },
    MoveLeader,
    Replace { old: usize, new: usize },
    Finalize,
}

#[derive(Default)]
pub struct Book {
    pub history: Vec<Call>,
    pub story: Vec<Line>,
    pub broken: Vec<Broken>,
    /// What each node said last.
    pub sightings: BTreeMap<usize, Sighting>,
    pub commands: VecDeque<Command>,
    pub commands_running: usize,
    /// What an operator was told, until somebody looks at the disks.
    pub members_told: Vec<MemberTold>,
    /// Somebody was seen to lead a new term: the votes for it must be on disks already, not soon.
    pub disks_wanted: bool,
    pub callers_running: usize,
    /// Nodes that were told to stop and have not ended yet.
    pub stopping: BTreeSet<usize>,
    /// A program said that the cluster has a version which it does not know.
    pub older_refused: bool,
    pub books: Option<Books>,
    /// Requests without an outcome: places in `history`.
    pub unknown: Vec<usize>,
    pub unknown_resolved: usize,
    /// "This must sometimes happen", and how often it did.
    pub marks: BTreeMap<&'static str, u64>,
    pub committed: u64,
    /// When each fault struck and was lifted.
    pub faults: Vec<Lasted>,
    /// When the leader of each term was first seen; the last term.
    pub leaders: Vec<u64>,
    last_leaders_term: u64,
    /// Nodes whose last death tore what they had not synced.
    pub torn: BTreeSet<usize>,
    trace: u64,
    trace_lines: u64,
    laws: Vec<Box<dyn Law>>,
    /// node id by place
    pub ids: BTreeMap<usize, u64>,
    /// Nodes that lost what they had synced, by the plan: no law binds them any more but to be replaced.
    pub lost: BTreeSet<usize>,
}

/// The chronicle of a run, shared by all that take part in it. Clones are the same chronicle.
#[derive(Clone)]
pub struct Chronicle {
    book: Rc<RefCell<Book>>,
    phase: Rc<Cell<Phase>>,
    now_ns: Rc<Cell<u64>>,
    teller: Rc<RefCell<Teller>>,
    /// Messages may be heard twice in this run.
    echoes: bool,
}

impl Chronicle {
    /// `tell`: what is printed as it happens. `echoes`: messages may be heard twice in this run.
    pub fn new(tell: Tell, echoes: bool) -> Self {
        let book = Book { laws: laws(), trace: 0xcbf2_9ce4_8422_2325, ..Book::default() };
        Self {
            book: Rc::new(RefCell::new(book)),
            phase: Rc::new(Cell::new(Phase::Founding)),
            now_ns: Rc::default(),
            teller: Rc::new(RefCell::new(Teller::new(tell))),
            echoes,
        }
    }

    pub fn book(&self) -> std::cell::RefMut<'_, Book> {
        self.book.borrow_mut()
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.line("run", "phase", format!("{phase:?}"));
    }

    /// The harness tells the time once per step: between steps nobody else knows it.
    pub fn set_now(&self, ns: u64) {
        self.now_ns.set(ns);
    }

    pub fn now_ns(&self) -> u64 {
        turmoil::sim_elapsed().map_or(self.now_ns.get(), |elapsed| elapsed.as_nanos() as u64)
    }

    pub fn line(&self, lane: &str, kind: &'static str, text: String) {
        let at_ns = self.now_ns();
        let mut book = self.book();
        book.note(at_ns, lane, kind, &text);
        print!("{}", self.teller.borrow_mut().line(at_ns, lane, kind, &text));
        book.story.push(Line { at_ns, lane: lane.into(), kind, text });
    }

    pub fn mark(&self, mark: &'static Mark) {
        *self.book().marks.entry(mark.name).or_default() += 1;
    }

    pub fn broken(&self, law: &str, text: String) {
        self.broken_at(law, text, self.now_ns(), None);
    }

    /// Of what is found out later than it happened.
    pub fn broken_at(&self, law: &str, text: String, at_ns: u64, call: Option<usize>) {
        self.line("law", "BROKEN", format!("{law}: {text}"));
        self.book().broken.push(Broken { law: law.into(), text, at_ns, call });
    }

    /// Where messages may be heard twice, each write may be carried out by another copy of it than the one that was answered,
    /// also after "nothing was done": nobody who answers can know.
    fn doubted(&self, mut call: Call) -> Call {
        if self.echoes && call.op.is_write() {
            call.retried = true;
            if let Answer::Unavailable(why) = call.answer {
                call.answer = Answer::Unknown(format!("messages may be heard twice; {why}"));
            }
        }
        call
    }

    /// Notes a call that has its answer, and what the run's own laws make of it.
    pub fn call(&self, call: Call) {
        let call = self.doubted(call);
        let text = format!(
            "{}{} -> {}",
            call.op.name(),
            match call.level {
                Level::Linearizable => String::new(),
                level => format!(" {level:?}"),
            },
            describe(&call.answer)
        );
        let kind = coverage::outcome(&call.answer);
        let lane = format!("c{}", call.client);
        let digest = match &call.answer {
            Answer::Written { results, .. } => format!("{results:?}"),
            Answer::Read { rows, .. } => format!("{rows:?}"),
            _ => String::new(),
        };
        self.book().note(call.answered_ns, &lane, "answer", &digest);
        self.line(&lane, kind, text);
        let mut book = self.book();
        if let Answer::Written { log_index, .. } | Answer::Read { log_index, .. } = call.answer {
            book.committed = book.committed.max(log_index);
        }
        if matches!(call.answer, Answer::Unknown(_)) && call.op.is_write() {
            let place = book.history.len();
            book.unknown.push(place);
        }
        book.history.push(call);
    }

    /// A node said how it is.
    pub fn sighting(&self, sighting: Sighting) {
        let Sighting { at_ns, node, status, .. } = &sighting;
        let text = format!(
            "{} term {} last {} committed {} applied {} snapshot {} purged {}",
            status.role,
            status.term,
            status.last_log_index,
            status.committed_index,
            status.applied_index,
            status.snapshot_index,
            status.purged_index
        );
        let changed = {
            let mut book = self.book();
            book.note(*at_ns, "status", "status", &format!("{node} {text} {:?}", status.digest));
            book.committed = book.committed.max(status.committed_index);
            let is_told = |status: &StatusReply| (status.role.clone(), status.term, status.cluster_version);
            book.sightings.get(node).is_none_or(|before| is_told(&before.status) != is_told(status))
        };
        if changed {
            self.line(&format!("n{}", node + 1), "role", format!("{text} version {}", status.cluster_version));
        }
        if self.book().lost.contains(&sighting.node) {
            return;
        }
        let marks = {
            let mut book = self.book();
            if status.role == "Leader" && status.term > book.last_leaders_term {
                book.last_leaders_term = status.term;
                book.leaders.push(*at_ns);
                book.disks_wanted = true;
            }
            marks::seen(&sighting, book.sightings.get(node), &book.sightings)
        };
        marks.into_iter().for_each(|mark| self.mark(mark));
        let mut laws = std::mem::take(&mut self.book().laws);
        for law in &mut laws {
            if let Some(text) = law.see(&sighting) {
                self.broken(law.name(), text);
            }
        }
        let mut book = self.book();
        book.laws = laws;
        book.sightings.insert(sighting.node, sighting);
    }

    /// Something happened that no node's status tells.
    pub fn hear(&self, news: &News) {
        // Where messages may be heard again, a call is over only for its caller.
        if self.echoes && matches!(news, News::FinalizeOver { .. }) {
            return;
        }
        self.book().laws.iter_mut().for_each(|law| law.hear(news));
    }

    /// All disks as a power cut would leave them now.
    pub fn see_disks(&self, disks: &crate::invariants::Disks<'_>) {
        let mut laws = std::mem::take(&mut self.book().laws);
        for law in &mut laws {
            if let Some(text) = law.see_disks(disks) {
                self.broken(law.name(), text);
            }
        }
        self.book().laws = laws;
    }

    /// Who leads, as far as anyone said: of those who say so, the one with the highest term.
    pub fn leader(&self) -> Option<usize> {
        let book = self.book();
        let leaders = book.sightings.values().filter(|sighting| sighting.status.role == "Leader");
        leaders.max_by_key(|sighting| sighting.status.term).map(|sighting| sighting.node)
    }

    /// One number for all that happened, and how many lines went into it.
    pub fn trace(&self) -> (u64, u64) {
        let book = self.book();
        (book.trace, book.trace_lines)
    }
}

impl Book {
    /// What was told is to be compared with the disks as they are now.
    pub fn wants_disks(&mut self) -> bool {
        std::mem::take(&mut self.disks_wanted) || !self.members_told.is_empty()
    }

    /// FNV-1a over every line: enough to tell two stories apart.
    fn note(&mut self, at_ns: u64, lane: &str, kind: &str, text: &str) {
        let mut line = String::new();
        write!(line, "{at_ns} {lane} {kind} {text}").expect("a string takes whatever is written");
        for byte in line.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.trace_lines += 1;
    }
}
