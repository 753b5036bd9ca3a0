//! A list of interventions, and the file of tensors that it names (`t`).

use crate::harness;
use model_hooks::Interventions;

pub fn read(data: &[u8]) {
    let [list, tensors] = harness::parts(data);
    let path = harness::file("list.json", list);
    harness::file_if_any("t", tensors);
    if let Ok(list) = Interventions::load(&path) {
        let _ = list.tap(harness::folder());
        let _ = list.save(&harness::folder().join("again.json"));
    }
}
