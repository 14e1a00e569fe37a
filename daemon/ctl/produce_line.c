#include "daemon/ctl/produce_line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int m2sed_line_codec_init(struct m2sed_line_codec *codec) {
  codec->value = NULL;
  codec->capacity = 0;
  return m2se_arena_new(&codec->arena, codec->items ? M2SE_ITEM_ARENA_BYTES : M2SE_INTERACTION_ARENA_BYTES);
}

void m2sed_line_codec_free(struct m2sed_line_codec *codec) {
  m2se_arena_free(&codec->arena);
  free(codec->value);
}

static int reserve(struct m2sed_line_codec *codec, size_t size) {
  if (size <= codec->capacity)
    return 0;
  uint8_t *larger = realloc(codec->value, size * 2);
  if (!larger)
    return M2SE_ENOMEM;
  codec->value = larger;
  codec->capacity = size * 2;
  return 0;
}

static int encode(struct m2sed_line_codec *codec, const struct m2se_interaction *interaction,
                  struct m2sed_line_record *record) {
  size_t size = m2se_interaction_encode(interaction, NULL, 0);
  if (reserve(codec, size))
    return M2SE_ENOMEM;
  m2se_interaction_encode(interaction, codec->value, codec->capacity);
  *record =
      (struct m2sed_line_record){interaction->user_id.data, codec->value, interaction->user_id.size, size};
  return 0;
}

/* user, item, event time, and perhaps event id and kind. Only taken apart: the rules come after. */
static int split(struct m2se_interaction *interaction, char *line, struct m2se_refusal *refusal) {
  struct m2se_bytes fields[5] = {{"", 0}, {"", 0}, {"", 0}, {"", 0}, {"", 0}};
  uint32_t count = 0;
  for (char *field = line; field; count++) {
    if (count == 5)
      return m2se_refuse(refusal, M2SE_RULE_FORMAT, "more than five fields");
    char *tab = strchr(field, '\t');
    if (tab)
      *tab = '\0';
    fields[count] = (struct m2se_bytes){field, strlen(field)};
    field = tab ? tab + 1 : NULL;
  }
  if (count < 3)
    return m2se_refuse(refusal, M2SE_RULE_FORMAT,
                       "%u fields: at least user, item and event time in ms, with tabs "
                       "between them",
                       count);
  char *end;
  errno = 0;
  int64_t time_ms = strtoll(fields[2].data, &end, 10);
  if (!fields[2].size || *end || errno)
    return m2se_refuse(refusal, M2SE_RULE_TIME, "event time: '%.40s' is not a whole number", fields[2].data);
  *interaction = (struct m2se_interaction){.user_id = fields[0],
                                           .item_id = fields[1],
                                           .event_time_ms = time_ms,
                                           .event_id = fields[3],
                                           .kind = fields[4]};
  return 0;
}

static int convert_interaction(struct m2sed_line_codec *codec, char *line, size_t size, int64_t now_ms,
                               struct m2sed_line_record *record, struct m2se_refusal *refusal) {
  struct m2se_interaction interaction;
  if (codec->tsv) { /* as protobuf it goes the same way as all others */
    int code = split(&interaction, line, refusal);
    if (!code)
      code = encode(codec, &interaction, record);
    if (code)
      return code;
    line = (char *)codec->value;
    size = record->value_size;
  }
  int code = m2se_interaction_decode(&interaction, &codec->arena, line, size, now_ms, refusal);
  if (code)
    return code;
  if (codec->now)
    interaction.event_time_ms = now_ms;
  return encode(codec, &interaction, record);
}

static int convert_item(struct m2sed_line_codec *codec, const char *line, size_t size,
                        struct m2sed_line_record *record, struct m2se_refusal *refusal) {
  struct m2se_item item;
  int code = m2se_item_decode(&item, &codec->arena, line, size, codec->dim, refusal);
  if (code)
    return code;
  size_t needed = m2se_item_encode(&item, NULL, 0);
  if (!needed || reserve(codec, needed) || !m2se_item_encode(&item, codec->value, codec->capacity))
    return M2SE_ENOMEM;
  *record = (struct m2sed_line_record){item.item_id.data, codec->value, item.item_id.size, needed};
  return 0;
}

int m2sed_line_convert(struct m2sed_line_codec *codec, char *line, size_t size, int64_t now_ms,
                       struct m2sed_line_record *record, struct m2se_refusal *refusal) {
  if (strlen(line) != size)
    return m2se_refuse(refusal, M2SE_RULE_TEXT, "a NUL in the line");
  return codec->items ? convert_item(codec, line, size, record, refusal)
                      : convert_interaction(codec, line, size, now_ms, record, refusal);
}
