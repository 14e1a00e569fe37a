/* The names of the keys in Redis: prefix, kind, id. In an id, '%', '{' and '}' are percent-encoded, so that
 * no id can choose the hash slot of its key; all else stands as it is. Pure; any thread. */
#ifndef M2SE_KEYS_H
#define M2SE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

#include "ingest/validate.h"

enum { M2SE_KEY_PREFIX_MAX = 64, M2SE_KEY_BYTES_MAX = 64 + 8 + 3 * 128 };

enum m2se_key_kind { /* with an id: "<prefix>seq:<id>"; those from MODEL on have none: "<prefix>model" */
                     M2SE_KEY_SEQUENCE,
                     M2SE_KEY_USER,
                     M2SE_KEY_ITEM,
                     M2SE_KEY_NEAR,
                     M2SE_KEY_MODEL,
                     M2SE_KEY_STATUS,
                     M2SE_KEY_MARKER,
                     M2SE_KEY_LEASE,
                     M2SE_KEY_KINDS
};

struct m2se_key {
  uint32_t size;
  char bytes[M2SE_KEY_BYTES_MAX + 1]; /* NUL-terminated behind size */
};

/* 0, or M2SE_EINVAL: longer than M2SE_KEY_PREFIX_MAX, or has braces, blanks or control characters. */
int m2se_key_check_prefix(const char *prefix, struct m2se_error *error);

/* prefix has been checked; id has 1..M2SE_ID_BYTES_MAX bytes (0 and NULL for the kinds without). Both
 * asserted. */
void m2se_key_build(struct m2se_key *key, const char *prefix, enum m2se_key_kind kind, const char *id,
                    size_t id_size);

/* The pattern for SCAN that matches all keys of a kind that has ids. */
void m2se_key_pattern(struct m2se_key *pattern, const char *prefix, enum m2se_key_kind kind);

/* The id within a key of this prefix and kind, decoded into id, NUL-terminated. false: another kind of key.
 */
bool m2se_key_parse(const char *prefix, enum m2se_key_kind kind, const char *key, size_t key_size,
                    char id[M2SE_ID_BYTES_MAX + 1], uint32_t *id_size);

#endif
