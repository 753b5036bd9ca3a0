//! A plotly figure and how it becomes HTML.

use super::text::json_for_script;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotly::Plot;
use serde_json::Value;
use std::sync::OnceLock;

/// An interactive figure: plotly's data, layout and configuration as JSON.
///
/// Make one with the functions of this module, or from any figure of the plotly crate ([`Figure::from_plot`]). It is kept
/// as JSON because plotly.js knows more settings than the crate has names for, see [`Figure::set_layout`].
#[derive(Clone, Debug)]
pub struct Figure {
    json: Value,
    height: usize,
}

impl Figure {
    /// A figure of the plotly crate, `height` pixels high (its width is its container's).
    pub fn from_plot(plot: &Plot, height: usize) -> Self {
        let mut json = serde_json::to_value(plot).expect("plotly's own types serialize");
        if json["config"].is_null() {
            json["config"] = Value::Object(Default::default());
        }
        // The width follows the page; the logo is a link to elsewhere; the removed buttons select points to no effect.
        json["config"]["responsive"] = true.into();
        json["config"]["displaylogo"] = false.into();
        json["config"]["modeBarButtonsToRemove"] = serde_json::json!(["select2d", "lasso2d", "autoScale2d"]);
        json["layout"]["autosize"] = true.into();
        json["layout"]["height"] = height.into();
        Self { json, height }
    }

    /// Sets a value of the layout by its path, such as `["legend", "entrywidth"]`, and returns the figure.
    #[must_use]
    pub fn set_layout(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        let mut place = &mut self.json["layout"];
        for key in path {
            place = &mut place[*key];
        }
        *place = value.into();
        self
    }

    /// The figure as plotly.js takes it: an object with `data`, `layout` and `config`.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Sets values of trace number `trace`, those that the plotly crate has no name for.
    pub(crate) fn set_trace(&mut self, trace: usize, key: &str, value: impl Into<Value>) {
        self.json["data"][trace][key] = value.into();
    }

    /// The height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The title's text without markup, or an empty string.
    pub fn title(&self) -> &str {
        let text = self.json["layout"]["title"]["text"].as_str().unwrap_or("");
        text.split("<br>").next().unwrap_or("")
    }

    /// The figure as an HTML file of its own: plotly.js is inside, nothing is fetched.
    pub fn to_html(&self) -> String {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    (no_network())
                    title { (PreEscaped(self.title())) }
                    script { (PreEscaped(plotly_js())) }
                }
                body style="margin:12px auto;max-width:1200px" { (self.to_inline("figure")) }
            }
        }
        .into_string()
    }

    /// The figure as a part of a page that has loaded plotly.js before it. `id` becomes the element's id: what is not a
    /// letter, digit, `-` or `_` is left out, and it must be unique on the page.
    pub fn to_inline(&self, id: &str) -> Markup {
        let id: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        // The data is not part of the code: it stands in a block that is never run, and is parsed as JSON.
        let data = json_for_script(&self.json.to_string());
        let draw = format!(
            "{{const f=JSON.parse(document.getElementById(\"{id}-data\").textContent);\
             Plotly.newPlot(\"{id}\",f.data,f.layout,f.config);}}"
        );
        html! {
            div id=(id) class="figure" style={ "height:" (self.height) "px" } {}
            script type="application/json" id={ (id) "-data" } { (PreEscaped(data)) }
            script { (PreEscaped(draw)) }
        }
    }
}

/// The policy of every page: scripts and styles of the page itself, and no request to anywhere.
pub(crate) fn no_network() -> Markup {
    html! {
        meta http-equiv="Content-Security-Policy"
            content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:";
    }
}

/// plotly.js, as the plotly crate embeds it. Its MathJax is left out: no figure sets formulas, and without it a token such
/// as `$x$` stays text.
pub(crate) fn plotly_js() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let all = Plot::offline_js_sources();
        let start = all.find('>').map_or(0, |at| at + 1);
        let end = all.find("</script>").unwrap_or(all.len());
        all[start..end].to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_plotly_alone() {
        let js = plotly_js();
        assert!(js.contains("plotly.js v"), "the banner names the library");
        assert!(!js.contains("</script"), "it may stand inside a script element");
        assert!((1 << 20..5 << 20).contains(&js.len()), "{} bytes: MathJax would make it more", js.len());
    }

    #[test]
    fn settings_without_a_name_can_be_set() {
        let figure = Figure::from_plot(&Plot::new(), 300).set_layout(&["legend", "entrywidth"], 90);
        assert_eq!(figure.json()["layout"]["legend"]["entrywidth"], 90);
        assert_eq!(figure.json()["layout"]["height"], 300);
        assert_eq!(figure.height(), 300);
    }
}
