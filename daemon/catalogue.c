#include "daemon/catalogue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Memory that runs out in a table of ours is an error for the caller, not the end of the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "model/error.h"

struct entry {
  UT_hash_handle hh;
  uint32_t slot;
  uint8_t size, state;
  char id[]; /* NUL-terminated */
};

struct m2sed_catalogue {
  struct entry *by_id;
  struct entry **by_slot; /* [items_max] */
  uint32_t count, items_max, featured;
};

struct m2sed_catalogue *m2sed_catalogue_new(uint32_t items_max) {
  struct m2sed_catalogue *catalogue = calloc(1, sizeof *catalogue);
  if (!catalogue)
    return NULL;
  catalogue->items_max = items_max;
  catalogue->by_slot = calloc(items_max, sizeof *catalogue->by_slot);
  if (!catalogue->by_slot) {
    free(catalogue);
    return NULL;
  }
  return catalogue;
}

void m2sed_catalogue_free(struct m2sed_catalogue *catalogue) {
  if (!catalogue)
    return;
  HASH_CLEAR(hh, catalogue->by_id);
  for (uint32_t slot = 0; slot < catalogue->count; slot++)
    free(catalogue->by_slot[slot]);
  free(catalogue->by_slot);
  free(catalogue);
}

uint32_t m2sed_catalogue_find(const struct m2sed_catalogue *catalogue, const char *id, size_t size) {
  struct entry *entry;
  HASH_FIND(hh, catalogue->by_id, id, size, entry);
  return entry ? entry->slot : M2SED_SLOT_NONE;
}

int m2sed_catalogue_add(struct m2sed_catalogue *catalogue, const char *id, size_t size, uint32_t *slot,
                        bool *added) {
  assert(size >= 1 && size <= M2SED_ITEM_ID_MAX);
  *added = false;
  *slot = m2sed_catalogue_find(catalogue, id, size);
  if (*slot != M2SED_SLOT_NONE)
    return 0;
  if (catalogue->count == catalogue->items_max)
    return M2SE_ELIMIT;
  struct entry *entry = calloc(1, sizeof *entry + size + 1);
  if (!entry)
    return M2SE_ENOMEM;
  entry->slot = catalogue->count;
  entry->size = (uint8_t)size;
  memcpy(entry->id, id, size);
  HASH_ADD_KEYPTR(hh, catalogue->by_id, entry->id, size, entry);
  if (!entry->hh.tbl) { /* how uthash says that it had no memory */
    free(entry);
    return M2SE_ENOMEM;
  }
  catalogue->by_slot[catalogue->count++] = entry;
  *slot = entry->slot;
  *added = true;
  return 0;
}

const char *m2sed_catalogue_id(const struct m2sed_catalogue *catalogue, uint32_t slot, uint32_t *size) {
  assert(slot < catalogue->count);
  *size = catalogue->by_slot[slot]->size;
  return catalogue->by_slot[slot]->id;
}

uint32_t m2sed_catalogue_count(const struct m2sed_catalogue *catalogue) {
  return catalogue->count;
}

enum m2sed_item_state m2sed_catalogue_state(const struct m2sed_catalogue *catalogue, uint32_t slot) {
  assert(slot < catalogue->count);
  return (enum m2sed_item_state)catalogue->by_slot[slot]->state;
}

void m2sed_catalogue_set_state(struct m2sed_catalogue *catalogue, uint32_t slot,
                               enum m2sed_item_state state) {
  assert(slot < catalogue->count);
  struct entry *entry = catalogue->by_slot[slot];
  catalogue->featured += (state == M2SED_ITEM_FEATURES) - (entry->state == M2SED_ITEM_FEATURES);
  entry->state = (uint8_t)state;
}

uint32_t m2sed_catalogue_featured(const struct m2sed_catalogue *catalogue) {
  return catalogue->featured;
}
