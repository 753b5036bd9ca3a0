//! Lines over one axis: how answers change with a dose.

use super::figure::Figure;
use super::histogram::{axis, base_layout};
use super::palette::PALETTE;
use super::text::for_plotly;
use plotly::common::{Line, Marker, Mode};
use plotly::layout::HoverMode;
use plotly::{Plot, Scatter};

/// A line of a [`lines`] figure.
#[derive(Clone, Debug, PartialEq)]
pub struct LineSeries {
    /// Its name in the legend.
    pub name: String,
    /// Its points `(x, y)`, in any order: the line goes from the smallest x to the largest.
    pub points: Vec<(f64, f64)>,
}

/// What a figure of lines is called and how it is drawn.
#[derive(Clone, Debug)]
pub struct LineOptions {
    /// The title.
    pub title: String,
    /// A second line in small letters, if any.
    pub subtitle: Option<String>,
    /// What is varied.
    pub x_label: String,
    /// What is read.
    pub y_label: String,
    /// Height in pixels.
    pub height: usize,
}

impl Default for LineOptions {
    fn default() -> Self {
        let (title, x_label, y_label) = ("Dose and response".into(), "dose".into(), "response".into());
        Self { title, subtitle: None, x_label, y_label, height: 480 }
    }
}

/// Each series as a line with its points marked. A click on a name in the legend hides it, two clicks leave it alone.
pub fn lines(series: &[LineSeries], options: &LineOptions) -> Figure {
    let mut plot = Plot::new();
    for (i, series) in series.iter().enumerate() {
        let mut points = series.points.clone();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (x, y) = points.into_iter().unzip::<f64, f64, Vec<f64>, Vec<f64>>();
        let color = PALETTE[i % PALETTE.len()];
        let trace = Scatter::new(x, y)
            .mode(Mode::LinesMarkers)
            .name(for_plotly(&series.name))
            .line(Line::new().color(color).width(2.0))
            .marker(Marker::new().color(color).size(6));
        plot.add_trace(trace);
    }
    plot.set_layout(
        base_layout(&options.title, options.subtitle.as_deref())
            .x_axis(axis(&options.x_label))
            .y_axis(axis(&options.y_label))
            .hover_mode(HoverMode::XUnified)
            .show_legend(true),
    );
    Figure::from_plot(&plot, options.height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_a_trace_with_its_points() {
        let series = |name: &str, y: f64| LineSeries { name: name.into(), points: vec![(2.0, y), (-1.0, 0.0)] };
        let figure = lines(&[series("a<b", 1.0), series("c", 3.0)], &LineOptions::default());
        let data = figure.json()["data"].as_array().unwrap();
        assert_eq!(data.len(), 2);
        assert_eq!(data[0]["x"], serde_json::json!([-1.0, 2.0]));
        assert_eq!(data[1]["y"], serde_json::json!([0.0, 3.0]));
        assert!(!data[0]["name"].as_str().unwrap().contains('<'), "markup of a name is no markup");
        assert_ne!(data[0]["line"]["color"], data[1]["line"]["color"]);
    }
}
