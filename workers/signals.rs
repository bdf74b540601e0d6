//! The signals that end a process in an orderly way, and the one that reloads its settings.

use std::convert::Infallible;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from now on; the future waits for SIGTERM or SIGINT (Ctrl-C), and returns its name.
pub(crate) fn stop() -> impl Future<Output = &'static str> {
    let (mut term, mut int) = (of(SignalKind::terminate()), of(SignalKind::interrupt()));
    async move {
        tokio::select! {
            () = received(&mut term) => "SIGTERM",
            () = received(&mut int) => "SIGINT",
        }
    }
}

/// The same, and the end of the terminal, for programs that a person watches.
pub(crate) fn stop_or_hangup() -> impl Future<Output = &'static str> {
    let (stop, mut hangup) = (stop(), of(SignalKind::hangup()));
    async move {
        tokio::select! {
            signal = stop => signal,
            () = received(&mut hangup) => "SIGHUP",
        }
    }
}

/// Runs `action` at every SIGHUP from now on.
pub(crate) fn at_hangup(mut action: impl FnMut()) -> impl Future<Output = Infallible> {
    let mut hangup = of(SignalKind::hangup());
    async move {
        loop {
            received(&mut hangup).await;
            action();
        }
    }
}

/// Reports changes of the terminal's size from now on.
pub(crate) fn resizes() -> Option<Signal> {
    of(SignalKind::window_change())
}

fn of(kind: SignalKind) -> Option<Signal> {
    signal(kind).ok()
}

/// Waits for the signal; endlessly if it cannot be received.
pub(crate) async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
