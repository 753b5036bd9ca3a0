//! Whether this process may use AMX.

use crate::kernel::{avx512::Avx512, single::Single};
use std::sync::OnceLock;

/// Whether the processor has AMX with bf16 beside AVX-512, and the system lets this process use it. Asks once.
///
/// Code that is compiled with `--cfg saescope_amx_emulated` believes it: its tests run under `tools/amx-emulator`.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    let has_amx = || cfg!(saescope_amx_emulated) || (processor_has_amx() && system_allows_tiles());
    *AVAILABLE.get_or_init(|| Avx512::is_available() && has_amx())
}

/// CPUID leaf 7, and the two bits of XCR0 that say that the system keeps tiles apart between threads.
///
/// The standard library's feature detection knows AMX, but not yet on stable Rust (rust-lang/rust#126622).
fn processor_has_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const AMX_BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const TILE_CONFIG_AND_DATA: u64 = 1 << 17 | 1 << 18;

    #[target_feature(enable = "xsave")]
    fn enabled_state() -> u64 {
        // SAFETY: register 0 is there wherever the instruction is.
        unsafe { _xgetbv(0) }
    }
    let named = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_BF16_AND_TILE == AMX_BF16_AND_TILE;
    // SAFETY: the caller found AVX-512, which is reported only where the system uses XSAVE and lets programs ask.
    named && unsafe { enabled_state() } & TILE_CONFIG_AND_DATA == TILE_CONFIG_AND_DATA
}

/// Linux enlarges a process's saved state by 8 KiB of tiles only for those that ask. The answer holds for all its threads.
#[cfg(target_os = "linux")]
fn system_allows_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: changes nothing but the process's permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Not supported on other systems.
#[cfg(not(target_os = "linux"))]
fn system_allows_tiles() -> bool {
    false
}
