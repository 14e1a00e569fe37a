#include <stdlib.h>
#include <string.h>

#include "ingest/codec_parts.h"
#include "model/files/json.h"
#include "proto/m2se.pb-c.h"

// Rows are little-endian on the wire; they are copied, not converted.
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian machine must swap the bytes of rows");

/* ---- decoding ---- */

static struct m2se_bytes binary_view(ProtobufCBinaryData binary) {
  return binary.len ? (struct m2se_bytes){(const char *)binary.data, binary.len} : (struct m2se_bytes){"", 0};
}

static struct m2se_raw_rows rows_view(const M2se__V1__Rows *rows) {
  return rows ? (struct m2se_raw_rows){rows->dim, binary_view(rows->data)}
              : (struct m2se_raw_rows){0, {"", 0}};
}

static int item_from_protobuf(struct m2se_item *item, struct m2se_raw_rows *text_rows,
                              struct m2se_raw_rows *image_rows, struct m2se_arena *arena,
                              const struct m2se_payload *payload, struct m2se_refusal *refusal) {
  ProtobufCMessage *unpacked;
  int code =
      m2se_wire_unpack(&unpacked, &m2se__v1__item__descriptor, arena, payload->data, payload->size, refusal);
  if (code)
    return code;
  const M2se__V1__Item *message = (const M2se__V1__Item *)unpacked;
  struct m2se_bytes *texts = m2se_arena_take(arena, message->n_texts * sizeof *texts);
  struct m2se_image_source *images = m2se_arena_take(arena, message->n_images * sizeof *images);
  if (!texts || !images)
    return m2se_refuse_memory(arena, refusal);
  for (size_t i = 0; i < message->n_texts; i++)
    texts[i] = m2se_string_view(message->texts[i]);
  for (size_t i = 0; i < message->n_images; i++)
    images[i] = (struct m2se_image_source){binary_view(message->images[i]->data),
                                           m2se_string_view(message->images[i]->path)};
  *item = (struct m2se_item){
      .item_id = m2se_string_view(message->item_id),
      .text_count = (uint32_t)message->n_texts, // no more than bytes of the record
      .image_count = (uint32_t)message->n_images,
      .texts = texts,
      .images = images,
      .title = m2se_string_view(message->title),
      .picture = m2se_string_view(message->picture),
  };
  *text_rows = rows_view(message->text_rows);
  *image_rows = rows_view(message->image_rows);
  return 0;
}

static int decode_rows(struct m2se_feature_rows *rows, const struct m2se_raw_rows *raw, uint32_t dim,
                       const char *what, struct m2se_arena *arena, struct m2se_refusal *refusal) {
  *rows = (struct m2se_feature_rows){0};
  if (raw->data.size == 0)
    return 0;
  if (raw->dim == 0 || raw->dim > M2SE_ITEM_DIM_MAX)
    return m2se_refuse(refusal, M2SE_RULE_DIM, "%s.dim: %u, allowed are 1..%d", what, raw->dim,
                       M2SE_ITEM_DIM_MAX);
  if (dim && raw->dim != dim)
    return m2se_refuse(refusal, M2SE_RULE_DIM, "%s.dim: %u instead of %u", what, raw->dim, dim);
  size_t row_bytes = raw->dim * sizeof(float);
  if (raw->data.size % row_bytes)
    return m2se_refuse(refusal, M2SE_RULE_LENGTH, "%s.data: %zu bytes are not a multiple of %zu", what,
                       raw->data.size, row_bytes);
  size_t count = raw->data.size / row_bytes;
  if (count > M2SE_ITEM_ROWS_MAX)
    return m2se_refuse(refusal, M2SE_RULE_COUNT, "%s: %zu rows, at most %d are allowed", what, count,
                       M2SE_ITEM_ROWS_MAX);
  float *data = m2se_arena_take(arena, raw->data.size);
  if (!data)
    return m2se_refuse_memory(arena, refusal);
  memcpy(data, raw->data.data, raw->data.size);
  for (size_t i = 0; i < count * raw->dim; i++) {
    uint32_t bits;
    memcpy(&bits, data + i, sizeof bits);
    if ((bits & 0x7F800000u) == 0x7F800000u) // all ones in the exponent: infinity or NaN
      return m2se_refuse(refusal, M2SE_RULE_FINITE, "%s: row %zu, column %zu is not finite", what,
                         i / raw->dim, i % raw->dim);
  }
  *rows = (struct m2se_feature_rows){raw->dim, (uint32_t)count, data};
  return 0;
}

/* "..", as a whole part of the path. */
static bool climbs(const char *path) {
  for (const char *part = path; part; part = strchr(part, '/'), part = part ? part + 1 : NULL)
    if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == 0))
      return true;
  return false;
}

static int validate_image(const struct m2se_image_source *image, uint32_t index,
                          struct m2se_refusal *refusal) {
  if (!image->data.size == !image->path.size)
    return m2se_refuse(refusal, M2SE_RULE_IMAGE, "images[%u]: %s", index,
                       image->data.size ? "both data and path" : "neither data nor path");
  if (image->path.size > M2SE_IMAGE_PATH_BYTES_MAX)
    return m2se_refuse(refusal, M2SE_RULE_IMAGE, "images[%u].path: %zu bytes, at most %d are allowed", index,
                       image->path.size, M2SE_IMAGE_PATH_BYTES_MAX);
  if (image->path.size && (image->path.data[0] == '/' || climbs(image->path.data)))
    return m2se_refuse(refusal, M2SE_RULE_IMAGE, "images[%u].path: absolute or with '..'", index);
  return 0;
}

static int validate_item(const struct m2se_item *item, struct m2se_refusal *refusal) {
  int code = m2se_validate_id(item->item_id.data, item->item_id.size, "item_id", refusal);
  if (code)
    return code;
  if (item->text_count > M2SE_ITEM_TEXTS_MAX)
    return m2se_refuse(refusal, M2SE_RULE_COUNT, "texts: %u, at most %d are allowed", item->text_count,
                       M2SE_ITEM_TEXTS_MAX);
  if (item->image_count > M2SE_ITEM_IMAGES_MAX)
    return m2se_refuse(refusal, M2SE_RULE_COUNT, "images: %u, at most %d are allowed", item->image_count,
                       M2SE_ITEM_IMAGES_MAX);
  for (uint32_t i = 0; !code && i < item->image_count; i++)
    code = validate_image(&item->images[i], i, refusal);
  return code;
}

int m2se_item_decode(struct m2se_item *item, struct m2se_arena *arena, const void *value, size_t size,
                     uint32_t dim, struct m2se_refusal *refusal) {
  arena->used = 0;
  struct m2se_payload payload;
  int code = m2se_payload_open(&payload, value, size, M2SE_ITEM_BYTES_MAX, refusal);
  if (code)
    return code;
  struct m2se_raw_rows text_rows, image_rows;
  code = payload.json ? m2se_item_from_json(item, &text_rows, &image_rows, arena, payload.json, refusal)
                      : item_from_protobuf(item, &text_rows, &image_rows, arena, &payload, refusal);
  m2se_json_free(payload.json);
  if (!code)
    code = validate_item(item, refusal);
  if (!code)
    code = decode_rows(&item->text_rows, &text_rows, dim, "text_rows", arena, refusal);
  if (!code)
    code = decode_rows(&item->image_rows, &image_rows, dim ? dim : item->text_rows.dim, "image_rows", arena,
                       refusal);
  return code;
}

/* ---- encoding ---- */

static ProtobufCBinaryData packed_binary(const void *data, size_t size) {
  return (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)data};
}

static void pack_rows(M2se__V1__Rows *message, M2se__V1__Rows **member,
                      const struct m2se_feature_rows *rows) {
  m2se__v1__rows__init(message);
  message->dim = rows->dim;
  message->data = packed_binary(rows->data, sizeof(float) * rows->dim * rows->count);
  *member = rows->count ? message : NULL;
}

size_t m2se_item_encode(const struct m2se_item *item, void *out, size_t capacity) {
  char **texts = calloc(item->text_count + 1, sizeof *texts);
  M2se__V1__Image *images = calloc(item->image_count + 1, sizeof *images);
  M2se__V1__Image **image_list = calloc(item->image_count + 1, sizeof *image_list);
  size_t size = 0;
  if (texts && images && image_list) {
    M2se__V1__Item message = M2SE__V1__ITEM__INIT;
    M2se__V1__Rows text_rows, image_rows;
    message.item_id = m2se_string_packed(item->item_id);
    message.title = m2se_string_packed(item->title);
    message.picture = m2se_string_packed(item->picture);
    for (uint32_t i = 0; i < item->text_count; i++)
      texts[i] = m2se_string_packed(item->texts[i]);
    for (uint32_t i = 0; i < item->image_count; i++) {
      m2se__v1__image__init(&images[i]);
      images[i].data = packed_binary(item->images[i].data.data, item->images[i].data.size);
      images[i].path = m2se_string_packed(item->images[i].path);
      image_list[i] = &images[i];
    }
    message.texts = texts;
    message.n_texts = item->text_count;
    message.images = image_list;
    message.n_images = item->image_count;
    pack_rows(&text_rows, &message.text_rows, &item->text_rows);
    pack_rows(&image_rows, &message.image_rows, &item->image_rows);
    size = m2se__v1__item__get_packed_size(&message);
    if (size <= capacity)
      m2se__v1__item__pack(&message, out);
  }
  free(texts);
  free(images);
  free(image_list);
  return size;
}
