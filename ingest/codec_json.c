/* Records as JSON, as codec.h says; the text is parsed already. */
#include <ctype.h>
#include <string.h>

#include "ingest/codec_parts.h"
#include "model/files/json.h"

/* A parsed object, where its strings go, and the first thing wrong with it. */
struct source {
  struct m2se_arena *arena;
  struct m2se_refusal *refusal;
  int code; /* sticky */
};

static void fail(struct source *source, const char *text) {
  if (!source->code)
    source->code = m2se_refuse(source->refusal, M2SE_RULE_FORMAT, "%s", text);
}

/* The member of that name in either spelling, or NULL. */
static const struct m2se_json *member(struct source *source, const struct m2se_json *object,
                                      const char *name) {
  char camel[32];
  size_t length = 0;
  for (const char *c = name; *c && length < sizeof camel - 1; c++)
    camel[length++] = *c == '_' ? (char)toupper((unsigned char)*++c) : *c;
  camel[length] = 0;
  const struct m2se_json *value = m2se_json_get(object, name);
  if (strcmp(camel, name) != 0) {
    const struct m2se_json *other = m2se_json_get(object, camel);
    if (value && other && !source->code)
      source->code = m2se_refuse(source->refusal, M2SE_RULE_FORMAT, "both %s and %s", name, camel);
    value = value ? value : other;
  }
  return value && m2se_json_type(value) == M2SE_JSON_NULL ? NULL : value;
}

/* The text of a string, borrowed, or NULL: absent, or something is wrong. */
static const char *text_of(struct source *source, const struct m2se_json *value, const char *name,
                           size_t *length) {
  const char *text = NULL;
  struct m2se_error error;
  if (value && !source->code && m2se_json_as_string(value, name, &text, length, &error))
    fail(source, error.text);
  return source->code ? NULL : text;
}

static void *take(struct source *source, size_t size) {
  void *memory = m2se_arena_take(source->arena, size);
  if (!memory && !source->code)
    source->code = m2se_refuse_memory(source->arena, source->refusal);
  return memory;
}

static struct m2se_bytes as_string(struct source *source, const struct m2se_json *value, const char *name) {
  size_t length;
  const char *text = text_of(source, value, name, &length);
  char *copy = text ? take(source, length + 1) : NULL;
  if (!copy)
    return (struct m2se_bytes){"", 0};
  memcpy(copy, text, length + 1);
  return (struct m2se_bytes){copy, length};
}

static struct m2se_bytes get_string(struct source *source, const struct m2se_json *object, const char *name) {
  return as_string(source, member(source, object, name), name);
}

/* 0..63, or -1. */
static int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

static struct m2se_bytes get_bytes(struct source *source, const struct m2se_json *object, const char *name) {
  const struct m2se_bytes none = {"", 0};
  size_t length;
  const char *text = text_of(source, member(source, object, name), name, &length);
  if (!text)
    return none;
  for (int padding = length % 4 == 0 ? 2 : 0; padding > 0 && length && text[length - 1] == '='; padding--)
    length--;
  uint8_t *bytes = take(source, length / 4 * 3 + 3);
  if (!bytes)
    return none;
  size_t size = 0;
  uint32_t bits = 0;
  for (size_t i = 0; i < length; i++) {
    int digit = base64_digit(text[i]);
    if (digit < 0 || length % 4 == 1) {
      source->code = m2se_refuse(source->refusal, M2SE_RULE_FORMAT, "%s: not base64", name);
      return none;
    }
    bits = bits << 6 | (uint32_t)digit;
    if (i % 4 != 0) // each digit but the first of four completes a byte
      bytes[size++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
  }
  return (struct m2se_bytes){(const char *)bytes, size};
}

static struct m2se_raw_rows get_rows(struct source *source, const struct m2se_json *object,
                                     const char *name) {
  struct m2se_raw_rows rows = {0, {"", 0}};
  const struct m2se_json *value = member(source, object, name);
  struct m2se_error error;
  if (!value || source->code)
    return rows;
  if (m2se_json_as_object(value, name, &error)) {
    fail(source, error.text);
    return rows;
  }
  const struct m2se_json *dim = member(source, value, "dim");
  uint64_t number = 0;
  if (dim && m2se_json_as_uint64(dim, "dim", &number, &error))
    fail(source, error.text);
  rows.dim = number > UINT32_MAX ? UINT32_MAX : (uint32_t)number; // out of range either way
  rows.data = get_bytes(source, value, "data");
  return rows;
}

/* Elements of an array member; 0: none, or refused. */
static size_t get_array(struct source *source, const struct m2se_json *object, const char *name,
                        const struct m2se_json **array) {
  size_t size = 0;
  struct m2se_error error;
  *array = member(source, object, name);
  if (*array && m2se_json_as_array(*array, name, &size, &error))
    fail(source, error.text);
  return source->code ? 0 : size;
}

int m2se_interaction_from_json(struct m2se_interaction *interaction, struct m2se_arena *arena,
                               const struct m2se_json *json, struct m2se_refusal *refusal) {
  struct source source = {arena, refusal, 0};
  *interaction = (struct m2se_interaction){
      .user_id = get_string(&source, json, "user_id"),
      .item_id = get_string(&source, json, "item_id"),
      .event_id = get_string(&source, json, "event_id"),
      .kind = get_string(&source, json, "kind"),
  };
  const struct m2se_json *time = member(&source, json, "event_time_ms");
  struct m2se_error error;
  if (time && m2se_json_as_int64(time, "event_time_ms", &interaction->event_time_ms, &error))
    fail(&source, error.text);
  return source.code;
}

int m2se_item_from_json(struct m2se_item *item, struct m2se_raw_rows *text_rows,
                        struct m2se_raw_rows *image_rows, struct m2se_arena *arena,
                        const struct m2se_json *json, struct m2se_refusal *refusal) {
  struct source source = {arena, refusal, 0};
  const struct m2se_json *text_array, *image_array;
  size_t text_count = get_array(&source, json, "texts", &text_array);
  size_t image_count = get_array(&source, json, "images", &image_array);
  struct m2se_bytes *texts = take(&source, text_count * sizeof *texts);
  struct m2se_image_source *images = take(&source, image_count * sizeof *images);
  for (size_t i = 0; !source.code && i < text_count; i++)
    texts[i] = as_string(&source, m2se_json_at(text_array, i), "texts");
  for (size_t i = 0; !source.code && i < image_count; i++) {
    const struct m2se_json *image = m2se_json_at(image_array, i);
    struct m2se_error error;
    if (m2se_json_as_object(image, "images", &error))
      fail(&source, error.text);
    images[i] =
        (struct m2se_image_source){get_bytes(&source, image, "data"), get_string(&source, image, "path")};
  }
  *item = (struct m2se_item){
      .item_id = get_string(&source, json, "item_id"),
      .text_count = (uint32_t)text_count,
      .image_count = (uint32_t)image_count,
      .texts = texts,
      .images = images,
      .title = get_string(&source, json, "title"),
      .picture = get_string(&source, json, "picture"),
  };
  *text_rows = get_rows(&source, json, "text_rows");
  *image_rows = get_rows(&source, json, "image_rows");
  return source.code;
}
