//! Long lists, a page at a time. Each page costs the same however long the list is, and nothing is kept between two
//! pages: a cursor says where the next one begins.
//!
//! Hashes and sets are walked in the server's own order (`HSCAN`, `SSCAN`). An item that exists from the first
//! page to the last is on one of them. An item that appears or disappears meanwhile may be missing. If the server
//! resizes its tables meanwhile, an item may appear twice.

mod cursor;
mod documents;
mod people;
mod presence;
mod raw;
mod scan;
mod sessions;
mod tokens;

use serde::Serialize;

pub use cursor::{Cursor, InvalidCursor};
pub use documents::{documents, members};
pub use people::{Address, Person, online, people, seen};
pub use presence::presence;
pub use raw::{count, raw};
pub use scan::PageError;
pub use sessions::{sessions, sessions_of};
pub use tokens::{most_viewed, recent, viewed};

/// The maximum size of a page.
pub const MOST: usize = 1_000;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// Where the next one begins; `None` after the last.
    pub cursor: Option<Cursor>,
}
