//! Records: changes, whose numbers are kept, and dead letters.

use super::stream::{CALL, CALL_BYTES, Pages};
use super::{Erasing, Receipt, START};
use crate::change::Change;
use crate::decode::erase::Share;
use crate::entry::{Entry, Field};
use crate::event::{Name, Session};
use crate::redis::scripts::erase::{Replaced, Step};
use crate::state::dead::{DeadLetter, HEADER};
use crate::state::{AskError, Walk};

impl<T: FnMut(&Receipt)> Erasing<'_, T> {
    /// Learns which sessions and tokens are the user's, from the state, from records, and from an earlier run.
    pub(super) async fn learn(&mut self, place: usize) -> Result<(), AskError> {
        let end = self.end(place, |keys| keys.changes()).await?;
        let partition = &mut self.state.partitions[place];
        let (index, connection) = (partition.index, &mut partition.connection);
        let mut pages = Pages::new(partition.keys.changes(), START, end);
        while let Some(page) = pages.next(connection).await? {
            let of_user = |change: &Change| change.user.as_ref() == Some(&self.order.user);
            let changes = page.iter().filter_map(|entry| Change::read(entry, index));
            for change in changes.filter(of_user) {
                self.theirs.sids.extend(change.sid);
                self.theirs.tokens.extend(change.token);
            }
        }
        let noted = self.eraser(place).noted_key();
        let mut walk = Walk::set(&noted);
        while let Some(page) = walk.members(&mut self.state.partitions[place].connection).await? {
            for name in page {
                match name.split_at_checked(1) {
                    Some(("t", token)) => _ = self.theirs.tokens.insert(token.to_owned()),
                    Some(("s", sid)) => _ = self.theirs.sids.insert(sid.to_owned()),
                    _ => {}
                }
            }
        }
        self.learn_sessions(place).await
    }

    /// Removes the changes about the user.
    pub(super) async fn erase_changes(&mut self, place: usize) -> Result<(), AskError> {
        let eraser = self.eraser(place);
        let partition = &self.state.partitions[place];
        let (index, end) = (partition.index, self.places[place].changes);
        let mut pages = Pages::new(partition.keys.changes(), START, end);
        while let Some(page) = pages.next(&mut self.state.partitions[place].connection).await? {
            let changes = page.iter().filter_map(|entry| Change::read(entry, index));
            let ids: Vec<_> =
                changes.filter(|change| self.is_about(change)).map(|c| c.id.to_string()).collect();
            for some in ids.chunks(CALL) {
                let connection = self.state.partitions[place].connection.get()?;
                let [changes] = eraser.members(connection, Step::Changes, some).await?;
                self.receipt.changes += changes;
            }
            self.tell(page.len());
        }
        Ok(())
    }

    /// Whether a change names the user, or a session of theirs that nobody had claimed.
    fn is_about(&self, change: &Change) -> bool {
        match &change.user {
            Some(user) if *user == self.order.user => true,
            Some(user) if user != Session::UNKNOWN_USER => false,
            _ => change.sid.as_ref().is_some_and(|sid| self.theirs.sids.contains(sid)),
        }
    }

    /// Removes the dead letters with the user's events; of packed entries, other users' events stay.
    pub(super) async fn erase_letters(&mut self, place: usize) -> Result<(), AskError> {
        let (key, end) = (self.state.partitions[place].keys.dead(), self.places[place].letters);
        let mut pages = Pages::new(key, START, end);
        while let Some(page) = pages.next(&mut self.state.partitions[place].connection).await? {
            let mut batch: Vec<Replaced> = Vec::new();
            for entry in &page {
                let Some(replaced) = self.replaced_letter(entry, place) else { continue };
                let bytes: usize = batch.iter().map(Replaced::bytes).sum();
                if batch.len() == CALL || bytes + replaced.bytes() > CALL_BYTES {
                    self.replace_letters(place, &std::mem::take(&mut batch)).await?;
                }
                batch.push(replaced);
            }
            self.replace_letters(place, &batch).await?;
            self.tell(page.len());
        }
        Ok(())
    }

    fn replaced_letter(&mut self, entry: &Entry, place: usize) -> Option<Replaced> {
        let (id, index) = (entry.id, self.state.partitions[place].index);
        let rules = self.rules(place);
        let letter = DeadLetter::read(entry);
        let original = letter.as_ref().and_then(DeadLetter::original);
        let share = match &original {
            Some(original) => {
                let (fields, is_element) =
                    ((original.entry, original.fields), original.index.is_some());
                self.theirs.share_of_letter(fields, is_element, &rules, index)
            }
            None => self.theirs.share(entry, &rules, index),
        };
        let is_element = original.is_some_and(|original| original.index.is_some());
        let by = match (share, &letter) {
            (Share::None, _) => return None,
            // The element stays as it is; only fields around it name the user.
            (Share::Some(_), Some(letter)) if is_element => vec![self.cut_letter(letter, None)],
            (Share::Some(data), Some(letter)) => vec![self.cut_letter(letter, Some(data))],
            (Share::All | Share::Some(_), _) => Vec::new(),
        };
        Some(Replaced { id, by })
    }

    /// A letter, perhaps with other data, without the fields around it that name the user.
    fn cut_letter(&self, letter: &DeadLetter, data: Option<Vec<u8>>) -> Vec<Field> {
        let owned = |(name, text): (&str, &String)| (name.as_bytes().to_vec(), text.clone().into());
        let mut fields: Vec<Field> = HEADER.into_iter().zip(&letter.header).map(owned).collect();
        let detail = &letter.header[2];
        if detail.contains(&*self.order.user)
            || detail.contains(&*self.order.user.escape_debug().to_string())
        {
            fields[2].1 = b"erased".to_vec();
        }
        let (name, user) = (Name::Data.name().as_bytes(), Name::User.name().as_bytes());
        let is_kept = |other: &[u8]| other != user && (data.is_none() || other != name);
        fields.extend(letter.fields.iter().filter(|(other, _)| is_kept(other)).cloned());
        fields.extend(data.map(|data| (name.to_vec(), data)));
        fields
    }

    async fn replace_letters(&mut self, place: usize, batch: &[Replaced]) -> Result<(), AskError> {
        if batch.is_empty() {
            return Ok(());
        }
        let eraser = self.eraser(place);
        let connection = self.state.partitions[place].connection.get()?;
        let [whole, cut] = eraser.letters(connection, batch).await?;
        self.receipt.dead_letters += whole;
        self.receipt.dead_letters_rewritten += cut;
        Ok(())
    }
}
