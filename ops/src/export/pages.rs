//! The pages of a column in a Parquet file: what they claim is looked at here, before anything is made of it.
//!
//! ```text
//!     the library reads a page's header, and its bytes as they lie in the file ──► looked at, unpacked ──► the library decodes it
//! ```
//!
//! The library believes a header: it asks for as much memory as that says, and fills it (found by fuzzing: a dictionary of
//! 845 million values in eight bytes). So it is told that nothing is compressed, and pages are unpacked here.
//!
//! Laws
//! * A page takes no more memory than an export's page can need, and a dictionary has no more values than its bytes hold.
//! * What no export writes (another codec, encoding or kind of page) is refused by the column's name.
//! * A header ends where it must: the library goes on for as long as a list says, also behind the end of the file.
//!
//! Not here: rows and their columns (`parquet.rs`). The file's footer, which its library reads in one piece: one that was made so
//! can still have it reserve 16 GiB of addresses that it never touches (8 bytes for each of two billion columns), or count to two
//! billion. There is no seam between.

use std::fs::File;
use std::io::{self, BufReader, Read, Take};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

/// Rows of one row group: some 20 MiB while they are gathered, and enough for readers to skip by.
pub const ROWS_PER_GROUP: usize = 131_072;

/// Bytes of one column in one row group. 131,072 values of 16 bytes are 2 MiB; of flags there are few, which a dictionary holds.
const CHUNK_BYTES_MAX: i64 = 8 << 20;

/// Bytes of a page, unpacked: 1.25 MiB. One is ended when it has reached 1 MiB, which is looked at after every 1,024 values.
const PAGE_BYTES_MAX: usize = 5 << 18;

/// Bytes of a page's header: a dozen numbers. With the least and the greatest value, as others write them, it is some hundreds.
const HEADER_BYTES_MAX: u64 = 4_096;

pub struct Pages {
    column: &'static str,
    /// The fewest bytes that one of its values takes.
    value_bytes: usize,
    as_they_lie: SerializedPageReader<Source>,
    unpacker: snap::raw::Decoder,
}

impl Pages {
    pub fn open(
        file: &Arc<File>,
        column: &'static str,
        chunk: &ColumnChunkMetaData,
        rows_count: usize,
    ) -> Result<Pages, ParquetError> {
        if chunk.compression() != Compression::SNAPPY {
            return Err(refused(
                column,
                format!("is compressed as {}, an export's columns are as SNAPPY", chunk.compression()),
            ));
        }
        if !(0..=CHUNK_BYTES_MAX).contains(&chunk.compressed_size()) {
            let said = chunk.compressed_size();
            return Err(refused(
                column,
                format!("has {said} bytes in one row group, an export's at most {CHUNK_BYTES_MAX}"),
            ));
        }
        let value_bytes = match chunk.column_type() {
            Type::FIXED_LEN_BYTE_ARRAY => 16,
            Type::INT64 => 8,
            // Numbers, or the lengths of what follows them.
            _ => 4,
        };
        let chunk = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let as_they_lie = SerializedPageReader::new(Arc::new(Source(file.clone())), &chunk, rows_count, None)?;
        Ok(Pages { column, value_bytes, as_they_lie, unpacker: snap::raw::Decoder::new() })
    }

    fn unpacked(&mut self, page: Page) -> Result<Page, ParquetError> {
        match page {
            Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
                self.check_encoding(encoding, &[Encoding::PLAIN, Encoding::PLAIN_DICTIONARY])?;
                let buf = self.unpack(&buf)?;
                if num_values as usize > buf.len() / self.value_bytes {
                    let told = format!("has a dictionary of {num_values} values, and {} bytes of them", buf.len());
                    return Err(refused(self.column, told));
                }
                Ok(Page::DictionaryPage { buf, num_values, encoding, is_sorted })
            }
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics } => {
                self.check_encoding(
                    encoding,
                    &[Encoding::PLAIN, Encoding::RLE_DICTIONARY, Encoding::PLAIN_DICTIONARY],
                )?;
                if num_values as usize > ROWS_PER_GROUP {
                    let told =
                        format!("has a page of {num_values} values, an export's row group at most {ROWS_PER_GROUP}");
                    return Err(refused(self.column, told));
                }
                let buf = self.unpack(&buf)?;
                Ok(Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics })
            }
            Page::DataPageV2 { .. } => {
                Err(refused(self.column, "has pages of the second version, an export's are of the first".into()))
            }
        }
    }

    fn check_encoding(&self, encoding: Encoding, known: &[Encoding]) -> Result<(), ParquetError> {
        match known.contains(&encoding) {
            true => Ok(()),
            false => Err(refused(self.column, format!("has a page encoded as {encoding}, which no export writes"))),
        }
    }

    /// How long it will be, a packed page says first; more or less is an error of its own.
    fn unpack(&mut self, packed: &Bytes) -> Result<Bytes, ParquetError> {
        let senseless =
            |error: snap::Error| refused(self.column, format!("has a page that can't be unpacked: {error}"));
        // An empty one isn't even packed.
        let bytes = if packed.is_empty() { 0 } else { snap::raw::decompress_len(packed).map_err(senseless)? };
        if bytes > PAGE_BYTES_MAX {
            let told = format!("has a page of {bytes} bytes when unpacked, an export's have at most {PAGE_BYTES_MAX}");
            return Err(refused(self.column, told));
        }
        let mut unpacked = vec![0; bytes];
        if bytes > 0 {
            self.unpacker.decompress(packed, &mut unpacked).map_err(senseless)?;
        }
        Ok(unpacked.into())
    }
}

fn refused(column: &str, why: String) -> ParquetError {
    ParquetError::General(format!("{column} {why}"))
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        self.as_they_lie.get_next_page()?.map(|page| self.unpacked(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.as_they_lie.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.as_they_lie.skip_next_page()
    }
}

impl Iterator for Pages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// The file, as the library reads pages from it: a header, then so many bytes.
struct Source(Arc<File>);

impl Length for Source {
    fn len(&self) -> u64 {
        Length::len(&*self.0)
    }
}

impl ChunkReader for Source {
    type T = Header;

    fn get_read(&self, start: u64) -> Result<Header, ParquetError> {
        Ok(Header(self.0.get_read(start)?.take(HEADER_BYTES_MAX)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// Whoever reads on at its end is refused, and not told that there is nothing: the library takes that for what it skips.
struct Header(Take<BufReader<File>>);

impl Read for Header {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 if !into.is_empty() => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a page's header doesn't end")),
            count => Ok(count),
        }
    }
}
