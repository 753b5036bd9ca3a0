//! Room for keys and values that was asked for and is not used costs address space alone. One test in a program of its own: the system
//! counts memory for the whole process.
#![cfg(target_os = "linux")]

use tensor_kernels::{Arithmetic, KeyValuePanels};

/// Resident memory of this process in bytes, in pages of 4 KiB.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn room_is_resident_where_it_is_used() {
    for arithmetic in Arithmetic::available() {
        let (room, heads, d_head) = (8_192, 32, 64);
        let before = resident();
        let mut panels = KeyValuePanels::new(arithmetic, 1, room, heads, d_head).unwrap();
        // 64 MiB at the least: keys of one head fill a huge page or half of one.
        assert!(panels.bytes() >= 64 << 20);
        let new = vec![1.0; 40 * heads * d_head];
        panels.append(0, 40, &new, &new).unwrap();
        let taken = resident().saturating_sub(before);
        assert!(taken < panels.bytes() / 8, "{arithmetic}: {taken} bytes are resident of {}", panels.bytes());
    }
}
