#include "daemon/features/side_record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(M2SE_ITEM_TEXTS_MAX + M2SE_ITEM_IMAGES_MAX <= (int)M2SED_STORE_CONTENTS_MAX, "an item fits");
_Static_assert((int)M2SE_ID_BYTES_MAX == (int)M2SED_STORE_ID_MAX, "so does its id");

static struct m2sed_content image_content(const struct m2se_image_source *image) {
  return image->data.size ? (struct m2sed_content){M2SED_CONTENT_PICTURE, image->data.data, image->data.size}
                          : (struct m2sed_content){M2SED_CONTENT_PATH, image->path.data, image->path.size};
}

static void append(struct m2sed_side_record *record, struct m2sed_content content, char **at) {
  memcpy(*at, content.bytes, content.size);
  (*at)[content.size] = '\0';
  content.bytes = *at;
  record->contents[record->count++] = content;
  *at += content.size + 1;
}

struct m2sed_side_record *m2sed_side_record_new(const struct m2se_item *item, uint64_t version) {
  assert(item->item_id.size >= 1 && item->item_id.size <= M2SED_STORE_ID_MAX);
  uint32_t count = item->text_count + item->image_count;
  assert(count <= M2SED_STORE_CONTENTS_MAX);
  struct m2sed_side_record *record;
  size_t head = sizeof *record + count * sizeof *record->contents, bytes = head;
  for (uint32_t i = 0; i < item->text_count; i++) {
    bytes += item->texts[i].size + 1;
  }
  for (uint32_t i = 0; i < item->image_count; i++) {
    bytes += image_content(&item->images[i]).size + 1;
  }
  record = malloc(bytes);
  if (!record) {
    return NULL;
  }
  *record = (struct m2sed_side_record){.version = version, .bytes = bytes};
  memcpy(record->id, item->item_id.data, item->item_id.size);
  char *at = (char *)record + head;
  for (uint32_t i = 0; i < item->text_count; i++) {
    append(record, (struct m2sed_content){M2SED_CONTENT_TEXT, item->texts[i].data, item->texts[i].size}, &at);
  }
  for (uint32_t i = 0; i < item->image_count; i++) {
    append(record, image_content(&item->images[i]), &at);
  }
  assert(at == (char *)record + bytes);
  return record;
}

struct m2sed_side_record *m2sed_side_record_deletion(const char *id, uint64_t version) {
  size_t size = strlen(id);
  assert(size >= 1 && size <= M2SED_STORE_ID_MAX);
  struct m2sed_side_record *record = malloc(sizeof *record);
  if (record) {
    *record = (struct m2sed_side_record){.version = version, .is_deletion = true, .bytes = sizeof *record};
    memcpy(record->id, id, size + 1);
  }
  return record;
}

void m2sed_side_record_free(struct m2sed_side_record *record) {
  free(record);
}
