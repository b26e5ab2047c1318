/* moonrock.h - the public interface of the runtime, and its manual.
 *
 * The text between the two marker lines is, unchanged, what Lua's FFI reads.
 *
 * Conventions
 *   - A function that can fail returns -1 or NULL and leaves a message in the calling
 *     thread's buffer: mr_error(). The message names its subject first.
 *   - What a `*_new` or `*_open` returns is freed by its `*_free` or `*_close`; no other
 *     pointer is kept after a call. "Owned by X" means: valid until X is freed, or until
 *     the moment said.
 *   - Keys are uint64_t, all 2^64 of them legal. `n` is a count, `dim` a width in floats,
 *     `len` a length in bytes. Shapes are written [rows, columns], row-major.
 *   - Nothing here prints, exits, or calls Lua. One thread calls these functions; what
 *     they fork inside has joined when they return, but for the reader's own thread.
 *   - Results do not depend on the number of threads. */
#ifndef MOONROCK_H
#define MOONROCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/*--- cdef begin ---*/

/* ---- base ------------------------------------------------------------------------ */

/* The calling thread's last error; "" if there was none. Owned by the thread. */
const char *mr_error(void);

/* Version of the library, as "1.2.3"; the Lua half refuses to load with another. */
const char *mr_version(void);

/* Sets the number of threads of the pool, the caller's included: 1 to 256; or 0, which leaves what was set
 * before, and at first means one for each processor that the process may run on. */
int mr_threads_set(int n);
int mr_threads(void);

/* Seconds of a monotonic clock, and of the wall clock since 1970. */
double mr_clock(void);
double mr_clock_wall(void);

/* A profile: where the time of the calling thread goes from `start` on, but for the times between `pause`
 * (1: it was running) and `resume`. Part i of it, from 0, -1 beyond the last: its own seconds, without
 * those of parts that it called, and how often it was begun. */
typedef struct mr_profile {
    const char *name, *direction; /* of an operation: "forward" or "backward", else "" */
    double seconds, calls;
} mr_profile;
void mr_profile_start(void);
int mr_profile_pause(void);
void mr_profile_resume(void);
int mr_profile_part(int i, mr_profile *out);

/* Catches SIGINT and SIGTERM from now on, unless the program has handlers of its own: the first only
 * raises a flag, the second ends the process at once. mr_interrupted() is 0, or the number of the first
 * signal caught; `set` is for such handlers, and 0 takes it back. */
void mr_interrupt_catch(void);
int mr_interrupted(void);
void mr_interrupt_set(int number);

/* Path of the running program; "" if it cannot be found out. */
const char *mr_program(void);

/* 64-bit hash (XXH3) of len bytes under a seed. */
uint64_t mr_hash(const void *bytes, size_t len, uint64_t seed);

/* Largest resident size of this process so far (VmHWM), in bytes. */
double mr_memory_peak(void);

/* The memory that this process may use, in bytes: set before tables and stores are made; 0: half of
 * the machine's, or of its control group's. floor: the least that would do for what there is now. */
int mr_memory_limit_set(double bytes);
double mr_memory_limit(void);
double mr_memory_floor(void);

/* What is resident now, and who of it holds how much and was promised how much: parts from 0 on, NULL
 * after the last. */
double mr_memory_resident(void);
const char *mr_memory_part(int i, double *held, double *promise);

/* How many times the runtime's allocator was called: a steady step adds none. */
double mr_memory_calls(void);

/* ---- data: batches --------------------------------------------------------------- */

/* How far the data has been consumed. A record is a line of text (or a row of CSV, or of
 * `bin`) that is not blank, a comment or a header; records are numbered from 0 in each epoch,
 * those of the other part of a split and those that are skipped included. */
typedef struct mr_position {
    int64_t epoch;  /* from 0 */
    int64_t sample; /* records of this epoch consumed; in a shuffled window, as many of its
                       records as it has given samples */
} mr_position;

/* Some samples, in compressed rows: sample s owns the entries offsets[s]..offsets[s+1). An
 * entry is a key, its value and its field. Owned by the reader, valid until its next batch. */
typedef struct mr_batch {
    int32_t n;               /* samples */
    int32_t entries;         /* offsets[n] */
    int32_t fields;          /* number of fields; 0: samples are plain sets of keys */
    int32_t last_of_epoch;   /* 1 in the last batch of an epoch */
    const uint64_t *keys;    /* [entries] */
    const float *values;     /* [entries], or NULL: all are 1 */
    const uint16_t *field;   /* [entries], or NULL: every sample has `fields` entries, the
                                j-th of field j */
    const uint32_t *offsets; /* [n + 1] */
    const float *label;      /* [n], or NULL: the data has none */
    const float *weight;     /* [n], or NULL: all are 1 */
    const uint64_t
        *group;           /* [n] query ids (qid: of svmlight), 0 where a sample has none; or NULL */
    mr_position position; /* after this batch */
    uint64_t number;      /* of all batches that readers of this process made, from 1; 0: of none */
    const uint8_t *bad;   /* [n], 1: a line that could not be read, kept as an empty sample
                                with a NaN for label; or NULL: there are none */
    const int64_t *record; /* [n] number of each sample's record in its epoch, or NULL */
    int32_t shared;        /* the arrays are those that the reader keeps in memory, not a copy */
    const double
        *generation;    /* counts the batches of its reader, and can be read for ever; or NULL */
    int32_t normalized; /* values are those that mr_scales_apply made of: */
    const float *given; /* [entries], or NULL: all were 1 */
    const double
        *numbers; /* for mr_schema_observe, or NULL: of numbers_n samples, dropped ones included */
    int32_t numbers_n;
} mr_batch;

/* The key of each sample in a field, from 0: of its first entry there, 0 where it has none. Field -1: its
 * group. */
int mr_batch_keys(const mr_batch *batch, int field, uint64_t *keys);

/* Drops negatives (labels below 0.5) of a reader's batch, in place: each stays with the chance
 * `rate`, drawn from (seed, epoch, record). Returns how many samples are left; -1 without labels,
 * or if the batch is shared. */
int mr_batch_draw(mr_batch *b, uint64_t seed, double epoch, double rate);

/* Multiplies the weight of every sample by that of its class, into weight [n], which becomes the
 * batch's and is the caller's. */
int mr_batch_weigh(mr_batch *b, double negative, double positive, float *weight);

/* The sum of its sample weights: n without any. */
double mr_batch_weight(const mr_batch *b);

/* ---- data: scales of values -------------------------------------------------------- */

/* What a model divides the values of data without a schema by; formulas: runtime/tensor/normalize.c. */
typedef enum mr_normalize {
    MR_NORMALIZE_SAMPLE = 1, /* the norm of the sample */
    MR_NORMALIZE_KEY         /* the largest |value| of the key that training met so far */
} mr_normalize;

typedef struct mr_scales mr_scales;
typedef struct mr_tape mr_tape;

/* Scales of no key, for one of these ways. */
mr_scales *mr_scales_new(int how);
void mr_scales_free(mr_scales *s);

/* Normalizes the values of a batch, until its reader's next, into the tape's arena: those that it was given,
 * however often it is called. Scales of keys grow only on a tape that trains. -1 when they would take over an
 * eighth of the memory limit. */
int mr_scales_apply(mr_scales *s, mr_tape *t, mr_batch *b);

/* Keys that have a scale; that of a key, 0 if it has none. */
double mr_scales_count(const mr_scales *s);
double mr_scales_of(const mr_scales *s, uint64_t key);

/* The scales as bytes, for the store: the same for the same scales. Owned by them, until the next call;
 * mr_scales_len is their number. load takes them back. changed: 1 if they are others since either. */
const void *mr_scales_bytes(mr_scales *s);
size_t mr_scales_len(const mr_scales *s);
int mr_scales_load(mr_scales *s, const void *bytes, size_t len);
int mr_scales_changed(const mr_scales *s);

/* What batches hold, begun with zeros: labels, and the largest |value| as it was given. add returns 1 when
 * that is a new one. */
typedef struct mr_summary {
    double rows, weight;  /* samples, the sum of their weights */
    double mean, squares; /* of labels, weighted; sum of squares about the mean */
    float largest;
    int32_t field; /* its field, from 0; -1: it has none */
    uint64_t key;
} mr_summary;
int mr_summary_add(mr_summary *s, const mr_batch *b);

/* ---- data: schemas ----------------------------------------------------------------- */

typedef enum mr_field_kind {
    MR_CATEGORY,   /* one key: the hash of the cell's bytes */
    MR_CATEGORIES, /* a key for each part of the cell */
    MR_NUMERIC,    /* one key, whose value is the scaled number */
    MR_BUCKET,     /* one key: the hash of how many edges are <= the number */
    MR_CROSS       /* a key for each combination of its parts' keys */
} mr_field_kind;

typedef enum mr_scale {
    MR_SCALE_NONE,        /* x */
    MR_SCALE_STANDARD,    /* (x - mean) / deviation */
    MR_SCALE_LOG,         /* sign(x) log(1 + |x|) */
    MR_SCALE_LOG_STANDARD /* the logarithm, then standardised */
} mr_scale;

/* A field. A key is the XXH3 hash of its bytes under the hash of the field's name; a missing
 * cell has a key of its own (a numeric field's with the value 1). Everything is copied. */
typedef struct mr_field {
    int32_t kind;       /* mr_field_kind */
    const char *name;   /* distinct within the schema */
    const char *column; /* NULL for a cross */
    int32_t separator;  /* MR_CATEGORIES: a byte */
    int32_t scale;      /* MR_NUMERIC: mr_scale */
    int32_t literal;    /* mean and deviation are given, not fitted */
    double mean, deviation;
    int32_t quantiles;   /* MR_BUCKET: number of buckets to fit, or 0: edges are given */
    const double *edges; /* [edges_n], ascending */
    size_t edges_n;
    const char *const *parts; /* MR_CROSS: names of fields before it (not numeric), or else of
                                 columns, taken as categories */
    size_t parts_n;
} mr_field;

/* NAMES: each file starts with a line of names, by which columns are found; SKIPPED: with a line that is passed,
 * `columns` are named by their place. */
typedef enum mr_header { MR_HEADER_NONE, MR_HEADER_NAMES, MR_HEADER_SKIPPED } mr_header;

typedef struct mr_schema_options {
    const char *name;
    const char *separator;      /* between cells: some bytes; "": a run of spaces and tabs */
    int32_t header;             /* mr_header */
    int32_t trim;               /* blanks around a cell are no part of it */
    int32_t quote;              /* a cell may stand in double quotes (RFC 4180) */
    int32_t escape;             /* a byte that makes a quote, a separator or itself text; 0: none */
    int32_t decimal;            /* a byte, '.' or ',' */
    const char *const *columns; /* names; NULL: the header's */
    size_t columns_n;
    const char *const *missing; /* cells that stand for none */
    size_t missing_n;
    const char *label;           /* column; NULL: there is none */
    const char *const *positive; /* cells that stand for 1; none: the label is a number */
    size_t positive_n;
    const char *const *negative; /* cells that stand for 0; none: all others */
    size_t negative_n;
    const double *positive_numbers; /* the same by value: 1 stands for "1" and "1.0" */
    size_t positive_numbers_n;
    const double *negative_numbers;
    size_t negative_numbers_n;
    const char
        *weight; /* column of the sample weight, or NULL; not read where labels are ignored */
} mr_schema_options;

typedef struct mr_schema mr_schema;

/* How rows of CSV become samples. Readers keep the schema alive until they are closed. */
mr_schema *mr_schema_new(const mr_schema_options *options);
void mr_schema_free(mr_schema *s);

/* Adds a field, numbered from 0. */
int mr_schema_field(mr_schema *s, const mr_field *field);
int mr_schema_fields(const mr_schema *s);
const char *mr_schema_field_name(const mr_schema *s, int field); /* owned by the schema */

/* The first field that still needs fitting, or NULL. Owned by the schema. */
const char *mr_schema_unfitted(const mr_schema *s);

/* What was fitted, as text; and back, which fails for the text of another schema. Owned by the
 * schema, valid until the next call. Readers that are open keep what they started with. */
const char *mr_schema_statistics(mr_schema *s);
int mr_schema_restore(mr_schema *s, const char *statistics);

/* ---- data: files ------------------------------------------------------------------- */

/* A file, and what tells it from others. */
typedef struct mr_file {
    const char *name;  /* as it was given, or found in a directory that was */
    const char *path;  /* absolute, without links; of no file: the name */
    double size;       /* bytes; -1: what can be read once, as a pipe */
    double changed;    /* when it was last written to, in seconds since 1970 */
    char identity[48]; /* kept when it is renamed, truncated or appended to; "": not known */
} mr_file;

typedef struct mr_files mr_files;

/* The files that a list of paths stands for, in the order in which a reader takes them. grows: the
 * last may be empty yet. NULL where one cannot be read. */
mr_files *mr_files_find(const char *const *paths, size_t n, int grows);

/* The files beside one whose names begin with its name: those that it may have been renamed to. */
mr_files *mr_files_beside(const char *path);
void mr_files_free(mr_files *f);
size_t mr_files_count(const mr_files *f);
const char *mr_files_left_out(const mr_files *f);         /* as mr_reader_left_out() */
const mr_file *mr_files_get(const mr_files *f, size_t i); /* owned by f */

/* Hash of the first and the last 64 KiB of the first `bytes` bytes of a file, into hex [17]: 1; 0 when
 * it is not there or has fewer; or -1. */
int mr_file_hash(const char *path, double bytes, char *hex);

/* The same of what a packed file holds, all of which is unpacked to find its size. */
int mr_file_hash_unpacked(const char *path, double bytes, char *hex, double *size);

/* ---- data: readers ----------------------------------------------------------------- */

typedef enum mr_task { MR_REGRESSION, MR_BINARY } mr_task;
typedef enum mr_labels { MR_LABELS_REQUIRED, MR_LABELS_AUTO, MR_LABELS_IGNORED } mr_labels;
typedef enum mr_bad_lines { MR_BAD_ERROR, MR_BAD_SKIP, MR_BAD_KEEP } mr_bad_lines;

/* What stands at a path of data, without opening it; -1 if it is not there or cannot be read. ONCE: a pipe
 * or device, which can be read only once; "-", standard input, too. */
typedef enum mr_path { MR_PATH_FILE = 1, MR_PATH_DIRECTORY, MR_PATH_ONCE } mr_path;
int mr_path_kind(const char *path);

typedef struct mr_reader_options {
    const char *const *files; /* paths; a directory: the files in it and below, by name; "-":
                                 standard input. What can be read only once, if it is the only
                                 file, is taken to start at `from` */
    size_t files_n;
    const double *sizes; /* [files_n] bytes of each that are read, though it may have grown; 0: all;
                            or NULL */
    const char *format;  /* libsvm, libffm, libfm, csv, tsv, bin; NULL: found out */
    mr_schema *schema;   /* csv and tsv; else NULL */
    int32_t fields;      /* libsvm, libfm, bin: the j-th entry is of field j, and there are this
                            many (bin: 39 if 0); libffm: fields are below this; 0: not known */
    int32_t size;        /* samples of a batch */
    int32_t task;        /* mr_task: binary labels are 0 and 1, or -1 and 1 (read as 0 and 1) */
    int32_t labels;      /* mr_labels: auto: as the first record has one or not; ignored: not
                            read, batches have none */
    int32_t bad_lines;   /* mr_bad_lines: keep: an empty sample for every bad line, so that there is
                            one for each record */
    int32_t follow;      /* the last file grows */
    int32_t stream;      /* hand out a batch as soon as it is full: last_of_epoch stays 0 */
    int32_t memory;      /* 1: read once, keep all samples; 0: do not; -1: if it is small */
    int32_t own;         /* 1: batches are copies of samples that are kept, and may be changed */
    int32_t part;        /* of a split: 0 all, 1 what is left, 2 what is held out */
    double split_from;   /* held out: records whose number's hash, from 0 to 1, is at least */
    double split;        /* split_from and below split */
    int64_t epochs;      /* 0: without end */
    int64_t window;      /* records to shuffle within; 0: as they come; -1: the whole epoch */
    int64_t skip, limit; /* records to leave out at the start, and to read (0: all) */
    uint64_t seed;       /* of the order, which depends on (seed, epoch, window) alone */
    mr_position from;    /* where to start */
    double max_wait; /* stream: seconds that a sample waits at most for its batch to fill: then it
                            is cut short; 0: whenever no more is there at once; below 0: never */
    double bytes;    /* most memory for samples that are kept; 0: any */
    int32_t running; /* 1: statistics of the schema that run take the samples in as they are read */
} mr_reader_options;

typedef struct mr_reader mr_reader;

/* Starts to read ahead, in a thread of its own. */
mr_reader *mr_reader_open(const mr_reader_options *options);
void mr_reader_close(mr_reader *r);

/* The batch, always at the same address. Owned by the reader. */
const mr_batch *mr_reader_batch(const mr_reader *r);

/* Fills it with the next samples and returns how many, 0 at the end of the data or once
 * mr_interrupted(), or -1. What the last batch pointed to is valid until then. */
int mr_reader_next(mr_reader *r);

/* The batch that the consumer has, i = 0, and the i-th after it; NULL if it is not there yet. Its memory
 * stays until its turn is over. */
const mr_batch *mr_reader_coming(mr_reader *r, int i);

/* Starts again at a position; what is kept in memory is not read again. */
int mr_reader_seek(mr_reader *r, int64_t epoch, int64_t sample);

/* Names of files in directories that are left out since they begin with _, but are not known to be of other
 * systems' jobs; or "". Owned by the reader. */
const char *mr_reader_left_out(const mr_reader *r);

/* Bad lines of an epoch that were skipped or kept so far; the first one, or "". */
double mr_reader_skipped(mr_reader *r);
const char *mr_reader_first_bad(mr_reader *r); /* owned by the reader */

/* Where sample i of the batch stands, from 0: "a.svm:3", or "record 3" when that is not known any
 * more. Owned by the reader, valid until the next call. */
const char *mr_reader_where(mr_reader *r, int i);

/* How far the batches that were given out have come in all epochs, from 0 to 1, by their
 * records; -1: not known. */
double mr_reader_progress(const mr_reader *r);

/* How many records the options' files have, or -1. */
int64_t mr_records_count(const mr_reader_options *options);

/* Fits what a schema needs fitted over all records of the options' files (its part of them),
 * on the calling thread, in order: the same at any time. */
int mr_schema_fit(mr_schema *s, const mr_reader_options *options);

/* Lets the statistics of all fields that need fitting run along with a stream (runtime/data/schema_run.c), from
 * nothing; returns how many fields have such, or -1. A reader with the option `running` goes on from the schema's in
 * a copy of its own. The schema keeps the numbers of each batch that it observes; advance takes in those up to
 * the last mark, in their order. bytes are owned by the schema until the next call; load fails for those of
 * another schema. */
int mr_schema_run(mr_schema *s);
int mr_schema_running(const mr_schema *s);
int mr_schema_observe(mr_schema *s, const mr_batch *batch);
void mr_schema_mark(mr_schema *s);
void mr_schema_advance(mr_schema *s);
const void *mr_schema_moving_bytes(mr_schema *s, size_t *len);
int mr_schema_moving_load(mr_schema *s, const void *bytes, size_t len);

/* ---- table ----------------------------------------------------------------------- */

/* An optimizer with its settings; its state: runtime/table/README.md. Unused ones are 0. */
typedef enum mr_optim_kind {
    MR_SGD,
    MR_ADAGRAD,
    MR_ADAM,
    MR_ADAMW,
    MR_FTRL,
    MR_ROW_ADAGRAD,
    MR_AMSGRAD,
    MR_LION,
    MR_RMSPROP,
    MR_CENTERED_RMSPROP,
    MR_USER = 256 /* and above: the caller updates; the number says by which rule */
} mr_optim_kind;

typedef struct mr_optim {
    int32_t kind; /* mr_optim_kind */
    int32_t
        global_step;  /* Adam, AMSGrad, AdamW: bias correction by the model's step, not the row's */
    int32_t nesterov; /* SGD: looks ahead along the momentum */
    int32_t fade_every;  /* Adagrad: at each so many-th update the sum of squares fades; 0: never */
    double lr;           /* learning rate; FTRL's alpha */
    double l1, l2;       /* FTRL's; elsewhere l2: g += l2 w, and l1 is proximal: SGD, Adagrad */
    double group;        /* FTRL, Adagrad: of the norm of the row, which is 0 or not as a whole */
    double beta;         /* FTRL */
    double beta1, beta2; /* Adam, AMSGrad, AdamW, Lion; beta2 of RMSprop */
    double eps;          /* Adagrad, Adam, AMSGrad, AdamW, RMSprop */
    double init;         /* Adagrad: the sum of squares starts here */
    double fade;         /* Adagrad: sum = max(init, fade sum) */
    double momentum;     /* SGD, RMSprop */
    double decay;        /* AdamW, AMSGrad, Lion: w -= lr decay w, on touch */
    /* Of a table's column: by l2, or by decay, the rows that are in no batch shrink in each step too. They
     * do so when they are looked up next: the last idle_steps of those steps are replayed then. */
    int32_t l2_table, decay_table, idle_steps;
    int32_t vectors; /* MR_USER: floats of state for each weight, 0 to 8; they start at init */
} mr_optim;

/* A fresh weight, as a pure function of (seed, table, column, key, coordinate). */
typedef enum mr_init_kind {
    MR_CONSTANT,         /* a */
    MR_UNIFORM,          /* from a to b */
    MR_NORMAL,           /* mean a, deviation b */
    MR_TRUNCATED_NORMAL, /* the same, within 2 b of a */
    MR_DRAWN /* one of 65536 values, each as likely; they outlive what is made with them */
} mr_init_kind;

typedef struct mr_init {
    int32_t kind; /* mr_init_kind */
    float a, b;
    const float *values; /* [65536] */
} mr_init;

typedef struct mr_column {
    const char *name; /* copied */
    uint32_t dim;     /* floats, 1 to 65535 */
    mr_init init;
    mr_optim optim;
    uint32_t admit; /* sightings of a key until the column is trained, at most 15; 0, 1: the first.
                       With admission by chance: more than 1, it has to be admitted */
    int32_t half; /* 1: in bfloat16, at most 4096 floats; and so is the state where its rule is not
                       AMSGrad, row-wise Adagrad or the caller's. Updates are computed in float and rounded
                       up or down by chance, so that their mean is right */
} mr_column;

/* Which keys are worth a row. Only training counts sightings, once a key and batch. A column that is
 * not admitted is 0, gets no gradient and takes no space. */
typedef struct mr_admission {
    double keys;     /* by count: how many there may be; 4.8 bytes each at an error of 0.01 */
    double error;    /* chance that a key is taken for one seen more often, 0 to 1 */
    double chance;   /* not 0: by chance instead, at each sighting */
    int32_t initial; /* 1: such a column is what it will begin with, instead of 0 */
} mr_admission;

/* A column of a layout that records were written in. */
typedef struct mr_kept_column {
    const char *name;
    uint32_t dim, state; /* floats */
    int32_t kind;        /* mr_optim_kind */
    int32_t half;        /* mr_table_half */
} mr_kept_column;

typedef struct mr_table mr_table;

/* A table of n named columns (1 to 16), empty. id (from 0) numbers it in the store; name and
 * seed enter every fresh weight. */
mr_table *mr_table_new(const char *name, uint32_t id, uint64_t seed, const mr_column *columns,
                       size_t n);
void mr_table_free(mr_table *t);

/* Before any key is looked up: admits keys by these rules. */
int mr_table_admission(mr_table *t, const mr_admission *options);

/* Rows expire that got no gradient for so many seconds; 0: never. */
int mr_table_expiry(mr_table *t, double seconds);

/* Records of layout `number` (from 1) have these columns, found again by name; those of the table are
 * layout 1 unless mr_table_layout_now says which one they are. */
int mr_table_layout(mr_table *t, int number, const mr_kept_column *columns, size_t n);
int mr_table_layout_now(mr_table *t, int number);

/* Number of rows: keys that were ever updated and not dropped. */
double mr_table_rows(const mr_table *t);

/* Rows in the cache, and of these, changed since the last commit; rows that lookups had to look for in
 * the store. resident: 1 while the cache holds every row. pressed: 1 when so many changed that a
 * commit is due. */
double mr_table_cached(const mr_table *t);
double mr_table_dirty(const mr_table *t);
double mr_table_missed(const mr_table *t);
int mr_table_resident(const mr_table *t);
int mr_table_holds(const mr_table *t, uint64_t key); /* 1: the key's row is in the cache */
int mr_table_pressed(const mr_table *t);

/* The settings of column c, to change the learning rate by. Owned by the table. */
mr_optim *mr_table_optim(mr_table *t, int c);

/* Looks up the rows of all keys of a batch, each distinct key once, for the operations of a
 * tape. A training tape makes room for keys not seen before; another one reads their fresh
 * values and writes nothing. Rows that the cache lacks are read from the store. The batch must stay
 * until the tape is reset. Returns the number of the lookup on the tape; -1; or -2 when there is no
 * room for them until what changed is committed. */
int mr_table_pull(mr_table *t, mr_tape *tape, const mr_batch *batch);

/* A batch, that of this step or a coming one (mr_reader_coming), will be pulled in training: begins to
 * read the rows that the cache lacks, while others go on. 1; 0: not now, nor batches after it; -1. drop
 * forgets them, before the reader is closed. */
int mr_table_ahead(mr_table *t, const mr_batch *batch);
void mr_table_ahead_drop(mr_table *t);

/* Updates every row that got a gradient since the last push, once: gradients of the same key
 * are summed in the order of lookups and samples. `step` is the model's step that this makes,
 * from 1. Returns the number of rows updated, or -1 when one was not finite (then none is). */
int mr_table_push(mr_table *t, uint64_t step);

/* After a push: hands out the rows of a column c of MR_USER, one a call: w [dim], its gradient g and the state
 * [vectors of dim] are copied; the next call puts w and state back. Returns the number of the row's update,
 * from 1; 0 after the last. A push of a table with such columns forgets its lookups and gradients only by
 * mr_table_drop. */
double mr_table_updated(mr_table *t, int c, float *w, float *g, float *state);

/* Of the gradients since the last push: fails if one is not finite. */
int mr_table_finite(mr_table *t);

/* Of the same, after the last backward pass: squares holds every coordinate of their sums by row
 * within -value .. value (0: as it is) and returns the sum of their squares, of the rows that will be
 * updated, or -1 when one was not finite; scale multiplies them all. */
double mr_table_squares(mr_table *t, double value);
void mr_table_scale(mr_table *t, double factor);

/* Forgets the lookups and gradients since the last push. */
void mr_table_drop(mr_table *t);

/* The learning rates of column c by step, which idle rows are replayed by, as bytes for the store; len 0:
 * the column has no need of them. Owned by the table, until its next push. load takes them back. */
const void *mr_table_rates(const mr_table *t, int c, size_t *len);
int mr_table_rates_load(mr_table *t, int c, const void *bytes, size_t len);

/* Empties the cache, before the rows of another state are read. */
void mr_table_clear(mr_table *t);

/* Reads the row of a key: weights [dim] of column c as a lookup would see them, or fresh ones, then
 * its optimizer state. Returns its update count, 0 for a key without a row. out holds
 * mr_table_state(t, c) floats. */
double mr_table_peek(mr_table *t, int c, uint64_t key, float *out);

/* Floats of column c and its state in a row. */
int mr_table_state(const mr_table *t, int c);

/* What of column c is in half precision: 0: nothing, 1: its weights, 3: its state too. */
int mr_table_half(const mr_table *t, int c);

/* ---- store ----------------------------------------------------------------------------
 *
 * A directory that holds everything of one model: rows, named records, and states that were kept.
 * One process may write to it; any number may read meanwhile. A reader sees the last commit at the
 * time it opened the store, and changes nothing in the directory. Opening for writing checks the
 * store first: when that fails, nothing was changed. */

typedef enum mr_store_mode {
    MR_STORE_READ,   /* writes nothing, and sees the last commit at the time it was opened */
    MR_STORE_WRITE,  /* it must exist */
    MR_STORE_CREATE, /* made, with the directories above it, if it does not; unless something is
                        committed to it, it is gone again when it is closed */
    MR_STORE_FOLLOW  /* writes nothing, and sees later commits once it asks for them */
} mr_store_mode;

typedef struct mr_store mr_store;
mr_store *mr_store_open(const char *dir, int mode);
void mr_store_close(mr_store *s);

/* Looks up a named record: 1 found, 0 there is none, -1. The value is owned by the store, until
 * the next get. */
int mr_store_get(mr_store *s, const char *name);
const void *mr_store_value(const mr_store *s);
double mr_store_value_len(const mr_store *s);

/* For a reader that follows: goes on to the last commit. 1: there is a newer one, tables have to be
 * cleared and loaded anew; 0: there is none; -1. */
int mr_store_follow(mr_store *s);

/* Makes the store a table's: its rows are read when they are looked up; by load all at once, if they
 * fit into the memory that is left. */
int mr_store_attach(mr_store *s, mr_table *t);
int mr_store_load(mr_store *s, mr_table *t);

/* A commit: begin, put and table in any order (the last of a name wins), then end, or abort. end
 * is atomic and durable, and may wait for compaction to keep up; `step` is the model's. A record
 * that is not put stays as it is. After a failure the store is at its last commit, the tables'
 * rows are still to be committed, and another commit may be begun.
 * behind is end by another thread: what the tables and records are at the call is what is committed,
 * while they go on to change; poll tells how it goes: 0 not yet, 1 done (or there was none), -1 it
 * failed; wait waits for it. Beginning another waits, too. */
int mr_commit_begin(mr_store *s);
int mr_commit_put(mr_store *s, const char *name, const void *bytes, size_t len); /* copied */
int mr_commit_table(mr_store *s, mr_table *t);
int mr_commit_remove(mr_store *s, const char *name);                     /* a named record */
int mr_commit_drop_table(mr_store *s, const char *name, uint32_t table); /* with all its rows */
int mr_commit_end(mr_store *s, uint64_t step);
int mr_commit_behind(mr_store *s, uint64_t step);
int mr_commit_poll(mr_store *s);
int mr_commit_wait(mr_store *s);
void mr_commit_abort(mr_store *s);

/* Commits are made at this time (seconds since 1970) until it is set again; 0: now, as the clock of
 * the machine has it. Expiry goes by it. */
void mr_commit_time(mr_store *s, double seconds);

/* Keeps the last committed state inside the store as `name`, by hard links, in the place of an
 * older one; and makes the state kept as `name` the store's, which stays kept too. A crash leaves
 * what was before or what comes after. Tables have to be cleared and loaded anew. */
int mr_store_checkpoint(mr_store *s, const char *name);
int mr_store_restore(mr_store *s, const char *name);

/* What a row is worth: the step of its last update, its updates, its norm, or its score. */
typedef enum mr_worth { MR_BY_STEP, MR_BY_COUNT, MR_BY_NORM, MR_BY_SCORE } mr_worth;

/* Which rows of a table are dropped: those below a minimum (0: there is none), and then those that are
 * worth least, until max_rows are left; of those worth the same, the ones of larger keys. Expired rows
 * do not count. */
typedef struct mr_shrink {
    mr_table *table;
    double min_count; /* updates of the column, or of the one that has most */
    double min_norm; /* L2 norm of the column's weights, or of the widest's; 0 where it is absent */
    double min_score; /* count 0.5^((step of the last commit - step of the row) / half_life) */
    double half_life; /* steps */
    double max_rows;  /* -1: any number */
    double forget;  /* drops of this step and before will not be asked for any more; -1: as it is */
    int32_t by;     /* mr_worth, for max_rows */
    int32_t column; /* by its number; -1: see above */
    double rows, dropped; /* set: rows there were, and how many of them are dropped */
} mr_shrink;

/* Drops rows of n tables, which are given in the order of their numbers, in one commit at the step of the
 * last one. Everything must be committed, and no lookup in use. A key that was dropped is a new one when
 * it is seen again. A crash or failure leaves the state before or after. dry_run only counts, in any
 * mode, by what the last commit holds. */
int mr_store_shrink(mr_store *s, mr_shrink *what, size_t n, int dry_run);

/* Copies the last committed state and what is kept, by hard links where it can, to a directory that must
 * not exist: a store of its own. A reader copies what is the last commit by then, while another process
 * goes on to write. A crash leaves no part of a copy under that name. */
int mr_store_copy(mr_store *s, const char *dir);

/* XXH3-128 of all rows and named records but "data_sets", in the order of keys: 32 digits and a zero. */
int mr_store_digest(mr_store *s, char *hex);

/* Counts the rows of a table, by number, by reading them; -1. */
double mr_store_rows(mr_store *s, uint32_t table);

/* Of the last commit: "commit" (number), "step", "time" (seconds since 1970). Of the database: "bytes" and
 * "files" of rows and records, "level0" files, "compacting": 0 when no compaction is left to do, "errors" in
 * the background, "blocks": bytes of the block cache. "disk": bytes that the directory takes, states kept by
 * name included. "waited": seconds that commits waited for compaction. -1: not known. */
double mr_store_number(mr_store *s, const char *what);

/* The directory of the database in use, within the store's. Owned by the store. */
const char *mr_store_database(const mr_store *s);

/* ---- export, import, verify ----------------------------------------------------------
 *
 * The last commit of a store as files, and back; formats: runtime/exchange/README.md. Tables are those of
 * the store, by whose layouts records are understood; they need not be loaded. */

typedef enum mr_export_format { MR_EXPORT_BIN, MR_EXPORT_TSV, MR_EXPORT_NPY } mr_export_format;

typedef struct mr_export {
    int32_t format;       /* mr_export_format */
    int32_t part;         /* 1: some tables or rows only: a bin file that makes no store */
    uint64_t since;       /* rows updated and keys dropped after this step: a delta; 0: all rows */
    uint64_t after;       /* rows updated after this step */
    uint64_t count;       /* rows of which some column was updated so often */
    uint64_t rows, drops; /* filled in: how many there were */
} mr_export;

/* Writes a file that is complete once it is there (npy: a directory; tsv and bin: "-" is standard
 * output). Rows that expired are left out. */
int mr_store_export(mr_store *s, mr_table *const *tables, size_t n, mr_export *options,
                    const char *path);

/* The step of the last commit made at this time (seconds since 1970) or before; 0: none; -1. */
double mr_store_step_at(mr_store *s, double seconds);

/* What a file is: 1: a bin export, whose head is filled in once all of it was checked; 0: something
 * else; -1: a damaged one. */
typedef struct mr_exported {
    int32_t part;
    uint64_t commit, step, since, rows, drops;
} mr_exported;
int mr_export_read(const char *path, mr_exported *out);

/* A named record of a bin export, as mr_store_get: owned by the thread, until the next. */
int mr_export_get(const char *path, const char *name);
const void *mr_export_value(void);
double mr_export_value_len(void);

/* Makes a store of a full bin export and its deltas, in order; or brings one up to date by deltas
 * alone. All of it is done, or nothing is changed. */
int mr_store_import(const char *dir, const char *const *files, size_t n);

/* Adds the rows of a file (tsv, bin of some rows) or directory (npy) to the commit being prepared,
 * one such call a commit, which will be at `step`. Keys ascend within a table. What a row has
 * already, and the file does not tell, stays. Returns how many rows there were, or -1. */
double mr_import_rows(mr_store *s, mr_table *const *tables, size_t n, const char *path, int format,
                      uint64_t step);

/* Reads everything of a store, checksums verified, and names what is wrong. */
typedef struct mr_verification mr_verification;
mr_verification *mr_store_verify(mr_store *s, mr_table *const *tables, size_t n);
void mr_verification_free(mr_verification *v);
/* What is wrong, from 0 on, and the named records that are no table's; NULL after the last. Owned
 * by the verification. */
const char *mr_verification_problem(const mr_verification *v, int i);
const char *mr_verification_name(const mr_verification *v, int i);
/* Rows of a table by its number, those that expired left out; commits in the log. */
double mr_verification_rows(const mr_verification *v, uint32_t table);
double mr_verification_commits(const mr_verification *v);

/* Checks the bytes of a param's record: -1 if they are none. */
int mr_param_check(const char *name, const void *bytes, size_t len);

/* The i-th directory of a state kept in a store, from 0 on, which is a store too; NULL after
 * the last. Owned by the thread, until the next call. */
const char *mr_store_kept(const char *dir, int i);

/* ---- params: dense weights ---------------------------------------------------------- */

typedef struct mr_param mr_param;

/* A dense weight of up to four dimensions, with its optimizer. init as for tables, keyed by
 * (seed, name, coordinate). trainable 0: a buffer that is saved, but not optimized. */
mr_param *mr_param_new(const char *name, uint64_t seed, const int32_t *dim, size_t rank,
                       const mr_init *init, const mr_optim *optim, int trainable);
void mr_param_free(mr_param *p);
/* Every weight becomes the value, as if the param were new. */
void mr_param_start(mr_param *p, double value);
float *mr_param_data(mr_param *p); /* owned by the param */
size_t mr_param_count(const mr_param *p);
mr_optim *mr_param_optim(mr_param *p);

/* One optimizer step by the gradient of the backward passes since the last one, if any. If there was, an
 * MR_USER is then the caller's: updated hands out piece i, for i from 0 on, of up to 16384 weights as
 * mr_table_updated does a row, and returns its weights, 0 after the last. */
int mr_param_step(mr_param *p, uint64_t step);
int mr_param_updated(mr_param *p, int i, float *w, float *g, float *state);
/* Of that gradient, as those of a table. */
int mr_param_finite(mr_param *p);
double mr_param_squares(mr_param *p, double value);
void mr_param_scale(mr_param *p, double factor);
/* Drops that gradient. */
void mr_param_zero(mr_param *p);

/* The count of optimizer steps so far. */
double mr_param_updates(const mr_param *p);

/* Weights, state and counters as bytes, for the store (layout: runtime/tensor/param.c). Owned by the
 * param, until the next call. load returns -1, and changes nothing, if they are of another
 * shape; of another optimizer, the weights are taken and the state begins anew. */
const void *mr_param_bytes(mr_param *p);
size_t mr_param_len(const mr_param *p);
int mr_param_load(mr_param *p, const void *bytes, size_t len);

/* ---- tape: tensors, operations, gradients ------------------------------------------------
 *
 * A tape records the operations of one step and runs them in reverse. A tensor is a node of the
 * tape, by number; its data lasts until the tape begins anew. Shapes have 1 to 4 dimensions,
 * row-major; [n, d] below also stands for higher ranks, whose leading dimensions together are n.
 * A function that records returns the new node's number, or -1 with a message that names the
 * operation, the shape expected and the one it got. */

/* A tape of floats (real = 4), or of doubles (real = 8): slow, to check gradients with. seed is
 * dropout's. */
mr_tape *mr_tape_new(uint64_t seed, int real);
void mr_tape_free(mr_tape *t);

/* Forgets all nodes and begins a step: with training, operations keep what backward needs. */
void mr_tape_begin(mr_tape *t, int training, double step);
void mr_tape_reset(mr_tape *t); /* forgets all nodes */

/* Counts how often a tape forgot its nodes: data is what it was as long as this is. It can be read
 * for ever, and has another value once the tape is freed. */
const double *mr_tape_generation(const mr_tape *t);

/* Shape and data of a node. data is real[count], in the tape's arena or the param. floats is the
 * same on a tape of floats, NULL on another. scalar reads the element at a flat index. */
int mr_tape_nodes(const mr_tape *t);
int mr_tape_rank(mr_tape *t, int a);
int mr_tape_dim(mr_tape *t, int a, int axis);
int mr_tape_elements(mr_tape *t, int a);
void *mr_tape_data(mr_tape *t, int a);
const float *mr_tape_floats(mr_tape *t, int a);
double mr_tape_scalar(mr_tape *t, int a, int index);
/* The gradient after backward, of a leaf that wants one; NaN if it has none. */
double mr_tape_gradient(mr_tape *t, int a, int index);

/* Leaves. param's gradients go to the param; label and weight are [n] and constant; a leaf holds
 * a copy of doubles, and keeps its gradient for mr_tape_gradient if wanted. */
int mr_tape_param(mr_tape *t, mr_param *p);
int mr_tape_label(mr_tape *t, const mr_batch *batch);
int mr_tape_weight(mr_tape *t, const mr_batch *batch);
int mr_tape_constant(mr_tape *t, double value); /* [1] */
int mr_tape_leaf(mr_tape *t, const int32_t *dim, int rank, const double *data, int wants_grad);

/* A lookup as a table's pull makes it, from rows given as they are, [unique, sum of dims]: the
 * u-th row is that of the u-th distinct key of the batch in ascending order. Column c has
 * dims[c] floats. For tests. Returns the number of the lookup; grad reads its gradient. */
int mr_tape_lookup(mr_tape *t, const mr_batch *batch, const int32_t *dims, int columns,
                   const double *rows, int unique);
double mr_tape_lookup_gradient(mr_tape *t, int lookup, int index);

/* Pooling of column c of a lookup over the entries e of each sample s; x_e is an entry's value,
 * v_e the column of its row, [d]. */
typedef enum mr_pool {
    MR_POOL_SUM,           /* sum_e x_e v_e */
    MR_POOL_MEAN,          /* the same / entries of s */
    MR_POOL_SQRTN,         /* / sqrt(sum_e x_e^2) */
    MR_POOL_WEIGHTED_MEAN, /* / sum_e x_e */
    MR_POOL_MAX            /* max_e x_e v_e, of each of the d */
} mr_pool;

/* [n, d], or by field [n, fields, d]; 0 for no entries, or a division by 0. */
int mr_tape_pool(mr_tape *t, int lookup, int c, int how, int by_field);

/* The first `length` entries of a field, from 0, in order: [n, length, d], 0 behind the last; unless
 * padded, the length is that of the longest in the batch, from 1 to `length`. And where there is one:
 * [n, length] of 1 and 0. */
int mr_tape_sequence(mr_tape *t, int lookup, int c, int field, int length, int padded);
int mr_tape_sequence_mask(mr_tape *t, int lookup, int c, int field, int length);
int mr_tape_pool_fm(mr_tape *t, int lookup, int c);
/* [n, 1]: 1/2 sum_k ((sum_e x_e v_ek)^2 - sum_e (x_e v_ek)^2) */
int mr_tape_pool_bi(mr_tape *t, int lookup, int c); /* [n, d]: the same without the sum over k */
/* [n, 1]: sum of <v_i at f_j, v_j at f_i> x_i x_j over a sample's pairs of entries i, j of fields f_i, f_j,
 * where v at f is the f-th of the column's `fields` equal parts. */
int mr_tape_pool_ffm(mr_tape *t, int lookup, int c, int fields);

/* <x_i, x_j>, i < j, of x [n, F, k]: [n, F (F - 1) / 2]; or, y not -1, <x_i, y_j> with y [n, H, k]:
 * [n, F H]. */
int mr_tape_inner(mr_tape *t, int x, int y);
/* x0 z + x + b: x0 and x [n, d], z [n, d] or [n, 1], b [d] or -1 for none: [n, d] */
int mr_tape_cross(mr_tape *t, int x0, int z, int x, int b);
/* sum_ij W_ij,o (x_i * x0_j), * by elements: x [n, H, d], x0 [n, F, d], W [H F, out]: [n, out, d] */
int mr_tape_cin(mr_tape *t, int x, int x0, int w);

/* act(x W + b): x [n, in], or of higher rank with in elements a sample; W [in, out]; b [out] or
 * -1 for none. act: 0 none, 1 relu, 2 sigmoid, 3 tanh. [n, out] */
int mr_tape_linear(mr_tape *t, int x, int w, int b, int act);

/* As many matrix products as the equal leading dimensions of both have: x [.., a, b] y [.., b, c] is
 * [.., a, c]; if `across` is 1, y is [.., c, b]. Of rank 2, y is the same for all rows of x. */
int mr_tape_matmul(mr_tape *t, int x, int y, int across);

/* Element by element; a dimension of 1 or a missing leading one is repeated. */
int mr_tape_add(mr_tape *t, int a, int b);
int mr_tape_sub(mr_tape *t, int a, int b);
int mr_tape_mul(mr_tape *t, int a, int b);
int mr_tape_div(mr_tape *t, int a, int b);
int mr_tape_affine(mr_tape *t, int a, double scale, double shift); /* scale a + shift */
int mr_tape_relu(mr_tape *t, int a);                               /* max(a, 0) */
int mr_tape_sigmoid(mr_tape *t, int a);                            /* 1 / (1 + exp(-a)) */
int mr_tape_tanh(mr_tape *t, int a);
int mr_tape_leaky_relu(mr_tape *t, int a, double slope); /* a where a > 0, else slope a */
int mr_tape_gelu(mr_tape *t, int a);                     /* a/2 (1 + erf(a / sqrt(2))) */
int mr_tape_silu(mr_tape *t, int a);                     /* a sigmoid(a) */
int mr_tape_exp(mr_tape *t, int a);
int mr_tape_log(mr_tape *t, int a); /* natural */
int mr_tape_sqrt(mr_tape *t, int a);
int mr_tape_abs(mr_tape *t, int a); /* the gradient at 0 is 0 */
int mr_tape_square(mr_tape *t, int a);

/* In training each element is 0 with probability rate (a multiple of 2^-16), else a / (1 - rate):
 * drawn from (seed, step, node, element). Otherwise a as it is. */
int mr_tape_dropout(mr_tape *t, int a, double rate);

/* (a - mean) / sqrt(variance + eps) gamma + beta, by element of the last axis [d]; gamma, beta
 * [d] or -1. In training over the n of this batch, or those whose mask [n] (or -1) is not 0, and the
 * running mean and (unbiased) variance move towards them by `momentum` when backward passes; in
 * evaluation, and where fewer than 2 are left, by the running ones, which stay as they are. */
int mr_tape_batch_norm(mr_tape *t, int a, int gamma, int beta, int mask, mr_param *mean,
                       mr_param *variance, double momentum, double eps);

/* The same over the last axis, [d], of each sample alone; gamma, beta [d] or -1. */
int mr_tape_layer_norm(mr_tape *t, int a, int gamma, int beta, double eps);

/* a_i * b_j of the rows i < j of each sample, by i and then by j: [n, f, k] -> [n, f (f - 1) / 2, k].
 * b is -1 for a itself. */
int mr_tape_pairs(mr_tape *t, int a, int b);

/* Takes the inputs of an operation of any number of them, one a call, then records it. */
int mr_tape_argument(mr_tape *t, int a);
int mr_tape_concat(mr_tape *t, int axis); /* from 0, or -1: the last; the others are equal */
int mr_tape_stack(mr_tape *t, int axis);  /* of equal shapes, along a new axis */
/* A tensor computed by the caller: data undefined, to be written through mr_tape_data(). */
int mr_tape_user(mr_tape *t, int rank, int d0, int d1, int d2, int d3);

/* The steps of an element-wise operation: each is computed from earlier ones, a and b by number. */
enum { MR_ELEMENT_STEPS = 32 };

typedef enum mr_element_op {
    MR_ELEMENT_INPUT, /* tensor a, from 0 */
    MR_ELEMENT_CONSTANT,
    MR_ELEMENT_ADD,
    MR_ELEMENT_SUB,
    MR_ELEMENT_MUL,
    MR_ELEMENT_DIV,
    MR_ELEMENT_MAX, /* where a = b the gradient is b's */
    MR_ELEMENT_MIN,
    MR_ELEMENT_EXP, /* of a, as the rest */
    MR_ELEMENT_LOG,
    MR_ELEMENT_SQRT,
    MR_ELEMENT_ABS,
    MR_ELEMENT_SIGMOID,
    MR_ELEMENT_TANH,
    MR_ELEMENT_RELU
} mr_element_op;

typedef struct mr_element_step {
    int32_t op; /* mr_element_op */
    int32_t a, b;
    double value; /* of a constant */
} mr_element_step;

/* Records it, of the tensors taken by mr_tape_argument, all of one shape. The first steps are the
 * tensors, in their order; the last, which is none of them, is the result. */
int mr_tape_element(mr_tape *t, const mr_element_step *step, int steps);

/* The same elements in another shape; one dimension may be -1: what remains. */
int mr_tape_reshape(mr_tape *t, int a, int rank, int d0, int d1, int d2, int d3);

/* Places first to last of an axis, all from 0; two axes that change places. */
int mr_tape_slice(mr_tape *t, int a, int axis, int first, int last);
int mr_tape_transpose(mr_tape *t, int a, int axis, int other);

/* Along an axis, from 0, which is then gone, or (keep 1) of 1. max: the gradient is the first
 * largest element's. */
int mr_tape_sum_axis(mr_tape *t, int a, int axis, int keep);
int mr_tape_mean_axis(mr_tape *t, int a, int axis, int keep);
int mr_tape_max_axis(mr_tape *t, int a, int axis, int keep);

/* exp(a_i) / sum_j exp(a_j) over the last axis. With a mask (or -1), repeated to the shape of a:
 * over the places where it is not 0; the others, and rows without any, are 0. */
int mr_tape_softmax(mr_tape *t, int a, int mask);

/* Of all elements: [1]. */
int mr_tape_sum(mr_tape *t, int a);
int mr_tape_mean(mr_tape *t, int a);

/* Losses, [1]: means over the n samples of w_s times the loss of the sample; sample weights w [n]
 * or -1 for 1. Formulas: runtime/tensor/op_loss.c. Those of scores [n] or [n, 1] and labels: */
typedef enum mr_loss {
    MR_BCE,      /* of logits, labels 0 to 1; a: weight of positives, b: label smoothing */
    MR_MSE,      /* (score - label)^2 */
    MR_MAE,      /* |score - label| */
    MR_HUBER,    /* a: where it becomes linear */
    MR_HINGE,    /* labels 0 or 1, or -1 or 1 */
    MR_POISSON,  /* of ln(mean), labels from 0 */
    MR_QUANTILE, /* a: the quantile, between 0 and 1 */
    MR_BPR       /* of the scores of positives and (labels) of negatives */
} mr_loss;
int mr_tape_loss(mr_tape *t, int kind, int scores, int labels, int weights, double a, double b);

/* -sum_j y_j ln softmax(z)_j: logits [n, c], labels [n] from 0 to c - 1, or probabilities [n, c];
 * smoothing e: (1 - e) y + e / c. */
int mr_tape_cross_entropy(mr_tape *t, int logits, int labels, int weights, double smoothing);

/* Within groups, samples whose number in `groups` [n] (-1: all are one) is equal. Pairwise: the mean
 * of w_i w_j ln(1 + exp(-(a_i - a_j))) over pairs with y_i > y_j. Listwise: the mean over groups with
 * a label above 0 of -sum_i w_i y_i ln softmax(a)_i / sum_i y_i, labels from 0. */
int mr_tape_pairwise(mr_tape *t, int scores, int labels, int groups, int weights);
int mr_tape_listwise(mr_tape *t, int scores, int labels, int groups, int weights);

/* Softmax over the items of the batch: the mean over n of w_i y_i (ln sum_j exp(s_ij) - s_ii), s_ij
 * = u_i v_j / temperature - log_q_j, u, v [n, d], over j = i and those whose number in `ids` is
 * another. labels, weights, log_q, ids [n], or -1: 1, 1, 0, all are different. */
int mr_tape_in_batch(mr_tape *t, int users, int items, int labels, int weights, int log_q, int ids,
                     double temperature);

/* a / |a|, row by row of the last axis; 0 stays 0. */
int mr_tape_l2_normalize(mr_tape *t, int a);

/* Constant, [n]: equal numbers for samples whose key in a field is equal. */
int mr_tape_keys(mr_tape *t, const mr_batch *batch, int field);

/* Constant, [n]: ln of how likely a batch is to hold the key of each sample, from the steps between
 * the batches that did; learned at `rate` while the tape trains, in seen [2, buckets]. */
int mr_tape_frequency(mr_tape *t, const mr_batch *batch, int field, mr_param *seen, double rate);

/* Adds the gradients of node `from` [1] to those of params, lookups and leaves. Refuses a loss
 * that is not finite. When it meets a user's node it returns that number: its gradient is at
 * mr_tape_user_grad(t, node), the caller adds to its inputs' at mr_tape_user_sink(t, node, i),
 * and goes on with mr_tape_backward_next. Returns -2 when done. */
int mr_tape_backward(mr_tape *t, int from);
int mr_tape_backward_next(mr_tape *t);
void *mr_tape_user_grad(mr_tape *t, int a);
void *mr_tape_user_sink(mr_tape *t, int a, int input);

/* ---- metrics --------------------------------------------------------------------------- */

/* What a score is. */
typedef enum mr_link {
    MR_LOGIT,    /* of the probability that the label is 1: prediction sigmoid(score) */
    MR_IDENTITY, /* a value */
    MR_LOG       /* the logarithm of one: prediction exp(score) */
} mr_link;

/* What predictions are worth. NaN where it is not defined: every mean of no samples, the AUC
 * of samples of one class, and what goes by classes where scores are no logits. */
typedef struct mr_score {
    double rows;         /* samples */
    double weight;       /* the sum of their weights; what follows is weighted by them */
    double label;        /* mean label */
    double prediction;   /* mean prediction: sigmoid(logit), or the score of a regression */
    double logloss;      /* mean of -y ln p - (1 - y) ln(1 - p) */
    double accuracy;     /* part on the right side of 1/2 */
    double rmse;         /* root of the mean of (prediction - label)^2 */
    double auc;          /* chance that a positive scores above a negative, ties counted half */
    double auc_error;    /* the exact AUC is within this of auc; 0 for an exact one */
    double mae;          /* mean of |prediction - label| */
    double calibration;  /* sum of predictions / sum of labels */
    double ne;           /* logloss / the entropy of the mean label */
    double ece;          /* |mean prediction - mean label| by bucket of the prediction, weighted */
    double pr_auc;       /* average precision */
    double pr_auc_error; /* as auc_error */
} mr_score;

typedef struct mr_metrics mr_metrics;

/* An empty accumulator, of logits and binary labels (0 or 1, or -1 or 1) or of values (mr_link).
 * bins 0: exact, 8 bytes a sample, twice that once read. Otherwise a power of two from 32 to
 * 2^20: 16 bytes a bin, whatever the number of samples, and an AUC within auc_error. */
mr_metrics *mr_metrics_new(int link, int bins);
void mr_metrics_free(mr_metrics *m);
void mr_metrics_reset(mr_metrics *m);

/* Adds n samples, all or (after an error: a NaN, a label that is none) nothing. weight may be
 * NULL: all are 1. */
int mr_metrics_add(mr_metrics *m, const float *score, const float *label, const float *weight,
                   int n);
int mr_metrics_add_batch(mr_metrics *m, const float *score, const mr_batch *batch);

/* The metrics of what was added so far; more may be added later. */
int mr_metrics_read(mr_metrics *m, mr_score *out);

/* Samples whose probability is in the i-th tenth, from 0: their weight, mean prediction and mean
 * label. 0 after the last one, or without logits; else 1. */
int mr_metrics_bucket(const mr_metrics *m, int i, double *weight, double *prediction,
                      double *label);

/* The same by slices: an accumulator for each key that comes. */
typedef struct mr_slices mr_slices;

mr_slices *mr_slices_new(int link, int bins);
void mr_slices_free(mr_slices *s);
void mr_slices_reset(mr_slices *s);
int mr_slices_add(mr_slices *s, const uint64_t *keys, const float *score, const float *label,
                  const float *weight, int n);

/* The i-th slice, from 0, in the order in which keys came first: 1, its key and metrics; 0 after the
 * last one; or -1. */
int mr_slices_read(mr_slices *s, int i, uint64_t *key, mr_score *out);

/* What the order of the samples of a group is worth, means over groups; formulas:
 * runtime/metrics/rank_metrics.c. NaN where no group has what it takes. */
typedef struct mr_ranked {
    double groups;    /* those with a label above 0, which the others but GAUC are means over */
    double gauc;      /* sum n_u AUC_u / sum n_u over groups with both labels */
    double ndcg;      /* at k */
    double precision; /* at k */
    double recall;    /* at k */
    double hit_rate;  /* at k */
    double map;
    double mrr;
} mr_ranked;

typedef struct mr_ranks mr_ranks;

/* Exact: 24 bytes a sample. */
mr_ranks *mr_ranks_new(int link, int k);
void mr_ranks_free(mr_ranks *r);
void mr_ranks_reset(mr_ranks *r);
int mr_ranks_add(mr_ranks *r, const uint64_t *groups, const float *score, const float *label,
                 const float *weight, int n);
int mr_ranks_read(mr_ranks *r, mr_ranked *out);

/* Progressive validation: the last `window` samples exactly, and all so far by bins. */
typedef struct mr_watch mr_watch;

mr_watch *mr_watch_new(int link, int window);
void mr_watch_free(mr_watch *w);
int mr_watch_add(mr_watch *w, const float *score, const mr_batch *batch);
int mr_watch_read(mr_watch *w, mr_score *window, mr_score *all);

/* Batches added so far. */
double mr_watch_batches(const mr_watch *w);

/* The state as bytes, for the store: a function of the samples alone. Owned by the watch, until
 * the next call; mr_watch_len is their number. load refuses those of another window. */
const void *mr_watch_bytes(mr_watch *w);
size_t mr_watch_len(const mr_watch *w);
int mr_watch_load(mr_watch *w, const void *bytes, size_t len);

/* ---- outputs ------------------------------------------------------------------------ */

/* A file that is made: it takes its place once it is whole, and what was there stays as it is until then,
 * also when the process is killed. A link stays one; pipes, devices, and "-", standard output, are
 * written to as they are. */
typedef struct mr_output mr_output;

/* The path from the root; NULL. Owned by the thread, until the next. */
const char *mr_path_absolute(const char *path);

/* Bytes of a file; 0 of anything else; -1 if it is not there. */
double mr_path_bytes(const char *path);

/* -1 if a path is an input itself (by device and inode), or lies in it, a directory; `what` names it in the
 * message: "the data", "the store". An input that is not there is none. */
int mr_output_check(const char *path, const char *input, const char *what);

mr_output *mr_output_open(const char *path);
int mr_output_write(mr_output *o, const void *bytes, size_t len);
/* What was written so far goes on its way now. -1 also once a signal came. */
int mr_output_flush(mr_output *o);
/* Syncs it and puts it in its place; after -1 what was there is as it was. Both free it. */
int mr_output_end(mr_output *o);
void mr_output_abort(mr_output *o); /* NULL is allowed */

/* ---- program ----------------------------------------------------------------------- */

/* Writes n scores to out as text, one a line, seven digits; as the predictions of a link, and
 * as nan where bad (which may be NULL) is not 0 and where a score or its prediction is not finite: of
 * those, undefined[0] is filled in with their number, undefined[1] with the first one's, from 0. out
 * needs 24 bytes a score. Returns the bytes written, or -1. */
int mr_text_scores(const float *scores, const uint8_t *bad, int n, int link, char *out, size_t room,
                   int32_t *undefined);

/* 1 if a file descriptor is a terminal, else 0. */
int mr_terminal(int descriptor);

/* ---- trust: whose code a store holds ---- */

/* Reads a secret key of len bytes, which only this user may read, or makes one (mode 0600) from the
 * system's random numbers. 0, or -1: it can neither be read nor made, or others can read it. */
int mr_key_load(const char *path, void *key, size_t len);

/* SHA-256, and HMAC-SHA256 by a key, in hexadecimal: 64 characters and a 0. */
void mr_sha256(const void *bytes, size_t len, char *hex);
void mr_hmac_sha256(const void *key, size_t key_len, const void *bytes, size_t len, char *hex);

/* How many columns wide it is at this moment, 80 if it does not tell; 0: no terminal. */
int mr_terminal_columns(int descriptor);

/* Says whether a line that is drawn over and over stands on the terminal of standard error, the cursor at its
 * start: a signal that ends the process at once wipes it first. */
void mr_terminal_line(int stands);

/* 1 if it is a pipe or a file that has, or may yet have, something to read, else 0. */
int mr_piped(int descriptor);

/*--- cdef end ---*/

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
