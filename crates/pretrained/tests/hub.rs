//! Downloads, from a server on this machine that redirects, cuts, lies, waits and refuses.

#[path = "../../tensor-files/tests/crash/mod.rs"]
mod crash;
mod server;

use activation_store::Documents;
use model_hooks::{LoadOptions, Processing};
use pretrained::{Cache, DatasetFilter, DownloadEvent, Error, Hub, PARQUET_REVISION, Registry, RetryPolicy};
use sae_core::SparseCoder;
use server::{COMMIT, Reply, Request, Server, git_sha1, sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

type Repos = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

const TABLE: &str = "#saescope-registry\t1\tmine\n>\tmine\tme/saes\tsaelens\tgpt2\t2\t{\"context_size\": 99}\nblocks.0\ta/standard\tblocks.0.hook_resid_pre\nblocks.1\ta/none\tblocks.1.hook_resid_pre\n";
const WEIGHTS: &str = "a/standard/sae_weights.safetensors";

fn golden(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn repos() -> Repos {
    let mut repos = Repos::new();
    let mut put = |repo: &str, file: &str, body: Vec<u8>| {
        repos.entry(repo.into()).or_default().insert(file.into(), body);
    };
    for file in ["cfg.json", "sae_weights.safetensors"] {
        let body = golden(&format!("sae-core/tests/golden/standard/{file}"));
        put("models:me/saes", &format!("a/standard/{file}"), body.clone());
        put("models:me/other", &format!("standard/{file}"), body);
    }
    put("models:me/saes", "a/standard/huge.safetensors", vec![7; 1000]);
    put("models:me/saes", "README.md", b"no".to_vec());
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        put("models:openai-community/gpt2-medium", file, golden(&format!("../assets/demo/lm/{file}")));
    }
    put("models:openai-community/gpt2-medium", "pytorch_model.bin", vec![0; 10]);
    put("datasets:me/text", "train.jsonl", b"{\"text\": \"On Monday\"}\n".to_vec());
    put("datasets:me/text", "test.jsonl", b"{\"text\": \"On Tuesday\"}\n".to_vec());
    repos
}

struct Setup {
    server: Server,
    folder: TempDir,
}

impl Setup {
    fn new(twist: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Self {
        Self::of(repos(), twist)
    }

    fn of(repos: Repos, twist: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Self {
        Self { server: Server::start(repos, twist), folder: tempfile::tempdir().unwrap() }
    }

    fn hub(&self) -> Hub {
        hub(self.folder.path(), &self.server)
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("models--me--saes")
    }

    fn weights(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT).join(WEIGHTS)
    }

    /// Nothing has the name of a finished file.
    fn nothing_finished(&self) {
        assert!(!self.weights().exists());
        let body = golden("sae-core/tests/golden/standard/sae_weights.safetensors");
        assert!(!self.repo().join("blobs").join(sha256(&body)).exists());
    }
}

fn hub(cache: &Path, server: &Server) -> Hub {
    let retry = RetryPolicy {
        max_attempts: 4,
        initial_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(50),
        read_timeout: Duration::from_millis(400),
    };
    Hub::new()
        .cache(Cache::new(cache))
        .endpoint(&server.endpoint)
        .retry(retry)
        .table(Registry::read(TABLE.as_bytes()).unwrap())
}

fn as_it_is(_: &Request, reply: Reply) -> Reply {
    reply
}

/// Changes answers about the weights' bytes.
fn of_bytes(
    change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request, Reply) -> Reply + Send + Sync {
    move |request, reply| if request.on_cdn { change(request, reply) } else { reply }
}

#[test]
fn an_sae_of_the_table_arrives_and_opens() {
    let setup = Setup::new(as_it_is);
    let published = setup.hub().sae("mine", "blocks.0").unwrap();
    assert_eq!(published.revision.as_deref(), Some(COMMIT));
    assert_eq!(published.entry.unwrap().path, "a/standard");
    assert_eq!(published.files.len(), 2);
    assert_eq!(published.dictionary.metadata().context_size, Some(99)); // the table's override
    // The layout of Python's tools, down to the link.
    let body = golden("sae-core/tests/golden/standard/sae_weights.safetensors");
    assert_eq!(fs::read_to_string(setup.repo().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(setup.repo().join("blobs").join(sha256(&body))).unwrap(), body);
    #[cfg(unix)]
    assert_eq!(fs::read_link(setup.weights()).unwrap(), Path::new("../../../../blobs").join(sha256(&body)));
    let config = golden("sae-core/tests/golden/standard/cfg.json");
    assert!(setup.repo().join("blobs").join(git_sha1(&config)).is_file());
    assert!(setup.repo().join(".no_exist").join(COMMIT).join("a/standard/sparsity.safetensors").is_file());
    // Only what is needed.
    let asked: Vec<_> = setup.server.requests().iter().map(|r| r.path.clone()).collect();
    assert!(!asked.iter().any(|path| path.contains("huge") || path.contains("README")), "{asked:?}");

    // A second time: one question, which commit it is. With the commit named: none. Offline: none.
    let before = setup.server.requests().len();
    setup.hub().sae("mine", "blocks.0").unwrap();
    assert_eq!(setup.server.requests().len(), before + 1);
    setup.hub().revision(COMMIT).sae("mine", "blocks.0").unwrap();
    let offline = setup.hub().offline(true).sae("mine", "blocks.0").unwrap();
    assert_eq!((setup.server.requests().len(), offline.revision.as_deref()), (before + 1, Some(COMMIT)));
    // Found by the reference implementation of the layout.
    let theirs = hf_hub::Cache::new(setup.folder.path().into()).model("me/saes".into());
    assert_eq!(theirs.get(WEIGHTS).unwrap(), setup.weights());
}

#[test]
fn a_repository_and_a_folder_open_without_the_table() {
    let setup = Setup::new(as_it_is);
    let published = setup.hub().sae("me/other", "standard").unwrap();
    assert!(published.entry.is_none());
    assert_eq!(published.dictionary.d_in(), setup.hub().sae("mine", "blocks.0").unwrap().dictionary.d_in());
    // One that the table lists is the table's, by whichever name.
    let listed = setup.hub().sae("me/saes", "a/standard").unwrap();
    assert_eq!(listed.entry.unwrap().sae_id, "blocks.0");
    assert_eq!(listed.dictionary.metadata().context_size, Some(99));
    let snapshot = setup.repo().join("snapshots").join(COMMIT).join("a/standard");
    let local = setup.hub().sae(snapshot.to_str().unwrap(), "").unwrap();
    assert_eq!(local.entry.unwrap().sae_id, "blocks.0");
    assert_eq!(local.dictionary.metadata().context_size, Some(99));
    match setup.hub().sae("me/saes", "a/standart") {
        Err(Error::NoSae { folders, .. }) => assert_eq!(folders, ["a/standard"]),
        other => panic!("{other:?}"),
    }
    // Registered, and not there.
    match setup.hub().sae("mine", "blocks.1") {
        Err(Error::NoSuchFile { file, near, .. }) => {
            assert_eq!(file, "a/none/cfg.json");
            assert_eq!(near[0], "a/standard/cfg.json");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn local_paths_open_without_a_cache() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-core/tests/golden");
    let published = Hub::new().sae(folder.to_str().unwrap(), "standard").unwrap();
    assert_eq!(published.revision, None);
    assert!(matches!(Hub::new().sae("me/saes", "x"), Err(Error::NoCache)));
    assert!(matches!(Hub::new().sae("gpt2-small-res-jb", "blocks.7.hook_resid_pre"), Err(Error::NoCache)));
    match Hub::new().sae("gpt2-small-res-jd", "x") {
        Err(Error::UnknownName { near, .. }) => assert_eq!(near[0], "gpt2-small-res-jb"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_arrives_by_an_alias_and_loads() {
    let setup = Setup::new(as_it_is);
    let model = setup.hub().model("gpt2-medium").unwrap();
    assert_eq!(model.files.len(), 4);
    let loaded = model.load(&LoadOptions::new(Processing::None)).unwrap();
    assert_eq!(loaded.name(), "gpt2-medium");
    assert!(loaded.tokenizer().is_some());
    let before = setup.server.requests();
    assert!(before.iter().all(|request| !request.path.contains("pytorch_model")));
    assert_eq!(setup.hub().offline(true).model("gpt2-medium").unwrap().path, model.path);
    assert_eq!(setup.server.requests().len(), before.len());
}

#[test]
fn a_model_without_a_tokenizer_json_comes_with_its_parts() {
    let mut repos = repos();
    let files = repos.get_mut("models:openai-community/gpt2-medium").unwrap();
    for file in ["tokenizer.model", "vocab.json", "merges.txt"] {
        files.insert(file.into(), b"part".to_vec());
    }
    let fetched = |repos: Repos| -> Vec<String> {
        let setup = Setup::of(repos, as_it_is);
        let files = setup.hub().model("gpt2-medium").unwrap().files;
        files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert!(!fetched(repos.clone()).iter().any(|file| file == "merges.txt"), "tokenizer.json says it all");
    repos.get_mut("models:openai-community/gpt2-medium").unwrap().remove("tokenizer.json");
    let files = fetched(repos);
    assert!(
        ["tokenizer.model", "vocab.json", "merges.txt"].iter().all(|part| files.iter().any(|file| file == part)),
        "{files:?}"
    );
}

fn sharded(index: &str) -> Repos {
    let mut repos = Repos::new();
    for (file, body) in [
        ("config.json", "{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", "1"),
        ("model-2.safetensors", "2"),
        ("sub/model.safetensors", "3"),
    ] {
        repos.entry("models:me/big".into()).or_default().insert(file.into(), body.into());
    }
    repos
}

#[test]
fn shards_are_those_of_the_index_and_lie_in_its_folder() {
    let index =
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let setup = Setup::of(sharded(index), as_it_is);
    assert_eq!(setup.hub().model("me/big").unwrap().files.len(), 4);
    for file in ["../x", "/etc/passwd", "sub/model.safetensors", "a\\\\b", "C:/x", "..", "a\\u0000b"] {
        let setup = Setup::of(sharded(&format!(r#"{{"weight_map": {{"a": "{file}"}}}}"#)), as_it_is);
        let refused = setup.hub().model("me/big");
        assert!(matches!(refused, Err(Error::UnsafeName { .. })), "{file}: {refused:?}");
    }
    for index in ["[]", "{", r#"{"weight_map": {"a": 1}}"#, r#"{"weight_map": {"a": "x", "a": "y"}}"#] {
        let setup = Setup::of(sharded(index), as_it_is);
        assert!(matches!(setup.hub().model("me/big"), Err(Error::BadIndex { .. })), "{index}");
    }
    // Pickles are fetched where there is nothing else.
    let mut repos = sharded(index);
    repos.get_mut("models:me/big").unwrap().retain(|file, _| file == "config.json");
    assert!(matches!(Setup::of(repos.clone(), as_it_is).hub().model("me/big"), Err(Error::NoWeights { .. })));
    let mut pickled =
        |file: &str, bytes: &[u8]| repos.get_mut("models:me/big").unwrap().insert(file.into(), bytes.into());
    pickled("pytorch_model.bin.index.json", br#"{"weight_map": {"a": "pytorch_model-1.bin"}}"#);
    pickled("pytorch_model-1.bin", &[0]);
    let model = Setup::of(repos.clone(), as_it_is).hub().model("me/big").unwrap();
    assert!(
        model.files.iter().any(|file| file.ends_with("pytorch_model-1.bin")) && model.files.len() == 3,
        "{:?}",
        model.files
    );
    repos.get_mut("models:me/big").unwrap().insert("pytorch_model.bin".into(), vec![0]);
    let model = Setup::of(repos, as_it_is).hub().model("me/big").unwrap();
    assert!(
        model.files.iter().any(|file| file.ends_with("pytorch_model.bin")) && model.files.len() == 2,
        "{:?}",
        model.files
    );
}

#[test]
fn a_data_set_becomes_paths_that_documents_take() {
    let setup = Setup::new(as_it_is);
    let part = DatasetFilter { name_contains: Some("train".into()), max_files: None };
    let text = setup.hub().dataset("me/text", &part).unwrap();
    assert_eq!(text.files.len(), 1);
    Documents::open(&text.files, Default::default()).unwrap();
    let one =
        setup.hub().dataset("me/text", &DatasetFilter { max_files: Some(1), ..DatasetFilter::default() }).unwrap();
    assert_eq!((one.files.len(), one.left_out), (1, 1));
    assert!(one.files[0].ends_with("test.jsonl"));
    let none =
        setup.hub().dataset("me/text", &DatasetFilter { name_contains: Some("validation".into()), max_files: None });
    assert!(matches!(none, Err(Error::NoText { .. })), "{none:?}");
}

#[test]
fn a_data_set_without_readable_files_is_taken_as_parquet_from_its_conversion() {
    let mut repos = Repos::new();
    repos.entry("datasets:me/script".into()).or_default().insert("default/train/0000.parquet".into(), vec![1; 9]);
    let setup = Setup::of(repos, |request, mut reply| {
        if request.path.ends_with("/revision/main") {
            let own = "f".repeat(40);
            reply.body = format!(r#"{{"sha": "{own}", "siblings": [{{"rfilename": "load.py"}}]}}"#).into_bytes();
            let length = reply.body.len();
            return reply.with("Content-Length", length);
        }
        reply
    });
    let text = setup.hub().dataset("me/script", &DatasetFilter::default()).unwrap();
    assert_eq!(fs::read(&text.files[0]).unwrap(), [1; 9]);
    let at = setup.folder.path().join("datasets--me--script/refs").join(PARQUET_REVISION);
    assert_eq!(fs::read_to_string(at).unwrap(), COMMIT);
    // Nothing of the own branch is in the cache.
    let again = setup.hub().offline(true).dataset("me/script", &DatasetFilter::default()).unwrap();
    assert_eq!(again.files, text.files);
}

#[test]
fn a_cut_connection_is_carried_on_where_it_broke() {
    let setup = Setup::new(of_bytes(|request, mut reply| {
        if request.nth < 6 {
            reply.cut_at = Some(1500);
        }
        reply
    }));
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = told.clone();
    let hub = setup.hub().progress(move |progress| {
        if let DownloadEvent::Bytes { file: WEIGHTS, done, total, .. } = progress {
            kept.lock().unwrap().push((*done, *total));
        }
    });
    hub.sae("mine", "blocks.0").unwrap();
    let ranges: Vec<_> = setup.server.requests().iter().filter(|r| r.on_cdn).map(|r| r.range).collect();
    // More connections than tries: each brought something.
    assert!(ranges.len() > 4 && ranges[0].is_none(), "{ranges:?}");
    assert!(ranges[1..].iter().zip(1..).all(|(range, i)| *range == Some(1500 * i)), "{ranges:?}");
    let told = told.lock().unwrap();
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0) && told[0].0 == 0);
    assert_eq!(told.last().unwrap().0, told.last().unwrap().1);
}

#[test]
fn an_interrupted_download_is_carried_on_by_the_next_run() {
    let setup = Setup::new(of_bytes(|request, mut reply| {
        if request.nth < 4 {
            reply.cut_at = Some(if request.nth == 0 { 2000 } else { 0 });
        }
        reply
    }));
    assert!(matches!(setup.hub().sae("mine", "blocks.0"), Err(Error::Unreachable { .. })));
    setup.nothing_finished();
    setup.hub().sae("mine", "blocks.0").unwrap();
    assert_eq!(setup.server.requests().iter().rfind(|r| r.on_cdn).unwrap().range, Some(2000));
}

#[test]
fn what_was_left_behind_may_be_wrong_or_too_long() {
    let body = golden("sae-core/tests/golden/standard/sae_weights.safetensors");
    for left in [vec![9; 100], vec![9; body.len()], vec![9; body.len() + 5]] {
        let setup = Setup::new(as_it_is);
        fs::create_dir_all(setup.repo().join("blobs")).unwrap();
        fs::write(setup.repo().join("blobs").join(format!("{}.incomplete", sha256(&body))), &left).unwrap();
        setup.hub().sae("mine", "blocks.0").unwrap();
        assert_eq!(fs::read(setup.weights()).unwrap(), body);
    }
}

#[test]
fn a_server_without_ranges_is_asked_from_the_beginning() {
    let setup = Setup::new(of_bytes(|request, reply| match (request.nth, request.range) {
        (0, _) => Reply { cut_at: Some(1000), ..reply },
        _ => {
            let body = golden("sae-core/tests/golden/standard/sae_weights.safetensors");
            Reply {
                status: 200,
                headers: vec![("Content-Length".into(), body.len().to_string())],
                body,
                ..Reply::default()
            }
        }
    }));
    setup.hub().sae("mine", "blocks.0").unwrap();
}

#[test]
fn answers_that_cannot_be_right_leave_nothing_behind() {
    type Change = fn(Reply) -> Reply;
    let changes: [(&str, Change); 7] = [
        ("expected", |reply| {
            let length = reply.body.len();
            Reply { body: reply.body[..length - 10].to_vec(), ..reply.with("Content-Length", length - 10) }
        }),
        ("expected", |mut reply| {
            reply.body.extend([0; 10]);
            let length = reply.body.len();
            reply.with("Content-Length", length)
        }),
        // Without a length the body alone says how long it is.
        ("more than", |mut reply| {
            reply.body.extend(vec![0; 1 << 20]);
            reply.without("Content-Length")
        }),
        ("checksum", |mut reply| {
            reply.body[50] ^= 1;
            reply
        }),
        ("redirects", |reply| Reply { status: 302, ..reply }.with("Location", "/blobs/x")),
        ("address", |reply| Reply { status: 302, ..reply }.with("Location", "file:///etc/passwd")),
        ("range", |reply| Reply { status: 206, ..reply }.with("Content-Range", "bytes 5-6/7")),
    ];
    for (said, change) in changes {
        let setup = Setup::new(of_bytes(move |_, reply| change(reply)));
        match setup.hub().sae("mine", "blocks.0") {
            Err(Error::BadAnswer { what, .. }) => assert!(what.contains(said), "{said}: {what}"),
            other => panic!("{said}: {other:?}"),
        }
        setup.nothing_finished();
    }
}

#[test]
fn headers_that_lead_out_of_the_cache_are_refused() {
    let outside = |request: &Request, reply: Reply| {
        request.method == "HEAD" && request.path.contains("sae_weights") && reply.status == 302
    };
    for etag in ["../../../evil", "/etc/cron.d/x", "a\\b", "C:", "..", "", "a.b"] {
        let setup = Setup::new(move |request, reply| match outside(request, reply.clone()) {
            true => reply.with("X-Linked-Etag", format!("\"{etag}\"")),
            false => reply,
        });
        let refused = setup.hub().sae("mine", "blocks.0");
        assert!(matches!(refused, Err(Error::UnsafeName { what: "etag", .. })), "{etag}: {refused:?}");
    }
    for commit in ["../../../../evil", "main", "/etc", "0123456789abcdef0123456789abcdef0123456\\"] {
        let setup = Setup::new(move |request, reply| match request.path.contains("/revision/") {
            true => {
                let body = serde_json::json!({ "sha": commit, "siblings": [] }).to_string().into_bytes();
                let length = body.len();
                Reply { body, ..reply }.with("Content-Length", length)
            }
            false => reply,
        });
        let refused = setup.hub().sae("mine", "blocks.0");
        assert!(matches!(refused, Err(Error::UnsafeName { what: "commit", .. })), "{commit}: {refused:?}");
        assert!(!setup.repo().join("refs/main").exists());
    }
    // A file that says it is of another commit.
    let setup = Setup::new(|request, reply| match request.path.contains("/resolve/") {
        true => reply.with("X-Repo-Commit", "1".repeat(40)),
        false => reply,
    });
    assert!(matches!(setup.hub().sae("mine", "blocks.0"), Err(Error::BadAnswer { .. })));
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let setup = Setup::new(as_it_is);
    for path in ["../../x", "a/../../x", "a\\..\\x", "C:/x", "a\0b"] {
        let refused = setup.hub().format("saelens".parse().unwrap()).sae("me/saes", path);
        assert!(matches!(refused, Err(Error::UnsafeName { .. })), "{path:?}: {refused:?}");
    }
    for repo in ["me/..", "me/a/b", "me/a b", "me/a\\b", "me/a?x"] {
        let refused = setup.hub().sae(repo, "x");
        assert!(matches!(refused, Err(Error::UnsafeName { what: "repository", .. })), "{repo}: {refused:?}");
    }
    for revision in ["../../x", "/etc", "a\\b"] {
        let refused = setup.hub().revision(revision).sae("mine", "blocks.0");
        assert!(matches!(refused, Err(Error::UnsafeName { what: "revision", .. })), "{revision}: {refused:?}");
    }
    assert!(setup.server.requests().is_empty());
    // The server's list of files: a name that leads out is refused when it is wanted.
    let mut evil = Repos::new();
    evil.entry("datasets:me/evil".into()).or_default().insert("../../../evil.jsonl".into(), b"x".to_vec());
    let setup = Setup::of(evil, as_it_is);
    let refused = setup.hub().dataset("me/evil", &DatasetFilter::default());
    assert!(matches!(refused, Err(Error::UnsafeName { .. })), "{refused:?}");
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_of_the_cache_are_not_followed() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    // A file of a snapshot, a folder of a snapshot, and the place where bytes arrive.
    let setup = Setup::new(as_it_is);
    setup.hub().sae("mine", "blocks.0").unwrap();
    fs::remove_file(setup.weights()).unwrap();
    symlink(&secret, setup.weights()).unwrap();
    for hub in [setup.hub(), setup.hub().offline(true), setup.hub().revision(COMMIT)] {
        let refused = hub.sae("mine", "blocks.0");
        assert!(matches!(refused, Err(Error::UnsafeName { .. })), "{refused:?}");
    }
    let setup = Setup::new(as_it_is);
    fs::create_dir_all(setup.repo().join("snapshots").join(COMMIT)).unwrap();
    symlink(outside.path(), setup.repo().join("snapshots").join(COMMIT).join("a")).unwrap();
    let refused = setup.hub().sae("mine", "blocks.0");
    assert!(matches!(refused, Err(Error::UnsafeName { .. })), "{refused:?}");
    assert!(!outside.path().join("standard/cfg.json").exists());
    let setup = Setup::new(as_it_is);
    let body = golden("sae-core/tests/golden/standard/sae_weights.safetensors");
    fs::create_dir_all(setup.repo().join("blobs")).unwrap();
    symlink(&secret, setup.repo().join("blobs").join(format!("{}.incomplete", sha256(&body)))).unwrap();
    setup.hub().sae("mine", "blocks.0").unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn a_server_that_asks_for_patience_gets_it_within_bounds() {
    let setup = Setup::new(|request, reply| match request.nth {
        _ if request.on_cdn => reply,
        0 => Reply::status(429).with("Retry-After", 3600).with("Content-Length", 0),
        1 => Reply::status(503).with("Content-Length", 0),
        _ => reply,
    });
    let waits = Arc::new(Mutex::new(Vec::new()));
    let kept = waits.clone();
    let hub = setup.hub().progress(move |progress| {
        if let DownloadEvent::Retrying { wait, .. } = progress {
            kept.lock().unwrap().push(*wait);
        }
    });
    hub.sae("mine", "blocks.0").unwrap();
    let waits = waits.lock().unwrap();
    assert_eq!(waits[..2], [Duration::from_millis(50), Duration::from_millis(2)]);
    // Without end: it gives up.
    let setup = Setup::new(|_, _| Reply::status(429).with("Content-Length", 0));
    assert!(matches!(setup.hub().sae("mine", "blocks.0"), Err(Error::Status { status: 429, .. })));
    assert_eq!(setup.server.requests().len(), 4);
}

#[test]
fn refusals_are_explained() {
    let refusal = |status: u16, code: &'static str| {
        Setup::new(move |_, _| Reply::status(status).with("X-Error-Code", code).with("Content-Length", 0))
    };
    let said = |setup: &Setup, hub: Hub| {
        let error = hub.sae("jbloom/GPT2-Small-SAEs-Reformated", "x").unwrap_err();
        assert_eq!(setup.server.requests().len(), 1, "tried again: {error}");
        error.to_string()
    };
    let setup = refusal(403, "GatedRepo");
    assert!(said(&setup, setup.hub()).contains("accept its terms on its page, then give a token"));
    let setup = refusal(403, "GatedRepo");
    assert!(said(&setup, setup.hub().token("t")).contains("account of the token"));
    let setup = refusal(401, "RepoNotFound");
    let text = said(&setup, setup.hub());
    assert!(text.contains("no token was given") && text.contains("GPT2-Small-SAEs-Reformatted"), "{text}");
    let setup = refusal(404, "RevisionNotFound");
    assert!(said(&setup, setup.hub().revision("v9")).contains("no revision `v9`"));
    let setup = refusal(401, "");
    assert!(said(&setup, setup.hub()).contains("asks for a token"));
    let setup = refusal(418, "");
    assert!(said(&setup, setup.hub()).contains("status 418"));
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let setup = Setup::new(as_it_is);
    setup.hub().token("hf_secret").sae("mine", "blocks.0").unwrap();
    for request in setup.server.requests() {
        let expected = (!request.on_cdn).then(|| "Bearer hf_secret".to_owned());
        assert_eq!(request.authorization, expected, "{request:?}");
    }
    assert!(!format!("{:?}", setup.hub().token("hf_secret")).contains("hf_secret"));
}

#[test]
fn a_silent_connection_is_given_up_and_carried_on() {
    let setup = Setup::new(of_bytes(|request, mut reply| {
        if request.nth == 0 {
            reply.pause = Some(Duration::from_secs(2));
        }
        reply
    }));
    setup.hub().sae("mine", "blocks.0").unwrap();
    let ranges: Vec<_> = setup.server.requests().iter().filter(|r| r.on_cdn).map(|r| r.range).collect();
    assert!(ranges.len() == 2 && ranges[1].is_some(), "{ranges:?}");
}

#[test]
fn without_anybody_there_the_cache_is_used() {
    let setup = Setup::new(as_it_is);
    setup.hub().sae("mine", "blocks.0").unwrap();
    // A port that nobody listens on.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alone = setup.hub().endpoint(format!("http://{nobody}"));
    assert_eq!(alone.sae("mine", "blocks.0").unwrap().revision.as_deref(), Some(COMMIT));
    assert!(matches!(alone.model("me/other"), Err(Error::Unreachable { .. })));
    match setup.hub().offline(true).model("me/other") {
        Err(Error::NotInCache { reason, .. }) => assert!(reason.contains("offline")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn several_at_once_download_once() {
    let setup = Setup::new(of_bytes(|_, mut reply| {
        reply.pause = Some(Duration::from_millis(100));
        reply
    }));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| setup.hub().sae("mine", "blocks.0").unwrap());
        }
    });
    assert_eq!(setup.server.requests().iter().filter(|r| r.on_cdn && r.method == "GET").count(), 1);
    let left: Vec<_> = fs::read_dir(setup.repo().join("blobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_repository_that_moved_is_followed_on_the_same_server() {
    let setup = Setup::new(|request, reply| match request.path.strip_prefix("/api/models/old/name") {
        Some(rest) => {
            Reply::status(307).with("Location", format!("/api/models/me/saes{rest}")).with("Content-Length", 0)
        }
        None => match request.path.strip_prefix("/old/name") {
            Some(rest) => Reply::status(307).with("Location", format!("/me/saes{rest}")).with("Content-Length", 0),
            None => reply,
        },
    });
    setup.hub().sae("old/name", "a/standard").unwrap();
    assert!(setup.folder.path().join("models--old--name/snapshots").join(COMMIT).join(WEIGHTS).is_file());
}

/// Runs `tools/checks/check_cache.py` with the Python in `SAESCOPE_PYTHON`.
#[test]
#[ignore = "needs Python's huggingface_hub; SAESCOPE_PYTHON names the interpreter"]
fn python_and_we_share_one_cache() {
    let python = |arguments: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/checks/check_cache.py");
        let interpreter = std::env::var("SAESCOPE_PYTHON").expect("SAESCOPE_PYTHON");
        let done = std::process::Command::new(interpreter).arg(script).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let (config, theirs) = ("a/standard/cfg.json", Setup::new(as_it_is));
    // What we wrote, Python finds.
    let ours = Setup::new(as_it_is);
    ours.hub().sae("mine", "blocks.0").unwrap();
    python(&["read", ours.folder.path().to_str().unwrap(), "me/saes", COMMIT, config, WEIGHTS]);
    // What Python wrote, we find without asking; and blobs have one name on both sides.
    python(&["write", theirs.folder.path().to_str().unwrap(), &theirs.server.endpoint, "me/saes", config, WEIGHTS]);
    let published = theirs.hub().offline(true).sae("mine", "blocks.0").unwrap();
    assert_eq!(published.revision.as_deref(), Some(COMMIT));
    let names = |setup: &Setup| -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(setup.repo().join("blobs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&ours), names(&theirs));
    assert_eq!(fs::read_link(ours.weights()).unwrap(), fs::read_link(theirs.weights()).unwrap());
}

#[cfg(unix)]
#[test]
fn a_download_that_ends_at_any_step_is_completed_by_the_next() {
    let download = |dir: &Path| {
        let server = Server::start(repos(), as_it_is);
        hub(dir, &server).sae("mine", "blocks.0").unwrap();
    };
    let body = golden("sae-core/tests/golden/standard/sae_weights.safetensors");
    crash::at_every_step(
        "a_download_that_ends_at_any_step_is_completed_by_the_next",
        |_| {},
        download,
        |dir, finished| {
            let repo = dir.join("models--me--saes");
            let (snapshot, blob) = (repo.join("snapshots").join(COMMIT), repo.join("blobs").join(sha256(&body)));
            for path in [snapshot.join(WEIGHTS), blob] {
                assert!(if path.exists() { fs::read(path).unwrap() == body } else { !finished });
            }
            // Everything in a snapshot is a file of the commit.
            assert!(crash::names(&snapshot.join("a/standard")).iter().all(|name| !name.starts_with('.')));
            download(dir);
            assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), body);
            assert_eq!(crash::names(&snapshot.join("a/standard")), ["cfg.json", "sae_weights.safetensors"]);
            assert_eq!(crash::names(&repo), [".no_exist", "blobs", "refs", "snapshots"]);
            assert_eq!(crash::names(&repo.join("refs")), ["main"]);
            assert_eq!(crash::names(&repo.join("blobs")).len(), 2);
        },
    );
}
