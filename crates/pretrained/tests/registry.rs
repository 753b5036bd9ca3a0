//! Names of published SAEs: found, searched for, mistyped; tables that are not in order.

use model_hooks::{HookRows, HookSelector, ModelShape};
use pretrained::{Error, Query, Registry};
use sae_core::formats::SaeFormat;

fn words(text: &str) -> Query {
    Query::parse(text).unwrap()
}

#[test]
fn every_line_of_the_table_is_found_again() {
    let registry = Registry::built_in();
    let mut found = 0;
    for release in registry.releases() {
        let entries = registry.entries(&release.name).unwrap();
        assert_eq!(entries.len(), release.saes, "{}", release.name);
        found += entries.len();
        let last = entries.last().unwrap();
        assert_eq!(&registry.find(&release.name, &last.sae_id).unwrap(), last);
    }
    assert_eq!((found, registry.len()), (13_857, 13_857));
    assert!(registry.memory_bytes() < 2 << 20, "{} bytes", registry.memory_bytes());
}

/// Every hook point of the table, read and written, is one and has rows, and those are as wide as the table says.
#[test]
fn every_hook_of_the_table_has_rows() {
    // d_model, query heads, d_head, blocks.
    let shapes =
        [("gemma-2-2b", [2304, 8, 256, 26]), ("gemma-2-9b", [3584, 16, 256, 42]), ("gemma-2-27b", [4608, 32, 128, 46])];
    let shape = |model: &str, d_in: Option<usize>| {
        let known = shapes.iter().find(|(name, _)| model.strip_suffix("-it").unwrap_or(model) == *name);
        let [d_model, n_heads, d_head, n_layers] =
            known.map_or([d_in.unwrap_or(768), 12, 64, 100], |(_, known)| *known);
        let mut shape = ModelShape::new(d_model, n_layers, 1000, 1024);
        (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_heads, d_head);
        (shape, known.is_some())
    };
    let registry = Registry::built_in();
    let (mut hooks, mut widths, mut nameless) = (0, 0, Vec::new());
    for entry in registry.releases().flat_map(|release| registry.entries(&release.name).unwrap()) {
        if entry.hook.is_none() {
            nameless.push(entry.release.name.clone());
        }
        let (shape, known) = shape(entry.model(), entry.d_in);
        for (name, width) in [(&entry.hook, entry.d_in), (&entry.hook_out, None)] {
            let Some(name) = name else { continue };
            let what = format!("{} {}: {name}", entry.release.name, entry.sae_id);
            let selector: HookSelector = name.parse().unwrap_or_else(|error| panic!("{what}: {error}"));
            let rows = HookRows::resolve(selector, &shape).unwrap_or_else(|error| panic!("{what}: {error}"));
            hooks += 1;
            if let Some(width) = width.filter(|_| known || selector.point.head_axis().is_none()) {
                assert_eq!(rows.width(), width, "{what}");
                widths += 1;
            }
        }
    }
    // The layers of a cross-layer transcoder, whose hook points its files say.
    nameless.dedup();
    assert_eq!(nameless, ["mntss-gemma-2-2b-2.5m-clt-as-per-layer"]);
    assert!(hooks > 17_000 && widths > 3_000, "{hooks} hook points, {widths} widths");
}

#[test]
fn an_entry_says_what_the_publisher_says() {
    let registry = Registry::built_in();
    let entry = registry.find("gpt2-small-res-jb", "blocks.7.hook_resid_pre").unwrap();
    assert_eq!(entry.repo(), "jbloom/GPT2-Small-SAEs-Reformatted");
    assert_eq!(
        (entry.path.as_str(), entry.model(), entry.format()),
        ("blocks.7.hook_resid_pre", "gpt2-small", SaeFormat::SaeLens)
    );
    assert_eq!((entry.l0, entry.variance_explained, entry.layer()), (Some(54.0), Some(0.9), Some(7)));
    assert_eq!(entry.neuronpedia.as_deref(), Some("gpt2-small/7-res-jb"));
    let options = entry.open_options();
    assert_eq!(options.overrides["model_from_pretrained_kwargs"]["center_writing_weights"], true);
    let entry = registry.find("gpt2-small-mlp-tm", "blocks.0.hook_mlp_out").unwrap();
    assert!((entry.norm_scaling_factor.unwrap() - 1.049_3).abs() < 1e-3);
}

#[test]
fn a_search_finds_by_model_hook_layer_and_width() {
    let registry = Registry::built_in();
    let found = registry.search(&Query { model: Some("gpt2".into()), layer: Some(7), ..Query::default() });
    assert!(found.len() > 10);
    assert!(found.iter().all(|entry| entry.model() == "gpt2-small" && entry.layer() == Some(7)), "{found:#?}");
    assert!(found.iter().any(|entry| entry.release.name == "gpt2-small-res-jb"));
    assert_eq!(
        found.len(),
        registry.search(&Query { model: Some("gpt2-small".into()), layer: Some(7), ..Query::default() }).len()
    );

    let found = registry.search(&words("gpt2 layer 7 hook=hook_resid_pre"));
    assert_eq!(found.len(), 1);
    let found = registry.search(&words("gemma-scope-2b-pt-res layer 20 width=16k"));
    assert!(!found.is_empty() && found.iter().all(|entry| entry.d_sae == Some(16384)));
    let found = registry.search(&words("dialect=sparsify"));
    assert!(found.is_empty());
    let found = registry.search(&words("release=gpt2-small-res-jb"));
    let ids: Vec<_> =
        found.iter().filter(|entry| entry.release.name == "gpt2-small-res-jb").map(|e| e.sae_id.as_str()).collect();
    assert_eq!(
        (ids[1], ids[2], ids[10]),
        ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.10.hook_resid_pre")
    );
    assert_eq!(registry.search(&Query::default()).len(), registry.len());
}

#[test]
fn a_name_nearly_right_gets_the_right_one() {
    let registry = Registry::built_in();
    for (typed, meant) in [
        ("gpt2-small-res-jd", "gpt2-small-res-jb"),
        ("gpt2-small-resjb", "gpt2-small-res-jb"),
        ("gtp2-small-res-jb", "gpt2-small-res-jb"),
        ("GPT2-SMALL-RES-JB", "gpt2-small-res-jb"),
        ("gpt2-res-jb", "gpt2-small-res-jb"),
        ("gemma-scope-2b-res", "gemma-scope-2b-pt-res"),
        ("pythia-70m-res-sm", "pythia-70m-deduped-res-sm"),
    ] {
        match registry.find(typed, "blocks.7.hook_resid_pre") {
            Err(Error::UnknownRelease { near, .. }) => assert_eq!(near[0], meant, "{typed}: {near:?}"),
            other => panic!("{typed}: {other:?}"),
        }
    }
    for (release, typed, meant) in [
        ("gpt2-small-res-jb", "blocks.7.hook_resid_prae", "blocks.7.hook_resid_pre"),
        ("gpt2-small-res-jb", "blocks.7.resid_pre", "blocks.7.hook_resid_pre"),
        ("gpt2-small-res-jb", "block.7.hook_resid_pre", "blocks.7.hook_resid_pre"),
        ("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_70", "layer_20/width_16k/average_l0_71"),
    ] {
        let Err(error) = registry.find(release, typed) else { panic!("{typed} was found") };
        let said = error.to_string();
        let Error::UnknownSae { near, .. } = error else { panic!("{said}") };
        assert_eq!(near[0], meant, "{typed}: {near:?}");
    }
}

#[test]
fn a_layer_that_does_not_exist_is_answered_by_those_that_do() {
    let error = Registry::built_in().find("gpt2-small-res-jb", "blocks.12.hook_resid_pre").unwrap_err();
    assert!(error.to_string().contains("blocks.{0..11}.hook_resid_pre"), "{error}");
}

const GOOD: &str = "#saescope-registry\t1\tmine\n>\tmine\tme/saes\tsaelens\tgpt2\t1\nblocks.0\t=\tblocks.0.hook_resid_pre\t\t768\t24576\t12.5\n";

#[test]
fn a_table_of_ones_own_is_read() {
    let registry = Registry::read(GOOD.as_bytes()).unwrap();
    let entry = registry.find("mine", "blocks.0").unwrap();
    assert_eq!((entry.d_in, entry.d_sae, entry.l0, entry.neuronpedia), (Some(768), Some(24576), Some(12.5), None));
    assert_eq!(Registry::read(GOOD.replace('\n', "\r\n").as_bytes()).unwrap().len(), 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.tsv");
    std::fs::write(&path, GOOD).unwrap();
    assert_eq!(Registry::open(&path).unwrap().len(), 1);
    assert!(matches!(Registry::open(folder.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn a_malformed_table_is_an_error_with_its_line() {
    let swap = |from: &str, to: &str| GOOD.replacen(from, to, 1);
    for (table, line, what) in [
        (String::new(), 1, "does not begin"),
        ("release\trepo".into(), 1, "does not begin"),
        (swap("registry\t1", "registry\t2"), 1, "format `2`"),
        (swap("\t1\nblocks", "\t2\nblocks"), 2, "announces 2 SAEs, 1 lines"),
        (swap("\t1\nblocks", "\tone\nblocks"), 2, "expected a number"),
        (swap("saelens", "klingon"), 2, "klingon"),
        (swap("me/saes", "../saes"), 2, "refused"),
        (swap("\t1\nblocks", "\t1\t[1]\nblocks"), 2, "JSON object"),
        (swap("\t1\nblocks", "\t1\t{}\t\nblocks"), 2, "expected `>`"),
        (swap("blocks.0\t=", "blocks.0\t../../x"), 3, "`..`"),
        (swap("blocks.0\t=", "/etc\t="), 3, "absolute"),
        (swap("blocks.0\t=", "blocks.0\t"), 3, "empty"),
        (swap("24576", "-1"), 3, "d_sae is `-1`"),
        (swap("12.5", "NaN"), 3, "l0 is `NaN`"),
        (swap("12.5", "12.5\t\t0"), 3, "norm_scaling_factor is `0`"),
        (swap("12.5", "12.5\t\t\t\t\t"), 3, "fields"),
        (format!("{GOOD}blocks.0"), 4, "twice"),
        (format!("{GOOD}{}", &GOOD[GOOD.find('>').unwrap()..]), 4, "twice"),
        ("#saescope-registry\t1\nblocks.0\t=".into(), 2, "before the first release"),
        ("#saescope-registry\t1\n#\tid".into(), 2, "other columns"),
    ] {
        match Registry::read(table.as_bytes()) {
            Err(Error::Table { line: found, what: said }) => {
                assert_eq!(found, line, "{table:?}: {said}");
                assert!(said.contains(what), "{table:?}: {said}");
            }
            other => panic!("{table:?}: {other:?}"),
        }
    }
    assert!(matches!(Registry::read(&[0xff, 0xfe]), Err(Error::Table { .. })));
    assert!(matches!(Registry::read(&pretrained::RELEASE_TABLE[..1000]), Err(Error::Table { .. })));
}

#[test]
fn a_table_that_unpacks_without_end_is_refused() {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..80 {
        packed.write_all(&vec![b'#'; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1 << 20);
    assert!(matches!(Registry::read(&packed), Err(Error::Table { line: 1, .. })));
}
