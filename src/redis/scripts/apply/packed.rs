//! The sections of a plan as arguments: what is short is packed together as MessagePack, what may be long stands for
//! itself.
//!
//! The server makes an object of each argument, then a Lua string of that, and hashes all its bytes. What is packed
//! becomes Lua strings at once, and counts become numbers, which the script need not parse; but it is hashed twice, so
//! that it saves nothing beyond some ninety bytes.

use std::borrow::Cow;
use std::io::Write;

use redis::Cmd;
use rmp::encode::{self, ByteBuf};

/// How many values an argument contains: the script unpacks them on its stack, which takes 8,000.
const MOST: usize = 6000;

/// Sections of values.
pub(super) struct Packed<'v> {
    /// The number of rows of each section.
    rows: Vec<usize>,
    /// Arguments that are full.
    full: Vec<Vec<u8>>,
    bytes: ByteBuf,
    /// How many values are in `bytes`.
    values: usize,
    long: Vec<Cow<'v, [u8]>>,
}

impl<'v> Packed<'v> {
    /// With room for so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let bytes = ByteBuf::with_capacity(bytes);
        Self { rows: Vec::new(), full: Vec::new(), bytes, values: 0, long: Vec::new() }
    }

    /// Begins a section of so many rows.
    pub(super) fn section(&mut self, rows: usize) {
        self.rows.push(rows);
    }

    /// Adds a number.
    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.begin();
        let Ok(_marker) = encode::write_uint(&mut self.bytes, count as u64);
        self
    }

    /// Adds a text that may be long, beside those that are packed.
    pub(super) fn long(&mut self, text: impl Into<Cow<'v, [u8]>>) {
        self.long.push(text.into());
    }

    /// Adds a text, of any bytes.
    pub(super) fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        self.begin_text(text.len());
        self.bytes.as_mut_vec().extend_from_slice(text);
        self
    }

    /// Adds a number as text.
    pub(super) fn digits(&mut self, number: impl Into<u64>) -> &mut Self {
        let number: u64 = number.into();
        self.begin_text(number.checked_ilog10().unwrap_or(0) as usize + 1);
        // Writing to memory does not fail.
        let _ = write!(self.bytes.as_mut_vec(), "{number}");
        self
    }

    fn begin(&mut self) {
        if self.values == MOST {
            self.full.push(std::mem::take(&mut self.bytes).into_vec());
            self.values = 0;
        }
        self.values += 1;
    }

    /// Begins a text of so many bytes. Redis knows texts as MessagePack's old *raw*; the newer *bin* it does not.
    fn begin_text(&mut self, bytes: usize) {
        self.begin();
        let Ok(_marker) = encode::write_str_len(&mut self.bytes, bytes as u32);
    }

    /// Adds the arguments to a call: how many are packed and the numbers of rows, the packed ones, the long ones.
    pub(super) fn add_to(self, call: &mut Cmd) {
        let packed = [self.full, vec![self.bytes.into_vec()]].concat();
        let mut heads = Self::with_capacity(self.rows.len());
        heads.count(packed.len());
        for rows in self.rows {
            heads.count(rows);
        }
        call.arg(heads.bytes.into_vec()).arg(packed);
        for text in self.long {
            call.arg(&*text);
        }
    }
}
