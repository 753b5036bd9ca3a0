//! Steering, run as the example runs it: the page's curves are those of its table, and BOS goes before the prompt as the SAE says.

#[allow(dead_code)]
#[path = "../examples/steer.rs"]
mod steer;

use clap::Parser;
use serde_json::Value;
use std::path::{Path, PathBuf};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo");

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// The page of a run.
fn page(name: &str, flags: &[&str]) -> Result<String, String> {
    let path = folder(name).join("page.html");
    let last = ["--page", path.to_str().unwrap()];
    let args = steer::Args::try_parse_from(["steer"].iter().chain(flags).chain(&last)).map_err(|e| e.to_string())?;
    steer::run(&args).map_err(|e| e.to_string())?;
    Ok(std::fs::read_to_string(path).unwrap())
}

/// The curves of a page's first figure: name, and (strength, probability).
fn curves(html: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    let block = html.split("<script type=\"application/json\"").nth(1).unwrap();
    let figure: Value =
        serde_json::from_str(&block[block.find('>').unwrap() + 1..block.find("</script>").unwrap()]).unwrap();
    let numbers = |list: &Value| list.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
    let curve = |trace: &Value| {
        let points = numbers(&trace["x"]).into_iter().zip(numbers(&trace["y"])).collect();
        (trace["name"].as_str().unwrap().to_owned(), points)
    };
    figure["data"].as_array().unwrap().iter().map(curve).collect()
}

/// What the table lists: strength, then token and percentage, likeliest first.
fn table(html: &str) -> Vec<(f64, Vec<(String, f64)>)> {
    let from = html.find("<section id=\"tokens\"").unwrap();
    let section = &html[from..from + html[from..].find("</section>").unwrap()];
    let cells: Vec<String> = section
        .split("<td")
        .skip(1)
        .map(|cell| {
            cell[cell.find('>').unwrap() + 1..cell.find("</td>").unwrap()]
                .replace("&quot;", "\"")
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&amp;", "&")
        })
        .collect();
    let listed = |cell: &str| {
        let one = |part: &str| {
            let (token, percent) = part.rsplit_once(' ').unwrap();
            (token.to_owned(), percent.trim_end_matches('%').parse().unwrap())
        };
        cell.split("%  ").map(one).collect()
    };
    cells.chunks(2).map(|row| (row[0].parse().unwrap(), listed(&row[1]))).collect()
}

/// The bars of `│` are three tokens each, which no text tokenizes to when they stand alone.
#[test]
fn the_curves_are_those_of_the_tokens_in_the_table() {
    let html = page("steer", &["--feature", "1890", "--prompt", "│", "--strengths=0,60,-60"]).unwrap();
    let (curves, table) = (curves(&html), table(&html));
    assert_eq!((curves.len(), table.len()), (10, 3));
    let mut compared = 0;
    for (strength, tokens) in &table {
        for (token, percent) in tokens {
            // Tokens that look alike have their ids behind their names.
            let named =
                |name: &str| name == token || name.strip_prefix(token.as_str()).is_some_and(|id| id.starts_with(" ["));
            let alike: Vec<_> = curves.iter().filter(|(name, _)| named(name)).collect();
            let at = |points: &[(f64, f64)]| points.iter().find(|(x, _)| x == strength).unwrap().1;
            if !alike.is_empty() {
                assert!(
                    alike.iter().any(|(_, points)| (100.0 * at(points) - percent).abs() < 0.06),
                    "{token} at {strength}: {percent} % in the table, curves {alike:?}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared >= 8, "{compared} compared");
    // The likeliest of all is drawn.
    let most = table.iter().flat_map(|(_, tokens)| tokens).map(|(_, percent)| *percent).fold(0.0, f64::max);
    let drawn = curves.iter().flat_map(|(_, points)| points).map(|(_, y)| 100.0 * y).fold(0.0, f64::max);
    assert!((most - drawn).abs() < 0.06, "{most} in the table, {drawn} drawn");
}

/// A model without BOS, and the same SAE trained without one: no BOS is insisted on. With the demo's own tokenizer the prompt then has none.
#[test]
fn the_prompt_begins_as_the_sae_was_trained() {
    let base = folder("steer-no-bos");
    let (lm, sae) = (base.join("lm"), base.join("sae"));
    for (from, to) in [("lm", &lm), ("sae", &sae)] {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(Path::new(DEMO).join(from)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let edit = |path: PathBuf, change: &dyn Fn(&mut Value)| {
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    };
    edit(sae.join("cfg.json"), &|json| {
        json["metadata"]["prepend_bos"] = false.into();
        json["metadata"]["sequence_separator_token"] = Value::Null;
    });
    let run = |name: &str, model: &str, sae: &str| {
        let flags = ["--strengths=0,20", "--prompt", "He came home on", "--model", model, "--sae", sae];
        page(name, &flags)
    };
    let (demo_lm, demo_sae) = (format!("{DEMO}/lm"), format!("{DEMO}/sae"));
    let with_bos = curves(&run("steer-with", &demo_lm, &demo_sae).unwrap());
    let without = curves(&run("steer-without", &demo_lm, sae.to_str().unwrap()).unwrap());
    assert!(with_bos != without, "the SAE's own rule decides");
    edit(lm.join("tokenizer_config.json"), &|json| json["bos_token"] = Value::Null);
    edit(lm.join("config.json"), &|json| {
        json.as_object_mut().unwrap().remove("bos_token_id");
    });
    // Nor is there any other file that names a BOS.
    for file in ["special_tokens_map.json", "generation_config.json"] {
        let _ = std::fs::remove_file(lm.join(file));
    }
    let no_bos = curves(&run("steer-none", lm.to_str().unwrap(), sae.to_str().unwrap()).unwrap());
    assert_eq!(no_bos, without);
}
