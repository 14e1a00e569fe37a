/* The rules that a record from a stranger must keep, and what is said of one that breaks them.
 *
 * DESIGN. A refusal is a rule (a stable name: metrics label and reason of a dead letter) and a line of text
 * that names the field and what was found there. The decoders of codec.h apply the rules; what has no decoder
 * (the key of a deletion, an id from a command line) calls m2se_validate_id itself. No state, any thread.
 */
#ifndef M2SE_VALIDATE_H
#define M2SE_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum {
  M2SE_ID_BYTES_MAX = 128,
  M2SE_INTERACTION_BYTES_MAX = 64 << 10, /* a record as it comes from Kafka */
  M2SE_ITEM_BYTES_MAX = 8 << 20,
  M2SE_ITEM_TEXTS_MAX = 256,
  M2SE_ITEM_IMAGES_MAX = 256,
  M2SE_ITEM_ROWS_MAX = 1024, /* of one modality */
  M2SE_ITEM_DIM_MAX = 4096,
  M2SE_IMAGE_PATH_BYTES_MAX = 1024
};
#define M2SE_EVENT_TIME_MS_MAX INT64_C(253402300799999) /* the end of the year 9999 */

/* X(enum, name, text). Names reach dead-letter headers and metrics: extend the list, don't rename. */
#define M2SE_RULES(X)                                                                                        \
  X(M2SE_RULE_SIZE, "size", "the record is no larger than its limit and not empty")                          \
  X(M2SE_RULE_FORMAT, "format", "the record is protobuf, JSON or a Confluent frame with one of them")        \
  X(M2SE_RULE_MEMORY, "memory", "decoding stays within the memory set aside for it")                         \
  X(M2SE_RULE_TEXT, "text", "texts are UTF-8 without NUL")                                                   \
  X(M2SE_RULE_ID, "id", "ids are UTF-8, 1..128 bytes, without control characters")                           \
  X(M2SE_RULE_TIME, "time", "event_time_ms is 1..253402300799999")                                           \
  X(M2SE_RULE_COUNT, "count", "an item has at most 256 texts, 256 images, 1024 rows a modality")             \
  X(M2SE_RULE_IMAGE, "image", "an image has either bytes or a relative path without '..'")                   \
  X(M2SE_RULE_DIM, "dim", "rows have the width that is configured (1..4096)")                                \
  X(M2SE_RULE_LENGTH, "length", "the data of rows is a whole number of rows")                                \
  X(M2SE_RULE_FINITE, "finite", "the numbers of rows are finite")

enum m2se_rule {
#define M2SE_RULE_ENUM(rule, name, text) rule,
  M2SE_RULES(M2SE_RULE_ENUM)
#undef M2SE_RULE_ENUM
      M2SE_RULE_COUNT_OF_ALL
};

const char *m2se_rule_name(enum m2se_rule rule); /* "finite"; static */
const char *m2se_rule_text(enum m2se_rule rule); /* static */

struct m2se_refusal {
  enum m2se_rule rule;
  char text[256]; /* one line of UTF-8; what came from the record is shown escaped and cut */
};

/* Fills the refusal (NULL is allowed) and returns M2SE_EFORMAT (model/error.h). */
#define m2se_refuse(refusal, rule, ...)                                                                      \
  (m2se_refusal_write((refusal), (rule), __VA_ARGS__), m2se_error_returned(M2SE_EFORMAT))
void m2se_refusal_write(struct m2se_refusal *refusal, enum m2se_rule rule, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 0, or M2SE_EFORMAT and why (rules text and id). `what` names the field. Control characters are U+0000..001F
 * and U+007F..009F. */
int m2se_validate_id(const char *id, size_t size, const char *what, struct m2se_refusal *refusal);
/* UTF-8 without NUL; empty is valid. */
int m2se_validate_text(const char *text, size_t size, const char *what, struct m2se_refusal *refusal);

#endif
