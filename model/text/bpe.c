/* CLIP's normaliser, its split into pieces, and byte-pair merges of one piece in the order of their ranks. */
#include <assert.h>
#include <string.h>

#include "model/text/tokenizer_parts.h"
#include "model/text/unicode.h"

#define NOWHERE UINT32_MAX

/* NFC, then lower case. The reference also makes every run of blanks one blank, which no piece ever holds. */
size_t m2se_bpe_normalize(struct m2se_tokenizer_scratch *scratch, const char *text, size_t size) {
  size_t count = 0, length = 0, lowered = 0;
  uint32_t *work = scratch->spare, *out = scratch->characters;
  for (size_t i = 0; i < size; i += length) {
    assert(count <= M2SE_CHARACTERS_MAX);
    count += m2se_unicode_decompose(m2se_unicode_decode(text + i, size - i, &length), work + count);
    scratch->steps++;
  }
  m2se_unicode_order(work, count, out);
  count = m2se_unicode_compose(work, count);
  for (size_t i = 0; i < count; i++) {
    lowered += m2se_unicode_lower(work[i], out + lowered);
  }
  return lowered;
}

uint32_t m2se_bpe_byte_character(uint8_t byte) {
  if ((byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD)) {
    return byte;
  }
  /* The others, in order, from U+0100 on: 33 below '!', 34 from 0x7F, and the soft hyphen. */
  return 0x100u + (byte <= ' ' ? byte : byte == 0xAD ? 67u : byte - 0x7Fu + 33u);
}

const struct m2se_merge *m2se_bpe_merge(const struct m2se_tokenizer *t, uint32_t left, uint32_t right) {
  uint64_t pair = (uint64_t)left << 32 | right;
  uint32_t mask = t->merges_size - 1;
  uint32_t place = (uint32_t)((pair * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & mask;
  for (; t->merges_size > 0 && t->merges[place].pair != UINT64_MAX; place = (place + 1) & mask) {
    if (t->merges[place].pair == pair) {
      return &t->merges[place];
    }
  }
  return NULL;
}

/* ---- The heap of merges ---- */

static bool is_before(const struct m2se_pending *a, const struct m2se_pending *b) {
  return a->rank < b->rank || (a->rank == b->rank && a->place < b->place);
}

struct heap {
  struct m2se_pending *items;
  size_t count;
  uint64_t *steps;
};

static void heap_push(struct heap *heap, struct m2se_pending item) {
  size_t i = heap->count++;
  assert(i < 2 * M2SE_NORMAL_BYTES_MAX);
  while (i > 0 && is_before(&item, &heap->items[(i - 1) / 2])) {
    heap->items[i] = heap->items[(i - 1) / 2];
    i = (i - 1) / 2;
    ++*heap->steps;
  }
  heap->items[i] = item;
}

static struct m2se_pending heap_pop(struct heap *heap) {
  struct m2se_pending top = heap->items[0], last = heap->items[--heap->count];
  size_t i = 0;
  for (size_t child = 1; child < heap->count; child = 2 * i + 1) {
    if (child + 1 < heap->count && is_before(&heap->items[child + 1], &heap->items[child])) {
      child++;
    }
    if (!is_before(&heap->items[child], &last)) {
      break;
    }
    heap->items[i] = heap->items[child];
    i = child;
    ++*heap->steps;
  }
  heap->items[i] = last;
  return top;
}

static void heap_push_pair(const struct m2se_tokenizer *t, struct heap *heap,
                           const struct m2se_symbol *symbols, uint32_t left) {
  if (left == NOWHERE || symbols[left].after == NOWHERE) {
    return;
  }
  const struct m2se_merge *merge = m2se_bpe_merge(t, symbols[left].id, symbols[symbols[left].after].id);
  if (merge) {
    heap_push(heap, (struct m2se_pending){merge->rank, left, merge->id});
  }
}

/* ---- One piece ---- */

/* The bytes of a piece as symbols; returns how many. A byte that the vocabulary lacks is the unknown token,
 * or nothing if there is none. */
static uint32_t spread(const struct m2se_tokenizer *t, struct m2se_symbol *symbols,
                       const uint32_t *characters, size_t count) {
  uint32_t made = 0;
  for (size_t i = 0; i < count; i++) {
    char bytes[4];
    size_t size = m2se_unicode_encode(characters[i], bytes);
    for (size_t j = 0; j < size; j++) {
      uint32_t id = t->byte_ids[i + 1 == count && j + 1 == size][(uint8_t)bytes[j]];
      id = id == M2SE_TRIE_NONE ? t->unknown_id : id;
      if (id != M2SE_TRIE_NONE) {
        assert(made < M2SE_NORMAL_BYTES_MAX);
        symbols[made] = (struct m2se_symbol){id, made - 1, made + 1}; /* 0 - 1 is NOWHERE */
        made++;
      }
    }
  }
  if (made > 0) {
    symbols[made - 1].after = NOWHERE;
  }
  return made;
}

static void encode_piece(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                         const uint32_t *characters, size_t count, struct m2se_ids *out) {
  struct m2se_symbol *symbols = scratch->symbols;
  struct heap heap = {scratch->heap, 0, &scratch->steps};
  uint32_t made = spread(t, symbols, characters, count);
  scratch->steps += made;
  for (uint32_t i = 0; i < made; i++) {
    heap_push_pair(t, &heap, symbols, i);
  }
  while (heap.count > 0) {
    struct m2se_pending top = heap_pop(&heap);
    struct m2se_symbol *left = &symbols[top.place];
    /* Its neighbour may have changed since, or the symbol itself may be gone: its id is then M2SE_TRIE_NONE.
     */
    if (left->id == M2SE_TRIE_NONE || left->after == NOWHERE) {
      continue;
    }
    struct m2se_symbol *right = &symbols[left->after];
    const struct m2se_merge *merge = m2se_bpe_merge(t, left->id, right->id);
    if (!merge || merge->id != top.id) {
      continue;
    }
    left->id = top.id;
    left->after = right->after;
    right->id = M2SE_TRIE_NONE;
    if (left->after != NOWHERE) {
      symbols[left->after].before = top.place;
    }
    heap_push_pair(t, &heap, symbols, left->before);
    heap_push_pair(t, &heap, symbols, top.place);
  }
  for (uint32_t i = made > 0 ? 0 : NOWHERE; i != NOWHERE; i = symbols[i].after) {
    m2se_ids_put(out, symbols[i].id);
  }
}

/* ---- Pieces ---- */

/* Whether the characters begin with an ASCII string; returns its length, or 0. */
static size_t starts_with(const uint32_t *characters, size_t count, const char *string) {
  size_t size = strlen(string);
  for (size_t i = 0; i < size; i++) {
    if (i >= count || characters[i] != (uint8_t)string[i]) {
      return 0;
    }
  }
  return size;
}

/* A string of the list that the characters begin with: its length, or 0. */
static size_t starts_with_any(const uint32_t *characters, size_t count, const char *const list[]) {
  size_t size = 0;
  for (size_t i = 0; list[i] && size == 0; i++) {
    size = starts_with(characters, count, list[i]);
  }
  return size;
}

enum { BLANK, LETTERS, DIGIT, OTHERS };
static uint32_t piece_class(uint32_t character) {
  uint32_t classes = m2se_unicode_classes(character);
  return classes & M2SE_UNICODE_SPACE    ? BLANK
         : classes & M2SE_UNICODE_LETTER ? LETTERS
         : classes & M2SE_UNICODE_NUMBER ? DIGIT
                                         : OTHERS;
}

/* Length of the piece at the start, as the model's pattern finds it:
 * 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ */
static size_t piece_length(const uint32_t *characters, size_t count, uint32_t class) {
  static const char *const endings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", NULL};
  size_t length = characters[0] == '\'' ? starts_with_any(characters, count, endings) : 0;
  if (length == 0) {
    for (length = 1; class != DIGIT && length < count && piece_class(characters[length]) == class;) {
      length++;
    }
  }
  return length;
}

void m2se_bpe_encode(const struct m2se_tokenizer *t, struct m2se_tokenizer_scratch *scratch,
                     const uint32_t *characters, size_t count, struct m2se_ids *out) {
  static const char *const specials[] = {"<|startoftext|>", "<|endoftext|>", NULL};
  size_t length = 0;
  for (size_t i = 0; i < count && !out->truncated; i += length) {
    uint32_t class = piece_class(characters[i]);
    length = 1;
    scratch->steps++;
    if (class == BLANK) {
      continue;
    }
    if (t->specials_in_split && characters[i] == '<') {
      size_t special = starts_with_any(characters + i, count - i, specials);
      if (special > 0) { /* the byte-level step takes it apart again */
        encode_piece(t, scratch, characters + i, 2, out);
        encode_piece(t, scratch, characters + i + 2, special - 4, out);
        encode_piece(t, scratch, characters + i + special - 2, 2, out);
        length = special;
        continue;
      }
    }
    length = piece_length(characters + i, count - i, class);
    scratch->steps += length;
    encode_piece(t, scratch, characters + i, length, out);
  }
}
