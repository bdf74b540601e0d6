//! Random activity of many users: enough that each structure takes several pages.

use rollcall::entry::Field;
use rollcall::key::partition_of;

use crate::support::events::field;

pub const USERS: u32 = 1_500;

/// Makes the next entry, and its partition.
pub fn crowd(seed: u64, partitions: u16) -> Box<dyn FnMut() -> (u16, Vec<Field>) + Send> {
    let mut rng = fastrand::Rng::with_seed(seed);
    Box::new(move || {
        let user = format!("u{}", rng.u32(..USERS));
        let (sid, doc) = (format!("s{}", rng.u32(..USERS)), format!("d|{}", rng.u32(..40)));
        let (routing, fields) = match rng.u32(..10) {
            0..=3 => (&user, vec![field("type", "heartbeat"), field("page", "/p")]),
            4 => (&user, vec![field("type", "logout")]),
            5 => (&sid, vec![field("type", "session"), field("sid", &sid)]),
            6 if rng.bool() => {
                let fields = [field("type", "session"), field("action", "terminate")];
                (&sid, [&fields[..], &[field("sid", &sid)]].concat())
            }
            action => {
                let action = if action < 9 { "join" } else { "leave" };
                let fields = [field("type", "document"), field("action", action)];
                (&doc, [&fields[..], &[field("doc", &doc)]].concat())
            }
        };
        let who = [field("user", &user), field("ip", "10.0.0.1")];
        (partition_of(routing, partitions), [fields, who.to_vec()].concat())
    })
}
