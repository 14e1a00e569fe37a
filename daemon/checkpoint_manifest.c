/* MANIFEST.json: what a generation is, in a form that people and programs can read. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/checkpoint_files.h"
#include "daemon/learning.h"
#include "daemon/positions.h"
#include "model/files/json.h"

#define FORMAT "m2sed-checkpoint"
#define VERSION 2

/* Counters and settings, each named once. */
#define COUNTERS(X)                                                                                          \
  X(trained_events)                                                                                          \
  X(event_digest)                                                                                            \
  X(skipped_no_context)                                                                                      \
  X(skipped_no_features)                                                                                     \
  X(skipped_duplicate)                                                                                       \
  X(skipped_guard)                                                                                           \
  X(dead_lettered)                                                                                           \
  X(skipped_erased)                                                                                          \
  X(replay_taken_away)                                                                                       \
  X(events_taken)                                                                                            \
  X(unparked)                                                                                                \
  X(parking_dropped)                                                                                         \
  X(refused_in_a_row)                                                                                        \
  X(rollbacks)
#define SIZES(X) X(d) X(da) X(h) X(experts) X(layers) X(heads) X(ffn) X(max_len)
#define REALS(X) X(tau) X(lambda) X(dropout)
#define SWITCHES(X) X(item_residual) X(item_bias)

/* ---- writing ---- */

static void put_created(struct m2se_json_writer *writer, int64_t created_ms) {
  char text[64];
  struct tm utc;
  time_t seconds = (time_t)(created_ms / 1000);
  if (gmtime_r(&seconds, &utc) != NULL && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) > 0) {
    m2se_json_put_text(writer, "created", text);
  }
  m2se_json_put_decimal(writer, "created_ms", (uint64_t)created_ms);
}

static void put_positions(struct m2se_json_writer *writer, const struct m2sed_checkpoint_state *state,
                          const char *topic) {
  for (int pass = 0; pass < 2; pass++) { /* the next offset to read, then the epoch of the log it counts in */
    m2se_json_put_object(writer, pass == 0 ? "positions" : "log_epochs");
    m2se_json_put_object(writer, topic);
    for (uint32_t i = 0; i < state->position_count; i++) {
      char partition[16];
      uint64_t position = state->positions[i].position;
      snprintf(partition, sizeof partition, "%" PRId32, state->positions[i].partition);
      m2se_json_put_decimal(writer, partition,
                            pass == 0 ? position & M2SED_OFFSET_MASK : position >> M2SED_EPOCH_BITS);
    }
    m2se_json_put_end(writer);
    m2se_json_put_end(writer);
  }
}

static void put_config(struct m2se_json_writer *writer, const struct m2se_config *config) {
  m2se_json_put_object(writer, "config");
#define PUT_SIZE(name) m2se_json_put_int64(writer, #name, config->name);
#define PUT_REAL(name) m2se_json_put_double(writer, #name, config->name);
#define PUT_SWITCH(name) m2se_json_put_bool(writer, #name, config->name);
  SIZES(PUT_SIZE)
  REALS(PUT_REAL)
  SWITCHES(PUT_SWITCH)
  m2se_json_put_text(writer, "targets", config->targets == M2SE_TARGETS_ALL ? "all" : "last");
  m2se_json_put_decimal(writer, "seed", config->seed);
  m2se_json_put_end(writer);
}

/* Puts the checksum of all before it behind the last member, so that no byte of the file can change
 * unnoticed. */
static char *seal(char *text, size_t *length) {
  struct m2sed_file_sum sum;
  char *end = strrchr(text, '}'); /* of the outermost object */
  while (end > text && (end[-1] == '\n' || end[-1] == ' ')) {
    end--;
  }
  size_t body = (size_t)(end - text), size = body + 128;
  char *sealed = malloc(size);
  if (sealed != NULL) {
    memcpy(sealed, text, body);
    body += (size_t)snprintf(sealed + body, size - body, ",\n  ");
    m2sed_memory_sum(sealed, body, &sum);
    *length = body + (size_t)snprintf(sealed + body, size - body, "\"checksum\": \"%s\"\n}\n", sum.xxh3_128);
  }
  free(text);
  return sealed;
}

int m2sed_manifest_format(const struct m2sed_checkpoint_state *state,
                          const struct m2sed_checkpoint_info *info, uint64_t generation,
                          const struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES], char **text,
                          size_t *length, struct m2se_error *error) {
  struct m2se_json_writer *writer = m2se_json_writer_new(2);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_text(writer, "format", FORMAT);
  m2se_json_put_int64(writer, "version", VERSION);
  m2se_json_put_text(writer, "lineage", info->lineage);
  m2se_json_put_decimal(writer, "generation", generation);
  if (info->fence) {
    m2se_json_put_decimal(writer, "fence", info->fence);
  }
  put_created(writer, info->created_ms);
  m2se_json_put_decimal(writer, "step", state->step);
#define PUT_COUNTER(name) m2se_json_put_decimal(writer, #name, state->counters.name);
  COUNTERS(PUT_COUNTER)
  PUT_COUNTER(skipped_training_off)
  m2se_json_put_int64(writer, "waiting", state->waiting_count);
  m2se_json_put_int64(writer, "parked", state->parked_count);
  m2se_json_put_int64(writer, "reservoir", state->reservoir_count);
  m2se_json_put_decimal(writer, "reservoir_seen", state->reservoir_seen);
  m2se_json_put_int64(writer, "items", state->item_count);
  char newest[32];
  snprintf(newest, sizeof newest, "%" PRId64, state->newest_event_ms);
  m2se_json_put_text(writer, "newest_event_ms", newest);
  put_positions(writer, state, info->topic);
  put_config(writer, &state->config);
  m2se_json_put_object(writer, "files");
  for (int i = 0; i < M2SED_CHECKPOINT_FILES; i++) {
    m2se_json_put_object(writer, m2sed_checkpoint_file_names[i]);
    m2se_json_put_decimal(writer, "bytes", sums[i].bytes);
    m2se_json_put_text(writer, "xxh3_128", sums[i].xxh3_128);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  *text = m2se_json_finish(writer, length);
  if (*text != NULL) {
    *text = seal(*text, length);
  }
  return *text != NULL ? 0 : m2se_error_set(error, M2SE_ENOMEM, "%s", M2SED_MANIFEST);
}

/* ---- reading ---- */

static int check_seal(const char *text, size_t length, struct m2se_error *error) {
  const char key[] = "\"checksum\": \"", end[] = "\"\n}\n";
  size_t tail = sizeof key - 1 + 32 + sizeof end - 1;
  struct m2sed_file_sum sum;
  const char *seal_text = length >= tail ? text + length - tail : NULL;
  if (seal_text != NULL) {
    m2sed_memory_sum(text, length - tail, &sum);
  }
  if (seal_text == NULL || memcmp(seal_text, key, sizeof key - 1) != 0 ||
      memcmp(seal_text + sizeof key - 1, sum.xxh3_128, 32) != 0 ||
      memcmp(text + length - (sizeof end - 1), end, sizeof end - 1) != 0) {
    return m2se_error_set(error, M2SE_EFORMAT, "%s: cut or changed: its own checksum does not hold",
                          M2SED_MANIFEST);
  }
  return 0;
}

int m2sed_manifest_renumber(const char *text, size_t length, uint64_t generation, char **renumbered,
                            size_t *new_length, struct m2se_error *error) {
  const char key[] = "\"generation\": \"";
  int code = check_seal(text, length, error);
  if (code < 0) {
    return code;
  }
  const char *digits = strstr(text, key), *seal_text = strstr(text, ",\n  \"checksum\": \"");
  const char *rest = digits != NULL ? strchr(digits + sizeof key - 1, '"') : NULL;
  if (rest == NULL || seal_text == NULL || rest > seal_text) {
    return m2se_error_set(error, M2SE_EFORMAT, "%s: has no generation", M2SED_MANIFEST);
  }
  size_t size = length + 32;
  char *body = malloc(size);
  if (body != NULL) {
    *new_length =
        (size_t)snprintf(body, size, "%.*s%" PRIu64 "%.*s\n}\n", (int)(digits + sizeof key - 1 - text), text,
                         generation, (int)(seal_text - rest), rest);
  }
  *renumbered = body != NULL ? seal(body, new_length) : NULL;
  return *renumbered != NULL ? 0 : m2se_error_set(error, M2SE_ENOMEM, "%s", M2SED_MANIFEST);
}

#define GET(function, parent, name, out) function(m2se_json_get(parent, name), name, out, error)

static int get_uint32(const struct m2se_json *parent, const char *name, uint32_t *out,
                      struct m2se_error *error) {
  uint64_t number;
  int code = GET(m2se_json_as_uint64, parent, name, &number);
  if (code == 0 && number > UINT32_MAX) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s: %" PRIu64 " is above 2^32", name, number);
  }
  *out = code == 0 ? (uint32_t)number : 0;
  return code;
}

static int get_config(const struct m2se_json *root, struct m2se_config *config, struct m2se_error *error) {
  const struct m2se_json *object = m2se_json_get(root, "config");
  const char *targets = "";
  int code = 0;
#define GET_SIZE(name)                                                                                       \
  if (code == 0) {                                                                                           \
    code = get_uint32(object, #name, &config->name, error);                                                  \
  }
#define GET_REAL(name)                                                                                       \
  if (code == 0) {                                                                                           \
    code = GET(m2se_json_as_double, object, #name, &config->name);                                           \
  }
#define GET_SWITCH(name)                                                                                     \
  if (code == 0) {                                                                                           \
    code = GET(m2se_json_as_bool, object, #name, &config->name);                                             \
  }
  SIZES(GET_SIZE)
  REALS(GET_REAL)
  SWITCHES(GET_SWITCH)
  if (code == 0) {
    code = m2se_json_as_string(m2se_json_get(object, "targets"), "targets", &targets, NULL, error);
  }
  if (code == 0 && strcmp(targets, "all") != 0 && strcmp(targets, "last") != 0) {
    code = m2se_error_set(error, M2SE_ERANGE, "targets: '%s' is neither 'all' nor 'last'", targets);
  }
  config->targets = strcmp(targets, "all") == 0 ? M2SE_TARGETS_ALL : M2SE_TARGETS_LAST;
  return code < 0 ? code : GET(m2se_json_as_uint64, object, "seed", &config->seed);
}

static int get_position(const struct m2se_json_iterator *partition, const struct m2se_json *epochs,
                        struct m2sed_checkpoint_state *state, struct m2se_error *error) {
  uint64_t offset = 0, epoch = 0;
  char *end;
  long number = strtol(partition->key, &end, 10);
  long before = state->position_count > 0 ? state->positions[state->position_count - 1].partition : -1;
  bool good = *end == '\0' && number > before && number < M2SED_PARTITIONS_MAX;
  if (good) {
    int code = m2se_json_as_uint64(partition->value, "positions", &offset, error);
    if (code == 0) {
      code = m2se_json_as_uint64(m2se_json_get(epochs, partition->key), "log_epochs", &epoch, error);
    }
    if (code < 0) {
      return code;
    }
  }
  if (!good || offset >> M2SED_EPOCH_BITS != 0 || epoch >> (64 - M2SED_EPOCH_BITS) != 0) {
    return m2se_error_set(error, M2SE_ERANGE,
                          "positions: partition %s, its log epoch or its offset is out of range or order",
                          partition->key);
  }
  state->positions[state->position_count++] =
      (struct m2sed_position){(int32_t)number, epoch << M2SED_EPOCH_BITS | offset};
  return 0;
}

static int get_positions(const struct m2se_json *root, struct m2sed_checkpoint_state *state,
                         struct m2se_error *error) {
  struct m2se_json_iterator topic = {0}, partition = {0};
  const struct m2se_json *positions = m2se_json_get(root, "positions");
  int code = 0;
  if (m2se_json_size(positions) != 1 || !m2se_json_next(positions, &topic)) {
    return m2se_error_set(error, M2SE_EFORMAT, "positions: %zu topics, not one", m2se_json_size(positions));
  }
  const struct m2se_json *epochs = m2se_json_get(m2se_json_get(root, "log_epochs"), topic.key);
  state->positions = calloc(m2se_json_size(topic.value) + 1, sizeof *state->positions);
  if (state->positions == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "positions");
  }
  while (code == 0 && m2se_json_next(topic.value, &partition)) {
    code = get_position(&partition, epochs, state, error);
  }
  return code;
}

static int get_files(const struct m2se_json *root, struct m2sed_file_sum *sums, struct m2se_error *error) {
  const struct m2se_json *files = m2se_json_get(root, "files");
  if (m2se_json_size(files) != M2SED_CHECKPOINT_FILES) {
    return m2se_error_set(error, M2SE_EFORMAT, "files: %zu of them, not %d", m2se_json_size(files),
                          M2SED_CHECKPOINT_FILES);
  }
  for (int i = 0; i < M2SED_CHECKPOINT_FILES; i++) {
    const struct m2se_json *file = m2se_json_get(files, m2sed_checkpoint_file_names[i]);
    const char *hash = "";
    int code = GET(m2se_json_as_uint64, file, "bytes", &sums[i].bytes);
    if (code == 0) {
      code = m2se_json_as_string(m2se_json_get(file, "xxh3_128"), "xxh3_128", &hash, NULL, error);
    }
    if (code < 0) {
      return m2se_error_prefix(error, code, "%s", m2sed_checkpoint_file_names[i]);
    }
    snprintf(sums[i].xxh3_128, sizeof sums[i].xxh3_128, "%s", hash);
  }
  return 0;
}

static int get_scalars(const struct m2se_json *root, struct m2sed_checkpoint_state *state,
                       struct m2se_error *error) {
  const char *format = "", *lineage = "";
  uint64_t version = 0;
  int code = m2se_json_as_string(m2se_json_get(root, "format"), "format", &format, NULL, error);
  if (code == 0) {
    code = GET(m2se_json_as_uint64, root, "version", &version);
  }
  if (code == 0 && (strcmp(format, FORMAT) != 0 || version != VERSION)) {
    code = m2se_error_set(error, M2SE_EFORMAT, "format %s version %" PRIu64 ", not " FORMAT " version %d",
                          format, version, VERSION);
  }
  if (code == 0) {
    code = m2se_json_as_string(m2se_json_get(root, "lineage"), "lineage", &lineage, NULL, error);
  }
  if (code == 0 && (lineage[0] == '\0' || strlen(lineage) >= sizeof state->lineage)) {
    code = m2se_error_set(error, M2SE_ERANGE, "lineage: not 1..%zu bytes", sizeof state->lineage - 1);
  }
  if (code == 0) {
    snprintf(state->lineage, sizeof state->lineage, "%s", lineage);
    code = GET(m2se_json_as_uint64, root, "generation", &state->generation);
  }
  if (code == 0 && m2se_json_get(root, "fence") != NULL) {
    code = GET(m2se_json_as_uint64, root, "fence", &state->fence);
  }
#define GET_COUNTER(name)                                                                                    \
  if (code == 0) {                                                                                           \
    code = GET(m2se_json_as_uint64, root, #name, &state->counters.name);                                     \
  }
  COUNTERS(GET_COUNTER)
  if (code == 0 && m2se_json_get(root, "skipped_training_off") != NULL) { /* older ones have none */
    code = GET(m2se_json_as_uint64, root, "skipped_training_off", &state->counters.skipped_training_off);
  }
  if (code == 0) {
    code = GET(m2se_json_as_uint64, root, "step", &state->step);
  }
  if (code == 0) {
    code = GET(m2se_json_as_uint64, root, "reservoir_seen", &state->reservoir_seen);
  }
  return code < 0 ? code : GET(m2se_json_as_int64, root, "newest_event_ms", &state->newest_event_ms);
}

int m2sed_manifest_parse(const char *text, size_t length, struct m2sed_checkpoint_state *state,
                         struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES], struct m2se_error *error) {
  struct m2se_json *root = NULL;
  int code = check_seal(text, length, error);
  if (code < 0) {
    return code;
  }
  code = m2se_json_parse(&root, text, length, NULL, error);
  if (code == 0) {
    code = get_scalars(root, state, error);
  }
  if (code == 0) {
    code = get_positions(root, state, error);
  }
  if (code == 0) {
    code = get_config(root, &state->config, error);
  }
  if (code == 0) {
    code = get_files(root, sums, error);
  }
  m2se_json_free(root);
  return code < 0 ? m2se_error_prefix(error, code, "%s", M2SED_MANIFEST) : 0;
}
