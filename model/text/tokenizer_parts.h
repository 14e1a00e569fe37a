/* What the files of the tokenizer share; nobody else includes this.
 *
 * tokenizer.c      splits a text at its special tokens and calls the other two for what lies between
 * wordpiece.c      BERT's normaliser and words
 * bpe.c            CLIP's
 * tokenizer_load.c options, from tokenizer.json or the files before it; tokenizer_words.c vocabulary and
 * merges
 */
#ifndef M2SE_TOKENIZER_PARTS_H
#define M2SE_TOKENIZER_PARTS_H

#include "model/files/json.h"
#include "model/text/tokenizer.h"
#include "model/text/trie.h"

#define M2SE_WORD_CHARACTERS_MAX 1000 /* what max_input_chars_per_word may be */

/* Characters that a text can become: decomposed, 2 bytes can make 3. */
#define M2SE_CHARACTERS_MAX (M2SE_TOKENIZER_TEXT_BYTES_MAX / 2 * 3)
#define M2SE_CHARACTERS_ROOM (M2SE_CHARACTERS_MAX + 8) /* and what the last one may write beyond */
/* Bytes that its composed and lower-cased form can have: a broken byte makes 3. */
#define M2SE_NORMAL_BYTES_MAX (3 * M2SE_TOKENIZER_TEXT_BYTES_MAX)

struct m2se_merge { /* two neighbours become one; found by their pair of ids */
  uint64_t pair;    /* left << 32 | right; UINT64_MAX: free */
  uint32_t rank, id;
};

struct m2se_tokenizer {
  enum m2se_tokenizer_kind kind;
  uint32_t max_ids, first_id, last_id, unknown_id; /* unknown_id: M2SE_TRIE_NONE if BPE has none */
  /* Words of the vocabulary, and added tokens, which are looked for in the text as it came or as normalised.
   */
  struct m2se_trie words, added_raw, added_normal;
  /* Every id's own token: texts holds them all, each with a NUL behind it; SIZE_MAX: no such token. */
  char *texts;
  size_t texts_size, texts_room;
  struct m2se_token {
    size_t begin;
    uint32_t size;
  } * tokens;
  uint32_t ids, tokens_room;
  /* WordPiece */
  bool clean, chinese, strip_accents, lower;
  uint32_t word_characters_max, continuing_node; /* of `words`, behind "##" */
  /* BPE */
  bool specials_in_split;
  uint32_t byte_ids[2][256]; /* of a byte within a piece and at its end; M2SE_TRIE_NONE: none */
  struct m2se_merge *merges; /* merges_size, a power of two */
  uint32_t merges_size;
};

struct m2se_symbol { /* of a piece being merged: a doubly linked list in an array */
  uint32_t id, before, after;
};
struct m2se_pending { /* a merge that may be done; the smallest rank first, then the leftmost */
  uint32_t rank, place, id;
};
struct m2se_tokenizer_scratch {
  uint32_t characters[M2SE_CHARACTERS_ROOM], spare[M2SE_CHARACTERS_ROOM];
  struct m2se_symbol symbols[M2SE_NORMAL_BYTES_MAX];
  struct m2se_pending heap[2 * M2SE_NORMAL_BYTES_MAX];
  uint64_t steps; /* counted for the tests: characters looked at, trie edges walked, heap moves */
};

/* Where ids go. Once full, what follows only says that something was cut off. */
struct m2se_ids {
  uint32_t *ids, count, max;
  bool truncated;
};
static inline void m2se_ids_put(struct m2se_ids *out, uint32_t id) {
  if (out->count < out->max) {
    out->ids[out->count++] = id;
  } else {
    out->truncated = true;
  }
}

/* Normalise text[0..size) into scratch->characters; return how many. */
size_t m2se_wordpiece_normalize(const struct m2se_tokenizer *tokenizer,
                                struct m2se_tokenizer_scratch *scratch, const char *text, size_t size);
size_t m2se_bpe_normalize(struct m2se_tokenizer_scratch *scratch, const char *text, size_t size);
/* Ids of normalised characters; they stop early once `out` has cut something off. */
void m2se_wordpiece_encode(const struct m2se_tokenizer *tokenizer, struct m2se_tokenizer_scratch *scratch,
                           const uint32_t *characters, size_t count, struct m2se_ids *out);
void m2se_bpe_encode(const struct m2se_tokenizer *tokenizer, struct m2se_tokenizer_scratch *scratch,
                     const uint32_t *characters, size_t count, struct m2se_ids *out);
/* The merge of two neighbours, or NULL. */
const struct m2se_merge *m2se_bpe_merge(const struct m2se_tokenizer *tokenizer, uint32_t left,
                                        uint32_t right);
/* The visible character by which vocabularies write a byte. */
uint32_t m2se_bpe_byte_character(uint8_t byte);

/* Loading: names id as its token (once; again with the same text is fine), M2SE_ELIMIT, M2SE_ENOMEM. */
int m2se_tokens_name(struct m2se_tokenizer *tokenizer, const char *text, size_t size, uint32_t id,
                     struct m2se_error *error);
/* A word of the model's vocabulary. */
int m2se_tokens_add_word(struct m2se_tokenizer *tokenizer, const char *text, size_t size, uint32_t id,
                         struct m2se_error *error);
int m2se_tokens_read_lines(struct m2se_tokenizer *tokenizer, const char *folder, struct m2se_error *error);
int m2se_tokens_read_object(struct m2se_tokenizer *tokenizer, const struct m2se_json *vocabulary,
                            struct m2se_error *error);
int m2se_merges_read_lines(struct m2se_tokenizer *tokenizer, const char *folder, struct m2se_error *error);
int m2se_merges_read_array(struct m2se_tokenizer *tokenizer, const struct m2se_json *merges,
                           struct m2se_error *error);
void m2se_tokens_find_bytes(struct m2se_tokenizer *tokenizer);

#endif
