#include "tests/sim/sim_store.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/lua.h"
#include "ingest/sequence.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_sequence.h"

void sim_words_copy(struct sim_words *words, const struct m2se_redis_argument *arguments, uint32_t count) {
  size_t bytes = 0;
  assert(count <= SIM_WORDS_MAX);
  for (uint32_t i = 0; i < count; i++)
    bytes += arguments[i].size + 1;
  char *memory = calloc(1, bytes);
  assert(memory);
  words->memory = memory;
  words->count = count;
  for (uint32_t i = 0; i < count; i++) {
    if (arguments[i].size)
      memcpy(memory, arguments[i].bytes, arguments[i].size);
    words->words[i] = (struct sim_word){memory, arguments[i].size};
    memory += arguments[i].size + 1;
  }
}

/* ---- replies ---- */

static struct m2se_redis_reply *reply_new(enum m2se_redis_type type) {
  struct m2se_redis_reply *reply = calloc(1, sizeof *reply);
  assert(reply);
  reply->type = type;
  return reply;
}

static struct m2se_redis_reply *integer(int64_t number) {
  struct m2se_redis_reply *reply = reply_new(M2SE_REDIS_INTEGER);
  reply->integer = number;
  return reply;
}

static struct m2se_redis_reply *bytes(enum m2se_redis_type type, const void *data, size_t size) {
  struct m2se_redis_reply *reply = reply_new(type);
  reply->bytes = malloc(size + 1);
  assert(reply->bytes);
  memcpy(reply->bytes, data, size);
  reply->bytes[size] = 0;
  reply->size = size;
  return reply;
}

static struct m2se_redis_reply *array(size_t count) {
  struct m2se_redis_reply *reply = reply_new(M2SE_REDIS_ARRAY);
  reply->elements = calloc(count + 1, sizeof(struct m2se_redis_reply *));
  assert(reply->elements);
  reply->count = count;
  return reply;
}

void sim_reply_free(struct m2se_redis_reply *reply) {
  if (!reply)
    return;
  for (size_t i = 0; i < reply->count; i++)
    sim_reply_free(reply->elements[i]);
  free(reply->elements);
  free(reply->bytes);
  free(reply);
}

/* ---- strings and hashes ---- */

static bool is(struct sim_word word, const char *text) {
  return word.size == strlen(text) && memcmp(word.bytes, text, word.size) == 0;
}

static struct sim_field *find(const char *key, const char *field) {
  for (uint32_t i = 0; i < sim->redis.field_count; i++)
    if (strcmp(sim->redis.fields[i].key, key) == 0 && strcmp(sim->redis.fields[i].field, field) == 0)
      return &sim->redis.fields[i];
  return NULL;
}

const struct sim_field *sim_store_find(const char *key, const char *field) {
  return find(key, field);
}

static void set(const char *key, const char *field, struct sim_word value) {
  struct sim_field *f = find(key, field);
  if (!f) {
    assert(sim->redis.field_count < SIM_FIELDS_MAX);
    f = &sim->redis.fields[sim->redis.field_count++];
    snprintf(f->key, sizeof f->key, "%s", key);
    snprintf(f->field, sizeof f->field, "%s", field);
  }
  assert(value.size < sizeof f->value && strlen(key) < sizeof f->key);
  memcpy(f->value, value.bytes, value.size);
  f->value[value.size] = 0;
  f->size = (uint32_t)value.size;
}

static uint64_t number_in(const char *key, const char *field) {
  const struct sim_field *f = find(key, field);
  return f ? strtoull(f->value, NULL, 10) : 0;
}

/* User of a sequence's key, or -1. */
static int user_of(const char *key) {
  return strncmp(key, "m2se:seq:u", 10) == 0 ? (int)strtol(key + 10, NULL, 10) : -1;
}

static void unlink_key(const char *key) {
  if (user_of(key) >= 0)
    sim->redis.sequences[user_of(key)].size = 0;
  for (uint32_t i = 0; i < sim->redis.field_count;)
    if (strcmp(sim->redis.fields[i].key, key) == 0)
      sim->redis.fields[i] = sim->redis.fields[--sim->redis.field_count];
    else
      i++;
}

static struct m2se_redis_reply *get(const char *key) {
  int user = user_of(key);
  if (user >= 0)
    return sim->redis.sequences[user].size
               ? bytes(M2SE_REDIS_BYTES, sim->redis.sequences[user].blob, sim->redis.sequences[user].size)
               : reply_new(M2SE_REDIS_NIL);
  const struct sim_field *f = find(key, "");
  return f ? bytes(M2SE_REDIS_BYTES, f->value, f->size) : reply_new(M2SE_REDIS_NIL);
}

/* Two steps, so that a walk has a middle. */
static struct m2se_redis_reply *scan(struct sim_word cursor) {
  uint32_t first = is(cursor, "0") ? 0 : SIM_USERS / 2, end = first ? (uint32_t)SIM_USERS : SIM_USERS / 2;
  struct m2se_redis_reply *reply = array(2), *keys = array(SIM_USERS);
  reply->elements[0] = bytes(M2SE_REDIS_BYTES, first ? "0" : "1", 1);
  reply->elements[1] = keys;
  keys->count = 0;
  for (uint32_t user = first; user < end; user++) {
    char key[24];
    int size = snprintf(key, sizeof key, "m2se:seq:u%u", user);
    if (sim->redis.sequences[user].size)
      keys->elements[keys->count++] = bytes(M2SE_REDIS_BYTES, key, (size_t)size);
  }
  return reply;
}

/* Readers turn to an epoch: every item's vector of it must be there, unless Redis lost it meanwhile, or the
 * item is so new that its first vector is of the epoch before. */
static void check_model(void) {
  uint64_t epoch = number_in("m2se:model", "epoch"), step = number_in("m2se:model", "step");
  for (uint32_t i = 0; i < sim->redis.field_count && epoch > sim->unsure_epoch; i++) {
    const struct sim_field *f = &sim->redis.fields[i];
    if (strncmp(f->key, "m2se:item:", 10) == 0 && strcmp(f->field, "epoch") == 0 &&
        strtoull(f->value, NULL, 10) != epoch &&
        (find(f->key, "epoch_prev") || strtoull(f->value, NULL, 10) + 1 != epoch))
      sim_fail("epoch %llu is shown, but %s has epoch %s", (unsigned long long)epoch, f->key, f->value);
  }
  assert(epoch < SIM_EPOCHS_MAX);
  sim->epoch_steps_of[epoch] = step;
}

/* A user's vector must come from the weights of an epoch that was shown. */
static void check_user(const char *key) {
  uint64_t epoch = number_in(key, "epoch"), step = number_in(key, "step");
  if (sim->epoch_steps_of[epoch] != step)
    sim_fail("%s has step %llu in epoch %llu, whose items have step %llu", key, (unsigned long long)step,
             (unsigned long long)epoch, (unsigned long long)sim->epoch_steps_of[epoch]);
  if (epoch > number_in("m2se:model", "epoch") && epoch > sim->unsure_epoch)
    sim_fail("%s has epoch %llu, which is not shown yet", key, (unsigned long long)epoch);
}

/* ---- the marker ---- */

static const char *marker(void) {
  const struct sim_field *f = find("m2se:marker", "");
  return f ? f->value : "";
}

static bool marker_is_not(struct sim_word a, struct sim_word b) {
  if (strcmp(marker(), a.bytes) == 0 || strcmp(marker(), b.bytes) == 0)
    return false;
  sim_trace("redis: the marker is '%s', not '%s'", marker(), a.bytes);
  set("m2se:marker", "", (struct sim_word){"lost", 4});
  return true;
}

/* A script: [0] is the key, [1] is ARGV[1]. */
static struct m2se_redis_reply *move_marker(const struct sim_words *words) {
  struct sim_word from = words->words[2], to = words->words[3];
  if (marker_is_not(from, to))
    return integer(0);
  if (strcmp(marker(), to.bytes) != 0)
    sim_trace("redis: marker '%s'", to.bytes);
  set("m2se:marker", "", to);
  return integer(1);
}

/* EVAL, the script, 1, the key, then its arguments */
static struct m2se_redis_reply *ask_marker(const struct sim_words *words) {
  const struct sim_word *argv = words->words + 3; /* argv[n] is ARGV[n] */
  struct m2se_redis_reply *reply = bytes(M2SE_REDIS_BYTES, marker(), strlen(marker()));
  if (!is(argv[1], "1"))
    marker_is_not(argv[2], argv[3]);
  return reply;
}

/* ---- commands ---- */

struct m2se_redis_reply *sim_store_command(const struct sim_words *words) {
  const struct sim_word *w = words->words;
  if (is(w[0], "GET"))
    return get(w[1].bytes);
  if (is(w[0], "SCAN"))
    return scan(w[1]);
  if (is(w[0], "PEXPIRETIME")) /* keys do not end while the simulator looks */
    return integer(user_of(w[1].bytes) >= 0 && sim->redis.sequences[user_of(w[1].bytes)].size
                       ? sim->now_ms + INT64_C(7776000000)
                       : -2);
  if (is(w[0], "EVAL") && is(w[1], m2se_lua_marker_ask))
    return ask_marker(words);
  if (is(w[0], "SET") && is(w[1], "m2se:marker"))
    set(w[1].bytes, "", w[2]);
  else if (is(w[0], "UNLINK"))
    for (uint32_t i = 1; i < words->count; i++)
      unlink_key(w[i].bytes);
  else if (is(w[0], "HGET")) {
    const struct sim_field *f = find(w[1].bytes, w[2].bytes);
    return f ? bytes(M2SE_REDIS_BYTES, f->value, f->size) : reply_new(M2SE_REDIS_NIL);
  } else if (is(w[0], "HSET")) {
    for (uint32_t i = 2; i + 1 < words->count; i += 2)
      set(w[1].bytes, w[i].bytes, w[i + 1]);
    if (strcmp(w[1].bytes, "m2se:model") == 0)
      check_model();
    else
      check_user(w[1].bytes);
  } else if (!is(w[0], "EXPIRE") && !is(w[0], "PEXPIREAT") &&
             !(is(w[0], "SET") && is(w[1], "m2se:status"))) /* nobody reads that one */
    sim_fail("a command that the simulator does not know: %s", w[0].bytes);
  return integer(1);
}

/* ---- scripts; [0] is the key, [1] is ARGV[1] ---- */

static struct m2se_redis_reply *publish_item(const struct sim_words *words) {
  const char *key = words->words[0].bytes;
  struct sim_word vector = words->words[2], epoch = words->words[3];
  uint64_t number = strtoull(epoch.bytes, NULL, 10);
  sim->newest_epoch = number > sim->newest_epoch ? number : sim->newest_epoch;
  const struct sim_field *v = find(key, "v"), *now = find(key, "epoch"), *before = find(key, "epoch_prev");
  uint64_t shown = number_in("m2se:model", "epoch");
  if (v && now && is(epoch, now->value) && strtoull(now->value, NULL, 10) <= shown &&
      shown > sim->unsure_epoch && (v->size != vector.size || memcmp(v->value, vector.bytes, v->size) != 0))
    sim_fail("%s: another vector of epoch %s, which readers see", key, now->value);
  if (!v || !now || is(epoch, now->value)) {
    set(key, "v", vector);
    set(key, "epoch", epoch);
  } else if (before && is(epoch, before->value)) {
    set(key, "v_prev", vector);
  } else if (number + 1 == strtoull(now->value, NULL, 10)) {
    set(key, "v_prev", vector);
    set(key, "epoch_prev", epoch);
  } else {
    const struct sim_field old_v = *v, old_epoch = *now;
    set(key, "v_prev", (struct sim_word){old_v.value, old_v.size});
    set(key, "epoch_prev", (struct sim_word){old_epoch.value, old_epoch.size});
    set(key, "v", vector);
    set(key, "epoch", epoch);
  }
  return integer(1);
}

static struct m2se_redis_reply *apply(const struct sim_words *words) {
  int user = user_of(words->words[0].bytes);
  assert(user >= 0 && user < SIM_USERS);
  const char *error = NULL;
  int outcome = sim_sequence_apply(sim->redis.sequences[user].blob, &sim->redis.sequences[user].size,
                                   SIM_SEQUENCE_BYTES, words, &error);
  if (error)
    return bytes(M2SE_REDIS_ERROR, error, strlen(error));
  struct m2se_redis_reply *reply = array(2);
  reply->elements[0] = integer(outcome);
  reply->elements[1] =
      bytes(M2SE_REDIS_BYTES, sim->redis.sequences[user].blob, sim->redis.sequences[user].size);
  return reply;
}

struct m2se_redis_reply *sim_store_script(const char *script, const struct sim_words *words) {
  if (script == m2se_lua_marker)
    return move_marker(words);
  if (script == m2se_lua_publish_item)
    return publish_item(words);
  assert(script == m2se_lua_sequence);
  return apply(words);
}

/* ---- data that goes ---- */

void sim_store_answered(const char *script, const struct sim_words *words,
                        const struct m2se_redis_reply *reply) {
  const struct sim_word *w = words->words;
  if (script == m2se_lua_sequence)
    sim->redis.sequences_told++;
  else if (script == m2se_lua_marker && reply->integer == 1)
    snprintf(sim->marker_told, sizeof sim->marker_told, "%s", w[3].bytes);
  else if (script == m2se_lua_marker || (!script && is(w[0], "EVAL")))
    snprintf(sim->marker_told, sizeof sim->marker_told, "%s", marker());
  else if (!script && is(w[0], "SET") && is(w[1], "m2se:marker"))
    snprintf(sim->marker_told, sizeof sim->marker_told, "%s", w[2].bytes);
}

/* Known and documented (loop_marker.c): events that were acknowledged and then lost, before the daemon heard
 * that the marker stands behind them, are not noticed. The simulator keeps clear of that. */
static bool would_be_noticed(const struct sim_redis_data *older) {
  if (strcmp(sim->marker_told, "lost") == 0) /* it removes all anyhow */
    return true;
  const char *marker = "";
  for (uint32_t i = 0; i < older->field_count; i++)
    if (strcmp(older->fields[i].key, "m2se:marker") == 0)
      marker = older->fields[i].value;
  return strcmp(marker, sim->marker_told) != 0 || sim->redis.sequences_told == older->sequences_told;
}

bool sim_store_maybe_crash(void) {
  static const struct sim_redis_data nothing;
  if (sim->faults.crash && sim_chance(20))
    sim->saved = sim->redis;
  bool flush = sim_chance(sim->faults.flush);
  if (!flush && !sim_chance(sim->faults.crash))
    return false;
  const struct sim_redis_data *older = flush ? &nothing : &sim->saved;
  if (!would_be_noticed(older))
    return false;
  uint64_t sequences = sim->redis.sequences_told;
  sim->redis = *older;
  sim->redis.sequences_told = sequences;
  sim->lost_data = true;
  sim->unsure_epoch = sim->newest_epoch + 1;
  sim_trace(flush ? "redis: FLUSHALL" : "redis: back to older data");
  return true;
}
