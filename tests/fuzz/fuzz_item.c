// An item as anybody may have written it: refused with a rule and a reason, or within the rules of
// ingest/validate.h. What is accepted is the same after it was encoded and decoded again.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition)
    abort();
}

static void check_text(struct m2se_bytes bytes) {
  require(bytes.data && bytes.data[bytes.size] == 0);
  require(m2se_validate_text(bytes.data, bytes.size, "", NULL) == 0);
}

static void check_rows(const struct m2se_feature_rows *rows, uint32_t dim) {
  if (rows->count == 0) {
    require(rows->dim == 0);
    return;
  }
  require(rows->dim >= 1 && rows->dim <= M2SE_ITEM_DIM_MAX && rows->count <= M2SE_ITEM_ROWS_MAX);
  require((dim == 0 || rows->dim == dim) && (uintptr_t)rows->data % 16 == 0);
  for (size_t i = 0; i < (size_t)rows->dim * rows->count; i++)
    require(isfinite(rows->data[i]));
}

static void check_item(const struct m2se_item *item, uint32_t dim) {
  require(m2se_validate_id(item->item_id.data, item->item_id.size, "", NULL) == 0);
  require(item->text_count <= M2SE_ITEM_TEXTS_MAX && item->image_count <= M2SE_ITEM_IMAGES_MAX);
  for (uint32_t i = 0; i < item->text_count; i++)
    check_text(item->texts[i]);
  for (uint32_t i = 0; i < item->image_count; i++) {
    const struct m2se_image_source *image = &item->images[i];
    check_text(image->path);
    require(image->data.data && (image->data.size == 0) == (image->path.size > 0));
    require(image->path.data[0] != '/' && strncmp(image->path.data, "../", 3) != 0);
    require(!strstr(image->path.data, "/../"));
  }
  check_text(item->title);
  check_text(item->picture);
  check_rows(&item->text_rows, dim);
  check_rows(&item->image_rows, dim);
  require(!item->text_rows.count || !item->image_rows.count || item->text_rows.dim == item->image_rows.dim);
}

// The first byte says which width is configured, the rest is the record.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct m2se_arena arenas[2]; // taken once: libFuzzer comes back millions of times
  for (int i = 0; i < 2; i++)
    require(arenas[i].data || m2se_arena_new(&arenas[i], 1 << 20) == 0);
  if (size == 0)
    return 0;
  uint32_t dim = data[0] % 4;
  struct m2se_item first, again;
  struct m2se_refusal refusal = {.text = ""};
  if (m2se_item_decode(&first, &arenas[0], data + 1, size - 1, dim, &refusal)) {
    require(refusal.rule < M2SE_RULE_COUNT_OF_ALL && refusal.text[0]);
    require(m2se_validate_text(refusal.text, strlen(refusal.text), "", NULL) == 0);
    return 0;
  }
  check_item(&first, dim);

  size_t packed_size = m2se_item_encode(&first, NULL, 0);
  uint8_t *packed = malloc(2 * packed_size);
  require(packed && m2se_item_encode(&first, packed, packed_size) == packed_size);
  require(m2se_item_decode(&again, &arenas[1], packed, packed_size, dim, NULL) == 0);
  check_item(&again, dim);
  require(m2se_item_encode(&again, packed + packed_size, packed_size) == packed_size);
  require(memcmp(packed, packed + packed_size, packed_size) == 0);
  free(packed);
  return 0;
}
