//! Pictures and tables: plain typed data in, interactive figures and HTML out.
//!
//! Nothing here knows of models, SAEs or tensors. A [`Figure`] is a plotly figure that renders as a page of its own
//! ([`Figure::to_html`]) or as a part of a [`Page`](crate::page::Page), which embeds plotly.js once for all its figures.
//! A [`Table`] is for reading: it renders as HTML and, through `Display`, as aligned columns for a terminal.
//!
//! Text that came from a corpus is data everywhere: tokens and contexts are escaped for JSON, for HTML and for plotly's
//! own markup, and what would not be seen (spaces, line ends, control characters) is shown by a sign, see [`visible_token`].

mod cards;
mod figure;
mod histogram;
mod lines;
mod palette;
mod scatter;
mod table;
mod text;
mod token_strip;

pub use cards::{FeatureRow, FeatureSummary, feature_cards, numbers_table};
pub use figure::Figure;
pub use histogram::{Bins, HistogramOptions, bin, density, histogram, positive_histogram};
pub use lines::{LineOptions, LineSeries, lines};
pub use palette::{MarkerStyle, PALETTE, marker_style};
pub use scatter::{ScatterOptions, ScatterPoint, pca_scatter};
pub use table::{Align, Table};
pub use text::{grouped, visible_context, visible_token};
pub use token_strip::{ContextToken, LensRow, LensToken, TopExample, lens_table, top_table};

pub(crate) use cards::percent;
pub(crate) use figure::{no_network, plotly_js};
