//! The signals that stop a process in good order.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from now on; the future waits for SIGTERM, SIGINT (Ctrl-C) or SIGHUP, and says which it was.
pub(crate) fn stop() -> impl Future<Output = &'static str> {
    let of = |kind| signal(kind).ok();
    let (mut term, mut int, mut hup) =
        (of(SignalKind::terminate()), of(SignalKind::interrupt()), of(SignalKind::hangup()));
    async move {
        tokio::select! {
            () = received(&mut term) => "SIGTERM",
            () = received(&mut int) => "SIGINT",
            () = received(&mut hup) => "SIGHUP",
        }
    }
}

/// Says from now on when the terminal gets another size.
pub(crate) fn resizes() -> Option<Signal> {
    signal(SignalKind::window_change()).ok()
}

/// Waits for ever where the signal cannot be listened for.
pub(crate) async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
