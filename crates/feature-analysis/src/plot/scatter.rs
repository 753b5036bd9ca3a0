//! Points in a plane, coloured by their tokens.

use super::figure::Figure;
use super::histogram::{axis, base_layout};
use super::palette::marker_style;
use super::text::{for_plotly, grouped, visible_context, visible_token};
use plotly::common::{Font, HoverInfo, Line, Marker, MarkerSymbol, Mode, Orientation};
use plotly::layout::{Annotation, HoverMode, ItemSizing, Legend};
use plotly::{Plot, Scatter};
use std::collections::HashMap;

/// One point: where it is and which token, in which context, it stands for.
#[derive(Clone, Copy, Debug)]
pub struct ScatterPoint<'a> {
    /// Horizontal coordinate.
    pub x: f32,
    /// Vertical coordinate.
    pub y: f32,
    /// The token: its colour, its entry in the legend and the first line on hover.
    pub token: &'a str,
    /// The text around it, the second line on hover.
    pub context: &'a str,
}

/// What a scatter plot is called and how it is drawn.
#[derive(Clone, Debug)]
pub struct ScatterOptions {
    /// The title.
    pub title: String,
    /// A second line in small letters, if any.
    pub subtitle: Option<String>,
    /// Name of the horizontal axis, such as `PC2 (12.3 % of the variance)`.
    pub x_label: String,
    /// Name of the vertical axis.
    pub y_label: String,
    /// How many tokens, the commonest, get a colour and a line in the legend of their own; the points of the others are
    /// grey and named only on hover.
    pub max_tokens: usize,
    /// Tokens whose name is also written at the median of their points: the family that the picture is about.
    /// Compared without surrounding spaces.
    pub labels: Vec<String>,
    /// Height in pixels.
    pub height: usize,
}

impl Default for ScatterOptions {
    fn default() -> Self {
        Self {
            title: "PCA Subspace Reconstructions".to_owned(),
            subtitle: None,
            x_label: "PC2".to_owned(),
            y_label: "PC3".to_owned(),
            max_tokens: 60,
            labels: Vec::new(),
            height: 800,
        }
    }
}

/// The points of one token.
struct Group<'a> {
    token: &'a str,
    points: Vec<&'a ScatterPoint<'a>>,
}

/// A scatter plot with one colour and symbol per token, the commonest token first; the context is shown on hover.
///
/// No colour is used twice among the 24 commonest tokens, no pair of colour and symbol twice among the 192 commonest. Points
/// that are not finite are left out and the subtitle says how many they were.
pub fn pca_scatter(points: &[ScatterPoint<'_>], options: &ScatterOptions) -> Figure {
    let finite = points.iter().filter(|p| p.x.is_finite() && p.y.is_finite());
    let groups = by_frequency(finite);
    let shown: usize = groups.iter().map(|g| g.points.len()).sum();
    let (named, rest) = groups.split_at(groups.len().min(options.max_tokens));

    let mut plot = Plot::new();
    // The rest is drawn first, so that it lies below, and listed last.
    let has_rest = !rest.is_empty();
    if has_rest {
        plot.add_trace(rest_trace(rest));
    }
    for (rank, group) in named.iter().enumerate() {
        plot.add_trace(token_trace(group, rank));
    }
    let left_out = points.len() - shown;
    let subtitle = match (&options.subtitle, left_out) {
        (Some(given), 0) => Some(given.clone()),
        (Some(given), n) => Some(format!("{given} · {} points that are not finite left out", grouped(n as u64))),
        (None, 0) => None,
        (None, n) => Some(format!("{} points that are not finite left out", grouped(n as u64))),
    };
    plot.set_layout(
        base_layout(&options.title, subtitle.as_deref())
            .x_axis(axis(&options.x_label))
            .y_axis(axis(&options.y_label))
            .hover_mode(HoverMode::Closest)
            .show_legend(true)
            .legend(legend(named.len() + usize::from(has_rest)))
            .annotations(named.iter().filter_map(|g| label(g, &options.labels)).collect()),
    );
    let mut figure = Figure::from_plot(&plot, options.height);
    if has_rest {
        figure.set_trace(0, "legendrank", 2000);
    }
    figure
}

/// Groups the points by token, the commonest first, ties by the token's text.
fn by_frequency<'a>(points: impl Iterator<Item = &'a ScatterPoint<'a>>) -> Vec<Group<'a>> {
    let mut groups: HashMap<&str, Vec<&ScatterPoint<'_>>> = HashMap::new();
    for point in points {
        groups.entry(point.token).or_default().push(point);
    }
    let mut groups: Vec<_> = groups.into_iter().map(|(token, points)| Group { token, points }).collect();
    groups.sort_by(|a, b| b.points.len().cmp(&a.points.len()).then_with(|| a.token.cmp(b.token)));
    groups
}

/// A short list of tokens stands beside the plot; a long one below it in columns, where nothing needs scrolling.
fn legend(entries: usize) -> Legend {
    let legend = Legend::new().item_sizing(ItemSizing::Constant).font(Font::new().size(12));
    if entries <= 30 { legend } else { legend.orientation(Orientation::Horizontal).x(0.0).y(-0.13) }
}

fn token_trace(group: &Group<'_>, rank: usize) -> Box<Scatter<f32, f32>> {
    let style = marker_style(rank);
    let name = for_plotly(&visible_token(group.token));
    let contexts: Vec<String> = group.points.iter().map(|p| hover_context(p.context)).collect();
    Scatter::new(group.points.iter().map(|p| p.x).collect(), group.points.iter().map(|p| p.y).collect())
        .mode(Mode::Markers)
        .name(name)
        .text_array(contexts)
        .hover_template("<b>%{fullData.name}</b><br>%{text}<br>%{x:.3f}, %{y:.3f}<extra></extra>")
        .marker(marker(style.color, style.symbol, 8, 0.85))
}

fn rest_trace(rest: &[Group<'_>]) -> Box<Scatter<f32, f32>> {
    let points: Vec<_> = rest.iter().flat_map(|g| &g.points).collect();
    let words = points
        .iter()
        .map(|p| format!("<b>{}</b><br>{}", for_plotly(&visible_token(p.token)), hover_context(p.context)));
    Scatter::new(points.iter().map(|p| p.x).collect(), points.iter().map(|p| p.y).collect())
        .mode(Mode::Markers)
        .name(format!("{} rarer tokens", grouped(rest.len() as u64)))
        .hover_info(HoverInfo::Text)
        .text_array(words.collect())
        .hover_template("%{text}<br>%{x:.3f}, %{y:.3f}<extra></extra>")
        .marker(marker("#cdd3dc", MarkerSymbol::Circle, 6, 0.8))
}

fn marker(color: &'static str, symbol: MarkerSymbol, size: usize, opacity: f64) -> Marker {
    Marker::new().color(color).symbol(symbol).size(size).opacity(opacity).line(Line::new().color("#ffffff").width(0.6))
}

fn hover_context(context: &str) -> String {
    for_plotly(&visible_context(context))
}

/// The token's name at the median of its points, if it is one of `wanted`.
fn label(group: &Group<'_>, wanted: &[String]) -> Option<Annotation> {
    wanted.iter().find(|w| w.trim() == group.token.trim())?;
    let median = |pick: fn(&ScatterPoint<'_>) -> f32| {
        let mut values: Vec<f32> = group.points.iter().map(|p| pick(p)).collect();
        values.sort_by(f32::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let (x, y) = (median(|p| p.x)?, median(|p| p.y)?);
    Some(
        Annotation::new()
            .x(x)
            .y(y)
            .text(format!("<b>{}</b>", for_plotly(&visible_context(group.token.trim()))))
            .show_arrow(false)
            .background_color("rgba(255,255,255,0.75)")
            .font(Font::new().size(13).color("#1c2430")),
    )
}
