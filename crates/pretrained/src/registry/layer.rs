//! Numbers of layers in names.

/// The layer that a hook point or the name of an SAE speaks of: `blocks.7.`, `layer_7`, `layers.7`, `layer7`.
pub(super) fn of(name: &str) -> Option<usize> {
    place(name).and_then(|(start, end)| name[start..end].parse().ok())
}

/// Where the number of the layer stands.
fn place(name: &str) -> Option<(usize, usize)> {
    for word in ["blocks.", "layers.", "layer_", "layer.", "layer"] {
        for (at, _) in name.match_indices(word) {
            let start = at + word.len();
            let digits = name[start..].bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                return Some((start, start + digits));
            }
        }
    }
    None
}

/// For a name whose layer does not exist: the same name with the layers that do, `blocks.{0..11}.hook_resid_pre`.
pub(super) fn others(name: &str, ids: &[&str]) -> Option<String> {
    let (start, end) = place(name)?;
    let (before, after) = (&name[..start], &name[end..]);
    let mut layers: Vec<usize> = ids
        .iter()
        .filter_map(|id| id.strip_prefix(before)?.strip_suffix(after))
        .filter_map(|layer| layer.parse().ok())
        .collect();
    if layers.is_empty() {
        return None;
    }
    layers.sort_unstable();
    layers.dedup();
    Some(format!("{before}{{{}}}{after}", ranges(&layers)))
}

/// `0..11, 13` of numbers in order.
fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let said = runs.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}..{b}") });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_in_hook_points_and_names() {
        for (name, layer) in [
            ("blocks.7.hook_resid_pre", Some(7)),
            ("layer_20/width_16k/average_l0_71", Some(20)),
            ("layers.3.mlp", Some(3)),
            ("layer12", Some(12)),
            ("embedding/width_4k", None),
            ("layer_norm", None),
        ] {
            assert_eq!(of(name), layer, "{name}");
        }
    }

    #[test]
    fn the_layers_that_exist_are_named() {
        let ids = ["blocks.0.x", "blocks.1.x", "blocks.2.x", "blocks.5.x", "blocks.9.y"];
        assert_eq!(others("blocks.12.x", &ids).as_deref(), Some("blocks.{0..2, 5}.x"));
        assert_eq!(others("blocks.12.z", &ids), None);
    }
}
