//! Answers of a server that speaks the hub's protocol, or nearly: status lines, headers, lists, ranges, bytes.
//!
//! ```text
//! byte 0    what is asked for: an SAE (0), a model (1), a data set (2)
//! the rest  answers as they go over the wire, divided by 0x1e, one for each request in turn; then nobody answers
//! ```
//!
//! Whatever is answered, nothing is written outside the cache, and no link in it leads out.

use crate::harness;
use pretrained::{Cache, DatasetFilter, Hub, RetryPolicy};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The commit that first inputs speak of.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const DIVIDER: u8 = 0x1e;
const MOST_ANSWERS: usize = 24;

static ANSWERS: Mutex<VecDeque<Vec<u8>>> = Mutex::new(VecDeque::new());

fn answers() -> MutexGuard<'static, VecDeque<Vec<u8>>> {
    ANSWERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server of this process, on this machine alone.
fn endpoint() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let own = format!("//{address}/");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                drop(serve(stream, own.as_bytes()));
            }
        });
        format!("http://{address}")
    })
}

fn serve(mut stream: TcpStream, own: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (mut request, mut piece) = (Vec::new(), [0; 2048]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&piece[..read]),
        }
    }
    let Some(answer) = answers().pop_front() else { return Ok(()) };
    stream.write_all(&answer_from_here(&answer, own))
}

/// Every other server that the headers name becomes this one: nothing leaves the machine.
fn answer_from_here(answer: &[u8], own: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let (head, body) = answer.split_at(end);
    let mut out = Vec::with_capacity(answer.len() + own.len());
    let mut at = 0;
    while at < head.len() {
        if head[at..].starts_with(b"//") {
            out.extend_from_slice(own);
            at += 2;
        } else {
            out.push(head[at]);
            at += 1;
        }
    }
    out.extend_from_slice(body);
    out
}

pub fn read(data: &[u8]) {
    let _ = opens(data);
}

/// Whether what was asked for came.
pub fn opens(data: &[u8]) -> bool {
    let Some((&what, rest)) = data.split_first() else { return false };
    let retry = RetryPolicy {
        max_attempts: 2,
        initial_backoff: Duration::ZERO,
        max_backoff: Duration::ZERO,
        read_timeout: Duration::from_millis(500),
    };
    *answers() = rest.split(|byte| *byte == DIVIDER).take(MOST_ANSWERS).map(<[u8]>::to_vec).collect();
    let root = harness::folder().join("hub");
    let _ = std::fs::remove_dir_all(&root);
    let cache = root.join("cache");
    std::fs::create_dir_all(&cache).expect("a folder");
    let hub = Hub::new().cache(Cache::new(&cache)).endpoint(endpoint()).retry(retry);
    let first = ask(&hub, what);
    // What is in the cache now, without asking, and by its commit.
    let again = ask(&hub.clone().offline(true), what);
    assert!(!first || again, "what was downloaded is not in the cache");
    ask(&hub.offline(true).revision(COMMIT), what);
    answers().clear();
    let outside: Vec<_> = std::fs::read_dir(&root).expect("the folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(outside, ["cache"]);
    stays_inside(&cache, &cache.canonicalize().expect("the cache"));
    first
}

fn ask(hub: &Hub, what: u8) -> bool {
    match what % 3 {
        0 => hub.sae("me/saes", "a").is_ok(),
        1 => hub.model("me/model").is_ok(),
        _ => hub.dataset("me/text", &DatasetFilter::default()).is_ok(),
    }
}

fn stays_inside(folder: &Path, cache: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder of the cache").flatten() {
        let kind = entry.file_type().expect("a kind of file");
        if kind.is_dir() {
            stays_inside(&entry.path(), cache);
        } else if let Ok(real) = entry.path().canonicalize() {
            assert!(real.starts_with(cache), "{} leads to {}", entry.path().display(), real.display());
        }
    }
}
