#include "daemon/item_record.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct m2sed_item_record *m2sed_item_record_new(uint32_t slot, const char *id, uint32_t id_bytes, uint32_t d,
                                                const float *text, uint32_t text_count, const float *image,
                                                uint32_t image_count) {
  struct m2sed_item_record *record;
  assert(id_bytes >= 1 && id_bytes < sizeof record->id);
  assert(text_count == 0 || text != NULL);
  assert(image_count == 0 || image != NULL);
  size_t text_floats = (size_t)text_count * d, image_floats = (size_t)image_count * d;
  size_t header_bytes = (sizeof *record + 63) / 64 * 64; /* rows start on a cache line */
  record = malloc(header_bytes + (text_floats + image_floats) * sizeof(float));
  if (record == NULL) {
    return NULL;
  }
  memset(record, 0, header_bytes);
  atomic_init(&record->references, 1);
  record->slot = slot;
  record->text_count = text_count;
  record->image_count = image_count;
  float *rows = (float *)((unsigned char *)record + header_bytes);
  if (text_floats > 0) {
    memcpy(rows, text, text_floats * sizeof(float));
  }
  if (image_floats > 0) {
    memcpy(rows + text_floats, image, image_floats * sizeof(float));
  }
  record->text = rows;
  record->image = rows + text_floats;
  memcpy(record->id, id, id_bytes);
  return record;
}

struct m2sed_item_record *m2sed_item_record_keep(struct m2sed_item_record *record) {
  atomic_fetch_add_explicit(&record->references, 1, memory_order_relaxed);
  return record;
}

void m2sed_item_record_release(struct m2sed_item_record *record) {
  if (record == NULL) {
    return;
  }
  unsigned before = atomic_fetch_sub_explicit(&record->references, 1, memory_order_acq_rel);
  assert(before >= 1);
  if (before == 1) {
    free(record);
  }
}
