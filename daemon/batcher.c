#include "daemon/batcher.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* An example of the mini-batch that is being built, its context without items that have no features. */
struct candidate {
  const struct m2sed_example *example;
  uint64_t age; /* among the examples of one user: larger is newer */
  uint32_t context_count;
  uint32_t *context; /* slots, newest max_len */
  bool covered;      /* a newer sequence of the same user teaches it */
};

struct m2sed_batcher {
  uint32_t batch, fresh, max_len, rows_max;
  double replay_ratio;
  enum m2se_targets targets;
  struct m2sed_item_record *const *records;

  struct m2sed_example *waiting; /* oldest first */
  uint32_t waiting_count, waiting_capacity;

  struct candidate *candidates; /* [batch] */
  struct candidate **by_user;   /* [batch], sorted */
  uint32_t *contexts;           /* [batch, max_len] */
  bool *fresh_left;             /* [fresh] */

  /* Whether a place of the reservoir, or an item, is in this mini-batch: marked with the number of the build,
   * so that nothing need be cleared between two. */
  uint32_t build;
  uint32_t *drawn;      /* [reservoir_capacity] */
  uint32_t *item_build; /* [items_max] */
  uint32_t *item_index; /* [items_max] */
  uint32_t reservoir_capacity, items_max;

  struct m2se_item_input *items;
  uint32_t items_limit;
  uint32_t *seq_ptr, *seq_items, *target;
};

uint32_t m2sed_batcher_fresh(const struct m2sed_train_settings *settings) {
  double fresh = round(settings->batch / (1 + settings->replay_ratio));
  return fresh < 1 ? 1 : (uint32_t)fresh;
}

int m2sed_batcher_limits(const struct m2se_config *config, const struct m2sed_train_settings *settings,
                         struct m2se_limits *limits, struct m2se_error *error) {
  uint64_t positions = (uint64_t)settings->batch * config->max_len;
  uint64_t items = positions + settings->batch;
  items = items < settings->items_max ? items : settings->items_max;
  uint64_t rows = items * settings->rows_max;
  if (positions > INT32_MAX || rows > INT32_MAX) {
    return m2se_error_set(error, M2SE_EINVAL,
                          "a mini-batch of %u sequences of %u items with %u rows each: more than 2^31 rows",
                          settings->batch, config->max_len, settings->rows_max);
  }
  *limits = (struct m2se_limits){
      .sequences = settings->batch,
      .positions = (uint32_t)positions,
      .items = (uint32_t)items,
      .rows = (uint32_t)rows,
      .catalogue = m2sed_table_slots(config, settings->items_max),
      .workers = settings->threads,
  };
  return 0;
}

bool m2sed_item_featurised(const struct m2sed_item_record *record) {
  return record != NULL && !record->deleted && record->text_count + record->image_count > 0;
}

int m2sed_batcher_new(struct m2sed_batcher **batcher, const struct m2se_config *config,
                      const struct m2sed_train_settings *settings, struct m2sed_item_record *const *records,
                      struct m2se_error *error) {
  struct m2se_limits limits;
  *batcher = NULL;
  int code = m2sed_batcher_limits(config, settings, &limits, error);
  if (code < 0) {
    return code;
  }
  struct m2sed_batcher *b = calloc(1, sizeof *b);
  if (b == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "mini-batches");
  }
  b->batch = settings->batch;
  b->fresh = m2sed_batcher_fresh(settings);
  b->replay_ratio = settings->replay_ratio;
  b->max_len = config->max_len;
  b->rows_max = settings->rows_max;
  b->targets = config->targets;
  b->records = records;
  b->reservoir_capacity = settings->reservoir_capacity;
  b->items_max = settings->items_max;
  b->items_limit = limits.items;
  b->waiting_capacity = b->fresh + settings->parking; /* all parked ones may get their features at once */
  b->waiting = calloc(b->waiting_capacity, sizeof *b->waiting);
  b->candidates = calloc(b->batch, sizeof *b->candidates);
  b->by_user = calloc(b->batch, sizeof(struct candidate *));
  b->contexts = calloc(limits.positions, sizeof *b->contexts);
  b->fresh_left = calloc(b->fresh, sizeof *b->fresh_left);
  b->drawn = calloc((size_t)b->reservoir_capacity + 1, sizeof *b->drawn);
  b->item_build = calloc(b->items_max, sizeof *b->item_build);
  b->item_index = calloc(b->items_max, sizeof *b->item_index);
  b->items = calloc(limits.items, sizeof *b->items);
  b->seq_ptr = calloc((size_t)b->batch + 1, sizeof *b->seq_ptr);
  b->seq_items = calloc(limits.positions, sizeof *b->seq_items);
  b->target = calloc(b->batch, sizeof *b->target);
  if (!b->waiting || !b->candidates || !b->by_user || !b->contexts || !b->fresh_left || !b->drawn ||
      !b->item_build || !b->item_index || !b->items || !b->seq_ptr || !b->seq_items || !b->target) {
    m2sed_batcher_free(b);
    return m2se_error_set(error, M2SE_ENOMEM, "mini-batches of %u sequences", settings->batch);
  }
  *batcher = b;
  return 0;
}

void m2sed_batcher_free(struct m2sed_batcher *batcher) {
  if (batcher == NULL) {
    return;
  }
  void *const parts[] = {batcher->waiting,    batcher->candidates, batcher->by_user, batcher->contexts,
                         batcher->fresh_left, batcher->drawn,      batcher->items,   batcher->item_build,
                         batcher->item_index, batcher->seq_ptr,    batcher->target,  batcher->seq_items};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    free(parts[i]);
  }
  free(batcher);
}

/* ---- waiting ---- */

static bool slot_featurised(const struct m2sed_batcher *batcher, uint32_t slot) {
  assert(slot < batcher->items_max);
  return m2sed_item_featurised(batcher->records[slot]);
}

/* Whether the example can be trained now. The one place that decides it, for fresh and replayed ones. */
static bool example_usable(const struct m2sed_batcher *batcher, const struct m2sed_example *example) {
  if (!slot_featurised(batcher, example->item)) {
    return false;
  }
  for (uint32_t i = 0; i < example->context_count; i++) {
    if (slot_featurised(batcher, example->context[i])) {
      return true;
    }
  }
  return false;
}

bool m2sed_batcher_add(struct m2sed_batcher *batcher, const struct m2sed_example *example) {
  assert(batcher->waiting_count < batcher->waiting_capacity);
  assert(example->context_count <= M2SED_CONTEXT_MAX);
  if (!example_usable(batcher, example)) {
    return false;
  }
  batcher->waiting[batcher->waiting_count++] = *example;
  return true;
}

uint32_t m2sed_batcher_capacity(const struct m2sed_batcher *batcher) {
  return batcher->waiting_capacity;
}

uint32_t m2sed_batcher_waiting(const struct m2sed_batcher *batcher) {
  return batcher->waiting_count;
}

const struct m2sed_example *m2sed_batcher_waiting_examples(const struct m2sed_batcher *batcher) {
  return batcher->waiting;
}

bool m2sed_batcher_due(const struct m2sed_batcher *batcher) {
  return batcher->waiting_count >= batcher->fresh;
}

void m2sed_batcher_drop(struct m2sed_batcher *batcher, uint32_t count) {
  assert(count <= batcher->waiting_count);
  batcher->waiting_count -= count;
  memmove(batcher->waiting, batcher->waiting + count, batcher->waiting_count * sizeof *batcher->waiting);
}

uint32_t m2sed_batcher_forget(struct m2sed_batcher *batcher, uint64_t user_hash) {
  uint32_t kept = 0, count = batcher->waiting_count;
  for (uint32_t i = 0; i < count; i++) {
    if (batcher->waiting[i].user_hash != user_hash) {
      batcher->waiting[kept++] = batcher->waiting[i];
    }
  }
  batcher->waiting_count = kept;
  return count - kept;
}

int m2sed_batcher_restore(struct m2sed_batcher *batcher, const struct m2sed_example *waiting, uint32_t count,
                          struct m2se_error *error) {
  assert(batcher->waiting_count == 0);
  if (count >= batcher->fresh) { /* settings have changed; there must be room beside them as before */
    size_t capacity = (size_t)count + batcher->waiting_capacity;
    struct m2sed_example *larger = realloc(batcher->waiting, capacity * sizeof *larger);
    if (larger == NULL) {
      return m2se_error_set(error, M2SE_ENOMEM, "%u waiting examples", count);
    }
    batcher->waiting = larger;
    batcher->waiting_capacity = (uint32_t)capacity;
  }
  if (count > 0) {
    memcpy(batcher->waiting, waiting, count * sizeof *waiting);
  }
  batcher->waiting_count = count;
  return 0;
}

/* ---- building ---- */

static bool candidate_fill(struct m2sed_batcher *batcher, uint32_t number,
                           const struct m2sed_example *example, uint64_t age) {
  if (!example_usable(batcher, example)) {
    return false;
  }
  struct candidate *c = &batcher->candidates[number];
  *c = (struct candidate){.example = example, .age = age};
  c->context = batcher->contexts + (size_t)number * batcher->max_len;
  uint32_t usable = 0;
  for (uint32_t i = 0; i < example->context_count; i++) {
    usable += slot_featurised(batcher, example->context[i]);
  }
  uint32_t skip = usable > batcher->max_len ? usable - batcher->max_len : 0;
  for (uint32_t i = 0; i < example->context_count; i++) {
    if (!slot_featurised(batcher, example->context[i])) {
      continue;
    }
    if (skip > 0) {
      skip--;
      continue;
    }
    c->context[c->context_count++] = example->context[i];
  }
  return true;
}

/* Groups the examples of a user, newest first. */
static int compare_by_user(const void *left, const void *right) {
  const struct candidate *a = *(struct candidate *const *)left, *b = *(struct candidate *const *)right;
  if (a->example->user_hash != b->example->user_hash) {
    return a->example->user_hash < b->example->user_hash ? -1 : 1;
  }
  if (a->age != b->age) {
    return a->age > b->age ? -1 : 1;
  }
  return (a > b) - (a < b); /* two partitions may use one position: any order, if it is always the same */
}

/* Is the step that `older` teaches (its last item, then its target) inside the context of `newer`? */
static bool candidate_covers(const struct candidate *newer, const struct candidate *older) {
  uint32_t before = older->context[older->context_count - 1];
  for (uint32_t p = 1; p < newer->context_count; p++) {
    if (newer->context[p] == older->example->item && newer->context[p - 1] == before) {
      return true;
    }
  }
  return false;
}

static void mark_covered(struct m2sed_batcher *batcher, uint32_t count) {
  struct candidate **sorted = batcher->by_user;
  for (uint32_t i = 0; i < count; i++) {
    sorted[i] = &batcher->candidates[i];
  }
  qsort(sorted, count, sizeof(struct candidate *), compare_by_user);
  uint32_t first = 0; /* of this user */
  for (uint32_t i = 1; i < count; i++) {
    if (sorted[i]->example->user_hash != sorted[first]->example->user_hash) {
      first = i;
    }
    for (uint32_t k = first; k < i && !sorted[i]->covered; k++) {
      sorted[i]->covered = !sorted[k]->covered && candidate_covers(sorted[k], sorted[i]);
    }
  }
}

static uint32_t number_item(struct m2sed_batcher *batcher, struct m2se_batch *network, uint32_t slot) {
  if (batcher->item_build[slot] == batcher->build) {
    return batcher->item_index[slot];
  }
  assert(network->n_items < batcher->items_limit);
  const struct m2sed_item_record *record = batcher->records[slot];
  uint32_t text_count = record->text_count < batcher->rows_max ? record->text_count : batcher->rows_max;
  uint32_t image_count = record->image_count < batcher->rows_max ? record->image_count : batcher->rows_max;
  batcher->item_build[slot] = batcher->build;
  batcher->item_index[slot] = network->n_items;
  batcher->items[network->n_items] = (struct m2se_item_input){
      .text = {record->text, text_count}, .image = {record->image, image_count}, .slot = slot};
  return network->n_items++;
}

static void pack_sequences(struct m2sed_batcher *batcher, uint32_t count, struct m2se_batch *network) {
  uint32_t position = 0;
  *network = (struct m2se_batch){.items = batcher->items,
                                 .seq_ptr = batcher->seq_ptr,
                                 .seq_items = batcher->seq_items,
                                 .target = batcher->target};
  batcher->seq_ptr[0] = 0;
  for (uint32_t i = 0; i < count; i++) {
    const struct candidate *c = &batcher->candidates[i];
    if (c->covered) {
      continue;
    }
    for (uint32_t p = 0; p < c->context_count; p++) {
      batcher->seq_items[position++] = number_item(batcher, network, c->context[p]);
    }
    batcher->target[network->n_sequences] = number_item(batcher, network, c->example->item);
    batcher->seq_ptr[++network->n_sequences] = position;
  }
}

static void next_build(struct m2sed_batcher *batcher) {
  if (++batcher->build == 0) { /* 2^32 mini-batches: marks of old builds would be taken for new ones */
    memset(batcher->drawn, 0, batcher->reservoir_capacity * sizeof *batcher->drawn);
    memset(batcher->item_build, 0, batcher->items_max * sizeof *batcher->item_build);
    batcher->build = 1;
  }
}

void m2sed_batcher_build(struct m2sed_batcher *batcher, const struct m2sed_reservoir *reservoir,
                         uint64_t step, struct m2sed_batch *batch) {
  assert(batcher->waiting_count >= 1 && reservoir->capacity <= batcher->reservoir_capacity);
  next_build(batcher);
  uint32_t count = 0;
  uint32_t fresh = batcher->waiting_count < batcher->fresh ? batcher->waiting_count : batcher->fresh;
  *batch = (struct m2sed_batch){.fresh = fresh, .fresh_left = batcher->fresh_left};
  for (uint32_t i = 0; i < fresh; i++) {
    /* Fresh ones are newer than any replayed one, whose age is a position. */
    uint64_t age = (UINT64_C(1) << 63) + i;
    batcher->fresh_left[i] = candidate_fill(batcher, count, &batcher->waiting[i], age);
    count += batcher->fresh_left[i];
  }
  uint32_t draws = batcher->batch - batcher->fresh;
  if (fresh < batcher->fresh) { /* a last, small mini-batch keeps the ratio */
    double ratio_draws = round(fresh * batcher->replay_ratio);
    draws = ratio_draws < draws ? (uint32_t)ratio_draws : draws;
  }
  for (uint32_t i = 0; i < draws && reservoir->count > 0; i++) {
    uint32_t place = m2sed_reservoir_draw(reservoir, step, i);
    const struct m2sed_example *example = &reservoir->examples[place];
    if (batcher->drawn[place] != batcher->build) {
      batcher->drawn[place] = batcher->build;
      uint64_t age = example->at.position & ~(UINT64_C(1) << 63);
      if (candidate_fill(batcher, count, example, age)) {
        count++;
        batch->replayed++;
      }
    }
  }
  if (batcher->targets == M2SE_TARGETS_ALL) {
    mark_covered(batcher, count);
  }
  pack_sequences(batcher, count, &batch->network);
}
