//! A table as comma-separated values: a header line with the columns' names, one row a line, numbers in decimal, flags by name
//! joined by `|`. Nothing needs quotes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use csv::{ByteRecord, ReaderBuilder};

use super::columns::{Kind, Record};
use super::table::{Output, ROWS_AT_ONCE, Rows, Sink, Written, malformed};
use crate::error::Failure;

pub struct Writer {
    output: Output,
    line: String,
    rows_count: u64,
}

impl Writer {
    pub fn new<R: Record>(output: Output) -> Result<Writer, Failure> {
        let mut writer = Writer { output, line: String::new(), rows_count: 0 };
        let names: Vec<&str> = R::COLUMNS.iter().map(|column| column.name).collect();
        writer.line = names.join(",");
        writer.put()?;
        Ok(writer)
    }

    fn put(&mut self) -> Result<(), Failure> {
        self.line.push('\n');
        let put = self.output.write_all(self.line.as_bytes());
        self.line.clear();
        put.map_err(|error| self.output.failed(error))
    }
}

impl<R: Record> Sink<R> for Writer {
    fn push(&mut self, row: &R) -> Result<(), Failure> {
        for (place, column) in R::COLUMNS.iter().enumerate() {
            if place > 0 {
                self.line.push(',');
            }
            let number = (column.get)(row);
            // Writing to a String cannot fail; and most numbers are small, which are written faster as such.
            let _ = match (column.kind, u64::try_from(number)) {
                (Kind::Flags(_), Ok(0)) => Ok(()),
                (Kind::Flags(names), _) => self.line.write_str(&(names.to_text)(number)),
                (_, Ok(small)) => write!(self.line, "{small}"),
                (_, Err(_)) => write!(self.line, "{number}"),
            };
        }
        self.rows_count += 1;
        self.put()
    }

    fn finish(self: Box<Self>) -> Result<Written, Failure> {
        self.output.finish(self.rows_count)
    }
}

pub struct Reader {
    path: PathBuf,
    records: csv::Reader<File>,
    row: u64,
}

impl Reader {
    pub fn open<R: Record>(path: PathBuf) -> Result<Reader, Failure> {
        let file = File::open(&path).map_err(|error| Failure::unreadable(&path, &error))?;
        let mut records = ReaderBuilder::new().buffer_capacity(1 << 20).from_reader(file);
        let header = records.byte_headers().map_err(|error| malformed(&path, 0, "header", &error.to_string()))?;
        if !header.iter().eq(R::COLUMNS.iter().map(|column| column.name.as_bytes())) {
            let wanted: Vec<&str> = R::COLUMNS.iter().map(|column| column.name).collect();
            return Err(malformed(&path, 0, "header", &format!("the columns are not {}", wanted.join(","))));
        }
        Ok(Reader { path, records, row: 0 })
    }
}

impl<R: Record> Rows<R> for Reader {
    fn next(&mut self) -> Result<Vec<R>, Failure> {
        let (mut rows, mut record) = (Vec::with_capacity(ROWS_AT_ONCE), ByteRecord::new());
        while rows.len() < ROWS_AT_ONCE {
            self.row += 1;
            let read = self.records.read_byte_record(&mut record);
            let is_there = read.map_err(|error| malformed(&self.path, self.row, "line", &error.to_string()))?;
            if !is_there {
                break;
            }
            let mut row = R::default();
            for (column, field) in R::COLUMNS.iter().zip(&record) {
                let number = parse(column.kind, field);
                let number = number.map_err(|why| malformed(&self.path, self.row, column.name, &why))?;
                (column.set)(&mut row, number);
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

fn parse(kind: Kind, field: &[u8]) -> Result<u128, String> {
    let text = std::str::from_utf8(field).map_err(|error| error.to_string())?;
    let number = match kind {
        Kind::Flags(names) => (names.from_text)(text)?,
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| format!("`{text}` is no number from 0 to {}", kind.max()))?
        }
        _ => return Err(format!("`{text}` is no number")),
    };
    if number > kind.max() {
        return Err(format!("{number} is more than {}", kind.max()));
    }
    Ok(number)
}
