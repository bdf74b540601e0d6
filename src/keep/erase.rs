//! Erases one user everywhere: a walk over everything that may name them, a piece per call.
//!
//! First the entries of the stream, which could bring the user back; the fence changes with them, so no batch in
//! progress is applied any more. Then the state, whose transitions are recorded like any others. Both are repeated
//! until nothing new has come meanwhile. Finally the records: changes and dead letters. After a kill another run
//! continues with what is left.
//!
//! Of partitions that a repartition has removed, streams of events and changes are left; they are searched as well.

mod kept;
mod state;
mod stream;

use std::time::Duration;

use serde::Serialize;

use crate::decode::Rules;
use crate::decode::erase::Theirs;
use crate::entry::EntryId;
use crate::redis::scripts::erase::Eraser;
use crate::state::{AskError, State, ask, number, server_time};

/// How many times new events are searched for.
const MOST_ROUNDS: u32 = 6;
/// How many times the streams are searched in one round: again if sessions became known on the way.
const MOST_PASSES: u32 = 3;
/// How long listeners have to receive the changes that report the user gone, before these changes are removed.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// Whom to erase, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The user.
    pub user: String,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// For how many milliseconds from now on events of the user are refused.
    pub block_ms: Option<u64>,
}

/// What was erased, by structure; it names nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Entries of the stream that were removed as a whole.
    pub entries: u64,
    /// Packed entries that were added again without the user's events.
    pub entries_rewritten: u64,
    /// Sets of minutes that had the user.
    pub minutes: u64,
    /// Last activities.
    pub activity: u64,
    /// Presence entries.
    pub presence: u64,
    /// Sessions, and those that had data.
    pub sessions: u64,
    /// Sessions that had data.
    pub session_data: u64,
    /// Login tokens.
    pub tokens: u64,
    /// Items that these tokens viewed.
    pub viewed_items: u64,
    /// Documents that the user was in.
    pub documents: u64,
    /// Connections to them.
    pub connections: u64,
    /// Endings that name the user, or one of the tokens and sessions.
    pub tombstones: u64,
    /// Changes.
    pub changes: u64,
    /// Dead letters that were removed as a whole.
    pub dead_letters: u64,
    /// Dead letters that were written again without the user's events.
    pub dead_letters_rewritten: u64,
    /// Until when events of the user are refused, by entry id.
    pub blocked_until_ms: Option<u64>,
    /// Whether events of the user kept coming, so that the effects of the last ones are there again.
    pub still_active: bool,
    /// How much was examined.
    #[serde(skip)]
    pub looked_at: u64,
}

/// Erases a user, and reports the progress.
///
/// # Errors
/// If the server refuses, or no reply came. What is done stays done, and another run continues.
pub async fn erase(
    state: &mut State,
    order: &Order,
    tell: impl FnMut(&Receipt),
) -> Result<Receipt, AskError> {
    super::check_not_moving(state).await?;
    let mut state = state.clone();
    let current = state.partitions.len();
    let earlier = state.earlier_partitions().await?;
    state.partitions.extend(earlier);
    let receipt = Receipt { dry_run: order.dry_run, ..Receipt::default() };
    let places = vec![Place::default(); state.partitions.len()];
    let (rules, theirs) = (state.deployment.rules(), Theirs::new(&order.user));
    let noted = vec![theirs.clone(); places.len()];
    let mut erasing =
        Erasing { state, current, order, rules, theirs, noted, receipt, places, tell };
    erasing.run().await?;
    Ok(erasing.receipt)
}

/// The progress in one partition.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The last entry of the stream that was examined.
    looked: EntryId,
    /// The last change and the last dead letter when the state was done.
    changes: EntryId,
    letters: EntryId,
}

const START: EntryId = EntryId { ms: 0, seq: 0 };

impl Default for Place {
    fn default() -> Self {
        Self { looked: START, changes: START, letters: START }
    }
}

struct Erasing<'e, T> {
    /// After the partitions of the deployment come those of earlier layouts.
    state: State,
    /// How many partitions the deployment has.
    current: usize,
    order: &'e Order,
    rules: Rules,
    theirs: Theirs,
    /// What was recorded in each partition.
    noted: Vec<Theirs>,
    receipt: Receipt,
    places: Vec<Place>,
    tell: T,
}

impl<T: FnMut(&Receipt)> Erasing<'_, T> {
    async fn run(&mut self) -> Result<(), AskError> {
        self.block().await?;
        for place in 0..self.places.len() {
            self.learn(place).await?;
        }
        for round in 0..MOST_ROUNDS {
            let found = self.streams().await?;
            if found == 0 && round > 0 {
                break;
            }
            self.receipt.still_active = round + 1 == MOST_ROUNDS;
            for place in 0..self.places.len() {
                if place < self.current {
                    self.erase_state(place).await?;
                }
                self.places[place].changes = self.end(place, |keys| keys.changes()).await?;
                self.places[place].letters = self.end(place, |keys| keys.dead()).await?;
            }
            if self.order.dry_run {
                self.receipt.still_active = false;
                break;
            }
        }
        if !self.order.dry_run {
            tokio::time::sleep(HEARD_WITHIN).await;
        }
        for place in 0..self.places.len() {
            self.erase_letters(place).await?;
            self.erase_changes(place).await?;
        }
        // What was moved meanwhile was out of reach; the notes are for the next run.
        super::check_not_moving(&mut self.state).await?;
        for place in 0..self.places.len() {
            let eraser = self.eraser(place);
            eraser.forget(self.state.partitions[place].connection.get()?).await?;
        }
        Ok(())
    }

    /// Records what is known to be theirs by now, before what names it is removed.
    async fn note(&mut self, place: usize) -> Result<(), AskError> {
        let Theirs { tokens, sids, .. } = &self.theirs;
        let known = &self.noted[place];
        let tokens = tokens.difference(&known.tokens).map(|token| format!("t{token}"));
        let sids = sids.difference(&known.sids).map(|sid| format!("s{sid}"));
        let names: Vec<_> = tokens.chain(sids).collect();
        if names.is_empty() || self.order.dry_run {
            return Ok(());
        }
        let eraser = self.eraser(place);
        for some in names.chunks(stream::CALL) {
            eraser.note(self.state.partitions[place].connection.get()?, some).await?;
        }
        self.noted[place] = self.theirs.clone();
        Ok(())
    }

    /// Refuses the user's events from now on, in every partition.
    async fn block(&mut self) -> Result<(), AskError> {
        let length_ms = self.order.block_ms.filter(|_| !self.order.dry_run);
        let Some(length_ms) = length_ms else { return Ok(()) };
        for place in 0..self.current {
            let eraser = self.eraser(place);
            let connection = &mut self.state.partitions[place].connection;
            let until = server_time(connection).await?.saturating_add(length_ms);
            eraser.block(connection.get()?, until).await?;
            self.receipt.blocked_until_ms = self.receipt.blocked_until_ms.max(Some(until));
        }
        Ok(())
    }

    /// Searches the streams of all partitions, again if new sessions became known; returns how many entries were the
    /// user's.
    async fn streams(&mut self) -> Result<u64, AskError> {
        let mut found = 0;
        for _ in 0..MOST_PASSES {
            let known = self.theirs.sids.len();
            for place in 0..self.places.len() {
                found += self.erase_entries(place).await?;
            }
            if self.theirs.sids.len() == known || self.order.dry_run {
                break;
            }
            self.places.iter_mut().for_each(|place| place.looked = START);
        }
        Ok(found)
    }

    /// How the entries of a partition are read. Of an earlier layout it no longer matters which partition it was.
    fn rules(&self, place: usize) -> Rules {
        let partitions = if place < self.current { self.rules.partitions } else { 1 };
        Rules { partitions, ..self.rules.clone() }
    }

    fn eraser(&self, place: usize) -> Eraser {
        let keys = &self.state.partitions[place].keys;
        Eraser::new(&self.state.deployment, keys, &self.order.user, self.order.dry_run)
    }

    /// The greatest id that a stream ever assigned; nothing was added before the first.
    async fn end(
        &mut self,
        place: usize,
        key: impl Fn(&crate::key::Keys) -> String,
    ) -> Result<EntryId, AskError> {
        let partition = &mut self.state.partitions[place];
        let (connection, key) = (&mut partition.connection, key(&partition.keys));
        if number(&ask(connection, &["EXISTS", &key]).await?) != Some(1) {
            return Ok(START);
        }
        crate::state::last_generated_id(connection, &key).await
    }

    fn tell(&mut self, looked_at: usize) {
        self.receipt.looked_at += looked_at as u64;
        (self.tell)(&self.receipt);
    }
}
