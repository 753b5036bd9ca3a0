//! `contained`: panics become errors, and only those are silent. The panic hook and stderr belong to the whole process, so each case runs in a child process: this program once
//! more, with the case's name in a variable.

use std::panic::{catch_unwind, set_hook, take_hook};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use tensor_files::{Panicked, contained};

const CASE: &str = "SAESCOPE_CONTAINED_CASE";

/// Panics with the given text.
fn panic_with(text: &str) {
    panic!("{text}")
}

fn message(outcome: Result<(), Panicked>) -> String {
    outcome.unwrap_err().message
}

/// Does nothing but in a child process.
#[test]
fn child() {
    match std::env::var(CASE).as_deref() {
        Ok("contained") => {
            assert_eq!(contained(|| 7), Ok(7));
            let error = contained(|| panic_with("first")).unwrap_err();
            assert_eq!(error.message, "first");
            let location = error.location.clone().unwrap();
            assert!(location.contains("contained.rs:"), "{location}");
            assert_eq!(error.to_string(), format!("panicked at {location}: first"));
        }
        Ok("nested") => {
            // The inner one ends, and the outer one still contains.
            let outer = contained(|| {
                assert_eq!(message(contained(|| panic_with("inner"))), "inner");
                panic_with("outer")
            });
            assert_eq!(message(outer), "outer");
            let outer = contained(|| (contained(|| 1), panic_with("outer")).1);
            assert_eq!(message(outer), "outer");
        }
        Ok("while unwinding") => {
            struct Contains;
            impl Drop for Contains {
                fn drop(&mut self) {
                    assert_eq!(message(contained(|| panic_with("inner"))), "inner");
                }
            }
            let outer = contained(|| {
                let _contains = Contains;
                panic_with("outer")
            });
            assert_eq!(message(outer), "outer");
        }
        Ok("many threads") => std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| assert_eq!(message(contained(|| panic_with("here"))), "here")));
            }
        }),
        Ok("payloads") => {
            struct PanicsWhenDropped;
            impl Drop for PanicsWhenDropped {
                fn drop(&mut self) {
                    panic_with("dropped");
                }
            }
            let odd = contained(|| std::panic::resume_unwind(Box::new(PanicsWhenDropped)));
            assert_eq!(message(odd), "without a message");
            let long = message(contained(|| panic_with(&"é".repeat(1000))));
            assert_eq!(long, format!("{}...", "é".repeat(200)));
        }
        Ok("ordinary") => assert!(catch_unwind(|| panic_with("ordinary")).is_err()),
        Ok("ordinary after") => {
            assert_eq!(message(contained(|| panic_with("silent"))), "silent");
            assert!(catch_unwind(|| panic_with("ordinary")).is_err());
        }
        Ok("elsewhere") => {
            let joined = contained(|| std::thread::spawn(|| panic_with("elsewhere")).join().is_err());
            assert_eq!(joined, Ok(true));
        }
        Ok("own hook") => {
            static CALLED: AtomicUsize = AtomicUsize::new(0);
            fn hear() {
                CALLED.fetch_add(1, Ordering::Relaxed);
            }
            set_hook(Box::new(|_| hear()));
            assert_eq!(message(contained(|| panic_with("silent"))), "silent");
            assert_eq!(CALLED.load(Ordering::Relaxed), 0);
            assert!(catch_unwind(|| panic_with("heard")).is_err());
            assert!(std::thread::spawn(|| panic_with("heard")).join().is_err());
            assert_eq!(CALLED.load(Ordering::Relaxed), 2);
            // One that is set later is called for everything, and the place of a panic is not known.
            set_hook(Box::new(|_| hear()));
            assert_eq!(contained(|| panic_with("heard")).unwrap_err().location, None);
            assert_eq!(CALLED.load(Ordering::Relaxed), 3);
            drop(take_hook());
        }
        Ok("twice") => {
            struct Panics;
            impl Drop for Panics {
                fn drop(&mut self) {
                    panic_with("second");
                }
            }
            let _ = contained(|| {
                let _panics = Panics;
                panic_with("first");
            });
        }
        Ok(other) => panic!("there is no case {other}"),
        Err(_) => {}
    }
}

fn run(case: &str) -> Output {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--exact", "child", "--nocapture"]).env(CASE, case).output().unwrap()
}

#[test]
fn a_contained_panic_prints_nothing() {
    for case in ["contained", "nested", "while unwinding", "many threads", "payloads", "own hook"] {
        let output = run(case);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{case}");
        assert!(output.status.success(), "{case}");
    }
}

#[test]
fn every_other_panic_is_printed_once() {
    for (case, text) in [("ordinary", "ordinary"), ("ordinary after", "ordinary"), ("elsewhere", "elsewhere")] {
        let output = run(case);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((stderr.matches("panicked at").count(), stderr.contains(text)), (1, true), "{case}: {stderr}");
        assert!(output.status.success(), "{case}");
    }
}

/// Rust aborts when a panic meets another one that unwinds; the reason must not be lost.
#[test]
fn the_panic_that_ends_the_process_is_printed() {
    let output = run("twice");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("second"), "{stderr}");
}
