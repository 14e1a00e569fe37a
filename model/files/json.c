/* JSON through jansson: struct m2se_json is its json_t. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json.h"
#include "model/files/utf8.h"

#define DEPTH_MAX 64
#define EXACT_DOUBLE_MAX 9007199254740992.0 /* 2^53: whole numbers up to here are exact in a double */
#define FLOAT_DIGITS 9

/* jansson's readers take a json_t that is not const, and do not change it. */
static json_t *theirs(const struct m2se_json *value) {
  return (json_t *)value;
}

static const struct m2se_json *ours(const json_t *value) {
  return (const struct m2se_json *)value;
}

/* ---- parsing ---- */

/* jansson's parser does not always notice that it got no memory, and then writes where it must not. So an
 * allocation that fails while it parses does not return to it: the parse is left behind, and its blocks,
 * which form a ring, are freed here. A variable of its own for each thread, because the library gives an
 * allocator no other place. */
struct block {
  _Alignas(max_align_t) struct block *before; /* what follows the block is aligned, then, for anything */
  struct block *next;
};
static _Thread_local struct {
  bool active;
  struct block ring; /* the blocks of the parse under way */
  jmp_buf no_memory;
} parse;

static void *allocate(size_t size) {
  struct block *block = malloc(sizeof *block + size);
  if (!block) {
    if (parse.active) {
      longjmp(parse.no_memory, 1);
    }
    return NULL;
  }
  struct block *before = parse.active ? &parse.ring : block;
  struct block *next = parse.active ? parse.ring.next : block;
  block->before = before;
  block->next = next;
  before->next = next->before = block;
  return block + 1;
}

static void unlink_block(struct block *block) {
  block->before->next = block->next;
  block->next->before = block->before;
}

static void release(void *data) {
  if (data) {
    struct block *block = (struct block *)data - 1;
    unlink_block(block);
    free(block);
  }
}

/* Before main, while there is one thread. */
__attribute__((constructor)) static void own_memory(void) {
  json_set_alloc_funcs(allocate, release);
}

/* The library's parse. *no_memory: it was left behind, and nothing of it is there any more. */
static json_t *load(const char *text, size_t size, size_t flags, json_error_t *reason, bool *no_memory) {
  *no_memory = false;
  parse.ring.before = parse.ring.next = &parse.ring;
  if (setjmp(parse.no_memory)) {
    parse.active = false;
    struct block *block = parse.ring.next;
    while (block != &parse.ring) {
      struct block *next = block->next;
      free(block);
      block = next;
    }
    *no_memory = true;
    return NULL;
  }
  parse.active = true;
  json_t *value = json_loadb(text, size, flags, reason);
  parse.active = false;
  unlink_block(&parse.ring); /* the tree's blocks go on without us */
  return value;
}

/* Before the library spends memory: brackets and commas tell how deep and how many values at most. In text
 * that is no JSON this may miscount, and the text is refused either way. */
static int check_limits(const char *text, size_t size, const struct m2se_json_limits *limits,
                        struct m2se_error *error) {
  size_t values = 1;
  uint32_t depth = 0;
  bool in_string = false;
  if (size > limits->bytes_max) {
    return m2se_error_set(error, M2SE_ELIMIT, "JSON text of %zu bytes, more than %zu", size,
                          limits->bytes_max);
  }
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    if (c == '"') {
      in_string = !in_string;
    } else if (in_string) {
      i += c == '\\';
    } else if (c == ']' || c == '}') {
      depth -= depth > 0;
    } else if (c == '[' || c == '{' || c == ',') {
      values++;
      depth += c != ',';
    }
    if (depth > limits->depth_max) {
      return m2se_error_set(error, M2SE_ELIMIT, "byte %zu: nested more than %" PRIu32 " deep", i,
                            limits->depth_max);
    }
  }
  if (values > limits->values_max) {
    return m2se_error_set(error, M2SE_ELIMIT, "%zu JSON values, more than %" PRIu32, values,
                          limits->values_max);
  }
  return 0;
}

int m2se_json_parse(struct m2se_json **root, const char *text, size_t size,
                    const struct m2se_json_limits *limits, struct m2se_error *error) {
  struct m2se_json_limits standard = M2SE_JSON_LIMITS_DEFAULT;
  limits = limits ? limits : &standard;
  assert(limits->depth_max <= DEPTH_MAX);
  *root = NULL;
  int code = check_limits(text, size, limits, error);
  if (code) {
    return code;
  }
  json_error_t reason;
  bool no_memory;
  size_t flags = JSON_REJECT_DUPLICATES | (limits->nul_allowed ? JSON_ALLOW_NUL : 0) |
                 (limits->all_real ? JSON_DECODE_INT_AS_REAL : 0);
  json_t *value = load(size ? text : "", size, flags, &reason, &no_memory);
  if (no_memory) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a JSON text of %zu bytes", size);
  }
  if (!value) {
    return m2se_error_set(error, M2SE_EFORMAT, "line %d column %d: %s", reason.line, reason.column,
                          reason.text);
  }
  *root = (struct m2se_json *)value;
  return 0;
}

void m2se_json_free(struct m2se_json *root) {
  json_decref(theirs(root));
}

/* ---- what is in a tree ---- */

enum m2se_json_type m2se_json_type(const struct m2se_json *value) {
  static const enum m2se_json_type types[] = {
      [JSON_NULL] = M2SE_JSON_NULL,     [JSON_TRUE] = M2SE_JSON_BOOL,       [JSON_FALSE] = M2SE_JSON_BOOL,
      [JSON_REAL] = M2SE_JSON_REAL,     [JSON_INTEGER] = M2SE_JSON_INTEGER, [JSON_STRING] = M2SE_JSON_STRING,
      [JSON_OBJECT] = M2SE_JSON_OBJECT, [JSON_ARRAY] = M2SE_JSON_ARRAY,
  };
  return types[json_typeof(theirs(value))];
}

const char *m2se_json_type_name(const struct m2se_json *value) {
  static const char *const names[] = {
      [M2SE_JSON_NULL] = "null",     [M2SE_JSON_BOOL] = "bool",     [M2SE_JSON_INTEGER] = "whole number",
      [M2SE_JSON_REAL] = "real",     [M2SE_JSON_STRING] = "string", [M2SE_JSON_ARRAY] = "array",
      [M2SE_JSON_OBJECT] = "object",
  };
  return value ? names[m2se_json_type(value)] : "nothing";
}

size_t m2se_json_size(const struct m2se_json *value) {
  return json_is_array(theirs(value)) ? json_array_size(theirs(value)) : json_object_size(theirs(value));
}

const struct m2se_json *m2se_json_get(const struct m2se_json *object, const char *key) {
  return ours(json_object_get(theirs(object), key));
}

const struct m2se_json *m2se_json_at(const struct m2se_json *array, size_t index) {
  return ours(json_array_get(theirs(array), index));
}

bool m2se_json_next(const struct m2se_json *object, struct m2se_json_iterator *iterator) {
  json_t *map = theirs(object);
  void *place = iterator->place ? json_object_iter_next(map, iterator->place) : json_object_iter(map);
  *iterator = (struct m2se_json_iterator){.place = place};
  if (!place) {
    return false;
  }
  iterator->key = json_object_iter_key(place);
  iterator->key_length = json_object_iter_key_len(place);
  iterator->value = ours(json_object_iter_value(place));
  return true;
}

/* ---- typed getters ---- */

static int wrong_type(const struct m2se_json *value, const char *what, const char *wanted,
                      struct m2se_error *error) {
  if (!value) {
    return m2se_error_set(error, M2SE_EMISSING, "%s: missing", what);
  }
  return m2se_error_set(error, M2SE_ETYPE, "%s: %s where %s is needed", what, m2se_json_type_name(value),
                        wanted);
}

/* text: '-' or nothing, then digits. */
static int parse_decimal(const char *text, const char *what, bool *negative, uint64_t *magnitude,
                         struct m2se_error *error) {
  const char *digits = text + (text[0] == '-');
  size_t count = strspn(digits, "0123456789");
  if (count == 0 || digits[count] != '\0') {
    return m2se_error_set(error, M2SE_ETYPE, "%s: \"%.40s\" is not a decimal number", what, text);
  }
  errno = 0;
  unsigned long long number = strtoull(digits, NULL, 10);
  if (errno) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: %.40s does not fit in 64 bits", what, text);
  }
  *magnitude = number;
  *negative = text[0] == '-' && number > 0;
  return 0;
}

/* A whole number of any of the three notations, as sign and magnitude. */
static int as_integer(const struct m2se_json *value, const char *what, bool *negative, uint64_t *magnitude,
                      struct m2se_error *error) {
  if (json_is_integer(theirs(value))) {
    int64_t integer = json_integer_value(theirs(value));
    *negative = integer < 0;
    *magnitude = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
    return 0;
  }
  if (json_is_string(theirs(value))) {
    return parse_decimal(json_string_value(theirs(value)), what, negative, magnitude, error);
  }
  if (!json_is_real(theirs(value))) {
    return wrong_type(value, what, "a whole number", error);
  }
  double real = json_real_value(theirs(value));
  if (real != trunc(real) || fabs(real) > EXACT_DOUBLE_MAX) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: %.17g is not a whole number up to 2^53", what, real);
  }
  *negative = real < 0;
  *magnitude = (uint64_t)fabs(real);
  return 0;
}

int m2se_json_as_int64(const struct m2se_json *value, const char *what, int64_t *number,
                       struct m2se_error *error) {
  bool negative = false;
  uint64_t magnitude = 0;
  int code = as_integer(value, what, &negative, &magnitude, error);
  if (code) {
    return code;
  }
  if (magnitude > (uint64_t)INT64_MAX + negative) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: %s%" PRIu64 " does not fit in 64 bits with a sign", what,
                          negative ? "-" : "", magnitude);
  }
  *number = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
  return 0;
}

int m2se_json_as_uint64(const struct m2se_json *value, const char *what, uint64_t *number,
                        struct m2se_error *error) {
  bool negative = false;
  uint64_t magnitude = 0;
  int code = as_integer(value, what, &negative, &magnitude, error);
  if (code) {
    return code;
  }
  if (negative) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: -%" PRIu64 " is negative", what, magnitude);
  }
  *number = magnitude;
  return 0;
}

int m2se_json_as_string(const struct m2se_json *value, const char *what, const char **string, size_t *length,
                        struct m2se_error *error) {
  if (!json_is_string(theirs(value))) {
    return wrong_type(value, what, "a string", error);
  }
  *string = json_string_value(theirs(value));
  if (length) {
    *length = json_string_length(theirs(value));
  }
  return 0;
}

int m2se_json_as_double(const struct m2se_json *value, const char *what, double *number,
                        struct m2se_error *error) {
  if (!json_is_number(theirs(value))) {
    return wrong_type(value, what, "a number", error);
  }
  *number = json_number_value(theirs(value));
  return 0;
}

int m2se_json_as_bool(const struct m2se_json *value, const char *what, bool *truth,
                      struct m2se_error *error) {
  if (!json_is_boolean(theirs(value))) {
    return wrong_type(value, what, "a bool", error);
  }
  *truth = json_is_true(theirs(value));
  return 0;
}

int m2se_json_as_array(const struct m2se_json *value, const char *what, size_t *size,
                       struct m2se_error *error) {
  if (!json_is_array(theirs(value))) {
    return wrong_type(value, what, "an array", error);
  }
  if (size) {
    *size = json_array_size(theirs(value));
  }
  return 0;
}

int m2se_json_as_object(const struct m2se_json *value, const char *what, struct m2se_error *error) {
  return json_is_object(theirs(value)) ? 0 : wrong_type(value, what, "an object", error);
}

/* ---- writing ---- */

struct m2se_json_writer {
  uint32_t indent;
  uint32_t depth;
  bool failed;
  json_t *root;
  json_t *open[DEPTH_MAX]; /* [depth] the root and, each inside the one before, what is not ended yet */
};

struct m2se_json_writer *m2se_json_writer_new(uint32_t indent) {
  assert(indent <= 8);
  struct m2se_json_writer *writer = calloc(1, sizeof *writer);
  if (writer) {
    writer->indent = indent;
  }
  return writer;
}

void m2se_json_writer_free(struct m2se_json_writer *writer) {
  if (writer) {
    json_decref(writer->root);
    free(writer);
  }
}

/* Any bytes as a string, or NULL: no memory. */
static json_t *text_of(const char *bytes, size_t size) {
  if (m2se_utf8_valid(bytes, size)) {
    return json_stringn(bytes, size);
  }
  char *clean = malloc(3 * size); /* U+FFFD takes 3 bytes */
  size_t used = 0;
  for (size_t i = 0; clean && i < size;) {
    size_t n = m2se_utf8_next(bytes + i, size - i);
    memcpy(clean + used, n ? bytes + i : "\xef\xbf\xbd", n ? n : 3);
    used += n ? n : 3;
    i += n ? n : 1;
  }
  json_t *text = clean ? json_stringn(clean, used) : NULL;
  free(clean);
  return text;
}

/* Takes value over; NULL: there was no memory for it. false: the writer has failed. */
static bool put(struct m2se_json_writer *writer, const char *key, json_t *value) {
  if (!writer || writer->failed || !value) {
    json_decref(value);
    if (writer) {
      writer->failed = true;
    }
    return false;
  }
  if (writer->depth == 0) {
    assert(!key && !writer->root); /* one outermost value, without a key */
    writer->root = value;
    return true;
  }
  json_t *parent = writer->open[writer->depth - 1];
  assert((key != NULL) == json_is_object(parent));
  if (key) {
    json_t *name = text_of(key, strlen(key));
    writer->failed = json_object_set_new(parent, json_string_value(name), value) != 0;
    json_decref(name);
  } else {
    writer->failed = json_array_append_new(parent, value) != 0;
  }
  return !writer->failed;
}

static void put_open(struct m2se_json_writer *writer, const char *key, json_t *list) {
  if (put(writer, key, list)) {
    assert(writer->depth < DEPTH_MAX);
    writer->open[writer->depth++] = list;
  }
}

void m2se_json_put_object(struct m2se_json_writer *writer, const char *key) {
  put_open(writer, key, json_object());
}

void m2se_json_put_array(struct m2se_json_writer *writer, const char *key) {
  put_open(writer, key, json_array());
}

void m2se_json_put_end(struct m2se_json_writer *writer) {
  if (writer && !writer->failed) {
    assert(writer->depth > 0);
    writer->depth--;
  }
}

void m2se_json_put_string(struct m2se_json_writer *writer, const char *key, const char *string,
                          size_t length) {
  put(writer, key, text_of(string, length));
}

void m2se_json_put_text(struct m2se_json_writer *writer, const char *key, const char *text) {
  m2se_json_put_string(writer, key, text, strlen(text));
}

void m2se_json_put_int64(struct m2se_json_writer *writer, const char *key, int64_t number) {
  put(writer, key, json_integer(number));
}

void m2se_json_put_decimal(struct m2se_json_writer *writer, const char *key, uint64_t number) {
  put(writer, key, json_sprintf("%" PRIu64, number));
}

void m2se_json_put_double(struct m2se_json_writer *writer, const char *key, double number) {
  put(writer, key, isfinite(number) ? json_real(number) : json_null());
}

void m2se_json_put_bool(struct m2se_json_writer *writer, const char *key, bool truth) {
  put(writer, key, json_boolean(truth));
}

void m2se_json_put_null(struct m2se_json_writer *writer, const char *key) {
  put(writer, key, json_null());
}

/* json_dumpb, not json_dumps: that one leaves out a key when its buffer cannot grow, and says nothing. */
static char *dump(const json_t *root, size_t flags, size_t *length) {
  size_t size = json_dumpb(root, NULL, 0, flags);
  char *text = size > 0 ? malloc(size + 1) : NULL;
  if (!text || json_dumpb(root, text, size, flags) != size) {
    free(text);
    return NULL;
  }
  text[size] = '\0';
  if (length) {
    *length = size;
  }
  return text;
}

char *m2se_json_finish(struct m2se_json_writer *writer, size_t *length) {
  char *text = NULL;
  if (writer && !writer->failed) {
    assert(writer->depth == 0 && writer->root);
    size_t layout = writer->indent > 0 ? JSON_INDENT(writer->indent) : JSON_COMPACT;
    text = dump(writer->root, layout | JSON_ENCODE_ANY | JSON_REAL_PRECISION(FLOAT_DIGITS), length);
  }
  m2se_json_writer_free(writer);
  return text;
}
