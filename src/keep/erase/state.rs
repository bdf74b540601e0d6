//! The state: everything that belongs to the user, or is found by the user's name.

use std::collections::HashSet;

use super::stream::CALL;
use super::{Erasing, Receipt};
use crate::key::{escape, partition_of};
use crate::redis::scripts::erase::Step;
use crate::state::sessions::Session;
use crate::state::{AskError, Walk, literal};

/// Connections to documents per call: each changes a set, a count and thresholds.
const CONNECTIONS: usize = 20;

impl<T: FnMut(&Receipt)> Erasing<'_, T> {
    /// The sessions whose entries name the user.
    pub(super) async fn learn_sessions(&mut self, place: usize) -> Result<(), AskError> {
        let partition = &mut self.state.partitions[place];
        let key = partition.keys.sessions();
        let mut walk = Walk::hash(&key, None);
        while let Some(page) = walk.fields(&mut partition.connection).await? {
            let looked_at = page.len();
            let read = page.iter().filter_map(|(sid, json)| Session::read(sid, json));
            let theirs = read.filter(|session| session.user == self.order.user);
            self.theirs.sids.extend(theirs.map(|session| session.sid));
            self.receipt.looked_at += looked_at as u64;
            (self.tell)(&self.receipt);
        }
        Ok(())
    }

    /// Removes the user from a partition's state.
    pub(super) async fn erase_state(&mut self, place: usize) -> Result<(), AskError> {
        self.note(place).await?;
        self.erase_presence(place).await?;
        self.erase_sessions(place).await?;
        self.erase_tokens(place).await?;
        self.erase_connections(place).await?;
        self.erase_name(place).await?;
        self.erase_endings(place).await
    }

    /// Makes the calls of a step, with some members each; returns the sums of their counts.
    async fn calls<const N: usize>(
        &mut self,
        place: usize,
        step: Step,
        members: &[String],
        each: usize,
    ) -> Result<[u64; N], AskError> {
        let (eraser, mut sums) = (self.eraser(place), [0; N]);
        for some in members.chunks(each) {
            let connection = self.state.partitions[place].connection.get()?;
            let counts: [u64; N] = eraser.members(connection, step, some).await?;
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Ok(sums)
    }

    async fn erase_presence(&mut self, place: usize) -> Result<(), AskError> {
        let name = format!("{}|", escape(&self.order.user));
        let key = self.state.partitions[place].keys.presence();
        let pattern = format!("{}*", literal(&name));
        let mut walk = Walk::hash(&key, Some(&pattern));
        while let Some(page) = walk.fields(&mut self.state.partitions[place].connection).await? {
            let fields: Vec<_> = page.into_iter().map(|(field, _)| field).collect();
            let [entries] = self.calls(place, Step::Presence, &fields, CALL).await?;
            self.receipt.presence += entries;
            self.tell(fields.len());
        }
        Ok(())
    }

    async fn erase_sessions(&mut self, place: usize) -> Result<(), AskError> {
        self.learn_sessions(place).await?;
        self.note(place).await?;
        let sids: Vec<_> = self.here(place, &self.theirs.sids).collect();
        let [sessions, data] = self.calls(place, Step::Sessions, &sids, CALL).await?;
        self.receipt.sessions += sessions;
        self.receipt.session_data += data;
        self.tell(sids.len());
        Ok(())
    }

    /// Those of the sessions that belong to a partition.
    fn here<'n>(
        &self,
        place: usize,
        sids: impl IntoIterator<Item = &'n String>,
    ) -> impl Iterator<Item = String> {
        let (index, count) = (self.state.partitions[place].index, self.state.deployment.partitions);
        sids.into_iter().filter(move |sid| partition_of(sid, count) == index).cloned()
    }

    async fn erase_tokens(&mut self, place: usize) -> Result<(), AskError> {
        let key = self.state.partitions[place].keys.login();
        let mut walk = Walk::hash(&key, None);
        while let Some(page) = walk.fields(&mut self.state.partitions[place].connection).await? {
            let looked_at = page.len();
            let theirs = page.into_iter().filter(|(_, user)| *user == self.order.user);
            let tokens: Vec<_> = theirs.map(|(token, _)| token).collect();
            self.theirs.tokens.extend(tokens.iter().cloned());
            self.note(place).await?;
            let [found, items] = self.calls(place, Step::Tokens, &tokens, CALL).await?;
            self.receipt.tokens += found;
            self.receipt.viewed_items += items;
            self.tell(looked_at);
        }
        Ok(())
    }

    async fn erase_connections(&mut self, place: usize) -> Result<(), AskError> {
        let user = escape(&self.order.user).into_owned();
        let (within, at_end) = (format!("*|{}|*", literal(&user)), format!("*|{}", literal(&user)));
        let keys = self.state.partitions[place].keys.clone();
        let mut docs = HashSet::new();
        for key in [keys.docs_joined(), keys.docs_left()] {
            let mut walk = Walk::scores(&key, Some(&within));
            while let Some(page) = walk.fields(&mut self.state.partitions[place].connection).await?
            {
                let members = page.into_iter().map(|(member, _)| member);
                let is_theirs = |member: &String| member.split('|').nth(1) == Some(&*user);
                let members: Vec<_> = members.filter(is_theirs).collect();
                if key == keys.docs_joined() {
                    let doc = |member: &String| member.split('|').next().map(str::to_owned);
                    docs.extend(members.iter().filter_map(doc));
                }
                let [joined, left] =
                    self.calls(place, Step::Documents, &members, CONNECTIONS).await?;
                self.receipt.connections += joined;
                self.receipt.tombstones += left;
                self.tell(members.len());
            }
        }
        let key = keys.docs_connections();
        let mut walk = Walk::hash(&key, Some(&at_end));
        while let Some(page) = walk.fields(&mut self.state.partitions[place].connection).await? {
            let pairs = page.into_iter().map(|(pair, _)| pair);
            let is_theirs = |pair: &String| pair.split_once('|').is_some_and(|(_, u)| *u == user);
            let pairs: Vec<_> = pairs.filter(is_theirs).collect();
            let [_] = self.calls(place, Step::Pairs, &pairs, CONNECTIONS).await?;
            docs.extend(pairs.iter().filter_map(|pair| Some(pair.split_once('|')?.0.to_owned())));
        }
        self.receipt.documents += docs.len() as u64;
        Ok(())
    }

    /// What is found by the name: minutes, activity, the index of addresses.
    async fn erase_name(&mut self, place: usize) -> Result<(), AskError> {
        let eraser = self.eraser(place);
        let deployment = &self.state.deployment;
        // A set is kept for that long after the start of its minute, and an event may be that far ahead.
        let kept_ms = deployment.online_window_ms + 70_000;
        let ahead_ms = deployment.max_skew_ms;
        let connection = &mut self.state.partitions[place].connection;
        let now_ms = crate::state::server_time(connection).await?;
        let minutes = now_ms.saturating_sub(kept_ms) / 60_000..=(now_ms + ahead_ms) / 60_000;
        let (first, last) = minutes.into_inner();
        for start in (first..=last).step_by(CALL) {
            let some = start..=last.min(start + CALL as u64 - 1);
            let connection = self.state.partitions[place].connection.get()?;
            let [minutes, activity, _] = eraser.user(connection, some).await?;
            self.receipt.minutes += minutes;
            self.receipt.activity += if start == first { activity } else { 0 };
        }
        Ok(())
    }

    /// Endings: those that name the user, and those of tokens and sessions that belong to nobody else.
    async fn erase_endings(&mut self, place: usize) -> Result<(), AskError> {
        let name = escape(&self.order.user).into_owned();
        let key = self.state.partitions[place].keys.presence_ended();
        let pattern = format!("{}*", literal(&name));
        let mut walk = Walk::scores(&key, Some(&pattern));
        while let Some(page) = walk.fields(&mut self.state.partitions[place].connection).await? {
            let is_theirs = |ended: &String| ended.split('|').next() == Some(&*name);
            let names = page.into_iter().map(|(ended, _)| ended).filter(is_theirs);
            let names: Vec<_> = names.flat_map(|ended| ["a".to_owned(), ended]).collect();
            let [ended] = self.calls(place, Step::Names, &names, CALL).await?;
            self.receipt.tombstones += ended;
        }
        let tokens: Vec<_> = self.theirs.tokens.iter().cloned().collect();
        for some in tokens.chunks(CALL) {
            let [ended] = self.calls(place, Step::Ended, some, CALL).await?;
            self.receipt.tombstones += ended;
        }
        let sids: Vec<_> = self.here(place, &self.theirs.sids).collect();
        for some in sids.chunks(CALL) {
            let some: Vec<_> = std::iter::once(String::new()).chain(some.iter().cloned()).collect();
            let [ended] = self.calls(place, Step::Ended, &some, some.len()).await?;
            self.receipt.tombstones += ended;
        }
        Ok(())
    }
}
