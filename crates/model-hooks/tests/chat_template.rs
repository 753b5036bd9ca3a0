//! Chat templates against transformers' `apply_chat_template`, and templates that do harm.

use model_hooks::{ChatTemplate, Conversation, Tokenizer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn in_repo(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn demo_tokenizer() -> Tokenizer {
    Tokenizer::from_folder(in_repo("assets/demo/lm")).unwrap()
}

#[derive(serde::Deserialize)]
struct Golden {
    templates: BTreeMap<String, String>,
    conversations: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    template: String,
    conversation: String,
    text: Option<String>,
    ids: Option<Vec<u32>>,
    raises: Option<String>,
}

/// What `tools/goldens/golden_chat.py` wrote.
#[test]
fn every_text_and_every_id_is_that_of_transformers() {
    let golden = std::fs::read_to_string(in_repo("crates/model-hooks/tests/golden/chat.json")).unwrap();
    let golden: Golden = serde_json::from_str(&golden).unwrap();
    let tokenizer = demo_tokenizer();
    assert_eq!(golden.cases.len(), golden.templates.len() * golden.conversations.len());
    for Case { template: name, conversation, text, ids, raises } in golden.cases {
        let what = format!("{name} on {conversation}");
        let template = ChatTemplate::with_tokenizer(&golden.templates[&name], &tokenizer).unwrap();
        let template = template.date("2024-07-26").unwrap();
        let messages = Conversation::from_json(&golden.conversations[&conversation]).unwrap();
        let found = template.render(&messages);
        match (text, raises) {
            (Some(text), None) => {
                let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(found, text, "{what}");
                assert_eq!(tokenizer.encode(&found).unwrap().ids, ids.unwrap(), "{what}");
            }
            (None, Some(raises)) => {
                let error = found.expect_err(&what).to_string();
                // A template's own words are said; Python's about its types are not.
                if let Some(words) = raises.strip_prefix("TemplateError: ") {
                    assert!(error.contains(words), "{what}: {error}");
                }
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn render(template: &str, conversation: &str) -> Result<String, String> {
    let template = ChatTemplate::new(template, &[("bos_token", "<s>")]).map_err(|e| e.to_string())?;
    let conversation = Conversation::from_json(conversation).map_err(|e| e.to_string())?;
    template.render(&conversation).map_err(|e| e.to_string())
}

const HI: &str = r#"[{"role": "user", "content": "Hi"}]"#;

#[test]
fn what_a_template_must_not_do() {
    for (template, words) in [
        // Steps without end, memory without end, recursion, output.
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "fuel"),
        (
            "{% set ns = namespace(x='0123456789') %}{% for a in range(99999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "fuel",
        ),
        ("{{ 'x' * 100000000000 }}", ""),
        ("{{ 'x' | center(100000000000) }}", ""),
        ("{{ '%99999999999d' | format(1) }}", ""),
        ("{{ range(100000000000) | list }}", ""),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", ""),
        ("{% for a in range(9999) %}{{ 'x' * 99999 }}{% endfor %}", ""),
        // Lists that double, in every way there is.
        ("{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "fuel"),
        (
            "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x * 2 + (ns.x) %}{% endfor %}",
            "fuel",
        ),
        (
            "{% set ns = namespace(x=messages | map('upper')) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = [ns.x, ns.x] | sum(start=[]) %}{% endfor %}",
            "sum",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = [ns.x, ns.x] | sum('y', []) %}{% endfor %}",
            "sum",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x | chain(ns.x) %}{% endfor %}",
            "chain",
        ),
        ("{% macro d(x, n) %}{% if n %}{{ d(x + x, n - 1) }}{% endif %}{% endmacro %}{{ d([1], 60) }}", "fuel"),
        (
            "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% if (ns.x + ns.x) is string %}{% endif %}{% set ns.x = ((ns.x if 1 else 2) + (ns.x or 3)) %}{% endfor %}",
            "fuel",
        ),
        // Functions that are not there.
        ("{{ open('/etc/passwd') }}", "open"),
        ("{% include '/etc/passwd' %}", ""),
        ("{{ messages.__class__.__mro__[1] }}", ""),
        ("{{ strftime_now('%Y') }}", "strftime_now"),
        // No template.
        ("{% if %}", ""),
        ("{{ 'open", ""),
        ("{% endfor %}", ""),
    ] {
        let error = render(template, HI).expect_err(template);
        assert!(error.contains("chat template") && error.contains(words), "{template}: {error}");
    }
    let unrolled = format!("{{% set x = [1] %}}{}", "{% set x = x + x %}".repeat(60));
    assert!(render(&unrolled, HI).unwrap_err().contains("fuel"));
    for operand in ["1", "a", "[a]", "'a'"] {
        let long = format!("{{{{ {} }}}}", vec![operand; 100_000].join(" + "));
        assert!(render(&long, HI).is_err(), "{operand}");
    }
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(render(&format!("{{{{ {deep} }}}}"), HI).is_err());
    assert!(ChatTemplate::new(&" ".repeat(2 << 20), &[]).is_err());
}

/// Sums that templates make: their bound changes no text.
#[test]
fn sums_of_lists_texts_and_numbers() {
    let twenty: Vec<String> = (0..2000).map(|i| format!("{{\"role\": \"user\", \"content\": \"{i}\"}}")).collect();
    let long = format!("[{}]", twenty.join(","));
    for (template, expected) in [
        ("{{ bos_token + 'a' + messages[0].content + '\n' + messages[0]['role'] }}", "<s>a0\nuser"),
        ("{{ messages[0].content + messages[1].content }}{{ messages | length + 1 }}{{ [1, 2] | sum }}", "0120013"),
        (
            "{% set all = [messages[0]] + messages[1:3] + messages[5:][:1] %}{% for m in all %}{{ m.content }},{% endfor %}",
            "0,1,2,5,",
        ),
        (
            "{% set ns = namespace(all=[]) %}{% for m in messages %}{% set ns.all = ns.all + [m] %}{% endfor %}{{ ns.all | length }} {{ ns.all[-1].content }}",
            "2000 1999",
        ),
        (
            "{% set all = (messages | map(attribute='content')) + ['x'] %}{{ all[:2] | join(',') }}{{ all | list | length }}",
            "0,12001",
        ),
        (
            "{%- macro f(x) -%}<{{ x }}>{%- endmacro -%}{{ f('a') + f('b') + (1.5 + messages[0].content | int) | string }}",
            "<a><b>1.5",
        ),
        ("{{ [3] | sum(start=4) }}{{ messages[:3] | sum(attribute='content') if false else '' }}", "7"),
    ] {
        assert_eq!(render(template, &long).unwrap(), expected, "{template}");
    }
}

#[test]
fn conversations_in_both_forms() {
    let template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.x %}{{ m.x | tojson }}{% endif %}{% endfor %}";
    let share = r#"[{"from": "system", "value": "s"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "é", "x": {"b": 1, "a": [2.0]}}]"#;
    assert_eq!(
        render(template, share).unwrap(),
        "<s>[system]s[user]Hi[assistant]é{\"b\": 1, \"a\": [2.0]}",
        "keys keep their order"
    );
    assert_eq!(render(template, r#"[{"from": "tool", "value": "t"}]"#).unwrap(), "<s>[tool]t");
    for (json, words) in [
        ("{}", "expected a list of messages"),
        ("[1]", "message 0 is number"),
        (r#"[{"role": "user", "content": "a"}, {"text": "b"}]"#, "message 1 has no `role`"),
        ("[", "no conversation"),
    ] {
        let error = render(template, json).unwrap_err();
        assert!(error.contains(words), "{json}: {error}");
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn where_a_template_is_found() {
    let tokenizer = demo_tokenizer();
    let found = |dir: &Path| ChatTemplate::find(dir, &tokenizer).map(|found| found.map(|t| t.template().to_string()));
    let config = r#"{"chat_template": "config"}"#;
    let list =
        r#"{"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]}"#;
    for (files, expected) in [
        (&[][..], None),
        (&[("tokenizer_config.json", "{}")][..], None),
        (&[("tokenizer_config.json", r#"{"chat_template": null}"#)][..], None),
        (&[("tokenizer_config.json", config)][..], Some("config")),
        (&[("tokenizer_config.json", list)][..], Some("named")),
        (&[("chat_template.json", config), ("tokenizer_config.json", list)][..], Some("config")),
        (&[("chat_template.jinja", "file"), ("tokenizer_config.json", config)][..], Some("file")),
    ] {
        assert_eq!(found(folder(files).path()).unwrap().as_deref(), expected, "{files:?}");
    }
    for (text, words) in [
        ("{", "tokenizer_config.json"),
        (r#"{"chat_template": 3}"#, "chat_template is 3"),
        (r#"{"chat_template": [{"name": "rag", "template": "x"}]}"#, "no template is named `default`; there is `rag`"),
        (r#"{"chat_template": [{"name": "rag"}]}"#, "an entry of chat_template has no `name` or no `template`"),
        (r#"{"chat_template": " "}"#, "the template is empty"),
        (r#"{"chat_template": "{% if"}"#, "tokenizer_config.json"),
    ] {
        let error = found(folder(&[("tokenizer_config.json", text)]).path()).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    let dir = folder(&[("mine.json", config), ("mine.txt", "a text")]);
    let open = |name: &str| ChatTemplate::open(&dir.path().join(name), &tokenizer);
    assert_eq!(open("mine.json").unwrap().template(), "config");
    assert_eq!(open("mine.txt").unwrap().template(), "a text");
    assert!(open("absent").is_err());
}

#[test]
fn a_template_is_chosen_by_name() {
    let tokenizer = demo_tokenizer();
    let found = |dir: &Path, name| {
        ChatTemplate::find_named(dir, name, &tokenizer).map(|found| found.map(|t| t.template().to_string()))
    };
    let list =
        r#"{"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]}"#;
    let listed = folder(&[("tokenizer_config.json", list)]);
    assert_eq!(found(listed.path(), "tool_use").unwrap().as_deref(), Some("tools"));
    assert_eq!(found(listed.path(), "default").unwrap().as_deref(), Some("named"));
    let error = found(listed.path(), "rag").unwrap_err().to_string();
    assert!(error.contains("no template is named `rag`; there is `tool_use`, `default`"), "{error}");
    let opened =
        ChatTemplate::open_named(&listed.path().join("tokenizer_config.json"), "tool_use", &tokenizer).unwrap();
    assert_eq!(opened.template(), "tools");
    // Newer folders have a file for each; then the configuration's are not asked.
    let files = folder(&[("chat_template.jinja", "file"), ("tokenizer_config.json", list)]);
    std::fs::create_dir(files.path().join("additional_chat_templates")).unwrap();
    std::fs::write(files.path().join("additional_chat_templates/rag.jinja"), "of rag").unwrap();
    assert_eq!(found(files.path(), "rag").unwrap().as_deref(), Some("of rag"));
    assert_eq!(found(files.path(), "default").unwrap().as_deref(), Some("file"));
    assert!(found(files.path(), "tool_use").unwrap_err().to_string().contains("there is `default`, `rag`"));
    assert_eq!(found(folder(&[]).path(), "rag").unwrap(), None);
    let text = files.path().join("chat_template.jinja");
    assert!(ChatTemplate::open_named(&text, "rag", &tokenizer).unwrap_err().to_string().contains("there is `default`"));
}

/// `--chat-template <(command)` gives a pipe.
#[cfg(unix)]
#[test]
fn a_template_in_a_pipe() {
    let tokenizer = demo_tokenizer();
    let dir = folder(&[]);
    let pipe = dir.path().join("chat_template.jinja");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (written, expected) in [("of a pipe", "of a pipe"), (r#"{"chat_template": "of JSON"}"#, "of JSON")] {
        let to = pipe.clone();
        let writer = std::thread::spawn(move || std::fs::write(to, written).unwrap());
        assert_eq!(ChatTemplate::open(&pipe, &tokenizer).unwrap().template(), expected);
        writer.join().unwrap();
    }
    // What comes with a model is a file; nobody writes into this pipe.
    let error = ChatTemplate::find(dir.path(), &tokenizer).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja") && error.contains("expected a regular file"), "{error}");
    let error = ChatTemplate::open(dir.path(), &tokenizer).unwrap_err().to_string();
    assert!(error.contains("a folder, expected a file"), "{error}");
    assert!(ChatTemplate::open(Path::new("/dev/zero"), &tokenizer).unwrap_err().to_string().contains("more than"));
}
