//! A table as Apache Parquet, snappy-compressed, in the types that the readers of the field know:
//!
//! | kind | physical | logical |
//! |---|---|---|
//! | id, 128 bits of user data | FIXED_LEN_BYTE_ARRAY(16), big-endian | none: bytes, which sort as the numbers do |
//! | amount | FIXED_LEN_BYTE_ARRAY(16), big-endian | DECIMAL(38, 0) |
//! | number | INT64, INT32 | INTEGER(64, 32 or 16 bits, unsigned) |
//! | flags | BYTE_ARRAY | STRING: the names, joined by a bar |
//!
//! Timestamps are numbers (nanoseconds since 1970): readers that keep microseconds would make two events of one moment out of them.
//!
//! Laws
//! * An amount of more than 38 digits fits no decimal that readers know: it is refused, and CSV holds it.
//! * Whatever a file says of itself, reading it ends with rows or with an error, and its pages take no more memory than an export's
//!   (`pages.rs`).

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

use super::columns::{Column, Kind, Record};
use super::pages::{Pages, ROWS_PER_GROUP};
use super::table::{Output, ROWS_AT_ONCE, Rows, Sink, Written, malformed};
use crate::error::Failure;

/// The largest amount that a decimal of 38 digits holds.
const AMOUNT_MAX: u128 = 10u128.pow(38) - 1;

fn schema<R: Record>() -> Result<Arc<Type>, ParquetError> {
    let column = |column: &Column<R>| {
        let (physical, logical) = match column.kind {
            Kind::Id => ("fixed_len_byte_array(16)", String::new()),
            Kind::Amount => ("fixed_len_byte_array(16)", " (DECIMAL(38,0))".into()),
            Kind::Number(64) => ("int64", " (INTEGER(64,false))".into()),
            Kind::Number(bits) => ("int32", format!(" (INTEGER({bits},false))")),
            Kind::Flags(_) => ("binary", " (STRING)".into()),
        };
        format!("required {physical} {}{logical};", column.name)
    };
    let columns: Vec<String> = R::COLUMNS.iter().map(column).collect();
    parse_message_type(&format!("message {} {{ {} }}", R::TABLE, columns.join(" "))).map(Arc::new)
}

// --- out

pub struct Writer<R: Record> {
    file: SerializedFileWriter<Output>,
    group: Vec<R>,
    rows_count: u64,
}

impl<R: Record> Writer<R> {
    pub fn new(output: Output) -> Result<Writer<R>, Failure> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("jangbu {}", env!("CARGO_PKG_VERSION")))
            .build();
        let file = schema::<R>().and_then(|schema| SerializedFileWriter::new(output, schema, Arc::new(properties)));
        let file = file.map_err(|error| Failure::general(format!("{}: {error}", R::TABLE)))?;
        Ok(Writer { file, group: Vec::with_capacity(ROWS_PER_GROUP), rows_count: 0 })
    }

    fn write_group(&mut self) -> Result<(), Failure> {
        let written = (|| {
            let mut group = self.file.next_row_group()?;
            for column in R::COLUMNS {
                let mut writer =
                    group.next_column()?.ok_or_else(|| ParquetError::General("a column is missing".into()))?;
                write_column(&mut writer, column, &self.group)?;
                writer.close()?;
            }
            group.close().map(drop)
        })();
        written.map_err(|error| self.file.inner().failed(error))?;
        self.rows_count += self.group.len() as u64;
        self.group.clear();
        Ok(())
    }
}

impl<R: Record> Sink<R> for Writer<R> {
    fn push(&mut self, row: &R) -> Result<(), Failure> {
        let too_large = |column: &&Column<R>| matches!(column.kind, Kind::Amount) && (column.get)(row) > AMOUNT_MAX;
        if let Some(column) = R::COLUMNS.iter().find(too_large) {
            let (number, what) = (self.rows_count + self.group.len() as u64 + 1, (column.get)(row));
            return Err(Failure::general(format!(
                "row {number} of {}: {} is {what}, which no Parquet decimal holds (38 digits)",
                R::TABLE,
                column.name
            ))
            .advise("write these books as CSV: --format csv"));
        }
        self.group.push(*row);
        if self.group.len() == ROWS_PER_GROUP { self.write_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<Written, Failure> {
        if !self.group.is_empty() {
            self.write_group()?;
        }
        let rows_count = self.rows_count;
        // Writes the footer.
        let output = self.file.into_inner().map_err(|error| Failure::general(format!("{}: {error}", R::TABLE)))?;
        output.finish(rows_count)
    }
}

fn write_column<R: Record>(
    writer: &mut SerializedColumnWriter<'_>,
    column: &Column<R>,
    rows: &[R],
) -> Result<(), ParquetError> {
    let numbers = rows.iter().map(column.get);
    match column.kind {
        Kind::Id | Kind::Amount => {
            let bytes: Vec<u8> = numbers.flat_map(u128::to_be_bytes).collect();
            let bytes = bytes::Bytes::from(bytes);
            let value =
                |place: usize| FixedLenByteArray::from(ByteArray::from(bytes.slice(place * 16..(place + 1) * 16)));
            write_values::<FixedLenByteArrayType>(writer, (0..rows.len()).map(value))
        }
        // Unsigned ones, in the bits of signed ones.
        Kind::Number(64) => write_values::<Int64Type>(writer, numbers.map(|number| number as i64)),
        Kind::Number(_) => write_values::<Int32Type>(writer, numbers.map(|number| number as i32)),
        Kind::Flags(names) => {
            write_values::<ByteArrayType>(writer, numbers.map(|number| (names.to_text)(number).into_bytes().into()))
        }
    }
}

fn write_values<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<T::T> = values.collect();
    writer.typed::<T>().write_batch(&values, None, None).map(drop)
}

// --- in

pub struct Reader {
    path: PathBuf,
    file: Arc<File>,
    footer: ParquetMetaData,
    next_group: usize,
    /// Of the group that is being read, and how many rows are left of it.
    columns: Vec<ColumnReader>,
    left: usize,
    row: u64,
}

impl Reader {
    pub fn open<R: Record>(path: PathBuf) -> Result<Reader, Failure> {
        let file = File::open(&path).map_err(|error| Failure::unreadable(&path, &error))?;
        let read = |error: ParquetError| malformed(&path, 0, "file", &error.to_string());
        let footer = without_a_panic(|| ParquetMetaDataReader::new().parse_and_finish(&file)).map_err(read)?;
        let (wanted, found) = (schema::<R>().map_err(read)?, footer.file_metadata().schema());
        for (place, column) in R::COLUMNS.iter().enumerate() {
            let is_it = found.get_fields().get(place).is_some_and(|field| {
                let wanted = &wanted.get_fields()[place];
                field.name() == column.name
                    && field.is_primitive()
                    && field.get_physical_type() == wanted.get_physical_type()
                    && !field.is_optional()
            });
            if !is_it {
                return Err(malformed(&path, 0, column.name, "isn't the column that an export has in this place"));
            }
        }
        Ok(Reader { path, file: Arc::new(file), footer, next_group: 0, columns: Vec::new(), left: 0, row: 0 })
    }

    fn fill<R: Record>(&mut self) -> Result<Vec<R>, ParquetError> {
        while self.left == 0 {
            let Some(group) = self.footer.row_groups().get(self.next_group) else { return Ok(Vec::new()) };
            let rows_count = usize::try_from(group.num_rows()).ok().filter(|count| *count <= ROWS_PER_GROUP);
            self.left = rows_count.ok_or_else(|| too_many_rows(group.num_rows()))?;
            let open = |(column, chunk): (&Column<R>, &ColumnChunkMetaData)| {
                let pages = Pages::open(&self.file, column.name, chunk, self.left)?;
                Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
            };
            self.columns = R::COLUMNS.iter().zip(group.columns()).map(open).collect::<Result<_, ParquetError>>()?;
            self.next_group += 1;
        }
        let count = self.left.min(ROWS_AT_ONCE);
        let mut rows = vec![R::default(); count];
        self.columns = std::mem::take(&mut self.columns)
            .into_iter()
            .zip(R::COLUMNS)
            .map(|(reader, column)| read_column(reader, column, &mut rows))
            .collect::<Result<_, _>>()?;
        self.left -= count;
        self.row += count as u64;
        Ok(rows)
    }
}

fn too_many_rows(said: i64) -> ParquetError {
    ParquetError::General(format!("a row group of {said} rows, an export's have at most {ROWS_PER_GROUP}"))
}

impl<R: Record> Rows<R> for Reader {
    fn next(&mut self) -> Result<Vec<R>, Failure> {
        let row = self.row + 1;
        without_a_panic(|| self.fill()).map_err(|error| malformed(&self.path, row, "or behind it", &error.to_string()))
    }
}

/// The library takes some numbers of a file on trust, and panics over those that make no sense (found by fuzzing: a column that
/// begins before its file). Whoever made the file hears of it as of any other fault; the reader isn't used after that.
fn without_a_panic<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    let caught = catch_unwind(AssertUnwindSafe(read));
    caught.unwrap_or_else(|_| Err(ParquetError::General("what it says of itself makes no sense".into())))
}

fn read_column<R: Record>(
    reader: ColumnReader,
    column: &Column<R>,
    rows: &mut [R],
) -> Result<ColumnReader, ParquetError> {
    let wide = |value: &FixedLenByteArray| <[u8; 16]>::try_from(value.data()).map(u128::from_be_bytes).ok();
    let named = |names: super::columns::Names| {
        move |value: &ByteArray| (names.from_text)(std::str::from_utf8(value.data()).ok()?).ok()
    };
    let unsigned = move |value: &i32| Some(u128::from(*value as u32)).filter(|number| *number <= column.kind.max());
    Ok(match column.kind {
        Kind::Id | Kind::Amount => ColumnReader::FixedLenByteArrayColumnReader(
            read_values::<_, FixedLenByteArrayType>(reader, column, rows, wide)?,
        ),
        Kind::Number(64) => {
            let unsigned = |value: &i64| Some(u128::from(*value as u64));
            ColumnReader::Int64ColumnReader(read_values::<_, Int64Type>(reader, column, rows, unsigned)?)
        }
        Kind::Number(_) => {
            ColumnReader::Int32ColumnReader(read_values::<_, Int32Type>(reader, column, rows, unsigned)?)
        }
        Kind::Flags(names) => {
            ColumnReader::ByteArrayColumnReader(read_values::<_, ByteArrayType>(reader, column, rows, named(names))?)
        }
    })
}

fn read_values<R: Record, T: DataType>(
    reader: ColumnReader,
    column: &Column<R>,
    rows: &mut [R],
    number: impl Fn(&T::T) -> Option<u128>,
) -> Result<ColumnReaderImpl<T>, ParquetError> {
    let mut reader = get_typed_column_reader::<T>(reader);
    let mut values = Vec::with_capacity(rows.len());
    while values.len() < rows.len() {
        let (count, ..) = reader.read_records(rows.len() - values.len(), None, None, &mut values)?;
        if count == 0 {
            return Err(ParquetError::General(format!("{}: it ends before its rows do", column.name)));
        }
    }
    for (value, row) in values.iter().zip(rows) {
        let number = number(value).ok_or_else(|| ParquetError::General(format!("{}: is out of range", column.name)))?;
        (column.set)(row, number);
    }
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use parquet::basic::Encoding;
    use parquet::file::properties::{WriterPropertiesBuilder, WriterVersion};

    use super::*;
    use crate::export::columns::Expiry;
    use crate::export::columns::tests::filled;

    /// Of expiries with these bytes, by the columns' own reader.
    fn refusal(name: &str, write: impl FnOnce(File)) -> String {
        let path = std::env::temp_dir().join(format!("jangbu-parquet-{name}-{}", std::process::id()));
        write(File::create(&path).unwrap());
        let read = Reader::open::<Expiry>(path.clone()).and_then(|mut reader| {
            while !Rows::<Expiry>::next(&mut reader)?.is_empty() {}
            Ok(())
        });
        std::fs::remove_file(path).unwrap();
        let refused = read.expect_err("it is refused");
        assert!(refused.message.contains(name), "it names the file: {refused}");
        refused.message
    }

    /// One row group, as others write it.
    fn group(rows_count: usize, properties: WriterPropertiesBuilder) -> impl FnOnce(File) {
        move |file| {
            let rows: Vec<Expiry> = (0..rows_count as u128).map(filled).collect();
            let mut file =
                SerializedFileWriter::new(file, schema::<Expiry>().unwrap(), Arc::new(properties.build())).unwrap();
            let mut group = file.next_row_group().unwrap();
            for column in Expiry::COLUMNS {
                let mut writer = group.next_column().unwrap().expect("a column");
                write_column(&mut writer, column, &rows).unwrap();
                writer.close().unwrap();
            }
            group.close().unwrap();
            file.close().unwrap();
        }
    }

    fn as_exported() -> WriterPropertiesBuilder {
        WriterProperties::builder().set_compression(Compression::SNAPPY)
    }

    #[test]
    fn what_would_take_more_than_an_export_needs_is_refused_before_it_does() {
        let said = refusal("rows", group(ROWS_PER_GROUP + 1, as_exported()));
        assert!(said.contains("a row group of 131073 rows, an export's have at most 131072"), "{said}");
        let large = as_exported().set_dictionary_enabled(false).set_data_page_size_limit(64 << 20);
        let said = refusal("page", group(ROWS_PER_GROUP, large.set_data_page_row_count_limit(usize::MAX)));
        assert!(
            said.contains("pending_id has a page of 2097152 bytes when unpacked, an export's have at most"),
            "{said}"
        );
        // Found by fuzzing: for eight bytes of the file, the library filled 1.5 GiB and went on.
        let found = include_bytes!("../../../fuzz/seeds/exported/expiries-parquet-dictionary-of-millions");
        let said = refusal("dictionary", |mut file| std::io::Write::write_all(&mut file, &found[1..]).unwrap());
        assert!(
            said.contains("timestamp has a dictionary of ") && said.contains(" values, and 8 bytes of them"),
            "{said}"
        );
        // And a header that it goes on reading behind the end of the file.
        let endless = include_bytes!("../../../fuzz/seeds/exported/expiries-parquet-header-without-end");
        let said = refusal("header", |mut file| std::io::Write::write_all(&mut file, &endless[1..]).unwrap());
        assert!(said.contains("a page's header doesn't end"), "{said}");
    }

    #[test]
    fn what_no_export_writes_is_refused_by_its_column() {
        let said = refusal("codec", group(3, WriterProperties::builder()));
        assert!(said.contains("pending_id is compressed as UNCOMPRESSED, an export's columns are as SNAPPY"), "{said}");
        let said = refusal("version", group(3, as_exported().set_writer_version(WriterVersion::PARQUET_2_0)));
        assert!(said.contains("pending_id has pages of the second version"), "{said}");
        let delta = as_exported().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY);
        let said = refusal("encoding", group(3, delta.set_column_encoding("timestamp".into(), Encoding::PLAIN)));
        assert!(said.contains("pending_id has a page encoded as DELTA_BYTE_ARRAY, which no export writes"), "{said}");
    }
}
