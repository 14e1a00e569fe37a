/* /recommend/USER: the user's sequence is read from Redis, the server ranks all items for it, the answer is
 * JSON. Whoever asks while Redis or the server is slow is told so in time; what was asked comes to its end
 * without them. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http.h"
#include "daemon/loop_state.h"
#include "model/files/json.h"

enum { WAIT_MS_MAX = 5000 };

struct m2sed_recommendation {
  struct m2sed_loop *loop;
  bool used;                            /* Redis or the server has it */
  struct m2sed_http_exchange *exchange; /* NULL: has its answer */
  int64_t asked_ms;
  uint32_t user_size;
  char user[M2SE_ID_BYTES_MAX + 1];
  struct m2sed_ranking ranking;
};

static void end(struct m2sed_recommendation *one) {
  one->used = false;
  one->exchange = NULL;
}

static void refuse(struct m2sed_recommendation *one, unsigned status, const char *why) {
  if (one->exchange)
    m2sed_http_answer_text(one->exchange, status, why);
  one->exchange = NULL;
}

/* ---- the answer ---- */

static char *show(const struct m2sed_recommendation *one, size_t *size) {
  const struct m2sed_ranking *ranking = &one->ranking;
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_string(writer, "user", one->user, one->user_size);
  m2se_json_put_decimal(writer, "epoch", ranking->epoch);
  m2se_json_put_decimal(writer, "step", ranking->step);
  m2se_json_put_array(writer, "items");
  for (uint32_t i = 0; i < ranking->count; i++) {
    uint32_t id_size;
    const char *id = m2sed_catalogue_id(one->loop->catalogue, ranking->slots[i], &id_size);
    m2se_json_put_object(writer, NULL);
    m2se_json_put_string(writer, "item_id", id, id_size);
    m2se_json_put_double(writer, "score", ranking->scores[i]);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  return m2se_json_finish(writer, size);
}

void m2sed_loop_recommended(struct m2sed_ranking *ranking) {
  char *bytes = (char *)ranking - offsetof(struct m2sed_recommendation, ranking);
  struct m2sed_recommendation *one = (struct m2sed_recommendation *)(void *)bytes;
  if (one->exchange) {
    size_t size;
    char *text = show(one, &size);
    if (text)
      m2sed_http_answer(one->exchange, &(struct m2sed_http_answer){200, "application/json", text, size});
    else
      refuse(one, 500, "out of memory\n");
    free(text);
  }
  end(one);
}

/* ---- the question ---- */

static uint32_t slots_of(const struct m2sed_loop *loop, struct m2se_sequence_span span, uint32_t *slots) {
  uint32_t count = 0;
  for (uint32_t i = span.first; i < span.first + span.count; i++) {
    const struct m2se_sequence_entry *entry = &loop->sequence->entries[i];
    uint32_t slot = m2sed_catalogue_find(loop->catalogue, entry->item_id, entry->item_id_size);
    if (slot != M2SED_SLOT_NONE)
      slots[count++] = slot;
  }
  return count;
}

static void ask_server(struct m2sed_recommendation *one) {
  struct m2sed_loop *loop = one->loop;
  struct m2sed_ranking *ranking = &one->ranking;
  const struct m2se_sequence *sequence = loop->sequence;
  const struct m2sed_config *config = loop->config;
  ranking->sequence_count =
      slots_of(loop, m2se_sequence_latest(sequence, (uint32_t)config->sequence_length), ranking->sequence);
  ranking->seen_count = 0;
  if (config->serve_exclude_seen)
    ranking->seen_count =
        slots_of(loop, m2se_sequence_latest(sequence, (uint32_t)config->sequence_keep), ranking->seen);
  m2sed_loop_to_server(loop,
                       &(struct m2sed_serve_message){.kind = M2SED_SERVE_RECOMMEND, .ranking = ranking});
}

static void on_sequence(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_recommendation *one = context;
  size_t size;
  (void)error;
  if (status) {
    refuse(one, 503, "Redis did not give the user's sequence\n");
  } else if (m2se_redis_reply_type(reply) != M2SE_REDIS_BYTES) {
    refuse(one, 404, "nothing is known of this user\n");
  } else if (one->exchange) {
    const char *blob = m2se_redis_reply_bytes(reply, &size);
    if (!m2se_sequence_parse(one->loop->sequence, blob, size, NULL)) {
      ask_server(one);
      return;
    }
    refuse(one, 500, "the user's sequence in Redis is damaged\n");
  }
  end(one);
}

static const char *find_obstacle(const struct m2sed_loop *loop) {
  struct m2se_redis_status redis;
  if (loop->phase != M2SED_PHASE_RUNNING || !loop->engine_started || !loop->epoch)
    return "there are no vectors yet, or no longer\n";
  m2se_redis_get_status(loop->redis, &redis);
  if (!redis.connected || redis.refused || m2se_redis_is_full(loop->redis))
    return "Redis is away or slow\n";
  return NULL;
}

void m2sed_loop_recommend(struct m2sed_loop *loop, const struct m2sed_http_request *request,
                          struct m2sed_http_exchange *exchange) {
  struct m2sed_recommendation *one = loop->recommendations,
                              *behind = loop->recommendations + M2SED_RANKINGS_MAX;
  const char *obstacle = find_obstacle(loop);
  while (one < behind && one->used)
    one++;
  if (obstacle || one == behind) {
    m2sed_http_answer_text(exchange, 503, obstacle ? obstacle : "too many at a time\n");
    return;
  }
  *one = (struct m2sed_recommendation){.loop = loop,
                                       .used = true,
                                       .exchange = exchange,
                                       .asked_ms = loop->now_ms,
                                       .user_size = request->user_size,
                                       .ranking = {.wanted = request->best}};
  memcpy(one->user, request->user, request->user_size);
  struct m2se_key key;
  m2se_key_build(&key, loop->config->redis_prefix, M2SE_KEY_SEQUENCE, one->user, one->user_size);
  const struct m2se_redis_argument get[] = {{"GET", 3}, {key.bytes, key.size}};
  if (m2se_redis_send(loop->redis, get, 2, on_sequence, one)) {
    refuse(one, 503, "Redis is slow\n");
    end(one);
  }
}

/* ---- time, start, end ---- */

int m2sed_recommendations_new(struct m2sed_loop *loop) {
  loop->recommendations = calloc(M2SED_RANKINGS_MAX, sizeof *loop->recommendations);
  return loop->recommendations ? 0 : M2SE_ENOMEM;
}

void m2sed_recommendations_free(struct m2sed_loop *loop) {
  free(loop->recommendations);
}

void m2sed_recommendations_expire(struct m2sed_loop *loop, bool all) {
  for (int i = 0; i < M2SED_RANKINGS_MAX; i++) {
    struct m2sed_recommendation *one = &loop->recommendations[i];
    if (one->exchange && (all || loop->now_ms - one->asked_ms > WAIT_MS_MAX))
      refuse(one, 503, all ? "stopping\n" : "it took too long\n");
  }
}
