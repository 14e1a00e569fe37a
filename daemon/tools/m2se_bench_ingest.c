/* The way of an event without Kafka and without mathematics: decode, one Lua call, context, ring. Beside it,
 * in the same run, over the same connection and in the same window, a plain SET of as many bytes as a
 * sequence of eight has: what the machine gives, whose share is stated. Then a vector for each user, and what
 * a user takes in Redis. */
#include "daemon/tools/m2se_bench_ingest.h"

#include <assert.h>
#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "daemon/catalogue.h"
#include "daemon/messages.h"
#include "daemon/ring.h"
#include "ingest/codec.h"
#include "ingest/publish.h"
#include "ingest/redis_child.h"
#include "ingest/sequence.h"
#include "model/random.h"

enum {
  LENGTH = 50,
  KEEP = 100,
  TTL_SECONDS = 7776000,
  WINDOW = 2048, /* redis.in_flight */
  RECORD_BYTES = 96,
  PLAIN_BYTES = 8 * 32 + 20,
  PATIENCE_MS = 30000,
  PURPOSE_USERS = 1,
  PURPOSE_ITEMS
};

struct bench;
/* What is sent one after the other, at most WINDOW of them unanswered. */
typedef int send_function(struct bench *bench, uint32_t number);

struct bench {
  const struct m2se_bench_ingest_flags *flags;
  struct m2se_error *error;
  int code;
  char directory[64];
  struct m2se_redis_child *child;
  uv_loop_t loop;
  struct m2se_redis *redis;
  struct m2se_sequencer *sequencer;
  struct m2se_publisher *publisher;
  struct m2sed_catalogue *catalogue;
  struct m2se_arena arena;
  uint8_t (*records)[RECORD_BYTES]; /* [events] */
  uint8_t *sizes;                   /* [events] */
  uint32_t *lengths;                /* [users]: entries of the stored sequence */
  struct m2sed_ring *ring;
  struct m2sed_waker consumer, producer;
  uint64_t context_items; /* that the other end of the ring has counted */
  send_function *send;
  uint32_t sent, answered, count;
};

static double now_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void failed(struct bench *b, int code, const char *why) {
  if (!b->code)
    b->code = m2se_error_set(b->error, code, "ingest: %s", why);
  uv_stop(&b->loop);
}

/* ---- a stream of commands ---- */

static void feed(struct bench *b) {
  while (!b->code && b->sent < b->count && b->sent - b->answered < WINDOW) {
    int code = b->send(b, b->sent);
    if (code == M2SE_ELIMIT)
      return; /* the next answer comes back here */
    if (code)
      failed(b, code, "a command could not be sent");
    b->sent++;
  }
}

static void on_answer(struct bench *b, int status, const char *why) {
  b->answered++;
  if (status)
    failed(b, status, why);
  else if (b->answered == b->count)
    uv_stop(&b->loop);
  else
    feed(b);
}

static void on_reply(void *context, int status, const struct m2se_redis_reply *reply, const char *why) {
  (void)reply;
  on_answer(context, status, why);
}

/* Seconds. */
static double run(struct bench *b, send_function *send, uint32_t count) {
  if (b->code)
    return 1;
  b->send = send;
  b->sent = b->answered = 0;
  b->count = count;
  double begin = now_seconds();
  feed(b);
  if (!b->code)
    uv_run(&b->loop, UV_RUN_DEFAULT);
  return now_seconds() - begin;
}

static int send_plain(struct bench *b, uint32_t number) {
  static const uint8_t bytes[PLAIN_BYTES];
  char key[32];
  int size = snprintf(key, sizeof key, "plain:%u", number % b->flags->users);
  const struct m2se_redis_argument arguments[] = {{"SET", 3}, {key, (size_t)size}, {bytes, sizeof bytes}};
  return m2se_redis_send(b->redis, arguments, 3, on_reply, b);
}

static int send_flush(struct bench *b, uint32_t number) {
  (void)number;
  const struct m2se_redis_argument arguments[] = {{"FLUSHALL", 8}, {"SYNC", 4}};
  return m2se_redis_send(b->redis, arguments, 2, on_reply, b);
}

/* ---- sequences ---- */

static void on_sequence(void *context, const struct m2se_sequence_result *result) {
  struct bench *b = context;
  if (!result->status) {
    const struct m2se_sequence *sequence = result->sequence;
    const struct m2se_sequence_entry *newest = &sequence->entries[sequence->entry_count - 1];
    struct m2se_sequence_span span =
        m2se_sequence_context(sequence, newest->partition, newest->position, LENGTH);
    struct m2sed_train_message *message = m2sed_ring_claim_wait(b->ring, &b->producer);
    message->kind = M2SED_TRAIN_EVENT;
    message->context_count = span.count;
    for (uint32_t i = 0; i < span.count; i++) {
      const struct m2se_sequence_entry *entry = &sequence->entries[span.first + i];
      message->context[i] = m2sed_catalogue_find(b->catalogue, entry->item_id, entry->item_id_size);
    }
    m2sed_ring_publish(b->ring);
  }
  on_answer(b, result->status, result->error);
}

static uint32_t user_number(const struct bench *b, const char *id) {
  return (uint32_t)strtoul(id + 1, NULL, 10) - b->flags->first_user;
}

static int send_event(struct bench *b, uint32_t number) {
  struct m2se_interaction event;
  struct m2se_refusal refusal;
  if (m2se_interaction_decode(&event, &b->arena, b->records[number], b->sizes[number], 1, &refusal))
    return M2SE_EFORMAT;
  const struct m2se_sequence_event applied = {.user_id = event.user_id.data,
                                              .user_id_size = (uint32_t)event.user_id.size,
                                              .item_id = event.item_id.data,
                                              .item_id_size = (uint32_t)event.item_id.size,
                                              .position = number,
                                              .event_time_ms = event.event_time_ms,
                                              .has_event_hash = event.event_id.size > 0,
                                              .event_hash = number * UINT64_C(0x9e3779b97f4a7c15),
                                              .durable_position = number};
  int code = m2se_sequencer_apply(b->sequencer, &applied, on_sequence, b);
  uint32_t *length = &b->lengths[user_number(b, event.user_id.data)];
  if (!code && *length < KEEP)
    ++*length;
  return code;
}

static int send_vector(struct bench *b, uint32_t number) {
  float vector[1024];
  for (uint32_t i = 0; i < b->flags->vector_dim; i++)
    vector[i] = (float)((number + i) % 251) / 251;
  char id[16];
  int size = snprintf(id, sizeof id, "u%07u", b->flags->first_user + number);
  const struct m2se_user_vector user = {.user_id = id,
                                        .user_id_size = (uint32_t)size,
                                        .vector = vector,
                                        .dim = b->flags->vector_dim,
                                        .epoch = 1000,
                                        .step = 20000,
                                        .sequence_count = b->lengths[number],
                                        .event_time_ms = INT64_C(1700000000000) + number};
  return m2se_publish_user(b->publisher, &user, on_reply, b);
}

static int send_memory(struct bench *b, uint32_t number) {
  (void)number;
  int code = m2se_redis_refresh_memory(b->redis);
  const struct m2se_redis_argument ping = {"PING", 4};
  return code ? code : m2se_redis_send(b->redis, &ping, 1, on_reply, b);
}

/* After a while: the buffers of the append-only file and of the connection are no part of what is stored. */
static double memory_bytes(struct bench *b) {
  uv_sleep(2500);
  run(b, send_memory, 1);
  struct m2se_redis_status status;
  m2se_redis_get_status(b->redis, &status);
  return (double)status.used_memory_bytes;
}

/* ---- the other end of the ring ---- */

static void *consume(void *argument) {
  struct bench *b = argument;
  for (;;) {
    struct m2sed_train_message *message = m2sed_ring_peek(b->ring, 0);
    if (!message) {
      m2sed_waker_prepare(&b->consumer);
      if (m2sed_ring_peek(b->ring, 0))
        m2sed_waker_cancel(&b->consumer);
      else
        m2sed_waker_sleep(&b->consumer);
      continue;
    }
    bool stop = message->kind == M2SED_TRAIN_STOP;
    b->context_items += stop ? 0 : message->context_count;
    m2sed_ring_release(b->ring);
    if (stop)
      return NULL;
  }
}

/* ---- records ---- */

static double *zipf_sums(const struct m2se_bench_ingest_flags *f) {
  double *sums = malloc(f->users * sizeof *sums), sum = 0;
  for (uint32_t r = 0; sums && r < f->users; r++)
    sums[r] = sum += pow(r + 1, -0.01 * f->zipf_hundredths);
  return sums;
}

static uint32_t draw_user(const struct m2se_bench_ingest_flags *f, const double *sums, uint32_t number) {
  double wanted = sums[f->users - 1] * m2se_random_unit(f->seed, number, PURPOSE_USERS, 0);
  uint32_t low = 0, high = f->users - 1;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (sums[middle] > wanted)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

static int make_records(struct bench *b) {
  const struct m2se_bench_ingest_flags *f = b->flags;
  double *sums = zipf_sums(f);
  b->records = malloc((size_t)f->events * sizeof *b->records);
  b->sizes = malloc(f->events);
  b->lengths = calloc(f->users, sizeof *b->lengths);
  bool complete = sums && b->records && b->sizes && b->lengths;
  for (uint32_t e = 0; complete && e < f->events; e++) {
    char user[16], item[16], event_id[16];
    uint32_t chosen = (uint32_t)m2se_random_below(f->seed, e, PURPOSE_ITEMS, 0, f->items);
    const struct m2se_interaction event = {
        .user_id = {user,
                    (size_t)snprintf(user, sizeof user, "u%07u", f->first_user + draw_user(f, sums, e))},
        .item_id = {item, (size_t)snprintf(item, sizeof item, "i%06u", chosen)},
        .event_id = {event_id, f->event_ids ? (size_t)snprintf(event_id, sizeof event_id, "e%010u", e) : 0},
        .kind = {"", 0},
        .event_time_ms = INT64_C(1700000000000) + e};
    b->sizes[e] = (uint8_t)m2se_interaction_encode(&event, b->records[e], RECORD_BYTES);
    assert(b->sizes[e] <= RECORD_BYTES);
  }
  free(sums);
  return complete ? 0 : m2se_error_set(b->error, M2SE_ENOMEM, "ingest: no memory for %u records", f->events);
}

/* ---- all of it ---- */

static int start(struct bench *b) {
  const struct m2se_bench_ingest_flags *f = b->flags;
  signal(SIGPIPE, SIG_IGN);
  snprintf(b->directory, sizeof b->directory, "/tmp/m2se-bench-XXXXXX");
  if (!mkdtemp(b->directory))
    return m2se_error_set(b->error, M2SE_EIO, "ingest: no folder can be made in /tmp");
  int code = make_records(b);
  if (!code)
    code = m2se_arena_new(&b->arena, M2SE_INTERACTION_ARENA_BYTES);
  b->catalogue = m2sed_catalogue_new(f->items);
  if (!code && !b->catalogue)
    code = m2se_error_set(b->error, M2SE_ENOMEM, "ingest: no memory for the catalogue");
  if (!code)
    code = m2sed_ring_new(&b->ring, 1 << 12, sizeof(struct m2sed_train_message));
  if (!code && !f->redis)
    code = m2se_redis_child_start(&b->child, b->directory, PATIENCE_MS, b->error);
  if (code)
    return code;
  for (uint32_t i = 0; i < f->items; i++) {
    char item[16];
    uint32_t slot;
    bool added;
    size_t size = (size_t)snprintf(item, sizeof item, "i%06u", i);
    code = code ? code : m2sed_catalogue_add(b->catalogue, item, size, &slot, &added);
  }
  if (code)
    return m2se_error_set(b->error, code, "ingest: the catalogue takes no more");
  const struct m2se_redis_settings redis = {.uri = b->child ? m2se_redis_child_uri(b->child) : f->redis};
  code = m2se_redis_new(&b->redis, &b->loop, &redis, b->error);
  if (!code)
    code = m2se_sequencer_new(&b->sequencer, b->redis,
                              &(struct m2se_sequencer_settings){"m2se:", KEEP, TTL_SECONDS}, b->error);
  if (!code)
    code = m2se_publisher_new(
        &b->publisher, b->redis,
        &(struct m2se_publish_settings){"m2se:", TTL_SECONDS, (enum m2se_vector_type)f->float16}, b->error);
  return code;
}

static int remove_path(const char *path, const struct stat *status, int flag, struct FTW *where) {
  (void)status;
  (void)flag;
  (void)where;
  return remove(path);
}

static void on_closed(void *context) {
  (void)context;
}

static void end(struct bench *b) {
  if (b->redis)
    m2se_redis_close(b->redis, on_closed, b);
  while (uv_run(&b->loop, UV_RUN_DEFAULT)) /* what is answered with an error stops it */
    continue;
  m2se_publisher_free(b->publisher);
  m2se_sequencer_free(b->sequencer);
  m2se_redis_free(b->redis);
  uv_loop_close(&b->loop);
  m2se_redis_child_stop(b->child, PATIENCE_MS, NULL);
  nftw(b->directory, remove_path, 8, FTW_DEPTH | FTW_PHYS);
  m2sed_ring_free(b->ring);
  m2sed_catalogue_free(b->catalogue);
  m2se_arena_free(&b->arena);
  free(b->records);
  free(b->sizes);
  free(b->lengths);
}

static void measure(struct bench *b) {
  const struct m2se_bench_ingest_flags *f = b->flags;
  double plain = 0;
  if (!f->redis) {
    plain = run(b, send_plain, f->events);
    run(b, send_flush, 1);
  }
  double empty = memory_bytes(b), seconds = run(b, send_event, f->events),
         sequences = memory_bytes(b) - empty;
  /* Users whom no event chose have nothing: they are no part of the mean. */
  uint32_t users = 0;
  uint64_t entries = 0;
  for (uint32_t u = 0; u < f->users; u++) {
    users += b->lengths[u] > 0;
    entries += b->lengths[u];
  }
  double writing = run(b, send_vector, f->users), vectors = memory_bytes(b) - empty - sequences;
  if (!f->redis) {
    double plain_again = run(b, send_plain, f->events);
    plain = plain_again < plain ? plain_again : plain;
  }
  if (b->code)
    return;
  printf("{\"bench\": \"ingest\", \"events\": %u, \"users\": %u, \"mean_length\": %.2f, \"event_ids\": %s, "
         "\"events_per_second\": %.0f, \"plain_sets_per_second\": %.0f, \"peak_share\": %.4f, "
         "\"vectors_per_second\": %.0f, \"vector_dim\": %u, \"vector_type\": \"%s\", "
         "\"sequence_bytes_per_user\": %.1f, "
         "\"vector_bytes_per_user\": %.1f, \"gib_per_million_users\": %.3f, \"context_items\": %" PRIu64
         "}\n",
         f->events, users, (double)entries / users, f->event_ids ? "true" : "false", f->events / seconds,
         plain > 0 ? f->events / plain : 0, plain / seconds, f->users / writing, f->vector_dim,
         m2se_vector_type_name((enum m2se_vector_type)f->float16), sequences / users, vectors / f->users,
         1e6 * (sequences / users + vectors / f->users) / 0x1p30, b->context_items);
}

int m2se_bench_ingest(const struct m2se_bench_ingest_flags *flags, struct m2se_error *error) {
  struct bench b = {.flags = flags, .error = error};
  pthread_t thread;
  if (uv_loop_init(&b.loop))
    return m2se_error_set(error, M2SE_ENOMEM, "ingest: no event loop");
  b.code = start(&b);
  if (!b.code) {
    m2sed_ring_on_message(b.ring, m2sed_waker_notify(&b.consumer));
    m2sed_ring_on_room(b.ring, m2sed_waker_notify(&b.producer));
    if (pthread_create(&thread, NULL, consume, &b)) {
      b.code = m2se_error_set(error, M2SE_ENOMEM, "ingest: no thread");
    } else {
      measure(&b);
      struct m2sed_train_message *stop = m2sed_ring_claim_wait(b.ring, &b.producer);
      stop->kind = M2SED_TRAIN_STOP;
      m2sed_ring_publish(b.ring);
      pthread_join(thread, NULL);
    }
  }
  end(&b);
  return b.code;
}
