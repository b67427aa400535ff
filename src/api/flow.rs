//! What a handler returns: done at once, or a future the worker goes on with.

use std::future::Future;
use std::pin::Pin;

/// The answer of a handler, at once or later.
///
/// A worker polls a pending answer inline first; only one that is still pending then costs a
/// task. Until it is ready, no further event of the same connection is delivered.
pub enum Flow<T = ()> {
    /// Done.
    Ready(T),
    /// Goes on. Not `Send`: it stays on its worker.
    Pending(Pin<Box<dyn Future<Output = T>>>),
}

impl<T> Flow<T> {
    /// Wraps a future.
    pub fn later(future: impl Future<Output = T> + 'static) -> Flow<T> {
        Flow::Pending(Box::pin(future))
    }
}

impl Default for Flow<()> {
    fn default() -> Flow<()> {
        Flow::Ready(())
    }
}

/// Marks a plain closure's answer.
pub struct Plain;
/// Marks an async closure's answer.
pub struct Async;

/// What a closure may return: a value, or a future of one. `M` is inferred.
pub trait IntoFlow<T, M> {
    /// The flow that goes with it.
    fn into_flow(self) -> Flow<T>;
}

impl<T> IntoFlow<T, Plain> for T {
    fn into_flow(self) -> Flow<T> {
        Flow::Ready(self)
    }
}

impl<T, F> IntoFlow<T, Async> for F
where
    F: Future<Output = T> + 'static,
{
    fn into_flow(self) -> Flow<T> {
        Flow::later(self)
    }
}
