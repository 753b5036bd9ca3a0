//! Panics of other crates as errors: [`contained`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// Longer messages are cut: a message may quote the input.
const MOST_MESSAGE_BYTES: usize = 400;

/// A panic of code that ran in [`contained`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked at {}: {message}", .location.as_deref().unwrap_or("an unknown place"))]
#[non_exhaustive]
pub struct Panicked {
    /// The panic message, cut after 400 bytes.
    pub message: String,
    /// Location as `file:line:column`; `None` if unknown: the program replaced the panic hook after the first use of [`contained`].
    pub location: Option<String>,
}

thread_local! {
    /// Whether this thread runs contained code that has not panicked.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// Location of the last contained panic of this thread.
    static LOCATION: Cell<Option<String>> = const { Cell::new(None) };
}

/// Runs code of another crate that answers some malformed inputs with a panic, and returns the panic as an error.
///
/// This is a last resort: check the input first, as far as it can be checked, and pass only the calls into the other crate, so that a panic of your own code is not mistaken for
/// one of theirs. What the code changed before it panicked stays changed: do not use such values afterwards.
///
/// **Output.** Nothing is printed for a contained panic. The first call wraps the process's panic hook; the wrapper calls the previous hook for every other panic, those of other
/// threads included. A hook that the program sets after the first call replaces the wrapper and is called for contained panics too. A second panic while the first one unwinds
/// ends the process, as always in Rust, and is printed.
///
/// **Threads.** Only panics on the calling thread are silent. If the code starts threads of its own, their panics are printed, and become an error here only if the code brings
/// them back to the calling thread, as rayon does. While a rayon thread waits inside of `run` for other rayon tasks, it may execute unrelated tasks, whose panics would be silent:
/// `run` should not use rayon. The calls that this project contains do not.
///
/// **`panic = "abort"`.** Nothing can be contained: a panic ends the process, and its message is printed, since the hook is left alone.
///
/// # Errors
/// [`Panicked`] with the panic's message and place.
///
/// ```
/// let empty: [u8; 0] = [];
/// let error = tensor_files::contained(|| empty.iter().next().unwrap()).unwrap_err();
/// assert!(error.message.contains("None"));
/// ```
pub fn contained<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    wrap_hook();
    let outer = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    CONTAINED.set(outer);
    outcome.map_err(|payload| {
        let location = LOCATION.try_with(Cell::take).ok().flatten();
        Panicked { message: message(payload), location }
    })
}

fn wrap_hook() {
    static WRAPPED: Once = Once::new();
    // A thread that is panicking must not set a hook; without unwinding, a silent hook would hide why the process ends.
    if WRAPPED.is_completed() || std::thread::panicking() || !cfg!(panic = "unwind") {
        return;
    }
    WRAPPED.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| match CONTAINED.replace(false) {
            true => remember(info),
            false => previous(info),
        }));
    });
}

/// Stores the place of a panic. It must not panic itself: that would abort the process.
fn remember(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    // Fails while the thread ends, when its variables are gone already.
    let _ = LOCATION.try_with(|last| last.set(location));
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let text = match payload.downcast_ref::<&str>() {
        Some(text) => Some(*text),
        None => payload.downcast_ref::<String>().map(String::as_str),
    };
    let Some(text) = text else {
        // Dropping a value of an unknown type may panic once more.
        std::mem::forget(payload);
        return "without a message".into();
    };
    match text.get(..text.floor_char_boundary(MOST_MESSAGE_BYTES)) {
        Some(start) if start.len() < text.len() => format!("{start}..."),
        _ => text.into(),
    }
}
