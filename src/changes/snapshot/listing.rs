//! A long list of items as JSON, written once and kept in pieces. Items are not kept separately, only where each
//! ends, and whose it is.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde::Serialize;

/// Bytes after which a piece is full.
const PIECE: usize = 16 * 1024;

/// Digests of names, with a random seed. A collision within a snapshot is less likely than a hardware error.
#[derive(Clone, Default)]
pub(super) struct Digests(RandomState);

impl Digests {
    pub(super) fn of(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }
}

/// One item: its subject, its owner, and where it ends in its piece.
struct Item {
    subject: u64,
    owner: u64,
    end: u32,
}

/// Items one after the other, without separators.
#[derive(Default)]
struct Piece {
    json: Vec<u8>,
    items: Vec<Item>,
}

impl Piece {
    fn items(&self) -> impl Iterator<Item = (&Item, &[u8])> {
        let mut start = 0;
        self.items.iter().map(move |item| {
            let end = item.end as usize;
            (item, &self.json[std::mem::replace(&mut start, end)..end])
        })
    }
}

/// Items as JSON, in pieces of some kilobytes.
#[derive(Default)]
pub(super) struct Listing {
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Listing {
    /// Adds an item.
    pub(super) fn push(&mut self, subject: u64, owner: u64, item: &impl Serialize) {
        if self.pieces.last().is_none_or(|piece| piece.json.len() >= PIECE) {
            // The previous piece is complete, so its spare capacity is released.
            if let Some(Piece { json, items }) = self.pieces.last_mut() {
                json.shrink_to_fit();
                items.shrink_to_fit();
            }
            self.pieces.push(Piece::default());
        }
        let Some(piece) = self.pieces.last_mut() else { return };
        let before = piece.json.len();
        // Writing to memory cannot fail.
        if serde_json::to_writer(&mut piece.json, item).is_err() {
            piece.json.truncate(before);
            return;
        }
        let end = u32::try_from(piece.json.len()).unwrap_or(u32::MAX);
        piece.items.push(Item { subject, owner, end });
        self.bytes += piece.json.len() - before + size_of::<Item>();
    }

    /// Removes the items about these subjects.
    pub(super) fn remove(&mut self, subjects: &HashSet<u64>) {
        let is_hit = |item: &Item| subjects.contains(&item.subject);
        for piece in self.pieces.iter_mut().filter(|piece| piece.items.iter().any(is_hit)) {
            let mut kept = Piece::default();
            for (item, json) in piece.items().filter(|(item, _)| !is_hit(item)) {
                kept.json.extend_from_slice(json);
                let end = u32::try_from(kept.json.len()).unwrap_or(u32::MAX);
                kept.items.push(Item { end, ..*item });
            }
            *piece = kept;
        }
    }

    /// Adds the items of another list.
    pub(super) fn append(&mut self, mut other: Self) {
        self.pieces.append(&mut other.pieces);
        self.bytes += other.bytes;
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the piece with this index into `line`, elements separated by commas: all, or those of these owners.
    /// `is_first` is true while nothing of the list has been written. `None` past the last piece.
    pub(super) fn write(
        &self,
        place: usize,
        owners: Option<&HashSet<u64>>,
        is_first: &mut bool,
        line: &mut Vec<u8>,
    ) -> Option<()> {
        let piece = self.pieces.get(place)?;
        let is_wanted = |item: &Item| owners.is_none_or(|owners| owners.contains(&item.owner));
        for (_, json) in piece.items().filter(|(item, _)| is_wanted(item)) {
            if !std::mem::take(is_first) {
                line.push(b',');
            }
            line.extend_from_slice(json);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(count: u64) -> Listing {
        let mut listing = Listing::default();
        (0..count).for_each(|n| listing.push(n, n % 2, &format!("{n:0100}")));
        listing
    }

    fn written(listing: &Listing, owners: Option<&HashSet<u64>>) -> Vec<u64> {
        let (mut json, mut is_first, mut place) = (vec![b'['], true, 0);
        while listing.write(place, owners, &mut is_first, &mut json).is_some() {
            place += 1;
        }
        json.push(b']');
        let texts: Vec<String> = serde_json::from_slice(&json).unwrap();
        texts.into_iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_taken_away_is_gone_and_all_else_stays_in_order() {
        let mut listing = listing(1_000);
        assert!(listing.pieces.len() > 5);
        listing.remove(&(10..20).chain([0, 999, 5_000]).collect());
        let kept: Vec<u64> = (1..10).chain(20..999).collect();
        assert_eq!(written(&listing, None), kept);
        let even: Vec<u64> = kept.into_iter().filter(|n| n % 2 == 0).collect();
        assert_eq!(written(&listing, Some(&HashSet::from([0]))), even);
        assert_eq!(written(&listing, Some(&HashSet::from([7]))), [0; 0]);
        listing.remove(&(0..1_000).collect());
        assert_eq!(written(&listing, None), [0; 0]);
    }
}
