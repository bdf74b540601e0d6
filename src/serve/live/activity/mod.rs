//! Activity: what users do beyond coming and going, for those who watch. It is not a change of the state, so it is read
//! from the event streams, only while somebody is in a room that wants it.
//!
//! At the end of each interval a room receives the newest activity of each subject, for a limited number of subjects,
//! and how many activities were left out.

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

/// How many reads may wait to be recorded.
const WAITING: usize = 16;

/// The result of a read.
enum Read {
    /// Activities, in order.
    Activities(Vec<Activity>),
    /// Entries that were skipped because the reader had fallen behind.
    Skipped(u64),
}

/// One activity.
enum Activity {
    Presence(PresenceUpdate),
    Session(SessionUpdate),
    /// Any event, for listeners to all events.
    Event(SeenEvent),
}

/// Reads the streams whenever somebody watches; never returns.
pub(super) async fn follow(context: Context, rooms: Rooms, metrics: LiveMetrics) {
    let mut watched = rooms.watched();
    loop {
        // The sender lives as long as the rooms.
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
    // Dropped with this block, so that nothing is read any more.
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
