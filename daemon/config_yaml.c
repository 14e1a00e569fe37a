#include "daemon/config_yaml.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { DEPTH_MAX = 3, NAME_MAX_BYTES = 512, NAMES_MAX = 1024 };

struct reader {
  const char *label;
  m2sed_yaml_visit *visit;
  void *arg;
  uint32_t depth;            /* open mappings */
  size_t prefix[DEPTH_MAX];  /* bytes of `name` that belong to the mappings around */
  char name[NAME_MAX_BYTES]; /* dotted, of the key last read */
  bool have_key;             /* the next event is its value */
  uint64_t seen[NAMES_MAX];  /* hashes of the names so far */
  uint32_t seen_count;
};

static int refuse(const struct reader *reader, uint32_t line, const char *what, struct m2se_error *error) {
  return m2se_error_set(error, M2SE_EFORMAT, "%s:%u: %s", reader->label, line, what);
}

/* FNV-1a: only to find names that come twice in one file of ours; a collision would refuse a good file, which
 * among 1024 names happens with a chance below 1e-13. */
static uint64_t hash_name(const char *name) {
  uint64_t hash = 14695981039346656037u;
  for (; *name; name++)
    hash = (hash ^ (uint8_t)*name) * 1099511628211u;
  return hash;
}

static int take_key(struct reader *reader, const yaml_event_t *event, uint32_t line,
                    struct m2se_error *error) {
  const char *key = (const char *)event->data.scalar.value;
  size_t size = event->data.scalar.length, prefix = reader->prefix[reader->depth - 1];
  if (!size || memchr(key, 0, size))
    return refuse(reader, line, "an empty name, or one with a NUL byte", error);
  if (prefix + size + 2 > sizeof reader->name)
    return refuse(reader, line, "a name that is too long", error);
  if (prefix)
    reader->name[prefix - 1] = '.';
  memcpy(reader->name + prefix, key, size + 1);
  uint64_t hash = hash_name(reader->name);
  for (uint32_t i = 0; i < reader->seen_count; i++)
    if (reader->seen[i] == hash)
      return m2se_error_set(error, M2SE_EFORMAT, "%s:%u: %s: comes twice", reader->label, line, reader->name);
  if (reader->seen_count == NAMES_MAX)
    return refuse(reader, line, "more than 1024 names", error);
  reader->seen[reader->seen_count++] = hash;
  reader->have_key = true;
  return 0;
}

static int take_value(struct reader *reader, const yaml_event_t *event, uint32_t line,
                      struct m2se_error *error) {
  const char *value = (const char *)event->data.scalar.value;
  reader->have_key = false;
  if (memchr(value, 0, event->data.scalar.length))
    return m2se_error_set(error, M2SE_EFORMAT, "%s:%u: %s: a value with a NUL byte", reader->label, line,
                          reader->name);
  /* "section:" with nothing below it: an empty section, not a value. */
  bool empty = !*value && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  if (empty && reader->depth == 1)
    return 0;
  if (empty)
    return m2se_error_set(error, M2SE_EFORMAT, "%s:%u: %s: has no value (write \"\" for an empty one)",
                          reader->label, line, reader->name);
  return reader->visit(reader->arg, reader->name, value, line, error);
}

static int take_event(struct reader *reader, const yaml_event_t *event, struct m2se_error *error) {
  uint32_t line = (uint32_t)event->start_mark.line + 1;
  switch (event->type) {
  case YAML_MAPPING_START_EVENT:
    if (event->data.mapping_start.anchor || event->data.mapping_start.tag)
      return refuse(reader, line, "anchors and tags are not used here", error);
    if (reader->depth == DEPTH_MAX)
      return refuse(reader, line, "nested too deep", error);
    if (reader->depth && !reader->have_key)
      return refuse(reader, line, "a name must be a plain word", error);
    reader->prefix[reader->depth] = reader->depth ? strlen(reader->name) + 1 : 0;
    reader->depth++;
    reader->have_key = false;
    return 0;
  case YAML_MAPPING_END_EVENT:
    reader->depth--;
    reader->have_key = false;
    return 0;
  case YAML_SCALAR_EVENT:
    if (event->data.scalar.anchor || event->data.scalar.tag)
      return refuse(reader, line, "anchors and tags are not used here", error);
    if (!reader->depth && !event->data.scalar.length)
      return 0; /* a document with nothing in it */
    if (!reader->depth)
      return refuse(reader, line, "sections are expected, such as \"kafka:\"", error);
    return reader->have_key ? take_value(reader, event, line, error) : take_key(reader, event, line, error);
  case YAML_SEQUENCE_START_EVENT:
    return refuse(reader, line, "a list, where no setting takes one", error);
  case YAML_ALIAS_EVENT:
    return refuse(reader, line, "anchors and tags are not used here", error);
  default:
    return 0;
  }
}

static int read_events(struct reader *reader, yaml_parser_t *parser, struct m2se_error *error) {
  uint32_t documents = 0;
  for (;;) {
    yaml_event_t event;
    if (!yaml_parser_parse(parser, &event)) {
      if (parser->error == YAML_MEMORY_ERROR)
        return m2se_error_set(error, M2SE_ENOMEM, "%s: out of memory", reader->label);
      return m2se_error_set(error, M2SE_EFORMAT, "%s:%zu: not YAML: %s", reader->label,
                            parser->problem_mark.line + 1, parser->problem ? parser->problem : "unreadable");
    }
    bool last = event.type == YAML_STREAM_END_EVENT;
    int code = 0;
    if (event.type == YAML_DOCUMENT_START_EVENT && documents++)
      code = refuse(reader, (uint32_t)event.start_mark.line + 1, "a second document in one file", error);
    if (!code)
      code = take_event(reader, &event, error);
    yaml_event_delete(&event);
    if (code || last)
      return code;
  }
}

int m2sed_yaml_read(const char *text, size_t size, const char *label, m2sed_yaml_visit *visit, void *arg,
                    struct m2se_error *error) {
  if (size > M2SED_YAML_BYTES_MAX)
    return m2se_error_set(error, M2SE_ELIMIT, "%s: larger than 1 MiB", label);
  struct reader reader = {.label = label, .visit = visit, .arg = arg};
  yaml_parser_t parser;
  if (!yaml_parser_initialize(&parser))
    return m2se_error_set(error, M2SE_ENOMEM, "%s: out of memory", label);
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
  int code = read_events(&reader, &parser, error);
  yaml_parser_delete(&parser);
  return code;
}
