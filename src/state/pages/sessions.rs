//! Sessions, of all users or of one.

use super::scan::{Listing, PageError, Row, Source, page};
use super::{Cursor, MOST, Page};
use crate::state::ask::AskError;
use crate::state::sessions::{Clock, Session, with_lives};
use crate::state::{Partition, State};

/// Sessions that have not expired.
struct Sessions<'u> {
    clock: Clock,
    user: Option<&'u str>,
}

impl Listing for Sessions<'_> {
    type Item = Session;

    fn source(&self, partition: &Partition, step: u16) -> Option<Source> {
        (step == 0).then(|| Source::hash(partition.keys.sessions()))
    }

    async fn read(
        &self,
        partition: &mut Partition,
        _step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, Session)>, AskError> {
        let read = rows.iter().map(|(sid, json)| Session::read(sid, json)).enumerate();
        let is_wanted = |session: &Session| self.user.is_none_or(|user| user == session.user);
        let wanted = read.filter_map(|(row, session)| Some((row, session.filter(is_wanted)?)));
        let (places, sessions): (Vec<usize>, Vec<Session>) = wanted.unzip();
        let (connection, keys) = (&mut partition.connection, &partition.keys);
        let sessions = with_lives(connection, keys, self.clock, sessions).await?;
        let live = |(_, session): &(usize, Session)| session.expires_ms > self.clock.now_ms;
        Ok(places.into_iter().zip(sessions).filter(live).collect())
    }

    fn is_filter(&self) -> bool {
        self.user.is_some()
    }
}

/// A page of the sessions that have not expired, of one user or of all, unordered. No index leads from a user to
/// sessions, so if the user has few, pages may be short or empty before the last.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn sessions(
    state: &mut State,
    user: Option<&str>,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Session>, PageError> {
    let clock = state.session_clock();
    page(state, &Sessions { clock, user }, cursor, limit).await
}

/// All sessions of a user that have not expired, at most `most`.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn sessions_of(
    state: &mut State,
    user: &str,
    most: usize,
) -> Result<Vec<Session>, PageError> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = sessions(state, Some(user), cursor, MOST).await?;
        found.extend(page.items);
        cursor = page.cursor;
        if cursor.is_none() || found.len() >= most {
            found.truncate(most);
            return Ok(found);
        }
    }
}
