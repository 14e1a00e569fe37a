/* From a text to the numbers that a BERT or CLIP model reads, as the model's own Hugging Face tokenizer gives
 * them: WordPiece (BERT, MiniLM, BGE) or CLIP's byte-level BPE, told apart by the folder's files.
 *
 * DESIGN. A loaded tokenizer never changes: any number of threads may use it at once, each with a scratch of
 * its own, which holds all the memory that encoding needs. Encoding cannot fail: any bytes are a text
 * (invalid UTF-8 is read as U+FFFD, one for each broken part), and its time is at most proportional to the
 * text's size (BPE: times its logarithm). Loading reads the folder's files, no others.
 */
#ifndef M2SE_TOKENIZER_H
#define M2SE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

/* Bytes of a text that are read at most: what follows is not looked at. Even of texts in languages that the
 * vocabulary lacks, this is many times what a model takes. */
#define M2SE_TOKENIZER_TEXT_BYTES_MAX (64 << 10)
/* No model takes more ids than this, whatever its configuration says. */
#define M2SE_TOKENIZER_IDS_MAX 512

enum m2se_tokenizer_kind {
  M2SE_TOKENIZER_WORDPIECE, /* BERT: [CLS] text [SEP] */
  M2SE_TOKENIZER_BPE,       /* CLIP: <|startoftext|> text <|endoftext|> */
};

struct m2se_tokenizer;

/* Reads the tokenizer of a model's folder:
 * - `tokenizer.json`, or else `vocab.txt` (BERT) or `vocab.json` and `merges.txt` (CLIP), with
 *   `tokenizer_config.json`'s do_lower_case, strip_accents and tokenize_chinese_chars for `vocab.txt`;
 * - the limit, in this order: `sentence_bert_config.json` max_seq_length, `tokenizer_config.json`
 *   model_max_length, `config.json` max_position_embeddings (of CLIP: text_config's, 77 without one), never
 *   above what config.json says, nor above M2SE_TOKENIZER_IDS_MAX. tokenizer.json's own padding and
 *   truncation are ignored: they say how somebody once called it.
 * On success *tokenizer is the caller's, for m2se_tokenizer_free; on failure NULL, and the error names file
 * and line or field: M2SE_EMISSING (no such file or token), M2SE_EFORMAT, M2SE_ETYPE, M2SE_ERANGE (an option
 * that is none of the supported), M2SE_ELIMIT, M2SE_EIO, M2SE_ENOMEM. */
int m2se_tokenizer_load(struct m2se_tokenizer **tokenizer, const char *folder, struct m2se_error *error);
void m2se_tokenizer_free(struct m2se_tokenizer *tokenizer); /* NULL: nothing */

enum m2se_tokenizer_kind m2se_tokenizer_kind(const struct m2se_tokenizer *tokenizer);
uint32_t m2se_tokenizer_max_ids(const struct m2se_tokenizer *tokenizer);  /* the limit above, 2.. */
uint32_t m2se_tokenizer_ids(const struct m2se_tokenizer *tokenizer);      /* every id is less than this */
uint32_t m2se_tokenizer_first_id(const struct m2se_tokenizer *tokenizer); /* [CLS] or start of text */
uint32_t m2se_tokenizer_last_id(const struct m2se_tokenizer *tokenizer);  /* [SEP] or end of text */
/* Memory that it holds: some 70 bytes a token (2.1 MB for BERT's 30,522), and 32 to 64 a merge. */
size_t m2se_tokenizer_bytes(const struct m2se_tokenizer *tokenizer);
/* The token of an id as the vocabulary writes it ("##ing", "dog</w>"), NUL-terminated, size without it;
 * borrowed from the tokenizer. NULL: no token has this id. */
const char *m2se_tokenizer_token(const struct m2se_tokenizer *tokenizer, uint32_t id, size_t *size);

/* What encoding needs: 7.5 MiB, of which a short text touches a few pages, for one thread at a time and any
 * tokenizer. NULL: no memory. */
struct m2se_tokenizer_scratch;
struct m2se_tokenizer_scratch *m2se_tokenizer_scratch_new(void);
void m2se_tokenizer_scratch_free(struct m2se_tokenizer_scratch *scratch); /* NULL: nothing */
/* Steps taken with it so far (characters looked at, edges walked, moves in a heap): proves the linear time.
 */
uint64_t m2se_tokenizer_scratch_steps(const struct m2se_tokenizer_scratch *scratch);

/* Writes the ids of text[0..size) between the first and the last special id, and returns how many there are
 * in all, 2..max_ids: what does not fit is cut off at its end. max_ids: at least 2, the size of ids[].
 * *truncated (NULL: not wanted) says whether something was cut off. Allocates nothing. Any thread. */
uint32_t m2se_tokenizer_encode(const struct m2se_tokenizer *tokenizer, struct m2se_tokenizer_scratch *scratch,
                               const char *text, size_t size, uint32_t max_ids, uint32_t *ids,
                               bool *truncated);

#endif
