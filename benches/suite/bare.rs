//! The commands alone: a plan of Rollcall's own fold, coalesced by key, written by plain commands with as many
//! members as they accept. Nothing is compared or recorded, and nothing is atomic. No way to the same state can be
//! much cheaper, and no way with any guarantee can quite reach it.

use redis::Pipeline;
use rollcall::config::Projections;
use rollcall::fold::{Avoided, FoldSettings, Planner};
use rollcall::key::Keys;
use rollcall::op::Plan;
use rollcall::projection::presence_field;

use crate::plain::{Consumer, SESSION_TTL_S, WINDOW_S, add_acknowledgement, rules};

/// Brings everything in the stream into the state, one pipeline per batch.
pub(crate) fn write_all(consumer: &mut Consumer) {
    let settings = FoldSettings { rules: rules(), projections: Projections::all(), partition: 0 };
    let keys = Keys::new("", 1, 0);
    while let Some(entries) = consumer.read() {
        let nothing = Avoided::default();
        let mut planner = Planner::new(&settings);
        entries.iter().for_each(|entry| planner.add(entry, &nothing));
        let plan = planner.finish(&nothing);
        let mut pipeline = redis::pipe();
        write(&mut pipeline, &keys, &plan);
        add_acknowledgement(&mut pipeline, &entries);
        consumer.send(&pipeline);
    }
}

fn write(pipeline: &mut Pipeline, keys: &Keys, plan: &Plan<'_>) {
    assert!(
        plan.connections.is_empty() && plan.departed.is_empty() && plan.letters.is_empty(),
        "no mix that it meets has these"
    );
    write_seen(pipeline, keys, plan);
    write_presence(pipeline, keys, plan);
    write_tokens(pipeline, keys, plan);
    write_sessions(pipeline, keys, plan);
    for (item, count) in &plan.views {
        pipeline.cmd("ZINCRBY").arg(keys.viewed()).arg(*count).arg(&**item).ignore();
    }
}

fn write_seen(pipeline: &mut Pipeline, keys: &Keys, plan: &Plan<'_>) {
    for (minute, users) in &plan.minutes {
        let key = keys.online_minute(*minute);
        let users: Vec<&str> = users.iter().map(AsRef::as_ref).collect();
        pipeline.cmd("SADD").arg(&key).arg(users).ignore();
        pipeline.cmd("PEXPIREAT").arg(key).arg((minute * 60 + WINDOW_S + 70) * 1000).ignore();
    }
    for (user, seconds) in &plan.activity {
        let key = keys.activity() + user;
        pipeline.cmd("SET").arg(key).arg(*seconds);
        pipeline.arg("EXAT").arg(seconds + WINDOW_S + 10).ignore();
    }
}

fn write_presence(pipeline: &mut Pipeline, keys: &Keys, plan: &Plan<'_>) {
    if plan.presence.is_empty() {
        return;
    }
    pipeline.cmd("HSET").arg(keys.presence());
    for (place, latest) in &plan.presence {
        let (_, value) = latest.as_ref().unwrap();
        pipeline.arg(presence_field(&place.user, &place.ip)).arg(value.as_bytes());
    }
    pipeline.ignore();
}

fn write_tokens(pipeline: &mut Pipeline, keys: &Keys, plan: &Plan<'_>) {
    if plan.tokens.is_empty() {
        return;
    }
    pipeline.cmd("ZADD").arg(keys.recent()).arg("GT");
    let used = || plan.tokens.iter().map(|(token, merge)| (token, merge.used.as_ref().unwrap()));
    for (token, (time, _)) in used() {
        pipeline.arg(time.score()).arg(&**token);
    }
    pipeline.ignore().cmd("HSET").arg(keys.login());
    for (token, (_, user)) in used() {
        pipeline.arg(&**token).arg(&**user);
    }
    pipeline.ignore();
    for (token, merge) in plan.tokens.iter().filter(|(_, merge)| !merge.items.is_empty()) {
        let key = keys.viewed() + token;
        pipeline.cmd("ZADD").arg(&key).arg("GT");
        for (item, time) in &merge.items {
            pipeline.arg(time.score()).arg(&**item);
        }
        pipeline.ignore().cmd("ZREMRANGEBYRANK").arg(key).arg(0).arg(-26).ignore();
    }
}

fn write_sessions(pipeline: &mut Pipeline, keys: &Keys, plan: &Plan<'_>) {
    if plan.sessions.is_empty() {
        return;
    }
    pipeline.cmd("HSET").arg(keys.sessions());
    for (sid, merge) in &plan.sessions {
        pipeline.arg(&**sid).arg(&merge.touched.as_ref().unwrap().1);
    }
    pipeline.ignore();
    let with_data =
        || plan.sessions.iter().filter_map(|(sid, merge)| Some((sid, merge.data.as_ref()?)));
    for (sid, (time, data)) in with_data() {
        pipeline.cmd("SET").arg(keys.session_data() + sid).arg(&**data);
        pipeline.arg("PXAT").arg(time.millis() + SESSION_TTL_S * 1000).ignore();
    }
}
