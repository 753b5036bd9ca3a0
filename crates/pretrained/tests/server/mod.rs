//! A server on this machine that speaks as much of the hub's protocol as is asked of it, and breaks it on demand.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<u64>,
    pub authorization: Option<String>,
    /// On the port of the bytes, not on that of the hub.
    pub on_cdn: bool,
    /// How many requests with this method and path came before.
    pub nth: usize,
}

/// What goes out.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close after so many bytes of the body.
    pub cut_at: Option<usize>,
    /// Wait this long in the middle of the body.
    pub pause: Option<Duration>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }
}

/// Changes what the server would answer.
type Twist = dyn Fn(&Request, Reply) -> Reply + Send + Sync;

pub struct Server {
    pub endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

type Repos = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

struct Inner {
    repos: Repos,
    cdn: String,
    twist: Box<Twist>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(repos: Repos, twist: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Self {
        let (hub, bytes) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let at = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (endpoint, cdn, seen) = (at(&hub), at(&bytes), Arc::<Mutex<Vec<Request>>>::default());
        let inner = Arc::new(Inner { repos, cdn: cdn.clone(), twist: Box::new(twist), seen: seen.clone() });
        for (listener, on_cdn) in [(hub, false), (bytes, true)] {
            let inner = inner.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let inner = inner.clone();
                    std::thread::spawn(move || drop(inner.serve(stream, on_cdn)));
                }
            });
        }
        Self { endpoint, seen }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Inner {
    fn serve(&self, mut stream: TcpStream, on_cdn: bool) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let (mut range, mut authorization) = (None, None);
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            match name.to_lowercase().as_str() {
                "range" => {
                    range = value.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).map(|r| r.parse().unwrap())
                }
                "authorization" => authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        let request = {
            let mut seen = self.seen.lock().unwrap();
            let nth = seen.iter().filter(|r| r.method == method && r.path == path && r.on_cdn == on_cdn).count();
            let request = Request { method, path, range, authorization, on_cdn, nth };
            seen.push(request.clone());
            request
        };
        let reply = (self.twist)(&request, self.answer(&request));
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let body = &reply.body[..reply.cut_at.unwrap_or(reply.body.len()).min(reply.body.len())];
        let (one, two) = body.split_at(body.len() / 2);
        stream.write_all(one)?;
        if let Some(pause) = reply.pause {
            stream.flush()?;
            std::thread::sleep(pause);
        }
        stream.write_all(two)
    }

    fn answer(&self, request: &Request) -> Reply {
        let path = request.path.replace("%2F", "/").replace("%20", " ");
        // Python asks for the branch where we ask for the commit.
        let path = path.replace("/resolve/main/", &format!("/resolve/{COMMIT}/"));
        if let Some(sha) = path.strip_prefix("/blobs/") {
            let blob = self.repos.values().flat_map(BTreeMap::values).find(|body| sha256(body) == sha);
            return blob.map_or(Reply::status(404), |body| bytes(request, body));
        }
        for (id, files) in &self.repos {
            let (kind, name) = id.split_once(':').unwrap();
            let prefix = if kind == "datasets" { "/datasets" } else { "" };
            if path.starts_with(&format!("/api/{kind}/{name}/revision/")) {
                let siblings: Vec<_> = files.keys().map(|file| serde_json::json!({ "rfilename": file })).collect();
                let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
                return bytes(request, body.as_bytes());
            }
            if let Some(file) = path.strip_prefix(&format!("{prefix}/{name}/resolve/{COMMIT}/")) {
                let Some(body) = files.get(file) else {
                    return Reply::status(404).with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", COMMIT);
                };
                let large = file.ends_with(".safetensors") || file.ends_with(".parquet");
                let reply = if large {
                    Reply::status(302)
                        .with("Location", format!("{}/blobs/{}", self.cdn, sha256(body)))
                        .with("X-Linked-Etag", format!("\"{}\"", sha256(body)))
                        .with("X-Linked-Size", body.len())
                        .with("Content-Length", 0)
                } else {
                    bytes(request, body).with("ETag", format!("\"{}\"", git_sha1(body)))
                };
                return reply.with("X-Repo-Commit", COMMIT);
            }
        }
        Reply::status(401).with("X-Error-Code", "RepoNotFound").with("Content-Length", 0)
    }
}

fn bytes(request: &Request, body: &[u8]) -> Reply {
    match request.range {
        Some(from) if from >= body.len() as u64 => Reply::status(416).with("Content-Length", 0),
        Some(from) => {
            let rest = body[from as usize..].to_vec();
            Reply { status: 206, body: rest.clone(), ..Reply::default() }
                .with("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len()))
                .with("Content-Length", rest.len())
        }
        None => Reply { status: 200, body: body.to_vec(), ..Reply::default() }.with("Content-Length", body.len()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(body: &[u8]) -> String {
    hex(digest(&SHA256, body).as_ref())
}

pub fn git_sha1(body: &[u8]) -> String {
    let mut all = format!("blob {}\0", body.len()).into_bytes();
    all.extend(body);
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &all).as_ref())
}
