//! Histograms of activations and of feature densities.

use super::figure::Figure;
use super::text::{for_plotly, grouped};
use plotly::common::{Font, Marker, Title};
use plotly::layout::{Axis, AxisType, HoverMode, Margin};
use plotly::{Bar, Layout, Plot};

/// Equal bins over an interval: bin `i` counts the values in `[start + i * width, start + (i + 1) * width)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    /// Lower edge of the first bin, a multiple of `width`.
    pub start: f64,
    /// Width of each bin: 1, 2, 2.5, 4 or 5 times a power of ten.
    pub width: f64,
    /// How many values fell into each bin.
    pub counts: Vec<u64>,
}

/// Counts the finite values in at most `max_bins` bins (two at least) with round edges.
///
/// Values that are not finite are left out. No values give no bins; equal values give one.
///
/// ```
/// use feature_analysis::plot::bin;
/// let bins = bin(&[0.0, 0.5, 0.5, 2.0], 4);
/// assert_eq!((bins.start, bins.width, bins.counts), (0.0, 1.0, vec![3, 0, 1]));
/// ```
pub fn bin(values: &[f32], max_bins: usize) -> Bins {
    let finite = || values.iter().copied().filter(|v| v.is_finite()).map(f64::from);
    let low = finite().fold(f64::INFINITY, f64::min);
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return Bins { start: 0.0, width: 1.0, counts: Vec::new() };
    }
    // Edges are multiples of the width, so an interval may touch one bin more than its length says; then the width grows. Two bins
    // are always allowed: an interval around zero touches two whatever the width.
    let most = max_bins.max(2) as f64;
    let place = |v: f64, width: f64| (v / width).floor();
    let mut width = round_width((high - low) / max_bins.max(1) as f64, low, high);
    while place(high, width) - place(low, width) + 1.0 > most {
        width = round_width(width * 1.01, low, high);
    }
    let first = place(low, width);
    let last = place(high, width);
    let mut counts = vec![0_u64; (last - first) as usize + 1];
    for v in finite() {
        counts[((place(v, width) - first) as usize).min((last - first) as usize)] += 1;
    }
    Bins { start: first * width, width, counts }
}

/// The smallest of 1, 2, 2.5, 4, 5 times a power of ten that is at least `least`.
fn round_width(least: f64, low: f64, high: f64) -> f64 {
    // One value alone (or values closer than f32 tells apart) still needs a width.
    let least = least.max(low.abs().max(high.abs()) * 1e-7).max(f64::from(f32::MIN_POSITIVE));
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 4.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|w| *w >= least).unwrap_or(10.0 * power)
}

/// What a histogram is called and how it is drawn.
#[derive(Clone, Debug)]
pub struct HistogramOptions {
    /// The title.
    pub title: String,
    /// A second line in small letters, if any: what was counted and what was left out.
    pub subtitle: Option<String>,
    /// What the values are.
    pub x_label: String,
    /// What is counted.
    pub y_label: String,
    /// The most bins, 50 as in the notebook.
    pub max_bins: usize,
    /// Whether the counts are drawn on a logarithmic axis.
    pub log_counts: bool,
    /// Height in pixels.
    pub height: usize,
}

impl Default for HistogramOptions {
    fn default() -> Self {
        Self {
            title: "Histogram".to_owned(),
            subtitle: None,
            x_label: "Activation".to_owned(),
            y_label: "count".to_owned(),
            max_bins: 50,
            log_counts: false,
            height: 450,
        }
    }
}

/// A histogram of `values` (those that are finite).
pub fn histogram(values: &[f32], options: &HistogramOptions) -> Figure {
    draw(&bin(values, options.max_bins), options, |lower, upper| format!("{lower:.4} to {upper:.4}"))
}

/// The notebook's histogram: the positive values among `activations`, one feature's activations on kept tokens, titled
/// "Histogram of positive activations - x.xxx% of activations were positive".
///
/// `total` is the number of tokens that the percentage is of (with those on which nothing fired). The title replaces the
/// one in `options`.
pub fn positive_histogram(activations: &[f32], total: u64, options: &HistogramOptions) -> Figure {
    let positive: Vec<f32> = activations.iter().copied().filter(|a| *a > 0.0).collect();
    let share = if total == 0 { 0.0 } else { 100.0 * positive.len() as f64 / total as f64 };
    let title = format!("Histogram of positive activations - {share:.3}% of activations were positive");
    histogram(&positive, &HistogramOptions { title, ..options.clone() })
}

/// How often features fire: a histogram of log10 of each feature's share of tokens. Features that never fired have no
/// logarithm; the subtitle says how many they are.
pub fn density(shares: &[f32], options: &HistogramOptions) -> Figure {
    let logs: Vec<f32> = shares.iter().filter(|s| **s > 0.0).map(|s| s.log10()).collect();
    let silent = shares.len() - logs.len();
    let counted = format!("{} features, {} of them silent", grouped(shares.len() as u64), grouped(silent as u64));
    let subtitle = options.subtitle.as_ref().map_or(counted.clone(), |given| format!("{counted} · {given}"));
    let options = HistogramOptions { subtitle: Some(subtitle), ..options.clone() };
    let figure = draw(&bin(&logs, options.max_bins), &options, |lower, upper| {
        format!("{:.3}% to {:.3}%", 100.0 * 10_f64.powf(lower), 100.0 * 10_f64.powf(upper))
    });
    let ticks: Vec<f64> = (-8..=0).map(f64::from).collect();
    let words = ["10⁻⁸", "10⁻⁷", "10⁻⁶", "0.001%", "0.01%", "0.1%", "1%", "10%", "100%"];
    figure.set_layout(&["xaxis", "tickvals"], ticks).set_layout(&["xaxis", "ticktext"], words.to_vec())
}

/// Bars for bins; `range` words a bin's edges for the hover text.
fn draw(bins: &Bins, options: &HistogramOptions, range: impl Fn(f64, f64) -> String) -> Figure {
    let edge = |i: usize| bins.start + i as f64 * bins.width;
    let centers: Vec<f64> = (0..bins.counts.len()).map(|i| edge(i) + bins.width / 2.0).collect();
    let ranges: Vec<String> = (0..bins.counts.len()).map(|i| range(edge(i), edge(i + 1))).collect();
    let bars = Bar::new(centers, bins.counts.clone())
        .width(bins.width)
        .hover_text_array(ranges)
        .hover_template("<b>%{y:,}</b><br>%{hovertext}<extra></extra>")
        .marker(Marker::new().color("#3b6fd8").line(plotly::common::Line::new().color("#ffffff").width(0.7)));
    let mut plot = Plot::new();
    plot.add_trace(bars);
    let counts = AxisType::Log;
    let y = axis(&options.y_label);
    let y = if options.log_counts { y.type_(counts) } else { y };
    plot.set_layout(
        base_layout(&options.title, options.subtitle.as_deref())
            .x_axis(axis(&options.x_label).zero_line(false))
            .y_axis(y)
            .bar_gap(0.0)
            .hover_mode(HoverMode::X)
            .show_legend(false),
    );
    Figure::from_plot(&plot, options.height)
}

/// The look that all figures share.
pub(super) fn base_layout(title: &str, subtitle: Option<&str>) -> Layout {
    let mut text = for_plotly(title);
    if let Some(subtitle) = subtitle {
        text.push_str(&format!("<br><span style=\"font-size:13px;color:#5b6472\">{}</span>", for_plotly(subtitle)));
    }
    Layout::new()
        .title(Title::with_text(text).font(Font::new().size(18).color("#1c2430")).x(0.01))
        .font(
            Font::new()
                .family("system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif")
                .size(13)
                .color("#313a48"),
        )
        .paper_background_color("#ffffff")
        .plot_background_color("#ffffff")
        .margin(Margin::new().left(70).right(30).top(if subtitle.is_some() { 80 } else { 60 }).bottom(60))
}

/// An axis with a light grid.
pub(super) fn axis(label: &str) -> Axis {
    Axis::new()
        .title(Title::with_text(for_plotly(label)))
        .grid_color("#e8ebf0")
        .zero_line_color("#c3cad6")
        .line_color("#c3cad6")
        .show_line(true)
        .auto_margin(true)
}
