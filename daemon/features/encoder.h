/* The models that make rows of texts and pictures: a BERT, and (if configured) a CLIP with its dictionary.
 *
 * A text's row is its BERT vector; a picture's is that of its best words, joined by blanks. One thread at a
 * time. */
#ifndef M2SED_ENCODER_H
#define M2SED_ENCODER_H

#include "daemon/features/side.h"

struct m2sed_encoder_settings {
  const char *text_model;  /* folder */
  const char *image_model; /* folder of a CLIP; "": none */
  const char *words;       /* file of its dictionary; with image_model */
  const char *templates;   /* around its words, separated by '|'; "": none */
  uint32_t words_per_image;
};

struct m2sed_encoder;

/* Reads all of it, which takes seconds (a dictionary that is new to the CLIP: longer). Errors name file,
 * tensor or field, and reason. */
int m2sed_encoder_new(struct m2sed_encoder **encoder, const struct m2sed_encoder_settings *settings,
                      struct m2se_error *error);
void m2sed_encoder_free(struct m2sed_encoder *encoder); /* NULL is allowed */
struct m2sed_embedder m2sed_encoder_embedder(struct m2sed_encoder *encoder);
/* For m2sed_store_options: what rows of each kind depend on. */
void m2sed_encoder_models(const struct m2sed_encoder *encoder,
                          uint8_t models[M2SED_CONTENT_KINDS][M2SED_MODEL_BYTES]);

#endif
