/* A text is split at its special tokens; WordPiece or BPE encode what lies between. */
#include "model/text/tokenizer.h"

#include <assert.h>
#include <stdlib.h>

#include "model/text/tokenizer_parts.h"
#include "model/text/unicode.h"

void m2se_tokenizer_free(struct m2se_tokenizer *t) {
  if (!t) {
    return;
  }
  m2se_trie_free(&t->words);
  m2se_trie_free(&t->added_raw);
  m2se_trie_free(&t->added_normal);
  free(t->texts);
  free(t->tokens);
  free(t->merges);
  free(t);
}

enum m2se_tokenizer_kind m2se_tokenizer_kind(const struct m2se_tokenizer *t) {
  return t->kind;
}

uint32_t m2se_tokenizer_max_ids(const struct m2se_tokenizer *t) {
  return t->max_ids;
}

uint32_t m2se_tokenizer_ids(const struct m2se_tokenizer *t) {
  return t->ids;
}

uint32_t m2se_tokenizer_first_id(const struct m2se_tokenizer *t) {
  return t->first_id;
}

uint32_t m2se_tokenizer_last_id(const struct m2se_tokenizer *t) {
  return t->last_id;
}

static size_t trie_bytes(const struct m2se_trie *trie) {
  return trie->edges_size * sizeof(trie->edges[0]) + trie->values_size * sizeof(trie->values[0]);
}

size_t m2se_tokenizer_bytes(const struct m2se_tokenizer *t) {
  return sizeof(*t) + trie_bytes(&t->words) + trie_bytes(&t->added_raw) + trie_bytes(&t->added_normal) +
         t->texts_room + t->tokens_room * sizeof(t->tokens[0]) + t->merges_size * sizeof(t->merges[0]);
}

const char *m2se_tokenizer_token(const struct m2se_tokenizer *t, uint32_t id, size_t *size) {
  bool is_there = id < t->ids && t->tokens[id].begin != SIZE_MAX;
  *size = is_there ? t->tokens[id].size : 0;
  return is_there ? t->texts + t->tokens[id].begin : NULL;
}

struct m2se_tokenizer_scratch *m2se_tokenizer_scratch_new(void) {
  struct m2se_tokenizer_scratch *scratch = malloc(sizeof(*scratch));
  if (scratch) {
    scratch->steps = 0;
  }
  return scratch;
}

void m2se_tokenizer_scratch_free(struct m2se_tokenizer_scratch *scratch) {
  free(scratch);
}

uint64_t m2se_tokenizer_scratch_steps(const struct m2se_tokenizer_scratch *scratch) {
  return scratch->steps;
}

/* The longest added token at the start of normalised characters: how many it takes, 0 if there is none. */
static size_t find_normal(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                          const uint32_t *characters, size_t count, uint32_t *id) {
  size_t found = 0;
  uint32_t node = M2SE_TRIE_ROOT;
  for (size_t i = 0; i < count && node != M2SE_TRIE_NONE; i++) {
    char bytes[4];
    size_t size = m2se_unicode_encode(characters[i], bytes);
    for (size_t j = 0; j < size && node != M2SE_TRIE_NONE; j++) {
      node = m2se_trie_step(&t->added_normal, node, (uint8_t)bytes[j]);
      scratch->steps++;
    }
    if (node != M2SE_TRIE_NONE && m2se_trie_value(&t->added_normal, node) != M2SE_TRIE_NONE) {
      *id = m2se_trie_value(&t->added_normal, node);
      found = i + 1;
    }
  }
  return found;
}

static void encode_normal(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                          const uint32_t *characters, size_t count, struct m2se_ids *out) {
  if (t->kind == M2SE_TOKENIZER_WORDPIECE) {
    m2se_wordpiece_encode(t, scratch, characters, count, out);
  } else {
    m2se_bpe_encode(t, scratch, characters, count, out);
  }
}

/* Text without a raw added token in it. */
static void encode_between(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                           const char *text, size_t size, struct m2se_ids *out) {
  const uint32_t *characters = scratch->characters;
  size_t count = t->kind == M2SE_TOKENIZER_WORDPIECE ? m2se_wordpiece_normalize(t, scratch, text, size)
                                                     : m2se_bpe_normalize(scratch, text, size);
  size_t begin = 0;
  for (size_t i = 0; i < count && t->added_normal.nodes > 0;) {
    uint32_t id = 0;
    size_t found = find_normal(t, scratch, characters + i, count - i, &id);
    if (found == 0) {
      i++;
      continue;
    }
    encode_normal(t, scratch, characters + begin, i - begin, out);
    m2se_ids_put(out, id);
    begin = i += found;
  }
  encode_normal(t, scratch, characters + begin, count - begin, out);
}

/* The longest raw added token at the start of text: its bytes, 0 if there is none. */
static size_t find_raw(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                       const char *text, size_t size, uint32_t *id) {
  size_t found = 0;
  uint32_t node = M2SE_TRIE_ROOT;
  for (size_t i = 0; i < size && node != M2SE_TRIE_NONE; i++) {
    node = m2se_trie_step(&t->added_raw, node, (uint8_t)text[i]);
    scratch->steps++;
    if (node != M2SE_TRIE_NONE && m2se_trie_value(&t->added_raw, node) != M2SE_TRIE_NONE) {
      *id = m2se_trie_value(&t->added_raw, node);
      found = i + 1;
    }
  }
  return found;
}

/* As much of the text as is read, without a piece of a character at its end. */
static size_t cut(const char *text, size_t size) {
  if (size <= M2SE_TOKENIZER_TEXT_BYTES_MAX) {
    return size;
  }
  size = M2SE_TOKENIZER_TEXT_BYTES_MAX;
  for (int back = 0; back < 3 && ((uint8_t)text[size] & 0xC0) == 0x80; back++) {
    size--;
  }
  return size;
}

uint32_t m2se_tokenizer_encode(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                               const char *text, size_t size, uint32_t max_ids, uint32_t *ids,
                               bool *truncated) {
  assert(max_ids >= 2);
  size_t read = cut(text, size), begin = 0;
  struct m2se_ids out = {ids, 1, max_ids - 1, read < size};
  ids[0] = t->first_id;
  for (size_t i = 0; i < read && t->added_raw.nodes > 0;) {
    uint32_t id = 0;
    size_t found = find_raw(t, scratch, text + i, read - i, &id);
    if (found == 0) {
      i++;
      continue;
    }
    encode_between(t, scratch, text + begin, i - begin, &out);
    m2se_ids_put(&out, id);
    begin = i += found;
  }
  encode_between(t, scratch, text + begin, read - begin, &out);
  ids[out.count++] = t->last_id;
  if (truncated) {
    *truncated = out.truncated;
  }
  return out.count;
}
