//! The plot and the table of `scaling`.

use feature_analysis::page::{Page, Section};
use feature_analysis::plot::{Figure, PALETTE, grouped};
use plotly::common::{Line, Marker, Mode, Title};
use plotly::layout::{Axis, AxisType, GridPattern, LayoutGrid, Margin};
use plotly::{Layout, Plot, Scatter};
use serde_json::Value;
use std::path::Path;

/// The step that is drawn, its words, and whether the horizontal axis is logarithmic.
const PANELS: [(&str, &str, &str, bool); 4] = [
    ("tokens", "iteration", "tokens seen so far", false),
    ("d_sae", "iteration", "features of the SAE", true),
    ("features", "encode", "features asked for", true),
    ("threads", "iteration", "threads", false),
];

/// Draws all runs, and prints them as Markdown.
///
/// # Panics
/// If the file holds something else than what `scaling run` prints.
pub fn page(runs: &Path, out: &Path) {
    let text = std::fs::read_to_string(runs).expect("the runs are readable");
    let runs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut plot = Plot::new();
    for (i, (what, step, _, _)) in PANELS.into_iter().enumerate() {
        let points = points(&runs, what);
        let y: Vec<f64> = points.iter().map(|p| p[step].as_f64().expect("milliseconds")).collect();
        let x: Vec<f64> = points.iter().map(|p| p["x"].as_f64().expect("a size")).collect();
        let axis = |name: &str| if i == 0 { name.to_owned() } else { format!("{name}{}", i + 1) };
        let trace = Scatter::new(x, y).mode(Mode::LinesMarkers).show_legend(false).x_axis(axis("x")).y_axis(axis("y"));
        plot.add_trace(trace.line(Line::new().color(PALETTE[0])).marker(Marker::new().size(8)));
        table(what, step, &points);
    }
    let axis = |i: usize| {
        let (_, _, label, log) = PANELS[i];
        let axis =
            Axis::new().title(Title::with_text(label)).grid_color("#e8ebf0").line_color("#c3cad6").show_line(true);
        if log { axis.type_(AxisType::Log) } else { axis.auto_range(true) }
    };
    let ms = |i: usize| {
        let axis = Axis::new().title(Title::with_text(format!("{}, ms", PANELS[i].1))).grid_color("#e8ebf0");
        if PANELS[i].3 { axis.type_(AxisType::Log) } else { axis.range_mode(plotly::layout::RangeMode::ToZero) }
    };
    let layout = Layout::new().grid(LayoutGrid::new().rows(2).columns(2).pattern(GridPattern::Independent));
    let layout = layout.x_axis(axis(0)).x_axis2(axis(1)).x_axis3(axis(2)).x_axis4(axis(3));
    let layout = layout.y_axis(ms(0)).y_axis2(ms(1)).y_axis3(ms(2)).y_axis4(ms(3));
    plot.set_layout(layout.margin(Margin::new().left(70).right(20).top(20).bottom(60)));
    let engine = runs[0]["engine"].as_str().unwrap_or_default();
    let mut page = Page::new("How the cost grows", format!("Milliseconds for 1,024 tokens, {engine}."));
    page.section(Section::new("scaling", "How the cost of a census grows").figure(Figure::from_plot(&plot, 640)));
    page.write(out).expect("the page is written");
}

fn points(runs: &[Value], what: &str) -> Vec<Value> {
    let mut all = runs.iter().filter(|run| run["what"] == what);
    all.next_back().and_then(|run| run["points"].as_array()).cloned().unwrap_or_default()
}

fn table(what: &str, step: &str, points: &[Value]) {
    let cells = |of: &dyn Fn(&Value) -> String| points.iter().map(of).collect::<Vec<_>>().join(" | ");
    let ms =
        |name: &str, p: &Value| p[name].as_f64().map_or("–".into(), |ms| format!("{ms:.*}", usize::from(ms < 100.0)));
    println!("\n| {what} | {} |", cells(&|p| grouped(p["x"].as_u64().unwrap_or(0))));
    println!("|---{}|", "|---".repeat(points.len()));
    let steps = if what == "d_sae" { vec!["forward", "encode", "count", step] } else { vec![step] };
    for name in steps {
        println!("| {name}, ms | {} |", cells(&|p| ms(name, p)));
    }
}
