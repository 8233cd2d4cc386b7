/* Depth-wise convolutions of channels-last maps in float32, for kernels of any odd size, padded to the same size.

   Sixteen channels, a cache line, are convolved at a time, tile by tile: what a tile reads is copied to a plane for each
   vector of channels, with zeros at the left and right, which stays in the second-level cache. Results of two rows are
   summed at once, in registers, as both use what is read from most rows. Rows beyond the map's edges are left out. */

#include <pthread.h>
#include <stdlib.h>

#ifdef __AVX512F__
#define LANES 16
#define MAX_COLUMNS 12 /* of two rows, which with their weights fit the registers */
#else
#define LANES 8
#define MAX_COLUMNS 6
#endif
#define LINE 16 /* channels */
#define PARTS (LINE / LANES)
#define TILE_ROWS 32
#define TILE_COLUMNS 128
#define TASKS 4 /* for each thread, at least, if tiles of fewer rows can make so many */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* x * (1 + erf(x / sqrt 2)) / 2, where the error function is x times a rational function of the square, fitted up to 5.5;
   it errs by at most 1.6e-7 of x in float32, and torch's by 2.7e-7. */
INLINE vec gelu(vec x) {
    typedef int mask __attribute__((vector_size(4 * LANES)));
    vec t = x * x, half = 0.5f * x;
    vec p = ((((4.549812432e-8f * t + 1.270377909e-5f) * t + 3.376316330e-4f) * t + 9.354401604e-3f) * t +
             6.770370308e-2f) * t + 7.978844695e-1f;
    vec q = ((((1.197477918e-6f * t + 7.364346338e-5f) * t + 1.884390917e-3f) * t + 2.864538706e-2f) * t +
             2.515199285e-1f) * t + 1.0f;
    mask above = x >= 5.5f, below = x <= -5.5f;
    vec y = half + half * (x * p / q);
    /* What is below is no 0 if it has overflowed. */
    return (vec)((above & (mask)x) | (below & (mask)(0.0f * x)) | (~(above | below) & (mask)y));
}

INLINE long larger(long a, long b) { return a > b ? a : b; }
INLINE long smaller(long a, long b) { return a < b ? a : b; }

/* Adds what one row of `x` gives to results by the row `u` of the kernel, and to those of the next row by `v`. */
INLINE void add_row(const int columns, const int both, vec *a, vec *b, const vec *x, const vec *u, const vec *v, int k) {
    for (int j = 0; j < k; j++) {
        vec weight = u[j], other = both ? v[j] : (vec){0};
        UNROLL for (int i = 0; i < columns; i++) {
            vec value = x[i + j];
            a[i] += weight * value;
            if (both) b[i] += other * value;
        }
    }
}

/* Results of two rows: from `first` rows of `x` of the upper one alone, then `both`, then `last` of the lower one. */
INLINE void convolve(const int columns, const vec *x, long pitch, const vec *u, const vec *v, int k, long first, long both,
                     long last, int activated, float *y, long step, long next) {
    vec a[columns], b[columns];
    UNROLL for (int i = 0; i < columns; i++) a[i] = b[i] = (vec){0};
    for (; first > 0; first--, x += pitch, u += k) add_row(columns, 0, a, b, x, u, v, k);
    int has_next = both + last > 0;
    for (; both > 0; both--, x += pitch, u += k, v += k) add_row(columns, 1, a, b, x, u, v, k);
    for (; last > 0; last--, x += pitch, v += k) add_row(columns, 0, b, a, x, v, u, k);
    if (activated) UNROLL for (int i = 0; i < columns; i++) a[i] = gelu(a[i]), b[i] = gelu(b[i]);
    UNROLL for (int i = 0; i < columns; i++) *(vec *)(y + i * step) = a[i];
    if (has_next) UNROLL for (int i = 0; i < columns; i++) *(vec *)(y + next + i * step) = b[i];
}

#define CONVOLVE(COLUMNS) \
    static void convolve_##COLUMNS(const vec *x, long pitch, const vec *u, const vec *v, int k, long first, long both, \
                                   long last, int activated, float *y, long step, long next) { \
        convolve(COLUMNS, x, pitch, u, v, k, first, both, last, activated, y, step, next); \
    }
CONVOLVE(1) CONVOLVE(2) CONVOLVE(3) CONVOLVE(4) CONVOLVE(5) CONVOLVE(6)
#if MAX_COLUMNS > 6
CONVOLVE(7) CONVOLVE(8) CONVOLVE(9) CONVOLVE(10) CONVOLVE(11) CONVOLVE(12)
#endif

static void (*const CONVOLUTIONS[])(const vec *, long, const vec *, const vec *, int, long, long, long, int, float *,
                                    long, long) = {
    NULL, convolve_1, convolve_2, convolve_3, convolve_4, convolve_5, convolve_6,
#if MAX_COLUMNS > 6
    convolve_7, convolve_8, convolve_9, convolve_10, convolve_11, convolve_12,
#endif
};

/* The kernels `(LINE, k, k)` of a line, from the last weight to the first if mirrored, to `(PARTS, k, k, LANES)`. */
static void copy_kernel(const float *kernel, int k, int mirrored, float *to) {
    int taps = k * k;
    for (int channel = 0; channel < LINE; channel++, kernel += taps) {
        float *column = to + channel / LANES * taps * LANES + channel % LANES;
        for (int tap = 0; tap < taps; tap++) column[tap * LANES] = kernel[mirrored ? taps - 1 - tap : tap];
    }
}

/* `count` values of one line, `step` floats apart, to a row of each plane, from its position `offset` on. */
static void copy_row(const float *x, long count, long step, long offset, long pitch, vec *row, long area) {
    for (int part = 0; part < PARTS; part++, row += area, x += LANES) {
        for (long i = 0; i < offset; i++) row[i] = (vec){0};
        for (long i = 0; i < count; i++) row[offset + i] = *(const vec *)(x + i * step);
        for (long i = offset + count; i < pitch; i++) row[i] = (vec){0};
    }
}

/* A thread keeps its memory, which is of limited size, until it ends, as asking the system for it each time takes long. */
static __thread vec *kept;
static __thread size_t kept_bytes;
static pthread_key_t key;
static int has_key;

__attribute__((constructor)) static void make_key(void) { has_key = !pthread_key_create(&key, free); }

/* At least so much memory of this thread's own, or NULL. */
static vec *own_memory(size_t bytes) {
    if (bytes > kept_bytes) {
        free(kept);
        kept = aligned_alloc(64, bytes);
        kept_bytes = kept ? bytes : 0;
        if (has_key) pthread_setspecific(key, kept);
    }
    return kept;
}

/* Convolve `x` `(n, height, width, channels)`, whose channels are a multiple of 16, with `kernel` `(channels, k, k)`,
   and through GELU if `activated`.

   Returns 0, or 1 if there is no memory. */
int depthwise(const float *x, const float *kernel, float *y, long n, long height, long width, long channels, int k,
              int mirrored, int activated, int threads) {
    int reach = k / 2, failed = 0;
    long lines = channels / LINE, tile_columns = smaller(width, TILE_COLUMNS), tile_rows = smaller(height, TILE_ROWS);
    long across = (width + tile_columns - 1) / tile_columns;
    while (tile_rows > 8 && n * lines * across * ((height + tile_rows - 1) / tile_rows) < TASKS * threads) tile_rows /= 2;
    long down = (height + tile_rows - 1) / tile_rows;
    long pitch = tile_columns + 2 * reach, area = (tile_rows + 2 * reach) * pitch;
#pragma omp parallel num_threads(threads)
    {
        vec *planes = own_memory((size_t)(area + k * k) * LINE * sizeof(float));
        vec *weights = planes ? planes + area * PARTS : NULL;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < n * down * across * lines; task++) {
            if (!planes) {
#pragma omp atomic write
                failed = 1;
                continue;
            }
            long line = task % lines, left = task / lines % across * tile_columns;
            long top = task / lines / across % down * tile_rows, sample = task / lines / across / down;
            long right = smaller(left + tile_columns, width), bottom = smaller(top + tile_rows, height);
            long first_row = larger(top - reach, 0), last_row = smaller(bottom + reach, height);
            long first_column = larger(left - reach, 0), last_column = smaller(right + reach, width);
            const float *source = x + sample * height * width * channels + line * LINE;
            float *target = y + sample * height * width * channels + line * LINE;
            copy_kernel(kernel + line * LINE * k * k, k, mirrored, (float *)weights);
            for (long row = first_row; row < last_row; row++)
                copy_row(source + (row * width + first_column) * channels, last_column - first_column, channels,
                         first_column - left + reach, pitch, planes + (row - first_row) * pitch, area);
            long blocks = (right - left + MAX_COLUMNS - 1) / MAX_COLUMNS;
            for (long block = 0; block < blocks; block++) {
                long column = (right - left) * block / blocks, columns = (right - left) * (block + 1) / blocks - column;
                for (int part = 0; part < PARTS; part++) {
                    const vec *w = weights + part * k * k, *plane = planes + part * area + column;
                    for (long row = top; row < bottom; row += 2) {
                        /* Rows that the upper result reads, and those of the lower one, which may be the next tile's. */
                        long a = larger(row - reach, 0), a_end = smaller(row + reach + 1, height);
                        long b = larger(row + 1 - reach, 0), b_end = smaller(row + reach + 2, height);
                        if (row + 1 == bottom) b = b_end = a_end;
                        CONVOLUTIONS[columns](plane + (a - first_row) * pitch, pitch, w + (a - row + reach) * k,
                                              w + (b - row - 1 + reach) * k, k, b - a, a_end - b, b_end - a_end, activated,
                                              target + (row * width + left + column) * channels + part * LANES, channels,
                                              width * channels);
                    }
                }
            }
        }
    }
    return failed;
}
