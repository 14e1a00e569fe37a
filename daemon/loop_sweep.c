/* Vectors of users without new events. Item vectors are kept for two epochs, so a user whose vector is older
 * can no longer be read: the sweep walks over all sequences in Redis (SCAN), again and again while epochs
 * pass, and has the server encode each as it stands. It is gentle (serve.refresh_per_second), and an event's
 * own vector never loses to an older one of the sweep: sequence, request, answer and write of both go through
 * the same queues in order. The sweep's vector ends when the sequence does: nothing renews it but events. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/loop_state.h"

enum {
  KEYS_A_TIME_MAX = 500,
  GONE = -2 /* PEXPIRETIME's answer for a key that is not there */
};

struct m2sed_sweep {
  char cursor[32];  /* of SCAN; "0": at the beginning */
  bool under_way;   /* a walk is going on */
  bool scanning;    /* the reply of a SCAN is awaited */
  bool everybody;   /* as fast as it goes, once */
  uint32_t reading; /* sequences asked for */
  uint64_t epoch;   /* that readers saw when the walk began */
};

struct reading {
  struct m2sed_loop *loop;
  int64_t ends_ms; /* of the sequence: its vector ends with it */
  bool alone;      /* only the first of the two questions could be sent */
  uint32_t user_size;
  char user[M2SE_ID_BYTES_MAX + 1];
};

int m2sed_sweep_new(struct m2sed_loop *loop) {
  loop->sweep = calloc(1, sizeof *loop->sweep);
  return loop->sweep ? 0 : M2SE_ENOMEM;
}

void m2sed_sweep_free(struct m2sed_loop *loop) {
  free(loop->sweep);
}

static void go_on(struct m2sed_loop *loop);

static void on_ends(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct reading *reading = context;
  struct m2sed_loop *loop = reading->loop;
  (void)error;
  reading->ends_ms = status ? GONE : m2se_redis_reply_integer(reply);
  if (!reading->alone)
    return;
  loop->sweep->reading--;
  free(reading);
}

static void on_sequence(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct reading *reading = context;
  struct m2sed_loop *loop = reading->loop;
  (void)error;
  loop->sweep->reading--;
  bool wanted = status == 0 && reading->ends_ms != GONE && m2se_redis_reply_type(reply) == M2SE_REDIS_BYTES &&
                loop->phase <= M2SED_PHASE_SWEEPING && !m2sed_marker_busy(loop) && /* about to be removed */
                loop->requests_end - loop->requests_first < M2SED_REQUESTS;
  size_t size;
  const char *blob = wanted ? m2se_redis_reply_bytes(reply, &size) : NULL;
  /* A damaged sequence is reported when its user's next event comes. */
  if (blob && m2se_sequence_parse(loop->sequence, blob, size, NULL) == 0) {
    struct m2sed_serve_message request = {0};
    m2sed_loop_request_user(loop, &request, reading->user, reading->user_size, loop->sequence, -1,
                            reading->ends_ms);
  }
  free(reading);
  go_on(loop);
}

static void read_user(struct m2sed_loop *loop, const char *bytes, size_t size) {
  struct reading *reading = malloc(sizeof *reading);
  if (!reading || !m2se_key_parse(loop->config->redis_prefix, M2SE_KEY_SEQUENCE, bytes, size, reading->user,
                                  &reading->user_size)) {
    free(reading);
    return;
  }
  reading->loop = loop;
  /* In this order: what an event renews in between ends too early, until the event's own vector comes. */
  const struct m2se_redis_argument ends[] = {{"PEXPIRETIME", 11}, {bytes, size}};
  const struct m2se_redis_argument get[] = {{"GET", 3}, {bytes, size}};
  if (m2se_redis_send(loop->redis, ends, 2, on_ends, reading)) {
    free(reading);
    return;
  }
  loop->sweep->reading++;
  reading->alone = m2se_redis_send(loop->redis, get, 2, on_sequence, reading) != 0;
}

static void on_scan(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  struct m2sed_sweep *sweep = loop->sweep;
  sweep->scanning = false;
  if (status == M2SE_EIO)
    return;
  size_t size = 0;
  const struct m2se_redis_reply *keys = status ? NULL : m2se_redis_reply_element(reply, 1);
  const char *cursor = status ? "" : m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 0), &size);
  if (status || !size || size >= sizeof sweep->cursor) {
    M2SED_LOG(loop->log, WARN, "cannot walk over the users in Redis",
              M2SED_S("why", status ? error : "no cursor"));
    sweep->under_way = sweep->everybody = false;
    return;
  }
  memcpy(sweep->cursor, cursor, size + 1);
  sweep->under_way = strcmp(sweep->cursor, "0") != 0;
  for (size_t i = 0; i < m2se_redis_reply_count(keys); i++) {
    const char *key = m2se_redis_reply_bytes(m2se_redis_reply_element(keys, i), &size);
    read_user(loop, key, size);
  }
  go_on(loop);
}

static void scan(struct m2sed_loop *loop, uint32_t keys) {
  struct m2sed_sweep *sweep = loop->sweep;
  struct m2se_key pattern;
  m2se_key_pattern(&pattern, loop->config->redis_prefix, M2SE_KEY_SEQUENCE);
  char count[16];
  int count_size = snprintf(count, sizeof count, "%u", keys);
  const struct m2se_redis_argument arguments[] = {{"SCAN", 4},  {sweep->cursor, strlen(sweep->cursor)},
                                                  {"MATCH", 5}, {pattern.bytes, pattern.size},
                                                  {"COUNT", 5}, {count, (size_t)count_size}};
  sweep->scanning = m2se_redis_send(loop->redis, arguments, 6, on_scan, loop) == 0;
}

bool m2sed_sweep_reads(const struct m2sed_loop *loop) {
  return loop->sweep->reading > 0;
}

static bool is_idle(const struct m2sed_loop *loop) {
  const struct m2sed_sweep *sweep = loop->sweep;
  return !sweep->scanning && !sweep->reading && !m2se_redis_is_full(loop->redis) &&
         loop->requests_end - loop->requests_first < M2SED_REQUESTS_FOR_EVENTS;
}

static void begin(struct m2sed_loop *loop) {
  memcpy(loop->sweep->cursor, "0", 2);
  loop->sweep->under_way = true;
  loop->sweep->epoch = loop->epoch;
}

/* The next keys of the walk over everybody; the gentle one waits for its tick. */
static void go_on(struct m2sed_loop *loop) {
  if (loop->sweep->everybody && loop->sweep->under_way && is_idle(loop))
    scan(loop, KEYS_A_TIME_MAX);
}

void m2sed_sweep_tick(struct m2sed_loop *loop) {
  struct m2sed_sweep *sweep = loop->sweep;
  if (sweep->everybody) { /* if a full Redis made it stop, nothing else makes it go on */
    go_on(loop);
    return;
  }
  uint64_t keys = (loop->config->serve_refresh_per_second + 9) / 10;
  if (!keys || loop->phase != M2SED_PHASE_RUNNING || m2sed_erasure_blocks(loop) || !is_idle(loop))
    return;
  if (!sweep->under_way && sweep->epoch != loop->epoch)
    begin(loop);
  if (sweep->under_way)
    scan(loop, keys < KEYS_A_TIME_MAX ? (uint32_t)keys : KEYS_A_TIME_MAX);
}

void m2sed_sweep_everybody(struct m2sed_loop *loop) {
  loop->sweep->everybody = true;
  begin(loop);
  go_on(loop);
}

bool m2sed_sweep_is_done(const struct m2sed_loop *loop) {
  return !loop->sweep->under_way && !loop->sweep->scanning && !loop->sweep->reading;
}
