//! Thresholds have hysteresis: reached at `up`, left at `down`, and nothing in between.

use rollcall::entry::Entry;

use crate::harness::{Deployment, id};
use crate::support::dump;

#[tokio::test]
async fn a_threshold_that_was_reached_is_left_at_its_lower_bound_only() {
    let deployment = Deployment::start(&[("thresholds", "3:1")]);
    let now = dump::server_now(&mut deployment.connection());
    let steps = [("a", "join"), ("b", "join"), ("c", "join"), ("c", "leave"), ("b", "leave")];
    let entries: Vec<Entry> = (0..)
        .zip(steps)
        .map(|(n, (user, action))| {
            let fields = [("type", "document"), ("doc", "d"), ("user", user), ("action", action)];
            Entry::new(id(now + n, 0), fields)
        })
        .collect();
    deployment.add(0, &entries);
    let mut script = deployment.script(0).await;
    let mut crossings = Vec::new();
    for entry in &entries {
        script.apply(std::slice::from_ref(entry)).await;
        let changes = dump::changes(&mut deployment.connection(), &deployment.keys(0));
        crossings
            .push(changes.iter().filter(|change| change["kind"].starts_with(b"threshold")).count());
    }
    assert_eq!(crossings, [0, 0, 1, 1, 2], "reached by the third, left with the second last");
}
