/* JSON, in and out: the one door of the whole project, for files and messages from strangers.
 *
 * DESIGN. jansson reads and writes; what is added are limits, typed getters and errors of this project.
 *
 * Reading: a text is parsed at once into a tree that the caller frees as a whole; everything got from it is
 * borrowed and lives as long as the root. Typed getters take the value and what to call it in an error, and
 * accept NULL (an absent member), so one line does "get, check, say why not":
 *
 *     code = m2se_json_as_int64(m2se_json_get(root, "age"), "age", &age, error);
 *
 * Writing: values are collected and become a text at the end. A failure (memory) sticks, so only
 * m2se_json_finish needs a check.
 *
 * Errors are codes of model/error.h. Trees and writers are independent of one another; each belongs to one
 * thread at a time (a tree may be read by several).
 */
#ifndef M2SE_JSON_H
#define M2SE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

/* ---- Reading ---- */

struct m2se_json;

/* What a text may cost at most. A tree takes some 50 bytes a value (100 a member) and one a byte of text. */
struct m2se_json_limits {
  size_t bytes_max;    /* of the text */
  uint32_t depth_max;  /* of nested objects and arrays, 1..64; the outermost is 1 */
  uint32_t values_max; /* of values, counted by brackets and commas: an upper estimate */
  /* What else is let through, for those who know what to do with it: */
  bool nul_allowed; /* \u0000 in strings (not in keys): only their length tells where they end */
  bool all_real;    /* every number is an M2SE_JSON_REAL, so that none is too large for int64 */
};
#define M2SE_JSON_LIMITS_DEFAULT                                                                             \
  ((struct m2se_json_limits){.bytes_max = 16 << 20, .depth_max = 64, .values_max = 1000000})

enum m2se_json_type {
  M2SE_JSON_NULL,
  M2SE_JSON_BOOL,
  M2SE_JSON_INTEGER, /* a number without fraction or exponent */
  M2SE_JSON_REAL,
  M2SE_JSON_STRING,
  M2SE_JSON_ARRAY,
  M2SE_JSON_OBJECT,
};

/* Parses text[0..size), one object or array with nothing but blanks around it. Refused, with line and column:
 * anything that is not JSON, invalid UTF-8, NUL (raw or \u0000; see nul_allowed), a key that comes twice in
 * its object, an integer beyond int64, a number beyond double (M2SE_EFORMAT); more than the limits allow
 * (M2SE_ELIMIT); M2SE_ENOMEM. limits NULL: the default. The text is not kept. On success *root is the
 * caller's, for m2se_json_free; on failure it is NULL. */
int m2se_json_parse(struct m2se_json **root, const char *text, size_t size,
                    const struct m2se_json_limits *limits, struct m2se_error *error);
void m2se_json_free(struct m2se_json *root); /* NULL: nothing */

enum m2se_json_type m2se_json_type(const struct m2se_json *value);
const char *m2se_json_type_name(const struct m2se_json *value); /* "string", "object", …; NULL: "nothing" */

/* Elements of an array or members of an object; 0 for anything else. */
size_t m2se_json_size(const struct m2se_json *value);
/* Member of an object, or NULL: no such key, or not an object. A member that is null is there, of type
 * M2SE_JSON_NULL. */
const struct m2se_json *m2se_json_get(const struct m2se_json *object, const char *key);
/* Element of an array, or NULL: index too large, or not an array. */
const struct m2se_json *m2se_json_at(const struct m2se_json *array, size_t index);

/* Members in the order of the text; none if it is not an object. Keys hold no NUL. After the last one the
 * iterator is {0} again.
 *
 *     struct m2se_json_iterator member = {0};
 *     while (m2se_json_next(object, &member)) { member.key, member.key_length, member.value ... }
 */
struct m2se_json_iterator {
  const char *key;
  size_t key_length;
  const struct m2se_json *value;
  void *place; /* private */
};
bool m2se_json_next(const struct m2se_json *object, struct m2se_json_iterator *iterator);

/* Typed getters: 0, or M2SE_EMISSING (value NULL), M2SE_ETYPE, M2SE_ERANGE, and the output untouched. `what`
 * names the value in the error's text.
 * - string: NUL-terminated, *length without it (NULL: not wanted); valid UTF-8 with no NUL inside (but see
 * nul_allowed); borrowed.
 * - int64, uint64: a whole number (1e3 and 5.0 too, up to 2^53), or a string of decimal digits, with '-' if
 * negative: protobuf's JSON form writes 64-bit numbers so.
 * - double: any number; finite.
 * - array: *size elements (NULL: not wanted). */
int m2se_json_as_string(const struct m2se_json *value, const char *what, const char **string, size_t *length,
                        struct m2se_error *error);
int m2se_json_as_int64(const struct m2se_json *value, const char *what, int64_t *number,
                       struct m2se_error *error);
int m2se_json_as_uint64(const struct m2se_json *value, const char *what, uint64_t *number,
                        struct m2se_error *error);
int m2se_json_as_double(const struct m2se_json *value, const char *what, double *number,
                        struct m2se_error *error);
int m2se_json_as_bool(const struct m2se_json *value, const char *what, bool *truth, struct m2se_error *error);
int m2se_json_as_array(const struct m2se_json *value, const char *what, size_t *size,
                       struct m2se_error *error);
int m2se_json_as_object(const struct m2se_json *value, const char *what, struct m2se_error *error);

/* ---- Writing ---- */

struct m2se_json_writer;

/* indent 0: one line, no blanks; else that many blanks a level (at most 8). NULL: no memory; every function
 * below then does nothing and finish returns NULL. */
struct m2se_json_writer *m2se_json_writer_new(uint32_t indent);
void m2se_json_writer_free(struct m2se_json_writer *writer); /* to give up; NULL: nothing */

/* Each puts one value. key: NUL-terminated, for a member of an object; NULL for an element of an array and
 * for the outermost value. Breaking that, or nesting deeper than 64, is a bug (assert). A key that comes
 * again replaces the value. Bytes that are not UTF-8 become U+FFFD, so that what comes out is always JSON. */
void m2se_json_put_object(struct m2se_json_writer *writer, const char *key); /* until m2se_json_put_end */
void m2se_json_put_array(struct m2se_json_writer *writer, const char *key);  /* until m2se_json_put_end */
void m2se_json_put_end(struct m2se_json_writer *writer);
void m2se_json_put_text(struct m2se_json_writer *writer, const char *key, const char *text);
void m2se_json_put_string(struct m2se_json_writer *writer, const char *key, const char *string,
                          size_t length);
void m2se_json_put_int64(struct m2se_json_writer *writer, const char *key, int64_t number);
void m2se_json_put_decimal(struct m2se_json_writer *writer, const char *key, uint64_t number); /* "18446…" */
/* 9 significant digits: every float comes back exact. NaN and infinities, which JSON lacks, become null. */
void m2se_json_put_double(struct m2se_json_writer *writer, const char *key, double number);
void m2se_json_put_bool(struct m2se_json_writer *writer, const char *key, bool truth);
void m2se_json_put_null(struct m2se_json_writer *writer, const char *key);

/* The text, NUL-terminated, *length without it (may be NULL); the caller frees it with free(). Frees the
 * writer. NULL: the memory ran out on the way. Open objects or arrays, or no value at all, are a bug. */
char *m2se_json_finish(struct m2se_json_writer *writer, size_t *length);

#endif
