//! A table of releases, gzipped or not, and what is asked of it.

use pretrained::{Query, Registry};

pub fn read(data: &[u8]) {
    let Ok(table) = Registry::read(data) else { return };
    let mut listed = 0;
    for release in table.releases() {
        let entries = table.entries(&release.name).expect("a release that is listed");
        assert_eq!(entries.len(), release.saes);
        listed += entries.len();
        for entry in entries.iter().take(32) {
            assert_eq!(&table.find(&release.name, &entry.sae_id).expect("an SAE that is listed"), entry);
            let _ = (entry.layer(), entry.open_options(), entry.format().files(&entry.path));
        }
        let _ = table.find(&release.name, "blocks.99.hook_resid_pre").map_err(|error| error.to_string());
    }
    assert_eq!(listed, table.len());
    let _ = table.release("gpt2-smal-res-jb").map_err(|error| error.to_string());
    if let Ok(query) = Query::parse("gpt2 layer 7 width 16k") {
        let _ = table.search(&query);
    }
}
