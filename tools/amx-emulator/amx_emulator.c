// Runs AMX's tile and bf16 instructions on x86-64 Linux machines that do not have them, so that code written for them can be tested.
//
// A shared library for LD_PRELOAD. The processor raises SIGILL at the first instruction that it does not know; the handler here
// decodes it, does what Intel's manual says (Software Developer's Manual, volume 2, and volume 1 chapter 18) and moves on to the next.
// Known: LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED, TDPBF16PS. Where the manual asks for a fault
// the process ends with a message. Any other illegal instruction ends the process as it would without this library.
//
// What it cannot do: CPUID still says that there is no AMX, and no instruction is timed. Every thread has its tiles, as on the machine;
// a signal handler that used tiles of its own would find the interrupted thread's.
//
// With AMX_EMULATOR_REPORT set, each process that used a tile says at its end which instructions ran how often.
//
// Build: cc -O3 -mavx2 -mfma -fPIC -shared -o libamx_emulator.so amx_emulator.c

#define _GNU_SOURCE
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

// ---- What a thread's tile unit holds -------------------------------------------------------------------------------------------

// The 64 bytes that LDTILECFG reads.
struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[TILES], reserved_row_bytes[8];
    uint8_t rows[TILES], reserved_rows[8];
};
_Static_assert(sizeof(struct config) == 64, "the layout is the processor's");

// A preloaded library's thread-local memory is there when a thread starts: a signal handler may use it.
static __thread struct config config;
static __thread uint8_t tiles[TILES][ROWS][ROW_BYTES] __attribute__((aligned(64)));

// ---- Leaving ---------------------------------------------------------------------------------------------------------------------

// The processor would fault here: the program is wrong.
static void fault(const char *what) {
    static const char who[] = "amx_emulator: ";
    (void)!write(STDERR_FILENO, who, sizeof who - 1);
    (void)!write(STDERR_FILENO, what, strlen(what));
    (void)!write(STDERR_FILENO, "\n", 1);
    abort();
}

static void ask(int holds, const char *what) {
    if (!holds) fault(what);
}

// ---- Instructions ----------------------------------------------------------------------------------------------------------------

static void zero_tiles(void) {
    memset(tiles, 0, sizeof tiles);
}

static void tilerelease(void) {
    memset(&config, 0, sizeof config);
    zero_tiles();
}

static void ldtilecfg(const uint8_t *at) {
    struct config new;
    memcpy(&new, at, sizeof new);
    if (new.palette == 0) {
        tilerelease();
        return;
    }
    ask(new.palette == 1, "ldtilecfg: no such palette");
    ask(new.start_row == 0, "ldtilecfg: a start row is for interrupted loads, which this emulator never leaves behind");
    static const struct config zeros;
    ask(memcmp(new.reserved, zeros.reserved, sizeof zeros.reserved) == 0 &&
            memcmp(new.reserved_row_bytes, zeros.reserved_row_bytes, sizeof zeros.reserved_row_bytes) == 0 &&
            memcmp(new.reserved_rows, zeros.reserved_rows, sizeof zeros.reserved_rows) == 0,
        "ldtilecfg: reserved bytes must be zero");
    for (int t = 0; t < TILES; t++) {
        ask(new.row_bytes[t] <= ROW_BYTES && new.rows[t] <= ROWS, "ldtilecfg: a tile has at most 16 rows of 64 bytes");
        ask((new.row_bytes[t] == 0) == (new.rows[t] == 0), "ldtilecfg: a tile has rows without bytes, or bytes without rows");
    }
    config = new;
    zero_tiles();
}

static void sttilecfg(uint8_t *at) {
    memcpy(at, &config, sizeof config);
}

static void ask_configured(int tile) {
    ask(tile < TILES, "there are eight tiles");
    ask(config.palette == 1, "tiles are used before ldtilecfg");
    ask(config.rows[tile] > 0, "a tile is used that the configuration leaves out");
}

static void tilezero(int tile) {
    ask_configured(tile);
    memset(tiles[tile], 0, sizeof tiles[tile]);
}

// Rows lie `stride` bytes apart, which may be 0 or negative. What the tile's shape leaves out becomes zero.
static void tileload(int tile, const uint8_t *at, int64_t stride) {
    tilezero(tile);
    for (int row = 0; row < config.rows[tile]; row++) memcpy(tiles[tile][row], at + row * stride, config.row_bytes[tile]);
}

static void tilestore(int tile, uint8_t *at, int64_t stride) {
    ask_configured(tile);
    for (int row = 0; row < config.rows[tile]; row++) memcpy(at + row * stride, tiles[tile][row], config.row_bytes[tile]);
}

// The first bf16 of each pair, and the second, as f32.
static __m256 first(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

static __m256 second(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

// C += A B, with A's and B's values in pairs: A [rows][pair of k][2], B [pair of k][columns][2].
//
// For each row two chains of fused multiply-adds start from zero, one over the first values of all pairs and one over the second;
// their sum is added to C. Rounded to nearest even; subnormal numbers count as zero, as inputs and as results of every operation.
static void tdpbf16ps(int c, int a, int b) {
    ask(c != a && c != b && a != b, "tdpbf16ps: the three tiles must differ");
    ask_configured(c), ask_configured(a), ask_configured(b);
    int rows = config.rows[c], pairs = config.row_bytes[a] / 4, cols = config.row_bytes[c] / 4;
    ask(config.row_bytes[a] % 4 == 0 && config.row_bytes[b] % 4 == 0 && config.row_bytes[c] % 4 == 0, "tdpbf16ps: rows of whole pairs");
    ask(config.rows[a] == rows && config.rows[b] == pairs && config.row_bytes[b] / 4 == cols, "tdpbf16ps: the tiles' shapes do not fit");
    unsigned mxcsr = _mm_getcsr();
    _mm_setcsr(0x1f80 | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON); // all exceptions masked, to nearest even
    for (int row = 0; row < rows; row++) {
        for (int half = 0; half < ROW_BYTES; half += 32) { // eight columns; those that b does not have are zero, and cut below
            __m256 even = _mm256_setzero_ps(), odd = even, *sum = (__m256 *)(tiles[c][row] + half);
            for (int pair = 0; pair < pairs; pair++) {
                int x_pair;
                memcpy(&x_pair, tiles[a][row] + 4 * pair, 4);
                __m256i x = _mm256_set1_epi32(x_pair), w = *(__m256i *)(tiles[b][pair] + half);
                even = _mm256_fmadd_ps(first(x), first(w), even);
                odd = _mm256_fmadd_ps(second(x), second(w), odd);
            }
            *sum = _mm256_add_ps(*sum, _mm256_add_ps(even, odd));
        }
        memset(tiles[c][row] + 4 * cols, 0, ROW_BYTES - 4 * (size_t)cols);
    }
    memset(tiles[c][rows], 0, (size_t)(ROWS - rows) * ROW_BYTES);
    _mm_setcsr(mxcsr);
}

// ---- Decoding --------------------------------------------------------------------------------------------------------------------

// A VEX instruction of the map 0F38: C4, three inverted register bits and the map, then W, an inverted register number, length and
// prefix; opcode; ModRM; with a memory operand perhaps SIB and displacement.
struct instruction {
    int prefix, opcode, vvvv; // prefix: 0 none, 1 66, 2 F3, 3 F2
    int mod, reg, rm;         // of ModRM, register numbers with their fourth bits
    int has_sib;
    int64_t address, stride; // of the memory operand: base plus displacement, and the scaled index register
    int length;
};

// Register numbers as instructions count them, as places in the signal's frame.
static const int REGISTERS[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static int64_t displacement(const uint8_t *at, int bytes) {
    int32_t wide = 0;
    if (bytes == 1) return (int8_t)*at;
    if (bytes == 4) memcpy(&wide, at, 4);
    return wide;
}

// The memory operand of an instruction whose ModRM byte is at `code[4]`.
static void decode_memory(const uint8_t *code, const greg_t *registers, int x_bit, int b_bit, struct instruction *i) {
    int at = 5, low = code[4] & 7, bytes = i->mod == 1 ? 1 : i->mod == 2 ? 4 : 0;
    i->has_sib = low == 4;
    int base = i->rm, has_base = 1;
    if (i->has_sib) {
        int sib = code[at++], index = (sib >> 3 & 7) | x_bit << 3;
        if (index != 4) i->stride = registers[REGISTERS[index]] * ((int64_t)1 << (sib >> 6)); // 4 means that there is none
        base = (sib & 7) | b_bit << 3;
        has_base = !((sib & 7) == 5 && i->mod == 0);
    }
    int after_instruction = !i->has_sib && low == 5 && i->mod == 0; // relative to the next instruction
    if (!has_base || after_instruction) bytes = 4;
    i->length = at + bytes;
    i->address = displacement(code + at, bytes);
    if (after_instruction)
        i->address += (int64_t)(uintptr_t)code + i->length;
    else if (has_base)
        i->address += registers[REGISTERS[base]];
}

// Whether the bytes are a VEX instruction of 128 bits and W = 0 in the map 0F38.
static int decode(const uint8_t *code, const greg_t *registers, struct instruction *i) {
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) return 0;
    int r_bit = !(code[1] & 0x80), x_bit = !(code[1] & 0x40), b_bit = !(code[1] & 0x20);
    *i = (struct instruction){.prefix = code[2] & 3, .vvvv = ~code[2] >> 3 & 15, .opcode = code[3], .mod = code[4] >> 6};
    i->reg = (code[4] >> 3 & 7) | r_bit << 3;
    i->rm = (code[4] & 7) | b_bit << 3;
    i->length = 5;
    if (i->mod != 3) decode_memory(code, registers, x_bit, b_bit, i);
    return 1;
}

// ---- One instruction after another -----------------------------------------------------------------------------------------------

enum kind { LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED, TDPBF16PS, KINDS };
static const char *const NAMES[KINDS] = {"ldtilecfg", "sttilecfg", "tilerelease", "tilezero",
                                         "tileloadd", "tileloaddt1", "tilestored", "tdpbf16ps"};
static uint64_t counts[KINDS];

static int kind_of(const struct instruction *i) {
    enum { NONE, P66, PF3, PF2 };
    int memory = i->mod != 3;
    if (i->opcode == 0x5c) return !memory && i->prefix == PF3 ? TDPBF16PS : KINDS;
    if (i->vvvv != 0) return KINDS;
    if (i->opcode == 0x4b && memory && i->has_sib)
        return i->prefix == PF2 ? TILELOADD : i->prefix == P66 ? TILELOADDT1 : i->prefix == PF3 ? TILESTORED : KINDS;
    if (i->opcode != 0x49) return KINDS;
    if (!memory && i->prefix == PF2 && i->rm == 0) return TILEZERO;
    if (i->reg != 0) return KINDS;
    if (!memory) return i->prefix == NONE && i->rm == 0 ? TILERELEASE : KINDS;
    return i->prefix == NONE ? LDTILECFG : i->prefix == P66 ? STTILECFG : KINDS;
}

// Runs the instruction at the frame's RIP if it is one of AMX's.
static int step(greg_t *registers) {
    struct instruction i;
    if (!decode((const uint8_t *)registers[REG_RIP], registers, &i)) return 0;
    uint8_t *at = (uint8_t *)i.address;
    int kind = kind_of(&i);
    switch (kind) {
    case LDTILECFG: ldtilecfg(at); break;
    case STTILECFG: sttilecfg(at); break;
    case TILERELEASE: tilerelease(); break;
    case TILEZERO: tilezero(i.reg); break;
    case TILELOADD:
    case TILELOADDT1: tileload(i.reg, at, i.stride); break;
    case TILESTORED: tilestore(i.reg, at, i.stride); break;
    case TDPBF16PS: tdpbf16ps(i.reg, i.rm, i.vvvv); break;
    default: return 0;
    }
    __atomic_fetch_add(&counts[kind], 1, __ATOMIC_RELAXED);
    registers[REG_RIP] += i.length;
    return 1;
}

static void on_illegal_instruction(int signal_number, siginfo_t *info, void *context) {
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (!step(registers)) { // returns to the same instruction, which then ends the process
        signal(signal_number, SIG_DFL);
        return;
    }
    while (step(registers)) {} // their neighbours too: a signal costs more than most of them
}

// On the thread's own stack: the alternate ones that runtimes install are made for less than this handler's frame.
__attribute__((constructor)) static void install(void) {
    struct sigaction action = {.sa_sigaction = on_illegal_instruction, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGILL, &action, NULL) != 0) fault("no handler of SIGILL can be installed");
}

__attribute__((destructor)) static void report(void) {
    uint64_t all = 0;
    for (int kind = 0; kind < KINDS; kind++) all += counts[kind];
    if (all == 0 || getenv("AMX_EMULATOR_REPORT") == NULL) return;
    fprintf(stderr, "amx_emulator:");
    for (int kind = 0; kind < KINDS; kind++)
        if (counts[kind] > 0) fprintf(stderr, " %s %llu", NAMES[kind], (unsigned long long)counts[kind]);
    fprintf(stderr, "\n");
}
