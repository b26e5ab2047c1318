/* limit.c - what this machine can do at most, to hold the benchmarks against.
 *
 *   limit rows THREADS           random rows of 192 bytes read and updated in 1.5 GB, in rows/s
 *   limit mlp THREADS BATCH      matrix products of a 624-256-128-1 network, forward and
 *                                backward, in samples/s
 *   limit fm THREADS BATCH FILE  a factorization machine of width 16 with Adagrad on the rows of
 *                                a bin file with 39 ids each, in samples/s: index, rows, kernel
 *                                and nothing else. Each thread has a model and a part of the file
 *                                of its own, so nothing is shared and nothing waits
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

/* 192 bytes: weights, sums of squared gradients, and where the row's gradient stands. */
typedef struct row {
    float w[DIM + 1], square[DIM + 1];
    uint64_t key;
    uint32_t batch;  /* the last one that had the key, from 1 */
    uint32_t unique; /* its number there */
    float pad[10];
} row;

_Static_assert(sizeof(row) == 192, "three cache lines");

typedef struct job {
    int number, threads, batch;
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
    enum { UPDATES = 20000000 };
    size_t n = (size_t)8000000 / (size_t)j->threads;
    row *table = pages(n * sizeof *table);
    pthread_barrier_wait(&start);
    double began = now();
    for (uint64_t i = 0; i < UPDATES; i++) {
        row *next = table + (uint32_t)mix(i + AHEAD) % n, *r = table + (uint32_t)mix(i) % n;
        for (int line = 0; line < 3; line++)
            __builtin_prefetch((char *)next + 64 * line, 1);
        for (int k = 0; k <= DIM; k++) {
            r->square[k] += 0.25f;
            r->w[k] -= 0.5f * r->square[k];
        }
    }
    j->rate = UPDATES / (now() - began);
    free(table);
    return NULL;
}

/* ---- mlp ------------------------------------------------------------------------------- */

static void *mlp_run(void *context)
{
    job *j = context;
    static const int width[] = {FIELDS * DIM, 256, 128, 1};
    enum { LAYERS = 3, STEPS = 150 };
    int n = j->batch;
    float *x[LAYERS + 1], *dx[LAYERS + 1], *w[LAYERS], *dw[LAYERS];
    for (int l = 0; l <= LAYERS; l++) {
        x[l] = pages((size_t)n * (size_t)width[l] * sizeof(float));
        dx[l] = pages((size_t)n * (size_t)width[l] * sizeof(float));
    }
    for (int l = 0; l < LAYERS; l++) {
        w[l] = pages((size_t)width[l] * (size_t)width[l + 1] * sizeof(float));
        dw[l] = pages((size_t)width[l] * (size_t)width[l + 1] * sizeof(float));
    }
    openblas_set_num_threads(1);
    pthread_barrier_wait(&start);
    double began = 0;
    for (int step = -10; step < STEPS; step++) {
        if (step == 0)
            began = now();
        for (int l = 0; l < LAYERS; l++)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, width[l + 1], width[l], 1,
                        x[l], width[l], w[l], width[l + 1], 0, x[l + 1], width[l + 1]);
        for (int l = LAYERS - 1; l >= 0; l--) {
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, width[l], width[l + 1], n, 1, x[l],
                        width[l], dx[l + 1], width[l + 1], 0, dw[l], width[l + 1]);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, width[l], width[l + 1], 1,
                        dx[l + 1], width[l + 1], w[l], width[l + 1], 0, dx[l], width[l]);
        }
    }
    j->rate = (double)n * STEPS / (now() - began);
    return NULL;
}

/* ---- fm -------------------------------------------------------------------------------- */

typedef struct fm {
    uint32_t *index; /* slot of a key + 1, open addressing */
    size_t mask;
    row *table;
    uint32_t rows;
    uint32_t *slot; /* [batch, FIELDS] */
    uint32_t *used; /* the slots of the batch's distinct keys */
    float (*grad)[DIM + 1];
    float bias;
} fm;

static uint32_t find(fm *m, uint64_t key)
{
    for (size_t at = mix(key) & m->mask;; at = (at + 1) & m->mask) {
        if (!m->index[at]) {
            if (m->rows == KEYS_MAX) {
                fputs("limit: the file has too many distinct keys\n", stderr);
                exit(1);
            }
            row *r = m->table + m->rows;
            r->key = key;
            for (int k = 1; k <= DIM; k++)
                r->w[k] = 0.03f * ((float)(mix(key * DIM + (uint64_t)k) >> 40) * 0x1p-24f - 0.5f);
            return m->index[at] = ++m->rows, m->rows - 1;
        }
        if (m->table[m->index[at] - 1].key == key)
            return m->index[at] - 1;
    }
}

/* Slots of the batch's keys, three passes in one: index entries are fetched far ahead, the rows
 * they lead to half as far. */
static uint32_t look_up(fm *m, const int64_t *data, int n, uint32_t batch)
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
            for (int line = 0; line < 3 && likely; line++)
                __builtin_prefetch((char *)(m->table + likely - 1) + 64 * line, 1);
        }
        if (last < 0)
            continue;
        uint32_t s = m->slot[last] = find(m, KEY(last));
        row *r = m->table + s;
        if (r->batch != batch) {
            r->batch = batch;
            r->unique = unique;
            memset(m->grad[unique], 0, sizeof m->grad[unique]);
            m->used[unique++] = s;
        }
    }
    return unique;
}

static void learn(fm *m, const int64_t *data, int n, uint32_t batch)
{
    uint32_t unique = look_up(m, data, n, batch);
    float dbias = 0;
    for (int i = 0; i < n; i++) {
        const uint32_t *slot = m->slot + (size_t)i * FIELDS;
        float sum[DIM + 1] = {0}, square = 0, cross = 0;
        for (int f = 0; f < FIELDS; f++) {
            const float *w = m->table[slot[f]].w;
            for (int k = 0; k <= DIM; k++)
                sum[k] += w[k];
            for (int k = 1; k <= DIM; k++)
                square += w[k] * w[k];
        }
        for (int k = 1; k <= DIM; k++)
            cross += sum[k] * sum[k];
        float z = m->bias + sum[0] + 0.5f * (cross - square);
        float d = (1 / (1 + expf(-z)) - (float)data[(size_t)i * (FIELDS + 1) + FIELDS]) / (float)n;
        dbias += d;
        for (int f = 0; f < FIELDS; f++) {
            const row *r = m->table + slot[f];
            float *g = m->grad[r->unique];
            g[0] += d;
            for (int k = 1; k <= DIM; k++)
                g[k] += d * (sum[k] - r->w[k]);
        }
    }
    m->bias -= 1e-3f * dbias;
    for (uint32_t u = 0; u < unique; u++) {
        row *r = m->table + m->used[u];
        for (int k = 0; k <= DIM; k++) {
            float g = m->grad[u][k];
            r->square[k] += g * g;
            r->w[k] -= 0.05f * g / (sqrtf(r->square[k]) + 1e-10f);
        }
    }
}

static void *fm_run(void *context)
{
    job *j = context;
    size_t entries = (size_t)j->batch * FIELDS, part = j->rows / (size_t)j->threads;
    fm m = {.mask = INDEX - 1};
    m.index = pages(INDEX * sizeof *m.index);
    m.table = pages(KEYS_MAX * sizeof *m.table);
    m.slot = pages(entries * sizeof *m.slot);
    m.used = pages(entries * sizeof *m.used);
    m.grad = pages(entries * sizeof *m.grad);
    const int64_t *data = j->data + part * (size_t)j->number * (FIELDS + 1);
    size_t batches = part / (size_t)j->batch;
    pthread_barrier_wait(&start);
    double began = now();
    for (size_t b = 0; b < batches; b++)
        learn(&m, data + b * (size_t)j->batch * (FIELDS + 1), j->batch, (uint32_t)b + 1);
    j->rate = (double)(batches * (size_t)j->batch) / (now() - began);
    return NULL;
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

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 0;
    if (threads < 1 || threads > THREADS_MAX) {
        fputs("usage: limit rows THREADS | limit mlp THREADS BATCH | limit fm THREADS BATCH FILE\n",
              stderr);
        return 2;
    }
    void *(*run)(void *) = rows_run;
    job all = {.threads = threads, .batch = argc > 3 ? atoi(argv[3]) : 1024};
    if (!strcmp(argv[1], "mlp"))
        run = mlp_run;
    if (!strcmp(argv[1], "fm") && argc > 4) {
        run = fm_run;
        all.data = load(argv[4], &all.rows);
    }
    openblas_set_num_threads(1);
    pthread_barrier_init(&start, NULL, (unsigned)threads);
    job job_of[THREADS_MAX];
    pthread_t thread[THREADS_MAX];
    double rate = 0;
    for (int t = 0; t < threads; t++) {
        job_of[t] = all;
        job_of[t].number = t;
        if (pthread_create(&thread[t], NULL, run, &job_of[t]))
            return 1;
    }
    for (int t = 0; t < threads; t++) {
        pthread_join(thread[t], NULL);
        rate += job_of[t].rate;
    }
    printf("%.0f\n", rate);
    return 0;
}
