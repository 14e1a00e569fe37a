/* Events into sequence.lua, its answers back into structs. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <xxhash.h>

#include "ingest/lua.h"
#include "ingest/redis.h"
#include "ingest/sequence.h"

/* A user with events on their way: the newest of them, for the next one to come after. Two users with the
 * same hash would share it, and at worst send an event twice. */
struct flight {
  uint64_t user_hash;
  uint32_t events;
  uint8_t newest[12]; /* partition, position */
  UT_hash_handle hh;
};

struct m2se_sequencer {
  struct m2se_redis *redis;
  int script;
  char prefix[M2SE_KEY_PREFIX_MAX + 1];
  char keep[12], ttl[12]; /* decimal */
  struct flight *flights;
  struct m2se_sequence sequence; /* of the answer at hand */
};

struct request {
  struct m2se_sequencer *sequencer;
  struct flight *flight;
  m2se_sequence_callback *callback;
  void *context;
};

int m2se_sequencer_new(struct m2se_sequencer **out, struct m2se_redis *redis,
                       const struct m2se_sequencer_settings *settings, struct m2se_error *error) {
  if (m2se_key_check_prefix(settings->prefix, error))
    return M2SE_EINVAL;
  if (settings->keep < 1 || settings->keep > M2SE_SEQUENCE_KEEP_MAX)
    return m2se_error_set(error, M2SE_EINVAL, "a sequence keeps 1 to %d entries, not %u",
                          M2SE_SEQUENCE_KEEP_MAX, settings->keep);
  struct m2se_sequencer *sequencer = calloc(1, sizeof *sequencer);
  if (!sequencer)
    return m2se_error_set(error, M2SE_ENOMEM, "sequences: out of memory");
  sequencer->redis = redis;
  sequencer->script = m2se_redis_add_script(redis, m2se_lua_sequence);
  if (sequencer->script < 0) {
    free(sequencer);
    return m2se_error_set(error, M2SE_EINVAL, "the connection has no room for another script");
  }
  snprintf(sequencer->prefix, sizeof sequencer->prefix, "%s", settings->prefix);
  snprintf(sequencer->keep, sizeof sequencer->keep, "%u", settings->keep);
  snprintf(sequencer->ttl, sizeof sequencer->ttl, "%u", settings->ttl_seconds);
  *out = sequencer;
  return 0;
}

void m2se_sequencer_free(struct m2se_sequencer *sequencer) {
  assert(!sequencer || !sequencer->flights); /* the closed door has answered all */
  free(sequencer);
}

/* The answer's parts into result; what is wrong with them, or NULL. */
static const char *read_answer(struct m2se_sequencer *sequencer, const struct m2se_redis_reply *reply,
                               struct m2se_sequence_result *result, struct m2se_error *error) {
  if (m2se_redis_reply_count(reply) != 2)
    return "the script's answer has an unexpected form";
  int64_t outcome = m2se_redis_reply_integer(m2se_redis_reply_element(reply, 0));
  if (outcome < M2SE_SEQUENCE_NEW || outcome > M2SE_SEQUENCE_DUPLICATE)
    return "the script's answer has an unexpected outcome";
  size_t size;
  const char *blob = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 1), &size);
  if (m2se_sequence_parse(&sequencer->sequence, blob, size, error))
    return error->text;
  result->outcome = (enum m2se_sequence_outcome)outcome;
  result->sequence = &sequencer->sequence;
  return NULL;
}

static void on_answer(void *context, int status, const struct m2se_redis_reply *reply,
                      const char *error_text) {
  struct request *request = context;
  struct m2se_sequencer *sequencer = request->sequencer;
  if (--request->flight->events == 0) {
    HASH_DEL(sequencer->flights, request->flight);
    free(request->flight);
  }
  struct m2se_sequence_result result = {.status = status, .error = error_text};
  struct m2se_error error = {0};
  if (!status) {
    result.error = read_answer(sequencer, reply, &result, &error);
    result.status = result.error ? M2SE_EFORMAT : 0;
  }
  m2se_sequence_callback *callback = request->callback;
  void *callback_context = request->context;
  free(request);
  callback(callback_context, &result);
}

static void put_number(uint8_t *bytes, uint64_t number, int count) {
  for (int i = count - 1; i >= 0; i--, number >>= 8)
    bytes[i] = (uint8_t)number;
}

static struct flight *flight_of(struct m2se_sequencer *sequencer, uint64_t user_hash) {
  struct flight *flight = NULL;
  HASH_FIND(hh, sequencer->flights, &user_hash, sizeof user_hash, flight);
  if (!flight) {
    flight = calloc(1, sizeof *flight);
    if (flight) {
      flight->user_hash = user_hash;
      HASH_ADD(hh, sequencer->flights, user_hash, sizeof user_hash, flight);
    }
  }
  return flight;
}

int m2se_sequencer_apply(struct m2se_sequencer *sequencer, const struct m2se_sequence_event *event,
                         m2se_sequence_callback *callback, void *context) {
  assert(event->partition >= 0 && event->position < UINT64_MAX && event->item_id_size >= 1 &&
         event->item_id_size <= M2SE_ID_BYTES_MAX && event->event_time_ms >= 0 &&
         event->event_time_ms >> 48 == 0);
  struct request *request = malloc(sizeof *request);
  struct flight *flight =
      request ? flight_of(sequencer, XXH3_64bits(event->user_id, event->user_id_size)) : NULL;
  if (!flight) {
    free(request);
    return M2SE_ENOMEM;
  }
  *request = (struct request){sequencer, flight, callback, context};
  struct m2se_key key;
  m2se_key_build(&key, sequencer->prefix, M2SE_KEY_SEQUENCE, event->user_id, event->user_id_size);
  uint8_t here[12], following[8], time[6], hash[8], durable[8];
  put_number(here, (uint32_t)event->partition, 4);
  put_number(here + 4, event->position, 8);
  put_number(following, event->position + 1, 8);
  put_number(time, (uint64_t)event->event_time_ms, 6);
  put_number(hash, event->event_hash, 8);
  put_number(durable, event->durable_position, 8);
  const struct m2se_redis_argument arguments[] = {
      {here, 4},
      {here + 4, 8},
      {following, 8},
      {time, 6},
      {event->item_id, event->item_id_size},
      {hash, event->has_event_hash ? 8 : 0},
      {sequencer->keep, strlen(sequencer->keep)},
      {sequencer->ttl, strlen(sequencer->ttl)},
      {durable, 8},
      {flight->newest, flight->events ? 12 : 0},
  };
  int code = m2se_redis_call(sequencer->redis, sequencer->script, key.bytes, key.size, arguments,
                             sizeof arguments / sizeof *arguments, on_answer, request);
  if (code) {
    if (flight->events == 0) {
      HASH_DEL(sequencer->flights, flight);
      free(flight);
    }
    free(request);
    return code;
  }
  flight->events++;
  memcpy(flight->newest, here, sizeof here);
  return 0;
}
