/* BERT's normaliser, split into words, and longest pieces first. */
#include <assert.h>

#include "model/text/tokenizer_parts.h"
#include "model/text/unicode.h"

/* Adds what a character becomes, but for accents and, where they are stripped, lower case: those wait until
 * all is in canonical order. */
static size_t put(const struct m2se_tokenizer *t, uint32_t character, uint32_t *out) {
  if (t->strip_accents) {
    return m2se_unicode_decompose(character, out);
  }
  if (t->lower) {
    return m2se_unicode_lower(character, out);
  }
  out[0] = character;
  return 1;
}

/* Drops accents of decomposed characters and lowers the rest, in place: none becomes two, because the only
 * one that would is decomposed. */
static size_t strip(const struct m2se_tokenizer *t, uint32_t *characters, size_t count) {
  size_t kept = 0;
  for (size_t i = 0; i < count; i++) {
    if (m2se_unicode_classes(characters[i]) & M2SE_UNICODE_MARK) {
      continue;
    }
    uint32_t lower[M2SE_UNICODE_LOWER_MAX] = {characters[i]};
    if (t->lower) {
      (void)m2se_unicode_lower(characters[i], lower);
    }
    characters[kept++] = lower[0];
  }
  return kept;
}

size_t m2se_wordpiece_normalize(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                                const char *text, size_t size) {
  size_t count = 0, length = 0;
  uint32_t *out = scratch->characters;
  for (size_t i = 0; i < size; i += length) {
    uint32_t character = m2se_unicode_decode(text + i, size - i, &length);
    scratch->steps++;
    assert(count <= M2SE_CHARACTERS_MAX);
    if (t->clean) {
      uint32_t classes = m2se_unicode_classes(character);
      bool blank = character == '\t' || character == '\n' || character == '\r';
      if (character == 0 || character == M2SE_UNICODE_BROKEN ||
          (!blank && (classes & M2SE_UNICODE_CONTROL))) {
        continue;
      }
      character = classes & M2SE_UNICODE_SPACE ? ' ' : character;
    }
    if (t->chinese && m2se_unicode_is_chinese(character)) {
      out[count++] = ' ';
      count += put(t, character, out + count);
      out[count++] = ' ';
    } else {
      count += put(t, character, out + count);
    }
  }
  if (t->strip_accents) {
    m2se_unicode_order(out, count, scratch->spare);
    count = strip(t, out, count);
  }
  return count;
}

/* The longest pieces from the left; a word of which something is left over is unknown as a whole. */
static void encode_word(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                        const uint32_t *characters, size_t count, struct m2se_ids *out) {
  if (count > t->word_characters_max) {
    m2se_ids_put(out, t->unknown_id);
    return;
  }
  char bytes[4 * M2SE_WORD_CHARACTERS_MAX];
  uint32_t pieces[4 * M2SE_WORD_CHARACTERS_MAX];
  size_t size = 0, found = 0;
  for (size_t i = 0; i < count; i++) {
    size += m2se_unicode_encode(characters[i], bytes + size);
  }
  for (size_t begin = 0; begin < size;) {
    size_t end = begin;
    uint32_t node = begin == 0 ? M2SE_TRIE_ROOT : t->continuing_node, id = M2SE_TRIE_NONE;
    for (size_t i = begin; i < size && node != M2SE_TRIE_NONE; i++) {
      node = m2se_trie_step(&t->words, node, (uint8_t)bytes[i]);
      scratch->steps++;
      if (node != M2SE_TRIE_NONE && m2se_trie_value(&t->words, node) != M2SE_TRIE_NONE) {
        id = m2se_trie_value(&t->words, node);
        end = i + 1;
      }
    }
    if (id == M2SE_TRIE_NONE) {
      m2se_ids_put(out, t->unknown_id);
      return;
    }
    pieces[found++] = id;
    begin = end;
  }
  for (size_t i = 0; i < found; i++) {
    m2se_ids_put(out, pieces[i]);
  }
}

void m2se_wordpiece_encode(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                           const uint32_t *characters, size_t count, struct m2se_ids *out) {
  const uint32_t apart = M2SE_UNICODE_SPACE | M2SE_UNICODE_PUNCTUATION;
  for (size_t i = 0; i < count && !out->truncated;) {
    uint32_t classes = m2se_unicode_classes(characters[i]);
    size_t begin = i++;
    scratch->steps++;
    if (classes & M2SE_UNICODE_SPACE) {
      continue;
    }
    if (!(classes & M2SE_UNICODE_PUNCTUATION)) {
      while (i < count && !(m2se_unicode_classes(characters[i]) & apart)) {
        i++;
        scratch->steps++;
      }
    }
    encode_word(t, scratch, characters + begin, i - begin, out);
  }
}
