//! Room for recursion while a statement is planned.
//!
//! Planning walks expressions by recursion, and not every walk of DataFusion's grows the stack as
//! it goes. A statement may stack 500 operators (`dialect`), which needs more than the 2 MiB of a
//! thread of the runtime; overflowing a stack ends the process, with everybody's statements.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Stack of one poll, in bytes: what the highest expression needs in a debug build, three times
/// over. Pages that are not touched cost nothing.
const STACK_BYTES: usize = 16 << 20;

/// A future that is polled on a large stack.
pub struct LargeStack<F> {
    inner: Pin<Box<F>>,
}

impl<F: Future> LargeStack<F> {
    /// Polls `inner` on a large stack.
    pub fn new(inner: F) -> Self {
        Self { inner: Box::pin(inner) }
    }
}

impl<F: Future> Future for LargeStack<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let inner = self.inner.as_mut();
        // Grows unless the thread itself has as much.
        stacker::maybe_grow(STACK_BYTES / 2, STACK_BYTES, || inner.poll(context))
    }
}
