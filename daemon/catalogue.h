/* The catalogue: item id -> slot, a dense number given out in the order in which ids first appear, and back.
 * A slot stays its id's for ever (also when the item is deleted), so that the trainer's tables can be arrays.
 * Thread: the loop's.
 */
#ifndef M2SED_CATALOGUE_H
#define M2SED_CATALOGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define M2SED_SLOT_NONE UINT32_MAX
enum { M2SED_ITEM_ID_MAX = 128 };

struct m2sed_catalogue;

/* NULL: out of memory. items_max: 1.. */
struct m2sed_catalogue *m2sed_catalogue_new(uint32_t items_max);
void m2sed_catalogue_free(struct m2sed_catalogue *catalogue); /* NULL is allowed */

/* M2SED_SLOT_NONE: not there. id: 1..128 bytes. */
uint32_t m2sed_catalogue_find(const struct m2sed_catalogue *catalogue, const char *id, size_t size);
/* The id's slot, a new one if it is not there yet (*added). M2SE_ELIMIT: items_max are there; M2SE_ENOMEM. */
int m2sed_catalogue_add(struct m2sed_catalogue *catalogue, const char *id, size_t size, uint32_t *slot,
                        bool *added);
/* NUL-terminated; lives as long as the catalogue. slot < count. */
const char *m2sed_catalogue_id(const struct m2sed_catalogue *catalogue, uint32_t slot, uint32_t *size);
uint32_t m2sed_catalogue_count(const struct m2sed_catalogue *catalogue);

/* What the loop knows of an item: does it have features, is it deleted. */
enum m2sed_item_state { M2SED_ITEM_BARE, M2SED_ITEM_FEATURES, M2SED_ITEM_DELETED };
enum m2sed_item_state m2sed_catalogue_state(const struct m2sed_catalogue *catalogue, uint32_t slot);
void m2sed_catalogue_set_state(struct m2sed_catalogue *catalogue, uint32_t slot, enum m2sed_item_state state);
uint32_t m2sed_catalogue_featured(const struct m2sed_catalogue *catalogue); /* items with features */

#endif
