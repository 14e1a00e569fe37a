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

  /* The oldest one is waiting[waiting_first]. There is more memory than may wait, so that they need not be
   * moved with every mini-batch that leaves. */
  struct m2sed_example *waiting; /* [waiting_allocated] */
  uint32_t waiting_first, waiting_count, waiting_capacity, waiting_allocated;
  uint32_t open; /* the newest of them: their mini-batch is not closed */
  uint32_t backlog;
  int64_t batch_ms;
  bool shrink;

  struct candidate *candidates; /* [batch] */
  struct candidate **by_user;   /* [batch], sorted */
  uint32_t *contexts;           /* [batch, max_len] */
  bool *fresh_left;             /* [batch] */

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

static int allocate_waiting(struct m2sed_batcher *batcher, uint64_t capacity) {
  uint64_t allocated = capacity + capacity / 4 + 1;
  free(batcher->waiting);
  batcher->waiting = allocated <= UINT32_MAX ? calloc(allocated, sizeof *batcher->waiting) : NULL;
  if (batcher->waiting == NULL) {
    return M2SE_ENOMEM;
  }
  batcher->waiting_capacity = (uint32_t)capacity;
  batcher->waiting_allocated = (uint32_t)allocated;
  return 0;
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
  b->backlog = settings->backlog > b->fresh ? settings->backlog : b->fresh;
  b->batch_ms = settings->batch_ms;
  b->shrink = settings->shrink;
  b->candidates = calloc(b->batch, sizeof *b->candidates);
  b->by_user = calloc(b->batch, sizeof(struct candidate *));
  b->contexts = calloc(limits.positions, sizeof *b->contexts);
  b->fresh_left = calloc(b->batch, sizeof *b->fresh_left);
  b->drawn = calloc((size_t)b->reservoir_capacity + 1, sizeof *b->drawn);
  b->item_build = calloc(b->items_max, sizeof *b->item_build);
  b->item_index = calloc(b->items_max, sizeof *b->item_index);
  b->items = calloc(limits.items, sizeof *b->items);
  b->seq_ptr = calloc((size_t)b->batch + 1, sizeof *b->seq_ptr);
  b->seq_items = calloc(limits.positions, sizeof *b->seq_items);
  b->target = calloc(b->batch, sizeof *b->target);
  /* All parked ones may get their features at once. */
  code = allocate_waiting(b, b->backlog + settings->parking);
  if (code < 0 || !b->candidates || !b->by_user || !b->contexts || !b->fresh_left || !b->drawn ||
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
  if (batcher->waiting_first + batcher->waiting_count == batcher->waiting_allocated) {
    memmove(batcher->waiting, batcher->waiting + batcher->waiting_first,
            batcher->waiting_count * sizeof *batcher->waiting);
    batcher->waiting_first = 0;
  }
  struct m2sed_example *place = &batcher->waiting[batcher->waiting_first + batcher->waiting_count++];
  *place = *example;
  place->closes = ++batcher->open == batcher->fresh;
  if (place->closes) {
    batcher->open = 0;
  }
  return true;
}

void m2sed_batcher_time(struct m2sed_batcher *batcher, int64_t event_time_ms) {
  if (batcher->batch_ms <= 0 || batcher->open == 0) {
    return;
  }
  struct m2sed_example *end = &batcher->waiting[batcher->waiting_first + batcher->waiting_count];
  if ((double)event_time_ms - (double)end[-(int64_t)batcher->open].event_time_ms >
      (double)batcher->batch_ms) {
    end[-1].closes = 1;
    batcher->open = 0;
  }
}

bool m2sed_batcher_has_room(const struct m2sed_batcher *batcher) {
  return batcher->waiting_count < batcher->backlog;
}

uint32_t m2sed_batcher_capacity(const struct m2sed_batcher *batcher) {
  return batcher->waiting_capacity;
}

uint32_t m2sed_batcher_waiting(const struct m2sed_batcher *batcher) {
  return batcher->waiting_count;
}

const struct m2sed_example *m2sed_batcher_waiting_examples(const struct m2sed_batcher *batcher) {
  return batcher->waiting + batcher->waiting_first;
}

bool m2sed_batcher_due(const struct m2sed_batcher *batcher) {
  return batcher->waiting_count > batcher->open;
}

void m2sed_batcher_drop(struct m2sed_batcher *batcher, uint32_t count) {
  assert(count <= batcher->waiting_count);
  batcher->waiting_first += count;
  batcher->waiting_count -= count;
  if (batcher->waiting_count == 0) {
    batcher->waiting_first = batcher->open = 0;
  }
}

/* Examples of the mini-batch that begins with the one `before` places behind the oldest. */
static uint32_t count_fresh(const struct m2sed_batcher *batcher, uint32_t before) {
  const struct m2sed_example *examples = m2sed_batcher_waiting_examples(batcher) + before;
  uint32_t left = batcher->waiting_count - before, count = 0;
  while (count < left && count < batcher->fresh) {
    if (examples[count++].closes) {
      break;
    }
  }
  return count;
}

static bool ends_closed(const struct m2sed_batcher *batcher, uint32_t before, uint32_t count) {
  return count == batcher->fresh ||
         (count > 0 && m2sed_batcher_waiting_examples(batcher)[before + count - 1].closes);
}

static void find_open(struct m2sed_batcher *batcher) {
  batcher->open = 0;
  for (uint32_t before = 0; before < batcher->waiting_count;) {
    uint32_t fresh = count_fresh(batcher, before);
    batcher->open = ends_closed(batcher, before, fresh) ? 0 : fresh;
    before += fresh;
  }
}

/* Mini-batches stay where they were cut, and become smaller. */
uint32_t m2sed_batcher_forget(struct m2sed_batcher *batcher, uint64_t user_hash) {
  struct m2sed_example *examples = batcher->waiting + batcher->waiting_first;
  uint32_t kept = 0, count = batcher->waiting_count;
  for (uint32_t i = 0; i < count; i++) {
    if (examples[i].user_hash != user_hash) {
      examples[kept++] = examples[i];
    } else if (examples[i].closes && kept > 0) {
      examples[kept - 1].closes = 1;
    }
  }
  batcher->waiting_count = kept;
  find_open(batcher);
  return count - kept;
}

int m2sed_batcher_restore(struct m2sed_batcher *batcher, const struct m2sed_example *waiting, uint32_t count,
                          struct m2se_error *error) {
  assert(batcher->waiting_count == 0);
  /* If settings have changed there may be more than before, and there must be as much room beside them. */
  if (count >= batcher->backlog &&
      allocate_waiting(batcher, (uint64_t)count + batcher->waiting_capacity) < 0) {
    return m2se_error_set(error, M2SE_ENOMEM, "%u waiting examples", count);
  }
  if (count > 0) {
    memcpy(batcher->waiting, waiting, count * sizeof *waiting);
  }
  batcher->waiting_count = count;
  find_open(batcher);
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

/* A small mini-batch keeps the ratio. */
static uint32_t count_draws(const struct m2sed_batcher *batcher, uint32_t fresh) {
  uint32_t draws = batcher->batch - batcher->fresh;
  double ratio_draws = round(fresh * batcher->replay_ratio);
  return fresh < batcher->fresh && ratio_draws < draws ? (uint32_t)ratio_draws : draws;
}

static bool is_behind(const struct m2sed_batcher *batcher) {
  return batcher->shrink && batcher->waiting_count > batcher->backlog / 2 && m2sed_batcher_due(batcher);
}

/* As many closed mini-batches behind the first one as fit into one. The draws of all are added up. */
static uint32_t add_closed(const struct m2sed_batcher *batcher, uint32_t fresh, uint32_t *draws) {
  uint32_t more = count_fresh(batcher, fresh);
  while (fresh + more <= batcher->batch && ends_closed(batcher, fresh, more)) {
    *draws += count_draws(batcher, more);
    fresh += more;
    more = count_fresh(batcher, fresh);
  }
  return fresh;
}

void m2sed_batcher_build(struct m2sed_batcher *batcher, const struct m2sed_reservoir *reservoir,
                         uint64_t step, struct m2sed_batch *batch) {
  assert(batcher->waiting_count >= 1 && reservoir->capacity <= batcher->reservoir_capacity);
  next_build(batcher);
  uint32_t count = 0, fresh = count_fresh(batcher, 0);
  uint32_t draws = count_draws(batcher, fresh);
  *batch = (struct m2sed_batch){.fresh_left = batcher->fresh_left};
  /* Only together with what is counted: else the weights would depend on the clock and nothing said so. */
  if (reservoir->count > 0 && draws > 0 && is_behind(batcher)) {
    fresh = add_closed(batcher, fresh, &draws);
    batch->taken_away = draws;
    draws = 0;
  }
  batch->fresh = fresh;
  const struct m2sed_example *waiting = m2sed_batcher_waiting_examples(batcher);
  for (uint32_t i = 0; i < fresh; i++) {
    /* Fresh ones are newer than any replayed one, whose age is a position. */
    uint64_t age = (UINT64_C(1) << 63) + i;
    batcher->fresh_left[i] = candidate_fill(batcher, count, &waiting[i], age);
    count += batcher->fresh_left[i];
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
