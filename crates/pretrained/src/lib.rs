//! Published SAEs by name. So far only the data: [`RELEASES`].

/// The table of published SAEs: 170 releases, 13,857 SAEs. A gzip file of tab-separated text; `data/README.md` says what its lines hold.
pub const RELEASES: &[u8] = include_bytes!("../data/releases.tsv.gz");
