/*
 * Plugins for Tidegate in C: ../wit/rule.wit as the Canonical ABI has it.
 * https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md
 *
 * One source file of a plugin defines TIDEGATE_MAIN before it includes this. A plugin has the four functions
 * at the end; what they are handed is gone when they return, and so is what tg_alloc gave out.
 */
#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tg_kind { TG_BOOLEAN, TG_INT64, TG_FLOAT64, TG_TIMESTAMP, TG_UTF8, TG_BYTES };
enum tg_level { TG_DEBUG, TG_INFO, TG_WARN, TG_ERROR };

/* Bytes, or a list of something. Texts do not end with 0. */
typedef struct {
    const void *data;
    size_t len;
} tg_list;

typedef struct {
    tg_list name;
    uint8_t kind;
} tg_field;

typedef struct {
    tg_list name;
    tg_list fields; /* of tg_field */
} tg_table;

typedef struct {
    uint8_t has_valid;
    tg_list valid; /* a bit a row */
    uint8_t kind;
    tg_list values; /* double, int64_t, bits; for texts and bytes int32_t: where they begin and end in data */
    tg_list data;
} tg_column;

typedef struct {
    uint32_t field; /* its place in the target */
    tg_column column;
} tg_written;

/* "" : all went well; else what was wrong */
typedef tg_list tg_error;

#define TG_TEXT(text) ((tg_list){(text), sizeof(text) - 1})
#define TG_FINE TG_TEXT("")

#define TG_EXPORT(name) __attribute__((export_name(name)))
#define TG_IMPORT(name) __attribute__((import_module("tidegate:rule/host@1.0.0"), import_name(name)))
TG_IMPORT("now") int64_t tg_now(void);
TG_IMPORT("set") void tg_set(const void *key, size_t key_len, const void *value, size_t len);
TG_IMPORT("remove") void tg_remove(const void *key, size_t key_len);
TG_IMPORT("after") void tg_after(uint64_t nanoseconds, const void *tag, size_t tag_len);
TG_IMPORT("cancel") void tg_cancel(const void *tag, size_t tag_len);
TG_IMPORT("log") void tg_log(uint32_t level, const void *text, size_t len);
TG_IMPORT("write")
void tg_write(uint32_t target, const uint32_t *causes, size_t rows, const tg_written *columns, size_t count);

/* What was kept under a key; data is NULL: nothing. */
tg_list tg_get(const void *key, size_t key_len);
/* Memory until the function of the plugin returns. */
void *tg_alloc(size_t size);

bool tg_equal(tg_list a, tg_list b);
/* The place of a field of this name, or -1. */
int tg_field_of(const tg_table *table, tg_list name);
/* The number under `key` in a JSON object without objects in it. */
bool tg_number(tg_list json, const char *key, double *number);
/* The text under `key`, as it stands there. */
bool tg_string(tg_list json, const char *key, tg_list *text);

static inline bool tg_has(const tg_column *column, uint32_t row) {
    const uint8_t *bits = column->valid.data;
    return !column->has_valid || (bits[row / 8] >> (row % 8) & 1);
}

static inline double tg_double(const tg_column *column, uint32_t row) {
    return column->kind == TG_INT64 ? (double)((const int64_t *)column->values.data)[row]
                                    : ((const double *)column->values.data)[row];
}

static inline int64_t tg_int(const tg_column *column, uint32_t row) {
    return ((const int64_t *)column->values.data)[row];
}

static inline tg_list tg_text(const tg_column *column, uint32_t row) {
    const int32_t *offsets = column->values.data;
    size_t len = (size_t)(offsets[row + 1] - offsets[row]);
    return (tg_list){(const uint8_t *)column->data.data + offsets[row], len};
}

/* What a plugin is made of. */
extern const char tg_config_schema[];
tg_error tg_configure(tg_list config, const tg_table *inputs, size_t input_count, const tg_table *targets,
                 size_t target_count);
tg_error tg_on_batch(uint32_t input, uint32_t rows, const tg_column *columns, size_t count);
tg_error tg_on_timer(tg_list tag);

#ifdef TIDEGATE_MAIN

/* What is handed over or asked for lies in one piece of memory, which is empty between two calls. */
extern uint8_t __heap_base;
static uintptr_t tg_top;

static void *tg_take(size_t align, size_t size) {
    uintptr_t start = tg_top ? tg_top : (uintptr_t)&__heap_base;
    start = (start + align - 1) & ~(uintptr_t)(align - 1);
    uintptr_t end = start + size;
    size_t pages = __builtin_wasm_memory_size(0);
    size_t needed = (end + 65535) / 65536;
    if (needed > pages && __builtin_wasm_memory_grow(0, needed - pages) == (size_t)-1)
        __builtin_trap();
    tg_top = end;
    return (void *)start;
}

void *tg_alloc(size_t size) { return tg_take(8, size); }

void *memcpy(void *restrict to, const void *restrict from, size_t len) {
    uint8_t *t = to;
    const uint8_t *f = from;
    while (len--)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int byte, size_t len) {
    uint8_t *t = to;
    while (len--)
        *t++ = (uint8_t)byte;
    return to;
}

TG_EXPORT("cabi_realloc") void *tg_realloc(void *old, size_t old_size, size_t align, size_t size) {
    void *new = tg_take(align, size);
    if (old_size)
        memcpy(new, old, old_size < size ? old_size : size);
    return new;
}

typedef struct {
    uint8_t is_there;
    tg_list value;
} tg_found;

TG_IMPORT("get") void tg_get_raw(const void *key, size_t key_len, tg_found *found);

tg_list tg_get(const void *key, size_t key_len) {
    tg_found found;
    tg_get_raw(key, key_len, &found);
    return found.is_there ? found.value : (tg_list){NULL, 0};
}

typedef struct {
    uint8_t failed;
    tg_list error;
} tg_answer;

static tg_answer tg_last;

static tg_answer *tg_give(tg_error error) {
    tg_last = (tg_answer){error.len != 0, error};
    return &tg_last;
}

TG_EXPORT("config-schema") tg_list *tg_export_schema(void) {
    static tg_list schema;
    schema = (tg_list){tg_config_schema, 0};
    while (tg_config_schema[schema.len])
        schema.len++;
    return &schema;
}

TG_EXPORT("configure")
tg_answer *tg_export_configure(const void *config, size_t config_len, const tg_table *inputs, size_t input_count,
                               const tg_table *targets, size_t target_count) {
    return tg_give(tg_configure((tg_list){config, config_len}, inputs, input_count, targets, target_count));
}

TG_EXPORT("on-batch")
tg_answer *tg_export_batch(uint32_t input, uint32_t rows, const tg_column *columns, size_t count) {
    return tg_give(tg_on_batch(input, rows, columns, count));
}

TG_EXPORT("on-timer") tg_answer *tg_export_timer(const void *tag, size_t len) {
    return tg_give(tg_on_timer((tg_list){tag, len}));
}

/* The box has read the answer. */
TG_EXPORT("cabi_post_configure") void tg_post_configure(tg_answer *answer) { (void)answer, tg_top = 0; }
TG_EXPORT("cabi_post_on-batch") void tg_post_batch(tg_answer *answer) { (void)answer, tg_top = 0; }
TG_EXPORT("cabi_post_on-timer") void tg_post_timer(tg_answer *answer) { (void)answer, tg_top = 0; }

bool tg_equal(tg_list a, tg_list b) {
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (((const uint8_t *)a.data)[i] != ((const uint8_t *)b.data)[i])
            return false;
    return true;
}

int tg_field_of(const tg_table *table, tg_list name) {
    const tg_field *fields = table->fields.data;
    for (size_t i = 0; i < table->fields.len; i++)
        if (tg_equal(fields[i].name, name))
            return (int)i;
    return -1;
}

/* Where the value under `key` begins; NULL: there is none. */
static const char *tg_find(tg_list json, const char *key, const char **end) {
    const char *at = json.data;
    *end = at + json.len;
    while (at < *end) {
        if (*at++ != '"')
            continue;
        const char *name = at;
        while (at < *end && *at != '"')
            at += *at == '\\' ? 2 : 1;
        const char *rest = key;
        while (name < at && *rest && *name == *rest)
            name++, rest++;
        bool same = name == at && !*rest;
        for (at++; at < *end && *at == ' ';)
            at++;
        if (at >= *end || *at != ':')
            continue;
        for (at++; at < *end && *at == ' ';)
            at++;
        if (same)
            return at < *end ? at : NULL;
        if (at < *end && *at == '"') { /* a text is no key */
            for (at++; at < *end && *at != '"';)
                at += *at == '\\' ? 2 : 1;
            at++;
        }
    }
    return NULL;
}

bool tg_number(tg_list json, const char *key, double *number) {
    const char *end, *at = tg_find(json, key, &end);
    if (!at || !(*at == '-' || (*at >= '0' && *at <= '9')))
        return false;
    bool negative = *at == '-';
    double value = 0, scale = 1;
    int exponent = 0;
    for (at += negative; at < end && *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (*at - '0');
    if (at < end && *at == '.')
        for (at++; at < end && *at >= '0' && *at <= '9'; at++)
            value = value * 10 + (*at - '0'), scale *= 10;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        bool small = at < end && *at == '-';
        at += small || (at < end && *at == '+');
        for (; at < end && *at >= '0' && *at <= '9' && exponent < 400; at++)
            exponent = exponent * 10 + (*at - '0');
        for (; exponent; exponent--)
            small ? (scale *= 10) : (value *= 10);
    }
    *number = (negative ? -value : value) / scale;
    return true;
}

bool tg_string(tg_list json, const char *key, tg_list *text) {
    const char *end, *at = tg_find(json, key, &end);
    if (!at || *at != '"')
        return false;
    const char *start = ++at;
    while (at < end && *at != '"')
        at += *at == '\\' ? 2 : 1;
    *text = (tg_list){start, (size_t)(at - start)};
    return true;
}

#endif
#endif
