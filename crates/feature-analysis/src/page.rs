//! A page of figures, tables and words in one HTML file that opens offline.

use crate::Result;
use crate::plot::{Figure, Table, plotly_js};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::io::Write;
use std::path::Path;
use tensor_files::write_atomically;

/// A page: a title, a few facts, and sections with a list of them at the side.
///
/// The file holds everything that it needs: plotly.js once, however many figures there are, the style, the data. Its content
/// security policy forbids every request, so it shows the same with and without a network, and sends nothing.
///
/// ```
/// use feature_analysis::page::{Page, Section};
/// let mut page = Page::new("A page", "What it is about.");
/// page.fact("seed", "0").section(Section::new("words", "Words").text("Text is escaped: <b>."));
/// assert!(page.to_html().contains("&lt;b&gt;"));
/// ```
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    lead: String,
    facts: Vec<(String, String)>,
    sections: Vec<Section>,
}

/// A part of a page: a heading, and under it words, figures and tables in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Section {
    id: String,
    heading: String,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
enum Block {
    Text(String),
    Figure(Box<Figure>),
    Markup(Markup),
}

impl Page {
    /// An empty page with a sentence under its title.
    pub fn new(title: impl Into<String>, lead: impl Into<String>) -> Self {
        Self { title: title.into(), lead: lead.into(), facts: Vec::new(), sections: Vec::new() }
    }

    /// Adds a fact to the box at the top: what was run, on what, with which seed, what was left out.
    pub fn fact(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// Adds a section.
    pub fn section(&mut self, section: Section) -> &mut Self {
        self.sections.push(section);
        self
    }

    /// The page as one HTML document.
    pub fn to_html(&self) -> String {
        let has_figures = self.sections.iter().any(|s| s.blocks.iter().any(|b| matches!(b, Block::Figure(_))));
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    (crate::plot::no_network())
                    title { (self.title) }
                    style { (PreEscaped(include_str!("page.css"))) }
                    @if has_figures { script { (PreEscaped(plotly_js())) } }
                }
                body {
                    nav { @for section in &self.sections { a href={ "#" (section.id) } { (section.heading) } } }
                    main {
                        header {
                            h1 { (self.title) }
                            p class="lead" { (self.lead) }
                            @if !self.facts.is_empty() {
                                dl { @for (name, value) in &self.facts { div { dt { (name) } dd { (value) } } } }
                            }
                        }
                        @for section in &self.sections { (section.to_html()) }
                    }
                }
            }
        }
        .into_string()
    }

    /// Writes the page to a file, whole or not at all.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write(&self, path: &Path) -> Result<()> {
        let html = self.to_html();
        let io = |source| tensor_files::Error::Io { path: path.to_path_buf(), source };
        Ok(write_atomically(path, |file| file.write_all(html.as_bytes()).map_err(io))?)
    }
}

impl Section {
    /// An empty section; `id` is its anchor (letters, digits, `-` and `_` are kept).
    pub fn new(id: &str, heading: impl Into<String>) -> Self {
        let id = id.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        Self { id, heading: heading.into(), blocks: Vec::new() }
    }

    /// Adds a paragraph. The text is escaped.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Text(text.into()));
        self
    }

    /// Adds a figure.
    #[must_use]
    pub fn figure(mut self, figure: Figure) -> Self {
        self.blocks.push(Block::Figure(Box::new(figure)));
        self
    }

    /// Adds a table.
    #[must_use]
    pub fn table(self, table: &Table) -> Self {
        self.markup(table.to_html())
    }

    /// Adds markup, such as that of [`top_table`](crate::plot::top_table). It is not escaped again.
    #[must_use]
    pub fn markup(mut self, markup: Markup) -> Self {
        self.blocks.push(Block::Markup(markup));
        self
    }

    fn to_html(&self) -> Markup {
        html! {
            section id=(self.id) {
                h2 { (self.heading) }
                @for (i, block) in self.blocks.iter().enumerate() {
                    @match block {
                        Block::Text(text) => p { (text) },
                        Block::Figure(figure) => (figure.to_inline(&format!("{}-{i}", self.id))),
                        Block::Markup(markup) => (markup),
                    }
                }
            }
        }
    }
}
