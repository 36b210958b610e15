/* The loops in which making an RSA list spends its time, for processors with AVX2 and FMA.
 *
 * read_ahead: the patched generator's blocks, read as candidates for primes as if all were composite, each with the
 * delta that the original's sieve by 2047 small primes gives. undivided: whether further primes divide candidates, with
 * AVX512-IFMA. fermat: whether 2^(n-1) = 1 modulo n, four n at a time, or eight with AVX512-IFMA.
 * They repeat what recipes/debian_openssl.py says in Python, which checks them before they are used.
 */
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RING 1023
#define TABLE 2047    /* odd primes below 17864: the original's sieve */
#define PLACES 2048   /* and the prime after them, which fills the row and is not asked */
#define LARGEST 17920 /* above all of them */
#define WINDOW 1024   /* places delta/2 that are marked; beyond them the definition decides */

/* ---- SHA-1 of at most 119 bytes -------------------------------------------------------------------------------- */

static inline uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void compress_plainly(uint32_t h[5], const uint8_t *block) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, block + 4 * i, 4);
        w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
#define ROUNDS(from, f, k)                                                                                             \
    for (int i = from; i < from + 20; i++) {                                                                           \
        uint32_t t = rotate(a, 5) + (f) + e + k + w[i];                                                                \
        e = d, d = c, c = rotate(b, 30), b = a, a = t;                                                                 \
    }
    ROUNDS(0, (d ^ (b & (c ^ d))), 0x5a827999)
    ROUNDS(20, (b ^ c ^ d), 0x6ed9eba1)
    ROUNDS(40, ((b & c) | (d & (b | c))), 0x8f1bbcdc)
    ROUNDS(60, (b ^ c ^ d), 0xca62c1d6)
#undef ROUNDS
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

/* By the processor's own instructions, four rounds each. */
__attribute__((target("sha,sse4.1"))) static void compress_by_instructions(uint32_t h[5], const uint8_t *block) {
    const __m128i swap = _mm_set_epi64x(0x0001020304050607LL, 0x08090a0b0c0d0e0fLL);
    const __m128i start = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)h), 0x1b);
    const __m128i start_e = _mm_set_epi32((int)h[4], 0, 0, 0);
    __m128i abcd = start, before = start_e, w[4];
#define ROUNDS(kind)                                                                                                   \
    _Pragma("GCC unroll 5") for (int i = 5 * kind; i < 5 * kind + 5; i++) {                                            \
        if (i < 4)                                                                                                     \
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)block + i), swap);                                \
        else                                                                                                           \
            w[i % 4] = _mm_sha1msg2_epu32(                                                                             \
                _mm_xor_si128(_mm_sha1msg1_epu32(w[i % 4], w[(i + 1) % 4]), w[(i + 2) % 4]), w[(i + 3) % 4]);          \
        __m128i e = i ? _mm_sha1nexte_epu32(before, w[i % 4]) : _mm_add_epi32(before, w[0]);                           \
        before = abcd;                                                                                                 \
        abcd = _mm_sha1rnds4_epu32(abcd, e, kind);                                                                     \
    }
    ROUNDS(0)
    ROUNDS(1)
    ROUNDS(2)
    ROUNDS(3)
#undef ROUNDS
    h[4] = (uint32_t)_mm_extract_epi32(_mm_sha1nexte_epu32(before, start_e), 3);
    _mm_storeu_si128((__m128i *)h, _mm_shuffle_epi32(_mm_add_epi32(abcd, start), 0x1b));
}

static void (*compress)(uint32_t h[5], const uint8_t *block) = compress_plainly;

static void choose_compression(void) {
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1) compress = compress_by_instructions;
}

static void sha1(const uint8_t *text, size_t size, uint8_t digest[20]) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t padded[128] = {0};
    size_t whole = size < 56 ? 64 : 128;
    memcpy(padded, text, size);
    padded[size] = 0x80;
    uint32_t length = __builtin_bswap32((uint32_t)size * 8);
    memcpy(padded + whole - 4, &length, 4);
    for (size_t at = 0; at < whole; at += 64) compress(h, padded + at);
    for (int i = 0; i < 5; i++) {
        uint32_t word = __builtin_bswap32(h[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

/* ---- the generator: see _Pool in recipes/debian_openssl.py ----------------------------------------------------- */

struct stream {
    uint8_t ring[RING + 1];
    uint8_t md[20];
    uint8_t pid[4];
    uint32_t pid_size;
    uint32_t index;
    uint32_t big;   /* whether counters are hashed big-endian */
    uint32_t width; /* bytes of a counter */
    uint64_t c0, c1;
    uint32_t size; /* bytes of a block */
    uint32_t count, room;
    uint8_t *blocks;
};

static size_t counters(const struct stream *s, uint64_t c0, uint64_t c1, uint8_t *out) {
    uint64_t both[2] = {c0, c1};
    for (int which = 0; which < 2; which++)
        for (uint32_t i = 0; i < s->width; i++) *out++ = (uint8_t)(both[which] >> 8 * (s->big ? s->width - 1 - i : i));
    return 2 * s->width;
}

static void read_ring(const struct stream *s, uint32_t at, uint8_t *out, uint32_t count) {
    if (at + count <= RING)
        memcpy(out, s->ring + at, count);
    else
        for (uint32_t k = 0; k < count; k++) out[k] = s->ring[(at + k) % RING];
}

static uint32_t mix(struct stream *s, uint32_t at, const uint8_t *digest, uint32_t count) {
    for (uint32_t k = 0; k < count; k++) {
        s->ring[at++] ^= digest[k]; /* position 1023 hits the dead byte first, out of step with reading */
        if (at >= RING) at = 0;
    }
    return at;
}

static void add(struct stream *s) {
    uint8_t text[128], d[20];
    uint32_t at = s->index;
    s->index += s->width;
    if (s->index >= RING) s->index %= RING;
    memcpy(text, s->md, 20);
    read_ring(s, at, text + 20, s->width);
    size_t size = 20 + s->width;
    size += counters(s, s->c0, s->c1, text + size);
    sha1(text, size, d);
    s->c1++;
    mix(s, at, d, s->width);
    for (int i = 0; i < 20; i++) s->md[i] ^= d[i];
}

static void take(struct stream *s, uint8_t *out) {
    uint8_t text[128], d[20], t[16];
    uint32_t at = s->index, blocks = (s->size + 9) / 10, left = s->size;
    size_t t_size = counters(s, s->c0, s->c1, t);
    s->index += 10 * blocks;
    if (s->index > RING) s->index %= RING;
    s->c0++;
    memcpy(d, s->md, 20);
    for (uint32_t block = 0; block < blocks; block++) {
        size_t size = 0;
        if (block == 0) memcpy(text, s->pid, s->pid_size), size = s->pid_size;
        memcpy(text + size, d, 20), size += 20;
        memcpy(text + size, t, t_size), size += t_size;
        read_ring(s, at, text + size, 10), size += 10;
        sha1(text, size, d);
        at = mix(s, at, d, 10);
        uint32_t part = left < 10 ? left : 10;
        memcpy(out, d + 10, part), out += part, left -= part;
    }
    memcpy(text, t, t_size), memcpy(text + t_size, d, 20), memcpy(text + t_size + 20, s->md, 20);
    sha1(text, t_size + 40, s->md);
}

static const uint8_t *block_of(struct stream *s, uint32_t index) {
    while (s->count <= index) {
        if (s->count == s->room) {
            s->room = s->room ? 2 * s->room : 128;
            s->blocks = realloc(s->blocks, (size_t)s->room * s->size);
            if (!s->blocks) abort();
        }
        if (s->count) add(s);
        take(s, s->blocks + (size_t)s->count * s->size);
        s->count++;
    }
    return s->blocks + (size_t)index * s->size;
}

struct stream *stream_open(const uint8_t *ring, const uint8_t *md, uint32_t index, uint64_t c0, uint64_t c1,
                           uint32_t width, uint32_t big, const uint8_t *pid, uint32_t pid_size, uint32_t size) {
    struct stream *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    choose_compression();
    memcpy(s->ring, ring, RING + 1), memcpy(s->md, md, 20), memcpy(s->pid, pid, pid_size);
    s->pid_size = pid_size, s->index = index, s->c0 = c0, s->c1 = c1, s->width = width, s->big = big, s->size = size;
    return s;
}

void stream_close(struct stream *s) {
    if (s) free(s->blocks);
    free(s);
}

void stream_block(struct stream *s, uint32_t index, uint8_t *out) { memcpy(out, block_of(s, index), s->size); }

/* ---- candidates and their delta --------------------------------------------------------------------------------- */

struct table {
    uint32_t bits, limbs, prime[PLACES];
    double divisor[PLACES], inverse[PLACES];
    double power[]; /* [16 primes][limb][prime]: 2^(32 limb) * (-1/2) modulo the prime */
};

struct table *table_open(uint32_t bits) {
    uint32_t limbs = (bits + 31) / 32;
    struct table *table = aligned_alloc(64, (sizeof *table + limbs * PLACES * sizeof(double) + 63) / 64 * 64);
    if (!table) return NULL;
    table->bits = bits, table->limbs = limbs;
    uint32_t found = 0;
    for (uint32_t t = 3; found < PLACES; t += 2) {
        int prime = 1;
        for (uint32_t d = 3; d * d <= t; d += 2)
            if (t % d == 0) prime = 0;
        if (!prime) continue;
        table->prime[found] = t, table->divisor[found] = t, table->inverse[found] = 1.0 / t;
        uint64_t power = (t - 1) / 2; /* -1/2 modulo t */
        for (uint32_t i = 0; i < limbs; i++) {
            table->power[(found / 16 * limbs + i) * 16 + found % 16] = (double)power;
            power = (power << 32) % t;
        }
        found++;
    }
    return table;
}

/* j = -r/2 modulo each prime for `count` numbers of limbs as doubles */
static void residues(const struct table *table, const double *limbs, uint32_t count, int32_t *out) {
    const uint32_t size = table->limbs;
    for (uint32_t from = 0; from < PLACES; from += 16) {
        for (uint32_t row = 0; row < count; row += 2) {
            const double *x = limbs + row * size, *y = limbs + (row + 1 < count ? row + 1 : row) * size;
            __m256d a[4] = {{0}}, b[4] = {{0}};
            for (uint32_t i = 0; i < size; i++) {
                const double *power = table->power + from * size + i * 16;
                __m256d p = _mm256_broadcast_sd(x + i), q = _mm256_broadcast_sd(y + i);
                for (int k = 0; k < 4; k++) {
                    __m256d value = _mm256_loadu_pd(power + 4 * k);
                    a[k] = _mm256_fmadd_pd(p, value, a[k]);
                    b[k] = _mm256_fmadd_pd(q, value, b[k]);
                }
            }
            for (int which = 0; which < 2; which++) {
                if (row + which >= count) break;
                for (int k = 0; k < 4; k++) {
                    __m256d sum = which ? b[k] : a[k];
                    __m256d divisor = _mm256_loadu_pd(table->divisor + from + 4 * k);
                    __m256d whole = _mm256_floor_pd(_mm256_mul_pd(sum, _mm256_loadu_pd(table->inverse + from + 4 * k)));
                    __m256d rest = _mm256_fnmadd_pd(whole, divisor, sum); /* from -t to 2t */
                    rest = _mm256_add_pd(rest,
                                         _mm256_and_pd(divisor, _mm256_cmp_pd(rest, _mm256_setzero_pd(), _CMP_LT_OQ)));
                    rest = _mm256_sub_pd(rest, _mm256_and_pd(divisor, _mm256_cmp_pd(rest, divisor, _CMP_GE_OQ)));
                    _mm_storeu_si128((__m128i *)(out + (row + which) * PLACES + from + 4 * k),
                                     _mm256_cvtpd_epi32(rest));
                }
            }
        }
    }
}

static uint32_t place_of(const struct table *table, const int32_t *residue) {
    uint8_t taken[LARGEST] = {0};
    uint32_t index = 0;
    for (; table->prime[index] < WINDOW; index++) {
        uint32_t t = table->prime[index], j = (uint32_t)residue[index], other = j + (t + 1) / 2;
        if (other >= t) other -= t;
        for (; j < WINDOW; j += t) taken[j] = 1;
        for (; other < WINDOW; other += t) taken[other] = 1;
    }
    for (; index < TABLE; index++) { /* no comparison with the window: half of them would be guessed wrong */
        uint32_t t = table->prime[index], j = (uint32_t)residue[index], other = j + (t + 1) / 2;
        taken[j] = 1;
        taken[other >= t ? other - t : other] = 1;
    }
    const uint8_t *free_place = memchr(taken, 0, WINDOW);
    if (free_place) return (uint32_t)(free_place - taken);
    for (uint32_t place = WINDOW;; place++) {
        for (index = 0; index < TABLE; index++) {
            uint32_t t = table->prime[index], j = (uint32_t)residue[index], other = (j + (t + 1) / 2) % t;
            if (place % t == j || place % t == other) break;
        }
        if (index == TABLE) return place;
    }
}

/* One block as a little-endian number of `bits` bits in 32-bit limbs. */
static void number_of(const uint8_t *block, uint32_t size, uint32_t bits, uint32_t *limbs) {
    uint32_t count = (bits + 31) / 32;
    memset(limbs, 0, 4 * count);
    for (uint32_t i = 0; i < size && i < 4 * count; i++) ((uint8_t *)limbs)[i] = block[size - 1 - i];
    if (bits % 32) limbs[count - 1] &= (1u << bits % 32) - 1;
}

static int compare(const uint32_t *a, const uint32_t *b, uint32_t count) {
    while (count--)
        if (a[count] != b[count]) return a[count] < b[count] ? -1 : 1;
    return 0;
}

static int deltas(const struct table *table, const uint32_t *numbers, uint32_t count, uint32_t *out) {
    uint32_t size = table->limbs;
    double *limbs = calloc((size_t)size * count, sizeof(double));
    int32_t *rest = calloc((size_t)PLACES * count, sizeof(int32_t));
    int failed = !limbs || !rest;
    if (!failed) {
        for (uint32_t i = 0; i < size * count; i++) limbs[i] = numbers[i];
        residues(table, limbs, count, rest);
        for (uint32_t i = 0; i < count; i++) out[i] = 2 * place_of(table, rest + i * PLACES);
    }
    free(limbs), free(rest);
    return failed;
}

/* `count` candidates from block `position` on, as if all were composite.
 * numbers: count rows of table->limbs 32-bit limbs, delta added. places: rows of (block, witness). Returns the next
 * position, or -1 without memory. */
int64_t read_ahead(struct stream *s, const struct table *table, uint32_t position, uint32_t count, uint32_t *numbers,
                   uint32_t *places) {
    uint32_t size = table->limbs, bits = table->bits, drawn[128], delta[1024];
    if (size > 128 || count > 1024) return -1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *number = numbers + i * size, known = 0, has = 0;
        number_of(block_of(s, position), s->size, bits, number);
        number[0] |= 1;
        number[(bits - 1) / 32] |= 1u << (bits - 1) % 32;
        number[(bits - 2) / 32] |= 1u << (bits - 2) % 32;
        places[2 * i] = position++;
        for (;;) { /* a witness is drawn until it lies below p - 1 = number + delta - 1 */
            number_of(block_of(s, position), s->size, bits, drawn);
            if (compare(drawn, number, size) < 0) break;
            if (compare(drawn + 1, number + 1, size - 1) == 0) { /* delta decides */
                if (!has && deltas(table, number, 1, &known)) return -1;
                has = 1;
                if ((uint64_t)drawn[0] + 1 < (uint64_t)number[0] + known) break;
            }
            position++;
        }
        places[2 * i + 1] = position++;
    }
    if (deltas(table, numbers, count, delta)) return -1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t carry = delta[i];
        for (uint32_t k = 0; k < size; k++) {
            carry += numbers[i * size + k];
            numbers[i * size + k] = (uint32_t)carry;
            carry >>= 32;
        }
    }
    return position;
}

/* ---- Fermat's test to base 2, four numbers in the lanes of AVX2 ---------------------------------------------------
 *
 * Limbs of 52 bits as doubles. Rounding towards zero, a*b + 2^104 holds the upper half of a product in its last 52 bits
 * and a*b + (2^104 + 2^52 - that) the lower half: two multiply-adds give 52 x 52 bits exactly (Emmart, Zheng and Weems,
 * "Faster Modular Exponentiation Using Double Precision Floating Point Arithmetic on the GPU", ARITH 2018). The bits of
 * the doubles are added as integers; what their exponents add up to is known beforehand and taken off.
 *
 * Numbers stay below 4n: R = 2^(52 limbs) is at least 2^16 n, so (4n)^2 / R + n is next to n, and doubling makes 2n.
 */

#define MASK 0xfffffffffffffULL
#define EXP_HI 0x4670000000000000ULL /* 2^104 */
#define EXP_LO 0x4330000000000000ULL /* 2^52 */
#define MOST 40                      /* limbs */

typedef __m256i vi;
typedef __m256d vd;

#define PRODUCT(x, y, lo, hi)                                                                                          \
    do {                                                                                                               \
        vd h_ = _mm256_fmadd_pd(x, y, c1);                                                                             \
        vd l_ = _mm256_fmadd_pd(x, y, _mm256_sub_pd(c2, h_));                                                          \
        hi = _mm256_add_epi64(hi, _mm256_castpd_si256(h_));                                                            \
        lo = _mm256_add_epi64(lo, _mm256_castpd_si256(l_));                                                            \
    } while (0)

static inline vd as_double(vi x) { /* below 2^52 */
    return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(x, _mm256_set1_epi64x(EXP_LO))), _mm256_set1_pd(0x1p52));
}

/* t += q * n for a block of B multipliers: a window of B + 1 columns slides along n, a load and a store a column. */
static inline __attribute__((always_inline)) void rows(vi *restrict t, const vd *restrict q, const vd *restrict n,
                                                       vi *restrict acc, const int from, const int to, const int B) {
    const vd c1 = _mm256_set1_pd(0x1p104), c2 = _mm256_set1_pd(0x1p104 + 0x1p52);
#pragma GCC unroll 1
    for (int j = from; j < to; j++) {
        vd x = n[j];
        acc[B] = t[j + B];
#pragma GCC unroll 8
        for (int i = 0; i < B; i++) PRODUCT(q[i], x, acc[i], acc[i + 1]);
        t[j] = acc[0];
#pragma GCC unroll 8
        for (int i = 0; i < B; i++) acc[i] = acc[i + 1];
    }
}

/* The next multiplier of Montgomery's reduction, and its products with the first limbs of n. */
static inline __attribute__((always_inline)) void quotient(vi *restrict t, vd *restrict q, const vd *restrict n,
                                                           vd inverse, const int c, const int B) {
    const vd c1 = _mm256_set1_pd(0x1p104), c2 = _mm256_set1_pd(0x1p104 + 0x1p52);
    const vi mask = _mm256_set1_epi64x(MASK);
    vd x = as_double(_mm256_and_si256(t[c], mask)), h = _mm256_fmadd_pd(x, inverse, c1);
    vd y = _mm256_sub_pd(_mm256_fmadd_pd(x, inverse, _mm256_sub_pd(c2, h)), _mm256_set1_pd(0x1p52));
    vi lo = t[c], hi = t[c + 1];
    q[c] = y;
    /* the lower half of y * n[0] makes this column 0 modulo 2^52, so only its carry is wanted */
    lo = _mm256_srli_epi64(_mm256_add_epi64(lo, mask), 52);
    hi = _mm256_add_epi64(_mm256_add_epi64(hi, lo), _mm256_castpd_si256(_mm256_fmadd_pd(y, n[0], c1)));
#pragma GCC unroll 8
    for (int m = 1; m < B - c; m++) {
        lo = hi, hi = t[c + m + 1];
        PRODUCT(y, n[m], lo, hi);
        t[c + m] = lo;
    }
    t[B] = hi;
}

/* What the exponents of the doubles add up to in each column, as its negative; once for each number of limbs. */
static void biases(uint64_t *bias, int limbs, int square) {
    for (int k = 0; k <= 2 * limbs; k++) bias[k] = 0;
    for (int i = 0; i < limbs; i++)
        for (int j = 0; j < limbs; j++) {
            bias[i + j] -= (uint64_t)((j > 0) + square) * EXP_LO;
            bias[i + j + 1] -= (uint64_t)(1 + square) * EXP_HI;
        }
}

/* a becomes a*a/R * 2^bit modulo n, or a/R if `square` is 0. */
static inline __attribute__((always_inline)) void step(vd *restrict a, const vd *restrict n, vd inverse, vi bit,
                                                       const uint64_t *restrict bias, const int L, const int B,
                                                       const int square) {
    const vd c1 = _mm256_set1_pd(0x1p104), c2 = _mm256_set1_pd(0x1p104 + 0x1p52);
    const vi mask = _mm256_set1_epi64x(MASK), zero = _mm256_setzero_si256();
    vi t[2 * MOST + 8];
    vi acc[9];
    vd q[8], following[8];
    for (int k = 0; k < 2 * L + B; k++) t[k] = zero;
    if (square) {
#pragma GCC unroll 1
        for (int k = 0; k < L; k += B) {
#pragma GCC unroll 8
            for (int i = 0; i < B; i++) q[i] = a[k + i];
#pragma GCC unroll 8
            for (int i = 0; i < B; i++)
#pragma GCC unroll 8
                for (int j = i + 1; j < B; j++) PRODUCT(q[i], q[j], t[2 * k + i + j], t[2 * k + i + j + 1]);
            if (k + B >= L) break;
#pragma GCC unroll 8
            for (int i = 0; i < B; i++) acc[i] = t[2 * k + B + i];
            rows(t + k, q, a, acc, k + B, L, B);
#pragma GCC unroll 8
            for (int i = 0; i < B; i++) t[k + L + i] = acc[i];
        }
#pragma GCC unroll 1
        for (int k = 0; k < L; k++) {
            vi lo = _mm256_add_epi64(_mm256_slli_epi64(t[2 * k], 1), _mm256_set1_epi64x((long long)bias[2 * k]));
            vi hi =
                _mm256_add_epi64(_mm256_slli_epi64(t[2 * k + 1], 1), _mm256_set1_epi64x((long long)bias[2 * k + 1]));
            PRODUCT(a[k], a[k], lo, hi);
            t[2 * k] = lo, t[2 * k + 1] = hi;
        }
    } else {
        for (int k = 0; k < 2 * L; k++) {
            t[k] = _mm256_set1_epi64x((long long)bias[k]);
            if (k < L)
                t[k] = _mm256_add_epi64(
                    t[k], _mm256_sub_epi64(_mm256_castpd_si256(_mm256_add_pd(a[k], _mm256_set1_pd(0x1p52))),
                                           _mm256_set1_epi64x(EXP_LO)));
        }
    }
    /* a column is complete, and its bias gone, once the block has passed: the next multipliers start meanwhile */
#pragma GCC unroll 8
    for (int c = 0; c < B; c++) quotient(t, following, n, inverse, c, B);
#pragma GCC unroll 1
    for (int k = 0; k < L; k += B) {
        vi *u = t + k;
#pragma GCC unroll 8
        for (int i = 0; i < B; i++) q[i] = following[i], acc[i] = u[B + i];
#pragma GCC unroll 8
        for (int j = 1; j < B; j++)
#pragma GCC unroll 8
            for (int i = B - j; i < B; i++) PRODUCT(q[i], n[j], acc[i + j - B], acc[i + j - B + 1]);
        const int chunk = (L - 2 * B - 1) / B;
        rows(u, q, n, acc, B, 2 * B + 1, B);
#pragma GCC unroll 8
        for (int c = 0; c < B; c++) {
            const int from = 2 * B + 1 + c * chunk;
            if (k + B < L) quotient(u + B, following, n, inverse, c, B);
            rows(u, q, n, acc, from, c == B - 1 ? L : from + chunk, B);
        }
#pragma GCC unroll 8
        for (int i = 0; i < B; i++) u[L + i] = acc[i];
    }
    /* carries of the upper half, doubled where the exponent has a bit */
    vi carry = zero;
#pragma GCC unroll 2
    for (int k = 0; k < L; k++) {
        vi x = _mm256_add_epi64(_mm256_sllv_epi64(t[L + k], bit), carry);
        carry = _mm256_srli_epi64(x, 52);
        a[k] = as_double(_mm256_and_si256(x, mask));
    }
}

static uint64_t limb52(const uint32_t *number, uint32_t size, uint32_t at) {
    uint64_t value = 0;
    uint32_t bit = 52 * at;
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t word = bit / 32 + i;
        if (word >= size) break;
        int shift = 32 * (int)i - (int)(bit % 32);
        value |= shift >= 0 ? (shift < 64 ? (uint64_t)number[word] << shift : 0) : (uint64_t)number[word] >> -shift;
    }
    return value & MASK;
}

/* -1/n modulo 2^52 */
static uint64_t inverse52(uint64_t n) {
    uint64_t x = n;
    for (int i = 0; i < 6; i++) x *= 2 - n * x;
    return -x & MASK;
}

/* 2^-(n-1) = 1 as well as 2^(n-1): from 2^-s with s = ceil((n-1) / 2^(bits-10)), which Montgomery's form writes as one
 * bit, squarings and doublings lead there by the bits of s * 2^(bits-10) - (n-1). Returns s; the bits go to exponent. */
static uint32_t first_power(const uint32_t *number, uint32_t bits, uint32_t *exponent) {
    const uint32_t steps = bits - 10;
    uint32_t borrow = 0, top = 0;
    for (uint32_t i = 0; i < 10; i++) top |= (number[(steps + i) / 32] >> (steps + i) % 32 & 1) << i;
    for (uint32_t i = 0; i < (bits + 31) / 32; i++) { /* -(n-1): its last bits are those */
        uint64_t word = (uint64_t)(i ? number[i] : number[0] - 1) + borrow;
        exponent[i] = (uint32_t)(0 - word);
        borrow = word != 0;
    }
    return top + 1;
}

static inline __attribute__((always_inline)) void four(const uint32_t *numbers, uint32_t bits, uint8_t *out,
                                                       const int limbs, const int B) {
    const uint32_t size = (bits + 31) / 32, steps = bits - 10;
    union {
        vd v[MOST];
        double d[MOST][4];
    } a, n;
    union {
        vd v;
        double d[4];
    } inverse;
    uint32_t exponent[4][MOST * 2];
    uint64_t squared[2 * MOST + 1], reduced[2 * MOST + 1];
    biases(squared, limbs, 1), biases(reduced, limbs, 0);
    for (uint32_t lane = 0; lane < 4; lane++) {
        const uint32_t *number = numbers + lane * size;
        for (int i = 0; i < limbs; i++) n.d[i][lane] = (double)limb52(number, size, (uint32_t)i), a.d[i][lane] = 0;
        inverse.d[lane] = (double)inverse52(limb52(number, size, 0));
        uint32_t at = 52 * (uint32_t)limbs - first_power(number, bits, exponent[lane]);
        a.d[at / 52][lane] = (double)(1ULL << at % 52);
    }
    for (uint32_t i = steps; i-- > 0;) {
        vi bit = _mm256_set_epi64x(exponent[3][i / 32] >> i % 32 & 1, exponent[2][i / 32] >> i % 32 & 1,
                                   exponent[1][i / 32] >> i % 32 & 1, exponent[0][i / 32] >> i % 32 & 1);
        step(a.v, n.v, inverse.v, bit, squared, limbs, B, 1);
    }
    step(a.v, n.v, inverse.v, _mm256_setzero_si256(), reduced, limbs, B, 0);
    for (uint32_t lane = 0; lane < 4; lane++) {
        int one = a.d[0][lane] == 1.0;
        for (int i = 1; i < limbs; i++) one &= a.d[i][lane] == 0.0;
        out[lane] = (uint8_t)one;
    }
}

/* ---- the same, eight numbers in the lanes of AVX512-IFMA ----------------------------------------------------------
 *
 * The processor multiplies 52 by 52 bits itself and adds either half: no biases, no conversions. Limbs, bounds and the
 * order of the work are those above.
 */

#define IFMA static inline __attribute__((always_inline, target("avx512f,avx512ifma")))

typedef __m512i wide;

#define MULTIPLY_ADD(x, y, lo, hi)                                                                                     \
    do {                                                                                                               \
        lo = _mm512_madd52lo_epu64(lo, x, y);                                                                          \
        hi = _mm512_madd52hi_epu64(hi, x, y);                                                                          \
    } while (0)

IFMA void wide_rows(wide *restrict t, const wide *restrict q, const wide *restrict n, wide *restrict acc,
                    const int from, const int to, const int B) {
#pragma GCC unroll 1
    for (int j = from; j < to; j++) {
        wide x = n[j];
        acc[B] = t[j + B];
#pragma GCC unroll 16
        for (int i = 0; i < B; i++) MULTIPLY_ADD(q[i], x, acc[i], acc[i + 1]);
        t[j] = acc[0];
#pragma GCC unroll 16
        for (int i = 0; i < B; i++) acc[i] = acc[i + 1];
    }
}

IFMA void wide_quotient(wide *restrict t, wide *restrict q, const wide *restrict n, wide inverse, const int c,
                        const int B) {
    const wide mask = _mm512_set1_epi64(MASK), zero = _mm512_setzero_si512();
    wide lo = t[c], hi = t[c + 1], y = _mm512_madd52lo_epu64(zero, lo, inverse);
    q[c] = y;
    /* the lower half of y * n[0] makes this column 0 modulo 2^52, so only its carry is wanted */
    lo = _mm512_srli_epi64(_mm512_add_epi64(lo, mask), 52);
    hi = _mm512_madd52hi_epu64(_mm512_add_epi64(hi, lo), y, n[0]);
#pragma GCC unroll 16
    for (int m = 1; m < B - c; m++) {
        lo = hi, hi = t[c + m + 1];
        MULTIPLY_ADD(y, n[m], lo, hi);
        t[c + m] = lo;
    }
    t[B] = hi;
}

IFMA void wide_step(wide *restrict a, const wide *restrict n, wide inverse, wide bit, const int L, const int B,
                    const int square) {
    const wide mask = _mm512_set1_epi64(MASK), zero = _mm512_setzero_si512();
    wide t[2 * MOST + 12], acc[11], q[10], following[10];
    for (int k = 0; k < 2 * L + B; k++) t[k] = square || k >= L ? zero : a[k];
    if (square) {
#pragma GCC unroll 1
        for (int k = 0; k < L; k += B) {
#pragma GCC unroll 16
            for (int i = 0; i < B; i++) q[i] = a[k + i];
#pragma GCC unroll 16
            for (int i = 0; i < B; i++)
#pragma GCC unroll 16
                for (int j = i + 1; j < B; j++) MULTIPLY_ADD(q[i], q[j], t[2 * k + i + j], t[2 * k + i + j + 1]);
            if (k + B >= L) break;
#pragma GCC unroll 16
            for (int i = 0; i < B; i++) acc[i] = t[2 * k + B + i];
            wide_rows(t + k, q, a, acc, k + B, L, B);
#pragma GCC unroll 16
            for (int i = 0; i < B; i++) t[k + L + i] = acc[i];
        }
#pragma GCC unroll 1
        for (int k = 0; k < L; k++) {
            wide lo = _mm512_slli_epi64(t[2 * k], 1), hi = _mm512_slli_epi64(t[2 * k + 1], 1);
            MULTIPLY_ADD(a[k], a[k], lo, hi);
            t[2 * k] = lo, t[2 * k + 1] = hi;
        }
    }
#pragma GCC unroll 16
    for (int c = 0; c < B; c++) wide_quotient(t, following, n, inverse, c, B);
#pragma GCC unroll 1
    for (int k = 0; k < L; k += B) {
        wide *u = t + k;
#pragma GCC unroll 16
        for (int i = 0; i < B; i++) q[i] = following[i], acc[i] = u[B + i];
#pragma GCC unroll 16
        for (int j = 1; j < B; j++)
#pragma GCC unroll 16
            for (int i = B - j; i < B; i++) MULTIPLY_ADD(q[i], n[j], acc[i + j - B], acc[i + j - B + 1]);
        const int chunk = (L - 2 * B - 1) / B;
        wide_rows(u, q, n, acc, B, 2 * B + 1, B);
#pragma GCC unroll 16
        for (int c = 0; c < B; c++) {
            const int from = 2 * B + 1 + c * chunk;
            if (k + B < L) wide_quotient(u + B, following, n, inverse, c, B);
            wide_rows(u, q, n, acc, from, c == B - 1 ? L : from + chunk, B);
        }
#pragma GCC unroll 16
        for (int i = 0; i < B; i++) u[L + i] = acc[i];
    }
    wide carry = zero;
#pragma GCC unroll 2
    for (int k = 0; k < L; k++) {
        wide x = _mm512_add_epi64(_mm512_sllv_epi64(t[L + k], bit), carry);
        carry = _mm512_srli_epi64(x, 52);
        a[k] = _mm512_and_si512(x, mask);
    }
}

IFMA void eight(const uint32_t *numbers, uint32_t bits, uint8_t *out, const int limbs, const int B) {
    const uint32_t size = (bits + 31) / 32, steps = bits - 10;
    union {
        wide v[MOST];
        uint64_t d[MOST][8];
    } a, n;
    union {
        wide v;
        uint64_t d[8];
    } inverse, bit;
    uint32_t exponent[8][MOST * 2];
    for (uint32_t lane = 0; lane < 8; lane++) {
        for (int i = 0; i < limbs; i++) n.d[i][lane] = limb52(numbers + lane * size, size, (uint32_t)i), a.d[i][lane] = 0;
        inverse.d[lane] = inverse52(n.d[0][lane]);
        uint32_t at = 52 * (uint32_t)limbs - first_power(numbers + lane * size, bits, exponent[lane]);
        a.d[at / 52][lane] = 1ULL << at % 52;
    }
    for (uint32_t i = steps; i-- > 0;) {
        for (int lane = 0; lane < 8; lane++) bit.d[lane] = exponent[lane][i / 32] >> i % 32 & 1;
        wide_step(a.v, n.v, inverse.v, bit.v, limbs, B, 1);
    }
    wide_step(a.v, n.v, inverse.v, _mm512_setzero_si512(), limbs, B, 0);
    for (uint32_t lane = 0; lane < 8; lane++) {
        int one = a.d[0][lane] == 1;
        for (int i = 1; i < limbs; i++) one &= a.d[i][lane] == 0;
        out[lane] = (uint8_t)one;
    }
}

/* ---- division by further primes, eight products of three of them in the lanes of AVX512-IFMA -----------------------
 *
 * A number is reduced modulo products of three primes, 52 bits each, up to a factor (Montgomery's reduction twice);
 * what is left is a multiple of p where its product with 1/p modulo 2^52 is small.
 */

#define DIVISORS 4352          /* products of the 13,056 primes after the original's: the last is just below 2^(52/3) */
#define DIVISORS_BELOW 165140 /* above the last of them, 165,133 */
#define LAST_TABLE_PRIME 17863

struct divisors {
    uint32_t limbs;
    _Alignas(64) uint64_t modulus[DIVISORS], inverse[DIVISORS]; /* m and -1/m modulo 2^52 */
    uint64_t prime[3][DIVISORS], largest[3][DIVISORS];          /* 1/p modulo 2^52, and the most that a multiple gives */
    uint64_t power[];                                           /* [8 products][limb][product]: 2^(52 limb) modulo m */
};

struct divisors *divisors_open(uint32_t bits) {
    uint32_t limbs = (bits + 51) / 52;
    size_t size = sizeof(struct divisors) + (size_t)limbs * DIVISORS * sizeof(uint64_t);
    struct divisors *d = aligned_alloc(64, (size + 63) / 64 * 64);
    uint8_t *composite = calloc(1, DIVISORS_BELOW);
    if (!d || !composite) {
        free(d), free(composite);
        return NULL;
    }
    d->limbs = limbs;
    for (uint32_t t = 3; t * t < DIVISORS_BELOW; t += 2)
        for (uint32_t k = t * t; !composite[t] && k < DIVISORS_BELOW; k += 2 * t) composite[k] = 1;
    uint32_t t = LAST_TABLE_PRIME;
    for (uint32_t at = 0; at < DIVISORS; at++) {
        uint64_t m = 1;
        for (int which = 0; which < 3; which++) {
            do t += 2;
            while (composite[t]);
            m *= t;
            d->prime[which][at] = -inverse52(t) & MASK, d->largest[which][at] = MASK / t;
        }
        d->modulus[at] = m, d->inverse[at] = inverse52(m);
        uint64_t power = 1;
        for (uint32_t i = 0; i < limbs; i++) {
            d->power[(at / 8 * limbs + i) * 8 + at % 8] = power;
            power = (uint64_t)(((unsigned __int128)power << 52) % m);
        }
    }
    free(composite);
    return d;
}

/* Four numbers of limbs at a time, so that every power is read once for them. */
IFMA uint32_t divided(const struct divisors *d, const uint64_t *numbers) {
    const wide mask = _mm512_set1_epi64(MASK), zero = _mm512_setzero_si512();
    const uint32_t limbs = d->limbs;
    uint32_t found = 0;
    for (uint32_t from = 0; from < DIVISORS; from += 8) {
        const uint64_t *power = d->power + (size_t)from * limbs;
        wide lo[4] = {zero, zero, zero, zero}, hi[4] = {zero, zero, zero, zero};
        for (uint32_t i = 0; i < limbs; i++) {
            wide p = _mm512_load_si512(power + 8 * i);
#pragma GCC unroll 4
            for (int row = 0; row < 4; row++) {
                wide x = _mm512_set1_epi64((long long)numbers[row * MOST + i]);
                MULTIPLY_ADD(p, x, lo[row], hi[row]);
            }
        }
        const wide modulus = _mm512_load_si512(d->modulus + from), inverse = _mm512_load_si512(d->inverse + from);
#pragma GCC unroll 4
        for (int row = 0; row < 4; row++) {
            wide m = _mm512_madd52lo_epu64(zero, lo[row], inverse), sum;
            sum = _mm512_add_epi64(hi[row], _mm512_srli_epi64(_mm512_add_epi64(lo[row], mask), 52));
            sum = _mm512_madd52hi_epu64(sum, m, modulus);
            m = _mm512_madd52lo_epu64(zero, sum, inverse);
            sum = _mm512_madd52hi_epu64(_mm512_srli_epi64(_mm512_add_epi64(sum, mask), 52), m, modulus);
#pragma GCC unroll 3
            for (int which = 0; which < 3; which++) {
                wide rest = _mm512_madd52lo_epu64(zero, sum, _mm512_load_si512(d->prime[which] + from));
                found |= (uint32_t)(_mm512_cmple_epu64_mask(rest, _mm512_load_si512(d->largest[which] + from)) != 0)
                         << row;
            }
        }
        if (found == 15) break;
    }
    return found;
}

/* Whether none of the primes divides each of `count` numbers of rows of 32-bit limbs; where usable() is 2. */
__attribute__((target("avx512f,avx512ifma"))) void undivided(const struct divisors *d, const uint32_t *numbers,
                                                             uint32_t bits, uint32_t count, uint8_t *out) {
    uint64_t rows[4 * MOST];
    for (uint32_t at = 0; at < count; at += 4) {
        uint32_t some = count - at < 4 ? count - at : 4;
        for (uint32_t row = 0; row < 4; row++) {
            const uint32_t *number = numbers + (at + (row < some ? row : 0)) * (bits / 32);
            for (uint32_t i = 0; i < d->limbs; i++) rows[row * MOST + i] = limb52(number, bits / 32, i);
        }
        uint32_t found = divided(d, rows);
        for (uint32_t row = 0; row < some; row++) out[at + row] = !(found >> row & 1);
    }
}

/* ---- one function a size and a kind of processor, with all loops known -------------------------------------------- */

/* The first is not to be merged with the one that sets the rounding. */
#define SIZE(bits, limbs, B, wide_B)                                                                                   \
    static __attribute__((noinline)) void four_##bits(const uint32_t *numbers, uint8_t *out) {                         \
        four(numbers, bits, out, limbs, B);                                                                            \
    }                                                                                                                  \
    static __attribute__((noinline, target("avx512f,avx512ifma"))) void eight_##bits(const uint32_t *numbers,          \
                                                                                     uint8_t *out) {                   \
        eight(numbers, bits, out, limbs, wide_B);                                                                      \
    }
SIZE(1024, 20, 4, 5)
SIZE(1536, 30, 5, 6)
SIZE(2048, 40, 4, 8)

/* Whether this processor can run what is above: 0 no, 1 with AVX2, 2 with AVX512-IFMA as well. */
int usable(void) {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512ifma") ? 2 : 1;
}

/* Whether 2^(n-1) = 1 modulo n, for `count` (a multiple of 8) odd numbers of exactly `bits` bits as rows of 32-bit
 * limbs, least first; `wide` where usable() is 2. Returns 0, or -1 if there is no function for that size. */
int fermat(const uint32_t *numbers, uint32_t bits, uint32_t count, int wide, uint8_t *out) {
    static const struct {
        uint32_t bits;
        void (*test[2])(const uint32_t *, uint8_t *);
    } sizes[] = {
        {1024, {four_1024, eight_1024}}, {1536, {four_1536, eight_1536}}, {2048, {four_2048, eight_2048}}};
    for (size_t which = 0; which < sizeof sizes / sizeof *sizes; which++) {
        if (sizes[which].bits != bits || count % 8) continue;
        const unsigned mode = _mm_getcsr();
        _mm_setcsr((mode & ~0x6000u) | 0x6000u); /* towards zero */
        for (uint32_t at = 0; at < count; at += wide ? 8 : 4)
            sizes[which].test[wide != 0](numbers + at * (bits / 32), out + at);
        _mm_setcsr(mode);
        return 0;
    }
    return -1;
}
