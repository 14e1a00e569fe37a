/* An item as trainer and server need it: immutable, shared by reference count.
 * The loop makes one for each record of the items topic and for each id that an interaction names first. */
#ifndef M2SED_ITEM_RECORD_H
#define M2SED_ITEM_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct m2sed_item_record {
  atomic_uint references;
  uint32_t slot;
  bool deleted;
  uint32_t text_count, image_count; /* rows; both 0: not featurised yet */
  const float *text, *image;        /* [count, d], in the same allocation */
  char id[129];                     /* UTF-8, 1..128 bytes, NUL-terminated */
};

/* Copies the rows. NULL: out of memory. The caller holds one reference. */
struct m2sed_item_record *m2sed_item_record_new(uint32_t slot, const char *id, uint32_t id_bytes, uint32_t d,
                                                const float *text, uint32_t text_count, const float *image,
                                                uint32_t image_count);
struct m2sed_item_record *m2sed_item_record_keep(struct m2sed_item_record *record);
void m2sed_item_record_release(struct m2sed_item_record *record); /* NULL is allowed; any thread */

#endif
