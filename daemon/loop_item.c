/* The items topic: records into the catalogue, and from there to trainer and server. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "daemon/item_record.h"
#include "daemon/loop_state.h"

/* Trainer and server each get a reference. */
static void announce(struct m2sed_loop *loop, struct m2sed_item_record *record, bool to_server) {
  if (to_server)
    m2sed_loop_to_server(loop, &(struct m2sed_serve_message){.kind = M2SED_SERVE_ITEM,
                                                             .record = m2sed_item_record_keep(record)});
  m2sed_loop_to_trainer(loop, &(struct m2sed_train_message){.kind = M2SED_TRAIN_ITEM, .record = record});
}

static struct m2sed_item_record *bare_record(struct m2sed_loop *loop, uint32_t slot) {
  uint32_t size;
  const char *id = m2sed_catalogue_id(loop->catalogue, slot, &size);
  struct m2sed_item_record *record =
      m2sed_item_record_new(slot, id, size, loop->feature_dim, NULL, 0, NULL, 0);
  if (!record)
    m2sed_loop_fail(loop, M2SE_ENOMEM, "announcing an item: out of memory");
  return record;
}

/* The trainer must know the id of every slot, for its checkpoints; the server only what has features. */
static void announce_bare(struct m2sed_loop *loop, uint32_t slot) {
  struct m2sed_item_record *record = loop->trainer ? bare_record(loop, slot) : NULL;
  if (record)
    announce(loop, record, false);
}

uint32_t m2sed_loop_slot(struct m2sed_loop *loop, const char *id, uint32_t size) {
  uint32_t slot;
  bool added;
  int code = m2sed_catalogue_add(loop->catalogue, id, size, &slot, &added);
  if (code == M2SE_ENOMEM)
    m2sed_loop_fail(loop, code, "the catalogue: out of memory");
  if (code)
    return M2SED_SLOT_NONE;
  if (added)
    announce_bare(loop, slot);
  return slot;
}

/* The first item with rows says how wide features are; what was known before is told to the new engine. */
static void learn_dim(struct m2sed_loop *loop, uint32_t dim) {
  loop->feature_dim = dim;
  struct m2se_error error = {0};
  int code = m2sed_loop_make_engine(loop, &error);
  if (code) {
    m2sed_loop_fail(loop, code, "%s", error.text);
    return;
  }
  for (uint32_t slot = 0; slot < m2sed_catalogue_count(loop->catalogue); slot++)
    announce_bare(loop, slot);
}

static void refuse_item(struct m2sed_loop *loop, const struct m2se_kafka_record *record, const char *stage,
                        const char *rule, const char *reason) {
  loop->counts.items_dead_lettered++;
  m2sed_letters_send(loop, record, NULL, stage, rule, reason);
}

static void delete_item(struct m2sed_loop *loop, const struct m2se_kafka_record *record) {
  struct m2se_refusal refusal;
  if (m2se_validate_id(record->key, record->key_size, "key of a deletion", &refusal)) {
    loop->counts.refused[refusal.rule]++;
    refuse_item(loop, record, "decode", m2se_rule_name(refusal.rule), refusal.text);
    return;
  }
  uint32_t slot = m2sed_catalogue_find(loop->catalogue, record->key, record->key_size);
  loop->counts.items_deleted++;
  char id[M2SE_ID_BYTES_MAX + 1] = "";
  memcpy(id, record->key, record->key_size);
  m2sed_features_delete_item(loop, id, slot);
  int code = m2se_publish_item_delete(loop->publisher, record->key, (uint32_t)record->key_size, NULL, NULL);
  if (code)
    m2sed_loop_fail(loop, code, "deleting an item: %s", m2se_error_text(code));
  if (slot == M2SED_SLOT_NONE || m2sed_catalogue_state(loop->catalogue, slot) == M2SED_ITEM_DELETED)
    return;
  m2sed_catalogue_set_state(loop->catalogue, slot, M2SED_ITEM_DELETED);
  struct m2sed_item_record *item = loop->trainer ? bare_record(loop, slot) : NULL;
  if (!item)
    return;
  item->deleted = true;
  announce(loop, item, true);
}

void m2sed_loop_item_rows(struct m2sed_loop *loop, uint32_t slot, const float *text, uint32_t text_count,
                          const float *image, uint32_t image_count) {
  uint32_t size;
  const char *id = m2sed_catalogue_id(loop->catalogue, slot, &size);
  m2sed_catalogue_set_state(loop->catalogue, slot,
                            text_count || image_count ? M2SED_ITEM_FEATURES : M2SED_ITEM_BARE);
  struct m2sed_item_record *record =
      m2sed_item_record_new(slot, id, size, loop->feature_dim, text, text_count, image, image_count);
  if (record)
    announce(loop, record, true);
  else
    m2sed_loop_fail(loop, M2SE_ENOMEM, "an item's features: out of memory");
}

static void take_features(struct m2sed_loop *loop, const struct m2se_item *item, uint32_t slot,
                          uint64_t version) {
  /* Computed rows stay until those of the new record are there. */
  if (m2sed_features_take_item(loop, item, slot, version) &&
      m2sed_catalogue_state(loop->catalogue, slot) == M2SED_ITEM_FEATURES)
    return;
  if (!loop->trainer) {
    m2sed_catalogue_set_state(loop->catalogue, slot, M2SED_ITEM_BARE);
    return; /* without rows, and nobody knows the width yet: the engine will hear of the id */
  }
  m2sed_loop_item_rows(loop, slot, item->text_rows.data, item->text_rows.count, item->image_rows.data,
                       item->image_rows.count);
}

void m2sed_loop_take_item(struct m2sed_loop *loop, const struct m2se_kafka_record *record) {
  loop->counts.items_received++;
  if (!record->value) {
    delete_item(loop, record);
    return;
  }
  struct m2se_item item;
  struct m2se_refusal refusal;
  if (m2se_item_decode(&item, &loop->item_arena, record->value, record->value_size, loop->feature_dim,
                       &refusal)) {
    loop->counts.refused[refusal.rule]++;
    refuse_item(loop, record, "decode", m2se_rule_name(refusal.rule), refusal.text);
    return;
  }
  uint32_t rows_max = (uint32_t)loop->config->model_rows_max;
  if (item.text_rows.count > rows_max || item.image_rows.count > rows_max) {
    char reason[128];
    snprintf(reason, sizeof reason, "%u text rows and %u image rows: more than model.rows_max, %u",
             item.text_rows.count, item.image_rows.count, rows_max);
    refuse_item(loop, record, "catalogue", "rows_max", reason);
    return;
  }
  uint32_t dim = item.text_rows.count ? item.text_rows.dim : item.image_rows.dim;
  if (!loop->feature_dim && dim)
    learn_dim(loop, dim);
  uint32_t slot = m2sed_loop_slot(loop, item.item_id.data, (uint32_t)item.item_id.size);
  if (slot == M2SED_SLOT_NONE)
    refuse_item(loop, record, "catalogue", "items_max", "the catalogue is full (model.items_max)");
  else
    take_features(loop, &item, slot, (uint64_t)record->offset + 1);
}
