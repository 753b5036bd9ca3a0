//! Standard output and standard error of the examples: a reader that has gone away (`| head -1`) ends neither the run nor the files that it writes.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::sync::Mutex;

/// What became of standard output.
static STDOUT: Mutex<State> = Mutex::new(State::Open);

/// Whether a stream is still written to.
#[derive(Debug)]
enum State {
    /// Text goes there.
    Open,
    /// Its reader closed it: no fault, and nothing more is written.
    Closed,
    /// Writing failed otherwise, a full disk say: nothing more is written, and the program fails at its end.
    Failed(io::Error),
}

impl State {
    /// Writes text, unless an earlier text did not arrive.
    fn write(&mut self, to: &mut dyn Write, text: &str) -> ControlFlow<()> {
        if let Self::Open = self {
            match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => *self = Self::Closed,
                Err(error) => *self = Self::Failed(error),
            }
        }
        if let Self::Open = self { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// Prints a line on standard output.
pub fn print_line(line: impl Display) {
    let _ = print_text(format_args!("{line}\n"));
}

/// Prints text on standard output at once; `Break` where nobody reads it any more.
pub fn print_text(text: impl Display) -> ControlFlow<()> {
    let mut state = STDOUT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    state.write(&mut io::stdout().lock(), &text.to_string())
}

/// Prints a line on standard error, if it can.
pub fn print_note(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Why standard output could not be written, unless its reader closed it.
pub fn failure() -> Option<io::Error> {
    let mut state = STDOUT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match std::mem::replace(&mut *state, State::Closed) {
        State::Failed(error) => Some(error),
        other => {
            *state = other;
            None
        }
    }
}
