/* A dictionary's words that fit a picture best, by CLIP.
 *
 * DESIGN. Every word goes through the text tower once, in up to three templates ("a photo of a {}"), whose
 * unit vectors are averaged; what comes out is kept in a file in the model's folder, with the digests of
 * model and dictionary, and read the next time. A picture then costs one product.
 *
 * Loaded words never change: any thread may ask.
 */
#ifndef M2SE_WORDS_H
#define M2SE_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum {
  M2SE_WORDS_MAX = 100000,
  M2SE_WORD_BYTES_MAX = 200,
  M2SE_WORD_TEMPLATES_MAX = 3,
  M2SE_WORDS_BEST_MAX = 100
};

struct m2se_words;

struct m2se_word_score {
  uint32_t word; /* 0 .. count - 1, in the dictionary's order */
  float score;   /* cosine of word and picture */
};

/* folder: of a CLIP; dictionary: a file with one word (or phrase) a line, blank lines skipped.
 * templates[count]: texts with "{}" where the word goes, 1..M2SE_WORD_TEMPLATES_MAX; count 0: the word alone.
 * Encoding some thousand words takes tens of seconds; a file that cannot be kept (a folder that may not be
 * written) is no error: see m2se_words_kept. *words is for m2se_words_free; NULL on failure. Errors name file
 * and line, or as clip.h and tokenizer.h: M2SE_EMISSING, M2SE_EFORMAT (not UTF-8), M2SE_ELIMIT, M2SE_EINVAL
 * (a template without {}), M2SE_EIO, M2SE_ENOMEM. */
int m2se_words_load(struct m2se_words **words, const char *folder, const char *dictionary,
                    const char *const *templates, uint32_t count, struct m2se_error *error);
/* templates as one text, separated by '|', which is cut in place; "": none. Returns how many, of too many
 * only so many that m2se_words_load refuses them. */
uint32_t m2se_words_cut_templates(char *text, const char *templates[M2SE_WORD_TEMPLATES_MAX + 1]);
void m2se_words_free(struct m2se_words *words); /* NULL: nothing */

uint32_t m2se_words_count(const struct m2se_words *words);
const char *m2se_words_at(const struct m2se_words *words, uint32_t index); /* borrowed */
uint32_t m2se_words_dim(const struct m2se_words *words);
bool m2se_words_computed(const struct m2se_words *words); /* by this load, not read from the file */
bool m2se_words_kept(const struct m2se_words *words);     /* the file is there for the next load */

/* The n best words for a picture's unit vector, best first, equal ones in the dictionary's order: best[n],
 * n at most M2SE_WORDS_BEST_MAX. Returns how many there are: n, or fewer if the dictionary has fewer. */
uint32_t m2se_words_best(const struct m2se_words *words, const float *picture, uint32_t n,
                         struct m2se_word_score *best);

/* Those words joined by blanks: text[room] with a NUL, room at least n * (M2SE_WORD_BYTES_MAX + 1). Returns
 * the length. */
size_t m2se_words_join(const struct m2se_words *words, const struct m2se_word_score *best, uint32_t n,
                       char *text, size_t room);

#endif
