/* Parts of tokenizer.json that say how a tokenizer works. Only tokenizer_load.c includes this. Errors name
 * the field; what is not exactly as BERT or CLIP have it is M2SE_ERANGE. */
#ifndef M2SE_TOKENIZER_JSON_H
#define M2SE_TOKENIZER_JSON_H

#include "model/text/tokenizer_parts.h"

/* Sets *truth if the member is there and not null. */
int m2se_read_bool(const struct m2se_json *object, const char *key, bool *truth, struct m2se_error *error);
/* normalizer and pre_tokenizer of a WordPiece model. */
int m2se_read_bert_normalizer(struct m2se_tokenizer *tokenizer, const struct m2se_json *root,
                              struct m2se_error *error);
/* normalizer, pre_tokenizer and the model's options, without its vocabulary, of a BPE model. */
int m2se_read_clip_options(struct m2se_tokenizer *tokenizer, const struct m2se_json *root,
                           struct m2se_error *error);
/* post_processor: the ids around every text. */
int m2se_read_first_and_last(struct m2se_tokenizer *tokenizer, const struct m2se_json *post_processor,
                             struct m2se_error *error);

#endif
