/* How a parsed JSON value is kept. Private to this folder. */
#ifndef M2SE_JSON_TREE_H
#define M2SE_JSON_TREE_H

#include "model/files/json.h"

/* A tree is one block of memory: its nodes, the root first, and then its strings. */
struct m2se_json {
  enum m2se_json_type type;
  const char *key; /* of a member of an object; else NULL */
  size_t key_length;
  size_t size; /* bytes of a string, values of a list */
  union {
    bool truth;
    int64_t integer;
    double real;
    const char *string;
    const struct m2se_json *list; /* [size] elements or members, in the order of the text */
  } as;
};

/* Of count decimal digits; false: more than 64 bits. */
bool m2se_decimal_magnitude(const char *digits, size_t count, uint64_t *magnitude);
/* false: does not fit. */
bool m2se_decimal_signed(bool negative, uint64_t magnitude, int64_t *number);

#endif
