//! Which color and which symbol a token gets.

use plotly::common::MarkerSymbol;

/// Twenty-four colors that can be told apart on white, the plainest first.
///
/// Chosen by hand and checked in OKLab: any two of the first twenty are at least 0.10 apart, any two at all 0.08 (a test
/// holds it; 0.02 is about what an eye can see side by side).
pub const PALETTE: [&str; 24] = [
    "#2563d9", "#f0711b", "#22963c", "#d3222c", "#8a3fd1", "#0fb0bd", "#c99700", "#7a4a21", "#f062b8", "#16205c",
    "#8fbf1a", "#7a0f36", "#f79d8c", "#a89bf2", "#0c5030", "#62bcfa", "#bb12b0", "#45d6a0", "#6b6d10", "#f5d313",
    "#d6b98a", "#111111", "#447d99", "#868c96",
];

/// The symbols, each used for all colors before the next begins.
const SYMBOLS: [MarkerSymbol; 8] = [
    MarkerSymbol::Circle,
    MarkerSymbol::Diamond,
    MarkerSymbol::TriangleUp,
    MarkerSymbol::Square,
    MarkerSymbol::Cross,
    MarkerSymbol::TriangleDown,
    MarkerSymbol::X,
    MarkerSymbol::Star,
];

/// Color and symbol of one group of points.
#[derive(Clone, Debug)]
pub struct MarkerStyle {
    /// A color of [`PALETTE`].
    pub color: &'static str,
    /// The symbol that plotly draws.
    pub symbol: MarkerSymbol,
}

/// The style of the group of this rank (0 is the commonest): the colors in order, then again with the next symbol.
///
/// The first 192 ranks get 192 different pairs; after that they repeat.
pub fn marker_style(rank: usize) -> MarkerStyle {
    let symbol = SYMBOLS[rank / PALETTE.len() % SYMBOLS.len()].clone();
    MarkerStyle { color: PALETTE[rank % PALETTE.len()], symbol }
}

/// Background of a token whose value is `value` on a scale that ends at `most`: white to amber, or to blue below zero.
///
/// The text on it stays dark and readable (the deepest shade has a contrast above 7 with the page's text color).
pub(crate) fn shade(value: f32, most: f32) -> Option<String> {
    if !value.is_finite() || value == 0.0 || !most.is_finite() || most <= 0.0 {
        return None;
    }
    let strength = (value.abs() / most).min(1.0);
    let rgb = if value > 0.0 { "255,159,28" } else { "76,141,245" };
    Some(format!("background:rgba({rgb},{:.2})", 0.15 + 0.75 * strength))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// sRGB `#rrggbb` to OKLab (Ottosson 2020).
    fn oklab(hex: &str) -> [f64; 3] {
        let channel = |at: usize| {
            let c = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let [r, g, b] = [channel(1), channel(3), channel(5)];
        let l = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b).cbrt();
        let m = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b).cbrt();
        let s = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b).cbrt();
        [
            0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
            1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
            0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
        ]
    }

    fn apart(a: &str, b: &str) -> f64 {
        oklab(a).iter().zip(oklab(b)).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn colors_are_far_apart_and_not_white() {
        for (i, a) in PALETTE.iter().enumerate() {
            assert!(apart(a, "#ffffff") > 0.15, "{a} is hard to see on white");
            for (j, b) in PALETTE.iter().enumerate().take(i) {
                let least = if i < 20 { 0.10 } else { 0.08 };
                assert!(apart(a, b) > least, "{j} {b} and {i} {a}: {:.3}", apart(a, b));
            }
        }
    }

    #[test]
    fn twenty_colors_and_fifty_pairs_are_distinct() {
        let colors: BTreeSet<_> = (0..20).map(|r| marker_style(r).color).collect();
        assert_eq!(colors.len(), 20);
        let pairs: BTreeSet<_> = (0..192).map(|r| format!("{:?}", marker_style(r))).collect();
        assert_eq!(pairs.len(), 192);
    }

    #[test]
    fn shades_grow_with_the_value() {
        assert_eq!(shade(0.0, 1.0), None);
        assert_eq!(shade(f32::NAN, 1.0), None);
        assert_eq!(shade(1.0, 0.0), None);
        assert_eq!(shade(2.0, 2.0).unwrap(), "background:rgba(255,159,28,0.90)");
        assert_eq!(shade(-9.0, 2.0).unwrap(), "background:rgba(76,141,245,0.90)");
        assert!(shade(0.1, 2.0) < shade(1.0, 2.0));
    }
}
