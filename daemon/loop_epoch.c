/* Item vectors of a new epoch: beside those of the epoch before, then the model's epoch, then users follow.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/loop_state.h"

/* ---- which epoch was the last ---- */

static void on_epoch(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  if (status == M2SE_EIO)
    return; /* closing */
  loop->epoch_known = true;
  if (status) {
    m2sed_loop_fail(loop, status, "reading the last epoch from Redis: %s", error);
    return;
  }
  if (m2se_redis_reply_type(reply) != M2SE_REDIS_NIL) {
    size_t size;
    const char *text = m2se_redis_reply_bytes(reply, &size);
    char *end;
    errno = 0;
    unsigned long long epoch = strtoull(text, &end, 10);
    if (errno || !size || *end || epoch > INT64_MAX)
      m2sed_loop_fail(loop, M2SE_EFORMAT, "%smodel: the field 'epoch' in Redis is no number",
                      loop->config->redis_prefix);
    else
      loop->redis_epoch = epoch;
  }
  m2sed_loop_start_engine(loop);
  m2sed_loop_wake(loop);
}

void m2sed_loop_ask_epoch(struct m2sed_loop *loop) {
  struct m2se_key key;
  m2se_key_build(&key, loop->config->redis_prefix, M2SE_KEY_MODEL, NULL, 0);
  const struct m2se_redis_argument arguments[] = {{"HGET", 4}, {key.bytes, key.size}, {"epoch", 5}};
  int code = m2se_redis_send(loop->redis, arguments, 3, on_epoch, loop);
  if (code)
    m2sed_loop_fail(loop, code, "asking Redis for the last epoch: %s", m2se_error_text(code));
}

/* ---- the way of an epoch ---- */

static void on_model(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  (void)reply;
  loop->model_write = false;
  if (status == M2SE_EIO)
    return;
  if (status) {
    m2sed_loop_fail(loop, status, "publishing epoch %llu: %s", (unsigned long long)loop->next_epoch, error);
    return;
  }
  m2sed_loop_to_server(
      loop, &(struct m2sed_serve_message){.kind = M2SED_SERVE_EPOCH_DONE, .epoch = loop->next_epoch});
  loop->epoch = loop->next_epoch;
  loop->epoch_step = loop->next_epoch_step;
  loop->epoch_since_ms = loop->now_ms;
  loop->epoch_publish_ms = (double)(loop->now_ms - loop->epoch_begun_ms);
  loop->epoch_begun_ms = 0;
  loop->next_epoch = 0;
  M2SED_LOG(loop->log, DEBUG, "epoch published", M2SED_U("epoch", loop->epoch),
            M2SED_U("step", loop->epoch_step), M2SED_R("ms", loop->epoch_publish_ms));
}

/* All vectors are there: now readers may turn to the new epoch. */
static void publish_model(struct m2sed_loop *loop) {
  if (!loop->next_epoch || loop->item_writes || loop->model_write)
    return;
  struct m2se_published_model model = {
      .epoch = loop->next_epoch, .step = loop->next_epoch_step, .dim = m2sed_server_dim(loop->server)};
  memcpy(model.lineage, loop->lineage, sizeof loop->lineage);
  int code = m2se_publish_model(loop->publisher, &model, on_model, loop);
  loop->model_write = code == 0;
  if (code)
    m2sed_loop_fail(loop, code, "publishing an epoch: %s", m2se_error_text(code));
}

static void on_item(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  (void)reply;
  loop->item_writes--;
  if (status == M2SE_EIO)
    return;
  if (status)
    m2sed_loop_fail(loop, status, "publishing an item vector: %s", error);
  loop->counts.items_published += status == 0;
  publish_model(loop);
}

void m2sed_loop_items_served(struct m2sed_loop *loop, const struct m2sed_served_message *message) {
  if (!loop->epoch_begun_ms && message->epoch != loop->epoch)
    loop->epoch_begun_ms = loop->now_ms;
  for (uint32_t i = 0; i < message->count; i++) {
    uint32_t slot = message->slots[i], size;
    const char *id = m2sed_catalogue_id(loop->catalogue, slot, &size);
    if (m2sed_catalogue_state(loop->catalogue, slot) == M2SED_ITEM_DELETED)
      continue; /* encoded before the server heard of it */
    int code = m2se_publish_item(loop->publisher, id, size, message->vectors + (size_t)i * message->dim,
                                 message->dim, message->epoch, on_item, loop);
    if (code == M2SE_ERANGE) {
      M2SED_LOG(loop->log, WARN, "item vector out of the range of its type: it is left out of this epoch",
                M2SED_B("item", id, size), M2SED_U("epoch", message->epoch));
      continue;
    }
    if (code) {
      m2sed_loop_fail(loop, code, "publishing an item vector: %s", m2se_error_text(code));
      return;
    }
    loop->item_writes++;
  }
}

void m2sed_loop_epoch_served(struct m2sed_loop *loop, const struct m2sed_served_message *message) {
  assert(!loop->next_epoch);
  loop->next_epoch = message->epoch;
  loop->next_epoch_step = message->step;
  if (!loop->epoch_begun_ms)
    loop->epoch_begun_ms = loop->now_ms;
  publish_model(loop);
}
