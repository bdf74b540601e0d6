//! The signals that stop a process in good order, and the one that makes it read its settings again.

use std::convert::Infallible;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from now on; the future waits for SIGTERM or SIGINT (Ctrl-C), and says which it was.
pub(crate) fn stop() -> impl Future<Output = &'static str> {
    let (mut term, mut int) = (of(SignalKind::terminate()), of(SignalKind::interrupt()));
    async move {
        tokio::select! {
            () = received(&mut term) => "SIGTERM",
            () = received(&mut int) => "SIGINT",
        }
    }
}

/// The same, and the end of the terminal, for what a person watches.
pub(crate) fn stop_or_hangup() -> impl Future<Output = &'static str> {
    let (stop, mut hangup) = (stop(), of(SignalKind::hangup()));
    async move {
        tokio::select! {
            signal = stop => signal,
            () = received(&mut hangup) => "SIGHUP",
        }
    }
}

/// Does `action` at every SIGHUP from now on.
pub(crate) fn at_hangup(mut action: impl FnMut()) -> impl Future<Output = Infallible> {
    let mut hangup = of(SignalKind::hangup());
    async move {
        loop {
            received(&mut hangup).await;
            action();
        }
    }
}

/// Says from now on when the terminal gets another size.
pub(crate) fn resizes() -> Option<Signal> {
    of(SignalKind::window_change())
}

fn of(kind: SignalKind) -> Option<Signal> {
    signal(kind).ok()
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
