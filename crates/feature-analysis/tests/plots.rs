//! Figures hold the data that was given, pages hold everything that they show, and hostile text stays text.
//!
//! The pages are also written to the target folder's `tmp/gallery`, to be looked at.

use feature_analysis::page::{Page, Section};
use feature_analysis::plot::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Text that tries to leave the place where it stands, one for each kind of place.
const HOSTILE: [&str; 9] = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"'><img src=x onerror=alert(1)>",
    "<a href=\"https://example.org\">x</a>",
    "\\u003c/script>",
    "%{fullData.name}",
    "]]>&lt;b&gt;",
    "\u{2028}\u{202e}evil",
    "$\\href{javascript:alert(1)}{x}$",
];

fn gallery(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gallery").join(name)
}

fn cloud(tokens: &[String], seed: u64) -> Vec<(f32, f32, usize)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut points = Vec::new();
    for t in 0..tokens.len() {
        let (cx, cy) = (rng.random_range(-6.0..6.0), rng.random_range(-4.0..4.0));
        // Token t is rarer than token t - 1.
        for _ in 0..(3 + 160 / (t + 2)) {
            points.push((cx + rng.random_range(-0.7..0.7), cy + rng.random_range(-0.5..0.5), t));
        }
    }
    points
}

fn scatter_of(tokens: &[String], points: &[(f32, f32, usize)], options: &ScatterOptions) -> Figure {
    let points: Vec<_> = points
        .iter()
        .map(|(x, y, t)| ScatterPoint {
            x: *x,
            y: *y,
            token: &tokens[*t],
            context: "came to Paris on| Monday| and stayed",
        })
        .collect();
    pca_scatter(&points, options)
}

fn fifty_tokens() -> Vec<String> {
    let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"].map(|d| format!(" {d}"));
    let other = ["\n", "\n\n", " ", ",", ".", "\t", "\u{7}", "<|endoftext|>", "day", " the", " 1903", "漢字", " naïve"]
        .map(String::from);
    let rest = (0..30).map(|i| format!(" word{i}"));
    days.into_iter().chain(other).chain(rest).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn a_scatter_holds_every_point_under_its_token() {
    let tokens = fifty_tokens();
    let points = cloud(&tokens, 1);
    let figure = scatter_of(&tokens, &points, &ScatterOptions::default());
    let traces = figure.json()["data"].as_array().unwrap();
    assert_eq!(traces.len(), 50);
    let mut by_name: BTreeMap<String, Vec<(f32, f32)>> = BTreeMap::new();
    for trace in traces {
        let xs = trace["x"].as_array().unwrap().iter().zip(trace["y"].as_array().unwrap());
        let list = xs.map(|(x, y)| (x.as_f64().unwrap() as f32, y.as_f64().unwrap() as f32)).collect();
        by_name.insert(trace["name"].as_str().unwrap().to_owned(), list);
    }
    for (t, token) in tokens.iter().enumerate() {
        let expected: Vec<_> = points.iter().filter(|p| p.2 == t).map(|p| (p.0, p.1)).collect();
        let name = visible_token(token).replace('<', "&lt;").replace('>', "&gt;");
        assert_eq!(by_name[&name], expected, "{name}");
    }
}

#[test]
fn the_legend_goes_by_frequency_and_styles_are_distinct() {
    let tokens = fifty_tokens();
    let figure = scatter_of(&tokens, &cloud(&tokens, 1), &ScatterOptions::default());
    let traces = figure.json()["data"].as_array().unwrap();
    let sizes: Vec<_> = traces.iter().map(|t| t["x"].as_array().unwrap().len()).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    let color = |t: &Value| t["marker"]["color"].to_string();
    assert_eq!(traces.iter().take(20).map(color).collect::<BTreeSet<_>>().len(), 20);
    let pair = |t: &Value| format!("{}{}", t["marker"]["color"], t["marker"]["symbol"]);
    assert_eq!(traces.iter().map(pair).collect::<BTreeSet<_>>().len(), 50);
    assert!(traces.iter().all(|t| !t["name"].as_str().unwrap().contains(char::is_whitespace)));
}

#[test]
fn rare_tokens_are_grey_but_named_on_hover() {
    let tokens = fifty_tokens();
    let points = cloud(&tokens, 1);
    let options = ScatterOptions { max_tokens: 10, ..ScatterOptions::default() };
    let figure = scatter_of(&tokens, &points, &options);
    let traces = figure.json()["data"].as_array().unwrap();
    assert_eq!(traces.len(), 11);
    assert_eq!(traces[0]["name"], "40 rarer tokens");
    assert!(strings(&traces[0]["text"]).iter().any(|t| t.starts_with("<b>␣word29</b><br>")));
    let drawn: usize = traces.iter().map(|t| t["x"].as_array().unwrap().len()).sum();
    assert_eq!(drawn, points.len());
}

#[test]
fn names_on_a_plot_do_not_cover_each_other() {
    let days = fifty_tokens()[..7].to_vec();
    // All seven medians in one place is the worst that can be.
    let points: Vec<_> = (0..7).map(|t| (1.0, 1.0, t)).collect();
    let options = ScatterOptions { labels: days.clone(), ..ScatterOptions::default() };
    let figure = scatter_of(&days, &points, &options);
    let names = figure.json()["layout"]["annotations"].as_array().unwrap().clone();
    assert_eq!(names.len(), 7);
    let at = |n: &Value| (n["ax"].as_f64().unwrap(), n["ay"].as_f64().unwrap());
    for (i, a) in names.iter().enumerate() {
        for b in &names[..i] {
            let (dx, dy) = (at(a).0 - at(b).0, at(a).1 - at(b).1);
            // A name is about 80 by 20 pixels.
            assert!(dx.abs() > 85.0 || dy.abs() > 22.0, "{} and {} are {dx}, {dy} apart", a["text"], b["text"]);
        }
    }
}

#[test]
fn points_that_are_nowhere_are_counted() {
    let point = |x| ScatterPoint { x, y: 0.0, token: "a", context: "" };
    let figure = pca_scatter(&[point(1.0), point(f32::NAN), point(f32::INFINITY)], &ScatterOptions::default());
    assert!(
        figure.json()["layout"]["title"]["text"].as_str().unwrap().contains("2 points that are not finite left out")
    );
}

#[test]
fn a_histogram_counts_what_it_was_given() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let values: Vec<f32> = (0..5000).map(|_| rng.random_range(-1.0_f32..1.0).powi(3) * 7.0).collect();
    for max_bins in [1, 2, 7, 50] {
        let bins = bin(&values, max_bins);
        assert!((1..=max_bins.max(2)).contains(&bins.counts.len()), "{} bins", bins.counts.len());
        for (i, count) in bins.counts.iter().enumerate() {
            let inside = values
                .iter()
                .filter(|v| (f64::from(**v) / bins.width).floor() == (bins.start / bins.width).round() + i as f64);
            assert_eq!(*count, inside.count() as u64, "bin {i} of {max_bins}");
        }
    }
    let figure = positive_histogram(&values, 200_000, &HistogramOptions::default());
    let positive = values.iter().filter(|v| **v > 0.0).count() as u64;
    let drawn: u64 = figure.json()["data"][0]["y"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(drawn, positive);
    let share = format!("{:.3}", 100.0 * positive as f64 / 200_000.0);
    assert_eq!(figure.title(), format!("Histogram of positive activations - {share}% of activations were positive"));
}

#[test]
fn odd_values_make_bins_too() {
    assert_eq!(bin(&[], 50).counts.len(), 0);
    assert_eq!(bin(&[f32::NAN, f32::INFINITY], 50).counts.len(), 0);
    assert_eq!(bin(&[3.5; 7], 50).counts, [7]);
    assert_eq!(bin(&[0.0; 7], 50).counts, [7]);
    assert_eq!(bin(&[f32::MIN, f32::MAX], 50).counts.iter().sum::<u64>(), 2);
    assert_eq!(bin(&[1e-30, 2e-30, f32::NAN], 50).counts.iter().sum::<u64>(), 2);
    assert_eq!(bin(&[1000.0, 1000.0001], 50).counts.iter().sum::<u64>(), 2);
    assert!(histogram(&[], &HistogramOptions::default()).to_html().contains("figure-data"));
}

/// Every JSON block of a page, parsed; fails if one of them was ended early by its own text.
fn data_blocks(html: &str) -> Vec<Value> {
    let open = "<script type=\"application/json\"";
    html.match_indices(open)
        .map(|(at, _)| {
            let from = at + html[at..].find('>').unwrap() + 1;
            let to = from + html[from..].find("</script>").unwrap();
            serde_json::from_str(&html[from..to]).expect("a whole JSON value")
        })
        .collect()
}

fn hostile_page() -> Page {
    let mut page = Page::new(HOSTILE[0], HOSTILE[2]);
    for text in HOSTILE {
        page.fact(text, text);
    }
    let points: Vec<_> = HOSTILE.iter().map(|t| ScatterPoint { x: 0.5, y: 1.0, token: t, context: t }).collect();
    let wild = HistogramOptions {
        subtitle: Some(HOSTILE[2].into()),
        x_label: HOSTILE[0].into(),
        title: HOSTILE[0].into(),
        ..Default::default()
    };
    let labels = HOSTILE.map(String::from).to_vec();
    let mut table = Table::new(HOSTILE.map(|t| (t, Align::Left)));
    table.row(HOSTILE);
    let tokens: Vec<_> = HOSTILE.iter().map(|t| ContextToken { text: (*t).into(), activation: 1.0 }).collect();
    let lens: Vec<_> = HOSTILE.iter().map(|t| LensToken { text: (*t).into(), logit: -1.0 }).collect();
    page.section(
        Section::new("\"><script>", HOSTILE[0])
            .text(HOSTILE[0])
            .figure(pca_scatter(&points, &ScatterOptions { labels, max_tokens: 5, ..Default::default() }))
            .figure(histogram(&[1.0], &wild))
            .table(&table)
            .markup(top_table(&[TopExample { activation: 1.0, tokens, focus: 2, place: HOSTILE[0].into() }]))
            .markup(lens_table(&[LensRow { feature: 1, top: lens.clone(), bottom: lens }])),
    );
    page
}

#[test]
fn hostile_text_stays_text() {
    let page = hostile_page();
    page.write(&gallery("hostile.html")).unwrap();
    let html = page.to_html();
    let after_library = &html[html.find("<body>").unwrap()..];
    assert_eq!(data_blocks(after_library).len(), 2);
    // Two data blocks and two lines that draw them: no script besides.
    assert_eq!(after_library.matches("<script").count(), 4);
    assert_eq!(after_library.matches("</script").count(), 4);
    for bad in ["<img", "<!--", "<a href=\"h", "alert(1)</"] {
        assert!(!after_library.contains(bad), "{bad} is live");
    }
    // In plotly's strings the only tags are ours.
    for figure in data_blocks(after_library) {
        let text = figure.to_string();
        let tags: BTreeSet<_> = text.split('<').skip(1).map(|t| t.split(['>', ' ']).next().unwrap()).collect();
        assert!(tags.iter().all(|t| ["b", "/b", "br", "span", "/span", "extra", "/extra"].contains(t)), "{tags:?}");
    }
    let single =
        pca_scatter(&[ScatterPoint { x: 0.0, y: 0.0, token: HOSTILE[0], context: HOSTILE[1] }], &Default::default());
    let id = single.to_inline("x\"><script>").into_string();
    assert!(id.contains("id=\"xscript\""), "{}", &id[..80]);
}

#[test]
fn a_page_asks_nobody_for_anything() {
    let html = sample_page().to_html();
    assert_eq!(html.matches("plotly.js v").count(), 1, "the library is there once");
    assert!(html.contains("content=\"default-src 'none'; script-src 'unsafe-inline'"));
    let library = html.find("plotly.js v").unwrap();
    let library_end = library + html[library..].find("</script>").unwrap();
    for part in [&html[..library], &html[library_end..]] {
        for bad in ["http:", "https:", "src=", "<link", "@import", "url("] {
            assert!(!part.contains(bad), "{bad}");
        }
    }
    let single = histogram(&[1.0, 2.0], &HistogramOptions::default()).to_html();
    assert!(single.contains("Content-Security-Policy") && !single.contains("<script src"));
}

/// Signed codes: a strong negative activation has a full bar, and a shade of its own.
#[test]
fn negative_activations_are_as_strong_as_positive_ones() {
    let example = |activation: f32| {
        let tokens = vec![ContextToken { text: "x".into(), activation }];
        TopExample { activation, tokens, focus: 0, place: String::new() }
    };
    let html = |activations: &[f32]| {
        top_table(&activations.iter().map(|activation| example(*activation)).collect::<Vec<_>>()).into_string()
    };
    let both = html(&[-4.0, 1.0]);
    assert!(both.contains("-4.000") && both.contains("width:100.0%") && both.contains("width:25.0%"), "{both}");
    assert!(both.contains("rgba(76,141,245,0.90)") && both.contains("rgba(255,159,28,0.34)"), "{both}");
    assert!(html(&[-4.0]).contains("rgba(76,141,245,0.90)"), "a table of negative activations alone");
}

#[test]
fn a_page_is_written_whole() {
    let path = gallery("sample.html");
    sample_page().write(&path).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("</html>"));
    let tokens = fifty_tokens();
    let fifty = scatter_of(&tokens, &cloud(&tokens, 1), &ScatterOptions::default());
    std::fs::write(gallery("fifty.html"), fifty.to_html()).unwrap();
}

fn sample_page() -> Page {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let acts: Vec<f32> = (0..4000).map(|_| -rng.random::<f32>().ln() * 2.0).collect();
    let shares: Vec<f32> =
        (0..2048).map(|i| if i % 50 == 0 { 0.0 } else { 10_f32.powf(rng.random_range(-5.0..-0.5)) }).collect();
    let days: Vec<String> = fifty_tokens()[..7].to_vec();
    let words = ["He", " came", " to", " Paris", " on", " Monday", " and", " stayed", " until", " Friday", ".\n"];
    let examples: Vec<_> = (0..10)
        .map(|i| TopExample {
            activation: 9.0 - i as f32 * 0.6,
            tokens: words
                .iter()
                .map(|w| ContextToken {
                    text: (*w).into(),
                    activation: if w.contains("day") { 9.0 - i as f32 * 0.6 } else { 0.0 },
                })
                .collect(),
            focus: if i % 2 == 0 { 5 } else { 9 },
            place: format!("document {i}, position {}", 40 + i),
        })
        .collect();
    let lens: Vec<_> = (0..12)
        .map(|f| LensRow {
            feature: 17 * f,
            top: (0..10).map(|i| LensToken { text: format!(" word{}", i * f), logit: 3.0 / (i + 1) as f32 }).collect(),
            bottom: (0..5).map(|i| LensToken { text: format!("\nlow{i}"), logit: -2.0 / (i + 1) as f32 }).collect(),
        })
        .collect();
    let mut frame = Table::new([("str_tokens", Align::Left), ("context", Align::Left), ("pos", Align::Right)]);
    frame.row(["␣Monday", "Paris on| Monday| and", "5"]).row(["␣Friday", "until| Friday|.↵", "9"]);
    let options =
        HistogramOptions { subtitle: Some("feature 767 · 100 special tokens left out".into()), ..Default::default() };
    let about = ScatterOptions {
        labels: days.clone(),
        subtitle: Some("labels stand at the median of a day's points".into()),
        ..Default::default()
    };
    let mut page = Page::new("The notebook, in Rust", "A page of synthetic data.");
    page.fact("model", "none").fact("seed", "5").fact("special tokens left out", "100 of 102,400");
    page.section(Section::new("frame", "Token frame").text("The first rows.").table(&frame));
    page.section(Section::new("hist", "Histogram").figure(positive_histogram(&acts, 102_400, &options)));
    let density_options = HistogramOptions {
        title: "How often features fire".into(),
        x_label: "share of tokens".into(),
        y_label: "features".into(),
        ..Default::default()
    };
    page.section(Section::new("density", "Density").figure(density(&shares, &density_options)));
    page.section(Section::new("top", "Top activations").markup(top_table(&examples)));
    page.section(Section::new("lens", "Logit lens").markup(lens_table(&lens)));
    page.section(Section::new("pca", "Days of the week").figure(scatter_of(&days, &cloud(&days, 2), &about)));
    page
}

#[test]
fn components_that_are_not_there_are_an_error() {
    use feature_analysis::Error;
    use feature_analysis::views::PcaPlotData;
    let points = PcaPlotData {
        scores: vec![vec![1.0, 2.0, 3.0], vec![0.5, 0.0, -1.0]],
        tokens: vec![" Monday".into(), " Friday".into()],
        contexts: vec!["on| Monday|,".into(), "on| Friday|,".into()],
    };
    let options = ScatterOptions::default();
    assert!(points.scatter(1, 2, &options).is_ok());
    for (horizontal, vertical, component) in [(5, 6, 5), (0, 3, 3)] {
        let error = points.scatter(horizontal, vertical, &options).unwrap_err();
        assert!(
            matches!(error, Error::ComponentRange { component: found, components: 3 } if found == component),
            "{error}"
        );
    }
    // The fields are public: lists of different lengths, and points without components, are no reason to panic.
    let odd = PcaPlotData { scores: vec![Vec::new(), vec![1.0]], contexts: vec!["a".into()], ..points };
    assert!(odd.scatter(0, 0, &options).is_err());
    assert_eq!(odd.only(&["Monday".into()]).tokens, ["Monday"]);
    assert_eq!(odd.mean_of("Friday").0, 1);
}
