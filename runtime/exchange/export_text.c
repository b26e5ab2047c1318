/* export_text.c - rows as lines of tab-separated cells. Each table begins with a line of names:
 *
 *   table key step COLUMN.count COLUMN.0 ... COLUMN.state.0 ... (for each column)
 *
 * A column that a row does not have yet (its count is 0) has empty cells. Floats have nine digits,
 * which give back the same float. */
#include <inttypes.h>
#include <stdio.h>

#include "exchange/export.h"

static int text_head(mr_output *out, const mr_table *t)
{
    char cell[400];
    int bad = mr_output_write(out, "table\tkey\tstep", 14);
    for (uint32_t c = 0; c < t->columns && !bad; c++) {
        const table_column *column = &t->column[c];
        int len = snprintf(cell, sizeof cell, "\t%.300s.count", column->name);
        bad = mr_output_write(out, cell, (size_t)len);
        for (uint32_t i = 0; i < column->dim + column->state && !bad; i++) {
            int state = i >= column->dim;
            len = snprintf(cell, sizeof cell, "\t%.300s.%s%u", column->name, state ? "state." : "",
                           state ? i - column->dim : i);
            bad = mr_output_write(out, cell, (size_t)len);
        }
    }
    return bad || mr_output_write(out, "\n", 1) ? -1 : 0;
}

static int text_row(void *context, exporting *e, uint64_t key, const char *record,
                    size_t record_len)
{
    mr_output *out = context;
    const mr_table *t = e->now;
    char cell[400];
    (void)record, (void)record_len;
    int len =
        snprintf(cell, sizeof cell, "%.300s\t%" PRIu64 "\t%" PRIu64, t->name, key, e->row->step);
    int bad = mr_output_write(out, cell, (size_t)len);
    for (uint32_t c = 0; c < t->columns && !bad; c++) {
        const float *w = row_column(t, e->row, c);
        len = snprintf(cell, sizeof cell, "\t%u", e->row->count[c]);
        bad = mr_output_write(out, cell, (size_t)len);
        for (uint32_t i = 0; i < t->column[c].dim + t->column[c].state && !bad; i++) {
            len = e->row->count[c] ? snprintf(cell, sizeof cell, "\t%.9g", (double)w[i])
                                   : snprintf(cell, sizeof cell, "\t");
            bad = mr_output_write(out, cell, (size_t)len);
        }
    }
    return bad || mr_output_write(out, "\n", 1) ? -1 : 0;
}

int export_text(exporting *e)
{
    mr_output *out = mr_output_open(e->path);
    int bad = !out;
    for (size_t i = 0; i < e->tables && !bad; i++)
        bad = text_head(out, e->table[i]) || export_rows(e, e->table[i], text_row, out);
    if (!bad)
        return mr_output_end(out);
    char why[900];
    snprintf(why, sizeof why, "%s", mr_error());
    mr_output_abort(out);
    return fail("%s", why);
}
