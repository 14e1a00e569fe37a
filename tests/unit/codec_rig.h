/* What the tests of the decoders share. Include after cmocka.h. */
#ifndef M2SE_CODEC_RIG_H
#define M2SE_CODEC_RIG_H

#include <stdlib.h>
#include <string.h>

#include "ingest/codec.h"

/* A copy of exactly that size: reading past it is seen by AddressSanitizer. */
static inline uint8_t *exact_copy(const void *value, size_t size) {
  uint8_t *copy = malloc(size ? size : 1);
  assert_non_null(copy);
  if (size)
    memcpy(copy, value, size);
  return copy;
}

/* Overwritten first: whoever kept a view of it holds nonsense. */
static inline void destroy_copy(uint8_t *copy, size_t size) {
  memset(copy, 0xEE, size);
  free(copy);
}

static inline void check_refusal(int code, const struct m2se_refusal *refusal, enum m2se_rule rule,
                                 const char *why) {
  if (code == 0)
    fail_msg("accepted, expected rule %s: \"%s\"", m2se_rule_name(rule), why);
  if (code != M2SE_EFORMAT || refusal->rule != rule || !strstr(refusal->text, why))
    fail_msg("%d, rule %s: \"%s\", expected rule %s: \"%s\"", code, m2se_rule_name(refusal->rule),
             refusal->text, m2se_rule_name(rule), why);
}

static inline void check_bytes(struct m2se_bytes bytes, const char *expected) {
  assert_string_equal(bytes.data, expected);
  assert_int_equal(bytes.size, strlen(expected));
}

#endif
