/* state.safetensors: the arrays of a state, as columns, so that a change of our structs does not change the
 * file, and that other programs can read it. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/checkpoint_files.h"
#include "daemon/learning.h"
#include "model/files/safetensors.h"

/* X(column, dtype, C type, member of struct m2sed_example); the contexts come as ptr and values behind. */
#define EXAMPLE_COLUMNS(X)                                                                                   \
  X(user_hash, M2SE_U64, uint64_t, user_hash)                                                                \
  X(digest, M2SE_U64, uint64_t, digest)                                                                      \
  X(position, M2SE_U64, uint64_t, at.position)                                                               \
  X(partition, M2SE_I32, int32_t, at.partition)                                                              \
  X(event_time_ms, M2SE_I64, int64_t, event_time_ms)                                                         \
  X(arrival, M2SE_U64, uint64_t, arrival)                                                                    \
  X(item, M2SE_U32, uint32_t, item)                                                                          \
  X(closes, M2SE_U8, uint8_t, closes)
#define POSITION_COLUMNS(X)                                                                                  \
  X(position, M2SE_U64, uint64_t, position)                                                                  \
  X(partition, M2SE_I32, int32_t, partition)
#define ITEM_COLUMNS(X)                                                                                      \
  X(popularity, M2SE_F64, double, popularity)                                                                \
  X(popularity_ms, M2SE_I64, int64_t, popularity_ms)

enum { TENSORS = 3 * 10 + 2 + 4 + 1 };

/* ---- what a state must keep ---- */

static int check_examples(const char *name, const struct m2sed_example *examples, uint32_t count,
                          uint32_t item_count, struct m2se_error *error) {
  for (uint32_t i = 0; i < count; i++) {
    const struct m2sed_example *e = &examples[i];
    bool good = e->context_count >= 1 && e->context_count <= M2SED_CONTEXT_MAX && e->item < item_count &&
                e->at.partition >= 0 && e->at.partition < M2SED_PARTITIONS_MAX;
    for (uint32_t k = 0; good && k < e->context_count; k++) {
      good = e->context[k] < item_count;
    }
    if (!good) {
      return m2se_error_set(
          error, M2SE_ERANGE,
          "%s: example %u: item, context or partition out of range (%u items, at most %d in a context)", name,
          i, item_count, M2SED_CONTEXT_MAX);
    }
  }
  return 0;
}

static int check_state(const struct m2sed_checkpoint_state *state, struct m2se_error *error) {
  int code = check_examples("waiting", state->waiting, state->waiting_count, state->item_count, error);
  if (code == 0) {
    code = check_examples("parked", state->parked, state->parked_count, state->item_count, error);
  }
  if (code == 0) {
    code = check_examples("reservoir", state->reservoir, state->reservoir_count, state->item_count, error);
  }
  if (code == 0 && state->reservoir_count > state->reservoir_seen) {
    code = m2se_error_set(error, M2SE_ERANGE, "reservoir: holds %u of %" PRIu64 " examples",
                          state->reservoir_count, state->reservoir_seen);
  }
  for (uint32_t i = 0; i < state->item_count && code == 0; i++) {
    const struct m2sed_checkpoint_item *item = &state->items[i];
    if (item->id[0] == '\0') {
      code = m2se_error_set(error, M2SE_EMISSING, "items: slot %u has no id", i);
    } else if (!isfinite(item->popularity) || item->popularity < 0) {
      code = m2se_error_set(error, M2SE_ENUMERIC, "items: the popularity of '%s' is %g", item->id,
                            item->popularity);
    }
  }
  return code;
}

/* ---- writing ---- */

struct columns {
  struct m2se_tensor tensors[TENSORS];
  char names[TENSORS][32];
  uint32_t count;
  bool failed; /* no memory */
};

static void *add_column(struct columns *columns, const char *group, const char *name, enum m2se_dtype dtype,
                        uint64_t count) {
  assert(columns->count < TENSORS);
  void *data = calloc(count + 1, m2se_dtype_size(dtype));
  columns->failed |= data == NULL;
  char *full = columns->names[columns->count];
  snprintf(full, sizeof columns->names[0], "%s%s", group, name);
  columns->tensors[columns->count++] =
      (struct m2se_tensor){.name = full, .dtype = dtype, .rank = 1, .shape = {count}, .data = data};
  return data;
}

/* From `member` of the `count` elements of `in`. */
#define WRITE_COLUMN(name, dtype, type, member)                                                              \
  bytes = add_column(columns, group, #name, dtype, count);                                                   \
  for (uint32_t i = 0; bytes != NULL && i < count; i++) {                                                    \
    memcpy(bytes + i * sizeof(type), &in[i].member, sizeof(type));                                           \
  }

static void add_examples(struct columns *columns, const char *group, const struct m2sed_example *in,
                         uint32_t count) {
  uint8_t *bytes;
  uint64_t total = 0;
  for (uint32_t i = 0; i < count; i++) {
    total += in[i].context_count;
  }
  EXAMPLE_COLUMNS(WRITE_COLUMN)
  uint64_t *ptr = add_column(columns, group, "context_ptr", M2SE_U64, (uint64_t)count + 1);
  uint32_t *context = add_column(columns, group, "context", M2SE_U32, total);
  for (uint32_t i = 0; ptr != NULL && context != NULL && i < count; i++) {
    ptr[i + 1] = ptr[i] + in[i].context_count;
    memcpy(context + ptr[i], in[i].context, in[i].context_count * sizeof *context);
  }
}

static void add_positions(struct columns *columns, const char *group, const struct m2sed_position *in,
                          uint32_t count) {
  uint8_t *bytes;
  POSITION_COLUMNS(WRITE_COLUMN)
}

static void add_items(struct columns *columns, const char *group, const struct m2sed_checkpoint_item *in,
                      uint32_t count) {
  uint8_t *bytes;
  uint64_t total = 0;
  for (uint32_t i = 0; i < count; i++) {
    total += strlen(in[i].id);
  }
  ITEM_COLUMNS(WRITE_COLUMN)
  uint64_t *ptr = add_column(columns, group, "id_ptr", M2SE_U64, (uint64_t)count + 1);
  char *ids = add_column(columns, group, "id", M2SE_U8, total);
  for (uint32_t i = 0; ptr != NULL && ids != NULL && i < count; i++) {
    size_t size = strlen(in[i].id);
    ptr[i + 1] = ptr[i] + size;
    memcpy(ids + ptr[i], in[i].id, size);
  }
}

/* Wide elements first: then each tensor is aligned in the file. */
static int compare_width(const void *left, const void *right) {
  const struct m2se_tensor *a = left, *b = right;
  size_t wide_a = m2se_dtype_size(a->dtype), wide_b = m2se_dtype_size(b->dtype);
  return wide_a != wide_b ? (wide_a < wide_b) - (wide_a > wide_b) : strcmp(a->name, b->name);
}

int m2sed_state_write(const char *path, const struct m2sed_checkpoint_state *state,
                      const struct m2sed_checkpoint_info *info, struct m2se_error *error) {
  int code = check_state(state, error);
  if (code < 0) {
    return m2se_error_prefix(error, code, "%s", path);
  }
  struct columns columns = {0};
  add_examples(&columns, "waiting.", state->waiting, state->waiting_count);
  add_examples(&columns, "parked.", state->parked, state->parked_count);
  add_examples(&columns, "reservoir.", state->reservoir, state->reservoir_count);
  add_positions(&columns, "skipped.", state->skipped, state->skipped_count);
  add_items(&columns, "items.", state->items, state->item_count);
  uint8_t *loop_data = add_column(&columns, "", "loop", M2SE_U8, info->loop_bytes);
  if (loop_data != NULL && info->loop_bytes > 0) {
    memcpy(loop_data, info->loop_data, info->loop_bytes);
  }
  qsort(columns.tensors, columns.count, sizeof columns.tensors[0], compare_width);
  const struct m2se_metadata metadata[] = {{"format", "m2sed-state"}, {"version", "2"}};
  const struct m2se_safetensors_content content = {
      .tensors = columns.tensors, .tensor_count = columns.count, .metadata = metadata, .metadata_count = 2};
  code = columns.failed
             ? m2se_error_set(error, M2SE_ENOMEM, "%s: writing %u examples", path, state->reservoir_count)
             : m2se_safetensors_write(path, &content, true, error);
  for (uint32_t i = 0; i < columns.count; i++) {
    free((void *)columns.tensors[i].data);
  }
  return code;
}

/* ---- reading ---- */

/* What all columns of a group are read with. */
struct reader {
  const struct m2se_safetensors *file;
  const char *group;
  struct m2se_error *error;
};

/* The bytes of a column, which need not be aligned; *count M2SE_ANY: however many there are. */
static int column(const struct reader *reader, const char *name, enum m2se_dtype dtype, uint64_t *count,
                  const uint8_t **bytes) {
  char full[32];
  const struct m2se_tensor *tensor = NULL;
  snprintf(full, sizeof full, "%s%s", reader->group, name);
  int code = m2se_safetensors_require(reader->file, full, 1, count, &tensor, reader->error);
  if (code < 0) {
    return code;
  }
  if (tensor->dtype != dtype) {
    return m2se_error_set(reader->error, M2SE_ETYPE, "%s is %s, not %s", full, m2se_dtype_name(tensor->dtype),
                          m2se_dtype_name(dtype));
  }
  *count = tensor->count;
  *bytes = tensor->data;
  return 0;
}

/* Rows of different lengths: [rows + 1] places in a column of values. */
struct rows {
  const uint8_t *ptr, *values;
  uint64_t count, total;
};

static int get_rows(const struct reader *reader, const char *ptr_name, const char *values_name,
                    enum m2se_dtype dtype, struct rows *rows) {
  uint64_t places = M2SE_ANY;
  rows->total = M2SE_ANY;
  int code = column(reader, ptr_name, M2SE_U64, &places, &rows->ptr);
  if (code == 0) {
    code = column(reader, values_name, dtype, &rows->total, &rows->values);
  }
  if (code == 0 && (places < 1 || places - 1 >= UINT32_MAX)) {
    code = m2se_error_set(reader->error, M2SE_ESHAPE, "%s%s: %" PRIu64 " places", reader->group, ptr_name,
                          places);
  }
  rows->count = code == 0 ? places - 1 : 0;
  return code;
}

/* The values of row i, sizes min..max of them allowed. M2SE_ERANGE: the places are not in order. */
static int get_row(const struct reader *reader, const struct rows *rows, uint64_t i, uint64_t min,
                   uint64_t max, uint64_t *first, uint64_t *size) {
  uint64_t place[2];
  memcpy(place, rows->ptr + i * sizeof place[0], sizeof place);
  *first = place[0];
  *size = place[1] - place[0];
  bool ends = i > 0 || place[0] == 0;
  ends = ends && (i + 1 < rows->count || place[1] == rows->total);
  if (!ends || place[0] > place[1] || place[1] > rows->total || *size < min || *size > max) {
    return m2se_error_set(reader->error, M2SE_ERANGE,
                          "%srow %" PRIu64 " is from %" PRIu64 " to %" PRIu64 " of %" PRIu64 " values",
                          reader->group, i, place[0], place[1], rows->total);
  }
  return 0;
}

/* Into `member` of the `count` elements of `out`. */
#define READ_COLUMN(name, dtype, type, member)                                                               \
  if (code == 0) {                                                                                           \
    code = column(reader, #name, dtype, &count, &bytes);                                                     \
  }                                                                                                          \
  for (uint64_t i = 0; code == 0 && i < count; i++) {                                                        \
    memcpy(&out[i].member, bytes + i * sizeof(type), sizeof(type));                                          \
  }

static int read_examples(const struct reader *reader, struct m2sed_example **examples,
                         uint32_t *example_count) {
  struct rows contexts;
  const uint8_t *bytes = NULL;
  int code = get_rows(reader, "context_ptr", "context", M2SE_U32, &contexts);
  if (code < 0) {
    return code;
  }
  uint64_t count = contexts.count;
  struct m2sed_example *out = calloc(count + 1, sizeof *out);
  if (out == NULL) {
    return m2se_error_set(reader->error, M2SE_ENOMEM, "%" PRIu64 " examples", count);
  }
  *examples = out;
  *example_count = (uint32_t)count;
  EXAMPLE_COLUMNS(READ_COLUMN)
  for (uint64_t i = 0; code == 0 && i < count; i++) {
    uint64_t first, size;
    code = get_row(reader, &contexts, i, 1, M2SED_CONTEXT_MAX, &first, &size);
    if (code == 0) {
      out[i].context_count = (uint32_t)size;
      memcpy(out[i].context, contexts.values + first * sizeof(uint32_t), size * sizeof(uint32_t));
    }
  }
  return code;
}

static int read_positions(const struct reader *reader, struct m2sed_position **positions,
                          uint32_t *position_count) {
  uint64_t count = M2SE_ANY;
  const uint8_t *bytes = NULL;
  int code = column(reader, "position", M2SE_U64, &count, &bytes);
  if (code == 0 && count > M2SED_SKIPPED_MAX) {
    code = m2se_error_set(reader->error, M2SE_ERANGE, "%sposition: %" PRIu64 " of them, more than %d",
                          reader->group, count, M2SED_SKIPPED_MAX);
  }
  if (code < 0) {
    return code;
  }
  struct m2sed_position *out = calloc(count + 1, sizeof *out);
  if (out == NULL) {
    return m2se_error_set(reader->error, M2SE_ENOMEM, "%" PRIu64 " positions", count);
  }
  *positions = out;
  *position_count = (uint32_t)count;
  POSITION_COLUMNS(READ_COLUMN)
  return code;
}

static int read_items(const struct reader *reader, struct m2sed_checkpoint_state *state) {
  struct rows ids;
  const uint8_t *bytes = NULL;
  int code = get_rows(reader, "id_ptr", "id", M2SE_U8, &ids);
  if (code < 0) {
    return code;
  }
  uint64_t count = ids.count;
  struct m2sed_checkpoint_item *out = calloc(count + 1, sizeof *out);
  if (out == NULL) {
    return m2se_error_set(reader->error, M2SE_ENOMEM, "%" PRIu64 " items", count);
  }
  state->items = out;
  state->item_count = (uint32_t)count;
  ITEM_COLUMNS(READ_COLUMN)
  for (uint64_t i = 0; code == 0 && i < count; i++) {
    uint64_t first, size;
    code = get_row(reader, &ids, i, 1, sizeof out[i].id - 1, &first, &size);
    if (code == 0) {
      memcpy(out[i].id, ids.values + first, size);
    }
  }
  return code;
}

static int read_loop_data(const struct reader *reader, struct m2sed_checkpoint_state *state) {
  uint64_t count = M2SE_ANY;
  const uint8_t *bytes = NULL;
  int code = column(reader, "loop", M2SE_U8, &count, &bytes);
  if (code < 0) {
    return code;
  }
  state->loop_data = malloc(count + 1);
  if (state->loop_data == NULL) {
    return m2se_error_set(reader->error, M2SE_ENOMEM, "loop");
  }
  if (count > 0) {
    memcpy(state->loop_data, bytes, count);
  }
  state->loop_bytes = count;
  return 0;
}

int m2sed_state_read(const char *path, struct m2sed_checkpoint_state *state, struct m2se_error *error) {
  struct m2se_safetensors *file;
  int code = m2se_safetensors_open(&file, path, error);
  if (code < 0) {
    return code;
  }
  uint64_t version;
  struct reader reader = {.file = file, .error = error};
  code = m2se_safetensors_metadata_uint(file, "version", 2, 2, &version, error);
  if (code == 0) {
    reader.group = "waiting.";
    code = read_examples(&reader, &state->waiting, &state->waiting_count);
  }
  if (code == 0) {
    reader.group = "parked.";
    code = read_examples(&reader, &state->parked, &state->parked_count);
  }
  if (code == 0) {
    reader.group = "reservoir.";
    code = read_examples(&reader, &state->reservoir, &state->reservoir_count);
  }
  if (code == 0) {
    reader.group = "skipped.";
    code = read_positions(&reader, &state->skipped, &state->skipped_count);
  }
  if (code == 0) {
    reader.group = "items.";
    code = read_items(&reader, state);
  }
  if (code == 0) {
    reader.group = "";
    code = read_loop_data(&reader, state);
  }
  m2se_safetensors_close(file);
  if (code == 0) {
    code = check_state(state, error);
  }
  return code < 0 ? m2se_error_prefix(error, code, "%s", path) : 0;
}
