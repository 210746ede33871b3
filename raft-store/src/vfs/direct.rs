//! Large writes past the page cache.
//!
//!     offset      a page's border              a page's border    end
//!       |  cached  |   direct, a piece at a time    |    cached    |
//!
//! The log is written once and hardly ever read again, so each of its bytes in the page cache is a copy into a page that must be found,
//! cleared and given back, and takes the place of one that would be read. Whole pages of a large write go from here to the device;
//! what is left of it at either end, and every small write, goes through the page cache as ever.
//!
//! Laws
//! * No page is written both ways by one write, and what a file holds is the same whichever way it went.
//! * Nothing is durable before `sync_data`, whichever way it went.
//!
//! Not here: when to write, and when to sync (`log/writer.rs`).

use std::{
    fs, io,
    io::IoSlice,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Mutex,
};

use rustix::fs::OFlags;

/// What file systems and devices ask direct writes to be multiples of, in memory and in the file: 512 bytes, or a page.
const PAGE_BYTES: usize = 4 << 10;

/// A direct write waits for the device, and the sync behind it waits once more for the ends that went through the page cache. Below this
/// that is longer than its copy takes; the largest entry lies above.
pub(super) const WRITE_BYTES_MIN: usize = 768 << 10;

/// A direct write takes an aligned piece of memory, which records are not: they are copied into this one, which stays in a near cache.
const PIECE_BYTES: usize = 512 << 10;

/// The same file, opened once more to be written past the page cache.
pub(super) struct Direct {
    file: fs::File,
    piece: Mutex<Piece>,
}

/// Memory of [`PIECE_BYTES`] that begins on a page's border; none before the first large write.
#[derive(Default)]
struct Piece {
    memory: Vec<u8>,
    start: usize,
}

impl Direct {
    /// None where the file system has no such thing.
    pub(super) fn open(path: &Path) -> Option<Direct> {
        let flags = OFlags::DIRECT.bits() as i32;
        let file = fs::OpenOptions::new().write(true).custom_flags(flags).open(path).ok()?;
        Some(Direct { file, piece: Mutex::default() })
    }

    /// Writes all slices one after the other, the whole pages among them directly; `cached` is the same file.
    pub(super) fn write_all_at(&self, cached: &fs::File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut piece = self.piece.lock().expect("nothing panics while it copies");
        let piece = piece.bytes();
        let mut rest = Rest::of(slices);
        let mut offset = offset;
        while rest.bytes > 0 {
            let to_border = (offset.next_multiple_of(PAGE_BYTES as u64) - offset) as usize;
            let whole_pages = rest.bytes.min(PIECE_BYTES) / PAGE_BYTES * PAGE_BYTES;
            let (file, count) = match (to_border, whole_pages) {
                (0, 0) => (cached, rest.bytes),
                (0, whole_pages) => (&self.file, whole_pages),
                (to_border, _) => (cached, to_border.min(rest.bytes)),
            };
            rest.copy_to(&mut piece[..count]);
            write_piece(file, cached, &piece[..count], offset)?;
            offset += count as u64;
        }
        Ok(())
    }
}

/// A file system may take the flag and refuse the write: then it goes the other way.
fn write_piece(file: &fs::File, cached: &fs::File, bytes: &[u8], offset: u64) -> io::Result<()> {
    match file.write_all_at(bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => cached.write_all_at(bytes, offset),
        result => result,
    }
}

impl Piece {
    fn bytes(&mut self) -> &mut [u8] {
        if self.memory.is_empty() {
            self.memory = vec![0; PIECE_BYTES + PAGE_BYTES];
            self.start = self.memory.as_ptr().align_offset(PAGE_BYTES);
        }
        &mut self.memory[self.start..self.start + PIECE_BYTES]
    }
}

/// What is left of some slices.
struct Rest<'a> {
    slices: std::slice::Iter<'a, IoSlice<'a>>,
    current: &'a [u8],
    bytes: usize,
}

impl<'a> Rest<'a> {
    fn of(slices: &'a [IoSlice<'a>]) -> Self {
        Self { slices: slices.iter(), current: &[], bytes: slices.iter().map(|slice| slice.len()).sum() }
    }

    /// Fills `out`; there is as much.
    fn copy_to(&mut self, mut out: &mut [u8]) {
        self.bytes -= out.len();
        while !out.is_empty() {
            if self.current.is_empty() {
                self.current = self.slices.next().expect("no more is taken than there is");
            }
            let count = out.len().min(self.current.len());
            let (copied, left) = self.current.split_at(count);
            out[..count].copy_from_slice(copied);
            (out, self.current) = (&mut out[count..], left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over what was there, from odd offsets, in sizes around a piece's and a page's.
    #[test]
    fn a_file_is_the_same_whichever_way_it_was_written() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("file");
        let cached = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let direct = Direct::open(&path).expect("the folder that tests run in lies on a disk");
        let mut expected = vec![0xee; 3 * PIECE_BYTES];
        cached.write_all_at(&expected, 0).unwrap();
        let writes = [
            (0, 1),
            (1, PAGE_BYTES),
            (4096, PAGE_BYTES),
            (4095, PAGE_BYTES + 2),
            (96, PIECE_BYTES),
            (8192, 2 * PIECE_BYTES + 33),
        ];
        for (round, (offset, count)) in writes.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..count).map(|at| (at * 31 + round) as u8).collect();
            let slices: Vec<IoSlice<'_>> = bytes.chunks(100_003).map(IoSlice::new).collect();
            direct.write_all_at(&cached, &slices, offset as u64).unwrap();
            expected[offset..offset + count].copy_from_slice(&bytes);
            assert_eq!(fs::read(&path).unwrap(), expected, "{count} bytes at {offset}");
        }
    }
}
