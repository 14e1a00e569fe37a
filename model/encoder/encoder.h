/* The layers that BERT and CLIP's two towers share: a transformer encoder for inference.
 *
 * DESIGN. Sequences lie behind one another without padding: R rows in all, sequence s being rows
 * ptr[s] .. ptr[s+1]-1. What looks at one row at a time (products, LayerNorm, GELU) takes all rows at once,
 * attention goes sequence by sequence. A model's sum over its last layer often wants one row of a sequence
 * only ([CLS], the end of a text): then the last layer computes no more than that row needs.
 *
 *   post-norm (BERT)                              pre-norm (CLIP)
 *     x = LayerNorm1(x + attention(x))              x = x + attention(LayerNorm1(x))
 *     x = LayerNorm2(x + down(act(up(x))))          x = x + down(act(up(LayerNorm2(x))))
 *
 * A loaded encoder never changes: any number of threads may use it, each with a scratch of its own, which
 * holds all memory that a call needs. Products go through OpenBLAS with one thread a caller.
 */
#ifndef M2SE_ENCODER_H
#define M2SE_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/encoder/folder.h"
#include "model/error.h"

enum m2se_activation { M2SE_GELU, M2SE_QUICK_GELU };
/* How the tensors of a layer are called. */
enum m2se_naming { M2SE_NAMES_BERT, M2SE_NAMES_CLIP };

struct m2se_encoder_shape {
  uint32_t layers, hidden, heads, ffn; /* heads divides hidden */
  float eps;
  bool pre_norm;
  bool causal; /* a row sees itself and those before it; else all of its sequence */
  enum m2se_activation activation;
};

/* Reads a shape from a config.json's object: num_hidden_layers, hidden_size, num_attention_heads,
 * intermediate_size, layer_norm_eps, hidden_act ("gelu", "quick_gelu"). *shape holds what stands for a value
 * that is not there. M2SE_ETYPE, M2SE_ERANGE. */
struct m2se_json;
int m2se_encoder_configure(struct m2se_encoder_shape *shape, const struct m2se_json *config,
                           struct m2se_error *error);

struct m2se_encoder;

/* Reads the layers' tensors; stem: what their names begin with, such as "encoder.layer." Errors of folder.h.
 * *encoder is for m2se_encoder_free; NULL on failure. */
int m2se_encoder_load(struct m2se_encoder **encoder, const struct m2se_encoder_shape *shape,
                      struct m2se_folder *folder, enum m2se_naming naming, const char *stem,
                      struct m2se_error *error);
void m2se_encoder_free(struct m2se_encoder *encoder); /* NULL: nothing */
const struct m2se_encoder_shape *m2se_encoder_shape(const struct m2se_encoder *encoder);
size_t m2se_encoder_bytes(const struct m2se_encoder *encoder); /* of its weights */

struct m2se_encoder_scratch;

/* Memory for calls with at most rows_max rows in sequences of at most len_max. NULL: no memory. */
struct m2se_encoder_scratch *m2se_encoder_scratch_new(const struct m2se_encoder *encoder, uint32_t rows_max,
                                                      uint32_t len_max);
void m2se_encoder_scratch_free(struct m2se_encoder_scratch *scratch); /* NULL: nothing */
uint32_t m2se_encoder_rows_max(const struct m2se_encoder_scratch *scratch);

/* x [rows_max, hidden]: the caller writes the input here, and finds the result here. */
float *m2se_encoder_rows(struct m2se_encoder_scratch *scratch);
/* [rows_max, hidden] for the caller's own use between calls; run overwrites it. */
float *m2se_encoder_spare(struct m2se_encoder_scratch *scratch);

/* All layers over x. ptr [count + 1], ptr[0] == 0, every sequence of 1..len_max rows. pick NULL: x is the
 * last layer's output, a row for each. pick [count]: row ptr[s] + pick[s] of each sequence only, and x
 * becomes [count, hidden]. */
void m2se_encoder_run(const struct m2se_encoder *encoder, struct m2se_encoder_scratch *scratch,
                      const uint32_t *ptr, uint32_t count, const uint32_t *pick);

/* Floating-point operations of the products in such a call: two a multiplication and addition. */
double m2se_encoder_flops(const struct m2se_encoder *encoder, const uint32_t *ptr, uint32_t count,
                          bool picked);

#endif
