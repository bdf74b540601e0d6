//! Activity: what users do beyond coming and going, for those who watch. It is no change of the state, so it is read
//! along from the events' streams, while somebody is in a room that wants it and only then.
//!
//! A room hears the newest activity of a subject at the end of each interval, and of so many subjects at most; how
//! many activities it did not hear of it is told.

mod board;
mod reader;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use self::board::Board;
use self::reader::Reader;
use super::rooms::Rooms;
use crate::changes::rooms::{PresenceUpdate, SeenEvent, SessionUpdate};
use crate::serve::Context;
use crate::telemetry::metrics::{LeftOut, LiveMetrics};

/// Readings that may wait to be noted.
const WAITING: usize = 16;

/// What a reader read.
enum Read {
    /// Activities, in order.
    Activities(Vec<Activity>),
    /// Entries that it skipped, because it had fallen behind.
    Skipped(u64),
}

/// One activity.
enum Activity {
    Presence(PresenceUpdate),
    Session(SessionUpdate),
    /// Any event at all, for those who hear of every one.
    Event(SeenEvent),
}

/// Reads along whenever somebody watches, for ever.
pub(super) async fn follow(context: Context, rooms: Rooms, metrics: LiveMetrics) {
    let mut watched = rooms.watched();
    loop {
        // The sender lives as long as the rooms do.
        drop(watched.wait_for(|is_watched| *is_watched).await);
        tokio::select! {
            () = read_along(&context, &rooms, &metrics) => {}
            _nobody = watched.wait_for(|is_watched| !*is_watched) => {}
        }
    }
}

async fn read_along(context: &Context, rooms: &Rooms, metrics: &LiveMetrics) {
    let every: Duration = context.config.serve.activity_interval;
    let most = context.config.serve.activity_rate as f64 * every.as_secs_f64();
    let mut board = Board::new((most as usize).max(1));
    let (sender, mut read) = mpsc::channel(WAITING);
    // Ends with this: then nothing is read any more.
    let mut readers = JoinSet::new();
    for partition in 0..context.config.deployment.partitions {
        readers.spawn(Reader::new(&context.config, partition, rooms.clone()).run(sender.clone()));
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(read) = read.recv() => match read {
                Read::Activities(activities) => {
                    for activity in activities {
                        let left_out = board.note(activity, rooms);
                        metrics.activity_left_out(LeftOut::Newer, left_out.newer);
                        metrics.activity_left_out(LeftOut::Rate, left_out.rate);
                    }
                }
                Read::Skipped(entries) => {
                    metrics.activity_left_out(LeftOut::Behind, entries);
                    board.skipped(entries, rooms);
                }
            },
            _tick = ticks.tick() => {
                let messages = board.take();
                metrics.activity_told(messages.told);
                rooms.tell(messages.all);
            }
        }
    }
}
