//! The entries of the stream: the user's are removed, and packed ones are added again without the user's events.

use super::{Erasing, Receipt};
use crate::decode::erase::{Share, rest};
use crate::entry::{Entry, EntryId};
use crate::redis::scripts::erase::Replaced;
use crate::state::AskError;
use crate::state::range;

/// How many entries one call reads at first, and at most.
const FIRST_COUNT: usize = 4;
const MOST_COUNT: usize = 100;
/// The target for the bytes of a read.
const READ_BYTES: usize = 128 << 10;
/// The maximum number of entries that one call removes, and of bytes that it adds.
pub(super) const CALL: usize = 50;
pub(super) const CALL_BYTES: usize = 64 << 10;

/// Pages of a stream, in order; with fewer entries if they are large.
pub(super) struct Pages {
    key: String,
    after: EntryId,
    end: EntryId,
    count: usize,
}

impl Pages {
    /// The entries after one id, up to and including another.
    pub(super) fn new(key: String, after: EntryId, end: EntryId) -> Self {
        Self { key, after, end, count: FIRST_COUNT }
    }

    /// The next entries; none at the end.
    pub(super) async fn next(
        &mut self,
        connection: &mut crate::state::Link,
    ) -> Result<Option<Vec<Entry>>, AskError> {
        if self.after >= self.end {
            return Ok(None);
        }
        let (start, end) = (format!("({}", self.after), self.end.to_string());
        let count = self.count.to_string();
        let page = range(connection, &["XRANGE", &self.key, &start, &end, "COUNT", &count]).await?;
        let Some(last) = page.last() else {
            self.after = self.end;
            return Ok(None);
        };
        self.after = last.id;
        let bytes: usize = page.iter().map(Entry::size).sum();
        let fits = self.count * READ_BYTES / bytes.max(1);
        self.count = fits.clamp(1, (self.count * 2).min(MOST_COUNT));
        Ok(Some(page))
    }
}

impl<T: FnMut(&Receipt)> Erasing<'_, T> {
    /// Removes what is the user's from a partition's stream; returns how many entries that affected.
    pub(super) async fn erase_entries(&mut self, place: usize) -> Result<u64, AskError> {
        let stream = self.state.deployment.stream.clone();
        let end = self.end(place, |keys| keys.named(&stream)).await?;
        let key = self.state.partitions[place].keys.named(&stream);
        let mut pages = Pages::new(key, self.places[place].looked, end);
        let mut found = 0;
        while let Some(page) = pages.next(&mut self.state.partitions[place].connection).await? {
            let mut batch: Vec<Replaced> = Vec::new();
            for entry in &page {
                let Some(replaced) = self.replaced(entry, place) else { continue };
                let bytes: usize = batch.iter().map(Replaced::bytes).sum();
                if batch.len() == CALL || bytes + replaced.bytes() > CALL_BYTES {
                    found += self.replace_entries(place, &std::mem::take(&mut batch)).await?;
                }
                batch.push(replaced);
            }
            found += self.replace_entries(place, &batch).await?;
            self.tell(page.len());
        }
        self.places[place].looked = end;
        Ok(found)
    }

    /// What replaces an entry that is the user's or contains events of theirs.
    fn replaced(&mut self, entry: &Entry, place: usize) -> Option<Replaced> {
        let (rules, partition) = (self.rules(place), self.state.partitions[place].index);
        let by = match self.theirs.share(entry, &rules, partition) {
            Share::None => return None,
            Share::All => Vec::new(),
            Share::Some(data) => rest(entry, data, &rules, partition),
        };
        Some(Replaced { id: entry.id, by })
    }

    async fn replace_entries(&mut self, place: usize, batch: &[Replaced]) -> Result<u64, AskError> {
        if batch.is_empty() {
            return Ok(0);
        }
        self.note(place).await?;
        let eraser = self.eraser(place);
        let connection = self.state.partitions[place].connection.get()?;
        let [whole, cut] = eraser.entries(connection, batch).await?;
        self.receipt.entries += whole;
        self.receipt.entries_rewritten += cut;
        Ok(whole + cut)
    }
}
