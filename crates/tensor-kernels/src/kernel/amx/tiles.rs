//! The product of a panel with blocks of rows: all that tiles are used for.
//!
//! One block of assembly from the configuration of the tiles to their release: no tile is in use while compiled code runs.

use super::{Amx, ROWS, STEP, TILE};
use crate::TILE_COLS;
use crate::kernel::Part;
use std::arch::asm;
use std::mem::offset_of;

/// Bytes from one row of sums to the next.
const SUMS_LINE: usize = TILE_COLS * size_of::<f32>();

/// Arguments that the assembly reads from memory, because registers are short.
#[repr(C, align(64))]
struct Task {
    /// As `ldtilecfg` reads it: palette 1, then from byte 16 on the bytes of a row and from byte 48 on the rows of each tile.
    config: [u8; 64],
    /// 0 to begin with zeros, else to add to what is in the sums.
    add: u64,
    /// Number of steps.
    steps: u64,
    /// Bytes from the end of a block's steps to their beginning in the next block.
    rows_rest: u64,
    /// Bytes of the steps in a panel.
    cols_run: u64,
}

/// Eight tiles of 16 rows of 64 bytes.
const EIGHT_FULL_TILES: [u8; 64] = {
    let mut config = [0; 64];
    config[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        config[16 + 2 * tile] = 64;
        config[48 + tile] = 16;
        tile += 1;
    }
    config
};

/// `sums (+)= rows x columns` over the part's steps.
///
/// # Safety
/// Tiles must be available to this process, and the part's operands and `sums` as long as `Part::check` says.
pub(super) unsafe fn multiply<const P: usize>(part: &Part<'_>, sums: &mut [f32]) {
    let (step, steps) = (Amx::<P>::STEP_BYTES, part.steps.len());
    let (panel, offset) = (part.k.div_ceil(STEP) * step, part.steps.start * step);
    let task = Task {
        config: EIGHT_FULL_TILES,
        add: u64::from(part.steps.start > 0),
        steps: steps as u64,
        rows_rest: (panel - steps * step) as u64,
        cols_run: (steps * step) as u64,
    };
    let (rows, cols) = (part.blocks.as_ptr().wrapping_add(offset), part.panel.as_ptr().wrapping_add(offset));
    let blocks = part.rows.div_ceil(ROWS);
    if blocks > 0 {
        // SAFETY: as the caller promises.
        unsafe {
            if P == 1 { one_part(&task, rows, cols, sums, blocks) } else { two_parts(&task, rows, cols, sums, blocks) }
        }
    }
}

/// Everything but the steps themselves: those are lines of assembly that move `tmm0..tmm3`, the sums of (upper, lower) rows by (left,
/// right) columns, on by one step of `[{rows}]` and `[{cols}]`. They may use `tmm4..tmm7`.
///
/// `next` runs over the same steps of the following panel, which by then is on its way to the second-level cache, if there is one: a
/// prefetch of any address is allowed. 16 blocks, a full cell, fetch all of it.
macro_rules! run {
    (task: $task:ident, rows: $rows:ident, cols: $cols:ident, sums: $sums:ident, blocks: $blocks:ident,
     parts: $parts:literal, prefetch: [$($prefetch:literal),+], step: [$($line:literal),+ $(,)?]) => {
        asm!(
            "ldtilecfg [{task} + {config}]",
            "2:", // a block of rows
            "cmp qword ptr [{task} + {add}], 0",
            "jne 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 4f",
            "3:",
            "tileloadd tmm0, [{sums} + {sums_line}*1]",
            "tileloadd tmm1, [{sums} + {sums_line}*1 + {right}]",
            "tileloadd tmm2, [{sums} + {sums_line}*1 + {lower}]",
            "tileloadd tmm3, [{sums} + {sums_line}*1 + {lower} + {right}]",
            "4:",
            "mov {steps}, [{task} + {n_steps}]",
            "5:", // a step
            $($line,)+
            $($prefetch,)+
            "add {next}, {prefetched}",
            "add {rows}, {step}",
            "add {cols}, {step}",
            "dec {steps}",
            "jnz 5b",
            "tilestored [{sums} + {sums_line}*1], tmm0",
            "tilestored [{sums} + {sums_line}*1 + {right}], tmm1",
            "tilestored [{sums} + {sums_line}*1 + {lower}], tmm2",
            "tilestored [{sums} + {sums_line}*1 + {lower} + {right}], tmm3",
            "add {rows}, [{task} + {rows_rest}]",
            "sub {cols}, [{task} + {cols_run}]",
            "add {sums}, {sums_block}",
            "dec {blocks}",
            "jnz 2b",
            "tilerelease",
            task = in(reg) $task,
            rows = inout(reg) $rows => _,
            cols = inout(reg) $cols => _,
            sums = inout(reg) $sums.as_mut_ptr() => _,
            blocks = inout(reg) $blocks => _,
            steps = out(reg) _,
            next = inout(reg) $cols.wrapping_add($task.cols_run as usize + $task.rows_rest as usize) => _,
            line = in(reg) 64usize,
            sums_line = in(reg) SUMS_LINE,
            config = const offset_of!(Task, config),
            add = const offset_of!(Task, add),
            n_steps = const offset_of!(Task, steps),
            rows_rest = const offset_of!(Task, rows_rest),
            cols_run = const offset_of!(Task, cols_run),
            right = const 64,
            lower = const 16 * SUMS_LINE,
            step = const 2 * TILE * $parts,
            sums_block = const ROWS * SUMS_LINE,
            prefetched = const 128 * $parts,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// # Safety
/// As [`multiply`]; at least one block and one step.
unsafe fn one_part(task: &Task, rows: *const u8, cols: *const u8, sums: &mut [f32], blocks: usize) {
    // SAFETY: the blocks' and the panel's steps and the sums are as long as the caller promises; tiles are released at the end.
    unsafe {
        run!(task: task, rows: rows, cols: cols, sums: sums, blocks: blocks, parts: 1,
        prefetch: ["prefetcht1 [{next}]", "prefetcht1 [{next} + 64]"],
        step: [
            "tileloadd tmm4, [{rows} + {line}*1]",
            "tileloadd tmm6, [{cols} + {line}*1]",
            "tileloadd tmm7, [{cols} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{rows} + {line}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        ]);
    }
}

/// # Safety
/// As [`one_part`].
unsafe fn two_parts(task: &Task, rows: *const u8, cols: *const u8, sums: &mut [f32], blocks: usize) {
    // SAFETY: as in `one_part`.
    unsafe {
        run!(task: task, rows: rows, cols: cols, sums: sums, blocks: blocks, parts: 2,
        prefetch: [
            "prefetcht1 [{next}]", "prefetcht1 [{next} + 64]", "prefetcht1 [{next} + 128]", "prefetcht1 [{next} + 192]"
        ],
        step: [
            "tileloadd tmm4, [{rows} + {line}*1]", // high parts by low parts
            "tileloadd tmm6, [{cols} + {line}*1 + 2048]",
            "tileloadd tmm7, [{cols} + {line}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{rows} + {line}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{cols} + {line}*1]", // high by high
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm7, [{cols} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{rows} + {line}*1 + 2048]", // low by high
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{rows} + {line}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        ]);
    }
}
