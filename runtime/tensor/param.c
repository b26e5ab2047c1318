/* param.c - dense weights and their optimizer's state, in the bytes that the store keeps.
 *
 * One buffer, little-endian:
 *
 *     0   uint32 version (1), rank, dim[4] (1 beyond rank), optimizer kind (0xffffffff: a buffer
 *         that is not trained), state vectors
 *     32  uint64 updates so far
 *     40  uint32 row: weights that are updated as one, those of the last axis; 0: BLOCK, as each is
 *         updated alone; state floats of a row
 *     48  zeros
 *     64  float weights[count]
 *     ..  float state: for every row or BLOCK weights in turn, one vector after another, then the
 *         row's floats
 *
 * Blocks are updated in parallel; so their bounds are part of the format. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/profile.h"
#include "optim/optimizer.h"
#include "tensor/operation.h"

enum { VERSION = 1, BLOCK = 16384 };

typedef struct header {
    uint32_t version, rank, dim[RANK_MAX], kind, vectors;
    uint64_t updates;
    uint32_t row, floats;
    uint64_t zero[2];
} header;

_Static_assert(sizeof(header) == 64, "the weights are aligned");

struct mr_param {
    char *name;
    header *bytes;
    size_t len;
    size_t count;
    float *weight, *state; /* inside bytes */
    float *grad;           /* [count], or NULL until the first */
    float scale;           /* that it is to be multiplied by */
    double *squares;       /* [blocks], or NULL until asked for */
    int has_grad;
    int trainable;
    mr_optim optim;
};

/* Floats of state of a param with this header. */
static size_t header_state(const header *h, size_t count)
{
    return count * h->vectors + (h->row ? count / h->row * h->floats : 0);
}

/* Weights that a rule is given at once, and such units that are one piece of work. */
static size_t unit(const mr_param *p)
{
    return p->bytes->row ? p->bytes->row : BLOCK;
}

static size_t units_together(const mr_param *p)
{
    return MAX((size_t)1, BLOCK / unit(p));
}

/* Pieces of a gradient. */
static size_t blocks(const mr_param *p)
{
    return (p->count + BLOCK - 1) / BLOCK;
}

static size_t block_len(const mr_param *p, size_t i)
{
    return MIN((size_t)BLOCK, p->count - i * BLOCK);
}

static size_t units(const mr_param *p)
{
    return (p->count + unit(p) - 1) / unit(p);
}

static size_t unit_len(const mr_param *p, size_t i)
{
    return MIN(unit(p), p->count - i * unit(p));
}

static float *unit_state(const mr_param *p, size_t i)
{
    return p->state + i * optimizer_state(&p->optim, (uint32_t)unit(p));
}

static void state_begin(mr_param *p)
{
    for (size_t i = 0; p->trainable && i < units(p); i++)
        optimizer_begin(&p->optim, unit_len(p, i), p->weight + i * unit(p), unit_state(p, i));
}

mr_param *mr_param_new(const char *name, uint64_t seed, const int32_t *dim, size_t rank,
                       const mr_init *init, const mr_optim *optim, int trainable)
{
    GIVEN(name && dim && init && optim, NULL);
    if (rank < 1 || rank > RANK_MAX)
        return fail_null("param %s: %zu dimensions, expected 1 to %d", name, rank, RANK_MAX);
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) {
        if (dim[i] < 1 || count > INT32_MAX / (size_t)dim[i])
            return fail_null("param %s: dimension %zu is %d, or all of them are too large", name,
                             i + 1, (int)dim[i]);
        count *= (size_t)dim[i];
    }
    char subject[256];
    snprintf(subject, sizeof subject, "param %s", name);
    if (init_check(init, subject) || (trainable && optimizer_check(optim, subject)))
        return NULL;
    header own = {.version = VERSION,
                  .rank = (uint32_t)rank,
                  .dim = {1, 1, 1, 1},
                  .kind = trainable ? (uint32_t)optim->kind : UINT32_MAX};
    for (size_t i = 0; i < rank; i++)
        own.dim[i] = (uint32_t)dim[i];
    if (trainable) {
        own.vectors = optimizer_vectors(optim);
        own.floats = optimizer_floats(optim);
        own.row = optimizer_by_row(optim) ? own.dim[rank - 1] : 0;
    }
    mr_param *p = memory_zero(sizeof *p);
    if (!p)
        return NULL;
    p->count = count;
    p->trainable = trainable;
    p->optim = *optim;
    p->len = sizeof(header) + sizeof(float) * (count + header_state(&own, count));
    p->name = memory_new(strlen(name) + 1);
    p->bytes = memory_zero(p->len);
    if (!p->name || !p->bytes) {
        mr_param_free(p);
        return NULL;
    }
    strcpy(p->name, name);
    *p->bytes = own;
    p->weight = (float *)(p->bytes + 1);
    p->state = p->weight + count;
    init_fill(init, mr_hash(name, strlen(name), seed), count, p->weight);
    state_begin(p);
    return p;
}

void mr_param_start(mr_param *p, double value)
{
    for (size_t i = 0; i < p->count; i++)
        p->weight[i] = (float)value;
    p->bytes->updates = 0;
    state_begin(p);
}

void mr_param_free(mr_param *p)
{
    if (!p)
        return;
    memory_free(p->grad);
    memory_free(p->squares);
    memory_free(p->bytes);
    memory_free(p->name);
    memory_free(p);
}

float *mr_param_data(mr_param *p)
{
    GIVEN(p, NULL);
    return p->weight;
}

size_t mr_param_count(const mr_param *p)
{
    GIVEN(p, 0);
    return p->count;
}

mr_optim *mr_param_optim(mr_param *p)
{
    GIVEN(p, NULL);
    return &p->optim;
}

float *param_grad(mr_param *p, int *add)
{
    if (!p->grad)
        p->grad = memory_new(sizeof *p->grad * p->count);
    *add = p->has_grad;
    if (!p->has_grad)
        p->scale = 1;
    p->has_grad = p->grad != NULL;
    return p->grad;
}

size_t param_count(const mr_param *p)
{
    return p->count;
}

int param_shape(const mr_param *p, int32_t *dim)
{
    for (int i = 0; i < RANK_MAX; i++)
        dim[i] = (int32_t)p->bytes->dim[i];
    return (int)p->bytes->rank;
}

int param_trainable(const mr_param *p)
{
    return p->trainable;
}

const char *param_name(const mr_param *p)
{
    return p->name;
}

typedef struct stepping {
    mr_param *p;
    optimizer_rule *rule;
    uint64_t t;
} stepping;

static void step_piece(void *context, size_t piece)
{
    stepping *s = context;
    mr_param *p = s->p;
    size_t together = units_together(p), end = MIN(units(p), (piece + 1) * together);
    size_t begin = piece * together * unit(p), len = MIN(together * unit(p), p->count - begin);
    if (p->scale != 1)
        gradient_squares(p->grad + begin, len, p->scale, 0);
    for (size_t i = piece * together; s->rule && i < end; i++) {
        size_t at = i * unit(p);
        s->rule(&p->optim, s->t, unit_len(p, i), p->grad + at, p->weight + at, unit_state(p, i));
    }
}

typedef struct checking {
    const mr_param *p;
    atomic_int bad;
} checking;

static void finite_block(void *context, size_t i)
{
    checking *c = context;
    const float *g = c->p->grad + i * BLOCK;
    size_t n = block_len(c->p, i);
    float sum = 0; /* 0 x is 0 unless x is not finite: then NaN */
#pragma omp simd reduction(+ : sum) simdlen(32)
    for (size_t k = 0; k < n; k++)
        sum += g[k] * 0.0f;
    if (sum != 0)
        c->bad = 1;
}

int mr_param_finite(mr_param *p)
{
    GIVEN(p, -1);
    checking c = {.p = p};
    if (p->has_grad)
        parallel(blocks(p), finite_block, &c);
    if (!c.bad)
        return 0;
    mr_param_zero(p);
    return fail("param %s: its gradient is not finite", p->name);
}

typedef struct summing {
    mr_param *p;
    float value;
} summing;

static void square_block(void *context, size_t i)
{
    const summing *s = context;
    mr_param *p = s->p;
    p->squares[i] = gradient_squares(p->grad + i * BLOCK, block_len(p, i), p->scale, s->value);
}

double mr_param_squares(mr_param *p, double value)
{
    GIVEN(p, -1);
    PROFILE(PART_CLIP);
    if (!p->has_grad || !p->trainable)
        return 0;
    if (mr_param_finite(p))
        return -1;
    if (!p->squares && !(p->squares = memory_new(blocks(p) * sizeof *p->squares)))
        return -1;
    summing s = {p, (float)value};
    parallel(blocks(p), square_block, &s);
    double sum = 0;
    for (size_t i = 0; i < blocks(p); i++)
        sum += p->squares[i];
    p->scale = 1;
    return sum;
}

void mr_param_scale(mr_param *p, double factor)
{
    GIVEN(p, );
    p->scale *= (float)factor;
}

int mr_param_step(mr_param *p, uint64_t step)
{
    GIVEN(p, -1);
    PROFILE(PART_PARAMS);
    if (!p->has_grad || !p->trainable)
        return 0;
    if (mr_param_finite(p))
        return -1;
    stepping s = {p, optimizer_of(&p->optim), step};
    size_t together = units_together(p);
    parallel((units(p) + together - 1) / together, step_piece, &s);
    p->bytes->updates++;
    p->has_grad = 0;
    return 0;
}

int mr_param_updated(mr_param *p, int i, float *w, float *g, float *state)
{
    GIVEN(p && w && g && state, -1);
    size_t piece = (size_t)i, at = piece * BLOCK, vectors = p->bytes->vectors;
    if (piece > 0 && piece <= blocks(p)) { /* the last one, back */
        size_t n = block_len(p, piece - 1), before = at - BLOCK;
        memcpy(p->weight + before, w, sizeof(float) * n);
        memcpy(p->state + before * vectors, state, sizeof(float) * n * vectors);
    }
    if (piece >= blocks(p))
        return 0;
    size_t n = block_len(p, piece);
    memcpy(w, p->weight + at, sizeof(float) * n);
    memcpy(g, p->grad + at, sizeof(float) * n);
    memcpy(state, p->state + at * vectors, sizeof(float) * n * vectors);
    return (int)n;
}

void mr_param_zero(mr_param *p)
{
    GIVEN(p, );
    p->has_grad = 0;
}

double mr_param_updates(const mr_param *p)
{
    GIVEN(p, -1);
    return (double)p->bytes->updates;
}

const void *mr_param_bytes(mr_param *p)
{
    GIVEN(p, NULL);
    return p->bytes;
}

size_t mr_param_len(const mr_param *p)
{
    GIVEN(p, 0);
    return p->len;
}

int mr_param_load(mr_param *p, const void *bytes, size_t len)
{
    GIVEN(p && bytes, -1);
    header kept, own = *p->bytes;
    if (len < sizeof kept)
        return fail("param %s: %zu bytes, expected %zu", p->name, len, p->len);
    memcpy(&kept, bytes, sizeof kept);
    if (kept.version != VERSION)
        return fail("param %s: its format is version %u, expected %d", p->name, kept.version,
                    VERSION);
    if (kept.rank != own.rank || memcmp(kept.dim, own.dim, sizeof kept.dim))
        return fail("param %s: its shape is [%u, %u, %u, %u], expected [%u, %u, %u, %u]", p->name,
                    kept.dim[0], kept.dim[1], kept.dim[2], kept.dim[3], own.dim[0], own.dim[1],
                    own.dim[2], own.dim[3]);
    size_t expected = sizeof kept + sizeof(float) * (p->count + header_state(&kept, p->count));
    if (kept.vectors > 8 || len != expected)
        return fail("param %s: %zu bytes, expected %zu", p->name, len, expected);
    if (kept.kind != own.kind || kept.vectors != own.vectors || kept.row != own.row ||
        kept.floats != own.floats) { /* the state begins anew */
        memcpy(p->weight, (const char *)bytes + sizeof kept, sizeof(float) * p->count);
        state_begin(p);
        p->bytes->updates = kept.updates;
        p->has_grad = 0;
        return 0;
    }
    memcpy(p->bytes, bytes, len);
    p->has_grad = 0;
    return 0;
}

int mr_param_check(const char *name, const void *bytes, size_t len)
{
    GIVEN(name && bytes, -1);
    header h;
    size_t count = 1;
    if (len < sizeof h)
        return fail("param %s: %zu bytes, expected at least %zu", name, len, sizeof h);
    memcpy(&h, bytes, sizeof h);
    if (h.version != VERSION)
        return fail("param %s: its format is version %u, expected %d", name, h.version, VERSION);
    int good = h.rank >= 1 && h.rank <= RANK_MAX && h.vectors <= 8 && h.floats <= 8;
    for (uint32_t i = 0; good && i < RANK_MAX; i++) {
        good = h.dim[i] >= 1 && (i < h.rank || h.dim[i] == 1) && count <= INT32_MAX / h.dim[i];
        count *= h.dim[i];
    }
    good = good && (!h.row || count % h.row == 0);
    if (!good || len != sizeof h + sizeof(float) * (count + header_state(&h, count)))
        return fail("param %s: its %zu bytes are not of its shape [%u, %u, %u, %u] and %u values a "
                    "weight",
                    name, len, h.dim[0], h.dim[1], h.dim[2], h.dim[3], h.vectors);
    return 0;
}
