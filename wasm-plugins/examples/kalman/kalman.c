/*
 * What a noisy sensor means: a Kalman filter for a value and how fast it changes (R. E. Kalman, 1960; the
 * model of constant rate as in Y. Bar-Shalom et al., "Estimation with Applications to Tracking and
 * Navigation", 6.3).
 *
 * Between two measurements the value goes on at its rate, which noise of spectral density `q` changes;
 * a measurement has the variance `r`.
 */
#define TIDEGATE_MAIN
#include "tidegate.h"

const char tg_config_schema[] =
    "{\"type\":\"object\",\"properties\":{"
    "\"value\":{\"type\":\"string\",\"description\":\"the column that is filtered\"},"
    "\"q\":{\"type\":\"number\",\"exclusiveMinimum\":0,\"description\":\"how much the rate changes\"},"
    "\"r\":{\"type\":\"number\",\"exclusiveMinimum\":0,\"description\":\"the variance of a measurement\"}},"
    "\"required\":[\"value\",\"q\",\"r\"]}";

/* What is known of a device: the value, its rate, their covariances, and when that was, in nanoseconds. */
typedef struct {
    int64_t ts;
    double value, rate;
    double vv, vr, rr;
} filter;

static double q, r;
static int in_ts, in_value, in_device;
static int out_ts, out_device, out_value, out_rate;

/* The place of a field of this name and kind, or -1. */
static int find(const tg_table *table, tg_list name, uint8_t kind) {
    int place = tg_field_of(table, name);
    const tg_field *fields = table->fields.data;
    return place >= 0 && fields[place].kind == kind ? place : -1;
}

tg_error tg_configure(tg_list config, const tg_table *inputs, size_t input_count, const tg_table *targets,
                 size_t target_count) {
    tg_list value;
    if (!tg_string(config, "value", &value))
        return TG_TEXT("[config] has no `value`: the column that is filtered");
    if (!tg_number(config, "q", &q) || !tg_number(config, "r", &r) || q <= 0 || r <= 0)
        return TG_TEXT("`q` and `r` in [config] must be numbers greater than 0");
    if (input_count != 1 || target_count != 1)
        return TG_TEXT("it reads one stream and writes to one target");
    in_ts = find(inputs, TG_TEXT("ts"), TG_TIMESTAMP);
    in_value = find(inputs, value, TG_FLOAT64);
    in_device = find(inputs, TG_TEXT("device"), TG_UTF8);
    if (in_ts < 0 || in_value < 0)
        return TG_TEXT("the stream needs `ts`, and the column that `value` names with values of float64");
    out_ts = find(targets, TG_TEXT("ts"), TG_TIMESTAMP);
    out_device = find(targets, TG_TEXT("device"), TG_UTF8);
    out_value = find(targets, TG_TEXT("value"), TG_FLOAT64);
    out_rate = find(targets, TG_TEXT("rate"), TG_FLOAT64);
    if (out_value < 0 || out_rate < 0)
        return TG_TEXT("the target needs `value` and `rate`, both float64");
    return TG_FINE;
}

static void predict(filter *f, int64_t ts) {
    double dt = (double)(ts - f->ts) / 1e9;
    f->value += f->rate * dt;
    f->vv += dt * (2 * f->vr + dt * f->rr) + q * dt * dt * dt / 3;
    f->vr += dt * f->rr + q * dt * dt / 2;
    f->rr += q * dt;
    f->ts = ts;
}

static void correct(filter *f, double measured) {
    double s = f->vv + r, by_value = f->vv / s, by_rate = f->vr / s, off = measured - f->value;
    f->value += by_value * off;
    f->rate += by_rate * off;
    f->rr -= by_rate * f->vr;
    f->vr -= by_value * f->vr;
    f->vv -= by_value * f->vv;
}

tg_error tg_on_batch(uint32_t input, uint32_t rows, const tg_column *columns, size_t count) {
    (void)input, (void)count;
    uint32_t written = 0, length = 0, *causes = tg_alloc(rows * sizeof *causes);
    int64_t *times = tg_alloc(rows * sizeof *times);
    double *values = tg_alloc(rows * sizeof *values), *rates = tg_alloc(rows * sizeof *rates);
    const tg_column *device = in_device < 0 ? NULL : &columns[in_device];
    int32_t *offsets = tg_alloc((rows + 1) * sizeof *offsets);
    uint8_t *names = tg_alloc(device ? device->data.len : 0);
    offsets[0] = 0;
    for (uint32_t row = 0; row < rows; row++) {
        if (!tg_has(&columns[in_ts], row) || !tg_has(&columns[in_value], row))
            continue;
        double measured = tg_double(&columns[in_value], row);
        int64_t ts = tg_int(&columns[in_ts], row);
        tg_list key = device && tg_has(device, row) ? tg_text(device, row) : TG_TEXT("");
        filter f;
        tg_list kept = tg_get(key.data, key.len);
        if (kept.len == sizeof f) {
            memcpy(&f, kept.data, sizeof f);
            if (ts < f.ts) /* it came too late to be filtered */
                continue;
            predict(&f, ts);
            correct(&f, measured);
        } else {
            f = (filter){ts, measured, 0, r, 0, r}; /* the rate may be anything */
        }
        tg_set(key.data, key.len, &f, sizeof f);
        causes[written] = row, times[written] = ts, values[written] = f.value, rates[written] = f.rate;
        memcpy(names + length, key.data, key.len);
        length += key.len;
        offsets[++written] = (int32_t)length;
    }
    if (!written)
        return TG_FINE;
    tg_written columns_out[4];
    size_t n = 0;
    tg_list none = {0, 0};
    if (out_ts >= 0)
        columns_out[n++] = (tg_written){out_ts, {0, none, TG_TIMESTAMP, {times, written}, none}};
    if (out_device >= 0)
        columns_out[n++] =
            (tg_written){out_device, {0, none, TG_UTF8, {offsets, written + 1}, {names, length}}};
    columns_out[n++] = (tg_written){out_value, {0, none, TG_FLOAT64, {values, written}, none}};
    columns_out[n++] = (tg_written){out_rate, {0, none, TG_FLOAT64, {rates, written}, none}};
    tg_write(0, causes, written, columns_out, n);
    return TG_FINE;
}

tg_error tg_on_timer(tg_list tag) {
    (void)tag;
    return TG_FINE;
}
