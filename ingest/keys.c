#include "ingest/keys.h"

#include <assert.h>
#include <string.h>

static const struct {
  const char *name;
  bool has_id;
} kinds[M2SE_KEY_KINDS] = {
    [M2SE_KEY_SEQUENCE] = {"seq:", true},  [M2SE_KEY_USER] = {"user:", true},
    [M2SE_KEY_ITEM] = {"item:", true},     [M2SE_KEY_NEAR] = {"near:", true},
    [M2SE_KEY_MODEL] = {"model", false},   [M2SE_KEY_STATUS] = {"status", false},
    [M2SE_KEY_MARKER] = {"marker", false}, [M2SE_KEY_LEASE] = {"lease", false},
};

int m2se_key_check_prefix(const char *prefix, struct m2se_error *error) {
  size_t size = strlen(prefix);
  if (size > M2SE_KEY_PREFIX_MAX)
    return m2se_error_set(error, M2SE_EINVAL, "the key prefix is longer than %d bytes", M2SE_KEY_PREFIX_MAX);
  for (size_t i = 0; i < size; i++)
    if (prefix[i] == '{' || prefix[i] == '}' || (unsigned char)prefix[i] <= ' ' || prefix[i] == 0x7f)
      return m2se_error_set(error, M2SE_EINVAL,
                            "the key prefix has a brace, blank or control character at byte %zu", i);
  return 0;
}

static void append(struct m2se_key *key, const char *bytes, size_t size) {
  assert(key->size + size <= M2SE_KEY_BYTES_MAX);
  memcpy(key->bytes + key->size, bytes, size);
  key->size += (uint32_t)size;
}

static void append_encoded(struct m2se_key *key, const char *bytes, size_t size, const char *special) {
  static const char digits[] = "0123456789ABCDEF";
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)bytes[i];
    if (c && strchr(special, c))
      append(key, (char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
    else
      append(key, bytes + i, 1);
  }
}

void m2se_key_build(struct m2se_key *key, const char *prefix, enum m2se_key_kind kind, const char *id,
                    size_t id_size) {
  assert(kind < M2SE_KEY_KINDS && id_size <= M2SE_ID_BYTES_MAX && (id_size > 0) == kinds[kind].has_id);
  key->size = 0;
  append(key, prefix, strlen(prefix));
  append(key, kinds[kind].name, strlen(kinds[kind].name));
  append_encoded(key, id, id_size, "%{}");
  key->bytes[key->size] = 0;
}

void m2se_key_pattern(struct m2se_key *pattern, const char *prefix, enum m2se_key_kind kind) {
  assert(kind < M2SE_KEY_KINDS && kinds[kind].has_id);
  pattern->size = 0;
  for (const char *c = prefix; *c; c++) {
    if (strchr("*?[]^\\", *c)) /* what the pattern language would read as more than itself */
      append(pattern, "\\", 1);
    append(pattern, c, 1);
  }
  append(pattern, kinds[kind].name, strlen(kinds[kind].name));
  append(pattern, "*", 1);
  pattern->bytes[pattern->size] = 0;
}

bool m2se_key_parse(const char *prefix, enum m2se_key_kind kind, const char *key, size_t key_size,
                    char id[M2SE_ID_BYTES_MAX + 1], uint32_t *id_size) {
  assert(kind < M2SE_KEY_KINDS && kinds[kind].has_id);
  size_t prefix_size = strlen(prefix), name_size = strlen(kinds[kind].name);
  if (key_size <= prefix_size + name_size || memcmp(key, prefix, prefix_size) != 0 ||
      memcmp(key + prefix_size, kinds[kind].name, name_size) != 0)
    return false;
  uint32_t size = 0;
  for (size_t i = prefix_size + name_size; i < key_size; i++) {
    char c = key[i];
    if (c == '{' || c == '}' || size == M2SE_ID_BYTES_MAX)
      return false;
    if (c == '%') { /* only what m2se_key_build writes: one id has one key */
      if (key_size - i < 3)
        return false;
      const char *hex = key + i + 1;
      c = !memcmp(hex, "25", 2) ? '%' : !memcmp(hex, "7B", 2) ? '{' : !memcmp(hex, "7D", 2) ? '}' : 0;
      if (!c)
        return false;
      i += 2;
    }
    id[size++] = c;
  }
  id[size] = 0;
  *id_size = size;
  return true;
}
