//! The log is crashed at every operation on its disk, in every way in which a disk may forget, and opened again.
//!
//! The workload appends entries of many sizes, saves votes, truncates, purges, rolls and reuses segments; the lanes work in
//! bursts, so that several writes wait for one sync. It is the same each time: operation k of one run is operation k of all.
//!
//! What must hold after each crash: the log is what the operations up to some point made of it, and that point is not
//! before the last one that was acknowledged. Then it goes on, crashes again, and the same must hold again.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use jangbu_raft_store::{
    Command, Entry, Fatal, LogConfig, LogId, LogSetup, LogStore, StoreError, TypeConfig, Vote,
    blocking::Lane,
    log::inspect,
    testing::{CrashVfs, Dice, Stepped, Survival},
    type_config::log_id,
};
use openraft::{
    EntryPayload, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};

/// Each is another workload. Sixty were run when this was written; these are kept because they take a few seconds.
const SEEDS: u64 = 6;

const DIR: &str = "/node/group-0/log";

/// A few entries per segment, so that a short workload rolls often.
fn config() -> LogConfig {
    LogConfig { segment_bytes: 4096, cache_bytes: 2000, append_bytes_max: 3000, spares_max: 1 }
}

/// One record's worth of change.
#[derive(Debug, Clone)]
enum Change {
    Entry(LogId, usize),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// What a log holds.
#[derive(Debug, Clone, Default, PartialEq)]
struct Contents {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, (LogId, usize)>,
}

impl Contents {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Entry(id, size) => drop(self.entries.insert(id.index, (*id, *size))),
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Truncate(after) => self.entries.retain(|index, _| after.is_some_and(|after| *index <= after.index)),
            Change::Purge(upto) => {
                self.entries.retain(|index, _| *index > upto.index);
                self.purged = Some(*upto);
            }
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, (id, _))| *id).or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }
}

fn body(id: LogId, size: usize) -> Bytes {
    let mut dice = Dice(id.index ^ (id.leader_id.term << 32));
    (0..size).map(|_| dice.roll() as u8).collect()
}

fn entry(id: LogId, size: usize) -> Entry {
    match size {
        0 => Entry::new(id, EntryPayload::Blank),
        _ => Entry::new(id, EntryPayload::Normal(Command(body(id, size)))),
    }
}

/// A log under test, and what was asked of it.
struct Subject {
    disk: CrashVfs,
    lanes: Stepped,
    log: LogStore,
    /// What the log held when it was opened.
    before: Contents,
    /// In the order of the stream.
    changes: Vec<Change>,
    /// How many of `changes` were acknowledged, all before included.
    acknowledged: Arc<Mutex<usize>>,
    now: Contents,
    term: u64,
}

async fn open(disk: &CrashVfs, lanes: &Stepped) -> Result<LogStore, StoreError> {
    open_with(config(), disk, lanes).await
}

async fn open_with(config: LogConfig, disk: &CrashVfs, lanes: &Stepped) -> Result<LogStore, StoreError> {
    let setup = LogSetup { dir: DIR.into(), group: 0, config, must_exist: false };
    let opening = LogStore::open(setup, Arc::new(disk.clone()), Arc::new(lanes.clone()), Fatal::default());
    lanes.finish(opening).await
}

async fn contents(log: &LogStore, lanes: &Stepped) -> Contents {
    let mut reader = log.clone();
    let state = reader.get_log_state().await.unwrap();
    let entries = lanes.finish(reader.try_get_log_entries(0..u64::MAX)).await.unwrap();
    let first = state.last_purged_log_id.map_or(0, |purged| purged.index + 1);
    let streamed: Vec<_> = lanes.finish(async { reader.entries_stream(first..u64::MAX).await.collect().await }).await;
    assert_eq!(streamed.into_iter().map(Result::unwrap).collect::<Vec<_>>(), entries, "both ways of reading agree");
    let mut contents = Contents {
        vote: reader.read_vote().await.unwrap(),
        purged: state.last_purged_log_id,
        entries: BTreeMap::new(),
    };
    for entry in &entries {
        let size = match &entry.payload {
            EntryPayload::Normal(Command(bytes)) => {
                assert_eq!(*bytes, body(entry.log_id, bytes.len()), "{} is whole", entry.log_id);
                bytes.len()
            }
            _ => 0,
        };
        contents.entries.insert(entry.log_id.index, (entry.log_id, size));
    }
    assert_eq!(state.last_log_id, contents.last());
    let indexes: Vec<u64> = contents.entries.keys().copied().collect();
    assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no hole: {indexes:?}");
    contents
}

impl Subject {
    fn new(disk: CrashVfs, lanes: Stepped, log: LogStore, before: Contents, term: u64) -> Self {
        let now = before.clone();
        Self { disk, lanes, log, before, changes: Vec::new(), acknowledged: Arc::default(), now, term }
    }

    fn note(&mut self, change: Change) {
        self.now.apply(&change);
        self.changes.push(change);
    }

    /// Each step is chosen by `dice`; stops when the disk is dead.
    async fn work(&mut self, dice: &mut Dice, steps: usize) {
        for _ in 0..steps {
            let alive = match dice.below(12) {
                0 => self.save_vote(dice).await,
                1 => self.truncate(dice).await,
                2 | 3 => self.purge(dice).await,
                4 => self.log.save_committed(self.now.last()).await.is_ok(),
                _ => self.append(dice).await,
            };
            if !alive {
                return;
            }
            for _ in 0..dice.below(5) {
                self.lanes.step(if dice.one_in(3) { Lane::Spare } else { Lane::Log });
            }
        }
        self.lanes.drain();
    }

    async fn append(&mut self, dice: &mut Dice) -> bool {
        let sizes: Vec<usize> = (0..1 + dice.below(3))
            .map(|_| match dice.below(6) {
                0 => 0,
                1 => 700 + dice.below(700) as usize,
                2 if dice.one_in(6) => 6000,
                _ => 1 + dice.below(200) as usize,
            })
            .collect();
        let first = self.now.next();
        let entries: Vec<_> = (first..).zip(sizes).map(|(index, size)| (log_id(self.term, 1, index), size)).collect();
        entries.iter().for_each(|(id, size)| self.note(Change::Entry(*id, *size)));
        let (done, durable) = TypeConfig::oneshot();
        let appended =
            self.log.append(entries.iter().map(|(id, size)| entry(*id, *size)), IOFlushed::signal(done)).await;
        let (acknowledged, count) = (self.acknowledged.clone(), self.changes.len());
        tokio::spawn(async move {
            if let Ok(Ok(())) = durable.await {
                let mut acknowledged = acknowledged.lock().unwrap();
                assert!(*acknowledged <= count, "acknowledged in order");
                *acknowledged = count;
            }
        });
        if appended.is_ok() {
            // What was appended can be read at once.
            let last = entries.last().unwrap().0;
            let read = self.read_from_memory(last.index);
            assert_eq!(read.map(|entry| entry.log_id), Some(last));
        }
        tokio::task::yield_now().await;
        appended.is_ok()
    }

    /// None if that would need the disk.
    fn read_from_memory(&self, index: u64) -> Option<Entry> {
        self.log.clone().try_get_log_entries(index..=index).now_or_never()?.ok()?.pop()
    }

    async fn save_vote(&mut self, dice: &mut Dice) -> bool {
        self.term += dice.below(2);
        let vote = match dice.one_in(2) {
            true => Vote::new_committed(self.term, 1),
            false => Vote::new(self.term, 1 + dice.below(3)),
        };
        self.note(Change::Vote(vote));
        let saved = self.lanes.finish(self.log.clone().save_vote(&vote)).await;
        if saved.is_ok() {
            *self.acknowledged.lock().unwrap() = self.changes.len();
        }
        saved.is_ok()
    }

    async fn truncate(&mut self, dice: &mut Dice) -> bool {
        let Some((first, last)) = self.ends() else { return true };
        let keep = first.max(last.saturating_sub(dice.below(4)));
        let after = self.now.entries[&keep].0;
        self.term += 1;
        self.note(Change::Truncate(Some(after)));
        self.log.truncate_after(Some(after)).await.is_ok()
    }

    async fn purge(&mut self, dice: &mut Dice) -> bool {
        let Some((first, last)) = self.ends() else { return true };
        let upto = last.min(first + dice.below(8));
        let upto = self.now.entries[&upto].0;
        self.note(Change::Purge(upto));
        self.log.purge(upto).await.is_ok()
    }

    fn ends(&self) -> Option<(u64, u64)> {
        Some((*self.now.entries.first_key_value()?.0, *self.now.entries.last_key_value()?.0))
    }

    /// What was opened after the crash must be this subject at some point from the last acknowledged one on.
    fn check(&self, found: &Contents, story: &str) {
        let acknowledged = *self.acknowledged.lock().unwrap();
        let mut possible = self.before.clone();
        for (count, change) in self.changes.iter().enumerate() {
            if count >= acknowledged && possible == *found {
                return;
            }
            possible.apply(change);
        }
        assert_eq!(
            possible,
            *found,
            "{story}: the log is nothing that {acknowledged} acknowledged of {} changes could have made",
            self.changes.len()
        );
    }
}

/// Runs the workload until operation `die_at`; the disk as it was at that moment, and what was asked.
async fn run(seed: u64, steps: usize, die_at: u64) -> Option<Subject> {
    let (disk, lanes) = (CrashVfs::default(), Stepped::default());
    disk.die_at(die_at);
    let log = open(&disk, &lanes).await.ok()?;
    let mut subject = Subject::new(disk, lanes, log, Contents::default(), 1);
    subject.work(&mut Dice(seed), steps).await;
    subject.lanes.clear();
    // Acknowledgements that were sent before the death are received.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    Some(subject)
}

async fn crash_everywhere(seed: u64, steps: usize) {
    let whole = run(seed, steps, u64::MAX).await.unwrap();
    assert_eq!(*whole.acknowledged.lock().unwrap(), whole.changes.iter().rposition(acknowledges).unwrap() + 1);
    let operations = whole.disk.operations();
    assert!(
        whole.log.stats().position() > 3 * config().segment_bytes && operations > steps as u64,
        "the workload is worth crashing"
    );
    for die_at in 0..operations {
        let subject = run(seed, steps, die_at).await;
        let ways = [
            Survival::Lost,
            Survival::Kept,
            Survival::TornLast(seed ^ die_at),
            Survival::Some(seed ^ die_at),
            Survival::Some(!seed ^ die_at),
        ];
        for survival in ways {
            let story = format!("seed {seed}, operation {die_at} of {operations}, {survival:?}");
            match &subject {
                Some(subject) => reopen(subject, survival, &story).await,
                None => {
                    // It died before it was open; the next start must not care. The disk is made again to die the same way.
                    let (disk, lanes) = (CrashVfs::default(), Stepped::default());
                    disk.die_at(die_at);
                    assert!(open(&disk, &lanes).await.is_err());
                    let lanes = Stepped::default();
                    let log = open(&disk.restart(survival), &lanes).await.expect(&story);
                    assert_eq!(contents(&log, &lanes).await, Contents::default(), "{story}");
                }
            }
        }
    }
}

fn acknowledges(change: &Change) -> bool {
    matches!(change, Change::Entry(..) | Change::Vote(_))
}

/// Opens the log after the crash, checks it, goes on, crashes again, and checks again.
async fn reopen(crashed: &Subject, survival: Survival, story: &str) {
    let mut dice = Dice(crashed.disk.operations() ^ 0xfeed);
    let (disk, lanes) = (crashed.disk.restart(survival), Stepped::default());
    let seen = inspect(&disk, Path::new(DIR), 0).expect(story);
    let log = open(&disk, &lanes).await.expect(story);
    let found = contents(&log, &lanes).await;
    let ids: Vec<LogId> = seen.entries.iter().map(|entry| entry.log_id).collect();
    assert_eq!(
        (seen.vote, seen.purged),
        (found.vote, found.purged),
        "{story}: what is seen from outside is what opens"
    );
    assert_eq!(ids, found.entries.values().map(|(id, _)| *id).collect::<Vec<_>>(), "{story}");
    crashed.check(&found, story);

    let mut second = Subject::new(disk, lanes, log, found, crashed.term + 1);
    second.disk.die_at(second.disk.operations() + dice.below(30));
    second.work(&mut dice, 12).await;
    second.lanes.clear();
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    for survival in [Survival::Lost, Survival::Kept, Survival::Some(dice.roll())] {
        let story = format!("{story}; then {survival:?} after {} changes", second.changes.len());
        let lanes = Stepped::default();
        let log = open(&second.disk.restart(survival), &lanes).await.expect(&story);
        second.check(&contents(&log, &lanes).await, &story);
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_wherever_the_disk_dies() {
    for seed in 0..SEEDS {
        crash_everywhere(seed, 80).await;
    }
}

/// A few segments of entries and votes; all acknowledged, and the lanes at rest.
async fn small_log() -> (CrashVfs, Contents) {
    let (disk, lanes) = (CrashVfs::default(), Stepped::default());
    let log = open(&disk, &lanes).await.unwrap();
    let mut subject = Subject::new(disk, lanes, log, Contents::default(), 1);
    assert!(subject.save_vote(&mut Dice(1)).await);
    for round in 0..14 {
        assert!(subject.append(&mut Dice(round * 7)).await);
        subject.lanes.drain();
    }
    // The newest record is an acknowledged entry; only the mark behind it protects it.
    let contents = contents(&subject.log, &subject.lanes).await;
    assert!(subject.log.stats().segments_count() > 1);
    (subject.disk.restart(Survival::Kept), contents)
}

#[tokio::test]
async fn a_flipped_byte_below_the_watermark_is_refused_and_named() {
    let (disk, whole) = small_log().await;
    let paths: Vec<_> = segments(&disk);
    for path in &paths {
        let bytes = disk.contents(path);
        let end = used(&bytes) - if Some(path) == paths.last() { 96 } else { 0 };
        for offset in 0..end {
            let disk = disk.restart(Survival::Kept);
            disk.flip(path, offset as u64);
            match open(&disk, &Stepped::default()).await {
                Err(StoreError::Damaged { path: named, advice, .. }) => {
                    assert_eq!((&named, advice.is_empty()), (path, false), "byte {offset} of {}", path.display());
                }
                Err(other) => panic!("byte {offset} of {}: {other}", path.display()),
                Ok(_) => panic!("byte {offset} of {} was not noticed", path.display()),
            }
        }
    }
    let lanes = Stepped::default();
    let log = open(&disk, &lanes).await.unwrap();
    assert_eq!(contents(&log, &lanes).await, whole, "unharmed, it opens");
}

#[tokio::test]
async fn what_a_disk_returns_wrongly_for_once_is_not_thrown_away() {
    let (disk, whole) = small_log().await;
    // Without the mark, which was never synced: nothing proves that the last record was durable.
    let disk = disk.restart(Survival::Lost);
    let untouched = disk.restart(Survival::Kept);
    drop(open(&untouched, &Stepped::default()).await.unwrap());
    for read in 0..untouched.reads() {
        for seed in 0..300 {
            let disk = disk.restart(Survival::Kept);
            disk.lie_at(read, seed);
            // It may refuse to start; it may not make of it what isn't so.
            drop(open(&disk, &Stepped::default()).await);
            let (disk, lanes) = (disk.restart(Survival::Kept), Stepped::default());
            let log = open(&disk, &lanes).await.unwrap();
            assert_eq!(contents(&log, &lanes).await, whole, "read {read}, seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let (disk, _) = small_log().await;
    let paths = segments(&disk);
    assert!(paths.len() > 2, "there is a middle: {paths:?}");
    for path in &paths[..paths.len() - 1] {
        let disk = disk.restart(Survival::Kept);
        disk.lose(path);
        let error = open(&disk, &Stepped::default()).await.err().expect("an entry is missing");
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[tokio::test]
async fn a_log_that_must_exist_is_not_begun_anew() {
    let lanes = Stepped::default();
    let setup = LogSetup { dir: DIR.into(), group: 0, config: config(), must_exist: true };
    let vfs = Arc::new(CrashVfs::default());
    let opened = lanes.finish(LogStore::open(setup, vfs, Arc::new(lanes.clone()), Fatal::default())).await;
    assert!(matches!(opened.err(), Some(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn after_the_first_failure_nothing_is_written_and_everyone_is_told() {
    for fail_at in 0..12 {
        let (disk, lanes, fatal) = (CrashVfs::default(), Stepped::default(), Fatal::default());
        let setup =
            LogSetup { dir: DIR.into(), group: 0, config: LogConfig { spares_max: 0, ..config() }, must_exist: false };
        let opening = LogStore::open(setup, Arc::new(disk.clone()), Arc::new(lanes.clone()), fatal.clone());
        let mut log = lanes.finish(opening).await.unwrap();
        disk.fail_at(disk.operations() + fail_at);
        let mut outcomes = Vec::new();
        for index in 0..20 {
            let (done, durable) = TypeConfig::oneshot();
            let accepted = log.append([entry(log_id(1, 1, index), 500)], IOFlushed::signal(done)).await.is_ok();
            lanes.drain();
            let durable = accepted && matches!(durable.await, Ok(Ok(())));
            outcomes.push((accepted, durable));
        }
        assert!(fatal.cause().expect("the failure is noticed").to_string().contains("log/00000000000"));
        let good = outcomes.iter().take_while(|(_, durable)| *durable).count();
        assert!(outcomes[good..].iter().all(|(_, durable)| !durable), "operation {fail_at}: {outcomes:?}");
        assert!(outcomes[good + 1..].iter().all(|(accepted, _)| !accepted), "operation {fail_at}: {outcomes:?}");
        let operations = disk.operations();
        assert!(lanes.finish(log.save_vote(&Vote::new(2, 1))).await.is_err());
        assert!(log.purge(log_id(1, 1, 0)).await.is_err() && log.truncate_after(None).await.is_err());
        lanes.drain();
        assert_eq!(disk.operations(), operations, "nothing touches the disk after it failed");
    }
}

#[tokio::test]
async fn what_waits_for_one_sync_is_synced_once() {
    let (disk, lanes) = (CrashVfs::default(), Stepped::default());
    let mut log = open_with(LogConfig { spares_max: 0, ..config() }, &disk, &lanes).await.unwrap();
    lanes.drain();
    let syncs = disk.syncs();
    let mut waiting = Vec::new();
    for index in 0..10 {
        let (done, durable) = TypeConfig::oneshot();
        log.append([entry(log_id(1, 1, index), 10)], IOFlushed::signal(done)).await.unwrap();
        waiting.push(durable);
    }
    lanes.drain();
    for durable in waiting {
        durable.await.unwrap().unwrap();
    }
    assert_eq!(disk.syncs() - syncs, 1, "all ten were queued before the writer looked");
}

#[tokio::test]
async fn a_segment_that_is_being_read_is_not_reused() {
    let (disk, lanes) = (CrashVfs::default(), Stepped::default());
    let mut log = open_with(LogConfig { spares_max: 4, ..config() }, &disk, &lanes).await.unwrap();
    let append = async |log: &mut LogStore, index| {
        log.append([entry(log_id(1, 1, index), 900)], IOFlushed::noop()).await.unwrap();
        lanes.drain();
    };
    for index in 0..10 {
        append(&mut log, index).await;
    }
    let mut reader = log.clone();
    let mut reading = std::pin::pin!(reader.try_get_log_entries(0..=1));
    assert!(futures_util::poll!(&mut reading).is_pending(), "the oldest entries are no longer in memory");
    log.purge(log_id(1, 1, 9)).await.unwrap();
    for index in 10..40 {
        while lanes.step(Lane::Log) || lanes.step(Lane::Spare) {}
        log.append([entry(log_id(1, 1, index), 900)], IOFlushed::noop()).await.unwrap();
    }
    let read = lanes.finish(reading).await.unwrap();
    assert_eq!(read, [entry(log_id(1, 1, 0), 900), entry(log_id(1, 1, 1), 900)]);
}

fn segments(disk: &CrashVfs) -> Vec<std::path::PathBuf> {
    use jangbu_raft_store::vfs::Vfs;
    let paths = disk.list(Path::new(DIR)).unwrap();
    paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

/// Up to the last byte that is not zero, and on to the end of its record.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(32))
}
