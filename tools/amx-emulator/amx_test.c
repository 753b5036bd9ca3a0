// What the emulator promises, instruction by instruction: addressing, tile shapes, the order and rounding of the sums, threads.
// Passes on a machine with AMX, and with the emulator preloaded on one without: tools/checks/check_amx.sh runs it.
//
// Build: cc -O1 -ffp-contract=off -o amx_test amx_test.c -lm -lpthread

#define _GNU_SOURCE
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHECK(holds, ...)                                                                                                          \
    do {                                                                                                                           \
        if (!(holds)) {                                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #holds);                                                            \
            fprintf(stderr, __VA_ARGS__);                                                                                          \
            fprintf(stderr, "\n");                                                                                                 \
            exit(1);                                                                                                               \
        }                                                                                                                          \
    } while (0)

// All addresses that an instruction may take are in memory that the compiler must not think it knows.
#define ASM(...) __asm__ volatile(__VA_ARGS__ : "memory")

struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static struct config config_of(const int shapes[][2], int tiles) {
    struct config c = {.palette = 1};
    for (int t = 0; t < tiles; t++) c.rows[t] = shapes[t][0], c.row_bytes[t] = shapes[t][1];
    return c;
}

static uint64_t random_state = 88172645463325252u;

static uint64_t random_bits(void) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return random_state >> 11;
}

static void fill(uint8_t *at, size_t n) {
    for (size_t i = 0; i < n; i++) at[i] = random_bits();
}

static uint16_t bf16(double x) { // exact values only
    float f = x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    CHECK(f == x && (bits & 0xffff) == 0, "%g is no bf16", x);
    return bits >> 16;
}

static double wide(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

// ---- Addressing ------------------------------------------------------------------------------------------------------------------

static uint8_t in[1 << 16], out[1 << 16];

// Loads with `load` (whose operand is written over rax = in + 4096 and rcx = 80), stores plainly, and compares with rows from `first`
// on, `stride` apart.
#define CHECK_LOAD(load, first, stride)                                                                                            \
    do {                                                                                                                           \
        memset(out, 0xaa, sizeof out);                                                                                             \
        __asm__ volatile("mov %%rax, %%r8\n\t mov %%rax, %%r13\n\t mov %%rcx, %%r9\n\t mov %%rcx, %%r12\n\t" load "\n\t"           \
            "mov %2, %%r8\n\t mov $64, %%r9d\n\t tilestored %%tmm5, (%%r8,%%r9,1)" ::"a"(in + 4096), "c"(80l), "r"(out)            \
            : "memory", "r8", "r9", "r12", "r13");                                                                                 \
        for (int row = 0; row < 7; row++)                                                                                          \
            CHECK(memcmp(out + 64 * row, in + (first) + row * (long)(stride), 28) == 0, "%s row %d", load, row);                   \
        CHECK(out[28] == 0xaa && out[64 * 7] == 0xaa, "%s wrote beyond the tile", load);                                           \
    } while (0)

static void addressing(void) {
    const int shapes[8][2] = {{16, 64}, {1, 4}, {16, 64}, {16, 64}, {3, 8}, {7, 28}, {16, 64}, {16, 64}};
    struct config c = config_of(shapes, 8), back;
    fill(in, sizeof in);
    ASM("ldtilecfg %0\n\t sttilecfg %1" ::"m"(c), "m"(back));
    CHECK(memcmp(&c, &back, sizeof c) == 0, "the configuration as it was set");
    CHECK_LOAD("tileloadd (%%rax,%%rcx,1), %%tmm5", 4096, 80);
    CHECK_LOAD("tileloaddt1 (%%rax,%%rcx,1), %%tmm5", 4096, 80);
    CHECK_LOAD("tileloadd (%%rax,%%rcx,4), %%tmm5", 4096, 320);
    CHECK_LOAD("tileloadd 8(%%rax,%%rcx,2), %%tmm5", 4104, 160);
    CHECK_LOAD("tileloadd -128(%%rax,%%rcx,8), %%tmm5", 4096 - 128, 640);
    CHECK_LOAD("tileloadd 1024(%%rax,%%rcx,1), %%tmm5", 5120, 80);
    CHECK_LOAD("tileloadd -1024(%%r8,%%rcx,1), %%tmm5", 4096 - 1024, 80);
    CHECK_LOAD("tileloadd 3(%%rax,%%r9,1), %%tmm5", 4099, 80);
    CHECK_LOAD("tileloadd (%%r13,%%r12,1), %%tmm5", 4096, 80);
    CHECK_LOAD("tileloadd 0x1234(%%r13,%%r12,2), %%tmm5", 4096 + 0x1234, 160);
    CHECK_LOAD("neg %%r9\n\t tileloadd (%%rax,%%r9,1), %%tmm5", 4096, -80);
    CHECK_LOAD("tileloadd (%%rax), %%tmm5", 4096, 0); // no index: every row the same
    CHECK_LOAD("tileloadd (%%rax,%%rcx,1), %%tmm5\n\t tileloadd (%%rax,%%rcx,1), %%tmm4", 4096, 80);
    // An address without a base.
    uint8_t *fixed = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(fixed == (uint8_t *)0x10000000, "no memory there");
    memcpy(fixed, in + 4096, 4096);
    CHECK_LOAD("tileloadd 0x10000010(,%%rcx,1), %%tmm5", 4096 + 16, 80);
    // A configuration relative to the next instruction; a store.
    static struct config fixed_config;
    fixed_config = c;
    ASM("ldtilecfg %0" ::"m"(fixed_config));
    memset(out, 0, sizeof out);
    ASM("tileloadd (%0,%1,1), %%tmm4\n\t tilestored %%tmm4, 12(%2,%1,2)" ::"r"(in), "r"(48l), "r"(out));
    for (int row = 0; row < 3; row++) CHECK(memcmp(out + 12 + 96 * row, in + 48 * row, 8) == 0, "row %d", row);
    // Zeros; and releasing forgets the configuration.
    ASM("tilezero %%tmm4\n\t tilestored %%tmm4, (%0,%1,1)" ::"r"(out), "r"(64l));
    for (int i = 0; i < 3 * 64; i++) CHECK(out[i] == 0 || i % 64 >= 8, "byte %d", i);
    ASM("tilerelease\n\t sttilecfg %0" ::"m"(back));
    CHECK(back.palette == 0 && back.rows[5] == 0, "released");
}

// ---- Sums ------------------------------------------------------------------------------------------------------------------------

// c [rows][cols] += a [rows][pairs][2] * b [pairs][cols][2], by one instruction on tiles of just these shapes.
static void dot(int rows, int pairs, int cols, const uint16_t *a, const uint16_t *b, float *c) {
    const int shapes[8][2] = {{0, 0}, {rows, 4 * cols}, {0, 0}, {rows, 4 * pairs}, {0, 0}, {0, 0}, {pairs, 4 * cols}, {0, 0}};
    struct config config = config_of(shapes, 8);
    ASM("ldtilecfg %0\n\t tileloadd (%1,%4,1), %%tmm1\n\t tileloadd (%2,%5,1), %%tmm3\n\t tileloadd (%3,%4,1), %%tmm6\n\t"
        "tdpbf16ps %%tmm6, %%tmm3, %%tmm1\n\t tilestored %%tmm1, (%1,%4,1)\n\t tilerelease" ::"m"(config),
        "r"(c), "r"(a), "r"(b), "r"(4l * cols), "r"(4l * pairs));
}

static void against_f64(void) {
    for (int i = 0; i < 2000; i++) {
        int rows = 1 + random_bits() % 16, pairs = 1 + random_bits() % 16, cols = 1 + random_bits() % 16;
        uint16_t a[16 * 32], b[16 * 32];
        float c[256], was[256];
        for (int j = 0; j < 512; j++) { // exponents from -16 to 16
            a[j] = (random_bits() & 0x807f) | (111 + random_bits() % 32) << 7;
            b[j] = (random_bits() & 0x807f) | (111 + random_bits() % 32) << 7;
        }
        for (int j = 0; j < 256; j++) was[j] = c[j] = (double)random_bits() / (1ull << 45) - 100;
        dot(rows, pairs, cols, a, b, c);
        for (int m = 0; m < rows; m++)
            for (int n = 0; n < cols; n++) {
                double sum = was[m * cols + n], size = fabs(sum);
                for (int k = 0; k < 2 * pairs; k++) {
                    double term = wide(a[m * 2 * pairs + k]) * wide(b[k / 2 * 2 * cols + 2 * n + k % 2]);
                    sum += term, size += fabs(term);
                }
                double error = fabs(c[m * cols + n] - sum);
                CHECK(error <= (pairs + 2) * 0x1p-24 * size, "%d x %d x %d at %d, %d: %g", rows, pairs, cols, m, n, error);
            }
    }
}

// One output of three pairs: c + (e0 + e1 + e2) + (o0 + o1 + o2), each e and o a product x * w.
static float one(float c, const double x[6], const double w[6]) {
    uint16_t a[6], b[6];
    for (int k = 0; k < 6; k++) a[k] = bf16(x[k]), b[k] = bf16(w[k]);
    dot(1, 3, 1, a, b, &c);
    return c;
}
#define X(...) ((const double[6]){__VA_ARGS__})
static const double ONES[6] = {1, 1, 1, 1, 1, 1};

static void rounding(void) {
    // 2^24 + 1 is no float: it becomes 2^24. Two ones of the other chain are added to each other before they meet it.
    CHECK(one(0, X(0x1p24, 1, 1, 1, 1, 0), ONES) == 0x1p24f + 2, "two chains");
    CHECK(one(0, X(1, 0x1p24, 1, 1, 0, 1), ONES) == 0x1p24f + 2, "two chains");
    CHECK(one(0, X(1, 0, 0x1p24, 0, 1, 0), ONES) == 0x1p24f, "in order: (1 + 2^24) + 1");
    CHECK(one(0, X(1, 0, 1, 0, 0x1p24, 0), ONES) == 0x1p24f + 2, "in order: (1 + 1) + 2^24");
    // What was in the tile comes last, to the sum of the chains.
    CHECK(one(1, X(0x1p24, 2, 0, 0, 0, 0), ONES) == 0x1p24f + 4, "1 + (2^24 + 2), to even");
    CHECK(one(0x1p24f, X(1, 1, 1, 0, 0, 0), ONES) == 0x1p24f + 4, "2^24 + 3, to even");
    CHECK(one(0x1p24f, X(1, 0, 0, 0, 0, 0), ONES) == 0x1p24f, "2^24 + 1, to even");
    // Subnormal numbers are zero: as inputs, as what was there, as each step's result.
    CHECK(one(0, X(0x1p-127, 0, 0, 0, 0, 0), X(0x1p100, 0, 0, 0, 0, 0)) == 0, "x");
    CHECK(one(0, X(0x1p100, 0, 0, 0, 0, 0), X(0x1p-127, 0, 0, 0, 0, 0)) == 0, "w");
    CHECK(one(0x1p-127f, X(0, 0, 0, 0, 0, 0), ONES) == 0, "c");
    CHECK(one(0, X(0x1p-64, 0, 0x1p-64, 0, 0, 0), X(0x1p-63, 0, 0x1p-63, 0, 0, 0)) == 0, "2^-127 + 2^-127");
    CHECK(one(0, X(0x1p-63, 0, 0x1p-64, 0, 0, 0), X(0x1p-63, 0, -0x1p-63, 0, 0, 0)) == 0, "2^-126 - 2^-127");
    CHECK(one(0, X(0x1p-63, 0, 0x1p-64, 0, 0, 0), X(0x1p-63, 0, 0x1p-63, 0, 0, 0)) == 0x1.8p-126f, "a product is not rounded before it is added");
    CHECK(one(0x1p-126f, X(-0x1p-64, 0, 0, 0, 0, 0), X(0x1p-63, 0, 0, 0, 0, 0)) == 0x1p-126f, "the chain's end is");
    // Infinities and what is no number.
    CHECK(one(0, X(INFINITY, 1, 0, 0, 0, 0), ONES) == INFINITY, "inf");
    CHECK(isnan(one(0, X(INFINITY, -INFINITY, 0, 0, 0, 0), ONES)), "inf - inf");
    CHECK(isnan(one(0, X(INFINITY, 0, 0, 0, 0, 0), X(0, 1, 1, 1, 1, 1))), "inf * 0");
    CHECK(one(0, X(0x1p127, 0x1p127, 0, 0, 0, 0), ONES) == INFINITY, "overflow");
    CHECK(isnan(one(NAN, X(1, 1, 0, 0, 0, 0), ONES)), "nan");
    // The program's own rounding mode is neither asked nor changed.
    unsigned up = (_mm_getcsr() & ~_MM_ROUND_MASK) | _MM_ROUND_UP;
    _mm_setcsr(up);
    float sum = one(0x1p24f, X(1, 0, 0, 0, 0, 0), ONES);
    unsigned after = _mm_getcsr();
    _mm_setcsr((up & ~_MM_ROUND_MASK) | _MM_ROUND_NEAREST);
    CHECK(sum == 0x1p24f && (after & _MM_ROUND_MASK) == _MM_ROUND_UP, "rounding mode");
}

// ---- Threads ---------------------------------------------------------------------------------------------------------------------

static pthread_barrier_t barrier;

// Each thread loads a tile of its own, waits for the other, and stores it.
static void *in_its_own_tile(void *number) {
    const int shapes[8][2] = {{16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}, {16, 64}};
    struct config c = config_of(shapes, 8);
    uint8_t mine[1024], got[1024];
    memset(mine, (int)(intptr_t)number, sizeof mine);
    ASM("ldtilecfg %0\n\t tileloadd (%1,%2,1), %%tmm7" ::"m"(c), "r"(mine), "r"(64l));
    pthread_barrier_wait(&barrier);
    ASM("tilestored %%tmm7, (%0,%1,1)\n\t tilerelease" ::"r"(got), "r"(64l));
    CHECK(memcmp(mine, got, sizeof mine) == 0, "a thread's tile");
    return NULL;
}

int main(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA); // needed where there is AMX
    addressing();
    against_f64();
    rounding();
    pthread_t threads[2];
    pthread_barrier_init(&barrier, NULL, 2);
    for (intptr_t i = 0; i < 2; i++) pthread_create(&threads[i], NULL, in_its_own_tile, (void *)(i + 1));
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    puts("tile instructions: addressing, shapes, order and rounding of sums, threads: all as the manual says");
    return 0;
}
