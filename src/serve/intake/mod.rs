//! Intake: events that come over HTTP go to the stream, many in one entry, and a request is answered once its
//! entries are there.

use std::time::Duration;

use crate::entry::EntryId;
use crate::event::Rejection;

/// Where events go; cheap to clone.
#[derive(Clone)]
pub struct Intake(());

/// Who sends events, and from where: what the server sets, whatever the events say.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The user of a JSON Web Token: *the* user of every event.
    pub subject: Option<String>,
    /// The client's address, for events that name none, and for all events of a subject.
    pub ip: Option<String>,
    /// The client's user agent, for events that name none.
    pub ua: Option<String>,
    /// The trace that the request belongs to (W3C `traceparent`).
    pub traceparent: Option<String>,
}

/// What became of the events of a request, of which at least one is on the stream.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The entries that hold them: partition and id.
    pub entries: Vec<(u16, EntryId)>,
    /// Those that are no events, by their place in the request.
    pub refused: Vec<(usize, Rejection)>,
}

/// Why no event of a request is on the stream.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// None of them is an event, by their place in the request.
    Invalid(Vec<(usize, Rejection)>),
    /// What they stand in is no JSON.
    Malformed(Rejection),
    /// Too many wait already, or they waited too long: the server is away.
    Away(Duration),
    /// The connection broke before the server answered: they may be there or not.
    InDoubt,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self(())
    }

    /// Takes one event, a JSON object, or several, an array of them, in any form that an entry's `data` can have.
    ///
    /// # Errors
    /// If none of them is on the stream for sure.
    pub async fn take(&self, _json: &[u8], _sender: &Sender) -> Result<Taken, Refusal> {
        Err(Refusal::Away(Duration::from_secs(1)))
    }
}
