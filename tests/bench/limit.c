/* limit.c - what this machine can do at most, to hold the benchmarks against.
 *
 *   limit rows THREADS BYTES [MB]
 *                                random rows of so many bytes (192, 1280) read and updated in 1.5 GB,
 *                                or in so many MB, in rows/s
 *   limit mlp THREADS BATCH [CROSS]
 *                                matrix products of a 624-256-128-1 network, and of so many square
 *                                layers of 624 beside it, forward and backward, in samples/s
 *   limit lr|fm THREADS BATCH FILE
 *                                logistic regression, or a factorization machine of width 16, with
 *                                Adagrad on the rows of a bin file with 39 ids each, in samples/s:
 *                                index, rows, kernel and nothing else. Each thread has a model and a
 *                                part of the file of its own, so nothing is shared and nothing waits
 *   limit text FILE              the numbers of a text file read by one plain loop over its digits,
 *                                in lines/s, on one thread
 *
 * Prints one number: the sum over the threads. Built with -march=native -ffast-math, which the
 * library itself is not. */
#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { FIELDS = 39, DIM = 16, THREADS_MAX = 64, AHEAD = 12 };
enum { INDEX = 1 << 22, KEYS_MAX = 3 << 20 }; /* of a model: room for the synthetic data's ids */

/* Where the row's gradient stands, its weights, and as many sums of squared gradients. */
typedef struct row {
    uint64_t key;
    uint32_t batch;  /* the last one that had the key, from 1 */
    uint32_t unique; /* its number there */
    float w[];
} row;

/* Bytes of a row of so many weights: whole cache lines. */
#define ROW_BYTES(weights) ((sizeof(row) + 2 * sizeof(float) * (weights) + 63) / 64 * 64)

typedef struct job {
    int number, threads, batch, bytes, mb, cross;
    const int64_t *data; /* [rows, FIELDS + 1] */
    size_t rows;
    double rate;
} job;

static pthread_barrier_t start;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *pages(size_t len)
{
    void *p = aligned_alloc((size_t)2 << 20, (len | (((size_t)2 << 20) - 1)) + 1);
    if (!p) {
        fputs("limit: out of memory\n", stderr);
        exit(1);
    }
    madvise(p, len, MADV_HUGEPAGE);
    return memset(p, 0, len);
}

static inline uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    return x ^ x >> 32;
}

/* ---- rows ------------------------------------------------------------------------------ */

static void *rows_run(void *context)
{
    job *j = context;
    size_t n = ((size_t)j->mb << 20) / (size_t)j->bytes / (size_t)j->threads;
    size_t floats = (size_t)j->bytes / sizeof(float) / 2, updates = ((size_t)4 << 30) / (size_t)j->bytes;
    char *table = pages(n * (size_t)j->bytes);
    pthread_barrier_wait(&start);
    double began = now();
    for (uint64_t i = 0; i < updates; i++) {
        char *next = table + (uint32_t)mix(i + AHEAD) % n * (size_t)j->bytes;
        float *w = (float *)(void *)(table + (uint32_t)mix(i) % n * (size_t)j->bytes), *square = w + floats;
        for (int line = 0; line < j->bytes; line += 64)
            __builtin_prefetch(next + line, 1);
        for (size_t k = 0; k < floats; k++) {
            square[k] += 0.25f;
            w[k] -= 0.5f * square[k];
        }
    }
    j->rate = (double)updates / (now() - began);
    free(table);
    return NULL;
}

/* ---- mlp ------------------------------------------------------------------------------- */

static void *mlp_run(void *context)
{
    job *j = context;
    enum { WIDE = FIELDS * DIM, CROSS_MAX = 8, LAYERS_MAX = CROSS_MAX + 3 };
    const int last[] = {256, 128, 1};
    int n = j->batch, layers = j->cross + 3, width[LAYERS_MAX + 1];
    size_t steps = 150000 / (size_t)n / (size_t)(1 + 2 * j->cross) + 3;
    for (int l = 0; l <= layers; l++)
        width[l] = l <= j->cross ? WIDE : last[l - j->cross - 1];
    float *x[LAYERS_MAX + 1], *dx[LAYERS_MAX + 1], *w[LAYERS_MAX], *dw[LAYERS_MAX];
    for (int l = 0; l <= layers; l++) {
        x[l] = pages((size_t)n * (size_t)width[l] * sizeof(float));
        dx[l] = pages((size_t)n * (size_t)width[l] * sizeof(float));
    }
    for (int l = 0; l < layers; l++) {
        w[l] = pages((size_t)width[l] * (size_t)width[l + 1] * sizeof(float));
        dw[l] = pages((size_t)width[l] * (size_t)width[l + 1] * sizeof(float));
    }
    openblas_set_num_threads(1);
    pthread_barrier_wait(&start);
    double began = 0;
    for (int step = -3; step < (int)steps; step++) {
        if (step == 0)
            began = now();
        for (int l = 0; l < layers; l++)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, width[l + 1], width[l], 1,
                        x[l], width[l], w[l], width[l + 1], 0, x[l + 1], width[l + 1]);
        for (int l = layers - 1; l >= 0; l--) {
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, width[l], width[l + 1], n, 1, x[l],
                        width[l], dx[l + 1], width[l + 1], 0, dw[l], width[l + 1]);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, width[l], width[l + 1], 1,
                        dx[l + 1], width[l + 1], w[l], width[l + 1], 0, dx[l], width[l]);
        }
    }
    j->rate = (double)n * (double)steps / (now() - began);
    return NULL;
}

/* ---- lr, fm ---------------------------------------------------------------------------- */

typedef struct model {
    uint32_t *index; /* slot of a key + 1, open addressing */
    size_t mask;
    char *table;
    uint32_t rows;
    uint32_t *slot; /* [batch, FIELDS] */
    uint32_t *used; /* the slots of the batch's distinct keys */
    float *grad;    /* [distinct keys, 1 + dim] */
    float bias;
} model;

static inline row *row_of(const model *m, uint32_t slot, size_t dim)
{
    return (row *)(void *)(m->table + slot * ROW_BYTES(dim + 1));
}

static inline uint32_t find(model *m, uint64_t key, size_t dim)
{
    for (size_t at = mix(key) & m->mask;; at = (at + 1) & m->mask) {
        if (!m->index[at]) {
            if (m->rows == KEYS_MAX) {
                fputs("limit: the file has too many distinct keys\n", stderr);
                exit(1);
            }
            row *r = row_of(m, m->rows, dim);
            r->key = key;
            for (size_t k = 1; k <= dim; k++)
                r->w[k] = 0.03f * ((float)(mix(key * DIM + k) >> 40) * 0x1p-24f - 0.5f);
            return m->index[at] = ++m->rows, m->rows - 1;
        }
        if (row_of(m, m->index[at] - 1, dim)->key == key)
            return m->index[at] - 1;
    }
}

/* Slots of the batch's keys, three passes in one: index entries are fetched far ahead, the rows
 * they lead to half as far. */
static inline uint32_t look_up(model *m, const int64_t *data, int n, uint32_t batch, size_t dim)
{
    uint32_t unique = 0;
    int entries = n * FIELDS;
#define KEY(e) ((uint64_t)data[(size_t)((e) / FIELDS) * (FIELDS + 1) + (size_t)((e) % FIELDS)])
    for (int e = 0; e < entries + 2 * AHEAD; e++) {
        if (e < entries)
            __builtin_prefetch(m->index + (mix(KEY(e)) & m->mask));
        int mid = e - AHEAD, last = e - 2 * AHEAD;
        if (mid >= 0 && mid < entries) {
            uint32_t likely = m->index[mix(KEY(mid)) & m->mask];
            for (size_t line = 0; line < ROW_BYTES(dim + 1) && likely; line += 64)
                __builtin_prefetch((char *)row_of(m, likely - 1, dim) + line, 1);
        }
        if (last < 0)
            continue;
        uint32_t s = m->slot[last] = find(m, KEY(last), dim);
        row *r = row_of(m, s, dim);
        if (r->batch != batch) {
            r->batch = batch;
            r->unique = unique;
            memset(m->grad + unique * (dim + 1), 0, (dim + 1) * sizeof(float));
            m->used[unique++] = s;
        }
    }
    return unique;
}

static inline void learn(model *m, const int64_t *data, int n, uint32_t batch, size_t dim)
{
    uint32_t unique = look_up(m, data, n, batch, dim);
    float dbias = 0;
    for (int i = 0; i < n; i++) {
        const uint32_t *slot = m->slot + (size_t)i * FIELDS;
        float sum[DIM + 1] = {0}, square = 0, cross = 0;
        for (int f = 0; f < FIELDS; f++) {
            const float *w = row_of(m, slot[f], dim)->w;
            for (size_t k = 0; k <= dim; k++)
                sum[k] += w[k];
            for (size_t k = 1; k <= dim; k++)
                square += w[k] * w[k];
        }
        for (size_t k = 1; k <= dim; k++)
            cross += sum[k] * sum[k];
        float z = m->bias + sum[0] + 0.5f * (cross - square);
        float d = (1 / (1 + expf(-z)) - (float)data[(size_t)i * (FIELDS + 1) + FIELDS]) / (float)n;
        dbias += d;
        for (int f = 0; f < FIELDS; f++) {
            const row *r = row_of(m, slot[f], dim);
            float *g = m->grad + r->unique * (dim + 1);
            g[0] += d;
            for (size_t k = 1; k <= dim; k++)
                g[k] += d * (sum[k] - r->w[k]);
        }
    }
    m->bias -= 1e-3f * dbias;
    for (uint32_t u = 0; u < unique; u++) {
        float *w = row_of(m, m->used[u], dim)->w, *square = w + dim + 1;
        for (size_t k = 0; k <= dim; k++) {
            float g = m->grad[u * (dim + 1) + k];
            square[k] += g * g;
            w[k] -= 0.05f * g / (sqrtf(square[k]) + 1e-10f);
        }
    }
}

static inline void learn_part(job *j, size_t dim)
{
    size_t entries = (size_t)j->batch * FIELDS, part = j->rows / (size_t)j->threads;
    model m = {.mask = INDEX - 1};
    m.index = pages(INDEX * sizeof *m.index);
    m.table = pages(KEYS_MAX * ROW_BYTES(dim + 1));
    m.slot = pages(entries * sizeof *m.slot);
    m.used = pages(entries * sizeof *m.used);
    m.grad = pages(entries * (dim + 1) * sizeof *m.grad);
    const int64_t *data = j->data + part * (size_t)j->number * (FIELDS + 1);
    size_t batches = part / (size_t)j->batch;
    pthread_barrier_wait(&start);
    double began = now();
    for (size_t b = 0; b < batches; b++)
        learn(&m, data + b * (size_t)j->batch * (FIELDS + 1), j->batch, (uint32_t)b + 1, dim);
    j->rate = (double)(batches * (size_t)j->batch) / (now() - began);
}

static void *lr_run(void *context)
{
    learn_part(context, 0);
    return NULL;
}

static void *fm_run(void *context)
{
    learn_part(context, DIM);
    return NULL;
}

/* ---- text ------------------------------------------------------------------------------ */

static int text(const char *path)
{
    enum { CHUNK = 1 << 20 };
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    char *chunk = pages(CHUNK);
    uint64_t number = 0, sum = 0;
    size_t lines = 0, got;
    double began = now();
    while ((got = fread(chunk, 1, CHUNK, file)) > 0)
        for (size_t i = 0; i < got; i++) {
            unsigned digit = (unsigned char)chunk[i] - '0';
            if (digit < 10) {
                number = number * 10 + digit;
                continue;
            }
            sum += number;
            number = 0;
            lines += chunk[i] == '\n';
        }
    double seconds = now() - began;
    fclose(file);
    if (sum == 1) /* so that it is needed */
        puts("");
    printf("%.0f\n", (double)lines / seconds);
    return 0;
}

static int64_t *load(const char *path, size_t *rows)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        perror(path);
        exit(1);
    }
    size_t width = (FIELDS + 1) * sizeof(int64_t);
    *rows = (size_t)ftell(file) / width;
    rewind(file);
    int64_t *data = pages(*rows * width);
    if (fread(data, width, *rows, file) != *rows) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return data;
}

static int usage(void)
{
    fputs("usage: limit rows THREADS BYTES [MB] | mlp THREADS BATCH [CROSS] | lr|fm THREADS BATCH FILE | "
          "text FILE\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "text"))
        return text(argv[2]);
    if (argc < 4)
        return usage();
    job all = {.threads = atoi(argv[2]), .batch = atoi(argv[3]), .bytes = atoi(argv[3])};
    void *(*run)(void *) = NULL;
    if (!strcmp(argv[1], "rows") && all.bytes >= 64 && all.bytes % 64 == 0) {
        run = rows_run;
        all.mb = argc > 4 ? atoi(argv[4]) : 1536;
        if (all.mb < 1 || ((int64_t)all.mb << 20) / all.bytes < all.threads)
            return usage();
    }
    if (!strcmp(argv[1], "mlp")) {
        run = mlp_run;
        all.cross = argc > 4 ? atoi(argv[4]) : 0;
    }
    if ((!strcmp(argv[1], "lr") || !strcmp(argv[1], "fm")) && argc > 4) {
        run = *argv[1] == 'l' ? lr_run : fm_run;
        all.data = load(argv[4], &all.rows);
    }
    if (!run || all.threads < 1 || all.threads > THREADS_MAX || all.batch < 1 || all.cross < 0 ||
        all.cross > 8)
        return usage();
    openblas_set_num_threads(1);
    pthread_barrier_init(&start, NULL, (unsigned)all.threads);
    job job_of[THREADS_MAX];
    pthread_t thread[THREADS_MAX];
    double rate = 0;
    for (int t = 0; t < all.threads; t++) {
        job_of[t] = all;
        job_of[t].number = t;
        if (pthread_create(&thread[t], NULL, run, &job_of[t]))
            return 1;
    }
    for (int t = 0; t < all.threads; t++) {
        pthread_join(thread[t], NULL);
        rate += job_of[t].rate;
    }
    printf("%.0f\n", rate);
    return 0;
}
