//! Merging: four runs of a level become one of the next, in bounded steps behind the flushes.
//!
//!     level 0   ■ ■ ■ ■   ->   level 1   ■■■■ …   four of those   ->   level 2 …
//!
//! Each level has at most one merge at work. After a flush of n pairs every merge moves on by n and a quarter more ([`ahead_of`]): before the
//! next four runs of its level have come, it is done. So a level has at most seven runs, and a flush is followed by a known amount of
//! work, however long the history. Going faster would only gather that work behind some of the flushes, and the entries that wait for
//! the next one would wait longer.
//!
//! What a merge writes it writes aside, in files that become part of the state when it is done, and the engine never rewrites them.
//!
//! Laws
//! * A crash in the middle of a merge leaves nothing of it; one right behind it leaves a run that the catalogue doesn't name.
//! * What a merge replaced goes only when the catalogue on disk has let go of it, and nobody can read it any more.
//! * The pairs that come out are those that went in.
//!
//! Not here: when a step is taken (`flush.rs`).

use super::{Catalogue, Pages, Pair, Run, RunInfo, RunKind, RunRows, RunWriter};
use crate::engine::{Batch, Engine, Rows, Staged};
use crate::error::StoreError;
use crate::schema::{self, CATALOGUE, Family, RunPart};
use std::sync::{Arc, Weak};

/// Fewer: more merging. More: more runs to ask.
const RUNS_PER_MERGE: usize = 4;

/// Runs of this level stay as they are. 4^7 flushes of 256 k events are 4 billion events: from there on the number of runs grows by one per billion.
const LEVEL_MAX: u8 = 6;

/// The least that a step moves, so that merges of small flushes end.
const STEP_PAIRS_MIN: u64 = 4_096;

/// Of a file that a merge writes: what it holds in memory before.
const FILE_BYTES: usize = 4 << 20;

/// The merges in progress, and what awaits its end.
pub struct Merges {
    active: Vec<Merge>,
    retired: Vec<(u64, Weak<()>)>,
    filter_budget_bytes: usize,
}

impl Merges {
    pub fn new(filter_budget_bytes: usize) -> Merges {
        Merges { active: Vec::new(), retired: Vec::new(), filter_budget_bytes }
    }

    /// Lets go of all that lies between the runs that are still read. Only behind a flush: before it, the catalogue on disk names what was replaced.
    pub fn let_go_of_retired(&mut self, engine: &dyn Engine, catalogue: &Catalogue) -> Result<(), StoreError> {
        self.retired.retain(|(_, readers)| readers.strong_count() > 0);
        let read = self.retired.iter().map(|(run, _)| *run);
        let_go_between(engine, catalogue.all().map(|run| run.info.id).chain(read).collect())
    }

    /// Begins the merges that are due and moves all of them on. `flushed`: pairs of each kind in the flush before.
    pub fn step(
        &mut self,
        engine: &dyn Engine,
        catalogue: &mut Catalogue,
        flushed: [u64; 3],
    ) -> Result<(), StoreError> {
        for kind in RunKind::ALL {
            for level in 0..LEVEL_MAX {
                self.begin_if_due(catalogue, kind, level);
            }
        }
        let mut index = 0;
        while index < self.active.len() {
            let budget = ahead_of(flushed[self.active[index].kind as usize]);
            if self.active[index].advance(engine, budget)? {
                let done = self.active.swap_remove(index);
                self.finish(engine, catalogue, done)?;
            } else {
                index += 1;
            }
        }
        Ok(())
    }

    fn begin_if_due(&mut self, catalogue: &mut Catalogue, kind: RunKind, level: u8) {
        if self.active.iter().any(|merge| merge.kind == kind && merge.level == level) {
            return;
        }
        let inputs: Vec<RunInfo> = catalogue
            .of(kind)
            .iter()
            .map(|run| run.info.clone())
            .filter(|info| info.level == level)
            .take(RUNS_PER_MERGE)
            .collect();
        if inputs.len() == RUNS_PER_MERGE {
            let id = catalogue.draw_merged_id();
            self.active.push(Merge::begin(id, inputs, self.filter_budget_bytes));
        }
    }

    fn finish(&mut self, engine: &dyn Engine, catalogue: &mut Catalogue, done: Merge) -> Result<(), StoreError> {
        let Merge { kind, inputs, writer, mut aside, .. } = done;
        let expected: u64 = inputs.iter().map(|info| info.pairs).sum();
        let merged = writer.finish(&mut aside).expect("runs are never empty, nor is what they merge into");
        assert_eq!(merged.info.pairs, expected, "a merge neither loses nor adds a pair");
        engine.ingest(Family::Runs, aside.into_parts(engine)?)?;
        for run in replace(catalogue.of_mut(kind), &inputs, merged) {
            self.retired.push((run.info.id, run.readers()));
        }
        let mut batch = Batch::new();
        batch.put_sealed(Family::Meta, CATALOGUE, catalogue.encode());
        engine.write(batch)
    }
}

/// How many pairs a merge moves behind a flush of so many.
fn ahead_of(flushed: u64) -> u64 {
    (flushed + flushed / 4).max(STEP_PAIRS_MIN)
}

/// Lets go of all that lies between these runs, and before them.
pub fn let_go_between(engine: &dyn Engine, mut kept: Vec<u64>) -> Result<(), StoreError> {
    kept.sort_unstable();
    let mut from = 0;
    for run in kept {
        if from < run {
            let last = schema::run_key(run - 1, RunPart::Filter, u64::MAX, u64::MAX);
            engine.let_go(Family::Runs, &schema::run_key(from, RunPart::Page, 0, 0), &last)?;
        }
        from = run + 1;
    }
    Ok(())
}

/// Puts the merged run where its inputs were, and gives those back.
fn replace(runs: &mut Vec<Arc<Run>>, inputs: &[RunInfo], merged: Arc<Run>) -> Vec<Arc<Run>> {
    let at = runs.iter().position(|run| run.info.id == inputs[0].id).expect("only its own merge takes a run out");
    runs.splice(at..at + inputs.len(), [merged]).collect()
}

struct Merge {
    kind: RunKind,
    level: u8,
    inputs: Vec<RunInfo>,
    heads: Vec<Head>,
    /// The pairs that are being moved.
    window: Vec<Pair>,
    writer: RunWriter,
    aside: Aside,
}

/// What a merge has written so far. Pages and filters are files apart: each ascend by themselves.
#[derive(Default)]
struct Aside {
    pages: Batch,
    filters: Batch,
    parts: Vec<Staged>,
}

impl RunRows for Aside {
    fn put_page(&mut self, key: &[u8], payload: Vec<u8>) {
        self.pages.put_sealed(Family::Runs, key, payload);
    }

    fn put_filter(&mut self, key: &[u8], payload: Vec<u8>) {
        self.filters.put_sealed(Family::Runs, key, payload);
    }
}

impl Aside {
    /// Writes out what has come to the size of a file.
    fn spill(&mut self, engine: &dyn Engine, file_bytes: usize) -> Result<(), StoreError> {
        for rows in [&mut self.pages, &mut self.filters] {
            if rows.value_bytes() >= file_bytes {
                self.parts.push(engine.stage(std::mem::take(rows))?);
            }
        }
        Ok(())
    }

    fn into_parts(mut self, engine: &dyn Engine) -> Result<Vec<Staged>, StoreError> {
        self.spill(engine, 1)?;
        Ok(self.parts)
    }
}

/// One of the runs that are merged: its page at hand, and those behind it.
struct Head {
    pages: Pages,
    page: Vec<Pair>,
    /// How much of the page has moved.
    moved: usize,
}

impl Head {
    fn of(info: &RunInfo) -> Head {
        Head { pages: Pages::of(info.clone()), page: Vec::new(), moved: 0 }
    }

    /// Reads on if nothing is at hand.
    fn fill(&mut self, rows: &mut dyn Rows) -> Result<(), StoreError> {
        if self.moved == self.page.len() {
            self.moved = 0;
            self.pages.next(rows, &mut self.page)?;
        }
        Ok(())
    }

    /// Moves all pairs up to `border`, itself included.
    fn move_up_to(&mut self, border: Pair, window: &mut Vec<Pair>) {
        let rest = &self.page[self.moved..];
        let count = rest.partition_point(|pair| *pair <= border);
        window.extend_from_slice(&rest[..count]);
        self.moved += count;
    }
}

impl Merge {
    fn begin(id: u64, inputs: Vec<RunInfo>, filter_budget_bytes: usize) -> Merge {
        let (kind, level) = (inputs[0].kind, inputs[0].level);
        let least = inputs.iter().map(|info| info.ids.0).min().expect("a merge has inputs");
        let greatest = inputs.iter().map(|info| info.ids.1).max().expect("a merge has inputs");
        let heads = inputs.iter().map(Head::of).collect();
        let writer = RunWriter::new(id, kind, level + 1, (least, greatest), filter_budget_bytes);
        Merge { kind, level, inputs, heads, window: Vec::new(), writer, aside: Aside::default() }
    }

    /// Moves `budget` pairs, and up to a page of each run more; `true` when none is left.
    fn advance(&mut self, engine: &dyn Engine, budget: u64) -> Result<bool, StoreError> {
        let mut rows: Vec<Box<dyn Rows>> = self.heads.iter().map(|head| head.pages.rows(engine)).collect();
        let mut moved = 0;
        while moved < budget {
            self.heads.iter_mut().zip(&mut rows).try_for_each(|(head, rows)| head.fill(rows.as_mut()))?;
            // Up to the least of the last pairs at hand, all pairs are at hand.
            let Some(border) = self.heads.iter().filter_map(|head| head.page.last()).min().copied() else {
                return Ok(true);
            };
            self.window.clear();
            self.heads.iter_mut().for_each(|head| head.move_up_to(border, &mut self.window));
            // Each run's part ascends: the standard library's stable sort finds that, and only merges them.
            self.window.sort();
            self.window.iter().for_each(|pair| self.writer.push(*pair, &mut self.aside));
            moved += self.window.len() as u64;
            self.aside.spill(engine, FILE_BYTES)?;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineFactory as _;
    use crate::engine::memory::MemoryEngines;
    use crate::runs::{Cursor, pair};
    use crate::vfs::StdVfs;

    /// Large enough that the least a step moves is of no account.
    const FLUSHED: u64 = 8_000;

    fn flush_and_step(engine: &dyn Engine, catalogue: &mut Catalogue, merges: &mut Merges, first: u64) {
        let mut batch = Batch::new();
        let mut writer = RunWriter::new(catalogue.draw_run_id(), RunKind::History, 0, (0, 0), 0);
        (0..FLUSHED).for_each(|n| writer.push(pair(n, first + n), &mut batch));
        catalogue.of_mut(RunKind::History).extend(writer.finish(&mut batch));
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        merges.let_go_of_retired(engine, catalogue).unwrap();
        merges.step(engine, catalogue, [0, FLUSHED, 0]).unwrap();
    }

    #[test]
    fn however_many_flushes_there_were_a_level_has_at_most_seven_runs_and_all_pairs_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let engine = MemoryEngines::new(Arc::new(StdVfs)).open(dir.path()).unwrap();
        let (mut catalogue, mut merges) = (Catalogue::default(), Merges::new(0));
        let flushes = 150;
        for flush in 0..flushes {
            flush_and_step(engine.as_ref(), &mut catalogue, &mut merges, flush * FLUSHED);
            for level in 0..LEVEL_MAX {
                let runs = catalogue.of(RunKind::History).iter().filter(|run| run.info.level == level).count();
                assert!(runs <= 7, "{runs} runs of level {level} after {} flushes", flush + 1);
            }
        }
        assert!(catalogue.of(RunKind::History).iter().any(|run| run.info.level == 3), "64 flushes are one run");
        let mut values = Vec::new();
        for run in catalogue.of(RunKind::History) {
            let mut cursor = Cursor::new(run.info.clone(), pair(77, 0), pair(77, u64::MAX));
            while let Some(found) = cursor.next(engine.as_ref()).unwrap() {
                values.push(found.value);
            }
        }
        assert_eq!(values, (0..flushes).map(|flush| flush * FLUSHED + 77).collect::<Vec<_>>());
    }
}
