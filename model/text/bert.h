/* BERT and encoders of its shape (MiniLM, BGE): from the ids of a text to one vector.
 *
 * DESIGN. Texts of any lengths are packed behind one another, as many as the scratch has rows for, so nothing
 * is computed for padding. A vector does not depend on the texts around it, except by rounding.
 *
 * A loaded model never changes: any thread may use it, with a scratch of its own.
 */
#ifndef M2SE_BERT_H
#define M2SE_BERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum m2se_pooling {
  M2SE_POOLING_MEAN, /* the mean over all of a text's tokens, special ones too */
  M2SE_POOLING_CLS,  /* the first token */
};

struct m2se_bert;
struct m2se_bert_scratch;

/* Reads `config.json`, the weights (encoder/folder.h) and, if they are there, `1_Pooling/config.json` and
 * `modules.json`. *bert is for m2se_bert_free; NULL on failure. Errors name file, field or tensor, and rule:
 * those of folder.h, and M2SE_ETYPE, M2SE_ERANGE for a configuration that this code does not compute. */
int m2se_bert_load(struct m2se_bert **bert, const char *folder, struct m2se_error *error);
void m2se_bert_free(struct m2se_bert *bert); /* NULL: nothing */

uint32_t m2se_bert_dim(const struct m2se_bert *bert);     /* numbers in a vector */
uint32_t m2se_bert_len_max(const struct m2se_bert *bert); /* ids a text may have */
uint32_t m2se_bert_ids(const struct m2se_bert *bert);     /* every id is less than this */
size_t m2se_bert_bytes(const struct m2se_bert *bert);     /* of its weights */
/* What the folder says: mean, if it has no 1_Pooling; unit vectors, if it has no modules.json. */
enum m2se_pooling m2se_bert_pooling(const struct m2se_bert *bert);
bool m2se_bert_normalizes(const struct m2se_bert *bert);

/* All memory for texts of at most len_max ids, rows_max ids at a time (at least len_max). About 4 (3 dim +
 * max(3 dim, ffn)) bytes a row. NULL: no memory. */
struct m2se_bert_scratch *m2se_bert_scratch_new(const struct m2se_bert *bert, uint32_t rows_max,
                                                uint32_t len_max);
void m2se_bert_scratch_free(struct m2se_bert_scratch *scratch); /* NULL: nothing */

/* vectors [count, dim] of texts whose ids are ids[ptr[i] .. ptr[i+1]), 1..len_max each. normalize: to
 * length 1. 0, or M2SE_ENUMERIC: a vector is not finite. */
int m2se_bert_encode(const struct m2se_bert *bert, struct m2se_bert_scratch *scratch, const uint32_t *ids,
                     const uint32_t *ptr, uint32_t count, enum m2se_pooling pooling, bool normalize,
                     float *vectors, struct m2se_error *error);

/* Floating-point operations of the products in such a call. */
double m2se_bert_flops(const struct m2se_bert *bert, const uint32_t *ptr, uint32_t count,
                       enum m2se_pooling pooling);

#endif
