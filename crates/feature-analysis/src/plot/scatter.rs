//! Points in a plane, colored by their tokens.

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
    /// The token: its color, its entry in the legend and the first line on hover.
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
    /// How many tokens, the commonest, get a color and a line in the legend of their own; the points of the others are
    /// gray and named only on hover.
    pub max_tokens: usize,
    /// Tokens whose name is also written beside the median of their points: the family that the picture is about.
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
            max_tokens: 50,
            labels: Vec::new(),
            height: 800,
        }
    }
}

/// The longest legend that stands beside the plot.
const BESIDE: usize = 30;

/// The points of one token.
struct Group<'a> {
    token: &'a str,
    points: Vec<&'a ScatterPoint<'a>>,
}

/// A scatter plot with one color and symbol per token, the commonest token first; the context is shown on hover.
///
/// No color is used twice among the 24 commonest tokens, no pair of color and symbol twice among the 192 commonest. Points
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
            .annotations(labels(named, &options.labels)),
    );
    let mut figure = Figure::from_plot(&plot, options.height);
    if named.len() + usize::from(has_rest) > BESIDE {
        figure = figure.set_layout(&["legend", "yref"], "container").set_layout(&["legend", "yanchor"], "bottom");
        figure = figure.set_layout(&["xaxis", "title", "standoff"], 8);
    }
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

/// A short list of tokens stands beside the plot; a long one at the figure's foot in columns, where nothing needs scrolling.
fn legend(entries: usize) -> Legend {
    let legend = Legend::new().item_sizing(ItemSizing::Constant).font(Font::new().size(12));
    if entries <= BESIDE { legend } else { legend.orientation(Orientation::Horizontal).x(0.0).y(0.012) }
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

/// The names of the `wanted` tokens, each with a line to the median of its points.
///
/// Medians of a family often lie close together. So the names stand on a ring, evenly spaced and in the order of the directions in which
/// the medians lie from their common center: no name covers another.
fn labels(groups: &[Group<'_>], wanted: &[String]) -> Vec<Annotation> {
    let is_wanted = |g: &&Group<'_>| wanted.iter().any(|w| w.trim() == g.token.trim());
    let mut places: Vec<_> =
        groups.iter().filter(is_wanted).filter_map(|g| Some((g.token.trim(), median(g)?))).collect();
    let n = places.len() as f32;
    let center = places.iter().fold((0.0, 0.0), |c, (_, (x, y))| (c.0 + x / n, c.1 + y / n));
    let direction = |(x, y): (f32, f32)| (y - center.1).atan2(x - center.0);
    places.sort_by(|a, b| direction(a.1).total_cmp(&direction(b.1)));
    let step = std::f32::consts::TAU / n.max(1.0);
    // The ring is turned so that the names are, on the whole, where their medians are (the mean of the angles' differences).
    let turns = places.iter().enumerate().map(|(i, (_, at))| direction(*at) - i as f32 * step);
    let turn = turns.clone().map(f32::sin).sum::<f32>().atan2(turns.map(f32::cos).sum::<f32>());
    let ring = |i: usize| (turn + i as f32 * step).sin_cos();
    places.iter().enumerate().map(|(i, (name, at))| label(name, *at, ring(i))).collect()
}

/// The medians of a group's coordinates.
fn median(group: &Group<'_>) -> Option<(f32, f32)> {
    let of = |pick: fn(&ScatterPoint<'_>) -> f32| {
        let mut values: Vec<f32> = group.points.iter().map(|p| pick(p)).collect();
        values.sort_by(f32::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some((of(|p| p.x)?, of(|p| p.y)?))
}

/// A name beside a point, in the given direction (pixels count downwards).
fn label(name: &str, at: (f32, f32), (sin, cos): (f32, f32)) -> Annotation {
    Annotation::new()
        .x(at.0)
        .y(at.1)
        .text(format!("<b>{}</b>", for_plotly(&visible_context(name))))
        .ax(f64::from(120.0 * cos).round())
        .ay(f64::from(-95.0 * sin).round())
        .show_arrow(true)
        .arrow_head(6)
        .arrow_size(0.8)
        .arrow_width(1.2)
        .arrow_color("#313a48")
        .background_color("rgba(255,255,255,0.85)")
        .border_color("#c3cad6")
        .border_pad(2.0)
        .font(Font::new().size(12).color("#1c2430"))
}
