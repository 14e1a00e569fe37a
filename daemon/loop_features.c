/* Items' texts and pictures on their way to the side thread, and their rows on the way back. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <utlist.h>

#include "daemon/features/encoder.h"
#include "daemon/item_record.h"
#include "daemon/loop_state.h"

enum { RESULTS_A_TURN = 256, RECORDS_MAX = 256, RECORDS_BYTES_MAX = 64 << 20, RETRY_MS = 1000 };

/* A record for which there was no room: at most those of one turn. */
struct held {
  struct m2sed_side_record *record;
  struct held *next;
};

struct m2sed_features {
  struct m2sed_encoder *encoder;
  struct m2sed_side *side;
  struct held *held;
  uint64_t *versions; /* [model.items_max]: of the newest record that was offered; 0: its rows come ready */
  uint64_t offered;
  bool settled;
  char problem[256];
};

static void wake(void *arg) {
  m2sed_loop_wake(arg);
}

static int start_side(struct m2sed_loop *loop, struct m2sed_features *features, struct m2se_error *error) {
  const struct m2sed_config *c = loop->config;
  if (mkdir(c->features_store, 0700) != 0 && errno != EEXIST)
    return m2se_error_set(error, M2SE_EIO, "features.store %s: %s", c->features_store, strerror(errno));
  struct m2sed_side_settings settings = {
      .store = {.folder = c->features_store, .bytes_max = (uint64_t)c->features_store_bytes},
      .image_root = c->features_image_root,
      .nice = (int)c->features_nice,
      .records_max = RECORDS_MAX,
      .bytes_max = RECORDS_BYTES_MAX,
      .retry_ms = RETRY_MS};
  m2sed_encoder_models(features->encoder, settings.store.models);
  const struct m2sed_embedder embedder = m2sed_encoder_embedder(features->encoder);
  int code = m2sed_side_new(&features->side, &settings, &embedder, error);
  if (code)
    return code;
  const struct m2sed_notify notify = {wake, loop};
  m2sed_side_notify(features->side, notify, notify);
  return m2sed_side_start(features->side, error);
}

int m2sed_features_new(struct m2sed_loop *loop, struct m2se_error *error) {
  const struct m2sed_config *c = loop->config;
  if (!c->features_text_model[0])
    return 0;
  struct m2sed_features *features = calloc(1, sizeof *features);
  loop->features = features;
  if (features)
    features->versions = calloc((size_t)c->model_items_max, sizeof *features->versions);
  if (!features || !features->versions)
    return m2se_error_set(error, M2SE_ENOMEM, "features: out of memory");
  const struct m2sed_encoder_settings models = {.text_model = c->features_text_model,
                                                .image_model = c->features_image_model,
                                                .words = c->features_words,
                                                .templates = c->features_templates,
                                                .words_per_image = (uint32_t)c->features_words_per_image};
  int code = m2sed_encoder_new(&features->encoder, &models, error);
  if (code)
    return m2se_error_prefix(error, code, "features");
  uint32_t dim = m2sed_encoder_embedder(features->encoder).dim;
  if (loop->feature_dim && loop->feature_dim != dim)
    return m2se_error_set(error, M2SE_EINVAL,
                          "features.text_model makes rows of %u numbers; checkpoint or model.feature_dim: %u",
                          dim, loop->feature_dim);
  loop->feature_dim = dim;
  code = start_side(loop, features, error);
  if (!code)
    M2SED_LOG(loop->log, INFO, "features of texts and pictures are computed", M2SED_U("feature_dim", dim),
              M2SED_S("text_model", c->features_text_model), M2SED_S("image_model", c->features_image_model));
  return code;
}

void m2sed_features_stop(struct m2sed_loop *loop) {
  if (loop->features && loop->features->side)
    m2sed_side_stop(loop->features->side);
}

void m2sed_features_free(struct m2sed_loop *loop) {
  struct m2sed_features *features = loop->features;
  if (!features)
    return;
  m2sed_features_stop(loop);
  struct held *held, *next;
  LL_FOREACH_SAFE(features->held, held, next) {
    m2sed_side_record_free(held->record);
    free(held);
  }
  m2sed_side_free(features->side);
  m2sed_encoder_free(features->encoder);
  free(features->versions);
  free(features);
  loop->features = NULL;
}

static void offer(struct m2sed_loop *loop, struct m2sed_side_record *record) {
  struct m2sed_features *features = loop->features;
  struct held *held = NULL;
  features->offered++;
  features->settled = false;
  if (record && !features->held && m2sed_side_offer(features->side, record))
    return;
  if (record)
    held = malloc(sizeof *held);
  if (!held) {
    m2sed_side_record_free(record);
    m2sed_loop_fail(loop, M2SE_ENOMEM, "an item's texts and pictures: out of memory");
    return;
  }
  held->record = record;
  LL_APPEND(features->held, held);
}

bool m2sed_features_take_item(struct m2sed_loop *loop, const struct m2se_item *item, uint32_t slot,
                              uint64_t version) {
  struct m2sed_features *features = loop->features;
  bool ready = item->text_rows.count || item->image_rows.count || !(item->text_count || item->image_count);
  if (!features)
    return false;
  if (!ready) {
    features->versions[slot] = version;
    offer(loop, m2sed_side_record_new(item, version));
    return true;
  }
  if (features->versions[slot]) { /* what was computed for it is not wanted any more */
    features->versions[slot] = 0;
    uint32_t size;
    offer(loop, m2sed_side_record_deletion(m2sed_catalogue_id(loop->catalogue, slot, &size), version));
  }
  return false;
}

void m2sed_features_delete_item(struct m2sed_loop *loop, const char *id, uint32_t slot) {
  if (!loop->features)
    return;
  if (slot != M2SED_SLOT_NONE)
    loop->features->versions[slot] = 0;
  offer(loop, m2sed_side_record_deletion(id, 0));
}

bool m2sed_features_full(const struct m2sed_loop *loop) {
  return loop->features && loop->features->held;
}

bool m2sed_features_settled(const struct m2sed_loop *loop) {
  return !loop->features || loop->features->settled;
}

const char *m2sed_features_reason(const struct m2sed_loop *loop) {
  return loop->features && loop->features->problem[0] ? loop->features->problem : NULL;
}

void m2sed_features_status(struct m2sed_loop *loop, struct m2se_status_features *status) {
  *status = (struct m2se_status_features){0};
  if (!loop->features || !loop->features->side)
    return;
  const struct m2sed_side_counters counters = m2sed_side_count(loop->features->side);
  const uint64_t *refused = counters.decoded.by_reason;
  *status = (struct m2se_status_features){
      .items = counters.store.items,
      .pending = counters.store.pending,
      .contents = counters.store.contents,
      .waiting = counters.store.waiting,
      .refused = counters.store.refused,
      .bytes = counters.store.bytes,
      .texts = counters.texts,
      .pictures = counters.pictures,
      .results = counters.results,
      .retries = counters.retries,
      .helpers_started = counters.decoded.helpers_started,
      .helper_errors = counters.helper_errors,
      .store_errors = counters.store_errors,
      .picture_too_large = refused[M2SED_PICTURE_TOO_LARGE],
      .picture_too_many_pixels = refused[M2SED_PICTURE_TOO_MANY_PIXELS],
      .picture_too_complex = refused[M2SED_PICTURE_TOO_COMPLEX],
      .picture_not_a_picture = refused[M2SED_PICTURE_NOT_A_PICTURE],
      .picture_unsupported = refused[M2SED_PICTURE_UNSUPPORTED],
      .picture_damaged = refused[M2SED_PICTURE_DAMAGED],
      .picture_too_much_memory = refused[M2SED_PICTURE_TOO_MUCH_MEMORY],
      .picture_timeout = refused[M2SED_PICTURE_TIMEOUT],
      .picture_crashed = refused[M2SED_PICTURE_CRASHED],
      .picture_not_found = refused[M2SED_PICTURE_NOT_FOUND],
      .picture_outside = refused[M2SED_PICTURE_OUTSIDE],
      .picture_not_a_file = refused[M2SED_PICTURE_NOT_A_FILE],
      .picture_unreadable = refused[M2SED_PICTURE_UNREADABLE],
      .picture_no_root = refused[M2SED_PICTURE_NO_ROOT],
  };
}

/* Rows of an item, unless its record has been replaced meanwhile. */
static void take_result(struct m2sed_loop *loop, const struct m2sed_side_result *result) {
  uint32_t slot = m2sed_catalogue_find(loop->catalogue, result->id, strlen(result->id));
  if (slot == M2SED_SLOT_NONE || loop->features->versions[slot] != result->version)
    return;
  uint32_t rows_max = (uint32_t)loop->config->model_rows_max;
  uint32_t texts = result->text_count < rows_max ? result->text_count : rows_max;
  uint32_t images = result->image_count < rows_max ? result->image_count : rows_max;
  const float *image_rows = result->rows + (size_t)result->text_count * result->dim;
  assert(result->dim == loop->feature_dim);
  m2sed_loop_item_rows(loop, slot, result->rows, texts, image_rows, images);
}

void m2sed_features_advance(struct m2sed_loop *loop) {
  struct m2sed_features *features = loop->features;
  if (!features || !loop->trainer)
    return;
  while (features->held && m2sed_side_offer(features->side, features->held->record)) {
    struct held *held = features->held;
    LL_DELETE(features->held, held);
    free(held);
  }
  /* Asked before the results are taken: what it counts has been given by then. */
  struct m2sed_side_counters counters = m2sed_side_count(features->side);
  bool drained = false;
  for (int i = 0; i < RESULTS_A_TURN && loop->to_trainer.count == 0 && loop->to_server.count == 0; i++) {
    struct m2sed_side_result *result = m2sed_side_take(features->side);
    drained = !result;
    if (drained)
      break;
    take_result(loop, result);
    free(result);
  }
  memcpy(features->problem, counters.problem, sizeof features->problem);
  bool known = drained && !features->held && counters.records == features->offered;
  bool done = !loop->options.until_end || counters.store.pending == 0 || counters.problem[0];
  features->settled = known && done;
}
